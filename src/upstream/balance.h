/* SPDX-License-Identifier: MIT */
/*
 * balance: what the balancers share. Each algorithm is one function that picks among the servers of one class; the
 * order of classes (untried, backups, tried) is balance.c's alone.
 */
#ifndef MOONGATE_UPSTREAM_BALANCE_H
#define MOONGATE_UPSTREAM_BALANCE_H

#include "upstream/pool.h"

struct balance {
    const struct pool *pool;
    struct server *(*pick)(struct balance *balance, const struct pool_tried *tried, bool backup);
    uint64_t key;     /* of the request under way, for hash */
    uint64_t random;  /* state of the generator; never 0 */
    unsigned next;    /* leastconn: where the scan begins, so that ties rotate */
    int64_t *current; /* roundrobin: the running weight of each server */
};

/* May servers[i] be picked: live, with room, of the wanted kind, not in tried (NULL: nothing was tried). */
bool balance_may_pick(const struct balance *balance, unsigned i, const struct pool_tried *tried, bool backup);
/* The weight of servers[i] in units that a slow start divides; above 0 for what may be picked. */
uint64_t balance_weight(const struct balance *balance, unsigned i);
/*
 * True unless servers[i] came back a short while ago and this pick is not among the growing share that it takes.
 * For algorithms whose choice is not a share of picks by weight.
 */
bool balance_takes_turn(struct balance *balance, unsigned i);
uint64_t balance_random(struct balance *balance);
/* Spreads a poor hash over all 64 bits. */
uint64_t balance_mix(uint64_t value);

/* The pick of each algorithm; NULL when no server of the class is there. */
struct server *balance_pick_roundrobin(struct balance *balance, const struct pool_tried *tried, bool backup);
struct server *balance_pick_leastconn(struct balance *balance, const struct pool_tried *tried, bool backup);
struct server *balance_pick_random(struct balance *balance, const struct pool_tried *tried, bool backup);
struct server *balance_pick_hash(struct balance *balance, const struct pool_tried *tried, bool backup);
struct server *balance_pick_first(struct balance *balance, const struct pool_tried *tried, bool backup);
/* Moves the round-robin on by steps picks, as if all were up. */
void balance_advance_roundrobin(struct balance *balance, unsigned steps);

#endif
