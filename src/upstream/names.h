/* SPDX-License-Identifier: MIT */
/*
 * names: keeps the servers that are written as names in step with DNS: asks again every `resolve`, has the pools take what
 * came and let go of what went, and sees to it that probes and workers hear of it. Control thread only; one a generation.
 */
#ifndef MOONGATE_UPSTREAM_NAMES_H
#define MOONGATE_UPSTREAM_NAMES_H

#include "upstream/pool.h"
#include "upstream/probe.h"

struct names;

/*
 * nameservers as for resolver_new(). on_change(owner, server): some server came or went; every worker must hear of it
 * between two turns, by a letter that holds a reference (pool_names.c says why). NULL when the pools have no names.
 */
struct names *names_new(struct loop *loop, struct pool *const *pools, unsigned pool_count, const char *nameservers,
                        struct prober *prober, void (*on_change)(void *owner, struct server *server), void *owner);
/* Before the prober and the pools. */
void names_free(struct names **names);

#endif
