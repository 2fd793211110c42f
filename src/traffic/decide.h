/* SPDX-License-Identifier: MIT */
/*
 * decide: the ROUTE step: goes through the matching routes from the top, runs their steps, and ends with one verdict.
 * Errors fail closed: 500, that route's edits undone (rules.md part 2, rule 3). Opens no socket; used by requests and
 * `moongate route`.
 */
#ifndef MOONGATE_TRAFFIC_DECIDE_H
#define MOONGATE_TRAFFIC_DECIDE_H

#include "traffic/routes.h"
#include "traffic/script_ops.h"

enum decide_status { DECIDE_DONE, DECIDE_WAIT };

struct decide {
    const struct config *config;
    const struct routes *routes;
    const struct script_ops *ops;
    void *script;
    struct subject *subject;
    routes_trace_fn *trace; /* may be NULL */
    void *trace_owner;
    /* The result. */
    unsigned route;              /* ordinal that decided; ROUTES_END: none (404) */
    const struct action *action; /* never NULL when done; a 404 or 500 of our own is a static reply */
    bool script_failed;          /* the verdict is the 500 of a script error */
    /*
     * Routes whose steps ran to the end or decided: their request_headers and response_headers apply, their on_response
     * is called.
     */
    unsigned *ran; /* ordinals, in the subject's arena */
    unsigned ran_count;
    /* Private. */
    unsigned next; /* ordinal to go on from */
    unsigned step; /* of the route under way */
    bool inside;   /* a route's step waits */
    unsigned ran_cap;
    struct subject_mark mark;
    void (*resume)(void *owner);
    void *owner;
};

/* resume(owner) is called when a wait is over: call decide_run() again. */
void decide_init(struct decide *decide, const struct config *config, const struct routes *routes,
                 const struct script_ops *ops, void *script, struct subject *subject, void (*resume)(void *owner),
                 void *owner);
/*
 * DECIDE_DONE: the result is set. DECIDE_WAIT: a step waits; decide_run() then calls ops->step again for the same
 * function, which the script takes as "go on". A route's request_headers are applied when it has matched, before its
 * steps.
 */
enum decide_status decide_run(struct decide *decide);

/*
 * The target to forward for a decided forward (path with "*" filled in, query kept); arena memory; .p NULL out of
 * memory.
 */
struct span decide_target(struct subject *subject, const struct action *forward);
/* The Location of a decided redirect; arena memory; .p NULL out of memory. */
struct span decide_location(struct subject *subject, const struct action *redirect);

#endif
