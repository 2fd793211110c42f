/* SPDX-License-Identifier: MIT */
/*
 * str: text without surprises: ASCII only, lengths explicit, no locale.
 */
#ifndef MOONGATE_BASE_STR_H
#define MOONGATE_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/span.h"

static inline char str_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }
bool str_equal_nocase(struct span a, struct span b);
bool str_starts(struct span s, struct span prefix);
bool str_ends(struct span s, struct span suffix);
/* Without spaces and tabs at both ends. */
struct span str_trim(struct span s);
/*
 * Next element of a comma-separated list (RFC 9110 section 5.6.1), trimmed, empty ones skipped. *rest
 * is advanced. False at the end. Knows no quoting: for token lists only.
 */
bool str_next_token(struct span *rest, struct span *token);
/* Glob with '*' at either end only, as the rule language has it. */
bool str_glob(struct span pattern, struct span text);
/* 1*DIGIT up to 2^63-1, nothing else. */
bool str_parse_u63(struct span s, uint64_t *value);
/* 64-bit FNV-1a. */
uint64_t str_hash(struct span s);
/* Copies at most size-1 bytes and ends with NUL; returns false when it was cut. */
bool str_copy(char *out, size_t size, struct span s);
/*
 * The name nearest to word, for "did you mean": NULL when none is within a third of its length (rounded).
 * names ends with NULL.
 */
const char *str_nearest(const char *word, const char *const *names);
/*
 * Length of the UTF-8 sequence at p (n >= 1 bytes there): 1..4, or 0 when it is invalid (RFC 3629: no overlong
 * forms, no surrogates, nothing above U+10FFFF) or a control character (C0, DEL, C1), which has no place in a
 * log line.
 */
size_t str_utf8_printable(const char *p, size_t n);
/*
 * Appends s as the inside of a JSON string: quotes, backslash, controls, DEL and invalid UTF-8 escaped
 * (requirements D29). False when buf is full.
 */
bool str_append_json(struct buf *buf, struct span s);
/* The same to out; returns its end, or NULL when there is no room before end (what is there then means nothing). */
char *str_put_json(char *out, char *end, struct span s);
/* "500ms" "5s" "2m" "1h" "1d" to milliseconds; false if malformed or above 10 years. Zero is the caller's affair. */
bool str_parse_duration(struct span s, uint64_t *ms);
/* "8k" "16m" "1g" or digits, to bytes; false if malformed or above 2^53. */
bool str_parse_size(struct span s, uint64_t *bytes);
/* RFC 9110 section 5.6.2 token character, and a whole non-empty token. */
bool str_is_tchar(unsigned char c);
bool str_is_token(struct span s);

#endif
