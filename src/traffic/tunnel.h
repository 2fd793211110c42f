/* SPDX-License-Identifier: MIT */
/*
 * tunnel: two connections after a 101. Nothing is left of HTTP or Lua: two conns, a timer, counters and the names for the log.
 */
#ifndef MOONGATE_TRAFFIC_TUNNEL_H
#define MOONGATE_TRAFFIC_TUNNEL_H

#include "traffic/request.h"

#define TUNNEL_HOLD_MAX (64 * 1024) /* bytes held a direction that the peer has not taken */
#define TUNNEL_SIZE 288             /* bytes of a tunnel object; checked where it is defined */

/* What a tunnel starts from. All of it becomes the tunnel's, but rest and subprotocol, which are borrowed for the call. */
struct tunnel_start {
    struct conn *client, *server;
    struct buf early;           /* from the client, behind its handshake; holds the request's head, too, in front */
    struct buf unsent;          /* of the 101, towards the client */
    struct span rest;           /* from the server, behind its 101 */
    struct span subprotocol;    /* chosen; .p NULL: none */
    struct listener *listener;  /* whose connection count it holds */
};

/* Takes the server slot of request over (request->server becomes NULL); the request is freed by its owner afterwards. */
void tunnel_open(struct request *request, struct tunnel_start *start);
/* Ends all tunnels of a worker, now. */
void tunnel_close_all(struct worker *worker, enum cause cause);

#endif
