/* SPDX-License-Identifier: MIT */
/*
 * http: an HTTP/1 message in memory: start line and field table as spans into the bytes they came from
 * or into the message's arena. Independent of how it was read (HTTP/2 will fill the same struct).
 */
#ifndef MOONGATE_WIRE_HTTP_H
#define MOONGATE_WIRE_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/span.h"

/* name (lower case), flags: H hop-by-hop (RFC 9110 section 7.6.1), F framing (never edited by scripts) */
#define HTTP_FIELDS(X) \
    X(HOST, "host", 0) \
    X(CONNECTION, "connection", HTTP_HOP) \
    X(KEEP_ALIVE, "keep-alive", HTTP_HOP) \
    X(PROXY_CONNECTION, "proxy-connection", HTTP_HOP) \
    X(TE, "te", HTTP_HOP) \
    X(TRAILER, "trailer", 0) \
    X(TRANSFER_ENCODING, "transfer-encoding", HTTP_HOP | HTTP_FRAMING) \
    X(CONTENT_LENGTH, "content-length", HTTP_FRAMING) \
    X(UPGRADE, "upgrade", HTTP_HOP | HTTP_FRAMING) \
    X(HTTP2_SETTINGS, "http2-settings", HTTP_HOP) \
    X(EXPECT, "expect", HTTP_FRAMING) \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key", HTTP_FRAMING) \
    X(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept", HTTP_FRAMING) \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version", 0) \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol", 0) \
    X(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions", 0) \
    X(ORIGIN, "origin", 0) \
    X(COOKIE, "cookie", 0) \
    X(AUTHORIZATION, "authorization", 0) \
    X(DATE, "date", 0) \
    X(SERVER, "server", 0) \
    X(VIA, "via", 0) \
    X(FORWARDED, "forwarded", 0) \
    X(X_FORWARDED_FOR, "x-forwarded-for", 0) \
    X(X_FORWARDED_PROTO, "x-forwarded-proto", 0) \
    X(X_FORWARDED_HOST, "x-forwarded-host", 0) \
    X(X_FORWARDED_PORT, "x-forwarded-port", 0) \
    X(X_FORWARDED_PREFIX, "x-forwarded-prefix", 0) \
    X(X_REAL_IP, "x-real-ip", 0) \
    X(X_ORIGINAL_URL, "x-original-url", 0) \
    X(X_REWRITE_URL, "x-rewrite-url", 0) \
    X(X_REQUEST_ID, "x-request-id", 0)

enum http_field_id {
    HTTP_FIELD_OTHER,
#define HTTP_FIELD_ENUM(id, name, flags) HTTP_FIELD_##id,
    HTTP_FIELDS(HTTP_FIELD_ENUM)
#undef HTTP_FIELD_ENUM
    HTTP_FIELD_COUNT
};

enum {
    HTTP_HOP = 1,     /* not forwarded: hop-by-hop, or named by Connection */
    HTTP_FRAMING = 2, /* scripts may not edit it */
    HTTP_DELETED = 4  /* removed by an edit; skipped by every reader */
};

struct http_field {
    struct span name; /* as received */
    struct span value; /* trimmed */
    uint8_t id;        /* enum http_field_id */
    uint8_t flags;
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_OPTIONS, HTTP_TRACE, HTTP_PATCH,
                   HTTP_METHOD_OTHER /* a method that http-parser knows beyond these; see method_name */ };

enum http_body { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED, HTTP_BODY_CLOSE };

struct http_message {
    struct arena *arena; /* borrowed: field table and edits live here */
    bool is_response;
    uint8_t minor;       /* HTTP/1.minor: 0 or 1 */
    /* request */
    enum http_method method;
    struct span method_name;
    struct span target; /* as received, any accepted form */
    /* response */
    uint16_t status;
    struct span reason;
    /* both */
    struct http_field *fields;
    uint16_t field_count, field_cap;
    uint64_t ids;        /* bits: an id without its bit is in no field; one with it may be, or was */
    enum http_body body;
    uint64_t content_length; /* of HTTP_BODY_LENGTH */
    bool has_content_length; /* also where there is no body (HEAD, 304) */
    bool keep_alive;         /* what version and Connection say */
    bool connection_upgrade; /* "upgrade" is a token of Connection */
    bool expect_continue;    /* Expect: 100-continue, HTTP/1.1 */
};

void http_message_init(struct http_message *message, struct arena *arena);
enum http_field_id http_field_id(struct span name);
const char *http_field_name(enum http_field_id id);

/* The first live field with this id or name (any case), or NULL. */
struct http_field *http_find(const struct http_message *message, enum http_field_id id);
struct http_field *http_find_name(const struct http_message *message, struct span name);
/* Next live field after *index with the name (any case); *index starts at 0. */
struct http_field *http_next_name(const struct http_message *message, struct span name, unsigned *index);
/* All values of name joined by ", " in the arena (one: as it stands); .p NULL when absent or out of memory. */
struct span http_join(const struct http_message *message, struct span name);
/* True when some comma-separated element of the fields with this id equals token, any case. */
bool http_list_has(const struct http_message *message, enum http_field_id id, struct span token);

/*
 * Edits. Names and values must already be valid (http_valid_*); they are borrowed. False: out of memory or over
 * 1,000 fields. A field that is added or set is not hop-by-hop because of what http_mark_hops() did before.
 */
bool http_add(struct http_message *message, struct span name, struct span value);
/* Replaces the first, deletes the others, adds when there is none. */
bool http_set(struct http_message *message, struct span name, struct span value);
void http_delete(struct http_message *message, struct span name);
/* Deletes the trailers whose names head has or had: sent, set or deleted. A trailer adds, it never overrides. */
void http_screen_trailers(const struct http_message *head, struct http_message *trailers);
void http_delete_id(struct http_message *message, enum http_field_id id);
/*
 * Marks HTTP_HOP on the hop-by-hop fields and on all that Connection names, excepted framing, Host and the fields
 * by which a server learns who asks (Forwarded, X-Forwarded-*, X-Real-IP, X-Request-Id) (requirements A8).
 */
void http_mark_hops(struct http_message *message);

bool http_valid_name(struct span name);
/* No CR, LF, NUL, DEL or control characters but HTAB; no leading or trailing white space. */
bool http_valid_value(struct span value);
/* "Not Found"; "" for an unknown status. */
const char *http_reason(unsigned status);
enum http_method http_method_of(struct span name);

#endif
