/* SPDX-License-Identifier: MIT */
/*
 * action: what a route decides: forward, reply, redirect, drop. Static ones belong to the configuration; those that
 * a Lua function returns are built in the request's arena. Both have this shape.
 */
#ifndef MOONGATE_CONFIG_ACTION_H
#define MOONGATE_CONFIG_ACTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

enum action_kind { ACTION_NONE, ACTION_FORWARD, ACTION_REPLY, ACTION_REDIRECT, ACTION_DROP };

struct action_header {
    struct span name;
    struct span value; /* .p NULL: remove it */
};

struct action {
    enum action_kind kind;
    union {
        struct {
            unsigned pool;  /* index into config->pools: the preferred one */
            const unsigned *others; /* in order, each used when none before it has a live server */
            unsigned other_count;
            struct span server; /* name or address of one server of the pool; .p NULL: the balancer picks */
            struct span key;    /* what balance = "hash" hashes; .p NULL: the client's address */
            struct span path;   /* replaces the forwarded path; a trailing "*" takes the matched rest; .p NULL: none */
            struct span host;   /* Host to send; .p NULL: the pool's choice */
            uint32_t response_timeout_ms; /* 0: the pool's */
        } forward;
        struct {
            uint16_t status; /* 200-599 */
            struct span body;
            const struct action_header *headers;
            unsigned header_count;
        } reply;
        struct {
            struct span url;    /* whole Location; .p NULL: from the parts below, each .p NULL where it stays */
            struct span scheme, host, path, query; /* path may end in "*" */
            uint16_t port;      /* 0: none named (a changed scheme or host drops the old one) */
            uint16_t status;    /* 301 302 303 307 308 */
        } redirect;
    };
};

#endif
