/* SPDX-License-Identifier: MIT */
/*
 * Which server takes a request, and the two ways to wait for one: while no probe has answered yet, and while all live servers are full. Nobody waits
 * for servers that are down: 503 at once.
 *
 * The subtle one: after joining the queue the servers are looked at once more, because a slot may have come free in between; queue.c says why that
 * is enough.
 */
#include "base/mem.h"
#include "traffic/request_steps.h"

/* Takes a slot of the server that is next; NULL when none has room. */
static struct server *request_pick(struct request *request) {
    struct span name = request->decide.action->forward.server;
    if (name.p) {
        struct server *server = pool_find_server(request->pool, name);
        return server && server_state(server) == SERVER_UP && server_enter(server) ? server : NULL;
    }
    /* Another worker may take the last slot between pick and enter: bounded tries. */
    for (unsigned i = 0; i <= request->pool->server_count; i++) {
        struct server *server = request_choose_server(request);
        if (!server || server_enter(server))
            return server;
    }
    return NULL;
}

static enum step_result request_use(struct request *request, struct server *server) {
    struct server *before = request->last_server;
    request->server = server;
    request->last_server = server_ref(server);
    server_unref(&before);
    request->step = REQUEST_SEND;
    return STEP_NEXT;
}

static void request_leave_queue(struct request *request) {
    if (queue_is_waiting(&request->waiter))
        queue_leave(request->pool->queue, request->worker->index, &request->waiter);
}

static void request_on_timer(struct timer *timer) {
    struct request *request = container_of(timer, struct request, timer);
    if (!queue_is_waiting(&request->waiter)) {
        request_run(request);
        return;
    }
    request_leave_queue(request);
    request_refuse(request, 503, CAUSE_QUEUE_TIMEOUT);
}

/* A slot of server came free and is ours. */
static void request_on_slot(struct queue_waiter *waiter, struct server *server) {
    struct request *request = container_of(waiter, struct request, waiter);
    timer_stop(request->worker->loop, &request->timer);
    request_use(request, server);
    request_run(request);
}

void request_init_pick(struct request *request) {
    list_init(&request->waiting);
    timer_init(&request->timer, request_on_timer);
    queue_waiter_init(&request->waiter, request_on_slot);
}

void request_stop_waiting(struct request *request) {
    list_remove(&request->waiting);
    request_leave_queue(request);
    timer_stop(request->worker->loop, &request->timer);
}

/* All live servers are full: stand in the queue, unless that is full too. */
static enum step_result request_wait_slot(struct request *request) {
    const struct config_pool *pool = request->pool->config;
    if (queue_is_waiting(&request->waiter))
        return STEP_WAIT;
    if (!queue_join(request->pool->queue, request->worker->index, &request->waiter, pool->queue)) {
        request_refuse(request, 503, CAUSE_QUEUE_FULL);
        return STEP_DONE;
    }
    struct server *server = request_pick(request);
    if (server) {
        request_leave_queue(request);
        return request_use(request, server);
    }
    timer_set(request->worker->loop, &request->timer, pool->queue_timeout_ms);
    return STEP_WAIT;
}

/* No probe has answered yet: the first answer decides, and does not take long. */
static enum step_result request_wait_probe(struct request *request, uint64_t left_ms) {
    list_append(&request->worker->waiting, &request->waiting);
    timer_set(request->worker->loop, &request->timer, left_ms);
    return STEP_WAIT;
}

enum step_result request_step_pick(struct request *request) {
    request_choose_pool(request);
    struct server *server = request_pick(request);
    if (server) {
        request_stop_waiting(request);
        return request_use(request, server);
    }
    if (pool_is_full(request->pool))
        return request_wait_slot(request);
    uint64_t now = loop_now_ms(request->worker->loop);
    if (request->wait_until_ms == 0)
        request->wait_until_ms = now + request->pool->config->probe.timeout_ms;
    if (pool_is_pending(request->pool) && now < request->wait_until_ms)
        return request_wait_probe(request, request->wait_until_ms - now);
    request_stop_waiting(request);
    request_refuse(request, 503, CAUSE_NO_SERVER);
    return STEP_DONE;
}
