/* SPDX-License-Identifier: MIT */
/*
 * buf: a byte queue in one piece of memory, doubling from 1 KiB to its cap. Unread bytes are moved to the
 * front only when at least a quarter of the memory was read already (or growing is no longer possible), so
 * that moving stays cheap for each byte. An empty buffer starts over at the front at no cost.
 */
#include "base/buf.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/digits.h"
#include "base/mem.h"

#define BUF_FIRST_SIZE 1024u

void buf_init(struct buf *buf, size_t cap) { *buf = (struct buf){.cap = cap}; }

void buf_release(struct buf *buf) {
    mem_free(buf->data);
    *buf = (struct buf){.cap = buf->cap};
}

static void buf_move_front(struct buf *buf) {
    if (buf->off == 0)
        return;
    memmove(buf->data, buf->data + buf->off, buf->len);
    buf->off = 0;
}

static bool buf_grow(struct buf *buf, size_t need) {
    size_t size = buf->size ? buf->size : BUF_FIRST_SIZE;
    while (size < need && size <= SIZE_MAX / 2)
        size *= 2;
    if (size < need || size > buf->cap)
        size = buf->cap;
    char *data = mem_try_resize(buf->data, size);
    if (!data)
        return false;
    buf->data = data;
    buf->size = size;
    return true;
}

bool buf_reserve(struct buf *buf, size_t n) {
    assert(buf->len <= buf->cap);
    if (n <= buf->size - buf->off - buf->len)
        return true;
    if (n > buf->cap - buf->len)
        return false;
    size_t need = buf->len + n;
    if (need <= buf->size && (buf->off >= buf->size / 4 || buf->size == buf->cap)) {
        buf_move_front(buf);
        return true;
    }
    /* Growing although a move alone would do: too little was read for moves to pay. */
    if (!buf_grow(buf, need > buf->size ? need : buf->size + 1) && need > buf->size)
        return false;
    buf_move_front(buf);
    return true;
}

char *buf_tail(struct buf *buf) { return buf->data ? buf->data + buf->off + buf->len : NULL; }

size_t buf_room(const struct buf *buf) { return buf->size - buf->off - buf->len; }

void buf_commit(struct buf *buf, size_t n) {
    assert(n <= buf_room(buf));
    buf->len += n;
}

bool buf_append(struct buf *buf, const void *p, size_t n) {
    if (n == 0)
        return true;
    if (!buf_reserve(buf, n))
        return false;
    memcpy(buf->data + buf->off + buf->len, p, n);
    buf->len += n;
    return true;
}

bool buf_append_span(struct buf *buf, struct span s) { return buf_append(buf, s.p, s.n); }

bool buf_append_text(struct buf *buf, const char *text) { return buf_append(buf, text, strlen(text)); }

bool buf_append_u64(struct buf *buf, unsigned long long value) {
    char digits[DIGITS_MAX];
    return buf_append(buf, digits, digits_format(digits, value));
}

bool buf_printf(struct buf *buf, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n < 0)
        return false;
    size_t length = (size_t)n;
    if (length < sizeof(text))
        return buf_append(buf, text, length);
    if (length > buf->cap - buf->len)
        return false;
    /* A piece of its own, because vsnprintf wants room for a NUL that the cap may not leave. */
    char *large = mem_try_alloc(length + 1);
    if (!large)
        return false;
    va_start(args, format);
    n = vsnprintf(large, length + 1, format, args);
    va_end(args);
    bool ok = n >= 0 && buf_append(buf, large, length);
    mem_free(large);
    return ok;
}

struct span buf_span(const struct buf *buf) {
    return span_make(buf->data ? buf->data + buf->off : "", buf->len);
}

void buf_consume(struct buf *buf, size_t n) {
    assert(n <= buf->len);
    buf->len -= n;
    buf->off = buf->len ? buf->off + n : 0;
}
