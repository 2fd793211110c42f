/* SPDX-License-Identifier: MIT */
/*
 * What happens between a request and its server: heads, bodies and ends are passed on to the responder; faults become another try where that
 * is safe, else an answer (502, 503, 504) or, behind a head that was already sent, a cut.
 *
 * Safe means: nothing was sent (the connect failed), or a kept connection died before any byte came back and the method is idempotent. A POST is
 * never sent twice (requirements D25).
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "traffic/access.h"
#include "traffic/forward.h"
#include "traffic/request_steps.h"
#include "traffic/tunnel.h"
#include "wire/upgrade.h"

static void request_on_interim(void *owner, const struct http_message *response) {
    struct request *request = owner;
    request->ops->interim(request->responder, response);
}

static void request_on_head(void *owner, struct http_message *response) {
    struct request *request = owner;
    http_mark_hops(response);
    request->step = REQUEST_RESPOND;
    request->status = response->status;
    buf_release(&request->replay);
    request->replay_ok = false;
    if (!request_add_affinity(request, response)) {
        request_cut(request, CAUSE_LOCAL);
        return;
    }
    if (!request_run_response_hooks(request, response, false))
        return;
    request->head_sent = true;
    enum http_body body = response->body == HTTP_BODY_CLOSE ? HTTP_BODY_CHUNKED : (enum http_body)response->body;
    request->ops->head(request->responder, response, body, response->content_length);
}

static void request_on_body(void *owner, const char *data, size_t n) {
    struct request *request = owner;
    request->bytes_out += n;
    request->ops->body(request->responder, data, n);
}

static struct pipe *request_on_pipe(void *owner) {
    struct request *request = owner;
    return request->ops->pipe ? request->ops->pipe(request->responder) : NULL;
}

static void request_on_piped(void *owner, size_t n) {
    struct request *request = owner;
    request->bytes_out += n;
}

static bool request_on_flush(void *owner) {
    struct request *request = owner;
    return request->ops->flush(request->responder);
}

static void request_on_end(void *owner, const struct http_message *trailers) {
    request_finish(owner, CAUSE_DONE, trailers);
}

static void request_on_drain(void *owner) {
    struct request *request = owner;
    if (!request->body_done)
        request->ops->resume_body(request->responder);
}

/* The server's 101 is no valid answer to this handshake. */
static void request_bad_upgrade(struct request *request, const char *why) {
    log_warn("%s: bad WebSocket handshake: %s", request->server->label, why);
    metric_add(METRIC_server_bad_responses, 1);
    request->detail = why;
    request_leave_server(request);
    request_refuse(request, 502, CAUSE_SERVER_HANDSHAKE);
}

static void request_on_upgrade(void *owner, struct http_message *response) {
    struct request *request = owner;
    const struct upgrade_offer *offer = &request->subject.offer;
    struct tunnel_start start = {0};
    const char *why =
        upgrade_check_response(response, offer->key, offer->protocols, offer->protocol_count, &start.subprotocol);
    if (why) {
        request_bad_upgrade(request, why);
        return;
    }
    http_mark_hops(response);
    request->step = REQUEST_RESPOND;
    request->status = 101;
    if (!request_run_response_hooks(request, response, true))
        return;
    request->head_sent = true;
    start.listener = request->ops->listener(request->responder);
    start.server = exchange_take_conn(request->exchange, &start.rest);
    start.client = request->ops->take_conn(request->responder, response, &start.early, &start.unsent);
    tunnel_open(request, &start);
    request_free(request);
}

static unsigned request_fault_status(enum exchange_fault fault, enum cause *cause) {
    switch (fault) {
    case EXCHANGE_LOCAL:
        *cause = CAUSE_LOCAL;
        return 503;
    case EXCHANGE_CONNECT:
        *cause = CAUSE_SERVER_CONNECT;
        return 502;
    case EXCHANGE_TLS:
        *cause = CAUSE_SERVER_TLS;
        return 502;
    case EXCHANGE_BAD:
        *cause = CAUSE_SERVER_BAD;
        return 502;
    case EXCHANGE_TRUNCATED:
        *cause = CAUSE_SERVER_TRUNCATED;
        return 502;
    case EXCHANGE_TIMEOUT:
        *cause = CAUSE_SERVER_TIMEOUT;
        return 504;
    default:
        *cause = CAUSE_SERVER_CLOSED;
        return 502;
    }
}

static bool request_try_again(struct request *request, enum exchange_fault fault) {
    if (request->attempts > request->pool->config->retries || !request_can_replay(request))
        return false;
    bool named = request->decide.action->forward.server.p != NULL;
    if (fault == EXCHANGE_CONNECT || fault == EXCHANGE_TLS) {
        request_retry(request, named);
        return true;
    }
    enum http_method method = request->subject.head.method;
    if (fault == EXCHANGE_STALE && method != HTTP_POST && method != HTTP_PATCH && method != HTTP_METHOD_OTHER) {
        request_retry(request, true);
        return true;
    }
    return false;
}

static void request_on_fail(void *owner, enum exchange_fault fault, const char *detail) {
    struct request *request = owner;
    enum cause cause;
    unsigned status = request_fault_status(fault, &cause);
    log_debug("%s: %s in step %s: %s", request->server->label, exchange_fault_name(fault), request_step_name(request->step),
              detail ? detail : "");
    if (request->head_sent) {
        request_cut(request, cause);
        return;
    }
    if (request_try_again(request, fault))
        return;
    struct span text = arena_dup(&request->subject.arena, span_of(detail ? detail : ""));
    request->detail = text.p;
    exchange_free(&request->exchange);
    request_refuse(request, status, cause);
}

const struct exchange_ops request_exchange_ops = {
    .on_interim = request_on_interim,
    .on_head = request_on_head,
    .on_body = request_on_body,
    .on_pipe = request_on_pipe,
    .on_piped = request_on_piped,
    .on_flush = request_on_flush,
    .on_end = request_on_end,
    .on_upgrade = request_on_upgrade,
    .on_drain = request_on_drain,
    .on_fail = request_on_fail,
};
