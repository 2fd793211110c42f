/* SPDX-License-Identifier: MIT */
/*
 * uri: targets, hosts and queries. The path is brought into one form before it is matched, and that form is what is
 * forwarded, so that no server can see another path than the rules did. Hosts likewise.
 *
 * Nothing is copied while the input is already in its normal form, which is the usual case: uri_path_is_normal() and
 * its like look first. The subtle thing in paths: an escape is decoded before its segment is judged ("%2e%2e" is
 * ".."), but only once. What some servers would take for a dot segment and others would not is refused: "..;x", "..%20", and dots
 * beside a backslash or an encoded slash, in any place of a segment ("x\\..", "..%2Fx").
 */
#include "wire/uri.h"

#include <arpa/inet.h>

#include "base/str.h"
#include "wire/scan.h"

#define URI_HOST_MAX 253
#define URI_ADDRESS_MAX 45 /* the longest text of an IPv6 address */

static bool uri_valid_scheme(struct span scheme) {
    if (scheme.n == 0 || (scheme.p[0] | 0x20) < 'a' || (scheme.p[0] | 0x20) > 'z')
        return false;
    for (size_t i = 1; i < scheme.n; i++) {
        const char c = scheme.p[i], lower = (char)(c | 0x20);
        if (!(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9') && c != '+' && c != '-' && c != '.')
            return false;
    }
    return true;
}

static void uri_split_query(struct span text, struct uri *out) {
    const char *mark = text.n > 0 ? memchr(text.p, '?', text.n) : NULL;
    const size_t n = mark ? (size_t)(mark - text.p) : text.n;
    out->path = n > 0 ? span_make(text.p, n) : SPAN("/");
    out->query = mark ? span_make(mark + 1, text.n - n - 1) : SPAN_NULL;
}

bool uri_split_target(struct span target, struct uri *out) {
    *out = (struct uri){.scheme = SPAN(""), .authority = SPAN("")};
    for (size_t i = 0; i < target.n; i++) {
        if (!scan_is(target.p[i], SCAN_TARGET))
            return false;
    }
    if (target.n == 0)
        return false;
    if (target.p[0] == '/' || (target.n == 1 && target.p[0] == '*')) {
        uri_split_query(target, out);
        return true;
    }
    const char *end = target.p + target.n, *colon = memchr(target.p, ':', target.n);
    if (!colon || end - colon < 4 || colon[1] != '/' || colon[2] != '/')
        return false;
    out->scheme = span_make(target.p, (size_t)(colon - target.p));
    const char *p = colon + 3, *start = p;
    while (p < end && *p != '/' && *p != '?')
        p++;
    out->authority = span_make(start, (size_t)(p - start));
    if (!uri_valid_scheme(out->scheme) || out->authority.n == 0 || memchr(start, '@', out->authority.n))
        return false;
    uri_split_query(span_make(p, (size_t)(end - p)), out);
    return true;
}

/* True when uri_normalise_path() would change nothing and finds no fault; a doubtful path is left to the slow way. */
static bool uri_path_is_normal(struct span raw) {
    for (size_t i = 0; i < raw.n; i++) {
        const char c = raw.p[i];
        if (!scan_is(c, SCAN_TARGET) || c == '%' || c == '?' || c == '\\')
            return false;
        if (c == '/' && i + 1 < raw.n && (raw.p[i + 1] == '/' || raw.p[i + 1] == '.'))
            return false;
    }
    return raw.n > 0 && raw.p[0] == '/';
}

static struct span uri_refuse(const char **reason, const char *why) {
    *reason = why;
    return SPAN_NULL;
}

/*
 * One byte of raw from *at on into *out (1 or 3 bytes); *at moves behind it. NULL, or why it is refused.
 */
static const char *uri_path_byte(struct span raw, size_t *at, bool encoded_slash, char *out, size_t *n) {
    static const char digits[] = "0123456789ABCDEF";
    const char *p = raw.p + *at;
    *n = 1;
    if (*p != '%') {
        *at += 1;
        out[0] = *p;
        return scan_is(*p, SCAN_TARGET) && *p != '?' ? NULL : "bad byte in the path";
    }
    if (raw.n - *at < 3 || !scan_is(p[1], SCAN_HEX) || !scan_is(p[2], SCAN_HEX))
        return "bad escape in the path";
    const unsigned value = scan_hex(p[1]) << 4 | scan_hex(p[2]);
    *at += 3;
    out[0] = (char)value;
    if (value == 0)
        return "NUL in the path";
    if (value == '/' && !encoded_slash)
        return "encoded slash in the path";
    if (scan_is((char)value, SCAN_UNRESERVED))
        return NULL;
    out[0] = '%';
    out[1] = digits[value >> 4];
    out[2] = digits[value & 15];
    *n = 3;
    return NULL;
}

/* Bytes of what some servers take for a slash at p: a backslash, an encoded one, or an encoded slash. */
static size_t uri_like_slash(const char *p, size_t n) {
    if (n > 0 && *p == '\\')
        return 1;
    return n >= 3 && (memcmp(p, "%5C", 3) == 0 || memcmp(p, "%2F", 3) == 0) ? 3 : 0;
}

/* How many dots a dot segment has that stands at p; 0: none does. */
static size_t uri_dots(const char *p, size_t n) {
    return n > 1 && p[0] == '.' && p[1] == '.' ? 2 : n > 0 && p[0] == '.' ? 1 : 0;
}

/* Some servers cut a segment here: at a parameter, or at white space or a control byte, when they have decoded it. */
static bool uri_like_end(const char *p, size_t n) {
    if (n < 3 || *p != '%')
        return n > 0 && *p == ';';
    return p[1] == '0' || p[1] == '1' || memcmp(p, "%20", 3) == 0 || memcmp(p, "%3B", 3) == 0;
}

/* Why a segment may be a dot segment to some servers and is none to others; NULL: it is the same to all. */
static const char *uri_hidden_dots(const char *p, size_t n) {
    for (bool first = true;; first = false) {
        const size_t dots = uri_dots(p, n);
        if (dots > 0 && uri_like_end(p + dots, n - dots))
            return "parameter or white space on a dot segment";
        if (dots > 0 && (dots == n ? !first : uri_like_slash(p + dots, n - dots) > 0))
            return "dot segment beside a backslash or an encoded slash";
        size_t at = 0, width = 0;
        while (at < n && (width = uri_like_slash(p + at, n - at)) == 0)
            at++;
        if (at == n)
            return NULL;
        p += at + width;
        n -= at + width;
    }
}

/*
 * Ends the segment text[from..*n) of the new path: takes away what a dot segment takes away. last: no slash follows.
 * NULL, or why it is refused.
 */
static const char *uri_end_segment(char *text, size_t from, size_t *n, bool last) {
    const size_t size = *n - from;
    const size_t dots = uri_dots(text + from, size);
    const char *why = uri_hidden_dots(text + from, size);
    if (why)
        return why;
    if (dots == 0 || size != dots) {
        if (!last && size > 0)
            text[(*n)++] = '/';
        return NULL; /* an empty segment leaves the slash that is already there */
    }
    if (dots == 2) {
        if (from == 1)
            return "path above the root";
        for (from--; text[from - 1] != '/'; from--)
            ;
    }
    *n = from;
    return NULL;
}

struct span uri_normalise_path(struct arena *arena, struct span raw, bool encoded_slash, const char **reason) {
    if (uri_path_is_normal(raw) || span_equal(raw, SPAN("*")))
        return raw;
    if (raw.n == 0 || raw.p[0] != '/')
        return uri_refuse(reason, "path without a leading slash");
    /* Never longer than the input: a segment is written before its slash, which the input has too. */
    char *text = arena_alloc(arena, raw.n + 3);
    if (!text)
        return uri_refuse(reason, "out of memory");
    size_t at = 1, n = 1, from = 1;
    const char *why = NULL;
    text[0] = '/';
    while (at < raw.n && !why) {
        if (raw.p[at] == '/') {
            why = uri_end_segment(text, from, &n, false);
            from = n;
            at++;
        } else {
            size_t more;
            why = uri_path_byte(raw, &at, encoded_slash, text + n, &more);
            n += more;
        }
    }
    if (!why)
        why = uri_end_segment(text, from, &n, true);
    if (why)
        return uri_refuse(reason, why);
    const struct span path = span_make(text, n);
    return span_equal(path, raw) ? raw : path;
}

bool uri_has_dot_segment(struct span path) {
    size_t dots = 0, others = 0;
    for (size_t i = 0; i < path.n; i++) {
        const bool escaped = path.n - i >= 3 && path.p[i] == '%' && path.p[i + 1] == '2' && (path.p[i + 2] | 0x20) == 'e';
        if (path.p[i] == '/') {
            if (others == 0 && (dots == 1 || dots == 2))
                return true;
            dots = others = 0;
        } else if (path.p[i] == '.' || escaped) {
            dots++;
            i += escaped ? 2 : 0;
        } else {
            others++;
        }
    }
    return others == 0 && (dots == 1 || dots == 2);
}

static bool uri_valid_address(struct span text) {
    char copy[URI_ADDRESS_MAX + 1];
    struct in6_addr address;
    if (text.n < 2 || !str_copy(copy, sizeof(copy), text) || memchr(text.p, '\0', text.n))
        return false;
    return inet_pton(AF_INET6, copy, &address) == 1;
}

static bool uri_parse_port(struct span text, uint16_t *port) {
    unsigned value = 0;
    if (text.n == 0 || text.n > 5)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        value = value * 10 + (unsigned)(text.p[i] - '0');
    }
    *port = (uint16_t)value;
    return value > 0 && value <= UINT16_MAX;
}

bool uri_split_host(struct span text, struct span *host, uint16_t *port) {
    size_t n = 0;
    *port = 0;
    if (text.n > 0 && text.p[0] == '[') {
        const char *close = memchr(text.p, ']', text.n);
        if (!close)
            return false;
        n = (size_t)(close - text.p) + 1;
        if (!uri_valid_address(span_make(text.p + 1, n - 2)))
            return false;
        *host = span_make(text.p, n);
    } else {
        char before = '.';
        for (; n < text.n && scan_is(text.p[n], SCAN_HOST); n++) {
            if (text.p[n] == '.' && before == '.')
                return false;
            before = text.p[n];
        }
        *host = span_make(text.p, n - (n > 0 && before == '.'));
        if (host->n == 0 || host->n > URI_HOST_MAX)
            return false;
    }
    if (n == text.n)
        return true;
    return text.p[n] == ':' && uri_parse_port(span_make(text.p + n + 1, text.n - n - 1), port);
}

struct span uri_normalise_host(struct arena *arena, struct span host, uint16_t *port) {
    struct span name;
    if (!uri_split_host(host, &name, port))
        return SPAN_NULL;
    size_t i = 0;
    while (i < name.n && str_lower(name.p[i]) == name.p[i])
        i++;
    if (i == name.n)
        return name;
    char *text = arena_alloc(arena, name.n);
    if (!text)
        return SPAN_NULL;
    for (i = 0; i < name.n; i++)
        text[i] = str_lower(name.p[i]);
    return span_make(text, name.n);
}

struct span uri_decode(struct arena *arena, struct span text, bool plus_is_space) {
    size_t i = 0, n = 0;
    while (i < text.n && text.p[i] != '%' && !(plus_is_space && text.p[i] == '+'))
        i++;
    if (i == text.n)
        return text.p ? text : SPAN("");
    char *out = arena_alloc(arena, text.n);
    if (!out)
        return SPAN_NULL;
    for (i = 0; i < text.n; i++) {
        const char c = text.p[i];
        if (c == '%') {
            if (text.n - i < 3 || !scan_is(text.p[i + 1], SCAN_HEX) || !scan_is(text.p[i + 2], SCAN_HEX))
                return SPAN_NULL;
            out[n++] = (char)(scan_hex(text.p[i + 1]) << 4 | scan_hex(text.p[i + 2]));
            i += 2;
        } else {
            out[n++] = plus_is_space && c == '+' ? ' ' : c;
        }
    }
    return span_make(out, n);
}

static struct span uri_encode(struct arena *arena, struct span text, uint8_t keep) {
    static const char digits[] = "0123456789ABCDEF";
    size_t more = 0, n = 0;
    for (size_t i = 0; i < text.n; i++)
        more += scan_is(text.p[i], keep) ? 0 : 2;
    if (more == 0)
        return text.p ? text : SPAN("");
    char *out = arena_alloc(arena, text.n + more);
    if (!out)
        return SPAN_NULL;
    for (size_t i = 0; i < text.n; i++) {
        const unsigned char c = (unsigned char)text.p[i];
        if (scan_is(text.p[i], keep)) {
            out[n++] = text.p[i];
        } else {
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    return span_make(out, n);
}

struct span uri_encode_path(struct arena *arena, struct span text) {
    return uri_encode(arena, text, SCAN_SEGMENT);
}

struct span uri_encode_query(struct arena *arena, struct span text) {
    return uri_encode(arena, text, SCAN_UNRESERVED);
}

/* Takes the next "name=value" or "name" off *rest. */
static bool uri_next_pair(struct span *rest, struct span *pair, struct span *name, struct span *value) {
    if (!rest->p)
        return false;
    const char *and = rest->n > 0 ? memchr(rest->p, '&', rest->n) : NULL;
    *pair = span_make(rest->p, and ? (size_t)(and - rest->p) : rest->n);
    *rest = and ? span_make(and + 1, rest->n - pair->n - 1) : SPAN_NULL;
    const char *equals = pair->n > 0 ? memchr(pair->p, '=', pair->n) : NULL;
    *name = span_make(pair->p, equals ? (size_t)(equals - pair->p) : pair->n);
    *value = equals ? span_make(equals + 1, pair->n - name->n - 1) : SPAN("");
    return true;
}

static struct span uri_decode_or_raw(struct arena *arena, struct span text) {
    const struct span decoded = uri_decode(arena, text, true);
    return decoded.p ? decoded : text;
}

struct span uri_query_get(struct arena *arena, struct span query, struct span name) {
    struct span pair, key, value;
    while (uri_next_pair(&query, &pair, &key, &value)) {
        if (pair.n > 0 && span_equal(uri_decode_or_raw(arena, key), name))
            return uri_decode_or_raw(arena, value);
    }
    return SPAN_NULL;
}

struct span uri_query_set(struct arena *arena, struct span query, struct span name, struct span value) {
    const struct span key = uri_encode_query(arena, name);
    const struct span text = value.p ? uri_encode_query(arena, value) : SPAN("");
    char *out = arena_alloc(arena, query.n + key.n + text.n + 3);
    size_t n = 0;
    bool written = !value.p;
    struct span rest = query, pair, other, ignored;
    if (!key.p || !text.p || !out)
        return SPAN_NULL;
    for (bool more = true; more;) {
        more = uri_next_pair(&rest, &pair, &other, &ignored);
        const bool ours = more ? pair.n > 0 && span_equal(uri_decode_or_raw(arena, other), name) : !written;
        if (ours ? written : !more)
            continue;
        if (n > 0)
            out[n++] = '&';
        if (ours) {
            memcpy(out + n, key.p, key.n);
            n += key.n;
            out[n++] = '=';
            memcpy(out + n, text.p, text.n);
            n += text.n;
            written = true;
        } else {
            memcpy(out + n, pair.p, pair.n);
            n += pair.n;
        }
    }
    return span_make(out, n);
}
