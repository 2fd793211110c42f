/* SPDX-License-Identifier: MIT */
/* Listening sockets: busy ports, stale and live unix paths, options, which errors are ours. */
#include <check.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "io/sock.h"

START_TEST(test_listen_and_busy) {
    struct addr addr;
    const char *step = NULL;
    ck_assert(addr_parse(SPAN("127.0.0.1"), 1, &addr));
    addr.sa.in.sin_port = 0;
    int fd = sock_listen(&addr, 8, &step);
    ck_assert_int_ge(fd, 0);
    ck_assert(sock_local(fd, &addr));
    ck_assert_uint_ne(addr_port(&addr), 0);
    int second = sock_listen(&addr, 8, &step);
    ck_assert_int_eq(second, -1);
    ck_assert_int_eq(errno, EADDRINUSE);
    ck_assert_str_eq(step, "bind");
    close(fd);
}
END_TEST

START_TEST(test_unix_path_stale_or_live) {
    char folder[] = "/tmp/moongate-sock-XXXXXX", text[128];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(text, sizeof text, "unix:%s/s", folder);
    struct addr addr;
    ck_assert(addr_parse(span_of(text), 0, &addr));
    int fd = sock_listen(&addr, 8, NULL);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(sock_listen(&addr, 8, NULL), -1); /* somebody answers */
    close(fd);
    fd = sock_listen(&addr, 8, NULL); /* left behind: replaced */
    ck_assert_int_ge(fd, 0);
    close(fd);
    unlink(addr.sa.un.sun_path);
    rmdir(folder);
}
END_TEST

START_TEST(test_options) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), value = 0;
    socklen_t size = sizeof value;
    sock_set_keepalive(fd, 60);
    sock_set_user_timeout(fd, 60000);
    ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
    ck_assert_int_ne(value, 0);
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &size), 0);
    ck_assert_int_eq(value, 60);
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &value, &size), 0);
    ck_assert_int_eq(value, 15);
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &size), 0);
    ck_assert_int_eq(value, 60000);
    close(fd);
}
END_TEST

/* What is set once on the listening socket need not be set on each that it accepts. */
START_TEST(test_accepted_inherit_options) {
    struct addr addr, peer;
    ck_assert(addr_parse(SPAN("127.0.0.1"), 1, &addr));
    addr.sa.in.sin_port = 0;
    int listener = sock_listen(&addr, 8, NULL);
    ck_assert(listener >= 0 && sock_local(listener, &addr));
    sock_set_keepalive(listener, 60);
    sock_set_user_timeout(listener, 50000);
    int client = sock_connect(&addr, NULL), unsent = 0, fd = -1;
    sock_set_stream(client);
    socklen_t unsent_size = sizeof unsent;
    ck_assert_int_eq(getsockopt(client, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, &unsent_size), 0);
    ck_assert_int_eq(unsent, 128 * 1024); /* towards servers, too */
    /* The listener defers: a client that says nothing is handed over only after a second. Loopback connects without the program waiting. */
    ck_assert_int_eq(poll(&(struct pollfd){.fd = client, .events = POLLOUT}, 1, 1000), 1);
    ck_assert_int_eq(write(client, "G", 1), 1);
    for (int i = 0; i < 100 && fd < 0; i++) {
        fd = sock_accept(listener, &peer);
        if (fd < 0)
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    ck_assert_int_ge(fd, 0);
    const struct {
        int level, option, value;
    } wanted[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},     {IPPROTO_TCP, TCP_NODELAY, 1},
                  {IPPROTO_TCP, TCP_KEEPIDLE, 60},   {IPPROTO_TCP, TCP_KEEPINTVL, 15},
                  {IPPROTO_TCP, TCP_KEEPCNT, 3},     {IPPROTO_TCP, TCP_USER_TIMEOUT, 50000},
                  {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 128 * 1024}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        int value = 0;
        socklen_t size = sizeof value;
        ck_assert_int_eq(getsockopt(fd, wanted[i].level, wanted[i].option, &value, &size), 0);
        ck_assert_int_eq(value, wanted[i].value);
    }
    close(fd);
    close(client);
    close(listener);
}
END_TEST

START_TEST(test_local_errors) {
    ck_assert(sock_error_is_local(EMFILE));
    ck_assert(sock_error_is_local(ENOBUFS));
    ck_assert(sock_error_is_local(EADDRNOTAVAIL));
    ck_assert(!sock_error_is_local(ECONNREFUSED));
    ck_assert(!sock_error_is_local(ETIMEDOUT));
    ck_assert_uint_gt(sock_raise_descriptor_limit(), 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sock");
    TCase *tests = tcase_create("sock");
    tcase_add_test(tests, test_listen_and_busy);
    tcase_add_test(tests, test_unix_path_stale_or_live);
    tcase_add_test(tests, test_options);
    tcase_add_test(tests, test_accepted_inherit_options);
    tcase_add_test(tests, test_local_errors);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
