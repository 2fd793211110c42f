/* SPDX-License-Identifier: MIT */
/*
 * The PROXY header in front of a connection, from peers of the listener's proxy_protocol_from, and only from them: whoever else sends one is
 * refused like any other malformed request. What it says takes the place of the peer's address for all that follows.
 *
 * The header is looked at where it lies in the socket and taken out only when it is whole, to the byte: behind it begins TLS, which reads the
 * socket itself. The subtle one is edge-triggered readiness: bytes that stay unread cause no further event, but each that arrives does, so after
 * each event all of them are looked at again; and once the peer has ended its side, what lies there is all there will ever be.
 */
#include "traffic/client.h"

#include "base/log.h"
#include "base/metrics.h"
#include "wire/proxyproto.h"

#define CLIENT_PROXY_SAY_MS 60000 /* one line of the log a minute and worker */

static void client_proxy_refuse(struct client *client, const char *reason) {
    struct worker *worker = client->worker;
    uint64_t now = loop_now_ms(worker->loop);
    metric_add(METRIC_proxy_headers_bad, 1);
    if (worker->proxy_say_ms <= now) {
        char text[ADDR_TEXT_MAX];
        worker->proxy_say_ms = now + CLIENT_PROXY_SAY_MS;
        log_warn("listener \"%s\": closed a connection from %s, which is in proxy_protocol_from: %s", client->config->name,
                 addr_format_ip(&client->peer, text), reason);
    }
    client_close(client, CAUSE_CLIENT_BAD);
}

/* Takes the header's bytes out of the socket and begins what comes behind them. */
static void client_proxy_finish(struct client *client, const struct proxyproto *header, size_t used) {
    size_t n = 0;
    if (conn_read(client->conn, client->worker->scratch, used, &n) != IO_OK || n != used) {
        client_close(client, CAUSE_CLIENT_RESET);
        return;
    }
    client->conn->readable = true; /* whatever that read said: what is behind the header has not been asked for */
    if (!header->local) {
        client->peer = header->source;
        client->destination = addr_shrink(&header->destination);
    }
    client_begin(client);
    if (!client->closed)
        conn_again(client->conn);
}

static void client_proxy_on_event(struct conn *conn) {
    struct client *client = conn->owner;
    struct proxyproto header;
    const char *reason = NULL;
    size_t n = 0, used = 0;
    enum io result = conn_peek(conn, client->worker->scratch, PROXYPROTO_MAX, &n);
    if (result == IO_AGAIN && !conn->failed)
        return;
    if (result != IO_OK) {
        client_close(client, result == IO_EOF ? CAUSE_CLIENT_CLOSED : CAUSE_CLIENT_RESET);
        return;
    }
    switch (proxyproto_parse(client->worker->scratch, n, &header, &used, &reason)) {
    case PROXYPROTO_OK:
        client_proxy_finish(client, &header, used);
        break;
    case PROXYPROTO_BAD:
        client_proxy_refuse(client, reason);
        break;
    case PROXYPROTO_MORE:
        if (conn->fin_seen)
            client_proxy_refuse(client, "it ended in the PROXY header");
    }
}

bool client_proxy_start(struct client *client) {
    const struct config_cidrs *from = &client->config->proxy_from;
    struct addr_small peer = addr_shrink(&client->peer);
    if (from->count == 0 || !cidr_match_any(from->list, from->count, &peer))
        return false;
    conn_set_owner(client->conn, client, client_proxy_on_event);
    client_set_phase(client, CLIENT_PROXY);
    if (client->config->header_timeout_ms > 0)
        timer_set(client->worker->loop, &client->timer, client->config->header_timeout_ms);
    return true;
}

struct addr_small client_proxy_destination(struct client *client) {
    struct addr local;
    if (client->destination.family == 0 && client->local->generation->tells_destination && sock_local(client->conn->fd, &local))
        client->destination = addr_shrink(&local);
    return client->destination;
}
