/* SPDX-License-Identifier: MIT */
/*
 * The header methods that `req` and `resp` share: header headers all_headers set_header add_header del_header. They
 * see the live fields only (deleted ones are skipped) and edit through wire/http.h, so that subject_restore() can
 * undo it. Texts are copied into the message's arena: the Lua strings may be collected long before the head is
 * written.
 */
#include "script/object.h"

#include "base/str.h"

static struct http_message *headers_self(lua_State *L) {
    struct http_message *message = script_test_response(L, 1);
    return message ? message : &script_check_request(L, 1)->head;
}

/* header(name): one value, or all joined; nil when absent. */
static int headers_get(lua_State *L) {
    struct http_message *message = headers_self(L);
    struct span name = script_check_text(L, 2);
    unsigned index = 0;
    struct http_field *first = http_next_name(message, name, &index);
    if (!first) {
        lua_pushnil(L); /* a value, not nothing: tostring(req:header(n)) wants one */
        return 1;
    }
    struct http_field *next = http_next_name(message, name, &index);
    if (!next) {
        lua_pushlstring(L, first->value.p, first->value.n);
        return 1;
    }
    const char *glue = first->id == HTTP_FIELD_COOKIE ? "; " : ", ";
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    luaL_addlstring(&out, first->value.p, first->value.n);
    for (; next; next = http_next_name(message, name, &index)) {
        luaL_addlstring(&out, glue, 2);
        luaL_addlstring(&out, next->value.p, next->value.n);
    }
    luaL_pushresult(&out);
    return 1;
}

/* headers(name): always an array. */
static int headers_list(lua_State *L) {
    struct http_message *message = headers_self(L);
    struct span name = script_check_text(L, 2);
    lua_newtable(L);
    unsigned index = 0;
    lua_Integer count = 0;
    for (struct http_field *field; (field = http_next_name(message, name, &index)) != NULL;) {
        lua_pushlstring(L, field->value.p, field->value.n);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

static void headers_push_lower(lua_State *L, struct span name) {
    luaL_Buffer out;
    char *to = luaL_buffinitsize(L, &out, name.n);
    for (size_t i = 0; i < name.n; i++)
        to[i] = str_lower(name.p[i]);
    luaL_pushresultsize(&out, name.n);
}

/* The iterator of all_headers(): self, place (upvalues) -> name in lower case, value. */
static int headers_next(lua_State *L) {
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    struct http_message *message = headers_self(L);
    lua_Integer place = lua_tointeger(L, lua_upvalueindex(2));
    while (place < message->field_count && (message->fields[place].flags & HTTP_DELETED))
        place++;
    if (place >= message->field_count)
        return 0;
    lua_pushinteger(L, place + 1);
    lua_replace(L, lua_upvalueindex(2));
    headers_push_lower(L, message->fields[place].name);
    lua_pushlstring(L, message->fields[place].value.p, message->fields[place].value.n);
    return 2;
}

static int headers_all(lua_State *L) {
    (void)headers_self(L);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, headers_next, 2);
    return 1;
}

typedef bool headers_edit_fn(struct http_message *message, struct span name, struct span value);

static int headers_edit(lua_State *L, headers_edit_fn *edit, const char *method) {
    struct http_message *message = headers_self(L);
    struct span name = script_check_text(L, 2);
    script_check_header_name(L, name);
    if (lua_isnoneornil(L, 3))
        return luaL_error(L, "%s('%s', nil): del_header('%s') removes a header", method, name.p, name.p);
    struct span value = script_check_header_value(L, name, script_check_text(L, 3));
    name = script_copy_text(L, message->arena, name);
    value = script_copy_text(L, message->arena, value);
    if (!edit(message, name, value))
        return luaL_error(L, "too many headers");
    return 0;
}

static int headers_set(lua_State *L) { return headers_edit(L, http_set, "set_header"); }
static int headers_add(lua_State *L) { return headers_edit(L, http_add, "add_header"); }

static int headers_delete(lua_State *L) {
    struct http_message *message = headers_self(L);
    struct span name = script_check_text(L, 2);
    script_check_header_name(L, name);
    http_delete(message, script_copy_text(L, message->arena, name));
    return 0;
}

const luaL_Reg script_header_methods[] = {
    {"header", headers_get},
    {"headers", headers_list},
    {"all_headers", headers_all},
    {"set_header", headers_set},
    {"add_header", headers_add},
    {"del_header", headers_delete},
    {NULL, NULL},
};
