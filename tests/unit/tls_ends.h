/* SPDX-License-Identifier: MIT */
/*
 * tls_ends: the two ends of a TLS connection inside one process, for test_tls*.c. Our conns at both ends of a
 * socketpair, or ours at one end and at the other plain OpenSSL on memory BIOs ("peer"), whose bytes the test carries
 * by hand: so that records can be cut anywhere, and so that a fault in our BIO does not meet the same fault again.
 */
#ifndef MOONGATE_TESTS_TLS_ENDS_H
#define MOONGATE_TESTS_TLS_ENDS_H

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/conn.h"
#include "io/loop.h"
#include "io/tls.h"

#define TURNS 400

static char dir[64];
static char cert_a[128], key_a[128], cert_b[128], key_b[128];
static struct loop *loop;
static char error[TLS_ERROR_MAX];

/* --- set-up --- */

static inline void path_in(char *out, size_t size, const char *name) {
    ck_assert_int_lt(snprintf(out, size, "%s/%s", dir, name), (int)size);
}

static inline void setup(void) {
    static const char *const names_a[] = {"a.example", "*.wild.example", "127.0.0.1", "::1", NULL};
    static const char *const names_b[] = {"B.Example", "deep.wild.example", NULL};

    signal(SIGPIPE, SIG_DFL); /* nothing here may raise it */
    snprintf(dir, sizeof dir, "/tmp/moongate-tls-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    path_in(cert_a, sizeof cert_a, "a.pem");
    path_in(key_a, sizeof key_a, "a.key");
    path_in(cert_b, sizeof cert_b, "b.pem");
    path_in(key_b, sizeof key_b, "b.key");
    ck_assert(tls_make_certificate("a.example", names_a, cert_a, key_a));
    ck_assert(tls_make_certificate("b.example", names_b, cert_b, key_b));
    loop = loop_new();
}

static inline void teardown(void) {
    static const char *const files[] = {"a.pem", "a.key", "b.pem", "b.key", "x.pem", "x.key", "log"};
    char path[128];

    loop_free(&loop);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        path_in(path, sizeof path, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

static inline struct tls_server *server_with(const char *min, const char *const *alpn, const char *session_id) {
    struct tls_certificate certificates[] = {{cert_a, key_a, NULL}, {cert_b, key_b, NULL}};
    struct tls_server_options options = {.certificates = certificates, .certificate_count = 2, .min_version = min,
                                         .alpn = alpn, .session_id = session_id};
    struct tls_server *server = tls_server_new(&options, error);

    ck_assert_msg(server != NULL, "%s", error);
    return server;
}

static inline struct tls_server *server_plain(void) { return server_with("1.2", NULL, "test"); }

static inline struct tls_client *client_with(bool verify, const char *ca) {
    struct tls_client_options options = {.verify = verify, .ca = ca};
    struct tls_client *client = tls_client_new(&options, error);

    ck_assert_msg(client != NULL, "%s", error);
    return client;
}

static inline void on_nothing(struct conn *conn) { (void)conn; }

static inline void pair_open(int fds[2]) {
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static inline struct conn *conn_on(int fd) {
    struct conn *conn = conn_open(loop, fd);

    ck_assert_ptr_nonnull(conn);
    conn_set_owner(conn, NULL, on_nothing);
    return conn;
}

static inline struct conn *server_conn(int fd, const struct tls_server *server) {
    struct conn *conn = conn_on(fd);

    ck_assert(conn_start_tls_server(conn, server));
    return conn;
}

/* Both ends ours; the handshake is not yet done. */
struct ends {
    struct conn *server, *client;
};

static inline struct ends ends_open(const struct tls_server *server, const struct tls_client *client,
                                    const char *name) {
    struct ends ends;
    int fds[2];

    pair_open(fds);
    ends.server = server_conn(fds[0], server);
    ends.client = conn_on(fds[1]);
    ck_assert(conn_start_tls_client(ends.client, client, name));
    return ends;
}

struct outcome {
    enum io server, client;
    char server_text[TLS_ERROR_MAX], client_text[TLS_ERROR_MAX];
};

static inline struct outcome ends_handshake(struct ends *ends) {
    struct outcome out = {IO_AGAIN, IO_AGAIN, "", ""};

    for (int i = 0; i < TURNS && (out.server == IO_AGAIN || out.client == IO_AGAIN); i++) {
        loop_turn(loop, 5);
        if (out.client == IO_AGAIN && (out.client = conn_handshake(ends->client)) != IO_AGAIN)
            snprintf(out.client_text, sizeof out.client_text, "%s", tls_error_text());
        if (out.server == IO_AGAIN && (out.server = conn_handshake(ends->server)) != IO_AGAIN)
            snprintf(out.server_text, sizeof out.server_text, "%s", tls_error_text());
    }
    return out;
}

static inline void ends_close(struct ends *ends) {
    conn_close(&ends->server);
    conn_close(&ends->client);
    loop_turn(loop, 0);
}

static inline enum io read_wait(struct conn *conn, void *data, size_t size, size_t *n) {
    enum io result = conn_read(conn, data, size, n);

    for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
        loop_turn(loop, 5);
        result = conn_read(conn, data, size, n);
    }
    return result;
}

static inline void assert_reads(struct conn *conn, const char *text) {
    char data[256];
    size_t n = 0;

    ck_assert_int_eq(read_wait(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, strlen(text));
    ck_assert_mem_eq(data, text, n);
}

static inline void assert_writes(struct conn *conn, const char *text) {
    size_t n = 0;

    ck_assert_int_eq(conn_write(conn, text, strlen(text), &n), IO_OK);
    ck_assert_uint_eq(n, strlen(text));
}

/* --- the other end in plain OpenSSL --- */

struct peer {
    SSL_CTX *context;
    SSL *ssl;
    int fd;
    int rc;       /* of the last SSL_do_handshake() */
    int tickets;  /* received */
    size_t chunk; /* carry at most this many bytes a time; 0: all */
};

static inline int peer_on_session(SSL *ssl, SSL_SESSION *session) {
    struct peer *peer = SSL_get_app_data(ssl);

    (void)session;
    peer->tickets++;
    return 0;
}

static inline struct peer peer_open(int fd, const char *sni, int max_version, SSL_SESSION *session) {
    struct peer peer = {.fd = fd, .context = SSL_CTX_new(TLS_client_method())};

    SSL_CTX_set_session_cache_mode(peer.context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(peer.context, peer_on_session);
    peer.ssl = SSL_new(peer.context);
    SSL_set_bio(peer.ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(peer.ssl), -1);
    SSL_set_connect_state(peer.ssl);
    if (sni)
        SSL_set_tlsext_host_name(peer.ssl, sni);
    if (max_version)
        SSL_set_max_proto_version(peer.ssl, max_version);
    if (session)
        SSL_set_session(peer.ssl, session);
    return peer;
}

static inline void peer_close(struct peer *peer) {
    SSL_set_shutdown(peer->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else its session may not be resumed */
    SSL_free(peer->ssl);
    SSL_CTX_free(peer->context);
    if (peer->fd >= 0)
        close(peer->fd);
}

/* Carries what the peer has sealed to the socket; at most `most` bytes. */
static inline size_t peer_send(struct peer *peer, size_t most) {
    char data[65536];
    size_t sent = 0;

    while (sent < most) {
        size_t want = most - sent < sizeof data ? most - sent : sizeof data;
        int n = BIO_read(SSL_get_wbio(peer->ssl), data, (int)want);
        if (n <= 0)
            break;
        ck_assert_int_eq(send(peer->fd, data, (size_t)n, MSG_NOSIGNAL), n);
        sent += (size_t)n;
    }
    return sent;
}

static inline void peer_receive(struct peer *peer) {
    char data[65536];
    ssize_t n;

    while ((n = recv(peer->fd, data, sizeof data, MSG_DONTWAIT)) > 0)
        ck_assert_int_eq(BIO_write(SSL_get_rbio(peer->ssl), data, (int)n), n);
}

/* Returns how our end's handshake ended; peer->rc is the peer's. */
static inline enum io peer_handshake(struct peer *peer, struct conn *conn) {
    enum io result = IO_AGAIN;

    SSL_set_app_data(peer->ssl, peer);
    for (int i = 0; i < 20 * TURNS && (result == IO_AGAIN || peer->rc != 1); i++) {
        ERR_clear_error();
        peer->rc = SSL_do_handshake(peer->ssl);
        if (peer->rc != 1 && SSL_get_error(peer->ssl, peer->rc) == SSL_ERROR_SSL && result != IO_AGAIN)
            break;
        peer_send(peer, peer->chunk ? peer->chunk : SIZE_MAX);
        loop_turn(loop, 0);
        if (result == IO_AGAIN)
            result = conn_handshake(conn);
        peer_receive(peer);
        if (result == IO_ERROR || result == IO_EOF) {
            ERR_clear_error();
            peer->rc = SSL_do_handshake(peer->ssl);
            break;
        }
    }
    return result;
}

static inline void peer_write(struct peer *peer, const char *data, size_t size) {
    ck_assert_int_eq(SSL_write(peer->ssl, data, (int)size), (int)size);
}

static inline size_t peer_read(struct peer *peer, char *data, size_t size) {
    size_t n = 0;

    ERR_clear_error();
    SSL_set_app_data(peer->ssl, peer); /* structs move */
    peer_receive(peer);
    return SSL_read_ex(peer->ssl, data, size, &n) == 1 ? n : 0;
}

static inline void peer_assert_name(struct peer *peer, const char *common_name) {
    X509 *x509 = SSL_get1_peer_certificate(peer->ssl);
    char text[128] = "";

    ck_assert_ptr_nonnull(x509);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x509), NID_commonName, text, sizeof text);
    ck_assert_str_eq(text, common_name);
    X509_free(x509);
}

/* A server conn with a peer, handshake done. */
struct duo {
    struct conn *conn;
    struct peer peer;
};

static inline struct duo duo_open(const struct tls_server *server, const char *sni, int max_version,
                                  SSL_SESSION *session) {
    struct duo duo;
    int fds[2];

    pair_open(fds);
    duo.conn = server_conn(fds[0], server);
    duo.peer = peer_open(fds[1], sni, max_version, session);
    ck_assert_int_eq(peer_handshake(&duo.peer, duo.conn), IO_OK);
    ck_assert_int_eq(duo.peer.rc, 1);
    return duo;
}

static inline void duo_close(struct duo *duo) {
    conn_close(&duo->conn);
    peer_close(&duo->peer);
    loop_turn(loop, 0);
}

#endif
