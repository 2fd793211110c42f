/* SPDX-License-Identifier: MIT */
/*
 * The step machine of one request. Each step is a function that goes on, waits or ends; waiting for Lua, a probe's first answer, a connect or
 * bytes is all the same: the machine returns and is run again by the event.
 *
 * The subtle one is replay. Until the response head has come, body bytes given to a server are also held, at most 16 KiB;
 * while a connection is only being made no more than that is taken from the client. So a failed connect can always be tried elsewhere, and a kept
 * connection that died before its first byte can be replaced when the method allows it. What outgrew the 16 KiB is never sent twice.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "traffic/access.h"
#include "traffic/forward.h"
#include "traffic/request_steps.h"

#define REQUEST_JOIN (16 * 1024)       /* body bytes gathered before a write: many small chunks that were read at once cost few */
#define REQUEST_HEAD_MAX (512 * 1024)  /* bytes of a regenerated head and the first body bytes */
#define REQUEST_FRESH_MS 1000          /* a connection idle for longer is not used for what cannot be sent twice */

struct request *request_new(struct worker *worker, struct generation_local *local, const struct responder_ops *ops, void *responder) {
    struct request *request = slab_get(&worker->requests);
    request->worker = worker;
    request->local = generation_local_ref(local);
    request->ops = ops;
    request->responder = responder;
    request->max_body = UINT64_MAX;
    request->replay_ok = true;
    request->started_us = clock_us();
    subject_init(&request->subject, &worker->upstream.chunks);
    buf_init(&request->send, REQUEST_HEAD_MAX);
    buf_init(&request->replay, REQUEST_REPLAY_MAX);
    request_init_pick(request);
    metric_add(METRIC_requests_started, 1);
    return request;
}

static void request_release(struct deferred *deferred) {
    struct request *request = container_of(deferred, struct request, deferred);
    slab_put(&request->worker->requests, request);
}

void request_leave_server(struct request *request) {
    exchange_free(&request->exchange);
    if (request->server)
        server_leave(request->server);
    request->server = NULL;
}

void request_free(struct request *request) {
    request->step = REQUEST_DONE;
    request_leave_server(request);
    server_unref(&request->last_server);
    request_stop_waiting(request);
    if (request->subject.script)
        request->local->generation->ops->release(request->local->script, &request->subject);
    subject_fini(&request->subject);
    stock_take_back(&request->worker->stock, &request->send);
    buf_release(&request->replay);
    generation_local_unref(&request->local);
    metric_add(METRIC_requests_ended, 1);
    loop_defer(request->worker->loop, &request->deferred, request_release);
}

void request_finish(struct request *request, enum cause cause, const struct http_message *trailers) {
    const struct responder_ops *ops = request->ops;
    void *responder = request->responder;
    request->cause = cause;
    access_request(request);
    /* The responder first: its last write reads the trailers, and the request must not be freed under them. */
    ops->finish(responder, trailers);
    request_free(request);
}

void request_cut(struct request *request, enum cause cause) {
    request->cause = cause;
    access_request(request);
    request->ops->abort(request->responder);
    request_free(request);
}

void request_gone(struct request *request, enum cause cause) {
    request->cause = cause;
    access_request(request);
    request_free(request);
}

bool request_answered(const struct request *request) { return request->head_sent; }

void request_refuse(struct request *request, unsigned status, enum cause cause) {
    request->cause = cause;
    request_reply_status(request, status);
}

/* --- ROUTE --- */

static void request_resume(void *owner) { request_run(owner); }

static enum step_result request_step_route(struct request *request) {
    struct decide *decide = &request->decide;
    if (!decide->subject) {
        const struct generation *generation = request->local->generation;
        decide_init(decide, generation->config, generation->routes, generation->ops, request->local->script, &request->subject,
                    request_resume, request);
    }
    if (decide_run(decide) == DECIDE_WAIT)
        return STEP_WAIT;
    const struct config *config = request->local->generation->config;
    request->max_body = request->subject.listener->max_body;
    if (decide->route != ROUTES_END) {
        request->route = &config->routes[decide->route];
        if (request->route->max_body != UINT64_MAX)
            request->max_body = request->route->max_body;
    }
    if (request->subject.head.body == HTTP_BODY_LENGTH && request->subject.head.content_length > request->max_body) {
        request_refuse(request, 413, CAUSE_CLIENT_BAD);
        return STEP_DONE;
    }
    if (decide->action->kind != ACTION_FORWARD) {
        request->step = REQUEST_REPLY;
        return STEP_NEXT;
    }
    request->pool_index = decide->action->forward.pool;
    request->pool = request->local->generation->pools[request->pool_index];
    request->step = REQUEST_PICK;
    return STEP_NEXT;
}

static enum step_result request_step_reply(struct request *request) {
    const struct decide *decide = &request->decide;
    request->cause = decide->script_failed        ? CAUSE_SCRIPT
                     : decide->route == ROUTES_END ? CAUSE_NO_ROUTE
                                                   : CAUSE_REPLY;
    request_reply_action(request, decide->action);
    return STEP_DONE;
}

/* --- SEND --- */

static bool request_is_idempotent(const struct request *request) {
    switch (request->subject.head.method) {
    case HTTP_GET:
    case HTTP_HEAD:
    case HTTP_PUT:
    case HTTP_DELETE:
    case HTTP_OPTIONS:
    case HTTP_TRACE:
        return true;
    default:
        return false;
    }
}

static bool request_build_head(struct request *request) {
    const struct action *action = request->decide.action;
    const struct forward_request forward = {
        .subject = &request->subject,
        .action = action,
        .settings = &request->local->generation->config->settings,
        .pool = request->pool->config,
        .server = request->server,
        .target = decide_target(&request->subject, action),
        .keep_alive = request->pool->config->proxy_protocol == CONFIG_PROXY_NONE, /* else it is this client's alone */
    };
    buf_release(&request->send);
    stock_lend(&request->worker->stock, &request->send);
    return forward.target.p && forward_write_request(&request->send, &forward);
}

/* Appends body bytes in the request's framing. */
static bool request_frame(struct request *request, const char *data, size_t n) {
    if (request->subject.head.body != HTTP_BODY_CHUNKED)
        return buf_append(&request->send, data, n);
    char line[HTTP1_CHUNK_MAX];
    return buf_append(&request->send, line, http1_chunk_line(line, n)) && buf_append(&request->send, data, n) &&
           buf_append(&request->send, "\r\n", 2);
}

static bool request_frame_end(struct request *request, const struct http_message *trailers) {
    if (request->subject.head.body != HTTP_BODY_CHUNKED)
        return true;
    return buf_append(&request->send, "0\r\n", 3) && (!trailers || http1_write_fields(&request->send, trailers)) &&
           http1_write_end(&request->send);
}

/* Puts the body bytes behind the head that are held from an earlier try, and those that are already here. */
static bool request_stage_body(struct request *request) {
    struct span held = buf_span(&request->replay);
    if (held.n > 0 && !request_frame(request, held.p, held.n))
        return false;
    if (request->body_done)
        return request_frame_end(request, request->trailers);
    request->staging = true;
    request->ops->resume_body(request->responder);
    return true;
}

static void request_start_exchange(struct request *request) {
    const struct config_pool *pool = request->pool->config;
    const struct http_message *head = &request->subject.head;
    uint32_t timeout = request->decide.action->forward.response_timeout_ms;
    bool websocket = request->subject.websocket;
    const struct exchange_options options = {
        .method = head->method,
        .fresh = request->fresh || websocket,
        .close = websocket,
        .upgrade = websocket,
        .has_body = head->body != HTTP_BODY_NONE,
        .max_idle_ms = request_is_idempotent(request) ? 0 : REQUEST_FRESH_MS,
        .response_timeout_ms = websocket ? pool->upgrade_timeout_ms : timeout > 0 ? timeout : pool->response_timeout_ms,
        .tls = -1,
        .source = request->subject.client,
        .destination = request->subject.destination,
    };
    request->exchange = exchange_new(&request->worker->upstream, request->pool, request->server, &options,
                                     &request_exchange_ops, request);
    struct span first = buf_span(&request->send);
    exchange_start(request->exchange, first.p, first.n);
    stock_take_back(&request->worker->stock, &request->send);
    if (options.has_body && request->body_done)
        exchange_send_end(request->exchange);
}

static enum step_result request_step_send(struct request *request) {
    request->attempts++;
    bool has_body = request->subject.head.body != HTTP_BODY_NONE;
    if (!has_body)
        request->body_done = true;
    if (!request_build_head(request)) {
        request_refuse(request, 500, CAUSE_LOCAL);
        return STEP_DONE;
    }
    request->step = REQUEST_HEAD;
    if (has_body) {
        if (!request_stage_body(request)) {
            request_refuse(request, 500, CAUSE_LOCAL);
            return STEP_DONE;
        }
        if (request->step == REQUEST_DONE) /* the body that was here was bad: already answered */
            return STEP_DONE;
        request->staging = false;
    }
    request_start_exchange(request);
    if (!request->body_done) {
        if (exchange_may_send(request->exchange))
            request->ops->resume_body(request->responder);
        else
            request->ops->pause_body(request->responder);
    }
    return STEP_WAIT;
}

static enum step_result request_step_wait(struct request *request) {
    (void)request;
    return STEP_WAIT;
}

static const struct {
    const char *name;
    enum step_result (*run)(struct request *request);
} request_steps[] = {
    [REQUEST_ROUTE] = {"route", request_step_route},   [REQUEST_PICK] = {"pick", request_step_pick},
    [REQUEST_SEND] = {"send", request_step_send},      [REQUEST_HEAD] = {"head", request_step_wait},
    [REQUEST_RESPOND] = {"respond", request_step_wait}, [REQUEST_REPLY] = {"reply", request_step_reply},
    [REQUEST_DONE] = {"done", request_step_wait},
};

const char *request_step_name(enum request_step step) { return request_steps[step].name; }

void request_run(struct request *request) {
    list_remove(&request->waiting);
    while (request_steps[request->step].run(request) == STEP_NEXT) {
    }
}

void request_start(struct request *request) { request_run(request); }

/* --- the body's way in --- */

static void request_hold(struct request *request, const char *data, size_t n) {
    if (!request->replay_ok)
        return;
    if (request->replay.len + n <= REQUEST_REPLAY_MAX && buf_append(&request->replay, data, n))
        return;
    request->replay_ok = false;
    buf_release(&request->replay);
}

bool request_body(struct request *request, const char *data, size_t n) {
    request->bytes_in += n;
    if (request->bytes_in > request->max_body) {
        request_body_failed(request, 413, CAUSE_CLIENT_BAD);
        return false;
    }
    request_hold(request, data, n);
    if (!request_frame(request, data, n)) {
        request_body_failed(request, 500, CAUSE_LOCAL);
        return false;
    }
    if (request->staging)
        return request->bytes_in < REQUEST_REPLAY_MAX;
    return request->send.len < REQUEST_JOIN || request_body_flush(request);
}

bool request_body_flush(struct request *request) {
    if (request->staging || buf_empty(&request->send))
        return true;
    struct span framed = buf_span(&request->send);
    bool all = exchange_send(request->exchange, framed.p, framed.n);
    buf_release(&request->send);
    return all;
}

void request_body_end(struct request *request, struct http_message *trailers) {
    request->body_done = true;
    if (trailers) {
        http_screen_trailers(&request->subject.head, trailers);
        request->trailers = arena_alloc(&request->subject.arena, sizeof *trailers);
        if (request->trailers)
            *request->trailers = *trailers;
        else
            request->replay_ok = false;
    }
    if (!request_frame_end(request, trailers)) {
        request_body_failed(request, 500, CAUSE_LOCAL);
        return;
    }
    if (request->staging)
        return;
    request_body_flush(request);
    exchange_send_end(request->exchange);
}

void request_body_failed(struct request *request, unsigned status, enum cause cause) {
    if (request->head_sent)
        request_cut(request, cause);
    else
        request_refuse(request, status, cause);
}

void request_drained(struct request *request) {
    if (request->exchange)
        exchange_resume(request->exchange);
}

/* --- another try --- */

bool request_can_replay(const struct request *request) {
    return request->replay_ok && !request->head_sent;
}

void request_retry(struct request *request, bool same_server) {
    metric_add(METRIC_retries, 1);
    request->ops->pause_body(request->responder);
    struct server *server = request->server;
    if (same_server) {
        request->fresh = true;
        exchange_free(&request->exchange);
        request->step = REQUEST_SEND;
    } else {
        if (request->tried.count < POOL_TRIED_MAX)
            request->tried.list[request->tried.count++] = server;
        request_leave_server(request);
        request->step = REQUEST_PICK;
    }
    request_run(request);
}
