/* SPDX-License-Identifier: MIT */
/*
 * pattern: compiles and matches path and host patterns.
 *
 * A path pattern is cut once into its literal head, which the index hashes and which memcmp decides, and a tail that is
 * walked segment by segment only when it holds a parameter. Only a final slash-star is a wildcard; any other star is a
 * literal.
 *
 * The subtle thing: patterns are written by people, paths come normalised from the wire. So a pattern goes through the
 * same normalisation, or a pattern with an accented letter would never match its escaped form.
 */
#include "traffic/pattern.h"

#include "base/str.h"
#include "wire/uri.h"

static bool pattern_is_hex(char c) { return (c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'f'); }

static bool pattern_must_escape(struct span text, size_t at) {
    unsigned char c = (unsigned char)text.p[at];
    if (c == '%')
        return at + 2 >= text.n || !pattern_is_hex(text.p[at + 1]) || !pattern_is_hex(text.p[at + 2]);
    return c <= ' ' || c >= 0x7f || c == '?' || c == '#';
}

struct span pattern_escape(struct arena *arena, struct span text) {
    static const char digits[16] = "0123456789ABCDEF";
    size_t escapes = 0;
    for (size_t i = 0; i < text.n; i++)
        escapes += pattern_must_escape(text, i) ? 1 : 0;
    if (escapes == 0)
        return text;
    char *out = arena_alloc(arena, text.n + 2 * escapes);
    if (!out)
        return SPAN_NULL;
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (!pattern_must_escape(text, i)) {
            out[n++] = (char)c;
            continue;
        }
        out[n++] = '%';
        out[n++] = digits[c >> 4];
        out[n++] = digits[c & 15];
    }
    return span_make(out, n);
}

/* The segment at the front of text, which begins with its slash; without the slash. */
static struct span pattern_segment(struct span text) {
    const char *end = text.n > 1 ? memchr(text.p + 1, '/', text.n - 1) : NULL;
    return span_make(text.p + 1, end ? (size_t)(end - text.p) - 1 : text.n - 1);
}

static struct span pattern_skip(struct span text, size_t n) { return span_make(text.p + n, text.n - n); }

static bool pattern_is_param(struct span segment) { return segment.n > 1 && segment.p[0] == ':'; }

void pattern_compile(struct pattern *pattern, struct arena *arena, struct span text) {
    const char *reason = NULL;
    struct span path = pattern_escape(arena, text);
    if (path.p && path.n > 0 && path.p[0] == '/')
        path = uri_normalise_path(arena, path, true, &reason);
    if (!path.p)
        path = text;
    *pattern = (struct pattern){.kind = PATTERN_EXACT, .head = path};
    bool wildcard = str_ends(path, SPAN("/*"));
    struct span left = path;
    while (left.n > 0 && left.p[0] == '/') {
        struct span segment = pattern_segment(left);
        if (pattern_is_param(segment)) {
            if (pattern->params++ == 0) {
                pattern->kind = PATTERN_SEGMENTS;
                pattern->head = span_make(path.p, path.n - left.n);
                pattern->tail = left;
            }
        }
        left = pattern_skip(left, segment.n + 1);
    }
    if (wildcard && pattern->kind == PATTERN_EXACT) {
        pattern->kind = PATTERN_BELOW;
        pattern->head = span_make(path.p, path.n - 2);
    }
}

/* What is left of the path at a final wildcard: nothing, or a slash and all below. */
static bool pattern_take_rest(struct span path, size_t at, struct span *rest) {
    if (at == path.n) {
        *rest = span_make(path.p + path.n, 0);
        return at > 0; /* never the asterisk form, nor nothing at all */
    }
    if (path.p[at] != '/')
        return false;
    *rest = pattern_skip(path, at + 1);
    return true;
}

static bool pattern_match_tail(const struct pattern *pattern, struct span path, struct span *rest,
                               pattern_param_fn *on_param, void *owner) {
    struct span tail = pattern->tail, left = pattern_skip(path, pattern->head.n);
    while (tail.n > 0) {
        if (span_equal(tail, SPAN("/*")))
            return pattern_take_rest(path, path.n - left.n, rest);
        if (left.n == 0 || left.p[0] != '/')
            return false;
        struct span want = pattern_segment(tail), have = pattern_segment(left);
        if (!pattern_is_param(want)) {
            if (!span_equal(want, have))
                return false;
        } else if (have.n == 0) {
            return false;
        } else if (on_param) {
            on_param(owner, pattern_skip(want, 1), have);
        }
        tail = pattern_skip(tail, want.n + 1);
        left = pattern_skip(left, have.n + 1);
    }
    return left.n == 0;
}

bool pattern_match_path(const struct pattern *pattern, struct span path, struct span *rest, pattern_param_fn *on_param,
                        void *owner) {
    struct span none;
    rest = rest ? rest : &none;
    *rest = SPAN_NULL;
    if (pattern->kind == PATTERN_EXACT)
        return span_equal(path, pattern->head);
    if (!str_starts(path, pattern->head))
        return false;
    if (pattern->kind == PATTERN_BELOW)
        return pattern_take_rest(path, pattern->head.n, rest);
    return pattern_match_tail(pattern, path, rest, on_param, owner);
}

bool pattern_match_host(struct span pattern, struct span host) {
    if (span_equal(pattern, SPAN("*")))
        return true;
    if (!str_starts(pattern, SPAN("*.")))
        return span_equal(pattern, host);
    return host.n > pattern.n - 1 && str_ends(host, pattern_skip(pattern, 1));
}
