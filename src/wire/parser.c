/* SPDX-License-Identifier: MIT */
/*
 * parser: http-parser as a witness. It is initialised for each message, executes exactly one head and is stopped by
 * the value that the headers_complete callback returns, so that it never sees a byte of a body: Debian's build is not
 * strict and would take too much there.
 *
 * The subtle things: stopping so makes execute() return the offset of the last LF with HPE_CB_headers_complete,
 * which is the only good outcome; and its own limit on heads (80 KiB, a global) must be lifted once, since ours is
 * settable. An empty value is reported at the start of the next line, so only its length counts.
 */
#include "wire/parser.h"

#include <http_parser.h>
#include <pthread.h>

#include "base/mem.h"

struct parser_run {
    struct parser_head *head;
    struct span name;
    bool complete;
};

static pthread_once_t parser_once = PTHREAD_ONCE_INIT;

static void parser_lift_limit(void) {
    http_parser_set_max_header_size(UINT32_MAX);
}

static int parser_on_url(http_parser *parser, const char *at, size_t n) {
    struct parser_run *run = parser->data;
    run->head->target = span_make(at, n);
    return 0;
}

static int parser_on_status(http_parser *parser, const char *at, size_t n) {
    struct parser_run *run = parser->data;
    run->head->reason = span_make(at, n);
    return 0;
}

static int parser_on_name(http_parser *parser, const char *at, size_t n) {
    struct parser_run *run = parser->data;
    run->name = span_make(at, n);
    return 0;
}

static int parser_on_value(http_parser *parser, const char *at, size_t n) {
    struct parser_run *run = parser->data;
    return run->head->on_field(run->head->owner, run->name, span_make(at, n)) ? 0 : -1;
}

static int parser_on_complete(http_parser *parser) {
    struct parser_run *run = parser->data;
    struct parser_head *head = run->head;
    head->major = parser->http_major;
    head->minor = parser->http_minor;
    if (head->is_response)
        head->status = (uint16_t)parser->status_code;
    else
        head->method = span_of(http_method_str((enum http_method)parser->method));
    head->has_content_length = (parser->flags & F_CONTENTLENGTH) != 0;
    head->content_length = parser->content_length;
    head->chunked = (parser->flags & F_CHUNKED) != 0;
    head->close = (parser->flags & F_CONNECTION_CLOSE) != 0;
    head->keep_alive = (parser->flags & F_CONNECTION_KEEP_ALIVE) != 0;
    head->connection_upgrade = (parser->flags & F_CONNECTION_UPGRADE) != 0;
    head->upgrade = (parser->flags & F_UPGRADE) != 0;
    run->complete = true;
    return -1; /* not 0, 1 or 2: stop here */
}

static const http_parser_settings parser_settings = {
    .on_url = parser_on_url,
    .on_status = parser_on_status,
    .on_header_field = parser_on_name,
    .on_header_value = parser_on_value,
    .on_headers_complete = parser_on_complete,
};

bool parser_read(struct parser_head *head, const char *data, size_t n) {
    http_parser parser;
    struct parser_run run = {.head = head};
    pthread_once(&parser_once, parser_lift_limit);
    http_parser_init(&parser, head->is_response ? HTTP_RESPONSE : HTTP_REQUEST);
    parser.data = &run;
    size_t used = http_parser_execute(&parser, &parser_settings, data, n);
    return run.complete && HTTP_PARSER_ERRNO(&parser) == HPE_CB_headers_complete && used + 1 == n;
}

bool parser_knows_method(struct span name) {
#define PARSER_METHOD(number, id, text) SPAN(#text),
    static const struct span names[] = {HTTP_METHOD_MAP(PARSER_METHOD)};
#undef PARSER_METHOD
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (span_equal(names[i], name))
            return true;
    }
    return false;
}
