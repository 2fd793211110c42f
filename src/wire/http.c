/* SPDX-License-Identifier: MIT */
/*
 * http: the message as data: the field table with its lookups and edits, and the names of methods and statuses.
 *
 * Names are compared in any case; the known ones get an id when they enter the table, so that the rest of the house
 * compares small numbers. The ids are found by length first: no two lengths hold more than four names. Edits never move
 * a field: deleting marks it, so that pointers and spans into the table stay good until it grows.
 */
#include "wire/http.h"

#include "base/mem.h"
#include "base/str.h"
#include "wire/scan.h"

#define HTTP_FIELDS_MAX 1000
#define HTTP_FIELDS_FIRST 24 /* fits an arena chunk; the next step is a piece of its own, for nearly any message */
#define HTTP_NAME_MAX 24 /* the longest known name */
#define HTTP_PER_LENGTH 4

static const struct {
    struct span name;
    uint8_t flags;
} http_known[HTTP_FIELD_COUNT] = {
    [HTTP_FIELD_OTHER] = {{"", 0}, 0},
#define HTTP_FIELD_ROW(id, name, flags) [HTTP_FIELD_##id] = {{name, sizeof(name) - 1}, flags},
    HTTP_FIELDS(HTTP_FIELD_ROW)
#undef HTTP_FIELD_ROW
};

#define HTTP_AT(c) (UINT32_C(1) << ((c) & 31))

/* test_http checks that every name of HTTP_FIELDS is found here. */
static const struct {
    uint32_t letters; /* that a known name of this length begins with: most other names end here */
    uint8_t ids[HTTP_PER_LENGTH];
} http_by_length[HTTP_NAME_MAX + 1] = {
    [2] = {HTTP_AT('t'), {HTTP_FIELD_TE}},
    [3] = {HTTP_AT('v'), {HTTP_FIELD_VIA}},
    [4] = {HTTP_AT('h') | HTTP_AT('d'), {HTTP_FIELD_HOST, HTTP_FIELD_DATE}},
    [6] = {HTTP_AT('c') | HTTP_AT('o') | HTTP_AT('s') | HTTP_AT('e'),
          {HTTP_FIELD_COOKIE, HTTP_FIELD_ORIGIN, HTTP_FIELD_SERVER, HTTP_FIELD_EXPECT}},
    [7] = {HTTP_AT('u') | HTTP_AT('t'), {HTTP_FIELD_UPGRADE, HTTP_FIELD_TRAILER}},
    [9] = {HTTP_AT('f') | HTTP_AT('x'), {HTTP_FIELD_FORWARDED, HTTP_FIELD_X_REAL_IP}},
    [10] = {HTTP_AT('c') | HTTP_AT('k'), {HTTP_FIELD_CONNECTION, HTTP_FIELD_KEEP_ALIVE}},
    [12] = {HTTP_AT('x'), {HTTP_FIELD_X_REQUEST_ID}},
    [13] = {HTTP_AT('a') | HTTP_AT('x'), {HTTP_FIELD_AUTHORIZATION, HTTP_FIELD_X_REWRITE_URL}},
    [14] = {HTTP_AT('c') | HTTP_AT('h') | HTTP_AT('x'),
          {HTTP_FIELD_CONTENT_LENGTH, HTTP_FIELD_HTTP2_SETTINGS, HTTP_FIELD_X_ORIGINAL_URL}},
    [15] = {HTTP_AT('x'), {HTTP_FIELD_X_FORWARDED_FOR}},
    [16] = {HTTP_AT('x') | HTTP_AT('p'),
          {HTTP_FIELD_X_FORWARDED_HOST, HTTP_FIELD_X_FORWARDED_PORT, HTTP_FIELD_PROXY_CONNECTION}},
    [17] = {HTTP_AT('s') | HTTP_AT('t') | HTTP_AT('x'),
          {HTTP_FIELD_SEC_WEBSOCKET_KEY, HTTP_FIELD_TRANSFER_ENCODING, HTTP_FIELD_X_FORWARDED_PROTO}},
    [18] = {HTTP_AT('x'), {HTTP_FIELD_X_FORWARDED_PREFIX}},
    [20] = {HTTP_AT('s'), {HTTP_FIELD_SEC_WEBSOCKET_ACCEPT}},
    [21] = {HTTP_AT('s'), {HTTP_FIELD_SEC_WEBSOCKET_VERSION}},
    [22] = {HTTP_AT('s'), {HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL}},
    [24] = {HTTP_AT('s'), {HTTP_FIELD_SEC_WEBSOCKET_EXTENSIONS}},
};

void http_message_init(struct http_message *message, struct arena *arena) {
    *message = (struct http_message){.arena = arena};
}

enum http_field_id http_field_id(struct span name) {
    if (name.n == 0 || name.n > HTTP_NAME_MAX)
        return HTTP_FIELD_OTHER;
    if (!(http_by_length[name.n].letters >> (name.p[0] & 31) & 1))
        return HTTP_FIELD_OTHER;
    const uint8_t *ids = http_by_length[name.n].ids;
    const char first = str_lower(name.p[0]);
    for (unsigned i = 0; i < HTTP_PER_LENGTH && ids[i] != HTTP_FIELD_OTHER; i++) {
        const char *known = http_known[ids[i]].name.p;
        size_t k = 1;
        if (known[0] != first)
            continue;
        while (k < name.n && str_lower(name.p[k]) == known[k])
            k++;
        if (k == name.n)
            return (enum http_field_id)ids[i];
    }
    return HTTP_FIELD_OTHER;
}

const char *http_field_name(enum http_field_id id) {
    return (unsigned)id < HTTP_FIELD_COUNT ? http_known[id].name.p : "";
}

_Static_assert(HTTP_FIELD_COUNT <= 64, "field ids are used as bits of 64");

static bool http_may_have(const struct http_message *message, enum http_field_id id) { return message->ids >> id & 1; }

static bool http_field_named(const struct http_field *field, enum http_field_id id, struct span name) {
    if (field->flags & HTTP_DELETED || field->id != id)
        return false;
    return id != HTTP_FIELD_OTHER || str_equal_nocase(field->name, name);
}

struct http_field *http_find(const struct http_message *message, enum http_field_id id) {
    for (unsigned i = http_may_have(message, id) ? 0 : message->field_count; i < message->field_count; i++) {
        struct http_field *field = &message->fields[i];
        if (field->id == id && !(field->flags & HTTP_DELETED))
            return field;
    }
    return NULL;
}

struct http_field *http_next_name(const struct http_message *message, struct span name, unsigned *index) {
    const enum http_field_id id = http_field_id(name);
    while (*index < message->field_count && http_may_have(message, id)) {
        struct http_field *field = &message->fields[(*index)++];
        if (http_field_named(field, id, name))
            return field;
    }
    return NULL;
}

struct http_field *http_find_name(const struct http_message *message, struct span name) {
    unsigned index = 0;
    return http_next_name(message, name, &index);
}

struct span http_join(const struct http_message *message, struct span name) {
    unsigned index = 0, count = 0;
    size_t size = 0;
    struct http_field *field, *only = NULL;
    while ((field = http_next_name(message, name, &index)) != NULL) {
        if (count++ == 0)
            only = field;
        size += field->value.n + 2;
    }
    if (count == 0)
        return SPAN_NULL;
    if (count == 1)
        return only->value.p ? only->value : SPAN("");
    char *text = arena_alloc(message->arena, size);
    if (!text)
        return SPAN_NULL;
    size = 0;
    for (index = 0; (field = http_next_name(message, name, &index)) != NULL;) {
        if (field != only) {
            text[size++] = ',';
            text[size++] = ' ';
        }
        if (field->value.n > 0)
            memcpy(text + size, field->value.p, field->value.n);
        size += field->value.n;
    }
    return span_make(text, size);
}

bool http_list_has(const struct http_message *message, enum http_field_id id, struct span token) {
    for (unsigned i = http_may_have(message, id) ? 0 : message->field_count; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (field->id != id || field->flags & HTTP_DELETED)
            continue;
        struct span rest = field->value, element;
        while (str_next_token(&rest, &element)) {
            if (str_equal_nocase(element, token))
                return true;
        }
    }
    return false;
}

static bool http_grow(struct http_message *message) {
    unsigned cap = message->field_cap ? message->field_cap * 4u : HTTP_FIELDS_FIRST;
    if (cap > HTTP_FIELDS_MAX)
        cap = HTTP_FIELDS_MAX;
    if (message->field_count >= cap)
        return false;
    struct http_field *fields = arena_alloc(message->arena, cap * sizeof(*fields));
    if (!fields)
        return false;
    if (message->field_count > 0)
        memcpy(fields, message->fields, message->field_count * sizeof(*fields));
    message->fields = fields;
    message->field_cap = (uint16_t)cap;
    return true;
}

bool http_add(struct http_message *message, struct span name, struct span value) {
    if (message->field_count == message->field_cap && !http_grow(message))
        return false;
    const enum http_field_id id = http_field_id(name);
    message->ids |= UINT64_C(1) << id;
    message->fields[message->field_count++] =
        (struct http_field){.name = name, .value = value, .id = (uint8_t)id, .flags = http_known[id].flags};
    return true;
}

bool http_set(struct http_message *message, struct span name, struct span value) {
    unsigned index = 0;
    struct http_field *first = http_next_name(message, name, &index), *other;
    if (!first)
        return http_add(message, name, value);
    /* The flags start afresh: a value of ours is not hop-by-hop because the peer's Connection named the old one. */
    first->name = name;
    first->value = value;
    first->flags = http_known[first->id].flags;
    while ((other = http_next_name(message, name, &index)) != NULL)
        other->flags |= HTTP_DELETED;
    return true;
}

/* The field of this name, be it deleted or not. */
static struct http_field *http_find_trace(const struct http_message *message, struct span name) {
    const enum http_field_id id = http_field_id(name);
    for (unsigned i = 0; i < message->field_count; i++) {
        struct http_field *field = &message->fields[i];
        if (field->id == id && (id != HTTP_FIELD_OTHER || str_equal_nocase(field->name, name)))
            return field;
    }
    return NULL;
}

void http_delete(struct http_message *message, struct span name) {
    unsigned index = 0;
    struct http_field *field;
    while ((field = http_next_name(message, name, &index)) != NULL)
        field->flags |= HTTP_DELETED;
    /* What was never there leaves a trace where trailers may follow, which must not bring it after all. */
    if (!message->is_response && message->body == HTTP_BODY_CHUNKED && !http_find_trace(message, name) &&
        http_add(message, name, SPAN_NULL))
        message->fields[message->field_count - 1].flags |= HTTP_DELETED;
}

void http_screen_trailers(const struct http_message *head, struct http_message *trailers) {
    for (unsigned i = 0; i < trailers->field_count; i++) {
        if (http_find_trace(head, trailers->fields[i].name))
            trailers->fields[i].flags |= HTTP_DELETED;
    }
}

void http_delete_id(struct http_message *message, enum http_field_id id) {
    for (unsigned i = http_may_have(message, id) ? 0 : message->field_count; i < message->field_count; i++) {
        if (message->fields[i].id == id)
            message->fields[i].flags |= HTTP_DELETED;
    }
}

/* What a peer's Connection may not take away: framing, and the fields by which we tell a server who asks for what. */
static bool http_hop_exempt(const struct http_field *field) {
    if (field->flags & HTTP_FRAMING)
        return true;
    switch (field->id) {
    case HTTP_FIELD_HOST:
    case HTTP_FIELD_FORWARDED:
    case HTTP_FIELD_X_FORWARDED_FOR:
    case HTTP_FIELD_X_FORWARDED_PROTO:
    case HTTP_FIELD_X_FORWARDED_HOST:
    case HTTP_FIELD_X_FORWARDED_PORT:
    case HTTP_FIELD_X_FORWARDED_PREFIX:
    case HTTP_FIELD_X_REAL_IP:
    case HTTP_FIELD_X_REQUEST_ID:
        return true;
    default:
        return false;
    }
}

static void http_mark_named(struct http_message *message, struct span name) {
    unsigned index = 0;
    struct http_field *field;
    while ((field = http_next_name(message, name, &index)) != NULL) {
        if (!http_hop_exempt(field))
            field->flags |= HTTP_HOP;
    }
}

/* What is hop-by-hop by its name was marked when it came into the table. */
void http_mark_hops(struct http_message *message) {
    for (unsigned i = http_may_have(message, HTTP_FIELD_CONNECTION) ? 0 : message->field_count; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (field->id != HTTP_FIELD_CONNECTION || field->flags & HTTP_DELETED)
            continue;
        struct span rest = field->value, name;
        while (str_next_token(&rest, &name))
            http_mark_named(message, name);
    }
}

bool http_valid_name(struct span name) {
    for (size_t i = 0; i < name.n; i++) {
        if (!scan_is(name.p[i], SCAN_TCHAR))
            return false;
    }
    return name.n > 0;
}

bool http_valid_value(struct span value) {
    if (value.n == 0)
        return true;
    const char first = value.p[0], last = value.p[value.n - 1];
    if (first == ' ' || first == '\t' || last == ' ' || last == '\t')
        return false;
    return scan_to_control(value.p, value.p + value.n) == value.p + value.n;
}

#define HTTP_REASONS(X) \
    X(100, "Continue") X(101, "Switching Protocols") X(102, "Processing") X(103, "Early Hints") \
    X(200, "OK") X(201, "Created") X(202, "Accepted") X(203, "Non-Authoritative Information") \
    X(204, "No Content") X(205, "Reset Content") X(206, "Partial Content") X(207, "Multi-Status") \
    X(208, "Already Reported") X(226, "IM Used") X(300, "Multiple Choices") X(301, "Moved Permanently") \
    X(302, "Found") X(303, "See Other") X(304, "Not Modified") X(305, "Use Proxy") \
    X(307, "Temporary Redirect") X(308, "Permanent Redirect") X(400, "Bad Request") X(401, "Unauthorized") \
    X(402, "Payment Required") X(403, "Forbidden") X(404, "Not Found") X(405, "Method Not Allowed") \
    X(406, "Not Acceptable") X(407, "Proxy Authentication Required") X(408, "Request Timeout") \
    X(409, "Conflict") X(410, "Gone") X(411, "Length Required") X(412, "Precondition Failed") \
    X(413, "Content Too Large") X(414, "URI Too Long") X(415, "Unsupported Media Type") \
    X(416, "Range Not Satisfiable") X(417, "Expectation Failed") X(418, "I'm a teapot") \
    X(421, "Misdirected Request") X(422, "Unprocessable Content") X(423, "Locked") \
    X(424, "Failed Dependency") X(425, "Too Early") X(426, "Upgrade Required") \
    X(428, "Precondition Required") X(429, "Too Many Requests") X(431, "Request Header Fields Too Large") \
    X(451, "Unavailable For Legal Reasons") X(500, "Internal Server Error") X(501, "Not Implemented") \
    X(502, "Bad Gateway") X(503, "Service Unavailable") X(504, "Gateway Timeout") \
    X(505, "HTTP Version Not Supported") X(506, "Variant Also Negotiates") X(507, "Insufficient Storage") \
    X(508, "Loop Detected") X(510, "Not Extended") X(511, "Network Authentication Required")

const char *http_reason(unsigned status) {
    switch (status) {
#define HTTP_REASON_CASE(code, text) \
    case code: \
        return text;
        HTTP_REASONS(HTTP_REASON_CASE)
#undef HTTP_REASON_CASE
    default:
        return "";
    }
}

enum http_method http_method_of(struct span name) {
    static const struct span names[] = {
        [HTTP_GET] = {"GET", 3},       [HTTP_HEAD] = {"HEAD", 4},       [HTTP_POST] = {"POST", 4},
        [HTTP_PUT] = {"PUT", 3},       [HTTP_DELETE] = {"DELETE", 6},   [HTTP_OPTIONS] = {"OPTIONS", 7},
        [HTTP_TRACE] = {"TRACE", 5},   [HTTP_PATCH] = {"PATCH", 5},
    };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (span_equal(names[i], name))
            return (enum http_method)i;
    }
    return HTTP_METHOD_OTHER;
}
