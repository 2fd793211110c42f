/* SPDX-License-Identifier: MIT */
/*
 * heap: the timer queue's order. Nodes are moved by writing each one once into the hole that travels up or
 * down, not by swapping. Places are 1-based, so that a zeroed node is known to be in no heap.
 */
#include "base/heap.h"

#include <assert.h>

#include "base/mem.h"

#define HEAP_FIRST_CAP 64u

void heap_init(struct heap *heap) { *heap = (struct heap){0}; }

void heap_fini(struct heap *heap) {
    for (uint32_t i = 1; i <= heap->count; i++)
        heap->nodes[i]->place = 0;
    mem_free(heap->nodes);
    *heap = (struct heap){0};
}

static void heap_set(struct heap *heap, uint32_t place, struct heap_node *node) {
    heap->nodes[place] = node;
    node->place = place;
}

static void heap_sift_up(struct heap *heap, uint32_t hole, struct heap_node *node) {
    while (hole > 1 && heap->nodes[hole / 2]->key > node->key) {
        heap_set(heap, hole, heap->nodes[hole / 2]);
        hole /= 2;
    }
    heap_set(heap, hole, node);
}

static void heap_sift_down(struct heap *heap, uint32_t hole, struct heap_node *node) {
    while (hole <= heap->count / 2) {
        uint32_t child = hole * 2;
        if (child < heap->count && heap->nodes[child + 1]->key < heap->nodes[child]->key)
            child++;
        if (heap->nodes[child]->key >= node->key)
            break;
        heap_set(heap, hole, heap->nodes[child]);
        hole = child;
    }
    heap_set(heap, hole, node);
}

void heap_insert(struct heap *heap, struct heap_node *node) {
    assert(node->place == 0);
    if (heap->count + 1 >= heap->cap) {
        heap->cap = heap->cap ? heap->cap * 2 : HEAP_FIRST_CAP;
        heap->nodes = mem_resize(heap->nodes, (size_t)heap->cap * sizeof(struct heap_node *));
    }
    heap->count++;
    heap_sift_up(heap, heap->count, node);
}

void heap_remove(struct heap *heap, struct heap_node *node) {
    uint32_t place = node->place;
    if (place == 0)
        return;
    assert(place <= heap->count && heap->nodes[place] == node);
    struct heap_node *last = heap->nodes[heap->count];
    heap->count--;
    node->place = 0;
    if (last == node)
        return;
    if (place > 1 && heap->nodes[place / 2]->key > last->key)
        heap_sift_up(heap, place, last);
    else
        heap_sift_down(heap, place, last);
}

struct heap_node *heap_top(const struct heap *heap) { return heap->count ? heap->nodes[1] : NULL; }
