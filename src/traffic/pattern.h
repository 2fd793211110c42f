/* SPDX-License-Identifier: MIT */
/*
 * pattern: the two little pattern languages of match keys: paths ("/a", "/a/" + "*", ":name" segments) and hosts
 * ("x.example", "*.example").
 */
#ifndef MOONGATE_TRAFFIC_PATTERN_H
#define MOONGATE_TRAFFIC_PATTERN_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/span.h"

enum pattern_kind {
    PATTERN_EXACT,   /* the whole path */
    PATTERN_BELOW,   /* head, and all below it */
    PATTERN_SEGMENTS /* head, then parameters and literals, maybe all below */
};

struct pattern {
    enum pattern_kind kind;
    struct span head; /* the literal front: no slash at its end; "" for all paths. PATTERN_EXACT: the whole */
    struct span tail; /* PATTERN_SEGMENTS: from the first parameter's slash on */
    unsigned params;  /* parameters in tail */
};

/* A parameter's name and the raw segment it matched. */
typedef void pattern_param_fn(void *owner, struct span name, struct span segment);

/* text is escaped as paths are on the wire, into arena, which must outlive the pattern. */
void pattern_compile(struct pattern *pattern, struct arena *arena, struct span text);
/* path is normalised. rest (may be NULL) is what the final wildcard took, .p NULL without one. on_param may be NULL. */
bool pattern_match_path(const struct pattern *pattern, struct span path, struct span *rest, pattern_param_fn *on_param,
                        void *owner);
/* host in lower case. "*.x" matches any depth below x, not x itself; "*" every host. */
bool pattern_match_host(struct span pattern, struct span host);
/*
 * A path as a person writes it to the form it has on the wire: bytes that may not stand in a request target, '?', '#'
 * and a stray '%' become escapes. text itself when nothing changes; .p NULL out of memory.
 */
struct span pattern_escape(struct arena *arena, struct span text);

#endif
