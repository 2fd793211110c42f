/* SPDX-License-Identifier: MIT */
/*
 * heap: intrusive binary min-heap ordered by a 64-bit key. Each node knows its place, so that removal
 * is O(log n). Grows by doubling, aborts when memory is out.
 */
#ifndef MOONGATE_BASE_HEAP_H
#define MOONGATE_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;
    uint32_t place; /* 1-based; 0: not in a heap */
};

struct heap {
    struct heap_node **nodes; /* nodes[1..count] */
    uint32_t count, cap;
};

void heap_init(struct heap *heap);
void heap_fini(struct heap *heap);
void heap_insert(struct heap *heap, struct heap_node *node);
void heap_remove(struct heap *heap, struct heap_node *node);
/* The node with the smallest key, or NULL. */
struct heap_node *heap_top(const struct heap *heap);

#endif
