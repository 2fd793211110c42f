/* SPDX-License-Identifier: MIT */
/*
 * line: text that is put together in a fixed piece of memory, for what is on the path of a request and must not cost a
 * check and a call a word. A piece that does not fit is left out, whole. Header only.
 */
#ifndef MOONGATE_BASE_LINE_H
#define MOONGATE_BASE_LINE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/digits.h"
#include "base/str.h"

struct line {
    char *p, *end; /* the next byte; behind the last one there is room for */
};

static inline size_t line_room(const struct line *line) { return (size_t)(line->end - line->p); }

/* False: no room. */
static inline bool line_put(struct line *line, const char *text, size_t n) {
    if (line_room(line) < n)
        return false;
    memcpy(line->p, text, n);
    line->p += n;
    return true;
}

/* A literal: its length is known, and short ones become a store or two. */
#define LINE_PUT(line, literal) line_put(line, literal, sizeof(literal) - 1)

static inline bool line_put_u64(struct line *line, uint64_t value) {
    if (line_room(line) < DIGITS_MAX)
        return false;
    line->p += digits_format(line->p, value);
    return true;
}

/* The inside of a JSON string. */
static inline bool line_put_json(struct line *line, struct span value) {
    char *p = str_put_json(line->p, line->end, value);
    if (p)
        line->p = p;
    return p != NULL;
}

#endif
