/* SPDX-License-Identifier: MIT */
/* test_subject: what a head becomes before rules see it, and the undoing of edits. */
#include "routing_fixture.h"

static struct fixture fx;
static struct subject subject;

static unsigned prepare(const char *head) { return fixture_prepare(&fx, &subject, head); }

static void trust(struct cidr *list, const char *text) {
    ck_assert(cidr_parse(span_of(text), list));
    fx.settings.trusted_proxies = (struct config_cidrs){list, 1, true};
}

START_TEST(splits_and_normalises)
{
    fixture_init(&fx);
    ck_assert_uint_eq(prepare("GET /a//b/../%63?x=1&y HTTP/1.1\r\nHost: Example.COM.:8080\r\n\r\n"), 0);
    ck_assert_span(subject.path, "/a/c");
    ck_assert_span(subject.raw_path, "/a//b/../%63");
    ck_assert_span(subject.query, "x=1&y");
    ck_assert_span(subject.host, "example.com");
    ck_assert_uint_eq(subject.host_port, 8080);
    ck_assert_str_eq(subject.scheme, "http");
    ck_assert(!subject.websocket);
    ck_assert(subject.wall_us > 0);
    subject_fini(&subject);
    ck_assert_uint_eq(prepare("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 0);
    ck_assert_span(subject.path, "*");
    subject_fini(&subject);
}
END_TEST

START_TEST(refuses_bad_targets)
{
    static const char *const heads[] = {
        "GET /../x HTTP/1.1\r\nHost: a\r\n\r\n",  "GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",   "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    fixture_init(&fx);
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        ck_assert_uint_eq(prepare(heads[i]), 400);
        ck_assert_ptr_nonnull(fx.reason);
        ck_assert_uint_eq(subject.id.n, SUBJECT_ID_SIZE); /* the access log still has an id and a client */
        ck_assert_uint_eq(subject.client.family, AF_INET);
        subject_fini(&subject);
    }
    fx.listener.encoded_slash_keep = true;
    ck_assert_uint_eq(prepare(heads[4]), 0);
    ck_assert_span(subject.path, "/a%2Fb");
    subject_fini(&subject);
}
END_TEST

START_TEST(absolute_form_agrees_with_host)
{
    fixture_init(&fx);
    ck_assert_uint_eq(prepare("GET http://A.example:81/x?y HTTP/1.1\r\nHost: a.example:81\r\n\r\n"), 0);
    ck_assert_span(subject.path, "/x");
    ck_assert_span(subject.query, "y");
    ck_assert_uint_eq(subject.host_port, 81);
    subject_fini(&subject);
}
END_TEST

START_TEST(untrusted_peer_speaks_for_nobody)
{
    fixture_init(&fx);
    ck_assert_uint_eq(
        prepare("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n"
                "X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n"
                "X-Forwarded-Prefix: /p\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Kept: 1\r\n\r\n"),
        0);
    static const enum http_field_id gone[] = {
        HTTP_FIELD_X_FORWARDED_FOR,    HTTP_FIELD_X_FORWARDED_PROTO, HTTP_FIELD_X_FORWARDED_HOST,
        HTTP_FIELD_X_FORWARDED_PORT,   HTTP_FIELD_FORWARDED,         HTTP_FIELD_X_REAL_IP,
        HTTP_FIELD_X_FORWARDED_PREFIX, HTTP_FIELD_X_ORIGINAL_URL,    HTTP_FIELD_X_REWRITE_URL,
    };
    for (size_t i = 0; i < ARRAY_LEN(gone); i++)
        ck_assert_ptr_null(http_find(&subject.head, gone[i]));
    ck_assert_ptr_nonnull(http_find_name(&subject.head, SPAN("x-kept")));
    char text[ADDR_TEXT_MAX];
    ck_assert_str_eq(addr_small_format_ip(&subject.client, text), "192.0.2.7");
    ck_assert_str_eq(subject.scheme, "http");
    ck_assert(!subject.peer_trusted);
    subject_fini(&subject);
}
END_TEST

START_TEST(trusted_peer_is_believed)
{
    static const struct {
        const char *field, *client;
    } cases[] = {
        {"203.0.113.5", "203.0.113.5"},
        {"10.0.0.1, 203.0.113.5", "203.0.113.5"},             /* what stands left of the client is hearsay */
        {"203.0.113.5, 192.0.2.9, 192.0.2.8", "203.0.113.5"}, /* trusted hops are stepped over */
        {"192.0.2.9, 192.0.2.8", "192.0.2.9"},                /* all trusted: the leftmost */
        {"203.0.113.5:1234", "203.0.113.5"},
        {"[2001:db8::1]:99", "2001:db8::1"},
        {"2001:db8::1", "2001:db8::1"},
        {"1.2.3.4, unknown", "192.0.2.7"}, /* no address: the search ends */
        {"1.2.3.4, unknown, 192.0.2.9", "192.0.2.9"},
        {"", "192.0.2.7"},
        {" , ,203.0.113.5, ", "203.0.113.5"},
    };
    struct cidr list[1];
    char head[512], text[ADDR_TEXT_MAX];
    fixture_init(&fx);
    trust(list, "192.0.2.0/24");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        snprintf(head, sizeof head,
                 "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %s\r\nX-Forwarded-Proto: https\r\n\r\n",
                 cases[i].field);
        ck_assert_uint_eq(prepare(head), 0);
        ck_assert(subject.peer_trusted);
        ck_assert_str_eq(addr_small_format_ip(&subject.client, text), cases[i].client);
        ck_assert_str_eq(addr_small_format_ip(&subject.peer, text), "192.0.2.7");
        ck_assert_str_eq(subject.scheme, "https");
        subject_fini(&subject);
    }
    ck_assert_uint_eq(
        prepare("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.5\r\n"
                "X-Forwarded-Proto: HTTPS\r\n\r\n"),
        0);
    ck_assert_str_eq(addr_small_format_ip(&subject.client, text), "203.0.113.5");
    ck_assert_str_eq(subject.scheme, "http");
    subject_fini(&subject);
    fx.listener.trusted_proxies.set = true; /* the listener's own, empty list wins */
    ck_assert_uint_eq(prepare("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"), 0);
    ck_assert(!subject.peer_trusted);
    subject_fini(&subject);
}
END_TEST

START_TEST(connection_names_are_gone)
{
    struct cidr list[1];
    char text[ADDR_TEXT_MAX];
    fixture_init(&fx);
    trust(list, "192.0.2.7/32");
    ck_assert_uint_eq(prepare("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-user, x-forwarded-for, host, x-request-id, "
                              "close\r\nX-User: eve\r\n"
                              "X-Request-Id: r1\r\nX-Forwarded-For: 203.0.113.5\r\nTE: trailers\r\n\r\n"),
                      0);
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-user")));
    ck_assert_str_eq(addr_small_format_ip(&subject.client, text), "203.0.113.5");
    ck_assert_uint_eq(http_find(&subject.head, HTTP_FIELD_X_FORWARDED_FOR)->flags & HTTP_HOP, 0);
    ck_assert_uint_eq(http_find(&subject.head, HTTP_FIELD_X_REQUEST_ID)->flags & HTTP_HOP, 0);
    ck_assert(http_set(&subject.head, SPAN("X-User"), SPAN("bob"))); /* ours: the client cannot strip it */
    ck_assert_uint_eq(http_find_name(&subject.head, SPAN("x-user"))->flags & HTTP_HOP, 0);
    subject_fini(&subject);
}
END_TEST

START_TEST(request_id_kept_or_made)
{
    static const char *const bad[] = {"", "a b", "a\"b", "x,y", "<script>"};
    char head[512], first[SUBJECT_ID_SIZE];
    fixture_init(&fx);
    ck_assert_uint_eq(prepare("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: Ab-1.2_3:4\r\n\r\n"), 0);
    ck_assert_span(subject.id, "Ab-1.2_3:4");
    subject_fini(&subject);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: %s\r\n\r\n", bad[i]);
        ck_assert_uint_eq(prepare(head), 0);
        ck_assert_uint_eq(subject.id.n, SUBJECT_ID_SIZE);
        for (size_t k = 0; k < SUBJECT_ID_SIZE; k++)
            ck_assert_ptr_nonnull(strchr("0123456789abcdef", subject.id.p[k]));
        ck_assert(i == 0 || memcmp(first, subject.id.p, SUBJECT_ID_SIZE) != 0);
        memcpy(first, subject.id.p, SUBJECT_ID_SIZE);
        unsigned index = 0;
        struct http_field *field = http_next_name(&subject.head, SPAN("x-request-id"), &index);
        ck_assert_ptr_nonnull(field);
        ck_assert(span_equal(field->value, subject.id));
        ck_assert_ptr_null(http_next_name(&subject.head, SPAN("x-request-id"), &index));
        subject_fini(&subject);
    }
    memset(head, 0, sizeof head);
    snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: %0129d\r\n\r\n", 1);
    ck_assert_uint_eq(prepare(head), 0);
    ck_assert_uint_eq(subject.id.n, SUBJECT_ID_SIZE);
    subject_fini(&subject);
}
END_TEST

START_TEST(handshakes_are_judged)
{
    fixture_init(&fx);
    ck_assert_uint_eq(
        prepare("GET /c HTTP/1.1\r\nHost: a\r\n" FIXTURE_HANDSHAKE "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"),
        0);
    ck_assert(subject.websocket);
    ck_assert_uint_eq(subject.offer.protocol_count, 2);
    ck_assert_span(subject.offer.protocols[1], "superchat");
    subject_fini(&subject);
    ck_assert_uint_eq(
        prepare(
            "GET /c HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"),
        400);
    subject_fini(&subject);
    ck_assert_uint_eq(prepare("GET /c HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n"),
                      426);
    subject_fini(&subject);
    ck_assert_uint_eq(prepare("GET /c HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n"), 0);
    ck_assert(!subject.websocket);
    subject_fini(&subject);
}
END_TEST

START_TEST(listener_edits_fields_first)
{
    fixture_init(&fx);
    struct action_header edits[] = {{SPAN("x-user"), SPAN_NULL}, {SPAN("x-zone"), SPAN("edge")}};
    fx.listener.request_headers = (struct config_headers){edits, 2};
    ck_assert_uint_eq(prepare("GET / HTTP/1.1\r\nHost: a\r\nX-User: root\r\n\r\n"), 0);
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-user")));
    ck_assert_span(http_find_name(&subject.head, SPAN("x-zone"))->value, "edge");
    subject_fini(&subject);
}
END_TEST

START_TEST(edits_are_undone)
{
    struct subject_mark mark;
    memset(&mark, 0, sizeof mark);
    fixture_init(&fx);
    ck_assert_uint_eq(prepare("GET /c?q=1 HTTP/1.1\r\nHost: a:81\r\nX-A: 1\r\nX-B: 2\r\n" FIXTURE_HANDSHAKE
                              "Sec-WebSocket-Protocol: chat, bearer, t\r\n\r\n"),
                      0);
    unsigned fields = subject.head.field_count;
    ck_assert(subject_mark(&subject, &mark));
    ck_assert(http_set(&subject.head, SPAN("x-a"), SPAN("changed")));
    http_delete(&subject.head, SPAN("x-b"));
    for (unsigned i = 0; i < 100; i++)
        ck_assert(http_add(&subject.head, SPAN("x-new"), SPAN("v")));
    subject.path = SPAN("/other");
    subject.query = SPAN_NULL;
    subject.host = SPAN("elsewhere");
    subject.host_port = 0;
    subject.path_edited = subject.query_edited = subject.host_edited = true;
    subject.offer.protocol_count = 1;
    ck_assert(subject_apply_offer(&subject));
    ck_assert_span(http_find(&subject.head, HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL)->value, "chat");
    subject.log_count = 3;
    subject_restore(&subject, &mark);
    ck_assert_uint_eq(subject.head.field_count, fields);
    ck_assert_span(http_find_name(&subject.head, SPAN("x-a"))->value, "1");
    ck_assert_span(http_find_name(&subject.head, SPAN("x-b"))->value, "2");
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-new")));
    ck_assert_span(http_find(&subject.head, HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL)->value, "chat, bearer, t");
    ck_assert_span(subject.path, "/c");
    ck_assert_span(subject.query, "q=1");
    ck_assert_span(subject.host, "a");
    ck_assert_uint_eq(subject.host_port, 81);
    ck_assert(!subject.path_edited && !subject.query_edited && !subject.host_edited && !subject.offer_edited);
    ck_assert_uint_eq(subject.offer.protocol_count, 3);
    ck_assert_uint_eq(subject.log_count, 0);
    subject.offer.protocol_count = 0;
    ck_assert(subject_apply_offer(&subject));
    ck_assert_ptr_null(http_find(&subject.head, HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL));
    subject_fini(&subject);
}
END_TEST

START_TEST(cookies)
{
    fixture_init(&fx);
    ck_assert_uint_eq(prepare("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; bb=\"x y\";c=; d\r\nCookie: e=p=q\r\n\r\n"),
                      0);
    ck_assert_span(subject_cookie(&subject, SPAN("a")), "1");
    ck_assert_span(subject_cookie(&subject, SPAN("bb")), "\"x y\"");
    ck_assert_span(subject_cookie(&subject, SPAN("c")), "");
    ck_assert_span(subject_cookie(&subject, SPAN("e")), "p=q");
    ck_assert_ptr_null(subject_cookie(&subject, SPAN("d")).p);
    ck_assert_ptr_null(subject_cookie(&subject, SPAN("b")).p);
    ck_assert_ptr_null(subject_cookie(&subject, SPAN("A")).p);
    subject_fini(&subject);
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, splits_and_normalises);
    tcase_add_test(tests, refuses_bad_targets);
    tcase_add_test(tests, absolute_form_agrees_with_host);
    tcase_add_test(tests, untrusted_peer_speaks_for_nobody);
    tcase_add_test(tests, trusted_peer_is_believed);
    tcase_add_test(tests, connection_names_are_gone);
    tcase_add_test(tests, request_id_kept_or_made);
    tcase_add_test(tests, handshakes_are_judged);
    tcase_add_test(tests, listener_edits_fields_first);
    tcase_add_test(tests, edits_are_undone);
    tcase_add_test(tests, cookies);
}

int main(void) { return fixture_run("subject", add); }
