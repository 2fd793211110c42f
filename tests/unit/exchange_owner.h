/* SPDX-License-Identifier: MIT */
/*
 * exchange_owner: an owner of exchanges for their tests: writes down what it hears as text, and does in each event
 * what the test told it to.
 */
#ifndef MOONGATE_TESTS_EXCHANGE_OWNER_H
#define MOONGATE_TESTS_EXCHANGE_OWNER_H

#include "peer.h"

#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

static struct peer peer;
static struct exchange *exchange;
static struct {
    char events[4096];
    struct buf body;
    unsigned flushes, drains;
    size_t pause_after;  /* on_flush says stop once so many bytes came; 0: never */
    const char *free_in; /* the event in which the owner frees the exchange */
    struct conn *taken;
    struct http_message *response; /* the last final head */
    char rest[256];
} seen;

static void note(const char *event, const char *text) {
    size_t used = strlen(seen.events);
    snprintf(seen.events + used, sizeof seen.events - used, "%s%s ", event, text);
    if (seen.free_in && strcmp(seen.free_in, event) == 0)
        exchange_free(&exchange);
}

static void note_status(const char *event, const struct http_message *response) {
    char text[64];
    snprintf(text, sizeof text, ":%u/%s", response->status,
             (const char *[]){"none", "length", "chunked", "close"}[response->body]);
    note(event, text);
}

static void on_interim(void *owner, const struct http_message *response) {
    ck_assert_ptr_eq(owner, &seen);
    note_status("interim", response);
}

static void on_head(void *owner, struct http_message *response) {
    ck_assert_ptr_eq(owner, &seen);
    seen.response = response;
    note_status("head", response);
}

static void on_body(void *owner, const char *data, size_t n) {
    ck_assert_ptr_eq(owner, &seen);
    ck_assert(buf_append(&seen.body, data, n));
    if (seen.free_in && strcmp(seen.free_in, "body") == 0)
        note("body", "");
}

static bool on_flush(void *owner) {
    ck_assert_ptr_eq(owner, &seen);
    seen.flushes++;
    if (seen.free_in && strcmp(seen.free_in, "flush") == 0)
        note("flush", "");
    return seen.pause_after == 0 || seen.body.len < seen.pause_after;
}

static void on_end(void *owner, const struct http_message *trailers) {
    ck_assert_ptr_eq(owner, &seen);
    char text[256] = "";
    if (trailers)
        snprintf(text, sizeof text, ":%.*s=%.*s", SPAN_ARGS(trailers->fields[0].name),
                 SPAN_ARGS(trailers->fields[0].value));
    note("end", text);
}

static void on_upgrade(void *owner, struct http_message *response) {
    ck_assert_ptr_eq(owner, &seen);
    struct span rest;
    seen.taken = exchange_take_conn(exchange, &rest);
    snprintf(seen.rest, sizeof seen.rest, "%.*s", SPAN_ARGS(rest));
    note_status("upgrade", response);
}

static void on_drain(void *owner) {
    ck_assert_ptr_eq(owner, &seen);
    seen.drains++;
}

static void on_fail(void *owner, enum exchange_fault fault, const char *detail) {
    ck_assert_ptr_eq(owner, &seen);
    ck_assert_ptr_nonnull(detail);
    note("fail:", exchange_fault_name(fault));
}

static const struct exchange_ops ops = {.on_interim = on_interim, .on_head = on_head, .on_body = on_body,
                                        .on_flush = on_flush, .on_end = on_end, .on_upgrade = on_upgrade,
                                        .on_drain = on_drain, .on_fail = on_fail};

static inline void reset(void) {
    buf_release(&seen.body);
    memset(&seen, 0, sizeof seen);
    buf_init(&seen.body, 64 * 1024 * 1024);
}

static inline void setup(void) {
    peer_prepare(&peer);
    peer_open(&peer);
    reset();
}

static inline void teardown(void) {
    exchange_free(&exchange);
    reset();
    peer_close(&peer);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), metric_sum(METRIC_server_closed));
}

static inline struct exchange_options plain(void) {
    return (struct exchange_options){.method = HTTP_GET, .tls = -1};
}

static inline void start(const struct exchange_options *options, const char *head) {
    exchange = exchange_new(&peer.upstream, peer.pool, peer.server, options, &ops, &seen);
    exchange_start(exchange, head, strlen(head));
    ck_assert_str_eq(seen.events, "");
}

/* Until the owner has heard text. */
static inline void wait_for(const char *text) {
    for (unsigned i = 0; i < 3000 && !strstr(seen.events, text); i++)
        loop_turn(peer.loop, 1);
    ck_assert_msg(strstr(seen.events, text) != NULL, "%s did not come, but: %s", text, seen.events);
}

/* Starts a request without an answer yet; returns the far end. */
static inline int begin(const struct exchange_options *options) {
    start(options, GET);
    int fd = peer_accept(&peer);
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    return fd;
}

static inline void answer_ok(int fd) {
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    peer_say(fd, ok, sizeof ok - 1);
}

#endif
