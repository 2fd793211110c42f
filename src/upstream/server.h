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

enum server_state {
    SERVER_UNKNOWN,    /* no probe has answered yet: requests wait for the first answer */
    SERVER_UP,
    SERVER_DOWN,
    SERVER_UNRESOLVED  /* its name has no address (yet): counts as down */
};

struct server {
    const char *label; /* "chat/10.0.1.2:9000", for logs */
    const char *name;  /* the part behind the slash */
    const char *pool_name;
    const char *address; /* as written, with the port: "host:port", "unix:/path" */
    const char *host;  /* host part of the address, for SNI, Host and probes; "localhost" for a unix socket */
    uint64_t identity; /* hash of host and address: kept connections of servers that differ in either never mix */
    uint16_t port;
    unsigned weight;
    bool backup;
    struct addr addr;  /* valid unless SERVER_UNRESOLVED; published by the state's release store */
    _Alignas(64) _Atomic(int) state;
    _Atomic(uint32_t) active;           /* requests and tunnels on it, all workers */
    _Atomic(uint32_t) connect_failures; /* of live traffic, since the control thread last looked */
    _Atomic(uint32_t) refs;
    void (*_Atomic on_failure)(struct server *server); /* any thread: live traffic could not connect; or NULL */
    void *probe;                        /* the control thread's */
};

struct server *server_new(const char *pool_name, const struct config_server *config);
struct server *server_ref(struct server *server);
/* Frees with the last reference; clears the pointer. */
void server_unref(struct server **server);
enum server_state server_state(const struct server *server);
const char *server_state_name(enum server_state state);
/* Control thread only (or before threads exist). True when it changed. */
bool server_set_state(struct server *server, enum server_state state);
/* Control thread only: gives an unresolved server its address, then the state. */
void server_set_addr(struct server *server, const struct addr *addr, enum server_state state);
/* True when it may get new work: up, and not of weight 0. */
bool server_is_live(const struct server *server);
/* One unit of work (request or tunnel) begins and ends. */
void server_enter(struct server *server);
void server_leave(struct server *server);
/* A connect of live traffic failed (not for local errors): counts towards fall (requirements F39). */
void server_note_failure(struct server *server);

#endif
