/* SPDX-License-Identifier: MIT */
/*
 * The life of the process around its workers. Order matters at both ends: sockets are bound with the privileges of the start, these are dropped,
 * and only then do threads exist; at the end workers finish first, then the probes, then the log.
 *
 * Signals come by signalfd on this thread's loop and are blocked everywhere, so that no handler runs in the middle of traffic.
 */
#include "control/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "control/machine.h"
#include "script/load.h"
#include "traffic/worker.h"
#include "upstream/names.h"
#include "upstream/probe.h"

#define CONTROL_TICKETS_MS (8u * 3600 * 1000) /* a ticket key encrypts this long and decrypts twice as long */
#define CONTROL_COUNTERS_MAX 8192

struct control {
    struct loop *loop;
    struct generation *generation;
    struct listeners listeners;
    struct worker_shared shared;
    struct worker *workers;
    unsigned started, stopped;
    struct upstream upstream;
    struct prober *prober;
    struct names *names; /* NULL: none to resolve */
    struct loop_source signals;
    int signal_fd;
    struct timer tickets;
    bool draining;
};

struct control_letter {
    struct message message;
    struct control *control;
};

static void control_signal_set(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
}

static void control_log_counters(const struct control *control, const char *why) {
    struct buf text;
    buf_init(&text, CONTROL_COUNTERS_MAX);
    if (metrics_append_json(&text))
        log_info("%s: counters %.*s", why, SPAN_ARGS(buf_span(&text)));
    buf_consume(&text, text.len);
    if (control->generation->ops->errors(control->generation->load, &text))
        log_info("%s: errors of functions %.*s", why, SPAN_ARGS(buf_span(&text)));
    buf_release(&text);
}

static void control_stop(struct control *control, const char *signal_name) {
    bool again = control->draining;
    control->draining = true;
    if (control->started == 0)
        return;
    if (again)
        log_warn("%s again: closing everything now", signal_name);
    else
        log_info("%s: no new connections, finishing what is in flight for up to %g s; another signal ends it at once", signal_name,
                 control->generation->config->settings.drain_timeout_ms / 1000.0);
    for (unsigned i = 0; i < control->started; i++) {
        if (again)
            worker_stop(&control->workers[i]);
        else
            worker_drain(&control->workers[i]);
    }
}

static void control_on_signal(struct loop_source *source, uint32_t events) {
    (void)events;
    struct control *control = container_of(source, struct control, signals);
    struct signalfd_siginfo info;
    while (read(control->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            log_warn("SIGHUP: reload is not in this version");
        else if (info.ssi_signo == SIGUSR1)
            control_log_counters(control, "SIGUSR1");
        else
            control_stop(control, info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
    }
}

static void control_on_tickets(struct timer *timer) {
    struct control *control = container_of(timer, struct control, tickets);
    tls_tickets_rotate();
    timer_set(control->loop, timer, CONTROL_TICKETS_MS);
}

/* A server's state changed: every worker hears of it. */
static void control_on_server(void *owner, struct server *server) {
    struct control *control = owner;
    for (unsigned i = 0; i < control->started; i++)
        worker_notify_server(&control->workers[i], server);
}

static void control_count_stopped(struct message *message) {
    struct control_letter *letter = container_of(message, struct control_letter, message);
    struct control *control = letter->control;
    mem_free(letter);
    if (++control->stopped == control->started)
        loop_stop(control->loop);
}

static void control_on_worker_stopped(void *owner) {
    struct control_letter *letter = mem_alloc(sizeof *letter);
    letter->control = owner;
    loop_post(letter->control->loop, &letter->message, control_count_stopped);
}

/* How many clients may be here at once, and a word to the operator if that is fewer than were asked for. */
static void control_limit_connections(struct control *control) {
    size_t limit = sock_raise_descriptor_limit();
    unsigned wanted = control->generation->config->settings.max_connections;
    unsigned room = machine_max_connections(limit, control->shared.worker_count, control->listeners.count);
    control->shared.max_connections = wanted > 0 && wanted < room ? wanted : room;
    if (wanted > room)
        log_warn("settings: max_connections = %u, but the limit of %zu open files leaves room for %u tunnels: %u short; raise "
                 "the hard limit to %zu",
                 wanted, limit, room, wanted - room, limit + 2 * (size_t)(wanted - room));
    else
        log_info("room for %u clients or tunnels (%zu open files)", control->shared.max_connections, limit);
}

static bool control_open_sockets(struct control *control, char *error) {
    const struct config *config = control->generation->config;
    if (!listeners_open(&control->listeners, config, error, GENERATION_ERROR_MAX))
        return false;
    return machine_drop_privileges(&config->settings, error, GENERATION_ERROR_MAX) &&
           machine_check_files(config, error, GENERATION_ERROR_MAX);
}

static bool control_start_log(struct control *control, char *error) {
    const struct config_settings *settings = &control->generation->config->settings;
    const struct log_options options = {.level = settings->log_level, .access_to = settings->access_to};
    if (!log_start(&options)) {
        snprintf(error, GENERATION_ERROR_MAX, "settings: access_log: cannot open \"%s\": %s", settings->access_to,
                 strerror(errno));
        return false;
    }
    log_attach("control");
    metrics_attach();
    return true;
}

static bool control_start_signals(struct control *control) {
    sigset_t set;
    control_signal_set(&set);
    control->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    loop_source_init(&control->signals, control_on_signal);
    return control->signal_fd >= 0 && loop_add_level(control->loop, control->signal_fd, &control->signals);
}

static bool control_start_workers(struct control *control, char *error) {
    for (unsigned i = 0; i < control->shared.worker_count; i++) {
        bool ok = worker_start(&control->workers[i], i, &control->shared, control->generation, error);
        if (control->workers[i].started)
            control->started++;
        if (!ok)
            return false;
    }
    for (unsigned i = 0; i < control->started; i++)
        worker_listen(&control->workers[i]);
    return true;
}

static bool control_start(struct control *control, char *error) {
    const struct config *config = control->generation->config;
    if (!control_open_sockets(control, error) || !control_start_log(control, error))
        return false;
    script_monitor_start();
    tls_tickets_init();
    control_limit_connections(control);
    if (!control_start_signals(control)) {
        snprintf(error, GENERATION_ERROR_MAX, "cannot watch for signals: %s", strerror(errno));
        return false;
    }
    if (!control_start_workers(control, error))
        return false;
    control->prober = prober_new(&control->upstream, control->generation->pools, config->pool_count, control_on_server, control);
    prober_start(control->prober);
    control->names = names_new(control->loop, control->generation->pools, config->pool_count, config->settings.nameservers,
                               control->prober, control_on_server, control);
    timer_init(&control->tickets, control_on_tickets);
    timer_set(control->loop, &control->tickets, CONTROL_TICKETS_MS);
    log_info("serving %s with %u workers, process %ld", config->file, control->started, (long)getpid());
    return true;
}

/* Ends the workers that run (when start-up failed half-way, too), then all the rest. */
static void control_finish(struct control *control) {
    names_free(&control->names);
    prober_free(&control->prober);
    for (unsigned i = 0; i < control->started; i++)
        worker_join(&control->workers[i]);
    for (unsigned i = 0; i < control->started; i++)
        worker_free(&control->workers[i]);
    timer_stop(control->loop, &control->tickets);
    upstream_fini(&control->upstream);
    script_monitor_stop();
    if (control->started > 0)
        control_log_counters(control, "stopped");
    if (control->signal_fd >= 0)
        close(control->signal_fd);
    log_stop();
    listeners_close(&control->listeners);
    mem_free(control->workers);
    generation_unref(&control->generation);
    loop_free(&control->loop);
}

static unsigned control_worker_count(const struct config_settings *settings) {
    if (settings->workers > 0)
        return settings->workers;
    unsigned processors = machine_processors();
    return processors < CONFIG_WORKERS_MAX ? processors : CONFIG_WORKERS_MAX;
}

bool control_serve(struct generation *generation, const struct control_options *options, char *error) {
    const struct config_settings *settings = &generation->config->settings;
    struct control control = {.generation = generation, .signal_fd = -1};
    sigset_t set;
    control_signal_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    control.loop = loop_new();
    upstream_init(&control.upstream, control.loop);
    control.upstream.is_probe = true;
    timer_init(&control.tickets, control_on_tickets);
    control.shared.listeners = &control.listeners;
    control.shared.worker_count = control_worker_count(settings);
    control.shared.on_stopped = control_on_worker_stopped;
    control.shared.owner = &control;
    control.workers = mem_alloc_array(control.shared.worker_count, sizeof *control.workers);
    control.shared.workers = control.workers;
    bool ok = control_start(&control, error);
    if (ok && options->on_ready)
        options->on_ready(options->owner);
    if (!ok)
        control_stop(&control, "failed start");
    if (control.started > 0)
        loop_run(control.loop);
    control_finish(&control);
    return ok;
}
