/* SPDX-License-Identifier: MIT */
/*
 * buf: a growing byte queue with a cap: append at the end, consume at the front. The cap is named
 * where the buffer is made; an append beyond it (or without memory) returns false and changes nothing.
 * Empty and released it holds no memory. data + off is the first byte, len the count of unread ones.
 */
#ifndef MOONGATE_BASE_BUF_H
#define MOONGATE_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct buf {
    char *data;
    size_t off, len; /* unread bytes are data[off .. off+len) */
    size_t size;     /* allocated */
    size_t cap;      /* off + len never exceeds this */
};

void buf_init(struct buf *buf, size_t cap);
/* Releases the memory; the buffer may be used again with the same cap. */
void buf_release(struct buf *buf);
/* Makes room for n more bytes at the end (moving or growing); false above the cap or without memory. */
bool buf_reserve(struct buf *buf, size_t n);
/* Where the next byte goes, and how much fits without growing. After writing there call buf_commit(). */
char *buf_tail(struct buf *buf);
size_t buf_room(const struct buf *buf);
void buf_commit(struct buf *buf, size_t n);
bool buf_append(struct buf *buf, const void *p, size_t n);
bool buf_append_span(struct buf *buf, struct span s);
bool buf_append_text(struct buf *buf, const char *text);
bool buf_append_u64(struct buf *buf, unsigned long long value);
bool buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The unread bytes. Valid until the next append, reserve or release. */
struct span buf_span(const struct buf *buf);
/* Drops n unread bytes from the front (n <= len). */
void buf_consume(struct buf *buf, size_t n);
static inline bool buf_empty(const struct buf *buf) { return buf->len == 0; }

#endif
