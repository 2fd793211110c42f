/* SPDX-License-Identifier: MIT */
/*
 * sock: descriptors of sockets, non-blocking and close-on-exec from birth. Thin, exact, no state.
 */
#ifndef MOONGATE_IO_SOCK_H
#define MOONGATE_IO_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/addr.h"

/* The one result of anything that touches a connection. */
enum io { IO_OK, IO_AGAIN, IO_EOF, IO_ERROR };

/*
 * A bound, listening socket; -1 with errno set. IPv6 sockets are IPV6_V6ONLY. SO_REUSEADDR is set, and TCP_NODELAY, which
 * accepted ones inherit like keepalive and user timeout. A stale
 * unix socket (nobody answers) is removed first; a live one gives EADDRINUSE. *err_step (may be NULL) names
 * the call that failed.
 */
int sock_listen(const struct addr *addr, int backlog, const char **err_step);
/* A connection in progress or made; -1 with errno set. source (may be NULL) is bound first. sock_set_stream() is left to the caller. */
int sock_connect(const struct addr *to, const struct addr *source);
/* TCP only: what a connection needs that carries more than one message: TCP_NODELAY, and a bound on unsent bytes in the kernel. */
void sock_set_stream(int fd);
/* accept4; -1 with errno set. Options are those of the listening socket. */
int sock_accept(int listener, struct addr *peer);
/* SO_ERROR of a connect in progress: 0 or an errno. */
int sock_error(int fd);
/* Keep-alive probes after idle_s seconds (0: none), 3 of them idle_s/4 apart (at least 1 s), and TCP_USER_TIMEOUT for unacknowledged data. */
void sock_set_keepalive(int fd, unsigned idle_s);
void sock_set_user_timeout(int fd, unsigned timeout_ms);
/* The close sends RST instead of FIN: for aborts that must not look like an end. */
void sock_set_abort(int fd);
bool sock_local(int fd, struct addr *out);
/* Raises RLIMIT_NOFILE to its hard limit; returns the limit in force. */
size_t sock_raise_descriptor_limit(void);
/* Errors of connect() and socket() that say something about this machine, not about the server (requirements D24). */
bool sock_error_is_local(int error);

#endif
