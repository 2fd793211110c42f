/* SPDX-License-Identifier: MIT */
/* Tests of wire/http: known names, lookups, edits, hop-by-hop marking, validity, reasons. */
#include "wire_fixture.h"

#include "base/str.h"

static struct arena http_arena;
static struct http_message http_message;

static void http_setup(void) {
    arena_init(&http_arena, NULL, 1 << 20);
    http_message_init(&http_message, &http_arena);
}

static void http_teardown(void) {
    arena_fini(&http_arena);
}

static void http_put(const char *name, const char *value) {
    ck_assert(http_add(&http_message, span_of(name), span_of(value)));
}

static struct span http_joined(const char *name) {
    return http_join(&http_message, span_of(name));
}

START_TEST(test_http_ids) { /* every name of HTTP_FIELDS is found, in any case; near misses are not */
    for (unsigned id = 1; id < HTTP_FIELD_COUNT; id++) {
        char name[64];
        const char *known = http_field_name((enum http_field_id)id);
        const size_t n = strlen(known);
        ck_assert_uint_gt(n, 0);
        for (size_t i = 0; i <= n; i++)
            name[i] = (char)(known[i] >= 'a' && known[i] <= 'z' && i % 2 ? known[i] - 32 : known[i]);
        ck_assert_msg(http_field_id(span_make(known, n)) == id, "%s", known);
        ck_assert_msg(http_field_id(span_make(name, n)) == id, "%s", name);
        name[n - 1] = (char)(name[n - 1] ^ 1);
        ck_assert_msg(http_field_id(span_make(name, n)) != id, "%s", name);
        ck_assert(http_field_id(span_make(known, n - 1)) != id);
        name[0] = '!';
        ck_assert_int_eq(http_field_id(span_make(name, n)), HTTP_FIELD_OTHER);
    }
    ck_assert_int_eq(http_field_id(SPAN("")), HTTP_FIELD_OTHER);
    ck_assert_int_eq(http_field_id(SPAN("content_length")), HTTP_FIELD_OTHER);
    ck_assert_int_eq(http_field_id(SPAN("sec-websocket-extensions-and-more")), HTTP_FIELD_OTHER);
    ck_assert_str_eq(http_field_name(HTTP_FIELD_OTHER), "");
}
END_TEST

START_TEST(test_http_find) {
    http_put("Accept", "a");
    http_put("Cookie", "x=1");
    http_put("ACCEPT", "b");
    http_put("accept", "");
    ck_assert(span_equal(http_find(&http_message, HTTP_FIELD_COOKIE)->value, SPAN("x=1")));
    ck_assert_ptr_null(http_find(&http_message, HTTP_FIELD_HOST));
    ck_assert(span_equal(http_find_name(&http_message, SPAN("aCCept"))->value, SPAN("a")));
    unsigned index = 0;
    ck_assert(span_equal(http_next_name(&http_message, SPAN("accept"), &index)->value, SPAN("a")));
    ck_assert(span_equal(http_next_name(&http_message, SPAN("accept"), &index)->value, SPAN("b")));
    ck_assert(span_equal(http_next_name(&http_message, SPAN("accept"), &index)->value, SPAN("")));
    ck_assert_ptr_null(http_next_name(&http_message, SPAN("accept"), &index));
    ck_assert(span_equal(http_joined("accept"), SPAN("a, b, ")));
    ck_assert(span_equal(http_joined("cookie"), SPAN("x=1")));
    ck_assert_ptr_null(http_joined("host").p);
    http_put("Empty", "");
    ck_assert_ptr_nonnull(http_joined("empty").p);
}
END_TEST

START_TEST(test_http_lists) {
    http_put("Connection", "a, Upgrade");
    http_put("Connection", "b");
    ck_assert(http_list_has(&http_message, HTTP_FIELD_CONNECTION, SPAN("upgrade")));
    ck_assert(http_list_has(&http_message, HTTP_FIELD_CONNECTION, SPAN("B")));
    ck_assert(!http_list_has(&http_message, HTTP_FIELD_CONNECTION, SPAN("grade")));
    ck_assert(!http_list_has(&http_message, HTTP_FIELD_UPGRADE, SPAN("upgrade")));
    http_delete_id(&http_message, HTTP_FIELD_CONNECTION);
    ck_assert(!http_list_has(&http_message, HTTP_FIELD_CONNECTION, SPAN("b")));
}
END_TEST

START_TEST(test_http_edits) {
    http_put("X-A", "1");
    http_put("X-B", "2");
    http_put("x-a", "3");
    ck_assert(http_set(&http_message, SPAN("X-a"), SPAN("4")));
    ck_assert(span_equal(http_joined("x-a"), SPAN("4")));
    ck_assert(span_equal(http_message.fields[0].name, SPAN("X-a"))); /* the first keeps its place */
    ck_assert(http_set(&http_message, SPAN("X-C"), SPAN("5")));
    ck_assert(span_equal(http_joined("x-c"), SPAN("5")));
    http_delete(&http_message, SPAN("X-B"));
    ck_assert_ptr_null(http_find_name(&http_message, SPAN("x-b")));
    ck_assert(http_set(&http_message, SPAN("x-b"), SPAN("6")));
    ck_assert(span_equal(http_joined("x-b"), SPAN("6")));
    http_put("Host", "a");
    http_delete_id(&http_message, HTTP_FIELD_HOST);
    ck_assert_ptr_null(http_find(&http_message, HTTP_FIELD_HOST));
}
END_TEST

START_TEST(test_http_many) { /* the table grows to 1,000 fields and keeps them */
    for (unsigned i = 0; i < 1000; i++)
        http_put(i == 777 ? "cookie" : "x", "v");
    ck_assert_uint_eq(http_message.field_count, 1000);
    ck_assert_ptr_eq(http_find(&http_message, HTTP_FIELD_COOKIE), &http_message.fields[777]);
    ck_assert(!http_add(&http_message, SPAN("x"), SPAN("v")));
    ck_assert(!http_set(&http_message, SPAN("y"), SPAN("v")));
    ck_assert(http_set(&http_message, SPAN("x"), SPAN("w")));
}
END_TEST

START_TEST(test_http_no_memory) {
    struct arena small;
    struct http_message message;
    arena_init(&small, NULL, 1200); /* room for the first table, not for the second */
    http_message_init(&message, &small);
    unsigned count = 0;
    while (count < 1000 && http_add(&message, SPAN("x"), SPAN("v")))
        count++;
    ck_assert_uint_gt(count, 0);
    ck_assert_uint_lt(count, 1000);
    ck_assert_uint_eq(message.field_count, count);
    arena_fini(&small);
}
END_TEST

static bool http_is_hop(const char *name) {
    return (http_find_name(&http_message, span_of(name))->flags & HTTP_HOP) != 0;
}

START_TEST(test_http_hops) { /* A8: Connection and all it names, but nothing of ours */
    static const char *const hops[] = {"Connection", "Keep-Alive",     "Proxy-Connection", "TE",    "Transfer-Encoding",
                                       "Upgrade",    "HTTP2-Settings", "X-Named",          "Second"};
    static const char *const kept[] = {"Host",
                                       "X-Forwarded-For",
                                       "X-Forwarded-Proto",
                                       "X-Forwarded-Host",
                                       "X-Forwarded-Port",
                                       "X-Real-IP",
                                       "Forwarded",
                                       "X-Request-Id",
                                       "Content-Length",
                                       "Expect",
                                       "Sec-WebSocket-Key",
                                       "Sec-WebSocket-Accept",
                                       "Trailer",
                                       "Accept"};
    for (size_t i = 0; i < sizeof(hops) / sizeof(hops[0]); i++)
        http_put(hops[i], "v");
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        http_put(kept[i], "v");
    http_put("Connection",
             "close, x-named, HOST, x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-forwarded-port, "
             "x-real-ip, forwarded, x-request-id, content-length, expect, sec-websocket-key, sec-websocket-accept");
    http_put("Connection", "second");
    http_mark_hops(&http_message);
    for (size_t i = 0; i < sizeof(hops) / sizeof(hops[0]); i++)
        ck_assert_msg(http_is_hop(hops[i]), "%s", hops[i]);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        ck_assert_msg(!http_is_hop(kept[i]), "%s", kept[i]);
    /* A value that a rule sets afterwards is ours. */
    ck_assert(http_set(&http_message, SPAN("X-Named"), SPAN("ours")));
    ck_assert(!http_is_hop("X-Named"));
}
END_TEST

START_TEST(test_http_valid) {
    ck_assert(http_valid_name(SPAN("X-a_b!")));
    ck_assert(!http_valid_name(SPAN("")));
    ck_assert(!http_valid_name(SPAN("a b")));
    ck_assert(!http_valid_name(SPAN("a:")));
    ck_assert(!http_valid_name(SPAN("\xe4")));
    ck_assert(http_valid_value(SPAN("")));
    ck_assert(http_valid_value(SPAN("a b\tc \xe4")));
    ck_assert(!http_valid_value(SPAN(" a")));
    ck_assert(!http_valid_value(SPAN("a\t")));
    ck_assert(!http_valid_value(SPAN("a\r\nb: c")));
    ck_assert(!http_valid_value(SPAN("a\nb")));
    ck_assert(!http_valid_value(SPAN("a\0b")));
    ck_assert(!http_valid_value(SPAN("abcdefgh\x7fijk")));
}
END_TEST

START_TEST(test_http_names) {
    ck_assert_str_eq(http_reason(404), "Not Found");
    ck_assert_str_eq(http_reason(101), "Switching Protocols");
    ck_assert_str_eq(http_reason(431), "Request Header Fields Too Large");
    ck_assert_str_eq(http_reason(299), "");
    ck_assert_str_eq(http_reason(99999), "");
    ck_assert_int_eq(http_method_of(SPAN("GET")), HTTP_GET);
    ck_assert_int_eq(http_method_of(SPAN("PATCH")), HTTP_PATCH);
    ck_assert_int_eq(http_method_of(SPAN("get")), HTTP_METHOD_OTHER);
    ck_assert_int_eq(http_method_of(SPAN("")), HTTP_METHOD_OTHER);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("http");
    TCase *tc = tcase_create("http");
    tcase_add_checked_fixture(tc, http_setup, http_teardown);
    tcase_add_test(tc, test_http_ids);
    tcase_add_test(tc, test_http_find);
    tcase_add_test(tc, test_http_lists);
    tcase_add_test(tc, test_http_edits);
    tcase_add_test(tc, test_http_many);
    tcase_add_test(tc, test_http_no_memory);
    tcase_add_test(tc, test_http_hops);
    tcase_add_test(tc, test_http_valid);
    tcase_add_test(tc, test_http_names);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
