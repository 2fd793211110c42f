/* SPDX-License-Identifier: MIT */
/*
 * log: levels, the form of a line, and which way it goes: straight to stderr before log_start() (command-line
 * use), into the calling thread's ring after it. A thread that was not attached is attached by its first line.
 * Whatever came from outside is escaped here, so that no text can start a line of its own or speak to a
 * terminal. The subtle thing: errno is kept, because callers log between a failed call and their look at
 * errno.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log_ring.h"
#include "base/log_writer.h"
#include "base/str.h"

static _Atomic(int) log_level_now = LOG_LEVEL_INFO;
static _Atomic(bool) log_running, log_access_on;
static bool log_stuck;          /* log_stop() left the log thread behind, blocked in a write */
static int log_access_fd = -1;
static bool log_access_opened;  /* by us, to be closed */

void log_set_level(enum log_level level) { atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed); }

bool log_enabled(enum log_level level) {
    return (int)level <= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

uint64_t log_dropped(void) { return log_ring_dropped() + log_writer_dropped(); }

static bool log_open_access(const char *to) {
    log_access_fd = -1;
    log_access_opened = false;
    if (!to)
        return true;
    if (strcmp(to, "stdout") == 0)
        log_access_fd = STDOUT_FILENO;
    else if (strcmp(to, "stderr") == 0)
        log_access_fd = STDERR_FILENO;
    else
        log_access_fd = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
    log_access_opened = log_access_fd > STDERR_FILENO;
    return log_access_fd >= 0;
}

static void log_close_access(void) {
    if (log_access_opened)
        close(log_access_fd);
    log_access_fd = -1;
    log_access_opened = false;
}

bool log_start(const struct log_options *options) {
    if (atomic_load(&log_running) || log_stuck) {
        errno = EBUSY;
        return false;
    }
    if (!log_open_access(options->access_to))
        return false;
    if (!log_writer_start(log_access_fd)) {
        int error = errno;
        log_close_access();
        errno = error;
        return false;
    }
    log_set_level(options->level);
    atomic_store(&log_access_on, log_access_fd >= 0);
    atomic_store(&log_running, true);
    return true;
}

void log_stop(void) {
    if (!atomic_load(&log_running))
        return;
    atomic_store(&log_running, false);
    atomic_store(&log_access_on, false);
    log_stuck = !log_writer_stop();
    if (!log_stuck)
        log_close_access();
}

void log_attach(const char *name) {
    if (atomic_load_explicit(&log_running, memory_order_acquire))
        (void)log_ring_mine(name);
}

static void log_put(enum log_kind kind, const char *line, size_t n) {
    bool crowded;
    log_ring_put(log_ring_mine("thread"), kind, line, n, &crowded);
    if (crowded)
        log_writer_wake();
}

/* text to out[0..room), controls and invalid UTF-8 escaped, cut with "..." when too long; returns the length. */
static size_t log_escape(char *out, size_t room, struct span text) {
    static const char hex[] = "0123456789abcdef";
    static const char cut[] = "...";
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        size_t length = str_utf8_printable(text.p + i, text.n - i);
        if (n + 4 + sizeof(cut) - 1 > room) {
            memcpy(out + n, cut, sizeof(cut) - 1);
            return n + sizeof(cut) - 1;
        }
        if (length) {
            memcpy(out + n, text.p + i, length);
            n += length;
            i += length;
            continue;
        }
        unsigned char c = (unsigned char)text.p[i++];
        out[n++] = '\\';
        if (c == '\n' || c == '\t' || c == '\r') {
            out[n++] = c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
        } else {
            out[n++] = 'x';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    return n;
}

/* What stands before the text of a line; returns its length. */
static size_t log_prefix(char *out, enum log_level level, bool running) {
    static const char *const labels[] = {" error ", " warn  ", " info  ", " debug "};
    static const char *const direct[] = {"moongate: error: ", "moongate: warning: ", "moongate: ", "moongate: "};
    size_t n = running ? clock_format_iso(out, clock_wall_us()) : 0;
    const char *label = running ? labels[level] : direct[level];
    size_t length = strlen(label);
    memcpy(out + n, label, length);
    return n + length;
}

/* After a stop that left stderr or the access log blocked, a line must not block us as well. */
static bool log_may_write(void) {
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    return !log_stuck || (poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT);
}

static void log_write(enum log_level level, const char *format, va_list args) {
    int error = errno;
    char text[LOG_LINE_MAX], line[LOG_LINE_MAX];
    bool running = atomic_load_explicit(&log_running, memory_order_acquire);
    int length = vsnprintf(text, sizeof(text), format, args);
    if (length < 0)
        length = 0;
    size_t n = log_prefix(line, level, running);
    struct span whole = span_make(text, (size_t)length < sizeof(text) ? (size_t)length : sizeof(text) - 1);
    n += log_escape(line + n, sizeof(line) - 1 - n, whole);
    if (running) {
        log_put(LOG_KIND_DIAGNOSTIC, line, n);
    } else if (log_may_write()) {
        line[n++] = '\n';
        (void)log_writer_write(STDERR_FILENO, line, n);
    }
    errno = error;
}

#define LOG_FORWARD(level, format) \
    do { \
        if (!log_enabled(level)) \
            return; \
        va_list args; \
        va_start(args, format); \
        log_write(level, format, args); \
        va_end(args); \
    } while (0)

void log_error(const char *format, ...) { LOG_FORWARD(LOG_LEVEL_ERROR, format); }
void log_warn(const char *format, ...) { LOG_FORWARD(LOG_LEVEL_WARN, format); }
void log_info(const char *format, ...) { LOG_FORWARD(LOG_LEVEL_INFO, format); }
void log_debug(const char *format, ...) { LOG_FORWARD(LOG_LEVEL_DEBUG, format); }

void log_access(const char *line, size_t n) {
    if (!atomic_load_explicit(&log_access_on, memory_order_acquire))
        return;
    log_put(LOG_KIND_ACCESS, line, n < LOG_LINE_MAX ? n : LOG_LINE_MAX);
}
