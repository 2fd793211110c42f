/* SPDX-License-Identifier: MIT */
/*
 * resolve: names to addresses by c-ares, on a loop, without blocking: /etc/hosts first, then A and AAAA records, or SRV
 * records and the addresses of their targets.
 */
#ifndef MOONGATE_UPSTREAM_RESOLVE_H
#define MOONGATE_UPSTREAM_RESOLVE_H

#include "base/addr.h"
#include "io/loop.h"

#define RESOLVE_ANSWERS_MAX 64 /* addresses of one name; more are left out */

enum resolve_family { RESOLVE_V4 = 1, RESOLVE_V6 = 2 };

struct resolve_address {
    struct addr addr;   /* with port */
    const char *host;   /* the name asked for, or the target of its SRV record */
    uint16_t priority, weight; /* of the SRV record; 0 and 1 without one */
};

struct resolve_answer {
    const struct resolve_address *list; /* in no particular order, none twice */
    unsigned count;
    unsigned failed;   /* enum resolve_family bits: of these there may be more, some question was not answered */
    const char *error; /* why there is no address; NULL: there is one */
    const char *hint;  /* what may help; NULL: nothing known */
};

struct resolver;
struct resolve;

/* answer is valid inside the call; the job is over then (its owner forgets it). */
typedef void resolve_done_fn(void *owner, const struct resolve_answer *answer);

/* nameservers: "127.0.0.1:53,[::1]:53"; NULL: what resolv.conf says, read again when it changed. */
struct resolver *resolver_new(struct loop *loop, const char *nameservers);
/* Every job must be over or cancelled. */
void resolver_free(struct resolver **resolver);
/*
 * Asks for name (srv: for its SRV records, port does not matter). on_done comes once, from the loop, never from inside;
 * after timeout_ms with what has come until then.
 */
struct resolve *resolve_start(struct resolver *resolver, const char *name, uint16_t port, bool srv, uint32_t timeout_ms,
                              resolve_done_fn *on_done, void *owner);
/* on_done does not come. Clears the pointer; NULL inside is fine. */
void resolve_cancel(struct resolve **job);

#endif
