/* SPDX-License-Identifier: MIT */
/*
 * words: env, readfile, include, require and strict, which read things while loading. Whatever they read comes from the load's snapshot, so
 * that the states of all workers get the same. What is missing is a mistake that lets the file go on (script_mistake()).
 */
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

#define WORDS_INCLUDE_MAX 16 /* files that include files */
#define WORDS_MODULES "moongate.modules"

/* The loader reads and keeps; other states look up. .data NULL where there is none. */
static struct load_source words_source(const struct script_declare *declare, enum load_source_kind kind, const char *key) {
    const struct load_source *source =
        declare->writable ? load_source_get(declare->writable, kind, key) : load_source_find(declare->load, kind, key);
    return source ? *source : (struct load_source){.kind = kind};
}

/* Pushes the variable's value; false when it is not set. Functions that run later see what the load saw, or the environment. */
static bool words_push_variable(lua_State *L, const char *name) {
    const struct script *script = script_of(L);
    const char *value = NULL;
    if (script->loading)
        value = words_source(script->declare, LOAD_SOURCE_ENV, name).data;
    else {
        const struct load_source *source = script->load ? load_source_find(script->load, LOAD_SOURCE_ENV, name) : NULL;
        value = source ? source->data : getenv(name);
    }
    if (value)
        lua_pushstring(L, value);
    return value != NULL;
}

/* env.NAME */
static int words_env_index(lua_State *L) {
    const char *name = luaL_checkstring(L, 2);
    if (words_push_variable(L, name))
        return 1;
    return script_mistake(L, "env.%.80s is not set (env(\"%.80s\", default) where it may be missing)", name, name);
}

/* env("NAME", default) */
static int words_env_call(lua_State *L) {
    const char *name = luaL_checkstring(L, 2);
    lua_settop(L, 3);
    if (words_push_variable(L, name))
        return 1;
    if (!lua_isnil(L, 3))
        return 1;
    return script_mistake(L, "env(\"%.80s\") is not set and has no default", name);
}

static int words_env_set(lua_State *L) { return luaL_error(L, "env is read-only"); }

static struct script_declare *words_loading(lua_State *L, const char *word) {
    const struct script *script = script_of(L);
    if (!script->loading)
        luaL_error(L, "%s works while loading only: keep what it gives in a local", word);
    return script->declare;
}

/* The file's bytes by a path relative to the configuration file's folder; pushes the whole path. */
static struct load_source words_file(lua_State *L, const struct script_declare *declare, const char *path) {
    lua_pushfstring(L, "%s%s", *path == '/' ? "" : declare->load->folder, path);
    return words_source(declare, LOAD_SOURCE_FILE, lua_tostring(L, -1));
}

static int words_readfile(lua_State *L) {
    struct script_declare *declare = words_loading(L, "readfile");
    if (script_is_mistake(L, 1))
        return 1;
    if (lua_type(L, 1) != LUA_TSTRING)
        return script_mistake(L, "readfile: expected a path, got a %s", luaL_typename(L, 1));
    struct load_source file = words_file(L, declare, lua_tostring(L, 1));
    if (!file.data)
        return script_mistake(L, "readfile: cannot read \"%.200s\": %s", lua_tostring(L, -1), strerrordesc_np(file.error));
    lua_pushlstring(L, file.data, file.n);
    return 1;
}

static int words_include(lua_State *L) {
    struct script_declare *declare = words_loading(L, "include");
    if (script_is_mistake(L, 1))
        return 0;
    if (lua_type(L, 1) != LUA_TSTRING)
        return script_mistake(L, "include: expected a path or a pattern, got a %s", luaL_typename(L, 1));
    const char *pattern = lua_tostring(L, 1);
    if (declare->include_depth >= WORDS_INCLUDE_MAX)
        return script_mistake(L, "include: \"%.200s\": files include each other more than %d deep", pattern, WORDS_INCLUDE_MAX);
    struct load_source found = words_source(declare, LOAD_SOURCE_GLOB, pattern);
    if (!found.data && !strpbrk(pattern, "*?["))
        return script_mistake(L, "include: there is no file \"%.200s\"", pattern);
    if (!found.data)
        declare_report(declare, declare_place(L), false, lua_pushfstring(L, "include: no file matches \"%s\"", pattern));
    declare->include_depth++;
    for (size_t at = 0; at < found.n; at += strlen(found.data + at) + 1) {
        const char *path = found.data + at;
        struct load_source file = words_source(declare, LOAD_SOURCE_FILE, path);
        if (!file.data)
            script_mistake(L, "include: cannot read \"%.200s\": %s", path, strerrordesc_np(file.error));
        else
            words_run_file(L, path, file.data, file.n);
        lua_settop(L, 1);
    }
    declare->include_depth--;
    return 0;
}

static bool words_module_name(const char *name) {
    for (const char *p = name; *p; p++)
        if (!str_is_tchar((unsigned char)*p) || (p[0] == '.' && (p[1] == '.' || p[1] == '\0' || p == name)))
            return false;
    return *name != '\0' && strlen(name) <= 100;
}

static int words_run_module(lua_State *L, struct script_declare *declare, const char *name) {
    struct load_source found = words_source(declare, LOAD_SOURCE_REQUIRE, name);
    if (!found.data)
        return script_mistake(L, "require: no module \"%s\" beside the file or among those that ship", name);
    struct load_source file = words_source(declare, LOAD_SOURCE_FILE, found.data);
    if (!file.data)
        return script_mistake(L, "require: cannot read \"%.200s\": %s", found.data, strerrordesc_np(file.error));
    if (!words_run_file(L, found.data, file.data, file.n)) {
        declare_push_mistake(L);
        return 1;
    }
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, true);
    }
    return 1;
}

static int words_require(lua_State *L) {
    if (script_is_mistake(L, 1))
        return 1;
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, WORDS_MODULES);
    if (lua_getfield(L, 2, name) != LUA_TNIL) {
        if (lua_isboolean(L, -1) && !lua_toboolean(L, -1))
            return script_mistake(L, "require: module \"%.100s\" requires itself", name);
        return 1;
    }
    struct script_declare *declare = words_loading(L, "require");
    if (!words_module_name(name))
        return script_mistake(L, "require: \"%.100s\" is no name of a module", name);
    lua_pushboolean(L, false);
    lua_setfield(L, 2, name);
    words_run_module(L, declare, name);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

/* An unknown field of a strict table. Integer keys are nil, so that ipairs ends. */
static int words_strict_index(lua_State *L) {
    if (lua_isinteger(L, 2)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_tolstring(L, 2, NULL);
    const char *field = lua_tostring(L, -1);
    script_push_sorted_keys(L, 1);
    const char *names[33];
    size_t count = 0;
    for (lua_Integer i = 1; count < 32 && lua_rawgeti(L, 4, i) != LUA_TNIL; i++) {
        if (lua_type(L, -1) == LUA_TSTRING)
            names[count++] = lua_tostring(L, -1); /* the table keeps it alive */
        lua_pop(L, 1);
    }
    names[count] = NULL;
    const char *nearest = str_nearest(field, names);
    if (nearest)
        return script_mistake(L, "strict: no field \"%.80s\" (did you mean \"%.80s\"?)", field, nearest);
    return script_mistake(L, "strict: no field \"%.80s\"", field);
}

static int words_strict(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1))
        return luaL_error(L, "strict: the table has a metatable already");
    lua_createtable(L, 0, 2);
    lua_pushcfunction(L, words_strict_index);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, 1);
    return 1;
}

static void words_open_env(lua_State *L) {
    static const luaL_Reg methods[] = {{"__index", words_env_index}, {"__call", words_env_call}, {"__newindex", words_env_set}, {NULL, NULL}};
    lua_newuserdatauv(L, 0, 0);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_setglobal(L, "env");
}

void words_open(lua_State *L) {
    static const luaL_Reg words[] = {{"readfile", words_readfile}, {"include", words_include}, {"require", words_require},
                                     {"strict", words_strict}, {NULL, NULL}};
    for (const luaL_Reg *word = words; word->name; word++) {
        lua_pushcfunction(L, word->func);
        lua_setglobal(L, word->name);
    }
    words_open_env(L);
    words_open_globals(L);
}
