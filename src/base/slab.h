/* SPDX-License-Identifier: MIT */
/*
 * slab: objects of one size for one thread, carved from pages of 64 KiB, so that ten thousand idle
 * tunnels do not fragment the heap. Not thread-safe: a slab belongs to its thread. Under ASan
 * (MOONGATE_SLAB_MALLOC) each object is its own allocation, so that misuse is seen.
 */
#ifndef MOONGATE_BASE_SLAB_H
#define MOONGATE_BASE_SLAB_H

#include <stddef.h>

struct slab {
    size_t size;       /* of one object, rounded up to 16 */
    void *free_list;   /* objects that came back */
    void *pages;
    char *fresh, *fresh_end; /* the part of the newest page that was never handed out: untouched, so not resident */
    size_t live;       /* objects handed out */
};

void slab_init(struct slab *slab, size_t size);
/* Frees all pages; every object must be back (asserted). */
void slab_fini(struct slab *slab);
/* Zeroed object; never NULL (aborts when memory is out). */
void *slab_get(struct slab *slab);
/* Object with undefined contents; NULL when memory is out. */
void *slab_try_get(struct slab *slab);
void slab_put(struct slab *slab, void *object);

#endif
