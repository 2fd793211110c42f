/* SPDX-License-Identifier: MIT */
/*
 * Which server is next. Algorithms see one class of servers at a time; the classes are tried in this order: others
 * than backups that were not tried yet; backups not tried yet, when nothing else is live or all of it was tried in
 * vain; then what was tried already. The memory is a worker's own: no lock, no sharing but the servers' atomics.
 */
#include "upstream/balance.h"

#include <assert.h>

#include "base/clock.h"
#include "base/mem.h"

static struct server *(*const balance_picks[])(struct balance *, const struct pool_tried *, bool) = {
    [CONFIG_BALANCE_ROUNDROBIN] = balance_pick_roundrobin, [CONFIG_BALANCE_LEASTCONN] = balance_pick_leastconn,
    [CONFIG_BALANCE_RANDOM] = balance_pick_random,         [CONFIG_BALANCE_HASH] = balance_pick_hash,
    [CONFIG_BALANCE_FIRST] = balance_pick_first,
};

struct balance *balance_new(const struct pool *pool, unsigned worker, unsigned workers) {
    assert(pool && workers != 0 && worker < workers);
    (void)workers;
    unsigned count = pool->server_count ? pool->server_count : 1;
    struct balance *balance = mem_alloc(sizeof *balance);
    balance->pool = pool;
    balance->next = worker;
    balance->current = mem_alloc_array(count, sizeof *balance->current);
    balance->random = balance_mix(clock_us() + worker) | 1;
    balance->pick = balance_picks[pool->config->balance];
    balance_advance_roundrobin(balance, worker);
    return balance;
}

void balance_free(struct balance **balance) {
    struct balance *b = *balance;
    *balance = NULL;
    if (!b)
        return;
    mem_free(b->current);
    mem_free(b);
}

bool balance_may_pick(const struct balance *balance, unsigned i, const struct pool_tried *tried, bool backup) {
    struct server *server = balance->pool->servers[i];
    if (server->backup != backup || !server_is_live(server) || !server_has_room(server))
        return false;
    for (unsigned k = 0; tried && k < tried->count; k++) {
        if (tried->list[k] == server)
            return false;
    }
    return true;
}

uint64_t balance_weight(const struct balance *balance, unsigned i) {
    struct server *server = balance->pool->servers[i];
    return (uint64_t)server->weight * server_ramp(server, balance->pool->config->slow_start_ms);
}

bool balance_takes_turn(struct balance *balance, unsigned i) {
    unsigned ramp = server_ramp(balance->pool->servers[i], balance->pool->config->slow_start_ms);
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

struct server *balance_pick(struct balance *balance, const struct pool_tried *tried, uint64_t key) {
    if (tried && tried->count == 0)
        tried = NULL;
    balance->key = balance_mix(key);
    struct server *server = balance->pick(balance, tried, false);
    if (!server)
        server = balance->pick(balance, tried, true);
    if (!server && tried) {
        server = balance->pick(balance, NULL, false);
        if (!server)
            server = balance->pick(balance, NULL, true);
    }
    return server;
}
