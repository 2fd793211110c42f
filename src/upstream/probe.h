/* SPDX-License-Identifier: MIT */
/*
 * probe: asks servers whether they are well; control thread only. One struct prober a generation: it probes every
 * server of its pools at the pace of their config, sets server states with rise and fall, counts failed live
 * connects towards fall, and logs each change with its reason and a hint.
 */
#ifndef MOONGATE_UPSTREAM_PROBE_H
#define MOONGATE_UPSTREAM_PROBE_H

#include "upstream/upstream.h"

struct prober;

/* on_change(owner): some server changed its state (workers wake their waiting requests, drop kept connections). */
struct prober *prober_new(struct upstream *upstream, struct pool *const *pools, unsigned pool_count,
                          void (*on_change)(void *owner, struct server *server), void *owner);
/* Starts all: the first round goes out at once, spread over at most a tenth of its period. */
void prober_start(struct prober *prober);
/* A server that came into the pool later: it is asked at once. */
void prober_add(struct prober *prober, const struct pool *pool, struct server *server);
/* It left: no probe any more. Not from inside on_change. */
void prober_remove(struct prober *prober, const struct server *server);
void prober_free(struct prober **prober);

#endif
