/* SPDX-License-Identifier: MIT */
/* tls_private: what the files of tls.h share among themselves. Nobody else includes it. */
#ifndef MOONGATE_IO_TLS_PRIVATE_H
#define MOONGATE_IO_TLS_PRIVATE_H

#include <openssl/ssl.h>
#include <stdatomic.h>

#include "io/tls.h"

#define TLS_ALPN_MAX 256 /* bytes of the ALPN list in wire form */
#define TLS_NAME_MAX 253 /* of a DNS name, RFC 1035 section 2.3.4 */

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

/* The reason of the oldest entry in OpenSSL's error queue, in its words; never NULL. */
const char *tls_queue_reason(void);
/* Makes ctx seal and open tickets with the process's key ring. */
void tls_tickets_use(SSL_CTX *context);

#endif
