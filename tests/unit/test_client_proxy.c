/* SPDX-License-Identifier: MIT */
/* PROXY headers through a real worker: read from the peers that are named and from nobody else, and sent to servers. */
#include "traffic_rig.h"

static struct rig rig;
static struct cidr from[1];

#define V1 "PROXY TCP4 192.0.2.7 198.51.100.1 4711 8443\r\n"
#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x20\xfb\xee\0\x04TLVs" GET;

static void setup(void) {
    rig_init(&rig);
    ck_assert(cidr_parse(SPAN("127.0.0.0/8"), &from[0]));
    rig.listener.proxy_from.list = from;
    rig.listener.proxy_from.count = 1;
}

static void give(int fd, const char *data, size_t n) { ck_assert_int_eq(send(fd, data, n, MSG_NOSIGNAL), (ssize_t)n); }

static void expect(const char *text, const char *part) { ck_assert_msg(strstr(text, part) != NULL, "no %s in: %s", part, text); }

/* What the server is told of the client, behind a header cut in two. */
static void run_cut(const char *data, size_t n, size_t cut) {
    int client = rig_connect(&rig);
    give(client, data, cut);
    usleep(500);
    give(client, data + cut, n - cut);
    int server = rig_accept(&rig);
    const char *head = rig_read(server, "\r\n\r\n");
    expect(head, "X-Forwarded-For: 192.0.2.7\r\n");
    expect(head, "X-Forwarded-Port: 8443\r\n");
    rig_send(server, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    rig_read(client, "\r\n\r\n");
    close(server);
    close(client);
}

START_TEST(test_cut_at_every_byte) {
    const char *data = _i == 0 ? V1 GET : v2;
    size_t n = _i == 0 ? sizeof V1 GET - 1 : sizeof v2 - 1;
    rig_start(&rig);
    for (size_t cut = 1; cut < n; cut++)
        run_cut(data, n, cut);
    rig_stop(&rig);
    rig_reconcile(METRIC_clients_accepted, METRIC_clients_closed);
    ck_assert_uint_eq(metric_sum(METRIC_proxy_headers_bad), 0);
}
END_TEST

START_TEST(test_no_header_is_closed) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, GET);
    char byte;
    ck_assert_int_le(recv(client, &byte, 1, 0), 0);
    close(client);
    client = rig_connect(&rig); /* ended inside the header */
    give(client, V1, 10);
    shutdown(client, SHUT_WR);
    ck_assert_int_le(recv(client, &byte, 1, 0), 0);
    close(client);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_proxy_headers_bad), 2);
    ck_assert_uint_eq(metric_sum(METRIC_requests_started), 0);
}
END_TEST

START_TEST(test_header_timeout) {
    rig.listener.header_timeout_ms = 200;
    rig_start(&rig);
    uint64_t begin = clock_ms();
    int client = rig_connect(&rig);
    give(client, V1, sizeof V1 - 2);
    char byte;
    ck_assert_int_le(recv(client, &byte, 1, 0), 0);
    ck_assert_uint_ge(clock_ms() - begin, 150);
    ck_assert_uint_lt(clock_ms() - begin, 30000);
    close(client);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_proxy_headers_bad), 1);
}
END_TEST

START_TEST(test_other_peers_are_refused) {
    ck_assert(cidr_parse(SPAN("10.0.0.0/8"), &from[0]));
    rig_start(&rig);
    for (int i = 0; i < 2; i++) {
        int client = rig_connect(&rig);
        if (i == 0)
            rig_send(client, V1 GET);
        else
            give(client, v2, sizeof v2 - 1);
        expect(rig_read(client, NULL), "HTTP/1.1 400 ");
        close(client);
    }
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_proxy_headers_bad), 0);
}
END_TEST

START_TEST(test_towards_servers) {
    rig.pool.proxy_protocol = _i == 0 ? CONFIG_PROXY_V1 : CONFIG_PROXY_V2;
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, V1 GET);
    for (int i = 0; i < 2; i++) {
        int server = rig_accept(&rig); /* each request a connection of its own */
        static const char binary[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x20\xfb";
        const char *want = _i == 0 ? V1 : binary;
        size_t n = _i == 0 ? sizeof V1 - 1 : sizeof binary - 1;
        char got[64];
        ck_assert_int_eq(recv(server, got, n, MSG_WAITALL), (ssize_t)n);
        ck_assert_mem_eq(got, want, n);
        expect(rig_read(server, "\r\n\r\n"), "GET / HTTP/1.1\r\n");
        rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        expect(rig_read(client, "ok"), "HTTP/1.1 200 OK\r\n");
        char byte;
        ck_assert_int_eq(recv(server, &byte, 1, 0), 0);
        close(server);
        if (i == 0)
            rig_send(client, GET);
    }
    close(client);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_server_reused), 0);
}
END_TEST

/* Without a header in, it is the connection's own addresses that go out. */
START_TEST(test_own_addresses_towards_servers) {
    rig.listener.proxy_from.count = 0;
    rig.pool.proxy_protocol = CONFIG_PROXY_V1;
    rig_start(&rig);
    int client = rig_connect(&rig);
    struct addr local;
    char want[128];
    ck_assert(sock_local(client, &local));
    snprintf(want, sizeof want, "PROXY TCP4 127.0.0.1 127.0.0.1 %u %u\r\nGET ", (unsigned)addr_port(&local),
             (unsigned)addr_port(&rig.listeners.list[0].addr));
    rig_send(client, GET);
    int server = rig_accept(&rig);
    expect(rig_read(server, "\r\n\r\n"), want);
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

int main(void) {
    log_set_level(LOG_LEVEL_ERROR);
    Suite *suite = suite_create("client_proxy");
    TCase *tests = tcase_create("client_proxy");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_cut_at_every_byte, 0, 2);
    tcase_add_test(tests, test_no_header_is_closed);
    tcase_add_test(tests, test_header_timeout);
    tcase_add_test(tests, test_other_peers_are_refused);
    tcase_add_loop_test(tests, test_towards_servers, 0, 2);
    tcase_add_test(tests, test_own_addresses_towards_servers);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
