/* SPDX-License-Identifier: MIT */
/*
 * slab: a free list in front of pages of 64 KiB. A page is carved from its start on demand instead of being
 * threaded onto the free list at once, so that its untouched rest costs no resident memory. Pages go back to
 * the system only at slab_fini(): a slab keeps its high-water mark. The subtle thing is the page size: 64 KiB
 * less one cache line, aligned to a cache line, because malloc would waste as much again between pages aligned
 * to their own size.
 */
#include "base/slab.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__) && !defined(MOONGATE_SLAB_MALLOC)
#define MOONGATE_SLAB_MALLOC
#elif defined(__has_feature) && !defined(MOONGATE_SLAB_MALLOC)
#if __has_feature(address_sanitizer)
#define MOONGATE_SLAB_MALLOC
#endif
#endif

#define SLAB_LINE 64u
#define SLAB_PAGE (65536u - SLAB_LINE)

/* At the start of each page; the objects start one cache line behind. */
struct slab_page {
    struct slab_page *next;
};

/* In each object that is free. */
struct slab_free {
    struct slab_free *next;
};

void slab_init(struct slab *slab, size_t size) {
    assert(size > 0 && size <= SLAB_PAGE - SLAB_LINE);
    memset(slab, 0, sizeof(*slab));
    slab->size = (size + 15u) & ~(size_t)15u;
}

#ifdef MOONGATE_SLAB_MALLOC

void slab_fini(struct slab *slab) {
    assert(slab->live == 0);
    memset(slab, 0, sizeof(*slab));
}

void *slab_try_get(struct slab *slab) {
    assert(slab->size > 0);
    void *object = mem_try_alloc(slab->size);
    if (object)
        slab->live++;
    return object;
}

void slab_put(struct slab *slab, void *object) {
    if (!object)
        return;
    assert(slab->live > 0);
    slab->live--;
    mem_free(object);
}

#else

void slab_fini(struct slab *slab) {
    assert(slab->live == 0);
    struct slab_page *page = slab->pages;
    while (page) {
        struct slab_page *next = page->next;
        free(page);
        page = next;
    }
    memset(slab, 0, sizeof(*slab));
}

static bool slab_add_page(struct slab *slab) {
    struct slab_page *page = aligned_alloc(SLAB_LINE, SLAB_PAGE);
    if (!page)
        return false;
    page->next = slab->pages;
    slab->pages = page;
    slab->fresh = (char *)page + SLAB_LINE;
    slab->fresh_end = (char *)page + SLAB_PAGE;
    return true;
}

void *slab_try_get(struct slab *slab) {
    assert(slab->size > 0);
    struct slab_free *object = slab->free_list;
    if (object) {
        slab->free_list = object->next;
        slab->live++;
        return object;
    }
    if ((size_t)(slab->fresh_end - slab->fresh) < slab->size && !slab_add_page(slab))
        return NULL;
    void *fresh = slab->fresh;
    slab->fresh += slab->size;
    slab->live++;
    return fresh;
}

void slab_put(struct slab *slab, void *object) {
    if (!object)
        return;
    assert(slab->live > 0);
    struct slab_free *node = object;
    node->next = slab->free_list;
    slab->free_list = node;
    slab->live--;
}

#endif

void *slab_get(struct slab *slab) {
    void *object = slab_try_get(slab);
    if (!object)
        mem_abort();
    memset(object, 0, slab->size);
    return object;
}
