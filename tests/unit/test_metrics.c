/* SPDX-License-Identifier: MIT */
/* Tests of base/metrics: sums over threads, also those that ended; lazily attached; the JSON dump. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"

#define TEST_METRICS_THREADS 4
#define TEST_METRICS_ADDS 200000

static void *test_metrics_run(void *attach) {
    if (attach)
        metrics_attach();
    for (unsigned i = 0; i < TEST_METRICS_ADDS; i++) {
        metric_add(METRIC_clients_accepted, 1);
        metric_add(METRIC_script_overruns, 3);
    }
    return NULL;
}

static void test_metrics_round(void) {
    pthread_t threads[TEST_METRICS_THREADS];
    for (unsigned i = 0; i < TEST_METRICS_THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, test_metrics_run, i % 2 ? &threads[i] : NULL), 0);
    for (unsigned i = 0; i < TEST_METRICS_THREADS; i++)
        pthread_join(threads[i], NULL);
}

START_TEST(test_metrics_sum_over_threads) {
    ck_assert_uint_eq(metric_sum(METRIC_clients_accepted), 0);
    metric_add(METRIC_clients_accepted, 5); /* never attached: does so itself */
    test_metrics_round();
    test_metrics_round(); /* new threads go on with the blocks of ended ones */
    ck_assert_uint_eq(metric_sum(METRIC_clients_accepted), 5 + 2 * TEST_METRICS_THREADS * TEST_METRICS_ADDS);
    ck_assert_uint_eq(metric_sum(METRIC_script_overruns), 6 * TEST_METRICS_THREADS * TEST_METRICS_ADDS);
    ck_assert_uint_eq(metric_sum(METRIC_clients_closed), 0);
}
END_TEST

START_TEST(test_metrics_names) {
    ck_assert_str_eq(metric_name(METRIC_tunnels_opened), "tunnels_opened");
    ck_assert_str_eq(metric_help(METRIC_tunnels_opened), "tunnels opened");
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        ck_assert(metric_name((enum metric)i) && strlen(metric_help((enum metric)i)) > 5);
}
END_TEST

START_TEST(test_metrics_json) {
    struct buf buf;
    buf_init(&buf, 8192);
    metrics_attach();
    metric_add(METRIC_clients_accepted, 12);
    metric_add(METRIC_script_overruns, 7);
    ck_assert(metrics_append_json(&buf));
    ck_assert(buf_append(&buf, "", 1));
    const char *text = buf_span(&buf).p;
    ck_assert(strncmp(text, "{\"clients_accepted\":12,\"clients_closed\":0,", 42) == 0);
    ck_assert_ptr_nonnull(strstr(text, ",\"script_overruns\":7}"));
    buf_release(&buf);
    buf_init(&buf, 100);
    ck_assert(!metrics_append_json(&buf));
    buf_release(&buf);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("metrics");
    TCase *tc = tcase_create("metrics");
    tcase_add_test(tc, test_metrics_sum_over_threads);
    tcase_add_test(tc, test_metrics_names);
    tcase_add_test(tc, test_metrics_json);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
