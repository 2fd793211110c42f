/* SPDX-License-Identifier: MIT */
/*
 * fuzz_sides: the two-sided state-machine fuzzer. One real worker (client_h1, request, exchange, tunnel, idle, queue, loop, conn) runs on this
 * thread over sockets and a clock in memory (tests/memory); the input is a list of events of clients, servers and timers (sides.c).
 * Invariants: no leak, no spin, no byte lost, doubled or mixed up, every request ends with one cause, counters reconcile, and when
 * both sides do all they can, everything is answered without a timer's help.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "sides.h"
#include "traffic/worker.h"

#define FUZZ_WIDE (1 << 20)
#define FUZZ_TURNS 20000 /* without the clock moving: more is a spin */

static struct fuzz {
    const uint8_t *data;
    size_t n;
    struct config *config;
    struct config_listener listener;
    struct config_pool pool;
    struct config_server server;
    struct config_route route;
    struct config_step step;
    struct addr bind;
    char *bind_text;
    struct generation *generation;
    struct listeners listeners;
    struct worker_shared shared;
    struct worker worker;
    char error[GENERATION_ERROR_MAX];
    uint64_t lines, opens, closes;
} fuzz;

/* --- the access log: one line, one cause --- */

void __wrap_log_access(const char *line, size_t n);
void __wrap_log_access(const char *line, size_t n) {
    bool open = memmem(line, n, "\"event\":\"open\"", 14), closed = memmem(line, n, "\"event\":\"close\"", 15);
    const char *cause = memmem(line, n, "\"cause\":\"", 9);
    fuzz.lines += !open && !closed;
    fuzz.opens += open;
    fuzz.closes += closed;
    if (!open && (!cause || cause[9] == '"'))
        sides_fail("an end without a cause");
}

/* --- the gateway --- */

static char *fuzz_text(const char *text) { return (char *)(uintptr_t)text; }

static void *fuzz_script_open(const void *load, unsigned worker, char *error, size_t size) {
    (void)load, (void)worker, (void)error, (void)size;
    return mem_alloc(1);
}

static void fuzz_script_close(void *script) { mem_free(script); }
static void fuzz_free_load(void *load) { (void)load; }
static void fuzz_script_release(void *script, struct subject *subject) { (void)script, (void)subject; }

static const struct script_ops fuzz_script = {.open = fuzz_script_open, .close = fuzz_script_close, .release = fuzz_script_release};

static void fuzz_configure(uint8_t bits) {
    addr_parse(SPAN("127.0.0.1"), 9000, &fuzz.server.addr);
    fuzz.server = (struct config_server){.name = fuzz_text("s"), .address = fuzz_text("127.0.0.1:9000"), .host = fuzz_text("127.0.0.1"),
                                         .port = 9000, .addr = fuzz.server.addr, .weight = 1, .max_connections = bits & 1 ? 2 : 0};
    config_pool_defaults(&fuzz.pool);
    fuzz.pool.name = fuzz_text("p");
    fuzz.pool.servers = &fuzz.server;
    fuzz.pool.server_count = 1;
    fuzz.pool.probe.kind = CONFIG_PROBE_NONE;
    fuzz.pool.keepalive = bits & 2 ? 0 : 4;
    fuzz.pool.retries = bits & 4 ? 0 : 2;
    kernel.prompt = bits & 64;
    fuzz.pool.tunnel_max_age_ms = bits & 8 ? 20000 : 0;
    fuzz.pool.tunnel_idle_timeout_ms = 10000;
    fuzz.pool.half_close_timeout_ms = 2000;
    config_listener_defaults(&fuzz.listener);
    fuzz.listener.name = fuzz_text("http");
    fuzz.listener.half_close = bits & 16;
    fuzz.listener.max_body = bits & 32 ? 10000 : UINT64_MAX;
    addr_parse(SPAN("127.0.0.1"), 80, &fuzz.bind);
    fuzz.bind_text = fuzz_text("127.0.0.1:80");
    fuzz.listener.binds = &fuzz.bind;
    fuzz.listener.bind_texts = &fuzz.bind_text;
    fuzz.listener.bind_count = 1;
    fuzz.step = (struct config_step){.kind = CONFIG_STEP_ACTION, .action = {.kind = ACTION_FORWARD}};
    fuzz.route = (struct config_route){.name = fuzz_text("all"), .when = CONFIG_NO_FUNCTION, .steps = &fuzz.step, .step_count = 1,
                                       .access_log = true, .max_body = UINT64_MAX, .on_response = CONFIG_NO_FUNCTION};
    fuzz.config = config_new("fuzz.lua");
    fuzz.config->settings.access_to = fuzz_text("stdout");
    fuzz.config->listeners = &fuzz.listener;
    fuzz.config->pools = &fuzz.pool;
    fuzz.config->routes = &fuzz.route;
    fuzz.config->listener_count = fuzz.config->pool_count = fuzz.config->route_count = 1;
}

static void fuzz_start(void) {
    fuzz.generation = generation_new(fuzz.config, &fuzz, fuzz_free_load, &fuzz_script, NULL, fuzz.error);
    if (!fuzz.generation || !listeners_open(&fuzz.listeners, fuzz.config, fuzz.error, sizeof fuzz.error))
        sides_fail(fuzz.error);
    fuzz.shared = (struct worker_shared){.listeners = &fuzz.listeners, .workers = &fuzz.worker, .worker_count = 1, .max_connections = 100};
    worker_init(&fuzz.worker, 0, &fuzz.shared, fuzz.generation, fuzz.error);
    if (!worker_begin(&fuzz.worker))
        sides_fail(fuzz.error);
    worker_listen(&fuzz.worker);
}

/* Turns until nothing is left to do at this time. */
static void fuzz_run(void) {
    unsigned turns = 0;
    do {
        loop_turn(fuzz.worker.loop, -1);
        if (++turns > FUZZ_TURNS)
            sides_fail("spins");
    } while (!kernel.idle);
}

static void fuzz_advance(uint64_t ms) {
    unsigned steps = 0;
    fuzz_run();
    while (ms > 0) {
        uint64_t step = kernel.idle_ms > 0 && (uint64_t)kernel.idle_ms < ms ? (uint64_t)kernel.idle_ms : ms;
        kernel.now_us += step * 1000;
        ms -= step;
        fuzz_run();
        if (++steps > FUZZ_TURNS)
            sides_fail("spins over time");
    }
}

static void fuzz_end(void) {
    worker_stop(&fuzz.worker);
    loop_run(fuzz.worker.loop);
    worker_end(&fuzz.worker);
    worker_free(&fuzz.worker);
    listeners_close(&fuzz.listeners);
    generation_unref(&fuzz.generation);
    fuzz.config->listeners = NULL;
    fuzz.config->pools = NULL;
    fuzz.config->routes = NULL;
    fuzz.config->listener_count = fuzz.config->pool_count = fuzz.config->route_count = 0;
    fuzz.config->settings.access_to = NULL;
    config_free(&fuzz.config);
}

/* --- events --- */

static unsigned fuzz_next(void) {
    if (fuzz.n == 0)
        return 0;
    fuzz.n--;
    return *fuzz.data++;
}

static size_t fuzz_size(void) {
    static const size_t sizes[] = {0, 1, 2, 9, 100, 1000, 4096, 20000, 70000, 1 << 20};
    return sizes[fuzz_next() % (sizeof sizes / sizeof *sizes)];
}

static void fuzz_client_event(unsigned event, struct side_client *client) {
    static const size_t caps[] = {65536, 200000, 3000, 100, 1};
    size_t n;
    switch (event) {
    case 0:
        if (!client->link)
            client->link = kernel_dial(caps[fuzz_next() % 5]);
        break;
    case 1:
        n = fuzz_next();
        side_client_ask(client, (enum side_kind)(n % SIDE_KINDS), fuzz_size() & 0x1ffff, fuzz_next());
        break;
    case 2:
        side_client_send(client, fuzz_size());
        break;
    case 3:
        side_client_read(client, fuzz_size());
        break;
    case 4:
        n = fuzz_size() & 0x1ffff;
        if (client->upgrading && client->link && client->out.len < 300000) {
            uint32_t id = client->reader.state == SIDE_IN_TUNNEL ? client->reader.id : client->count > 0 ? client->ids[client->count - 1] : 0;
            side_append_bytes(&client->out, id, 2, client->tunnel_sent, n);
            client->tunnel_sent += n;
        }
        break;
    case 5:
        if (client->link)
            kernel_shut(client->link);
        client->fin = client->link != NULL;
        break;
    case 6:
        if (client->link)
            kernel_reset(client->link);
        side_client_end(client);
        break;
    case 7:
        side_client_end(client);
        break;
    default:
        client->wild = client->link != NULL;
        for (n = 0; n < client->count; n++)
            sides.requests[client->ids[n]].spoiled = true;
        if (client->reader.state == SIDE_IN_TUNNEL && client->reader.id != SIDE_NONE)
            sides.requests[client->reader.id].spoiled = true;
        for (n = fuzz_next() % 32; n > 0 && client->link; n--)
            side_append(&client->out, &(char){(char)fuzz_next()}, 1);
    }
}

/* A server says what nobody asked for, or what no answer is. */
static void fuzz_server_nonsense(struct side_server *server) {
    static const char *const texts[] = {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nX-Id: 0\r\nContent-Length: 1\r\n\r\n0",
                                        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", "\r\n", "0\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n"};
    side_server_read(server, SIZE_MAX);
    if (!server->link || server->fin)
        return;
    if (server->current == SIDE_NONE || server->reader.state != SIDE_IN_HEAD || server->answering)
        sides.wild = true;
    else
        sides.requests[server->current].wild = true;
    const char *text = texts[fuzz_next() % 6];
    if (fuzz_next() & 1)
        side_append(&server->out, text, strlen(text));
    for (unsigned n = fuzz_next() % 16; n > 0; n--)
        side_append(&server->out, &(char){(char)fuzz_next()}, 1);
}

static struct side_server *fuzz_new_server(size_t cap) {
    struct side_server *server = NULL;
    for (unsigned i = 0; i < SIDE_SERVERS && !server; i++)
        server = sides.servers[i].link ? NULL : &sides.servers[i];
    if (!server) {
        kernel_refuse(ECONNREFUSED);
        return NULL;
    }
    side_server_end(server);
    server->link = kernel_answer(cap);
    return server->link ? server : NULL;
}

static void fuzz_server_event(unsigned event, struct side_server *server) {
    size_t n;
    switch (event) {
    case 0:
        side_server_answer(server, (enum side_answer)(fuzz_next() % SIDE_ANSWERS), fuzz_size() & 0x1ffff);
        break;
    case 1:
        side_server_send(server, fuzz_size());
        break;
    case 2:
        side_server_read(server, fuzz_size());
        break;
    case 3:
        n = fuzz_size() & 0x1ffff;
        if (server->link && server->reader.state == SIDE_IN_TUNNEL && !server->fin && server->out.len < 300000) {
            side_append_bytes(&server->out, server->current, 3, server->tunnel_sent, n);
            server->tunnel_sent += n;
        }
        break;
    case 4:
        side_server_shut(server);
        break;
    case 5:
        side_server_reset(server);
        break;
    case 6:
        side_server_end(server);
        break;
    default:
        fuzz_server_nonsense(server);
    }
}

static void fuzz_world_event(unsigned event) {
    static const uint64_t times_ms[] = {1, 100, 1000, 3000, 11000, 61000};
    static const size_t caps[] = {65536, 200000, 3000, 100, 1};
    switch (event) {
    case 0:
        fuzz_new_server(caps[fuzz_next() % 5]);
        break;
    case 1:
        kernel_refuse(fuzz_next() & 1 ? ECONNREFUSED : ETIMEDOUT);
        break;
    case 2:
        loop_turn(fuzz.worker.loop, 0);
        break;
    case 3:
        fuzz_run();
        break;
    case 4:
        fuzz_advance(times_ms[fuzz_next() % 6]);
        break;
    case 5:
        switch (fuzz_next() % 5) {
        case 0: kernel.accept_error = EMFILE; break;
        case 1: kernel.socket_error = ENOBUFS; break;
        case 2: kernel.connect_error = EADDRNOTAVAIL; break;
        case 3: kernel.add_error = ENOMEM; break;
        default: kernel.accept_error = ECONNABORTED;
        }
        break;
    case 6:
        kernel.first = fuzz_next();
        break;
    default:
        kernel.read_max = (size_t[]){0, 50, 1000, 10000}[fuzz_next() % 4];
    }
}

static void fuzz_event(void) {
    unsigned event = fuzz_next();
    if (event < 96)
        fuzz_client_event(event % 12, &sides.clients[event / 12 % SIDE_CLIENTS]);
    else if (event < 176)
        fuzz_server_event((event - 96) % 10, &sides.servers[(event - 96) / 10]);
    else
        fuzz_world_event((event - 176) % 8);
}

/* --- the end --- */

static bool fuzz_serve_all(void) {
    bool moved = false;
    while (kernel.dialed)
        moved |= fuzz_new_server(FUZZ_WIDE) != NULL;
    for (unsigned i = 0; i < SIDE_CLIENTS; i++) {
        moved |= side_client_send(&sides.clients[i], SIZE_MAX);
        moved |= side_client_read(&sides.clients[i], SIZE_MAX);
    }
    for (unsigned i = 0; i < SIDE_SERVERS; i++) {
        struct side_server *server = &sides.servers[i];
        moved |= side_server_read(server, SIZE_MAX);
        if (server->link && server->until_close && server->out.len == 0 && !server->fin) {
            side_server_shut(server);
            moved = true;
        }
        if (server->link && server->current != SIDE_NONE && server->body_seen && !server->answering && !server->fin) {
            bool upgrade = sides.requests[server->current].kind == SIDE_UPGRADE;
            side_server_answer(server, upgrade ? SIDE_SWITCH : SIDE_LENGTH, 500);
            moved = true;
        }
        moved |= side_server_send(server, SIZE_MAX);
    }
    fuzz_run();
    return moved;
}

static const struct side_server *fuzz_find_tunnel(uint32_t id) {
    for (unsigned i = 0; i < SIDE_SERVERS; i++)
        if (sides.servers[i].link && sides.servers[i].reader.state == SIDE_IN_TUNNEL && sides.servers[i].current == id)
            return &sides.servers[i];
    return NULL;
}

/* Both sides have done what they can: nothing may be under way any more. */
static void fuzz_judge(void) {
    bool tunnels = false; /* or others that may keep their slot for ever */
    for (unsigned i = 0; i < SIDE_CLIENTS; i++)
        tunnels |= sides.clients[i].link && (sides.clients[i].wild || sides.clients[i].reader.state == SIDE_IN_TUNNEL);
    for (unsigned i = 0; i < SIDE_SERVERS; i++)
        tunnels |= sides.servers[i].link && sides.servers[i].reader.state == SIDE_IN_TUNNEL;
    for (unsigned i = 0; i < SIDE_CLIENTS; i++) {
        const struct side_client *client = &sides.clients[i];
        if (!client->link || client->wild || client->fin || client->link->near_fin)
            continue;
        if (client->reader.state == SIDE_IN_TUNNEL) {
            const struct side_server *server = fuzz_find_tunnel(client->reader.id);
            if (server && !server->fin && (server->reader.got != client->tunnel_sent || client->reader.got != server->tunnel_sent))
                sides_fail("bytes of a tunnel are stuck");
        } else if (client->count > 0 && !sides.requests[client->ids[0]].wild && !(tunnels && fuzz.server.max_connections > 0)) {
            sides_fail("a request is stuck");
        }
    }
}

static void fuzz_finish(void) {
    kernel.accept_error = kernel.connect_error = kernel.socket_error = kernel.add_error = 0;
    kernel.read_max = 0;
    for (unsigned i = 0; i < SIDE_CLIENTS; i++)
        if (sides.clients[i].link)
            kernel_widen(sides.clients[i].link, FUZZ_WIDE);
    for (unsigned i = 0; i < SIDE_SERVERS; i++)
        if (sides.servers[i].link)
            kernel_widen(sides.servers[i].link, FUZZ_WIDE);
    fuzz_advance(200);
    for (unsigned i = 0; i < 1000 && fuzz_serve_all(); i++)
        ;
    if (!sides.wild)
        fuzz_judge();
    for (unsigned i = 0; i < SIDE_CLIENTS; i++)
        side_client_end(&sides.clients[i]);
    fuzz_run();
    while (kernel.dialed)
        fuzz_new_server(65536);
    for (unsigned i = 0; i < SIDE_SERVERS; i++)
        side_server_end(&sides.servers[i]);
    fuzz_advance(200000);
    if (metric_sum(METRIC_clients_accepted) != metric_sum(METRIC_clients_closed) || metric_sum(METRIC_requests_started) != metric_sum(METRIC_requests_ended) ||
        metric_sum(METRIC_tunnels_opened) != metric_sum(METRIC_tunnels_closed) || metric_sum(METRIC_server_connects) != metric_sum(METRIC_server_closed))
        sides_fail("counters do not reconcile");
    if (fuzz.lines + fuzz.opens != metric_sum(METRIC_requests_ended) || fuzz.closes != metric_sum(METRIC_tunnels_closed) ||
        fuzz.opens != metric_sum(METRIC_tunnels_opened))
        sides_fail("not one line an end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static bool attached;
    if (!attached) {
        metrics_attach();
        log_set_level(LOG_LEVEL_ERROR);
        attached = true;
    }
    if (n > 2000)
        return 0;
    fuzz.data = data;
    fuzz.n = n;
    sides.request_count = 0;
    sides.wild = false;
    fuzz_configure((uint8_t)fuzz_next());
    fuzz_start();
    fuzz_run();
    while (fuzz.n > 0)
        fuzz_event();
    fuzz_finish();
    fuzz_end();
    kernel_end();
    return 0;
}
