/* SPDX-License-Identifier: MIT */
/*
 * guard: one pass over a whole head, byte by byte, by the rules of requirements A1-A7. Whatever two readers could
 * take in two ways is refused rather than repaired.
 *
 * The fields that decide framing and routing are remembered as they go by and judged together at the end, because
 * their order says nothing. The subtle thing: the loops over tokens and targets have no bound of their own; they end
 * because guard_open() has seen to it that the last byte is LF, which belongs to no class.
 */
#include "wire/guard.h"

#include "base/str.h"
#include "wire/parser.h"
#include "wire/scan.h"
#include "wire/uri.h"

#define GUARD_CONNECTION_MAX 64 /* elements of Connection; bounds the work of http_mark_hops() */

struct guard {
    const char *p, *end;
    const struct http1_limits *limits;
    struct http_message *message;
    struct http1_error *error;
    unsigned lines;                  /* field lines seen */
    unsigned options;                /* of Connection */
    struct span host, coding;        /* values of Host and Transfer-Encoding; .p NULL: absent */
    bool close, keep_alive;          /* tokens of Connection */
    bool expect, expect_other;
};

static bool guard_refuse(struct guard *guard, uint16_t status, const char *reason) {
    *guard->error = (struct http1_error){.status = guard->message->is_response ? 502 : status, .reason = reason};
    return false;
}

static bool guard_open(struct guard *guard, const char *data, size_t n) {
    guard->p = data;
    guard->end = data + n;
    if (n < 4 || data[n - 2] != '\r' || data[n - 1] != '\n')
        return guard_refuse(guard, 400, "no whole head");
    if (n > guard->limits->max_head)
        return guard_refuse(guard, 431, "head too large");
    return true;
}

/* Names what is wrong where a name and its colon should be. */
static bool guard_refuse_name(struct guard *guard, const char *name, const char *p) {
    if (p == name && (*p == ' ' || *p == '\t'))
        return guard_refuse(guard, 400, "folded field line");
    if (p == name && *p == ':')
        return guard_refuse(guard, 400, "empty field name");
    if (*p == ' ' || *p == '\t')
        return guard_refuse(guard, 400, "space before the colon");
    if (*p == '\r' && p[1] == '\n')
        return guard_refuse(guard, 400, "field line without a colon");
    if (*p == '\n')
        return guard_refuse(guard, 400, "bare LF");
    if (*p == '\r')
        return guard_refuse(guard, 400, "bare CR");
    return guard_refuse(guard, 400, "bad byte in a field name");
}

static bool guard_refuse_control(struct guard *guard, const char *p) {
    if (p < guard->end && *p == '\r')
        return guard_refuse(guard, 400, "bare CR");
    return guard_refuse(guard, 400, p < guard->end && *p == '\n' ? "bare LF" : "control character");
}

static bool guard_connection(struct guard *guard, struct span value) {
    struct span token;
    while (str_next_token(&value, &token)) {
        if (!http_valid_name(token))
            return guard_refuse(guard, 400, "malformed Connection");
        if (++guard->options > GUARD_CONNECTION_MAX)
            return guard_refuse(guard, 400, "too many elements in Connection");
        if (token.n == 5 && str_equal_nocase(token, SPAN("close")))
            guard->close = true;
        else if (token.n == 10 && str_equal_nocase(token, SPAN("keep-alive")))
            guard->keep_alive = true;
        else if (token.n == 7 && str_equal_nocase(token, SPAN("upgrade")))
            guard->message->connection_upgrade = true;
    }
    return true;
}

static bool guard_length(struct guard *guard, struct span value) {
    if (guard->message->has_content_length)
        return guard_refuse(guard, 400, "two Content-Length fields");
    if (!str_parse_u63(value, &guard->message->content_length))
        return guard_refuse(guard, 400, "malformed Content-Length");
    guard->message->has_content_length = true;
    return true;
}

/* What the guard must know of the fields it knows. line: all that stands behind the colon. */
static bool guard_note(struct guard *guard, uint8_t id, struct span value, struct span line) {
    switch (id) {
    case HTTP_FIELD_HOST:
        if (guard->host.p && !guard->message->is_response)
            return guard_refuse(guard, 400, "two Host fields");
        guard->host = value;
        return true;
    case HTTP_FIELD_CONNECTION:
        return guard_connection(guard, value);
    case HTTP_FIELD_CONTENT_LENGTH:
    case HTTP_FIELD_TRANSFER_ENCODING:
        /* Some readers trim spaces only, and then do not know "chunked\t". */
        if (line.n > 0 && memchr(line.p, '\t', line.n))
            return guard_refuse(guard, 400, "tab in a framing field");
        if (id == HTTP_FIELD_CONTENT_LENGTH)
            return guard_length(guard, value);
        if (guard->coding.p)
            return guard_refuse(guard, 400, "two Transfer-Encoding fields");
        guard->coding = value;
        return true;
    case HTTP_FIELD_EXPECT:
        if (str_equal_nocase(value, SPAN("100-continue")))
            guard->expect = true;
        else
            guard->expect_other = true;
        return true;
    default:
        return true;
    }
}

/* http-parser takes a name that goes on behind "Transfer-Encoding" for that field, in part; others may too. */
static bool guard_is_like_coding(struct span name) {
    static const struct span coding = {"transfer-encoding", 17};
    return name.n > coding.n && (name.p[0] | 0x20) == 't' && str_equal_nocase(span_make(name.p, coding.n), coding);
}

/* One field line; p stands at its first byte. */
static bool guard_line(struct guard *guard) {
    const char *name = guard->p, *p = scan_over_plain_name(name, guard->end), *value, *stop, *last;
    uint8_t seen = 0, class = scan_class[(unsigned char)*p];
    while (class & SCAN_TCHAR) {
        seen |= class;
        class = scan_class[(unsigned char)*++p];
    }
    if (p == name || *p != ':')
        return guard_refuse_name(guard, name, p);
    if (++guard->lines > guard->limits->max_fields)
        return guard_refuse(guard, 431, "too many fields");
    const struct span name_span = {name, (size_t)(p - name)};
    if (guard_is_like_coding(name_span))
        return guard_refuse(guard, 400, "name that begins like Transfer-Encoding");
    for (value = p + 1; *value == ' ' || *value == '\t';)
        value++;
    stop = scan_to_control(value, guard->end);
    if (guard->end - stop < 2 || stop[0] != '\r' || stop[1] != '\n')
        return guard_refuse_control(guard, stop);
    for (last = stop; last > value && (last[-1] == ' ' || last[-1] == '\t');)
        last--;
    guard->p = stop + 2;
    const struct span value_span = {value, (size_t)(last - value)};
    struct http_message *message = guard->message;
    if (!http_add(message, name_span, value_span))
        return guard_refuse(guard, 431, "no room for the fields");
    struct http_field *field = &message->fields[message->field_count - 1];
    if (seen & SCAN_UNDERSCORE && !message->is_response && guard->limits->underscores != HTTP1_UNDERSCORES_PASS) {
        if (guard->limits->underscores == HTTP1_UNDERSCORES_REJECT)
            return guard_refuse(guard, 400, "underscore in a field name");
        field->flags |= HTTP_DELETED;
        return true;
    }
    return guard_note(guard, field->id, value_span, span_make(p + 1, (size_t)(stop - p) - 1));
}

static bool guard_fields(struct guard *guard) {
    while (guard->end - guard->p >= 2 && !(guard->p[0] == '\r' && guard->p[1] == '\n')) {
        if (!guard_line(guard))
            return false;
    }
    if (guard->end - guard->p != 2)
        return guard_refuse(guard, 400, guard->p < guard->end ? "bytes behind the head" : "no empty line");
    struct http_message *message = guard->message;
    message->keep_alive = !guard->close && (message->minor == 1 || guard->keep_alive);
    return true;
}

static bool guard_is_chunked(struct span coding) {
    return str_equal_nocase(coding, SPAN("chunked"));
}

/* token *( OWS ";" OWS token "=" token ): what a transfer coding may look like, without quoted strings. */
static bool guard_valid_coding(struct span coding) {
    const char *p = coding.p, *end = coding.p + coding.n, *part = p;
    while (p < end && scan_is(*p, SCAN_TCHAR))
        p++;
    while (p > part && p < end) {
        for (; p < end && (*p == ' ' || *p == '\t'); p++)
            ;
        if (p == end || *p++ != ';')
            return false;
        for (; p < end && (*p == ' ' || *p == '\t'); p++)
            ;
        for (part = p; p < end && scan_is(*p, SCAN_TCHAR); p++)
            ;
        if (p == part || p == end || *p++ != '=')
            return false;
        for (part = p; p < end && scan_is(*p, SCAN_TCHAR); p++)
            ;
    }
    return p > part;
}

/* Transfer-Encoding: 0 for exactly chunked, else the status it is refused with (requirements A4). */
static uint16_t guard_judge_coding(struct span coding) {
    if (guard_is_chunked(coding))
        return 0;
    const char *p = coding.p, *end = coding.p + coding.n;
    for (;;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const struct span element = str_trim(span_make(p, (size_t)((comma ? comma : end) - p)));
        if (!guard_valid_coding(element))
            return 400;
        if (!comma)
            return guard_is_chunked(element) ? 501 : 400;
        if (guard_is_chunked(element))
            return 400;
        p = comma + 1;
    }
}

/* Sets message->body for a message whose head allows one. none: the framing without any field. */
static bool guard_framing(struct guard *guard, enum http_body none) {
    struct http_message *message = guard->message;
    if (guard->coding.p) {
        if (message->has_content_length)
            return guard_refuse(guard, 400, "Content-Length with Transfer-Encoding");
        if (message->minor == 0)
            return guard_refuse(guard, 400, "Transfer-Encoding in HTTP/1.0");
        const uint16_t status = guard_judge_coding(guard->coding);
        if (status == 501)
            return guard_refuse(guard, status, "unknown transfer coding");
        if (status != 0)
            return guard_refuse(guard, status, "malformed Transfer-Encoding");
        message->body = HTTP_BODY_CHUNKED;
    } else {
        message->body = message->has_content_length ? HTTP_BODY_LENGTH : none;
    }
    return true;
}

/* "HTTP/1.0" or "HTTP/1.1" at p; other versions are told apart from what is none. */
static bool guard_version(struct guard *guard, const char *p, const char *end) {
    if (end - p < 8 || memcmp(p, "HTTP/", 5) != 0 || p[6] != '.' || p[5] < '0' || p[5] > '9' || p[7] < '0' ||
        p[7] > '9')
        return guard_refuse(guard, 400, "malformed version");
    if (p[5] != '1' || p[7] > '1')
        return guard_refuse(guard, 505, "unknown version");
    guard->message->minor = p[7] == '1';
    return true;
}

static bool guard_method(struct guard *guard) {
    struct http_message *message = guard->message;
    message->method = http_method_of(message->method_name);
    if (message->method != HTTP_METHOD_OTHER)
        return true;
    if (span_equal(message->method_name, SPAN("CONNECT")))
        return guard_refuse(guard, 405, "CONNECT");
    if (!parser_knows_method(message->method_name))
        return guard_refuse(guard, 501, "unknown method");
    return true;
}

static bool guard_request_line(struct guard *guard) {
    struct http_message *message = guard->message;
    const char *p = guard->p, *start = p;
    while (scan_is(*p, SCAN_TCHAR))
        p++;
    if (p == start || *p != ' ')
        return guard_refuse(guard, 400, "malformed method");
    message->method_name = span_make(start, (size_t)(p - start));
    start = ++p;
    while (scan_is(*p, SCAN_TARGET))
        p++;
    message->target = span_make(start, (size_t)(p - start));
    if (message->target.n > guard->limits->max_target)
        return guard_refuse(guard, 414, "target too long");
    if (p == start || *p != ' ')
        return guard_refuse(guard, 400, *p == '\r' && p > start ? "no version" : "malformed target");
    if (!guard_version(guard, ++p, guard->end))
        return false;
    p += 8;
    if (guard->end - p < 2 || p[0] != '\r' || p[1] != '\n')
        return guard_refuse(guard, 400, "malformed request line");
    guard->p = p + 2;
    return guard_method(guard);
}

/* Host, and the form of the target that goes with it (requirements A1, A2). */
static bool guard_where(struct guard *guard) {
    const struct http_message *message = guard->message;
    const struct span target = message->target;
    struct span name;
    uint16_t port;
    if (!guard->host.p && message->minor == 1)
        return guard_refuse(guard, 400, "no Host field");
    if (guard->host.p && !uri_split_host(guard->host, &name, &port))
        return guard_refuse(guard, 400, "malformed Host");
    if (target.p[0] == '/')
        return true;
    if (target.n == 1 && target.p[0] == '*')
        return message->method == HTTP_OPTIONS || guard_refuse(guard, 400, "* without OPTIONS");
    struct uri uri;
    if (!uri_split_target(target, &uri) ||
        (!str_equal_nocase(uri.scheme, SPAN("http")) && !str_equal_nocase(uri.scheme, SPAN("https"))))
        return guard_refuse(guard, 400, "malformed target");
    if (!guard->host.p || !str_equal_nocase(uri.authority, guard->host))
        return guard_refuse(guard, 400, "target and Host differ");
    return true;
}

enum http1_result guard_request(const char *data, size_t n, const struct http1_limits *limits,
                                struct http_message *message, struct http1_error *error) {
    struct guard guard = {.limits = limits, .message = message, .error = error};
    message->is_response = false;
    if (!guard_open(&guard, data, n) || !guard_request_line(&guard) || !guard_fields(&guard) || !guard_where(&guard) ||
        !guard_framing(&guard, HTTP_BODY_NONE))
        return HTTP1_BAD;
    /* RFC 9110 section 10.1.1: Expect means nothing in HTTP/1.0. */
    if (message->minor == 1 && guard.expect_other) {
        guard_refuse(&guard, 417, "unknown expectation");
        return HTTP1_BAD;
    }
    message->expect_continue = message->minor == 1 && guard.expect;
    return HTTP1_OK;
}

static bool guard_status_line(struct guard *guard) {
    struct http_message *message = guard->message;
    const char *p = guard->p, *stop;
    unsigned status = 0;
    if (!guard_version(guard, p, guard->end))
        return false;
    p += 8;
    if (guard->end - p < 6 || *p++ != ' ')
        return guard_refuse(guard, 502, "malformed status line");
    for (unsigned i = 0; i < 3; i++, p++) {
        if (*p < '0' || *p > '9')
            return guard_refuse(guard, 502, "malformed status");
        status = status * 10 + (unsigned)(*p - '0');
    }
    if (status < 100)
        return guard_refuse(guard, 502, "malformed status");
    message->status = (uint16_t)status;
    /* The space before an empty reason is often left out; nothing can be mistaken there. */
    if (*p == ' ')
        p++;
    else if (*p != '\r')
        return guard_refuse(guard, 502, "malformed status");
    stop = scan_to_control(p, guard->end);
    if (guard->end - stop < 2 || stop[0] != '\r' || stop[1] != '\n')
        return guard_refuse_control(guard, stop);
    message->reason = span_make(p, (size_t)(stop - p));
    guard->p = stop + 2;
    return true;
}

enum http1_result guard_response(const char *data, size_t n, const struct http1_limits *limits,
                                 enum http_method request_method, struct http_message *message,
                                 struct http1_error *error) {
    struct guard guard = {.limits = limits, .message = message, .error = error};
    message->is_response = true;
    if (!guard_open(&guard, data, n) || !guard_status_line(&guard) || !guard_fields(&guard) ||
        !guard_framing(&guard, HTTP_BODY_CLOSE))
        return HTTP1_BAD;
    const bool interim = message->status < 200;
    if (interim || message->status == 204 || message->status == 304 || request_method == HTTP_HEAD)
        message->body = HTTP_BODY_NONE;
    if (message->body == HTTP_BODY_CLOSE)
        message->keep_alive = false;
    return HTTP1_OK;
}
