/* SPDX-License-Identifier: MIT */
/*
 * queue: requests that wait for a slot of a full server. One queue a pool, shared by its servers and by all workers: a FIFO a worker, a mask of
 * workers that wait, and one count. Whoever frees a slot hands the slot itself to the next waiting worker by letter, so that no
 * newcomer can take it in between. It survives a reload with its pool.
 */
#ifndef MOONGATE_UPSTREAM_QUEUE_H
#define MOONGATE_UPSTREAM_QUEUE_H

#include "io/loop.h"

#define QUEUE_WORKERS_MAX 64 /* bits of the mask: settings refuse more workers */

struct queue;
struct server;

/* One that waits. Embedded; on_slot gets a server that is already entered for it. */
struct queue_waiter {
    struct list link; /* init with queue_waiter_init() */
    void (*on_slot)(struct queue_waiter *waiter, struct server *server);
};

struct queue *queue_new(void);
struct queue *queue_ref(struct queue *queue);
void queue_unref(struct queue **queue);

/* A worker's end of the queue: on the worker's thread, before it joins anybody. Counted, since two generations may share it. */
void queue_open(struct queue *queue, unsigned worker, struct loop *loop);
/* Nobody waits here any more (asserted). */
void queue_close(struct queue *queue, unsigned worker);

void queue_waiter_init(struct queue_waiter *waiter, void (*on_slot)(struct queue_waiter *waiter, struct server *server));
/* Waits at the end of the worker's FIFO; false when limit already wait in all. The caller must look for a free slot once more afterwards. */
bool queue_join(struct queue *queue, unsigned worker, struct queue_waiter *waiter, unsigned limit);
bool queue_is_waiting(const struct queue_waiter *waiter);
/* Leaves the queue, wherever it stands; harmless when it does not wait. */
void queue_leave(struct queue *queue, unsigned worker, struct queue_waiter *waiter);
/* The longest waiting one of this worker, or NULL: to try again when a server came up. */
struct queue_waiter *queue_first(const struct queue *queue, unsigned worker);
/* All workers' waiters. */
unsigned queue_length(const struct queue *queue);

/* Any worker's thread: a slot of server was freed but is still counted as taken. True: handed on to a waiter; false: nobody waits. */
bool queue_hand_on(struct queue *queue, struct server *server);

#endif
