/* SPDX-License-Identifier: MIT */
/* Tunnels through a real worker: what is glued to either head, half-close, resets, clocks, bad handshakes, back-pressure. */
#include "traffic_rig.h"
#include "wire/upgrade.h"

static struct rig rig;
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char handshake[] = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                                "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n";

static void setup(void) { rig_init(&rig); }

static void answer_101(int server, const char *extra, const char *behind) {
    char accept[UPGRADE_ACCEPT_SIZE + 1], text[1024];
    upgrade_accept(span_of(key), accept);
    snprintf(text, sizeof text,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n%s\r\n%s",
             accept, extra, behind);
    rig_send(server, text);
}

/* Opens a tunnel; early goes out with the handshake, glued with the 101. */
static void open_tunnel(int *client, int *server, const char *early, const char *glued) {
    char text[1024];
    *client = rig_connect(&rig);
    snprintf(text, sizeof text, "%s%s", handshake, early);
    rig_send(*client, text);
    *server = rig_accept(&rig);
    const char *head = rig_read(*server, "\r\n\r\n");
    ck_assert_ptr_ne(strstr(head, "Upgrade: websocket\r\n"), NULL);
    ck_assert_ptr_ne(strstr(head, "Sec-WebSocket-Protocol: chat, superchat\r\n"), NULL);
    ck_assert_ptr_eq(strstr(head, *early ? early : "EARLY"), NULL); /* B13: nothing before the 101 */
    answer_101(*server, "Sec-WebSocket-Protocol: chat\r\n", glued);
    const char *answer = rig_read(*client, *glued ? glued : "\r\n\r\n");
    ck_assert_int_eq(strncmp(answer, "HTTP/1.1 101 ", 13), 0);
    ck_assert_ptr_ne(strstr(answer, "Sec-WebSocket-Protocol: chat\r\n"), NULL);
}

static void close_both(int client, int server) {
    close(client);
    close(server);
    rig_stop(&rig);
    rig_reconcile(METRIC_tunnels_opened, METRIC_tunnels_closed);
    rig_reconcile(METRIC_clients_accepted, METRIC_clients_closed);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), metric_sum(METRIC_server_closed));
}

START_TEST(test_bytes_glued_to_either_head_arrive_once) {
    int client, server;
    rig_start(&rig);
    open_tunnel(&client, &server, "EARLY", "GLUED");
    rig_read(server, "EARLY");
    rig_send(client, "ping");
    ck_assert_str_eq(rig_read(server, "ping"), "ping");
    rig_send(server, "pong");
    ck_assert_str_eq(rig_read(client, "pong"), "pong");
    close_both(client, server);
}
END_TEST

START_TEST(test_half_close_is_passed_on_and_the_other_way_lives) {
    int client, server;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    rig_send(client, "last");
    shutdown(client, SHUT_WR);
    ck_assert_str_eq(rig_read(server, NULL), "last");
    rig_send(server, "still here");
    ck_assert_str_eq(rig_read(client, "still here"), "still here");
    close(server);
    ck_assert_str_eq(rig_read(client, NULL), "");
    close(client);
    rig_reconcile(METRIC_tunnels_opened, METRIC_tunnels_closed);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_reset_closes_the_other_side_at_once) {
    int client, server;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    struct linger abort_now = {.l_onoff = 1};
    setsockopt(client, SOL_SOCKET, SO_LINGER, &abort_now, sizeof abort_now);
    close(client);
    uint64_t begin = clock_ms();
    char byte;
    ck_assert_int_le(recv(server, &byte, 1, 0), 0);
    ck_assert_uint_lt(clock_ms() - begin, 1000);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_idle_clock_and_activity) {
    int client, server;
    rig.pool.tunnel_idle_timeout_ms = 400;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    uint64_t begin = 0;
    for (int i = 0; i < 4; i++) { /* activity either way keeps it open */
        usleep(200000);
        begin = clock_ms();
        rig_send(i % 2 ? client : server, "x");
    }
    rig_read(client, NULL);
    ck_assert_uint_ge(clock_ms() - begin, 300);
    ck_assert_uint_lt(clock_ms() - begin, 1400);
    close_both(client, server);
}
END_TEST

START_TEST(test_half_close_timeout_and_max_age) {
    int client, server;
    rig.pool.half_close_timeout_ms = 200;
    rig.pool.tunnel_max_age_ms = 5000;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    shutdown(server, SHUT_WR);
    rig_read(client, NULL);
    uint64_t begin = clock_ms();
    ck_assert_str_eq(rig_read(server, NULL), "");
    ck_assert_uint_lt(clock_ms() - begin, 1500);
    close_both(client, server);
}
END_TEST

START_TEST(test_max_age) {
    int client, server;
    rig.pool.tunnel_max_age_ms = 300;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    uint64_t begin = clock_ms();
    ck_assert_str_eq(rig_read(client, NULL), "");
    ck_assert_uint_lt(clock_ms() - begin, 1500);
    close_both(client, server);
}
END_TEST

START_TEST(test_wrong_accept_is_a_502) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, handshake);
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n");
    ck_assert_ptr_ne(strstr(rig_read(client, "\r\n\r\n"), "HTTP/1.1 502 "), NULL);
    close(client);
    close(server);
    rig_stop(&rig);
    ck_assert_uint_eq(metric_sum(METRIC_tunnels_opened), 0);
}
END_TEST

START_TEST(test_refused_handshake_is_an_ordinary_response) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, handshake);
    rig_send(client, "EARLY");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    ck_assert_ptr_ne(strstr(rig_read(client, "no"), "HTTP/1.1 403 "), NULL);
    close(client);
    close(server);
    rig_stop(&rig);
}
END_TEST

START_TEST(test_stopped_reader_stops_the_sender_and_loses_nothing) {
    int client, server;
    static char block[65536], back[65536];
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    struct timeval limit = {.tv_usec = 300000};
    setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    size_t sent = 0, got = 0;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(i * 31 + i / 251);
    while (sent < 256u << 20) { /* until the gateway stops reading: a bounded amount, sockets' buffers and its own */
        ssize_t n = send(server, block + sent % sizeof block, sizeof block - sent % sizeof block, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    ck_assert_uint_lt(sent, 64u << 20);
    shutdown(server, SHUT_WR);
    for (;;) {
        ssize_t n = recv(client, back, sizeof back, 0);
        ck_assert_int_ge(n, 0);
        if (n == 0)
            break;
        size_t wrong = 0; /* an assertion a byte would take most of the test's time */
        for (ssize_t i = 0; i < n; i++, got++)
            wrong += back[i] != block[got % sizeof block];
        ck_assert_msg(wrong == 0, "%zu bytes before byte %zu differ", wrong, got);
    }
    ck_assert_uint_eq(got, sent);
    close_both(client, server);
}
END_TEST

START_TEST(test_drain_closes_tunnels_at_the_deadline) {
    int client, server;
    rig.config->settings.drain_timeout_ms = 300;
    rig_start(&rig);
    open_tunnel(&client, &server, "", "");
    uint64_t begin = clock_ms();
    rig_stop(&rig);
    ck_assert_uint_ge(clock_ms() - begin, 250);
    ck_assert_uint_lt(clock_ms() - begin, 3000);
    ck_assert_str_eq(rig_read(client, NULL), "");
    close(client);
    close(server);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("tunnel");
    TCase *tests = tcase_create("tunnel");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, test_bytes_glued_to_either_head_arrive_once);
    tcase_add_test(tests, test_half_close_is_passed_on_and_the_other_way_lives);
    tcase_add_test(tests, test_reset_closes_the_other_side_at_once);
    tcase_add_test(tests, test_idle_clock_and_activity);
    tcase_add_test(tests, test_half_close_timeout_and_max_age);
    tcase_add_test(tests, test_max_age);
    tcase_add_test(tests, test_wrong_accept_is_a_502);
    tcase_add_test(tests, test_refused_handshake_is_an_ordinary_response);
    tcase_add_test(tests, test_stopped_reader_stops_the_sender_and_loses_nothing);
    tcase_add_test(tests, test_drain_closes_tunnels_at_the_deadline);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
