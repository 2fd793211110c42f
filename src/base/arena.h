/* SPDX-License-Identifier: MIT */
/*
 * arena: memory that lives as long as one request (or one load), freed at once. Bump allocation from
 * chunks that a slab lends; larger pieces come from the heap. Capped: NULL above the cap.
 */
#ifndef MOONGATE_BASE_ARENA_H
#define MOONGATE_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/slab.h"
#include "base/span.h"

#define ARENA_CHUNK 2048 /* bytes a chunk; initialise the chunk slab with this size */

struct arena_chunk;

struct arena {
    struct slab *chunks;       /* borrowed; NULL: chunks come from the heap */
    struct arena_chunk *first; /* newest first */
    size_t used;               /* bytes handed out */
    size_t cap;
};

void arena_init(struct arena *arena, struct slab *chunks, size_t cap);
void arena_fini(struct arena *arena);
/* size bytes aligned to 8, contents undefined; NULL above the cap or out of memory. */
void *arena_alloc(struct arena *arena, size_t size);
/* NUL-terminated copy of s; .p is NULL on failure. */
struct span arena_dup(struct arena *arena, struct span s);
/* printf into the arena, NUL-terminated; .p is NULL on failure. */
struct span arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
