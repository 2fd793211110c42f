/* SPDX-License-Identifier: MIT */
/*
 * Servers that are written as names. A name has a fixed block of slots in its pool's array, so that workers never see
 * the array change; a slot without an address holds the name's "absent" server, which is never live. One address is one
 * server: when it goes, its slot gets the absent one again, while requests and tunnels on it keep the object.
 *
 * The subtle thing is when a server that left may be freed, since a worker may have read the slot just before. Whoever
 * keeps a server beyond its turn holds a reference; and the change is told to every worker by a letter that holds one
 * too and is opened between two turns. So the slot's own reference can go at once: after the last letter nobody can
 * have the pointer without a reference.
 */
#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "upstream/pool.h"
#include "upstream/resolve.h"

#define POOL_RETRY_MS 5000 /* to a name that never had an address */

static bool pool_slot_is_used(const struct pool_name *name, const struct server *server) { return server != name->absent; }

/* What a record's server is to be: priorities above the lowest are backups, weights multiply. */
static struct config_server pool_wanted(const struct pool_name *name, const struct resolve_answer *answer, unsigned i) {
    struct config_server wanted = *name->config;
    const struct resolve_address *address = &answer->list[i];
    if (!wanted.srv)
        return wanted;
    for (unsigned k = 0; k < answer->count; k++)
        wanted.backup = wanted.backup || answer->list[k].priority < address->priority;
    wanted.weight *= address->weight ? address->weight : 1;
    return wanted;
}

static bool pool_is_same(const struct server *server, const struct config_server *wanted, const struct resolve_address *address) {
    return addr_equal(&server->addr, &address->addr) && server->weight == wanted->weight && server->backup == wanted->backup &&
           span_equal(span_of(server->host), span_of(address->host));
}

static struct server *pool_find_address(const struct pool *pool, const struct pool_name *name, const struct addr *addr) {
    for (unsigned i = 0; i < POOL_ADDRESSES_MAX; i++) {
        struct server *server = pool->servers[name->first + i];
        if (pool_slot_is_used(name, server) && addr_equal(&server->addr, addr))
            return server;
    }
    return NULL;
}

/* old: the server that has the address already, as another one (weight, role); NULL: none. */
static struct server *pool_new_address(const struct pool *pool, const struct config_server *wanted,
                                       const struct resolve_address *address, struct server *old, bool late) {
    char where[ADDR_TEXT_MAX];
    if (wanted->srv)
        addr_format(&address->addr, where);
    else
        addr_format_ip(&address->addr, where);
    struct server *server = server_new_of_name(pool->config->name, wanted, &address->addr, address->host, where);
    pool_adopt_server(pool, server);
    server->late = late;
    server_set_state(server, old ? server_state(old) : pool_first_state(pool));
    return server;
}

static void pool_put(struct pool *pool, struct pool_name *name, unsigned slot, struct server *server) {
    name->count += pool_slot_is_used(name, server);
    name->count -= pool_slot_is_used(name, pool->servers[name->first + slot]);
    atomic_store(&pool->servers[name->first + slot], server);
    server_bump_epoch();
}

/* False: no slot is free. */
static bool pool_add_address(struct pool *pool, struct pool_name *name, const struct resolve_answer *answer, unsigned i,
                             pool_change_fn *changed, void *owner) {
    const struct config_server wanted = pool_wanted(name, answer, i);
    unsigned free_slot = POOL_ADDRESSES_MAX;
    for (unsigned slot = 0; slot < POOL_ADDRESSES_MAX; slot++) {
        struct server *server = pool->servers[name->first + slot];
        if (pool_slot_is_used(name, server) && pool_is_same(server, &wanted, &answer->list[i]))
            return true;
        if (!pool_slot_is_used(name, server) && free_slot == POOL_ADDRESSES_MAX)
            free_slot = slot;
    }
    if (free_slot == POOL_ADDRESSES_MAX)
        return false;
    struct server *old = pool_find_address(pool, name, &answer->list[i].addr);
    struct server *server = pool_new_address(pool, &wanted, &answer->list[i], old, changed != NULL), *absent = name->absent;
    pool_put(pool, name, free_slot, server);
    server_unref(&absent); /* the slot's */
    if (changed) {
        log_info("%s is new: %s has %u address%s now", server->label, name->config->address, name->count, name->count == 1 ? "" : "es");
        changed(owner, server, true);
    }
    return true;
}

static bool pool_is_wanted(const struct pool_name *name, const struct server *server, const struct resolve_answer *answer) {
    unsigned family = server->addr.sa.any.sa_family == AF_INET ? RESOLVE_V4 : RESOLVE_V6;
    bool listed = false;
    for (unsigned i = 0; i < answer->count; i++) {
        const struct config_server wanted = pool_wanted(name, answer, i);
        listed = listed || addr_equal(&server->addr, &answer->list[i].addr);
        if (pool_is_same(server, &wanted, &answer->list[i]))
            return true;
    }
    return !listed && (answer->failed & family); /* a question about such addresses was not answered */
}

static void pool_remove_unwanted(struct pool *pool, struct pool_name *name, const struct resolve_answer *answer,
                                 pool_change_fn *changed, void *owner) {
    for (unsigned slot = 0; slot < POOL_ADDRESSES_MAX; slot++) {
        struct server *server = pool->servers[name->first + slot];
        if (!pool_slot_is_used(name, server) || pool_is_wanted(name, server, answer))
            continue;
        pool_put(pool, name, slot, server_ref(name->absent));
        server_set_state(server, SERVER_DOWN);
        if (changed) {
            log_info("%s has left: %s has %u address%s now", server->label, name->config->address, name->count,
                     name->count == 1 ? "" : "es");
            changed(owner, server, false);
        }
        server_unref(&server);
    }
}

static void pool_note_failure(struct pool *pool, struct pool_name *name, const struct resolve_answer *answer) {
    if (name->failing) {
        log_debug("%s/%s: cannot resolve %s: %s", pool->config->name, name->config->name, name->config->host, answer->error);
        return;
    }
    name->failing = true;
    const char *hint = answer->hint ? answer->hint : "check the name";
    if (name->count > 0)
        log_warn("%s/%s: cannot resolve %s: %s; keeping its last %u address%s (%s)", pool->config->name, name->config->name,
                 name->config->host, answer->error, name->count, name->count == 1 ? "" : "es", hint);
    else
        log_warn("%s/%s down: cannot resolve %s: %s; trying again every %g s (%s)", pool->config->name, name->config->name,
                 name->config->host, answer->error, (double)pool_resolve_pace_ms(pool, name) / 1000, hint);
}

void pool_update_name(struct pool *pool, struct pool_name *name, const struct resolve_answer *answer,
                      pool_change_fn *changed, void *owner) {
    if (answer->error) {
        pool_note_failure(pool, name, answer);
        return;
    }
    if (name->failing)
        log_info("%s/%s: %s resolves again", pool->config->name, name->config->name, name->config->host);
    name->failing = false;
    /* First what is new, as far as there is room, so that the pool is at no time emptier than before and after. */
    for (unsigned i = 0; i < answer->count; i++)
        pool_add_address(pool, name, answer, i, changed, owner);
    pool_remove_unwanted(pool, name, answer, changed, owner);
    bool room = true;
    for (unsigned i = 0; i < answer->count && room; i++)
        room = pool_add_address(pool, name, answer, i, changed, owner);
    if (!room && !name->full)
        log_warn("%s/%s: %s has more than %d addresses; the others are left out", pool->config->name, name->config->name,
                 name->config->host, POOL_ADDRESSES_MAX);
    name->full = !room;
}

uint32_t pool_resolve_pace_ms(const struct pool *pool, const struct pool_name *name) {
    uint32_t pace_ms = pool->config->resolve_ms;
    return name->count == 0 && pace_ms > POOL_RETRY_MS ? POOL_RETRY_MS : pace_ms;
}

/* The servers that the same name had in the pool before; as other objects, in the same state, where they would differ. */
static void pool_carry_name(struct pool *pool, struct pool_name *name, const struct pool *previous) {
    const struct pool_name *old = NULL;
    for (unsigned i = 0; previous && i < previous->name_count && !old; i++)
        if (strcmp(previous->names[i].config->address, name->config->address) == 0)
            old = &previous->names[i];
    for (unsigned slot = 0; old && slot < POOL_ADDRESSES_MAX; slot++) {
        struct server *server = previous->servers[old->first + slot], *absent = name->absent;
        if (!pool_slot_is_used(old, server))
            continue;
        bool same = strcmp(old->config->name, name->config->name) == 0 && old->config->weight == name->config->weight &&
                    old->config->backup == name->config->backup && old->config->max_connections == name->config->max_connections;
        char affinity[AFFINITY_VALUE_SIZE] = "";
        if (pool->config->affinity.cookie)
            affinity_value(&pool->config->affinity, server->name, affinity);
        if (same && strcmp(affinity, server->affinity) == 0) {
            pool_put(pool, name, slot, server_ref(server));
        } else {
            /* Roles and factors of SRV records are not kept: the first answer sets them right. */
            const struct resolve_address address = {.addr = server->addr, .host = server->host, .weight = 1};
            pool_put(pool, name, slot, pool_new_address(pool, name->config, &address, server, false));
        }
        server = pool->servers[name->first + slot];
        if (pool_first_state(pool) == SERVER_UP)
            server_set_state(server, SERVER_UP);
        server_unref(&absent); /* the slot's */
    }
}

void pool_make_name(struct pool *pool, const struct config_server *config, const struct pool *previous) {
    assert(config->addr.len == 0);
    struct pool_name *name = &pool->names[pool->name_count++];
    struct config_server absent = *config;
    absent.weight = 0;
    name->config = config;
    name->absent = server_new(pool->config->name, &absent);
    name->first = pool->server_count;
    pool->server_count += POOL_ADDRESSES_MAX;
    for (unsigned i = 0; i < POOL_ADDRESSES_MAX; i++)
        atomic_init(&pool->servers[name->first + i], server_ref(name->absent));
    pool_carry_name(pool, name, previous);
}

/* One question of pools_resolve(). */
struct pool_question {
    struct pool *pool;
    struct pool_name *name;
    struct resolve *job;
    unsigned *left;
};

static void pool_on_resolved(void *owner, const struct resolve_answer *answer) {
    struct pool_question *question = owner;
    question->job = NULL;
    --*question->left;
    pool_update_name(question->pool, question->name, answer, NULL, NULL);
}

void pools_resolve(struct pool *const *pools, unsigned count, const char *nameservers, uint32_t timeout_ms) {
    unsigned names = 0, asked = 0, left = 0;
    for (unsigned i = 0; i < count; i++)
        names += pools[i]->name_count;
    if (names == 0)
        return;
    struct pool_question *questions = mem_alloc_array(names, sizeof *questions);
    struct loop *loop = loop_new();
    struct resolver *resolver = resolver_new(loop, nameservers);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < pools[i]->name_count; k++) {
            struct pool_name *name = &pools[i]->names[k];
            if (name->count > 0)
                continue;
            struct pool_question *question = &questions[asked++];
            *question = (struct pool_question){.pool = pools[i], .name = name, .left = &left};
            left++;
            question->job = resolve_start(resolver, name->config->host, name->config->port, name->config->srv, timeout_ms,
                                          pool_on_resolved, question);
        }
    }
    while (left > 0)
        loop_turn(loop, -1);
    resolver_free(&resolver);
    loop_free(&loop);
    mem_free(questions);
}
