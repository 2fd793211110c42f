/* SPDX-License-Identifier: MIT */
/*
 * span: a borrowed run of bytes with a length; never owns, never ends in NUL by promise.
 * The common currency of the wire, routing and script layers.
 */
#ifndef MOONGATE_BASE_SPAN_H
#define MOONGATE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
    const char *p;
    size_t n;
};

#define SPAN(literal) ((struct span){(literal), sizeof(literal) - 1})
#define SPAN_NULL ((struct span){NULL, 0})
/* For printf's "%.*s". */
#define SPAN_ARGS(s) ((int)(s).n), ((s).p ? (s).p : "")

static inline struct span span_of(const char *text) {
    return (struct span){text, text ? strlen(text) : 0};
}

static inline struct span span_make(const char *p, size_t n) { return (struct span){p, n}; }

static inline bool span_equal(struct span a, struct span b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

#endif
