/* SPDX-License-Identifier: MIT */
/*
 * probe: when a server counts as up or down, and how fast that is found. The far end answers what the test says; the
 * paces are those of a hurried configuration.
 */
#include <pthread.h>

#include "peer.h"
#include "upstream/probe.h"

static struct peer peer;
static struct prober *prober;
static char changes[256]; /* one letter a change: u d ... */
static char request[4096];
static unsigned served;

static void on_change(void *owner, struct server *server) {
    ck_assert_ptr_eq(owner, changes);
    size_t used = strlen(changes);
    ck_assert_uint_lt(used + 1, sizeof changes);
    changes[used] = server_state_name(server_state(server))[0];
    changes[used + 1] = 0;
}

static void setup(enum config_probe_kind kind) {
    peer_prepare(&peer);
    peer.upstream.is_probe = true;
    struct config_probe *probe = &peer.config.probe;
    config_probe_defaults(probe);
    config_probe_written(probe);
    probe->kind = kind;
    probe->path = (char *)(uintptr_t) "/healthz";
    probe->every_ms = 80;
    probe->fast_ms = 20;
    probe->timeout_ms = 1000;
    changes[0] = 0;
    served = 0;
}

static void go(void) {
    if (!peer.pool)
        peer_open(&peer);
    prober = prober_new(&peer.upstream, &peer.pool, 1, on_change, changes);
    prober_start(prober);
}

static void teardown(void) {
    prober_free(&prober);
    ck_assert_ptr_null(peer.server->probe);
    ck_assert(atomic_load(&peer.server->on_failure) == NULL);
    peer_close(&peer);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), 0); /* probes are no traffic */
}

/* Answers each probe that comes; NULL: takes it and says nothing. Until the changes are text, or for_ms. */
static void serve(const char *answer, const char *text, unsigned for_ms) {
    uint64_t start = clock_ms();
    int open[64];
    unsigned count = 0;
    while (clock_ms() - start < for_ms && (!text || strcmp(changes, text) != 0)) {
        loop_turn(peer.loop, 1);
        struct addr from;
        int fd = sock_accept(peer.listener, &from);
        if (fd < 0)
            continue;
        served++;
        if (answer) {
            char *got = peer_expect(&peer, fd, "\r\n\r\n");
            snprintf(request, sizeof request, "%s", got);
            free(got);
            peer_say(fd, answer, strlen(answer));
            close(fd);
        } else {
            ck_assert_uint_lt(count, 64);
            open[count++] = fd;
        }
    }
    while (count > 0)
        close(open[--count]);
    if (text)
        ck_assert_str_eq(changes, text);
}

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define BAD_ANSWER "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

START_TEST(test_probe_first_answer_decides) {
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.every_ms = 5000;
    go();
    ck_assert(pool_is_pending(peer.pool));
    uint64_t start = clock_ms();
    serve(_i == 0 ? OK_ANSWER : BAD_ANSWER, _i == 0 ? "u" : "d", 2000);
    ck_assert_uint_le(clock_ms() - start, 1000);
    ck_assert(!pool_is_pending(peer.pool));
    ck_assert_uint_eq(served, 1);
    char line[256];
    snprintf(line, sizeof line, "GET /healthz HTTP/1.1\r\nHost: %s\r\n", peer.address);
    ck_assert_msg(strncmp(request, line, strlen(line)) == 0, "%s", request);
    ck_assert_ptr_nonnull(strstr(request, "\r\nUser-Agent: moongate-probe\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nConnection: close\r\n"));
    teardown();
}
END_TEST

START_TEST(test_probe_rise_and_fall) {
    setup(CONFIG_PROBE_HTTP);
    go();
    serve(OK_ANSWER, "u", 2000);
    unsigned before = served;
    serve(BAD_ANSWER, "ud", 2000);
    ck_assert_uint_eq(served - before, 3);
    before = served;
    serve(OK_ANSWER, "udu", 2000);
    ck_assert_uint_eq(served - before, 2);
    serve(BAD_ANSWER, NULL, 30); /* a single failure changes nothing */
    serve(OK_ANSWER, NULL, 300);
    ck_assert_str_eq(changes, "udu");
    teardown();
}
END_TEST

/* Between changes the pace is every_ms, while one is in the air fast_ms. */
START_TEST(test_probe_paces) {
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.every_ms = 400;
    peer.config.probe.fast_ms = 10;
    peer.config.probe.fall = 5;
    go();
    serve(OK_ANSWER, "u", 2000);
    unsigned before = served;
    serve(OK_ANSWER, NULL, 200);
    ck_assert_uint_eq(served, before);
    uint64_t start = clock_ms();
    serve(BAD_ANSWER, "ud", 3000);
    ck_assert_uint_le(clock_ms() - start, 1500);
    teardown();
}
END_TEST

START_TEST(test_probe_silence_is_a_failure) {
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.timeout_ms = 50;
    go();
    serve(NULL, "d", 2000);
    teardown();
}
END_TEST

START_TEST(test_probe_refused) {
    setup((enum config_probe_kind)_i);
    go();
    close(peer.listener);
    peer.listener = -1;
    for (unsigned i = 0; i < 1000 && !changes[0]; i++)
        loop_turn(peer.loop, 1);
    ck_assert_str_eq(changes, "d");
    teardown();
}
END_TEST

START_TEST(test_probe_tcp) {
    setup(CONFIG_PROBE_TCP);
    go();
    serve(NULL, "u", 2000);
    teardown();
}
END_TEST

START_TEST(test_probe_expect) {
    static const char *const answers[] = {"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", OK_ANSWER};
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.expect[0] = (struct config_status_range){426, 426};
    peer.config.probe.expect_count = 1;
    go();
    serve(answers[_i], _i == 0 ? "u" : "d", 2000);
    teardown();
}
END_TEST

START_TEST(test_probe_body_text) {
    static const char *const answers[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n7\r\n is wel\r\n", /* no end needed */
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nis sick"};
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.body = (char *)(uintptr_t) "is well";
    if (_i == 0)
        peer.config.probe.body = (char *)(uintptr_t) "all is";
    go();
    serve(answers[_i], _i == 0 ? "u" : "d", 2000);
    teardown();
}
END_TEST

START_TEST(test_probe_host_headers_and_method) {
    setup(CONFIG_PROBE_HTTP);
    struct action_header headers[] = {{SPAN("X-Probe"), SPAN("1")}, {SPAN("user-agent"), SPAN("mine")}};
    peer.config.probe.headers = (struct config_headers){headers, 2};
    peer.config.probe.host = (char *)(uintptr_t) "health.example";
    peer.config.probe.method = (char *)(uintptr_t) "HEAD";
    go();
    serve("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "u", 2000);
    ck_assert_ptr_nonnull(strstr(request, "HEAD /healthz HTTP/1.1\r\nHost: health.example\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nX-Probe: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nuser-agent: mine\r\n"));
    ck_assert_ptr_null(strstr(request, "moongate-probe"));
    teardown();
}
END_TEST

START_TEST(test_probe_other_port) {
    setup(CONFIG_PROBE_HTTP);
    int traffic = peer.listener;
    peer.config.probe.port = peer_listen(&peer.listener); /* only probes arrive here */
    go();
    serve(OK_ANSWER, "u", 2000);
    close(traffic);
    teardown();
}
END_TEST

static void *fail_live(void *argument) {
    struct server *server = argument;
    for (unsigned i = 0; i < 3; i++)
        server_note_failure(server);
    return NULL;
}

START_TEST(test_probe_live_failures_count) {
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.every_ms = 60000;
    go();
    serve(OK_ANSWER, "u", 2000);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_live, peer.server), 0);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < 1000 && strcmp(changes, "ud") != 0; i++)
        loop_turn(peer.loop, 1);
    ck_assert_str_eq(changes, "ud");
    serve(OK_ANSWER, "udu", 2000); /* and it is asked again soon, long before every_ms */
    teardown();
}
END_TEST

START_TEST(test_probe_live_failure_hastens) {
    setup(CONFIG_PROBE_HTTP);
    peer.config.probe.every_ms = 60000;
    go();
    serve(OK_ANSWER, "u", 2000);
    unsigned before = served;
    server_note_failure(peer.server);
    serve(OK_ANSWER, NULL, 200);
    ck_assert_uint_ge(served, before + 1);
    ck_assert_str_eq(changes, "u");
    teardown();
}
END_TEST

START_TEST(test_probe_letter_after_the_prober) {
    setup(CONFIG_PROBE_HTTP);
    go();
    server_note_failure(peer.server);
    prober_free(&prober);
    peer_turns(&peer, 3);
    server_note_failure(peer.server);
    peer_turns(&peer, 3);
    teardown();
}
END_TEST

/* A server that comes later is asked at once; one that left no more. */
START_TEST(test_probe_comes_and_goes) {
    setup(CONFIG_PROBE_HTTP);
    go();
    serve(OK_ANSWER, "u", 2000);
    struct server *late = server_new("chat", &peer.server_config);
    server_set_state(late, SERVER_UNKNOWN);
    prober_add(prober, peer.pool, late);
    serve(OK_ANSWER, "uu", 2000);
    ck_assert_int_eq(server_state(late), SERVER_UP);
    prober_remove(prober, late);
    ck_assert_ptr_null(late->probe);
    ck_assert_uint_eq(atomic_load(&late->refs), 1);
    prober_remove(prober, peer.server);
    unsigned before = served;
    serve(OK_ANSWER, NULL, 200);
    ck_assert_uint_eq(served, before);
    server_unref(&late);
    teardown();
}
END_TEST

START_TEST(test_probe_freed_under_way) {
    setup((enum config_probe_kind)_i);
    go();
    for (unsigned i = 0; i < 5; i++)
        loop_turn(peer.loop, 1);
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("probe");
    TCase *tests = tcase_create("probe");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_probe_first_answer_decides, 0, 2);
    tcase_add_test(tests, test_probe_rise_and_fall);
    tcase_add_test(tests, test_probe_paces);
    tcase_add_test(tests, test_probe_silence_is_a_failure);
    tcase_add_loop_test(tests, test_probe_refused, CONFIG_PROBE_HTTP, CONFIG_PROBE_TCP + 1);
    tcase_add_test(tests, test_probe_tcp);
    tcase_add_loop_test(tests, test_probe_expect, 0, 2);
    tcase_add_loop_test(tests, test_probe_body_text, 0, 2);
    tcase_add_test(tests, test_probe_host_headers_and_method);
    tcase_add_test(tests, test_probe_other_port);
    tcase_add_test(tests, test_probe_live_failures_count);
    tcase_add_test(tests, test_probe_live_failure_hastens);
    tcase_add_test(tests, test_probe_letter_after_the_prober);
    tcase_add_test(tests, test_probe_comes_and_goes);
    tcase_add_loop_test(tests, test_probe_freed_under_way, CONFIG_PROBE_NONE, CONFIG_PROBE_TCP + 1);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
