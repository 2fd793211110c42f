/* SPDX-License-Identifier: MIT */
/*
 * probe_run: one probe of one server, from connect to verdict. probe.c decides when to run them and what a verdict
 * means.
 */
#ifndef MOONGATE_UPSTREAM_PROBE_RUN_H
#define MOONGATE_UPSTREAM_PROBE_RUN_H

#include "base/buf.h"
#include "upstream/upstream.h"

#define PROBE_DETAIL_MAX 256
#define PROBE_HEAD_MAX (64 * 1024)

enum probe_result {
    PROBE_OK,
    PROBE_FAILED,
    PROBE_LOCAL /* no descriptor, port or memory here: says nothing about the server */
};

/*
 * detail: what was asked and what came ("GET /healthz: 503, expected 200-399"); hint: what may help, or NULL. Both
 * valid inside the call, in which the owner frees the run. Comes once, from the loop, never from inside *_start().
 */
typedef void probe_done_fn(void *owner, enum probe_result result, const char *detail, const char *hint);

struct probe_http;
struct probe_tcp;
struct probe_websocket;

/* A request by the pool's probe configuration; its timeout included. */
struct probe_http *probe_http_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                    probe_done_fn *on_done, void *owner);
/* Ends it wherever it is; clears the pointer, NULL inside is fine. */
void probe_http_free(struct probe_http **probe);

/* Connect, and TLS handshake where the probe uses TLS. */
struct probe_tcp *probe_tcp_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                  probe_done_fn *on_done, void *owner);
void probe_tcp_free(struct probe_tcp **probe);

/*
 * A WebSocket handshake with all that RFC 6455 asks of the answer, the pool's subprotocol, a ping and its pong where asked
 * for, then Close 1000 and its echo.
 */
struct probe_websocket *probe_websocket_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                              probe_done_fn *on_done, void *owner);
void probe_websocket_free(struct probe_websocket **probe);

/* Where a probe goes: the server's address, with the probe's own port if it has one. */
struct addr probe_addr(const struct pool *pool, const struct server *server);
/* A whole head: request line, Host and User-Agent, lines (ended by CRLF) that frame it, the configuration's headers. */
bool probe_head_write(struct buf *out, const struct pool *pool, const struct server *server, const char *method,
                      const char *lines);
/* What may help when TLS failed with detail. */
const char *probe_tls_hint(const char *detail);

#endif
