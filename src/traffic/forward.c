/* SPDX-License-Identifier: MIT */
/*
 * forward: writes heads anew from what was understood.
 *
 * The request towards a server is made in one pass into the buffer: request line, Host, the client's end-to-end fields,
 * our forwarding fields, our framing. Every field that this module writes itself is skipped in the pass (forward_own),
 * so that none can appear twice or survive from the client.
 *
 * The subtle thing: what a trusted proxy said about protocol, host and port is kept, and is already all that is left of
 * those fields here: subject_prepare() has removed them from anybody else.
 */
#include "traffic/forward.h"


#include "base/digits.h"
#include "wire/http1.h"

_Static_assert(HTTP_FIELD_COUNT <= 64, "field ids are used as bits of 64");

#define FORWARD_BIT(id) (UINT64_C(1) << HTTP_FIELD_##id)
#define FORWARD_FRAMING_BIT(id, name, flags) | (((flags)&HTTP_FRAMING) ? FORWARD_BIT(id) : 0)

static const uint64_t forward_framing = 0 HTTP_FIELDS(FORWARD_FRAMING_BIT);
/* Written here, never copied. */
static const uint64_t forward_own = FORWARD_BIT(HOST) | FORWARD_BIT(TRANSFER_ENCODING) | FORWARD_BIT(CONTENT_LENGTH) |
    FORWARD_BIT(CONNECTION) | FORWARD_BIT(UPGRADE) | FORWARD_BIT(EXPECT) | FORWARD_BIT(X_FORWARDED_FOR) |
    FORWARD_BIT(X_FORWARDED_PROTO) | FORWARD_BIT(X_FORWARDED_HOST) | FORWARD_BIT(X_FORWARDED_PORT);
static const uint64_t forward_own_websocket = FORWARD_BIT(SEC_WEBSOCKET_KEY) | FORWARD_BIT(SEC_WEBSOCKET_VERSION) |
    FORWARD_BIT(SEC_WEBSOCKET_PROTOCOL) | FORWARD_BIT(SEC_WEBSOCKET_ACCEPT);

bool forward_apply_headers(struct http_message *message, const struct config_headers *headers) {
    for (unsigned i = 0; i < headers->count; i++) {
        const struct action_header *header = &headers->list[i];
        if ((forward_framing >> http_field_id(header->name)) & 1)
            continue;
        if (!header->value.p)
            http_delete(message, header->name);
        else if (!http_set(message, header->name, header->value))
            return false;
    }
    return true;
}

struct span forward_for(struct subject *subject) {
    char peer[ADDR_TEXT_MAX];
    bool has_ip = subject->peer.family == AF_INET || subject->peer.family == AF_INET6;
    struct span ip = has_ip ? span_of(addr_small_format_ip(&subject->peer, peer)) : SPAN("");
    struct span said = SPAN_NULL;
    if (http_find(&subject->head, HTTP_FIELD_X_FORWARDED_FOR)) {
        said = http_join(&subject->head, SPAN("x-forwarded-for"));
        if (!said.p)
            return SPAN_NULL;
    }
    if (said.n == 0)
        return has_ip ? arena_dup(&subject->arena, ip) : SPAN("");
    return has_ip ? arena_printf(&subject->arena, "%.*s, %.*s", SPAN_ARGS(said), SPAN_ARGS(ip)) : said;
}

/* "name: value\r\n" in one reservation. */
static bool forward_put(struct buf *out, struct span name, struct span value) {
    size_t n = name.n + value.n + 4;
    if (!buf_reserve(out, n))
        return false;
    char *p = buf_tail(out);
    memcpy(p, name.p, name.n);
    memcpy(p + name.n, ": ", 2);
    if (value.n > 0)
        memcpy(p + name.n + 2, value.p, value.n);
    memcpy(p + n - 2, "\r\n", 2);
    buf_commit(out, n);
    return true;
}

/* The server's own name for Host: IPv6 in brackets, the port unless it is the scheme's. */
static bool forward_put_server_host(struct buf *out, const struct forward_request *request) {
    const char *host = request->server->host;
    uint16_t port = request->server->port;
    if (!host || !*host || *host == '/')
        return buf_append_text(out, "Host: localhost\r\n"); /* a unix socket */
    bool v6 = strchr(host, ':') && *host != '[';
    if (!buf_printf(out, v6 ? "Host: [%s]" : "Host: %s", host))
        return false;
    if (port != 0 && port != (request->pool->tls ? 443 : 80) && !buf_printf(out, ":%u", port))
        return false;
    return buf_append(out, "\r\n", 2);
}

static bool forward_put_host(struct buf *out, const struct forward_request *request) {
    const struct subject *subject = request->subject;
    const struct http_field *field = http_find(&subject->head, HTTP_FIELD_HOST);
    if (request->action->forward.host.p)
        return forward_put(out, SPAN("Host"), request->action->forward.host);
    if (request->pool->host == CONFIG_HOST_FIXED && request->pool->host_fixed)
        return forward_put(out, SPAN("Host"), span_of(request->pool->host_fixed));
    if (request->pool->host == CONFIG_HOST_CLIENT && subject->host_edited && subject->host_port == 0)
        return forward_put(out, SPAN("Host"), subject->host);
    if (request->pool->host == CONFIG_HOST_CLIENT && subject->host_edited)
        return buf_printf(out, "Host: %.*s:%u\r\n", SPAN_ARGS(subject->host), subject->host_port);
    if (request->pool->host == CONFIG_HOST_CLIENT && field && field->value.n > 0)
        return forward_put(out, SPAN("Host"), field->value);
    return forward_put_server_host(out, request);
}

static bool forward_put_fields(struct buf *out, const struct subject *subject) {
    uint64_t skip = forward_own | (subject->websocket ? forward_own_websocket : 0);
    for (unsigned i = 0; i < subject->head.field_count; i++) {
        const struct http_field *field = &subject->head.fields[i];
        if ((field->flags & (HTTP_HOP | HTTP_DELETED)) || ((skip >> field->id) & 1))
            continue;
        if (!forward_put(out, field->name, field->value))
            return false;
    }
    return true;
}

static bool forward_put_said(struct buf *out, const struct subject *subject, enum http_field_id id, struct span name,
                             struct span otherwise) {
    const struct http_field *said = http_find(&subject->head, id);
    struct span value = said ? said->value : otherwise;
    return value.n == 0 || forward_put(out, name, value);
}

static bool forward_put_forwarded(struct buf *out, const struct forward_request *request) {
    struct subject *subject = request->subject;
    struct span chain = forward_for(subject);
    if (!chain.p || (chain.n > 0 && !forward_put(out, SPAN("X-Forwarded-For"), chain)))
        return false;
    struct span scheme = span_of(subject->scheme);
    if (!forward_put_said(out, subject, HTTP_FIELD_X_FORWARDED_PROTO, SPAN("X-Forwarded-Proto"), scheme))
        return false;
    const struct http_field *host = http_find(&subject->head, HTTP_FIELD_HOST);
    if (!forward_put_said(out, subject, HTTP_FIELD_X_FORWARDED_HOST, SPAN("X-Forwarded-Host"),
                          host ? host->value : SPAN_NULL))
        return false;
    unsigned port = subject->local_port ? subject->local_port : subject->host_port;
    char text[DIGITS_MAX];
    if (port == 0) /* a unix socket, and Host names none */
        port = span_equal(scheme, SPAN("https")) ? 443 : 80;
    if (!forward_put_said(out, subject, HTTP_FIELD_X_FORWARDED_PORT, SPAN("X-Forwarded-Port"),
                          span_make(text, digits_format(text, port))))
        return false;
    return !request->settings->via ||
        buf_printf(out, "Via: 1.%u %s\r\n", (unsigned)subject->head.minor, request->settings->via);
}

static bool forward_put_handshake(struct buf *out, const struct subject *subject) {
    const struct upgrade_offer *offer = &subject->offer;
    if (!buf_append_text(out, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n") ||
        !forward_put(out, SPAN("Sec-WebSocket-Key"), offer->key))
        return false;
    for (unsigned i = 0; i < offer->protocol_count; i++)
        if (!buf_append_text(out, i == 0 ? "Sec-WebSocket-Protocol: " : ", ") ||
            !buf_append_span(out, offer->protocols[i]))
            return false;
    return offer->protocol_count == 0 || buf_append(out, "\r\n", 2);
}

static bool forward_has_body_by_nature(enum http_method method) {
    return method == HTTP_POST || method == HTTP_PUT || method == HTTP_PATCH;
}

static bool forward_put_framing(struct buf *out, const struct forward_request *request) {
    const struct http_message *head = &request->subject->head;
    if (request->subject->websocket)
        return forward_put_handshake(out, request->subject);
    if (head->expect_continue && head->minor > 0 && head->body != HTTP_BODY_NONE &&
        !buf_append_text(out, "Expect: 100-continue\r\n"))
        return false;
    if (!request->keep_alive && !buf_append_text(out, "Connection: close\r\n"))
        return false;
    if (head->body == HTTP_BODY_CHUNKED)
        return buf_append_text(out, "Transfer-Encoding: chunked\r\n");
    if (head->body == HTTP_BODY_LENGTH)
        return buf_append_text(out, "Content-Length: ") && buf_append_u64(out, head->content_length) &&
            buf_append(out, "\r\n", 2);
    if (head->has_content_length || forward_has_body_by_nature(head->method))
        return buf_append_text(out, "Content-Length: 0\r\n");
    return true;
}

bool forward_write_request(struct buf *out, const struct forward_request *request) {
    const struct subject *subject = request->subject;
    return request->target.p && http1_write_request_line(out, subject->head.method_name, request->target) &&
        forward_put_host(out, request) && forward_put_fields(out, subject) && forward_put_forwarded(out, request) &&
        forward_put_framing(out, request) && http1_write_end(out);
}
