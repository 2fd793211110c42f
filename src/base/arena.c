/* SPDX-License-Identifier: MIT */
/*
 * arena: bump allocation in chunks of ARENA_CHUNK bytes; a piece that would waste much of a chunk gets memory
 * of its own. Such a piece is linked behind the first chunk, so that small pieces keep filling the chunk at
 * the front. The cap counts bytes handed out (rounded up to 8), not those of half-filled chunks.
 */
#include "base/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

struct arena_chunk {
    struct arena_chunk *next;
    uint32_t used, room; /* of data[]; both 0 in a chunk that holds one large piece */
    bool lent;           /* by the slab */
    char data[] __attribute__((aligned(16)));
};

#define ARENA_ROOM (ARENA_CHUNK - sizeof(struct arena_chunk))
#define ARENA_LARGE (ARENA_ROOM / 2)

void arena_init(struct arena *arena, struct slab *chunks, size_t cap) {
    assert(!chunks || chunks->size >= ARENA_CHUNK);
    *arena = (struct arena){.chunks = chunks, .cap = cap};
}

void arena_fini(struct arena *arena) {
    struct arena_chunk *chunk = arena->first;
    while (chunk) {
        struct arena_chunk *next = chunk->next;
        if (chunk->lent)
            slab_put(arena->chunks, chunk);
        else
            mem_free(chunk);
        chunk = next;
    }
    arena->first = NULL;
    arena->used = 0;
}

static void *arena_alloc_large(struct arena *arena, size_t size) {
    struct arena_chunk *chunk = mem_try_alloc(sizeof(*chunk) + size);
    if (!chunk)
        return NULL;
    chunk->used = chunk->room = 0;
    chunk->lent = false;
    if (arena->first) {
        chunk->next = arena->first->next;
        arena->first->next = chunk;
    } else {
        chunk->next = NULL;
        arena->first = chunk;
    }
    return chunk->data;
}

static struct arena_chunk *arena_add_chunk(struct arena *arena) {
    struct arena_chunk *chunk = arena->chunks ? slab_try_get(arena->chunks) : mem_try_alloc(ARENA_CHUNK);
    if (!chunk)
        return NULL;
    chunk->lent = arena->chunks != NULL;
    chunk->used = 0;
    chunk->room = (uint32_t)ARENA_ROOM;
    chunk->next = arena->first;
    arena->first = chunk;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size) {
    if (size > arena->cap)
        return NULL;
    size = size ? (size + 7u) & ~(size_t)7u : 8u;
    if (size > arena->cap - arena->used)
        return NULL;
    struct arena_chunk *chunk = arena->first;
    void *p;
    if (chunk && size <= chunk->room - chunk->used) {
        p = chunk->data + chunk->used;
        chunk->used += (uint32_t)size;
    } else if (size > ARENA_LARGE) {
        p = arena_alloc_large(arena, size);
    } else {
        chunk = arena_add_chunk(arena);
        if (chunk)
            chunk->used = (uint32_t)size;
        p = chunk ? chunk->data : NULL;
    }
    if (p)
        arena->used += size;
    return p;
}

struct span arena_dup(struct arena *arena, struct span s) {
    if (s.n == SIZE_MAX)
        return SPAN_NULL;
    char *p = arena_alloc(arena, s.n + 1);
    if (!p)
        return SPAN_NULL;
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return span_make(p, s.n);
}

struct span arena_printf(struct arena *arena, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n < 0)
        return SPAN_NULL;
    size_t length = (size_t)n;
    if (length < sizeof(text))
        return arena_dup(arena, span_make(text, length));
    char *p = arena_alloc(arena, length + 1);
    if (!p)
        return SPAN_NULL;
    va_start(args, format);
    n = vsnprintf(p, length + 1, format, args);
    va_end(args);
    return n < 0 ? SPAN_NULL : span_make(p, length);
}
