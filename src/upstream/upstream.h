/* SPDX-License-Identifier: MIT */
/*
 * upstream: what one thread needs to talk to servers: its loop, scratch buffer, kept connections. A worker has
 * one, the control thread another (for probes).
 */
#ifndef MOONGATE_UPSTREAM_UPSTREAM_H
#define MOONGATE_UPSTREAM_UPSTREAM_H

#include "base/slab.h"
#include "io/conn.h"
#include "upstream/pool.h"

#define UPSTREAM_SCRATCH (64 * 1024) /* bytes read at a time at most: what may be held a direction (requirements D22) */

struct idle;

struct upstream {
    struct loop *loop;
    char *scratch;          /* UPSTREAM_SCRATCH bytes; valid only inside one callback */
    struct idle *idle;
    struct slab exchanges;  /* struct exchange */
    struct slab chunks;     /* ARENA_CHUNK: arenas of this thread */
    bool is_probe;          /* do not count in the traffic metrics */
};

void upstream_init(struct upstream *upstream, struct loop *loop);
/* Every exchange must be freed; before loop_free(). */
void upstream_fini(struct upstream *upstream);
/*
 * Closes an established server connection and counts it (server_closed); clears the pointer. Whoever took a conn
 * from an exchange ends it with this (or adds METRIC_server_closed itself). NULL inside is fine.
 */
void upstream_close_conn(struct upstream *upstream, struct conn **conn);

/* idle: kept server connections of one thread, by address and pool digest; newest first. */
struct idle *idle_new(struct upstream *upstream);
/* Closes all. */
void idle_free(struct idle **idle);
/*
 * Keeps conn (takes it over) for timeout_ms, at most max of them a key; the oldest gives way. Anything that
 * arrives on it, or its end, closes it at once (requirements D26).
 */
void idle_put(struct idle *idle, struct conn *conn, const struct server *server, uint64_t digest, unsigned max,
              uint32_t timeout_ms);
/* The newest quiet one, now the caller's, or NULL. max_age_ms: none that was idle for longer; 0: any. */
struct conn *idle_take(struct idle *idle, const struct server *server, uint64_t digest, uint64_t max_age_ms);
/* Closes those to server (it is down). */
void idle_drop_server(struct idle *idle, const struct server *server);
unsigned idle_count(const struct idle *idle);

#endif
