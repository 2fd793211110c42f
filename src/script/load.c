/* SPDX-License-Identifier: MIT */
/*
 * load: one load from the first byte to a validated configuration, and its replay in other states. Everything that touches Lua runs under one
 * protected call; what it allocates outside Lua hangs on the load or on its declarations, so that an error leaks nothing. A file may not
 * load for ever: a count hook looks at the clock, and once the time is up it ends every further instruction, also behind pcall.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

#define LOAD_MEMORY_MAX ((size_t)512 << 20) /* of the loader's state */
#define LOAD_DEADLINE_MS 30000u
#define LOAD_HOOK_COUNT 100000 /* instructions between looks at the clock */

static void load_on_count(lua_State *L, lua_Debug *info) {
    (void)info;
    load_check_clock(L);
}

void load_check_clock(lua_State *L) {
    const struct script *script = script_of(L);
    if (!script->loading || !script->declare || clock_ms() < script->declare->deadline_ms)
        return;
    lua_sethook(L, load_on_count, LUA_MASKCOUNT | LUA_MASKCALL, 1);
    luaL_error(L, "loading takes longer than %d seconds", (int)(LOAD_DEADLINE_MS / 1000));
}

static void load_start_clock(struct script *script) {
    script->declare->deadline_ms = clock_ms() + LOAD_DEADLINE_MS;
    lua_sethook(script->L, load_on_count, LUA_MASKCOUNT, LOAD_HOOK_COUNT);
}

/* Runs the file; argument: its bytes as a light userdata. */
static int load_run(lua_State *L) {
    struct script_declare *declare = declare_of(L);
    const struct load_source *source = lua_touserdata(L, 1);
    struct load_source file = *source;
    script_open_words(L);
    load_start_clock(declare->script);
    words_run_file(L, declare->load->file, file.data, file.n);
    lua_sethook(L, NULL, 0, 0);
    if (declare->writable)
        declare_finish(L);
    return 0;
}

static int load_freeze(lua_State *L) {
    script_freeze(L);
    return 0;
}

/* The file in a fresh state; mistakes are in declare->report afterwards. */
static void load_into(struct script_declare *declare, const struct load_source *file) {
    struct script *script = declare->script;
    lua_pushcfunction(script->L, load_run);
    lua_pushlightuserdata(script->L, (void *)(uintptr_t)file);
    if (script_call(script, 1, 0) != LUA_OK) {
        lua_sethook(script->L, NULL, 0, 0);
        load_report_add_lua(&declare->report, declare->load->file, lua_tostring(script->L, -1));
        lua_pop(script->L, 1);
    }
    lua_pushcfunction(script->L, load_freeze);
    if (script_call(script, 0, 0) != LUA_OK) {
        load_report_add_lua(&declare->report, declare->load->file, lua_tostring(script->L, -1));
        lua_pop(script->L, 1);
    }
}

static struct script_load *load_new(const char *file) {
    struct script_load *load = mem_alloc(sizeof(*load));
    const char *slash = strrchr(file, '/');
    load->file = mem_strdup(file);
    load->folder = slash ? mem_strndup(file, (size_t)(slash - file) + 1) : mem_strdup("");
    load->time = time(NULL);
    load->config = config_new(file);
    return load;
}

void script_load_free(struct script_load **load) {
    struct script_load *old = *load;
    if (!old)
        return;
    *load = NULL;
    load_source_fini(old);
    for (unsigned i = 0; i < old->label_count; i++)
        mem_free(old->labels[i]);
    mem_free(old->labels);
    mem_free(old->errors);
    mem_free(old->file);
    mem_free(old->folder);
    config_free(&old->config);
    mem_free(old);
}

struct config *script_load_config(struct script_load *load) { return load->config; }

static void load_say(script_report_fn *report, void *owner, const char *file, const char *text) {
    char line[512];
    snprintf(line, sizeof(line), "%s: %s", file, text);
    if (report)
        report(owner, true, line);
}

static void load_on_add(void *adder, struct config_place place, bool is_error, const char *text) {
    declare_report(adder, place, is_error, text);
}

struct script_load *script_load_file(const char *file, script_report_fn *report, void *owner) {
    return script_load_look(file, report, NULL, owner);
}

struct script_load *script_load_look(const char *file, script_report_fn *report, script_look_fn *look, void *owner) {
    struct script_load *load = load_new(file);
    const struct load_source *source = load_source_get(load, LOAD_SOURCE_FILE, file);
    if (!source->data) {
        load_say(report, owner, file, strerrordesc_np(source->error));
        script_load_free(&load);
        return NULL;
    }
    struct script *script = script_new(LOAD_MEMORY_MAX);
    if (!script) {
        load_say(report, owner, file, "out of memory");
        script_load_free(&load);
        return NULL;
    }
    struct script_declare declare;
    declare_init(&declare, script, load, load);
    load_into(&declare, source);
    if (look && declare.finished)
        look(owner, load->config, load_on_add, &declare);
    load_report_flush(&declare.report, report, owner);
    bool failed = declare.report.errors > 0;
    declare_fini(&declare);
    script_free(&script);
    load->frozen = true;
    load->errors = mem_alloc_array(load->label_count + 1, sizeof(*load->errors));
    if (failed)
        script_load_free(&load);
    return load;
}

struct load_first {
    char *text;
    size_t size;
    bool found;
};

static void load_on_first(void *owner, bool is_error, const char *text) {
    struct load_first *first = owner;
    if (is_error && !first->found)
        snprintf(first->text, first->size, "%s", text);
    first->found = first->found || is_error;
}

struct script *script_load_replay(const struct script_load *load, char *error, size_t size) {
    const struct load_source *source = load_source_find(load, LOAD_SOURCE_FILE, load->file);
    struct script *script = script_new(load->config->settings.lua_memory);
    snprintf(error, size, "out of memory (lua_memory)");
    if (!script || !source) {
        script_free(&script);
        return NULL;
    }
    struct script_declare declare;
    script->config = load->config;
    declare_init(&declare, script, NULL, load);
    load_into(&declare, source);
    struct load_first first = {.text = error, .size = size};
    load_report_flush(&declare.report, load_on_first, &first);
    if (!first.found && script->function_count != load->label_count) {
        snprintf(error, size, "%s: not declared when the file was loaded again: does it depend on something that changes?",
                 load->labels[script->function_count]);
        first.found = true;
    }
    declare_fini(&declare);
    if (first.found)
        script_free(&script);
    else if (size)
        error[0] = '\0';
    return script;
}
