/* SPDX-License-Identifier: MIT */
/*
 * RFC 6455 section 5.2, header by header. Input may be cut anywhere: header bytes are gathered in the reader, of a
 * payload only the count of what is left is kept. What the RFC calls a failure is one here: reserved bits and opcodes,
 * lengths not in their shortest form, fragmented or long control frames, masking by the wrong side, and continuations
 * that continue nothing.
 */
#include "wire/frame.h"

#include <assert.h>


enum frame_state { FRAME_STATE_HEADER, FRAME_STATE_PAYLOAD, FRAME_STATE_BAD };

void frame_reader_init(struct frame_reader *reader, enum frame_from from, uint8_t rsv_allowed) {
    *reader = (struct frame_reader){.from = from, .rsv_allowed = rsv_allowed, .state = FRAME_STATE_HEADER, .need = 2};
}

static enum frame_event frame_fail(struct frame_reader *reader, const char *reason) {
    reader->state = FRAME_STATE_BAD;
    reader->reason = reason;
    return FRAME_BAD;
}

/* What the first two bytes say; NULL when that is allowed. */
static const char *frame_check_start(const struct frame_reader *reader) {
    const struct frame_header *header = &reader->header;
    if (header->rsv & ~reader->rsv_allowed)
        return "reserved bit set";
    if (header->masked != (reader->from == FRAME_FROM_CLIENT))
        return header->masked ? "masked frame of a server" : "unmasked frame of a client";
    if (frame_is_control(header->opcode)) {
        if (header->opcode > FRAME_PONG)
            return "reserved opcode";
        if (!header->fin)
            return "fragmented control frame";
        return (reader->bytes[1] & 0x7f) > FRAME_CONTROL_MAX ? "control frame of more than 125 bytes" : NULL;
    }
    if (header->opcode > FRAME_BINARY)
        return "reserved opcode";
    if (reader->in_message && header->opcode != FRAME_CONTINUATION)
        return "new message inside a fragmented one";
    if (!reader->in_message && header->opcode == FRAME_CONTINUATION)
        return "continuation of nothing";
    return NULL;
}

static const char *frame_read_start(struct frame_reader *reader) {
    const unsigned char *bytes = reader->bytes;
    struct frame_header *header = &reader->header;
    *header = (struct frame_header){.opcode = (enum frame_opcode)(bytes[0] & 0x0f),
                                    .fin = (bytes[0] & 0x80) != 0,
                                    .rsv = (uint8_t)(bytes[0] >> 4 & 7),
                                    .masked = (bytes[1] & 0x80) != 0};
    const unsigned length = bytes[1] & 0x7f;
    reader->need = (uint8_t)(2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + (header->masked ? 4 : 0));
    return frame_check_start(reader);
}

static const char *frame_read_rest(struct frame_reader *reader) {
    struct frame_header *header = &reader->header;
    const unsigned char *bytes = reader->bytes;
    const unsigned length = bytes[1] & 0x7f, size = length == 126 ? 2 : length == 127 ? 8 : 0;
    uint64_t value = size ? 0 : length;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | bytes[2 + i];
    if ((size == 2 && value < 126) || (size == 8 && value <= UINT16_MAX))
        return "length not in its shortest form";
    if (value >> 63)
        return "length above 2^63";
    header->length = value;
    for (unsigned i = 0; header->masked && i < sizeof header->mask; i++)
        header->mask[i] = bytes[2 + size + i];
    return NULL;
}

/* Gathers header bytes; FRAME_MORE until the header is whole. */
static enum frame_event frame_take_header(struct frame_reader *reader, const char *data, size_t n, size_t *used) {
    while (*used < n) {
        reader->bytes[reader->have++] = (unsigned char)data[(*used)++];
        const char *reason = reader->have == 2 ? frame_read_start(reader) : NULL;
        if (!reason && reader->have == reader->need)
            reason = frame_read_rest(reader);
        if (reason)
            return frame_fail(reader, reason);
        if (reader->have < reader->need)
            continue;
        if (!frame_is_control(reader->header.opcode))
            reader->in_message = !reader->header.fin;
        reader->offset = 0;
        reader->state = FRAME_STATE_PAYLOAD;
        return FRAME_BEGIN;
    }
    return FRAME_MORE;
}

enum frame_event frame_next(struct frame_reader *reader, const char *data, size_t n, size_t *used, struct span *payload) {
    *used = 0;
    *payload = SPAN_NULL;
    if (reader->state == FRAME_STATE_BAD)
        return FRAME_BAD;
    if (reader->state == FRAME_STATE_HEADER)
        return frame_take_header(reader, data, n, used);
    const uint64_t left = reader->header.length - reader->offset;
    if (left == 0) {
        reader->state = FRAME_STATE_HEADER;
        reader->have = 0;
        reader->need = 2;
        return FRAME_END;
    }
    if (n == 0)
        return FRAME_MORE;
    *used = left < n ? (size_t)left : n;
    *payload = span_make(data, *used);
    reader->offset += *used;
    return FRAME_PAYLOAD;
}

bool frame_at_boundary(const struct frame_reader *reader) {
    return reader->state == FRAME_STATE_HEADER && reader->have == 0;
}

size_t frame_write_header(const struct frame_header *header, unsigned char out[FRAME_HEADER_MAX]) {
    assert(header->length >> 63 == 0);
    const unsigned size = header->length < 126 ? 0 : header->length <= UINT16_MAX ? 2 : 8;
    const unsigned length = size == 0 ? (unsigned)header->length : size == 2 ? 126 : 127;
    size_t used = 0;
    out[used++] = (unsigned char)((header->fin ? 0x80u : 0u) | ((unsigned)header->rsv & 7u) << 4 | (unsigned)header->opcode);
    out[used++] = (unsigned char)((header->masked ? 0x80u : 0u) | length);
    for (unsigned i = size; i > 0; i--)
        out[used++] = (unsigned char)(header->length >> (8 * (i - 1)));
    for (unsigned i = 0; header->masked && i < sizeof header->mask; i++)
        out[used++] = header->mask[i];
    return used;
}

void frame_mask(char *data, size_t n, const unsigned char mask[4], uint64_t offset) {
    for (size_t i = 0; i < n; i++)
        data[i] = (char)((unsigned char)data[i] ^ mask[(offset + i) & 3]);
}

unsigned frame_close_code(struct span payload) {
    if (payload.n == 0)
        return 1005;
    if (payload.n == 1)
        return 0;
    const unsigned code = (unsigned)(unsigned char)payload.p[0] << 8 | (unsigned char)payload.p[1];
    /* 1004 to 1006 and 1015 never stand in a frame; 1012 to 1014 came after the RFC, by its registry. */
    const bool allowed = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
    return allowed ? code : 0;
}
