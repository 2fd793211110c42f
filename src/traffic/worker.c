/* SPDX-License-Identifier: MIT */
/*
 * One traffic thread. It owns all it touches; other threads reach it by letters only. Its script state is made on its own thread, so that
 * start-up waits until every worker has said that it stands.
 *
 * EPOLLEXCLUSIVE gives nearly all paced connections to one worker, and tunnels live for days; so a fresh connection goes by letter to the worker
 * with clearly fewest, right after accept and before it costs anything.
 *
 * Draining is a state, not an event: idle clients go at once, busy ones with their response, tunnels at the deadline; whoever is the last to leave
 * ends the loop.
 */
#include "traffic/worker.h"

#include <assert.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "traffic/client.h"
#include "traffic/tunnel.h"

#define WORKER_PIPE_PAGES 8192 /* of all workers' pipes: half of the kernel's soft limit for a user */
#define WORKER_UNEVEN 4       /* connections that another worker must have less, and ... */
#define WORKER_UNEVEN_PART 16 /* ... at least this part of the own: below both, handing over is not worth a letter */

struct worker_letter {
    struct message message;
    struct worker *worker;
    struct server *server;
};

struct worker_launch {
    struct worker *worker;
    sem_t ready;
};

struct worker_arrival {
    struct message message;
    struct worker *worker;
    struct listener *listener;
    int fd;
    struct addr peer;
};

/* Only the worker itself writes the count. */
static void worker_count_live(struct worker *worker, int change) {
    unsigned live = atomic_load_explicit(&worker->live, memory_order_relaxed);
    atomic_store_explicit(&worker->live, live + (unsigned)change, memory_order_relaxed);
}

static unsigned worker_live(const struct worker *worker) {
    return atomic_load_explicit(&worker->live, memory_order_relaxed);
}

static void worker_end_if_empty(struct worker *worker) {
    if (worker->draining && worker_live(worker) == 0)
        loop_stop(worker->loop);
}

void worker_client_opened(struct worker *worker) {
    worker_count_live(worker, 1);
}

void worker_client_closed(struct worker *worker) {
    worker_count_live(worker, -1);
    worker_end_if_empty(worker);
}

static void worker_close_all(struct worker *worker) {
    LIST_EACH_SAFE(it, &worker->client_list)
        client_close(container_of(it, struct client, link), CAUSE_DRAIN);
    tunnel_close_all(worker, CAUSE_DRAIN);
}

static void worker_on_drain_timeout(struct timer *timer) {
    struct worker *worker = container_of(timer, struct worker, drain_timer);
    if (worker_live(worker) > 0)
        log_warn("worker %u: drain timeout: closing %u connections", worker->index, worker_live(worker));
    worker_close_all(worker);
    worker_end_if_empty(worker);
}

static void worker_stop_listening(struct worker *worker) {
    for (unsigned i = 0; worker->ports && i < worker->shared->listeners->count; i++)
        listener_port_stop(&worker->ports[i]);
}

static void worker_on_listen(struct message *message) {
    struct worker_letter *letter = container_of(message, struct worker_letter, message);
    struct worker *worker = letter->worker;
    unsigned count = worker->shared->listeners->count;
    mem_free(letter);
    if (worker->closed || worker->draining)
        return;
    worker->ports = mem_alloc_array(count + 1, sizeof *worker->ports);
    for (unsigned i = 0; i < count; i++)
        listener_port_start(&worker->ports[i], worker, &worker->shared->listeners->list[i]);
}

static void worker_on_drain(struct message *message) {
    struct worker_letter *letter = container_of(message, struct worker_letter, message);
    struct worker *worker = letter->worker;
    mem_free(letter);
    if (worker->draining || worker->closed)
        return;
    worker->draining = true;
    worker_stop_listening(worker);
    LIST_EACH_SAFE(it, &worker->client_list)
        client_drain(container_of(it, struct client, link));
    timer_set(worker->loop, &worker->drain_timer, worker->current->generation->config->settings.drain_timeout_ms);
    worker_end_if_empty(worker);
}

static void worker_on_stop(struct message *message) {
    struct worker_letter *letter = container_of(message, struct worker_letter, message);
    struct worker *worker = letter->worker;
    mem_free(letter);
    if (worker->closed)
        return;
    if (!worker->draining)
        worker_stop_listening(worker);
    worker->draining = true;
    worker_close_all(worker);
    loop_stop(worker->loop);
}

static void worker_look_again(struct queue_waiter *waiter) { request_run(container_of(waiter, struct request, waiter)); }

/* A server came up or went down: those that wait for a slot look again, in their order. */
static void worker_wake_queues(struct worker *worker) {
    const struct generation *generation = worker->current->generation;
    for (unsigned i = 0; i < generation->config->pool_count; i++)
        queue_look_again(generation->pools[i]->queue, worker->index, worker_look_again);
}

static void worker_on_server(struct message *message) {
    struct worker_letter *letter = container_of(message, struct worker_letter, message);
    struct worker *worker = letter->worker;
    if (!worker->closed && server_state(letter->server) != SERVER_UP)
        idle_drop_server(worker->upstream.idle, letter->server);
    server_unref(&letter->server);
    mem_free(letter);
    if (!worker->closed)
        worker_wake_queues(worker);
    /* Those that must go on waiting put themselves back: walk what stands there now. */
    struct list now;
    list_init(&now);
    list_splice(&now, &worker->waiting);
    while (!list_empty(&now)) {
        struct request *request = container_of(now.next, struct request, waiting);
        list_remove(&request->waiting);
        request_run(request);
    }
}

static void worker_post(struct worker *worker, struct server *server, void (*run)(struct message *)) {
    struct worker_letter *letter = mem_alloc(sizeof *letter);
    letter->worker = worker;
    letter->server = server ? server_ref(server) : NULL;
    loop_post(worker->loop, &letter->message, run);
}

void worker_listen(struct worker *worker) { worker_post(worker, NULL, worker_on_listen); }

void worker_drain(struct worker *worker) { worker_post(worker, NULL, worker_on_drain); }

void worker_stop(struct worker *worker) { worker_post(worker, NULL, worker_on_stop); }

void worker_notify_server(struct worker *worker, struct server *server) { worker_post(worker, server, worker_on_server); }

struct worker *worker_choose(struct worker *worker) {
    const struct worker_shared *shared = worker->shared;
    struct worker *best = worker;
    for (unsigned i = 0; i < shared->worker_count; i++)
        if (worker_live(&shared->workers[i]) < worker_live(best))
            best = &shared->workers[i];
    unsigned here = worker_live(worker), there = worker_live(best);
    return here - there > WORKER_UNEVEN && here - there > here / WORKER_UNEVEN_PART ? best : worker;
}

static void worker_on_arrival(struct message *message) {
    struct worker_arrival *arrival = container_of(message, struct worker_arrival, message);
    struct worker *worker = arrival->worker;
    if (worker->closed || worker->draining) {
        close(arrival->fd);
        listener_leave(worker->shared, arrival->listener);
    } else {
        client_accept(worker, arrival->listener, arrival->fd, &arrival->peer);
    }
    mem_free(arrival);
}

void worker_hand_over(struct worker *worker, struct listener *listener, int fd, const struct addr *peer) {
    struct worker_arrival *arrival = mem_alloc(sizeof *arrival);
    arrival->worker = worker;
    arrival->listener = listener;
    arrival->fd = fd;
    arrival->peer = *peer;
    loop_post(worker->loop, &arrival->message, worker_on_arrival);
}

static void worker_open(struct worker *worker) {
    slab_init(&worker->clients, sizeof(struct client));
    slab_init(&worker->requests, sizeof(struct request));
    slab_init(&worker->tunnels, TUNNEL_SIZE);
    list_init(&worker->client_list);
    list_init(&worker->tunnel_list);
    list_init(&worker->waiting);
    worker->scratch = mem_alloc(UPSTREAM_SCRATCH);
    pipes_init(&worker->pipes, WORKER_PIPE_PAGES / (PIPE_SIZE / 4096) / worker->shared->worker_count);
    stock_init(&worker->stock, WORKER_BLOCK);
    worker->log_line = mem_alloc(LOG_LINE_MAX);
    timer_init(&worker->drain_timer, worker_on_drain_timeout);
    upstream_init(&worker->upstream, worker->loop);
}

static void worker_close(struct worker *worker) {
    timer_stop(worker->loop, &worker->drain_timer);
    /* Deferred frees give memory back to the slabs: they come first. */
    loop_turn(worker->loop, 0);
    worker->closed = true;
    upstream_fini(&worker->upstream);
    generation_local_unref(&worker->current);
    mem_free(worker->log_line);
    stock_fini(&worker->stock);
    pipes_fini(&worker->pipes);
    mem_free(worker->scratch);
    slab_fini(&worker->clients);
    slab_fini(&worker->requests);
    slab_fini(&worker->tunnels);
}

void worker_init(struct worker *worker, unsigned index, struct worker_shared *shared, struct generation *generation, char *error) {
    *worker = (struct worker){.index = index, .shared = shared, .error = error};
    worker->loop = loop_new();
    worker->initial = generation_ref(generation);
}

bool worker_begin(struct worker *worker) {
    worker_open(worker);
    worker->current = generation_local_new(worker->initial, worker->index, worker->shared->worker_count, worker->loop,
                                           worker->error);
    generation_unref(&worker->initial);
    worker->failed = worker->current == NULL;
    return !worker->failed;
}

void worker_end(struct worker *worker) {
    worker_close(worker);
    mem_free(worker->ports);
    if (worker->shared->on_stopped)
        worker->shared->on_stopped(worker->shared->owner);
}

static void *worker_main(void *argument) {
    struct worker_launch *launch = argument;
    struct worker *worker = launch->worker;
    log_attach("worker");
    metrics_attach();
    bool begun = worker_begin(worker);
    sem_post(&launch->ready); /* launch is gone from here on */
    if (begun)
        loop_run(worker->loop);
    worker_end(worker);
    return NULL;
}

bool worker_start(struct worker *worker, unsigned index, struct worker_shared *shared, struct generation *generation, char *error) {
    struct worker_launch launch = {.worker = worker};
    worker_init(worker, index, shared, generation, error);
    sem_init(&launch.ready, 0, 0);
    int status = pthread_create(&worker->thread, NULL, worker_main, &launch);
    if (status != 0) {
        snprintf(error, GENERATION_ERROR_MAX, "cannot start worker %u: %s", index, strerror(status));
        generation_unref(&worker->initial);
        loop_free(&worker->loop);
        sem_destroy(&launch.ready);
        return false;
    }
    worker->started = true;
    while (sem_wait(&launch.ready) != 0) {
    }
    sem_destroy(&launch.ready);
    return !worker->failed;
}

void worker_join(struct worker *worker) {
    if (!worker->started)
        return;
    pthread_join(worker->thread, NULL);
    worker->started = false;
}

void worker_free(struct worker *worker) {
    assert(!worker->started);
    loop_free(&worker->loop);
}
