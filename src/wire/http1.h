/* SPDX-License-Identifier: MIT */
/*
 * http1: HTTP/1 heads in and out (RFC 9112). Reading: http1_find_head() finds the end of the head,
 * http1_read_*() let the guard check every byte and fill the message, then run http-parser over exactly that head and
 * compare. Writing: start line and end-to-end fields, framing is the caller's next line.
 */
#ifndef MOONGATE_WIRE_HTTP1_H
#define MOONGATE_WIRE_HTTP1_H

#include "wire/http.h"

struct http1_limits {
    uint32_t max_target; /* bytes; above: 414 */
    uint32_t max_head;   /* bytes of the whole head; above: 431 (response: refused) */
    uint16_t max_fields; /* above: 431 */
    /* Field names with '_' in requests; responses keep them. */
    enum http1_underscores { HTTP1_UNDERSCORES_DROP, HTTP1_UNDERSCORES_REJECT, HTTP1_UNDERSCORES_PASS } underscores;
};

enum http1_result { HTTP1_OK, HTTP1_MORE, HTTP1_BAD };

/* Why a message was refused. */
struct http1_error {
    uint16_t status;     /* the answer for a request: 400 405 414 417 431 501 505; 502 for a response */
    const char *reason;  /* a short phrase for the log, static: "bare LF", "two Host fields" */
    bool mismatch;       /* guard and parser disagreed */
};

/*
 * Looks for the end of the head in data[0..n). *scanned carries on where the last call stopped (start with 0).
 * HTTP1_OK: *head_size holds the whole head including its empty line, and *skip (0 or 2) the empty line tolerated
 * before a request (part of head_size). HTTP1_MORE: not there yet. HTTP1_BAD: a limit is passed, or the bytes so far
 * can never become a valid head (control characters, bare LF, no method: so that a slow or wrong peer is answered
 * at once).
 */
enum http1_result http1_find_head(const char *data, size_t n, bool is_response, const struct http1_limits *limits,
                                  size_t *scanned, size_t *head_size, size_t *skip, struct http1_error *error);

/* data[0..n) is exactly one head without the tolerated empty line. Spans point into data. HTTP1_OK or HTTP1_BAD. */
enum http1_result http1_read_request(const char *data, size_t n, const struct http1_limits *limits,
                                     struct http_message *message, struct http1_error *error);
/*
 * request_method tells which responses have no body (requirements A7). body is HTTP_BODY_CLOSE where nothing
 * else frames it. A 101 and other 1xx have none.
 */
enum http1_result http1_read_response(const char *data, size_t n, const struct http1_limits *limits,
                                      enum http_method request_method, struct http_message *message,
                                      struct http1_error *error);

/* "GET /x HTTP/1.1\r\n". */
bool http1_write_request_line(struct buf *out, struct span method, struct span target);
/* "HTTP/1.1 404 Not Found\r\n"; empty reason: http_reason(). */
bool http1_write_status_line(struct buf *out, unsigned status, struct span reason);
bool http1_write_field(struct buf *out, struct span name, struct span value);
/* The same to where there is room for name.n + value.n + HTTP1_FIELD_EXTRA bytes: for many at once. Returns its end. */
#define HTTP1_FIELD_EXTRA 4
static inline char *http1_put_field(char *to, struct span name, struct span value) {
    memcpy(to, name.p, name.n);
    to += name.n;
    memcpy(to, ": ", 2);
    to += 2;
    if (value.n > 0)
        memcpy(to, value.p, value.n);
    to += value.n;
    memcpy(to, "\r\n", 2);
    return to + 2;
}
/* All live fields that are not HTTP_HOP and not framing (Content-Length, Transfer-Encoding), as received. */
bool http1_write_fields(struct buf *out, const struct http_message *message);
/* "\r\n". */
bool http1_write_end(struct buf *out);
/*
 * A chunk's header line for size bytes ("1f4\r\n") into out[HTTP1_CHUNK_MAX]; returns its length. After the data
 * comes CRLF.
 */
#define HTTP1_CHUNK_MAX 20
size_t http1_chunk_line(char *out, uint64_t size);

#endif
