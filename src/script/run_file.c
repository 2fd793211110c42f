/* SPDX-License-Identifier: MIT */
/*
 * run_file: compiles one file, scans it for globals, runs it. A file that does not compile or throws is one mistake, and the file that
 * included it goes on. While loading, a global that nobody has set yet reads as the value that swallows every use, so that one
 * misspelt word does not hide the mistakes behind it; the scan says its name and line.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

/* Of later versions of the language. */
static const char *const globals_later[] = {"http", "json", "crypto", "base64", "dict", "limit", "slots", "every", "tcp", "sleep",
                                            "dns", "redis", "spawn", "all", "first", NULL};
/* Lua's, taken out by the sandbox. */
static const char *const globals_removed[] = {"io", "debug", "coroutine", "package", "dofile", "loadfile", "collectgarbage", "rawset",
                                              "warn", NULL};

static bool globals_listed(const char *const *list, const char *name) {
    for (; *list; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

static bool globals_known(const struct script_declare *declare, const char *name) {
    for (unsigned i = 0; i < declare->known_count; i++)
        if (strcmp(declare->known[i], name) == 0)
            return true;
    return false;
}

/* True for what every file finds in _G before it declares anything, or what earlier files have set there. */
static bool globals_present(lua_State *L, const char *name) {
    lua_pushglobaltable(L);
    lua_pushstring(L, name);
    bool present = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 2);
    return present;
}

static void globals_remember(struct script_declare *declare, const char *name, struct config_place place, bool set, bool early) {
    if (declare->global_count == declare->global_cap) {
        declare->global_cap = declare->global_cap ? declare->global_cap * 2 : 16;
        declare->globals = mem_resize(declare->globals, declare->global_cap * sizeof(*declare->globals));
    }
    declare->globals[declare->global_count++] =
        (struct declare_global){.name = mem_strdup(name), .place = place, .set = set, .early = early};
}

/* What the scan of one file needs. */
struct run_file {
    lua_State *L;
    struct script_declare *declare;
    const char *path; /* the report's copy */
};

static void run_file_on_global(void *owner, const struct globals_use *use) {
    struct run_file *run = owner;
    struct script_declare *declare = run->declare;
    char *name = mem_strndup(use->name, use->n);
    if (use->set && use->top) {
        if (!globals_known(declare, name)) {
            declare->known = mem_resize(declare->known, (declare->known_count + 1) * sizeof(*declare->known));
            declare->known[declare->known_count++] = mem_strdup(name);
        }
    } else
        globals_remember(declare, name, (struct config_place){.file = run->path, .line = use->line}, use->set, false);
    mem_free(name);
}

static int run_file_write(lua_State *L, const void *data, size_t n, void *owner) {
    (void)L;
    return !buf_append(owner, data, n);
}

static void run_file_scan(lua_State *L, struct script_declare *declare, const char *path) {
    char error[160] = "out of memory";
    struct run_file run = {.L = L, .declare = declare};
    run.path = declare->report.files[load_report_file(&declare->report, path)];
    buf_release(&declare->chunk);
    bool dumped = lua_dump(L, run_file_write, &declare->chunk, 0) == 0;
    struct span chunk = buf_span(&declare->chunk);
    if (!dumped || !globals_scan(chunk.p, chunk.n, run_file_on_global, &run, error, sizeof(error)))
        declare_report(declare, (struct config_place){.file = run.path}, true, error);
    buf_release(&declare->chunk);
}

/* Past a byte order mark and a first line that starts with '#' (its newline stays, for the count of lines). */
static struct span run_file_skip(struct span text) {
    if (str_starts(text, SPAN("\xef\xbb\xbf")))
        text = span_make(text.p + 3, text.n - 3);
    if (text.n > 0 && *text.p == '#') {
        const char *end = memchr(text.p, '\n', text.n);
        text = end ? span_make(end, (size_t)(text.p + text.n - end)) : SPAN("");
    }
    return text;
}

bool words_run_file(lua_State *L, const char *path, const char *bytes, size_t n) {
    struct script_declare *declare = declare_of(L);
    struct span text = run_file_skip(span_make(bytes, n));
    load_report_file(&declare->report, path);
    luaL_checkstack(L, 8, "too deep");
    lua_pushfstring(L, "@%s", path);
    int status = luaL_loadbufferx(L, text.p, text.n, lua_tostring(L, -1), "t");
    lua_remove(L, -2);
    if (status == LUA_OK) {
        if (declare->writable)
            run_file_scan(L, declare, path);
        status = lua_pcall(L, 0, 1, 0);
    }
    if (status == LUA_OK)
        return true;
    if (lua_type(L, -1) != LUA_TSTRING) {
        lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, -1));
        lua_remove(L, -2);
    }
    load_report_add_lua(&declare->report, path, lua_tostring(L, -1));
    declare->aborted = true;
    lua_pop(L, 1);
    return false;
}

/* _G's __index while the loader runs: a global that is not there. */
static int globals_missing(lua_State *L) {
    const struct script *script = script_of(L);
    struct script_declare *declare = script->loading ? script->declare : NULL;
    if (!declare || !declare->writable || lua_type(L, 2) != LUA_TSTRING || globals_known(declare, lua_tostring(L, 2))) {
        lua_pushnil(L);
        return 1;
    }
    globals_remember(declare, lua_tostring(L, 2), declare_place(L), false, true);
    declare_push_mistake(L);
    return 1;
}

void words_open_globals(lua_State *L) {
    lua_pushglobaltable(L);
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, globals_missing);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}

static void globals_report(struct script_declare *declare, const struct declare_global *global, const char **names) {
    char text[256];
    const char *nearest = str_nearest(global->name, names);
    if (globals_listed(globals_later, global->name))
        snprintf(text, sizeof(text), "\"%s\" is not in this version", global->name);
    else if (globals_listed(globals_removed, global->name))
        snprintf(text, sizeof(text), "\"%s\" is not part of the rule language", global->name);
    else if (global->set)
        snprintf(text, sizeof(text), "global \"%.80s\" is set in a function and declared nowhere (is a \"local\" missing?)", global->name);
    else if (nearest)
        snprintf(text, sizeof(text), "unknown global \"%.80s\" (did you mean \"%.80s\"?)", global->name, nearest);
    else
        snprintf(text, sizeof(text), "unknown global \"%.80s\"", global->name);
    declare_report(declare, global->place, true, text);
}

/* All names there are, in the arena, ended by NULL. */
static const char **globals_names(lua_State *L, struct script_declare *declare) {
    lua_pushglobaltable(L);
    script_push_sorted_keys(L, -1);
    size_t count = lua_rawlen(L, -1), n = 0;
    const char **names = arena_alloc(&declare->config->memory, (count + declare->known_count + 1) * sizeof(*names));
    if (!names)
        luaL_error(L, "the configuration is too large for its memory");
    for (size_t i = 1; i <= count; i++) {
        if (lua_rawgeti(L, -1, (lua_Integer)i) == LUA_TSTRING)
            names[n++] = lua_tostring(L, -1); /* _G keeps it alive */
        lua_pop(L, 1);
    }
    for (unsigned i = 0; i < declare->known_count; i++)
        names[n++] = declare->known[i];
    names[n] = NULL;
    lua_pop(L, 2);
    return names;
}

void words_check_globals(struct script_declare *declare) {
    lua_State *L = declare->script->L;
    const char **names = globals_names(L, declare);
    for (unsigned i = 0; i < declare->global_count; i++) {
        struct declare_global *global = &declare->globals[i];
        bool known = globals_known(declare, global->name);
        char text[200];
        if (global->early && known)
            snprintf(text, sizeof(text), "global \"%.80s\" is used before it is set", global->name);
        else if (global->set && (known || globals_present(L, global->name)))
            snprintf(text, sizeof(text), "global \"%.80s\" is set in a function: globals are read-only after the load", global->name);
        else {
            if (!known && !globals_present(L, global->name))
                globals_report(declare, global, names);
            continue;
        }
        declare_report(declare, global->place, global->early, text);
    }
}
