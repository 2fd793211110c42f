/* SPDX-License-Identifier: MIT */
/* Workers, generations and listeners: waiting for a first probe answer, drain, stop, a busy port, a script that does not open. */
#include "traffic_rig.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }

START_TEST(test_request_waits_for_the_first_probe_answer) {
    rig.pool.probe.kind = CONFIG_PROBE_TCP;
    rig.pool.probe.timeout_ms = 5000;
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    struct pollfd poll_fd = {.fd = rig.origin, .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, 200), 0);
    struct server *server = rig.generation->pools[0]->servers[0];
    ck_assert(server_set_state(server, SERVER_UP));
    worker_notify_server(&rig.worker, server);
    int origin = rig_accept(&rig);
    rig_read(origin, "\r\n\r\n");
    rig_send(origin, "HTTP/1.1 204 No Content\r\n\r\n");
    rig_read(client, "HTTP/1.1 204 ");
    close(origin);
    close(client);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_no_live_server_is_a_503_at_once) {
    rig.pool.probe.kind = CONFIG_PROBE_TCP;
    rig_start(&rig);
    server_set_state(rig.generation->pools[0]->servers[0], SERVER_DOWN);
    int client = rig_connect(&rig);
    uint64_t begin = clock_ms();
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *answer = rig_read(client, "\r\n\r\n");
    ck_assert_ptr_nonnull(strstr(answer, "HTTP/1.1 503 "));
    ck_assert_ptr_nonnull(strstr(answer, "Retry-After: "));
    ck_assert_uint_lt(clock_ms() - begin, 1000);
    close(client);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_drain_finishes_what_is_in_flight) {
    rig_start(&rig);
    const uint64_t before = metric_sum(METRIC_clients_accepted);
    int silent = rig_connect(&rig), idle = rig_connect(&rig), busy = rig_connect(&rig);
    rig_send(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int first = rig_accept(&rig);
    rig_read(first, "\r\n\r\n");
    rig_send(first, "HTTP/1.1 204 No Content\r\n\r\n");
    rig_read(idle, "\r\n\r\n");
    rig_send(busy, "GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_read(first, "/busy");
    for (int i = 0; i < 500 && metric_sum(METRIC_clients_accepted) < before + 3; i++)
        usleep(10000); /* who says nothing is accepted after a second */
    worker_drain(&rig.worker);
    ck_assert_str_eq(rig_read(idle, NULL), ""); /* idle ones go at once, and those that never said a word */
    ck_assert_str_eq(rig_read(silent, NULL), "");
    rig_send(first, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    const char *answer = rig_read(busy, NULL);
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\nok"));
    ck_assert_ptr_nonnull(strstr(answer, "Connection: close\r\n"));
    close(silent);
    close(idle);
    close(busy);
    close(first);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_stop_ends_at_once) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    uint64_t begin = clock_ms();
    worker_stop(&rig.worker);
    ck_assert_str_eq(rig_read(client, NULL), "");
    close(client);
    close(server);
    rig_stop(&rig);
    ck_assert_uint_lt(clock_ms() - begin, 2000);
}
END_TEST

START_TEST(test_busy_port_is_named) {
    rig_start(&rig);
    struct listeners second = {0};
    struct addr bound = rig.listeners.list[0].addr;
    char error[256], text[ADDR_TEXT_MAX], *shown = text;
    addr_format(&bound, text);
    struct config_listener declared = rig.listener;
    declared.binds = &bound;
    declared.bind_texts = &shown;
    struct config config = {.listeners = &declared, .listener_count = 1};
    ck_assert(!listeners_open(&second, &config, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, text));
    ck_assert_ptr_nonnull(strstr(error, "Address already in use"));
    ck_assert_uint_eq(second.count, 0);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_paced_connections_are_spread_over_workers) {
    static struct worker workers[2];
    int clients[60];
    char error[GENERATION_ERROR_MAX] = "";
    rig_prepare(&rig);
    rig.shared.workers = workers;
    rig.shared.worker_count = 2;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_msg(worker_start(&workers[i], i, &rig.shared, rig.generation, error), "%s", error);
    for (unsigned i = 0; i < 2; i++)
        worker_listen(&workers[i]);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = rig_connect(&rig);
        usleep(2000);
    }
    unsigned first = 0, second = 0;
    for (int i = 0; i < 1000 && first + second < ARRAY_LEN(clients); i++) {
        usleep(10000);
        first = atomic_load(&workers[0].live);
        second = atomic_load(&workers[1].live);
    }
    ck_assert_uint_eq(first + second, ARRAY_LEN(clients));
    ck_assert_uint_ge(first, 20);
    ck_assert_uint_ge(second, 20);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++)
        close(clients[i]);
    for (unsigned i = 0; i < 2; i++)
        worker_drain(&workers[i]);
    for (unsigned i = 0; i < 2; i++)
        worker_join(&workers[i]);
    for (unsigned i = 0; i < 2; i++)
        worker_free(&workers[i]);
    listeners_close(&rig.listeners);
    generation_unref(&rig.generation);
}
END_TEST

static void *refuse_open(const void *load, unsigned worker, char *error, size_t size) {
    (void)load, (void)worker;
    snprintf(error, size, "no state today");
    return NULL;
}

START_TEST(test_worker_without_a_script_does_not_start) {
    static const struct script_ops refusing = {.open = refuse_open};
    rig_start(&rig);
    rig_stop(&rig);
    rig_init(&rig);
    rig.config->listener_count = 0;
    char error[GENERATION_ERROR_MAX] = "";
    struct generation *generation = generation_new(rig.config, &rig, rig_free_load, &refusing, NULL, error);
    ck_assert_ptr_nonnull(generation);
    struct worker worker;
    struct worker_shared shared = {.listeners = &rig.listeners, .workers = &worker, .worker_count = 1, .max_connections = 10};
    ck_assert(!worker_start(&worker, 0, &shared, generation, error));
    ck_assert_str_eq(error, "no state today");
    worker_join(&worker);
    worker_free(&worker);
    generation_unref(&generation);
    config_free(&rig.config);
    close(rig.origin);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("worker");
    TCase *tests = tcase_create("worker");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, test_request_waits_for_the_first_probe_answer);
    tcase_add_test(tests, test_no_live_server_is_a_503_at_once);
    tcase_add_test(tests, test_drain_finishes_what_is_in_flight);
    tcase_add_test(tests, test_stop_ends_at_once);
    tcase_add_test(tests, test_busy_port_is_named);
    tcase_add_test(tests, test_paced_connections_are_spread_over_workers);
    tcase_add_test(tests, test_worker_without_a_script_does_not_start);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
