/* SPDX-License-Identifier: MIT */
/*
 * loop: one thread's readiness loop: edge-triggered epoll, timers, a ready list, deferral, a mailbox.
 *
 * Rules. A source is registered once, edge-triggered: for IN|RDHUP, and for OUT as soon as a write had to stop, which most
 * never have to; then it stays so. Callbacks run on the loop's thread. Nothing is freed under an event of the same batch: owners detach now and give the
 * memory to loop_defer(), which frees it at the end of the turn. Only loop_post() and loop_wake() may be
 * called from other threads.
 */
#ifndef MOONGATE_IO_LOOP_H
#define MOONGATE_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"
#include "base/slab.h"

struct loop;

/* Something with a descriptor, or something that wants another turn. Embedded in its owner. */
struct loop_source {
    /* events: EPOLL* bits; 0 when called from the ready list. */
    void (*on_ready)(struct loop_source *source, uint32_t events);
    struct list again; /* on the ready list; init with loop_source_init() */
    uint32_t pending;  /* EPOLL* bits of this turn's batch that on_ready() has not been given yet */
};

struct timer {
    struct heap_node node; /* key: when it is looked at next */
    uint64_t deadline_ms;  /* when it fires; may lie behind node.key (lazy re-arm) */
    void (*on_timer)(struct timer *timer);
};

/* Memory to free at the end of the turn. Embedded in what is freed. */
struct deferred {
    struct deferred *next;
    void (*free)(struct deferred *deferred);
};

/* A letter from another thread. Embedded; run() owns it. */
struct message {
    struct message *next;
    void (*run)(struct message *message);
};

/* Aborts when the kernel refuses an epoll or event descriptor. */
struct loop *loop_new(void);
/* Everything must be detached; deferred memory is freed. Clears the pointer. */
void loop_free(struct loop **loop);
/* Runs until loop_stop(). */
void loop_run(struct loop *loop);
/* One turn: waits at most wait_ms (-1: as long as the timers allow), dispatches. For tests. */
void loop_turn(struct loop *loop, int wait_ms);
/* Ends loop_run() after this turn. Loop thread only. */
void loop_stop(struct loop *loop);
/* Monotonic milliseconds, read once a turn. */
uint64_t loop_now_ms(const struct loop *loop);

void loop_source_init(struct loop_source *source, void (*on_ready)(struct loop_source *, uint32_t));
/* Registers fd edge-triggered for its life; false with errno set. Closing the fd removes it. writes: for EPOLLOUT, too. */
bool loop_add(struct loop *loop, int fd, struct loop_source *source, bool writes);
/* From now on for EPOLLOUT, too; told at once if it is writable already. False with errno set. */
bool loop_add_writes(struct loop *loop, int fd, struct loop_source *source);
/* Level-triggered IN|EPOLLEXCLUSIVE, for listeners shared by workers. */
bool loop_add_listener(struct loop *loop, int fd, struct loop_source *source);
/* Level-triggered IN, for event and signal descriptors. */
bool loop_add_level(struct loop *loop, int fd, struct loop_source *source);
void loop_remove(struct loop *loop, int fd);
/* Puts source on the ready list: on_ready(source, 0) is called in the next turn, which then does not wait. */
void loop_again(struct loop *loop, struct loop_source *source);
/* Takes it off the ready list; when closing. */
void loop_source_detach(struct loop_source *source);

void timer_init(struct timer *timer, void (*on_timer)(struct timer *));
/* Fires once, delay_ms from now; replaces an earlier setting. A later deadline costs one store. */
void timer_set(struct loop *loop, struct timer *timer, uint64_t delay_ms);
void timer_stop(struct loop *loop, struct timer *timer);
static inline bool timer_is_set(const struct timer *timer) { return timer->deadline_ms != 0; }

void loop_defer(struct loop *loop, struct deferred *deferred, void (*free)(struct deferred *));
/* Any thread: message->run(message) is called on the loop's thread, in order a sender. */
void loop_post(struct loop *loop, struct message *message, void (*run)(struct message *));
/*
 * True when this turn's batch held everything the kernel had to tell: a source with neither pending events nor an earlier one had
 * nothing new when the turn began.
 */
bool loop_saw_all(const struct loop *loop);
/* The slab that this thread's conns come from. */
struct slab *loop_conns(struct loop *loop);

#endif
