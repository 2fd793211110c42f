/* SPDX-License-Identifier: MIT */
/* run: serves one configuration file in the calling process; also what the demo does with its example. */
#ifndef MOONGATE_CLI_RUN_H
#define MOONGATE_CLI_RUN_H

#include <stdint.h>

struct run_options {
    uint32_t drain_ms;             /* instead of the drain_timeout of the file; 0: that one */
    void (*on_ready)(void *owner); /* the listeners are open and the workers run; NULL: none */
    void *owner;
};

/* Loads file and serves until SIGTERM or SIGINT; returns an enum cli_exit. Mistakes are printed to stderr. */
int run_gateway(const char *file, const struct run_options *options);

#endif
