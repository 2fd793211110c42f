/* SPDX-License-Identifier: MIT */
/* Pipes between two sockets: bytes in order, what EAGAIN means, ends, the cap, only empty ones come back. */
#include <check.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/pipe.h"

static struct loop *loop;
static struct conn *from, *to;
static int source, sink;
static struct pipes pipes;

static void setup(void) {
    int a[2], b[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
    loop = loop_new();
    from = conn_open(loop, a[0]);
    to = conn_open(loop, b[0]);
    source = a[1];
    sink = b[1];
    pipes_init(&pipes, 2);
}

static void teardown(void) {
    conn_close(&from);
    conn_close(&to);
    loop_turn(loop, 0);
    loop_free(&loop);
    close(source);
    close(sink);
    pipes_fini(&pipes);
}

START_TEST(test_bytes_pass_and_readable_is_kept_until_eagain) {
    char got[16];
    size_t n = 0;
    struct pipe *pipe = pipes_borrow(&pipes);
    ck_assert_int_eq(pipe_fill(pipe, from, PIPE_SIZE, &n), IO_AGAIN);
    ck_assert_int_eq(write(source, "abcdef", 6), 6);
    loop_turn(loop, 100);
    ck_assert_int_eq(pipe_fill(pipe, from, PIPE_SIZE, &n), IO_OK);
    ck_assert_uint_eq(n, 6);
    ck_assert(from->readable); /* a short count proves nothing */
    ck_assert_int_eq(pipe_drain(pipe, to, &n), IO_OK);
    ck_assert_uint_eq(pipe->filled, 0);
    ck_assert_int_eq(read(sink, got, sizeof got), 6);
    ck_assert_mem_eq(got, "abcdef", 6);
    ck_assert_int_eq(pipe_fill(pipe, from, PIPE_SIZE, &n), IO_AGAIN);
    ck_assert(!from->readable);
    shutdown(source, SHUT_WR);
    loop_turn(loop, 100);
    ck_assert_int_eq(pipe_fill(pipe, from, PIPE_SIZE, &n), IO_EOF);
    pipes_return(&pipes, &pipe);
    ck_assert_ptr_null(pipe);
}
END_TEST

START_TEST(test_full_sink_waits_for_writable) {
    static char block[1 << 20];
    size_t n = 0, moved = 0;
    struct pipe *pipe = pipes_borrow(&pipes);
    enum io result = IO_OK;
    for (int i = 0; i < 1000 && result == IO_OK; i++) {
        while (write(source, block, sizeof block) > 0) {
        }
        loop_turn(loop, 0);
        if (pipe->filled == 0 && pipe_fill(pipe, from, PIPE_SIZE, &n) != IO_OK)
            continue;
        result = pipe_drain(pipe, to, &n);
        if (result == IO_OK)
            moved += n;
    }
    ck_assert_int_eq(result, IO_AGAIN);
    ck_assert(!to->writable);
    ck_assert_uint_gt(moved, 0);
    ck_assert_uint_gt(pipe->filled, 0);
    pipes_return(&pipes, &pipe); /* not empty: closed, never lent again */
    ck_assert_uint_eq(pipes.made, 0);
}
END_TEST

START_TEST(test_cap_and_reuse) {
    struct pipe *first = pipes_borrow(&pipes), *second = pipes_borrow(&pipes);
    ck_assert_ptr_nonnull(first);
    ck_assert_ptr_nonnull(second);
    ck_assert_ptr_null(pipes_borrow(&pipes));
    struct pipe *same = first;
    pipes_return(&pipes, &first);
    ck_assert_ptr_eq(pipes_borrow(&pipes), same);
    pipes_return(&pipes, &same);
    pipes_return(&pipes, &second);
    pipes_return(&pipes, &second);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pipe");
    TCase *tests = tcase_create("pipe");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_bytes_pass_and_readable_is_kept_until_eagain);
    tcase_add_test(tests, test_full_sink_waits_for_writable);
    tcase_add_test(tests, test_cap_and_reuse);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
