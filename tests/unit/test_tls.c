/* SPDX-License-Identifier: MIT */
/* What a handshake settles: versions, SNI, ALPN, tickets, verification; and the files that contexts are made from. */
#include "tls_ends.h"

/* --- handshakes --- */

START_TEST(handshake_13_verified_both_ways) {
    struct tls_server *server = server_plain();
    struct tls_client *client = client_with(true, cert_a);
    struct ends ends = ends_open(server, client, "A.example.");
    struct outcome out = ends_handshake(&ends);

    ck_assert_msg(out.client == IO_OK && out.server == IO_OK, "%s / %s", out.client_text, out.server_text);
    ck_assert_str_eq(tls_version(ends.server->tls), "TLSv1.3");
    ck_assert_str_eq(tls_version(ends.client->tls), "TLSv1.3");
    ck_assert_str_eq(tls_cipher(ends.server->tls), tls_cipher(ends.client->tls));
    ck_assert_str_eq(tls_sni(ends.server->tls), "A.example");
    ck_assert(span_equal(tls_alpn(ends.server->tls), SPAN("http/1.1")));
    ck_assert(!tls_resumed(ends.server->tls));
    assert_writes(ends.client, "to the server");
    assert_reads(ends.server, "to the server");
    assert_writes(ends.server, "to the client");
    assert_reads(ends.client, "to the client");
    ends_close(&ends);
    tls_server_free(&server);
    tls_client_free(&client);
}
END_TEST

START_TEST(handshake_survives_free_of_contexts) {
    struct tls_server *server = server_plain();
    struct tls_client *client = client_with(true, cert_b);
    struct ends ends = ends_open(server, client, "b.example");
    struct outcome out;

    tls_server_free(&server);
    tls_client_free(&client);
    ck_assert_ptr_null(server);
    out = ends_handshake(&ends);
    ck_assert_msg(out.client == IO_OK && out.server == IO_OK, "%s / %s", out.client_text, out.server_text);
    ends_close(&ends);
}
END_TEST

START_TEST(handshake_12_uses_aead_and_refuses_the_rest) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", TLS1_2_VERSION, NULL);
    struct conn *conn;
    struct peer peer;
    int fds[2];

    ck_assert_str_eq(tls_version(duo.conn->tls), "TLSv1.2");
    ck_assert_int_eq(SSL_CIPHER_is_aead(SSL_get_current_cipher(duo.peer.ssl)), 1);
    duo_close(&duo);

    pair_open(fds);
    conn = server_conn(fds[0], server);
    peer = peer_open(fds[1], "a.example", TLS1_2_VERSION, NULL);
    ck_assert_int_eq(SSL_set_cipher_list(peer.ssl, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384"), 1);
    ck_assert_int_eq(peer_handshake(&peer, conn), IO_ERROR);
    ck_assert_str_eq(tls_error_text(), "no shared cipher");
    ck_assert_int_eq(conn->error, 0);
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);
}
END_TEST

START_TEST(handshake_obeys_min_version) {
    struct tls_server *server = server_with("1.3", NULL, "test");
    struct conn *conn;
    struct peer peer;
    int fds[2];

    pair_open(fds);
    conn = server_conn(fds[0], server);
    peer = peer_open(fds[1], "a.example", TLS1_2_VERSION, NULL);
    ck_assert_int_eq(peer_handshake(&peer, conn), IO_ERROR);
    ck_assert_str_eq(tls_error_text(), "unsupported protocol");
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);
}
END_TEST

START_TEST(handshake_cut_at_every_byte) {
    struct tls_server *server = server_plain();
    struct conn *conn;
    struct peer peer;
    int fds[2];

    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        pair_open(fds);
        conn = server_conn(fds[0], server);
        peer = peer_open(fds[1], "b.example", version, NULL);
        peer.chunk = 1;
        ck_assert_int_eq(peer_handshake(&peer, conn), IO_OK);
        peer_assert_name(&peer, "b.example");
        conn_close(&conn);
        peer_close(&peer);
    }
    tls_server_free(&server);
}
END_TEST

START_TEST(handshake_refuses_plain_text) {
    struct tls_server *server = server_plain();
    struct conn *conn;
    enum io result = IO_AGAIN;
    int fds[2];

    pair_open(fds);
    conn = server_conn(fds[0], server);
    ck_assert_int_eq(write(fds[1], "GET / HTTP/1.1\r\n\r\n", 18), 18);
    for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
        loop_turn(loop, 5);
        result = conn_handshake(conn);
    }
    ck_assert_int_eq(result, IO_ERROR);
    ck_assert_str_eq(tls_error_text(), "http request");
    ck_assert_int_eq(conn_handshake(conn), IO_ERROR);
    conn_close(&conn);
    close(fds[1]);
    tls_server_free(&server);
}
END_TEST

START_TEST(handshake_cut_short_is_eof) {
    struct tls_server *server = server_plain();
    struct conn *conn;
    enum io result = IO_AGAIN;
    int fds[2];

    pair_open(fds);
    conn = server_conn(fds[0], server);
    ck_assert_int_eq(write(fds[1], "\x16\x03\x01\x02", 4), 4);
    close(fds[1]);
    for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
        loop_turn(loop, 5);
        result = conn_handshake(conn);
    }
    ck_assert_int_eq(result, IO_EOF);
    ck_assert_str_eq(tls_error_text(), "connection closed during the handshake");
    conn_close(&conn);
    tls_server_free(&server);
}
END_TEST

START_TEST(renegotiation_is_refused) {
    struct tls_server *server = server_plain();
    struct duo duo = duo_open(server, "a.example", TLS1_2_VERSION, NULL);
    char data[64];
    size_t n;

    ck_assert_int_eq(SSL_renegotiate(duo.peer.ssl), 1);
    SSL_do_handshake(duo.peer.ssl);
    peer_send(&duo.peer, SIZE_MAX);
    loop_turn(loop, 5);
    ck_assert_int_ne(conn_read(duo.conn, data, sizeof data, &n), IO_OK);
    peer_receive(&duo.peer);
    ERR_clear_error();
    ck_assert_int_ne(SSL_do_handshake(duo.peer.ssl), 1);
    ck_assert_int_eq(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    duo_close(&duo);
    tls_server_free(&server);
}
END_TEST

/* --- SNI and ALPN --- */

START_TEST(sni_exact_then_wildcard_then_default) {
    static const struct {
        const char *sni;
        unsigned index;
    } cases[] = {
        {"a.example", 0}, {"b.example", 1}, {"B.EXAMPLE.", 1}, {"x.wild.example", 0}, {"deep.wild.example", 1},
        {"x.y.wild.example", 0}, {"wild.example", 0}, {"other", 0}, {"", 0}, {".", 0}, {"b.example\xff", 0},
        {".wild.example", 0},
    };
    struct tls_certificate certificates[] = {
        {cert_b, key_b, "first.example"}, {cert_a, key_a, NULL}, {cert_b, key_b, "*.z"}};
    struct tls_server_options options = {.certificates = certificates, .certificate_count = 3};
    struct tls_server *server = server_plain();
    char big[400];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(tls_server_select(server, span_of(cases[i].sni)) == cases[i].index, "%s", cases[i].sni);
    memset(big, 'a', sizeof big);
    ck_assert_uint_eq(tls_server_select(server, span_make(big, sizeof big)), 0);
    tls_server_free(&server);

    server = tls_server_new(&options, error);
    ck_assert_msg(server != NULL, "%s", error);
    ck_assert_uint_eq(tls_server_select(server, SPAN("a.example")), 1);
    ck_assert_uint_eq(tls_server_select(server, SPAN("q.wild.example")), 1);
    ck_assert_uint_eq(tls_server_select(server, SPAN("x.y.wild.example")), 0);
    ck_assert_uint_eq(tls_server_select(server, SPAN("b.example")), 0); /* its given name replaces its own */
    ck_assert_uint_eq(tls_server_select(server, SPAN("a.z")), 2);
    tls_server_free(&server);
}
END_TEST

START_TEST(sni_common_name_is_the_fallback) {
    char cert[128], key[128];
    struct tls_certificate certificates[] = {{cert_a, key_a, NULL}, {cert, key, NULL}};
    struct tls_server_options options = {.certificates = certificates, .certificate_count = 2, .session_id = "test"};
    struct tls_server *server;

    path_in(cert, sizeof cert, "x.pem");
    path_in(key, sizeof key, "x.key");
    ck_assert(tls_make_certificate("only-cn.example", NULL, cert, key));
    server = tls_server_new(&options, error);
    ck_assert_ptr_nonnull(server);
    ck_assert_uint_eq(tls_server_select(server, SPAN("only-cn.example")), 1);
    tls_server_free(&server);
}
END_TEST

START_TEST(sni_selects_the_certificate_of_the_handshake) {
    static const struct {
        const char *sni, *name;
    } cases[] = {{"b.example", "b.example"},
                 {"x.wild.example", "a.example"},
                 {"none.example", "a.example"},
                 {NULL, "a.example"}};
    struct tls_server *server = server_plain();

    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct duo duo = duo_open(server, cases[i].sni, version, NULL);
            peer_assert_name(&duo.peer, cases[i].name);
            ck_assert_str_eq(tls_sni(duo.conn->tls), cases[i].sni ? cases[i].sni : "");
            duo_close(&duo);
        }
    }
    tls_server_free(&server);
}
END_TEST

START_TEST(alpn_by_our_preference_or_alert) {
    static const char *const protocols[] = {"h2", "http/1.1", NULL};
    struct tls_server *server = server_with("1.2", protocols, "test");
    struct conn *conn;
    struct peer peer;
    int fds[2];

    pair_open(fds);
    conn = server_conn(fds[0], server);
    peer = peer_open(fds[1], NULL, 0, NULL);
    SSL_set_alpn_protos(peer.ssl, (const unsigned char *)"\x03xyz\x08http/1.1\x02h2", 16);
    ck_assert_int_eq(peer_handshake(&peer, conn), IO_OK);
    ck_assert(span_equal(tls_alpn(conn->tls), SPAN("h2")));
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);

    server = server_plain();
    pair_open(fds);
    conn = server_conn(fds[0], server);
    peer = peer_open(fds[1], NULL, 0, NULL);
    SSL_set_alpn_protos(peer.ssl, (const unsigned char *)"\x02h2", 3);
    ck_assert_int_eq(peer_handshake(&peer, conn), IO_ERROR);
    ck_assert_str_eq(tls_error_text(), "no application protocol");
    ck_assert_int_eq(ERR_GET_REASON(ERR_peek_error()), SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
    conn_close(&conn);
    peer_close(&peer);
    tls_server_free(&server);
}
END_TEST

/* --- tickets --- */

/* The session that a full handshake leaves with the client. */
static SSL_SESSION *session_from(const struct tls_server *server, int version, int *tickets) {
    struct duo duo = duo_open(server, "a.example", version, NULL);
    SSL_SESSION *session;
    char data[16];

    ck_assert_int_eq(SSL_session_reused(duo.peer.ssl), 0);
    assert_writes(duo.conn, "x");
    ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 1); /* reads the ticket of TLS 1.3 on its way */
    *tickets = duo.peer.tickets;
    session = SSL_get1_session(duo.peer.ssl);
    duo_close(&duo);
    return session;
}

static bool session_resumes(const struct tls_server *server, int version, SSL_SESSION *session) {
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    struct duo duo = duo_open(server, "a.example", version, copy);
    bool resumed = SSL_session_reused(duo.peer.ssl) == 1;

    ck_assert_int_eq(tls_resumed(duo.conn->tls), resumed);
    SSL_SESSION_free(copy);
    duo_close(&duo);
    return resumed;
}

START_TEST(tickets_resume_across_contexts_and_one_rotation) {
    int version = _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, tickets = 0;
    struct tls_server *server = server_plain(), *reloaded = server_plain();
    struct tls_server *other = server_with("1.2", NULL, "other listener");
    SSL_SESSION *session;

    tls_tickets_init();
    session = session_from(server, version, &tickets);
    ck_assert_int_eq(tickets, 1);
    ck_assert(session_resumes(server, version, session));
    ck_assert(session_resumes(reloaded, version, session));
    ck_assert(!session_resumes(other, version, session));
    tls_tickets_rotate();
    ck_assert(session_resumes(server, version, session));
    tls_tickets_rotate();
    ck_assert(!session_resumes(server, version, session));
    SSL_SESSION_free(session);
    tls_server_free(&server);
    tls_server_free(&reloaded);
    tls_server_free(&other);
}
END_TEST

/* --- verification --- */

static struct outcome outcome_of(const struct tls_server *server, bool verify, const char *ca, const char *name) {
    struct tls_client *client = client_with(verify, ca);
    struct ends ends = ends_open(server, client, name);
    struct outcome out = ends_handshake(&ends);

    ends_close(&ends);
    tls_client_free(&client);
    return out;
}

START_TEST(verification_of_chain_and_name) {
    struct tls_server *server = server_plain();
    struct outcome out = outcome_of(server, true, NULL, "a.example");

    ck_assert_int_eq(out.client, IO_ERROR);
    ck_assert_str_eq(out.client_text, "certificate verify failed: self-signed certificate");
    ck_assert_int_eq(out.server, IO_ERROR);
    ck_assert_str_eq(out.server_text, "tlsv1 alert unknown ca");

    out = outcome_of(server, true, cert_b, "a.example");
    ck_assert_int_eq(out.client, IO_ERROR);
    out = outcome_of(server, true, cert_a, "c.example");
    ck_assert_int_eq(out.client, IO_ERROR);
    ck_assert_str_eq(out.client_text, "certificate verify failed: hostname mismatch");
    out = outcome_of(server, true, cert_a, "127.0.0.2");
    ck_assert_int_eq(out.client, IO_ERROR);
    ck_assert_str_eq(out.client_text, "certificate verify failed: IP address mismatch");
    out = outcome_of(server, true, cert_a, "any.wild.example");
    ck_assert_int_eq(out.client, IO_OK);
    out = outcome_of(server, false, NULL, "c.example");
    ck_assert_int_eq(out.client, IO_OK);
    out = outcome_of(server, false, NULL, NULL);
    ck_assert_int_eq(out.client, IO_OK);
    tls_server_free(&server);
}
END_TEST

START_TEST(verification_by_address_sends_no_sni) {
    static const char *const names[] = {"127.0.0.1", "::1", "[::1]"};
    struct tls_server *server = server_plain();
    struct tls_client *client = client_with(true, cert_a);

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct ends ends = ends_open(server, client, names[i]);
        struct outcome out = ends_handshake(&ends);
        ck_assert_msg(out.client == IO_OK && out.server == IO_OK, "%s: %s", names[i], out.client_text);
        ck_assert_str_eq(tls_sni(ends.server->tls), "");
        ends_close(&ends);
    }
    tls_server_free(&server);
    tls_client_free(&client);
}
END_TEST

START_TEST(verification_needs_a_name) {
    struct tls_client *client = client_with(true, cert_a);
    struct conn *conn;
    int fds[2];

    pair_open(fds);
    conn = conn_on(fds[0]);
    ck_assert(!conn_start_tls_client(conn, client, NULL));
    ck_assert(!conn_start_tls_client(conn, client, ""));
    conn_close(&conn);
    close(fds[1]);
    tls_client_free(&client);
}
END_TEST

/* --- files --- */

static void assert_refused(const char *cert, const char *key, const char *why) {
    struct tls_certificate certificate = {cert, key, NULL};
    struct tls_server_options options = {.certificates = &certificate, .certificate_count = 1, .session_id = "test"};

    error[0] = 0;
    ck_assert_ptr_null(tls_server_new(&options, error));
    ck_assert_msg(strstr(error, why) != NULL, "\"%s\" lacks \"%s\"", error, why);
}

START_TEST(bad_files_are_named) {
    struct tls_client_options client = {.verify = true, .ca = "/nonexistent/ca.pem"};
    struct tls_certificate certificate = {cert_a, key_a, NULL};
    struct tls_server_options options = {
        .certificates = &certificate, .certificate_count = 1, .min_version = "1.1", .session_id = "test"};
    char path[128], message[300];
    FILE *file;

    assert_refused("/nonexistent/c.pem", key_a, "cannot read certificate /nonexistent/c.pem: No such file");
    assert_refused(cert_a, "/nonexistent/k.pem", "cannot read key /nonexistent/k.pem: No such file or directory");
    snprintf(message, sizeof message, "key %s does not belong to certificate %s", key_b, cert_a);
    assert_refused(cert_a, key_b, message);
    snprintf(message, sizeof message, "certificate %s: no PEM certificate in it", key_a);
    assert_refused(key_a, key_a, message);
    snprintf(message, sizeof message, "key %s: no PEM private key in it", cert_a);
    assert_refused(cert_a, cert_a, message);

    path_in(path, sizeof path, "x.key");
    file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    ck_assert_int_eq(PEM_write_PKCS8PrivateKey(file, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL), 1);
    EVP_PKEY_free(key);
    fclose(file);
    assert_refused(cert_a, path, "is encrypted");

    ck_assert_ptr_null(tls_client_new(&client, error));
    ck_assert_ptr_nonnull(strstr(error, "cannot read CA file /nonexistent/ca.pem: No such file"));
    client.ca = key_a;
    ck_assert_ptr_null(tls_client_new(&client, error));
    ck_assert_ptr_nonnull(strstr(error, key_a));
    ck_assert_ptr_null(tls_server_new(&options, error));
    ck_assert_ptr_nonnull(strstr(error, "1.1"));
}
END_TEST

START_TEST(expired_certificates_are_warned_of) {
    char cert[128], log[128], text[4096];
    struct tls_certificate certificate = {cert, key_a, NULL};
    struct tls_server_options options = {.certificates = &certificate, .certificate_count = 1, .session_id = "test"};
    struct tls_server *server;
    EVP_PKEY *key;
    X509 *x509;
    FILE *file;
    size_t n;
    int fd, saved;

    path_in(cert, sizeof cert, "x.pem");
    path_in(log, sizeof log, "log");
    file = fopen(cert_a, "r");
    x509 = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    file = fopen(key_a, "r");
    key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    X509_gmtime_adj(X509_getm_notBefore(x509), -7200);
    X509_gmtime_adj(X509_getm_notAfter(x509), -3600);
    ck_assert_int_gt(X509_sign(x509, key, EVP_sha256()), 0);
    file = fopen(cert, "w");
    PEM_write_X509(file, x509);
    fclose(file);
    X509_free(x509);
    EVP_PKEY_free(key);

    fd = open(log, O_RDWR | O_CREAT | O_TRUNC, 0600);
    saved = dup(2);
    dup2(fd, 2);
    server = tls_server_new(&options, error);
    dup2(saved, 2);
    close(saved);
    ck_assert_ptr_nonnull(server);
    n = (size_t)pread(fd, text, sizeof text - 1, 0);
    text[n] = 0;
    close(fd);
    ck_assert_msg(strstr(text, cert) != NULL && strstr(text, "has expired") != NULL, "%s", text);
    tls_server_free(&server);
}
END_TEST

START_TEST(made_certificates_are_private_and_complete) {
    static const char *const names[] = {"a.example", NULL};
    struct stat st;
    FILE *file;
    X509 *x509;

    ck_assert_int_eq(stat(key_a, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(stat(cert_a, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    file = fopen(cert_a, "r");
    x509 = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    ck_assert_int_eq(X509_check_host(x509, "x.wild.example", 0, 0, NULL), 1);
    ck_assert_int_eq(X509_check_ip_asc(x509, "127.0.0.1", 0), 1);
    ck_assert_int_eq(X509_check_ip_asc(x509, "::1", 0), 1);
    ck_assert_int_eq(X509_check_host(x509, "127.0.0.1", 0, 0, NULL), 0);
    ck_assert_int_eq(X509_get_version(x509), 2);
    ck_assert_int_eq(X509_check_ca(x509), 0);
    X509_free(x509);
    ck_assert(!tls_make_certificate("a", names, "/nonexistent/c", "/nonexistent/k"));
    ck_assert_int_eq(errno, ENOENT);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("tls");
    TCase *c = tcase_create("tls");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, handshake_13_verified_both_ways);
    tcase_add_test(c, handshake_survives_free_of_contexts);
    tcase_add_test(c, handshake_12_uses_aead_and_refuses_the_rest);
    tcase_add_test(c, handshake_obeys_min_version);
    tcase_add_test(c, handshake_cut_at_every_byte);
    tcase_add_test(c, handshake_refuses_plain_text);
    tcase_add_test(c, handshake_cut_short_is_eof);
    tcase_add_test(c, renegotiation_is_refused);
    tcase_add_test(c, sni_exact_then_wildcard_then_default);
    tcase_add_test(c, sni_common_name_is_the_fallback);
    tcase_add_test(c, sni_selects_the_certificate_of_the_handshake);
    tcase_add_test(c, alpn_by_our_preference_or_alert);
    tcase_add_loop_test(c, tickets_resume_across_contexts_and_one_rotation, 0, 2);
    tcase_add_test(c, verification_of_chain_and_name);
    tcase_add_test(c, verification_by_address_sends_no_sni);
    tcase_add_test(c, verification_needs_a_name);
    tcase_add_test(c, bad_files_are_named);
    tcase_add_test(c, expired_certificates_are_warned_of);
    tcase_add_test(c, made_certificates_are_private_and_complete);
    suite_add_tcase(s, c);
    return s;
}

int main(void) {
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
