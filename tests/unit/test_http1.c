/* SPDX-License-Identifier: MIT */
/*
 * Tests of wire/http1: where heads end, the comparison with http-parser, and writing. http_parser_execute() is
 * replaced here by one that can lie, so that each compared point is shown to be compared.
 */
#include "wire_fixture.h"

#include <dlfcn.h>

#define REQUEST "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Empty:\r\nConnection: keep-alive\r\n\r\n"
#define RESPONSE "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"

/* The head of http_parser.h's struct, as far as lies are told; the rest of that header collides with http.h. */
struct lied_parser {
    unsigned int type : 2, flags : 8, state : 7, header_state : 7, index : 5, bits : 3;
    uint32_t nread;
    uint64_t content_length;
    unsigned short major, minor;
    unsigned int status : 16, method : 8, error : 7, upgrade : 1;
    void *data;
};
typedef int lied_notify(struct lied_parser *);
typedef int lied_data(struct lied_parser *, const char *, size_t);
struct lied_settings {
    lied_notify *on_begin;
    lied_data *on_url, *on_status, *on_name, *on_value;
    lied_notify *on_complete;
    lied_data *on_body;
    lied_notify *on_end, *on_chunk_header, *on_chunk_complete;
};

static enum lie {
    LIE_NONE,
    LIE_FLAGS,
    LIE_LENGTH,
    LIE_MINOR,
    LIE_MAJOR,
    LIE_METHOD,
    LIE_STATUS,
    LIE_TARGET,
    LIE_REASON,
    LIE_NAME,
    LIE_VALUE,
    LIE_FIELD_LESS,
    LIE_FIELD_MORE,
    LIE_USED,
    LIE_NO_ERROR,
    LIE_NEVER_COMPLETE
} lie;
static unsigned lie_flags;
static const struct lied_settings *lie_to;

static int lie_complete(struct lied_parser *parser) {
    parser->flags ^= lie == LIE_FLAGS ? lie_flags & 255 : 0;
    parser->content_length += lie == LIE_LENGTH;
    parser->minor = (unsigned short)(parser->minor ^ (lie == LIE_MINOR));
    parser->major = (unsigned short)(parser->major + (lie == LIE_MAJOR));
    if (lie == LIE_METHOD)
        parser->method = 3; /* POST */
    if (lie == LIE_STATUS)
        parser->status = 201;
    return lie_to->on_complete(parser);
}

static int lie_url(struct lied_parser *parser, const char *at, size_t n) {
    return lie_to->on_url(parser, at, n - (lie == LIE_TARGET));
}

static int lie_status(struct lied_parser *parser, const char *at, size_t n) {
    return lie_to->on_status(parser, at, n - (lie == LIE_REASON));
}

static int lie_name(struct lied_parser *parser, const char *at, size_t n) {
    return lie_to->on_name(parser, at, n - (lie == LIE_NAME));
}

static int lie_value(struct lied_parser *parser, const char *at, size_t n) {
    if (lie == LIE_FIELD_LESS) {
        lie = LIE_NONE;
        return 0;
    }
    if (lie == LIE_FIELD_MORE) {
        lie = LIE_NONE;
        lie_to->on_value(parser, at, n);
    }
    return lie_to->on_value(parser, at, n - (lie == LIE_VALUE && n > 0));
}

size_t http_parser_execute(struct lied_parser *parser, const struct lied_settings *settings, const char *data,
                           size_t n);

size_t http_parser_execute(struct lied_parser *parser, const struct lied_settings *settings, const char *data,
                           size_t n) {
    size_t (*real)(struct lied_parser *, const struct lied_settings *, const char *, size_t);
    void *symbol = dlsym(RTLD_NEXT, "http_parser_execute");
    memcpy(&real, &symbol, sizeof(real));
    struct lied_settings liar = *settings;
    lie_to = settings;
    liar.on_complete = lie == LIE_NEVER_COMPLETE ? NULL : lie_complete;
    liar.on_url = lie_url;
    liar.on_status = lie_status;
    liar.on_name = lie_name;
    liar.on_value = lie_value;
    size_t used = real(parser, &liar, data, n);
    if (lie == LIE_NO_ERROR)
        parser->error = 0;
    return used - (lie == LIE_USED);
}

static void http1_check_lie(enum lie told, unsigned flags, bool response) {
    const struct span text = response ? SPAN(RESPONSE) : SPAN(REQUEST);
    struct arena arena;
    struct http_message message;
    struct http1_error error = {0};
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&message, &arena);
    lie = told;
    lie_flags = flags;
    enum http1_result result = response ? http1_read_response(text.p, text.n, &wire_limits, HTTP_GET, &message, &error)
                                        : http1_read_request(text.p, text.n, &wire_limits, &message, &error);
    lie = LIE_NONE;
    if (told == LIE_NONE) {
        ck_assert_int_eq(result, HTTP1_OK);
    } else {
        ck_assert_msg(result == HTTP1_BAD && error.mismatch && error.status == (response ? 502 : 400),
                      "lie %d %u was believed", (int)told, flags);
    }
    arena_fini(&arena);
}

START_TEST(test_http1_mismatch) { /* Part A, preface: the answers of guard and http-parser are compared */
    /* F_CHUNKED, F_CONNECTION_CLOSE, F_CONNECTION_UPGRADE, F_UPGRADE, F_CONTENTLENGTH of http_parser.h */
    static const unsigned flags[] = {1u << 0, 1u << 2, 1u << 3, 1u << 5, 1u << 7};
    for (int response = 0; response < 2; response++) {
        http1_check_lie(LIE_NONE, 0, response);
        for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
            http1_check_lie(LIE_FLAGS, flags[i], response);
        for (unsigned told = LIE_LENGTH; told <= LIE_NEVER_COMPLETE; told++) {
            const bool request_only = told == LIE_METHOD || told == LIE_TARGET;
            const bool response_only = told == LIE_STATUS || told == LIE_REASON;
            if (response ? !request_only : !response_only)
                http1_check_lie((enum lie)told, 0, response);
        }
    }
}
END_TEST

START_TEST(test_http1_find_head) { /* A3, A10: exactly one head; what follows is not looked at */
    const struct span two = SPAN("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\n\x01");
    size_t scanned = 0, size = 0, skip = 9;
    struct http1_error error;
    ck_assert_int_eq(http1_find_head(two.p, two.n, false, &wire_limits, &scanned, &size, &skip, &error), HTTP1_OK);
    ck_assert_uint_eq(size, 28);
    ck_assert_uint_eq(skip, 0);
    const struct span after = SPAN("\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nrest");
    scanned = 0;
    ck_assert_int_eq(http1_find_head(after.p, after.n, false, &wire_limits, &scanned, &size, &skip, &error), HTTP1_OK);
    ck_assert_uint_eq(size, 30);
    ck_assert_uint_eq(skip, 2);
    const struct span response = SPAN("HTTP/1.1 200 OK\r\n\r\nbody");
    scanned = 0;
    ck_assert_int_eq(http1_find_head(response.p, response.n, true, &wire_limits, &scanned, &size, &skip, &error),
                     HTTP1_OK);
    ck_assert_uint_eq(size, 19);
    /* The lone CR of a cut CRLF is not taken for a bare one, and is looked at again. */
    scanned = 0;
    ck_assert_int_eq(http1_find_head("GET / HTTP/1.1\r", 15, false, &wire_limits, &scanned, &size, &skip, &error),
                     HTTP1_MORE);
    ck_assert_uint_le(scanned, 14);
}
END_TEST

START_TEST(test_http1_early) { /* A peer that can never become right is answered before its empty line */
    static const char *const bad[] = {"\x16",   "\x80",  "(", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHo\x01",
                                      "\r\n\r", "GET\t", "\n"};
    struct http1_error error;
    size_t size, skip;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t scanned = 0;
        ck_assert_msg(http1_find_head(bad[i], strlen(bad[i]), false, &wire_limits, &scanned, &size, &skip, &error) ==
                          HTTP1_BAD,
                      "%s", bad[i]);
        ck_assert_uint_eq(error.status, 400);
    }
    size_t scanned = 0;
    ck_assert_int_eq(http1_find_head("SSH-2.0", 7, true, &wire_limits, &scanned, &size, &skip, &error), HTTP1_BAD);
    ck_assert_uint_eq(error.status, 502);
}
END_TEST

START_TEST(test_http1_first_fault_wins) { /* A9: one verdict for several faults, however cut */
    const struct http1_limits limits = {.max_target = 10, .max_head = 40, .max_fields = 100};
    static const struct wire_row rows[] = {
        WIRE_ROW(414, "GET /1234567890 HTTP/1.1\r\nHost: a\n\r\n\r\n"),
        WIRE_ROW(400, "GET /12\n34567890 HTTP/1.1\r\nHost: a\r\n\r\n"),
        WIRE_ROW(431, "GET / HTTP/1.1\r\nHost: a\r\nLong: 890123456\x01 \r\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\r\nLong: 89\x01 012345\r\n\r\n"),
        WIRE_ROW(431, "GETGETGETGETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n\r\n"),
        WIRE_ROW(400, "GETGETGETGETGETGETGETGETGETGETGETGETGET(T / HTTP/1.1\r\n\r\n"),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct wire_verdict v = wire_judge(&(struct wire_head){.limits = &limits}, rows[i].text);
        ck_assert_msg(v.verdict == rows[i].verdict, "row %zu: %d %s", i, v.verdict, v.digest);
    }
}
END_TEST

START_TEST(test_http1_parser_oddities) { /* Part A, preface: what http-parser does oddly and we accept all the same */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: "
                    "h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"),
        WIRE_ROW(0, "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"),
        WIRE_ROW(
            0,
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade:\r\nConnection: upgrade\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: a\r\nUpgrade:\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.1\r\nHost: a\r\nX: \t \r\nY:\r\nZ: z \t \r\n\r\n"),
    };
    wire_rows(false, rows, sizeof(rows) / sizeof(rows[0]));
    static const struct wire_row responses[] = {
        WIRE_ROW(0, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nContent-Length: 0\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200 OK\r\nConnection: x, _hop, close\r\nContent-Length: 0\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200  \t two\r\n\r\n"),
    };
    wire_rows(true, responses, sizeof(responses) / sizeof(responses[0]));
}
END_TEST

START_TEST(test_http1_random) { /* random heads: guard and parser never differ, whatever the cut */
    static const char *const parts[] = {"GET ",
                                        "POST ",
                                        "/ ",
                                        "/a?b ",
                                        "HTTP/1.1\r\n",
                                        "HTTP/1.0\r\n",
                                        "Host: a\r\n",
                                        "Connection: ",
                                        "close",
                                        "keep-alive",
                                        "Upgrade",
                                        ", ",
                                        ",",
                                        "\r\n",
                                        "Upgrade: h2c\r\n",
                                        "Content-Length: 5\r\n",
                                        "Transfer-Encoding: chunked\r\n",
                                        "X: ",
                                        "y",
                                        " ",
                                        "\t",
                                        ":",
                                        "\xff",
                                        "Proxy-Connection: close\r\n",
                                        "chunked",
                                        "5",
                                        "X_Y: 1\r\n",
                                        "Expect: 100-continue\r\n"};
    unsigned seed = 20261122, accepted = 0;
    for (unsigned round = 0; round < 40000; round++) {
        char text[512];
        size_t n = 0;
        const char *start = round % 4 ? "GET / HTTP/1.1\r\nHost: a\r\n" : "HTTP/1.1 200 OK\r\n";
        if (round % 8 != 1) {
            n = strlen(start);
            memcpy(text, start, n);
        }
        seed = seed * 1664525 + 1013904223;
        for (unsigned i = 0, count = seed >> 28; i < count; i++) {
            seed = seed * 1664525 + 1013904223;
            const char *part = parts[(seed >> 16) % (sizeof(parts) / sizeof(parts[0]))];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
        memcpy(text + n, "\r\n\r\n", 4);
        n += n > 1 && text[n - 1] == '\n' ? 2 : 4;
        text[n - 2] = '\r';
        text[n - 1] = '\n';
        const struct wire_head how = {.is_response = round % 4 == 0, .limits = &wire_limits};
        static struct wire_verdict v, w;
        wire_judge_cut(&how, span_make(text, n), 0, &v);
        ck_assert_msg(!v.mismatch, "%.*s", (int)n, text);
        accepted += v.verdict == WIRE_OK;
        wire_judge_cut(&how, span_make(text, n), (seed >> 8) % n, &w);
        ck_assert(v.verdict == w.verdict && strcmp(v.digest, w.digest) == 0);
    }
    ck_assert_uint_gt(accepted, 4000); /* the dice are fair: both outcomes are common */
    ck_assert_uint_lt(accepted, 36000);
}
END_TEST

static struct span http1_written(struct buf *out) {
    return buf_span(out);
}

START_TEST(test_http1_write) { /* A8: what is sent is regenerated */
    struct buf out;
    buf_init(&out, 4096);
    ck_assert(http1_write_request_line(&out, SPAN("GET"), SPAN("/x?y")));
    ck_assert(http1_write_field(&out, SPAN("Host"), SPAN("a")));
    ck_assert(http1_write_field(&out, SPAN("Empty"), SPAN_NULL));
    ck_assert(http1_write_end(&out));
    ck_assert(span_equal(http1_written(&out), SPAN("GET /x?y HTTP/1.1\r\nHost: a\r\nEmpty: \r\n\r\n")));
    buf_release(&out);
    ck_assert(http1_write_status_line(&out, 404, SPAN_NULL));
    ck_assert(http1_write_status_line(&out, 200, SPAN("Fine")));
    ck_assert(http1_write_status_line(&out, 999, SPAN("")));
    ck_assert(
        span_equal(http1_written(&out), SPAN("HTTP/1.1 404 Not Found\r\nHTTP/1.1 200 Fine\r\nHTTP/1.1 999 \r\n")));
    buf_release(&out);
    buf_init(&out, 10);
    ck_assert(!http1_write_field(&out, SPAN("Host"), SPAN("example")));
    ck_assert(buf_empty(&out));
    buf_release(&out);
}
END_TEST

START_TEST(test_http1_write_fields) { /* A8: Connection and all it names removed, nothing of ours lost */
    static const char text[] =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, x-forwarded-for, host\r\nX-HOP: 1\r\n"
        "Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Connection: y\r\n"
        "X-Forwarded-For: 9.9.9.9\r\nContent-Length: 5\r\nAccept: */*\r\nX-Gone: 1\r\nCookie: c\r\n\r\n";
    struct arena arena;
    struct http_message message;
    struct http1_error error;
    struct buf out;
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&message, &arena);
    buf_init(&out, 4096);
    ck_assert_int_eq(http1_read_request(text, sizeof(text) - 1, &wire_limits, &message, &error), HTTP1_OK);
    http_mark_hops(&message);
    http_delete(&message, SPAN("x-gone"));
    ck_assert(http_set(&message, SPAN("X-Forwarded-For"), SPAN("1.2.3.4")));
    ck_assert(http1_write_fields(&out, &message));
    ck_assert(
        span_equal(http1_written(&out), SPAN("Host: a\r\nX-Forwarded-For: 1.2.3.4\r\nAccept: */*\r\nCookie: c\r\n")));
    buf_release(&out);
    arena_fini(&arena);
}
END_TEST

START_TEST(test_http1_chunk_line) {
    static const struct {
        uint64_t size;
        const char *line;
    } cases[] = {{0, "0\r\n"},
                 {9, "9\r\n"},
                 {15, "f\r\n"},
                 {16, "10\r\n"},
                 {500, "1f4\r\n"},
                 {65536, "10000\r\n"},
                 {UINT64_MAX, "ffffffffffffffff\r\n"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[HTTP1_CHUNK_MAX];
        const size_t n = http1_chunk_line(out, cases[i].size);
        ck_assert(span_equal(span_make(out, n), span_of(cases[i].line)));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("http1");
    TCase *tc = tcase_create("http1");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_http1_mismatch);
    tcase_add_test(tc, test_http1_find_head);
    tcase_add_test(tc, test_http1_early);
    tcase_add_test(tc, test_http1_first_fault_wins);
    tcase_add_test(tc, test_http1_parser_oddities);
    tcase_add_test(tc, test_http1_random);
    tcase_add_test(tc, test_http1_write);
    tcase_add_test(tc, test_http1_write_fields);
    tcase_add_test(tc, test_http1_chunk_line);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
