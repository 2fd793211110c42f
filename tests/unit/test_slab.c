/* SPDX-License-Identifier: MIT */
/* Tests of base/slab: objects are apart, aligned, zeroed, used again, and counted. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/slab.h"

#define TEST_SLAB_COUNT 5000

START_TEST(test_slab_objects_are_apart) {
    struct slab slab;
    static unsigned char *objects[TEST_SLAB_COUNT];
    slab_init(&slab, 90);
    ck_assert_uint_eq(slab.size, 96);
    for (unsigned i = 0; i < TEST_SLAB_COUNT; i++) {
        objects[i] = slab_get(&slab);
        ck_assert_uint_eq((uintptr_t)objects[i] % 16, 0);
        for (unsigned j = 0; j < 90; j++)
            ck_assert_uint_eq(objects[i][j], 0);
        memset(objects[i], (int)(i % 251 + 1), 90);
    }
    ck_assert_uint_eq(slab.live, TEST_SLAB_COUNT);
    for (unsigned i = 0; i < TEST_SLAB_COUNT; i++) {
        ck_assert_uint_eq(objects[i][0], i % 251 + 1);
        ck_assert_uint_eq(objects[i][89], i % 251 + 1);
    }
    /* Out in a different order than in, then once more: still apart, and zeroed again. */
    for (unsigned i = 0; i < TEST_SLAB_COUNT; i += 2)
        slab_put(&slab, objects[i]);
    for (unsigned i = 0; i < TEST_SLAB_COUNT; i += 2) {
        objects[i] = slab_get(&slab);
        ck_assert_uint_eq(objects[i][0], 0);
        ck_assert_uint_eq(objects[i][89], 0);
    }
    for (unsigned i = 1; i < TEST_SLAB_COUNT; i += 2)
        ck_assert_uint_eq(objects[i][45], i % 251 + 1);
    for (unsigned i = 0; i < TEST_SLAB_COUNT; i++)
        slab_put(&slab, objects[i]);
    ck_assert_uint_eq(slab.live, 0);
    slab_fini(&slab);
}
END_TEST

START_TEST(test_slab_sizes) {
    static const size_t sizes[] = {1, 16, 17, 300, 2048, 40000};
    for (unsigned s = 0; s < 6; s++) {
        struct slab slab;
        char *objects[100];
        slab_init(&slab, sizes[s]);
        for (unsigned i = 0; i < 100; i++) {
            objects[i] = slab_try_get(&slab);
            ck_assert_ptr_nonnull(objects[i]);
            memset(objects[i], (int)i, sizes[s]);
        }
        for (unsigned i = 0; i < 100; i++) {
            ck_assert_int_eq(objects[i][sizes[s] - 1], (char)i);
            slab_put(&slab, objects[i]);
        }
        slab_put(&slab, NULL);
        slab_fini(&slab);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("slab");
    TCase *tc = tcase_create("slab");
    tcase_set_timeout(tc, 60); /* sanitizers on a busy machine */
    tcase_add_test(tc, test_slab_objects_are_apart);
    tcase_add_test(tc, test_slab_sizes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
