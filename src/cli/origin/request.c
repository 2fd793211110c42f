/* SPDX-License-Identifier: MIT */
/*
 * The origin's own reader of HTTP/1.1 requests: heads and bodies. It is written apart from src/wire so that a mistake
 * there is not answered by the same mistake here. It is plain and strict: what it does not understand is answered
 * with 400 and a closed connection.
 *
 * The subtle thing: a head's spans die with the call that read it, so all that the answer needs is put into the
 * peer's plan before the body is looked at.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cli/origin/peer.h"

static struct span request_cut(struct span *rest, char until) {
    const char *end = rest->n ? memchr(rest->p, until, rest->n) : NULL;
    struct span piece = span_make(rest->p, end ? (size_t)(end - rest->p) : rest->n);
    size_t used = piece.n + (end ? 1 : 0);
    *rest = span_make(rest->p + used, rest->n - used);
    return piece;
}

bool origin_request_field(struct span *rest, struct span *name, struct span *value) {
    if (rest->n == 0)
        return false;
    struct span line = request_cut(rest, '\n');
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (line.n == 0)
        return false;
    *name = request_cut(&line, ':');
    *value = str_trim(line);
    return true;
}

struct span origin_request_query(const struct origin_request *request, const char *name) {
    struct span rest = request->query, wanted = span_of(name);
    while (rest.n) {
        struct span value = request_cut(&rest, '&');
        struct span key = request_cut(&value, '=');
        if (span_equal(key, wanted))
            return value.p ? value : SPAN("");
    }
    return SPAN_NULL;
}

static bool request_has_token(struct span list, struct span token) {
    struct span element;
    while (str_next_token(&list, &element))
        if (str_equal_nocase(element, token))
            return true;
    return false;
}

static bool request_read_line(struct origin_request *request, struct span line) {
    request->method = request_cut(&line, ' ');
    request->target = request_cut(&line, ' ');
    if (span_equal(line, SPAN("HTTP/1.1")))
        request->minor = 1;
    else if (!span_equal(line, SPAN("HTTP/1.0")))
        return false;
    if (!str_is_token(request->method) || request->target.n == 0)
        return false;
    struct span rest = request->target;
    if (rest.p[0] != '/') {
        /* Absolute form: the path begins behind the authority. */
        const char *scheme = memmem(rest.p, rest.n, "://", 3);
        const char *path = scheme ? memchr(scheme + 3, '/', (size_t)(rest.p + rest.n - scheme - 3)) : NULL;
        rest = path ? span_make(path, (size_t)(rest.p + rest.n - path)) : SPAN("/");
    }
    request->path = request_cut(&rest, '?');
    request->query = rest;
    return true;
}

static bool request_read_fields(struct origin_request *request) {
    struct span rest = request->fields, name, value;
    bool upgrade = false, connection_upgrade = false, version = false;
    request->keep = request->minor == 1;
    while (origin_request_field(&rest, &name, &value)) {
        if (!str_is_token(name))
            return false;
        if (str_equal_nocase(name, SPAN("content-length"))) {
            if (request->has_length || !str_parse_u63(value, &request->length))
                return false;
            request->has_length = true;
        } else if (str_equal_nocase(name, SPAN("transfer-encoding"))) {
            if (request->chunked || !str_equal_nocase(value, SPAN("chunked")))
                return false;
            request->chunked = true;
        } else if (str_equal_nocase(name, SPAN("connection"))) {
            if (request_has_token(value, SPAN("close")))
                request->keep = false;
            else if (request_has_token(value, SPAN("keep-alive")))
                request->keep = true;
            connection_upgrade = connection_upgrade || request_has_token(value, SPAN("upgrade"));
        } else if (str_equal_nocase(name, SPAN("expect"))) {
            request->expect = str_equal_nocase(value, SPAN("100-continue"));
        } else if (str_equal_nocase(name, SPAN("upgrade"))) {
            upgrade = request_has_token(value, SPAN("websocket"));
        } else if (str_equal_nocase(name, SPAN("sec-websocket-key"))) {
            request->key = value;
        } else if (str_equal_nocase(name, SPAN("sec-websocket-version"))) {
            version = span_equal(value, SPAN("13"));
        }
    }
    request->upgrade = upgrade && connection_upgrade && version && request->key.n == 24 && request->minor == 1 &&
                       span_equal(request->method, SPAN("GET"));
    return !(request->chunked && request->has_length);
}

static bool request_parse(struct origin_request *request, const char *data, size_t n) {
    memset(request, 0, sizeof(*request));
    request->head = span_make(data, n);
    struct span rest = request->head;
    struct span line = request_cut(&rest, '\n');
    if (line.n == 0 || line.p[line.n - 1] != '\r')
        return false;
    line.n--;
    request->fields = rest;
    return request_read_line(request, line) && request_read_fields(request);
}

static void request_refuse(struct origin_peer *peer, enum origin_kind kind) {
    peer->plan = (struct origin_plan){.kind = kind, .minor = 1, .cut = UINT64_MAX};
    peer->linger = true;
    origin_answer_start(peer);
}

/* Chooses between answering at once, reading the body first, and both side by side. */
static void request_begin(struct origin_peer *peer, const struct origin_request *request) {
    origin_answer_plan(peer, request);
    bool has_body = request->chunked || request->length > 0;
    if (request->chunked)
        peer->body = (struct origin_body){.state = ORIGIN_BODY_SIZE};
    else
        peer->body = (struct origin_body){.state = has_body ? ORIGIN_BODY_LENGTH : ORIGIN_BODY_DONE,
                                          .left = request->length};
    if (has_body && peer->plan.early) {
        peer->plan.keep = false;
        peer->linger = true;
        has_body = false;
    }
    if (peer->plan.kind == ORIGIN_ECHO && !buf_append_span(&peer->collect, request->head)) {
        request_refuse(peer, ORIGIN_TOO_LARGE);
        return;
    }
    if (!has_body) {
        origin_answer_start(peer);
        return;
    }
    if (request->expect && request->minor == 1)
        origin_peer_put_text(peer, "HTTP/1.1 100 Continue\r\n\r\n");
    peer->phase = ORIGIN_PHASE_BODY;
    if (peer->plan.kind == ORIGIN_ECHO && peer->plan.stream)
        origin_answer_start(peer);
}

size_t origin_request_head(struct origin_peer *peer, char *data, size_t n) {
    size_t skip = n >= 2 && data[0] == '\r' && data[1] == '\n' ? 2 : 0;
    const char *end = memmem(data + skip, n - skip, "\r\n\r\n", 4);
    if (!end) {
        if (n > ORIGIN_HEAD_MAX)
            request_refuse(peer, ORIGIN_BAD);
        return 0;
    }
    size_t used = (size_t)(end - data) + 4;
    struct origin_request request;
    if (!request_parse(&request, data + skip, used - skip)) {
        request_refuse(peer, ORIGIN_BAD);
        return used;
    }
    bool ordinary = str_starts(request.path, SPAN("/status/")) || str_starts(request.path, SPAN("/drop"));
    if (request.upgrade && !ordinary)
        origin_websocket_open(peer, &request);
    else
        request_begin(peer, &request);
    return used;
}

/* --- bodies --- */

static void request_body_data(struct origin_peer *peer, const char *p, size_t n) {
    if (peer->plan.kind != ORIGIN_ECHO)
        return;
    if (peer->plan.stream)
        origin_answer_chunk(peer, p, n);
    else if (!buf_append(&peer->collect, p, n))
        request_refuse(peer, ORIGIN_TOO_LARGE);
}

static void request_body_end(struct origin_peer *peer) {
    peer->body.state = ORIGIN_BODY_DONE;
    if (peer->plan.kind == ORIGIN_ECHO && peer->plan.stream)
        peer->phase = ORIGIN_PHASE_ANSWER; /* only the last chunk is left to send */
    else
        origin_answer_start(peer);
}

/* One line of a chunked body ("1f4;x", a trailer field, the empty last one); 0: not complete yet. */
static size_t request_body_line(struct origin_peer *peer, const char *data, size_t n) {
    const char *end = memmem(data, n, "\r\n", 2);
    if (!end) {
        if (n > 4096)
            request_refuse(peer, ORIGIN_BAD);
        return 0;
    }
    size_t used = (size_t)(end - data) + 2;
    struct span line = span_make(data, used - 2);
    if (peer->body.state == ORIGIN_BODY_TRAILER) {
        if (line.n == 0)
            request_body_end(peer);
        return used;
    }
    if (peer->body.state == ORIGIN_BODY_CRLF) {
        peer->body.state = ORIGIN_BODY_SIZE;
        if (line.n != 0)
            request_refuse(peer, ORIGIN_BAD);
        return used;
    }
    char digits[20];
    struct span size = str_trim(request_cut(&line, ';'));
    char *stop = digits;
    if (size.n > 15 || !str_copy(digits, sizeof(digits), size) || size.n == 0 || strspn(digits, "xX+- ") > 0) {
        request_refuse(peer, ORIGIN_BAD);
        return used;
    }
    peer->body.left = strtoull(digits, &stop, 16);
    if (*stop || strpbrk(digits, "xX"))
        request_refuse(peer, ORIGIN_BAD);
    else
        peer->body.state = peer->body.left ? ORIGIN_BODY_CHUNK : ORIGIN_BODY_TRAILER;
    return used;
}

size_t origin_request_body(struct origin_peer *peer, const char *data, size_t n) {
    struct origin_body *body = &peer->body;
    if (body->state != ORIGIN_BODY_LENGTH && body->state != ORIGIN_BODY_CHUNK)
        return request_body_line(peer, data, n);
    size_t used = n < body->left ? n : (size_t)body->left;
    body->left -= used;
    request_body_data(peer, data, used);
    if (body->left > 0 || peer->phase != ORIGIN_PHASE_BODY)
        return used;
    if (body->state == ORIGIN_BODY_CHUNK)
        body->state = ORIGIN_BODY_CRLF;
    else
        request_body_end(peer);
    return used;
}
