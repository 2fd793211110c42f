/* SPDX-License-Identifier: MIT */
/*
 * One WebSocket probe: what a client would do that comes and goes. A handshake through an exchange, judged like those of
 * clients (accept hash, subprotocol); then on the naked connection a ping and its pong where the configuration asks for
 * them, Close 1000, and the wait for the server's Close. One clock covers all of it, so that a server whose listener
 * still shakes hands while the loop behind it hangs is found out.
 *
 * The subtle thing: the server may speak first (a welcome, its own ping, bytes glued to the 101). Messages are skipped,
 * pings answered; a Close that is not the echo of ours is a failure, with the code it names.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/buf.h"
#include "base/mem.h"
#include "upstream/exchange.h"
#include "upstream/probe_run.h"
#include "wire/frame.h"
#include "wire/upgrade.h"

#define PROBE_OUT_MAX 4096
#define PROBE_READS 8 /* a turn; the rest waits for the next one */
#define PROBE_PING_SIZE 8

enum probe_websocket_phase { PROBE_WEBSOCKET_SHAKING, PROBE_WEBSOCKET_PINGED, PROBE_WEBSOCKET_CLOSING };

struct probe_websocket {
    const struct config_probe *config;
    struct upstream *upstream;
    struct exchange *exchange;
    struct conn *conn; /* after the 101 */
    struct timer timer;
    struct addr addr;
    struct frame_reader reader;
    struct buf out;
    enum probe_websocket_phase phase;
    char key[25];
    char ping[PROBE_PING_SIZE];
    char control[FRAME_CONTROL_MAX]; /* payload of the control frame under way, unmasked by nature */
    size_t control_size;
    probe_done_fn *on_done;
    void *owner;
    char detail[PROBE_DETAIL_MAX];
};

static void probe_websocket_done(struct probe_websocket *probe, enum probe_result result, const char *text, const char *hint) {
    timer_stop(probe->upstream->loop, &probe->timer);
    snprintf(probe->detail, sizeof probe->detail, "WebSocket %.100s: %.120s", probe->config->path, text);
    probe->on_done(probe->owner, result, probe->detail, hint);
}

static void probe_websocket_fail(struct probe_websocket *probe, const char *text, const char *hint) {
    probe_websocket_done(probe, PROBE_FAILED, text, hint);
}

static const char *probe_websocket_hint(unsigned status) {
    if (status == 404)
        return "no such page there: set probe = { websocket = true, path = ... }";
    if (status == 401 || status == 403)
        return "it may want an Origin or credentials: set headers";
    if (status == 400)
        return "it may want a subprotocol: set subprotocol";
    if (status >= 200 && status < 400)
        return "no WebSocket server at this path?";
    return NULL;
}

/* Any answer but a 101. */
static void probe_websocket_on_head(void *owner, struct http_message *response) {
    struct probe_websocket *probe = owner;
    char text[64];
    snprintf(text, sizeof text, "%u, expected 101", response->status);
    probe_websocket_fail(probe, text, probe_websocket_hint(response->status));
}

/* Puts a frame out, masked as those of clients must be. False: it cannot be sent, and that is said. */
static bool probe_websocket_send(struct probe_websocket *probe, enum frame_opcode opcode, const char *payload, size_t n) {
    struct frame_header header = {.opcode = opcode, .fin = true, .masked = true, .length = n};
    unsigned char head[FRAME_HEADER_MAX];
    char masked[FRAME_CONTROL_MAX];
    assert(n <= sizeof masked);
    bool ok = getrandom(header.mask, sizeof header.mask, 0) == (ssize_t)sizeof header.mask;
    memcpy(masked, payload, n);
    frame_mask(masked, n, header.mask, 0);
    ok = ok && buf_append(&probe->out, head, frame_write_header(&header, head)) && buf_append(&probe->out, masked, n);
    while (ok && !buf_empty(&probe->out)) {
        struct span bytes = buf_span(&probe->out);
        size_t wrote = 0;
        enum io result = conn_write(probe->conn, bytes.p, bytes.n, &wrote);
        if (result != IO_OK)
            return true; /* later, or reading tells what is wrong */
        buf_consume(&probe->out, wrote);
    }
    if (!ok)
        probe_websocket_done(probe, PROBE_LOCAL, "out of memory", NULL);
    return ok;
}

static bool probe_websocket_close(struct probe_websocket *probe) {
    probe->phase = PROBE_WEBSOCKET_CLOSING;
    return probe_websocket_send(probe, FRAME_CLOSE, "\x03\xe8", 2); /* 1000 */
}

static void probe_websocket_closed(struct probe_websocket *probe) {
    unsigned code = frame_close_code(span_make(probe->control, probe->control_size));
    char text[64];
    if (probe->phase == PROBE_WEBSOCKET_CLOSING && (code == 1000 || code == 1005)) {
        probe_websocket_done(probe, PROBE_OK, probe->config->ping ? "101, pong, Close 1000" : "101, Close 1000", NULL);
        return;
    }
    if (code == 0)
        snprintf(text, sizeof text, "101, then a malformed Close");
    else
        snprintf(text, sizeof text, "101, then Close %u%s", code,
                 probe->phase == PROBE_WEBSOCKET_PINGED ? " instead of a pong" : ", expected 1000");
    probe_websocket_fail(probe, text, code == 1008 ? "it may want an Origin or credentials: set headers" : NULL);
}

/* One whole frame of the server's. False: the probe is over. */
static bool probe_websocket_take_frame(struct probe_websocket *probe) {
    switch (probe->reader.header.opcode) {
    case FRAME_CLOSE:
        probe_websocket_closed(probe);
        return false;
    case FRAME_PING:
        return probe->phase == PROBE_WEBSOCKET_CLOSING ||
               probe_websocket_send(probe, FRAME_PONG, probe->control, probe->control_size);
    case FRAME_PONG:
        if (probe->phase != PROBE_WEBSOCKET_PINGED || probe->control_size != PROBE_PING_SIZE ||
            memcmp(probe->control, probe->ping, PROBE_PING_SIZE) != 0)
            return true; /* nobody asked, which is allowed */
        return probe_websocket_close(probe);
    case FRAME_CONTINUATION:
    case FRAME_TEXT:
    case FRAME_BINARY:
        break;
    }
    return true;
}

/* False: the probe is over. */
static bool probe_websocket_feed(struct probe_websocket *probe, struct span bytes) {
    for (;;) {
        struct span payload;
        size_t used;
        enum frame_event event = frame_next(&probe->reader, bytes.p, bytes.n, &used, &payload);
        bytes = span_make(bytes.p + used, bytes.n - used);
        char text[100];
        switch (event) {
        case FRAME_MORE:
            return true;
        case FRAME_BEGIN:
            probe->control_size = 0;
            break;
        case FRAME_PAYLOAD:
            if (frame_is_control(probe->reader.header.opcode)) { /* at most 125 bytes: the reader sees to it */
                memcpy(probe->control + probe->control_size, payload.p, payload.n);
                probe->control_size += payload.n;
            }
            break;
        case FRAME_END:
            if (!probe_websocket_take_frame(probe))
                return false;
            break;
        case FRAME_BAD:
            snprintf(text, sizeof text, "101, then no valid frame: %s", probe->reader.reason);
            probe_websocket_fail(probe, text, NULL);
            return false;
        }
    }
}

static void probe_websocket_ended(struct probe_websocket *probe, const char *why) {
    char text[120];
    snprintf(text, sizeof text, "101, then the connection ended without a Close frame%s%.60s", why ? ": " : "", why ? why : "");
    probe_websocket_fail(probe, text, NULL);
}

static void probe_websocket_on_event(struct conn *conn) {
    struct probe_websocket *probe = conn->owner;
    while (!buf_empty(&probe->out)) {
        struct span bytes = buf_span(&probe->out);
        size_t wrote = 0;
        if (conn_write(conn, bytes.p, bytes.n, &wrote) != IO_OK)
            break;
        buf_consume(&probe->out, wrote);
    }
    for (unsigned reads = 0; reads < PROBE_READS; reads++) {
        size_t n = 0;
        switch (conn_read(conn, probe->upstream->scratch, UPSTREAM_SCRATCH, &n)) {
        case IO_OK:
            if (!probe_websocket_feed(probe, span_make(probe->upstream->scratch, n)))
                return;
            break;
        case IO_AGAIN:
            return;
        case IO_EOF:
            probe_websocket_ended(probe, NULL);
            return;
        case IO_ERROR:
            probe_websocket_ended(probe, conn->error ? strerror(conn->error) : tls_error_text());
            return;
        }
    }
    if (conn_may_read(conn))
        conn_again(conn);
}

static void probe_websocket_on_upgrade(void *owner, struct http_message *response) {
    struct probe_websocket *probe = owner;
    const struct config_probe *config = probe->config;
    struct span offered = config->subprotocol ? span_of(config->subprotocol) : SPAN_NULL, chosen, rest;
    const char *wrong = upgrade_check_response(response, span_of(probe->key), &offered, config->subprotocol != NULL, &chosen);
    if (wrong) {
        probe_websocket_fail(probe, wrong, NULL);
        return;
    }
    if (config->subprotocol && !chosen.p) {
        char text[100];
        snprintf(text, sizeof text, "101, but without the subprotocol \"%.60s\"", config->subprotocol);
        probe_websocket_fail(probe, text, "the server does not know it, or does not say so");
        return;
    }
    probe->conn = exchange_take_conn(probe->exchange, &rest);
    conn_set_owner(probe->conn, probe, probe_websocket_on_event);
    frame_reader_init(&probe->reader, FRAME_FROM_SERVER, 0);
    if (config->ping) {
        probe->phase = PROBE_WEBSOCKET_PINGED;
        if (!probe_websocket_send(probe, FRAME_PING, probe->ping, PROBE_PING_SIZE))
            return;
    } else if (!probe_websocket_close(probe)) {
        return;
    }
    if (probe_websocket_feed(probe, rest))
        conn_again(probe->conn);
}

static void probe_websocket_on_body(void *owner, const char *data, size_t n) {
    (void)owner;
    (void)data;
    (void)n;
}

static bool probe_websocket_on_flush(void *owner) {
    (void)owner;
    return true;
}

static void probe_websocket_on_end(void *owner, const struct http_message *trailers) {
    (void)trailers;
    (void)owner; /* never comes: the head was the verdict */
}

static void probe_websocket_on_fail(void *owner, enum exchange_fault fault, const char *detail) {
    const char *hint = fault == EXCHANGE_TLS ? probe_tls_hint(detail) : NULL;
    probe_websocket_done(owner, fault == EXCHANGE_LOCAL ? PROBE_LOCAL : PROBE_FAILED, detail, hint);
}

static const struct exchange_ops probe_websocket_ops = {
    .on_head = probe_websocket_on_head,
    .on_body = probe_websocket_on_body,
    .on_flush = probe_websocket_on_flush,
    .on_end = probe_websocket_on_end,
    .on_upgrade = probe_websocket_on_upgrade,
    .on_fail = probe_websocket_on_fail,
};

static void probe_websocket_on_timer(struct timer *timer) {
    struct probe_websocket *probe = container_of(timer, struct probe_websocket, timer);
    static const char *const what[] = {
        [PROBE_WEBSOCKET_SHAKING] = "no answer", [PROBE_WEBSOCKET_PINGED] = "101, but no pong", [PROBE_WEBSOCKET_CLOSING] = "101, but no Close"};
    char text[64];
    snprintf(text, sizeof text, "%s within %u ms", what[probe->phase], (unsigned)probe->config->timeout_ms);
    probe_websocket_fail(probe, text, NULL);
}

static bool probe_websocket_write(const struct probe_websocket *probe, struct buf *out, const struct pool *pool,
                                  const struct server *server) {
    const char *subprotocol = probe->config->subprotocol;
    struct buf lines;
    buf_init(&lines, PROBE_HEAD_MAX);
    bool ok = buf_printf(&lines,
                         "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
                         probe->key);
    if (subprotocol)
        ok = ok && buf_printf(&lines, "Sec-WebSocket-Protocol: %s\r\n", subprotocol);
    ok = ok && buf_append(&lines, "", 1);
    ok = ok && probe_head_write(out, pool, server, "GET", buf_span(&lines).p);
    buf_release(&lines);
    return ok;
}

struct probe_websocket *probe_websocket_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                              probe_done_fn *on_done, void *owner) {
    const struct config_probe *config = &pool->config->probe;
    assert(config->kind == CONFIG_PROBE_WEBSOCKET && config->path && on_done);
    struct probe_websocket *probe = mem_alloc(sizeof *probe);
    probe->config = config;
    probe->upstream = upstream;
    probe->addr = probe_addr(pool, server);
    probe->on_done = on_done;
    probe->owner = owner;
    upgrade_make_key(probe->key);
    memcpy(probe->ping, probe->key, PROBE_PING_SIZE); /* random enough to know one's own pong */
    buf_init(&probe->out, PROBE_OUT_MAX);
    timer_init(&probe->timer, probe_websocket_on_timer);
    timer_set(upstream->loop, &probe->timer, config->timeout_ms);
    struct exchange_options options = {
        .method = HTTP_GET, .fresh = true, .close = true, .upgrade = true, .addr = &probe->addr, .tls = config->tls};
    probe->exchange = exchange_new(upstream, pool, server, &options, &probe_websocket_ops, probe);
    struct buf head;
    buf_init(&head, PROBE_HEAD_MAX);
    if (probe_websocket_write(probe, &head, pool, server)) {
        struct span bytes = buf_span(&head);
        exchange_start(probe->exchange, bytes.p, bytes.n);
    } /* else: without memory for the head the clock ends it */
    buf_release(&head);
    return probe;
}

void probe_websocket_free(struct probe_websocket **slot) {
    struct probe_websocket *probe = *slot;
    *slot = NULL;
    if (!probe)
        return;
    timer_stop(probe->upstream->loop, &probe->timer);
    upstream_close_conn(probe->upstream, &probe->conn);
    exchange_free(&probe->exchange);
    buf_release(&probe->out);
    mem_free(probe);
}
