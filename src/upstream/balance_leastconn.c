/* SPDX-License-Identifier: MIT */
/*
 * Least connections: the server with the lowest active count by weight, where active counts the requests and
 * tunnels of all workers. Fractions are compared by cross multiplication. The scan begins behind the last pick, so
 * that ties (a quiet gateway has nothing but ties) go round; it ends with the first idle server, since nobody has less.
 *
 * The subtle one: a server that comes back has no tunnels, so even a small weight would win every newcomer for long.
 * So while it starts slowly it is also left out of most picks (balance_takes_turn), unless nobody else is there.
 */
#include "upstream/balance.h"

/* Its place among the members; count: none. */
static unsigned balance_least(struct balance *balance, const struct pool_tried *tried, bool backup, bool in_turn) {
    const struct balance_side *side = &balance->sides[backup];
    unsigned best = side->count;
    uint64_t best_active = 1, best_weight = 0;
    for (unsigned k = 0, i = balance->next % side->count; k < side->count && best_active > 0; k++, i++) {
        if (i == side->count)
            i = 0;
        const unsigned slot = side->members[i].slot;
        const uint64_t active =
            atomic_load_explicit(&balance->pool->servers[slot]->active, memory_order_relaxed);
        /* First what most fail by, so that the rest is asked of few. A slow start only makes a fraction greater. */
        if (best < side->count && active * best_weight >= best_active * side->members[i].weight)
            continue;
        if (!balance_may_pick(balance, slot, tried, backup) || (in_turn && !balance_takes_turn(balance, slot)))
            continue;
        const uint64_t weight = balance_weight(balance, slot);
        if (best == side->count || active * best_weight < best_active * weight) {
            best = i;
            best_active = active;
            best_weight = weight;
        }
    }
    return best;
}

static struct server *balance_pick_leastconn(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct balance_side *side = &balance->sides[backup];
    unsigned best = balance_least(balance, tried, backup, true);
    if (best == side->count)
        best = balance_least(balance, tried, backup, false);
    if (best == side->count)
        return NULL;
    balance->next = best + 1;
    return balance->pool->servers[side->members[best].slot];
}

const struct balance_algorithm balance_leastconn = {.pick = balance_pick_leastconn};
