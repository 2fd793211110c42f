/* SPDX-License-Identifier: MIT */
/* Tests of base/str: comparing, lists, globs, numbers, JSON escaping, nearest names, tokens. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/digits.h"
#include "base/str.h"

START_TEST(test_digits) {
    char out[DIGITS_MAX];
    ck_assert_uint_eq(digits_format(out, 0), 1);
    ck_assert_int_eq(out[0], '0');
    ck_assert_uint_eq(digits_format(out, 18446744073709551615u), 20);
    ck_assert_mem_eq(out, "18446744073709551615", 20);
}
END_TEST

START_TEST(test_str_compare) {
    ck_assert(str_equal_nocase(SPAN("UpGrade"), SPAN("upgrade")));
    ck_assert(!str_equal_nocase(SPAN("upgrade"), SPAN("upgrad")));
    ck_assert(!str_equal_nocase(SPAN("[a"), SPAN("{a"))); /* 0x20 apart, no letters */
    ck_assert(str_starts(SPAN("/api/x"), SPAN("/api/")));
    ck_assert(!str_starts(SPAN("/ap"), SPAN("/api/")));
    ck_assert(str_ends(SPAN("a.example.com"), SPAN(".example.com")));
    ck_assert(!str_ends(SPAN("com"), SPAN(".com")));
    ck_assert(str_ends(SPAN_NULL, SPAN("")));
    ck_assert(span_equal(str_trim(SPAN(" \t a b\t ")), SPAN("a b")));
    ck_assert_uint_eq(str_trim(SPAN(" \t ")).n, 0);
}
END_TEST

START_TEST(test_str_list) {
    struct span rest = SPAN(" chat ,, superchat\t,\t, x "), token;
    ck_assert(str_next_token(&rest, &token));
    ck_assert(span_equal(token, SPAN("chat")));
    ck_assert(str_next_token(&rest, &token));
    ck_assert(span_equal(token, SPAN("superchat")));
    ck_assert(str_next_token(&rest, &token));
    ck_assert(span_equal(token, SPAN("x")));
    ck_assert(!str_next_token(&rest, &token));
    rest = SPAN_NULL;
    ck_assert(!str_next_token(&rest, &token));
}
END_TEST

START_TEST(test_str_glob) {
    ck_assert(str_glob(SPAN("*"), SPAN("")));
    ck_assert(str_glob(SPAN("*"), SPAN("x")));
    ck_assert(str_glob(SPAN("**"), SPAN("x")));
    ck_assert(str_glob(SPAN("https://*.example.com"), SPAN("https://*.example.com")));
    ck_assert(!str_glob(SPAN("https://*.example.com"), SPAN("https://a.example.com"))); /* not in the middle */
    ck_assert(str_glob(SPAN("*.example.com"), SPAN("a.example.com")));
    ck_assert(!str_glob(SPAN("*.example.com"), SPAN("example.com")));
    ck_assert(str_glob(SPAN("Mozilla*"), SPAN("Mozilla/5.0")));
    ck_assert(str_glob(SPAN("*bot*"), SPAN("a bot b")));
    ck_assert(!str_glob(SPAN("*bot*"), SPAN("a bat b")));
    ck_assert(str_glob(SPAN(""), SPAN("")));
    ck_assert(!str_glob(SPAN(""), SPAN("a")));
}
END_TEST

START_TEST(test_str_numbers) {
    uint64_t n = 7;
    ck_assert(str_parse_u63(SPAN("0"), &n) && n == 0);
    ck_assert(str_parse_u63(SPAN("0009"), &n) && n == 9);
    ck_assert(str_parse_u63(SPAN("9223372036854775807"), &n) && n == INT64_MAX);
    ck_assert(!str_parse_u63(SPAN("9223372036854775808"), &n));
    ck_assert(!str_parse_u63(SPAN("18446744073709551616"), &n));
    ck_assert(!str_parse_u63(SPAN(""), &n));
    ck_assert(!str_parse_u63(SPAN("+1"), &n));
    ck_assert(!str_parse_u63(SPAN("1 "), &n));
    ck_assert(!str_parse_u63(SPAN("-1"), &n));
    ck_assert(str_parse_duration(SPAN("500ms"), &n) && n == 500);
    ck_assert(str_parse_duration(SPAN("5s"), &n) && n == 5000);
    ck_assert(str_parse_duration(SPAN("2m"), &n) && n == 120000);
    ck_assert(str_parse_duration(SPAN("1h"), &n) && n == 3600000);
    ck_assert(str_parse_duration(SPAN("1d"), &n) && n == 86400000);
    ck_assert(str_parse_duration(SPAN("0s"), &n) && n == 0);
    ck_assert(str_parse_duration(SPAN("3650d"), &n));
    ck_assert(!str_parse_duration(SPAN("3651d"), &n));
    ck_assert(!str_parse_duration(SPAN("99999999999999999999s"), &n));
    ck_assert(!str_parse_duration(SPAN("5"), &n));
    ck_assert(!str_parse_duration(SPAN("s"), &n));
    ck_assert(!str_parse_duration(SPAN("5 s"), &n));
    ck_assert(!str_parse_duration(SPAN("-5s"), &n));
    ck_assert(!str_parse_duration(SPAN("5min"), &n));
    ck_assert(str_parse_size(SPAN("8k"), &n) && n == 8192);
    ck_assert(str_parse_size(SPAN("16m"), &n) && n == 16777216);
    ck_assert(str_parse_size(SPAN("1g"), &n) && n == 1073741824);
    ck_assert(str_parse_size(SPAN("123"), &n) && n == 123);
    ck_assert(str_parse_size(SPAN("9007199254740992"), &n));
    ck_assert(!str_parse_size(SPAN("9007199254740993"), &n));
    ck_assert(!str_parse_size(SPAN("k"), &n));
    ck_assert(!str_parse_size(SPAN(""), &n));
    ck_assert(!str_parse_size(SPAN("1t"), &n));
}
END_TEST

static void test_str_json(struct span in, const char *expected) {
    struct buf buf;
    buf_init(&buf, 4096);
    ck_assert(buf_append_text(&buf, "<"));
    ck_assert(str_append_json(&buf, in));
    ck_assert(buf_append(&buf, "", 1));
    ck_assert_str_eq(buf_span(&buf).p + 1, expected);
    buf_release(&buf);
}

START_TEST(test_str_json_escapes) {
    test_str_json(SPAN_NULL, "");
    test_str_json(SPAN("plain text, long enough for two words"), "plain text, long enough for two words");
    test_str_json(SPAN("say \"hi\" \\ \n\r\t\b"), "say \\\"hi\\\" \\\\ \\n\\r\\t\\u0008");
    test_str_json(SPAN("\x1b[31m\x7f"), "\\u001b[31m\\u007f");
    test_str_json(SPAN("a\0b"), "a\\u0000b");
    test_str_json(SPAN("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x99"), "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x99");
    test_str_json(SPAN("\xff\xc3"), "\\u00ff\\u00c3");             /* no UTF-8, and one cut short */
    test_str_json(SPAN("\xc0\xaf"), "\\u00c0\\u00af");             /* overlong */
    test_str_json(SPAN("\xe0\x80\xaf"), "\\u00e0\\u0080\\u00af");  /* overlong */
    test_str_json(SPAN("\xed\xa0\x80"), "\\u00ed\\u00a0\\u0080");  /* surrogate */
    test_str_json(SPAN("\xf4\x90\x80\x80"), "\\u00f4\\u0090\\u0080\\u0080");
    test_str_json(SPAN("\xc2\x9b" "0m"), "\\u009b0m"); /* CSI as a C1 control */
}
END_TEST

/* Every byte at every offset of a longer run gives what it gives alone: the eight-at-a-time scan misses none. */
START_TEST(test_str_json_every_byte) {
    for (unsigned c = 0; c < 256; c++) {
        struct buf alone;
        char byte = (char)c;
        buf_init(&alone, 64);
        ck_assert(str_append_json(&alone, span_make(&byte, 1)));
        for (size_t at = 0; at < 20; at++) {
            char text[20], expected[64];
            memset(text, 'a', sizeof(text));
            text[at] = byte;
            memset(expected, 'a', sizeof(expected));
            memcpy(expected + at, alone.data, alone.len);
            struct buf buf;
            buf_init(&buf, 64);
            ck_assert(str_append_json(&buf, span_make(text, sizeof(text))));
            ck_assert(span_equal(buf_span(&buf), span_make(expected, 19 + alone.len)));
            buf_release(&buf);
        }
        buf_release(&alone);
    }
}
END_TEST

/* Every length of plain text, and every room that is short of it: nothing is written behind the end. */
START_TEST(test_str_put_json_room) {
    static const char *const texts[] = {"abcdefghijklmnopqrstuvwxyz", "ab\"cdefgh\nijklm\x01nopqr", "\xe2\x82\xac\xc3\xa9\xff"};
    for (size_t t = 0; t < 3; t++) {
        for (size_t n = 0; n <= strlen(texts[t]); n++) {
            char whole[160], out[160];
            char *end = str_put_json(whole, whole + sizeof whole, span_make(texts[t], n));
            ck_assert_ptr_nonnull(end);
            const size_t need = (size_t)(end - whole);
            for (size_t room = 0; room <= need + 1; room++) {
                memset(out, '#', sizeof out);
                end = str_put_json(out, out + room, span_make(texts[t], n));
                if (room < need ? end != NULL : end != out + need || memcmp(out, whole, need) != 0)
                    ck_abort_msg("text %zu, %zu bytes, room for %zu", t, n, room);
                for (size_t i = room; i < sizeof out; i++)
                    if (out[i] != '#')
                        ck_abort_msg("text %zu, %zu bytes, room for %zu: byte %zu", t, n, room, i);
            }
        }
    }
}
END_TEST

START_TEST(test_str_json_full) {
    struct buf buf;
    buf_init(&buf, 8);
    ck_assert(buf_append_text(&buf, "abc"));
    ck_assert(!str_append_json(&buf, SPAN("def\x01")));
    ck_assert(span_equal(buf_span(&buf), SPAN("abc"))); /* all or nothing */
    ck_assert(str_append_json(&buf, SPAN("d\"ef")));
    buf_release(&buf);
}
END_TEST

START_TEST(test_str_nearest_name) {
    static const char *const names[] = {"bind", "tls", "header_timeout", "body_timeout", "max_body", NULL};
    ck_assert_str_eq(str_nearest("bnid", names), "bind");
    ck_assert_str_eq(str_nearest("binds", names), "bind");
    ck_assert_str_eq(str_nearest("header_timout", names), "header_timeout");
    ck_assert_str_eq(str_nearest("Max_Body", names), "max_body");
    ck_assert_str_eq(str_nearest("tsl", names), "tls");
    ck_assert_ptr_null(str_nearest("colour", names));
    ck_assert_ptr_null(str_nearest("x", names));
    ck_assert_ptr_null(str_nearest("", names));
    ck_assert_ptr_null(str_nearest("an_unreasonably_long_name_that_nobody_would_ever_declare_anywhere", names));
}
END_TEST

START_TEST(test_str_tokens) {
    static const char tchars[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (unsigned c = 0; c < 256; c++)
        ck_assert(str_is_tchar((unsigned char)c) == (c != 0 && c < 128 && strchr(tchars, (int)c) != NULL));
    ck_assert(str_is_token(SPAN("x-y")));
    ck_assert(!str_is_token(SPAN("")));
    ck_assert(!str_is_token(SPAN("x y")));
}
END_TEST

START_TEST(test_str_copy_and_hash) {
    char out[4];
    ck_assert(str_copy(out, sizeof(out), SPAN("abc")));
    ck_assert_str_eq(out, "abc");
    ck_assert(!str_copy(out, sizeof(out), SPAN("wxyz")));
    ck_assert_str_eq(out, "wxy");
    ck_assert(str_copy(out, sizeof(out), SPAN_NULL));
    ck_assert_str_eq(out, "");
    ck_assert(!str_copy(out, 0, SPAN("")));
    ck_assert_uint_eq(str_hash(SPAN("")), 0xcbf29ce484222325u);
    ck_assert_uint_eq(str_hash(SPAN("foobar")), 0x85944171f73967e8u); /* the published vector */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("str");
    TCase *tc = tcase_create("str");
    tcase_add_test(tc, test_digits);
    tcase_add_test(tc, test_str_compare);
    tcase_add_test(tc, test_str_list);
    tcase_add_test(tc, test_str_glob);
    tcase_add_test(tc, test_str_numbers);
    tcase_add_test(tc, test_str_json_escapes);
    tcase_add_test(tc, test_str_json_every_byte);
    tcase_add_test(tc, test_str_json_full);
    tcase_add_test(tc, test_str_put_json_room);
    tcase_add_test(tc, test_str_nearest_name);
    tcase_add_test(tc, test_str_tokens);
    tcase_add_test(tc, test_str_copy_and_hash);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
