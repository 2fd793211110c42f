/* SPDX-License-Identifier: MIT */
/*
 * Least connections: the server with the lowest active count by weight, where active counts the requests and
 * tunnels of all workers. Fractions are compared by cross multiplication. The scan begins behind the last pick, so
 * that ties (a quiet gateway has nothing but ties) go round.
 *
 * The subtle one: a server that comes back has no tunnels, so even a small weight would win every newcomer for long.
 * So while it starts slowly it is also left out of most picks (balance_takes_turn), unless nobody else is there.
 */
#include "upstream/balance.h"

static unsigned balance_least(struct balance *balance, const struct pool_tried *tried, bool backup, bool in_turn) {
    const struct pool *pool = balance->pool;
    unsigned best = pool->server_count;
    uint64_t best_active = 0, best_weight = 0;
    for (unsigned k = 0; k < pool->server_count; k++) {
        unsigned i = (balance->next + k) % pool->server_count;
        if (!balance_may_pick(balance, i, tried, backup) || (in_turn && !balance_takes_turn(balance, i)))
            continue;
        uint64_t active = atomic_load_explicit(&pool->servers[i]->active, memory_order_relaxed);
        uint64_t weight = balance_weight(balance, i);
        if (best == pool->server_count || active * best_weight < best_active * weight) {
            best = i;
            best_active = active;
            best_weight = weight;
        }
    }
    return best;
}

struct server *balance_pick_leastconn(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    unsigned best = balance_least(balance, tried, backup, true);
    if (best == pool->server_count)
        best = balance_least(balance, tried, backup, false);
    if (best == pool->server_count)
        return NULL;
    balance->next = (best + 1) % pool->server_count;
    return pool->servers[best];
}
