/* SPDX-License-Identifier: MIT */
/* Tests of base/clock: formats, and that the cached second never shows for another. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define SECOND UINT64_C(1000000)

START_TEST(test_clock_iso) {
    char text[CLOCK_TEXT_MAX];
    ck_assert_uint_eq(clock_format_iso(text, 0), 24);
    ck_assert_str_eq(text, "1970-01-01T00:00:00.000Z");
    clock_format_iso(text, 784111777 * SECOND + 123999);
    ck_assert_str_eq(text, "1994-11-06T08:49:37.123Z");
    clock_format_iso(text, 784111777 * SECOND + 999999);
    ck_assert_str_eq(text, "1994-11-06T08:49:37.999Z");
    clock_format_iso(text, 1709251199 * SECOND);
    ck_assert_str_eq(text, "2024-02-29T23:59:59.000Z");
    clock_format_iso(text, 1709251200 * SECOND);
    ck_assert_str_eq(text, "2024-03-01T00:00:00.000Z");
}
END_TEST

START_TEST(test_clock_http) {
    char text[CLOCK_TEXT_MAX];
    ck_assert_uint_eq(clock_format_http(text, 784111777 * SECOND), 29);
    ck_assert_str_eq(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    clock_format_http(text, 784111778 * SECOND);
    ck_assert_str_eq(text, "Sun, 06 Nov 1994 08:49:38 GMT");
    clock_format_http(text, 1709164800 * SECOND);
    ck_assert_str_eq(text, "Thu, 29 Feb 2024 00:00:00 GMT");
}
END_TEST

START_TEST(test_clock_runs) {
    uint64_t ms = clock_ms(), us = clock_us(), wall = clock_wall_us();
    struct timespec pause = {.tv_nsec = 20000000};
    nanosleep(&pause, NULL);
    ck_assert_uint_ge(clock_ms() - ms, 19);
    ck_assert_uint_ge(clock_us() - us, 19000);
    ck_assert_uint_lt(clock_us() - us, 60 * SECOND);
    ck_assert_uint_gt(wall, 1700000000 * SECOND);
}
END_TEST

START_TEST(test_clock_wall_of_a_time) {
    for (unsigned i = 0; i < 3; i++) {
        const uint64_t now = clock_us(), wall = clock_wall_us();
        ck_assert_uint_le(clock_wall_of(now), wall + 2000000);
        ck_assert_uint_ge(clock_wall_of(now) + 2000000, wall);
        ck_assert_uint_eq(clock_wall_of(now + 5) - clock_wall_of(now), 5);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("clock");
    TCase *tc = tcase_create("clock");
    tcase_add_test(tc, test_clock_iso);
    tcase_add_test(tc, test_clock_wall_of_a_time);
    tcase_add_test(tc, test_clock_http);
    tcase_add_test(tc, test_clock_runs);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
