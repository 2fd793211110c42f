/* SPDX-License-Identifier: MIT */
/*
 * frame: the frames of RFC 6455 section 5: headers in, byte by byte, and out; masking; close codes. A reader holds no
 * payload: it tells which bytes of the input are payload, so that the same code reads the frames of our own probes and
 * watches those of tunnels.
 */
#ifndef MOONGATE_WIRE_FRAME_H
#define MOONGATE_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define FRAME_HEADER_MAX 14
#define FRAME_CONTROL_MAX 125 /* payload bytes of a control frame */

enum frame_opcode {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

struct frame_header {
    enum frame_opcode opcode;
    bool fin;
    uint8_t rsv; /* RSV1 is 4, RSV2 2, RSV3 1 */
    bool masked;
    unsigned char mask[4];
    uint64_t length; /* of the payload */
};

enum frame_event {
    FRAME_MORE,    /* all input was used */
    FRAME_BEGIN,   /* reader->header is complete */
    FRAME_PAYLOAD, /* some bytes of it, as they came: masked if the header says so */
    FRAME_END,     /* the frame is complete; comes for empty ones too */
    FRAME_BAD      /* reader->reason says why; nothing more can be read */
};

enum frame_from {
    FRAME_FROM_SERVER, /* frames must not be masked */
    FRAME_FROM_CLIENT  /* frames must be masked */
};

struct frame_reader {
    struct frame_header header; /* of the frame under way, from FRAME_BEGIN on */
    uint64_t offset;            /* payload bytes given so far */
    const char *reason;         /* static, after FRAME_BAD */
    enum frame_from from;
    uint8_t rsv_allowed;        /* bits that an extension uses */
    uint8_t state;
    uint8_t have, need;         /* header bytes */
    unsigned char bytes[FRAME_HEADER_MAX];
    bool in_message;            /* a fragmented message is not yet complete */
};

/* rsv_allowed: bits that the extensions in force may set (permessage-deflate: 4). */
void frame_reader_init(struct frame_reader *reader, enum frame_from from, uint8_t rsv_allowed);
/*
 * The next event of the input; *used bytes of it are done with, *payload (part of the input) is set for FRAME_PAYLOAD.
 * Call again with what is left until FRAME_MORE.
 */
enum frame_event frame_next(struct frame_reader *reader, const char *data, size_t n, size_t *used, struct span *payload);
/* No frame is under way: a frame of our own may be put in here. */
bool frame_at_boundary(const struct frame_reader *reader);
static inline bool frame_is_control(enum frame_opcode opcode) { return ((unsigned)opcode & 8u) != 0; }

/* Writes a header with the shortest length there is; returns its size. */
size_t frame_write_header(const struct frame_header *header, unsigned char out[FRAME_HEADER_MAX]);
/* Masks or unmasks n bytes in place; offset: how many bytes of the payload come before them. */
void frame_mask(char *data, size_t n, const unsigned char mask[4], uint64_t offset);
/*
 * The code of an unmasked Close payload: 1005 for an empty one; 0 if it is malformed: one byte, or a code that may not
 * be sent (RFC 6455 section 7.4).
 */
unsigned frame_close_code(struct span payload);

#endif
