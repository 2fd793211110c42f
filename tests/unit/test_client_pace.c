/* SPDX-License-Identifier: MIT */
/* The idle limit and the minimum rate run only while we wait on the client. */
#include <check.h>

#include "traffic/client.h"

static enum cause look(struct client_pace *pace, uint64_t now, uint64_t *next) {
    return client_pace_check(pace, now, 30000, 500, CAUSE_CLIENT_BODY_TIMEOUT, next);
}

START_TEST(test_not_waiting_never_strikes) {
    struct client_pace pace = {0};
    uint64_t next;
    ck_assert_int_eq(look(&pace, 1000000, &next), CAUSE_NONE);
    ck_assert_uint_eq(next, UINT64_MAX);
}
END_TEST

START_TEST(test_a_byte_a_second_is_too_slow) {
    struct client_pace pace = {0};
    uint64_t next, now = 1000;
    client_pace_wait(&pace, now);
    enum cause cause = CAUSE_NONE;
    for (int i = 0; i < 20 && cause == CAUSE_NONE; i++) {
        now += 1000;
        client_pace_progress(&pace, now, 1);
        cause = look(&pace, now, &next);
    }
    ck_assert_int_eq(cause, CAUSE_CLIENT_SLOW);
    ck_assert_uint_le(now, 7000);
}
END_TEST

START_TEST(test_honest_slow_upload_lives) {
    struct client_pace pace = {0};
    uint64_t next, now = 1000;
    client_pace_wait(&pace, now);
    for (int i = 0; i < 100; i++) {
        now += 1000;
        client_pace_progress(&pace, now, 600);
        ck_assert_int_eq(look(&pace, now, &next), CAUSE_NONE);
    }
}
END_TEST

START_TEST(test_time_not_spent_waiting_does_not_count) {
    struct client_pace pace = {0};
    uint64_t next, now = 1000;
    for (int i = 0; i < 100; i++) {
        client_pace_wait(&pace, now);
        now += 10;
        client_pace_progress(&pace, now, 20);
        client_pace_stop(&pace, now);
        now += 60000; /* the server thinks */
        ck_assert_int_eq(look(&pace, now, &next), CAUSE_NONE);
    }
}
END_TEST

START_TEST(test_idle) {
    struct client_pace pace = {0};
    uint64_t next;
    client_pace_wait(&pace, 1000);
    ck_assert_int_eq(client_pace_check(&pace, 3000, 5000, 0, CAUSE_CLIENT_SEND_TIMEOUT, &next), CAUSE_NONE);
    ck_assert_uint_eq(next, 3000);
    ck_assert_int_eq(client_pace_check(&pace, 6000, 5000, 0, CAUSE_CLIENT_SEND_TIMEOUT, &next), CAUSE_CLIENT_SEND_TIMEOUT);
}
END_TEST

START_TEST(test_every_cause_has_a_name_and_a_side) {
    for (int i = 1; i < CAUSE_COUNT; i++) {
        ck_assert_ptr_nonnull(cause_name((enum cause)i));
        const char *side = cause_side((enum cause)i);
        ck_assert(span_equal(span_of(side), SPAN("client")) || span_equal(span_of(side), SPAN("server")) ||
                  span_equal(span_of(side), SPAN("gateway")));
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("client_pace");
    TCase *tests = tcase_create("client_pace");
    tcase_add_test(tests, test_not_waiting_never_strikes);
    tcase_add_test(tests, test_a_byte_a_second_is_too_slow);
    tcase_add_test(tests, test_honest_slow_upload_lives);
    tcase_add_test(tests, test_time_not_spent_waiting_does_not_count);
    tcase_add_test(tests, test_idle);
    tcase_add_test(tests, test_every_cause_has_a_name_and_a_side);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
