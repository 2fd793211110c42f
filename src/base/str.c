/* SPDX-License-Identifier: MIT */
/*
 * str: comparing, cutting and parsing of text. Everything is ASCII and knows no locale. The JSON escaper
 * stands on the path of every access line: it looks at eight bytes at a time for one that is not plain, and
 * appends runs of plain bytes at once. The subtle thing there: a byte that is no valid UTF-8 is written as
 * \u00XX, its Latin-1 reading, so that the value of the byte stays visible to whoever looks into an attack.
 */
#include "base/str.h"

#include <string.h>

bool str_equal_nocase(struct span a, struct span b) {
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (str_lower(a.p[i]) != str_lower(b.p[i]))
            return false;
    return true;
}

bool str_starts(struct span s, struct span prefix) {
    return s.n >= prefix.n && span_equal(span_make(s.p, prefix.n), prefix);
}

bool str_ends(struct span s, struct span suffix) {
    return suffix.n == 0 || (s.n >= suffix.n && span_equal(span_make(s.p + (s.n - suffix.n), suffix.n), suffix));
}

static bool str_is_blank(char c) { return c == ' ' || c == '\t'; }

struct span str_trim(struct span s) {
    while (s.n && str_is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && str_is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_next_token(struct span *rest, struct span *token) {
    while (rest->n) {
        const char *comma = memchr(rest->p, ',', rest->n);
        size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
        struct span element = str_trim(span_make(rest->p, n));
        size_t taken = comma ? n + 1 : n;
        rest->p += taken;
        rest->n -= taken;
        if (element.n) {
            *token = element;
            return true;
        }
    }
    return false;
}

static bool str_contains(struct span text, struct span part) {
    return part.n == 0 || (text.n >= part.n && memmem(text.p, text.n, part.p, part.n) != NULL);
}

bool str_glob(struct span pattern, struct span text) {
    bool open_start = pattern.n > 0 && pattern.p[0] == '*';
    if (open_start) {
        pattern.p++;
        pattern.n--;
    }
    bool open_end = pattern.n > 0 && pattern.p[pattern.n - 1] == '*';
    if (open_end)
        pattern.n--;
    if (open_start && open_end)
        return str_contains(text, pattern);
    if (open_start)
        return str_ends(text, pattern);
    if (open_end)
        return str_starts(text, pattern);
    return span_equal(pattern, text);
}

static bool str_parse_digits(struct span s, uint64_t max, uint64_t *value) {
    if (s.n == 0)
        return false;
    uint64_t sum = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (sum > (max - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *value = sum;
    return true;
}

bool str_parse_u63(struct span s, uint64_t *value) { return str_parse_digits(s, INT64_MAX, value); }

uint64_t str_hash(struct span s) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.n; i++) {
        hash ^= (unsigned char)s.p[i];
        hash *= 0x100000001b3u;
    }
    return hash;
}

bool str_copy(char *out, size_t size, struct span s) {
    if (size == 0)
        return false;
    size_t n = s.n < size ? s.n : size - 1;
    if (n)
        memcpy(out, s.p, n);
    out[n] = '\0';
    return n == s.n;
}

#define STR_NEAREST_MAX 48

/* Edits between a and b: insertions, deletions, replacements, and swaps of neighbours. */
static size_t str_distance(struct span a, struct span b) {
    size_t rows[3][STR_NEAREST_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b.n; j++)
        last[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            bool same = str_lower(a.p[i - 1]) == str_lower(b.p[j - 1]);
            size_t best = last[j - 1] + (same ? 0 : 1);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b.n];
}

const char *str_nearest(const char *word, const char *const *names) {
    struct span w = span_of(word);
    if (w.n > STR_NEAREST_MAX)
        return NULL;
    const char *nearest = NULL;
    size_t limit = (w.n + 1) / 3;
    for (; *names; names++) {
        struct span name = span_of(*names);
        if (name.n > STR_NEAREST_MAX)
            continue;
        size_t distance = str_distance(w, name);
        if (distance > limit || (nearest && distance == limit))
            continue;
        nearest = *names;
        limit = distance;
    }
    return nearest;
}

size_t str_utf8_printable(const char *p, size_t n) {
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80)
        return u[0] >= 0x20 && u[0] != 0x7f ? 1 : 0;
    size_t length = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || n < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (u[0] == 0xc2 && u[1] < 0xa0)     /* C1 controls */
               || (u[0] == 0xe0 && u[1] < 0xa0)  /* overlong */
               || (u[0] == 0xed && u[1] >= 0xa0) /* surrogates */
               || (u[0] == 0xf0 && u[1] < 0x90)  /* overlong */
               || (u[0] == 0xf4 && u[1] >= 0x90); /* above U+10FFFF */
    return bad ? 0 : length;
}

/* Nonzero when one of eight bytes is a control, DEL, '"', '\\' or above 0x7f. */
static uint64_t str_json_special(uint64_t w) {
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t quote = w ^ (ones * '"'), slash = w ^ (ones * '\\'), del = w ^ (ones * 0x7f);
    uint64_t hits = (w - ones * 0x20) | (quote - ones) | (slash - ones) | (del - ones) | w;
    return hits & highs;
}

static size_t str_json_plain(struct span s, size_t i) {
    while (s.n - i >= 8) {
        uint64_t w;
        memcpy(&w, s.p + i, sizeof(w));
        if (str_json_special(w))
            break;
        i += 8;
    }
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            break;
        i++;
    }
    return i;
}

static bool str_append_json_byte(struct buf *buf, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    char out[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    size_t n = 2;
    switch (c) {
    case '"': out[1] = '"'; break;
    case '\\': out[1] = '\\'; break;
    case '\n': out[1] = 'n'; break;
    case '\r': out[1] = 'r'; break;
    case '\t': out[1] = 't'; break;
    default: n = 6; break;
    }
    return buf_append(buf, out, n);
}

/* One piece that is not plain, at s.p[i]; *taken bytes of it. */
static bool str_append_json_special(struct buf *buf, struct span s, size_t i, size_t *taken) {
    unsigned char c = (unsigned char)s.p[i];
    *taken = 1;
    if (c < 0x80)
        return str_append_json_byte(buf, c);
    size_t length = str_utf8_printable(s.p + i, s.n - i);
    if (length) {
        *taken = length;
        return buf_append(buf, s.p + i, length);
    }
    if (c == 0xc2 && s.n - i >= 2 && ((unsigned char)s.p[i + 1] & 0xc0) == 0x80) { /* a C1 control, well-formed */
        *taken = 2;
        return str_append_json_byte(buf, (unsigned char)s.p[i + 1]);
    }
    return str_append_json_byte(buf, c);
}

bool str_append_json(struct buf *buf, struct span s) {
    size_t before = buf->len;
    for (size_t i = 0; i < s.n;) {
        size_t end = str_json_plain(s, i), taken = 0;
        bool ok = buf_append(buf, s.p + i, end - i);
        if (ok && end < s.n)
            ok = str_append_json_special(buf, s, end, &taken);
        if (!ok) {
            buf->len = before; /* all or nothing, as every append */
            return false;
        }
        i = end + taken;
    }
    return true;
}

struct str_unit {
    const char *name;
    uint64_t factor;
};

/* Digits and one of the units; false above max. */
static bool str_parse_unit(struct span s, const struct str_unit *units, size_t count, uint64_t max, uint64_t *value) {
    size_t digits = 0;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9')
        digits++;
    struct span unit = span_make(s.p + digits, s.n - digits);
    for (size_t i = 0; i < count; i++) {
        if (!span_equal(unit, span_of(units[i].name)))
            continue;
        uint64_t number;
        if (!str_parse_digits(span_make(s.p, digits), max / units[i].factor, &number))
            return false;
        *value = number * units[i].factor;
        return true;
    }
    return false;
}

bool str_parse_duration(struct span s, uint64_t *ms) {
    static const struct str_unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    return str_parse_unit(s, units, 5, UINT64_C(3650) * 86400000, ms);
}

bool str_parse_size(struct span s, uint64_t *bytes) {
    static const struct str_unit units[] = {{"", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}};
    return str_parse_unit(s, units, 4, UINT64_C(1) << 53, bytes);
}

bool str_is_tchar(unsigned char c) {
    /* One bit a character of 0x20-0x7f: ALPHA, DIGIT and !#$%&'*+-.^_`|~ */
    static const uint32_t bits[3] = {0x03ff6cfau, 0xc7fffffeu, 0x57ffffffu};
    return c >= 0x20 && c < 0x80 && (bits[(c >> 5) - 1] >> (c & 31) & 1u);
}

bool str_is_token(struct span s) {
    for (size_t i = 0; i < s.n; i++)
        if (!str_is_tchar((unsigned char)s.p[i]))
            return false;
    return s.n > 0;
}
