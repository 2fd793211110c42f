/* SPDX-License-Identifier: MIT */
/*
 * access: the access log's JSON lines: one a request, two a tunnel. Paths without their query (unless asked), subprotocols only as chosen: tokens
 * travel in both.
 */
#ifndef MOONGATE_TRAFFIC_ACCESS_H
#define MOONGATE_TRAFFIC_ACCESS_H

#include "traffic/request.h"

/* What a tunnel remembers of its request, in one allocation. */
struct access_names {
    char *id, *listener, *route, *pool, *subprotocol, *host, *path;
    bool log; /* the route's access_log */
};

/* One heap block; free with mem_free(). */
struct access_names *access_names_new(const struct request *request, struct span subprotocol);

void access_request(const struct request *request);
/* access_combined.c: the line of a request, or of a tunnel that opens; status 0: nothing was answered. */
void access_combined(const struct request *request, unsigned status);
void access_tunnel_open(const struct request *request, const struct access_names *names);
void access_tunnel_close(struct worker *worker, const struct access_names *names, const char *client, const char *server, uint64_t age_ms,
                         uint64_t bytes_in, uint64_t bytes_out, enum cause cause);

#endif
