/* SPDX-License-Identifier: MIT */
/* Plain conns: readiness flags, the short-read rule and its exception, ends, connects, quiet kept connections. */
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/conn.h"

static struct loop *loop;
static struct conn *conn;
static int other;
static unsigned events;

static void on_event(struct conn *which) {
    (void)which;
    events++;
}

static void setup(void) {
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    loop = loop_new();
    conn = conn_open(loop, pair[0]);
    ck_assert_ptr_nonnull(conn);
    conn_set_owner(conn, NULL, on_event);
    other = pair[1];
    events = 0;
}

static void teardown(void) {
    conn_close(&conn);
    loop_turn(loop, 0);
    loop_free(&loop);
    close(other);
}

START_TEST(test_no_system_call_while_not_readable) {
    char data[16];
    size_t n = 0;
    ck_assert_int_eq(write(other, "abc", 3), 3);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_AGAIN); /* the loop has not said so yet */
    loop_turn(loop, 100);
    ck_assert_uint_eq(events, 1);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, 3);
    ck_assert(!conn->readable); /* a short read clears the flag */
    ck_assert_int_eq(write(other, "d", 1), 1);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_AGAIN);
    loop_turn(loop, 100);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_OK);
}
END_TEST

START_TEST(test_full_read_keeps_the_flag) {
    char data[2];
    size_t n = 0;
    ck_assert_int_eq(write(other, "abcd", 4), 4);
    loop_turn(loop, 100);
    ck_assert_int_eq(conn_read(conn, data, 2, &n), IO_OK);
    ck_assert(conn_may_read(conn));
    ck_assert_int_eq(conn_read(conn, data, 2, &n), IO_OK);
    ck_assert_int_eq(conn_read(conn, data, 2, &n), IO_AGAIN);
    ck_assert(!conn_may_read(conn));
}
END_TEST

START_TEST(test_data_and_fin_in_one_event_are_read_to_the_end) {
    char data[16];
    size_t n = 0;
    ck_assert_int_eq(write(other, "abc", 3), 3);
    shutdown(other, SHUT_WR);
    loop_turn(loop, 100);
    ck_assert(conn->fin_seen);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_OK);
    ck_assert(conn_may_read(conn)); /* a short read proves nothing after FIN: there is no further edge */
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_EOF);
    ck_assert_int_eq(conn_read(conn, data, sizeof data, &n), IO_EOF);
    ck_assert(!conn_may_read(conn));
    ck_assert(!conn->failed);
}
END_TEST

START_TEST(test_full_socket_stops_writing_until_an_event) {
    static char block[1 << 20];
    size_t n = 0, sum = 0;
    while (conn_write(conn, block, sizeof block, &n) == IO_OK)
        sum += n;
    ck_assert(!conn->writable);
    ck_assert_uint_gt(sum, 0);
    loop_turn(loop, 0);
    events = 0;
    for (size_t got = 0; got < sum;) {
        ssize_t part = read(other, block, sizeof block);
        ck_assert_int_gt(part, 0);
        got += (size_t)part;
    }
    loop_turn(loop, 1000);
    ck_assert_uint_ge(events, 1);
    const struct iovec pieces[2] = {{block, 1}, {block, 2}};
    ck_assert_int_eq(conn_writev(conn, pieces, 2, &n), IO_OK);
    ck_assert_uint_eq(n, 3);
}
END_TEST

START_TEST(test_close_inside_a_batch_is_safe) {
    ck_assert_int_eq(write(other, "abc", 3), 3);
    struct conn *kept = conn;
    conn_close(&conn);
    ck_assert_ptr_null(conn);
    kept->source.on_ready(&kept->source, 1); /* an event of the same batch: must be ignored */
    ck_assert_uint_eq(events, 0);
    char byte;
    ck_assert_int_eq(read(other, &byte, 1), -1 * (errno == ECONNRESET)); /* closed with unread data: reset, or EOF */
}
END_TEST

START_TEST(test_peek_takes_nothing) {
    char data[16];
    size_t n = 0;
    ck_assert_int_eq(conn_peek(conn, data, sizeof data, &n), IO_AGAIN);
    ck_assert_int_eq(write(other, "ab", 2), 2);
    loop_turn(loop, 100);
    events = 0;
    ck_assert_int_eq(conn_peek(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_eq(write(other, "cd", 2), 2); /* behind bytes that stay unread: an event all the same */
    loop_turn(loop, 100);
    ck_assert_uint_eq(events, 1);
    ck_assert_int_eq(conn_peek(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, 4);
    ck_assert_int_eq(conn_read(conn, data, 3, &n), IO_OK);
    ck_assert_mem_eq(data, "abc", 3);
    shutdown(other, SHUT_WR);
    loop_turn(loop, 100);
    ck_assert_int_eq(conn_peek(conn, data, sizeof data, &n), IO_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(conn_read(conn, data, 1, &n), IO_OK);
    ck_assert_int_eq(conn_peek(conn, data, sizeof data, &n), IO_EOF);
}
END_TEST

START_TEST(test_quiet) {
    ck_assert(conn_is_quiet(conn));
    ck_assert_int_eq(write(other, "x", 1), 1);
    ck_assert(!conn_is_quiet(conn));
}
END_TEST

START_TEST(test_connect_refused_and_made) {
    struct addr addr;
    ck_assert(addr_parse(SPAN("127.0.0.1:1"), 0, &addr));
    struct conn *made = conn_connect(loop, &addr, NULL, SPAN_NULL, NULL);
    ck_assert_ptr_nonnull(made);
    for (int i = 0; i < 50 && conn_connected(made) == IO_AGAIN; i++)
        loop_turn(loop, 100);
    ck_assert_int_eq(conn_connected(made), IO_ERROR);
    ck_assert_int_eq(made->error, ECONNREFUSED);
    conn_close(&made);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    addr.sa.in.sin_port = 0;
    ck_assert_int_eq(bind(fd, &addr.sa.any, addr.len), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert(sock_local(fd, &addr));
    made = conn_connect(loop, &addr, NULL, SPAN_NULL, NULL);
    size_t n;
    ck_assert_int_eq(conn_write(made, "x", 1, &n), IO_AGAIN);
    for (int i = 0; i < 50 && conn_connected(made) == IO_AGAIN; i++)
        loop_turn(loop, 100);
    ck_assert_int_eq(conn_connected(made), IO_OK);
    ck_assert_int_eq(conn_write(made, "x", 1, &n), IO_OK);
    conn_abort(&made);
    close(fd);
}
END_TEST

START_TEST(test_early_write) {
    struct addr addr;
    size_t n = 9;
    ck_assert(addr_parse(SPAN("127.0.0.1:1"), 0, &addr));
    struct conn *made = conn_connect(loop, &addr, NULL, SPAN("x"), &n);
    ck_assert_ptr_nonnull(made);
    ck_assert_uint_eq(n, 0);
    for (int i = 0; i < 50 && conn_connected(made) == IO_AGAIN; i++)
        loop_turn(loop, 100);
    ck_assert_int_eq(conn_connected(made), IO_ERROR); /* the write took the reason, and it is not lost */
    ck_assert_int_eq(made->error, ECONNREFUSED);
    conn_close(&made);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    addr.sa.in.sin_port = 0;
    ck_assert_int_eq(bind(fd, &addr.sa.any, addr.len), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert(sock_local(fd, &addr));
    made = conn_connect(loop, &addr, NULL, SPAN("xyz"), &n);
    conn_set_owner(made, NULL, on_event);
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(conn_connected(made), IO_OK);
    events = 0;
    loop_turn(loop, 0);
    ck_assert_uint_eq(events, 0); /* nobody asked whether it is writable */
    int no_delay = 0;
    socklen_t size = sizeof no_delay;
    ck_assert_int_eq(getsockopt(made->fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
    ck_assert_int_eq(no_delay, 0);
    ck_assert_int_eq(conn_write(made, "!", 1, &n), IO_OK);
    ck_assert_int_eq(getsockopt(made->fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
    ck_assert_int_ne(no_delay, 0); /* the second write makes it a stream */
    int accepted = accept(fd, NULL, NULL);
    char got[8];
    ck_assert_int_eq(recv(accepted, got, 4, MSG_WAITALL), 4);
    ck_assert_int_eq(memcmp(got, "xyz!", 4), 0);
    conn_abort(&made);
    close(accepted);
    close(fd);
}
END_TEST

START_TEST(test_size) { ck_assert_uint_le(sizeof(struct conn), 96); }
END_TEST

int main(void) {
    Suite *suite = suite_create("conn");
    TCase *tests = tcase_create("conn");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_no_system_call_while_not_readable);
    tcase_add_test(tests, test_full_read_keeps_the_flag);
    tcase_add_test(tests, test_data_and_fin_in_one_event_are_read_to_the_end);
    tcase_add_test(tests, test_full_socket_stops_writing_until_an_event);
    tcase_add_test(tests, test_close_inside_a_batch_is_safe);
    tcase_add_test(tests, test_peek_takes_nothing);
    tcase_add_test(tests, test_quiet);
    tcase_add_test(tests, test_connect_refused_and_made);
    tcase_add_test(tests, test_early_write);
    tcase_add_test(tests, test_size);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
