/* SPDX-License-Identifier: MIT */
/*
 * An accepted connection from its first byte to its last: a PROXY header (client_proxy.c), the TLS handshake, then the hand-over to
 * HTTP/1 (ALPN will choose HTTP/2 here). It lives in its worker's list until it is closed or becomes one half of a tunnel.
 *
 * One timer serves all phases: absolute limits (TLS, head) are set once at the phase's start, the others are pushed back
 * with progress, which costs one store each.
 */
#include "traffic/client.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

/* Idle memory: what a client may hold before it is read further. */
#define CLIENT_LOOK_AHEAD (64 * 1024)
#define CLIENT_OUT_MAX (256 * 1024) /* a batch of body (64 KiB), its chunk framing and a response head, doubled for safety */

static void client_tls_failed(struct client *client, enum cause cause, const char *why) {
    char peer[ADDR_TEXT_MAX];
    metric_add(METRIC_tls_failures, 1);
    log_debug("listener \"%s\": TLS handshake with %s failed: %s", client->config->name, addr_format(&client->peer, peer), why);
    client_close(client, cause);
}

static void client_on_timer(struct timer *timer) {
    struct client *client = container_of(timer, struct client, timer);
    if (client->phase == CLIENT_PROXY) {
        metric_add(METRIC_proxy_headers_bad, 1);
        client_close(client, CAUSE_CLIENT_HEADER_TIMEOUT);
    } else if (client->phase == CLIENT_TLS) {
        client_tls_failed(client, CAUSE_CLIENT_HEADER_TIMEOUT, "timed out");
    } else {
        client_h1_on_timer(client);
    }
}

static void client_handshake(struct client *client) {
    switch (conn_handshake(client->conn)) {
    case IO_OK:
        metric_add(METRIC_tls_handshakes, 1);
        client_h1_start(client);
        break;
    case IO_AGAIN:
        break;
    case IO_EOF:
        client_tls_failed(client, CAUSE_CLIENT_BAD, "the client closed");
        break;
    default: {
        int error = client->conn->error;
        client_tls_failed(client, CAUSE_CLIENT_BAD, error ? strerror(error) : tls_error_text());
    }
    }
}

static void client_on_handshake_event(struct conn *conn) { client_handshake(conn->owner); }

void client_begin(struct client *client) {
    const struct tls_server *tls = client->local->generation->tls[client->listener->index];
    if (!tls) {
        client_h1_start(client);
        return;
    }
    if (!conn_start_tls_server(client->conn, tls)) {
        client_close(client, CAUSE_LOCAL);
        return;
    }
    conn_set_owner(client->conn, client, client_on_handshake_event);
    client_set_phase(client, CLIENT_TLS);
    if (client->config->tls_timeout_ms > 0)
        timer_set(client->worker->loop, &client->timer, client->config->tls_timeout_ms);
}

void client_accept(struct worker *worker, struct listener *listener, int fd, const struct addr *peer) {
    struct conn *conn = conn_open(worker->loop, fd);
    if (!conn) {
        metric_add(METRIC_accept_errors, 1);
        listener_leave(worker->shared, listener);
        return;
    }
    struct client *client = slab_get(&worker->clients);
    client->worker = worker;
    client->local = generation_local_ref(worker->current);
    client->config = &client->local->generation->config->listeners[listener->index];
    client->listener = listener;
    client->conn = conn;
    client->peer = *peer;
    timer_init(&client->timer, client_on_timer);
    buf_init(&client->in, client->config->max_header + CLIENT_LOOK_AHEAD);
    buf_init(&client->ahead, CLIENT_LOOK_AHEAD);
    buf_init(&client->out, CLIENT_OUT_MAX);
    list_append(&worker->client_list, &client->link);
    metric_add(METRIC_clients_accepted, 1);
    worker_client_opened(worker);
    if (!client_proxy_start(client))
        client_begin(client);
    /* Accept was deferred until there are bytes: they are read in this turn, before the kernel tells of them. */
    if (!client->closed && peer->sa.any.sa_family != AF_UNIX) {
        conn->readable = true;
        conn_again(conn);
    }
}

static void client_release(struct deferred *deferred) {
    struct client *client = container_of(deferred, struct client, deferred);
    slab_put(&client->worker->clients, client);
}

static void client_free(struct client *client) {
    client->closed = true;
    timer_stop(client->worker->loop, &client->timer);
    list_remove(&client->link);
    stock_take_back(&client->worker->stock, &client->in);
    buf_release(&client->ahead);
    stock_take_back(&client->worker->stock, &client->out);
    pipes_return(&client->worker->pipes, &client->pipe);
    body_fini(&client->body);
    generation_local_unref(&client->local);
    loop_defer(client->worker->loop, &client->deferred, client_release);
}

void client_close(struct client *client, enum cause cause) {
    if (client->closed)
        return;
    client->closed = true;
    if (client->request) {
        struct request *request = client->request;
        client->request = NULL;
        request_gone(request, cause);
    }
    /* A response that ends with the connection and is cut short can be told from a whole one by a reset only. */
    if (client->until_close && (client->phase == CLIENT_BUSY || !buf_empty(&client->out)))
        conn_abort(&client->conn);
    else
        conn_close(&client->conn);
    struct worker *worker = client->worker;
    listener_leave(worker->shared, client->listener);
    metric_add(METRIC_clients_closed, 1);
    client_free(client);
    worker_client_closed(worker);
}

void client_detach(struct client *client) {
    client->request = NULL;
    client->conn = NULL;
    client_free(client);
}

void client_set_phase(struct client *client, enum client_phase phase) {
    client->phase = phase;
    client->phase_ms = loop_now_ms(client->worker->loop);
}

void client_drain(struct client *client) {
    if (client->phase == CLIENT_IDLE || (client->phase == CLIENT_HEAD && buf_empty(&client->in)))
        client_close(client, CAUSE_DRAIN);
    else
        client->wants_close = true;
}
