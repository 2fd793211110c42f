/* SPDX-License-Identifier: MIT */
/*
 * Smooth weighted round-robin: each server's running weight grows by its weight a pick, the highest is picked and
 * pays the sum of all. Weights 5:1:1 give a a b a c a a, never five in a row at once. Each worker starts some
 * picks further on, so that workers do not all begin with the first server.
 */
#include "upstream/balance.h"

struct server *balance_pick_roundrobin(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    int64_t total = 0;
    unsigned best = pool->server_count;
    for (unsigned i = 0; i < pool->server_count; i++) {
        if (!balance_may_pick(balance, i, tried, backup))
            continue;
        int64_t weight = (int64_t)balance_weight(balance, i);
        balance->current[i] += weight;
        total += weight;
        if (best == pool->server_count || balance->current[i] > balance->current[best])
            best = i;
    }
    if (best == pool->server_count)
        return NULL;
    balance->current[best] -= total;
    return pool->servers[best];
}

void balance_advance_roundrobin(struct balance *balance, unsigned steps) {
    const struct pool *pool = balance->pool;
    for (unsigned step = 0; step < steps; step++) {
        int64_t total = 0;
        unsigned best = pool->server_count;
        for (unsigned i = 0; i < pool->server_count; i++) {
            if (pool->servers[i]->backup)
                continue;
            int64_t weight = (int64_t)pool->servers[i]->weight * SERVER_RAMP_FULL;
            balance->current[i] += weight;
            total += weight;
            if (best == pool->server_count || balance->current[i] > balance->current[best])
                best = i;
        }
        if (best == pool->server_count)
            return;
        balance->current[best] -= total;
    }
}
