/* SPDX-License-Identifier: MIT */
/*
 * client: one accepted connection: a PROXY header where the listener wants one, TLS handshake, then HTTP/1 (client_h1). Between requests it holds
 * no buffer.
 */
#ifndef MOONGATE_TRAFFIC_CLIENT_H
#define MOONGATE_TRAFFIC_CLIENT_H

#include "traffic/request.h"
#include "wire/body.h"

enum client_phase {
    CLIENT_PROXY,   /* before its PROXY header */
    CLIENT_TLS,     /* handshake under way */
    CLIENT_IDLE,    /* between requests, nothing read */
    CLIENT_HEAD,    /* part of a head is here */
    CLIENT_BUSY,    /* a request is under way */
    CLIENT_SENDING, /* the response is complete, its last bytes are not taken yet */
    CLIENT_LINGER   /* answered and shut; reading what still comes, so that the answer is not lost to a reset */
};

/* A minimum rate over a window, counted only while we wait on the client (requirements D23). */
struct client_pace {
    uint64_t since_ms;  /* we have been waiting since; 0: not waiting */
    uint64_t waited_ms; /* in this window */
    uint64_t bytes;     /* moved in this window */
    uint64_t last_ms;   /* last progress, or start of the wait */
};

struct client {
    struct worker *worker;
    struct generation_local *local;
    const struct config_listener *config; /* of local's generation */
    struct listener *listener;
    struct conn *conn;
    struct request *request;
    struct timer timer;
    struct addr peer;        /* of the TCP connection, or as its PROXY header says */
    struct addr_small destination; /* where it connected to, as far as asked for: client_proxy_destination() */
    enum client_phase phase;
    struct buf in;           /* head of the request under way, and what was read behind it */
    struct buf out;          /* bytes the client has not taken */
    struct pipe *pipe;       /* lent to a bulk response: bytes behind those of out; NULL otherwise */
    size_t scanned;          /* of `in`, by http1_find_head() */
    struct buf ahead;        /* read behind `in` while a body came: `in` must not move under the request's spans */
    size_t head_size;        /* bytes of `in` that the request under way has used */
    uint64_t phase_ms;       /* when the phase began */
    struct body body;        /* of the request under way */
    struct client_pace reading, sending;
    uint64_t discarded;      /* while lingering */
    int steps_left;          /* of this turn's; may fall below 0 */
    bool reading_body : 1;   /* the request wants body bytes */
    bool body_over : 1;      /* its body was read to the end */
    bool chunked : 1;        /* the response goes out in chunks */
    bool head_only : 1;      /* HEAD: no body bytes whatever comes */
    bool close_after : 1;    /* this response is the last */
    bool closed : 1;
    bool in_event : 1;       /* inside client_h1_run(): finish() must not recurse */
    bool old_http : 1;       /* the request under way is HTTP/1.0 */
    bool wants_close : 1;    /* the client asked for close */
    bool until_close : 1;    /* the response ends with the connection */
    bool refused : 1;        /* its head was refused: who knows what still comes */
    struct list link;        /* worker->client_list */
    struct deferred deferred;
};

/* Takes fd over: a fresh connection of listener, already counted there. */
void client_accept(struct worker *worker, struct listener *listener, int fd, const struct addr *peer);
/* Closes and frees at the end of the turn; a request under way is told. */
void client_close(struct client *client, enum cause cause);
/* Ends it without closing the connection, which has become a tunnel's. */
void client_detach(struct client *client);
void client_set_phase(struct client *client, enum client_phase phase);
/* The worker drains: closes an idle client, makes the response under way the last. */
void client_drain(struct client *client);

/* TLS, or HTTP at once. */
void client_begin(struct client *client);

/* --- client_proxy.c --- */
/* True when the connection must begin with a PROXY header: client_begin() will be called behind it. */
bool client_proxy_start(struct client *client);
/* Where the client connected to: by its PROXY header, else by the socket if some pool's header tells it. Family 0: not known. */
struct addr_small client_proxy_destination(struct client *client);

/* --- client_h1.c --- */
/* The connection is ready for HTTP/1. */
void client_h1_start(struct client *client);
void client_h1_on_timer(struct client *client);
extern const struct responder_ops client_h1_responder; /* client_send.c */

/* Ready for the next request, or done with the connection: after a response's last byte was taken. */
void client_h1_next(struct client *client);
/* Drops request body bytes that are already here, so that a small unread body does not cost the connection. */
void client_h1_discard_body(struct client *client);
/* Feeds what was read behind the head to the request. */
void client_h1_feed_buffered(struct client *client);

/* --- client_send.c: the way out --- */
/* Writes what is in out; false while bytes remain. After a failed write it drops all and returns true; conn->failed tells. */
bool client_flush(struct client *client);

/* --- client_pace.c --- */
void client_pace_wait(struct client_pace *pace, uint64_t now_ms);
void client_pace_progress(struct client_pace *pace, uint64_t now_ms, uint64_t bytes);
void client_pace_stop(struct client_pace *pace, uint64_t now_ms);
/*
 * CAUSE_NONE with *next_ms until the next look, or why to end it: idle_cause after idle_ms without a byte, CAUSE_CLIENT_SLOW below min_rate.
 */
enum cause client_pace_check(struct client_pace *pace, uint64_t now_ms, uint32_t idle_ms, uint32_t min_rate,
                             enum cause idle_cause, uint64_t *next_ms);

#endif
