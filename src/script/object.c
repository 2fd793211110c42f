/* SPDX-License-Identifier: MIT */
/*
 * Userdata types and checked texts. A type is a static address: the registry holds its metatable under it, and the metatable's first
 * element is that address again, so that a test costs no hash. Metatables are hidden from Lua by __metatable: that is why the __index
 * functions may trust their first argument. Header names are checked against the framing flags of wire/http.h, so that no script can
 * touch what delimits a message.
 */
#include "script/object.h"

#include "base/str.h"

void script_object_type(lua_State *L, const void *key, const char *name) {
    lua_createtable(L, 1, 4);
    lua_pushlightuserdata(L, (void *)(uintptr_t)key);
    lua_rawseti(L, -2, 1);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void *script_object_test(lua_State *L, int index, const void *key) {
    void *object = lua_touserdata(L, index);
    if (!object || !lua_getmetatable(L, index)) /* light userdata have no metatable here */
        return NULL;
    lua_rawgeti(L, -1, 1);
    bool same = lua_touserdata(L, -1) == key;
    lua_pop(L, 2);
    return same ? object : NULL;
}

void script_object_bless(lua_State *L, const void *key) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    lua_setmetatable(L, -2);
}

void script_object_members(lua_State *L, const char *const *fields, const luaL_Reg *methods) {
    for (lua_Integer i = 0; fields && fields[i]; i++) {
        lua_pushinteger(L, i + 1);
        lua_setfield(L, -2, fields[i]);
    }
    if (methods)
        luaL_setfuncs(L, methods, 0);
}

int script_object_unknown(lua_State *L, const char *what, int key, const char *const *fields, const luaL_Reg *methods) {
    if (lua_type(L, key) != LUA_TSTRING)
        return luaL_error(L, "%s has no field of type %s", what, luaL_typename(L, key));
    const char *name = lua_tostring(L, key);
    const char *names[64];
    size_t count = 0;
    for (; fields && *fields && count < 48; fields++)
        names[count++] = *fields;
    for (; methods && methods->name && count < 63; methods++)
        names[count++] = methods->name;
    names[count] = NULL;
    const char *near = str_nearest(name, names);
    if (near)
        return luaL_error(L, "%s has no field '%s' (did you mean '%s'?)", what, name, near);
    return luaL_error(L, "%s has no field '%s'", what, name);
}

struct span script_check_text(lua_State *L, int index) {
    struct span text;
    text.p = luaL_checklstring(L, index, &text.n);
    return text;
}

struct span script_copy_text(lua_State *L, struct arena *arena, struct span text) {
    struct span copy = arena_dup(arena, text);
    if (!copy.p)
        luaL_error(L, "the request's memory is used up");
    return copy;
}

void script_push_span(lua_State *L, struct span text) {
    if (text.p)
        lua_pushlstring(L, text.p, text.n);
    else
        lua_pushnil(L);
}

void script_check_header_name(lua_State *L, struct span name) {
    static const uint8_t flags[HTTP_FIELD_COUNT] = {
#define OBJECT_FIELD_FLAGS(id, text, value) [HTTP_FIELD_##id] = (value),
        HTTP_FIELDS(OBJECT_FIELD_FLAGS)
#undef OBJECT_FIELD_FLAGS
    };
    if (!http_valid_name(name)) {
        lua_pushlstring(L, name.p, name.n);
        luaL_error(L, "'%s' is not a valid header name", lua_tostring(L, -1));
    }
    enum http_field_id id = http_field_id(name);
    if (id == HTTP_FIELD_HOST)
        luaL_error(L, "the host header is changed by req:set_host(name), not as a header");
    if (id == HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL)
        luaL_error(L, "sec-websocket-protocol cannot be edited; narrow it with req.ws:only{...} or req.ws:take(name)");
    if (id == HTTP_FIELD_SEC_WEBSOCKET_VERSION || (flags[id] & (HTTP_FRAMING | HTTP_HOP)))
        luaL_error(L, "%s cannot be edited: it belongs to the connection or to the framing", http_field_name(id));
}

struct span script_check_header_value(lua_State *L, struct span name, struct span value) {
    value = str_trim(value);
    if (!http_valid_value(value)) {
        lua_pushlstring(L, name.p, name.n);
        luaL_error(L, "the value of header '%s' holds CR, LF, NUL or another control character", lua_tostring(L, -1));
    }
    return value;
}
