/* SPDX-License-Identifier: MIT */
/*
 * balance: what the balancers share. Each algorithm is one function that picks among the servers of one class; the
 * order of classes (untried, backups, tried) is balance.c's alone.
 *
 * What a pick costs in a pool of n live servers: roundrobin O(log n) and a step for each different weight; random
 * O(log n); first up to the first with room; leastconn up to the first idle one, else n loads; hash n
 * multiplications. Each server that starts slowly or was found full adds a step. n more when some server's state has
 * changed.
 */
#ifndef MOONGATE_UPSTREAM_BALANCE_H
#define MOONGATE_UPSTREAM_BALANCE_H

#include "upstream/pool.h"

struct balance;

/* A server that was live when the states were last looked at. */
struct balance_member {
    unsigned slot;   /* pool->servers[slot]: may hold another one by now, so it is asked again before it is picked */
    uint64_t weight; /* without slow start, in the units of balance_weight() */
    uint64_t upto;   /* the sum of the weights of its side up to and with this one */
    uint64_t seed;   /* of its name, mixed */
};

/* The members that are no backups, or those that are; in the order of the pool. */
struct balance_side {
    struct balance_member *members;
    unsigned count;
};

struct balance_algorithm {
    struct server *(*pick)(struct balance *balance, const struct pool_tried *tried, bool backup);
    /* NULL when it remembers nothing: after a change of the sides; at the end. */
    void (*renew)(struct balance *balance);
    void (*free)(struct balance *balance);
};

struct balance_turns;

struct balance {
    const struct pool *pool;
    const struct balance_algorithm *algorithm;
    struct balance_side sides[2]; /* by backup */
    struct balance_member *members;
    struct balance_turns *turns;  /* roundrobin's, or NULL */
    unsigned epoch;               /* server_epoch() as of the sides */
    unsigned next;                /* leastconn: the member where the scan begins, so that ties rotate */
    uint64_t key;                 /* of the request under way, for hash */
    uint64_t random;              /* state of the generator; never 0 */
};

extern const struct balance_algorithm balance_roundrobin, balance_leastconn, balance_lots, balance_hash, balance_first;

/* May the server in the slot be picked: live, with room, of the wanted kind, not in tried (NULL: nothing was tried). */
bool balance_may_pick(const struct balance *balance, unsigned slot, const struct pool_tried *tried, bool backup);
/* The weight of the server in the slot in units that a slow start divides; above 0 for what may be picked. */
uint64_t balance_weight(const struct balance *balance, unsigned slot);
/* How much of its weight it has, of SERVER_RAMP_FULL. */
unsigned balance_ramp(const struct balance *balance, unsigned slot);
/*
 * True unless the server came back a short while ago and this pick is not among the growing share that it takes. For
 * algorithms whose choice is not a share of picks by weight.
 */
bool balance_takes_turn(struct balance *balance, unsigned slot);
uint64_t balance_random(struct balance *balance);
/* Spreads a poor hash over all 64 bits. */
uint64_t balance_mix(uint64_t value);
/* The sides are looked at anew, and renew() is called, before the next pick. */
void balance_make_stale(struct balance *balance);
/* Makes turns, and moves them on by steps picks, as if all were up. */
void balance_init_roundrobin(struct balance *balance, unsigned steps);

#endif
