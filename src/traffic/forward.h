/* SPDX-License-Identifier: MIT */
/*
 * forward: regenerates heads: the request towards a server and the response towards a client, from what was understood,
 * never copied through (rules.md part 6, requirements A8). Pure: writes into a buf. Used by requests and `moongate
 * route`.
 */
#ifndef MOONGATE_TRAFFIC_FORWARD_H
#define MOONGATE_TRAFFIC_FORWARD_H

#include "traffic/subject.h"
#include "upstream/pool.h"

struct forward_request {
    struct subject *subject;
    const struct action *action; /* a forward */
    const struct config_settings *settings;
    const struct config_pool *pool;
    const struct server *server;
    struct span target; /* decide_target() */
    bool keep_alive;    /* false: Connection: close */
};

/* The whole head with its empty line. False: buf is full or memory is out. */
bool forward_write_request(struct buf *out, const struct forward_request *request);
/*
 * Removes and sets fields of message as a listener's or route's request_headers/response_headers say; framing fields
 * are left alone. False: out of memory.
 */
bool forward_apply_headers(struct http_message *message, const struct config_headers *headers);
/*
 * The X-Forwarded-For to send: what a trusted peer said, then the peer. In the arena; .n 0: none (a unix socket); .p
 * NULL: out of memory.
 */
struct span forward_for(struct subject *subject);

#endif
