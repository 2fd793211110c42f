/* SPDX-License-Identifier: MIT */
/*
 * Kept server connections of one thread. A group is all that may stand in for each other: same host, same address,
 * same digest of the pool's TLS and source. Newest first: under little load the oldest run into their timeout
 * instead of being kept alive in turn.
 *
 * One timer serves all: it runs at the earliest end, late by at most IDLE_SLACK_MS, which harms nobody because
 * idle_take() looks at the clock itself. So the path of a request never touches the timer heap.
 */
#include <assert.h>

#include "base/list.h"
#include "base/mem.h"
#include "base/slab.h"
#include "upstream/upstream.h"

#define IDLE_BUCKETS 128
#define IDLE_SLACK_MS 250

struct idle_group {
    struct idle_group *next; /* of its bucket */
    struct idle *idle;
    struct list entries; /* newest first */
    unsigned count;
    uint64_t identity, digest;
    struct addr addr;
};

struct idle_entry {
    struct list node;
    struct idle_group *group;
    struct conn *conn;
    uint64_t since_ms, until_ms;
};

struct idle {
    struct upstream *upstream;
    struct slab entries;
    struct timer timer;
    unsigned count;
    struct idle_group *buckets[IDLE_BUCKETS];
};

static void idle_on_timer(struct timer *timer);

struct idle *idle_new(struct upstream *upstream) {
    struct idle *idle = mem_alloc(sizeof *idle);
    idle->upstream = upstream;
    slab_init(&idle->entries, sizeof(struct idle_entry));
    timer_init(&idle->timer, idle_on_timer);
    return idle;
}

static struct idle_group **idle_bucket(struct idle *idle, uint64_t identity, uint64_t digest) {
    return &idle->buckets[(identity ^ digest ^ (digest >> 17)) % IDLE_BUCKETS];
}

static struct idle_group *idle_find(struct idle *idle, const struct server *server, uint64_t digest) {
    struct idle_group *group = *idle_bucket(idle, server->identity, digest);
    while (group && (group->identity != server->identity || group->digest != digest ||
                     !addr_equal(&group->addr, &server->addr)))
        group = group->next;
    return group;
}

/* Takes the entry out of everything; its conn is the caller's. */
static struct conn *idle_detach(struct idle_entry *entry) {
    struct idle_group *group = entry->group;
    struct conn *conn = entry->conn;
    list_remove(&entry->node);
    conn_set_owner(conn, NULL, NULL);
    group->count--;
    group->idle->count--;
    slab_put(&group->idle->entries, entry);
    return conn;
}

static void idle_close(struct idle_entry *entry) {
    struct upstream *upstream = entry->group->idle->upstream;
    struct conn *conn = idle_detach(entry);
    upstream_close_conn(upstream, &conn);
}

/*
 * Nothing may arrive here; session tickets inside TLS are not seen as arriving. Asks the kernel, whatever it told so
 * far.
 */
static bool idle_check(struct conn *conn) {
    conn->readable = true;
    if (!conn_is_quiet(conn))
        return false;
    if (!conn->tls)
        conn->readable = false; /* it was just asked; what comes later is a new edge */
    return true;
}

/*
 * What may be sent again is served by what the loop knows since the turn began; what may not, asks the kernel now.
 */
static bool idle_is_quiet(const struct idle *idle, struct conn *conn, bool ask) {
    bool known = loop_saw_all(idle->upstream->loop) && !conn->tls;
    if (ask || !known || conn->readable || conn->source.pending != 0)
        return idle_check(conn);
    return !conn->fin_seen && !conn->failed && !conn->eof;
}

static void idle_on_event(struct conn *conn) {
    struct idle_entry *entry = conn->owner;
    if (conn->fin_seen || conn->failed || (conn_may_read(conn) && !idle_check(conn)))
        idle_close(entry);
}

static struct idle_group *idle_make_group(struct idle *idle, const struct server *server, uint64_t digest) {
    struct idle_group *group = mem_alloc(sizeof *group);
    struct idle_group **bucket = idle_bucket(idle, server->identity, digest);
    group->idle = idle;
    list_init(&group->entries);
    group->identity = server->identity;
    group->digest = digest;
    group->addr = server->addr;
    group->next = *bucket;
    *bucket = group;
    return group;
}

void idle_put(struct idle *idle, struct conn *conn, const struct server *server, uint64_t digest, unsigned max,
              uint32_t timeout_ms) {
    assert(conn && server);
    if (max == 0 || timeout_ms == 0 || conn->fin_seen || conn->failed || (conn_may_read(conn) && !idle_check(conn))) {
        upstream_close_conn(idle->upstream, &conn);
        return;
    }
    struct idle_group *group = idle_find(idle, server, digest);
    if (!group)
        group = idle_make_group(idle, server, digest);
    while (group->count >= max)
        idle_close(container_of(group->entries.prev, struct idle_entry, node));
    struct idle_entry *entry = slab_get(&idle->entries);
    uint64_t now = loop_now_ms(idle->upstream->loop);
    list_init(&entry->node);
    entry->group = group;
    entry->conn = conn;
    entry->since_ms = now;
    entry->until_ms = now + timeout_ms;
    list_prepend(&group->entries, &entry->node);
    group->count++;
    idle->count++;
    conn_set_owner(conn, entry, idle_on_event);
    if (!timer_is_set(&idle->timer) || idle->timer.deadline_ms > entry->until_ms + IDLE_SLACK_MS)
        timer_set(idle->upstream->loop, &idle->timer, timeout_ms);
}

struct conn *idle_take(struct idle *idle, const struct server *server, uint64_t digest, uint64_t max_age_ms) {
    struct idle_group *group = idle_find(idle, server, digest);
    if (!group)
        return NULL;
    uint64_t now = loop_now_ms(idle->upstream->loop);
    while (group->count != 0) {
        struct idle_entry *entry = container_of(group->entries.next, struct idle_entry, node);
        if (max_age_ms != 0 && now - entry->since_ms > max_age_ms)
            return NULL; /* all others are older still */
        if (now < entry->until_ms && idle_is_quiet(idle, entry->conn, max_age_ms != 0))
            return idle_detach(entry);
        idle_close(entry);
    }
    return NULL;
}

/* Frees groups without entries in the bucket. */
static void idle_prune(struct idle_group **slot) {
    while (*slot) {
        struct idle_group *group = *slot;
        if (group->count != 0) {
            slot = &group->next;
            continue;
        }
        *slot = group->next;
        mem_free(group);
    }
}

static void idle_on_timer(struct timer *timer) {
    struct idle *idle = container_of(timer, struct idle, timer);
    uint64_t now = loop_now_ms(idle->upstream->loop);
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < IDLE_BUCKETS; i++) {
        for (struct idle_group *group = idle->buckets[i]; group; group = group->next) {
            LIST_EACH_SAFE(it, &group->entries) {
                struct idle_entry *entry = container_of(it, struct idle_entry, node);
                if (entry->until_ms <= now)
                    idle_close(entry);
                else if (entry->until_ms < next)
                    next = entry->until_ms;
            }
        }
        idle_prune(&idle->buckets[i]);
    }
    if (next != UINT64_MAX)
        timer_set(idle->upstream->loop, &idle->timer, next - now > IDLE_SLACK_MS ? next - now : IDLE_SLACK_MS);
}

void idle_drop_server(struct idle *idle, const struct server *server) {
    for (unsigned i = 0; i < IDLE_BUCKETS; i++) {
        for (struct idle_group *group = idle->buckets[i]; group; group = group->next) {
            if (group->identity != server->identity)
                continue;
            while (group->count != 0)
                idle_close(container_of(group->entries.next, struct idle_entry, node));
        }
        idle_prune(&idle->buckets[i]);
    }
}

unsigned idle_count(const struct idle *idle) { return idle->count; }

void idle_free(struct idle **slot) {
    struct idle *idle = *slot;
    *slot = NULL;
    if (!idle)
        return;
    timer_stop(idle->upstream->loop, &idle->timer);
    for (unsigned i = 0; i < IDLE_BUCKETS; i++) {
        for (struct idle_group *group = idle->buckets[i]; group; group = group->next) {
            while (group->count != 0)
                idle_close(container_of(group->entries.next, struct idle_entry, node));
        }
        idle_prune(&idle->buckets[i]);
    }
    slab_fini(&idle->entries);
    mem_free(idle);
}
