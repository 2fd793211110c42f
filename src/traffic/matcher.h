/* SPDX-License-Identifier: MIT */
/*
 * matcher: judges a subject by one compiled set of match keys (config/match.h).
 */
#ifndef MOONGATE_TRAFFIC_MATCHER_H
#define MOONGATE_TRAFFIC_MATCHER_H

#include "traffic/pattern.h"
#include "traffic/subject.h"

#define MATCHER_KEYS_MAX 16

struct matcher {
    const struct match *match;                /* borrowed */
    const struct config_listener **listeners; /* of match->listeners; owned */
    unsigned listener_count;
    struct pattern *paths;          /* of match->paths; owned */
    uint32_t methods;               /* bits of enum http_method; the others are compared by name */
    bool captures;                  /* some path has parameters or a wildcard */
    uint8_t keys[MATCHER_KEYS_MAX]; /* those that were declared, cheap ones first */
    uint8_t key_count;
};

/* arena holds escaped patterns and must outlive the matcher. */
void matcher_init(struct matcher *matcher, const struct match *match, const struct config *config, struct arena *arena);
void matcher_fini(struct matcher *matcher);
/* NULL when every key matches, else the name of the first that does not ("host", "path"); static. */
const char *matcher_test_all(const struct matcher *matcher, struct subject *subject);
/* True when some key matches; false for an empty set. */
bool matcher_test_any(const struct matcher *matcher, struct subject *subject);
/* After matcher_test_all() gave NULL: sets subject->params and rest. */
void matcher_capture(const struct matcher *matcher, struct subject *subject);

#endif
