/* SPDX-License-Identifier: MIT */
/*
 * Tests of wire/body by requirements A5 and A7: each input whole, cut in two at every offset, and byte by byte (A9),
 * with the same data, end and leftovers.
 */
#include "wire_fixture.h"

#include "base/str.h"
#include "wire/body.h"

#define BODY_OUT 2048

struct body_outcome {
    enum body_event event; /* the last one */
    size_t used;           /* of the whole input */
    size_t size;
    char data[BODY_OUT];
    char trailer[BODY_OUT];
};

/* Feeds one piece from memory of its own size; false once the body has ended. */
static bool body_feed(struct body *body, const char *p, size_t n, struct body_outcome *out) {
    char *copy = malloc(n ? n : 1);
    size_t at = 0;
    memcpy(copy, p, n);
    for (;;) {
        size_t used;
        struct span data;
        out->event = body_next(body, copy + at, n - at, &used, &data);
        ck_assert_uint_le(used, n - at);
        at += used;
        out->used += used;
        if (out->event != BODY_DATA)
            break;
        ck_assert_uint_gt(data.n, 0);
        ck_assert(data.p >= copy && data.p + data.n <= copy + n);
        ck_assert_uint_le(out->size + data.n, BODY_OUT);
        memcpy(out->data + out->size, data.p, data.n);
        out->size += data.n;
    }
    if (out->event == BODY_MORE)
        ck_assert_uint_eq(at, n);
    free(copy);
    return out->event == BODY_MORE;
}

static void body_run(enum http_body kind, uint64_t length, struct span text, size_t cut, struct body_outcome *out) {
    struct body body;
    memset(out, 0, sizeof(*out));
    body_init(&body, kind, length);
    size_t at = 0;
    bool more = true;
    for (; cut == SIZE_MAX && more && at < text.n; at++)
        more = body_feed(&body, text.p + at, 1, out);
    if (cut != SIZE_MAX && cut > 0 && (more = body_feed(&body, text.p, cut, out)))
        at = cut;
    if (more)
        body_feed(&body, text.p + at, text.n - at, out);
    const enum body_event event = out->event;
    if (event == BODY_END || event == BODY_BAD) { /* and it stays so */
        struct body_outcome again = *out;
        const size_t used = again.used;
        body_feed(&body, "x", 1, &again);
        ck_assert(again.event == event && again.used == used);
        ck_assert_int_eq(body_eof(&body), event);
    }
    ck_assert_int_eq(event == BODY_BAD, body.reason != NULL && event != BODY_END && event != BODY_MORE);
    ck_assert_uint_eq(body.total, out->size);
    str_copy(out->trailer, BODY_OUT, buf_span(&body.trailer));
    body_fini(&body);
}

static struct body_outcome body_judge(enum http_body kind, uint64_t length, struct span text) {
    static struct body_outcome whole, other;
    body_run(kind, length, text, 0, &whole);
    for (size_t cut = 1; cut <= text.n; cut++) {
        body_run(kind, length, text, cut == text.n ? SIZE_MAX : cut, &other);
        ck_assert_msg(memcmp(&whole, &other, sizeof(whole)) == 0, "cut at %zu: %.*s", cut, SPAN_ARGS(text));
    }
    return whole;
}

static void body_expect(struct span text, enum body_event event, const char *data, size_t left) {
    const struct body_outcome out = body_judge(HTTP_BODY_CHUNKED, 0, text);
    ck_assert_msg(out.event == event, "event %d for %.*s", (int)out.event, SPAN_ARGS(text));
    ck_assert(span_equal(span_make(out.data, out.size), span_of(data)));
    if (event == BODY_END)
        ck_assert_uint_eq(out.used, text.n - left);
}

START_TEST(test_body_chunked) { /* A5, A10: sizes, and what follows the end is left alone */
    body_expect(SPAN("0\r\n\r\n"), BODY_END, "", 0);
    body_expect(SPAN("5\r\nhello\r\n0\r\n\r\n"), BODY_END, "hello", 0);
    body_expect(SPAN("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /"), BODY_END, "hello world", 5);
    body_expect(SPAN("00000000000000a\r\n0123456789\r\n000\r\n\r\n"), BODY_END, "0123456789", 0);
    body_expect(SPAN("A\r\n0\r\n\r\n\r\n0\r\n\r\n0\r\n\r\n"), BODY_END, "0\r\n\r\n\r\n0\r\n", 0);
    body_expect(SPAN("5\r\nhel"), BODY_MORE, "hel", 0);
    body_expect(SPAN("5\r\nhello\r\n0\r\n"), BODY_MORE, "hello", 0);
    body_expect(SPAN("0000000000000005\r\nhello\r\n0\r\n\r\n"), BODY_END, "hello", 0); /* 16 digits */
    body_expect(SPAN("00000000000000005\r\nhello\r\n0\r\n\r\n"), BODY_BAD, "", 0);     /* 17 */
    body_expect(SPAN("7fffffffffffffff\r\nx"), BODY_MORE, "x", 0);
    body_expect(SPAN("8000000000000000\r\nx"), BODY_BAD, "", 0);
    body_expect(SPAN("ffffffffffffffff\r\nx"), BODY_BAD, "", 0);
}
END_TEST

START_TEST(test_body_bad_chunks) { /* A5: hex digits only, CRLF exactly */
    static const char *const bad[] = {"\r\n",
                                      "x\r\n",
                                      "g",
                                      "-1\r\n",
                                      "+1\r\n",
                                      "0x5\r\nhello",
                                      "5\nhello\r\n0\r\n\r\n",
                                      "5\rhello",
                                      "5\r\r\nhello",
                                      " 5\r\nhello",
                                      "5 \r\nhello",
                                      "5\t\r\nhello",
                                      "5,5\r\n",
                                      "5\r\nhello0\r\n\r\n",
                                      "5\r\nhello\n0\r\n\r\n",
                                      "5\r\nhello\r0\r\n\r\n",
                                      "5\r\nhelloX\r\n",
                                      "0\n\r\n",
                                      "0\r\n\n",
                                      "0\r\n\rX",
                                      "0\r\r\n\r\n",
                                      "5\r\nhello\r\n\r\n0\r\n\r\n",
                                      "5\r\n\r\nhello\r\nx"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct body_outcome out = body_judge(HTTP_BODY_CHUNKED, 0, span_of(bad[i]));
        ck_assert_msg(out.event == BODY_BAD, "%s", bad[i]);
    }
}
END_TEST

START_TEST(test_body_extensions) { /* A5: extensions valid, never seen outside */
    static const char *const good[] = {";a",      ";a=b",   ";a=b;c;d=e",      " ; a = b ; c", ";a=\"b c;\\\"\"",
                                       ";a=\"\"", "\t;\ta", ";a=\"\xe4\\\\\"", ";a ;b"};
    static const char *const bad[] = {";",      "; ",        ";=b",    ";a=",         ";a b",          ";a=b c",
                                      ";a=\"b", ";a=\"b\"c", ";a=b\"", ";a;",         ";;a",           ";a ",
                                      ";a=b ",  ";a=\"b\" ", ";a\x01", ";a=\"\x01\"", ";a=\"\\\x7f\"", ";a=\"\n\"",
                                      ";\xe4",  " a",        "x;a",    ";a\n",        ";a\r;"};
    char text[256];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "1%s\r\nx\r\n0%s\r\n\r\n", good[i], good[i]);
        const struct body_outcome out = body_judge(HTTP_BODY_CHUNKED, 0, span_of(text));
        ck_assert_msg(out.event == BODY_END && out.size == 1 && out.trailer[0] == 0, "%s", text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "1%s\r\nx\r\n0\r\n\r\n", bad[i]);
        ck_assert_msg(body_judge(HTTP_BODY_CHUNKED, 0, span_of(text)).event == BODY_BAD, "%s", text);
    }
    /* CR inside a quoted string is no end of the line. */
    body_expect(SPAN("1;a=\"b\r\"\r\nx\r\n0\r\n\r\n"), BODY_BAD, "", 0);
}
END_TEST

START_TEST(test_body_extension_limits) { /* A5: 256 bytes a chunk, 16 KiB a message */
    char text[400] = "1;";
    struct body_outcome out;
    for (size_t n = 254; n <= 256; n++) { /* bytes after the ';' */
        memset(text + 2, 'a', n);
        memcpy(text + 2 + n, "\r\nx\r\n0\r\n\r\n", 11);
        out = body_judge(HTTP_BODY_CHUNKED, 0, span_of(text));
        ck_assert_int_eq(out.event, n <= 255 ? BODY_END : BODY_BAD);
    }
    struct body body;
    size_t used, chunks = 0;
    struct span data;
    body_init(&body, HTTP_BODY_CHUNKED, 0);
    memset(text + 2, 'a', 255);
    memcpy(text + 257, "\r\nx\r\n", 6);
    enum body_event event;
    do {
        size_t at = 0;
        while ((event = body_next(&body, text + at, 262 - at, &used, &data)) == BODY_DATA)
            at += used;
    } while (event == BODY_MORE && ++chunks < 1000);
    ck_assert_int_eq(event, BODY_BAD);
    ck_assert_uint_eq(chunks, 64); /* times 256 is 16 KiB */
    body_fini(&body);
    /* The same with extensions of two bytes each: no way round by the first byte. */
    body_init(&body, HTTP_BODY_CHUNKED, 0);
    for (chunks = 0, event = BODY_MORE; event == BODY_MORE && chunks < 10000; chunks++) {
        static const char piece[] = "1;a\r\nx\r\n";
        size_t at = 0;
        while ((event = body_next(&body, piece + at, 8 - at, &used, &data)) == BODY_DATA)
            at += used;
    }
    ck_assert_int_eq(event, BODY_BAD);
    ck_assert_uint_eq(chunks, 8193);
    body_fini(&body);
}
END_TEST

START_TEST(test_body_trailer) { /* A5: held apart, by the rules of the head */
    const struct body_outcome out =
        body_judge(HTTP_BODY_CHUNKED, 0, SPAN("1\r\nx\r\n0\r\nX-Sum: \t 1\r\nY:\r\n\r\nrest"));
    ck_assert_int_eq(out.event, BODY_END);
    ck_assert_str_eq(out.trailer, "X-Sum: \t 1\r\nY:\r\n");
    static const char *const bad[] = {" X: a\r\n\r\n",  ": a\r\n\r\n",      "X\r\n\r\n",       "X : a\r\n\r\n",
                                      "X: a\n\r\n",     "X: a\r\r\n\r\n",   "X: \x01\r\n\r\n", "X: a\r\n b\r\n\r\n",
                                      "X Y: a\r\n\r\n", "X\xe4: a\r\n\r\n", "X: a\r\n\n",      "X: \x7f\r\n\r\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "0\r\n%s", bad[i]);
        ck_assert_msg(body_judge(HTTP_BODY_CHUNKED, 0, span_of(text)).event == BODY_BAD, "%s", bad[i]);
    }
    char nul[] = "0\r\nX: \0\r\n\r\n";
    ck_assert_int_eq(body_judge(HTTP_BODY_CHUNKED, 0, span_make(nul, sizeof(nul) - 1)).event, BODY_BAD);
    /* 8 KiB and no byte more. */
    for (unsigned over = 0; over < 2; over++) {
        struct body body;
        size_t used;
        struct span data;
        char *text = malloc(BODY_TRAILER_MAX + 100);
        memset(text, 'a', BODY_TRAILER_MAX + 100);
        memcpy(text, "0\r\nX:", 5);
        memcpy(text + 3 + BODY_TRAILER_MAX - 2 + over, "\r\n\r\n", 4);
        body_init(&body, HTTP_BODY_CHUNKED, 0);
        const enum body_event event = body_next(&body, text, 3 + BODY_TRAILER_MAX + 2 + over, &used, &data);
        ck_assert_int_eq(event, over ? BODY_BAD : BODY_END);
        body_fini(&body);
        free(text);
    }
}
END_TEST

START_TEST(test_body_trailers_forwarded) { /* A5: none changes framing, routing or identity */
    static const char text[] = "0\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nHost: "
                               "b\r\nConnection: close\r\nCookie: a\r\n"
                               "Authorization: b\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: x\r\nX-Real-IP: "
                               "1\r\nUpgrade: h2c\r\nTE: x\r\nTrailer: y\r\n"
                               "Content-Encoding: gzip\r\nContent-Type: a/b\r\nSet-Cookie: a\r\nExpect: "
                               "100-continue\r\nRange: 1\r\nIf-Match: x\r\n"
                               "X_Sum: 2\r\nSec-WebSocket-Key: x\r\nProxy-Authorization: a\r\nX-User: "
                               "root\r\nCache-Control: no\r\nLocation: /\r\n"
                               "X-Forwarded: 1\r\nX-HTTP-Method-Override: PUT\r\nX-Method-Override: PUT\r\nX-Host: b\r\n"
                               "True-Client-IP: 1\r\nX-Cluster-Client-IP: 1\r\nClient-IP: 1\r\nEarly-Data: 1\r\n"
                               "X-Original-URL: /\r\nX-A-Name-That-Is-Longer-Than-The-Buffer-It-Is-Looked-At-In: "
                               "1\r\nServer-Timing:\t t \r\n\r\n";
    struct arena arena;
    struct http_message message;
    struct body body;
    size_t used;
    struct span data;
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&message, &arena);
    body_init(&body, HTTP_BODY_CHUNKED, 0);
    ck_assert(body_trailers(&body, &message)); /* too early: nothing */
    ck_assert_uint_eq(message.field_count, 0);
    ck_assert_int_eq(body_next(&body, text, sizeof(text) - 1, &used, &data), BODY_END);
    ck_assert(body_trailers(&body, &message));
    ck_assert_uint_eq(message.field_count, 3);
    ck_assert(span_equal(message.fields[0].name, SPAN("X-Sum")));
    ck_assert(span_equal(message.fields[0].value, SPAN("1")));
    ck_assert(span_equal(message.fields[2].name, SPAN("Server-Timing")));
    ck_assert(span_equal(message.fields[2].value, SPAN("t")));
    body_fini(&body);
    arena_fini(&arena);
}
END_TEST

START_TEST(test_body_length) {
    struct body_outcome out = body_judge(HTTP_BODY_LENGTH, 5, SPAN("helloGET"));
    ck_assert_int_eq(out.event, BODY_END);
    ck_assert_uint_eq(out.used, 5);
    ck_assert(span_equal(span_make(out.data, out.size), SPAN("hello")));
    ck_assert_int_eq(body_judge(HTTP_BODY_LENGTH, 0, SPAN("x")).event, BODY_END);
    ck_assert_int_eq(body_judge(HTTP_BODY_LENGTH, 6, SPAN("hello")).event, BODY_MORE);
    ck_assert_int_eq(body_judge(HTTP_BODY_LENGTH, INT64_MAX, SPAN("hello")).event, BODY_MORE);
    out = body_judge(HTTP_BODY_NONE, 0, SPAN("GET"));
    ck_assert_int_eq(out.event, BODY_END);
    ck_assert_uint_eq(out.used, 0);
    out = body_judge(HTTP_BODY_CLOSE, 0, SPAN("a\0b\r\n\r\n"));
    ck_assert_int_eq(out.event, BODY_MORE);
    ck_assert_uint_eq(out.size, 7);
}
END_TEST

static enum body_event body_cut_off(enum http_body kind, uint64_t length, struct span text) {
    struct body body;
    size_t used;
    struct span data;
    body_init(&body, kind, length);
    for (size_t at = 0; body_next(&body, text.p + at, text.n - at, &used, &data) == BODY_DATA;)
        at += used;
    const enum body_event event = body_eof(&body);
    ck_assert((event == BODY_BAD) == (body.reason != NULL));
    body_fini(&body);
    return event;
}

START_TEST(test_body_eof) { /* D25: a body cut off never looks like one that ended */
    ck_assert_int_eq(body_cut_off(HTTP_BODY_CLOSE, 0, SPAN("abc")), BODY_END);
    ck_assert_int_eq(body_cut_off(HTTP_BODY_CLOSE, 0, SPAN("")), BODY_END);
    ck_assert_int_eq(body_cut_off(HTTP_BODY_NONE, 0, SPAN("")), BODY_END);
    ck_assert_int_eq(body_cut_off(HTTP_BODY_LENGTH, 3, SPAN("abc")), BODY_END);
    ck_assert_int_eq(body_cut_off(HTTP_BODY_LENGTH, 4, SPAN("abc")), BODY_BAD);
    ck_assert_int_eq(body_cut_off(HTTP_BODY_CHUNKED, 0, SPAN("1\r\nx\r\n0\r\n\r\n")), BODY_END);
    const struct span whole = SPAN("1\r\nx\r\n0\r\nA: b\r\n\r\n");
    for (size_t n = 0; n < whole.n; n++)
        ck_assert_int_eq(body_cut_off(HTTP_BODY_CHUNKED, 0, span_make(whole.p, n)), BODY_BAD);
}
END_TEST

/* Bytes that somebody else moved count as any. */
START_TEST(test_body_pass) {
    struct body body;
    struct span data;
    size_t used;
    body_init(&body, HTTP_BODY_LENGTH, 10);
    ck_assert_int_eq(body_next(&body, "abc", 3, &used, &data), BODY_DATA);
    body_pass(&body, 6);
    ck_assert_int_eq(body_next(&body, "", 0, &used, &data), BODY_MORE);
    ck_assert_uint_eq(body.left, 1);
    body_pass(&body, 1);
    ck_assert_int_eq(body_next(&body, "x", 1, &used, &data), BODY_END);
    ck_assert_uint_eq(used, 0);
    ck_assert_uint_eq(body.total, 10);
    body_fini(&body);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("body");
    TCase *tc = tcase_create("body");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_body_chunked);
    tcase_add_test(tc, test_body_bad_chunks);
    tcase_add_test(tc, test_body_extensions);
    tcase_add_test(tc, test_body_extension_limits);
    tcase_add_test(tc, test_body_trailer);
    tcase_add_test(tc, test_body_trailers_forwarded);
    tcase_add_test(tc, test_body_length);
    tcase_add_test(tc, test_body_pass);
    tcase_add_test(tc, test_body_eof);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
