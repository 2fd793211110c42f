/* SPDX-License-Identifier: MIT */
/*
 * routes: the matcher. Compiled from the config once a generation: exact hosts and literal path heads by hash or trie
 * yield route ordinals, merged in order with the routes that cannot be indexed. Immutable, shared by workers.
 */
#ifndef MOONGATE_TRAFFIC_ROUTES_H
#define MOONGATE_TRAFFIC_ROUTES_H

#include "traffic/subject.h"

struct routes;

#define ROUTES_END 0xffffffffu

/* What a trace says of one route: the key that did not match ("host", "except", ...), or NULL when it matched. */
typedef void routes_trace_fn(void *owner, unsigned route, const char *key);

struct routes *routes_new(const struct config *config);
void routes_free(struct routes **routes);
/*
 * The first route at or after ordinal `from` whose keys match the subject as it is now (edits seen), without its
 * when=function; sets subject->params and rest. ROUTES_END when none is left. trace may be NULL.
 */
unsigned routes_next(const struct routes *routes, struct subject *subject, unsigned from, routes_trace_fn *trace,
                     void *owner);

#endif
