/* SPDX-License-Identifier: MIT */
/*
 * The BIO through which OpenSSL reaches a conn's socket.
 *
 * It is smaller than OpenSSL's own and knows the conn's readiness flags: while a flag is clear there is no system call.
 * OpenSSL moves one record of 16 KiB at most in a call; for bulk the BIO lets several of them share a system call. What
 * tls_write() seals gathers in a buffer of the thread and leaves in one send(); what the socket did not take then is kept
 * with the session (`unsent`). What tls_read() has room for is taken by one recv() into that buffer, and OpenSSL is fed
 * from there. Between calls the buffer is empty: a session at rest holds nothing.
 * The subtle things: (1) The BIO never reports EOF to OpenSSL's BIO_eof(), so that a FIN without close_notify stays an
 * I/O result (truncated) instead of a broken session: the other direction may still be written. (2) Sealed bytes have
 * their place in the stream: nothing may be sent past `unsent`, neither an alert nor a key update.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "io/conn.h"
#include "io/tls_private.h"

/* Four records with what sealing adds, at most (RFC 5246 section 6.2.3; TLS 1.3 adds less). */
#define TLS_BULK_SIZE (4 * (TLS_RECORD_MAX + 256))

/* In one call of tls_read() or tls_write(), bytes of that session. A thread is in one call at a time. */
static _Thread_local struct {
    size_t at, end;
    char bytes[TLS_BULK_SIZE];
} tls_bulk;

static BIO_METHOD *tls_bio_method;
static pthread_once_t tls_bio_once = PTHREAD_ONCE_INIT;

/* --- in --- */

/* How many bytes came; 0: none, for one of the three reasons that `asked`, `fin` and `sock_error` tell. */
static size_t tls_bio_recv(struct tls *tls, void *data, size_t size) {
    struct conn *conn = tls->conn;
    ssize_t got;

    if (conn->readable) {
        do
            got = recv(conn->fd, data, size, MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        if (got > 0) {
            if ((size_t)got < size && !conn->fin_seen)
                conn->readable = false;
            tls->drained = false;
            return (size_t)got;
        }
        if (got == 0) {
            tls->fin = true;
            return 0;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            tls->sock_error = errno;
            return 0;
        }
        conn->readable = false;
    }
    tls->asked = true;
    return 0;
}

void tls_bio_read_ahead(struct tls *tls, size_t most) {
    assert(tls_bulk.at == tls_bulk.end);
    tls->ahead = (uint32_t)(most < sizeof tls_bulk.bytes ? most : sizeof tls_bulk.bytes);
}

bool tls_bio_has_ahead(void) { return tls_bulk.at < tls_bulk.end; }

void tls_bio_drop_ahead(void) { tls_bulk.at = tls_bulk.end = 0; }

/* As tls_bio_recv(), through the thread's buffer, which is filled once. */
static size_t tls_bio_recv_ahead(struct tls *tls, void *data, size_t size) {
    if (!tls_bio_has_ahead()) {
        if (tls->ahead == TLS_AHEAD_SPENT) {
            tls->asked = true;
            return 0;
        }
        tls_bulk.at = 0;
        tls_bulk.end = tls_bio_recv(tls, tls_bulk.bytes, tls->ahead);
        if (tls_bulk.end > 0)
            tls->ahead = TLS_AHEAD_SPENT;
    }
    if (size > tls_bulk.end - tls_bulk.at)
        size = tls_bulk.end - tls_bulk.at;
    memcpy(data, tls_bulk.bytes + tls_bulk.at, size);
    tls_bulk.at += size;
    return size;
}

static int tls_bio_read(BIO *bio, char *data, int size) {
    struct tls *tls = BIO_get_data(bio);
    size_t got;

    BIO_clear_retry_flags(bio);
    tls->asked = false;
    if (size <= 0 || tls->sock_error)
        return -1;
    got = tls->ahead ? tls_bio_recv_ahead(tls, data, (size_t)size) : tls_bio_recv(tls, data, (size_t)size);
    if (got > 0)
        return (int)got;
    if (tls->sock_error)
        return -1;
    if (!tls->asked)
        return 0;
    BIO_set_retry_read(bio);
    return -1;
}

/* --- out --- */

/* How many bytes the socket took; less than size: it is full (`asked`) or broken (`sock_error`). */
static size_t tls_bio_send(struct tls *tls, const char *data, size_t size) {
    struct conn *conn = tls->conn;
    ssize_t sent;

    if (tls->sock_error)
        return 0;
    if (!conn->writable) {
        tls->asked = true;
        return 0;
    }
    conn_will_write(conn);
    do
        sent = send(conn->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)size)
        return size;
    if ((sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) || !conn_stop_writing(conn)) {
        tls->sock_error = errno;
        return 0;
    }
    tls->asked = true;
    return sent < 0 ? 0 : (size_t)sent;
}

bool tls_bio_flush(struct tls *tls) {
    size_t sent;

    if (!tls->unsent)
        return !tls->sock_error;
    sent = tls_bio_send(tls, tls->unsent + tls->unsent_at, tls->unsent_end - tls->unsent_at);
    tls->unsent_at += (uint32_t)sent;
    if (tls->unsent_at < tls->unsent_end)
        return false;
    mem_free(tls->unsent);
    tls->unsent = NULL;
    tls->unsent_at = tls->unsent_end = 0;
    return true;
}

/* Sends what has gathered; the rest is moved to the front. */
static void tls_bio_send_gathered(struct tls *tls) {
    size_t sent = tls_bio_send(tls, tls_bulk.bytes, tls_bulk.end);

    tls_bulk.end -= sent;
    memmove(tls_bulk.bytes, tls_bulk.bytes + sent, tls_bulk.end);
}

/* Takes what there is room for. */
static size_t tls_bio_gather(struct tls *tls, const char *data, size_t size) {
    if (size > sizeof tls_bulk.bytes - tls_bulk.end)
        tls_bio_send_gathered(tls);
    if (size > sizeof tls_bulk.bytes - tls_bulk.end)
        size = sizeof tls_bulk.bytes - tls_bulk.end;
    memcpy(tls_bulk.bytes + tls_bulk.end, data, size);
    tls_bulk.end += size;
    return size;
}

void tls_bio_gather_start(struct tls *tls) {
    assert(!tls->unsent && tls_bulk.end == tls_bulk.at);
    tls_bulk.at = tls_bulk.end = 0;
    tls->gathers = true;
}

void tls_bio_gather_end(struct tls *tls) {
    tls->gathers = false;
    if (tls_bulk.end > 0)
        tls_bio_send_gathered(tls);
    if (tls_bulk.end > 0 && !tls->sock_error) {
        tls->unsent = mem_try_alloc(tls_bulk.end);
        if (tls->unsent) {
            memcpy(tls->unsent, tls_bulk.bytes, tls_bulk.end);
            tls->unsent_end = (uint32_t)tls_bulk.end;
        } else {
            tls->sock_error = ENOMEM; /* the stream has a hole now */
        }
    }
    tls_bulk.end = 0;
}

static int tls_bio_write(BIO *bio, const char *data, int size) {
    struct tls *tls = BIO_get_data(bio);
    size_t taken = 0;

    BIO_clear_retry_flags(bio);
    if (size <= 0 || tls->sock_error)
        return -1;
    if (tls->gathers)
        taken = tls_bio_gather(tls, data, (size_t)size);
    else if (tls_bio_flush(tls))
        taken = tls_bio_send(tls, data, (size_t)size);
    if (taken > 0)
        return (int)taken;
    if (!tls->sock_error)
        BIO_set_retry_write(bio);
    return -1;
}

/* --- making --- */

/* Flushing is always done; everything else (EOF, kernel TLS, ...) is "no". */
static long tls_bio_ctrl(BIO *bio, int command, long number, void *p) {
    (void)bio, (void)number, (void)p;
    return command == BIO_CTRL_FLUSH;
}

static int tls_bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static void tls_bio_make(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "moongate conn");

    if (method && BIO_meth_set_read(method, tls_bio_read) && BIO_meth_set_write(method, tls_bio_write) &&
        BIO_meth_set_ctrl(method, tls_bio_ctrl) && BIO_meth_set_create(method, tls_bio_create))
        tls_bio_method = method;
    else
        BIO_meth_free(method);
}

BIO *tls_bio_new(struct tls *tls) {
    BIO *bio;

    pthread_once(&tls_bio_once, tls_bio_make);
    bio = tls_bio_method ? BIO_new(tls_bio_method) : NULL;
    if (bio)
        BIO_set_data(bio, tls);
    return bio;
}
