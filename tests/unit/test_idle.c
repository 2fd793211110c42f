/* SPDX-License-Identifier: MIT */
/*
 * idle: kept connections come back newest first, only to their own kind, and never once anything has arrived on them.
 */
#include "peer.h"

static struct peer peer;

static void setup(void) {
    peer_prepare(&peer);
    peer_open(&peer);
}

/* A connection that is established on both sides. */
static struct conn *connect_one(int *fd) {
    struct conn *conn = conn_connect(peer.loop, &peer.server->addr, NULL, SPAN_NULL, NULL);
    ck_assert_ptr_nonnull(conn);
    *fd = peer_accept(&peer);
    while (conn_connected(conn) == IO_AGAIN)
        loop_turn(peer.loop, 1);
    ck_assert_int_eq(conn_connected(conn), IO_OK);
    return conn;
}

static void put(struct conn *conn, uint64_t digest, uint32_t timeout_ms) {
    idle_put(peer.upstream.idle, conn, peer.server, digest, 2, timeout_ms);
}

static struct conn *take(uint64_t digest, uint64_t max_age_ms) {
    return idle_take(peer.upstream.idle, peer.server, digest, max_age_ms);
}

START_TEST(test_idle_newest_first_and_capped) {
    setup();
    int fds[3];
    struct conn *conns[3];
    for (unsigned i = 0; i < 3; i++)
        conns[i] = connect_one(&fds[i]);
    for (unsigned i = 0; i < 3; i++)
        put(conns[i], 1, 1000);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 2);
    ck_assert(peer_is_closed(&peer, fds[0])); /* the oldest gave way */
    ck_assert_ptr_null(take(2, 0));           /* another digest */
    ck_assert_ptr_eq(take(1, 0), conns[2]);
    ck_assert_ptr_eq(take(1, 0), conns[1]);
    ck_assert_ptr_null(take(1, 0));
    ck_assert_uint_eq(metric_sum(METRIC_server_closed), 1);
    conn_close(&conns[1]);
    conn_close(&conns[2]);
    for (unsigned i = 0; i < 3; i++)
        close(fds[i]);
    peer_close(&peer);
}
END_TEST

START_TEST(test_idle_data_or_fin_closes_at_once) {
    setup();
    int fd;
    struct conn *conn = connect_one(&fd);
    put(conn, 1, 5000);
    if (_i == 0)
        peer_say(fd, "x", 1);
    else
        shutdown(fd, SHUT_WR);
    for (unsigned i = 0; i < 100 && idle_count(peer.upstream.idle) != 0; i++)
        loop_turn(peer.loop, 1);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    close(fd);
    peer_close(&peer);
}
END_TEST

START_TEST(test_idle_take_asks_the_kernel) {
    setup();
    int fd;
    struct conn *conn = connect_one(&fd);
    peer_turns(&peer, 2);
    put(conn, 1, 5000);
    usleep(5000);
    loop_turn(peer.loop, 0);
    if (_i == 0)
        peer_say(fd, "x", 1);
    else
        close(fd);
    usleep(20000);
    ck_assert_ptr_null(take(1, 10000)); /* what cannot be sent twice: no turn of the loop in between, so it asks */
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    if (_i == 0)
        close(fd);
    peer_close(&peer);
}
END_TEST

START_TEST(test_idle_timeout_and_age) {
    setup();
    int fd;
    struct conn *conn = connect_one(&fd);
    put(conn, 1, 100);
    for (unsigned i = 0; i < 30; i++)
        loop_turn(peer.loop, 1);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 1);
    ck_assert_ptr_null(take(1, 10)); /* idle for longer than that */
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 1);
    uint64_t start = clock_ms();
    while (idle_count(peer.upstream.idle) != 0 && clock_ms() - start < 2000)
        loop_turn(peer.loop, 10);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    ck_assert(peer_is_closed(&peer, fd));
    close(fd);
    peer_close(&peer);
}
END_TEST

START_TEST(test_idle_drop_server) {
    setup();
    int fds[2];
    struct conn *first = connect_one(&fds[0]), *second = connect_one(&fds[1]);
    put(first, 1, 5000);
    put(second, 2, 5000);
    idle_drop_server(peer.upstream.idle, peer.server);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    ck_assert(peer_is_closed(&peer, fds[0]) && peer_is_closed(&peer, fds[1]));
    close(fds[0]);
    close(fds[1]);
    peer_close(&peer);
}
END_TEST

START_TEST(test_idle_refuses_what_is_not_quiet) {
    setup();
    int fd;
    struct conn *conn = connect_one(&fd);
    peer_say(fd, "late", 4);
    for (unsigned i = 0; i < 100 && !conn->readable; i++)
        loop_turn(peer.loop, 1);
    put(conn, 1, 5000);
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    close(fd);
    peer_close(&peer);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("idle");
    TCase *tests = tcase_create("idle");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, test_idle_newest_first_and_capped);
    tcase_add_loop_test(tests, test_idle_data_or_fin_closes_at_once, 0, 2);
    tcase_add_loop_test(tests, test_idle_take_asks_the_kernel, 0, 2);
    tcase_add_test(tests, test_idle_timeout_and_age);
    tcase_add_test(tests, test_idle_drop_server);
    tcase_add_test(tests, test_idle_refuses_what_is_not_quiet);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
