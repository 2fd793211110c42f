/* SPDX-License-Identifier: MIT */
/*
 * Which server takes a request, and the two ways to wait for one: while no probe has answered yet, and while those servers are full whose turn it
 * is. Nobody waits for servers that are down, nor in the queue for one that the rule names: 503 at once.
 *
 * The subtle one: after joining the queue the servers are looked at once more, because a slot may have come free in between; queue.c says why that
 * is enough.
 */
#include "base/mem.h"
#include "traffic/request_steps.h"

static bool request_names_server(const struct request *request) { return request->decide.action->forward.server.p != NULL; }

/* The server that the rule names, if that is in the state. */
static struct server *request_named(const struct request *request, enum server_state state) {
    struct server *server = pool_find_server(request->pool, request->decide.action->forward.server);
    return server && server_state(server) == state ? server : NULL;
}

/* The server that is next; not entered. NULL when none has room. */
static struct server *request_find(struct request *request) {
    if (!request_names_server(request))
        return request_choose_server(request);
    struct server *server = request_named(request, SERVER_UP);
    return server && server_has_room(server) ? server : NULL;
}

/* Takes a slot of it. */
static struct server *request_pick(struct request *request) {
    /* Another worker may take the last slot between the two: bounded tries. */
    for (unsigned i = 0; i <= request->pool->server_count; i++) {
        struct server *server = request_find(request);
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
        queue_leave(request->pool->queue, &request->waiter);
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

/* Asked by any thread: see queue.h. */
static bool request_wants(const struct queue_waiter *waiter, const struct server *server) {
    const struct request *request = container_of(waiter, struct request, waiter);
    return pool_is_next(request->pool, &request->tried, server);
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
    queue_waiter_init(&request->waiter, request_wants, request_on_slot);
}

void request_stop_waiting(struct request *request) {
    list_remove(&request->waiting);
    request_leave_queue(request);
    timer_stop(request->worker->loop, &request->timer);
}

static enum step_result request_give_up(struct request *request, enum cause cause, const char *detail) {
    request_stop_waiting(request);
    request->detail = detail;
    request_refuse(request, 503, cause);
    return STEP_DONE;
}

/* Those whose turn it is are full: stand in the queue, unless that is full too. */
static enum step_result request_wait_slot(struct request *request) {
    const struct config_pool *pool = request->pool->config;
    if (queue_is_waiting(&request->waiter))
        return STEP_WAIT;
    bool joined = queue_join(request->pool->queue, request->worker->index, &request->waiter, pool->queue);
    struct server *server = request_pick(request);
    if (server) {
        request_stop_waiting(request);
        return request_use(request, server);
    }
    if (!joined)
        return request_give_up(request, CAUSE_QUEUE_FULL, NULL);
    timer_set(request->worker->loop, &request->timer, pool->queue_timeout_ms);
    return STEP_WAIT;
}

/* No probe has answered yet: the first answer decides, and does not take long. */
static enum step_result request_wait_probe(struct request *request, uint64_t left_ms) {
    request_leave_queue(request);
    list_append(&request->worker->waiting, &request->waiting);
    timer_set(request->worker->loop, &request->timer, left_ms);
    return STEP_WAIT;
}

/* Picking found nothing, but somebody is up: so they were full a moment ago. */
static bool request_found_full(const struct request *request) {
    return request_names_server(request) ? request_named(request, SERVER_UP) != NULL : pool_has_live(request->pool);
}

static bool request_is_pending(const struct request *request) {
    return request_names_server(request) ? request_named(request, SERVER_UNKNOWN) != NULL : pool_is_pending(request->pool);
}

enum step_result request_step_pick(struct request *request) {
    request_choose_pool(request);
    struct server *server = request_pick(request);
    if (server) {
        request_stop_waiting(request);
        return request_use(request, server);
    }
    if (request_found_full(request))
        return request_names_server(request) ? request_give_up(request, CAUSE_QUEUE_FULL, "the server that the rule names is full")
                                             : request_wait_slot(request);
    uint64_t now = loop_now_ms(request->worker->loop);
    if (request->wait_until_ms == 0)
        request->wait_until_ms = now + request->pool->config->probe.timeout_ms;
    if (request_is_pending(request) && now < request->wait_until_ms)
        return request_wait_probe(request, request->wait_until_ms - now);
    return request_give_up(request, CAUSE_NO_SERVER, NULL);
}
