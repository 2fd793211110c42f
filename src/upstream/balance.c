/* SPDX-License-Identifier: MIT */
/*
 * Which server is next. Algorithms see one class of servers at a time; the classes are tried in this order: others
 * than backups that were not tried yet; backups not tried yet, when nothing else is live or all of it was tried in
 * vain; then what was tried already. The memory is a worker's own: no lock, no sharing but the servers' atomics.
 */
#include "upstream/balance.h"

#include <assert.h>

#include "base/mem.h"

struct balance *balance_new(const struct pool *pool, unsigned worker, unsigned workers) {
    assert(pool && workers != 0 && worker < workers);
    (void)workers;
    struct balance *balance = mem_alloc(sizeof *balance);
    balance->pool = pool;
    balance->next = worker;
    balance->current = mem_alloc_array(pool->server_count ? pool->server_count : 1, sizeof *balance->current);
    balance->pick = balance_pick_roundrobin;
    if (pool->config->balance == CONFIG_BALANCE_LEASTCONN)
        balance->pick = balance_pick_leastconn;
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
    if (server->backup != backup || !server_is_live(server))
        return false;
    for (unsigned k = 0; tried && k < tried->count; k++) {
        if (tried->list[k] == server)
            return false;
    }
    return true;
}

struct server *balance_pick(struct balance *balance, const struct pool_tried *tried) {
    if (tried && tried->count == 0)
        tried = NULL;
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
