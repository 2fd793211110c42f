/* SPDX-License-Identifier: MIT */
/*
 * body: a state machine that stands between any two bytes of a message body. Data is never copied: body_next() walks
 * over framing bytes until it can point at decoded bytes inside the input. Only trailer lines are kept, because they
 * are forwarded behind the last chunk.
 *
 * Everything is counted (digits, extension bytes a chunk and a message, the trailer section), so that framing cannot
 * be endless. The subtle thing: after the digits each byte up to the chunk's CR counts as extension, ';' and white
 * space too; white space that leads to no extension is refused, for readers differ on it.
 */
#include "wire/body.h"

#include <assert.h>

#include "base/str.h"
#include "wire/scan.h"

#define BODY_DIGITS_MAX 16

enum {
    BODY_STATE_DATA, /* also of Content-Length and close-delimited bodies */
    BODY_STATE_DATA_CR,
    BODY_STATE_DATA_LF,
    BODY_STATE_SIZE,
    BODY_STATE_SIZE_LF,
    BODY_STATE_EXT, /* behind the size or a value, before ';' */
    BODY_STATE_EXT_BEFORE_NAME,
    BODY_STATE_EXT_NAME,
    BODY_STATE_EXT_AFTER_NAME,
    BODY_STATE_EXT_BEFORE_VALUE,
    BODY_STATE_EXT_VALUE,
    BODY_STATE_EXT_QUOTED,
    BODY_STATE_EXT_ESCAPE,
    BODY_STATE_EXT_AFTER_QUOTED,
    BODY_STATE_TRAILER, /* at the start of a line */
    BODY_STATE_TRAILER_NAME,
    BODY_STATE_TRAILER_VALUE,
    BODY_STATE_TRAILER_LF,
    BODY_STATE_LAST_LF,
    BODY_STATE_END,
    BODY_STATE_BAD
};

void body_init(struct body *body, enum http_body kind, uint64_t content_length) {
    *body = (struct body){.kind = (uint8_t)kind, .state = BODY_STATE_DATA};
    buf_init(&body->trailer, BODY_TRAILER_MAX);
    if (kind == HTTP_BODY_CHUNKED)
        body->state = BODY_STATE_SIZE;
    else if (kind == HTTP_BODY_LENGTH)
        body->left = content_length;
    else if (kind == HTTP_BODY_NONE)
        body->state = BODY_STATE_END;
    if (kind == HTTP_BODY_LENGTH && content_length == 0)
        body->state = BODY_STATE_END;
}

void body_fini(struct body *body) {
    buf_release(&body->trailer);
}

static bool body_refuse(struct body *body, const char *reason) {
    body->reason = reason;
    body->state = BODY_STATE_BAD;
    return false;
}

static bool body_size_byte(struct body *body, char c) {
    if (scan_is(c, SCAN_HEX)) {
        if (body->digits++ == BODY_DIGITS_MAX)
            return body_refuse(body, "chunk size too long");
        body->left = body->left << 4 | scan_hex(c);
        return true;
    }
    if (body->digits == 0)
        return body_refuse(body, "malformed chunk size");
    if (body->left > INT64_MAX || body->total > INT64_MAX)
        return body_refuse(body, "chunk too large");
    switch (c) {
    case '\r':
        body->state = BODY_STATE_SIZE_LF;
        return true;
    case ';':
        body->state = BODY_STATE_EXT_BEFORE_NAME;
        break;
    case ' ':
    case '\t':
        body->state = BODY_STATE_EXT;
        break;
    default:
        return body_refuse(body, "malformed chunk size");
    }
    body->extension = 1;
    body->extensions++;
    return true;
}

/* The state behind a name, a value or white space, for what may follow there; BODY_STATE_BAD for anything else. */
static uint8_t body_extension_next(uint8_t state, char c) {
    const bool blank = c == ' ' || c == '\t', token = scan_is(c, SCAN_TCHAR);
    switch (state) {
    case BODY_STATE_EXT:
        return blank ? BODY_STATE_EXT : c == ';' ? BODY_STATE_EXT_BEFORE_NAME : BODY_STATE_BAD;
    case BODY_STATE_EXT_BEFORE_NAME:
        return blank ? BODY_STATE_EXT_BEFORE_NAME : token ? BODY_STATE_EXT_NAME : BODY_STATE_BAD;
    case BODY_STATE_EXT_NAME:
    case BODY_STATE_EXT_AFTER_NAME:
        if (c == '=')
            return BODY_STATE_EXT_BEFORE_VALUE;
        if (c == ';')
            return BODY_STATE_EXT_BEFORE_NAME;
        if (blank)
            return BODY_STATE_EXT_AFTER_NAME;
        if (state == BODY_STATE_EXT_AFTER_NAME)
            return BODY_STATE_BAD;
        return token ? BODY_STATE_EXT_NAME : c == '\r' ? BODY_STATE_SIZE_LF : BODY_STATE_BAD;
    case BODY_STATE_EXT_BEFORE_VALUE:
        if (c == '"')
            return BODY_STATE_EXT_QUOTED;
        return blank ? BODY_STATE_EXT_BEFORE_VALUE : token ? BODY_STATE_EXT_VALUE : BODY_STATE_BAD;
    case BODY_STATE_EXT_VALUE:
    case BODY_STATE_EXT_AFTER_QUOTED:
        if (c == ';' || c == '\r')
            return c == ';' ? BODY_STATE_EXT_BEFORE_NAME : BODY_STATE_SIZE_LF;
        if (blank)
            return BODY_STATE_EXT;
        return token && state == BODY_STATE_EXT_VALUE ? BODY_STATE_EXT_VALUE : BODY_STATE_BAD;
    case BODY_STATE_EXT_QUOTED:
        if (c == '"' || c == '\\')
            return c == '"' ? BODY_STATE_EXT_AFTER_QUOTED : BODY_STATE_EXT_ESCAPE;
        return scan_is(c, SCAN_VALUE) ? BODY_STATE_EXT_QUOTED : BODY_STATE_BAD;
    default: /* BODY_STATE_EXT_ESCAPE */
        return scan_is(c, SCAN_VALUE) ? BODY_STATE_EXT_QUOTED : BODY_STATE_BAD;
    }
}

static bool body_extension_byte(struct body *body, char c) {
    const uint8_t next = body_extension_next(body->state, c);
    if (next == BODY_STATE_BAD)
        return body_refuse(body, "malformed chunk extension");
    body->state = next;
    if (next == BODY_STATE_SIZE_LF)
        return true;
    if (++body->extension > BODY_EXTENSION_MAX || ++body->extensions > BODY_EXTENSIONS_MAX)
        return body_refuse(body, "chunk extensions too long");
    return true;
}

static bool body_size_end(struct body *body, char c) {
    if (c != '\n')
        return body_refuse(body, "bare CR behind a chunk size");
    body->digits = 0;
    body->extension = 0;
    body->state = body->left > 0 ? BODY_STATE_DATA : BODY_STATE_TRAILER;
    return true;
}

/* One byte of the trailer section: the rules of the head's field lines. */
static bool body_trailer_byte(struct body *body, char c) {
    switch (body->state) {
    case BODY_STATE_TRAILER:
        if (c == '\r') {
            body->state = BODY_STATE_LAST_LF;
            return true; /* not kept: it ends the section */
        }
        if (!scan_is(c, SCAN_TCHAR))
            return body_refuse(body, c == ' ' || c == '\t' ? "folded trailer line" : "malformed trailer name");
        body->state = BODY_STATE_TRAILER_NAME;
        break;
    case BODY_STATE_TRAILER_NAME:
        if (c == ':')
            body->state = BODY_STATE_TRAILER_VALUE;
        else if (!scan_is(c, SCAN_TCHAR))
            return body_refuse(body, "malformed trailer name");
        break;
    case BODY_STATE_TRAILER_VALUE:
        if (c == '\r')
            body->state = BODY_STATE_TRAILER_LF;
        else if (!scan_is(c, SCAN_VALUE))
            return body_refuse(body, c == '\n' ? "bare LF in the trailer" : "control character in the trailer");
        break;
    default: /* BODY_STATE_TRAILER_LF */
        if (c != '\n')
            return body_refuse(body, "bare CR in the trailer");
        body->state = BODY_STATE_TRAILER;
        break;
    }
    if (!buf_append(&body->trailer, &c, 1))
        return body_refuse(body, "trailer too long");
    return true;
}

/* One byte of chunked framing. */
static bool body_framing_byte(struct body *body, char c) {
    switch (body->state) {
    case BODY_STATE_DATA_CR:
        if (c != '\r')
            return body_refuse(body, "no CRLF behind the chunk");
        body->state = BODY_STATE_DATA_LF;
        return true;
    case BODY_STATE_DATA_LF:
        if (c != '\n')
            return body_refuse(body, "no CRLF behind the chunk");
        body->state = BODY_STATE_SIZE;
        return true;
    case BODY_STATE_SIZE:
        return body_size_byte(body, c);
    case BODY_STATE_SIZE_LF:
        return body_size_end(body, c);
    case BODY_STATE_TRAILER:
    case BODY_STATE_TRAILER_NAME:
    case BODY_STATE_TRAILER_VALUE:
    case BODY_STATE_TRAILER_LF:
        return body_trailer_byte(body, c);
    case BODY_STATE_LAST_LF:
        if (c != '\n')
            return body_refuse(body, "bare CR behind the trailer");
        body->state = BODY_STATE_END;
        return true;
    default:
        return body_extension_byte(body, c);
    }
}

static enum body_event body_take_data(struct body *body, const char *in, size_t n, size_t *used, struct span *data) {
    if (body->kind != HTTP_BODY_CLOSE) {
        if (n > body->left)
            n = (size_t)body->left;
        body->left -= n;
        if (body->left == 0)
            body->state = body->kind == HTTP_BODY_CHUNKED ? BODY_STATE_DATA_CR : BODY_STATE_END;
    }
    *data = span_make(in, n);
    *used += n;
    body->total += n;
    return BODY_DATA;
}

enum body_event body_next(struct body *body, const char *in, size_t n, size_t *used, struct span *data) {
    *used = 0;
    *data = SPAN_NULL;
    for (;;) {
        if (body->state == BODY_STATE_END)
            return BODY_END;
        if (body->state == BODY_STATE_BAD)
            return BODY_BAD;
        if (*used == n)
            return BODY_MORE;
        if (body->state == BODY_STATE_DATA)
            return body_take_data(body, in + *used, n - *used, used, data);
        if (body_framing_byte(body, in[*used]))
            ++*used;
    }
}

void body_pass(struct body *body, size_t n) {
    assert(body->kind == HTTP_BODY_LENGTH && body->state == BODY_STATE_DATA && n <= body->left);
    struct span data;
    size_t used = 0;
    body_take_data(body, NULL, n, &used, &data);
}

enum body_event body_eof(struct body *body) {
    if (body->state == BODY_STATE_BAD)
        return BODY_BAD;
    if (body->kind == HTTP_BODY_CLOSE)
        body->state = BODY_STATE_END;
    if (body->state != BODY_STATE_END)
        body_refuse(body, "truncated body");
    return body->state == BODY_STATE_END ? BODY_END : BODY_BAD;
}

/*
 * RFC 9110 section 6.5.1: no framing, routing, authentication, request modifiers, content handling. Of the names that
 * Moongate knows none may pass; neither may '_', which some servers take for '-'.
 */
static bool body_trailer_allowed(struct span name) {
    static const char *const prefixes[] = {"content-", "transfer-", "proxy-", "sec-", "if-", "accept", "forwarded",
                                           "access-control-", "remote-", "x-forwarded", "x-original-", "x-real-",
                                           "x-client-", "x-remote-", "x-auth", "x-user", "x-http-method", "x-method",
                                           "x-host", "x-cluster-", "client-ip", "true-client-ip", NULL};
    static const char *const names[] = {"set-cookie", "www-authenticate", "cache-control", "expires", "age", "vary",
                                        "location", "retry-after", "max-forwards", "range", "pragma", "warning",
                                        "allow", "from", "referer", "user-agent", "strict-transport-security",
                                        "early-data", NULL};
    char lower[32];
    if (http_field_id(name) != HTTP_FIELD_OTHER || memchr(name.p, '_', name.n))
        return false;
    /* Cut is fine: every entry is shorter. */
    size_t n = name.n < sizeof(lower) ? name.n : sizeof(lower);
    for (size_t i = 0; i < n; i++)
        lower[i] = str_lower(name.p[i]);
    const struct span start = {lower, n};
    for (size_t i = 0; prefixes[i]; i++) {
        if (str_starts(start, span_of(prefixes[i])))
            return false;
    }
    for (size_t i = 0; names[i]; i++) {
        if (name.n == n && span_equal(start, span_of(names[i])))
            return false;
    }
    return true;
}

bool body_trailers(const struct body *body, struct http_message *message) {
    struct span rest = buf_span(&body->trailer);
    if (body->state != BODY_STATE_END)
        return true;
    while (rest.n > 0) {
        /* Both are there: the section was checked byte by byte and ends with a whole line. */
        const char *end = memchr(rest.p, '\r', rest.n), *colon = memchr(rest.p, ':', rest.n);
        const struct span name = {rest.p, (size_t)(colon - rest.p)};
        const struct span value = str_trim(span_make(colon + 1, (size_t)(end - colon - 1)));
        const size_t line = (size_t)(end - rest.p) + 2;
        if (body_trailer_allowed(name) && !http_add(message, name, value))
            return false;
        rest = span_make(rest.p + line, rest.n - line);
    }
    return true;
}
