/* SPDX-License-Identifier: MIT */
/*
 * request_choose: the affinity cookie through a real worker: set once, in full, never on a 101, beside other pools'
 * values, and not where it has no say. And a slot that comes and goes while a request looks for one.
 */
#include <pthread.h>

#include "traffic_rig.h"

#define HANDSHAKE                                                                                                      \
    "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"          \
    "Sec-WebSocket-Version: 13\r\n"
#define VALUE "5bd88f52906a21a0ece587cec191bf59" /* of "10.0.0.1:80" with this key: see test_affinity.c */
#define OTHER "0123456789abcdef0123456789abcdef"

static struct rig rig;
static struct config_server servers[2];

/* Two servers: the rig's own, called 10.0.0.1:80, and one that gets no work. */
static void setup(void) {
    rig_init(&rig);
    servers[0] = servers[1] = rig.server;
    servers[0].name = rig_text("10.0.0.1:80");
    servers[1].name = rig_text("10.0.0.2:80");
    servers[1].weight = 0;
    rig.pool.servers = servers;
    rig.pool.server_count = 2;
    rig.pool.affinity = (struct config_affinity){.cookie = rig_text("node"), .key = rig_text("0123456789abcdef")};
}

/* The answer's head to a request with more fields, by a server that answers with a head. */
static const char *ask(const char *fields, const char *answer) {
    char request[1024];
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\n%s\r\n", fields);
    int client = rig_connect(&rig);
    rig_send(client, request);
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, answer);
    close(server);
    const char *head = rig_read(client, "\r\n\r\n");
    close(client);
    return head;
}

#define OK "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

START_TEST(test_the_cookie_is_set_once) {
    rig.pool.affinity.ttl_ms = 90500;
    rig.pool.affinity.same_site = CONFIG_SAME_SITE_STRICT;
    rig_start(&rig);
    const char *line = "Set-Cookie: node=" VALUE "; Path=/; Max-Age=91; HttpOnly; SameSite=Strict\r\n";
    ck_assert_ptr_nonnull(strstr(ask("Host: a\r\n", OK), line));
    ck_assert_ptr_nonnull(strstr(ask("Host: a\r\nCookie: node=\r\n", OK), line));
    ck_assert_ptr_nonnull(strstr(ask("Host: a\r\nCookie: xnode=" VALUE "\r\n", OK), line));
    ck_assert_ptr_null(strstr(ask("Host: a\r\nCookie: a=b; node=" VALUE "\r\n", OK), "Set-Cookie"));
    ck_assert_ptr_null(strstr(ask("Host: a\r\nCookie: node=" OTHER "." VALUE "\r\n", OK), "Set-Cookie"));
    rig_stop(&rig);
}
END_TEST

START_TEST(test_other_values_are_kept_but_ours) {
    rig_start(&rig);
    char gone[AFFINITY_VALUE_SIZE], cookie[200];
    affinity_value(&rig.pool.affinity, "10.0.0.2:80", gone); /* weight 0: the client moves */
    snprintf(cookie, sizeof cookie, "Host: a\r\nCookie: node=%s.<b>." OTHER "\r\n", gone);
    ck_assert_ptr_nonnull(strstr(ask(cookie, OK), "Set-Cookie: node=" VALUE "." OTHER "; Path=/; HttpOnly; SameSite=Lax\r\n"));
    rig_stop(&rig);
}
END_TEST

START_TEST(test_same_site_none_needs_tls) {
    rig.pool.affinity.same_site = CONFIG_SAME_SITE_NONE;
    struct cidr local;
    ck_assert(cidr_parse(SPAN("127.0.0.1/32"), &local));
    rig.listener.trusted_proxies = (struct config_cidrs){.list = &local, .count = 1, .set = true};
    rig_start(&rig);
    ck_assert_ptr_nonnull(strstr(ask("Host: a\r\n", OK), "Path=/; HttpOnly\r\n"));
    ck_assert_ptr_nonnull(strstr(ask("Host: a\r\nX-Forwarded-Proto: https\r\n", OK), "Path=/; HttpOnly; Secure; SameSite=None\r\n"));
    rig_stop(&rig);
}
END_TEST

START_TEST(test_never_on_a_101) {
    rig_start(&rig);
    const char *head = ask(HANDSHAKE, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    ck_assert_int_eq(strncmp(head, "HTTP/1.1 101 ", 13), 0);
    ck_assert_ptr_null(strstr(head, "Set-Cookie"));
    head = ask(HANDSHAKE, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    ck_assert_ptr_nonnull(strstr(head, "Set-Cookie: node=" VALUE));
    rig_reconcile(METRIC_tunnels_opened, METRIC_tunnels_closed);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_not_where_the_rule_names_the_server) {
    rig.step.action.forward.server = SPAN("10.0.0.1:80");
    rig_start(&rig);
    ck_assert_ptr_null(strstr(ask("Host: a\r\n", OK), "Set-Cookie"));
    rig_stop(&rig);
}
END_TEST

START_TEST(test_not_on_answers_of_our_own) {
    servers[0].weight = 0;
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *head = rig_read(client, "\r\n\r\n");
    ck_assert_int_eq(strncmp(head, "HTTP/1.1 503 ", 13), 0);
    ck_assert_ptr_null(strstr(head, "Set-Cookie"));
    close(client);
    rig_stop(&rig);
}
END_TEST

static _Atomic(bool) stop;

static void *take_and_give(void *argument) {
    struct server *server = argument;
    while (!atomic_load(&stop))
        if (server_enter(server))
            server_leave(server);
    return NULL;
}

/* Full at one look and free at the next is no reason to refuse: it waits, or picks again. */
START_TEST(test_a_slot_that_comes_and_goes) {
    servers[0].max_connections = 1;
    rig_start(&rig);
    pthread_t thread;
    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, take_and_give, rig.generation->pools[0]->servers[0]), 0);
    for (unsigned i = 0; i < 4000; i++)
        ck_assert_int_eq(strncmp(ask("Host: a\r\n", OK), "HTTP/1.1 200 ", 13), 0);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    const uint32_t active = atomic_load(&rig.generation->pools[0]->servers[0]->active);
    ck_assert_uint_eq(active, 0);
    rig_stop(&rig);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("request_choose");
    TCase *tests = tcase_create("request_choose");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, test_the_cookie_is_set_once);
    tcase_add_test(tests, test_other_values_are_kept_but_ours);
    tcase_add_test(tests, test_same_site_none_needs_tls);
    tcase_add_test(tests, test_never_on_a_101);
    tcase_add_test(tests, test_not_where_the_rule_names_the_server);
    tcase_add_test(tests, test_not_on_answers_of_our_own);
    tcase_add_test(tests, test_a_slot_that_comes_and_goes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
