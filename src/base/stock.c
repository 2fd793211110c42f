/* SPDX-License-Identifier: MIT */
/*
 * stock: a short stack of blocks. malloc() has such caches, too, but only for blocks up to 1 KiB and seven a size, which a batch of requests
 * exceeds. The subtle thing: under AddressSanitizer nothing is kept, or it could not see a buffer that is used after its release.
 */
#include "base/stock.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define STOCK_KEEPS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STOCK_KEEPS false
#endif
#endif
#ifndef STOCK_KEEPS
#define STOCK_KEEPS true
#endif

void stock_init(struct stock *stock, size_t size) {
    assert(size > 0);
    memset(stock, 0, sizeof *stock);
    stock->size = size;
}

void stock_fini(struct stock *stock) {
    while (stock->count > 0)
        mem_free(stock->blocks[--stock->count]);
}

void stock_lend(struct stock *stock, struct buf *buf) {
    if (buf->data || buf->cap < stock->size)
        return;
    assert(buf->len == 0);
    char *block = stock->count > 0 ? stock->blocks[--stock->count] : mem_try_alloc(stock->size);
    if (!block)
        return;
    buf->data = block;
    buf->size = stock->size;
    buf->off = 0;
}

void stock_take_back(struct stock *stock, struct buf *buf) {
    if (!buf->data)
        return;
    if (STOCK_KEEPS && buf->size == stock->size && stock->count < STOCK_MAX) {
        stock->blocks[stock->count++] = buf->data;
        buf->data = NULL;
    }
    buf_release(buf);
}
