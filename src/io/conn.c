/* SPDX-License-Identifier: MIT */
/*
 * One connected socket. The kernel tells of each change once (edge-triggered); what it said is kept in two flags, readable
 * and writable, and a system call is made only while the flag stands. A short read clears readable without asking the
 * kernel again, which saves one call a message.
 *
 * The subtle one: data and FIN can arrive as one event, and after it there is no further edge. So once RDHUP, HUP or ERR was
 * seen, a short read proves nothing and reads go on until 0.
 */
#include "io/conn.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"

#define CONN_UNTUNED 2 /* it gets its options before its second write */

_Static_assert(sizeof(struct conn) <= 96, "an idle tunnel holds two of these");

static void conn_on_ready(struct loop_source *source, uint32_t events) {
    struct conn *conn = container_of(source, struct conn, source);
    if (conn->fd < 0)
        return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->readable = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        conn->writable = true;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->fin_seen = true;
    if (events & EPOLLHUP)
        conn->hup = true;
    if (events & EPOLLERR)
        conn->failed = true;
    if (conn->connecting && events) {
        conn->connecting = false;
        /* Writable without ERR or HUP is success; only a failure has to be asked for its reason, which is told once. */
        if (events & (EPOLLERR | EPOLLHUP) && conn->error == 0)
            conn->error = (uint16_t)sock_error(conn->fd);
    }
    if (conn->on_event)
        conn->on_event(conn);
}

static struct conn *conn_new(struct loop *loop, int fd) {
    struct conn *conn = slab_get(loop_conns(loop));
    conn->loop = loop;
    conn->fd = fd;
    conn->handshaken = true;
    loop_source_init(&conn->source, conn_on_ready);
    return conn;
}

/* Registers it, or gives all back. */
static struct conn *conn_watch(struct conn *conn) {
    conn->waits_write = !conn->writable;
    if (loop_add(conn->loop, conn->fd, &conn->source, conn->waits_write))
        return conn;
    int saved = errno;
    close(conn->fd);
    slab_put(loop_conns(conn->loop), conn);
    errno = saved;
    return NULL;
}

struct conn *conn_open(struct loop *loop, int fd) {
    struct conn *conn = conn_new(loop, fd);
    conn->writable = true;
    return conn_watch(conn);
}

/* The first write to a peer that may be connected already; returns the bytes taken. */
static size_t conn_write_early(struct conn *conn, struct span data) {
    ssize_t sent;
    do
        sent = send(conn->fd, data.p, data.n, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && !sock_error_is_local(errno))
            conn->error = (uint16_t)errno; /* the event that tells of it is already on its way */
        return 0;
    }
    conn->connecting = false;
    conn->writable = (size_t)sent == data.n;
    if (conn->untuned > 0)
        conn->untuned--;
    return (size_t)sent;
}

struct conn *conn_connect(struct loop *loop, const struct addr *to, const struct addr *source, struct span early, size_t *taken) {
    int fd = sock_connect(to, source);
    if (fd < 0)
        return NULL;
    struct conn *conn = conn_new(loop, fd);
    conn->connecting = true;
    conn->untuned = to->sa.any.sa_family == AF_UNIX ? 0 : CONN_UNTUNED;
    size_t sent = early.n > 0 ? conn_write_early(conn, early) : 0;
    if (taken)
        *taken = sent;
    return conn_watch(conn);
}

enum io conn_connected(struct conn *conn) {
    if (conn->connecting)
        return IO_AGAIN;
    return conn->error ? IO_ERROR : IO_OK;
}

/* What a recv() that failed means. */
static enum io conn_read_fault(struct conn *conn) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        conn->readable = false;
        return IO_AGAIN;
    }
    conn->error = (uint16_t)errno;
    conn->failed = true;
    return IO_ERROR;
}

/*
 * A stream needs TCP_NODELAY and a bound on what lies unsent, but not for its first write: nothing is on its way yet. Many a connection to a
 * server sees just that one.
 */
void conn_will_write(struct conn *conn) {
    if (conn->untuned > 0 && --conn->untuned == 0)
        sock_set_stream(conn->fd);
}

bool conn_stop_writing(struct conn *conn) {
    conn->writable = false;
    if (!conn->waits_write)
        conn->waits_write = loop_add_writes(conn->loop, conn->fd, &conn->source);
    return conn->waits_write;
}

/* Books the outcome of a send of `size` bytes. */
static enum io conn_wrote(struct conn *conn, ssize_t sent, size_t size, size_t *n) {
    bool is_full = sent < 0 ? errno == EAGAIN || errno == EWOULDBLOCK : (size_t)sent < size;
    if ((sent < 0 && !is_full) || (is_full && !conn_stop_writing(conn))) {
        conn->error = (uint16_t)errno;
        conn->failed = true;
        return IO_ERROR;
    }
    if (sent < 0)
        return IO_AGAIN;
    *n = (size_t)sent;
    return IO_OK;
}

void conn_set_owner(struct conn *conn, void *owner, void (*on_event)(struct conn *conn)) {
    conn->owner = owner;
    conn->on_event = on_event;
}

bool conn_start_tls_server(struct conn *conn, const struct tls_server *server) {
    conn->tls = tls_new_server(conn, server);
    conn->handshaken = false;
    return conn->tls != NULL;
}

bool conn_start_tls_client(struct conn *conn, const struct tls_client *client, const char *server_name) {
    conn->tls = tls_new_client(conn, client, server_name);
    conn->handshaken = false;
    return conn->tls != NULL;
}

enum io conn_handshake(struct conn *conn) {
    if (conn->handshaken)
        return IO_OK;
    enum io result = tls_handshake(conn->tls);
    if (result == IO_OK)
        conn->handshaken = true;
    return result;
}

enum io conn_read(struct conn *conn, void *data, size_t size, size_t *n) {
    if (conn->eof)
        return IO_EOF;
    if (conn->tls) {
        enum io result = tls_read(conn->tls, data, size, n);
        if (result == IO_EOF)
            conn->eof = true;
        return result;
    }
    if (!conn->readable)
        return IO_AGAIN;
    ssize_t got;
    do
        got = recv(conn->fd, data, size, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return conn_read_fault(conn);
    if (got == 0) {
        conn->eof = true;
        return IO_EOF;
    }
    if ((size_t)got < size && !conn->fin_seen)
        conn->readable = false;
    *n = (size_t)got;
    return IO_OK;
}

enum io conn_peek(struct conn *conn, void *data, size_t size, size_t *n) {
    assert(!conn->tls);
    if (!conn->readable)
        return IO_AGAIN;
    ssize_t got;
    do
        got = recv(conn->fd, data, size, MSG_PEEK);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return conn_read_fault(conn);
    if (got == 0)
        return IO_EOF;
    *n = (size_t)got;
    return IO_OK;
}

bool conn_may_read(const struct conn *conn) {
    return !conn->eof && (conn->readable || (conn->tls && tls_has_pending(conn->tls)));
}

enum io conn_write(struct conn *conn, const void *data, size_t size, size_t *n) {
    if (conn->tls)
        return tls_write(conn->tls, data, size, n);
    if (!conn->writable)
        return IO_AGAIN;
    conn_will_write(conn);
    ssize_t sent;
    do
        sent = send(conn->fd, data, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return conn_wrote(conn, sent, size, n);
}

enum io conn_writev(struct conn *conn, const struct iovec *iov, int count, size_t *n) {
    if (conn->tls)
        return tls_writev(conn->tls, iov, count, n);
    if (!conn->writable)
        return IO_AGAIN;
    conn_will_write(conn);
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    ssize_t sent;
    do
        sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return conn_wrote(conn, sent, size, n);
}

size_t conn_unsent(const struct conn *conn) { return conn->tls ? tls_unsent(conn->tls) : 0; }

void conn_shutdown(struct conn *conn) {
    if (conn->shut)
        return;
    conn->shut = true;
    if (conn->tls && conn->handshaken && !tls_shutdown(conn->tls))
        conn_again(conn); /* no event tells of it: the next read does */
    (void)shutdown(conn->fd, SHUT_WR);
}

void conn_again(struct conn *conn) { loop_again(conn->loop, &conn->source); }

static void conn_release(struct deferred *deferred) {
    struct conn *conn = container_of(deferred, struct conn, deferred);
    slab_put(loop_conns(conn->loop), conn);
}

void conn_close(struct conn **slot) {
    struct conn *conn = *slot;
    if (!conn)
        return;
    *slot = NULL;
    loop_source_detach(&conn->source);
    if (conn->tls) {
        if (conn->handshaken && !conn->failed && !conn->shut)
            (void)tls_shutdown(conn->tls);
        tls_free(&conn->tls);
    }
    close(conn->fd);
    conn->fd = -1;
    conn->on_event = NULL;
    loop_defer(conn->loop, &conn->deferred, conn_release);
}

void conn_abort(struct conn **slot) {
    if (!*slot)
        return;
    sock_set_abort((*slot)->fd);
    (*slot)->failed = true;
    conn_close(slot);
}

bool conn_is_quiet(struct conn *conn) {
    if (conn->fin_seen || conn->failed || conn->eof)
        return false;
    char byte;
    /* Session tickets may wait inside TLS: only a read tells them from data. */
    if (conn->tls) {
        size_t n;
        return conn_read(conn, &byte, 1, &n) == IO_AGAIN;
    }
    ssize_t got = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}
