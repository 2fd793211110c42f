/* SPDX-License-Identifier: MIT */
/*
 * tls: sessions, and the BIO through which OpenSSL reaches the socket.
 *
 * The BIO of our own is smaller than OpenSSL's and knows the conn's readiness flags: while a flag is clear there is no
 * system call, and a short recv() clears `readable`, which together with read-ahead makes one recv() a record.
 * The subtle things: (1) The BIO never reports EOF to OpenSSL's BIO_eof(), so that a FIN without close_notify stays
 * an I/O result (truncated) instead of a broken session: the other direction may still be written. (2) Read-ahead may
 * leave part of a record inside; SSL_has_pending() then says yes although no read can succeed, and an owner who
 * believed it would spin. `drained` says that OpenSSL has seen all there is and wants more from the socket.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "base/str.h"
#include "io/conn.h"
#include "io/tls_private.h"

#define TLS_RECORD_MAX 16384 /* RFC 8446 section 5.1 */

struct tls {
    SSL *ssl;
    struct conn *conn;
    struct tls_server *server; /* one of the two */
    struct tls_client *client;
    int sock_error;   /* errno that ended the socket; sticky, as the kernel reports it once */
    bool fin : 1;     /* recv() returned 0 */
    bool asked : 1;   /* our BIO told the call under way to come back later */
    bool drained : 1; /* no read can go on without more from the socket */
    bool broken : 1;  /* a fatal error: OpenSSL must not be asked for anything more */
};

static _Thread_local char tls_text[TLS_ERROR_MAX];

const char *tls_error_text(void) { return tls_text[0] ? tls_text : "no error"; }

/* --- the BIO --- */

static BIO_METHOD *tls_bio_method;
static pthread_once_t tls_bio_once = PTHREAD_ONCE_INIT;

static int tls_bio_read(BIO *bio, char *data, int size) {
    struct tls *tls = BIO_get_data(bio);
    struct conn *conn = tls->conn;
    ssize_t got;

    BIO_clear_retry_flags(bio);
    if (size <= 0 || tls->sock_error)
        return -1;
    if (conn->readable) {
        do
            got = recv(conn->fd, data, (size_t)size, MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        if (got > 0) {
            if (got < size && !conn->fin_seen)
                conn->readable = false;
            tls->drained = false;
            return (int)got;
        }
        if (got == 0) {
            tls->fin = true;
            return 0;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            tls->sock_error = errno;
            return -1;
        }
        conn->readable = false;
    }
    tls->asked = true;
    BIO_set_retry_read(bio);
    return -1;
}

static int tls_bio_write(BIO *bio, const char *data, int size) {
    struct tls *tls = BIO_get_data(bio);
    struct conn *conn = tls->conn;
    ssize_t sent;

    BIO_clear_retry_flags(bio);
    if (size <= 0 || tls->sock_error)
        return -1;
    if (conn->writable) {
        do
            sent = send(conn->fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        if (sent >= 0) {
            if (sent < size)
                conn->writable = false;
            tls->drained = false;
            return (int)sent;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            tls->sock_error = errno;
            return -1;
        }
        conn->writable = false;
    }
    tls->asked = true;
    BIO_set_retry_write(bio);
    return -1;
}

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

/* --- results --- */

/* What the last failed call on this thread is called in a log line. */
static void tls_explain(const struct tls *tls) {
    const char *reason;
    long verify;

    if (tls->sock_error) {
        snprintf(tls_text, sizeof(tls_text), "%s", strerror(tls->sock_error));
        return;
    }
    if (ERR_peek_error() == 0) {
        snprintf(tls_text, sizeof(tls_text), "%s",
                 !tls->fin                  ? "connection broken"
                 : tls->conn->handshaken    ? "connection closed without close_notify"
                                            : "connection closed during the handshake");
        return;
    }
    reason = tls_queue_reason();
    verify = SSL_get_verify_result(tls->ssl);
    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK)
        snprintf(tls_text, sizeof(tls_text), "%s: %s", reason, X509_verify_cert_error_string(verify));
    else
        snprintf(tls_text, sizeof(tls_text), "%s", reason);
}

/* Turns a failed OpenSSL call into ours. */
static enum io tls_result(struct tls *tls) {
    switch (SSL_get_error(tls->ssl, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        /*
         * A session that died in an earlier call (no memory for a close_notify) goes by what the BIO said then, and would
         * have us wait for ever.
         */
        if (!tls->asked)
            break;
        return IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return IO_EOF;
    default:
        break;
    }
    tls_explain(tls);
    if (tls->fin && !tls->sock_error &&
        (ERR_peek_error() == 0 || ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)) {
        tls->conn->truncated = true;
        return IO_EOF;
    }
    tls->broken = true;
    tls->conn->error = (uint16_t)tls->sock_error;
    if (tls->sock_error)
        tls->conn->failed = true;
    return IO_ERROR;
}

/* OpenSSL refuses to say the same error twice, and would rather crash than be asked after one. */
static bool tls_is_broken(const struct tls *tls) {
    if (!tls->broken)
        return false;
    tls->conn->error = (uint16_t)tls->sock_error;
    return true;
}

enum io tls_handshake(struct tls *tls) {
    if (tls_is_broken(tls))
        return IO_ERROR;
    ERR_clear_error();
    tls->asked = false;
    if (SSL_do_handshake(tls->ssl) == 1) {
        tls->conn->handshaken = true;
        return IO_OK;
    }
    return tls_result(tls);
}

enum io tls_read(struct tls *tls, void *data, size_t size, size_t *n) {
    assert(size > 0);
    *n = 0;
    if (tls_is_broken(tls))
        return IO_ERROR;
    ERR_clear_error();
    tls->asked = false;
    if (SSL_read_ex(tls->ssl, data, size, n) == 1)
        return IO_OK;
    enum io result = tls_result(tls);
    /* Only a read knows: a write that has to wait says nothing of the records that lie inside. */
    tls->drained = result == IO_AGAIN;
    return result;
}

enum io tls_write(struct tls *tls, const void *data, size_t size, size_t *n) {
    assert(size > 0);
    *n = 0;
    if (tls_is_broken(tls))
        return IO_ERROR;
    while (*n < size) {
        size_t left = size - *n, taken = 0;
        enum io result;

        /* A record that was sealed but not sent is kept by OpenSSL; it wants at least its bytes again. */
        ERR_clear_error();
        tls->asked = false;
        if (SSL_write_ex(tls->ssl, (const char *)data + *n, left < TLS_RECORD_MAX ? left : TLS_RECORD_MAX, &taken)) {
            *n += taken;
            continue;
        }
        result = tls_result(tls);
        return *n > 0 ? IO_OK : result; /* errors are sticky: the next call has it */
    }
    return IO_OK;
}

bool tls_has_pending(const struct tls *tls) { return !tls->drained && !tls->broken && SSL_has_pending(tls->ssl); }

void tls_shutdown(struct tls *tls) {
    if (tls->broken || tls->sock_error || !SSL_is_init_finished(tls->ssl))
        return;
    ERR_clear_error();
    (void)SSL_shutdown(tls->ssl); /* should the session die of it, the next call is told by `asked` */
    ERR_clear_error();
}

/* --- making and freeing --- */

static struct tls *tls_new(struct conn *conn, SSL_CTX *context) {
    struct tls *tls;
    BIO *bio;

    ERR_clear_error();
    pthread_once(&tls_bio_once, tls_bio_make);
    if (!tls_bio_method || (tls = mem_try_alloc(sizeof(*tls))) == NULL)
        return NULL;
    *tls = (struct tls){.conn = conn, .ssl = SSL_new(context)};
    bio = tls->ssl ? BIO_new(tls_bio_method) : NULL;
    if (!bio) {
        SSL_free(tls->ssl);
        mem_free(tls);
        return NULL;
    }
    BIO_set_data(bio, tls);
    SSL_set_bio(tls->ssl, bio, bio);
    return tls;
}

struct tls *tls_new_server(struct conn *conn, const struct tls_server *server) {
    struct tls *tls = tls_new(conn, server->contexts[0]);

    if (tls) {
        tls->server = tls_server_ref(server);
        SSL_set_accept_state(tls->ssl);
    }
    return tls;
}

/* Name or address to expect; SNI carries names only (RFC 6066 section 3). */
static bool tls_expect_name(struct tls *tls, const char *server_name, bool verify) {
    struct span name = span_of(server_name);
    unsigned char address[sizeof(struct in6_addr)];
    char text[TLS_NAME_MAX + 1];

    if (name.n >= 2 && name.p[0] == '[' && name.p[name.n - 1] == ']')
        name = span_make(name.p + 1, name.n - 2);
    if (name.n > 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n == 0)
        return !verify; /* nothing to verify against: refuse rather than take any certificate */
    if (!str_copy(text, sizeof(text), name))
        return false;
    if (inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), text) == 1;
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, text) == 1 && SSL_set_tlsext_host_name(tls->ssl, text) == 1;
}

struct tls *tls_new_client(struct conn *conn, const struct tls_client *client, const char *server_name) {
    struct tls *tls = tls_new(conn, client->context);

    if (!tls)
        return NULL;
    tls->client = tls_client_ref(client);
    SSL_set_connect_state(tls->ssl);
    if (!tls_expect_name(tls, server_name, client->verify)) {
        snprintf(tls_text, sizeof(tls_text), "no usable name to verify the server by");
        tls_free(&tls);
    }
    return tls;
}

void tls_free(struct tls **tls) {
    struct tls *old = *tls;

    *tls = NULL;
    if (!old)
        return;
    SSL_free(old->ssl);
    tls_server_free(&old->server);
    tls_client_free(&old->client);
    mem_free(old);
}

/* --- what a session says about itself --- */

const char *tls_sni(const struct tls *tls) {
    const char *name = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);

    return name ? name : "";
}

struct span tls_alpn(const struct tls *tls) {
    const unsigned char *name;
    unsigned size;

    SSL_get0_alpn_selected(tls->ssl, &name, &size);
    return span_make((const char *)name, size);
}

const char *tls_version(const struct tls *tls) {
    return SSL_is_init_finished(tls->ssl) ? SSL_get_version(tls->ssl) : "";
}

const char *tls_cipher(const struct tls *tls) {
    return SSL_is_init_finished(tls->ssl) ? SSL_get_cipher_name(tls->ssl) : "";
}

const SSL *tls_session(const struct tls *tls) { return tls->ssl; }

bool tls_resumed(const struct tls *tls) { return SSL_session_reused(tls->ssl) == 1; }
