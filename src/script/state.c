/* SPDX-License-Identifier: MIT */
/*
 * state: the life of one Lua state. Its allocator counts and stops at the cap, so that a script that eats memory gets Lua's own
 * "not enough memory" and costs one request. The one protected call adds a traceback and makes a string of whatever was thrown; the text
 * for a handler that failed itself is kept ready in the registry, since nothing may be allocated outside a protected call.
 */
#include "script/state.h"

#include "base/mem.h"

static const char state_fallback_key; /* its address is the key in the registry */

static void *state_allocate(void *owner, void *ptr, size_t old_size, size_t new_size) {
    struct script *script = owner;
    if (!ptr)
        old_size = 0; /* Lua passes the kind of object here */
    if (new_size == 0) {
        mem_free(ptr);
        script->memory -= old_size;
        return NULL;
    }
    if (new_size > old_size && script->memory + (new_size - old_size) > script->memory_cap) {
        script->starved = true;
        return NULL;
    }
    void *fresh = mem_try_resize(ptr, new_size);
    if (!fresh) /* Lua believes that shrinking never fails */
        return new_size <= old_size ? ptr : NULL;
    script->memory = script->memory - old_size + new_size;
    return fresh;
}

static int state_open(lua_State *L) {
    lua_pushliteral(L, "error in the error handler");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_fallback_key);
    script_open_sandbox(L);
    script_open_library(L);
    script_open_actions(L);
    return 0;
}

struct script *script_new(size_t memory_cap) {
    struct script *script = mem_alloc(sizeof(*script));
    script->memory_cap = memory_cap;
    script->L = lua_newstate(state_allocate, script);
    if (!script->L) {
        mem_free(script);
        return NULL;
    }
    *(struct script **)lua_getextraspace(script->L) = script;
    lua_pushcfunction(script->L, state_open);
    if (script_call(script, 0, 0) != LUA_OK)
        script_free(&script);
    return script;
}

void script_free(struct script **script) {
    if (!*script)
        return;
    lua_close((*script)->L);
    mem_free((*script)->functions);
    mem_free(*script);
    *script = NULL;
}

struct script *script_of(lua_State *L) { return *(struct script **)lua_getextraspace(L); }

static int state_on_error(lua_State *L) {
    if (lua_type(L, 1) != LUA_TSTRING) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
            lua_replace(L, 1);
        else {
            lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
            lua_replace(L, 1);
        }
    }
    lua_settop(L, 1);
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

int script_call(struct script *script, int nargs, int nresults) {
    lua_State *L = script->L;
    int base = lua_gettop(L) - nargs; /* where the function is */
    lua_pushcfunction(L, state_on_error);
    lua_insert(L, base);
    int status = lua_pcall(L, nargs, nresults, base);
    lua_remove(L, base);
    if (status != LUA_OK && lua_type(L, -1) != LUA_TSTRING) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &state_fallback_key);
        lua_replace(L, -2);
    }
    return status;
}

unsigned script_keep_function(struct script *script) {
    if (script->function_count == script->function_cap) {
        unsigned cap = script->function_cap ? script->function_cap * 2 : 16;
        script->functions = mem_resize(script->functions, cap * sizeof(*script->functions));
        script->function_cap = cap;
    }
    int ref = luaL_ref(script->L, LUA_REGISTRYINDEX);
    script->functions[script->function_count] = ref;
    return script->function_count++;
}

void script_push_function(struct script *script, unsigned index) {
    lua_rawgeti(script->L, LUA_REGISTRYINDEX, script->functions[index]);
}
