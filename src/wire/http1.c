/* SPDX-License-Identifier: MIT */
/*
 * http1: heads in and out. http1_find_head() looks at each byte as it comes, so that a wrong or slow peer is answered
 * at once; the guard then judges the whole head and http-parser reads it a second time (parser.h). Where the two
 * differ the message is refused: one of them is wrong, and so might a server be.
 *
 * The subtle thing: however the bytes are cut, the verdict must be the same. Each fault therefore has a place, the
 * first byte that cannot be right, and the lowest place wins, limits included; http1_first_fault() finds those of
 * the first line and the limits, the scan for control bytes the rest.
 */
#include "wire/http1.h"

#include "base/str.h"
#include "wire/guard.h"
#include "wire/parser.h"
#include "wire/scan.h"

static enum http1_result http1_refuse(struct http1_error *error, bool is_response, uint16_t status,
                                      const char *reason) {
    *error = (struct http1_error){.status = is_response ? 502 : status, .reason = reason};
    return HTTP1_BAD;
}

struct http1_fault {
    size_t place; /* SIZE_MAX: none */
    uint16_t status;
    const char *reason;
};

static void http1_note_fault(struct http1_fault *fault, size_t place, uint16_t status, const char *reason) {
    if (place < fault->place)
        *fault = (struct http1_fault){place, status, reason};
}

/* A method, one space, and a target that is not too long; what of them has come. */
static void http1_check_request_line(const char *data, size_t n, size_t max_target, struct http1_fault *fault) {
    size_t i = 0;
    while (i < n && scan_is(data[i], SCAN_TCHAR))
        i++;
    if (i == n)
        return;
    if (i == 0 || data[i] != ' ') {
        http1_note_fault(fault, i, 400, "malformed method");
        return;
    }
    if (n - ++i <= max_target)
        return;
    const size_t window = max_target + 1;
    if (!memchr(data + i, ' ', window) && !memchr(data + i, '\r', window))
        http1_note_fault(fault, i + max_target, 414, "target too long");
}

/* The first fault in data[0..n), control bytes apart. */
static struct http1_fault http1_first_fault(const char *data, size_t n, bool is_response,
                                            const struct http1_limits *limits) {
    static const char version[] = "HTTP/1.";
    struct http1_fault fault = {.place = SIZE_MAX};
    if (is_response) {
        for (size_t i = 0; i < n && i < sizeof(version) - 1; i++) {
            if (data[i] != version[i]) {
                http1_note_fault(&fault, i, 502, "no status line");
                break;
            }
        }
    } else {
        http1_check_request_line(data, n, limits->max_target, &fault);
    }
    if (n > limits->max_head)
        http1_note_fault(&fault, limits->max_head, 431, "head too large");
    return fault;
}

enum http1_result http1_find_head(const char *data, size_t n, bool is_response, const struct http1_limits *limits,
                                  size_t *scanned, size_t *head_size, size_t *skip, struct http1_error *error) {
    size_t start = 0;
    if (!is_response && n > 0 && data[0] == '\r') {
        if (n == 1)
            return HTTP1_MORE;
        start = data[1] == '\n' ? 2 : 0;
    }
    const char *first = data + start, *end = data + n, *p = data + (*scanned > start ? *scanned : start);
    const char *control = NULL; /* what is wrong there, at p */
    bool found = false;
    while (!control && !found) {
        p = scan_to_control(p, end);
        if (p == end || (*p == '\r' && p + 1 == end))
            break;
        if (*p != '\r')
            control = *p == '\n' ? "bare LF" : "control character";
        else if (*++p != '\n')
            control = "bare CR";
        else if (p - 1 > first && p[-2] == '\n')
            found = true;
        else
            p++;
    }
    const size_t seen = control || found ? (size_t)(p - first) + 1 : (size_t)(end - first);
    const struct http1_fault fault = http1_first_fault(first, seen, is_response, limits);
    if (fault.place != SIZE_MAX)
        return http1_refuse(error, is_response, fault.status, fault.reason);
    if (control)
        return http1_refuse(error, is_response, 400, control);
    if (!found) {
        *scanned = (size_t)(p - data);
        return HTTP1_MORE;
    }
    *head_size = start + seen;
    *skip = start;
    return HTTP1_OK;
}

struct http1_compare {
    const struct http_message *message;
    unsigned index;
};

static bool http1_compare_field(void *owner, struct span name, struct span value) {
    struct http1_compare *compare = owner;
    if (compare->index >= compare->message->field_count)
        return false;
    const struct http_field *field = &compare->message->fields[compare->index++];
    while (value.n > 0 && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
        value.n--;
    /* The same bytes, not just equal ones; an empty value has no place. */
    return field->name.p == name.p && field->name.n == name.n && field->value.n == value.n &&
           (value.n == 0 || field->value.p == value.p);
}

/* An element of Connection that http-parser surely reads right: one it looks for, or one that starts like none. */
static bool http1_option_is_plain(struct span option) {
    if (!memchr("cku_", str_lower(option.p[0]), 4))
        return true;
    return str_equal_nocase(option, SPAN("close")) || str_equal_nocase(option, SPAN("keep-alive")) ||
           str_equal_nocase(option, SPAN("upgrade"));
}

/*
 * http-parser takes Proxy-Connection for Connection, and loses its way in lists with empty elements, tabs, elements like "cl"
 * before a comma, or ones that start with "_" (which it takes for a DEL as it makes letters small); all are legal: where such a
 * field is present its view of Connection is no witness.
 */
static bool http1_connection_is_plain(const struct http_message *message) {
    for (unsigned i = 0; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (field->id == HTTP_FIELD_PROXY_CONNECTION)
            return false;
        if (field->id != HTTP_FIELD_CONNECTION)
            continue;
        struct span rest = field->value, option;
        size_t commas = 0, options = 0;
        for (const char *p = rest.p; *p != '\r'; p++) { /* also what was trimmed off its end */
            if (*p == '\t')
                return false;
            commas += *p == ',';
        }
        for (; str_next_token(&rest, &option); options++) {
            if (!http1_option_is_plain(option))
                return false;
        }
        if (options != commas + 1)
            return false;
    }
    return true;
}

static bool http1_same_framing(const struct parser_head *head, const struct http_message *message) {
    if (head->major != 1 || head->minor != message->minor || head->has_content_length != message->has_content_length ||
        (head->has_content_length && head->content_length != message->content_length))
        return false;
    /* The guard lets no Transfer-Encoding by but chunked. */
    if (head->chunked != (http_find(message, HTTP_FIELD_TRANSFER_ENCODING) != NULL))
        return false;
    const struct http_field *upgrade = http_find(message, HTTP_FIELD_UPGRADE);
    if (!upgrade ? head->upgrade : upgrade->value.n > 0 && !head->upgrade)
        return false;
    bool keep_alive = !head->close && (head->minor == 1 || head->keep_alive);
    if (message->is_response && message->body == HTTP_BODY_CLOSE)
        keep_alive = false;
    return (keep_alive == message->keep_alive && head->connection_upgrade == message->connection_upgrade) ||
           !http1_connection_is_plain(message);
}

static bool http1_same_start(const struct parser_head *head, const struct http_message *message) {
    if (message->is_response)
        return head->status == message->status && span_equal(head->reason, message->reason);
    return span_equal(head->method, message->method_name) && head->target.p == message->target.p &&
           head->target.n == message->target.n;
}

/* The second reading. Afterwards the fields that the guard dropped leave the table. */
static enum http1_result http1_read_again(const char *data, size_t n, struct http_message *message,
                                          struct http1_error *error) {
    struct http1_compare compare = {.message = message};
    struct parser_head head = {
        .is_response = message->is_response, .on_field = http1_compare_field, .owner = &compare};
    if (!parser_read(&head, data, n) || compare.index != message->field_count || !http1_same_start(&head, message) ||
        !http1_same_framing(&head, message)) {
        http1_refuse(error, message->is_response, 400, "guard and parser differ");
        error->mismatch = true;
        return HTTP1_BAD;
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < message->field_count; i++) {
        if (message->fields[i].flags & HTTP_DELETED)
            continue;
        if (kept != i)
            message->fields[kept] = message->fields[i];
        kept++;
    }
    message->field_count = (uint16_t)kept;
    return HTTP1_OK;
}

enum http1_result http1_read_request(const char *data, size_t n, const struct http1_limits *limits,
                                     struct http_message *message, struct http1_error *error) {
    if (guard_request(data, n, limits, message, error) != HTTP1_OK)
        return HTTP1_BAD;
    return http1_read_again(data, n, message, error);
}

enum http1_result http1_read_response(const char *data, size_t n, const struct http1_limits *limits,
                                      enum http_method request_method, struct http_message *message,
                                      struct http1_error *error) {
    if (guard_response(data, n, limits, request_method, message, error) != HTTP1_OK)
        return HTTP1_BAD;
    return http1_read_again(data, n, message, error);
}

/* Appends up to four pieces at once: nothing when they do not all fit. */
static bool http1_append(struct buf *out, const struct span *pieces, unsigned count) {
    size_t size = 0;
    for (unsigned i = 0; i < count; i++)
        size += pieces[i].n;
    if (!buf_reserve(out, size))
        return false;
    char *to = buf_tail(out);
    for (unsigned i = 0; i < count; i++) {
        if (pieces[i].n > 0)
            memcpy(to, pieces[i].p, pieces[i].n);
        to += pieces[i].n;
    }
    buf_commit(out, size);
    return true;
}

bool http1_write_request_line(struct buf *out, struct span method, struct span target) {
    const struct span pieces[] = {method, {" ", 1}, target, {" HTTP/1.1\r\n", 11}};
    return http1_append(out, pieces, 4);
}

bool http1_write_status_line(struct buf *out, unsigned status, struct span reason) {
    char start[] = "HTTP/1.1 000 ";
    start[9] = (char)('0' + status / 100 % 10);
    start[10] = (char)('0' + status / 10 % 10);
    start[11] = (char)('0' + status % 10);
    const struct span pieces[] = {
        {start, sizeof(start) - 1}, reason.n > 0 ? reason : span_of(http_reason(status)), {"\r\n", 2}};
    return http1_append(out, pieces, 3);
}

bool http1_write_field(struct buf *out, struct span name, struct span value) {
    const struct span pieces[] = {name, {": ", 2}, value, {"\r\n", 2}};
    return http1_append(out, pieces, 4);
}

static bool http1_is_written(const struct http_field *field) {
    return !(field->flags & (HTTP_DELETED | HTTP_HOP)) && field->id != HTTP_FIELD_CONTENT_LENGTH &&
           field->id != HTTP_FIELD_TRANSFER_ENCODING;
}

bool http1_write_fields(struct buf *out, const struct http_message *message) {
    size_t size = 0;
    for (unsigned i = 0; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (http1_is_written(field))
            size += field->name.n + field->value.n + HTTP1_FIELD_EXTRA;
    }
    if (!buf_reserve(out, size))
        return false;
    char *const start = buf_tail(out), *to = start;
    for (unsigned i = 0; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (http1_is_written(field))
            to = http1_put_field(to, field->name, field->value);
    }
    if (size > 0)
        buf_commit(out, (size_t)(to - start));
    return true;
}

bool http1_write_end(struct buf *out) {
    return buf_append(out, "\r\n", 2);
}

size_t http1_chunk_line(char *out, uint64_t size) {
    static const char digits[] = "0123456789abcdef";
    size_t n = 1;
    while (n < 16 && size >> (4 * n))
        n++;
    for (size_t i = 0; i < n; i++)
        out[i] = digits[size >> (4 * (n - 1 - i)) & 15];
    out[n] = '\r';
    out[n + 1] = '\n';
    return n + 2;
}
