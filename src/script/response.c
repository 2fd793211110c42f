/* SPDX-License-Identifier: MIT */
/*
 * What hooks get besides `req`: `resp`, the response head in on_response, and the plain table that on_open and
 * on_close are given. A `resp` holds no pointer but the serial of its call: the head is found through the state while
 * that very call runs, so one that was kept can only raise.
 */
#include "script/object.h"

static const char response_type;

struct script_resp {
    uint64_t serial;
};

static const char *const response_fields[] = {"status", "server", "tunnel", NULL};
enum { RESPONSE_STATUS = 1, RESPONSE_SERVER, RESPONSE_TUNNEL };

static struct script_response *response_live(lua_State *L, const struct script_resp *resp) {
    struct script *script = script_of(L);
    if (!script->response || script->response_serial != resp->serial)
        luaL_error(L, "response is over: its resp cannot be used any more");
    return script->response;
}

void script_push_response(lua_State *L) {
    struct script_resp *resp = lua_newuserdatauv(L, sizeof *resp, 0);
    resp->serial = script_of(L)->response_serial;
    script_object_bless(L, &response_type);
}

struct http_message *script_test_response(lua_State *L, int index) {
    const struct script_resp *resp = script_object_test(L, index, &response_type);
    return resp ? response_live(L, resp)->head : NULL;
}

/* Upvalue: the member table. */
static int response_index(lua_State *L) {
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(1));
    if (type == LUA_TFUNCTION)
        return 1;
    if (type != LUA_TNUMBER)
        return script_object_unknown(L, "resp", 2, response_fields, script_header_methods);
    const struct script_response *response = response_live(L, lua_touserdata(L, 1));
    switch (lua_tointeger(L, -1)) {
    case RESPONSE_STATUS: lua_pushinteger(L, response->head->status); break;
    case RESPONSE_SERVER: lua_pushstring(L, response->server ? response->server : ""); break;
    default: lua_pushboolean(L, response->tunnel); break;
    }
    return 1;
}

static int response_newindex(lua_State *L) {
    return luaL_error(L, "the fields of resp are read-only: edit headers, or return reply(...) instead");
}

void script_open_response(lua_State *L) {
    script_object_type(L, &response_type, "resp");
    lua_newtable(L);
    script_object_members(L, response_fields, script_header_methods);
    lua_pushcclosure(L, response_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, response_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pop(L, 1);
}

static void response_set_text(lua_State *L, const char *name, const char *text) {
    if (!text || !*text)
        return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

void script_push_tunnel(lua_State *L, const struct script_tunnel *tunnel) {
    lua_createtable(L, 0, 12);
    response_set_text(L, "id", tunnel->id);
    response_set_text(L, "route", tunnel->route);
    response_set_text(L, "pool", tunnel->pool);
    response_set_text(L, "server", tunnel->server);
    response_set_text(L, "client", tunnel->client);
    response_set_text(L, "subprotocol", tunnel->subprotocol);
    response_set_text(L, "cause", tunnel->cause);
    response_set_text(L, "side", tunnel->side);
    lua_pushnumber(L, (lua_Number)tunnel->age_ms / 1000);
    lua_setfield(L, -2, "age");
    lua_pushinteger(L, (lua_Integer)tunnel->bytes_in);
    lua_setfield(L, -2, "bytes_in");
    lua_pushinteger(L, (lua_Integer)tunnel->bytes_out);
    lua_setfield(L, -2, "bytes_out");
}
