/* SPDX-License-Identifier: MIT */
/*
 * conn: one connected socket, plain or TLS. At most 96 bytes; an idle one holds no buffer.
 *
 * Readiness is two flags, cleared on EAGAIN or a short read; RDHUP, HUP and ERR are sticky: once seen,
 * reads go on to 0. on_event() says only "something changed": the owner tries what it wants to do. A conn
 * whose owner stopped with readiness left must be put on the ready list by conn_again().
 * One owner; conn_close() detaches at once and frees at the end of the turn.
 */
#ifndef MOONGATE_IO_CONN_H
#define MOONGATE_IO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/span.h"
#include "io/loop.h"
#include "io/sock.h"
#include "io/tls.h"

struct conn {
    struct loop_source source;
    struct loop *loop;
    void (*on_event)(struct conn *conn); /* NULL: nobody listens (a kept connection has its own) */
    void *owner;
    struct tls *tls;     /* NULL: plain */
    int fd;              /* -1 once closed */
    uint16_t error;      /* errno of the last IO_ERROR, 0 for a TLS one */
    bool readable : 1;   /* a read may give something */
    bool writable : 1;   /* a write may take something */
    bool fin_seen : 1;   /* RDHUP or HUP: the peer has stopped sending (data may be unread) */
    bool failed : 1;     /* ERR: reset, or the kernel gave up */
    bool hup : 1;        /* HUP: both directions are over */
    bool connecting : 1; /* connect() in progress; ends with the first event */
    bool eof : 1;        /* a read returned 0 (TLS: close_notify) */
    bool truncated : 1;  /* TLS only: FIN without close_notify */
    bool shut : 1;       /* we sent FIN (TLS: close_notify) */
    bool handshaken : 1; /* TLS: handshake done; plain: always true */
    bool waits_write : 1; /* a write had to stop once: the loop tells when the next may go on */
    uint8_t untuned : 2; /* writes until the socket's options for streams are due; 0: it has them */
    struct deferred deferred;
};

/* Takes fd over (also on failure, when it closes it and returns NULL with errno set). */
struct conn *conn_open(struct loop *loop, int fd);
/*
 * Starts to connect; NULL with errno set. conn_connected() tells when it is done. To the same host it is done before connect() returns, though
 * that says EINPROGRESS, and a write finds it out without waiting for an event: `early` is what may be sent plainly by such a write
 * (empty: nothing), *taken (may be NULL) how many bytes of it were; more than none: it is connected.
 */
struct conn *conn_connect(struct loop *loop, const struct addr *to, const struct addr *source, struct span early, size_t *taken);
/* IO_OK once connected, IO_AGAIN while under way, IO_ERROR with conn->error. */
enum io conn_connected(struct conn *conn);
void conn_set_owner(struct conn *conn, void *owner, void (*on_event)(struct conn *conn));

/*
 * Turn the conn into a TLS one; before any byte was moved. False when OpenSSL is out of memory.
 * The context must outlive the conn (contexts are reference-counted by OpenSSL inside).
 */
bool conn_start_tls_server(struct conn *conn, const struct tls_server *server);
bool conn_start_tls_client(struct conn *conn, const struct tls_client *client, const char *server_name);
/* Drives the handshake: IO_OK when done (at once for plain), IO_AGAIN, IO_EOF, IO_ERROR (tls_error_text()). */
enum io conn_handshake(struct conn *conn);

/* IO_OK: *n > 0 bytes. IO_EOF: the peer is done (then see truncated). Never blocks. */
enum io conn_read(struct conn *conn, void *data, size_t size, size_t *n);
/*
 * Plain only: what a read would give, left where it is. IO_OK: *n > 0 bytes; readable stands. To see more of what
 * comes, look again after the next event.
 */
enum io conn_peek(struct conn *conn, void *data, size_t size, size_t *n);
/* True when a read may give something without a new event: the readable flag, or data inside TLS. */
bool conn_may_read(const struct conn *conn);
/*
 * IO_OK: *n > 0 bytes were taken (maybe not all; then writable is clear). IO_AGAIN: none, wait for on_event and offer the same again
 * (over TLS they may be sealed already).
 */
enum io conn_write(struct conn *conn, const void *data, size_t size, size_t *n);
/* The same for pieces, not all empty; over TLS small ones share a record. count <= 8. */
enum io conn_writev(struct conn *conn, const struct iovec *iov, int count, size_t *n);
/* TLS: bytes taken and sealed that are not sent yet: when it shrinks, the peer has read. Plain: 0. */
size_t conn_unsent(const struct conn *conn);
/*
 * --- for those who write to conn->fd themselves (tls_bio.c, pipe.c) ---
 * Before a write.
 */
void conn_will_write(struct conn *conn);
/* The socket took less than offered: writable is clear until the loop says otherwise. False with errno set: it never will. */
bool conn_stop_writing(struct conn *conn);
/* FIN after what was written; TLS sends close_notify first. */
void conn_shutdown(struct conn *conn);
/* Calls on_event in the next turn. */
void conn_again(struct conn *conn);
/* Detaches and closes now (TLS: a close_notify is tried unless the conn failed); clears the pointer. NULL inside is fine. */
void conn_close(struct conn **conn);
/* The same, but the peer sees RST: for a message cut short that must not look complete. */
void conn_abort(struct conn **conn);
/* For an idle kept connection: true when nothing has arrived and the peer is still there (a MSG_PEEK). */
bool conn_is_quiet(struct conn *conn);

#endif
