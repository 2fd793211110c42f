/* SPDX-License-Identifier: MIT */
/*
 * script_ops: how traffic calls functions of a configuration without knowing Lua. cli plugs the script layer in.
 * A worker's script is used by that worker only.
 */
#ifndef MOONGATE_TRAFFIC_SCRIPT_OPS_H
#define MOONGATE_TRAFFIC_SCRIPT_OPS_H

#include "traffic/subject.h"

enum script_status {
    SCRIPT_OK,   /* returned: *action is filled (ACTION_NONE: nothing, go on) */
    SCRIPT_WAIT, /* will call the resume function that was given, later on this thread */
    SCRIPT_ERROR /* threw, overran or returned nonsense; already logged and counted */
};

/* What on_response sees and may edit. */
struct script_response {
    struct http_message *head;
    const char *server; /* label, or "" for an answer of our own */
    bool tunnel;        /* the 101 */
};

/* What on_open and on_close see. Texts live as long as the call. */
struct script_tunnel {
    const char *id, *route, *pool, *server, *client, *subprotocol, *cause, *side;
    uint64_t age_ms, bytes_in, bytes_out;
};

struct script_ops {
    /* A worker's state for the loaded configuration: load is the loader's result (bytes read once). NULL with a sentence in error[size]. */
    void *(*open)(const void *load, unsigned worker, char *error, size_t size);
    void (*close)(void *script);
    /* Calls function (a step) for subject. */
    enum script_status (*step)(void *script, unsigned function, struct subject *subject, const struct action **action,
                               void (*resume)(void *owner), void *owner);
    /* Calls a when function: SCRIPT_OK with *match. */
    enum script_status (*when)(void *script, unsigned function, struct subject *subject, bool *match);
    /* Calls an on_response hook. May edit response->head; an action of kind ACTION_REPLY replaces the response. */
    enum script_status (*response)(void *script, unsigned function, struct subject *subject,
                                   struct script_response *response, const struct action **action);
    void (*tunnel)(void *script, unsigned function, const struct script_tunnel *tunnel);
    /* The request is over: later use of its `req` raises. A wait under way is cancelled. */
    void (*release)(void *script, struct subject *subject);
    /* Appends a JSON object of how often each function has failed, by its place ("route \"a\": step 1"); false: none has, or json is full. */
    bool (*errors)(const void *load, struct buf *json);
};

#endif
