/* SPDX-License-Identifier: MIT */
/*
 * metrics: counters, one cache-aligned block a thread, added to without a lock prefix and summed by
 * whoever reads. Gauges are pairs of counters (opened, closed), so that they reconcile when quiet
 * (requirements F38). One list gives the code, the dump (SIGUSR1) and the man page's table.
 */
#ifndef MOONGATE_BASE_METRICS_H
#define MOONGATE_BASE_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* name, help */
#define METRICS(X) \
    X(clients_accepted, "client connections accepted") \
    X(clients_closed, "client connections closed") \
    X(clients_refused, "client connections closed at once because of max_connections") \
    X(accept_errors, "accept() failures for want of descriptors or memory") \
    X(proxy_headers_bad, "connections closed for want of a PROXY header, or for a malformed or late one") \
    X(tls_handshakes, "TLS handshakes completed with clients") \
    X(tls_failures, "TLS handshakes with clients that failed") \
    X(requests_started, "request heads understood") \
    X(requests_ended, "requests ended, tunnels that follow not counted") \
    X(requests_bad, "heads and bodies that could not be read") \
    X(parser_mismatches, "heads on which guard and parser disagreed (answered 400)") \
    X(tunnels_opened, "tunnels opened") \
    X(tunnels_closed, "tunnels closed") \
    X(server_connects, "connections opened to servers, probes not counted") \
    X(server_connect_failures, "failed connects to servers, probes not counted") \
    X(server_closed, "connections to servers closed, probes not counted") \
    X(server_reused, "requests sent on a kept server connection") \
    X(server_local_errors, "connects that failed here: descriptors, ports or memory") \
    X(server_bad_responses, "responses of servers that were refused") \
    X(retries, "requests tried again on another connection or server") \
    X(probes_sent, "health probes sent") \
    X(probes_failed, "health probes failed") \
    X(script_errors, "errors in Lua functions") \
    X(script_overruns, "Lua functions ended by their budget")

enum metric {
#define METRICS_ENUM(name, help) METRIC_##name,
    METRICS(METRICS_ENUM)
#undef METRICS_ENUM
    METRIC_COUNT
};

/* Gives the calling thread a block of counters; blocks outlive their thread. Needed before metric_add(). */
void metrics_attach(void);
/* Adds to the calling thread's counter. */
void metric_add(enum metric metric, uint64_t n);
/* Sum over all threads. */
uint64_t metric_sum(enum metric metric);
const char *metric_name(enum metric metric);
const char *metric_help(enum metric metric);
/* All counters as one JSON object; false when buf is full. */
bool metrics_append_json(struct buf *buf);

#endif
