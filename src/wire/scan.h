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

/*
 * The first control byte (below 0x20 but HTAB, or DEL) in [p, end), or end. Eight bytes at a time: a word is looked
 * at closely only when some byte of it is below 0x20 or DEL.
 */
static inline const char *scan_to_control(const char *p, const char *end) {
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

#endif
