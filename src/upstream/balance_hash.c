/* SPDX-License-Identifier: MIT */
/*
 * Consistent hash by weighted rendezvous: each server gets a score from the key and its own name, the highest wins. A
 * server that is added takes about its share of the keys from all others and moves no other key; one that leaves gives
 * its keys to all others; a slow start moves them one by one. It needs no ring, no memory and no agreement:
 * workers, reloads and other gateways with the same names choose alike.
 *
 * Bounded load: who has more than `hash_bound` percent of its share of all that is active does not take a further key;
 * the next in that key's own order does. Below a handful no bound holds, so that a quiet pool is not torn apart.
 */
#include "upstream/balance.h"

#include <math.h>

#define BALANCE_HASH_FLOOR 16u /* active requests and tunnels that any server may have */

/* What all servers of the class have and weigh. */
struct balance_sum {
    double active, weight;
};

static struct balance_sum balance_hash_sum(const struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    struct balance_sum sum = {0, 0};
    for (unsigned i = 0; i < pool->server_count; i++) {
        if (!balance_may_pick(balance, i, tried, backup))
            continue;
        sum.active += atomic_load_explicit(&pool->servers[i]->active, memory_order_relaxed);
        sum.weight += (double)balance_weight(balance, i);
    }
    return sum;
}

static bool balance_hash_is_full(const struct balance *balance, unsigned i, const struct balance_sum *sum) {
    unsigned percent = balance->pool->config->hash_bound;
    unsigned active = atomic_load_explicit(&balance->pool->servers[i]->active, memory_order_relaxed);
    if (percent == 0 || active < BALANCE_HASH_FLOOR || !(sum->weight > 0))
        return false;
    double share = (sum->active + 1) * (double)balance_weight(balance, i) / sum->weight;
    return active >= ceil(share * percent / 100);
}

/* Exponentially distributed with the weight as rate, taken upside down: the chance to be highest is the weight's share. */
static double balance_hash_score(const struct balance *balance, unsigned i) {
    uint64_t bits = balance_mix(balance->key ^ balance_mix(balance->pool->servers[i]->seed));
    double uniform = ((double)(bits >> 11) + 0.5) * 0x1p-53; /* above 0, below 1 */
    return (double)balance_weight(balance, i) / -log(uniform);
}

struct server *balance_pick_hash(struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct pool *pool = balance->pool;
    struct balance_sum sum = balance_hash_sum(balance, tried, backup);
    struct server *best = NULL, *best_full = NULL;
    double score_best = 0, score_full = 0;
    for (unsigned i = 0; i < pool->server_count; i++) {
        if (!balance_may_pick(balance, i, tried, backup))
            continue;
        double score = balance_hash_score(balance, i);
        bool full = balance_hash_is_full(balance, i, &sum);
        if (!full && (!best || score > score_best)) {
            best = pool->servers[i];
            score_best = score;
        } else if (full && (!best_full || score > score_full)) {
            best_full = pool->servers[i];
            score_full = score;
        }
    }
    return best ? best : best_full;
}
