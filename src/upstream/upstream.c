/* SPDX-License-Identifier: MIT */
/*
 * What one thread needs to talk to servers. All of it belongs to that thread, so nothing here locks. The slabs are
 * asserted empty at the end: a forgotten exchange shows in every test that stops a worker.
 */
#include "upstream/upstream.h"

#include <assert.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "upstream/exchange.h"

void upstream_init(struct upstream *upstream, struct loop *loop) {
    assert(upstream && loop);
    *upstream = (struct upstream){.loop = loop};
    upstream->scratch = mem_alloc(UPSTREAM_SCRATCH);
    exchange_init_slab(&upstream->exchanges);
    slab_init(&upstream->chunks, ARENA_CHUNK);
    upstream->idle = idle_new(upstream);
}

void upstream_fini(struct upstream *upstream) {
    idle_free(&upstream->idle);
    slab_fini(&upstream->exchanges);
    slab_fini(&upstream->chunks);
    mem_free(upstream->scratch);
    upstream->scratch = NULL;
}

void upstream_close_conn(struct upstream *upstream, struct conn **conn) {
    if (!*conn)
        return;
    conn_close(conn);
    if (!upstream->is_probe)
        metric_add(METRIC_server_closed, 1);
}
