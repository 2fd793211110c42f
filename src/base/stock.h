/* SPDX-License-Identifier: MIT */
/*
 * stock: memory of buffers, one size, that goes from one buffer to the next within a thread. Most requests then need no allocation for their
 * buffers. It keeps at most STOCK_MAX blocks; what a burst needed beyond goes back to the system.
 */
#ifndef MOONGATE_BASE_STOCK_H
#define MOONGATE_BASE_STOCK_H

#include "base/buf.h"

#define STOCK_MAX 64 /* blocks kept */

struct stock {
    size_t size; /* bytes of a block */
    unsigned count;
    char *blocks[STOCK_MAX]; /* the one used last is on top */
};

void stock_init(struct stock *stock, size_t size);
/* Frees what is kept. */
void stock_fini(struct stock *stock);
/* Gives an empty buffer that has no memory a block, kept or new, if its cap allows one and memory is there; else the buffer finds its own. */
void stock_lend(struct stock *stock, struct buf *buf);
/* Releases the buffer as buf_release() does; its memory is kept when it has the right size. */
void stock_take_back(struct stock *stock, struct buf *buf);

#endif
