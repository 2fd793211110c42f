/* SPDX-License-Identifier: MIT */
/*
 * resolve: host names to addresses by getaddrinfo(), which blocks: either at once (while a configuration loads),
 * or on a short-lived thread that answers through the loop's mailbox.
 */
#ifndef MOONGATE_UPSTREAM_RESOLVE_H
#define MOONGATE_UPSTREAM_RESOLVE_H

#include "base/addr.h"
#include "io/loop.h"

/* The first address of host, with port. NULL when found, else why not (static). Blocks. */
const char *resolve_now(const char *host, uint16_t port, struct addr *out);

struct resolve;

/*
 * Asks on a thread of its own; on_done comes once on the loop's thread, with error NULL and the address, or the
 * reason; *job is over then (the callback's owner forgets it). NULL when no thread can be started (nothing comes
 * then).
 */
struct resolve *resolve_start(struct loop *loop, const char *host, uint16_t port,
                              void (*on_done)(void *owner, const struct addr *addr, const char *error), void *owner);
/* Forgets a job under way: on_done does not come, the loop may go. Clears the pointer; NULL inside is fine. */
void resolve_cancel(struct resolve **job);

#endif
