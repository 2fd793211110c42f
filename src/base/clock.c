/* SPDX-License-Identifier: MIT */
/*
 * clock: reading and printing time. The date of a second is made once a thread and second and then copied,
 * because the access log prints one a line and gmtime_r() takes a lock. No locale is asked: the names of days
 * are the RFC's.
 */
#include "base/clock.h"

#include <string.h>
#include <time.h>

#define CLOCK_STEP_US 1000000u /* a wall clock that is set shows in clock_wall_of() after this long */

static uint64_t clock_read_us(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

uint64_t clock_ms(void) { return clock_us() / 1000u; }

uint64_t clock_us(void) { return clock_read_us(CLOCK_MONOTONIC); }

uint64_t clock_wall_us(void) { return clock_read_us(CLOCK_REALTIME); }

uint64_t clock_wall_of(uint64_t us) {
    static _Thread_local uint64_t ahead, until;
    if (us >= until) {
        ahead = clock_wall_us() - clock_us();
        until = us + CLOCK_STEP_US;
    }
    return us + ahead;
}

/* value in exactly `digits` digits (its lowest ones). */
static char *clock_put(char *out, uint64_t value, int digits) {
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10u);
        value /= 10u;
    }
    return out + digits;
}

static char *clock_put_text(char *out, const char *text, size_t n) {
    memcpy(out, text, n);
    return out + n;
}

static void clock_split(uint64_t second, struct tm *tm) {
    time_t t = (time_t)second;
    if (!gmtime_r(&t, tm)) {
        memset(tm, 0, sizeof(*tm));
        tm->tm_mday = 1;
        tm->tm_year = 70;
    }
}

static char *clock_put_time(char *out, const struct tm *tm) {
    out = clock_put(out, (uint64_t)tm->tm_hour, 2);
    *out++ = ':';
    out = clock_put(out, (uint64_t)tm->tm_min, 2);
    *out++ = ':';
    return clock_put(out, (uint64_t)tm->tm_sec, 2);
}

#define CLOCK_ISO_SECOND 19 /* "2026-11-22T12:00:00" */
#define CLOCK_HTTP 29

size_t clock_format_iso(char *out, uint64_t wall_us) {
    static _Thread_local uint64_t cached = UINT64_MAX;
    static _Thread_local char text[CLOCK_ISO_SECOND];
    uint64_t second = wall_us / 1000000u;
    if (second != cached) {
        struct tm tm;
        clock_split(second, &tm);
        char *p = clock_put(text, (uint64_t)tm.tm_year + 1900u, 4);
        *p++ = '-';
        p = clock_put(p, (uint64_t)tm.tm_mon + 1u, 2);
        *p++ = '-';
        p = clock_put(p, (uint64_t)tm.tm_mday, 2);
        *p++ = 'T';
        clock_put_time(p, &tm);
        cached = second;
    }
    char *p = clock_put_text(out, text, sizeof(text));
    *p++ = '.';
    p = clock_put(p, wall_us / 1000u % 1000u, 3);
    *p++ = 'Z';
    *p = '\0';
    return (size_t)(p - out);
}

size_t clock_format_http(char *out, uint64_t wall_us) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static _Thread_local uint64_t cached = UINT64_MAX;
    static _Thread_local char text[CLOCK_HTTP];
    uint64_t second = wall_us / 1000000u;
    if (second != cached) {
        struct tm tm;
        clock_split(second, &tm);
        char *p = clock_put_text(text, days + 3 * tm.tm_wday, 3);
        *p++ = ',';
        *p++ = ' ';
        p = clock_put(p, (uint64_t)tm.tm_mday, 2);
        *p++ = ' ';
        p = clock_put_text(p, months + 3 * tm.tm_mon, 3);
        *p++ = ' ';
        p = clock_put(p, (uint64_t)tm.tm_year + 1900u, 4);
        *p++ = ' ';
        p = clock_put_time(p, &tm);
        clock_put_text(p, " GMT", 4);
        cached = second;
    }
    memcpy(out, text, CLOCK_HTTP);
    out[CLOCK_HTTP] = '\0';
    return CLOCK_HTTP;
}
