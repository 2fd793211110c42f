/* SPDX-License-Identifier: MIT */
/*
 * Waiting for slots across workers: one list in the order of arrival, under a lock that is taken only by who waits and by who frees a
 * slot while somebody waits. Not everybody wants every server (a retry leaves out what failed, a backup is not for those who wait for others),
 * so a slot goes to the first who does. It stays counted in the server's active number on its way, so it cannot be lost or taken twice.
 *
 * The subtle one is the lost wake-up. Whoever waits first counts itself in `looks` and then looks for a free slot; whoever leaves a server finds
 * nobody, gives the slot back, and begins again when `looks` has grown since (server_leave()). All of that is sequentially consistent,
 * so at least one of the two sees the other. What changes who wants what (a server's state) makes all look again, which counts likewise.
 */
#include "upstream/queue.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/mem.h"
#include "config/config.h"
#include "upstream/server.h"

/* A worker's end; touched by that worker only. */
struct queue_end {
    struct loop *loop;
    struct list waiters;
    unsigned opened;
};

struct queue {
    _Atomic(uint32_t) refs;
    _Atomic(uint32_t) length; /* of waiting; changes under the lock */
    _Atomic(uint32_t) looks;
    pthread_mutex_t lock;
    struct list waiting; /* all workers' */
    struct queue_end ends[CONFIG_WORKERS_MAX];
};

/* A slot on its way. The loop it goes to lives on: loops are freed when all workers have ended. */
struct queue_letter {
    struct message message;
    struct queue_waiter *waiter; /* NULL: has left, and the slot with it; its worker's thread */
    struct server *server;
};

struct queue *queue_new(void) {
    struct queue *queue = mem_alloc(sizeof *queue);
    atomic_init(&queue->refs, 1);
    pthread_mutex_init(&queue->lock, NULL);
    list_init(&queue->waiting);
    for (unsigned i = 0; i < CONFIG_WORKERS_MAX; i++)
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
    if (!queue || atomic_fetch_sub(&queue->refs, 1) != 1)
        return;
    assert(list_empty(&queue->waiting));
    pthread_mutex_destroy(&queue->lock);
    mem_free(queue);
}

void queue_open(struct queue *queue, unsigned worker, struct loop *loop) {
    assert(worker < CONFIG_WORKERS_MAX);
    queue->ends[worker].loop = loop;
    queue->ends[worker].opened++;
}

void queue_close(struct queue *queue, unsigned worker) {
    struct queue_end *end = &queue->ends[worker];
    assert(end->opened > 0);
    if (--end->opened == 0)
        assert(list_empty(&end->waiters));
}

void queue_waiter_init(struct queue_waiter *waiter, bool (*wants)(const struct queue_waiter *waiter, const struct server *server),
                       void (*on_slot)(struct queue_waiter *waiter, struct server *server)) {
    *waiter = (struct queue_waiter){.wants = wants, .on_slot = on_slot};
    list_init(&waiter->link);
    list_init(&waiter->own);
}

bool queue_is_waiting(const struct queue_waiter *waiter) { return !list_empty(&waiter->own); }

unsigned queue_length(const struct queue *queue) { return atomic_load(&queue->length); }

unsigned queue_looks(const struct queue *queue) { return atomic_load(&queue->looks); }

bool queue_join(struct queue *queue, unsigned worker, struct queue_waiter *waiter, unsigned limit) {
    struct queue_end *end = &queue->ends[worker];
    assert(!queue_is_waiting(waiter) && end->opened > 0);
    if (queue_length(queue) >= limit)
        return false;
    waiter->loop = end->loop;
    pthread_mutex_lock(&queue->lock);
    const bool fits = queue_length(queue) < limit;
    if (fits) {
        list_append(&queue->waiting, &waiter->link);
        atomic_fetch_add(&queue->length, 1);
        atomic_fetch_add(&queue->looks, 1);
    }
    pthread_mutex_unlock(&queue->lock);
    if (fits)
        list_append(&end->waiters, &waiter->own);
    return fits;
}

void queue_leave(struct queue *queue, struct queue_waiter *waiter) {
    if (!queue_is_waiting(waiter))
        return;
    list_remove(&waiter->own);
    pthread_mutex_lock(&queue->lock);
    struct queue_letter *letter = waiter->letter;
    if (!letter) {
        list_remove(&waiter->link);
        atomic_fetch_sub(&queue->length, 1);
    }
    pthread_mutex_unlock(&queue->lock);
    if (!letter)
        return;
    waiter->letter = NULL;
    letter->waiter = NULL;
    server_leave(letter->server);
}

void queue_look_again(struct queue *queue, unsigned worker, void (*look)(struct queue_waiter *waiter)) {
    struct queue_end *end = &queue->ends[worker];
    if (list_empty(&end->waiters))
        return;
    atomic_fetch_add(&queue->looks, 1);
    /* look() may let it leave, and others join. */
    struct list now;
    list_init(&now);
    list_splice(&now, &end->waiters);
    while (!list_empty(&now)) {
        struct queue_waiter *waiter = container_of(now.next, struct queue_waiter, own);
        list_remove(&waiter->own);
        list_append(&end->waiters, &waiter->own);
        look(waiter);
    }
}

/* On the waiter's thread. That the server is still up is not asked: it may go down behind any pick. */
static void queue_deliver(struct message *message) {
    struct queue_letter *letter = container_of(message, struct queue_letter, message);
    struct queue_waiter *waiter = letter->waiter;
    struct server *server = letter->server;
    mem_free(letter);
    if (waiter) {
        waiter->letter = NULL;
        list_remove(&waiter->own);
        waiter->on_slot(waiter, server);
    }
    server_unref(&server);
}

/* Under the lock. */
static struct queue_waiter *queue_find(const struct queue *queue, const struct server *server) {
    LIST_EACH(it, &queue->waiting) {
        struct queue_waiter *waiter = container_of(it, struct queue_waiter, link);
        if (waiter->wants(waiter, server))
            return waiter;
    }
    return NULL;
}

bool queue_hand_on(struct queue *queue, struct server *server) {
    if (queue_length(queue) == 0 || !server_is_live(server))
        return false;
    struct queue_letter *letter = NULL;
    struct loop *loop = NULL;
    pthread_mutex_lock(&queue->lock);
    struct queue_waiter *waiter = queue_find(queue, server);
    if (waiter) {
        letter = mem_alloc(sizeof *letter);
        letter->waiter = waiter;
        letter->server = server_ref(server);
        loop = waiter->loop;
        waiter->letter = letter;
        list_remove(&waiter->link);
        atomic_fetch_sub(&queue->length, 1);
    }
    pthread_mutex_unlock(&queue->lock);
    if (!letter)
        return false;
    loop_post(loop, &letter->message, queue_deliver);
    return true;
}
