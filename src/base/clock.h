/* SPDX-License-Identifier: MIT */
/* clock: time. Timers use the monotonic clock, so that the wall clock may jump; logs use the wall clock. */
#ifndef MOONGATE_BASE_CLOCK_H
#define MOONGATE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Monotonic milliseconds and microseconds. */
uint64_t clock_ms(void);
uint64_t clock_us(void);
/* Wall clock, microseconds since 1970. */
uint64_t clock_wall_us(void);
/* The wall clock at the monotonic time us, which was just read; knows of a set clock a second late. */
uint64_t clock_wall_of(uint64_t us);

#define CLOCK_TEXT_MAX 40
/* "2026-11-22T12:00:00.123Z" into out[CLOCK_TEXT_MAX]; returns its length. Caches the second per thread. */
size_t clock_format_iso(char *out, uint64_t wall_us);
/* RFC 9110 section 5.6.7 date, "Sun, 06 Nov 1994 08:49:37 GMT"; returns its length (29). */
size_t clock_format_http(char *out, uint64_t wall_us);

#endif
