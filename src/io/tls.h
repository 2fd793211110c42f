/* SPDX-License-Identifier: MIT */
/*
 * tls: OpenSSL behind a BIO of our own over the conn's socket. Contexts are made when a configuration
 * loads, shared by all workers, and immutable; sessions belong to their conn's thread.
 * TLS 1.2 and 1.3, AEAD suites only; no compression, renegotiation or early data; tickets from one
 * key ring for the whole process, so that any worker and any generation can resume.
 */
#ifndef MOONGATE_IO_TLS_H
#define MOONGATE_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/arena.h"
#include "base/span.h"
#include "io/sock.h"

struct conn;
struct tls;        /* one session; private to conn.c and tls.c */
struct tls_server; /* a listener's certificates, by SNI */
struct tls_client; /* how to reach servers of one pool */

#define TLS_ERROR_MAX 256

struct tls_certificate {
    const char *cert; /* path of a PEM chain */
    const char *key;  /* path of its PEM key */
    const char *name; /* SNI it is for ("a.example", "*.example"); NULL: from the certificate's own names */
};

/* Who hears that a certificate is out of date; say NULL: the log. */
struct tls_warn {
    void (*say)(void *owner, const char *text);
    void *owner;
};

/* What clients are asked for. */
enum tls_client_cert {
    TLS_CLIENT_CERT_NONE,
    TLS_CLIENT_CERT_ASK,    /* none, or any: tls_peer_cert() says what it is worth */
    TLS_CLIENT_CERT_REQUIRE /* a valid one, or the handshake fails */
};

struct tls_server_options {
    const struct tls_certificate *certificates; /* the first is the default */
    unsigned certificate_count;
    const char *min_version;   /* "1.2" or "1.3" */
    const char *const *alpn;   /* ends with NULL, in order of preference; NULL: "http/1.1" */
    const char *session_id;    /* distinguishes listeners for resumption (requirements C19) */
    enum tls_client_cert client_cert;
    const char *client_ca;     /* PEM file of who may sign them; needed unless NONE */
    struct tls_warn warn;
};

/* Loads everything; NULL with a sentence in error[TLS_ERROR_MAX] that names the file and why. Reference count 1. */
struct tls_server *tls_server_new(const struct tls_server_options *options, char *error);
void tls_server_free(struct tls_server **server);
/* SNI: exact, then one-label wildcard, then the default: index into certificates. For tests and check. */
unsigned tls_server_select(const struct tls_server *server, struct span sni);

struct tls_client_options {
    bool verify;          /* chain and name; default on */
    const char *ca;       /* PEM file instead of the system's store; NULL: the system's */
    const char *cert, *key; /* PEM files of ours, for servers that ask; NULL: none */
    struct tls_warn warn;
};
struct tls_client *tls_client_new(const struct tls_client_options *options, char *error);
void tls_client_free(struct tls_client **client);

/* Of an established session; texts live as long as the session or are static. "" when there is none. */
const char *tls_sni(const struct tls *tls);
struct span tls_alpn(const struct tls *tls);
const char *tls_version(const struct tls *tls);
const char *tls_cipher(const struct tls *tls);
bool tls_resumed(const struct tls *tls);

/* A certificate in words. Texts are ASCII without control characters. */
struct tls_cert {
    struct span subject, issuer;   /* as RFC 2253 has them: "CN=alice,O=Example" */
    struct span serial;            /* upper-case hex */
    struct span fingerprint;       /* SHA-256 of all of it, lower-case hex */
    int64_t not_before, not_after; /* seconds since 1970 */
    struct span *san;              /* "DNS:a.example" "IP:::1" "email:a@b" "URI:..."; other kinds are left out */
    unsigned san_count;
    bool verified;                 /* signed by one of client_ca, for this use, and valid when the session began */
};
/* The client's, made in arena; NULL without one, and when memory is out. */
const struct tls_cert *tls_peer_cert(const struct tls *tls, struct arena *arena);
/* Why the last call on this thread failed ("certificate verify failed: ..."); static per thread. */
const char *tls_error_text(void);

/* The process's ticket keys: previous, current, next. Makes them once; rotate is called by the control thread. */
void tls_tickets_init(void);
void tls_tickets_rotate(void);

/*
 * A self-signed P-256 certificate for names, written as PEM (0600) to the two paths; for the demo and tests.
 * False with errno or an OpenSSL error.
 */
bool tls_make_certificate(const char *common_name, const char *const *names, const char *cert_path,
                          const char *key_path);

/*
 * --- for conn.c --- The BIO reads and writes conn->fd itself and keeps conn's readable and writable flags by the
 * rules of conn.h: no system call while the flag is clear; EAGAIN clears it, a short read clears readable unless
 * fin_seen. Errors are sticky and set conn->error (0 for a TLS one); a broken socket sets conn->failed.
 */
/* NULL when out of memory; for clients also when verification is on and server_name gives nothing to verify. */
struct tls *tls_new_server(struct conn *conn, const struct tls_server *server);
struct tls *tls_new_client(struct conn *conn, const struct tls_client *client, const char *server_name);
void tls_free(struct tls **tls);
enum io tls_handshake(struct tls *tls);
/* IO_EOF on close_notify, and on FIN without it (then conn->truncated is set). */
enum io tls_read(struct tls *tls, void *data, size_t size, size_t *n);
/*
 * Seals record by record until the socket is full; several share a system call. What is sealed and not sent is kept, about
 * 64 KiB at most. As long as there is some, the last byte of it counts as not taken. After IO_AGAIN the next call must offer at
 * least the same bytes, from any address (they may be sealed already); fewer is IO_ERROR.
 */
enum io tls_write(struct tls *tls, const void *data, size_t size, size_t *n);
/* The same for pieces. Small ones share a record. */
enum io tls_writev(struct tls *tls, const struct iovec *iov, int count, size_t *n);
/* Sealed bytes that the socket has not taken: when it shrinks, the peer has read. */
size_t tls_unsent(const struct tls *tls);
/* Bytes, or an end, inside: a read may give something without a new event. */
bool tls_has_pending(const struct tls *tls);
/* One try to send close_notify. False: the session died of it, and tls_read() tells so; no event does. */
bool tls_shutdown(struct tls *tls);

#endif
