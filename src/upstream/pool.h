/* SPDX-License-Identifier: MIT */
/*
 * pool: the servers of one declaration, at run time; shared by all workers of a generation. Immutable but for what its
 * servers hold, and for the slots of names: there servers come and go while workers look on (pool_names.c). The
 * balancer's own memory is a worker's (struct balance).
 */
#ifndef MOONGATE_UPSTREAM_POOL_H
#define MOONGATE_UPSTREAM_POOL_H

#include "config/config.h"
#include "io/tls.h"
#include "upstream/affinity.h"
#include "upstream/server.h"
#include "wire/proxyproto.h"

#define POOL_ADDRESSES_MAX 32 /* servers that one name may stand for at a time */

/* A server that is written as a name; control thread (or before threads exist), but for absent. */
struct pool_name {
    const struct config_server *config;
    struct server *absent; /* SERVER_UNRESOLVED, of weight 0: stands in every slot that no address has */
    unsigned first;        /* its slots: servers[first .. first + POOL_ADDRESSES_MAX) */
    unsigned count;        /* of them in use */
    bool failing;          /* the last answer was an error, and that was said */
    bool full;             /* that there are more addresses was said */
};

struct pool {
    const struct config_pool *config; /* borrowed from the generation's config */
    /* Never NULL. A slot of a name changes while workers read: read it once, and keep what must outlast the turn by server_ref(). */
    struct server *_Atomic *servers;
    struct pool_name *names;
    unsigned name_count;
    unsigned server_count;
    struct queue *queue;      /* of those that wait for a slot; shared with the servers */
    struct tls_client *tls;   /* NULL: plain */
    struct tls_client *probe_tls; /* for probes by TLS of a plain pool; else NULL */
    uint64_t digest; /* of all that makes a connection what it is (TLS, SNI, CA, certificates, verification, PROXY, source): for kept ones */
};

/*
 * Takes servers of the same pool and address over from previous (may be NULL); other names are left to
 * pools_resolve(). NULL with a sentence in error[TLS_ERROR_MAX]. config must outlive it.
 */
struct pool *pool_new(const struct config_pool *config, const struct pool *previous, char *error);
void pool_free(struct pool **pool);
/* SNI and verification name for a server of the pool. */
const char *pool_tls_name(const struct pool *pool, const struct server *server);
/*
 * The PROXY header of the pool for a connection on behalf of source (family 0: our own) that came in at destination
 * (family 0: not known), into out[PROXYPROTO_WRITE_MAX]; returns its size, 0 when the pool has none.
 */
size_t pool_write_proxy_header(const struct pool *pool, const struct addr_small *source,
                               const struct addr_small *destination, char *out);
/* The same for a probe: our own connection. A probe of a port of its own has none: what listens there is another matter. */
size_t pool_write_probe_header(const struct pool *pool, char *out);
/* What a server's state is before any probe: UP when the pool is not probed. */
enum server_state pool_first_state(const struct pool *pool);
/* True when some server (backups too) may still turn out to be up: the first probe has not answered. */
bool pool_is_pending(const struct pool *pool);
bool pool_has_live(const struct pool *pool);
/* The index of the server that a cookie (one value or several) stands for; server_count: none of them, or no affinity. */
unsigned pool_find_affinity(const struct pool *pool, struct span value);
/* By name, or address as written (of a name's addresses one that is live, if any); NULL. */
struct server *pool_find_server(const struct pool *pool, struct span name);

struct resolve_answer;

/* Control thread: a server came into the pool, or has just left it (workers may hold it until their turn ends). */
typedef void pool_change_fn(void *owner, struct server *server, bool came);

/*
 * Asks for all names without an address at once, and waits at most timeout_ms: while a configuration loads, never on a
 * worker. nameservers as for resolver_new().
 */
void pools_resolve(struct pool *const *pools, unsigned count, const char *nameservers, uint32_t timeout_ms);
/*
 * Control thread (or before threads exist): brings the servers of a name in step with an answer, and tells and logs each
 * change. A failed answer changes nothing. changed may be NULL.
 */
void pool_update_name(struct pool *pool, struct pool_name *name, const struct resolve_answer *answer,
                      pool_change_fn *changed, void *owner);
/* How soon to ask again. */
uint32_t pool_resolve_pace_ms(const struct pool *pool, const struct pool_name *name);
/* For pool_new(): the slots of one more name, with the servers that previous (may be NULL) has for it. */
void pool_make_name(struct pool *pool, const struct config_server *config, const struct pool *previous);
/* Gives a new server what it has of its pool: queue, affinity. */
void pool_adopt_server(const struct pool *pool, struct server *server);

#define POOL_TRIED_MAX 8

/* Servers not to be picked again in a retry (unless nothing else is live). */
struct pool_tried {
    struct server *list[POOL_TRIED_MAX];
    unsigned count;
};

bool pool_was_tried(const struct pool_tried *tried, const struct server *server);
/*
 * Any thread: whether balance_pick() may pick the server as soon as it has room. It is live, and no live one comes before it: untried ones do,
 * and among these, as among those tried, all before backups.
 */
bool pool_is_next(const struct pool *pool, const struct pool_tried *tried, const struct server *server);

struct balance;

/* A worker's memory of one pool; it begins elsewhere in each worker, so that they do not move in step. */
struct balance *balance_new(const struct pool *pool, unsigned worker, unsigned workers);
void balance_free(struct balance **balance);
/*
 * The next server that is up and has room, backups only when no other is up; NULL when none is live, or those whose turn it is are full: then
 * the request is to wait (pool_is_next()). Servers in tried are avoided while another is live: then backups come before what was tried. tried
 * may be NULL. key: what balance = "hash" keeps together, a hash of any quality. What it costs with many servers is told in balance.h.
 */
struct server *balance_pick(struct balance *balance, const struct pool_tried *tried, uint64_t key);

#endif
