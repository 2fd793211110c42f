/* SPDX-License-Identifier: MIT */
/*
 * A session when memory is out: OpenSSL's Nth allocation fails within one call, for each N. Whatever that does to the session, its owner
 * must learn of it: bytes, an end or an error; a wait only where an event will come.
 */
#include "tls_ends.h"

#include <openssl/crypto.h>

static long alloc_left; /* counts down with each allocation; the one that makes it 0 fails */
static bool alloc_armed, alloc_fired;
static unsigned events;

static bool alloc_fails(void) {
    if (!alloc_armed || --alloc_left != 0)
        return false;
    alloc_fired = true;
    return true;
}

static void *test_alloc(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return alloc_fails() ? NULL : malloc(size);
}

static void *test_resize(void *p, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return alloc_fails() ? NULL : realloc(p, size);
}

static void test_free(void *p, const char *file, int line) {
    (void)file, (void)line;
    free(p);
}

static void alloc_arm(long n) {
    alloc_left = n;
    alloc_fired = false;
    alloc_armed = true;
}

static void on_counted(struct conn *conn) {
    (void)conn;
    events++;
}

/* A session that waits for its peer, as an idle tunnel's does. */
static struct duo waiting_duo(const struct tls_server *server, int version) {
    struct duo duo = duo_open(server, "a.example", version, NULL);
    char data[16];
    size_t n;

    ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_AGAIN);
    loop_turn(loop, 0);
    conn_set_owner(duo.conn, NULL, on_counted);
    events = 0;
    return duo;
}

/* How many N there were to fail, so that a test that fails nothing is seen. */
static void assert_swept(unsigned failures, unsigned died) {
    ck_assert_uint_gt(failures, 0);
    ck_assert_uint_gt(died, 0);
}

START_TEST(no_memory_for_a_close_notify_is_told_at_once) {
    struct tls_server *server = server_plain();
    unsigned failures = 0, died = 0;
    char data[64];
    size_t n;

    for (long at = 1; at == 1 || alloc_fired; at++) {
        struct duo duo = waiting_duo(server, _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
        enum io result;

        alloc_arm(at);
        conn_shutdown(duo.conn);
        alloc_armed = false;
        failures += alloc_fired;
        /* The peer says nothing more: an owner who is not told now never is. */
        loop_turn(loop, 0);
        result = events > 0 ? conn_read(duo.conn, data, sizeof data, &n) : IO_AGAIN;
        if (result == IO_AGAIN) {
            peer_write(&duo.peer, "answer", 6);
            peer_send(&duo.peer, SIZE_MAX);
            assert_reads(duo.conn, "answer");
        } else {
            died++;
            ck_assert_int_eq(result, IO_ERROR);
            ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_ERROR);
        }
        duo_close(&duo);
        ck_assert_int_lt(at, 1000);
    }
    assert_swept(failures, died);
    tls_server_free(&server);
}
END_TEST

START_TEST(no_memory_while_reading_is_an_error) {
    struct tls_server *server = server_plain();
    unsigned failures = 0, died = 0;
    char data[64];
    size_t n;

    for (long at = 1; at == 1 || alloc_fired; at++) {
        struct duo duo = waiting_duo(server, _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
        enum io result;

        peer_write(&duo.peer, "answer", 6);
        peer_send(&duo.peer, SIZE_MAX);
        loop_turn(loop, 0);
        alloc_arm(at);
        result = conn_read(duo.conn, data, sizeof data, &n);
        alloc_armed = false;
        failures += alloc_fired;
        ck_assert_int_ne(result, IO_AGAIN); /* it all lies there: no event would come */
        ck_assert_int_ne(result, IO_EOF);
        if (result == IO_ERROR) {
            died++;
            ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_ERROR);
            ck_assert_int_eq(conn_write(duo.conn, "x", 1, &n), IO_ERROR);
            ck_assert(!conn_may_read(duo.conn) || duo.conn->readable);
        }
        duo_close(&duo);
        ck_assert_int_lt(at, 1000);
    }
    assert_swept(failures, died);
    tls_server_free(&server);
}
END_TEST

START_TEST(no_memory_while_writing_is_an_error) {
    struct tls_server *server = server_plain();
    unsigned failures = 0, died = 0;
    char data[64];
    size_t n;

    for (long at = 1; at == 1 || alloc_fired; at++) {
        struct duo duo = waiting_duo(server, _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
        enum io result;

        alloc_arm(at);
        result = conn_write(duo.conn, "answer", 6, &n);
        alloc_armed = false;
        failures += alloc_fired;
        if (result == IO_ERROR) {
            died++;
            ck_assert_int_eq(conn_write(duo.conn, "answer", 6, &n), IO_ERROR);
            ck_assert_int_eq(conn_read(duo.conn, data, sizeof data, &n), IO_ERROR);
        } else {
            ck_assert_int_eq(result, IO_OK);
            ck_assert_uint_eq(peer_read(&duo.peer, data, sizeof data), 6);
        }
        duo_close(&duo);
        ck_assert_int_lt(at, 1000);
    }
    assert_swept(failures, died);
    tls_server_free(&server);
}
END_TEST

/*
 * Our side of a handshake ends with the step that fails. Or with the peer's answer: where OpenSSL has no memory for the server's name, it sends
 * an alert and goes on all the same.
 */
START_TEST(no_memory_in_a_handshake_ends_it) {
    struct tls_server *server = server_plain();
    unsigned failures = 0, died = 0;

    for (long at = 1; at == 1 || alloc_fired; at++) {
        struct conn *conn;
        struct peer peer;
        enum io result = IO_AGAIN;
        int fds[2];

        pair_open(fds);
        conn = server_conn(fds[0], server);
        peer = peer_open(fds[1], "a.example", _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION, NULL);
        alloc_left = at;
        alloc_fired = false;
        for (int i = 0; i < TURNS && result == IO_AGAIN; i++) {
            ERR_clear_error();
            peer.rc = SSL_do_handshake(peer.ssl);
            bool refused = peer.rc != 1 && SSL_get_error(peer.ssl, peer.rc) == SSL_ERROR_SSL;
            peer_send(&peer, SIZE_MAX);
            if (refused)
                shutdown(peer.fd, SHUT_WR);
            loop_turn(loop, 0);
            alloc_armed = true;
            result = conn_handshake(conn);
            alloc_armed = false;
            peer_receive(&peer);
        }
        failures += alloc_fired;
        ck_assert_int_ne(result, IO_AGAIN);
        died += result != IO_OK;
        if (!alloc_fired)
            ck_assert_int_eq(result, IO_OK);
        conn_close(&conn);
        peer_close(&peer);
        loop_turn(loop, 0);
        ck_assert_int_lt(at, 10000);
    }
    assert_swept(failures, died);
    tls_server_free(&server);
}
END_TEST

static Suite *suite(void) {
    Suite *s = suite_create("tls_faults");
    TCase *c = tcase_create("tls_faults");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, no_memory_for_a_close_notify_is_told_at_once, 0, 2);
    tcase_add_loop_test(c, no_memory_while_reading_is_an_error, 0, 2);
    tcase_add_loop_test(c, no_memory_while_writing_is_an_error, 0, 2);
    tcase_add_loop_test(c, no_memory_in_a_handshake_ends_it, 0, 2);
    suite_add_tcase(s, c);
    return s;
}

int main(void) {
    SRunner *runner;
    int failed;

    if (CRYPTO_set_mem_functions(test_alloc, test_resize, test_free) != 1)
        return 1; /* it has allocated already */
    runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
