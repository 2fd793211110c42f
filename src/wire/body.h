/* SPDX-License-Identifier: MIT */
/*
 * body: the only decoder of bodies: Content-Length, chunked with extensions and trailers (RFC 9112 sections 6
 * and 7), close-delimited, none. Pull interface, no copies, any cut of the input gives the same events.
 */
#ifndef MOONGATE_WIRE_BODY_H
#define MOONGATE_WIRE_BODY_H

#include "wire/http.h"

#define BODY_EXTENSION_MAX 256         /* bytes of extensions a chunk */
#define BODY_EXTENSIONS_MAX (16 * 1024) /* bytes of extensions a message */
#define BODY_TRAILER_MAX (8 * 1024)    /* bytes of the trailer section */

enum body_event {
    BODY_MORE, /* all input used, message not over */
    BODY_DATA, /* *data holds decoded bytes inside the input */
    BODY_END,  /* message over; bytes after *used belong to what follows */
    BODY_BAD   /* body->reason says why */
};

struct body {
    uint8_t kind;  /* enum http_body */
    uint8_t state; /* private */
    uint8_t digits;
    uint16_t extension;
    uint32_t extensions;
    uint64_t left;    /* of the length or chunk */
    uint64_t total;   /* decoded bytes so far */
    struct buf trailer; /* raw trailer lines, CRLF each, checked; empty until there are any */
    const char *reason;
};

void body_init(struct body *body, enum http_body kind, uint64_t content_length);
void body_fini(struct body *body);
/*
 * Decodes from in[0..n); *used is what this call consumed. Call again with the rest until BODY_MORE, BODY_END or
 * BODY_BAD. After BODY_END it keeps returning BODY_END with *used = 0. HTTP_BODY_NONE ends at once.
 */
enum body_event body_next(struct body *body, const char *in, size_t n, size_t *used, struct span *data);
/* n more bytes of an HTTP_BODY_LENGTH went past, unseen; at most what is left. */
void body_pass(struct body *body, size_t n);
/* The peer has closed: BODY_END for close-delimited bodies and ended ones, else BODY_BAD (truncated). */
enum body_event body_eof(struct body *body);
/*
 * Appends the trailer fields to message as live fields, except any that could change framing, routing or identity
 * (requirements A5). For forwarding behind the last chunk. False: out of memory.
 */
bool body_trailers(const struct body *body, struct http_message *message);

#endif
