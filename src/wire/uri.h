/* SPDX-License-Identifier: MIT */
/*
 * uri: request targets and hosts: split, normalise, decode, build (RFC 3986, RFC 9110 section 4.2). The path that is
 * matched is the path that is forwarded.
 */
#ifndef MOONGATE_WIRE_URI_H
#define MOONGATE_WIRE_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/span.h"

struct uri {
    struct span scheme;    /* "" in origin form */
    struct span authority; /* "" in origin form */
    struct span path;      /* raw, "/" when empty in absolute form; "*" in asterisk form */
    struct span query;     /* without '?'; .p NULL when there is none */
};

/* Splits an accepted request target in origin, absolute or asterisk form. False if malformed. */
bool uri_split_target(struct span target, struct uri *out);
/*
 * Dot segments and "//" collapsed, percent-escapes of unreserved characters decoded, hex digits upper case.
 * encoded_slash: keep "%2F" (false: an error). Returns the input itself when nothing changes, else an arena copy.
 * .p NULL with a static phrase in *reason on: a bad escape, ".." above the root, "..;" and the like, NUL, an encoded
 * slash, a byte that is not visible ASCII or ends a path. "*" is left alone.
 */
struct span uri_normalise_path(struct arena *arena, struct span raw, bool encoded_slash, const char **reason);
/* Some segment is "." or "..", escaped or not. Rules that make a path of what a client sent want none: it would leave the folder they name. */
bool uri_has_dot_segment(struct span path);
/*
 * Splits "host", "host:8080", "[::1]:8080" without changing anything. The host keeps brackets and case; one trailing
 * dot is left off. False if malformed: an empty label or port, port 0, another byte than letters, digits, "-._~",
 * an address in brackets that is none.
 */
bool uri_split_host(struct span text, struct span *host, uint16_t *port);
/*
 * Host without port, brackets kept, case folded, trailing dot removed; *port 0 when there is none. .p NULL when
 * malformed. Copies only when it must.
 */
struct span uri_normalise_host(struct arena *arena, struct span host, uint16_t *port);
/* %XX and, for form queries, '+'; arena copy only when something changes. .p NULL on a bad escape or without memory. */
struct span uri_decode(struct arena *arena, struct span text, bool plus_is_space);
/* Escapes what may not stand in a path segment (slash kept). */
struct span uri_encode_path(struct arena *arena, struct span text);
/* Escapes a query name or value. */
struct span uri_encode_query(struct arena *arena, struct span text);
/*
 * The first value of name in the query, decoded; .p NULL when absent; "" for a bare name; as it stands when a
 * percent-escape is bad.
 */
struct span uri_query_get(struct arena *arena, struct span query, struct span name);
/*
 * The query with name set to value (replacing the first, dropping others); value.p NULL removes it. "" when nothing
 * is left; .p NULL without memory.
 */
struct span uri_query_set(struct arena *arena, struct span query, struct span name, struct span value);

#endif
