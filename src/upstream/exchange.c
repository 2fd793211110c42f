/* SPDX-License-Identifier: MIT */
/*
 * One HTTP/1 request to one server: connection, sending, clocks, the end. Reading is in exchange_read.c.
 *
 * On a kept connection the head is written straight from the caller's memory: a small exchange costs one send and
 * one receive. A write error never fails the exchange by itself: a server that answers early and closes resets our
 * upload, and its answer may already lie in the receive queue, so reading decides.
 *
 * The subtle thing is re-entrancy: any callback may free the exchange. exchange_free() then only marks it; `phase`
 * tells every frame on the way out to stop, and the outermost one gives the memory back.
 */
#include "upstream/exchange_state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/str.h"

#define EXCHANGE_OUT_MAX (1024 * 1024) /* callers stop at the first exchange_send() that returns false, far below */
#define EXCHANGE_ARENA_MAX (512 * 1024)

const char *exchange_fault_name(enum exchange_fault fault) {
    static const char *const names[] = {
        [EXCHANGE_LOCAL] = "local",   [EXCHANGE_CONNECT] = "connect", [EXCHANGE_TLS] = "tls",
        [EXCHANGE_STALE] = "stale",   [EXCHANGE_CLOSED] = "closed",   [EXCHANGE_BAD] = "bad",
        [EXCHANGE_TRUNCATED] = "truncated", [EXCHANGE_TIMEOUT] = "timeout"};
    return names[fault];
}

void exchange_init_slab(struct slab *slab) { slab_init(slab, sizeof(struct exchange)); }

static void exchange_on_event(struct conn *conn);
static void exchange_on_timer(struct timer *timer);

struct exchange *exchange_new(struct upstream *upstream, const struct pool *pool, struct server *server,
                              const struct exchange_options *options, const struct exchange_ops *ops, void *owner) {
    assert(upstream && pool && server && options && ops);
    assert(ops->on_head && ops->on_body && ops->on_flush && ops->on_end && ops->on_fail);
    assert(!options->upgrade || ops->on_upgrade);
    struct exchange *ex = slab_get(&upstream->exchanges);
    ex->upstream = upstream;
    ex->pool = pool;
    ex->server = server;
    ex->ops = ops;
    ex->owner = owner;
    ex->options = *options;
    ex->special = options->addr || (options->tls >= 0 && (options->tls == 1) != (pool->tls != NULL)) ||
                  pool->config->proxy_protocol != CONFIG_PROXY_NONE;
    ex->send_ended = !options->has_body;
    timer_init(&ex->timer, exchange_on_timer);
    buf_init(&ex->out, EXCHANGE_OUT_MAX);
    buf_init(&ex->in, EXCHANGE_HEAD_MAX + UPSTREAM_SCRATCH);
    arena_init(&ex->arena, &upstream->chunks, EXCHANGE_ARENA_MAX);
    body_init(&ex->body, HTTP_BODY_NONE, 0);
    return ex;
}

static void exchange_destroy(struct exchange *ex) {
    buf_release(&ex->out);
    buf_release(&ex->in);
    body_fini(&ex->body);
    arena_fini(&ex->arena);
    slab_put(&ex->upstream->exchanges, ex);
}

static void exchange_leave(struct exchange *ex) {
    if (--ex->depth == 0 && ex->freed)
        exchange_destroy(ex);
}

/* Lets go of the connection, counted if it ever was one. */
static void exchange_close_conn(struct exchange *ex) {
    if (ex->counted)
        upstream_close_conn(ex->upstream, &ex->conn);
    else
        conn_close(&ex->conn);
}

void exchange_free(struct exchange **exchange) {
    struct exchange *ex = *exchange;
    *exchange = NULL;
    if (!ex)
        return;
    assert(!ex->freed);
    ex->phase = EXCHANGE_PHASE_OVER;
    timer_stop(ex->upstream->loop, &ex->timer);
    exchange_close_conn(ex);
    ex->freed = true;
    if (ex->depth == 0)
        exchange_destroy(ex);
}

static void exchange_count(const struct exchange *ex, enum metric metric) {
    if (!ex->upstream->is_probe)
        metric_add(metric, 1);
}

void exchange_touch(struct exchange *ex) {
    if (ex->fails)
        return;
    if (ex->options.response_timeout_ms != 0)
        timer_set(ex->upstream->loop, &ex->timer, ex->options.response_timeout_ms);
    else if (timer_is_set(&ex->timer))
        timer_stop(ex->upstream->loop, &ex->timer);
}

void exchange_fail(struct exchange *ex, enum exchange_fault fault, const char *detail) {
    assert(ex->phase != EXCHANGE_PHASE_OVER && ex->depth != 0);
    ex->phase = EXCHANGE_PHASE_OVER;
    timer_stop(ex->upstream->loop, &ex->timer);
    exchange_close_conn(ex);
    if (fault == EXCHANGE_BAD)
        exchange_count(ex, METRIC_server_bad_responses);
    ex->ops->on_fail(ex->owner, fault, detail);
}

/* A failure met inside a call of the owner's: told by the timer, in the loop's own time. */
static void exchange_fail_later(struct exchange *ex, enum exchange_fault fault, const char *detail) {
    ex->fails = true;
    ex->fault = (uint8_t)fault;
    ex->detail = detail;
    timer_set(ex->upstream->loop, &ex->timer, 0);
}

/* Books a connection that could not be made; returns what to call it. */
static enum exchange_fault exchange_note_connect(struct exchange *ex, enum exchange_fault fault, int error) {
    if (fault == EXCHANGE_CONNECT && error != 0 && sock_error_is_local(error))
        fault = EXCHANGE_LOCAL;
    if (fault == EXCHANGE_LOCAL) {
        exchange_count(ex, METRIC_server_local_errors);
        return fault;
    }
    exchange_count(ex, METRIC_server_connect_failures);
    if (!ex->upstream->is_probe)
        server_note_failure(ex->server);
    return fault;
}

static struct tls_client *exchange_tls(const struct exchange *ex) {
    if (ex->options.tls < 0)
        return ex->pool->tls;
    if (ex->options.tls == 0)
        return NULL;
    return ex->pool->tls ? ex->pool->tls : ex->pool->probe_tls;
}

static void exchange_write_failed(struct exchange *ex) {
    int error = ex->conn->error;
    ex->deaf = true;
    buf_release(&ex->out);
    if (sock_error_is_local(error)) { /* the connection itself is whole: the server would wait for the rest as we for its answer */
        exchange_fail_later(ex, EXCHANGE_LOCAL, strerror(error));
        return;
    }
    ex->conn->readable = true; /* the kernel knows an end or an answer: ask it, whatever it has told so far */
    conn_again(ex->conn);
}

/* Writes what it can, keeps the rest. True when nothing is left to write. */
static bool exchange_give(struct exchange *ex, const char *data, size_t n) {
    while (n > 0 && exchange_is_live(ex) && buf_empty(&ex->out)) {
        size_t wrote = 0;
        enum io result = conn_write(ex->conn, data, n, &wrote);
        if (result == IO_AGAIN)
            break;
        if (result != IO_OK) {
            exchange_write_failed(ex);
            return true;
        }
        data += wrote;
        n -= wrote;
    }
    if (n > 0 && !buf_append(&ex->out, data, n))
        exchange_fail_later(ex, EXCHANGE_LOCAL, "out of memory for the request");
    return buf_empty(&ex->out);
}

static void exchange_connected(struct exchange *ex) {
    exchange_count(ex, METRIC_server_connects);
    ex->counted = true;
}

static void exchange_ready(struct exchange *ex) {
    ex->phase = EXCHANGE_PHASE_HEAD;
    ex->connected_us = clock_us();
    exchange_touch(ex);
}

static void exchange_dial(struct exchange *ex, const char *head, size_t n) {
    const struct config_pool *config = ex->pool->config;
    const struct addr *to = ex->options.addr ? ex->options.addr : &ex->server->addr;
    if (!ex->options.addr && server_state(ex->server) == SERVER_UNRESOLVED) {
        exchange_fail_later(ex, exchange_note_connect(ex, EXCHANGE_CONNECT, 0), "its name has no address");
        return;
    }
    /* A plain connection to this same host is usually made already: then the request goes out at once. */
    bool is_near = !ex->special && !exchange_tls(ex) && addr_is_loopback(to);
    size_t wrote = 0;
    ex->conn = conn_connect(ex->upstream->loop, to, config->source.len != 0 ? &config->source : NULL,
                            is_near ? span_make(head, n) : SPAN_NULL, &wrote);
    if (!ex->conn) {
        int error = errno;
        enum exchange_fault fault = wrote > 0 ? EXCHANGE_LOCAL : EXCHANGE_CONNECT; /* what has left may not be sent again */
        exchange_fail_later(ex, exchange_note_connect(ex, fault, error), strerror(error));
        return;
    }
    conn_set_owner(ex->conn, ex, exchange_on_event);
    if (config->connect_timeout_ms != 0)
        timer_set(ex->upstream->loop, &ex->timer, config->connect_timeout_ms);
    if (wrote > 0) {
        exchange_connected(ex);
        exchange_ready(ex);
    }
    exchange_give(ex, head + wrote, n - wrote);
}

void exchange_start(struct exchange *ex, const char *head, size_t n) {
    assert(ex->phase == EXCHANGE_PHASE_NEW && n > 0);
    if (!ex->options.fresh && !ex->special)
        ex->conn = idle_take(ex->upstream->idle, ex->server, ex->pool->digest, ex->options.max_idle_ms);
    if (!ex->conn) {
        ex->phase = EXCHANGE_PHASE_DIALING;
        exchange_dial(ex, head, n);
        return;
    }
    ex->phase = EXCHANGE_PHASE_HEAD;
    ex->reused = true;
    ex->counted = true;
    ex->connected_us = clock_us();
    exchange_count(ex, METRIC_server_reused);
    conn_set_owner(ex->conn, ex, exchange_on_event);
    exchange_touch(ex);
    exchange_give(ex, head, n);
}

static void exchange_connect_failed(struct exchange *ex, enum exchange_fault fault, int error, const char *detail) {
    exchange_fail(ex, exchange_note_connect(ex, fault, error), detail);
}

/*
 * The PROXY header, in front of TLS and all else. It goes past `out`, in one piece: the buffer of a fresh socket is
 * empty, and one that cannot take these few bytes has broken already.
 */
static bool exchange_announce(struct exchange *ex) {
    char header[PROXYPROTO_WRITE_MAX];
    size_t n = ex->upstream->is_probe
                   ? pool_write_probe_header(ex->pool, header)
                   : pool_write_proxy_header(ex->pool, &ex->options.source, &ex->options.destination, header);
    size_t wrote = 0;
    return n == 0 || (conn_write(ex->conn, header, n, &wrote) == IO_OK && wrote == n);
}

static void exchange_dialed(struct exchange *ex) {
    enum io result = conn_connected(ex->conn);
    if (result == IO_AGAIN)
        return;
    if (result != IO_OK) {
        int error = ex->conn->error;
        exchange_connect_failed(ex, EXCHANGE_CONNECT, error, strerror(error));
        return;
    }
    exchange_connected(ex);
    if (!exchange_announce(ex)) {
        exchange_connect_failed(ex, EXCHANGE_CONNECT, 0, "it took no PROXY header");
        return;
    }
    struct tls_client *tls = exchange_tls(ex);
    if (!tls) {
        exchange_ready(ex);
        return;
    }
    ex->phase = EXCHANGE_PHASE_SHAKING;
    if (!conn_start_tls_client(ex->conn, tls, pool_tls_name(ex->pool, ex->server)))
        exchange_connect_failed(ex, EXCHANGE_LOCAL, 0, "out of memory for TLS");
}

static void exchange_shake(struct exchange *ex) {
    switch (conn_handshake(ex->conn)) {
    case IO_OK:
        exchange_ready(ex);
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        exchange_connect_failed(ex, EXCHANGE_TLS, 0, "closed during the TLS handshake");
        break;
    case IO_ERROR: {
        int error = ex->conn->error;
        exchange_connect_failed(ex, EXCHANGE_TLS, 0, error ? strerror(error) : tls_error_text());
        break;
    }
    }
}

/* Sends what was left. */
static void exchange_push(struct exchange *ex) {
    while (!buf_empty(&ex->out)) {
        struct span left = buf_span(&ex->out);
        size_t wrote = 0;
        enum io result = conn_write(ex->conn, left.p, left.n, &wrote);
        if (result == IO_AGAIN)
            return;
        if (result != IO_OK) {
            exchange_write_failed(ex);
            return;
        }
        buf_consume(&ex->out, wrote);
        exchange_touch(ex);
    }
    if (ex->send_ended)
        buf_release(&ex->out);
    if (!ex->want_drain)
        return;
    ex->want_drain = false;
    if (!ex->deaf && !ex->send_ended && ex->ops->on_drain)
        ex->ops->on_drain(ex->owner);
}

static void exchange_on_event(struct conn *conn) {
    struct exchange *ex = conn->owner;
    ex->depth++;
    if (ex->phase == EXCHANGE_PHASE_DIALING)
        exchange_dialed(ex);
    if (ex->phase == EXCHANGE_PHASE_SHAKING)
        exchange_shake(ex);
    if (exchange_is_live(ex) && !ex->fails && (ex->want_drain || !buf_empty(&ex->out)))
        exchange_push(ex);
    if (exchange_is_live(ex) && !ex->fails)
        exchange_pull(ex);
    exchange_leave(ex);
}

/* The server owes us nothing while it is us who do not read, or the client who does not send. */
static bool exchange_is_waiting_on_us(const struct exchange *ex) {
    return ex->paused || (!ex->send_ended && !ex->deaf && buf_empty(&ex->out));
}

static void exchange_on_timer(struct timer *timer) {
    struct exchange *ex = container_of(timer, struct exchange, timer);
    ex->depth++;
    if (ex->fails)
        exchange_fail(ex, (enum exchange_fault)ex->fault, ex->detail);
    else if (ex->phase == EXCHANGE_PHASE_DIALING)
        exchange_connect_failed(ex, EXCHANGE_CONNECT, ETIMEDOUT, "connect timed out");
    else if (ex->phase == EXCHANGE_PHASE_SHAKING)
        exchange_connect_failed(ex, EXCHANGE_TLS, 0, "TLS handshake timed out");
    else if (exchange_is_live(ex) && exchange_is_waiting_on_us(ex))
        exchange_touch(ex);
    else if (exchange_is_live(ex))
        exchange_fail(ex, EXCHANGE_TIMEOUT, "no byte within response_timeout");
    exchange_leave(ex);
}

bool exchange_send(struct exchange *ex, const char *data, size_t n) {
    assert(ex->phase != EXCHANGE_PHASE_NEW && !ex->freed);
    if (ex->phase >= EXCHANGE_PHASE_SWITCHED || ex->deaf || ex->fails)
        return true;
    bool all = exchange_give(ex, data, n);
    if (exchange_is_live(ex))
        exchange_touch(ex);
    ex->want_drain = !all;
    return all;
}

bool exchange_may_send(struct exchange *ex) {
    if (!ex->fails && ex->phase >= EXCHANGE_PHASE_HEAD && buf_empty(&ex->out))
        return true;
    ex->want_drain = true;
    return false;
}

void exchange_send_end(struct exchange *ex) {
    ex->send_ended = true;
    if (exchange_is_live(ex))
        exchange_touch(ex);
}

bool exchange_sent_all(const struct exchange *ex) {
    return ex->send_ended && !ex->deaf && !ex->fails && buf_empty(&ex->out) && ex->phase >= EXCHANGE_PHASE_HEAD;
}

void exchange_resume(struct exchange *ex) {
    if (!ex->paused || !exchange_is_live(ex))
        return;
    ex->paused = false;
    exchange_touch(ex);
    conn_again(ex->conn);
}

struct conn *exchange_take_conn(struct exchange *ex, struct span *rest) {
    assert(ex->phase == EXCHANGE_PHASE_SWITCHED && ex->conn);
    struct conn *conn = ex->conn;
    ex->conn = NULL;
    conn_set_owner(conn, NULL, NULL);
    struct span in = buf_span(&ex->in);
    *rest = in.n > ex->rest ? span_make(in.p + ex->rest, in.n - ex->rest) : span_make("", 0);
    return conn;
}

/* How long the connection may be kept: ours, or a second less than what the server says it will wait. */
static uint32_t exchange_keep_ms(const struct exchange *ex) {
    uint64_t keep_ms = ex->pool->config->keepalive_timeout_ms;
    const struct http_field *field = http_find(&ex->response, HTTP_FIELD_KEEP_ALIVE);
    struct span rest = field ? field->value : SPAN_NULL, token;
    while (field && str_next_token(&rest, &token)) {
        uint64_t seconds;
        if (token.n <= 8 || !str_equal_nocase(span_make(token.p, 8), SPAN("timeout=")) ||
            !str_parse_u63(span_make(token.p + 8, token.n - 8), &seconds))
            continue;
        if (seconds <= 1)
            return 0;
        if (seconds - 1 < keep_ms / 1000 + 1 && (seconds - 1) * 1000 < keep_ms)
            keep_ms = (seconds - 1) * 1000;
    }
    return (uint32_t)keep_ms;
}

void exchange_finish(struct exchange *ex, bool dirty) {
    assert(ex->phase == EXCHANGE_PHASE_BODY);
    struct http_message trailers;
    http_message_init(&trailers, &ex->arena);
    bool has_trailers =
        !buf_empty(&ex->body.trailer) && body_trailers(&ex->body, &trailers) && trailers.field_count > 0;
    bool keep = !dirty && !ex->options.close && !ex->special && exchange_sent_all(ex) && ex->response.keep_alive &&
                ex->response.body != HTTP_BODY_CLOSE;
    ex->phase = EXCHANGE_PHASE_OVER;
    timer_stop(ex->upstream->loop, &ex->timer);
    uint32_t keep_ms = keep ? exchange_keep_ms(ex) : 0;
    if (keep_ms != 0) {
        idle_put(ex->upstream->idle, ex->conn, ex->server, ex->pool->digest, ex->pool->config->keepalive, keep_ms);
        ex->conn = NULL;
    } else {
        exchange_close_conn(ex);
    }
    ex->ops->on_end(ex->owner, has_trailers ? &trailers : NULL);
}

bool exchange_reused(const struct exchange *ex) { return ex->reused; }
uint64_t exchange_connected_us(const struct exchange *ex) { return ex->connected_us; }
uint64_t exchange_bytes_in(const struct exchange *ex) { return ex->bytes_in; }
