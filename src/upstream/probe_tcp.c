/* SPDX-License-Identifier: MIT */
/*
 * One TCP probe: the server is well when it takes a connection, and where the probe uses TLS, when the handshake
 * succeeds (with the pool's verification). Nothing is sent but the pool's PROXY header; the connection is closed at
 * once.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "upstream/probe_run.h"

struct probe_tcp {
    struct upstream *upstream;
    const struct pool *pool;
    struct server *server;
    struct conn *conn;
    struct timer timer;
    int error; /* of a connect that could not even start */
    bool shaking;
    probe_done_fn *on_done;
    void *owner;
    char detail[PROBE_DETAIL_MAX];
};

static struct tls_client *probe_tcp_tls(const struct pool *pool) {
    int tls = pool->config->probe.tls;
    if (tls == 0)
        return NULL;
    return pool->tls ? pool->tls : pool->probe_tls;
}

static void probe_tcp_done(struct probe_tcp *probe, enum probe_result result, const char *text) {
    timer_stop(probe->upstream->loop, &probe->timer);
    conn_close(&probe->conn);
    snprintf(probe->detail, sizeof probe->detail, "%s: %.200s", probe->shaking ? "TLS handshake" : "TCP connect", text);
    probe->on_done(probe->owner, result, probe->detail, NULL);
}

static void probe_tcp_refused(struct probe_tcp *probe, int error) {
    probe_tcp_done(probe, sock_error_is_local(error) ? PROBE_LOCAL : PROBE_FAILED, strerror(error));
}

static void probe_tcp_shake(struct probe_tcp *probe) {
    switch (conn_handshake(probe->conn)) {
    case IO_OK:
        probe_tcp_done(probe, PROBE_OK, "done");
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        probe_tcp_done(probe, PROBE_FAILED, "closed by the server");
        break;
    case IO_ERROR: {
        int error = probe->conn->error;
        probe_tcp_done(probe, PROBE_FAILED, error ? strerror(error) : tls_error_text());
        break;
    }
    }
}

static bool probe_tcp_announce(const struct probe_tcp *probe) {
    char header[PROXYPROTO_WRITE_MAX];
    size_t wrote = 0, n = pool_write_probe_header(probe->pool, header);
    return n == 0 || (conn_write(probe->conn, header, n, &wrote) == IO_OK && wrote == n);
}

static void probe_tcp_on_event(struct conn *conn) {
    struct probe_tcp *probe = conn->owner;
    if (!probe->shaking) {
        enum io result = conn_connected(conn);
        if (result == IO_AGAIN)
            return;
        if (result != IO_OK) {
            probe_tcp_refused(probe, conn->error);
            return;
        }
        if (!probe_tcp_announce(probe)) {
            probe_tcp_done(probe, PROBE_FAILED, "it took no PROXY header");
            return;
        }
        struct tls_client *tls = probe_tcp_tls(probe->pool);
        if (!tls) {
            probe_tcp_done(probe, PROBE_OK, "connected");
            return;
        }
        probe->shaking = true;
        if (!conn_start_tls_client(conn, tls, pool_tls_name(probe->pool, probe->server))) {
            probe_tcp_done(probe, PROBE_LOCAL, "out of memory");
            return;
        }
    }
    probe_tcp_shake(probe);
}

static void probe_tcp_on_timer(struct timer *timer) {
    struct probe_tcp *probe = container_of(timer, struct probe_tcp, timer);
    if (!probe->conn) {
        probe_tcp_refused(probe, probe->error);
        return;
    }
    char text[64];
    snprintf(text, sizeof text, "no answer within %u ms", (unsigned)probe->pool->config->probe.timeout_ms);
    probe_tcp_done(probe, PROBE_FAILED, text);
}

struct probe_tcp *probe_tcp_start(struct upstream *upstream, const struct pool *pool, struct server *server,
                                  probe_done_fn *on_done, void *owner) {
    assert(upstream && pool && server && on_done);
    struct probe_tcp *probe = mem_alloc(sizeof *probe);
    probe->upstream = upstream;
    probe->pool = pool;
    probe->server = server;
    probe->on_done = on_done;
    probe->owner = owner;
    timer_init(&probe->timer, probe_tcp_on_timer);
    struct addr addr = probe_addr(pool, server);
    const struct addr *source = pool->config->source.len != 0 ? &pool->config->source : NULL;
    probe->conn = conn_connect(upstream->loop, &addr, source, SPAN_NULL, NULL);
    if (probe->conn)
        conn_set_owner(probe->conn, probe, probe_tcp_on_event);
    else
        probe->error = errno;
    timer_set(upstream->loop, &probe->timer, probe->conn ? pool->config->probe.timeout_ms : 0);
    return probe;
}

void probe_tcp_free(struct probe_tcp **slot) {
    struct probe_tcp *probe = *slot;
    *slot = NULL;
    if (!probe)
        return;
    timer_stop(probe->upstream->loop, &probe->timer);
    conn_close(&probe->conn);
    mem_free(probe);
}
