/* SPDX-License-Identifier: MIT */
/*
 * queue: requests that wait for a slot of a full server. One queue a pool, shared by its servers and by all workers, in the order of arrival.
 * Whoever frees a slot hands the slot itself to the first one that wants it, by letter to its worker, so that no newcomer can take it in
 * between. It survives a reload with its pool.
 */
#ifndef MOONGATE_UPSTREAM_QUEUE_H
#define MOONGATE_UPSTREAM_QUEUE_H

#include "io/loop.h"

struct queue;
struct queue_letter;
struct server;

/* One that waits. Embedded; init with queue_waiter_init(). */
struct queue_waiter {
    struct list link;            /* in the queue */
    struct list own;             /* at its worker's end; there also while a slot is on its way */
    struct queue_letter *letter; /* the slot on its way */
    struct loop *loop;
    /* Would it take a slot of this server, which is live? Any thread, under the queue's lock: reads what does not change while it waits. */
    bool (*wants)(const struct queue_waiter *waiter, const struct server *server);
    /* Its worker's thread: it waits no more, and the server is already entered for it. */
    void (*on_slot)(struct queue_waiter *waiter, struct server *server);
};

struct queue *queue_new(void);
struct queue *queue_ref(struct queue *queue);
void queue_unref(struct queue **queue);

/* A worker's end of the queue: on the worker's thread, before it joins anybody. Counted, since two generations may share it. */
void queue_open(struct queue *queue, unsigned worker, struct loop *loop);
/* Nobody waits here any more (asserted). */
void queue_close(struct queue *queue, unsigned worker);

void queue_waiter_init(struct queue_waiter *waiter, bool (*wants)(const struct queue_waiter *waiter, const struct server *server),
                       void (*on_slot)(struct queue_waiter *waiter, struct server *server));
/* Waits behind all others; false when limit already wait in all. The caller must look for a free slot once more afterwards. */
bool queue_join(struct queue *queue, unsigned worker, struct queue_waiter *waiter, unsigned limit);
bool queue_is_waiting(const struct queue_waiter *waiter);
/* Leaves the queue, wherever it stands, and passes on a slot on its way to it; harmless when it does not wait. */
void queue_leave(struct queue *queue, struct queue_waiter *waiter);
/* After a server's state has changed: calls look() for each of the worker's waiters, in their order, so that it looks for a slot. */
void queue_look_again(struct queue *queue, unsigned worker, void (*look)(struct queue_waiter *waiter));
/* All workers' waiters, without those to whom a slot is on its way. */
unsigned queue_length(const struct queue *queue);
/* Grows before somebody who waits looks for a free slot. */
unsigned queue_looks(const struct queue *queue);

/* Any worker's thread: a slot of server was freed but is still counted as taken. True: handed on; false: nobody waits who wants it. */
bool queue_hand_on(struct queue *queue, struct server *server);

#endif
