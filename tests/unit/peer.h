/* SPDX-License-Identifier: MIT */
/*
 * peer: for the tests of src/upstream: a pool with servers on loopback, and the other end of their connections,
 * driven by hand in the same thread: what arrives when is then the test's choice, down to the byte.
 */
#ifndef MOONGATE_TESTS_PEER_H
#define MOONGATE_TESTS_PEER_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "upstream/exchange.h"

struct peer {
    struct loop *loop;
    struct upstream upstream;
    struct config_pool config;
    struct config_server server_config;
    char address[ADDR_TEXT_MAX];
    struct pool *pool;
    struct server *server;
    int listener;
};

/* Turns of the loop that find nothing to wait for. */
static inline void peer_turns(struct peer *peer, unsigned turns) {
    while (turns-- > 0)
        loop_turn(peer->loop, 0);
}

static inline uint16_t peer_listen(int *listener) {
    struct addr addr;
    ck_assert(addr_parse(SPAN("127.0.0.1"), 1, &addr));
    addr.sa.in.sin_port = 0;
    *listener = sock_listen(&addr, 64, NULL);
    ck_assert_int_ge(*listener, 0);
    ck_assert(sock_local(*listener, &addr));
    return addr_port(&addr);
}

/* One pool with one server on a free port; change config before peer_open(). */
static inline void peer_prepare(struct peer *peer) {
    metrics_attach();
    *peer = (struct peer){.loop = loop_new()};
    uint16_t port = peer_listen(&peer->listener);
    snprintf(peer->address, sizeof peer->address, "127.0.0.1:%u", (unsigned)port);
    peer->server_config = (struct config_server){.name = peer->address,
                                                 .address = peer->address,
                                                 .host = (char *)(uintptr_t) "127.0.0.1",
                                                 .port = port,
                                                 .weight = 1};
    ck_assert(addr_parse(span_of(peer->address), 0, &peer->server_config.addr));
    config_pool_defaults(&peer->config);
    peer->config.name = (char *)(uintptr_t) "chat";
    peer->config.servers = &peer->server_config;
    peer->config.server_count = 1;
    peer->config.probe.kind = CONFIG_PROBE_NONE;
    peer->config.keepalive = 8;
    upstream_init(&peer->upstream, peer->loop);
}

static inline void peer_open(struct peer *peer) {
    char error[TLS_ERROR_MAX] = "";
    peer->pool = pool_new(&peer->config, NULL, error);
    ck_assert_msg(peer->pool != NULL, "%s", error);
    peer->server = peer->pool->servers[0];
}

static inline void peer_close(struct peer *peer) {
    upstream_fini(&peer->upstream);
    pool_free(&peer->pool);
    loop_free(&peer->loop);
    if (peer->listener >= 0)
        close(peer->listener);
}

/* The next connection; waits for it. */
static inline int peer_accept(struct peer *peer) {
    for (unsigned i = 0; i < 2000; i++) {
        struct addr from;
        int fd = sock_accept(peer->listener, &from);
        if (fd >= 0)
            return fd;
        loop_turn(peer->loop, 1);
    }
    ck_abort_msg("no connection");
    return -1;
}

/* Reads until the text is there; returns what came, to be freed. */
static inline char *peer_expect(struct peer *peer, int fd, const char *text) {
    char *got = calloc(1, 65536);
    size_t used = 0;
    for (unsigned i = 0; i < 2000; i++) {
        ssize_t n = recv(fd, got + used, 65535 - used, 0);
        if (n > 0)
            used += (size_t)n;
        if (strstr(got, text))
            return got;
        loop_turn(peer->loop, 1);
    }
    ck_abort_msg("%s did not come, but: %s", text, got);
    return got;
}

static inline void peer_say(int fd, const char *data, size_t n) {
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        ck_assert_int_gt(sent, 0);
        data += sent;
        n -= (size_t)sent;
    }
}

/* True once the other side has closed fd (FIN or RST). */
static inline bool peer_is_closed(struct peer *peer, int fd) {
    for (unsigned i = 0; i < 200; i++) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        loop_turn(peer->loop, 1);
    }
    return false;
}

#endif
