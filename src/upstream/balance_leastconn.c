/* SPDX-License-Identifier: MIT */
/*
 * Least connections: the server with the lowest active count by weight, where active counts the requests and
 * tunnels of all workers. Fractions are compared by cross multiplication. The scan begins behind the last pick, so
 * that ties (a quiet gateway has nothing but ties) go round.
 */
#include "upstream/balance.h"

struct server *balance_pick_leastconn(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    unsigned best = pool->server_count;
    uint64_t best_active = 0;
    for (unsigned k = 0; k < pool->server_count; k++) {
        unsigned i = (balance->next + k) % pool->server_count;
        if (!balance_may_pick(balance, i, tried, backup))
            continue;
        uint64_t active = atomic_load_explicit(&pool->servers[i]->active, memory_order_relaxed);
        bool first = best == pool->server_count;
        if (first || active * pool->servers[best]->weight < best_active * pool->servers[i]->weight) {
            best = i;
            best_active = active;
        }
    }
    if (best == pool->server_count)
        return NULL;
    balance->next = (best + 1) % pool->server_count;
    return pool->servers[best];
}
