/* SPDX-License-Identifier: MIT */
/*
 * tls: sessions: handshake, reading, writing, and what they say about themselves. OpenSSL reaches the socket through tls_bio.c.
 *
 * The subtle things: (1) Part of a record may wait inside OpenSSL; SSL_has_pending() then says yes although no read can
 * succeed, and an owner who believed it would spin. `drained` says that OpenSSL has seen all there is and wants more from
 * the socket. (2) What is sealed cannot be taken back when the socket is full. The owner is told that all but the last byte was
 * taken; that byte it keeps, offers again, and so finds out when the rest is out.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "io/conn.h"
#include "io/tls_private.h"

static _Thread_local char tls_text[TLS_ERROR_MAX];

const char *tls_error_text(void) { return tls_text[0] ? tls_text : "no error"; }

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

/* The socket is gone, or OpenSSL has had enough. */
static enum io tls_fail(struct tls *tls) {
    tls->broken = true;
    tls->conn->error = (uint16_t)tls->sock_error;
    if (tls->sock_error)
        tls->conn->failed = true;
    return IO_ERROR;
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
    return tls_fail(tls);
}

/* OpenSSL refuses to say the same error twice, and would rather crash than be asked after one. */
static bool tls_is_broken(struct tls *tls) {
    if (!tls->broken)
        return false;
    tls->untold = false;
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

/* --- reading --- */

bool tls_has_pending(const struct tls *tls) {
    if (tls->broken || tls->ended)
        return tls->untold || tls->ended;
    if (tls->sock_error) /* met while a close_notify was tried, which tells nobody */
        return true;
    return (tls->blocked && tls->conn->writable) || (!tls->drained && SSL_has_pending(tls->ssl));
}

/*
 * How much one recv() may take: the text of all of it must have a place in `size`, as nothing can be put back. A record is
 * larger than its text. What OpenSSL holds already (at most a record and the begin of another) may come on top.
 */
static size_t tls_read_most(const struct tls *tls, size_t size) {
    if (size < 2 * TLS_RECORD_MAX)
        return 0;
    return SSL_has_pending(tls->ssl) ? size - TLS_RECORD_MAX - TLS_RECORD_MORE : size;
}

/* Before each call whose error will be read. The queue is nearly always empty, and clearing an empty one costs six times as much as a look. */
static void tls_clear_errors(void) {
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

/* One record's text, or why there is none. */
static enum io tls_read_one(struct tls *tls, char *data, size_t size, size_t *n) {
    enum io result;

    tls_clear_errors();
    tls->asked = tls->blocked = false;
    if (SSL_read_ex(tls->ssl, data, size, n) == 1)
        return IO_OK;
    *n = 0;
    result = tls_result(tls);
    if (result == IO_EOF)
        tls->ended = true;
    if (result == IO_AGAIN) {
        tls->blocked = SSL_want_write(tls->ssl);
        tls->drained = true; /* only a read knows: a write that waits says nothing of the records that lie inside */
    }
    return result;
}

/* What one recv() brings, or what was inside. */
static enum io tls_read_some(struct tls *tls, char *data, size_t size, size_t *n) {
    size_t most = tls_read_most(tls, size), got;
    enum io result;

    if (most > 0)
        tls_bio_read_ahead(tls, most);
    do {
        result = tls_read_one(tls, data + *n, size - *n, &got);
        *n += got;
    } while (result == IO_OK && *n < size && (tls_bio_has_ahead() || tls_has_pending(tls)));
    assert(!tls_bio_has_ahead() || result != IO_OK);
    tls_bio_drop_ahead();
    tls->ahead = 0;
    return result;
}

enum io tls_read(struct tls *tls, void *data, size_t size, size_t *n) {
    enum io result;

    assert(size > 0);
    *n = 0;
    if (tls_is_broken(tls))
        return IO_ERROR;
    if (tls->ended)
        return IO_EOF;
    if (tls->conn->handshaken && !tls->conn->readable && !tls_has_pending(tls))
        return IO_AGAIN;
    /* Once more when all of it was records that say nothing to our owner: tickets, key updates. */
    do
        result = tls_read_some(tls, data, size, n);
    while (result == IO_AGAIN && *n == 0 && tls->conn->readable && !tls->blocked);
    if (*n == 0)
        return result;
    tls->untold = result == IO_ERROR;
    return IO_OK;
}

/* --- writing --- */

/* The text of the next record: where it lies, or joined from small pieces, so that they share a record and a packet. */
static const char *tls_next_text(const struct iovec *iov, int count, size_t at, char *room, size_t *size) {
    size_t used = 0;
    int i = 0;

    while (at >= iov[i].iov_len)
        at -= iov[i++].iov_len;
    if (i == count - 1 || iov[i].iov_len - at >= TLS_RECORD_MAX) {
        *size = iov[i].iov_len - at < TLS_RECORD_MAX ? iov[i].iov_len - at : TLS_RECORD_MAX;
        return (const char *)iov[i].iov_base + at;
    }
    for (; i < count && used < TLS_RECORD_MAX; i++, at = 0) {
        size_t part = iov[i].iov_len - at < TLS_RECORD_MAX - used ? iov[i].iov_len - at : TLS_RECORD_MAX - used;

        if (part > 0)
            memcpy(room + used, (const char *)iov[i].iov_base + at, part);
        used += part;
    }
    *size = used;
    return room;
}

/* Seals records from `at` on; a record that was sealed but not taken is kept by OpenSSL, which wants at least its bytes again. */
static enum io tls_seal(struct tls *tls, const struct iovec *iov, int count, size_t total, size_t *at) {
    char room[TLS_RECORD_MAX];

    while (*at < total) {
        size_t size, taken = 0;
        const char *text;

        if (!tls->conn->writable)
            return IO_AGAIN;
        text = tls_next_text(iov, count, *at, room, &size);
        tls_clear_errors();
        tls->asked = false;
        if (!SSL_write_ex(tls->ssl, text, size, &taken))
            return tls_result(tls);
        *at += taken;
    }
    return IO_OK;
}

enum io tls_writev(struct tls *tls, const struct iovec *iov, int count, size_t *n) {
    enum io result = IO_OK;
    size_t total = 0;

    *n = 0;
    while (count > 0 && iov[count - 1].iov_len == 0)
        count--;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    assert(total > 0);
    if (tls_is_broken(tls))
        return IO_ERROR;
    if (tls_bio_flush(tls)) {
        *n = tls->owes ? 1 : 0;
        tls->owes = false;
        if (total - *n > TLS_RECORD_MAX)
            tls_bio_gather_start(tls);
        result = tls_seal(tls, iov, count, total, n);
        if (tls->gathers)
            tls_bio_gather_end(tls);
        /* The last byte stays the caller's until all is out: so it knows that this is not the end, and comes back. */
        if (tls->unsent && *n > 0) {
            --*n;
            tls->owes = true;
        }
    }
    if (tls->sock_error && !tls->broken) {
        tls_explain(tls);
        return tls_fail(tls);
    }
    if (*n > 0)
        return IO_OK; /* errors are sticky: the next call has it */
    return result == IO_OK ? IO_AGAIN : result;
}

enum io tls_write(struct tls *tls, const void *data, size_t size, size_t *n) {
    const struct iovec all = {(void *)(uintptr_t)data, size};

    return tls_writev(tls, &all, 1, n);
}

size_t tls_unsent(const struct tls *tls) { return tls->unsent_end - tls->unsent_at; }

bool tls_shutdown(struct tls *tls) {
    if (tls->broken || tls->sock_error || !SSL_is_init_finished(tls->ssl))
        return true;
    if (!tls_bio_flush(tls))
        return true; /* it would stand in the middle of a record */
    ERR_clear_error();
    tls->asked = false;
    bool lives = SSL_shutdown(tls->ssl) >= 0 || tls->asked;
    if (!lives) {
        tls_explain(tls);
        (void)tls_fail(tls);
        tls->untold = true;
    }
    ERR_clear_error();
    return lives;
}

/* --- making and freeing --- */

static struct tls *tls_new(struct conn *conn, SSL_CTX *context) {
    struct tls *tls;
    BIO *bio;

    ERR_clear_error();
    tls = mem_try_alloc(sizeof(*tls));
    if (!tls)
        return NULL;
    *tls = (struct tls){.conn = conn, .ssl = SSL_new(context)};
    bio = tls->ssl ? tls_bio_new(tls) : NULL;
    if (!bio) {
        SSL_free(tls->ssl);
        mem_free(tls);
        return NULL;
    }
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
    mem_free(old->unsent);
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
