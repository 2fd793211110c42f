/* SPDX-License-Identifier: MIT */
/*
 * control: the thread that watches over the others: signals, probes, ticket keys, start and stop of workers. It carries no traffic.
 */
#ifndef MOONGATE_CONTROL_CONTROL_H
#define MOONGATE_CONTROL_CONTROL_H

#include "traffic/generation.h"

struct control_options {
    void (*on_ready)(void *owner); /* listeners open, workers running; NULL: none */
    void *owner;
};

/*
 * Serves generation (takes the reference over) on the calling thread until SIGTERM or SIGINT. The log must be started
 * afterwards only: control starts and stops it, since privileges are dropped before any thread exists. False with a
 * sentence in error[GENERATION_ERROR_MAX] when it could not start.
 */
bool control_serve(struct generation *generation, const struct control_options *options, char *error);

#endif
