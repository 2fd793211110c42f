/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets. Every worker has each of them in its epoll set, level-triggered with EPOLLEXCLUSIVE, so that the kernel wakes
 * one of them a connection; each takes a small batch a turn and leaves the rest to the others.
 *
 * The subtle one: with descriptors gone, accept() fails and the socket stays readable, so a level-triggered loop would spin. The port
 * is taken out of the set and comes back by a timer; DEL and ADD, because the kernel refuses MOD with EPOLLEXCLUSIVE.
 */
#include "traffic/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "io/sock.h"
#include "traffic/client.h"

#define LISTENER_BACKLOG 4096
#define LISTENER_BATCH 16      /* connections taken a turn */
#define LISTENER_REARM_MS 100

static uint64_t listener_path_inode(const struct addr *addr) {
    struct stat status;
    if (addr->sa.any.sa_family != AF_UNIX || stat(addr->sa.un.sun_path, &status) != 0)
        return 0;
    return status.st_ino;
}

static bool listener_open(struct listener *listener, const struct config_listener *config, const struct addr *addr,
                          const char *text, char *error, size_t size) {
    const char *step = "";
    listener->fd = sock_listen(addr, LISTENER_BACKLOG, &step);
    if (listener->fd < 0) {
        snprintf(error, size, "%s:%d: listener \"%s\": cannot %s %s: %s", config->place.file, config->place.line,
                 config->name, step, text, strerror(errno));
        return false;
    }
    if (!sock_local(listener->fd, &listener->addr))
        listener->addr = *addr;
    listener->port = addr_port(&listener->addr);
    /* Accepted sockets inherit these, which saves the system calls for each. */
    if (addr->sa.any.sa_family != AF_UNIX) {
        sock_set_keepalive(listener->fd, config->tcp_keepalive_ms / 1000);
        sock_set_user_timeout(listener->fd, config->tcp_keepalive_ms);
    }
    listener->path_inode = listener_path_inode(&listener->addr);
    return true;
}

bool listeners_open(struct listeners *listeners, const struct config *config, char *error, size_t size) {
    unsigned total = 0;
    for (unsigned i = 0; i < config->listener_count; i++)
        total += config->listeners[i].bind_count;
    listeners->list = mem_alloc_array(total + 1, sizeof(struct listener));
    listeners->live = mem_alloc_array(config->listener_count + 1, sizeof *listeners->live);
    listeners->count = 0;
    for (unsigned i = 0; i < config->listener_count; i++) {
        const struct config_listener *declared = &config->listeners[i];
        for (unsigned j = 0; j < declared->bind_count; j++) {
            struct listener *listener = &listeners->list[listeners->count];
            listener->index = i;
            listener->live = &listeners->live[i];
            if (!listener_open(listener, declared, &declared->binds[j], declared->bind_texts[j], error, size)) {
                listeners_close(listeners);
                return false;
            }
            listeners->count++;
        }
    }
    return true;
}

void listeners_close(struct listeners *listeners) {
    for (unsigned i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->list[i];
        close(listener->fd);
        /* A successor may have put its own socket there while we drained. */
        if (listener->path_inode != 0 && listener_path_inode(&listener->addr) == listener->path_inode)
            unlink(listener->addr.sa.un.sun_path);
    }
    mem_free(listeners->list);
    mem_free(listeners->live);
    *listeners = (struct listeners){0};
}

static void listener_port_arm(struct listener_port *port) {
    if (!port->armed && loop_add_listener(port->worker->loop, port->listener->fd, &port->source))
        port->armed = true;
    else
        timer_set(port->worker->loop, &port->rearm, LISTENER_REARM_MS);
}

static void listener_port_disarm(struct listener_port *port) {
    if (port->armed)
        loop_remove(port->worker->loop, port->listener->fd);
    port->armed = false;
}

static void listener_on_rearm(struct timer *timer) {
    listener_port_arm(container_of(timer, struct listener_port, rearm));
}

/* Counted from here on, for it may be a while on its way to another worker: a limit holds in a burst, too. */
static bool listener_enter(const struct listener_port *port) {
    struct worker_shared *shared = port->worker->shared;
    struct listener *listener = port->listener;
    unsigned limit = port->worker->current->generation->config->listeners[listener->index].max_connections;
    unsigned all = atomic_fetch_add_explicit(&shared->live, 1, memory_order_relaxed);
    unsigned here = atomic_fetch_add_explicit(listener->live, 1, memory_order_relaxed);
    if (all < shared->max_connections && (limit == 0 || here < limit))
        return true;
    listener_leave(shared, listener);
    return false;
}

void listener_leave(struct worker_shared *shared, struct listener *listener) {
    atomic_fetch_sub_explicit(listener->live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&shared->live, 1, memory_order_relaxed);
}

/* Takes one connection unless a limit is reached; false when there is none to take now. */
static bool listener_port_take(struct listener_port *port) {
    struct addr peer;
    int fd = sock_accept(port->listener->fd, &peer);
    if (fd < 0) {
        if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO)
            return true;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            metric_add(METRIC_accept_errors, 1);
            listener_port_disarm(port);
            timer_set(port->worker->loop, &port->rearm, LISTENER_REARM_MS);
        }
        return false;
    }
    if (!listener_enter(port)) {
        metric_add(METRIC_clients_refused, 1);
        close(fd);
        return true;
    }
    struct worker *worker = port->worker->draining ? port->worker : worker_choose(port->worker);
    if (worker == port->worker)
        client_accept(worker, port->listener, fd, &peer);
    else
        worker_hand_over(worker, port->listener, fd, &peer);
    return true;
}

static void listener_on_ready(struct loop_source *source, uint32_t events) {
    (void)events;
    struct listener_port *port = container_of(source, struct listener_port, source);
    for (int i = 0; port->armed && i < LISTENER_BATCH; i++)
        if (!listener_port_take(port))
            return;
}

void listener_port_start(struct listener_port *port, struct worker *worker, struct listener *listener) {
    port->worker = worker;
    port->listener = listener;
    loop_source_init(&port->source, listener_on_ready);
    timer_init(&port->rearm, listener_on_rearm);
    atomic_fetch_add_explicit(&listener->ports, 1, memory_order_relaxed);
    listener_port_arm(port);
}

void listener_port_stop(struct listener_port *port) {
    bool last = atomic_fetch_sub_explicit(&port->listener->ports, 1, memory_order_acq_rel) == 1;
    for (int i = 0; last && i < LISTENER_BACKLOG && listener_port_take(port); i++)
        ;
    listener_port_disarm(port);
    timer_stop(port->worker->loop, &port->rearm);
    if (last)
        shutdown(port->listener->fd, SHUT_RD); /* others may still hold the descriptor: it is closed later */
}
