/* SPDX-License-Identifier: MIT */
/*
 * Tests of wire/guard by the points of requirements part A, on heads as they come from a connection: each row is also
 * cut at every offset and fed byte by byte (A9), and http-parser reads what is accepted.
 */
#include "wire_fixture.h"

#include "base/str.h"
#include "wire/guard.h"
#include "wire/scan.h"

#define H "Host: a\r\n"
#define END H "\r\n"
#define GET(fields) "GET / HTTP/1.1\r\n" fields "\r\n"
#define POST(fields) "POST / HTTP/1.1\r\n" H fields "\r\n"
#define RESPONSE(fields) "HTTP/1.1 200 OK\r\n" fields "\r\n"

static void guard_requests(const struct wire_row *rows, size_t count) {
    wire_rows(false, rows, count);
}
static void guard_responses(const struct wire_row *rows, size_t count) {
    wire_rows(true, rows, count);
}
#define REQUESTS(rows) guard_requests(rows, sizeof(rows) / sizeof((rows)[0]))
#define RESPONSES(rows) guard_responses(rows, sizeof(rows) / sizeof((rows)[0]))

START_TEST(test_guard_version) { /* A1: exactly HTTP/1.0 or HTTP/1.1; no HTTP/0.9 or 9.9 */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, "GET / HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET / HTTP/1.0\r\n\r\n"),
        WIRE_ROW(505, "GET / HTTP/1.2\r\n" END),
        WIRE_ROW(505, "GET / HTTP/2.0\r\n" END),
        WIRE_ROW(505, "GET / HTTP/0.9\r\n" END),
        WIRE_ROW(505, "GET / HTTP/9.9\r\n" END),
        WIRE_ROW(505, "PRI * HTTP/2.0\r\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.10\r\n" END),
        WIRE_ROW(400, "GET / HTTP/11\r\n" END),
        WIRE_ROW(400, "GET / HTTP/1,1\r\n" END),
        WIRE_ROW(400, "GET / http/1.1\r\n" END),
        WIRE_ROW(400, "GET / ICE/1.0\r\n" END),
        WIRE_ROW(400, "SOURCE / ICE/1.0\r\n" END),
        WIRE_ROW(400, "GET / HTTP/1.\r\n" END),
        WIRE_ROW(400, "GET / H\r\n" END),
        WIRE_ROW(400, "GET / \r\n" END),
        WIRE_ROW(400, "GET /\r\n\r\n"), /* HTTP/0.9 */
        WIRE_ROW(400, "GET /\r\n" END),
    };
    REQUESTS(rows);
    ck_assert_uint_eq(wire_request(SPAN("GET / HTTP/1.0\r\n\r\n")).minor, 0);
}
END_TEST

START_TEST(test_guard_request_line) { /* A1: method SP target SP version, single spaces */
    static const struct wire_row rows[] = {
        WIRE_ROW(400, "GET  / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /  HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET / HTTP/1.1 \r\n" END),
        WIRE_ROW(400, " GET / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET\t/ HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /\tHTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET / x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET\r\n\r\n"),
        WIRE_ROW(400, "/ HTTP/1.1\r\n" END),
        WIRE_ROW(400, "\x16\x03\x01\x02"), /* TLS on a plain port: refused at the first byte */
        WIRE_ROW(400, "\x80"),
        WIRE_ROW(WIRE_MORE, "GET / HTTP/1.1\r\nHost: a\r\n"),
        WIRE_ROW(WIRE_MORE, "G"),
        WIRE_ROW(WIRE_MORE, ""),
    };
    REQUESTS(rows);
}
END_TEST

START_TEST(test_guard_methods) { /* A1: CONNECT 405, an unknown token 501, what is no token 400 */
    static const char *const known[] = {
        "GET",    "HEAD",   "POST",   "PUT",        "DELETE",     "OPTIONS",    "TRACE",  "PATCH",     "COPY",
        "LOCK",   "MKCOL",  "MOVE",   "PROPFIND",   "PROPPATCH",  "SEARCH",     "UNLOCK", "BIND",      "REBIND",
        "UNBIND", "ACL",    "REPORT", "MERGE",      "CHECKOUT",   "M-SEARCH",   "NOTIFY", "SUBSCRIBE", "PURGE",
        "LINK",   "UNLINK", "SOURCE", "MKACTIVITY", "MKCALENDAR", "UNSUBSCRIBE"};
    static const struct wire_row rows[] = {
        WIRE_ROW(405, "CONNECT a:443 HTTP/1.1\r\n" END), WIRE_ROW(405, "CONNECT / HTTP/1.1\r\n" END),
        WIRE_ROW(501, "BREW / HTTP/1.1\r\n" END),        WIRE_ROW(501, "get / HTTP/1.1\r\n" END),
        WIRE_ROW(501, "GETT / HTTP/1.1\r\n" END),        WIRE_ROW(501, "GE / HTTP/1.1\r\n" END),
        WIRE_ROW(501, "PRI / HTTP/1.1\r\n" END),         WIRE_ROW(400, "G(T / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "G@T / HTTP/1.1\r\n" END),         WIRE_ROW(400, "G\xc3T / HTTP/1.1\r\n" END),
    };
    REQUESTS(rows);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char text[64];
        const int n = snprintf(text, sizeof(text), "%s / HTTP/1.1\r\n%s", known[i], END);
        const struct wire_verdict v = wire_request(span_make(text, (size_t)n));
        ck_assert_msg(v.verdict == 0, "%s: %s", known[i], v.digest);
        ck_assert_int_eq(v.method, i < HTTP_METHOD_OTHER ? (int)i : HTTP_METHOD_OTHER);
    }
}
END_TEST

START_TEST(test_guard_target) { /* A1: visible ASCII without '#'; '*' with OPTIONS, absolute form as Host */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, "GET /a/b?c=d&e=%20 HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET //a HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /#x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /\xc3\xa4 HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /\x7f HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /\x01 HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET /\0 HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET a HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET ?a HTTP/1.1\r\n" END),
        WIRE_ROW(0, "OPTIONS * HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET * HTTP/1.1\r\n" END),
        WIRE_ROW(400, "OPTIONS ** HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET http://a/x?y HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET HTTP://A/x HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET https://a HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET http://a?x HTTP/1.1\r\n" END),
        WIRE_ROW(0, "GET http://[::1]:80/ HTTP/1.0\r\nHost: [::1]:80\r\n\r\n"),
        WIRE_ROW(400, "GET http://b/x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET http://a:80/x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET http://u@a/x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET http:///x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET http:/x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET ftp://a/x HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET http://a/ HTTP/1.0\r\n\r\n"), /* no Host to equal */
    };
    REQUESTS(rows);
}
END_TEST

START_TEST(test_guard_host) { /* A2: exactly one Host in HTTP/1.1, without comma, space, '@', '/' or controls */
    static const struct wire_row rows[] = {
        WIRE_ROW(400, "GET / HTTP/1.1\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
        WIRE_ROW(0, "GET / HTTP/1.0\r\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
        WIRE_ROW(400, GET("Host: a\r\nHost: a\r\n")),
        WIRE_ROW(400, GET("Host: a\r\nhOST: b\r\n")),
        WIRE_ROW(400, GET("Host:\r\n")),
        WIRE_ROW(400, GET("Host: a,b\r\n")),
        WIRE_ROW(400, GET("Host: a b\r\n")),
        WIRE_ROW(400, GET("Host: u@a\r\n")),
        WIRE_ROW(400, GET("Host: a/b\r\n")),
        WIRE_ROW(400, GET("Host: a\\b\r\n")),
        WIRE_ROW(400, GET("Host: a\x01\r\n")),
        WIRE_ROW(400, GET("Host: a\tb\r\n")),
        WIRE_ROW(400, GET("Host: \xc3\xa4\r\n")),
        WIRE_ROW(400, GET("Host: a?b\r\n")),
        WIRE_ROW(400, GET("Host: a#b\r\n")),
        WIRE_ROW(400, GET("Host: a:b\r\n")),
        WIRE_ROW(400, GET("Host: a:\r\n")),
        WIRE_ROW(400, GET("Host: a:65536\r\n")),
        WIRE_ROW(400, GET("Host: [::1\r\n")),
        WIRE_ROW(400, GET("Host: .\r\n")),
        WIRE_ROW(0, GET("Host: a.example.com.:8080\r\n")),
        WIRE_ROW(0, GET("Host: 10.0.0.1\r\n")),
        WIRE_ROW(0, GET("Host: [::1]:443\r\n")),
        WIRE_ROW(0, GET("Host:a\r\n")),
        WIRE_ROW(0, GET("Host: \t a \t\r\n")),
    };
    REQUESTS(rows);
}
END_TEST

START_TEST(test_guard_lines) { /* A3: CRLF only; bare CR, bare LF, folding, controls, wrong names refused */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, "\r\nGET / HTTP/1.1\r\n" END), /* one empty line before a request */
        WIRE_ROW(400, "\r\n\r\nGET / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "\nGET / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "\rGET / HTTP/1.1\r\n" END),
        WIRE_ROW(400, "GET / HTTP/1.1\n" END),
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\r\n\rX"), /* http-parser ends the head there */
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        WIRE_ROW(400, "GET / HTTP/1.1\r" END),
        WIRE_ROW(400, GET(H "X: a\r\n b\r\n")),
        WIRE_ROW(400, GET(H "X: a\r\n\tb\r\n")),
        WIRE_ROW(400, GET(H "X:\r\n b\r\n")),
        WIRE_ROW(400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        WIRE_ROW(400, GET(H "Transfer-Encoding:\r\n chunked\r\n")),
        WIRE_ROW(400, GET(H "X: \0a\r\n")),
        WIRE_ROW(400, GET(H "X: a\0\r\n")),
        WIRE_ROW(400, GET(H "X: \x7f\r\n")),
        WIRE_ROW(400, GET(H "X: \x1b[1m\r\n")),
        WIRE_ROW(400, GET(H "X\0: a\r\n")),
        WIRE_ROW(400, GET(H "X : a\r\n")),
        WIRE_ROW(400, GET(H "X\t: a\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding : chunked\r\n")),
        WIRE_ROW(400, GET(H ": a\r\n")),
        WIRE_ROW(400, GET(H "X\r\n")),
        WIRE_ROW(400, GET(H "X Y: a\r\n")),
        WIRE_ROW(400, GET(H "X(: a\r\n")),
        WIRE_ROW(400, GET(H "X\xe4: a\r\n")),
        WIRE_ROW(400, GET(H "\"X\": a\r\n")),
        WIRE_ROW(0, GET(H "X: \xc3\xa4\xff\r\n")), /* obs-text in values is allowed */
        WIRE_ROW(0, GET(H "X: a\tb\r\n")),
        WIRE_ROW(0, GET(H "X:\r\n")),
        WIRE_ROW(0, GET(H "X: \t \r\n")),
        WIRE_ROW(0, GET(H "X::: a:b\r\n")),
    };
    REQUESTS(rows);
}
END_TEST

START_TEST(test_guard_content_length) { /* A4: 1*DIGIT up to 2^63-1, one line, no repeat, no list */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, POST("Content-Length: 0\r\n")),
        WIRE_ROW(0, POST("Content-Length: 007\r\n")),
        WIRE_ROW(0, POST("Content-Length: 9223372036854775807\r\n")),
        WIRE_ROW(400, POST("Content-Length: 9223372036854775808\r\n")),
        WIRE_ROW(400, POST("Content-Length: 18446744073709551615\r\n")),
        WIRE_ROW(400, POST("Content-Length: 99999999999999999999999\r\n")),
        WIRE_ROW(400, POST("Content-Length:\r\n")),
        WIRE_ROW(400, POST("Content-Length: +5\r\n")),
        WIRE_ROW(400, POST("Content-Length: -5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 0x5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5 5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5,5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5\t\r\n")),
        WIRE_ROW(400, POST("Content-Length:\t5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5\r\nContent-Length: 5\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5\r\ncontent-length: 6\r\n")),
        WIRE_ROW(400, POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
    };
    REQUESTS(rows);
    struct wire_verdict v = wire_request(SPAN(POST("Content-Length: 12\r\n")));
    ck_assert_int_eq(v.body, HTTP_BODY_LENGTH);
    ck_assert_uint_eq(v.content_length, 12);
    ck_assert(v.has_content_length);
    v = wire_request(SPAN(POST("")));
    ck_assert_int_eq(v.body, HTTP_BODY_NONE);
    ck_assert(!v.has_content_length);
}
END_TEST

START_TEST(test_guard_transfer_encoding) { /* A4: exactly "chunked"; 501 for other codings before it, else 400 */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, POST("Transfer-Encoding: chunked\r\n")),
        WIRE_ROW(0, POST("TRANSFER-ENCODING: Chunked  \r\n")),
        WIRE_ROW(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        WIRE_ROW(400, POST("Transfer-Encoding:\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: ,\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked,\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: ,chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked, chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked, gzip\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gzip\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: identity\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: xchunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunkedx\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked x\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked;a=b\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: \"chunked\"\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gz(ip, chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gzip;, chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gzip;q, chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: gzip;q=, chunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: chunked\t\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding: \tchunked\r\n")),
        WIRE_ROW(400, POST("Transfer-Encoding-X: a\r\nContent-Length: 5\r\n")), /* http-parser refuses the length */
        WIRE_ROW(400, POST("Transfer-EncodingX: a\r\n")),
        WIRE_ROW(0, POST("Transfer-Encodin: a\r\nContent-Length: 5\r\n")),
        WIRE_ROW(501, POST("Transfer-Encoding: gzip, chunked\r\n")),
        WIRE_ROW(501, POST("Transfer-Encoding: identity,chunked\r\n")),
        WIRE_ROW(501, POST("Transfer-Encoding: gzip ; q=1; x=y , chunked\r\n")),
    };
    REQUESTS(rows);
    ck_assert_int_eq(wire_request(SPAN(POST("Transfer-Encoding: chunked\r\n"))).body, HTTP_BODY_CHUNKED);
}
END_TEST

static struct wire_verdict guard_limited(struct span text, const struct http1_limits *limits, bool is_response) {
    return wire_judge(&(struct wire_head){.limits = limits, .is_response = is_response}, text);
}

START_TEST(test_guard_limits) { /* A6: target 414; head and fields 431; named and settable */
    struct http1_limits limits = {.max_target = 5, .max_head = 1000, .max_fields = 100};
    ck_assert_int_eq(guard_limited(SPAN("GET /1234 HTTP/1.1\r\n" END), &limits, false).verdict, 0);
    ck_assert_int_eq(guard_limited(SPAN("GET /12345 HTTP/1.1\r\n" END), &limits, false).verdict, 414);
    ck_assert_int_eq(guard_limited(SPAN("GET /12345"), &limits, false).verdict, 414); /* at once */
    ck_assert_int_eq(guard_limited(SPAN("GET /1234"), &limits, false).verdict, WIRE_MORE);
    ck_assert_int_eq(guard_limited(SPAN("GET /12345\x01 HTTP/1.1\r\n" END), &limits, false).verdict, 414);
    ck_assert_int_eq(guard_limited(SPAN("GET /123\x01 HTTP/1.1\r\n" END), &limits, false).verdict, 400);
    limits = (struct http1_limits){.max_target = 8192, .max_head = 27, .max_fields = 2};
    ck_assert_int_eq(guard_limited(SPAN("GET / HTTP/1.1\r\n" END), &limits, false).verdict, 0); /* 27 bytes */
    ck_assert_int_eq(guard_limited(SPAN("\r\nGET / HTTP/1.1\r\n" END), &limits, false).verdict, 0);
    ck_assert_int_eq(guard_limited(SPAN("GET /1 HTTP/1.1\r\n" END), &limits, false).verdict, 431);
    ck_assert_int_eq(guard_limited(SPAN("GET / HTTP/1.1\r\nHost: aaaaaaa"), &limits, false).verdict, 431);
    ck_assert_int_eq(guard_limited(SPAN("HTTP/1.1 200 OK\r\nServer: aaa\r\n\r\n"), &limits, true).verdict, 502);
    limits.max_head = 1000;
    ck_assert_int_eq(guard_limited(SPAN(GET(H "A: b\r\n")), &limits, false).verdict, 0);
    ck_assert_int_eq(guard_limited(SPAN(GET(H "A: b\r\nC: d\r\n")), &limits, false).verdict, 431);
    /* A dropped field counts too. */
    ck_assert_int_eq(guard_limited(SPAN(GET(H "A_: b\r\nC: d\r\n")), &limits, false).verdict, 431);
    ck_assert_int_eq(guard_limited(SPAN(RESPONSE("A: b\r\nC: d\r\nE: f\r\n")), &limits, true).verdict, 502);
    /* The arena's cap is a limit as well: that request fails, nothing else. */
    struct arena arena;
    struct http_message message;
    struct http1_error error;
    arena_init(&arena, NULL, 16);
    http_message_init(&message, &arena);
    ck_assert_int_eq(http1_read_request(SPAN(GET(H)).p, SPAN(GET(H)).n, &limits, &message, &error), HTTP1_BAD);
    ck_assert_uint_eq(error.status, 431);
    arena_fini(&arena);
}
END_TEST

START_TEST(test_guard_long_target) { /* A, preface: http-parser's 16-bit offsets and 80 KiB don't matter */
    const struct http1_limits limits = {.max_target = 200000, .max_head = 300000, .max_fields = 100};
    const size_t n = 150000;
    char *text = malloc(n + 100);
    memset(text, 'a', n);
    memcpy(text, "GET /", 5);
    const int more = snprintf(text + n, 100, " HTTP/1.1\r\n%s", END);
    const struct span whole = {text, n + (size_t)more};
    ck_assert_int_eq(guard_limited(whole, &limits, false).verdict, 0);
    free(text);
}
END_TEST

START_TEST(test_guard_status_line) { /* A7: status three digits 100-999; version as A1; the answer is always 502 */
    static const struct wire_row rows[] = {
        WIRE_ROW(0, RESPONSE("")),
        WIRE_ROW(0, "HTTP/1.0 200 OK\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200 \r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 200\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 999 \xc3\xa4\tx\r\n\r\n"),
        WIRE_ROW(0, "HTTP/1.1 100 Continue\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 099 x\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 000 x\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 20 x\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 2000 x\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 20x x\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1  200 OK\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 200\tOK\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.2 200 OK\r\n\r\n"),
        WIRE_ROW(502, "HTTP/2.0 200 OK\r\n\r\n"),
        WIRE_ROW(502, "http/1.1 200 OK\r\n\r\n"),
        WIRE_ROW(502, "\r\nHTTP/1.1 200 OK\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 200 O\x01K\r\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 200 OK\n\r\n"),
        WIRE_ROW(502, "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
        WIRE_ROW(502, "<html>"),
        WIRE_ROW(502, "I"),
        WIRE_ROW(WIRE_MORE, "HTTP/1.1 200 OK\r\n"),
    };
    RESPONSES(rows);
    const struct wire_verdict v = wire_response(SPAN("HTTP/1.1 404 Not  Here\r\n\r\n"), HTTP_GET);
    ck_assert_uint_eq(v.status, 404);
    ck_assert_str_eq(v.digest, "||Not  Here");
}
END_TEST

START_TEST(test_guard_response_framing) { /* A4, A7 for responses */
    static const struct wire_row rows[] = {
        WIRE_ROW(502, RESPONSE("Content-Length: 5\r\nContent-Length: 5\r\n")),
        WIRE_ROW(502, RESPONSE("Content-Length: 5, 5\r\n")),
        WIRE_ROW(502, RESPONSE("Content-Length: x\r\n")),
        WIRE_ROW(502, RESPONSE("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        WIRE_ROW(502, RESPONSE("Transfer-Encoding: gzip, chunked\r\n")),
        WIRE_ROW(502, RESPONSE("Transfer-Encoding: identity\r\n")),
        WIRE_ROW(502, RESPONSE("Transfer-Encoding:\r\n")),
        WIRE_ROW(502, RESPONSE("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        WIRE_ROW(502, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        WIRE_ROW(0, RESPONSE("Transfer-Encoding: chunked\r\n")),
        WIRE_ROW(0, RESPONSE("Content-Length: 0\r\n")),
        WIRE_ROW(0, RESPONSE("Host: a\r\nHost: b,c\r\nX_Y: z\r\n")),
    };
    RESPONSES(rows);
    ck_assert_int_eq(wire_response(SPAN(RESPONSE("")), HTTP_GET).body, HTTP_BODY_CLOSE);
    ck_assert(!wire_response(SPAN(RESPONSE("")), HTTP_GET).keep_alive);
    ck_assert_int_eq(wire_response(SPAN(RESPONSE("Content-Length: 0\r\n")), HTTP_GET).body, HTTP_BODY_LENGTH);
    ck_assert_int_eq(wire_response(SPAN(RESPONSE("Transfer-Encoding: chunked\r\n")), HTTP_GET).body, HTTP_BODY_CHUNKED);
}
END_TEST

START_TEST(test_guard_no_body) { /* A7: HEAD, 1xx, 204, 304 have no body whatever their headers say */
    static const struct {
        enum http_method method;
        const char *status;
    } cases[] = {{HTTP_HEAD, "200"}, {HTTP_GET, "204"}, {HTTP_GET, "304"},
                 {HTTP_GET, "100"},  {HTTP_GET, "103"}, {HTTP_GET, "101"}};
    static const char *const framings[] = {"", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t k = 0; k < 3; k++) {
            char text[128];
            const int n = snprintf(text, sizeof(text), "HTTP/1.1 %s x\r\n%s\r\n", cases[i].status, framings[k]);
            const struct wire_verdict v = wire_response(span_make(text, (size_t)n), cases[i].method);
            ck_assert_msg(v.verdict == 0, "%s: %s", text, v.digest);
            ck_assert_int_eq(v.body, HTTP_BODY_NONE);
            ck_assert_int_eq(v.has_content_length, k == 1);
            ck_assert(v.keep_alive);
        }
    }
}
END_TEST

START_TEST(test_guard_keep_alive) { /* RFC 9112 section 9.3, and A8: what Connection holds */
    static const struct {
        struct span text;
        bool keep_alive, upgrade;
    } cases[] = {
        {{GET(H), sizeof(GET(H)) - 1}, true, false},
#define ROW(fields, keep, up) {{GET(H fields), sizeof(GET(H fields)) - 1}, keep, up}
        ROW("Connection: close\r\n", false, false),
        ROW("Connection: CLOSE\r\n", false, false),
        ROW("Connection: x, close\r\n", false, false),
        ROW("Connection: x\r\nConnection: close\r\n", false, false),
        ROW("Connection: closed\r\n", true, false),
        ROW("Connection: keep-alive, Upgrade\r\n", true, true),
        ROW("Connection: upgrade\r\nUpgrade: h2c\r\n", true, true),
        ROW("Connection: , ,close,,\r\n", false, false), /* where http-parser loses its way */
        ROW("Connection: \r\n", true, false),
        ROW("Connection: close\t,x\r\n", false, false),
        ROW("Connection: x\t, close\r\n", false, false),
        ROW("Connection: \tclose\t\r\n", false, false),
        ROW("Connection: cl, upgrade\r\n", true, true),
        ROW("Connection: k,close\r\n", false, false),
        ROW("Proxy-Connection: close\r\n", true, false), /* http-parser takes it for Connection */
        ROW("Proxy-Connection: Upgrade\r\nUpgrade: websocket\r\n", true, false),
#undef ROW
#define ROW(fields, keep, up) \
    {{"GET / HTTP/1.0\r\n" fields "\r\n", sizeof("GET / HTTP/1.0\r\n" fields "\r\n") - 1}, keep, up}
        ROW("", false, false),
        ROW("Connection: keep-alive\r\n", true, false),
        ROW("Connection: keep-alive, close\r\n", false, false),
        ROW("Connection: close, keep-alive\r\n", false, false),
#undef ROW
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct wire_verdict v = wire_request(cases[i].text);
        ck_assert_msg(v.verdict == 0 && v.keep_alive == cases[i].keep_alive && v.connection_upgrade == cases[i].upgrade,
                      "%d %s for %.*s", v.verdict, v.digest, SPAN_ARGS(cases[i].text));
    }
    static const struct wire_row rows[] = {
        WIRE_ROW(400, GET(H "Connection: \"close\"\r\n")),
        WIRE_ROW(400, GET(H "Connection: a b\r\n")),
        WIRE_ROW(400, GET(H "Connection: a;b\r\n")),
    };
    REQUESTS(rows);
    char text[400] = "GET / HTTP/1.1\r\nHost: a\r\nConnection: "; /* its length bounds work, so it has an end */
    size_t n = strlen(text);
    for (unsigned i = 0; i < 65; i++, n += 2)
        memcpy(text + n, "a,", 2);
    memcpy(text + n, "\r\n\r\n", 4);
    ck_assert_int_eq(wire_request(span_make(text, n + 4)).verdict, 400);
}
END_TEST

START_TEST(test_guard_expect) { /* RFC 9110 section 10.1.1 */
    static const struct wire_row rows[] = {
        WIRE_ROW(417, POST("Expect: x\r\n")),
        WIRE_ROW(417, POST("Expect:\r\n")),
        WIRE_ROW(417, POST("Expect: 100-continue, x\r\n")),
        WIRE_ROW(417, POST("Expect: 100-continue\r\nExpect: x\r\n")),
        WIRE_ROW(0, POST("Expect: 100-Continue\r\n")),
        WIRE_ROW(0, "POST / HTTP/1.0\r\nExpect: x\r\n\r\n"),
        WIRE_ROW(0, "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"),
    };
    REQUESTS(rows);
    ck_assert(wire_request(rows[4].text).expect_continue);
    ck_assert(!wire_request(rows[6].text).expect_continue);
    ck_assert(!wire_request(SPAN(POST(""))).expect_continue);
}
END_TEST

START_TEST(test_guard_underscores) { /* rules.md part 3, underscore_headers: drop, reject, pass */
    const struct span text = SPAN(GET(H "X_User: a\r\nContent_Length: 5\r\nX-User: b\r\n"));
    struct http1_limits limits = wire_limits;
    struct wire_verdict v = guard_limited(text, &limits, false);
    ck_assert_int_eq(v.verdict, 0);
    ck_assert_str_eq(v.digest, "GET|/||1 0 Host=a|0 0 X-User=b");
    limits.underscores = HTTP1_UNDERSCORES_REJECT;
    ck_assert_int_eq(guard_limited(text, &limits, false).verdict, 400);
    limits.underscores = HTTP1_UNDERSCORES_PASS;
    v = guard_limited(text, &limits, false);
    ck_assert_int_eq(v.verdict, 0);
    ck_assert_ptr_nonnull(strstr(v.digest, "|0 0 X_User=a|0 0 Content_Length=5|"));
    ck_assert(!v.has_content_length);
}
END_TEST

START_TEST(test_guard_every_byte) { /* A3 for all 256 bytes in name and value; accepted means http-parser agrees */
    for (unsigned c = 0; c < 256; c++) {
        char name[] = "GET / HTTP/1.1\r\nHost: a\r\nx.: b\r\n\r\n",
             value[] = "GET / HTTP/1.1\r\nHost: a\r\nx: a.b\r\n\r\n";
        char target[] = "GET /. HTTP/1.1\r\nHost: a\r\n\r\n";
        *strrchr(name, '.') = (char)c;
        *strrchr(value, '.') = (char)c;
        target[5] = (char)c;
        const struct wire_verdict v = wire_request(span_make(name, sizeof(name) - 1));
        /* A colon gives an empty name-to-value step that is legal: "x:: b". */
        ck_assert_msg((v.verdict == 0) == (str_is_tchar((unsigned char)c) || c == ':') && !v.mismatch, "name %u", c);
        const struct wire_verdict w = wire_request(span_make(value, sizeof(value) - 1));
        ck_assert_msg((w.verdict == 0) == (c == 9 || (c >= 32 && c != 127)) && !w.mismatch, "value %u", c);
        const struct wire_verdict t = wire_request(span_make(target, sizeof(target) - 1));
        ck_assert_msg((t.verdict == 0) == (c > 32 && c < 127 && c != '#') && !t.mismatch, "target %u", c);
    }
}
END_TEST

START_TEST(test_guard_scan_table) {
    for (unsigned c = 0; c < 256; c++) {
        const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool unreserved = alnum || (c != 0 && strchr("-._~", (int)c));
        ck_assert_int_eq(scan_is((char)c, SCAN_TCHAR), str_is_tchar((unsigned char)c));
        ck_assert_int_eq(scan_is((char)c, SCAN_UNDERSCORE), c == '_');
        ck_assert_int_eq(scan_is((char)c, SCAN_TARGET), c > 32 && c < 127 && c != '#');
        ck_assert_int_eq(scan_is((char)c, SCAN_UNRESERVED), unreserved);
        ck_assert_int_eq(scan_is((char)c, SCAN_SEGMENT), unreserved || (c != 0 && strchr("!$&'()*+,;=:@/", (int)c)));
        ck_assert_int_eq(scan_is((char)c, SCAN_HOST), unreserved);
        ck_assert_int_eq(scan_is((char)c, SCAN_HEX), c != 0 && strchr("0123456789abcdefABCDEF", (int)c));
        ck_assert_int_eq(scan_is((char)c, SCAN_VALUE), c == 9 || (c >= 32 && c != 127));
    }
    /* Steps of eight and sixteen bytes miss nothing, at any place, beside any byte; the first of two is found. */
    for (unsigned c = 0; c < 256; c++) {
        for (size_t place = 0; place < 41; place++) {
            char text[41];
            memset(text, c == 0x80 ? 0xff : 0x80, sizeof(text));
            text[place] = (char)c;
            for (unsigned more = 0; more < 2; more++) {
                const char *expected = scan_is((char)c, SCAN_VALUE) ? text + sizeof(text) : text + place;
                if (more && place + 1 < sizeof(text)) {
                    text[place + 1] = '\r';
                    expected = scan_is((char)c, SCAN_VALUE) ? text + place + 1 : text + place;
                }
                if (scan_to_control(text, text + sizeof(text)) != expected ||
                    scan_words_to_control(text, text + sizeof(text)) != expected)
                    ck_abort_msg("byte %u at %zu", c, place);
            }
        }
    }
}
END_TEST

/* Every byte at every place of a name: what is passed over is a letter, a digit or a dash, nothing behind the name's end. */
START_TEST(test_guard_scan_names) {
    for (unsigned c = 0; c < 256; c++) {
        const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
        for (size_t place = 0; place < 40; place++) {
            char text[43];
            memset(text, "azAZ09-"[place % 7], sizeof(text));
            memcpy(text + 40, ":\r\n", 3);
            text[place] = (char)c;
            const char *p = scan_over_plain_name(text, text + sizeof(text));
            if (p > text + (plain ? 40 : place))
                ck_abort_msg("byte %u at %zu", c, place);
#ifdef __SSE2__
            if (place < 32 && !plain && p != text + place)
                ck_abort_msg("byte %u at %zu is passed over or never reached", c, place);
#endif
        }
    }
}
END_TEST

START_TEST(test_guard_alone) { /* The guard itself refuses what http1_find_head() would not have let through */
    static const char *const texts[] = {"",
                                        "\r\n",
                                        "GET / HTTP/1.1\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\n\r\nX\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
                                        "GET / HTTP/1.1\nHost: a\r\n\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\n\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\nX\x01: b\r\n\r\n",
                                        "GET / HTTP/1.1\r\nHost: a\r\n\n\r\n"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const size_t n = strlen(texts[i]);
        char *copy = malloc(n + 1);
        struct arena arena;
        struct http_message message;
        struct http1_error error;
        memcpy(copy, texts[i], n);
        arena_init(&arena, NULL, 1 << 16);
        http_message_init(&message, &arena);
        ck_assert_msg(guard_request(copy, n, &wire_limits, &message, &error) == HTTP1_BAD, "%s", texts[i]);
        ck_assert_uint_eq(error.status, 400);
        arena_fini(&arena);
        free(copy);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("guard");
    TCase *tc = tcase_create("guard");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_guard_version);
    tcase_add_test(tc, test_guard_request_line);
    tcase_add_test(tc, test_guard_methods);
    tcase_add_test(tc, test_guard_target);
    tcase_add_test(tc, test_guard_host);
    tcase_add_test(tc, test_guard_lines);
    tcase_add_test(tc, test_guard_content_length);
    tcase_add_test(tc, test_guard_transfer_encoding);
    tcase_add_test(tc, test_guard_limits);
    tcase_add_test(tc, test_guard_long_target);
    tcase_add_test(tc, test_guard_status_line);
    tcase_add_test(tc, test_guard_response_framing);
    tcase_add_test(tc, test_guard_no_body);
    tcase_add_test(tc, test_guard_keep_alive);
    tcase_add_test(tc, test_guard_expect);
    tcase_add_test(tc, test_guard_underscores);
    tcase_add_test(tc, test_guard_every_byte);
    tcase_add_test(tc, test_guard_scan_table);
    tcase_add_test(tc, test_guard_scan_names);
    tcase_add_test(tc, test_guard_alone);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
