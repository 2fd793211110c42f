/* SPDX-License-Identifier: MIT */
/*
 * The origin's own WebSocket side (RFC 6455): accepts the handshake and echoes. Frames are echoed as they come, header
 * first and payload by piece, so that a message of any size, fragmented or not, needs no memory; its fragments
 * stay as they were. Ping is answered, Close is echoed and closes. "?hello" in the path makes it say its name first,
 * in the same write as the 101 (the demo's page shows it; tests see whether glued bytes arrive).
 *
 * The subtle thing: unmasking and copying are one pass, eight bytes at a time with the mask turned to where the
 * piece begins.
 */
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

#include "base/str.h"
#include "cli/origin/peer.h"

enum { FRAME_CONTINUE = 0, FRAME_TEXT = 1, FRAME_BINARY = 2, FRAME_CLOSE = 8, FRAME_PING = 9, FRAME_PONG = 10 };

static void websocket_accept_value(struct span key, char out[29]) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char input[24 + sizeof(guid) - 1], digest[SHA_DIGEST_LENGTH];
    memcpy(input, key.p, 24);
    memcpy(input + 24, guid, sizeof(guid) - 1);
    SHA1(input, sizeof(input), digest);
    EVP_EncodeBlock((unsigned char *)out, digest, SHA_DIGEST_LENGTH);
}

static bool websocket_offered(const struct origin_request *request, struct span protocol, struct span *first) {
    struct span rest = request->fields, name, value, token;
    while (origin_request_field(&rest, &name, &value)) {
        if (!str_equal_nocase(name, SPAN("sec-websocket-protocol")))
            continue;
        while (str_next_token(&value, &token)) {
            if (first) {
                *first = token;
                return true;
            }
            if (span_equal(token, protocol))
                return true;
        }
    }
    return false;
}

/* Ours in order of preference; without a list of ours the first that is offered. */
static struct span websocket_choose(const struct origin *origin, const struct origin_request *request) {
    struct span chosen = SPAN_NULL;
    if (!origin->subprotocols) {
        websocket_offered(request, SPAN_NULL, &chosen);
        return chosen;
    }
    struct span rest = span_of(origin->subprotocols);
    while (str_next_token(&rest, &chosen))
        if (websocket_offered(request, chosen, NULL))
            return chosen;
    return SPAN_NULL;
}

static void websocket_put_header(struct origin_peer *peer, uint8_t first, uint64_t size) {
    uint8_t head[10] = {first};
    size_t n = 2;
    if (size < 126) {
        head[1] = (uint8_t)size;
    } else if (size < 65536) {
        head[1] = 126;
        head[2] = (uint8_t)(size >> 8);
        head[3] = (uint8_t)size;
        n = 4;
    } else {
        head[1] = 127;
        for (unsigned i = 0; i < 8; i++)
            head[2 + i] = (uint8_t)(size >> (56 - 8 * i));
        n = 10;
    }
    origin_peer_put(peer, head, n);
}

void origin_websocket_open(struct origin_peer *peer, const struct origin_request *request) {
    const struct origin *origin = peer->origin;
    char accept[29];
    websocket_accept_value(request->key, accept);
    struct span protocol = websocket_choose(origin, request);
    origin_peer_printf(peer,
                       "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                       "sec-websocket-accept: %s\r\nserver: moongate-origin\r\nx-origin: %s\r\n",
                       accept, origin->name);
    if (protocol.p) {
        origin_peer_put_text(peer, "sec-websocket-protocol: ");
        origin_peer_put(peer, protocol.p, protocol.n);
        origin_peer_put_text(peer, "\r\n");
    }
    origin_peer_put_text(peer, "\r\n");
    if (origin_request_query(request, "hello").p) {
        size_t n = strlen(origin->name);
        websocket_put_header(peer, 0x80 | FRAME_TEXT, n);
        origin_peer_put(peer, origin->name, n);
    }
    memset(&peer->frame, 0, sizeof(peer->frame));
    peer->phase = ORIGIN_PHASE_FRAMES;
}

/* Sends Close with a code and ends the connection, reading away what is still coming. */
static void websocket_fail(struct origin_peer *peer, unsigned code) {
    uint8_t text[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    websocket_put_header(peer, 0x80 | FRAME_CLOSE, sizeof(text));
    origin_peer_put(peer, text, sizeof(text));
    peer->closing = peer->linger = true;
}

static void websocket_unmask(struct origin_frame *frame, char *out, const char *in, size_t n) {
    uint8_t turned[8];
    for (unsigned i = 0; i < 8; i++)
        turned[i] = frame->mask[(frame->mask_at + i) & 3];
    uint64_t mask, word;
    memcpy(&mask, turned, 8);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= mask;
        memcpy(out + i, &word, 8);
    }
    for (; i < n; i++)
        out[i] = (char)(in[i] ^ turned[i & 7]);
    frame->mask_at = (uint8_t)((frame->mask_at + n) & 3);
}

/* True when the header of a frame is as a client's must be. */
static bool websocket_check(const struct origin_frame *frame, const uint8_t *head, uint64_t size) {
    bool fin = (head[0] & 0x80) != 0, control = frame->opcode >= FRAME_CLOSE;
    if ((head[0] & 0x70) || (size >> 63))
        return false;
    if (control)
        return fin && size <= ORIGIN_CONTROL_MAX && frame->opcode <= FRAME_PONG;
    if (frame->opcode > FRAME_BINARY)
        return false;
    return (frame->opcode == FRAME_CONTINUE) == frame->fragmented;
}

/* Reads one frame's header; 0: not complete. */
static size_t websocket_header(struct origin_peer *peer, const uint8_t *head, size_t n) {
    struct origin_frame *frame = &peer->frame;
    if (n < 2)
        return 0;
    unsigned length = head[1] & 0x7f, extra = length == 126 ? 2 : length == 127 ? 8 : 0;
    size_t size_of_header = 2 + extra + 4;
    bool masked = (head[1] & 0x80) != 0;
    if (masked && n < size_of_header)
        return 0;
    if (!masked) {
        websocket_fail(peer, 1002);
        return n;
    }
    uint64_t size = extra ? 0 : length;
    for (unsigned i = 0; i < extra; i++)
        size = size << 8 | head[2 + i];
    frame->opcode = head[0] & 0x0f;
    if (!websocket_check(frame, head, size)) {
        websocket_fail(peer, 1002);
        return n;
    }
    frame->left = size;
    frame->mask_at = frame->control_size = 0;
    frame->inside = true;
    memcpy(frame->mask, head + 2 + extra, 4);
    if (frame->opcode < FRAME_CLOSE) {
        frame->fragmented = !(head[0] & 0x80);
        websocket_put_header(peer, head[0], size);
    }
    return size_of_header;
}

static void websocket_frame_end(struct origin_peer *peer) {
    struct origin_frame *frame = &peer->frame;
    frame->inside = false;
    if (frame->opcode == FRAME_PING || frame->opcode == FRAME_CLOSE) {
        uint8_t answer = frame->opcode == FRAME_PING ? FRAME_PONG : FRAME_CLOSE;
        websocket_put_header(peer, 0x80 | answer, frame->control_size);
        origin_peer_put(peer, frame->control, frame->control_size);
    }
    if (frame->opcode == FRAME_CLOSE)
        peer->closing = true;
}

static size_t websocket_payload(struct origin_peer *peer, const char *data, size_t n) {
    struct origin_frame *frame = &peer->frame;
    size_t used = n < frame->left ? n : (size_t)frame->left;
    if (frame->opcode >= FRAME_CLOSE) {
        websocket_unmask(frame, frame->control + frame->control_size, data, used);
        frame->control_size = (uint8_t)(frame->control_size + used);
    } else if (used) {
        char *out = origin_peer_put_reserve(peer, used);
        if (!out)
            return used;
        websocket_unmask(frame, out, data, used);
        origin_peer_put_commit(peer, used);
    }
    frame->left -= used;
    if (frame->left == 0)
        websocket_frame_end(peer);
    return used;
}

size_t origin_websocket_input(struct origin_peer *peer, const char *data, size_t n) {
    size_t off = 0;
    while (!peer->closing) {
        if (!peer->frame.inside) {
            size_t used = websocket_header(peer, (const uint8_t *)data + off, n - off);
            if (used == 0)
                break;
            off += used;
            if (peer->closing || peer->frame.left > 0)
                continue;
        } else if (off == n) {
            break;
        }
        off += websocket_payload(peer, data + off, n - off);
    }
    return off;
}
