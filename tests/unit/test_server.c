/* SPDX-License-Identifier: MIT */
/*
 * server: what is shared by threads. Many threads enter, leave and note failures at once; the sums must come out, and
 * the last reference frees.
 */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "upstream/server.h"

static struct config_server test_config(char *address, char *host) {
    struct config_server config = {.name = address, .address = address, .host = host, .port = 9000, .weight = 3};
    addr_parse(span_of(address), 0, &config.addr);
    return config;
}

START_TEST(test_server_names) {
    char address[] = "10.0.1.2:9000", host[] = "10.0.1.2";
    struct config_server config = test_config(address, host);
    struct server *server = server_new("chat", &config);
    ck_assert_str_eq(server->label, "chat/10.0.1.2:9000");
    ck_assert_str_eq(server->name, "10.0.1.2:9000");
    ck_assert_str_eq(server->host, "10.0.1.2");
    ck_assert_uint_eq(server->weight, 3);
    ck_assert_int_eq(server_state(server), SERVER_UNKNOWN);
    ck_assert(!server_is_live(server));
    ck_assert(server_set_state(server, SERVER_UP));
    ck_assert(!server_set_state(server, SERVER_UP));
    ck_assert(server_is_live(server));
    ck_assert_str_eq(server_state_name(SERVER_DOWN), "down");
    server_unref(&server);
    ck_assert_ptr_null(server);
}
END_TEST

START_TEST(test_server_unix_and_names) {
    char path[] = "unix:/run/x.sock", name[] = "auth.internal:9000", host[] = "auth.internal";
    struct config_server config = test_config(path, NULL);
    struct server *server = server_new("p", &config);
    ck_assert_str_eq(server->host, "localhost");
    server_unref(&server);
    config = test_config(name, host);
    ck_assert_uint_eq(config.addr.len, 0);
    server = server_new("p", &config);
    ck_assert_int_eq(server_state(server), SERVER_UNRESOLVED);
    server_unref(&server);
    struct addr addr;
    ck_assert(addr_parse(SPAN("127.0.0.1:9001"), 0, &addr));
    server = server_new_of_name("p", &config, &addr, "web1.internal", "127.0.0.1");
    ck_assert_str_eq(server->label, "p/auth.internal:9000(127.0.0.1)");
    ck_assert_str_eq(server->group, "auth.internal:9000");
    ck_assert_str_eq(server->address, "auth.internal:9000");
    ck_assert_str_eq(server->host, "web1.internal");
    ck_assert_uint_eq(server->port, 9001);
    ck_assert_int_eq(server_state(server), SERVER_UNKNOWN);
    ck_assert(addr_equal(&server->addr, &addr));
    server->late = true; /* comes as one that returns does */
    server_set_state(server, SERVER_UP);
    ck_assert_uint_lt(server_ramp(server, 60000), SERVER_RAMP_FULL);
    server_unref(&server);
}
END_TEST

START_TEST(test_server_ramp) {
    char address[] = "10.0.1.2:9000", host[] = "10.0.1.2";
    struct config_server config = test_config(address, host);
    struct server *server = server_new("chat", &config);
    server_set_state(server, SERVER_UP); /* the first answer is no return */
    ck_assert_uint_eq(server_ramp(server, 60000), SERVER_RAMP_FULL);
    server_set_state(server, SERVER_DOWN);
    server_set_state(server, SERVER_UP);
    unsigned ramp = server_ramp(server, 60000);
    ck_assert_uint_ge(ramp, SERVER_RAMP_FULL / 16);
    ck_assert_uint_lt(ramp, SERVER_RAMP_FULL / 8);
    ck_assert_uint_eq(server_ramp(server, 0), SERVER_RAMP_FULL);
    atomic_store(&server->returned_ms, clock_ms() - 30000);
    ramp = server_ramp(server, 60000);
    ck_assert_uint_gt(ramp, SERVER_RAMP_FULL / 2);
    ck_assert_uint_lt(ramp, SERVER_RAMP_FULL * 9 / 16);
    atomic_store(&server->returned_ms, clock_ms() - 60000);
    ck_assert_uint_eq(server_ramp(server, 60000), SERVER_RAMP_FULL);
    ck_assert_uint_eq(atomic_load(&server->returned_ms), 0);
    server_unref(&server);
}
END_TEST

START_TEST(test_server_weight_zero_is_not_live) {
    char address[] = "10.0.1.2:9000", host[] = "10.0.1.2";
    struct config_server config = test_config(address, host);
    config.weight = 0;
    struct server *server = server_new("chat", &config);
    server_set_state(server, SERVER_UP);
    ck_assert(!server_is_live(server));
    server_unref(&server);
}
END_TEST

static _Atomic(unsigned) noted;

static void count_failure(struct server *server) {
    (void)server;
    atomic_fetch_add(&noted, 1);
}

static void *hammer(void *argument) {
    struct server *server = argument;
    for (unsigned i = 0; i < 10000; i++) {
        server_enter(server);
        server_note_failure(server);
        server_leave(server);
    }
    server_unref(&server);
    return NULL;
}

START_TEST(test_server_threads) {
    char address[] = "10.0.1.2:9000", host[] = "10.0.1.2";
    struct config_server config = test_config(address, host);
    struct server *server = server_new("chat", &config);
    atomic_store(&server->on_failure, count_failure);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, server_ref(server)), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(atomic_load(&server->active), 0);
    ck_assert_uint_eq(atomic_load(&server->connect_failures), 40000);
    ck_assert_uint_eq(atomic_load(&noted), 40000);
    ck_assert_uint_eq(atomic_load(&server->refs), 1);
    server_unref(&server);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("server");
    TCase *tests = tcase_create("server");
    tcase_add_test(tests, test_server_names);
    tcase_add_test(tests, test_server_unix_and_names);
    tcase_add_test(tests, test_server_ramp);
    tcase_add_test(tests, test_server_weight_zero_is_not_live);
    tcase_add_test(tests, test_server_threads);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
