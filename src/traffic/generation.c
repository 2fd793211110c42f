/* SPDX-License-Identifier: MIT */
/*
 * One loaded configuration at run time. Everything that can fail (certificates, pools) is made here, before any worker sees it, so
 * that a bad file never costs the running one. Shared parts are immutable after generation_new(); a worker's own part
 * (Lua state, balancers) is made and freed on that worker's thread.
 */
#include "traffic/generation.h"

#include <stdio.h>

#include "base/mem.h"

#define GENERATION_RESOLVE_MS 3000 /* how long a load waits for name servers; who is late starts without addresses */

static struct tls_server *generation_open_tls(const struct config_listener *listener, char *error) {
    struct tls_certificate *list = mem_alloc_array(listener->certificate_count, sizeof *list);
    for (unsigned i = 0; i < listener->certificate_count; i++) {
        const struct config_certificate *from = &listener->certificates[i];
        list[i] = (struct tls_certificate){.cert = from->cert, .key = from->key, .name = from->name};
    }
    const struct tls_server_options options = {
        .certificates = list,
        .certificate_count = listener->certificate_count,
        .min_version = listener->tls_min,
        .session_id = listener->name,
        .client_cert = (enum tls_client_cert)listener->client_cert, /* the same names in the same order */
        .client_ca = listener->client_ca,
    };
    char reason[TLS_ERROR_MAX];
    struct tls_server *server = tls_server_new(&options, reason);
    mem_free(list);
    if (!server)
        snprintf(error, GENERATION_ERROR_MAX, "%s:%d: listener \"%s\": %s", listener->place.file, listener->place.line,
                 listener->name, reason);
    return server;
}

static const struct pool *generation_find_pool(const struct generation *generation, const char *name) {
    if (!generation)
        return NULL;
    const struct config_pool *found = config_find_pool(generation->config, name);
    return found ? generation->pools[found - generation->config->pools] : NULL;
}

static bool generation_fill(struct generation *generation, const struct generation *previous, char *error) {
    const struct config *config = generation->config;
    for (unsigned i = 0; i < config->listener_count; i++) {
        if (!config->listeners[i].tls)
            continue;
        generation->tls[i] = generation_open_tls(&config->listeners[i], error);
        if (!generation->tls[i])
            return false;
    }
    for (unsigned i = 0; i < config->pool_count; i++) {
        char reason[TLS_ERROR_MAX];
        const struct config_pool *pool = &config->pools[i];
        generation->pools[i] = pool_new(pool, generation_find_pool(previous, pool->name), reason);
        if (!generation->pools[i]) {
            snprintf(error, GENERATION_ERROR_MAX, "%s:%d: pool \"%s\": %s", pool->place.file, pool->place.line, pool->name,
                     reason);
            return false;
        }
        if (pool->proxy_protocol != CONFIG_PROXY_NONE)
            generation->tells_destination = true;
    }
    pools_resolve(generation->pools, config->pool_count, config->settings.nameservers, GENERATION_RESOLVE_MS);
    generation->routes = routes_new(config);
    return true;
}

struct generation *generation_new(const struct config *config, void *load, void (*free_load)(void *load),
                                  const struct script_ops *ops, const struct generation *previous, char *error) {
    struct generation *generation = mem_alloc(sizeof *generation);
    atomic_init(&generation->refs, 1);
    generation->config = config;
    generation->load = load;
    generation->free_load = free_load;
    generation->ops = ops;
    generation->pools = mem_alloc_array(config->pool_count + 1, sizeof(struct pool *));
    generation->tls = mem_alloc_array(config->listener_count + 1, sizeof(struct tls_server *));
    if (!generation_fill(generation, previous, error))
        generation_unref(&generation);
    return generation;
}

struct generation *generation_ref(struct generation *generation) {
    atomic_fetch_add(&generation->refs, 1);
    return generation;
}

void generation_unref(struct generation **slot) {
    struct generation *generation = *slot;
    *slot = NULL;
    if (!generation || atomic_fetch_sub(&generation->refs, 1) != 1)
        return;
    routes_free(&generation->routes);
    for (unsigned i = 0; i < generation->config->pool_count; i++)
        pool_free(&generation->pools[i]);
    for (unsigned i = 0; i < generation->config->listener_count; i++)
        tls_server_free(&generation->tls[i]);
    mem_free(generation->pools);
    mem_free(generation->tls);
    generation->free_load(generation->load);
    mem_free(generation);
}

struct generation_local *generation_local_new(struct generation *generation, unsigned worker, unsigned workers,
                                              struct loop *loop, char *error) {
    void *script = generation->ops->open(generation->load, worker, error, GENERATION_ERROR_MAX);
    if (!script)
        return NULL;
    struct generation_local *local = mem_alloc(sizeof *local);
    local->refs = 1;
    local->generation = generation_ref(generation);
    local->script = script;
    local->balances = mem_alloc_array(generation->config->pool_count + 1, sizeof(struct balance *));
    local->worker = worker;
    for (unsigned i = 0; i < generation->config->pool_count; i++) {
        local->balances[i] = balance_new(generation->pools[i], worker, workers);
        queue_open(generation->pools[i]->queue, worker, loop);
    }
    return local;
}

struct generation_local *generation_local_ref(struct generation_local *local) {
    local->refs++;
    return local;
}

void generation_local_unref(struct generation_local **slot) {
    struct generation_local *local = *slot;
    *slot = NULL;
    if (!local || --local->refs > 0)
        return;
    local->generation->ops->close(local->script);
    for (unsigned i = 0; i < local->generation->config->pool_count; i++) {
        balance_free(&local->balances[i]);
        queue_close(local->generation->pools[i]->queue, local->worker);
    }
    mem_free(local->balances);
    generation_unref(&local->generation);
    mem_free(local);
}
