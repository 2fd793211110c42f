/* SPDX-License-Identifier: MIT */
/*
 * log_writer: one thread, blocking writes, large ones. It looks at the rings every few milliseconds while
 * lines come and less often, up to 50 ms, while none do; a thread that fills a ring never makes a system call
 * for it unless the ring is more than half full and this thread sleeps. A destination that fails (EPIPE,
 * ENOSPC) costs its lines, which are counted. The subtle thing is the pair of exchanges on log_writer_sleeping:
 * whichever comes second reads what the other wrote, so either the sleeper sees the crowded ring, or the filler
 * sees the sleeper.
 */
#include "base/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/log_ring.h"
#include "base/mem.h"

#define LOG_WRITER_BATCH 65536u
#define LOG_WRITER_BUSY_MS 4
#define LOG_WRITER_IDLE_MS 50
#define LOG_WRITER_STUCK_MS 3000
#define LOG_WRITER_REPORT_MS 10000

/* Lines gathered for one destination. */
struct log_out {
    int fd; /* -1: none */
    size_t n;
    char *data; /* LOG_WRITER_BATCH */
};

static struct {
    pthread_t thread;
    int wake_fd, done_fd;
    struct log_out out[2]; /* by enum log_kind; the log thread's own */
    uint64_t reported;     /* drops already told about */
    uint64_t report_ms;    /* when they were last told */
} log_writer;

static _Atomic(bool) log_writer_stopping, log_writer_sleeping;
static _Atomic(uint64_t) log_writer_lost, log_writer_progress;

size_t log_writer_write(int fd, const char *p, size_t n) {
    size_t done = 0;
    while (done < n) {
        ssize_t written = write(fd, p + done, n - done);
        if (written > 0) {
            done += (size_t)written;
            atomic_fetch_add_explicit(&log_writer_progress, 1, memory_order_relaxed);
        } else if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            /* Somebody else made the open file non-blocking; we wait all the same. */
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, 1000);
        } else if (written == 0 || errno != EINTR) {
            break;
        }
    }
    return done;
}

static void log_out_flush(struct log_out *out) {
    size_t written = log_writer_write(out->fd, out->data, out->n);
    uint64_t lost = 0;
    for (size_t i = written; i < out->n; i++)
        lost += out->data[i] == '\n';
    if (lost)
        atomic_fetch_add_explicit(&log_writer_lost, lost, memory_order_relaxed);
    out->n = 0;
}

/* Room for one line and its newline. */
static char *log_out_room(struct log_out *out, size_t n) {
    if (out->n + n + 1 > LOG_WRITER_BATCH)
        log_out_flush(out);
    return out->data + out->n;
}

/* What was in the ring when the round began: a thread that never rests does not keep the others waiting. */
static void log_writer_empty_ring(struct log_ring *ring, size_t waiting) {
    while (waiting) {
        enum log_kind kind;
        size_t n = log_ring_peek(ring, &kind);
        struct log_out *out = &log_writer.out[kind];
        char *line = log_out_room(out, n);
        log_ring_take(ring, line, n);
        line[n] = '\n';
        if (out->fd >= 0)
            out->n += n + 1;
        waiting -= sizeof(uint32_t) + n;
    }
}

/* Tells about dropped lines, now and then, on the diagnostics' way. */
static void log_writer_report_drops(bool last) {
    uint64_t dropped = log_dropped(), now = clock_ms();
    bool recent = log_writer.report_ms && now - log_writer.report_ms < LOG_WRITER_REPORT_MS;
    if (dropped == log_writer.reported || (recent && !last))
        return;
    char time[CLOCK_TEXT_MAX], line[CLOCK_TEXT_MAX + 64];
    clock_format_iso(time, clock_wall_us());
    int n = snprintf(line, sizeof(line), "%s warn  %llu log lines dropped\n", time,
                     (unsigned long long)(dropped - log_writer.reported));
    log_writer.reported = dropped;
    log_writer.report_ms = now;
    if (n > 0)
        (void)log_writer_write(STDERR_FILENO, line, (size_t)n);
}

/* One look at every ring; returns the bytes found. */
static size_t log_writer_round(void) {
    size_t sum = 0;
    for (struct log_ring *ring = log_ring_first(); ring; ring = ring->next) {
        size_t waiting = log_ring_waiting(ring);
        log_writer_empty_ring(ring, waiting);
        sum += waiting;
    }
    for (size_t i = 0; i < ARRAY_LEN(log_writer.out); i++)
        if (log_writer.out[i].n)
            log_out_flush(&log_writer.out[i]);
    return sum;
}

static void log_writer_sleep(int ms) {
    (void)atomic_exchange_explicit(&log_writer_sleeping, true, memory_order_acq_rel);
    bool crowded = atomic_load_explicit(&log_writer_stopping, memory_order_relaxed);
    for (struct log_ring *ring = log_ring_first(); ring && !crowded; ring = ring->next)
        crowded = log_ring_is_crowded(ring);
    struct pollfd wait = {.fd = log_writer.wake_fd, .events = POLLIN};
    int woken = crowded ? 0 : poll(&wait, 1, ms);
    atomic_store_explicit(&log_writer_sleeping, false, memory_order_relaxed);
    uint64_t count;
    if (woken > 0 && read(log_writer.wake_fd, &count, sizeof(count)) < 0)
        return;
}

static void log_writer_signal(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: the reader is awake anyway */
}

void log_writer_wake(void) {
    if (atomic_exchange_explicit(&log_writer_sleeping, false, memory_order_acq_rel))
        log_writer_signal(log_writer.wake_fd);
}

static void *log_writer_run(void *unused) {
    (void)unused;
    (void)pthread_setname_np(pthread_self(), "log");
    int pause_ms = LOG_WRITER_BUSY_MS;
    for (;;) {
        bool last = atomic_load_explicit(&log_writer_stopping, memory_order_acquire);
        size_t found = log_writer_round();
        log_writer_report_drops(last);
        if (last && !found)
            break;
        if (found > LOG_RING_SIZE / 4)
            continue;
        pause_ms = found ? LOG_WRITER_BUSY_MS : pause_ms * 2 < LOG_WRITER_IDLE_MS ? pause_ms * 2 : LOG_WRITER_IDLE_MS;
        log_writer_sleep(pause_ms);
    }
    log_writer_signal(log_writer.done_fd);
    return NULL;
}

static void log_writer_release(void) {
    for (size_t i = 0; i < ARRAY_LEN(log_writer.out); i++) {
        mem_free(log_writer.out[i].data);
        log_writer.out[i].data = NULL;
    }
    if (log_writer.wake_fd >= 0)
        close(log_writer.wake_fd);
    if (log_writer.done_fd >= 0)
        close(log_writer.done_fd);
    log_writer.wake_fd = log_writer.done_fd = -1;
}

bool log_writer_start(int access_fd) {
    log_writer.out[LOG_KIND_DIAGNOSTIC] = (struct log_out){.fd = STDERR_FILENO, .data = mem_alloc(LOG_WRITER_BATCH)};
    log_writer.out[LOG_KIND_ACCESS] = (struct log_out){.fd = access_fd, .data = mem_alloc(LOG_WRITER_BATCH)};
    log_writer.reported = log_dropped();
    log_writer.report_ms = 0;
    log_writer.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    log_writer.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_store(&log_writer_stopping, false);
    int error = log_writer.wake_fd < 0 || log_writer.done_fd < 0 ? errno : 0;
    if (!error) {
        /* Signals are for other threads, SIGPIPE included. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        error = pthread_create(&log_writer.thread, NULL, log_writer_run, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (!error)
        return true;
    log_writer_release();
    errno = error;
    return false;
}

bool log_writer_stop(void) {
    atomic_store_explicit(&log_writer_stopping, true, memory_order_release);
    log_writer_signal(log_writer.wake_fd);
    struct pollfd done = {.fd = log_writer.done_fd, .events = POLLIN};
    uint64_t start_ms = clock_ms(), progress = atomic_load(&log_writer_progress);
    while (poll(&done, 1, 100) <= 0) {
        uint64_t now_ms = clock_ms(), now = atomic_load(&log_writer_progress);
        if (now != progress) {
            progress = now;
            start_ms = now_ms;
        } else if (now_ms - start_ms > LOG_WRITER_STUCK_MS) {
            pthread_detach(log_writer.thread);
            return false;
        }
    }
    pthread_join(log_writer.thread, NULL);
    log_writer_release();
    return true;
}

uint64_t log_writer_dropped(void) { return atomic_load_explicit(&log_writer_lost, memory_order_relaxed); }
