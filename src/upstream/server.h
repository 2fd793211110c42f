/* SPDX-License-Identifier: MIT */
/*
 * server: one backend as the process sees it. Shared by all threads; what changes is atomic. It is found by pool and
 * address, so that its health and counters survive a reload. Reference-counted.
 */
#ifndef MOONGATE_UPSTREAM_SERVER_H
#define MOONGATE_UPSTREAM_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "config/config.h"
#include "upstream/affinity.h"
#include "upstream/queue.h"

enum server_state {
    SERVER_UNKNOWN,    /* no probe has answered yet: requests wait for the first answer */
    SERVER_UP,
    SERVER_DOWN,
    SERVER_UNRESOLVED  /* stands for a name without an address, or for one address less than there is room for */
};

struct server {
    const char *label; /* "chat/10.0.1.2:9000", for logs */
    const char *name;  /* the part behind the slash */
    const char *group; /* what the configuration calls it: all servers of one name have the same; else the name */
    const char *pool_name;
    const char *address; /* as written, with the port: "host:port", "unix:/path" */
    const char *host;  /* host part of the address, for SNI, Host and probes; "localhost" for a unix socket */
    char affinity[AFFINITY_VALUE_SIZE]; /* the cookie's value that stands for it; "": the pool has no affinity */
    uint64_t seed;     /* hash of the name, for balance = "hash" */
    uint64_t identity; /* hash of host and address: kept connections of servers that differ in either never mix */
    uint16_t port;
    unsigned weight;
    unsigned max_connections; /* 0: none */
    struct queue *queue;      /* of its pool, referenced; NULL: none (probes, tests) */
    bool backup;
    bool late;         /* came while the pool was at work: it starts slowly */
    struct addr addr;  /* .len 0: SERVER_UNRESOLVED for ever; never changes */
    _Alignas(64) _Atomic(int) state;
    _Atomic(uint64_t) returned_ms;      /* clock_ms() when it came back from DOWN; 0: long ago or never */
    _Atomic(uint32_t) active;           /* requests and tunnels on it, all workers */
    _Atomic(uint32_t) connect_failures; /* of live traffic, since the control thread last looked */
    _Atomic(uint32_t) refs;
    void (*_Atomic on_failure)(struct server *server); /* any thread: live traffic could not connect; or NULL */
    void *probe;                        /* the control thread's */
};

/* config->addr .len 0: SERVER_UNRESOLVED. */
struct server *server_new(const char *pool_name, const struct config_server *config);
/* One address of the name that config is: called "name(where)". host: its own, or the target of its SRV record. */
struct server *server_new_of_name(const char *pool_name, const struct config_server *config, const struct addr *addr,
                                  const char *host, const char *where);
struct server *server_ref(struct server *server);
/* Frees with the last reference; clears the pointer. */
void server_unref(struct server **server);
enum server_state server_state(const struct server *server);
const char *server_state_name(enum server_state state);
/* Control thread only (or before threads exist). True when it changed. */
bool server_set_state(struct server *server, enum server_state state);
/*
 * Grows with each change of a server's state and of who is in a pool: what a thread remembers of servers is good as long
 * as it has not moved. server_bump_epoch() comes after the change.
 */
unsigned server_epoch(void);
void server_bump_epoch(void);
#define SERVER_RAMP_FULL 256
/*
 * How much of its weight it has, of SERVER_RAMP_FULL: all, but after its return growing over slow_start_ms (0: at
 * once) from a sixteenth. Never 0.
 */
unsigned server_ramp(struct server *server, uint32_t slow_start_ms);
/* True when it may get new work: up, and not of weight 0. */
bool server_is_live(const struct server *server);
/* One unit of work (request or tunnel) begins; false when max_connections of the server are under way. */
bool server_enter(struct server *server);
/* True while server_enter() would succeed. */
bool server_has_room(const struct server *server);
/* It ends: the slot goes to the next one that waits in the pool's queue, if any. */
void server_leave(struct server *server);
/* A connect of live traffic failed (not for local errors): counts towards fall (requirements F39). */
void server_note_failure(struct server *server);

#endif
