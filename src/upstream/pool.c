/* SPDX-License-Identifier: MIT */
/*
 * A pool at run time: servers, the TLS context towards them, and the digest that keeps connections made one way
 * from being used another way. Servers that were there before, unchanged, are taken over with their state and
 * counters; one whose weight or name changed is a new object (others still read the old one) that starts in the
 * old one's state. What concerns names is in pool_names.c.
 */
#include "upstream/pool.h"

#include <assert.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

static uint64_t pool_mix(uint64_t digest, const char *text) {
    uint64_t hash = text ? str_hash(span_of(text)) : 0x5bd1e995u;
    return (digest ^ hash) * 0x9e3779b97f4a7c15ull + (digest >> 31);
}

static uint64_t pool_digest(const struct config_pool *config) {
    char source[ADDR_TEXT_MAX] = "";
    if (config->source.len != 0)
        addr_format(&config->source, source);
    uint64_t digest = pool_mix(1 + (uint64_t)config->proxy_protocol, source);
    if (!config->tls)
        return digest;
    digest = pool_mix(digest, config->tls_verify ? "verify" : "tls");
    digest = pool_mix(digest, config->tls_sni);
    digest = pool_mix(digest, config->tls_ca);
    digest = pool_mix(digest, config->tls_cert);
    return pool_mix(digest, config->tls_key);
}

enum server_state pool_first_state(const struct pool *pool) {
    return pool->config->probe.kind == CONFIG_PROBE_NONE ? SERVER_UP : SERVER_UNKNOWN;
}

static struct server *pool_take_over(const struct pool *pool, const struct config_server *config,
                                     const struct pool *previous, enum server_state *state) {
    char affinity[AFFINITY_VALUE_SIZE] = "";
    if (pool->config->affinity.cookie)
        affinity_value(&pool->config->affinity, config->name ? config->name : config->address, affinity);
    for (unsigned i = 0; previous && i < previous->server_count; i++) {
        struct server *old = previous->servers[i];
        const char *address = config->address ? config->address : config->name;
        if (!span_equal(span_of(old->address), span_of(address)))
            continue;
        bool same = span_equal(span_of(old->name), span_of(config->name ? config->name : address)) &&
                    old->weight == config->weight && old->backup == config->backup &&
                    old->max_connections == config->max_connections && strcmp(old->affinity, affinity) == 0;
        if (same)
            return server_ref(old);
        *state = server_state(old);
        return NULL;
    }
    return NULL;
}

void pool_adopt_server(const struct pool *pool, struct server *server) {
    server->queue = queue_ref(pool->queue);
    if (pool->config->affinity.cookie)
        affinity_value(&pool->config->affinity, server->name, server->affinity);
}

static struct server *pool_make_server(const struct pool *pool, const struct config_server *config,
                                       const struct pool *previous) {
    enum server_state state = pool_first_state(pool);
    struct server *server = pool_take_over(pool, config, previous, &state);
    if (server) {
        state = server_state(server);
    } else {
        server = server_new(pool->config->name, config);
        pool_adopt_server(pool, server);
    }
    if (pool_first_state(pool) == SERVER_UP)
        state = SERVER_UP;
    server_set_state(server, state);
    return server;
}

static bool pool_make_tls(struct pool *pool, char *error) {
    const struct config_pool *config = pool->config;
    bool probe = !config->tls && config->probe.kind != CONFIG_PROBE_NONE && config->probe.tls == 1;
    if (!config->tls && !probe)
        return true;
    struct tls_client_options options = {
        .verify = config->tls_verify, .ca = config->tls_ca, .cert = config->tls_cert, .key = config->tls_key};
    struct tls_client *client = tls_client_new(&options, error);
    if (config->tls)
        pool->tls = client;
    else
        pool->probe_tls = client;
    return client != NULL;
}

struct pool *pool_new(const struct config_pool *config, const struct pool *previous, char *error) {
    assert(config && error);
    struct pool *pool = mem_alloc(sizeof *pool);
    pool->config = config;
    pool->digest = pool_digest(config);
    if (!pool_make_tls(pool, error)) {
        pool_free(&pool);
        return NULL;
    }
    if (previous && !span_equal(span_of(previous->config->name), span_of(config->name)))
        previous = NULL;
    pool->queue = previous ? queue_ref(previous->queue) : queue_new();
    pool->servers = mem_alloc_array(config->server_count * POOL_ADDRESSES_MAX + 1u, sizeof *pool->servers);
    pool->names = mem_alloc_array(config->server_count + 1u, sizeof *pool->names);
    for (unsigned i = 0; i < config->server_count; i++) {
        if (config->servers[i].addr.len == 0)
            pool_make_name(pool, &config->servers[i], previous);
        else
            pool->servers[pool->server_count++] = pool_make_server(pool, &config->servers[i], previous);
    }
    return pool;
}

void pool_free(struct pool **pool) {
    struct pool *p = *pool;
    *pool = NULL;
    if (!p)
        return;
    for (unsigned i = 0; i < p->server_count; i++) {
        struct server *server = p->servers[i];
        server_unref(&server);
    }
    for (unsigned i = 0; i < p->name_count; i++)
        server_unref(&p->names[i].absent);
    queue_unref(&p->queue);
    mem_free(p->servers);
    mem_free(p->names);
    tls_client_free(&p->tls);
    tls_client_free(&p->probe_tls);
    mem_free(p);
}

size_t pool_write_proxy_header(const struct pool *pool, const struct addr_small *source,
                               const struct addr_small *destination, char *out) {
    switch (pool->config->proxy_protocol) {
    case CONFIG_PROXY_V1: return proxyproto_write(out, PROXYPROTO_V1, source, destination);
    case CONFIG_PROXY_V2: return proxyproto_write(out, PROXYPROTO_V2, source, destination);
    case CONFIG_PROXY_NONE: break;
    }
    return 0;
}

size_t pool_write_probe_header(const struct pool *pool, char *out) {
    const struct addr_small own = {.family = 0};
    return pool->config->probe.port != 0 ? 0 : pool_write_proxy_header(pool, &own, &own, out);
}

const char *pool_tls_name(const struct pool *pool, const struct server *server) {
    return pool->config->tls_sni ? pool->config->tls_sni : server->host;
}

bool pool_is_pending(const struct pool *pool) {
    for (unsigned i = 0; i < pool->server_count; i++) {
        const struct server *server = pool->servers[i];
        if (server->weight != 0 && server_state(server) == SERVER_UNKNOWN)
            return true;
    }
    return false;
}

bool pool_has_live(const struct pool *pool) {
    for (unsigned i = 0; i < pool->server_count; i++) {
        if (server_is_live(pool->servers[i]))
            return true;
    }
    return false;
}

bool pool_was_tried(const struct pool_tried *tried, const struct server *server) {
    for (unsigned i = 0; i < tried->count; i++)
        if (tried->list[i] == server)
            return true;
    return false;
}

/* 0: comes first. */
static unsigned pool_class(const struct pool_tried *tried, const struct server *server) {
    return (pool_was_tried(tried, server) ? 2u : 0u) + (server->backup ? 1u : 0u);
}

bool pool_is_next(const struct pool *pool, const struct pool_tried *tried, const struct server *server) {
    if (!server_is_live(server))
        return false;
    const unsigned class = pool_class(tried, server);
    bool found = false;
    for (unsigned i = 0; i < pool->server_count && !(found && class == 0); i++) {
        const struct server *other = pool->servers[i];
        found = found || other == server;
        if (class > 0 && server_is_live(other) && pool_class(tried, other) < class)
            return false;
    }
    return found; /* else it is one of before a reload, or has left */
}

/* Digits of a hash: of two values that differ, the first eight nearly always do, and those are one comparison. */
static bool pool_same_affinity(const struct server *server, const char *value) {
    uint64_t ours, theirs;
    memcpy(&ours, server->affinity, sizeof ours);
    memcpy(&theirs, value, sizeof theirs);
    return ours == theirs && memcmp(server->affinity, value, AFFINITY_VALUE_SIZE - 1) == 0;
}

unsigned pool_find_affinity(const struct pool *pool, struct span value) {
    struct span one;
    while (pool->config->affinity.cookie && affinity_next(&value, &one)) {
        for (unsigned i = 0; i < pool->server_count; i++) {
            if (pool_same_affinity(pool->servers[i], one.p))
                return i;
        }
    }
    return pool->server_count;
}

/* How well a server fits what is looked for by name; 0: not at all. */
static unsigned pool_find_rank(const struct server *server, struct span name) {
    bool absent = server_state(server) == SERVER_UNRESOLVED; /* has the name of all, and stands for none */
    if (!absent && span_equal(span_of(server->name), name))
        return 4;
    if (!span_equal(span_of(server->group), name) && !span_equal(span_of(server->address), name))
        return 0;
    return server_is_live(server) ? (server_has_room(server) ? 3 : 2) : 1;
}

struct server *pool_find_server(const struct pool *pool, struct span name) {
    struct server *best = NULL;
    unsigned best_rank = 0;
    for (unsigned i = 0; i < pool->server_count; i++) {
        struct server *server = pool->servers[i];
        unsigned rank = pool_find_rank(server, name);
        if (rank > best_rank) {
            best = server;
            best_rank = rank;
        }
    }
    return best;
}
