/* SPDX-License-Identifier: MIT */
/*
 * traffic_rig: for the tests of src/traffic: one real worker thread under a configuration made by hand (one listener, one pool with one
 * server, one route to it), and blocking sockets on both sides of it, driven by the test. No Lua: script_ops that do nothing.
 */
#ifndef MOONGATE_TESTS_TRAFFIC_RIG_H
#define MOONGATE_TESTS_TRAFFIC_RIG_H

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "traffic/worker.h"

struct rig {
    struct config *config;
    struct config_listener listener;
    struct config_pool pool;
    struct config_server server;
    struct config_route route;
    struct config_step step;
    struct addr bind;
    char *bind_text;
    char address[ADDR_TEXT_MAX];
    int origin; /* listening socket of the server side */
    struct generation *generation;
    struct listeners listeners;
    struct worker_shared shared;
    struct worker worker;
    struct upstream upstream; /* for the test's own loop, unused by the worker */
};

static inline char *rig_text(const char *text) { return (char *)(uintptr_t)text; }

static inline void *rig_script_open(const void *load, unsigned worker, char *error, size_t size) {
    (void)load, (void)worker, (void)error, (void)size;
    return mem_alloc(1);
}

static inline void rig_script_close(void *script) { mem_free(script); }
static inline void rig_free_load(void *load) { (void)load; }
static inline void rig_script_release(void *script, struct subject *subject) { (void)script, (void)subject; }

static const struct script_ops rig_script = {
    .open = rig_script_open, .close = rig_script_close, .release = rig_script_release};

static inline int rig_listen(struct addr *addr) {
    ck_assert(addr_parse(SPAN("127.0.0.1"), 1, addr));
    addr->sa.in.sin_port = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, &addr->sa.any, addr->len), 0);
    ck_assert_int_eq(listen(fd, 64), 0);
    ck_assert(sock_local(fd, addr));
    return fd;
}

/* Fills the configuration; change rig->listener, pool, settings before rig_start(). */
static inline void rig_init(struct rig *rig) {
    memset(rig, 0, sizeof *rig);
    metrics_attach();
    rig->origin = rig_listen(&rig->server.addr);
    addr_format(&rig->server.addr, rig->address);
    rig->server = (struct config_server){.name = rig->address, .address = rig->address, .host = rig_text("127.0.0.1"),
                                         .port = addr_port(&rig->server.addr), .addr = rig->server.addr, .weight = 1};
    config_pool_defaults(&rig->pool);
    rig->pool.name = rig_text("chat");
    rig->pool.servers = &rig->server;
    rig->pool.server_count = 1;
    rig->pool.probe.kind = CONFIG_PROBE_NONE;
    config_listener_defaults(&rig->listener);
    rig->listener.name = rig_text("http");
    ck_assert(addr_parse(SPAN("127.0.0.1"), 1, &rig->bind));
    rig->bind.sa.in.sin_port = 0;
    rig->bind_text = rig_text("127.0.0.1:0");
    rig->listener.binds = &rig->bind;
    rig->listener.bind_texts = &rig->bind_text;
    rig->listener.bind_count = 1;
    rig->step = (struct config_step){.kind = CONFIG_STEP_ACTION, .action = {.kind = ACTION_FORWARD}};
    rig->route = (struct config_route){.name = rig_text("all"), .when = CONFIG_NO_FUNCTION, .steps = &rig->step,
                                       .step_count = 1, .access_log = true, .max_body = UINT64_MAX,
                                       .on_response = CONFIG_NO_FUNCTION};
    rig->config = config_new("rig.lua");
}

/* Everything but the worker. */
static inline void rig_prepare(struct rig *rig) {
    rig->config->listeners = &rig->listener;
    rig->config->pools = &rig->pool;
    rig->config->routes = &rig->route;
    rig->config->listener_count = rig->config->pool_count = rig->config->route_count = 1;
    char error[GENERATION_ERROR_MAX] = "";
    rig->generation = generation_new(rig->config, rig, rig_free_load, &rig_script, NULL, error);
    ck_assert_msg(rig->generation != NULL, "%s", error);
    ck_assert_msg(listeners_open(&rig->listeners, rig->config, error, sizeof error), "%s", error);
    rig->shared.listeners = &rig->listeners;
    rig->shared.worker_count = 1;
    rig->shared.workers = &rig->worker;
    if (rig->shared.max_connections == 0)
        rig->shared.max_connections = 1000;
}

static inline void rig_start(struct rig *rig) {
    char error[GENERATION_ERROR_MAX] = "";
    rig_prepare(rig);
    ck_assert_msg(worker_start(&rig->worker, 0, &rig->shared, rig->generation, error), "%s", error);
    worker_listen(&rig->worker);
}

/* Drains the worker: returns when it has ended by itself. */
static inline void rig_stop(struct rig *rig) {
    worker_drain(&rig->worker);
    worker_join(&rig->worker);
    worker_free(&rig->worker);
    listeners_close(&rig->listeners);
    generation_unref(&rig->generation);
    rig->config->listeners = NULL;
    rig->config->pools = NULL;
    rig->config->routes = NULL;
    rig->config->listener_count = rig->config->pool_count = rig->config->route_count = 0;
    config_free(&rig->config);
    close(rig->origin);
}

static inline void rig_timeout(int fd) {
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* A client's connection to the gateway. */
static inline int rig_connect(const struct rig *rig) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    rig_timeout(fd);
    const struct addr *to = &rig->listeners.list[0].addr;
    ck_assert_msg(connect(fd, &to->sa.any, to->len) == 0, "connect: %s", strerror(errno));
    return fd;
}

/* The gateway's next connection to the server. */
static inline int rig_accept(const struct rig *rig) {
    struct pollfd poll_fd = {.fd = rig->origin, .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, 5000), 1);
    int fd = accept(rig->origin, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    rig_timeout(fd);
    return fd;
}

static inline void rig_send(int fd, const char *text) {
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until `end` has come (NULL: until EOF) into a static buffer; returns it as text. */
static inline const char *rig_read(int fd, const char *end) {
    static char text[65536];
    size_t n = 0;
    text[0] = '\0';
    while (n < sizeof text - 1 && (!end || !strstr(text, end))) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
        ck_assert_msg(got >= 0, "nothing came behind: %s", text);
        if (got == 0)
            break;
        n += (size_t)got;
        text[n] = '\0';
    }
    ck_assert_msg(!end || strstr(text, end), "expected %s in: %s", end, text);
    return text;
}

/* Waits until two counters agree. */
static inline void rig_reconcile(enum metric opened, enum metric closed) {
    for (int i = 0; i < 500 && metric_sum(opened) != metric_sum(closed); i++)
        usleep(10000);
    ck_assert_uint_eq(metric_sum(opened), metric_sum(closed));
}

#endif
