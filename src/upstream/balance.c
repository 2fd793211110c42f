/* SPDX-License-Identifier: MIT */
/*
 * Which server is next. Algorithms see one class of servers at a time; the classes are tried in this order: others
 * than backups that were not tried yet; backups not tried yet, when nothing else is live or all of it was tried in
 * vain; then what was tried already. One that is full is waited for rather than passed over for the next class
 * (pool_is_next() says the same to the queue). The memory is a worker's own: no lock, no sharing but the servers' atomics.
 *
 * So that a pick need not look at every server, the live ones are listed when some server's state has changed
 * (server_epoch), which is seldom. The subtle thing: the lists hold slots, not servers, since a name's slot may get
 * another server, and whoever is picked is asked for its state once more: a list that is a moment old costs nothing
 * but a look.
 */
#include "upstream/balance.h"

#include <assert.h>

#include "base/clock.h"
#include "base/mem.h"

static const struct balance_algorithm *const balance_algorithms[] = {
    [CONFIG_BALANCE_ROUNDROBIN] = &balance_roundrobin, [CONFIG_BALANCE_LEASTCONN] = &balance_leastconn,
    [CONFIG_BALANCE_RANDOM] = &balance_lots,           [CONFIG_BALANCE_HASH] = &balance_hash,
    [CONFIG_BALANCE_FIRST] = &balance_first,
};

struct balance *balance_new(const struct pool *pool, unsigned worker, unsigned workers) {
    assert(pool && workers != 0 && worker < workers);
    (void)workers;
    struct balance *balance = mem_alloc(sizeof *balance);
    balance->pool = pool;
    balance->algorithm = balance_algorithms[pool->config->balance];
    balance->members = mem_alloc_array(pool->server_count + 1u, sizeof *balance->members);
    balance->next = worker;
    balance->random = balance_mix(clock_us() + worker) | 1;
    if (balance->algorithm == &balance_roundrobin)
        balance_init_roundrobin(balance, worker);
    balance_make_stale(balance);
    return balance;
}

void balance_free(struct balance **balance) {
    struct balance *b = *balance;
    *balance = NULL;
    if (!b)
        return;
    if (b->algorithm->free)
        b->algorithm->free(b);
    mem_free(b->members);
    mem_free(b);
}

void balance_make_stale(struct balance *balance) { balance->epoch = server_epoch() - 1; }

static void balance_list_side(struct balance *balance, bool backup, struct balance_member *members) {
    struct balance_side *side = &balance->sides[backup];
    uint64_t sum = 0;
    *side = (struct balance_side){.members = members};
    for (unsigned slot = 0; slot < balance->pool->server_count; slot++) {
        const struct server *server = balance->pool->servers[slot];
        if (server->backup != backup || !server_is_live(server))
            continue;
        const uint64_t weight = (uint64_t)server->weight * SERVER_RAMP_FULL;
        sum += weight;
        members[side->count++] =
            (struct balance_member){.slot = slot, .weight = weight, .upto = sum, .seed = balance_mix(server->seed)};
    }
}

/* The epoch is read first: what changes while the servers are looked at brings them here again. */
static void balance_renew(struct balance *balance) {
    balance->epoch = server_epoch();
    balance_list_side(balance, false, balance->members);
    balance_list_side(balance, true, balance->members + balance->sides[false].count);
    if (balance->algorithm->renew)
        balance->algorithm->renew(balance);
}

static bool balance_is_wanted(const struct server *server, const struct pool_tried *tried, bool backup) {
    return server->backup == backup && server_is_live(server) && !(tried && pool_was_tried(tried, server));
}

bool balance_may_pick(const struct balance *balance, unsigned slot, const struct pool_tried *tried, bool backup) {
    const struct server *server = balance->pool->servers[slot];
    return server_has_room(server) && balance_is_wanted(server, tried, backup);
}

unsigned balance_ramp(const struct balance *balance, unsigned slot) {
    return server_ramp(balance->pool->servers[slot], balance->pool->config->slow_start_ms);
}

uint64_t balance_weight(const struct balance *balance, unsigned slot) {
    struct server *server = balance->pool->servers[slot];
    return (uint64_t)server->weight * server_ramp(server, balance->pool->config->slow_start_ms);
}

bool balance_takes_turn(struct balance *balance, unsigned slot) {
    unsigned ramp = balance_ramp(balance, slot);
    return ramp == SERVER_RAMP_FULL || balance_random(balance) % SERVER_RAMP_FULL < ramp;
}

uint64_t balance_random(struct balance *balance) {
    balance->random ^= balance->random << 13;
    balance->random ^= balance->random >> 7;
    balance->random ^= balance->random << 17;
    return balance_mix(balance->random);
}

uint64_t balance_mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

/* Some server of the class is live, so that the next class has to wait. */
static bool balance_has_live(const struct balance *balance, const struct pool_tried *tried, bool backup) {
    const struct balance_side *side = &balance->sides[backup];
    for (unsigned i = 0; i < side->count; i++)
        if (balance_is_wanted(balance->pool->servers[side->members[i].slot], tried, backup))
            return true;
    return false;
}

/* Others than backups, then backups. True: *server is picked, or NULL since those whose turn it is are full. */
static bool balance_pick_sides(struct balance *balance, const struct pool_tried *tried, struct server **server) {
    for (unsigned backup = 0; backup < 2; backup++) {
        if (balance->sides[backup].count > 0)
            *server = balance->algorithm->pick(balance, tried, backup);
        if (*server || balance_has_live(balance, tried, backup))
            return true;
    }
    return false;
}

struct server *balance_pick(struct balance *balance, const struct pool_tried *tried, uint64_t key) {
    if (tried && tried->count == 0)
        tried = NULL;
    if (balance->epoch != server_epoch())
        balance_renew(balance);
    balance->key = balance_mix(key);
    struct server *server = NULL;
    if (!balance_pick_sides(balance, tried, &server) && tried)
        balance_pick_sides(balance, NULL, &server);
    return server;
}
