/* SPDX-License-Identifier: MIT */
/*
 * worker: one thread that carries traffic: its loop, its part of the generation, its slabs, its clients and tunnels. Nothing in it is touched by
 * another thread but through loop_post().
 */
#ifndef MOONGATE_TRAFFIC_WORKER_H
#define MOONGATE_TRAFFIC_WORKER_H

#include <pthread.h>

#include "base/stock.h"
#include "io/pipe.h"
#include "traffic/generation.h"
#include "traffic/listener.h"
#include "upstream/upstream.h"

#define WORKER_BLOCK 4096 /* bytes of a buffer to begin with: most heads come, and go, whole */

/* What all workers share. */
struct worker_shared {
    struct listeners *listeners;
    _Atomic(unsigned) live;      /* client connections and tunnels, all workers, from their accept on */
    unsigned max_connections;
    struct worker *workers;      /* worker_count of them */
    unsigned worker_count;
    void (*on_stopped)(void *owner); /* any worker's thread: it has nothing left and ends */
    void *owner;
};

struct worker {
    unsigned index;
    struct worker_shared *shared;
    struct loop *loop;
    struct upstream upstream;
    struct generation *initial;       /* until the thread has made its local part */
    struct generation_local *current;
    struct listener_port *ports;
    struct slab clients, requests, tunnels;
    struct list client_list, tunnel_list;
    struct list waiting;              /* requests that wait for a server's first probe answer */
    char *scratch;                    /* UPSTREAM_SCRATCH bytes, for reading from clients and through tunnels */
    struct stock stock;               /* memory of input buffers and of heads to send */
    struct pipes pipes;               /* for bulk flows through tunnels */
    char *log_line;                   /* the access line under construction: LOG_LINE_MAX bytes */
    _Atomic(unsigned) live;           /* clients and tunnels; written by this worker, read by those that hand over */
    uint64_t proxy_say_ms;            /* when a bad PROXY header may be logged again */
    bool draining;
    struct timer drain_timer;
    char *error;                      /* why it could not start; GENERATION_ERROR_MAX bytes */
    pthread_t thread;
    bool started, failed;
    bool closed;                      /* letters that come now are only freed */
};

/* Starts the thread and waits until its script state stands; false with a sentence in error[GENERATION_ERROR_MAX]. */
bool worker_start(struct worker *worker, unsigned index, struct worker_shared *shared, struct generation *generation, char *error);
/*
 * The same in three parts for who runs the loop by hand (tests): on one thread, worker_init(), worker_begin(), turns of worker->loop,
 * worker_end(), worker_free(). worker_init() sets worker->loop; after a false of worker_begin() only worker_end() and worker_free() may follow.
 */
void worker_init(struct worker *worker, unsigned index, struct worker_shared *shared, struct generation *generation, char *error);
bool worker_begin(struct worker *worker);
void worker_end(struct worker *worker);
/* Waits for the thread's end. */
void worker_join(struct worker *worker);
/* Frees what is left, letters included. After every thread that may write to it (control, all workers) has ended or been told. */
void worker_free(struct worker *worker);

/* --- any thread --- */
/* Accept connections: after all workers were started, since each may hand some to any other. */
void worker_listen(struct worker *worker);
/* Stop accepting, finish what is in flight, cut the rest at the generation's drain_timeout, then end. */
void worker_drain(struct worker *worker);
/* End at once. */
void worker_stop(struct worker *worker);
/* A fresh connection of listener that another worker has accepted: takes fd over. */
void worker_hand_over(struct worker *worker, struct listener *listener, int fd, const struct addr *peer);
/* A server changed its state: waiting requests try again, kept connections to a dead one are dropped. */
void worker_notify_server(struct worker *worker, struct server *server);

/* --- worker's thread --- */
/* Who should take a fresh connection: the worker with clearly fewest, or the caller itself. */
struct worker *worker_choose(struct worker *worker);
void worker_client_opened(struct worker *worker);
/* One client or tunnel is gone; ends a drain with the last one. */
void worker_client_closed(struct worker *worker);

#endif
