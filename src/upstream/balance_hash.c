/* SPDX-License-Identifier: MIT */
/*
 * Consistent hash by weighted rendezvous: each server gets a score from the key and its own name, the highest wins. A
 * server that is added takes about its share of the keys from all others and moves no other key; one that leaves gives
 * its keys to all others; a slow start moves them one by one. It needs no ring, no memory and no agreement:
 * workers, reloads and other gateways with the same names choose alike.
 *
 * Bounded load: who has more than `hash_bound` percent of its share of all that is active does not take a further key;
 * the next in that key's own order does. Below a handful no bound holds, so that a quiet pool is not torn apart.
 *
 * Of two with the same weight the one with the higher hash has the higher score, so the logarithm is taken only where
 * weights differ; and what all have together is added up only when the winner has that handful.
 */
#include "upstream/balance.h"

#include <math.h>

#define BALANCE_HASH_FLOOR 16u /* active requests and tunnels that any server may have */

/* What all servers of the class have and weigh. */
struct balance_sum {
    double active, weight;
};

/* The best so far. */
struct balance_rank {
    unsigned slot;
    uint64_t weight; /* 0: nobody yet */
    uint64_t bits;
};

static unsigned balance_active(const struct balance *balance, unsigned slot) {
    return atomic_load_explicit(&balance->pool->servers[slot]->active, memory_order_relaxed);
}

static struct balance_sum balance_hash_sum(const struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct balance_side *side = &balance->sides[backup];
    struct balance_sum sum = {0, 0};
    for (unsigned i = 0; i < side->count; i++) {
        const unsigned slot = side->members[i].slot;
        if (!balance_may_pick(balance, slot, tried, backup))
            continue;
        sum.active += balance_active(balance, slot);
        sum.weight += (double)balance_weight(balance, slot);
    }
    return sum;
}

static bool balance_hash_is_full(const struct balance *balance, unsigned slot, const struct balance_sum *sum) {
    unsigned active = balance_active(balance, slot);
    if (active < BALANCE_HASH_FLOOR || !(sum->weight > 0))
        return false;
    double share = (sum->active + 1) * (double)balance_weight(balance, slot) / sum->weight;
    return active >= ceil(share * balance->pool->config->hash_bound / 100);
}

/* Exponentially distributed with the weight as rate, upside down: the chance to win is the weight's share. */
static double balance_hash_score(uint64_t weight, uint64_t bits) {
    double uniform = ((double)(bits >> 11) + 0.5) * 0x1p-53; /* above 0, below 1 */
    return (double)weight / -log(uniform);
}

static void balance_hash_compare(struct balance_rank *best, unsigned slot, uint64_t weight, uint64_t bits) {
    bool higher = best->weight == 0;
    if (best->weight == weight)
        higher = bits > best->bits;
    else if (!higher)
        higher = balance_hash_score(weight, bits) > balance_hash_score(best->weight, best->bits);
    if (higher)
        *best = (struct balance_rank){slot, weight, bits};
}

/* The winner among all (sum NULL), or among those that are not above the bound; the best of all when all are. */
static struct server *balance_hash_rank(const struct balance *balance, const struct pool_tried *tried, bool backup,
                                        const struct balance_sum *sum) {
    const struct balance_side *side = &balance->sides[backup];
    struct balance_rank best = {0}, full = {0};
    for (unsigned i = 0; i < side->count; i++) {
        const struct balance_member *member = &side->members[i];
        const uint64_t bits = balance_mix(balance->key ^ member->seed);
        /* What most fail by. A slow start only makes a score smaller; who is full counts when nobody else is. */
        if (member->weight == best.weight && bits <= best.bits)
            continue;
        if (!balance_may_pick(balance, member->slot, tried, backup))
            continue;
        struct balance_rank *rank = sum && balance_hash_is_full(balance, member->slot, sum) ? &full : &best;
        balance_hash_compare(rank, member->slot, balance_weight(balance, member->slot), bits);
    }
    const struct balance_rank *winner = best.weight != 0 ? &best : &full;
    return winner->weight != 0 ? balance->pool->servers[winner->slot] : NULL;
}

static struct server *balance_pick_hash(struct balance *balance, const struct pool_tried *tried, bool backup) {
    struct server *winner = balance_hash_rank(balance, tried, backup, NULL);
    if (!winner || balance->pool->config->hash_bound == 0 ||
        atomic_load_explicit(&winner->active, memory_order_relaxed) < BALANCE_HASH_FLOOR)
        return winner;
    const struct balance_sum sum = balance_hash_sum(balance, tried, backup);
    return balance_hash_rank(balance, tried, backup, &sum);
}

const struct balance_algorithm balance_hash = {.pick = balance_pick_hash};
