/* SPDX-License-Identifier: MIT */
/*
 * Bytes both ways after a 101. Per direction: read into the worker's scratch, write straight out, keep only what the peer did not take, and read no
 * more while anything is kept. Bulk flows between two plain sockets go through a borrowed pipe instead and never enter the process. An idle
 * tunnel holds neither buffer nor pipe.
 *
 * The subtle one is the end. FIN from one side is passed on once everything before it is out, and the other direction lives on until its own FIN or
 * the half-close timeout; a reset or error ends both at once. Whoever spoke the first FIN is the one the log names.
 */
#include "traffic/tunnel.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "traffic/access.h"

#define TUNNEL_BULK 4                  /* large reads in a row until a flow goes through a pipe */
#define TUNNEL_BULK_READ (16 * 1024)   /* bytes: what counts as large; copying less is cheaper than two splices */
#define TUNNEL_WATCH_MS 1000           /* a tunnel of this age is watched by keepalive: short ones save the system calls */
#define TUNNEL_READS 4 /* reads of 64 KiB a turn and direction, so that a flood starves nobody */

enum { TUNNEL_CLIENT, TUNNEL_SERVER };

struct tunnel {
    struct worker *worker;
    struct conn *conn[2];
    struct buf held[2];      /* held[i]: bytes towards conn[i] that it has not taken */
    struct pipe *pipe[2];    /* pipe[i]: lent to a bulk flow from conn[i]; NULL otherwise */
    uint64_t bytes[2];       /* read from conn[i] */
    uint64_t opened_ms;
    uint64_t active_ms;      /* last byte either way */
    struct timer timer;
    uint32_t idle_ms, half_close_ms, max_age_ms;
    uint32_t keepalive_ms;   /* to be set on the server's side; 0: it is, or never shall */
    struct addr_small client; /* for the log */
    bool finished[2];        /* conn[i] has sent its FIN, and it was passed on */
    uint8_t first_fin;       /* index of the side that ended first */
    bool has_fin;
    uint8_t bulk[2];         /* how much the flow from conn[i] looks like bulk: TUNNEL_BULK: it goes through a pipe */
    struct server *server;   /* entered, referenced */
    struct listener *listener;
    struct access_names *names;
    struct list link;        /* worker->tunnel_list */
    struct deferred deferred;
};

_Static_assert(sizeof(struct tunnel) <= TUNNEL_SIZE, "worker.c carves tunnels of TUNNEL_SIZE");

static void tunnel_release(struct deferred *deferred) {
    struct tunnel *tunnel = container_of(deferred, struct tunnel, deferred);
    slab_put(&tunnel->worker->tunnels, tunnel);
}

static void tunnel_run_hooks(struct tunnel *tunnel, const unsigned *functions, unsigned count, enum cause cause) {
    if (count == 0)
        return;
    struct generation_local *local = tunnel->worker->current;
    char client[ADDR_TEXT_MAX];
    const struct access_names *names = tunnel->names;
    const struct script_tunnel view = {
        .id = names->id,
        .route = names->route,
        .pool = names->pool,
        .server = tunnel->server->label,
        .client = addr_small_format_ip(&tunnel->client, client),
        .subprotocol = names->subprotocol,
        .cause = cause_name(cause),
        .side = cause_side(cause),
        .age_ms = loop_now_ms(tunnel->worker->loop) - tunnel->opened_ms,
        .bytes_in = tunnel->bytes[TUNNEL_CLIENT],
        .bytes_out = tunnel->bytes[TUNNEL_SERVER],
    };
    for (unsigned i = 0; i < count; i++)
        local->generation->ops->tunnel(local->script, functions[i], &view);
}

static void tunnel_close(struct tunnel *tunnel, enum cause cause) {
    struct worker *worker = tunnel->worker;
    const struct config *config = worker->current->generation->config;
    if (!tunnel->conn[TUNNEL_CLIENT])
        return;
    conn_close(&tunnel->conn[TUNNEL_CLIENT]);
    upstream_close_conn(&worker->upstream, &tunnel->conn[TUNNEL_SERVER]);
    timer_stop(worker->loop, &tunnel->timer);
    list_remove(&tunnel->link);
    buf_release(&tunnel->held[TUNNEL_CLIENT]);
    buf_release(&tunnel->held[TUNNEL_SERVER]);
    pipes_return(&worker->pipes, &tunnel->pipe[TUNNEL_CLIENT]);
    pipes_return(&worker->pipes, &tunnel->pipe[TUNNEL_SERVER]);
    metric_add(METRIC_tunnels_closed, 1);
    metric_add(METRIC_clients_closed, 1);
    listener_leave(worker->shared, tunnel->listener);
    tunnel_run_hooks(tunnel, config->on_close, config->on_close_count, cause);
    char client[ADDR_TEXT_MAX];
    access_tunnel_close(worker, tunnel->names, addr_small_format_ip(&tunnel->client, client), tunnel->server->label,
                        loop_now_ms(worker->loop) - tunnel->opened_ms, tunnel->bytes[TUNNEL_CLIENT],
                        tunnel->bytes[TUNNEL_SERVER], cause);
    server_leave(tunnel->server);
    server_unref(&tunnel->server);
    mem_free(tunnel->names);
    loop_defer(worker->loop, &tunnel->deferred, tunnel_release);
    worker_client_closed(worker);
}

/* Milliseconds until the next clock strikes; 0: none. Sets cause to the one that has struck, if any. */
static uint64_t tunnel_next_clock(const struct tunnel *tunnel, enum cause *cause) {
    uint64_t now = loop_now_ms(tunnel->worker->loop), next = UINT64_MAX;
    const struct {
        uint32_t limit_ms;
        uint64_t since_ms;
        enum cause cause;
    } clocks[] = {
        {tunnel->idle_ms, tunnel->active_ms, CAUSE_IDLE},
        {tunnel->max_age_ms, tunnel->opened_ms, CAUSE_MAX_AGE},
        {tunnel->has_fin ? tunnel->half_close_ms : 0, tunnel->active_ms, CAUSE_HALF_CLOSE_TIMEOUT},
    };
    for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
        if (clocks[i].limit_ms == 0)
            continue;
        uint64_t strikes = clocks[i].since_ms + clocks[i].limit_ms;
        if (strikes <= now)
            *cause = clocks[i].cause;
        else if (strikes - now < next)
            next = strikes - now;
    }
    return next == UINT64_MAX ? 0 : next;
}

/* A server that vanished must be found on an idle tunnel, too; the client's side has it from its listener. */
static void tunnel_watch_server(struct tunnel *tunnel) {
    struct addr local;
    int fd = tunnel->conn[TUNNEL_SERVER]->fd;
    uint32_t keepalive_ms = tunnel->keepalive_ms;
    tunnel->keepalive_ms = 0;
    if (keepalive_ms == 0 || !sock_local(fd, &local) || local.sa.any.sa_family == AF_UNIX)
        return;
    sock_set_keepalive(fd, keepalive_ms / 1000);
    sock_set_user_timeout(fd, keepalive_ms);
}

/* Activity only stores a time; the timer finds out how far it has been pushed back when it strikes. */
static void tunnel_on_timer(struct timer *timer) {
    struct tunnel *tunnel = container_of(timer, struct tunnel, timer);
    enum cause cause = CAUSE_NONE;
    tunnel_watch_server(tunnel);
    uint64_t next = tunnel_next_clock(tunnel, &cause);
    if (cause != CAUSE_NONE)
        tunnel_close(tunnel, cause);
    else if (next > 0)
        timer_set(tunnel->worker->loop, &tunnel->timer, next);
}

static enum cause tunnel_broken(int side) { return side == TUNNEL_CLIENT ? CAUSE_CLIENT_RESET : CAUSE_SERVER_RESET; }

/* Writes data towards side, keeps what is not taken. False: the tunnel is over. */
static bool tunnel_write(struct tunnel *tunnel, int side, const char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        size_t n = 0;
        enum io result = conn_write(tunnel->conn[side], data + done, size - done, &n);
        if (result == IO_AGAIN)
            break;
        if (result != IO_OK) {
            tunnel_close(tunnel, tunnel_broken(side));
            return false;
        }
        done += n;
    }
    if (done == size || buf_append(&tunnel->held[side], data + done, size - done))
        return true;
    tunnel_close(tunnel, CAUSE_LOCAL);
    return false;
}

/* True when nothing is held towards side any more. */
static bool tunnel_flush(struct tunnel *tunnel, int side) {
    struct buf *held = &tunnel->held[side];
    while (!buf_empty(held)) {
        struct span data = buf_span(held);
        size_t n = 0;
        enum io result = conn_write(tunnel->conn[side], data.p, data.n, &n);
        if (result == IO_AGAIN)
            return false;
        if (result != IO_OK) {
            tunnel_close(tunnel, tunnel_broken(side));
            return false;
        }
        buf_consume(held, n);
        tunnel->active_ms = loop_now_ms(tunnel->worker->loop);
    }
    buf_release(held);
    return true;
}

/* side has ended its direction and all before it is out. False: that was the second end. */
static bool tunnel_pass_end(struct tunnel *tunnel, int side) {
    tunnel->finished[side] = true;
    if (!tunnel->has_fin) {
        tunnel->has_fin = true;
        tunnel->first_fin = (uint8_t)side;
        tunnel->active_ms = loop_now_ms(tunnel->worker->loop);
        if (tunnel->half_close_ms > 0 &&
            (!timer_is_set(&tunnel->timer) || tunnel->timer.deadline_ms > tunnel->active_ms + tunnel->half_close_ms))
            timer_set(tunnel->worker->loop, &tunnel->timer, tunnel->half_close_ms);
    }
    if (tunnel->finished[!side]) {
        tunnel_close(tunnel, tunnel->first_fin == TUNNEL_CLIENT ? CAUSE_CLIENT_CLOSED : CAUSE_SERVER_CLOSED);
        return false;
    }
    conn_shutdown(tunnel->conn[!side]);
    return true;
}

/* Large reads count a flow up, small ones count it down. */
static void tunnel_weigh(struct tunnel *tunnel, int side, size_t n) {
    uint8_t *bulk = &tunnel->bulk[side];
    if (n < TUNNEL_BULK_READ)
        *bulk = *bulk > 0 ? (uint8_t)(*bulk - 1) : 0;
    else if (*bulk < TUNNEL_BULK)
        (*bulk)++;
}

/* True when the flow from side shall go through a pipe, and there is one. */
static bool tunnel_has_pipe(struct tunnel *tunnel, int side) {
    if (tunnel->pipe[side])
        return true;
    if (tunnel->bulk[side] < TUNNEL_BULK || tunnel->conn[TUNNEL_CLIENT]->tls || tunnel->conn[TUNNEL_SERVER]->tls)
        return false;
    tunnel->pipe[side] = pipes_borrow(&tunnel->worker->pipes);
    return tunnel->pipe[side] != NULL;
}

/* One read and write by copying. IO_OK: there may be more to do. IO_ERROR: the tunnel is over. */
static enum io tunnel_copy(struct tunnel *tunnel, int side) {
    char *scratch = tunnel->worker->scratch;
    size_t n = 0;
    enum io result = conn_read(tunnel->conn[side], scratch, TUNNEL_HOLD_MAX, &n);
    if (result != IO_OK)
        return result;
    tunnel->bytes[side] += n;
    tunnel->active_ms = loop_now_ms(tunnel->worker->loop);
    tunnel_weigh(tunnel, side, n);
    if (!tunnel_write(tunnel, !side, scratch, n))
        return IO_ERROR;
    return buf_empty(&tunnel->held[!side]) ? IO_OK : IO_AGAIN;
}

/* The same through the pipe, which goes back as soon as it is empty and the flow pauses. */
static enum io tunnel_splice(struct tunnel *tunnel, int side) {
    struct pipe *pipe = tunnel->pipe[side];
    size_t n = 0;
    enum io result = IO_OK;
    if (pipe->filled == 0) {
        result = pipe_fill(pipe, tunnel->conn[side], PIPE_SIZE, &n);
        if (result == IO_OK) {
            tunnel->bytes[side] += n;
            tunnel_weigh(tunnel, side, n);
        }
    }
    if (result == IO_OK) {
        result = pipe_drain(pipe, tunnel->conn[!side], &n);
        tunnel->active_ms = loop_now_ms(tunnel->worker->loop);
        if (result == IO_ERROR) {
            tunnel_close(tunnel, tunnel_broken(!side));
            return IO_ERROR;
        }
    }
    if (pipe->filled == 0 && (result != IO_OK || tunnel->bulk[side] < TUNNEL_BULK))
        pipes_return(&tunnel->worker->pipes, &tunnel->pipe[side]);
    return result;
}

/* Moves what side has sent to the other. False: the tunnel is over. */
static bool tunnel_pump(struct tunnel *tunnel, int side) {
    if (!buf_empty(&tunnel->held[!side]) && !tunnel_flush(tunnel, !side))
        return tunnel->conn[side] != NULL;
    for (int i = 0; i < TUNNEL_READS && !tunnel->finished[side]; i++) {
        switch (tunnel_has_pipe(tunnel, side) ? tunnel_splice(tunnel, side) : tunnel_copy(tunnel, side)) {
        case IO_OK:
            continue;
        case IO_AGAIN:
            return true;
        case IO_EOF:
            return tunnel_pass_end(tunnel, side);
        default:
            if (tunnel->conn[side])
                tunnel_close(tunnel, tunnel_broken(side));
            return false;
        }
    }
    if (!tunnel->finished[side] && conn_may_read(tunnel->conn[side]))
        conn_again(tunnel->conn[side]);
    return true;
}

static void tunnel_on_event(struct conn *conn) {
    struct tunnel *tunnel = conn->owner;
    int side = conn == tunnel->conn[TUNNEL_CLIENT] ? TUNNEL_CLIENT : TUNNEL_SERVER;
    if (conn->failed) {
        tunnel_close(tunnel, tunnel_broken(side));
        return;
    }
    if (tunnel_pump(tunnel, side))
        tunnel_pump(tunnel, !side);
}

static void tunnel_configure(struct tunnel *tunnel, const struct config_pool *pool, uint32_t keepalive_ms) {
    tunnel->keepalive_ms = keepalive_ms;
    tunnel->idle_ms = pool->tunnel_idle_timeout_ms;
    tunnel->half_close_ms = pool->half_close_timeout_ms;
    tunnel->max_age_ms = pool->tunnel_max_age_ms;
    enum cause cause = CAUSE_NONE;
    uint64_t next = tunnel_next_clock(tunnel, &cause);
    if (keepalive_ms > 0 && (next == 0 || next > TUNNEL_WATCH_MS))
        next = TUNNEL_WATCH_MS;
    if (next > 0)
        timer_set(tunnel->worker->loop, &tunnel->timer, next);
}

void tunnel_open(struct request *request, struct tunnel_start *start) {
    struct worker *worker = request->worker;
    struct tunnel *tunnel = slab_get(&worker->tunnels);
    tunnel->worker = worker;
    tunnel->conn[TUNNEL_CLIENT] = start->client;
    tunnel->conn[TUNNEL_SERVER] = start->server;
    tunnel->listener = start->listener;
    tunnel->client = request->subject.client;
    tunnel->server = server_ref(request->server);
    request->server = NULL;
    tunnel->opened_ms = tunnel->active_ms = loop_now_ms(worker->loop);
    tunnel->names = access_names_new(request, start->subprotocol);
    tunnel->held[TUNNEL_CLIENT] = start->unsent;
    tunnel->held[TUNNEL_SERVER] = start->early;
    tunnel->held[TUNNEL_CLIENT].cap = tunnel->held[TUNNEL_SERVER].cap = 4 * TUNNEL_HOLD_MAX;
    tunnel->bytes[TUNNEL_CLIENT] = start->early.len;
    tunnel->bytes[TUNNEL_SERVER] = start->rest.n;
    timer_init(&tunnel->timer, tunnel_on_timer);
    list_append(&worker->tunnel_list, &tunnel->link);
    metric_add(METRIC_tunnels_opened, 1);
    const struct config *config = request->local->generation->config;
    tunnel_run_hooks(tunnel, config->on_open, config->on_open_count, CAUSE_NONE);
    access_tunnel_open(request, tunnel->names);
    /* The request's spans pointed into this buffer until now; an idle tunnel holds none. */
    if (buf_empty(&tunnel->held[TUNNEL_SERVER]))
        buf_release(&tunnel->held[TUNNEL_SERVER]);
    conn_set_owner(start->client, tunnel, tunnel_on_event);
    conn_set_owner(start->server, tunnel, tunnel_on_event);
    tunnel_configure(tunnel, request->pool->config, request->subject.listener->tcp_keepalive_ms);
    if (!buf_append(&tunnel->held[TUNNEL_CLIENT], start->rest.p, start->rest.n)) {
        tunnel_close(tunnel, CAUSE_LOCAL);
        return;
    }
    if (tunnel_pump(tunnel, TUNNEL_CLIENT))
        tunnel_pump(tunnel, TUNNEL_SERVER);
}

void tunnel_close_all(struct worker *worker, enum cause cause) {
    LIST_EACH_SAFE(it, &worker->tunnel_list)
        tunnel_close(container_of(it, struct tunnel, link), cause);
}
