/* SPDX-License-Identifier: MIT */
/*
 * object: userdata types of the script layer and the checked texts they take and give. A type is known by the address
 * of a static variable, under which its metatable stands in the registry. Everything here may raise: call it under
 * script_call().
 */
#ifndef MOONGATE_SCRIPT_OBJECT_H
#define MOONGATE_SCRIPT_OBJECT_H

#include "script/state.h"
#include "traffic/script_ops.h"

/* Makes the metatable of a type, leaves it on the stack. Hidden from Lua (getmetatable() gives name). */
void script_object_type(lua_State *L, const void *key, const char *name);
/* The userdata at index when it is of that type, else NULL. */
void *script_object_test(lua_State *L, int index, const void *key);
/* Sets the metatable of the userdata on top. */
void script_object_bless(lua_State *L, const void *key);

/* Adds to the member table on top: fields (up to a NULL) by their number from 1, and methods; either may be NULL. */
void script_object_members(lua_State *L, const char *const *fields, const luaL_Reg *methods);
/* Raises "req has no field ..., did you mean ...?" for the key at index key. */
int script_object_unknown(lua_State *L, const char *what, int key, const char *const *fields, const luaL_Reg *methods);

/* The text of a string or number argument; raises when it is neither. Valid while the value stays on the stack. */
struct span script_check_text(lua_State *L, int index);
/* A copy of text in arena; raises when the request's memory is used up. */
struct span script_copy_text(lua_State *L, struct arena *arena, struct span text);
/* Pushes text as a string; nil for .p NULL. */
void script_push_span(lua_State *L, struct span text);
/* Raises unless name may be edited by a script and value may stand in a header. Returns value, trimmed. */
void script_check_header_name(lua_State *L, struct span name);
struct span script_check_header_value(lua_State *L, struct span name, struct span value);

/* subject->script: what a script keeps for one request; in the subject's arena. */
struct script_request {
    struct subject *subject; /* NULL once the request is over */
};
struct script_record {
    void *state;                    /* ops.c: the Lua state it lives in */
    struct script_request *request; /* the userdata's memory; NULL until first needed */
    int reference;                  /* its place in the registry; LUA_NOREF: none yet */
};

/* request.c */
void script_open_request(lua_State *L);
/* Pushes the `req` of a subject whose record exists. */
void script_push_request(lua_State *L, struct subject *subject);
/* The subject of the `req` at index; raises when it is over or no request. */
struct subject *script_check_request(lua_State *L, int index);

/* websocket.c: pushes a req.ws for the `req` at index 1. */
void script_open_websocket(lua_State *L);
void script_push_websocket(lua_State *L, struct script_request *request);

/* request_tls.c: pushes a table for req.tls, nil for a plain connection. */
void script_push_tls(lua_State *L, struct subject *subject);

/* headers.c: the header methods that requests and responses share. Ends with a NULL name. */
extern const luaL_Reg script_header_methods[];

/* response.c: `resp` of response hooks, `tunnel` of on_open and on_close. */
void script_open_response(lua_State *L);
/* Pushes a `resp`; it is dead as soon as script->response_serial changes. */
void script_push_response(lua_State *L);
/* The message behind the `resp` at index, NULL when it is none; raises when it is over. */
struct http_message *script_test_response(lua_State *L, int index);
void script_push_tunnel(lua_State *L, const struct script_tunnel *tunnel);

#endif
