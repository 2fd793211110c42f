/* SPDX-License-Identifier: MIT */
/*
 * First: the first server in the order of the file that is live and has room. With max_connections it fills one server
 * before it begins with the next, so that those at the end can be switched off at night.
 */
#include "upstream/balance.h"

static struct server *balance_pick_first(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct balance_side *side = &balance->sides[backup];
    struct server *otherwise = NULL;
    for (unsigned i = 0; i < side->count; i++) {
        const unsigned slot = side->members[i].slot;
        if (!balance_may_pick(balance, slot, tried, backup))
            continue;
        if (balance_takes_turn(balance, slot))
            return balance->pool->servers[slot];
        if (!otherwise)
            otherwise = balance->pool->servers[slot];
    }
    return otherwise;
}

const struct balance_algorithm balance_first = {.pick = balance_pick_first};
