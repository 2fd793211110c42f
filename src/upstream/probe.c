/* SPDX-License-Identifier: MIT */
/*
 * When servers are asked, and what the answers mean. The first answer decides at once; after that `fall` failures
 * in a row take a server out and `rise` successes bring it back, asked at the `fast` pace while a change is in the
 * air. Failed connects of live traffic count like failed probes, which takes a dead server out long before its
 * next probe is due.
 *
 * The subtle thing is server->probe: workers reach it through on_failure at any time, while a prober may be
 * ending. So it is set, cleared and followed under one process-wide lock, taken only when a live connect has
 * failed.
 */
#include "upstream/probe.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "upstream/probe_run.h"

#define PROBE_SPREAD_MS 100 /* the first round takes no longer to go out: requests wait for it */

struct probe {
    struct list link; /* prober->probes */
    struct prober *prober;
    const struct pool *pool;
    struct server *server;
    struct timer timer;
    struct probe_http *http; /* at most one of these is there at a time */
    struct probe_tcp *tcp;
    struct probe_websocket *websocket;
    uint64_t started_ms;
    unsigned successes, failures; /* in a row; one of them is 0 */
    bool posted;                  /* a letter about live failures is under way; under probe_lock */
};

struct prober {
    struct upstream *upstream;
    struct list probes;
    void (*on_change)(void *owner, struct server *server);
    void *owner;
    uint64_t random;
};

/* "Live connects to server failed." */
struct probe_letter {
    struct message message;
    struct server *server;
};

static pthread_mutex_t probe_lock = PTHREAD_MUTEX_INITIALIZER;

static void probe_on_timer(struct timer *timer);
static void probe_on_failure(struct server *server);

static struct probe *probe_new(struct prober *prober, const struct pool *pool, struct server *server) {
    struct probe *probe = mem_alloc(sizeof *probe);
    probe->prober = prober;
    probe->pool = pool;
    probe->server = server_ref(server);
    timer_init(&probe->timer, probe_on_timer);
    list_append(&prober->probes, &probe->link);
    return probe;
}

struct prober *prober_new(struct upstream *upstream, struct pool *const *pools, unsigned pool_count,
                          void (*on_change)(void *owner, struct server *server), void *owner) {
    assert(upstream && upstream->is_probe && on_change);
    struct prober *prober = mem_alloc(sizeof *prober);
    prober->upstream = upstream;
    list_init(&prober->probes);
    prober->on_change = on_change;
    prober->owner = owner;
    prober->random = clock_us() | 1;
    for (unsigned i = 0; i < pool_count; i++) {
        for (unsigned k = 0; k < pools[i]->server_count; k++) {
            if (server_state(pools[i]->servers[k]) != SERVER_UNRESOLVED)
                probe_new(prober, pools[i], pools[i]->servers[k]);
        }
    }
    return prober;
}

static bool probe_is_off(const struct probe *probe) { return probe->pool->config->probe.kind == CONFIG_PROBE_NONE; }

static bool probe_is_running(const struct probe *probe) { return probe->http || probe->tcp || probe->websocket; }

static void probe_set_timer(struct probe *probe, uint64_t delay_ms) {
    timer_set(probe->prober->upstream->loop, &probe->timer, delay_ms ? delay_ms : 1);
}

/* Ties the servers to this prober, which may take them over from an older one. */
static void probe_attach(struct probe *probe) {
    pthread_mutex_lock(&probe_lock);
    probe->server->probe = probe;
    pthread_mutex_unlock(&probe_lock);
    void (*on_failure)(struct server *) = probe_is_off(probe) ? NULL : probe_on_failure;
    atomic_store_explicit(&probe->server->on_failure, on_failure, memory_order_release);
}

static void probe_detach(struct probe *probe) {
    pthread_mutex_lock(&probe_lock);
    if (probe->server->probe == probe) {
        probe->server->probe = NULL;
        atomic_store_explicit(&probe->server->on_failure, NULL, memory_order_release);
    }
    pthread_mutex_unlock(&probe_lock);
}

static void probe_free(struct probe *probe) {
    probe_detach(probe);
    timer_stop(probe->prober->upstream->loop, &probe->timer);
    probe_http_free(&probe->http);
    probe_tcp_free(&probe->tcp);
    probe_websocket_free(&probe->websocket);
    list_remove(&probe->link);
    server_unref(&probe->server);
    mem_free(probe);
}

static void probe_start(struct probe *probe, uint64_t delay_ms) {
    probe_attach(probe);
    if (!probe_is_off(probe))
        probe_set_timer(probe, delay_ms);
}

void prober_start(struct prober *prober) {
    unsigned count = 0, i = 0;
    LIST_EACH_SAFE(it, &prober->probes)
        count++;
    LIST_EACH_SAFE(it, &prober->probes) {
        struct probe *probe = container_of(it, struct probe, link);
        uint64_t spread = probe->pool->config->probe.every_ms / 10;
        spread = spread < PROBE_SPREAD_MS ? spread : PROBE_SPREAD_MS;
        probe_start(probe, i++ * spread / count);
    }
}

void prober_add(struct prober *prober, const struct pool *pool, struct server *server) {
    probe_start(probe_new(prober, pool, server), 0);
}

void prober_remove(struct prober *prober, const struct server *server) {
    LIST_EACH_SAFE(it, &prober->probes) {
        struct probe *probe = container_of(it, struct probe, link);
        if (probe->server == server)
            probe_free(probe);
    }
}

void prober_free(struct prober **slot) {
    struct prober *prober = *slot;
    *slot = NULL;
    if (!prober)
        return;
    LIST_EACH_SAFE(it, &prober->probes)
        probe_free(container_of(it, struct probe, link));
    mem_free(prober);
}

/* The period less at most a tenth, so that probes of many servers (and gateways) drift apart. */
static uint64_t probe_jitter(struct prober *prober, uint64_t period_ms) {
    prober->random ^= prober->random << 13;
    prober->random ^= prober->random >> 7;
    prober->random ^= prober->random << 17;
    uint64_t tenth = period_ms / 10;
    return period_ms - (tenth ? prober->random % tenth : 0);
}

static uint64_t probe_fast_ms(const struct probe *probe) {
    const struct config_probe *config = &probe->pool->config->probe;
    return config->fast_ms != 0 && config->fast_ms < config->every_ms ? config->fast_ms : config->every_ms;
}

/* The next probe, counted from the start of the last one. */
static void probe_plan(struct probe *probe) {
    enum server_state state = server_state(probe->server);
    bool changing = state == SERVER_UNKNOWN || (state == SERVER_UP && probe->failures != 0) ||
                    (state == SERVER_DOWN && probe->successes != 0);
    uint64_t pace = changing ? probe_fast_ms(probe) : probe->pool->config->probe.every_ms;
    uint64_t elapsed = loop_now_ms(probe->prober->upstream->loop) - probe->started_ms;
    pace = probe_jitter(probe->prober, pace);
    probe_set_timer(probe, pace > elapsed ? pace - elapsed : 1);
}

/* Brings the next probe forward to the fast pace. */
static void probe_hasten(struct probe *probe) {
    uint64_t now = loop_now_ms(probe->prober->upstream->loop);
    uint64_t fast = probe_fast_ms(probe);
    if (!probe_is_running(probe) && timer_is_set(&probe->timer) && probe->timer.deadline_ms > now + fast)
        probe_set_timer(probe, fast);
}

static void probe_change(struct probe *probe, enum server_state state) {
    if (server_set_state(probe->server, state))
        probe->prober->on_change(probe->prober->owner, probe->server);
}

static void probe_succeeded(struct probe *probe, const char *detail) {
    enum server_state state = server_state(probe->server);
    probe->failures = 0;
    probe->successes++;
    bool up = state == SERVER_UNKNOWN || (state == SERVER_DOWN && probe->successes >= probe->pool->config->probe.rise);
    if (!up)
        return;
    log_info("%s up: %s", probe->server->label, detail);
    probe_change(probe, SERVER_UP);
}

static void probe_failed(struct probe *probe, unsigned count, const char *detail, const char *hint) {
    enum server_state state = server_state(probe->server);
    probe->successes = 0;
    probe->failures += count;
    bool down = state == SERVER_UNKNOWN || (state == SERVER_UP && probe->failures >= probe->pool->config->probe.fall);
    if (!down)
        return;
    char row[32] = "";
    if (probe->failures > 1)
        snprintf(row, sizeof row, ", %u in a row", probe->failures);
    if (hint)
        log_warn("%s down: %s%s (%s)", probe->server->label, detail, row, hint);
    else
        log_warn("%s down: %s%s", probe->server->label, detail, row);
    probe_change(probe, SERVER_DOWN);
}

static void probe_on_done(void *owner, enum probe_result result, const char *detail, const char *hint) {
    struct probe *probe = owner;
    if (result == PROBE_OK) {
        probe_succeeded(probe, detail);
    } else if (result == PROBE_FAILED) {
        metric_add(METRIC_probes_failed, 1);
        probe_failed(probe, 1, detail, hint);
    } else {
        log_warn("%s not probed: %s", probe->server->label, detail);
    }
    probe_http_free(&probe->http);
    probe_tcp_free(&probe->tcp);
    probe_websocket_free(&probe->websocket);
    probe_plan(probe);
}

static void probe_on_timer(struct timer *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    struct upstream *upstream = probe->prober->upstream;
    assert(!probe_is_running(probe));
    if (probe_is_off(probe))
        return;
    metric_add(METRIC_probes_sent, 1);
    probe->started_ms = loop_now_ms(upstream->loop);
    if (probe->pool->config->probe.kind == CONFIG_PROBE_HTTP)
        probe->http = probe_http_start(upstream, probe->pool, probe->server, probe_on_done, probe);
    else if (probe->pool->config->probe.kind == CONFIG_PROBE_WEBSOCKET)
        probe->websocket = probe_websocket_start(upstream, probe->pool, probe->server, probe_on_done, probe);
    else
        probe->tcp = probe_tcp_start(upstream, probe->pool, probe->server, probe_on_done, probe);
}

/* The control thread reads what workers noted. */
static void probe_take_failures(struct message *message) {
    struct probe_letter *letter = container_of(message, struct probe_letter, message);
    struct server *server = letter->server;
    mem_free(letter);
    pthread_mutex_lock(&probe_lock);
    struct probe *probe = server->probe;
    if (probe)
        probe->posted = false;
    pthread_mutex_unlock(&probe_lock);
    unsigned count = atomic_exchange_explicit(&server->connect_failures, 0, memory_order_relaxed);
    if (probe && count != 0 && server_state(server) == SERVER_UP) {
        probe_failed(probe, count, "connects of live requests failed", NULL);
        probe_hasten(probe);
    }
    server_unref(&server);
}

/* Any thread. */
static void probe_on_failure(struct server *server) {
    pthread_mutex_lock(&probe_lock);
    struct probe *probe = server->probe;
    if (probe && !probe->posted) {
        probe->posted = true;
        struct probe_letter *letter = mem_alloc(sizeof *letter);
        letter->server = server_ref(server);
        loop_post(probe->prober->upstream->loop, &letter->message, probe_take_failures);
    }
    pthread_mutex_unlock(&probe_lock);
}
