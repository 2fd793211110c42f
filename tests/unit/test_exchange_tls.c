/* SPDX-License-Identifier: MIT */
/*
 * exchange over TLS: verification, kept connections, and ends with and without close_notify (requirements C18, C20).
 */
#include "exchange_owner.h"

static char dir[64], cert[96], key[96], stranger[96], stranger_key[96];
static struct tls_server *tls;

/* The far end shows cert, which the pool trusts, or not. */
static void setup_tls(bool trusted) {
    static const char *const names[] = {"127.0.0.1", NULL};
    snprintf(dir, sizeof dir, "/tmp/moongate-exchange-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/a.pem", dir);
    snprintf(key, sizeof key, "%s/a.key", dir);
    snprintf(stranger, sizeof stranger, "%s/b.pem", dir);
    snprintf(stranger_key, sizeof stranger_key, "%s/b.key", dir);
    ck_assert(tls_make_certificate("server", names, cert, key));
    ck_assert(tls_make_certificate("stranger", names, stranger, stranger_key));
    struct tls_certificate certificate = {.cert = cert, .key = key};
    struct tls_server_options options = {
        .certificates = &certificate, .certificate_count = 1, .min_version = "1.2", .session_id = "test"};
    char error[TLS_ERROR_MAX] = "";
    tls = tls_server_new(&options, error);
    ck_assert_msg(tls != NULL, "%s", error);
    peer_prepare(&peer);
    peer.config.tls = peer.config.tls_verify = true;
    peer.config.tls_ca = trusted ? cert : stranger;
    peer_open(&peer);
    reset();
}

static void teardown_tls(void) {
    teardown();
    tls_server_free(&tls);
    unlink(cert);
    unlink(key);
    unlink(stranger);
    unlink(stranger_key);
    rmdir(dir);
}

static void on_nothing(struct conn *conn) { (void)conn; }

/* The far end of a started exchange, after the handshake and the request. */
static struct conn *serve(void) {
    struct conn *conn = conn_open(peer.loop, peer_accept(&peer));
    ck_assert_ptr_nonnull(conn);
    conn_set_owner(conn, NULL, on_nothing);
    ck_assert(conn_start_tls_server(conn, tls));
    for (unsigned i = 0; i < 2000 && conn_handshake(conn) == IO_AGAIN; i++)
        loop_turn(peer.loop, 1);
    return conn;
}

static void hear(struct conn *conn) {
    char got[256];
    size_t n = 0;
    for (unsigned i = 0; i < 2000; i++) {
        if (conn_read(conn, got, sizeof got, &n) == IO_OK)
            return;
        loop_turn(peer.loop, 1);
    }
    ck_abort_msg("no request");
}

static void say(struct conn *conn, const char *text) {
    size_t n = 0;
    ck_assert_int_eq(conn_write(conn, text, strlen(text), &n), IO_OK);
    ck_assert_uint_eq(n, strlen(text));
}

START_TEST(test_exchange_tls_kept) {
    setup_tls(true);
    struct exchange_options options = plain();
    start(&options, GET);
    struct conn *far = serve();
    hear(far);
    say(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    wait_for("end");
    exchange_free(&exchange);
    peer_turns(&peer, 5); /* tickets that come late do not disturb the kept connection */
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 1);
    reset();
    start(&options, GET);
    ck_assert(exchange_reused(exchange));
    hear(far);
    say(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    wait_for("end");
    ck_assert_str_eq(seen.events, "head:200/length end ");
    conn_close(&far);
    teardown_tls();
}
END_TEST

/* The end of a kept connection is seen even when the loop had no turn to tell of it. */
START_TEST(test_exchange_tls_kept_has_ended) {
    setup_tls(true);
    struct exchange_options options = plain();
    start(&options, GET);
    struct conn *far = serve();
    hear(far);
    say(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    wait_for("end");
    exchange_free(&exchange);
    peer_turns(&peer, 5);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 1);
    conn_close(&far);
    usleep(10000);
    reset();
    start(&options, GET);
    ck_assert(!exchange_reused(exchange));
    teardown_tls();
}
END_TEST

START_TEST(test_exchange_tls_stranger) {
    setup_tls(false);
    struct exchange_options options = plain();
    start(&options, GET);
    struct conn *far = serve();
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:tls ");
    ck_assert_uint_eq(atomic_load(&peer.server->connect_failures), 1);
    conn_close(&far);
    teardown_tls();
}
END_TEST

START_TEST(test_exchange_tls_plain_server) {
    setup_tls(true);
    struct exchange_options options = plain();
    start(&options, GET);
    int fd = peer_accept(&peer);
    peer_say(fd, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 47);
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:tls ");
    close(fd);
    teardown_tls();
}
END_TEST

START_TEST(test_exchange_tls_silent_server) {
    setup_tls(true);
    peer.config.connect_timeout_ms = 50;
    struct exchange_options options = plain();
    start(&options, GET);
    int fd = peer_accept(&peer);
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:tls ");
    ck_assert_uint_eq(exchange_connected_us(exchange), 0);
    close(fd);
    teardown_tls();
}
END_TEST

/* A body that ends with the connection: only close_notify tells its end from a cut. */
START_TEST(test_exchange_tls_end) {
    setup_tls(true);
    struct exchange_options options = plain();
    start(&options, GET);
    struct conn *far = serve();
    hear(far);
    say(far, "HTTP/1.1 200 OK\r\n\r\nhello");
    peer_turns(&peer, 2);
    if (_i == 0)
        conn_shutdown(far);
    else
        shutdown(far->fd, SHUT_WR);
    wait_for(_i == 0 ? "end" : "fail");
    ck_assert_str_eq(seen.events, _i == 0 ? "head:200/close end " : "head:200/close fail:truncated ");
    ck_assert_uint_eq(seen.body.len, 5);
    conn_close(&far);
    teardown_tls();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exchange_tls");
    TCase *tests = tcase_create("exchange_tls");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_exchange_tls_kept);
    tcase_add_test(tests, test_exchange_tls_kept_has_ended);
    tcase_add_test(tests, test_exchange_tls_stranger);
    tcase_add_test(tests, test_exchange_tls_plain_server);
    tcase_add_test(tests, test_exchange_tls_silent_server);
    tcase_add_loop_test(tests, test_exchange_tls_end, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
