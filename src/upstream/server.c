/* SPDX-License-Identifier: MIT */
/*
 * One backend. All texts live in one block behind the struct's own allocation and never change; state, active
 * count and connect failures are atomics that any thread may read. The address never changes either: a name that
 * moves to another address gets another server, while tunnels on the old one keep theirs.
 */
#include "upstream/server.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

static _Atomic(unsigned) server_epoch_now;

unsigned server_epoch(void) { return atomic_load_explicit(&server_epoch_now, memory_order_acquire); }

void server_bump_epoch(void) { atomic_fetch_add_explicit(&server_epoch_now, 1, memory_order_release); }

static uint64_t server_identity(const char *host, const char *address) {
    uint64_t hash = str_hash(span_of(address));
    return (hash ^ (hash >> 29)) * 0x9e3779b97f4a7c15ull + str_hash(span_of(host));
}

static struct server *server_make(const char *pool_name, const struct config_server *config, const char *group) {
    assert(pool_name && config);
    /* The state has a cache line of its own, which plain allocation does not promise. */
    struct server *server = NULL;
    if (posix_memalign((void **)&server, _Alignof(struct server), sizeof *server) != 0)
        abort();
    *server = (struct server){0};
    bool is_unix = config->addr.len != 0 && config->addr.sa.any.sa_family == AF_UNIX;
    const char *address = config->address ? config->address : config->name;
    server->pool_name = mem_strdup(pool_name);
    server->name = mem_strdup(config->name ? config->name : address);
    server->address = mem_strdup(address);
    server->group = mem_strdup(group ? group : server->name);
    server->seed = str_hash(span_of(server->name));
    server->label = mem_printf("%s/%s", pool_name, server->name);
    server->host = mem_strdup(is_unix || !config->host ? "localhost" : config->host);
    server->identity = server_identity(server->host, server->address);
    server->port = config->port;
    server->weight = config->weight;
    server->backup = config->backup;
    server->max_connections = config->max_connections;
    server->addr = config->addr;
    atomic_init(&server->state, config->addr.len ? SERVER_UNKNOWN : SERVER_UNRESOLVED);
    atomic_init(&server->returned_ms, 0);
    atomic_init(&server->active, 0);
    atomic_init(&server->connect_failures, 0);
    atomic_init(&server->refs, 1);
    atomic_init(&server->on_failure, NULL);
    return server;
}

struct server *server_new(const char *pool_name, const struct config_server *config) {
    return server_make(pool_name, config, NULL);
}

struct server *server_new_of_name(const char *pool_name, const struct config_server *config, const struct addr *addr,
                                  const char *host, const char *where) {
    assert(addr->len != 0);
    struct config_server own = *config;
    own.name = mem_printf("%s(%s)", config->name, where);
    own.addr = *addr;
    own.port = addr_port(addr);
    own.host = (char *)(uintptr_t)host;
    struct server *server = server_make(pool_name, &own, config->name);
    mem_free(own.name);
    return server;
}

struct server *server_ref(struct server *server) {
    assert(server);
    atomic_fetch_add_explicit(&server->refs, 1, memory_order_relaxed);
    return server;
}

static void server_destroy(struct server *server) {
    queue_unref(&server->queue);
    mem_free((char *)(uintptr_t)server->label);
    mem_free((char *)(uintptr_t)server->name);
    mem_free((char *)(uintptr_t)server->group);
    mem_free((char *)(uintptr_t)server->pool_name);
    mem_free((char *)(uintptr_t)server->address);
    mem_free((char *)(uintptr_t)server->host);
    free(server);
}

void server_unref(struct server **server) {
    struct server *s = *server;
    *server = NULL;
    if (s && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
        server_destroy(s);
}

enum server_state server_state(const struct server *server) {
    return (enum server_state)atomic_load_explicit(&server->state, memory_order_acquire);
}

const char *server_state_name(enum server_state state) {
    static const char *const names[] = {
        [SERVER_UNKNOWN] = "unknown", [SERVER_UP] = "up", [SERVER_DOWN] = "down", [SERVER_UNRESOLVED] = "unresolved"};
    return names[state];
}

bool server_set_state(struct server *server, enum server_state state) {
    assert(state == SERVER_UNRESOLVED || server->addr.len != 0);
    enum server_state before = server_state(server);
    bool returns = state == SERVER_UP && (before == SERVER_DOWN || (before == SERVER_UNKNOWN && server->late));
    if (returns) /* before the state: whoever sees it up sees the ramp */
        atomic_store_explicit(&server->returned_ms, clock_ms(), memory_order_relaxed);
    if (atomic_exchange_explicit(&server->state, (int)state, memory_order_acq_rel) == (int)state)
        return false;
    server_bump_epoch();
    return true;
}

unsigned server_ramp(struct server *server, uint32_t slow_start_ms) {
    uint64_t since = atomic_load_explicit(&server->returned_ms, memory_order_relaxed);
    if (since == 0 || slow_start_ms == 0)
        return SERVER_RAMP_FULL;
    uint64_t now = clock_ms(), elapsed = now > since ? now - since : 0;
    if (elapsed < slow_start_ms)
        return SERVER_RAMP_FULL / 16 + (unsigned)((SERVER_RAMP_FULL - SERVER_RAMP_FULL / 16) * elapsed / slow_start_ms);
    /* Over: nobody need look at the clock again, unless it went and came back meanwhile. */
    atomic_compare_exchange_strong_explicit(&server->returned_ms, &since, 0, memory_order_relaxed, memory_order_relaxed);
    return SERVER_RAMP_FULL;
}

bool server_is_live(const struct server *server) {
    return server->weight != 0 && server_state(server) == SERVER_UP;
}

bool server_has_room(const struct server *server) {
    return server->max_connections == 0 || atomic_load(&server->active) < server->max_connections;
}

bool server_enter(struct server *server) {
    if (server->max_connections == 0) {
        atomic_fetch_add(&server->active, 1);
        return true;
    }
    /* Never above the limit, not even for a moment: who looks just then would see no room, and might wait for ever. */
    uint32_t active = atomic_load(&server->active);
    while (active < server->max_connections)
        if (atomic_compare_exchange_weak(&server->active, &active, active + 1))
            return true;
    return false;
}

void server_leave(struct server *server) {
    assert(atomic_load(&server->active) != 0);
    struct queue *queue = server->max_connections != 0 ? server->queue : NULL; /* nobody waits for what is never full */
    unsigned looks;
    do {
        looks = queue ? queue_looks(queue) : 0;
        if (queue && queue_hand_on(queue, server))
            return; /* the slot stays taken on its way to the next one */
        atomic_fetch_sub(&server->active, 1);
        /* Somebody may have looked between the two: see queue.c. */
    } while (queue && queue_looks(queue) != looks && server_enter(server));
}

void server_note_failure(struct server *server) {
    atomic_fetch_add_explicit(&server->connect_failures, 1, memory_order_relaxed);
    void (*on_failure)(struct server *) = atomic_load_explicit(&server->on_failure, memory_order_acquire);
    if (on_failure)
        on_failure(server);
}
