/* SPDX-License-Identifier: MIT */
/*
 * listener: bound sockets, opened once for the process and shared by the workers, each of which arms them in its own loop (level-triggered,
 * EPOLLEXCLUSIVE). Accepting stops for a moment when descriptors run out, without spinning (requirements D24).
 */
#ifndef MOONGATE_TRAFFIC_LISTENER_H
#define MOONGATE_TRAFFIC_LISTENER_H

#include <stdatomic.h>

#include "config/config.h"
#include "io/loop.h"

struct worker;
struct worker_shared;

struct listener {
    int fd;
    struct addr addr;           /* as bound: a port 0 has become a real one */
    unsigned index;             /* of config->listeners */
    uint16_t port;
    uint64_t path_inode;        /* of a unix socket's path: only our own is removed at the end */
    _Atomic(unsigned) *live;    /* connections of the declaration (all its binds), from their accept on */
    _Atomic(unsigned) ports;    /* workers that listen */
};

struct listeners {
    struct listener *list;
    unsigned count;
    _Atomic(unsigned) *live;    /* by index of config->listeners */
};

/* A listening socket armed in one worker's loop. */
struct listener_port {
    struct loop_source source;
    struct timer rearm;
    struct worker *worker;
    struct listener *listener;
    bool armed;
};

/* Opens all; false with "listener \"x\": cannot bind 0.0.0.0:80: Address already in use" in error[size], nothing left open. */
bool listeners_open(struct listeners *listeners, const struct config *config, char *error, size_t size);
void listeners_close(struct listeners *listeners);

/* One connection, or the tunnel it has become, has ended: it no longer counts against the limits. */
void listener_leave(struct worker_shared *shared, struct listener *listener);

void listener_port_start(struct listener_port *port, struct worker *worker, struct listener *listener);
/* The last worker to stop takes what has queued up and ends the socket: from then on the kernel refuses connections. */
void listener_port_stop(struct listener_port *port);

#endif
