/* SPDX-License-Identifier: MIT */
/*
 * affinity: the value of the cookie that keeps a client with its server: a keyed hash of the server's name, so that it
 * tells nobody how servers are called, and is the same in all workers and in every process with the same key.
 */
#ifndef MOONGATE_UPSTREAM_AFFINITY_H
#define MOONGATE_UPSTREAM_AFFINITY_H

#include "config/config.h"

#define AFFINITY_VALUE_SIZE 33 /* 32 hex digits and a NUL */
#define AFFINITY_VALUES_MAX 8  /* in one cookie */

/*
 * Writes the value for the server called name. Without a key of its own a pool takes the machine's id, and where there
 * is none a random key, said once in the log: then every client moves once with each restart.
 */
void affinity_value(const struct config_affinity *affinity, const char *name, char out[AFFINITY_VALUE_SIZE]);
/*
 * The next value of a cookie: they are separated by dots, since pools that share a cookie keep one each. *rest is
 * advanced. False at the end. Skips what no gateway can have written.
 */
bool affinity_next(struct span *rest, struct span *value);

#endif
