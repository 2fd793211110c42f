/* SPDX-License-Identifier: MIT */
/*
 * Random with two choices: two servers are drawn by weight, and the one with fewer active requests and tunnels by
 * weight takes it. Nearly as even as leastconn, without its herding: many gateways that see the same quiet server do
 * not all run there at once.
 *
 * A draw takes a member by whole weights and lets it go again when it may not be picked, or in the share of draws
 * that its slow start denies it; so the shares are as if all had been added up, for a few steps. When luck is short
 * (a few members, or most of them full) they are added up.
 */
#include "upstream/balance.h"

#define BALANCE_DRAWS 8  /* before all are added up */
#define BALANCE_FEW 4    /* members that are added up at once */
#define BALANCE_NONE UINT32_MAX

/* The long way: all that may be picked, added up. */
static unsigned balance_add_up(struct balance *balance, const struct pool_tried *tried, bool backup, unsigned except) {
    const struct balance_side *side = &balance->sides[backup];
    unsigned drawn = BALANCE_NONE;
    uint64_t total = 0;
    for (unsigned i = 0; i < side->count; i++)
        if (side->members[i].slot != except && balance_may_pick(balance, side->members[i].slot, tried, backup))
            total += balance_weight(balance, side->members[i].slot);
    uint64_t left = total > 0 ? balance_random(balance) % total : 0;
    for (unsigned i = 0; total > 0 && i < side->count; i++) {
        const unsigned slot = side->members[i].slot;
        if (slot == except || !balance_may_pick(balance, slot, tried, backup))
            continue;
        drawn = slot; /* the last one, should states have changed since they were added up */
        uint64_t weight = balance_weight(balance, slot);
        if (left < weight)
            break;
        left -= weight;
    }
    return drawn;
}

/* The first member whose sum is above value. */
static const struct balance_member *balance_find_member(const struct balance_side *side, uint64_t value) {
    unsigned low = 0, high = side->count - 1;
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (side->members[middle].upto > value)
            high = middle;
        else
            low = middle + 1;
    }
    return &side->members[low];
}

/* The slot of one by weight, but not except; BALANCE_NONE when there is none. */
static unsigned balance_draw(struct balance *balance, const struct pool_tried *tried, bool backup, unsigned except) {
    const struct balance_side *side = &balance->sides[backup];
    const uint64_t total = side->members[side->count - 1].upto;
    for (unsigned draw = 0; draw < BALANCE_DRAWS && side->count > BALANCE_FEW; draw++) {
        const unsigned slot = balance_find_member(side, balance_random(balance) % total)->slot;
        if (slot != except && balance_may_pick(balance, slot, tried, backup) && balance_takes_turn(balance, slot))
            return slot;
    }
    return balance_add_up(balance, tried, backup, except);
}

static uint64_t balance_active(const struct balance *balance, unsigned slot) {
    return atomic_load_explicit(&balance->pool->servers[slot]->active, memory_order_relaxed);
}

static struct server *balance_pick_lots(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    const unsigned first = balance_draw(balance, tried, backup, BALANCE_NONE);
    if (first == BALANCE_NONE)
        return NULL;
    const unsigned second = balance_draw(balance, tried, backup, first);
    if (second == BALANCE_NONE)
        return pool->servers[first];
    uint64_t load_first = balance_active(balance, first) * balance_weight(balance, second);
    uint64_t load_second = balance_active(balance, second) * balance_weight(balance, first);
    return pool->servers[load_second < load_first ? second : first];
}

const struct balance_algorithm balance_lots = {.pick = balance_pick_lots};
