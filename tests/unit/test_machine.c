/* SPDX-License-Identifier: MIT */
/* Processors, room for tunnels, unreadable files, unknown users. */
#include <check.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "control/machine.h"

START_TEST(test_processors_follow_the_affinity_mask) {
    cpu_set_t set;
    ck_assert_uint_ge(machine_processors(), 1);
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    size_t first = 0;
    while (!CPU_ISSET(first, &set))
        first++;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    ck_assert_int_eq(sched_setaffinity(0, sizeof set, &set), 0);
    ck_assert_uint_eq(machine_processors(), 1);
}
END_TEST

START_TEST(test_two_descriptors_a_tunnel) {
    unsigned room = machine_max_connections(20000, 2, 2);
    ck_assert_uint_gt(room, 9900);
    ck_assert_uint_lt(room, 10000);
    ck_assert_uint_eq(machine_max_connections(10, 2, 2), 1);
}
END_TEST

START_TEST(test_unknown_user_and_unreadable_file) {
    char error[256] = "";
    struct config_settings settings = {.user = (char *)(uintptr_t) "no-such-user-here"};
    ck_assert(!machine_drop_privileges(&settings, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "user"));
    struct config_settings none = {0};
    ck_assert(machine_drop_privileges(&none, error, sizeof error));
    struct config config = {.file = (char *)(uintptr_t) "/no/such/file.lua"};
    ck_assert(!machine_check_files(&config, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "/no/such/file.lua"));
}
END_TEST

/* What a reload would read again: each file that is gone is named. */
START_TEST(test_each_file_is_looked_at) {
    char missing[] = "/no/such/file.pem", good[] = "/dev/null", error[256];
    struct config_certificate certificate = {.cert = good, .key = good};
    struct config_listener listener = {.certificates = &certificate, .certificate_count = 1, .client_ca = good};
    struct config_pool pool = {.tls_ca = good, .tls_cert = good, .tls_key = good};
    struct config config = {.file = good, .listeners = &listener, .listener_count = 1, .pools = &pool, .pool_count = 1};
    char **files[] = {&certificate.cert, &certificate.key, &listener.client_ca, &pool.tls_ca, &pool.tls_cert, &pool.tls_key};
    ck_assert(machine_check_files(&config, error, sizeof error));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        *files[i] = missing;
        error[0] = '\0';
        ck_assert(!machine_check_files(&config, error, sizeof error));
        ck_assert_ptr_nonnull(strstr(error, missing));
        *files[i] = good;
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("machine");
    TCase *tests = tcase_create("machine");
    tcase_add_test(tests, test_processors_follow_the_affinity_mask);
    tcase_add_test(tests, test_two_descriptors_a_tunnel);
    tcase_add_test(tests, test_unknown_user_and_unreadable_file);
    tcase_add_test(tests, test_each_file_is_looked_at);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
