/* SPDX-License-Identifier: MIT */
/*
 * exchange: one request, one response, over real sockets. The far end is driven from the same thread, so that each
 * answer can be cut at every byte, and each kind of end can be had on purpose. What the owner hears is written
 * down as text and compared.
 */
#include "exchange_owner.h"

/* --- whole answers, cut at every byte --- */

struct answer {
    enum http_method method;
    const char *bytes;
    const char *events, *body;
    bool closes; /* the far end closes behind it */
    bool kept;
};

static const struct answer answers[] = {
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "head:200/length end ", "hello", false, true},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "head:200/length end ", "", false, true},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "head:200/length end ",
     "hello", false, false},
    {HTTP_GET, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "head:200/length end ", "hello", false, false},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
     "head:200/chunked end ", "hello", false, true},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n",
     "head:200/chunked end:X-Sum=7 ", "x", false, true},
    {HTTP_GET, "HTTP/1.1 200 OK\r\n\r\nto the end", "head:200/close end ", "to the end", true, false},
    {HTTP_HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", "head:200/none end ", "", false, true},
    {HTTP_GET, "HTTP/1.1 204 No Content\r\n\r\n", "head:204/none end ", "", false, true},
    {HTTP_GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "head:304/none end ", "", false, true},
    {HTTP_GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
     "interim:100/none interim:103/none head:200/length end ", "ok", false, true},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "fail:bad ", "", false, false},
    {HTTP_GET, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "fail:bad ", "", false, false},
    {HTTP_GET, "SSH-2.0-OpenSSH\r\n\r\n", "fail:bad ", "", false, false},
    {HTTP_GET, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "fail:bad ", "",
     false, false},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "head:200/chunked fail:bad ", "",
     false, false},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "head:200/length fail:truncated ",
     "short", true, false},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
     "head:200/chunked fail:truncated ", "hello", true, false},
    {HTTP_GET, "HTTP/1.1 200 OK\r\nContent-Le", "fail:closed ", "", true, false},
};

static void run_answer(const struct answer *answer, size_t cut) {
    struct exchange_options options = plain();
    options.method = answer->method;
    int fd = begin(&options);
    size_t n = strlen(answer->bytes);
    peer_say(fd, answer->bytes, cut);
    peer_turns(&peer, 2);
    if (cut < n && send(fd, answer->bytes + cut, n - cut, MSG_NOSIGNAL) < 0)
        ck_assert(strstr(seen.events, "fail:bad")); /* refused already */
    if (answer->closes)
        shutdown(fd, SHUT_WR);
    wait_for(strstr(answer->events, "end") ? "end" : "fail");
    ck_assert_msg(strcmp(seen.events, answer->events) == 0, "cut at %zu of %s: %s", cut, answer->bytes, seen.events);
    ck_assert_uint_eq(seen.body.len, strlen(answer->body));
    ck_assert_mem_eq(buf_span(&seen.body).p ? buf_span(&seen.body).p : "", answer->body, strlen(answer->body));
    ck_assert_uint_eq(exchange_bytes_in(exchange), strlen(answer->body));
    ck_assert_uint_eq(idle_count(peer.upstream.idle), answer->kept);
    exchange_free(&exchange);
    idle_drop_server(peer.upstream.idle, peer.server);
    close(fd);
    peer_turns(&peer, 1);
    reset();
}

/* In front of all, each time, and the connection is nobody else's afterwards. */
START_TEST(test_exchange_proxy_header) {
    peer_prepare(&peer);
    peer.config.proxy_protocol = CONFIG_PROXY_V1;
    peer_open(&peer);
    reset();
    struct exchange_options options = plain();
    ck_assert(addr_parse_ip(SPAN("192.0.2.7"), &options.source));
    ck_assert(addr_parse_ip(SPAN("2001:db8::1"), &options.destination));
    options.source.port = 4711;
    options.destination.port = 443;
    for (int i = 0; i < 2; i++) {
        start(&options, GET);
        int fd = peer_accept(&peer);
        char *got = peer_expect(&peer, fd, "\r\n\r\n");
        ck_assert_ptr_eq(strstr(got, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 443\r\nGET "), got);
        free(got);
        answer_ok(fd);
        wait_for("end");
        ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
        ck_assert(peer_is_closed(&peer, fd));
        exchange_free(&exchange);
        close(fd);
        reset();
    }
    peer.upstream.is_probe = true;
    start(&options, GET);
    int fd = peer_accept(&peer);
    char *got = peer_expect(&peer, fd, "\r\n\r\n");
    ck_assert_ptr_eq(strstr(got, "PROXY UNKNOWN\r\nGET "), got);
    free(got);
    close(fd);
    exchange_free(&exchange);
    peer.upstream.is_probe = false;
    teardown();
}
END_TEST

START_TEST(test_exchange_answer_cut_everywhere) {
    setup();
    const struct answer *answer = &answers[_i];
    for (size_t cut = 1; cut <= strlen(answer->bytes); cut++)
        run_answer(answer, cut);
    teardown();
}
END_TEST

START_TEST(test_exchange_byte_by_byte) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    const char *answer = "HTTP/1.1 100 Continue\r\n\r\n"
                         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    for (size_t i = 0; i < strlen(answer); i++) {
        peer_say(fd, answer + i, 1);
        peer_turns(&peer, 1);
    }
    wait_for("end");
    ck_assert_str_eq(seen.events, "interim:100/none head:200/chunked end ");
    close(fd);
    teardown();
}
END_TEST

/* A head of some 20 KiB, whole or in two pieces, then a body that would overwrite it were it not copied. */
START_TEST(test_exchange_head_spans_live_on) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    struct buf head;
    buf_init(&head, 1 << 20);
    ck_assert(buf_append_text(&head, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"));
    for (unsigned i = 0; i < 20; i++)
        ck_assert(buf_printf(&head, "X-%u: %01000u\r\n", i, i));
    ck_assert(buf_append_text(&head, "\r\n"));
    size_t first = _i == 0 ? head.len : 100;
    peer_say(fd, head.data + head.off, first);
    peer_turns(&peer, 2);
    peer_say(fd, head.data + head.off + first, head.len - first);
    buf_release(&head);
    wait_for("head:200");
    static char filler[60000];
    memset(filler, '#', sizeof filler);
    peer_say(fd, filler, sizeof filler);
    for (unsigned i = 0; i < 1000 && seen.body.len < sizeof filler; i++)
        loop_turn(peer.loop, 1);
    ck_assert_uint_eq(seen.body.len, sizeof filler);
    const struct http_field *field = http_find_name(seen.response, SPAN("x-17"));
    ck_assert_ptr_nonnull(field);
    ck_assert_uint_eq(field->value.n, 1000);
    ck_assert_mem_eq(field->value.p + 990, "0000000017", 10);
    exchange_free(&exchange);
    ck_assert_str_eq(seen.events, "head:200/length ");
    close(fd);
    teardown();
}
END_TEST

/* --- kept connections --- */

START_TEST(test_exchange_reuses) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    ck_assert(!exchange_reused(exchange));
    ck_assert(exchange_connected_us(exchange) != 0);
    answer_ok(fd);
    wait_for("end");
    exchange_free(&exchange);
    reset();
    start(&options, GET);
    ck_assert(exchange_reused(exchange) && exchange_sent_all(exchange));
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    answer_ok(fd);
    wait_for("end");
    exchange_free(&exchange);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), 1);
    ck_assert_uint_eq(metric_sum(METRIC_server_reused), 1);
    reset();
    options.fresh = true;
    int other = begin(&options);
    ck_assert(!exchange_reused(exchange));
    close(other);
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_max_idle) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    answer_ok(fd);
    wait_for("end");
    exchange_free(&exchange);
    reset();
    for (unsigned i = 0; i < 20; i++)
        loop_turn(peer.loop, 2);
    options.max_idle_ms = 5;
    int other = begin(&options);
    ck_assert(!exchange_reused(exchange));
    close(other);
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_stale) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    answer_ok(fd);
    wait_for("end");
    exchange_free(&exchange);
    reset();
    start(&options, GET);
    ck_assert(exchange_reused(exchange));
    if (_i == 0) {
        free(peer_expect(&peer, fd, "\r\n\r\n"));
        close(fd); /* read, then closed */
    } else {
        close(fd); /* with our request unread: a reset */
    }
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:stale ");
    teardown();
}
END_TEST

START_TEST(test_exchange_bytes_behind_the_end) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    static const char more[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    peer_say(fd, more, sizeof more - 1);
    wait_for("end");
    ck_assert_str_eq(seen.events, "head:200/length end ");
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    ck_assert(peer_is_closed(&peer, fd));
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_keep_alive_hint) {
    static const struct {
        const char *hint;
        bool kept;
    } hints[] = {{"timeout=1", false}, {"max=5, timeout=0", false}, {"timeout=2", true}, {"Timeout=99999999999", true}};
    setup();
    for (unsigned i = 0; i < 4; i++) {
        struct exchange_options options = plain();
        int fd = begin(&options);
        char answer[256];
        int n = snprintf(answer, sizeof answer, "HTTP/1.1 204 No Content\r\nKeep-Alive: %s\r\n\r\n", hints[i].hint);
        peer_say(fd, answer, (size_t)n);
        wait_for("end");
        ck_assert_uint_eq(idle_count(peer.upstream.idle), hints[i].kept);
        exchange_free(&exchange);
        idle_drop_server(peer.upstream.idle, peer.server);
        close(fd);
        reset();
    }
    teardown();
}
END_TEST

START_TEST(test_exchange_close_option) {
    setup();
    struct exchange_options options = plain();
    options.close = true;
    int fd = begin(&options);
    answer_ok(fd);
    wait_for("end");
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    close(fd);
    teardown();
}
END_TEST

/* --- failures --- */

START_TEST(test_exchange_refused) {
    setup();
    close(peer.listener);
    peer.listener = -1;
    struct exchange_options options = plain();
    start(&options, GET);
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:connect ");
    ck_assert_uint_eq(atomic_load(&peer.server->connect_failures), 1);
    ck_assert_uint_eq(metric_sum(METRIC_server_connect_failures), 1);
    teardown();
}
END_TEST

START_TEST(test_exchange_unresolved) {
    setup();
    struct server *other = server_new("p", &(struct config_server){.name = peer.address, .weight = 1});
    struct exchange_options options = plain();
    exchange = exchange_new(&peer.upstream, peer.pool, other, &options, &ops, &seen);
    exchange_start(exchange, GET, strlen(GET));
    ck_assert_str_eq(seen.events, "");
    wait_for("fail:connect");
    exchange_free(&exchange);
    server_unref(&other);
    teardown();
}
END_TEST

START_TEST(test_exchange_local_error) {
    setup();
    struct exchange_options options = plain();
    int hoard[4096];
    unsigned count = 0;
    while (count < 4096 && (hoard[count] = dup(peer.listener)) >= 0)
        count++;
    if (count == 4096) /* the limit is too high to be reached here */
        goto out;
    start(&options, GET);
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:local ");
    ck_assert_uint_eq(atomic_load(&peer.server->connect_failures), 0);
    ck_assert_uint_eq(metric_sum(METRIC_server_local_errors), 1);
out:
    while (count > 0)
        close(hoard[--count]);
    teardown();
}
END_TEST

START_TEST(test_exchange_response_timeout) {
    setup();
    struct exchange_options options = plain();
    options.response_timeout_ms = 60;
    uint64_t begun = loop_now_ms(peer.loop); /* the clock that timers go by */
    int fd = begin(&options);
    if (_i == 1) {
        static const char part[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart";
        peer_say(fd, part, sizeof part - 1);
    }
    wait_for("fail");
    ck_assert_uint_ge(loop_now_ms(peer.loop) - begun, 60);
    ck_assert_str_eq(seen.events, _i == 1 ? "head:200/length fail:timeout " : "fail:timeout ");
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_no_timeout_while_the_client_is_slow) {
    setup();
    struct exchange_options options = plain();
    options.method = HTTP_POST;
    options.has_body = true;
    options.response_timeout_ms = 40;
    start(&options, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n");
    int fd = peer_accept(&peer);
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    for (unsigned i = 0; i < 75; i++)
        loop_turn(peer.loop, 2);
    ck_assert_str_eq(seen.events, "");
    exchange_send(exchange, "body", 4);
    exchange_send_end(exchange);
    wait_for("fail:timeout");
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_seventeen_interims) {
    setup();
    struct exchange_options options = plain();
    int fd = begin(&options);
    for (unsigned i = 0; i < 17; i++)
        peer_say(fd, "HTTP/1.1 102 Processing\r\n\r\n", 27);
    wait_for("fail");
    ck_assert_ptr_nonnull(strstr(seen.events, "interim:102/none fail:bad "));
    ck_assert_uint_eq(metric_sum(METRIC_server_bad_responses), 1);
    close(fd);
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exchange");
    TCase *tests = tcase_create("exchange");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_exchange_proxy_header);
    tcase_add_loop_test(tests, test_exchange_answer_cut_everywhere, 0, (int)(sizeof answers / sizeof answers[0]));
    tcase_add_test(tests, test_exchange_byte_by_byte);
    tcase_add_loop_test(tests, test_exchange_head_spans_live_on, 0, 2);
    tcase_add_test(tests, test_exchange_reuses);
    tcase_add_test(tests, test_exchange_max_idle);
    tcase_add_loop_test(tests, test_exchange_stale, 0, 2);
    tcase_add_test(tests, test_exchange_bytes_behind_the_end);
    tcase_add_test(tests, test_exchange_keep_alive_hint);
    tcase_add_test(tests, test_exchange_close_option);
    tcase_add_test(tests, test_exchange_refused);
    tcase_add_test(tests, test_exchange_unresolved);
    tcase_add_test(tests, test_exchange_local_error);
    tcase_add_loop_test(tests, test_exchange_response_timeout, 0, 2);
    tcase_add_test(tests, test_exchange_no_timeout_while_the_client_is_slow);
    tcase_add_test(tests, test_exchange_seventeen_interims);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
