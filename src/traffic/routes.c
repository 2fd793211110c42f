/* SPDX-License-Identifier: MIT */
/*
 * routes: compiled routes and their index.
 *
 * Each route is filed under (host, literal path head) pairs; each pair's hash yields a sorted list of ordinals. A
 * request looks up its own host, the wildcards above it and "any", times the fronts of its path down to the deepest
 * head there is, and merges the few lists found, so that 1,000 routes cost what one does. A route without host and path
 * is in the list of (any, "").
 *
 * The subtle thing: the index only proposes. Each candidate is judged by all of its keys again, so that a collision of
 * hashes costs time, never a wrong verdict; but a key missing in the index would. Whatever does not fit (too many
 * pairs, too many lists) therefore falls back to what is coarser, in the end to trying every route.
 */
#include "traffic/routes.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "traffic/matcher.h"

#define ROUTES_PAIRS_MAX 256 /* pairs of host and path one route may have in the index; else filed by host alone */
#define ROUTES_LISTS_MAX 48  /* lists merged in one look-up; else every route is tried */
#define ROUTES_HOSTS_MAX 16  /* hosts and wildcards of the index that one request's host may hit */
#define ROUTES_FNV_BASIS UINT64_C(0xcbf29ce484222325)
#define ROUTES_FNV_PRIME UINT64_C(0x100000001b3)
#define ROUTES_ANY_HOST UINT64_C(0x9e3779b97f4a7c15)
#define ROUTES_EXACT UINT64_C(0xd6e8feb86659fd93) /* tells "/a" the whole path from "/a" the front */

struct routes_entry {
    uint64_t hash;
    uint32_t first, count; /* into ordinals; count 0: free */
};

struct routes_route {
    struct matcher match, except;
    bool has_except;
};

struct routes_pair {
    uint64_t hash;
    uint32_t ordinal;
};

struct routes {
    const struct config *config;
    struct arena memory; /* escaped patterns */
    struct routes_route *routes;
    unsigned count;
    struct routes_entry *table; /* open addressing, a power of two */
    size_t table_mask;
    uint64_t *hosts; /* hashes of the hosts in the index, open addressing, 0: free; NULL: none */
    size_t hosts_mask;
    uint32_t *ordinals;
    size_t host_max;           /* longest host or wildcard: no need to hash more bytes */
    size_t exact_max;          /* longest whole path */
    unsigned depth_max;        /* segments of the deepest front */
    struct routes_pair *pairs; /* while building */
    size_t pair_count, pair_cap;
};

/* One list of the merge. */
struct routes_cursor {
    const uint32_t *at, *end;
};

static uint64_t routes_hash_byte(uint64_t hash, char c) { return (hash ^ (unsigned char)c) * ROUTES_FNV_PRIME; }

/* Backwards, so that one pass over a host passes by every suffix of it. */
static uint64_t routes_hash_host(struct span host) {
    uint64_t hash = ROUTES_FNV_BASIS;
    for (size_t i = host.n; i-- > 0;)
        hash = routes_hash_byte(hash, host.p[i]);
    return hash ? hash : 1;
}

static uint64_t routes_hash_path(struct span path) {
    uint64_t hash = ROUTES_FNV_BASIS;
    for (size_t i = 0; i < path.n; i++)
        hash = routes_hash_byte(hash, path.p[i]);
    return hash;
}

static uint64_t routes_mix(uint64_t host, uint64_t path) {
    uint64_t hash = (host ^ (path << 32 | path >> 32)) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 33);
}

/* --- building --- */

static void routes_add_pair(struct routes *routes, uint64_t host, uint64_t path, uint32_t ordinal) {
    if (routes->pair_count == routes->pair_cap) {
        routes->pair_cap = routes->pair_cap ? 2 * routes->pair_cap : 256;
        routes->pairs = mem_resize(routes->pairs, routes->pair_cap * sizeof *routes->pairs);
    }
    routes->pairs[routes->pair_count++] = (struct routes_pair){routes_mix(host, path), ordinal};
}

static uint64_t routes_file_host(struct routes *routes, struct span host) {
    if (span_equal(host, SPAN("*")) || str_starts(host, SPAN("*.")))
        host = span_make(host.p + 1, host.n - 1); /* "*.x" is filed as ".x" */
    if (host.n == 0)
        return ROUTES_ANY_HOST;
    if (host.n > routes->host_max)
        routes->host_max = host.n;
    uint64_t hash = routes_hash_host(host);
    size_t at = (size_t)hash & routes->hosts_mask;
    while (routes->hosts[at] != 0 && routes->hosts[at] != hash)
        at = (at + 1) & routes->hosts_mask;
    routes->hosts[at] = hash;
    return hash;
}

static uint64_t routes_file_path(struct routes *routes, const struct pattern *pattern) {
    if (pattern->kind == PATTERN_EXACT) {
        if (pattern->head.n > routes->exact_max)
            routes->exact_max = pattern->head.n;
        return routes_hash_path(pattern->head) ^ ROUTES_EXACT;
    }
    unsigned depth = 0;
    for (size_t i = 0; i < pattern->head.n; i++)
        depth += pattern->head.p[i] == '/' ? 1 : 0;
    if (depth > routes->depth_max)
        routes->depth_max = depth;
    return routes_hash_path(pattern->head);
}

static void routes_file(struct routes *routes, uint32_t ordinal) {
    const struct match *match = routes->routes[ordinal].match.match;
    const struct pattern *patterns = routes->routes[ordinal].match.paths;
    size_t hosts = match->hosts.count, paths = match->paths.count;
    if (hosts > 0 && paths > 0 && hosts * paths > ROUTES_PAIRS_MAX)
        paths = 0;
    for (size_t h = 0; h < (hosts ? hosts : 1); h++) {
        uint64_t host = hosts ? routes_file_host(routes, match->hosts.list[h]) : ROUTES_ANY_HOST;
        for (size_t p = 0; p < (paths ? paths : 1); p++)
            routes_add_pair(routes, host, paths ? routes_file_path(routes, &patterns[p]) : ROUTES_FNV_BASIS, ordinal);
    }
}

static int routes_compare_pairs(const void *left, const void *right) {
    const struct routes_pair *a = left, *b = right;
    if (a->hash != b->hash)
        return a->hash < b->hash ? -1 : 1;
    return a->ordinal < b->ordinal ? -1 : a->ordinal > b->ordinal;
}

static size_t routes_table_size(size_t entries) {
    size_t size = 16;
    while (size < 2 * entries)
        size *= 2;
    return size;
}

static void routes_build_table(struct routes *routes) {
    if (routes->pair_count > 0)
        qsort(routes->pairs, routes->pair_count, sizeof *routes->pairs, routes_compare_pairs);
    size_t size = routes_table_size(routes->pair_count);
    routes->table = mem_alloc_array(size, sizeof *routes->table);
    routes->table_mask = size - 1;
    routes->ordinals = mem_alloc_array(routes->pair_count + 1, sizeof *routes->ordinals);
    for (size_t i = 0; i < routes->pair_count;) {
        uint64_t hash = routes->pairs[i].hash;
        size_t at = (size_t)hash & routes->table_mask;
        while (routes->table[at].count > 0)
            at = (at + 1) & routes->table_mask;
        routes->table[at] = (struct routes_entry){.hash = hash, .first = (uint32_t)i};
        for (; i < routes->pair_count && routes->pairs[i].hash == hash; i++) {
            routes->ordinals[i] = routes->pairs[i].ordinal;
            routes->table[at].count++;
        }
    }
    mem_free(routes->pairs);
    routes->pairs = NULL;
}

struct routes *routes_new(const struct config *config) {
    struct routes *routes = mem_alloc(sizeof *routes);
    routes->config = config;
    routes->count = config->route_count;
    arena_init(&routes->memory, NULL, SIZE_MAX);
    routes->routes = mem_alloc_array(routes->count + 1, sizeof *routes->routes);
    size_t hosts = 0;
    for (unsigned i = 0; i < routes->count; i++)
        hosts += config->routes[i].match.hosts.count;
    routes->hosts_mask = routes_table_size(hosts) - 1;
    routes->hosts = mem_alloc_array(routes->hosts_mask + 1, sizeof *routes->hosts);
    for (unsigned i = 0; i < routes->count; i++) {
        const struct config_route *route = &config->routes[i];
        matcher_init(&routes->routes[i].match, &route->match, config, &routes->memory);
        routes->routes[i].has_except = route->has_except;
        if (route->has_except)
            matcher_init(&routes->routes[i].except, &route->except, config, &routes->memory);
        routes_file(routes, i);
    }
    routes_build_table(routes);
    return routes;
}

void routes_free(struct routes **routes) {
    struct routes *r = *routes;
    *routes = NULL;
    if (!r)
        return;
    for (unsigned i = 0; i < r->count; i++) {
        matcher_fini(&r->routes[i].match);
        if (r->routes[i].has_except)
            matcher_fini(&r->routes[i].except);
    }
    mem_free(r->routes);
    mem_free(r->table);
    mem_free(r->hosts);
    mem_free(r->ordinals);
    arena_fini(&r->memory);
    mem_free(r);
}

/* --- matching --- */

static const char *routes_test(const struct routes *routes, unsigned ordinal, struct subject *subject) {
    const struct routes_route *route = &routes->routes[ordinal];
    const char *key = matcher_test_all(&route->match, subject);
    if (!key && route->has_except && matcher_test_any(&route->except, subject))
        key = "except";
    return key;
}

/* Tries every route: for the trace, and where the index gave up. */
static unsigned routes_next_linear(const struct routes *routes, struct subject *subject, unsigned from,
                                   routes_trace_fn *trace, void *owner) {
    for (unsigned i = from; i < routes->count; i++) {
        const char *key = routes_test(routes, i, subject);
        if (trace)
            trace(owner, i, key);
        if (!key) {
            matcher_capture(&routes->routes[i].match, subject);
            return i;
        }
    }
    return ROUTES_END;
}

static bool routes_has_host(const struct routes *routes, uint64_t hash) {
    size_t at = (size_t)hash & routes->hosts_mask;
    while (routes->hosts[at] != 0 && routes->hosts[at] != hash)
        at = (at + 1) & routes->hosts_mask;
    return routes->hosts[at] == hash;
}

/* The hashes in the index that host may be filed under: "any", itself, ".x" for every x above it. False: too many. */
static bool routes_find_hosts(const struct routes *routes, struct span host, uint64_t *found, unsigned *count) {
    uint64_t hash = ROUTES_FNV_BASIS;
    size_t stop = host.n > routes->host_max ? host.n - routes->host_max : 0;
    found[0] = ROUTES_ANY_HOST;
    *count = 1;
    if (routes->host_max == 0)
        return true;
    for (size_t i = host.n; i-- > stop;) {
        hash = routes_hash_byte(hash, host.p[i]);
        uint64_t whole = hash ? hash : 1;
        if ((host.p[i] == '.' || i == 0) && routes_has_host(routes, whole)) {
            if (*count == ROUTES_HOSTS_MAX)
                return false;
            found[(*count)++] = whole;
        }
    }
    return true;
}

struct routes_lookup {
    struct routes_cursor cursors[ROUTES_LISTS_MAX];
    uint64_t hosts[ROUTES_HOSTS_MAX];
    unsigned cursor_count, host_count;
    unsigned from;
};

/* Adds the lists filed under this front for each host. False: too many. */
static bool routes_add_lists(const struct routes *routes, struct routes_lookup *lookup, uint64_t path) {
    for (unsigned h = 0; h < lookup->host_count; h++) {
        uint64_t hash = routes_mix(lookup->hosts[h], path);
        size_t at = (size_t)hash & routes->table_mask;
        while (routes->table[at].count > 0 && routes->table[at].hash != hash)
            at = (at + 1) & routes->table_mask;
        const struct routes_entry *entry = &routes->table[at];
        if (entry->count == 0)
            continue;
        const uint32_t *low = routes->ordinals + entry->first, *end = low + entry->count;
        for (size_t n = entry->count; n > 0;) { /* the first ordinal not below from */
            size_t half = n / 2;
            if (low[half] < lookup->from) {
                low += half + 1;
                n -= half + 1;
            } else {
                n = half;
            }
        }
        if (low == end)
            continue;
        if (lookup->cursor_count == ROUTES_LISTS_MAX)
            return false;
        lookup->cursors[lookup->cursor_count++] = (struct routes_cursor){low, end};
    }
    return true;
}

/*
 * Collects every list that may hold a match: the empty front, each front of the path, the whole
 * path. False: too many.
 */
static bool routes_collect(const struct routes *routes, struct routes_lookup *lookup, const struct subject *subject) {
    struct span path = subject->path;
    uint64_t hash = ROUTES_FNV_BASIS;
    unsigned depth = 0;
    if (!routes_find_hosts(routes, subject->host, lookup->hosts, &lookup->host_count) ||
        !routes_add_lists(routes, lookup, hash))
        return false;
    for (size_t i = 0; i < path.n; i++) {
        if (depth > routes->depth_max && path.n > routes->exact_max)
            return true;
        if (path.p[i] == '/' && i > 0 && depth <= routes->depth_max && !routes_add_lists(routes, lookup, hash))
            return false;
        depth += path.p[i] == '/' ? 1 : 0;
        hash = routes_hash_byte(hash, path.p[i]);
    }
    if (path.n > 0 && depth <= routes->depth_max && !routes_add_lists(routes, lookup, hash))
        return false;
    return path.n > routes->exact_max || routes_add_lists(routes, lookup, hash ^ ROUTES_EXACT);
}

unsigned routes_next(const struct routes *routes, struct subject *subject, unsigned from, routes_trace_fn *trace,
                     void *owner) {
    struct routes_lookup lookup;
    lookup.cursor_count = lookup.host_count = 0;
    lookup.from = from;
    subject->params = NULL;
    subject->param_count = 0;
    subject->rest = SPAN_NULL;
    if (trace || !routes_collect(routes, &lookup, subject))
        return routes_next_linear(routes, subject, from, trace, owner);
    for (;;) {
        uint32_t next = ROUTES_END;
        for (unsigned i = 0; i < lookup.cursor_count; i++)
            if (lookup.cursors[i].at < lookup.cursors[i].end && *lookup.cursors[i].at < next)
                next = *lookup.cursors[i].at;
        if (next == ROUTES_END)
            return ROUTES_END;
        for (unsigned i = 0; i < lookup.cursor_count; i++)
            while (lookup.cursors[i].at < lookup.cursors[i].end && *lookup.cursors[i].at == next)
                lookup.cursors[i].at++;
        if (!routes_test(routes, next, subject)) {
            matcher_capture(&routes->routes[next].match, subject);
            return next;
        }
    }
}
