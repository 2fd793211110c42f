/* SPDX-License-Identifier: MIT */
/*
 * Random with two choices: two servers are drawn by weight, and the one with fewer active requests and tunnels by
 * weight takes it. Nearly as even as leastconn, without its herding: many gateways that see the same quiet server do
 * not all run there at once.
 */
#include "upstream/balance.h"

/* One of the class by weight, but not servers[except]; server_count when there is none. */
static unsigned balance_draw(struct balance *balance, const struct pool_tried *tried, bool backup, unsigned except) {
    const struct pool *pool = balance->pool;
    uint64_t total = 0;
    unsigned drawn = pool->server_count;
    for (unsigned i = 0; i < pool->server_count; i++)
        if (i != except && balance_may_pick(balance, i, tried, backup))
            total += balance_weight(balance, i);
    uint64_t left = total > 0 ? balance_random(balance) % total : 0;
    for (unsigned i = 0; total > 0 && i < pool->server_count; i++) {
        if (i == except || !balance_may_pick(balance, i, tried, backup))
            continue;
        drawn = i; /* the last one, should states have changed since they were added up */
        uint64_t weight = balance_weight(balance, i);
        if (left < weight)
            break;
        left -= weight;
    }
    return drawn;
}

static uint64_t balance_active(const struct balance *balance, unsigned i) {
    return atomic_load_explicit(&balance->pool->servers[i]->active, memory_order_relaxed);
}

struct server *balance_pick_random(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    unsigned first = balance_draw(balance, tried, backup, pool->server_count);
    if (first == pool->server_count)
        return NULL;
    unsigned second = balance_draw(balance, tried, backup, first);
    if (second == pool->server_count)
        return pool->servers[first];
    uint64_t load_first = balance_active(balance, first) * balance_weight(balance, second);
    uint64_t load_second = balance_active(balance, second) * balance_weight(balance, first);
    return pool->servers[load_second < load_first ? second : first];
}
