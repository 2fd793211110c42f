/* SPDX-License-Identifier: MIT */
/*
 * peer: one connection of the origin and what its files share. Internal to this folder. Everything here runs on the origin's
 * one thread.
 */
#ifndef MOONGATE_CLI_ORIGIN_PEER_H
#define MOONGATE_CLI_ORIGIN_PEER_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/span.h"

#define ORIGIN_READ_SIZE 65536        /* bytes a read */
#define ORIGIN_PATTERN_SIZE 65536     /* generated bodies repeat this block */
#define ORIGIN_HEAD_MAX 65536
#define ORIGIN_ECHO_MAX (64u << 20)   /* bytes that /echo collects */
#define ORIGIN_SIZE_MAX (1ull << 30)  /* bytes that /size makes */
#define ORIGIN_CONTROL_MAX 125        /* RFC 6455 section 5.5 */

struct origin {
    int epoll_fd, listen_fd, stop_fd;
    uint16_t port;
    char *name, *subprotocols;
    SSL_CTX *tls;
    bool failing; /* what /healthz says */
    bool started;
    pthread_t thread;
    struct heap timers;
    struct list peers;
    struct buf out;   /* output of the peer whose turn it is, until the socket refuses some */
    char *scratch;    /* ORIGIN_READ_SIZE bytes */
    char *pattern;    /* ORIGIN_PATTERN_SIZE bytes */
};

/* One request head. All spans point into the bytes that were read. */
struct origin_request {
    struct span head; /* whole, with the empty line */
    struct span method, target, path, query, fields;
    unsigned minor;
    bool keep, expect, upgrade, has_length, chunked;
    uint64_t length;
    struct span key; /* Sec-WebSocket-Key */
};

enum origin_kind {
    ORIGIN_TEXT, ORIGIN_PAGE, ORIGIN_SIZE, ORIGIN_STATUS, ORIGIN_ECHO, ORIGIN_SLOW, ORIGIN_STREAM, ORIGIN_HEALTH,
    ORIGIN_DROP, ORIGIN_HEADERS, ORIGIN_TRAILERS, ORIGIN_TOO_LARGE, ORIGIN_BAD
};

/* What will be answered: all that is kept of a request while its body is read and its answer made. */
struct origin_plan {
    enum origin_kind kind;
    uint64_t number; /* size, status, events */
    uint64_t cut;    /* close after so many bytes of the body; UINT64_MAX: never */
    uint32_t ms;
    unsigned minor;
    bool keep, is_head, chunked, close_delimited, early, stream;
    bool chunk_open; /* a chunk's data was handed out, its CRLF was not */
};

/* The origin's own decoder of request bodies. */
struct origin_body {
    enum origin_body_state {
        ORIGIN_BODY_DONE, ORIGIN_BODY_LENGTH, ORIGIN_BODY_SIZE, ORIGIN_BODY_CHUNK, ORIGIN_BODY_CRLF,
        ORIGIN_BODY_TRAILER
    } state;
    uint64_t left;
};

/* Where a WebSocket connection stands in the frame it reads. */
struct origin_frame {
    uint64_t left;
    uint8_t mask[4];
    uint8_t mask_at, opcode, control_size;
    bool inside, fragmented;
    char control[ORIGIN_CONTROL_MAX];
};

enum origin_phase { ORIGIN_PHASE_HEAD, ORIGIN_PHASE_BODY, ORIGIN_PHASE_ANSWER, ORIGIN_PHASE_FRAMES, ORIGIN_PHASE_LINGER };

struct origin_peer {
    struct origin *origin;
    struct list link;
    struct heap_node timer; /* key: monotonic milliseconds */
    int fd;
    uint32_t events; /* what epoll is told to watch */
    SSL *ssl;
    bool eof, closing, linger, abrupt, write_wanted;
    enum origin_phase phase;
    struct buf in, out, collect;
    uint64_t pattern_left;
    size_t pattern_at;
    struct origin_plan plan;
    struct origin_body body;
    struct origin_frame frame;
};

/* peer.c */
void origin_peer_open(struct origin *origin, int fd);
void origin_peer_close(struct origin_peer *peer);
/* An event or the timer. May free the peer. */
void origin_peer_ready(struct origin_peer *peer, uint32_t events);
void origin_peer_expire(struct origin_peer *peer);
void origin_peer_set_timer(struct origin_peer *peer, uint64_t delay_ms);
/* Appends output. Running out of memory or above the cap closes the peer at the end of its turn. */
void origin_peer_put(struct origin_peer *peer, const void *p, size_t n);
void origin_peer_put_text(struct origin_peer *peer, const char *text);
void origin_peer_printf(struct origin_peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for n bytes at the end of the output; NULL when there is none. Then origin_peer_put_commit(). */
char *origin_peer_put_reserve(struct origin_peer *peer, size_t n);
void origin_peer_put_commit(struct origin_peer *peer, size_t n);

/* request.c: each consumes some of data[0..n) and returns how much; 0: needs more. */
size_t origin_request_head(struct origin_peer *peer, char *data, size_t n);
size_t origin_request_body(struct origin_peer *peer, const char *data, size_t n);
/* Next field line of a head; *rest starts as request->fields. */
bool origin_request_field(struct span *rest, struct span *name, struct span *value);
/* The value of name in the query, "" for a bare name; .p NULL when absent. Not decoded. */
struct span origin_request_query(const struct origin_request *request, const char *name);

/* answer.c */
void origin_answer_plan(struct origin_peer *peer, const struct origin_request *request);
/* The request is read: answers, or begins to. */
void origin_answer_start(struct origin_peer *peer);
/* More of an answer that is made piece by piece; false while it waits for its timer. */
bool origin_answer_more(struct origin_peer *peer);
void origin_answer_chunk(struct origin_peer *peer, const char *p, size_t n);
void origin_answer_head(struct origin_peer *peer, unsigned status, const char *type, const uint64_t *length);

/* websocket.c */
void origin_websocket_open(struct origin_peer *peer, const struct origin_request *request);
size_t origin_websocket_input(struct origin_peer *peer, const char *data, size_t n);

/* page.c */
extern const char origin_page[];

#endif
