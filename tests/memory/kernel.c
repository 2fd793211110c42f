/* SPDX-License-Identifier: MIT */
/*
 * See kernel.h. Told as Linux tells it: an edge carries the whole state of the descriptor; data comes before the error of a reset,
 * which is told once; a close with bytes unread is a reset; a write to a peer that is gone succeeds and brings the
 * reset. Descriptors are given out lowest first, so that a stale one is soon somebody else's.
 */
#include "kernel.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define KERNEL_PIPE 65536
#define KERNEL_PROMPT 65536 /* bytes each way before the server takes a connection that was made at once */

enum kernel_kind { KERNEL_FREE, KERNEL_EPOLL, KERNEL_EVENT, KERNEL_LISTENER, KERNEL_SOCKET, KERNEL_PIPE_END };

static struct kernel_slot {
    enum kernel_kind kind;
    struct kernel_link *link;    /* of a connected socket */
    struct kernel_queue *pipe;   /* shared by two ends */
    uint64_t count;              /* of an eventfd */
    bool watched, edge;
    struct epoll_event event;
} kernel_slots[KERNEL_MAX];

struct kernel kernel = {.now_us = 1000000000};

static struct kernel_slot *kernel_slot(int fd) {
    return fd >= KERNEL_BASE && fd < KERNEL_BASE + KERNEL_MAX ? &kernel_slots[fd - KERNEL_BASE] : NULL;
}

/* The same for a system call, which is counted. */
static struct kernel_slot *kernel_called(int fd) {
    struct kernel_slot *slot = kernel_slot(fd);
    kernel.calls += slot != NULL;
    return slot;
}

static int kernel_fail(int error) {
    errno = error;
    return -1;
}

static bool kernel_once(int *error) {
    if (*error == 0)
        return false;
    errno = *error;
    *error = 0;
    return true;
}

static int kernel_new(enum kernel_kind kind) {
    for (int i = 0; i < KERNEL_MAX; i++) {
        if (kernel_slots[i].kind != KERNEL_FREE)
            continue;
        kernel_slots[i] = (struct kernel_slot){.kind = kind};
        return KERNEL_BASE + i;
    }
    return kernel_fail(EMFILE);
}

static void kernel_edge(const struct kernel_link *link) {
    if (link->fd >= 0)
        kernel_slot(link->fd)->edge = true;
}

static size_t kernel_push(struct kernel_queue *queue, const char *data, size_t n) {
    size_t room = queue->cap - queue->len;
    if (n > room)
        n = room;
    if (n == 0)
        return 0;
    if (queue->len + n > queue->size) {
        queue->size = queue->len + n;
        queue->data = realloc(queue->data, queue->size);
    }
    memcpy(queue->data + queue->len, data, n);
    queue->len += n;
    return n;
}

static size_t kernel_pull(struct kernel_queue *queue, char *data, size_t n) {
    if (n > queue->len)
        n = queue->len;
    if (n == 0)
        return 0;
    memcpy(data, queue->data, n);
    queue->len -= n;
    memmove(queue->data, queue->data + n, queue->len);
    return n;
}

static struct kernel_link *kernel_link_new(size_t cap) {
    struct kernel_link *link = calloc(1, sizeof *link);
    link->fd = -1;
    link->in.cap = link->out.cap = cap;
    link->waiting = true;
    return link;
}

static void kernel_append(struct kernel_link **list, struct kernel_link *link) {
    while (*list)
        list = &(*list)->next;
    *list = link;
}

static void kernel_unlist(struct kernel_link **list, const struct kernel_link *link) {
    while (*list && *list != link)
        list = &(*list)->next;
    if (*list)
        *list = link->next;
}

static void kernel_link_end(struct kernel_link *link) {
    if (!link->near_closed || !link->far_closed)
        return;
    free(link->in.data);
    free(link->out.data);
    free(link);
}

/* --- the far end --- */

struct kernel_link *kernel_dial(size_t cap) {
    struct kernel_link *link = kernel_link_new(cap);
    kernel_append(&kernel.backlog, link);
    return link;
}

struct kernel_link *kernel_answer(size_t cap) {
    struct kernel_link *link = kernel.dialed;
    if (!link)
        return NULL;
    kernel.dialed = link->next;
    link->waiting = false;
    link->in.cap = link->out.cap = cap;
    kernel_edge(link);
    return link;
}

bool kernel_refuse(int error) {
    struct kernel_link *link = kernel.dialed;
    if (!link)
        return false;
    kernel.dialed = link->next;
    link->waiting = false;
    link->far_closed = link->far_fin = link->far_reset = true;
    link->error = error;
    kernel_edge(link);
    kernel_link_end(link); /* a prompt one may have been closed before */
    return true;
}

size_t kernel_give(struct kernel_link *link, const char *data, size_t n) {
    if (link->far_fin || link->near_closed)
        return 0;
    size_t given = kernel_push(&link->in, data, n);
    if (given > 0)
        kernel_edge(link);
    return given;
}

size_t kernel_take(struct kernel_link *link, char *data, size_t n) {
    bool full = link->out.len == link->out.cap;
    size_t taken = link->near_reset ? 0 : kernel_pull(&link->out, data, n);
    if (taken > 0 && full)
        kernel_edge(link);
    return taken;
}

void kernel_widen(struct kernel_link *link, size_t cap) {
    link->in.cap = link->out.cap = cap;
    kernel_edge(link);
}

void kernel_shut(struct kernel_link *link) {
    if (!link->far_fin)
        kernel_edge(link);
    link->far_fin = true;
}

void kernel_reset(struct kernel_link *link) {
    if (link->far_reset)
        return;
    link->far_fin = link->far_reset = true;
    link->error = ECONNRESET;
    kernel_edge(link);
}

void kernel_drop(struct kernel_link **slot) {
    struct kernel_link *link = *slot;
    *slot = NULL;
    kernel_shut(link);
    link->far_closed = true;
    kernel_link_end(link);
}

void kernel_end(void) {
    for (int i = 0; i < KERNEL_MAX; i++)
        if (kernel_slots[i].kind != KERNEL_FREE)
            abort(); /* a descriptor was leaked */
    /* Made promptly, closed again, and seen by no server: what waits is closed with its descriptor. */
    while (kernel.dialed) {
        struct kernel_link *link = kernel.dialed;
        if (!link->near_closed)
            abort();
        kernel.dialed = link->next;
        link->far_closed = true;
        kernel_link_end(link);
    }
    while (kernel.backlog) {
        struct kernel_link *link = kernel.backlog;
        kernel.backlog = link->next;
        link->near_closed = true;
        kernel_link_end(link);
    }
    kernel = (struct kernel){.now_us = 1000000000};
}

/* --- what the gateway calls --- */

#define KERNEL_WRAP(result, name, ...) \
    result __real_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__); \
    result __wrap_##name(__VA_ARGS__)

uint64_t __wrap_clock_us(void);
uint64_t __wrap_clock_ms(void);
uint64_t __wrap_clock_wall_us(void);
uint64_t __wrap_clock_us(void) { return kernel.now_us; }
uint64_t __wrap_clock_ms(void) { return kernel.now_us / 1000; }
uint64_t __wrap_clock_wall_us(void) { return kernel.now_us + 1700000000000000u; }

/* Chance that is the same in every run. */
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags) {
    (void)flags;
    kernel.calls++;
    memset(data, 0x5a, size);
    return (ssize_t)size;
}

int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags) {
    (void)flags;
    kernel.calls++;
    return kernel_new(KERNEL_EPOLL);
}

int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags) {
    (void)count, (void)flags;
    kernel.calls++;
    return kernel_new(KERNEL_EVENT);
}

int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event) {
    struct kernel_slot *slot = kernel_called(fd);
    (void)epoll;
    if (!slot || slot->kind == KERNEL_FREE)
        abort();
    if (op == EPOLL_CTL_ADD && slot->kind == KERNEL_SOCKET && kernel_once(&kernel.add_error))
        return -1;
    if ((op == EPOLL_CTL_ADD) == slot->watched)
        return kernel_fail(slot->watched ? EEXIST : ENOENT);
    slot->watched = slot->edge = op != EPOLL_CTL_DEL;
    if (event)
        slot->event = *event;
    return 0;
}

static uint32_t kernel_state(const struct kernel_slot *slot) {
    const struct kernel_link *link = slot->link;
    if (slot->kind == KERNEL_EVENT)
        return slot->count > 0 ? EPOLLIN : 0;
    if (slot->kind == KERNEL_LISTENER)
        return kernel.backlog ? EPOLLIN : 0;
    if (!link || link->waiting)
        return link ? 0 : EPOLLOUT | EPOLLHUP;
    uint32_t state = 0;
    if (link->in.len > 0 || link->far_fin)
        state |= EPOLLIN;
    if (link->out.len < link->out.cap || link->far_reset)
        state |= EPOLLOUT;
    if (link->far_fin)
        state |= EPOLLRDHUP;
    if (link->far_reset || (link->far_fin && link->near_fin))
        state |= EPOLLHUP;
    return link->error != 0 ? state | EPOLLERR : state;
}

int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout) {
    int count = 0;
    (void)epoll;
    kernel.calls++;
    for (unsigned i = 0; i < KERNEL_MAX && count < max; i++) {
        struct kernel_slot *slot = &kernel_slots[(i + kernel.first) % KERNEL_MAX];
        if (slot->kind == KERNEL_FREE || !slot->watched)
            continue;
        uint32_t told = kernel_state(slot) & (slot->event.events | EPOLLERR | EPOLLHUP);
        bool is_edge = slot->event.events & EPOLLET;
        if (told == 0 || (is_edge && !slot->edge))
            continue;
        slot->edge = false;
        events[count] = slot->event;
        events[count++].events = told;
    }
    kernel.idle = count == 0 && timeout != 0;
    kernel.idle_ms = timeout;
    return count;
}

int __wrap_socket(int family, int type, int protocol);
int __wrap_socket(int family, int type, int protocol) {
    (void)family, (void)type, (void)protocol;
    kernel.calls++;
    return kernel_once(&kernel.socket_error) ? -1 : kernel_new(KERNEL_SOCKET);
}

int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_bind(int fd, const struct sockaddr *addr, socklen_t len) {
    (void)fd, (void)addr, (void)len;
    kernel.calls++;
    return 0;
}

int __wrap_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog) {
    (void)backlog;
    kernel_called(fd)->kind = KERNEL_LISTENER;
    return 0;
}

int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    (void)addr, (void)len;
    kernel.calls++;
    if (kernel_once(&kernel.connect_error))
        return -1;
    struct kernel_link *link = kernel_link_new(kernel.prompt ? KERNEL_PROMPT : 1);
    link->fd = fd;
    link->waiting = !kernel.prompt;
    kernel_slot(fd)->link = link;
    kernel_append(&kernel.dialed, link);
    return kernel_fail(EINPROGRESS);
}

int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) {
    struct kernel_link *link = kernel.backlog;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = 1000, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)fd, (void)flags;
    kernel.calls++;
    if (!link)
        return kernel_fail(EAGAIN);
    if (kernel_once(&kernel.accept_error))
        return -1;
    int accepted = kernel_new(KERNEL_SOCKET);
    if (accepted < 0)
        return -1;
    kernel.backlog = link->next;
    link->waiting = false;
    link->fd = accepted;
    kernel_slot(accepted)->link = link;
    memcpy(addr, &from, sizeof from);
    *len = sizeof from;
    return accepted;
}

/* What a read gives: bytes first, then the error once, then the end. -1 with errno, or how many of size may be pulled. */
static ssize_t kernel_readable(struct kernel_link *link, size_t size) {
    if (link->waiting)
        return kernel_fail(EAGAIN);
    if (link->in.len > 0) {
        size_t n = size < link->in.len ? size : link->in.len;
        if (kernel.read_max == 0 || n <= kernel.read_max)
            return (ssize_t)n;
        kernel_edge(link); /* a short read that left something: Linux would not, so tell it again */
        return (ssize_t)kernel.read_max;
    }
    if (link->error != 0) {
        errno = link->error;
        link->error = 0;
        return -1;
    }
    return link->far_fin ? 0 : kernel_fail(EAGAIN);
}

KERNEL_WRAP(ssize_t, recv, int fd, void *data, size_t size, int flags) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_recv(fd, data, size, flags);
    if (!slot->link)
        abort(); /* not a socket of anybody's any more */
    ssize_t n = kernel_readable(slot->link, size);
    if (n <= 0)
        return n;
    if (flags & MSG_PEEK)
        memcpy(data, slot->link->in.data, (size_t)n);
    else
        kernel_pull(&slot->link->in, data, (size_t)n);
    return n;
}

static ssize_t kernel_write(struct kernel_slot *slot, const char *data, size_t n) {
    struct kernel_link *link = slot->link;
    if (!link || link->near_closed)
        abort();
    if (link->waiting)
        return kernel_fail(EAGAIN);
    if (kernel_once(&link->error))
        return -1;
    if (link->near_fin || link->far_reset)
        return kernel_fail(EPIPE);
    if (link->far_closed) {
        kernel_reset(link);
        return (ssize_t)n;
    }
    size_t sent = kernel_push(&link->out, data, n);
    return sent == 0 && n > 0 ? kernel_fail(EAGAIN) : (ssize_t)sent;
}

KERNEL_WRAP(ssize_t, send, int fd, const void *data, size_t size, int flags) {
    struct kernel_slot *slot = kernel_called(fd);
    return slot ? kernel_write(slot, data, size) : __real_send(fd, data, size, flags);
}

KERNEL_WRAP(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags) {
    struct kernel_slot *slot = kernel_called(fd);
    ssize_t total = 0;
    if (!slot)
        return __real_sendmsg(fd, message, flags);
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const struct iovec *piece = &message->msg_iov[i];
        if (piece->iov_len == 0)
            continue;
        ssize_t sent = kernel_write(slot, piece->iov_base, piece->iov_len);
        if (sent < 0)
            return total > 0 ? total : -1;
        total += sent;
        if ((size_t)sent < piece->iov_len)
            break;
    }
    return total;
}

KERNEL_WRAP(ssize_t, read, int fd, void *data, size_t size) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_read(fd, data, size);
    if (slot->count == 0)
        return kernel_fail(EAGAIN);
    memcpy(data, &slot->count, sizeof slot->count);
    slot->count = 0;
    return sizeof slot->count;
}

KERNEL_WRAP(ssize_t, write, int fd, const void *data, size_t size) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_write(fd, data, size);
    slot->count++;
    return (ssize_t)size;
}

KERNEL_WRAP(int, shutdown, int fd, int how) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_shutdown(fd, how);
    if (slot->link && how != SHUT_RD && !slot->link->near_fin) {
        slot->link->near_fin = true;
        kernel_edge(slot->link);
    }
    return 0;
}

static void kernel_close_link(struct kernel_link *link) {
    if (link->waiting)
        kernel_unlist(&kernel.dialed, link);
    link->near_reset = link->near_reset || link->linger || link->in.len > 0;
    link->near_fin = link->near_closed = true;
    link->far_closed = link->far_closed || link->waiting;
    link->fd = -1;
    kernel_link_end(link);
}

KERNEL_WRAP(int, close, int fd) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_close(fd);
    if (slot->kind == KERNEL_FREE)
        abort(); /* closed twice */
    if (slot->link)
        kernel_close_link(slot->link);
    if (slot->pipe && slot->pipe->cap == KERNEL_PIPE) {
        slot->pipe->cap = 0; /* the first end of two */
    } else if (slot->pipe) {
        free(slot->pipe->data);
        free(slot->pipe);
    }
    *slot = (struct kernel_slot){0};
    return 0;
}

KERNEL_WRAP(int, setsockopt, int fd, int level, int option, const void *value, socklen_t len) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_setsockopt(fd, level, option, value, len);
    if (slot->link && level == SOL_SOCKET && option == SO_LINGER)
        slot->link->linger = true;
    return 0;
}

KERNEL_WRAP(int, getsockopt, int fd, int level, int option, void *value, socklen_t *len) {
    struct kernel_slot *slot = kernel_called(fd);
    if (!slot)
        return __real_getsockopt(fd, level, option, value, len);
    int error = slot->link ? slot->link->error : 0;
    if (slot->link)
        slot->link->error = 0;
    memcpy(value, &error, sizeof error);
    return 0;
}

int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = 2000, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)fd;
    kernel.calls++;
    memcpy(addr, &name, sizeof name);
    *len = sizeof name;
    return 0;
}

int __wrap_pipe2(int ends[2], int flags);
int __wrap_pipe2(int ends[2], int flags) {
    struct kernel_queue *queue = calloc(1, sizeof *queue);
    (void)flags;
    kernel.calls++;
    queue->cap = KERNEL_PIPE;
    for (int i = 0; i < 2; i++) {
        ends[i] = kernel_new(KERNEL_PIPE_END);
        if (ends[i] < 0)
            abort();
        kernel_slot(ends[i])->pipe = queue;
    }
    return 0;
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...) {
    va_list args;
    va_start(args, command);
    void *value = va_arg(args, void *);
    va_end(args);
    return kernel_called(fd) ? 0 : __real_fcntl(fd, command, value);
}

ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags);
ssize_t __wrap_splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size, unsigned flags) {
    struct kernel_slot *from = kernel_slot(in), *to = kernel_slot(out);
    (void)in_at, (void)out_at, (void)flags;
    kernel.calls++;
    if (from->pipe) {
        size_t n = size < from->pipe->len ? size : from->pipe->len;
        ssize_t sent = kernel_write(to, from->pipe->data, n);
        if (sent > 0) {
            from->pipe->len -= (size_t)sent;
            memmove(from->pipe->data, from->pipe->data + sent, from->pipe->len);
        }
        return sent;
    }
    size_t room = to->pipe->cap - to->pipe->len;
    if (room == 0)
        return kernel_fail(EAGAIN);
    ssize_t n = kernel_readable(from->link, size < room ? size : room);
    if (n <= 0)
        return n;
    kernel_push(to->pipe, from->link->in.data, (size_t)n);
    from->link->in.len -= (size_t)n;
    memmove(from->link->in.data, from->link->in.data + n, from->link->in.len);
    return n;
}
