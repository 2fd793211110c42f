/* SPDX-License-Identifier: MIT */
/*
 * metrics: each thread adds to a block of its own, alone on its cache lines, by a plain load and store;
 * readers sum over all blocks. Blocks stay when their thread ends, so that sums never go back; the next new
 * thread goes on adding to such a block. Relaxed order is enough: a counter says how often, not what happened
 * before what.
 */
#include "base/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct metrics_block {
    _Alignas(64) _Atomic(uint64_t) values[METRIC_COUNT];
    struct metrics_block *next;
    bool owned; /* by a living thread; under metrics_lock */
};

static pthread_mutex_t metrics_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct metrics_block *) metrics_list;
static _Thread_local struct metrics_block *metrics_own;
static pthread_once_t metrics_once = PTHREAD_ONCE_INIT;
static pthread_key_t metrics_key;

static const struct {
    const char *name, *help;
} metrics_texts[METRIC_COUNT] = {
#define METRICS_TEXT(name, help) {#name, help},
    METRICS(METRICS_TEXT)
#undef METRICS_TEXT
};

static void metrics_on_thread_end(void *owner) {
    struct metrics_block *block = owner;
    pthread_mutex_lock(&metrics_lock);
    block->owned = false;
    pthread_mutex_unlock(&metrics_lock);
    metrics_own = NULL;
}

static void metrics_make_key(void) { (void)pthread_key_create(&metrics_key, metrics_on_thread_end); }

void metrics_attach(void) {
    if (metrics_own)
        return;
    pthread_once(&metrics_once, metrics_make_key);
    pthread_mutex_lock(&metrics_lock);
    struct metrics_block *block = atomic_load_explicit(&metrics_list, memory_order_relaxed);
    while (block && block->owned)
        block = block->next;
    if (!block) {
        block = aligned_alloc(_Alignof(struct metrics_block), sizeof(*block));
        if (!block)
            mem_abort();
        memset(block, 0, sizeof(*block));
        block->next = atomic_load_explicit(&metrics_list, memory_order_relaxed);
        atomic_store_explicit(&metrics_list, block, memory_order_release);
    }
    block->owned = true;
    pthread_mutex_unlock(&metrics_lock);
    (void)pthread_setspecific(metrics_key, block);
    metrics_own = block;
}

void metric_add(enum metric metric, uint64_t n) {
    assert(metric < METRIC_COUNT);
    if (!metrics_own)
        metrics_attach();
    _Atomic(uint64_t) *value = &metrics_own->values[metric];
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + n, memory_order_relaxed);
}

uint64_t metric_sum(enum metric metric) {
    assert(metric < METRIC_COUNT);
    uint64_t sum = 0;
    struct metrics_block *block = atomic_load_explicit(&metrics_list, memory_order_acquire);
    for (; block; block = block->next)
        sum += atomic_load_explicit(&block->values[metric], memory_order_relaxed);
    return sum;
}

const char *metric_name(enum metric metric) { return metric < METRIC_COUNT ? metrics_texts[metric].name : NULL; }

const char *metric_help(enum metric metric) { return metric < METRIC_COUNT ? metrics_texts[metric].help : NULL; }

bool metrics_append_json(struct buf *buf) {
    bool ok = buf_append_text(buf, "{");
    for (unsigned i = 0; ok && i < METRIC_COUNT; i++) {
        ok = buf_append_text(buf, i ? ",\"" : "\"") && buf_append_text(buf, metrics_texts[i].name) &&
             buf_append_text(buf, "\":") && buf_append_u64(buf, metric_sum((enum metric)i));
    }
    return ok && buf_append_text(buf, "}");
}
