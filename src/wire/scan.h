/* SPDX-License-Identifier: MIT */
/*
 * scan: the byte classes that heads, bodies and targets are made of, in one table, and the search for the next
 * control byte. Private to src/wire.
 */
#ifndef MOONGATE_WIRE_SCAN_H
#define MOONGATE_WIRE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    SCAN_TCHAR = 1,      /* token character, RFC 9110 section 5.6.2 */
    SCAN_UNDERSCORE = 2, /* '_' */
    SCAN_TARGET = 4,     /* visible ASCII but '#' */
    SCAN_UNRESERVED = 8, /* RFC 3986 section 2.3 */
    SCAN_SEGMENT = 16,   /* may stand in a path as it is: pchar without '%', and '/' */
    SCAN_HOST = 32,      /* letters, digits, '-' '.' '_' '~' */
    SCAN_HEX = 64,
    SCAN_VALUE = 128     /* HTAB, SP, visible ASCII, obs-text */
};

extern const uint8_t scan_class[256];

static inline bool scan_is(char c, uint8_t classes) { return (scan_class[(unsigned char)c] & classes) != 0; }

/* The value of a hex digit (SCAN_HEX holds). */
static inline unsigned scan_hex(char c) {
    unsigned value = (unsigned char)c;
    return value <= '9' ? value - '0' : (value | 0x20) - 'a' + 10;
}

/* scan_to_control() without vectors: a word is looked at closely only when some byte of it is below 0x20 or DEL. */
static inline const char *scan_words_to_control(const char *p, const char *end) {
    const uint64_t ones = ~(uint64_t)0 / 255;
    for (;;) {
        while (end - p >= 8) {
            uint64_t word, del;
            memcpy(&word, p, 8);
            del = word ^ (ones * 0x7f);
            if ((((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & (ones * 0x80))
                break;
            p += 8;
        }
        const char *stop = end - p >= 8 ? p + 8 : end;
        while (p < stop && scan_is(*p, SCAN_VALUE))
            p++;
        if (p < stop || p == end)
            return p;
    }
}

/* The first control byte (below 0x20 but HTAB, or DEL) in [p, end), or end. */
static inline const char *scan_to_control(const char *p, const char *end) {
#ifdef __SSE2__
    const __m128i low = _mm_set1_epi8(0x1f), del = _mm_set1_epi8(0x7f), tab = _mm_set1_epi8('\t');
    for (; end - p >= 16; p += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        const __m128i below = _mm_cmpeq_epi8(_mm_min_epu8(bytes, low), bytes);
        const __m128i control = _mm_or_si128(below, _mm_cmpeq_epi8(bytes, del));
        const unsigned hits = (unsigned)_mm_movemask_epi8(_mm_andnot_si128(_mm_cmpeq_epi8(bytes, tab), control));
        if (hits != 0)
            return p + __builtin_ctz(hits);
    }
#endif
    return scan_words_to_control(p, end);
}

/* Over letters, digits and '-', which most names consist of: some place not behind the first other byte in [p, end). */
static inline const char *scan_over_plain_name(const char *p, const char *end) {
#ifdef __SSE2__
    for (; end - p >= 16; p += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        const __m128i letter = _mm_sub_epi8(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        const __m128i digit = _mm_sub_epi8(bytes, _mm_set1_epi8('0'));
        const __m128i plain = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                                                        _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit)),
                                           _mm_cmpeq_epi8(bytes, _mm_set1_epi8('-')));
        const unsigned others = ~(unsigned)_mm_movemask_epi8(plain) & 0xffff;
        if (others != 0)
            return p + __builtin_ctz(others);
    }
#endif
    (void)end;
    return p;
}

#endif
