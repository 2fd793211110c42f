/* SPDX-License-Identifier: MIT */
/*
 * When names are asked for again. Each has a timer of its own, a tenth of its period early at random, so that many names
 * do not all ask at once; the lifetime that records carry is not looked at, because `resolve` says how stale an answer
 * may be. An answer that fails changes nothing: pool_names.c keeps the last good one.
 */
#include "upstream/names.h"

#include <assert.h>

#include "base/clock.h"
#include "base/mem.h"
#include "upstream/resolve.h"

#define NAMES_TIMEOUT_MS 10000

struct names_watch {
    struct names *names;
    struct pool *pool;
    struct pool_name *name;
    struct timer timer;
    struct resolve *job;
};

struct names {
    struct loop *loop;
    struct resolver *resolver;
    struct prober *prober;
    void (*on_change)(void *owner, struct server *server);
    void *owner;
    uint64_t random;
    struct names_watch *list;
    unsigned count;
    struct pool *changing; /* whose servers change just now */
};

static void names_on_change(void *owner, struct server *server, bool came) {
    struct names *names = owner;
    if (came)
        prober_add(names->prober, names->changing, server);
    else
        prober_remove(names->prober, server);
    names->on_change(names->owner, server);
}

static void names_plan(struct names_watch *watch) {
    struct names *names = watch->names;
    uint64_t pace_ms = pool_resolve_pace_ms(watch->pool, watch->name), tenth = pace_ms / 10;
    if (pace_ms == 0)
        return;
    names->random ^= names->random << 13;
    names->random ^= names->random >> 7;
    names->random ^= names->random << 17;
    timer_set(names->loop, &watch->timer, pace_ms - (tenth ? names->random % tenth : 0));
}

static void names_on_resolved(void *owner, const struct resolve_answer *answer) {
    struct names_watch *watch = owner;
    struct names *names = watch->names;
    watch->job = NULL;
    names->changing = watch->pool;
    pool_update_name(watch->pool, watch->name, answer, names_on_change, names);
    names_plan(watch);
}

static void names_on_timer(struct timer *timer) {
    struct names_watch *watch = container_of(timer, struct names_watch, timer);
    const struct config_server *config = watch->name->config;
    assert(!watch->job);
    watch->job = resolve_start(watch->names->resolver, config->host, config->port, config->srv, NAMES_TIMEOUT_MS,
                               names_on_resolved, watch);
}

struct names *names_new(struct loop *loop, struct pool *const *pools, unsigned pool_count, const char *nameservers,
                        struct prober *prober, void (*on_change)(void *owner, struct server *server), void *owner) {
    unsigned count = 0;
    for (unsigned i = 0; i < pool_count; i++)
        count += pools[i]->name_count;
    if (count == 0)
        return NULL;
    struct names *names = mem_alloc(sizeof *names);
    names->loop = loop;
    names->resolver = resolver_new(loop, nameservers);
    names->prober = prober;
    names->on_change = on_change;
    names->owner = owner;
    names->random = clock_us() | 1;
    names->list = mem_alloc_array(count, sizeof *names->list);
    for (unsigned i = 0; i < pool_count; i++) {
        for (unsigned k = 0; k < pools[i]->name_count; k++) {
            struct names_watch *watch = &names->list[names->count++];
            *watch = (struct names_watch){.names = names, .pool = pools[i], .name = &pools[i]->names[k]};
            timer_init(&watch->timer, names_on_timer);
            names_plan(watch);
        }
    }
    return names;
}

void names_free(struct names **slot) {
    struct names *names = *slot;
    *slot = NULL;
    if (!names)
        return;
    for (unsigned i = 0; i < names->count; i++) {
        timer_stop(names->loop, &names->list[i].timer);
        resolve_cancel(&names->list[i].job);
    }
    resolver_free(&names->resolver);
    mem_free(names->list);
    mem_free(names);
}
