/* SPDX-License-Identifier: MIT */
/* tls_private: what the files of tls.h share among themselves. Nobody else includes it. */
#ifndef MOONGATE_IO_TLS_PRIVATE_H
#define MOONGATE_IO_TLS_PRIVATE_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "io/tls.h"

#define TLS_ALPN_MAX 256 /* bytes of the ALPN list in wire form */
#define TLS_NAME_MAX 253 /* of a DNS name, RFC 1035 section 2.3.4 */
#define TLS_RECORD_MAX 16384 /* bytes of text in a record, RFC 8446 section 5.1 */
#define TLS_RECORD_MORE 1024 /* what sealing adds (at most 261), and the begin of the next that OpenSSL's buffer has room for */
#define TLS_AHEAD_SPENT UINT32_MAX /* tls->ahead: recv() was called and gave something */

struct tls {
    SSL *ssl;
    struct conn *conn;
    struct tls_server *server; /* one of the two */
    struct tls_client *client;
    char *unsent;              /* sealed bytes [unsent_at, unsent_end) that the socket has not taken; NULL: none */
    uint32_t unsent_at, unsent_end;
    uint32_t ahead;    /* how much recv() may take beyond what OpenSSL asks for; 0: nothing */
    int sock_error;    /* errno that ended the socket; sticky, as the kernel reports it once */
    bool gathers : 1;  /* what OpenSSL writes waits for more */
    bool owes : 1;     /* the first byte that is offered next is sealed already */
    bool fin : 1;      /* recv() returned 0 */
    bool asked : 1;    /* our BIO told the call under way to come back later */
    bool drained : 1;  /* no read can go on without more from the socket */
    bool blocked : 1;  /* a read waits until it can write (a key update) */
    bool ended : 1;    /* a read saw the end */
    bool broken : 1;   /* a fatal error: OpenSSL must not be asked for anything more */
    bool untold : 1;   /* ... in a call that could not say so: the next read tells */
};

/* A name (lower case, no trailing dot, "*." in front for a wildcard) and the certificate it selects. */
struct tls_name {
    char *text;
    unsigned index;
};

struct tls_server {
    atomic_uint references; /* the owner's, and one a session: its callbacks come here */
    SSL_CTX **contexts;     /* one a certificate */
    unsigned context_count;
    struct tls_name *names; /* sorted, each once */
    size_t name_count;
    unsigned char alpn[TLS_ALPN_MAX];
    unsigned alpn_size;
};

struct tls_client {
    atomic_uint references;
    SSL_CTX *context;
    bool verify;
};

struct tls_server *tls_server_ref(const struct tls_server *server);
struct tls_client *tls_client_ref(const struct tls_client *client);

/* Writes a sentence into error[TLS_ERROR_MAX], clears OpenSSL's queue, returns false. */
bool tls_context_fail(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* tls_verify.c: the listener's client certificates, and the name under which its sessions may be resumed. */
bool tls_verify_clients(SSL_CTX *context, const struct tls_server_options *options, char *error);
bool tls_verify_name_sessions(SSL_CTX *context, const struct tls_server_options *options, char *error);
const SSL *tls_session(const struct tls *tls);

/* tls_bio.c: what SSL_new()'s session gets as its socket; it is the conn's. NULL when out of memory. */
BIO *tls_bio_new(struct tls *tls);
/*
 * The next recv() takes up to `most` bytes, which wait in a buffer of the thread for OpenSSL to ask for them; there is no
 * second one until tls->ahead is 0 again. All must be asked for, or dropped, before anything else is done on this thread.
 */
void tls_bio_read_ahead(struct tls *tls, size_t most);
bool tls_bio_has_ahead(void);
void tls_bio_drop_ahead(void);
/* What is written between these two leaves together; afterwards the rest is `unsent`, or sock_error stands. Nothing may be unsent before. */
void tls_bio_gather_start(struct tls *tls);
void tls_bio_gather_end(struct tls *tls);
/* Sends what was unsent. True when nothing is left of it; else `asked` or sock_error says why. */
bool tls_bio_flush(struct tls *tls);

/* The reason of the oldest entry in OpenSSL's error queue, in its words; never NULL. */
const char *tls_queue_reason(void);
/* Makes ctx seal and open tickets with the process's key ring. */
void tls_tickets_use(SSL_CTX *context);

#endif
