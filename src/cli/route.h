/* SPDX-License-Identifier: MIT */
/* route: the parts of `moongate route`: the request made from the command line, and the heads it prints. */
#ifndef MOONGATE_CLI_ROUTE_H
#define MOONGATE_CLI_ROUTE_H

#include "traffic/decide.h"
#include "wire/http1.h"

#define ROUTE_FIELDS_MAX 200 /* -H options */

struct route_options {
    const char *file, *url;
    const char *method;                   /* NULL: GET */
    const char *fields[ROUTE_FIELDS_MAX]; /* as written: "Name: value", "Name:" (leave it out), "Name;" (empty) */
    unsigned field_count;
    const char *client;   /* address of the TCP peer; NULL: 127.0.0.1 */
    const char *listener; /* name; NULL: by the URL */
    const char *expect;   /* text the verdict must hold; NULL: any */
    bool trace;
};

/* A URL cut up; spans point into its text. */
struct route_url {
    bool tls, websocket;
    struct span authority; /* as Host sends it */
    struct span host;      /* without port and brackets */
    uint16_t port;         /* 0: not named */
    struct span target;    /* from the path's slash to the end, without fragment; "" for none */
};

/* NULL, or why the URL cannot be asked for; static. */
const char *route_url_parse(const char *text, struct route_url *url);
/* The bytes of the head a client like curl would send. False: too large. */
bool route_write_head(struct buf *out, const struct route_options *options, const struct route_url *url);
/*
 * The listener such a URL arrives at: the one of that name; the first of its scheme and port; where the URL names no port, the first of
 * its scheme, or of all. NULL: none has that name, or scheme and port.
 */
const struct config_listener *route_choose_listener(const struct config *config, const struct route_options *options,
                                                    const struct route_url *url);
/* The port that listener is reached by for this URL. */
uint16_t route_local_port(const struct config_listener *listener, const struct route_url *url);

/* Prints the head that would be forwarded to the first server of the pool. False: out of memory. */
bool route_print_forward(const struct decide *decide);
/* Prints the answer to a reply or redirect as the client would get it, hooks included. False: out of memory. */
bool route_print_answer(const struct decide *decide);
/* Likewise for a refusal with that status. Before routing only config and subject of decide are set. */
bool route_print_refusal(const struct decide *decide, unsigned status);

#endif
