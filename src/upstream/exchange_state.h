/* SPDX-License-Identifier: MIT */
/*
 * exchange_state: what exchange.c (connect, send, end) and exchange_read.c (the response) share. Nobody else
 * includes it.
 */
#ifndef MOONGATE_UPSTREAM_EXCHANGE_STATE_H
#define MOONGATE_UPSTREAM_EXCHANGE_STATE_H

#include "upstream/exchange.h"
#include "wire/body.h"

#define EXCHANGE_HEAD_MAX (64 * 1024) /* bytes of a response head */
#define EXCHANGE_FIELDS_MAX 256
#define EXCHANGE_INTERIM_MAX 16       /* 1xx answers (requirements A7) */

enum exchange_phase {
    EXCHANGE_PHASE_NEW,
    EXCHANGE_PHASE_DIALING,
    EXCHANGE_PHASE_SHAKING,
    EXCHANGE_PHASE_HEAD,     /* sending, and waiting for the response head */
    EXCHANGE_PHASE_BODY,     /* maybe still sending */
    EXCHANGE_PHASE_SWITCHED, /* a 101 came: the conn waits to be taken */
    EXCHANGE_PHASE_OVER      /* ended, failed or freed: no callback any more */
};

struct exchange {
    struct upstream *upstream;
    const struct pool *pool;
    struct server *server;
    const struct exchange_ops *ops;
    void *owner;
    struct exchange_options options;
    struct conn *conn;
    struct timer timer; /* connect, then response; also brings a failure that may not come at once */
    struct buf out;     /* of the request: what the kernel did not take yet */
    struct buf in;      /* of the response: a head that came in pieces; after a 101 what followed it */
    size_t scanned;     /* of in, by http1_find_head() */
    size_t rest;        /* in.data + in.off + rest: first byte behind the 101 */
    struct arena arena; /* the response's fields */
    struct http_message response;
    struct body body;
    uint64_t connected_us, bytes_in;
    uint8_t phase;      /* enum exchange_phase */
    uint8_t interims;
    uint8_t depth;      /* inside how many of our own events */
    uint8_t fault;      /* enum exchange_fault, when fails */
    const char *detail;
    bool fails : 1;     /* fault and detail are to be told by the timer */
    bool freed : 1;     /* memory goes when depth is 0 again */
    bool special : 1;   /* address or TLS not the server's own, or made for one client: never from or into the kept ones */
    bool reused : 1;
    bool counted : 1;   /* the conn is in server_connects */
    bool heard : 1;     /* some byte of the response came */
    bool paused : 1;
    bool send_ended : 1;
    bool want_drain : 1;
    bool bulk : 1;      /* the last read was large */
    bool deaf : 1;      /* a write failed: the server takes no more, but may have answered */
};

/* Reads and decodes what there is, a bounded batch. May end the exchange. */
void exchange_pull(struct exchange *exchange);
/* The response is complete; dirty: bytes followed it, or the connection is over. Last thing done: on_end. */
void exchange_finish(struct exchange *exchange, bool dirty);
/* Closes and tells the owner. */
void exchange_fail(struct exchange *exchange, enum exchange_fault fault, const char *detail);
/* A byte moved: the response timeout starts anew. */
void exchange_touch(struct exchange *exchange);

static inline bool exchange_is_live(const struct exchange *exchange) {
    return exchange->phase == EXCHANGE_PHASE_HEAD || exchange->phase == EXCHANGE_PHASE_BODY;
}

#endif
