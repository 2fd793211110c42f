/* SPDX-License-Identifier: MIT */
/*
 * match: the match keys of one route (rules.md part 3), as declared. Keys are ANDed, lists inside a key ORed; an
 * absent key (count 0, or the *_ANY value) matches everything. All texts are owned by the config.
 */
#ifndef MOONGATE_CONFIG_MATCH_H
#define MOONGATE_CONFIG_MATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

struct match_texts {
    struct span *list;
    unsigned count;
};

enum match_presence { MATCH_VALUES, MATCH_PRESENT, MATCH_ABSENT };

/* One name of header{} query{} cookie{}: one of the values (globs with '*' at either end), present, or absent. */
struct match_named {
    struct span name;
    enum match_presence presence;
    struct match_texts values;
};

enum match_tristate { MATCH_ANY, MATCH_YES, MATCH_NO };

struct match {
    struct match_texts listeners; /* names */
    struct match_texts hosts;     /* lower case; "*.x" any depth */
    struct match_texts paths;     /* "/a", "/a/" + "*" for all below, ":name" segments */
    struct match_texts methods;   /* GET matches HEAD too */
    struct match_texts schemes;   /* "http" "https" (ws is http, wss is https) */
    enum match_tristate websocket; /* YES also when subprotocols are named */
    struct match_texts subprotocols; /* some offered one is in the list */
    bool no_subprotocol;          /* subprotocol = false (alone or in the list): none offered */
    struct match_named *headers, *queries, *cookies;
    unsigned header_count, query_count, cookie_count;
    struct cidr *clients;
    unsigned client_count;
    struct match_texts origins;   /* globs */
    bool no_origin;               /* false in the list: no Origin field */
    struct match_texts snis;      /* as hosts */
    bool no_sni;
};

#endif
