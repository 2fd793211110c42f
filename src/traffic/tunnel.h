/* SPDX-License-Identifier: MIT */
/*
 * tunnel: two connections after a 101. Nothing is left of HTTP or Lua: two conns, a timer, counters and the names for the log.
 */
#ifndef MOONGATE_TRAFFIC_TUNNEL_H
#define MOONGATE_TRAFFIC_TUNNEL_H

#include "traffic/request.h"

#define TUNNEL_HOLD_MAX (64 * 1024) /* bytes held a direction that the peer has not taken */
#define TUNNEL_SIZE 320             /* bytes of a tunnel object; checked where it is defined */

/*
 * Opens the tunnel of request, whose 101 was just written: takes both connections, the server slot and the bytes behind either head (early:
 * from the client, taken over; rest: from the server, borrowed for the call). The request is freed by its owner afterwards.
 */
void tunnel_open(struct request *request, struct conn *client, struct conn *server, struct buf *early, struct span rest,
                 struct span subprotocol);
/* Ends all tunnels of a worker, now. */
void tunnel_close_all(struct worker *worker, enum cause cause);

#endif
