/* SPDX-License-Identifier: MIT */
/*
 * declare: the words of a file. `pool "chat" { ... }` is two calls: the first takes the name and returns a function, the second takes the
 * table; a first call without its second is found at the end. In the loader's state a word reads its table into the configuration; in all
 * other states (replay) only routes and hooks matter, and they only bind functions, each compared with the label that the loader kept.
 */
#include "script/declare.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"

#define DECLARE_NAME_MAX 64

typedef void declare_word_fn(lua_State *L, int index, const char *name, struct config_place place);

static void declare_call_settings(lua_State *L, int index, const char *name, struct config_place place) {
    (void)name;
    declare_settings(L, index, place);
}

static const struct declare_word {
    const char *word;
    enum { DECLARE_UNNAMED, DECLARE_NAMED, DECLARE_EITHER } naming;
    declare_word_fn *read;
    bool replayed; /* also in the other states */
} declare_words[] = {
    {"settings", DECLARE_UNNAMED, declare_call_settings, false},
    {"listener", DECLARE_NAMED, declare_listener, false},
    {"pool", DECLARE_NAMED, declare_pool, false},
    {"probe", DECLARE_EITHER, declare_probe, false},
    {"route", DECLARE_NAMED, declare_route, true},
};

void declare_init(struct script_declare *declare, struct script *script, struct script_load *writable, const struct script_load *load) {
    *declare = (struct script_declare){.script = script, .load = load, .writable = writable, .deadline_ms = 0};
    declare->config = writable ? writable->config : NULL;
    buf_init(&declare->chunk, 256u * 1024 * 1024);
    script->declare = declare;
    script->load = load;
    script->loading = true;
}

void declare_fini(struct script_declare *declare) {
    for (unsigned i = 0; i < declare->pending_count; i++) {
        mem_free(declare->pending[i]->name);
        mem_free(declare->pending[i]);
    }
    for (unsigned i = 0; i < declare->global_count; i++)
        mem_free(declare->globals[i].name);
    for (unsigned i = 0; i < declare->known_count; i++)
        mem_free(declare->known[i]);
    for (unsigned i = 0; i < DECLARE_HOOKS; i++)
        mem_free(declare->hooks[i].list);
    mem_free(declare->pending);
    mem_free(declare->globals);
    mem_free(declare->known);
    mem_free(declare->listeners);
    mem_free(declare->pools);
    mem_free(declare->routes);
    buf_release(&declare->chunk);
    load_report_fini(&declare->report);
    declare->script->declare = NULL;
    declare->script->loading = false;
}

struct script_declare *declare_of(lua_State *L) {
    struct script *script = script_of(L);
    if (!script->loading || !script->declare)
        luaL_error(L, "declarations are for loading only, not for functions that run later");
    return script->declare;
}

void declare_report(struct script_declare *declare, struct config_place place, bool is_error, const char *text) {
    load_report_add(&declare->report, place, is_error, text);
}

struct config_place declare_place(lua_State *L) {
    struct script_declare *declare = declare_of(L);
    lua_Debug info;
    for (int level = 0; lua_getstack(L, level, &info); level++) {
        if (lua_getinfo(L, "Sl", &info) && info.currentline > 0) {
            const char *file = *info.source == '@' ? info.source + 1 : info.short_src;
            unsigned i = load_report_file(&declare->report, file);
            return (struct config_place){.file = declare->report.files[i], .line = info.currentline};
        }
    }
    return (struct config_place){.file = declare->load->file};
}

void *declare_grow(void **list, unsigned *count, size_t size) {
    if ((*count & (*count - 1)) == 0) /* a power of two, or 0: full, as it doubles there */
        *list = mem_resize(*list, (*count ? (size_t)*count * 2 : 1) * size);
    char *element = (char *)*list + *count * size;
    memset(element, 0, size);
    (*count)++;
    return element;
}

bool declare_is_function(lua_State *L, int index) { return lua_isfunction(L, index) && !lua_iscfunction(L, index); }

unsigned declare_bind(lua_State *L, const char *label) {
    struct script_declare *declare = declare_of(L);
    struct script_load *load = declare->writable;
    unsigned index = declare->script->function_count;
    if (load) {
        if (load->label_count == load->label_cap) {
            load->label_cap = load->label_cap ? load->label_cap * 2 : 16;
            load->labels = mem_resize(load->labels, load->label_cap * sizeof(*load->labels));
        }
        load->labels[load->label_count++] = mem_strdup(label);
    } else if (index >= declare->load->label_count || strcmp(declare->load->labels[index], label) != 0) {
        char text[256];
        snprintf(text, sizeof(text), "%s: not what the first load declared here (%s): does the file depend on something that changes?",
                 label, index < declare->load->label_count ? declare->load->labels[index] : "nothing");
        declare_report(declare, declare_place(L), true, text);
        luaL_error(L, "%s", text);
    }
    return script_keep_function(declare->script);
}

char *declare_path(struct option_reader *reader, const char *path) {
    const char *folder = *path == '/' ? "" : reader->declare->load->folder;
    struct span whole = arena_printf(reader->arena, "%s%s", folder, path);
    if (!whole.p)
        luaL_error(reader->L, "the configuration is too large for its memory");
    return (char *)(uintptr_t)whole.p;
}

void declare_start_reader(struct option_reader *reader, lua_State *L, const char *subject, struct config_place place) {
    *reader = (struct option_reader){.declare = declare_of(L), .L = L, .place = place, .subject = subject};
    reader->arena = &reader->declare->config->memory;
}

/* Upvalues of the function that waits for a table: the pending declaration, the word. */
static int declare_take_table(lua_State *L) {
    struct script_declare *declare = declare_of(L);
    struct declare_pending *pending = lua_touserdata(L, lua_upvalueindex(1));
    const struct declare_word *word = lua_touserdata(L, lua_upvalueindex(2));
    bool again = pending->done;
    pending->done = true;
    if (again)
        return script_mistake(L, "%s \"%s\": declared twice", word->word, pending->name);
    if (lua_type(L, 1) != LUA_TTABLE) {
        if (script_is_mistake(L, 1))
            return 0;
        return script_mistake(L, "%s \"%s\": expected a table, got a %s", word->word, pending->name, luaL_typename(L, 1));
    }
    lua_settop(L, 1);
    if (declare->writable || word->replayed)
        word->read(L, 1, pending->name, pending->place);
    lua_settop(L, 1);
    return word->naming == DECLARE_EITHER;
}

static bool declare_name_valid(struct span name) {
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] <= 0x20 || name.p[i] == 0x7f || name.p[i] == '"' || name.p[i] == '\\')
            return false;
    return name.n > 0 && name.n <= DECLARE_NAME_MAX;
}

static int declare_take_name(lua_State *L, struct script_declare *declare, const struct declare_word *word) {
    struct span name;
    name.p = lua_tolstring(L, 1, &name.n);
    if (!declare_name_valid(name))
        return script_mistake(L, "%s \"%.80s\": a name has 1 to %d characters without spaces and quotes", word->word, name.p,
                              DECLARE_NAME_MAX);
    struct declare_pending *pending = mem_alloc(sizeof(*pending));
    declare->pending = mem_resize(declare->pending, (declare->pending_count + 1) * sizeof(struct declare_pending *));
    declare->pending[declare->pending_count++] = pending;
    pending->word = word->word;
    pending->name = mem_strndup(name.p, name.n);
    pending->place = declare_place(L);
    lua_pushlightuserdata(L, pending);
    lua_pushlightuserdata(L, (void *)(uintptr_t)word);
    lua_pushcclosure(L, declare_take_table, 2);
    return 1;
}

static int declare_call_word(lua_State *L) {
    const struct declare_word *word = &declare_words[lua_tointeger(L, lua_upvalueindex(1))];
    const struct script *script = script_of(L);
    if (!script->loading)
        return luaL_error(L, "%s is for loading only, not for functions that run later", word->word);
    struct script_declare *declare = declare_of(L);
    if (lua_type(L, 1) == LUA_TSTRING && word->naming != DECLARE_UNNAMED)
        return declare_take_name(L, declare, word);
    if (script_is_mistake(L, 1)) {
        lua_settop(L, 1);
        return 1;
    }
    if (lua_type(L, 1) == LUA_TTABLE && word->naming != DECLARE_NAMED) {
        lua_settop(L, 1);
        if (declare->writable || word->replayed)
            word->read(L, 1, NULL, declare_place(L));
        lua_settop(L, 1);
        return word->naming == DECLARE_EITHER;
    }
    if (word->naming == DECLARE_UNNAMED)
        return script_mistake(L, "%s: expected a table: %s { ... }", word->word, word->word);
    return script_mistake(L, "%s: a name is missing: %s \"name\" { ... }", word->word, word->word);
}

static const char *const declare_hook_words[DECLARE_HOOKS] = {"on_response", "on_open", "on_close"};

/* on_response(fn) and its like. */
static int declare_call_hook(lua_State *L) {
    lua_Integer which = lua_tointeger(L, lua_upvalueindex(1));
    const char *word = declare_hook_words[which];
    const struct script *script = script_of(L);
    if (!script->loading)
        return luaL_error(L, "%s is for loading only, not for functions that run later", word);
    if (script_is_mistake(L, 1))
        return 0;
    if (lua_isnone(L, 1))
        return script_mistake(L, "%s: a function is missing: %s(function(...) ... end)", word, word);
    if (!declare_is_function(L, 1))
        return script_mistake(L, "%s: expected a function%s, got a %s", word, lua_isfunction(L, 1) ? " of your own" : "", luaL_typename(L, 1));
    struct declare_hooks *hooks = &declare_of(L)->hooks[which];
    char label[64];
    snprintf(label, sizeof(label), "%s %u", word, hooks->count + 1);
    lua_settop(L, 1);
    unsigned function = declare_bind(L, label);
    void *list = hooks->list;
    unsigned *entry = declare_grow(&list, &hooks->count, sizeof(*hooks->list));
    hooks->list = list;
    *entry = function;
    return 0;
}

void script_open_words(lua_State *L) {
    for (size_t i = 0; i < ARRAY_LEN(declare_words); i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, declare_call_word, 1);
        lua_setglobal(L, declare_words[i].word);
    }
    for (size_t i = 0; i < DECLARE_HOOKS; i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, declare_call_hook, 1);
        lua_setglobal(L, declare_hook_words[i]);
    }
    words_open(L);
}
