/* SPDX-License-Identifier: MIT */
/*
 * exchange: one HTTP/1 request to one server and its response: connect or kept connection, TLS, send, read, end.
 * Used by requests, probes and (later) Lua's http. It decides nothing: which server, what head, whether to try
 * again are its owner's.
 *
 * Life: exchange_new() -> exchange_start() -> events -> exchange_free(). on_end, on_upgrade and on_fail are final:
 * one of them comes exactly once, never from inside exchange_start(), unless exchange_free() comes first. The
 * owner may call exchange_free() inside any event.
 */
#ifndef MOONGATE_UPSTREAM_EXCHANGE_H
#define MOONGATE_UPSTREAM_EXCHANGE_H

#include "upstream/upstream.h"
#include "wire/http1.h"

struct exchange;
struct pipe;

enum exchange_fault {
    EXCHANGE_LOCAL,       /* no descriptor, port or memory here (requirements D24) */
    EXCHANGE_CONNECT,     /* refused, unreachable, timed out: nothing was sent */
    EXCHANGE_TLS,         /* handshake or verification failed: nothing was sent */
    EXCHANGE_STALE,       /* a kept connection ended before any byte of the response */
    EXCHANGE_CLOSED,      /* a fresh connection ended before the response head was complete */
    EXCHANGE_BAD,         /* response refused by the guard, or bytes where none may be */
    EXCHANGE_TRUNCATED,   /* ended in mid-body */
    EXCHANGE_TIMEOUT      /* response_timeout (or upgrade_timeout) without a byte */
};

const char *exchange_fault_name(enum exchange_fault fault);

struct exchange_ops {
    /* A 1xx other than 101. May be NULL. */
    void (*on_interim)(void *owner, const struct http_message *response);
    /* Final head. Its spans stay valid until exchange_free(). response->body says what follows. */
    void (*on_head)(void *owner, struct http_message *response);
    /* Decoded body bytes, all taken by the owner at once. */
    void (*on_body)(void *owner, const char *data, size_t n);
    /*
     * After a batch of on_head and on_body, when no end follows at once: push out. False: stop reading until
     * exchange_resume().
     */
    bool (*on_flush)(void *owner);
    /*
     * Bulk: an empty pipe to the owner's peer that body bytes of a known length may go through unseen, or NULL: on_body. on_piped tells how
     * many went in, and on_flush or on_end follows. May be NULL.
     */
    struct pipe *(*on_pipe)(void *owner);
    void (*on_piped)(void *owner, size_t n);
    /* Complete. The connection is already kept or closed. trailers: live fields, or NULL. */
    void (*on_end)(void *owner, const struct http_message *trailers);
    /* A 101: judge it, then exchange_take_conn(). */
    void (*on_upgrade)(void *owner, struct http_message *response);
    /* Everything given to exchange_send() was taken by the kernel: more may be sent. May be NULL. */
    void (*on_drain)(void *owner);
    void (*on_fail)(void *owner, enum exchange_fault fault, const char *detail);
};

struct exchange_options {
    enum http_method method;    /* tells whether a response body is possible */
    bool fresh;                 /* never a kept connection: upgrades, requests that cannot be tried again */
    bool close;                 /* do not keep the connection afterwards */
    bool upgrade;               /* a 101 is expected: on_upgrade; otherwise a 101 is EXCHANGE_BAD */
    bool has_body;              /* exchange_send() follows, ended by exchange_send_end() */
    uint32_t max_idle_ms;       /* no kept connection that was idle for longer (1000: cannot be tried again); 0: any */
    uint32_t response_timeout_ms; /* without a byte either way; 0: none */
    const struct addr *addr;    /* NULL: the server's; probes of another port. Borrowed */
    int tls;                    /* -1: as the pool; 0, 1: forced (probes) */
    struct addr_small source, destination; /* for the pool's PROXY header: whom the connection is for, and where that one
                                            * connected to; family 0: nobody, not known */
};

/* Prepares the slab of exchanges; upstream_init() calls it. */
void exchange_init_slab(struct slab *slab);
/* pool, server, ops and owner are borrowed until exchange_free(). */
struct exchange *exchange_new(struct upstream *upstream, const struct pool *pool, struct server *server,
                              const struct exchange_options *options, const struct exchange_ops *ops, void *owner);
/*
 * Once. head: the complete request head (and any first body bytes, framed); copied as far as it cannot be written
 * at once.
 */
void exchange_start(struct exchange *exchange, const char *head, size_t n);
/*
 * Framed body bytes, all taken (what the kernel does not take is kept: at most n more). False: keep the rest until
 * on_drain. After the end, or once the server takes no more, they are dropped and it returns true.
 */
bool exchange_send(struct exchange *exchange, const char *data, size_t n);
/* Connected, and all that was given is with the kernel: body bytes may follow now. False: on_drain will tell. */
bool exchange_may_send(struct exchange *exchange);
void exchange_send_end(struct exchange *exchange);
bool exchange_sent_all(const struct exchange *exchange);
void exchange_resume(struct exchange *exchange);
/*
 * In or after on_upgrade: the connection, now the caller's (to be ended by upstream_close_conn(), or counted as
 * METRIC_server_closed); *rest holds the bytes behind the 101, valid until exchange_free().
 */
struct conn *exchange_take_conn(struct exchange *exchange, struct span *rest);
bool exchange_reused(const struct exchange *exchange); /* went out on a kept connection */
/* clock_us() when connected (and TLS done), or when a kept connection was taken; 0: not yet. */
uint64_t exchange_connected_us(const struct exchange *exchange);
uint64_t exchange_bytes_in(const struct exchange *exchange);     /* response body bytes, decoded */
/* Ends it wherever it is (an unfinished connection is closed); clears the pointer. NULL inside is fine. */
void exchange_free(struct exchange **exchange);

#endif
