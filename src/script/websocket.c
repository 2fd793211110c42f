/* SPDX-License-Identifier: MIT */
/*
 * req.ws: the WebSocket handshake as rules see it. Edits change the offer that the 101 is later judged by and the
 * header that the server sees in one go (subject_apply_offer()), so that the two never disagree. It shares the life
 * of its `req`: the userdata holds that one's memory and keeps it alive by a user value.
 */
#include "script/object.h"

static const char websocket_type;

struct script_websocket {
    struct script_request *request;
};

static const char *const websocket_fields[] = {"subprotocols", "origin", NULL};
enum { WEBSOCKET_SUBPROTOCOLS = 1, WEBSOCKET_ORIGIN };

void script_push_websocket(lua_State *L, struct script_request *request) {
    struct script_websocket *websocket = lua_newuserdatauv(L, sizeof *websocket, 1);
    websocket->request = request;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    script_object_bless(L, &websocket_type);
}

static struct subject *websocket_live(lua_State *L, const struct script_websocket *websocket) {
    if (!websocket->request->subject)
        luaL_error(L, "request is over: its req.ws cannot be used any more");
    return websocket->request->subject;
}

static struct subject *websocket_self(lua_State *L) {
    struct script_websocket *websocket = script_object_test(L, 1, &websocket_type);
    if (!websocket)
        luaL_error(L, "a method was called on a %s: write req.ws:method(...), with a colon", luaL_typename(L, 1));
    return websocket_live(L, websocket);
}

static void websocket_apply(lua_State *L, struct subject *subject) {
    subject->offer_edited = true;
    if (!subject_apply_offer(subject))
        luaL_error(L, "the request's memory is used up");
}

static unsigned websocket_find(const struct upgrade_offer *offer, struct span name) {
    unsigned at = 0;
    while (at < offer->protocol_count && !span_equal(offer->protocols[at], name))
        at++;
    return at;
}

static int websocket_offers(lua_State *L) {
    struct subject *subject = websocket_self(L);
    unsigned at = websocket_find(&subject->offer, script_check_text(L, 2));
    lua_pushboolean(L, at < subject->offer.protocol_count);
    return 1;
}

/* Is protocol in the list at index 2? */
static bool websocket_listed(lua_State *L, struct span protocol) {
    lua_Integer count = (lua_Integer)lua_rawlen(L, 2);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        struct span name = script_check_text(L, -1);
        bool same = span_equal(name, protocol);
        lua_pop(L, 1);
        if (same)
            return true;
    }
    return false;
}

/* only{...}: keeps those offered that are listed, in the client's order; true when some are left. */
static int websocket_only(lua_State *L) {
    struct subject *subject = websocket_self(L);
    if (lua_type(L, 2) == LUA_TSTRING) {
        lua_createtable(L, 1, 0);
        lua_pushvalue(L, 2);
        lua_rawseti(L, -2, 1);
        lua_replace(L, 2);
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    struct span kept[UPGRADE_PROTOCOLS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < subject->offer.protocol_count; i++)
        if (websocket_listed(L, subject->offer.protocols[i]))
            kept[count++] = subject->offer.protocols[i];
    if (count < subject->offer.protocol_count) {
        if (count > 0)
            memcpy(subject->offer.protocols, kept, count * sizeof kept[0]);
        subject->offer.protocol_count = count;
        websocket_apply(L, subject);
    }
    lua_pushboolean(L, count > 0);
    return 1;
}

/* take(name): removes name and the token after it, returns that token; nil, and no change, without the pair. */
static int websocket_take(lua_State *L) {
    struct subject *subject = websocket_self(L);
    struct upgrade_offer *offer = &subject->offer;
    unsigned at = websocket_find(offer, script_check_text(L, 2));
    if (at + 1 >= offer->protocol_count) {
        lua_pushnil(L);
        return 1;
    }
    script_push_span(L, offer->protocols[at + 1]);
    offer->protocol_count -= 2;
    struct span *gap = &offer->protocols[at];
    memmove(gap, gap + 2, (offer->protocol_count - at) * sizeof *gap);
    websocket_apply(L, subject);
    return 1;
}

static const luaL_Reg websocket_methods[] = {
    {"offers", websocket_offers}, {"only", websocket_only}, {"take", websocket_take}, {NULL, NULL},
};

static void websocket_push_subprotocols(lua_State *L, const struct upgrade_offer *offer) {
    lua_createtable(L, (int)offer->protocol_count, 0);
    for (unsigned i = 0; i < offer->protocol_count; i++) {
        script_push_span(L, offer->protocols[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* Upvalue: the member table. */
static int websocket_index(lua_State *L) {
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(1));
    if (type == LUA_TFUNCTION)
        return 1;
    if (type != LUA_TNUMBER)
        return script_object_unknown(L, "req.ws", 2, websocket_fields, websocket_methods);
    struct subject *subject = websocket_live(L, lua_touserdata(L, 1));
    if (lua_tointeger(L, -1) == WEBSOCKET_SUBPROTOCOLS) {
        websocket_push_subprotocols(L, &subject->offer);
    } else {
        const struct http_field *origin = http_find(&subject->head, HTTP_FIELD_ORIGIN);
        script_push_span(L, origin ? origin->value : SPAN_NULL);
    }
    return 1;
}

static int websocket_newindex(lua_State *L) {
    return luaL_error(L, "the fields of req.ws are read-only: use req.ws:only{...} or req.ws:take(name)");
}

void script_open_websocket(lua_State *L) {
    script_object_type(L, &websocket_type, "req.ws");
    lua_newtable(L);
    script_object_members(L, websocket_fields, websocket_methods);
    lua_pushcclosure(L, websocket_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, websocket_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pop(L, 1);
}
