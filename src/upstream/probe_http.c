/* SPDX-License-Identifier: MIT */
/*
 * One HTTP probe: an exchange like any other, on a connection of its own, so that it sees what a client would see:
 * refused, silent, broken TLS, wrong status. The verdict comes with the head; the body is read only where the
 * configuration asks for a text in it, and then at most 64 KiB. One clock covers all of it.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "upstream/exchange.h"
#include "upstream/probe_run.h"

#define PROBE_BODY_MAX (64 * 1024)

struct probe_http {
    const struct config_probe *config;
    struct upstream *upstream;
    struct exchange *exchange;
    struct timer timer;
    struct addr addr;
    struct buf body;
    unsigned status;
    probe_done_fn *on_done;
    void *owner;
    char detail[PROBE_DETAIL_MAX];
};

static const char *probe_http_hint(const struct probe_http *probe) {
    if (probe->status == 426)
        return "answers 426: a WebSocket-only server? set probe = { websocket = true, path = ... }";
    if (probe->status == 404)
        return "no such page there: set probe = { path = ... }";
    if (probe->status == 401 || probe->status == 403)
        return "probes carry no credentials: set another path, headers or expect";
    return NULL;
}

static void probe_http_done(struct probe_http *probe, enum probe_result result, const char *hint) {
    timer_stop(probe->upstream->loop, &probe->timer);
    probe->on_done(probe->owner, result, probe->detail, hint);
}

/* "GET /healthz: " and then the text. */
static void probe_http_say(struct probe_http *probe, const char *text) {
    const struct config_probe *config = probe->config;
    snprintf(probe->detail, sizeof probe->detail, "%.16s %.100s: %.120s", config->method, config->path, text);
}

static bool probe_http_expects(const struct config_probe *config, unsigned status) {
    for (unsigned i = 0; i < config->expect_count; i++) {
        if (status >= config->expect[i].low && status <= config->expect[i].high)
            return true;
    }
    return false;
}

static void probe_http_say_unexpected(struct probe_http *probe) {
    char text[120];
    int used = snprintf(text, sizeof text, "%u, expected ", probe->status);
    for (unsigned i = 0; i < probe->config->expect_count && used > 0 && (size_t)used < sizeof text; i++) {
        const struct config_status_range *range = &probe->config->expect[i];
        const char *comma = i ? "," : "";
        size_t room = sizeof text - (size_t)used;
        if (range->low == range->high)
            used += snprintf(text + used, room, "%s%u", comma, (unsigned)range->low);
        else
            used += snprintf(text + used, room, "%s%u-%u", comma, (unsigned)range->low, (unsigned)range->high);
    }
    probe_http_say(probe, text);
}

static void probe_http_on_head(void *owner, struct http_message *response) {
    struct probe_http *probe = owner;
    probe->status = response->status;
    if (!probe_http_expects(probe->config, probe->status)) {
        probe_http_say_unexpected(probe);
        probe_http_done(probe, PROBE_FAILED, probe_http_hint(probe));
        return;
    }
    char text[16];
    snprintf(text, sizeof text, "%u", probe->status);
    probe_http_say(probe, text);
    if (!probe->config->body)
        probe_http_done(probe, PROBE_OK, NULL);
}

static bool probe_http_found(const struct probe_http *probe) {
    struct span body = buf_span(&probe->body);
    const char *text = probe->config->body;
    return body.n >= strlen(text) && memmem(body.p, body.n, text, strlen(text));
}

static void probe_http_judge_body(struct probe_http *probe) {
    if (probe_http_found(probe)) {
        probe_http_done(probe, PROBE_OK, NULL);
        return;
    }
    char text[120];
    snprintf(text, sizeof text, "%u, but \"%.60s\" is not in the body", probe->status, probe->config->body);
    probe_http_say(probe, text);
    probe_http_done(probe, PROBE_FAILED, NULL);
}

/* Judges as soon as it can: the answer may never end. */
static void probe_http_on_body(void *owner, const char *data, size_t n) {
    struct probe_http *probe = owner;
    size_t room = PROBE_BODY_MAX - probe->body.len;
    bool kept = buf_append(&probe->body, data, n < room ? n : room);
    if (!kept || probe->body.len == PROBE_BODY_MAX || probe_http_found(probe))
        probe_http_judge_body(probe);
}

static bool probe_http_on_flush(void *owner) {
    (void)owner;
    return true;
}

static void probe_http_on_end(void *owner, const struct http_message *trailers) {
    (void)trailers;
    probe_http_judge_body(owner);
}

static void probe_http_on_fail(void *owner, enum exchange_fault fault, const char *detail) {
    struct probe_http *probe = owner;
    const char *hint = fault == EXCHANGE_TLS ? probe_tls_hint(detail) : NULL;
    probe_http_say(probe, detail);
    probe_http_done(probe, fault == EXCHANGE_LOCAL ? PROBE_LOCAL : PROBE_FAILED, hint);
}

static const struct exchange_ops probe_http_ops = {
    .on_head = probe_http_on_head,
    .on_body = probe_http_on_body,
    .on_flush = probe_http_on_flush,
    .on_end = probe_http_on_end,
    .on_fail = probe_http_on_fail,
};

static void probe_http_on_timer(struct timer *timer) {
    struct probe_http *probe = container_of(timer, struct probe_http, timer);
    char text[64];
    snprintf(text, sizeof text, "no answer within %u ms", (unsigned)probe->config->timeout_ms);
    probe_http_say(probe, text);
    probe_http_done(probe, PROBE_FAILED, NULL);
}

static bool probe_http_write(struct buf *out, const struct pool *pool, const struct server *server) {
    const char *name = pool->config->probe.method;
    enum http_method method = http_method_of(span_of(name));
    bool sized = method == HTTP_POST || method == HTTP_PUT || method == HTTP_PATCH;
    return probe_head_write(out, pool, server, name,
                            sized ? "Connection: close\r\nContent-Length: 0\r\n" : "Connection: close\r\n");
}

struct probe_http *probe_http_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                    probe_done_fn *on_done, void *owner) {
    const struct config_probe *config = &pool->config->probe;
    assert(config->kind == CONFIG_PROBE_HTTP && config->method && config->path && on_done);
    struct probe_http *probe = mem_alloc(sizeof *probe);
    probe->config = config;
    probe->upstream = upstream;
    probe->addr = probe_addr(pool, server);
    probe->on_done = on_done;
    probe->owner = owner;
    buf_init(&probe->body, PROBE_BODY_MAX);
    timer_init(&probe->timer, probe_http_on_timer);
    timer_set(upstream->loop, &probe->timer, config->timeout_ms);
    struct exchange_options options = {.method = http_method_of(span_of(config->method)),
                                       .fresh = true,
                                       .close = true,
                                       .addr = &probe->addr,
                                       .tls = config->tls};
    probe->exchange = exchange_new(upstream, pool, server, &options, &probe_http_ops, probe);
    struct buf head;
    buf_init(&head, PROBE_HEAD_MAX);
    if (probe_http_write(&head, pool, server)) {
        struct span bytes = buf_span(&head);
        exchange_start(probe->exchange, bytes.p, bytes.n);
    } /* else: without memory for the head the clock ends it */
    buf_release(&head);
    return probe;
}

void probe_http_free(struct probe_http **slot) {
    struct probe_http *probe = *slot;
    *slot = NULL;
    if (!probe)
        return;
    timer_stop(probe->upstream->loop, &probe->timer);
    exchange_free(&probe->exchange);
    buf_release(&probe->body);
    mem_free(probe);
}
