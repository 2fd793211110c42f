/* SPDX-License-Identifier: MIT */
/*
 * request: the step machine: ROUTE -> PICK -> SEND -> HEAD -> RESPOND -> DONE. One request of one client, whatever its protocol, answered by one
 * server or by the gateway itself. It owns its subject, its exchange and its server slot.
 */
#ifndef MOONGATE_TRAFFIC_REQUEST_H
#define MOONGATE_TRAFFIC_REQUEST_H

#include "traffic/answer.h"
#include "traffic/decide.h"
#include "traffic/responder.h"
#include "traffic/worker.h"
#include "upstream/exchange.h"

#define REQUEST_REPLAY_MAX (16 * 1024) /* body bytes held so that a request can be tried again */

enum request_step { REQUEST_ROUTE, REQUEST_PICK, REQUEST_SEND, REQUEST_HEAD, REQUEST_RESPOND, REQUEST_REPLY, REQUEST_DONE };

struct request {
    struct worker *worker;
    struct generation_local *local;
    const struct responder_ops *ops;
    void *responder;
    struct subject subject;
    struct decide decide;
    enum request_step step;
    const struct config_route *route; /* that decided, or NULL */
    /* towards the server */
    const struct pool *pool;
    unsigned pool_index;
    struct server *server;            /* entered; NULL: none */
    struct server *last_server;       /* the last one that was entered, referenced: names may lose it meanwhile */
    struct pool_tried tried;
    struct exchange *exchange;
    struct buf send;                  /* head and first body bytes until the exchange starts; later body bytes with their framing */
    struct buf replay;                /* body bytes given to an exchange so far, while they fit */
    bool replay_ok;
    bool staging;                     /* body bytes go to `send` */
    bool body_done;                   /* the request's body is complete */
    struct http_message *trailers;    /* behind it, in the subject's arena; their bytes are the responder's. NULL: none */
    bool fresh;                       /* do not use a kept connection (a retry, an upgrade) */
    unsigned attempts;
    /* the answer */
    struct answer answer;             /* of our own */
    bool head_sent;
    unsigned status;
    uint64_t bytes_in, bytes_out;     /* bodies */
    uint64_t started_us;
    uint64_t max_body;
    enum cause cause;
    const char *detail;               /* a short phrase for the log; static or in the subject's arena; may be NULL */
    uint64_t wait_until_ms;           /* for the first probe answer; 0: not waiting yet */
    struct list waiting;              /* on worker->waiting */
    struct queue_waiter waiter;       /* in the pool's queue, for a slot */
    struct timer timer;               /* the wait for a first probe answer, or for a slot */
    struct deferred deferred;
};

/* Empty, with its subject; the caller fills subject.head, then calls subject_prepare() and request_start(). */
struct request *request_new(struct worker *worker, struct generation_local *local, const struct responder_ops *ops, void *responder);
/* Runs it. It may be over (and freed) when this returns: the responder's finish(), abort() or take_conn() tells. */
void request_start(struct request *request);
/* Answers status at once instead of routing: heads that were refused. */
void request_refuse(struct request *request, unsigned status, enum cause cause);

/* --- what the client's side reports --- */
/* Body bytes, decoded; sent on at request_body_flush() at the latest. False: stop until resume_body(). */
bool request_body(struct request *request, const char *data, size_t n);
/* No more body bytes are here for now. False as in request_body(). */
bool request_body_flush(struct request *request);
/*
 * trailers: live fields, or NULL; those that the head's fields or its edits rule out are deleted. What they point to must live as long as the
 * request: another try sends them again.
 */
void request_body_end(struct request *request, struct http_message *trailers);
/* The body cannot be completed: answers status if no head was sent yet, else aborts. */
void request_body_failed(struct request *request, unsigned status, enum cause cause);
/* The client has gone: frees the request; the responder is not called any more. */
void request_gone(struct request *request, enum cause cause);
/* The client has taken all that flush() left. */
void request_drained(struct request *request);
/* Tries to go on after a wait (script, probe answer). */
void request_run(struct request *request);
const char *request_step_name(enum request_step step);
/* What became of the affinity cookie, for the log: "kept", "new" or "moved"; NULL without affinity. */
const char *request_affinity(const struct request *request);
/* True once the response's head was handed to the responder. */
bool request_answered(const struct request *request);

#endif
