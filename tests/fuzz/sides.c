/* SPDX-License-Identifier: MIT */
/*
 * See sides.h. The readers share nothing with the gateway's own decoders, so that a mistake there cannot hide itself. A client judges
 * each answer: the right one in the order of its requests, every byte of it, and no clean end of one that was cut short. A
 * server judges each request: every byte of its body, and never a second try of what must not be sent twice.
 */
#include "sides.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/upgrade.h"

struct sides sides;

static const char sides_key[] = "dGhlIHNhbXBsZSBub25jZQ==";

void sides_fail(const char *what) {
    fprintf(stderr, "sides: %s\n", what);
    abort();
}

unsigned char side_byte(uint32_t id, unsigned direction, uint64_t offset) {
    return (unsigned char)(id * 131u + direction * 29u + offset * 7u + offset / 253u);
}

void side_append(struct kernel_queue *queue, const void *data, size_t n) {
    if (n == 0)
        return;
    queue->data = realloc(queue->data, queue->len + n);
    memcpy(queue->data + queue->len, data, n);
    queue->len += n;
}

static void side_append_text(struct kernel_queue *queue, const char *text) { side_append(queue, text, strlen(text)); }

void side_append_bytes(struct kernel_queue *queue, uint32_t id, unsigned direction, uint64_t offset, size_t n) {
    char *bytes = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)side_byte(id, direction, offset + i);
    side_append(queue, bytes, n);
    free(bytes);
}

/* n bytes in chunks of different sizes, and the last one. */
static void side_append_chunks(struct kernel_queue *queue, uint32_t id, unsigned direction, size_t n) {
    char line[32];
    for (size_t at = 0, part = 1; at < n; at += part, part = part * 5 + 2) {
        if (part > n - at)
            part = n - at;
        side_append(queue, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", part));
        side_append_bytes(queue, id, direction, at, part);
        side_append_text(queue, "\r\n");
    }
    side_append_text(queue, n % 2 ? "0\r\nX-Trailer: t\r\n\r\n" : "0\r\n\r\n");
}

/* Gives up to n of what is queued; true when something went. */
static bool side_give(struct kernel_link *link, struct kernel_queue *out, size_t n) {
    size_t given = link && out->len > 0 ? kernel_give(link, out->data, n < out->len ? n : out->len) : 0;
    if (given == 0)
        return false;
    out->len -= given;
    memmove(out->data, out->data + given, out->len);
    return true;
}

/* The value of a field as the gateway or a server of ours writes it; NULL: none. */
static const char *side_field(const struct side_reader *reader, const char *name) {
    static char value[64];
    size_t n = strlen(name);
    for (const char *at = strstr(reader->head, "\r\n"); at; at = strstr(at + 2, "\r\n")) {
        if (strncasecmp(at + 2, name, n) == 0 && at[2 + n] == ':') {
            snprintf(value, sizeof value, "%.63s", at + 3 + n + (at[3 + n] == ' '));
            value[strcspn(value, "\r")] = '\0';
            return value;
        }
    }
    return NULL;
}

static void side_reader_reset(struct side_reader *reader) {
    reader->state = SIDE_IN_HEAD;
    reader->head_size = 0;
    reader->got = reader->left = 0;
    reader->id = SIDE_NONE;
}

/* The framing that the head names; false: no body. */
static bool side_reader_frame(struct side_reader *reader) {
    const char *length = side_field(reader, "content-length");
    reader->got = 0;
    reader->left = length ? strtoull(length, NULL, 10) : 0;
    reader->state = SIDE_IN_LENGTH;
    if (side_field(reader, "transfer-encoding")) {
        if (length)
            sides_fail("both framings in a forwarded head");
        reader->state = SIDE_IN_LINE;
        reader->left = 0;
        return true;
    }
    return reader->left > 0;
}

static void side_body_byte(struct side_reader *reader, unsigned direction, char byte, bool judged) {
    if (judged && (unsigned char)byte != side_byte(reader->id, direction, reader->got))
        sides_fail(direction == 0 ? "another byte in a request body" : direction == 1 ? "another byte in an answer" : "another byte in a tunnel");
    reader->got++;
}

/* A byte of a framed body; true: the message is over. */
static bool side_framed_byte(struct side_reader *reader, unsigned direction, char byte, bool judged) {
    switch (reader->state) {
    case SIDE_IN_LENGTH:
        side_body_byte(reader, direction, byte, judged);
        return --reader->left == 0;
    case SIDE_IN_LINE:
        if (byte == '\n') {
            reader->head_size = 0;
            reader->state = reader->left > 0 ? SIDE_IN_CHUNK : SIDE_IN_TRAILER;
        } else if (byte != '\r') {
            reader->left = reader->left * 16 + (uint64_t)(byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
        }
        return false;
    case SIDE_IN_CHUNK:
        side_body_byte(reader, direction, byte, judged);
        if (--reader->left == 0)
            reader->state = SIDE_IN_CHUNK_END;
        return false;
    case SIDE_IN_CHUNK_END:
        if (byte == '\n')
            reader->state = SIDE_IN_LINE;
        return false;
    case SIDE_IN_TRAILER:
        if (byte != '\n')
            reader->head_size += byte != '\r';
        else if (reader->head_size == 0)
            return true;
        else
            reader->head_size = 0;
        return false;
    default:
        side_body_byte(reader, direction, byte, judged);
        return false;
    }
}

/* Collects a head; true when it is whole. */
static bool side_head_byte(struct side_reader *reader, char byte) {
    if (reader->head_size + 1 >= SIDE_HEAD)
        sides_fail("a head without end");
    reader->head[reader->head_size++] = byte;
    reader->head[reader->head_size] = '\0';
    return reader->head_size >= 4 && memcmp(reader->head + reader->head_size - 4, "\r\n\r\n", 4) == 0;
}

/* --- clients --- */

void side_client_end(struct side_client *client) {
    if (client->link)
        kernel_drop(&client->link);
    free(client->out.data);
    memset(client, 0, offsetof(struct side_client, reader));
    side_reader_reset(&client->reader);
    client->count = 0;
    client->wild = client->fin = client->upgrading = false;
    client->tunnel_sent = 0;
}

void side_client_ask(struct side_client *client, enum side_kind kind, size_t size, unsigned flavour) {
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "GET"};
    char head[512];
    if (!client->link || client->upgrading || client->count == SIDE_OUTSTANDING || sides.request_count == SIDE_REQUESTS)
        return;
    uint32_t id = sides.request_count++;
    bool has_body = kind == SIDE_POST || kind == SIDE_PUT, old = (flavour & 7) == 1 && kind != SIDE_UPGRADE;
    bool chunked = has_body && (flavour & 8) && !old;
    sides.requests[id] = (struct side_request){.kind = kind, .body_size = has_body ? size : 0, .spoiled = client->wild};
    client->ids[client->count++] = id;
    int n = snprintf(head, sizeof head, "%s /r%u HTTP/1.%d\r\nHost: a.example\r\n", methods[kind], id, old ? 0 : 1);
    side_append(&client->out, head, (size_t)n);
    if (flavour & 16)
        side_append_text(&client->out, old ? "Connection: keep-alive\r\n" : (flavour & 32) ? "Connection: close\r\n" : "");
    if (kind == SIDE_UPGRADE) {
        n = snprintf(head, sizeof head, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", sides_key);
        side_append(&client->out, head, (size_t)n);
        client->upgrading = true;
    }
    if (chunked)
        side_append_text(&client->out, "Transfer-Encoding: chunked\r\n");
    else if (has_body)
        side_append(&client->out, head, (size_t)snprintf(head, sizeof head, "Content-Length: %zu\r\n", size));
    side_append_text(&client->out, "\r\n");
    if (chunked)
        side_append_chunks(&client->out, id, 0, size);
    else if (has_body)
        side_append_bytes(&client->out, id, 0, 0, size);
}

bool side_client_send(struct side_client *client, size_t n) { return side_give(client->link, &client->out, n); }

/* The answer under way is whole, as far as the client can tell. */
static void side_client_whole(struct side_client *client, bool ours) {
    if (client->count == 0)
        return;
    const struct side_request *request = &sides.requests[client->ids[0]];
    /* Tried again, a request has two servers, and the first may read it only after the second has answered: whose size it is cannot be told. */
    bool judged = ours && !client->wild && !request->wild && !sides.wild && request->heads == 1;
    if (judged && client->reader.got != request->answer_size)
        sides_fail("a clean end of an answer that was cut short");
    memmove(client->ids, client->ids + 1, --client->count * sizeof client->ids[0]);
    side_reader_reset(&client->reader);
}

static void side_client_head(struct side_client *client) {
    struct side_reader *reader = &client->reader;
    const char *text = side_field(reader, "x-id");
    uint32_t id = text ? (uint32_t)strtoul(text, NULL, 10) : SIDE_NONE;
    unsigned status = (unsigned)strtoul(reader->head + 9, NULL, 10);
    if (client->wild || (client->count == 0 && status >= 400)) { /* 408, or after nonsense */
        reader->state = SIDE_IN_REST;
        client->wild = true;
        return;
    }
    if (client->count == 0)
        sides_fail("an answer that nobody asked for");
    const struct side_request *request = &sides.requests[client->ids[0]];
    bool judged = !request->wild && !sides.wild;
    if (judged && ((id != SIDE_NONE && id != client->ids[0]) || (id == SIDE_NONE && status < 400)))
        sides_fail("the answer to another request");
    reader->id = id != SIDE_NONE ? id : SIDE_NONE;
    if (status < 200 && status != 101) {
        reader->head_size = 0;
        return;
    }
    if (status == 101) {
        if (request->kind != SIDE_UPGRADE)
            sides_fail("a 101 to a plain request");
        side_client_whole(client, false);
        reader->id = id;
        reader->state = SIDE_IN_TUNNEL;
        return;
    }
    reader->got = 0;
    bool bodiless = request->kind == SIDE_HEAD_ONLY || status == 204 || status == 304;
    if (!bodiless && !side_field(reader, "content-length") && !side_field(reader, "transfer-encoding"))
        reader->state = SIDE_IN_REST;
    else if (bodiless || !side_reader_frame(reader))
        side_client_whole(client, id != SIDE_NONE);
}

static void side_client_byte(struct side_client *client, char byte) {
    struct side_reader *reader = &client->reader;
    bool judged = !client->wild && !sides.wild && reader->id != SIDE_NONE && (client->count == 0 || !sides.requests[client->ids[0]].wild);
    if (reader->state == SIDE_IN_HEAD) {
        if (side_head_byte(reader, byte))
            side_client_head(client);
    } else if (reader->state == SIDE_IN_TUNNEL) {
        side_body_byte(reader, 3, byte, judged);
    } else if (side_framed_byte(reader, 1, byte, judged)) {
        side_client_whole(client, reader->id != SIDE_NONE);
    }
}

bool side_client_read(struct side_client *client, size_t n) {
    char bytes[4096];
    struct kernel_link *link = client->link;
    size_t got = 0, total = 0;
    if (!link)
        return false;
    while (total < n && (got = kernel_take(link, bytes, n - total < sizeof bytes ? n - total : sizeof bytes)) > 0) {
        total += got;
        for (size_t i = 0; i < got; i++)
            side_client_byte(client, bytes[i]);
    }
    bool over = link->near_closed || (link->near_fin && client->reader.state != SIDE_IN_TUNNEL);
    if (!over || (link->out.len > 0 && !link->near_reset))
        return total > 0;
    if (client->reader.state == SIDE_IN_REST && !link->near_reset)
        side_client_whole(client, client->reader.id != SIDE_NONE);
    side_client_end(client);
    return true;
}

/* --- servers --- */

void side_server_end(struct side_server *server) {
    if (server->link) {
        side_server_shut(server);
        kernel_drop(&server->link);
    }
    free(server->out.data);
    server->out = (struct kernel_queue){0};
    side_reader_reset(&server->reader);
    server->current = SIDE_NONE;
    server->body_seen = server->answering = server->until_close = server->fin = false;
    server->tunnel_sent = 0;
}

static void side_server_whole(struct side_server *server) {
    if (!sides.wild && !sides.requests[server->reader.id].spoiled && server->reader.got != sides.requests[server->reader.id].body_size)
        sides_fail("a clean end of a request body that was cut short");
    server->body_seen = true;
    side_reader_reset(&server->reader);
}

static void side_server_head(struct side_server *server) {
    struct side_reader *reader = &server->reader;
    const char *target = strstr(reader->head, " /r");
    const struct side_request *before = server->current != SIDE_NONE ? &sides.requests[server->current] : NULL;
    if (before && !before->wild && !sides.wild && !server->answering)
        sides_fail("a request on a connection that has another one");
    uint32_t id = target ? (uint32_t)strtoul(target + 3, NULL, 10) : SIDE_NONE;
    if (id >= sides.request_count) { /* a client's nonsense can be a request */
        id = 0;
        sides.requests[0].wild = true;
        sides.wild = true;
    }
    struct side_request *request = &sides.requests[id];
    bool twice = ++request->heads > 1;
    if (twice && !sides.wild && (request->kind == SIDE_POST || request->kind == SIDE_UPGRADE))
        sides_fail("sent twice");
    reader->id = server->current = id;
    request->answer_size = UINT64_MAX;
    server->answering = server->body_seen = false;
    if (!side_reader_frame(reader)) {
        server->body_seen = true;
        side_reader_reset(reader);
    }
}

static void side_server_byte(struct side_server *server, char byte) {
    struct side_reader *reader = &server->reader;
    bool judged = !sides.wild && (reader->id == SIDE_NONE || !sides.requests[reader->id].spoiled);
    if (reader->state == SIDE_IN_HEAD) {
        if (side_head_byte(reader, byte))
            side_server_head(server);
    } else if (reader->state == SIDE_IN_TUNNEL) {
        side_body_byte(reader, 2, byte, judged);
    } else if (side_framed_byte(reader, 0, byte, judged)) {
        side_server_whole(server);
    }
}

bool side_server_read(struct side_server *server, size_t n) {
    char bytes[4096];
    struct kernel_link *link = server->link;
    size_t got = 0, total = 0;
    if (!link)
        return false;
    while (total < n && (got = kernel_take(link, bytes, n - total < sizeof bytes ? n - total : sizeof bytes)) > 0) {
        total += got;
        for (size_t i = 0; i < got; i++)
            side_server_byte(server, bytes[i]);
    }
    if (!link->near_closed || (link->out.len > 0 && !link->near_reset))
        return total > 0;
    side_server_end(server);
    return true;
}

static void side_server_switch(struct side_server *server, size_t size, bool right) {
    char accept[UPGRADE_ACCEPT_SIZE + 1], head[256];
    upgrade_accept(span_of(sides_key), accept);
    if (!right)
        accept[3] ^= 1;
    int n = snprintf(head, sizeof head, "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Id: %u\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     server->current, accept);
    side_append(&server->out, head, (size_t)n);
    side_append_bytes(&server->out, server->current, 3, 0, size);
    server->tunnel_sent = size;
    server->reader.id = server->current;
    if (right)
        server->reader.state = SIDE_IN_TUNNEL;
    server->reader.got = 0;
    server->answering = true;
}

void side_server_answer(struct side_server *server, enum side_answer answer, size_t size) {
    char head[256];
    if (!server->link || server->fin || server->current == SIDE_NONE || server->answering)
        return;
    uint32_t id = server->current;
    struct side_request *request = &sides.requests[id];
    if (answer == SIDE_INTERIM) {
        side_append(&server->out, head, (size_t)snprintf(head, sizeof head, "HTTP/1.1 103 Early\r\nX-Id: %u\r\n\r\n", id));
        return;
    }
    if (answer == SIDE_SWITCH || answer == SIDE_WRONG_SWITCH) {
        if (request->kind == SIDE_UPGRADE && server->body_seen)
            side_server_switch(server, size, answer == SIDE_SWITCH);
        return;
    }
    bool bodiless = request->kind == SIDE_HEAD_ONLY || answer == SIDE_EMPTY;
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nX-Id: %u\r\n%s", answer == SIDE_EMPTY ? 204 : 200, id, answer == SIDE_LAST ? "Connection: close\r\n" : "");
    side_append(&server->out, head, (size_t)n);
    if (answer == SIDE_CHUNKED)
        side_append_text(&server->out, "Transfer-Encoding: chunked\r\n");
    else if (answer != SIDE_EMPTY && answer != SIDE_UNTIL_CLOSE)
        side_append(&server->out, head, (size_t)snprintf(head, sizeof head, "Content-Length: %zu\r\n", size));
    side_append_text(&server->out, "\r\n");
    request->answer_size = bodiless ? 0 : size;
    server->answering = true;
    server->until_close = answer == SIDE_UNTIL_CLOSE && !bodiless;
    if (bodiless)
        return;
    if (answer == SIDE_CHUNKED)
        side_append_chunks(&server->out, id, 1, size);
    else
        side_append_bytes(&server->out, id, 1, 0, size);
}

bool side_server_send(struct side_server *server, size_t n) { return side_give(server->link, &server->out, n); }

void side_server_shut(struct side_server *server) {
    if (!server->link || server->fin)
        return;
    /* What was not given never will be: an answer that ends with the connection is then as long as what went. */
    struct side_request *request = server->current != SIDE_NONE ? &sides.requests[server->current] : NULL;
    if (request && server->until_close && !server->link->far_fin)
        request->answer_size = server->out.len <= request->answer_size ? request->answer_size - server->out.len : 0;
    server->out.len = 0;
    server->fin = true;
    kernel_shut(server->link);
}

void side_server_reset(struct side_server *server) {
    if (!server->link)
        return;
    if (server->current != SIDE_NONE && server->until_close && !server->fin)
        sides.requests[server->current].answer_size = UINT64_MAX;
    server->fin = true;
    server->out.len = 0;
    kernel_reset(server->link);
}
