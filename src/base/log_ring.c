/* SPDX-License-Identifier: MIT */
/*
 * log_ring: single producer, single consumer. A record is four bytes (length, kind in the top bit) and the
 * line, and may wrap around the end at any byte. head and tail only grow; their difference is what is in the
 * ring. The subtle thing: the producer keeps the last tail it saw and reads the consumer's cache line only
 * when the ring looks full or crowded, so that a line normally costs no cache miss.
 */
#include "base/log_ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define LOG_RING_KIND_BIT 0x80000000u

static pthread_mutex_t log_ring_lock = PTHREAD_MUTEX_INITIALIZER; /* making and passing on of rings */
static _Atomic(struct log_ring *) log_ring_list;
static _Thread_local struct log_ring *log_ring_own;
static pthread_once_t log_ring_once = PTHREAD_ONCE_INIT;
static pthread_key_t log_ring_key;

/* At the end of a thread: what it wrote is still taken out; another thread may go on filling the ring. */
static void log_ring_on_thread_end(void *owner) {
    struct log_ring *ring = owner;
    pthread_mutex_lock(&log_ring_lock);
    ring->owned = false;
    pthread_mutex_unlock(&log_ring_lock);
    log_ring_own = NULL;
}

static void log_ring_make_key(void) { (void)pthread_key_create(&log_ring_key, log_ring_on_thread_end); }

static struct log_ring *log_ring_new(void) {
    struct log_ring *ring = aligned_alloc(_Alignof(struct log_ring), sizeof(*ring));
    if (!ring)
        mem_abort();
    memset(ring, 0, sizeof(*ring));
    ring->data = mem_alloc(LOG_RING_SIZE);
    ring->next = atomic_load_explicit(&log_ring_list, memory_order_relaxed);
    return ring;
}

struct log_ring *log_ring_mine(const char *name) {
    if (log_ring_own)
        return log_ring_own;
    pthread_once(&log_ring_once, log_ring_make_key);
    pthread_mutex_lock(&log_ring_lock);
    struct log_ring *ring = log_ring_first();
    while (ring && ring->owned)
        ring = ring->next;
    bool fresh = !ring;
    if (fresh)
        ring = log_ring_new();
    ring->owned = true;
    ring->name = name;
    if (fresh)
        atomic_store_explicit(&log_ring_list, ring, memory_order_release);
    pthread_mutex_unlock(&log_ring_lock);
    (void)pthread_setspecific(log_ring_key, ring);
    log_ring_own = ring;
    return ring;
}

struct log_ring *log_ring_first(void) { return atomic_load_explicit(&log_ring_list, memory_order_acquire); }

static void log_ring_copy_in(struct log_ring *ring, size_t at, const void *p, size_t n) {
    size_t off = at & (LOG_RING_SIZE - 1), first = LOG_RING_SIZE - off;
    if (first >= n) { /* nearly always */
        memcpy(ring->data + off, p, n);
        return;
    }
    memcpy(ring->data + off, p, first);
    memcpy(ring->data, (const char *)p + first, n - first);
}

static void log_ring_copy_out(const struct log_ring *ring, size_t at, void *p, size_t n) {
    size_t off = at & (LOG_RING_SIZE - 1), first = LOG_RING_SIZE - off;
    if (first >= n) {
        memcpy(p, ring->data + off, n);
        return;
    }
    memcpy(p, ring->data + off, first);
    memcpy((char *)p + first, ring->data, n - first);
}

bool log_ring_put(struct log_ring *ring, enum log_kind kind, const char *line, size_t n, bool *crowded) {
    uint32_t record = (uint32_t)n | (kind == LOG_KIND_ACCESS ? LOG_RING_KIND_BIT : 0);
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    size_t after = head + sizeof(record) + n;
    if (after - ring->tail_seen > LOG_RING_SIZE / 2)
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
    *crowded = after - ring->tail_seen > LOG_RING_SIZE / 2;
    if (after - ring->tail_seen > LOG_RING_SIZE) {
        uint64_t dropped = atomic_load_explicit(&ring->dropped, memory_order_relaxed);
        atomic_store_explicit(&ring->dropped, dropped + 1, memory_order_relaxed);
        return false;
    }
    log_ring_copy_in(ring, head, &record, sizeof(record));
    log_ring_copy_in(ring, head + sizeof(record), line, n);
    atomic_store_explicit(&ring->head, after, memory_order_release);
    return true;
}

size_t log_ring_waiting(const struct log_ring *ring) {
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    return head - atomic_load_explicit(&ring->tail, memory_order_relaxed);
}

bool log_ring_is_crowded(const struct log_ring *ring) { return log_ring_waiting(ring) > LOG_RING_SIZE / 2; }

size_t log_ring_peek(const struct log_ring *ring, enum log_kind *kind) {
    uint32_t record;
    log_ring_copy_out(ring, atomic_load_explicit(&ring->tail, memory_order_relaxed), &record, sizeof(record));
    *kind = record & LOG_RING_KIND_BIT ? LOG_KIND_ACCESS : LOG_KIND_DIAGNOSTIC;
    return record & ~LOG_RING_KIND_BIT;
}

void log_ring_take(struct log_ring *ring, char *out, size_t n) {
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed) + sizeof(uint32_t);
    log_ring_copy_out(ring, tail, out, n);
    atomic_store_explicit(&ring->tail, tail + n, memory_order_release);
}

uint64_t log_ring_dropped(void) {
    uint64_t sum = 0;
    for (struct log_ring *ring = log_ring_first(); ring; ring = ring->next)
        sum += atomic_load_explicit(&ring->dropped, memory_order_relaxed);
    return sum;
}
