/* SPDX-License-Identifier: MIT */
/*
 * generation: what workers run under: one loaded configuration with its compiled routes, pools and TLS contexts. Immutable,
 * shared by all threads, reference-counted. What a worker keeps for it (script state, balancers) is struct generation_local, which
 * holds one reference and is counted by that worker's requests and clients.
 */
#ifndef MOONGATE_TRAFFIC_GENERATION_H
#define MOONGATE_TRAFFIC_GENERATION_H

#include <stdatomic.h>

#include "traffic/routes.h"
#include "traffic/script_ops.h"
#include "upstream/pool.h"

#define GENERATION_ERROR_MAX 512

struct generation {
    _Atomic(unsigned) refs;
    const struct config *config;  /* belongs to load */
    struct routes *routes;
    struct pool **pools;          /* by index of config->pools */
    struct tls_server **tls;      /* by index of config->listeners; NULL inside: plain */
    bool tells_destination;       /* some pool sends PROXY headers, which name where clients connected to */
    const struct script_ops *ops;
    void *load;                   /* the loader's result, freed with the generation */
    void (*free_load)(void *load);
};

struct generation_local {
    struct generation *generation;
    void *script;
    struct balance **balances;    /* by index of config->pools */
    unsigned worker;
    unsigned refs;                /* this worker's only */
};

/*
 * Takes load over (also on failure). previous: whose servers are carried over, or NULL. NULL with a sentence in error[GENERATION_ERROR_MAX].
 */
struct generation *generation_new(const struct config *config, void *load, void (*free_load)(void *load),
                                  const struct script_ops *ops, const struct generation *previous, char *error);
struct generation *generation_ref(struct generation *generation);
void generation_unref(struct generation **generation);

/* A worker's part, with one reference; on the worker's thread. NULL with a sentence in error[GENERATION_ERROR_MAX]. */
struct generation_local *generation_local_new(struct generation *generation, unsigned worker, unsigned workers,
                                              struct loop *loop, char *error);
struct generation_local *generation_local_ref(struct generation_local *local);
void generation_local_unref(struct generation_local **local);

#endif
