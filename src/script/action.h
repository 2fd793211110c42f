/* SPDX-License-Identifier: MIT */
/*
 * action: the Lua value that forward reply redirect drop make; shared by its constructors (action.c) and its reader
 * (action_read.c).
 */
#ifndef MOONGATE_SCRIPT_ACTION_H
#define MOONGATE_SCRIPT_ACTION_H

#include "config/action.h"
#include "script/object.h"

#define ACTION_BODY_MAX (1024 * 1024) /* bytes of a reply's body */
#define ACTION_HEADERS_MAX 1000       /* headers of a reply */
#define ACTION_POOLS_MAX 16           /* pools of a forward */

/* The userdata. Its texts are user values, by the numbers below; a missing one is nil. */
struct action_value {
    enum action_kind kind;
    bool plain; /* a forward without options */
    bool found; /* and pool is its pool's index in the script's own configuration */
    unsigned pool;
    uint16_t status, port;
    uint32_t response_timeout_ms;
};

/* pool: its name, or a table of names in order of preference */
enum { ACTION_FORWARD_POOL = 1, ACTION_FORWARD_SERVER, ACTION_FORWARD_PATH, ACTION_FORWARD_HOST, ACTION_FORWARD_KEY,
       ACTION_FORWARD_VALUES = 5 };
/* headers: a flat list {name, value, name, value, ...} */
enum { ACTION_REPLY_BODY = 1, ACTION_REPLY_HEADERS, ACTION_REPLY_VALUES = 2 };
enum { ACTION_REDIRECT_URL = 1, ACTION_REDIRECT_SCHEME, ACTION_REDIRECT_HOST, ACTION_REDIRECT_PATH,
       ACTION_REDIRECT_QUERY, ACTION_REDIRECT_VALUES = 5 };

/* The action at index, or NULL when it is none. */
struct action_value *script_test_action(lua_State *L, int index);

#endif
