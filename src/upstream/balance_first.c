/* SPDX-License-Identifier: MIT */
/*
 * First: the first server in the order of the file that is live and has room. With max_connections it fills one server
 * before it begins with the next, so that those at the end can be switched off at night.
 */
#include "upstream/balance.h"

struct server *balance_pick_first(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    struct server *otherwise = NULL;
    for (unsigned i = 0; i < pool->server_count; i++) {
        if (!balance_may_pick(balance, i, tried, backup))
            continue;
        if (balance_takes_turn(balance, i))
            return pool->servers[i];
        if (!otherwise)
            otherwise = pool->servers[i];
    }
    return otherwise;
}
