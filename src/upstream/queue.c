/* SPDX-License-Identifier: MIT */
/*
 * Waiting for slots across workers. Each worker touches only its own FIFO; what they share is the mask of workers that wait and the count.
 * A freed slot travels in a letter and stays counted in the server's active number on the way, so it cannot be lost or taken twice.
 *
 * The subtle one is the lost wake-up: a worker joins and then looks for a free slot once more, while whoever leaves gives the slot back and then
 * looks at the mask. Both are sequentially consistent, so at least one sees the other. And a letter may arrive when its waiters have
 * gone: then the slot goes on to the next worker, or is given back.
 */
#include "upstream/queue.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "upstream/server.h"

/* A worker's end; touched by that worker only, but for loop, which never changes once set. */
struct queue_end {
    struct loop *loop;
    struct list waiters;
    unsigned opened;
};

struct queue {
    _Atomic(uint32_t) refs;
    _Atomic(uint32_t) length;
    _Atomic(uint32_t) turn; /* rotates over the workers */
    _Atomic(uint64_t) mask; /* bit: that worker's FIFO is not empty */
    struct queue_end ends[QUEUE_WORKERS_MAX];
};

struct queue_letter {
    struct message message;
    struct queue *queue;
    struct server *server;
    unsigned worker;
};

struct queue *queue_new(void) {
    struct queue *queue = mem_alloc(sizeof *queue);
    atomic_init(&queue->refs, 1);
    for (unsigned i = 0; i < QUEUE_WORKERS_MAX; i++)
        list_init(&queue->ends[i].waiters);
    return queue;
}

struct queue *queue_ref(struct queue *queue) {
    atomic_fetch_add(&queue->refs, 1);
    return queue;
}

void queue_unref(struct queue **slot) {
    struct queue *queue = *slot;
    *slot = NULL;
    if (queue && atomic_fetch_sub(&queue->refs, 1) == 1)
        mem_free(queue);
}

void queue_open(struct queue *queue, unsigned worker, struct loop *loop) {
    assert(worker < QUEUE_WORKERS_MAX);
    queue->ends[worker].loop = loop;
    queue->ends[worker].opened++;
}

void queue_close(struct queue *queue, unsigned worker) {
    struct queue_end *end = &queue->ends[worker];
    assert(end->opened > 0);
    if (--end->opened == 0)
        assert(list_empty(&end->waiters));
}

void queue_waiter_init(struct queue_waiter *waiter, void (*on_slot)(struct queue_waiter *waiter, struct server *server)) {
    list_init(&waiter->link);
    waiter->on_slot = on_slot;
}

bool queue_is_waiting(const struct queue_waiter *waiter) { return !list_empty(&waiter->link); }

unsigned queue_length(const struct queue *queue) { return atomic_load(&queue->length); }

bool queue_join(struct queue *queue, unsigned worker, struct queue_waiter *waiter, unsigned limit) {
    assert(!queue_is_waiting(waiter) && queue->ends[worker].opened > 0);
    if (atomic_fetch_add(&queue->length, 1) >= limit) {
        atomic_fetch_sub(&queue->length, 1);
        return false;
    }
    list_append(&queue->ends[worker].waiters, &waiter->link);
    atomic_fetch_or(&queue->mask, (uint64_t)1 << worker);
    return true;
}

void queue_leave(struct queue *queue, unsigned worker, struct queue_waiter *waiter) {
    if (!queue_is_waiting(waiter))
        return;
    list_remove(&waiter->link);
    atomic_fetch_sub(&queue->length, 1);
    if (list_empty(&queue->ends[worker].waiters))
        atomic_fetch_and(&queue->mask, ~((uint64_t)1 << worker));
}

struct queue_waiter *queue_first(const struct queue *queue, unsigned worker) {
    const struct list *waiters = &queue->ends[worker].waiters;
    return list_empty(waiters) ? NULL : container_of(waiters->next, struct queue_waiter, link);
}

/* On the worker's thread: gives the slot to its longest waiting one. */
static void queue_deliver(struct message *message) {
    struct queue_letter *letter = container_of(message, struct queue_letter, message);
    struct queue *queue = letter->queue;
    struct server *server = letter->server;
    struct queue_waiter *waiter = queue_first(queue, letter->worker);
    if (waiter && server_is_live(server)) {
        queue_leave(queue, letter->worker, waiter);
        waiter->on_slot(waiter, server);
    } else {
        server_leave(server); /* hands it on, or gives it back */
    }
    server_unref(&server);
    queue_unref(&queue);
    mem_free(letter);
}

/* The next worker behind the last one served whose bit stands. */
static unsigned queue_next_worker(struct queue *queue, uint64_t mask) {
    unsigned turn = atomic_fetch_add(&queue->turn, 1) % QUEUE_WORKERS_MAX;
    uint64_t behind = mask & ~(((uint64_t)1 << turn) - 1);
    unsigned worker = (unsigned)__builtin_ctzll(behind ? behind : mask);
    atomic_store(&queue->turn, worker + 1);
    return worker;
}

bool queue_hand_on(struct queue *queue, struct server *server) {
    uint64_t mask = atomic_load(&queue->mask);
    if (mask == 0 || !server_is_live(server))
        return false;
    struct queue_letter *letter = mem_alloc(sizeof *letter);
    letter->worker = queue_next_worker(queue, mask);
    letter->queue = queue_ref(queue);
    letter->server = server_ref(server);
    loop_post(queue->ends[letter->worker].loop, &letter->message, queue_deliver);
    return true;
}
