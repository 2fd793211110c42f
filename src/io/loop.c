/* SPDX-License-Identifier: MIT */
/*
 * One thread's readiness loop. Edge-triggered epoll, so that a connection costs one epoll_ctl for its whole
 * life; what stops early with readiness left goes on the ready list, which makes the next wait a poll.
 * Only one that had to stop writing costs a second: a fresh socket is always writable, and to be told so is a turn for nothing.
 *
 * The order of a turn: wait, events, ready list, letters, timers, deferred frees. Frees come last because
 * the kernel may have handed out several events that point at one object: the object must outlive the batch.
 *
 * Timers are lazy: setting a later deadline is one store, and the heap finds out when the old key comes up. Most
 * timers of a proxy are only ever pushed back.
 */
#include "io/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/conn.h"

#define LOOP_EVENTS 256       /* events taken from the kernel a turn */
#define LOOP_READY_MAX 256    /* ready sources served a turn, so that timers and events are not starved */
#define LOOP_WAIT_MAX_MS 60000
#define LOOP_EDGE (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct loop {
    int epoll_fd;
    int wake_fd;
    bool stopping;
    bool saw_all;
    uint64_t now_ms;
    struct heap timers;
    struct list ready;
    struct deferred *deferred;
    struct loop_source wake;
    struct slab conns;
    _Alignas(64) _Atomic(struct message *) mailbox; /* newest first; other threads push */
};

static void loop_on_wake(struct loop_source *source, uint32_t events) {
    (void)events;
    struct loop *loop = container_of(source, struct loop, wake);
    uint64_t count;
    while (read(loop->wake_fd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

struct loop *loop_new(void) {
    struct loop *loop = mem_alloc(sizeof *loop);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0) {
        log_error("cannot create an event loop: no descriptors left");
        abort();
    }
    heap_init(&loop->timers);
    list_init(&loop->ready);
    slab_init(&loop->conns, sizeof(struct conn));
    loop_source_init(&loop->wake, loop_on_wake);
    loop_add_level(loop, loop->wake_fd, &loop->wake);
    loop->now_ms = clock_ms();
    return loop;
}

static void loop_free_deferred(struct loop *loop) {
    while (loop->deferred) {
        struct deferred *deferred = loop->deferred;
        loop->deferred = deferred->next;
        deferred->free(deferred);
    }
}

static void loop_run_messages(struct loop *loop) {
    if (!atomic_load_explicit(&loop->mailbox, memory_order_relaxed))
        return;
    struct message *newest = atomic_exchange_explicit(&loop->mailbox, NULL, memory_order_acquire);
    struct message *oldest = NULL;
    while (newest) {
        struct message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct message *message = oldest;
        oldest = oldest->next;
        message->run(message);
    }
}

void loop_free(struct loop **slot) {
    struct loop *loop = *slot;
    if (!loop)
        return;
    *slot = NULL;
    loop_run_messages(loop);
    loop_free_deferred(loop);
    heap_fini(&loop->timers);
    slab_fini(&loop->conns);
    close(loop->wake_fd);
    close(loop->epoll_fd);
    mem_free(loop);
}

/* How long to wait in the kernel: not at all with work at hand, else until the next timer. */
static int loop_wait_ms(const struct loop *loop, int limit_ms) {
    if (!list_empty(&loop->ready) || loop->stopping)
        return 0;
    uint64_t wait = LOOP_WAIT_MAX_MS;
    const struct heap_node *next = heap_top(&loop->timers);
    if (next)
        wait = next->key <= loop->now_ms ? 0 : next->key - loop->now_ms;
    if (wait > LOOP_WAIT_MAX_MS)
        wait = LOOP_WAIT_MAX_MS;
    if (limit_ms >= 0 && (uint64_t)limit_ms < wait)
        wait = (uint64_t)limit_ms;
    return (int)wait;
}

static void loop_run_ready(struct loop *loop) {
    struct list now;
    list_init(&now);
    list_splice(&now, &loop->ready);
    unsigned left = LOOP_READY_MAX;
    while (!list_empty(&now) && left-- > 0) {
        struct loop_source *source = container_of(now.next, struct loop_source, again);
        list_remove(&source->again);
        source->on_ready(source, 0);
    }
    /* What was not served comes before what asked for another turn meanwhile. */
    list_splice(&now, &loop->ready);
    list_splice(&loop->ready, &now);
}

static void loop_run_timers(struct loop *loop) {
    struct heap_node *node;
    while ((node = heap_top(&loop->timers)) && node->key <= loop->now_ms) {
        struct timer *timer = container_of(node, struct timer, node);
        heap_remove(&loop->timers, node);
        if (timer->deadline_ms > loop->now_ms) {
            node->key = timer->deadline_ms;
            heap_insert(&loop->timers, node);
            continue;
        }
        timer->deadline_ms = 0;
        timer->on_timer(timer);
    }
}

void loop_turn(struct loop *loop, int limit_ms) {
    struct epoll_event events[LOOP_EVENTS];
    int count = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS, loop_wait_ms(loop, limit_ms));
    loop->now_ms = clock_ms();
    loop->saw_all = count < LOOP_EVENTS;
    /* Two passes: while one source is served, what the batch still holds for the others can be seen in them. */
    for (int i = 0; i < count; i++)
        ((struct loop_source *)events[i].data.ptr)->pending = events[i].events;
    for (int i = 0; i < count; i++) {
        struct loop_source *source = events[i].data.ptr;
        uint32_t pending = source->pending;
        source->pending = 0;
        source->on_ready(source, pending);
    }
    if (!list_empty(&loop->ready))
        loop_run_ready(loop);
    loop_run_messages(loop);
    loop_run_timers(loop);
    loop_free_deferred(loop);
}

void loop_run(struct loop *loop) {
    loop->stopping = false;
    while (!loop->stopping)
        loop_turn(loop, -1);
}

void loop_stop(struct loop *loop) { loop->stopping = true; }

uint64_t loop_now_ms(const struct loop *loop) { return loop->now_ms; }

bool loop_saw_all(const struct loop *loop) { return loop->saw_all; }

struct slab *loop_conns(struct loop *loop) { return &loop->conns; }

void loop_source_init(struct loop_source *source, void (*on_ready)(struct loop_source *, uint32_t)) {
    source->on_ready = on_ready;
    source->pending = 0;
    list_init(&source->again);
}

static bool loop_register(struct loop *loop, int op, int fd, struct loop_source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, op, fd, &event) == 0;
}

bool loop_add(struct loop *loop, int fd, struct loop_source *source, bool writes) {
    return loop_register(loop, EPOLL_CTL_ADD, fd, source, LOOP_EDGE | (writes ? (uint32_t)EPOLLOUT : 0));
}

bool loop_add_writes(struct loop *loop, int fd, struct loop_source *source) {
    return loop_register(loop, EPOLL_CTL_MOD, fd, source, LOOP_EDGE | EPOLLOUT);
}

bool loop_add_listener(struct loop *loop, int fd, struct loop_source *source) {
    return loop_register(loop, EPOLL_CTL_ADD, fd, source, EPOLLIN | EPOLLEXCLUSIVE);
}

bool loop_add_level(struct loop *loop, int fd, struct loop_source *source) {
    return loop_register(loop, EPOLL_CTL_ADD, fd, source, EPOLLIN);
}

void loop_remove(struct loop *loop, int fd) { epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL); }

void loop_again(struct loop *loop, struct loop_source *source) {
    if (list_empty(&source->again))
        list_append(&loop->ready, &source->again);
}

void loop_source_detach(struct loop_source *source) { list_remove(&source->again); }

void timer_init(struct timer *timer, void (*on_timer)(struct timer *)) {
    timer->node.key = 0;
    timer->node.place = 0;
    timer->deadline_ms = 0;
    timer->on_timer = on_timer;
}

void timer_set(struct loop *loop, struct timer *timer, uint64_t delay_ms) {
    uint64_t deadline = loop->now_ms + delay_ms;
    timer->deadline_ms = deadline;
    if (timer->node.place != 0) {
        if (deadline >= timer->node.key)
            return;
        heap_remove(&loop->timers, &timer->node);
    }
    timer->node.key = deadline;
    heap_insert(&loop->timers, &timer->node);
}

void timer_stop(struct loop *loop, struct timer *timer) {
    timer->deadline_ms = 0;
    if (timer->node.place != 0)
        heap_remove(&loop->timers, &timer->node);
}

void loop_defer(struct loop *loop, struct deferred *deferred, void (*free)(struct deferred *)) {
    deferred->free = free;
    deferred->next = loop->deferred;
    loop->deferred = deferred;
}

void loop_post(struct loop *loop, struct message *message, void (*run)(struct message *)) {
    message->run = run;
    struct message *newest = atomic_load_explicit(&loop->mailbox, memory_order_relaxed);
    do {
        message->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&loop->mailbox, &newest, message, memory_order_release,
                                                    memory_order_relaxed));
    /* Only the letter that finds the box empty needs to wake the reader: it empties the box at once. */
    if (!newest) {
        uint64_t one = 1;
        while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
        }
    }
}
