/* SPDX-License-Identifier: MIT */
/*
 * origin: a small HTTP and WebSocket server for the demo, examples, tests and benchmarks. It shares no parser with the gateway, so that
 * blind spots do not agree; of the lower layers it uses only base.
 */
#ifndef MOONGATE_CLI_ORIGIN_ORIGIN_H
#define MOONGATE_CLI_ORIGIN_ORIGIN_H

#include <stdbool.h>
#include <stdint.h>

struct origin;

struct origin_options {
    const char *bind;   /* IP; NULL: 127.0.0.1 */
    uint16_t port;      /* 0: any free one */
    const char *name;   /* said in answers (Server field, page, health): "chat"; NULL: "origin" */
    const char *tls_cert, *tls_key; /* PEM paths; NULL: plain */
    const char *subprotocols; /* accepted, comma-separated, in order of preference; NULL: the first that is offered */
};

/* Starts an origin in a thread of its own; NULL with a sentence in error[256]. */
struct origin *origin_start(const struct origin_options *options, char *error);
uint16_t origin_port(const struct origin *origin);
void origin_stop(struct origin **origin);

#endif
