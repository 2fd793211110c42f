/* SPDX-License-Identifier: MIT */
/* digits: a number as decimal text without printf, for what is on the path of a request. Header only. */
#ifndef MOONGATE_BASE_DIGITS_H
#define MOONGATE_BASE_DIGITS_H

#include <stddef.h>
#include <stdint.h>

#define DIGITS_MAX 20 /* of a 64-bit number */

/* Decimal digits of value into out[DIGITS_MAX], no NUL; returns their count. */
static inline size_t digits_format(char *out, uint64_t value) {
    char reversed[DIGITS_MAX];
    size_t n = 0;
    do {
        reversed[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < n; i++)
        out[i] = reversed[n - 1 - i];
    return n;
}

#endif
