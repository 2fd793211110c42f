/* SPDX-License-Identifier: MIT */
/*
 * str: comparing, cutting and parsing of text. Everything is ASCII and knows no locale. The JSON escaper
 * stands on the path of every access line: it copies eight bytes at a time and looks at them for one that is not plain.
 * The subtle thing there: a byte that is no valid UTF-8 is written as \u00XX, its Latin-1 reading, so that the value of
 * the byte stays visible to whoever looks into an attack.
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

/* Copies all of s if every byte of it is plain, by words that overlap at the end; else out means nothing. */
static bool str_copy_plain(char *out, struct span s) {
    uint64_t w;
    size_t i = 0;
    if (s.n >= 8) {
        for (; i < s.n; i += 8) {
            if (i > s.n - 8)
                i = s.n - 8;
            memcpy(&w, s.p + i, 8);
            if (str_json_special(w))
                return false;
            memcpy(out + i, &w, 8);
        }
        return true;
    }
    if (s.n >= 4) {
        uint32_t first, last;
        memcpy(&first, s.p, 4);
        memcpy(&last, s.p + s.n - 4, 4);
        memcpy(out, &first, 4);
        memcpy(out + s.n - 4, &last, 4);
        return !str_json_special((uint64_t)last << 32 | first);
    }
    for (w = 0x2020202020202020u; i < s.n; i++) {
        w = w << 8 | (unsigned char)s.p[i];
        out[i] = s.p[i];
    }
    return !str_json_special(w);
}

static char *str_put_json_byte(char *out, const char *end, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    size_t n = 2;
    switch (c) {
    case '"': code[1] = '"'; break;
    case '\\': code[1] = '\\'; break;
    case '\n': code[1] = 'n'; break;
    case '\r': code[1] = 'r'; break;
    case '\t': code[1] = 't'; break;
    default: n = 6; break;
    }
    if ((size_t)(end - out) < n)
        return NULL;
    memcpy(out, code, n);
    return out + n;
}

/* One piece, at *p: a plain byte, a sequence, or what has to be escaped. */
static char *str_put_json_piece(char *out, const char *end, const char **p, const char *stop) {
    const unsigned char c = (unsigned char)**p;
    const size_t length = c == '"' || c == '\\' ? 0 : str_utf8_printable(*p, (size_t)(stop - *p));
    if (length > 0) {
        if ((size_t)(end - out) < length)
            return NULL;
        memcpy(out, *p, length);
        *p += length;
        return out + length;
    }
    const char *byte = (*p)++;
    if (c == 0xc2 && *p < stop && ((unsigned char)**p & 0xc0) == 0x80)
        byte = (*p)++; /* a C1 control, well-formed */
    return str_put_json_byte(out, end, (unsigned char)*byte);
}

char *str_put_json(char *out, char *end, struct span s) {
    if ((size_t)(end - out) >= s.n && str_copy_plain(out, s))
        return out + s.n;
    const char *p = s.p, *stop = s.p + s.n;
    while (p < stop && out) {
        uint64_t w;
        for (; stop - p >= 8 && end - out >= 8; p += 8, out += 8) {
            memcpy(&w, p, 8);
            if (str_json_special(w))
                break;
            memcpy(out, &w, 8);
        }
        for (unsigned i = 0; i < 8 && p < stop && out; i++)
            out = str_put_json_piece(out, end, &p, stop);
    }
    return out;
}

bool str_append_json(struct buf *buf, struct span s) {
    if (s.n == 0)
        return true;
    for (size_t want = s.n; buf_reserve(buf, want); want = buf_room(buf) + 1) {
        char *const out = buf_tail(buf), *const end = str_put_json(out, out + buf_room(buf), s);
        if (end) {
            buf_commit(buf, (size_t)(end - out));
            return true;
        }
    }
    return false;
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
