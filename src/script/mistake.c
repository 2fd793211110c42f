/* SPDX-License-Identifier: MIT */
/*
 * mistake: what a call with a mistake returns while loading, so that the file goes on and the next mistakes are seen too: a value that can
 * be called, indexed, joined and compared, and gives itself. Readers of options know it and say nothing more. It never leaves a load, since
 * a load with mistakes fails. The subtle thing: its length is 0 and its integer keys are nil, so that loops over it end.
 */
#include <stdio.h>

#include "script/declare.h"

static const char mistake_key; /* in the registry: the value itself */

static void mistake_push(lua_State *L) { lua_rawgetp(L, LUA_REGISTRYINDEX, &mistake_key); }

static int mistake_give(lua_State *L) {
    mistake_push(L);
    return 1;
}

static int mistake_index(lua_State *L) {
    if (lua_isinteger(L, 2))
        lua_pushnil(L);
    else
        mistake_push(L);
    return 1;
}

static int mistake_ignore(lua_State *L) {
    (void)L;
    return 0;
}

static int mistake_true(lua_State *L) {
    lua_pushboolean(L, true);
    return 1;
}

static int mistake_length(lua_State *L) {
    lua_pushinteger(L, 0);
    return 1;
}

static int mistake_text(lua_State *L) {
    lua_pushliteral(L, "(mistake)");
    return 1;
}

static void mistake_make(lua_State *L) {
    static const char *const give[] = {"__call", "__concat", "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm",
                                       "__idiv", "__band", "__bor", "__bxor", "__shl", "__shr", "__bnot", NULL};
    static const luaL_Reg other[] = {{"__index", mistake_index}, {"__newindex", mistake_ignore}, {"__close", mistake_ignore},
                                     {"__lt", mistake_true}, {"__le", mistake_true}, {"__len", mistake_length},
                                     {"__tostring", mistake_text}, {NULL, NULL}};
    lua_newuserdatauv(L, 1, 0);
    lua_newtable(L);
    for (const char *const *name = give; *name; name++) {
        lua_pushcfunction(L, mistake_give);
        lua_setfield(L, -2, *name);
    }
    luaL_setfuncs(L, other, 0);
    lua_setmetatable(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &mistake_key);
}

void declare_push_mistake(lua_State *L) {
    mistake_push(L);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        mistake_make(L);
        mistake_push(L);
    }
}

bool script_is_mistake(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TUSERDATA)
        return false;
    index = lua_absindex(L, index);
    mistake_push(L);
    bool same = lua_rawequal(L, -1, index);
    lua_pop(L, 1);
    return same;
}

void script_warn_seconds(lua_State *L, const char *what, double seconds) {
    const struct script *script = script_of(L);
    if (!script->loading || !script->declare || !(seconds > 1000))
        return;
    char hint[OPTION_SECONDS_MAX], text[OPTION_SECONDS_MAX + 80];
    snprintf(text, sizeof(text), "%.64s: %s", what, option_seconds_text(seconds, hint));
    declare_report(script->declare, declare_place(L), false, text);
}

int script_mistake(lua_State *L, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct script *script = script_of(L);
    if (!script->loading || !script->declare)
        return luaL_error(L, "%s", text);
    declare_report(script->declare, declare_place(L), true, text);
    declare_push_mistake(L);
    return 1;
}
