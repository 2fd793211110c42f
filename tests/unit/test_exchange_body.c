/* SPDX-License-Identifier: MIT */
/*
 * exchange, the longer ways: bodies with back-pressure, uploads, upgrades, TLS, and owners that let go inside any
 * event.
 */
#include "exchange_owner.h"

/* --- bodies both ways --- */

START_TEST(test_exchange_back_pressure) {
    setup();
    struct exchange_options options = plain();
    options.response_timeout_ms = 40;
    seen.pause_after = 1;
    int fd = begin(&options);
    static char filler[60000];
    memset(filler, 'x', sizeof filler);
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 120000\r\n\r\n";
    peer_say(fd, head, sizeof head - 1);
    peer_say(fd, filler, sizeof filler);
    peer_say(fd, filler, sizeof filler);
    for (unsigned i = 0; i < 60; i++)
        loop_turn(peer.loop, 2);
    size_t held = seen.body.len;
    ck_assert_uint_ge(held, 1);
    ck_assert_uint_le(held, UPSTREAM_SCRATCH);
    ck_assert_str_eq(seen.events, "head:200/length "); /* and no timeout: it is us who do not read */
    seen.pause_after = 0;
    exchange_resume(exchange);
    wait_for("end");
    ck_assert_uint_eq(seen.body.len, 120000);
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_upload) {
    setup();
    struct exchange_options options = plain();
    options.method = HTTP_POST;
    options.has_body = true;
    start(&options, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n");
    static char filler[65536];
    memset(filler, 'u', sizeof filler);
    int fd = -1;
    size_t sent = 0, got = 0;
    unsigned stops = 0;
    bool room = true;
    while (got < 8388608) {
        while (room && sent < 8388608) {
            unsigned before = seen.drains;
            sent += sizeof filler;
            room = exchange_send(exchange, filler, sizeof filler);
            stops += !room;
            ck_assert_uint_eq(seen.drains, before);
        }
        if (sent == 8388608)
            exchange_send_end(exchange);
        unsigned before = seen.drains;
        loop_turn(peer.loop, 1);
        room = room || seen.drains != before;
        if (fd < 0) {
            fd = peer_accept(&peer);
            free(peer_expect(&peer, fd, "\r\n\r\nu"));
            got = 0;
        }
        static char bytes[1 << 20];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n > 0)
            got += (size_t)n;
        if (sent == 8388608 && n < 0 && exchange_sent_all(exchange))
            break;
    }
    ck_assert_uint_ge(stops, 1);
    ck_assert(exchange_sent_all(exchange));
    answer_ok(fd);
    wait_for("end");
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 1);
    close(fd);
    teardown();
}
END_TEST

/* A final answer while we still send: told, then closed. _i 1: the server also resets our upload. */
START_TEST(test_exchange_early_answer) {
    setup();
    struct exchange_options options = plain();
    options.method = HTTP_POST;
    options.has_body = true;
    start(&options, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n");
    int fd = peer_accept(&peer);
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    static char filler[65536];
    exchange_send(exchange, filler, sizeof filler);
    static const char answer[] = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
    peer_say(fd, answer, sizeof answer - 1);
    if (_i == 1) {
        close(fd);
        usleep(10000);
        for (unsigned i = 0; i < 4; i++)
            exchange_send(exchange, filler, sizeof filler); /* the kernel knows of the reset, we do not yet */
    }
    wait_for("end");
    ck_assert_str_eq(seen.events, "head:413/length end ");
    ck_assert_uint_eq(idle_count(peer.upstream.idle), 0);
    ck_assert(exchange_send(exchange, filler, sizeof filler));
    ck_assert(!exchange_sent_all(exchange));
    if (_i == 0)
        close(fd);
    teardown();
}
END_TEST

/* A reset is told once. When a write has taken it, the read that follows sees an end, which must not pass for the answer's. */
START_TEST(test_exchange_reset_that_a_write_has_taken) {
    setup();
    struct exchange_options options = plain();
    options.method = HTTP_POST;
    options.has_body = true;
    start(&options, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    int fd = peer_accept(&peer);
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    peer_say(fd, "HTTP/1.1 200 OK\r\n\r\nhalf", 23);
    wait_for("head:200/close");
    for (unsigned i = 0; i < 100 && seen.body.len < 4; i++)
        loop_turn(peer.loop, 2);
    ck_assert_uint_eq(seen.body.len, 4);
    sock_set_abort(fd);
    close(fd);
    for (unsigned i = 0; i < 100 && !strstr(seen.events, "end") && !strstr(seen.events, "fail"); i++) {
        exchange_send(exchange, "more", 4);
        loop_turn(peer.loop, 2);
    }
    ck_assert_str_eq(seen.events, "head:200/close fail:truncated ");
    teardown();
}
END_TEST

START_TEST(test_exchange_fin_during_upload) {
    setup();
    struct exchange_options options = plain();
    options.method = HTTP_POST;
    options.has_body = true;
    start(&options, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    int fd = peer_accept(&peer);
    free(peer_expect(&peer, fd, "\r\n\r\n"));
    close(fd);
    wait_for("fail");
    ck_assert_str_eq(seen.events, "fail:closed ");
    teardown();
}
END_TEST

/* --- upgrades --- */

START_TEST(test_exchange_upgrade) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: websocket\r\nConnection: upgrade\r\n\r\nglued";
    setup();
    for (size_t cut = 1; cut < sizeof answer; cut++) {
        struct exchange_options options = plain();
        options.upgrade = options.fresh = true;
        int fd = begin(&options);
        peer_say(fd, answer, cut);
        peer_turns(&peer, 2);
        peer_say(fd, answer + cut, sizeof answer - 1 - cut);
        wait_for("upgrade:101/none");
        ck_assert_ptr_nonnull(seen.taken);
        ck_assert_int_eq(strncmp(seen.rest, "glued", strlen(seen.rest)), 0);
        if (cut == sizeof answer - 1)
            ck_assert_str_eq(seen.rest, "glued");
        exchange_free(&exchange);
        ck_assert_ptr_nonnull(seen.taken->loop); /* it is ours now */
        size_t n = 0;
        char byte[8];
        if (strlen(seen.rest) < 5) {
            while (conn_read(seen.taken, byte, sizeof byte, &n) != IO_OK)
                loop_turn(peer.loop, 1);
            ck_assert_uint_eq(n, 5 - strlen(seen.rest));
        }
        upstream_close_conn(&peer.upstream, &seen.taken);
        close(fd);
        peer_turns(&peer, 1);
        reset();
    }
    teardown();
}
END_TEST

START_TEST(test_exchange_upgrade_refused_by_the_server) {
    setup();
    struct exchange_options options = plain();
    options.upgrade = options.fresh = true;
    int fd = begin(&options);
    answer_ok(fd);
    wait_for("end");
    ck_assert_str_eq(seen.events, "head:200/length end ");
    close(fd);
    teardown();
}
END_TEST

/* --- the owner lets go inside an event --- */

START_TEST(test_exchange_free_in_event) {
    static const char *const events[] = {"interim", "head", "body", "flush", "end", "fail:"};
    setup();
    seen.free_in = events[_i];
    struct exchange_options options = plain();
    int fd = begin(&options);
    static const char part[] = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
    peer_say(fd, part, sizeof part - 1);
    if (_i == 4) {
        wait_for("head");
        peer_say(fd, "lo", 2);
    }
    if (_i == 5)
        shutdown(fd, SHUT_WR);
    wait_for(events[_i]);
    ck_assert_ptr_null(exchange);
    peer_turns(&peer, 3);
    size_t n = strlen(seen.events);
    peer_turns(&peer, 3);
    ck_assert_uint_eq(strlen(seen.events), n); /* and nothing comes after it */
    close(fd);
    teardown();
}
END_TEST

START_TEST(test_exchange_free_at_any_time) {
    setup();
    struct exchange_options options = plain();
    start(&options, GET);
    exchange_free(&exchange); /* still connecting */
    start(&options, GET);
    peer_turns(&peer, 3);
    exchange_free(&exchange); /* sent */
    close(peer.listener);
    peer.listener = -1;
    struct server *other = server_new("p", &(struct config_server){.name = peer.address, .weight = 1});
    exchange = exchange_new(&peer.upstream, peer.pool, other, &options, &ops, &seen);
    exchange_start(exchange, GET, strlen(GET));
    exchange_free(&exchange); /* about to fail */
    server_unref(&other);
    peer_turns(&peer, 3);
    ck_assert_str_eq(seen.events, "");
    exchange_free(&exchange); /* NULL is fine */
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("exchange_body");
    TCase *tests = tcase_create("exchange_body");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_exchange_back_pressure);
    tcase_add_test(tests, test_exchange_upload);
    tcase_add_loop_test(tests, test_exchange_early_answer, 0, 2);
    tcase_add_test(tests, test_exchange_reset_that_a_write_has_taken);
    tcase_add_test(tests, test_exchange_fin_during_upload);
    tcase_add_test(tests, test_exchange_upgrade);
    tcase_add_test(tests, test_exchange_upgrade_refused_by_the_server);
    tcase_add_loop_test(tests, test_exchange_free_in_event, 0, 6);
    tcase_add_test(tests, test_exchange_free_at_any_time);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
