/* SPDX-License-Identifier: MIT */
/* Client certificates: who gets through, what is told of them, and which sessions may be resumed (requirements C19). */
#include "tls_ends.h"

static char ca_good[128], ca_other[128], empty[128];
static struct party {
    char cert[128], key[128];
} alice, mallory, old, purpose;

/* --- certificates --- */

struct signer {
    X509 *x509;
    EVP_PKEY *key;
};

static void add(X509 *x509, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, x509, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    ck_assert(extension && X509_add_ext(x509, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* Self-signed when by is NULL. from and to: seconds from now. */
static struct signer make(const char *name, const struct signer *by, const char *use, long from, long to) {
    struct signer made = {X509_new(), EVP_EC_gen("P-256")};
    X509_NAME *subject = X509_get_subject_name(made.x509);
    X509_set_version(made.x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.x509), 0x1f2e3d);
    X509_gmtime_adj(X509_getm_notBefore(made.x509), from);
    X509_gmtime_adj(X509_getm_notAfter(made.x509), to);
    ck_assert_int_eq(X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"Example", -1, -1, 0), 1);
    ck_assert_int_eq(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0), 1);
    X509_set_issuer_name(made.x509, by ? X509_get_subject_name(by->x509) : subject);
    X509_set_pubkey(made.x509, made.key);
    add(made.x509, NID_basic_constraints, by ? "CA:FALSE" : "critical,CA:TRUE");
    if (use)
        add(made.x509, NID_ext_key_usage, use);
    if (by && strcmp(use, "clientAuth") == 0)
        add(made.x509, NID_subject_alt_name, "DNS:a.example,IP:10.1.2.3,IP:::1,email:a@example.com,URI:spiffe://e/a,RID:1.2.3");
    ck_assert_int_gt(X509_sign(made.x509, by ? by->key : made.key, EVP_sha256()), 0);
    return made;
}

static void save_cert(const char *path, X509 *x509) {
    FILE *file = fopen(path, "w");
    ck_assert(file && PEM_write_X509(file, x509) == 1);
    fclose(file);
}

static void issue(struct party *party, const char *file_name, const char *name, const struct signer *by, const char *use, long from,
                  long to) {
    struct signer made = make(name, by, use, from, to);
    char file_key[64];
    snprintf(file_key, sizeof file_key, "%s.key", file_name);
    path_in(party->cert, sizeof party->cert, file_name);
    path_in(party->key, sizeof party->key, file_key);
    save_cert(party->cert, made.x509);
    FILE *file = fopen(party->key, "w");
    ck_assert(file && PEM_write_PrivateKey(file, made.key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
    X509_free(made.x509);
    EVP_PKEY_free(made.key);
}

static void setup_parties(void) {
    setup();
    struct signer good = make("Good CA", NULL, NULL, -60, 3600), other = make("Other CA", NULL, NULL, -60, 3600);
    path_in(ca_good, sizeof ca_good, "good.pem");
    path_in(ca_other, sizeof ca_other, "other.pem");
    path_in(empty, sizeof empty, "empty.pem");
    save_cert(ca_good, good.x509);
    save_cert(ca_other, other.x509);
    fclose(fopen(empty, "w"));
    issue(&alice, "alice", "al,i\xc3\xa7" "e", &good, "clientAuth", -60, 3600);
    issue(&mallory, "mallory", "alice", &other, "clientAuth", -60, 3600);
    issue(&old, "old", "old", &good, "clientAuth", -3600, -60);
    issue(&purpose, "purpose", "server", &good, "serverAuth", -60, 3600);
    X509_free(good.x509);
    X509_free(other.x509);
    EVP_PKEY_free(good.key);
    EVP_PKEY_free(other.key);
}

static void teardown_parties(void) {
    const struct party *parties[] = {&alice, &mallory, &old, &purpose};
    for (size_t i = 0; i < 4; i++) {
        unlink(parties[i]->cert);
        unlink(parties[i]->key);
    }
    unlink(ca_good);
    unlink(ca_other);
    unlink(empty);
    teardown();
}

static struct tls_server *listener(enum tls_client_cert mode, const char *ca, const char *session_id) {
    struct tls_certificate certificates[] = {{cert_a, key_a, NULL}, {cert_b, key_b, NULL}};
    struct tls_server_options options = {.certificates = certificates, .certificate_count = 2, .session_id = session_id,
                                         .client_cert = mode, .client_ca = ca};
    struct tls_server *server = tls_server_new(&options, error);
    ck_assert_msg(server != NULL, "%s", error);
    return server;
}

/* --- who gets through --- */

enum verdict { REFUSED, NONE_SHOWN, UNVERIFIED, VERIFIED };

/* party NULL: shows none. */
static enum verdict verdict_of(const struct tls_server *server, const struct party *party, const char *name) {
    struct tls_client_options options = {.verify = false, .cert = party ? party->cert : NULL, .key = party ? party->key : NULL};
    struct tls_client *client = tls_client_new(&options, error);
    ck_assert_msg(client != NULL, "%s", error);
    struct ends ends = ends_open(server, client, name);
    struct outcome out = ends_handshake(&ends);
    enum verdict verdict = REFUSED;
    if (out.server == IO_OK) {
        struct arena arena;
        arena_init(&arena, NULL, 1 << 16);
        const struct tls_cert *cert = tls_peer_cert(ends.server->tls, &arena);
        verdict = !cert ? NONE_SHOWN : cert->verified ? VERIFIED : UNVERIFIED;
        arena_fini(&arena);
    }
    ends_close(&ends);
    tls_client_free(&client);
    return verdict;
}

START_TEST(who_gets_through) {
    static const struct {
        enum tls_client_cert mode;
        enum verdict none, alice, mallory, old, purpose;
    } rows[] = {
        {TLS_CLIENT_CERT_NONE, NONE_SHOWN, NONE_SHOWN, NONE_SHOWN, NONE_SHOWN, NONE_SHOWN},
        {TLS_CLIENT_CERT_ASK, NONE_SHOWN, VERIFIED, UNVERIFIED, UNVERIFIED, UNVERIFIED},
        {TLS_CLIENT_CERT_REQUIRE, REFUSED, VERIFIED, REFUSED, REFUSED, REFUSED},
    };
    struct tls_server *server = listener(rows[_i].mode, ca_good, "x");
    for (int i = 0; i < 2; i++) { /* under each of the listener's certificates */
        const char *name = i == 0 ? "a.example" : "b.example";
        ck_assert_int_eq(verdict_of(server, NULL, name), rows[_i].none);
        ck_assert_int_eq(verdict_of(server, &alice, name), rows[_i].alice);
        ck_assert_int_eq(verdict_of(server, &mallory, name), rows[_i].mallory);
        ck_assert_int_eq(verdict_of(server, &old, name), rows[_i].old);
        ck_assert_int_eq(verdict_of(server, &purpose, name), rows[_i].purpose);
    }
    tls_server_free(&server);
}
END_TEST

START_TEST(what_is_told) {
    static const char *const san[] = {"DNS:a.example", "IP:10.1.2.3", "IP:::1", "email:a@example.com", "URI:spiffe://e/a"};
    struct tls_server *server = listener(TLS_CLIENT_CERT_REQUIRE, ca_good, "x");
    struct tls_client_options options = {.cert = alice.cert, .key = alice.key};
    struct tls_client *client = tls_client_new(&options, error);
    struct ends ends = ends_open(server, client, "a.example");
    struct arena arena;
    ck_assert_int_eq(ends_handshake(&ends).server, IO_OK);
    arena_init(&arena, NULL, 1 << 16);
    const struct tls_cert *cert = tls_peer_cert(ends.server->tls, &arena);
    ck_assert_ptr_nonnull(cert);
    ck_assert(span_equal(cert->subject, SPAN("CN=al\\,i\\C3\\A7e,O=Example")));
    ck_assert(span_equal(cert->issuer, SPAN("CN=Good CA,O=Example")));
    ck_assert(span_equal(cert->serial, SPAN("1F2E3D")));
    ck_assert_uint_eq(cert->fingerprint.n, 64);
    ck_assert_int_eq(cert->not_after - cert->not_before, 3660);
    ck_assert_uint_eq(cert->san_count, 5); /* the registered ID is left out */
    for (unsigned i = 0; i < 5; i++)
        ck_assert(span_equal(cert->san[i], span_of(san[i])));
    arena_fini(&arena);
    /* Memory out anywhere: no certificate, which opens no door. */
    for (size_t cap = 0; cap < 700; cap += 7) {
        arena_init(&arena, NULL, cap);
        cert = tls_peer_cert(ends.server->tls, &arena);
        ck_assert(!cert || (cert->subject.p && cert->issuer.p && cert->serial.p && cert->fingerprint.p));
        arena_fini(&arena);
    }
    ends_close(&ends);
    tls_client_free(&client);
    tls_server_free(&server);
}
END_TEST

/* --- resumption --- */

/* A duo whose peer shows party (NULL: none) and offers session; false when the handshake failed. */
static bool shake(struct duo *duo, const struct tls_server *server, int version, const struct party *party, SSL_SESSION *session) {
    int fds[2];
    pair_open(fds);
    duo->conn = server_conn(fds[0], server);
    duo->peer = peer_open(fds[1], "a.example", version, session);
    if (party) {
        ck_assert_int_eq(SSL_use_certificate_file(duo->peer.ssl, party->cert, SSL_FILETYPE_PEM), 1);
        ck_assert_int_eq(SSL_use_PrivateKey_file(duo->peer.ssl, party->key, SSL_FILETYPE_PEM), 1);
    }
    return peer_handshake(&duo->peer, duo->conn) == IO_OK;
}

static SSL_SESSION *session_of(const struct tls_server *server, int version, const struct party *party) {
    struct duo duo;
    char byte;
    size_t n;
    ck_assert(shake(&duo, server, version, party, NULL));
    ck_assert_int_eq(conn_write(duo.conn, "x", 1, &n), IO_OK); /* brings the peer to read its ticket */
    loop_turn(loop, 0);
    ck_assert_uint_eq(peer_read(&duo.peer, &byte, 1), 1);
    SSL_SESSION *session = SSL_get1_session(duo.peer.ssl);
    ck_assert(SSL_SESSION_is_resumable(session));
    duo_close(&duo);
    return session;
}

enum resumption { FAILED, FULL, RESUMED };

static enum resumption resume(const struct tls_server *server, int version, const struct party *party, SSL_SESSION *session) {
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    struct duo duo;
    enum resumption result = FAILED;
    if (shake(&duo, server, version, party, copy))
        result = tls_resumed(duo.conn->tls) ? RESUMED : FULL;
    SSL_SESSION_free(copy);
    duo_close(&duo);
    return result;
}

START_TEST(sessions_open_no_door) {
    int version = _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    struct tls_server *open = listener(TLS_CLIENT_CERT_NONE, NULL, "x"), *ask = listener(TLS_CLIENT_CERT_ASK, ca_good, "x");
    struct tls_server *require = listener(TLS_CLIENT_CERT_REQUIRE, ca_good, "x"), *again = listener(TLS_CLIENT_CERT_REQUIRE, ca_good, "x");
    struct tls_server *changed = listener(TLS_CLIENT_CERT_REQUIRE, ca_other, "x"), *elsewhere = listener(TLS_CLIENT_CERT_REQUIRE, ca_good, "y");
    SSL_SESSION *plain = session_of(open, version, NULL), *asked = session_of(ask, version, NULL);
    SSL_SESSION *unverified = session_of(ask, version, &mallory), *good = session_of(require, version, &alice);
    ck_assert_int_eq(resume(open, version, NULL, plain), RESUMED);
    ck_assert_int_eq(resume(ask, version, NULL, asked), RESUMED);
    ck_assert_int_eq(resume(ask, version, &mallory, unverified), RESUMED);
    ck_assert_int_eq(resume(require, version, &alice, good), RESUMED);
    ck_assert_int_eq(resume(again, version, &alice, good), RESUMED); /* the next generation, unchanged */
    ck_assert_int_eq(resume(require, version, NULL, plain), FAILED);
    ck_assert_int_eq(resume(require, version, NULL, asked), FAILED);
    ck_assert_int_eq(resume(require, version, &mallory, unverified), FAILED);
    ck_assert_int_eq(resume(require, version, &alice, asked), FULL);
    ck_assert_int_eq(resume(changed, version, &alice, good), FAILED);
    ck_assert_int_eq(resume(elsewhere, version, &alice, good), FULL);
    ck_assert_int_eq(resume(elsewhere, version, NULL, good), FAILED);
    SSL_SESSION *sessions[] = {plain, asked, unverified, good};
    for (size_t i = 0; i < 4; i++)
        SSL_SESSION_free(sessions[i]);
    struct tls_server *servers[] = {open, ask, require, again, changed, elsewhere};
    for (size_t i = 0; i < 6; i++)
        tls_server_free(&servers[i]);
}
END_TEST

/* The same path with another CA in it, as a reload finds it. */
START_TEST(sessions_end_with_their_ca) {
    char path[128];
    struct tls_server *before, *after;
    path_in(path, sizeof path, "current.pem");
    ck_assert_int_eq(link(ca_good, path), 0);
    before = listener(TLS_CLIENT_CERT_REQUIRE, path, "x");
    SSL_SESSION *session = session_of(before, TLS1_3_VERSION, &alice);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(link(ca_other, path), 0);
    after = listener(TLS_CLIENT_CERT_REQUIRE, path, "x");
    ck_assert_int_eq(resume(before, TLS1_3_VERSION, &alice, session), RESUMED);
    ck_assert_int_eq(resume(after, TLS1_3_VERSION, &alice, session), FAILED);
    unlink(path);
    SSL_SESSION_free(session);
    tls_server_free(&before);
    tls_server_free(&after);
}
END_TEST

START_TEST(expired_certificates_are_asked_for_anew) {
    int version = _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
    struct tls_server *ask = listener(TLS_CLIENT_CERT_ASK, ca_good, "x");
    SSL_SESSION *session = session_of(ask, version, &old); /* was expired from the start: the same to the ticket */
    ck_assert_int_eq(resume(ask, version, &old, session), FULL);
    SSL_SESSION_free(session);
    tls_server_free(&ask);
}
END_TEST

/* --- files --- */

START_TEST(mistakes_are_named) {
    struct tls_certificate certificate = {cert_a, key_a, NULL};
    struct tls_server_options options = {.certificates = &certificate, .certificate_count = 1, .client_cert = TLS_CLIENT_CERT_ASK};
    ck_assert_ptr_null(tls_server_new(&options, error));
    ck_assert_str_eq(error, "client certificates need client_ca");
    options.client_ca = empty;
    ck_assert_ptr_null(tls_server_new(&options, error));
    ck_assert(strstr(error, "empty.pem: no PEM certificate in it"));
    options.client_ca = "/nonexistent/ca.pem";
    ck_assert_ptr_null(tls_server_new(&options, error));
    ck_assert(strstr(error, "/nonexistent/ca.pem"));
    struct tls_client_options client = {.cert = alice.cert, .key = mallory.key};
    ck_assert_ptr_null(tls_client_new(&client, error));
    ck_assert(strstr(error, "does not belong to certificate"));
    client.cert = "/nonexistent/a.pem";
    ck_assert_ptr_null(tls_client_new(&client, error));
    ck_assert(strstr(error, "/nonexistent/a.pem"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tls_verify");
    TCase *tests = tcase_create("tls_verify");
    tcase_add_checked_fixture(tests, setup_parties, teardown_parties);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, who_gets_through, 0, 3);
    tcase_add_test(tests, what_is_told);
    tcase_add_loop_test(tests, sessions_open_no_door, 0, 2);
    tcase_add_test(tests, sessions_end_with_their_ca);
    tcase_add_loop_test(tests, expired_certificates_are_asked_for_anew, 0, 2);
    tcase_add_test(tests, mistakes_are_named);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
