/* SPDX-License-Identifier: MIT */
/* The way of requests through a real worker: framing, pipelining, bodies, clocks, refusals. */
#include "traffic_rig.h"

static struct rig rig;

static void setup(void) { rig_init(&rig); }

static void expect(const char *text, const char *part) { ck_assert_msg(strstr(text, part) != NULL, "no %s in: %s", part, text); }
static void expect_not(const char *text, const char *part) { ck_assert_msg(!strstr(text, part), "%s in: %s", part, text); }

START_TEST(test_get_is_regenerated_and_answered) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /a//b/../c?x=1 HTTP/1.1\r\nHost: Example.COM\r\nConnection: x-secret, host\r\nX-Secret: 1\r\n\r\n");
    int server = rig_accept(&rig);
    const char *head = rig_read(server, "\r\n\r\n");
    expect(head, "GET /a/c?x=1 HTTP/1.1\r\n");
    expect(head, "Host: Example.COM\r\n");
    expect_not(head, "Secret");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nX-A: b\r\n\r\nhello");
    const char *answer = rig_read(client, "hello");
    expect(answer, "HTTP/1.1 200 OK\r\n");
    expect(answer, "X-A: b\r\n");
    expect(answer, "Content-Length: 5\r\n");
    expect_not(answer, "keep-alive");
    close(client);
    close(server);
    rig_stop(&rig);
    rig_reconcile(METRIC_requests_started, METRIC_requests_ended);
    rig_reconcile(METRIC_clients_accepted, METRIC_clients_closed);
}
END_TEST

START_TEST(test_head_cut_at_every_byte) {
    static const char head[] = "GET /cut HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n";
    rig_start(&rig);
    int client = rig_connect(&rig), server = -1;
    for (size_t cut = 1; cut < sizeof head - 1; cut++) {
        ck_assert_int_eq(send(client, head, cut, 0), (ssize_t)cut);
        usleep(300);
        rig_send(client, head + cut);
        if (server < 0)
            server = rig_accept(&rig);
        expect(rig_read(server, "\r\n\r\n"), "GET /cut HTTP/1.1\r\n");
        rig_send(server, "HTTP/1.1 204 No Content\r\n\r\n");
        expect(rig_read(client, "\r\n\r\n"), "HTTP/1.1 204 No Content\r\n");
    }
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_pipelined_requests_in_order_one_in_flight) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    const char *first = rig_read(server, "\r\n\r\n");
    expect(first, "GET /1 ");
    expect_not(first, "GET /2 ");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    expect(rig_read(server, "\r\n\r\n"), "GET /2 ");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    const char *both = rig_read(client, "two");
    expect(both, "one");
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_chunked_body_both_ways) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n");
    int server = rig_accept(&rig);
    const char *head = rig_read(server, "abc\r\n");
    expect(head, "Transfer-Encoding: chunked\r\n");
    expect_not(head, "x=y");
    rig_send(client, "2\r\nde\r\n0\r\n\r\n");
    rig_read(server, "0\r\n\r\n");
    rig_send(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n");
    const char *answer = rig_read(client, "X-T: 1\r\n\r\n");
    expect(answer, "2\r\nhi\r\n");
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_bad_head_is_refused_and_closed) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost : a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n");
    const char *answer = rig_read(client, NULL);
    expect(answer, "HTTP/1.1 400 Bad Request\r\n");
    expect(answer, "Connection: close\r\n");
    ck_assert_ptr_eq(strstr(answer + 8, "HTTP/1.1"), NULL);
    close(client);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), 0);
}
END_TEST

START_TEST(test_header_timeout_is_absolute) {
    rig.listener.header_timeout_ms = 300;
    rig_start(&rig);
    int client = rig_connect(&rig);
    uint64_t begin = clock_ms();
    for (int i = 0; i < 10; i++) {
        if (send(client, "G", 1, MSG_NOSIGNAL) < 0)
            break;
        usleep(60000);
    }
    expect(rig_read(client, NULL), "HTTP/1.1 408 ");
    ck_assert_uint_lt(clock_ms() - begin, 20000);
    close(client);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_client_that_leaves_frees_the_slot) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    close(client);
    ck_assert_str_eq(rig_read(server, NULL), "");
    const struct server *slot = rig.generation->pools[0]->servers[0];
    for (int i = 0; i < 100 && atomic_load(&slot->active) != 0; i++)
        usleep(10000);
    uint32_t active = atomic_load(&slot->active);
    ck_assert_uint_eq(active, 0);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_retry_when_a_kept_connection_dies) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    rig_read(client, "ok");
    rig_send(client, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_read(server, "\r\n\r\n");
    close(server); /* no byte of an answer */
    server = rig_accept(&rig);
    expect(rig_read(server, "\r\n\r\n"), "GET /2 ");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    rig_read(client, "two");
    close(client);
    close(server);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_retries), 1);
}
END_TEST

START_TEST(test_response_cut_short_is_no_clean_end) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    rig_read(client, "abc\r\n");
    close(server);
    expect_not(rig_read(client, NULL), "0\r\n\r\n");
    close(client);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_early_answer_closes_both) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    int server = rig_accept(&rig);
    rig_read(server, "abc");
    rig_send(server, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    const char *answer = rig_read(client, NULL);
    expect(answer, "HTTP/1.1 413 ");
    expect(answer, "Connection: close\r\n");
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_connections_above_the_limit_are_closed) {
    rig.shared.max_connections = 1;
    rig_start(&rig);
    int first = rig_connect(&rig);
    rig_send(first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    int second = rig_connect(&rig);
    char byte;
    ck_assert_int_le(recv(second, &byte, 1, 0), 0);
    ck_assert_uint_eq(metric_sum(METRIC_clients_refused), 1);
    close(first);
    close(second);
    close(server);
    rig_stop(&rig);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("client");
    TCase *tests = tcase_create("client");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, test_get_is_regenerated_and_answered);
    tcase_add_test(tests, test_head_cut_at_every_byte);
    tcase_add_test(tests, test_pipelined_requests_in_order_one_in_flight);
    tcase_add_test(tests, test_chunked_body_both_ways);
    tcase_add_test(tests, test_bad_head_is_refused_and_closed);
    tcase_add_test(tests, test_header_timeout_is_absolute);
    tcase_add_test(tests, test_client_that_leaves_frees_the_slot);
    tcase_add_test(tests, test_retry_when_a_kept_connection_dies);
    tcase_add_test(tests, test_response_cut_short_is_no_clean_end);
    tcase_add_test(tests, test_early_answer_closes_both);
    tcase_add_test(tests, test_connections_above_the_limit_are_closed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
