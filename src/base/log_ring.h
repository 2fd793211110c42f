/* SPDX-License-Identifier: MIT */
/*
 * log_ring: lines on their way from one thread to the log thread, in a ring that one side fills and the other
 * empties without locks. Private to log. Rings are never freed: the ring of a thread that ended serves the
 * next thread.
 */
#ifndef MOONGATE_BASE_LOG_RING_H
#define MOONGATE_BASE_LOG_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_RING_SIZE ((size_t)256 * 1024) /* a power of two */

enum log_kind { LOG_KIND_DIAGNOSTIC, LOG_KIND_ACCESS };

struct log_ring {
    /* The filling side's cache line. */
    _Alignas(64) _Atomic(size_t) head; /* bytes ever put in */
    size_t tail_seen;                  /* tail, as last looked at */
    _Atomic(uint64_t) dropped;
    /* The emptying side's. */
    _Alignas(64) _Atomic(size_t) tail; /* bytes ever taken out */
    /* Seldom changed. */
    _Alignas(64) struct log_ring *next;
    const char *name; /* of the thread, a literal */
    bool owned;       /* by a living thread; under the registry's lock */
    char *data;
};

/* The calling thread's ring, made or taken over from a thread that ended when there is none yet. Never NULL. */
struct log_ring *log_ring_mine(const char *name);
/* All rings ever made, newest first. */
struct log_ring *log_ring_first(void);

/* Filling side: one line; false (and counted) when it does not fit. *crowded: the ring is more than half full. */
bool log_ring_put(struct log_ring *ring, enum log_kind kind, const char *line, size_t n, bool *crowded);

/* Emptying side: bytes waiting (to know how far to go in one round); whether more than half of the ring is in use. */
size_t log_ring_waiting(const struct log_ring *ring);
bool log_ring_is_crowded(const struct log_ring *ring);
/* Emptying side, only when something waits: the length and kind of the next line, then the line itself. */
size_t log_ring_peek(const struct log_ring *ring, enum log_kind *kind);
void log_ring_take(struct log_ring *ring, char *out, size_t n);
/* Lines dropped by all rings. */
uint64_t log_ring_dropped(void);

#endif
