/* SPDX-License-Identifier: MIT */
/* Tests of base/arena: pieces are apart and aligned, the cap holds, chunks go back to their slab. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define TEST_ARENA_PIECES 2000

static void test_arena_fill(struct slab *chunks) {
    struct arena arena;
    static unsigned char *pieces[TEST_ARENA_PIECES];
    static size_t sizes[TEST_ARENA_PIECES];
    arena_init(&arena, chunks, 16u << 20);
    for (unsigned i = 0; i < TEST_ARENA_PIECES; i++) {
        sizes[i] = i % 97 == 0 ? 5000 : (i * 37) % 1500; /* now and then larger than a chunk */
        pieces[i] = arena_alloc(&arena, sizes[i]);
        ck_assert_ptr_nonnull(pieces[i]);
        ck_assert_uint_eq((uintptr_t)pieces[i] % 8, 0);
        if (sizes[i])
            memset(pieces[i], (int)(i % 251), sizes[i]);
    }
    size_t wrong = 0;
    for (unsigned i = 0; i < TEST_ARENA_PIECES; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            wrong += pieces[i][j] != i % 251;
    ck_assert_uint_eq(wrong, 0);
    arena_fini(&arena);
    ck_assert_uint_eq(arena.used, 0);
}

START_TEST(test_arena_heap_chunks) { test_arena_fill(NULL); }
END_TEST

START_TEST(test_arena_slab_chunks) {
    struct slab chunks;
    slab_init(&chunks, ARENA_CHUNK);
    test_arena_fill(&chunks);
    ck_assert_uint_eq(chunks.live, 0);
    test_arena_fill(&chunks);
    ck_assert_uint_eq(chunks.live, 0);
    slab_fini(&chunks);
}
END_TEST

START_TEST(test_arena_cap) {
    struct arena arena;
    arena_init(&arena, NULL, 1000);
    ck_assert_ptr_null(arena_alloc(&arena, 1001));
    ck_assert_ptr_null(arena_alloc(&arena, SIZE_MAX));
    ck_assert_ptr_nonnull(arena_alloc(&arena, 900));
    ck_assert_ptr_null(arena_alloc(&arena, 101));
    ck_assert_ptr_nonnull(arena_alloc(&arena, 96));
    ck_assert_ptr_null(arena_dup(&arena, SPAN("0123456789")).p);
    ck_assert_ptr_null(arena_printf(&arena, "%0700d", 1).p);
    arena_fini(&arena);
    ck_assert_ptr_nonnull(arena_alloc(&arena, 1000)); /* fini starts over */
    arena_fini(&arena);
}
END_TEST

START_TEST(test_arena_text) {
    struct arena arena;
    arena_init(&arena, NULL, 1u << 20);
    struct span copy = arena_dup(&arena, span_make("abcdef", 3));
    ck_assert_str_eq(copy.p, "abc");
    ck_assert_uint_eq(copy.n, 3);
    copy = arena_dup(&arena, SPAN_NULL);
    ck_assert_str_eq(copy.p, "");
    struct span text = arena_printf(&arena, "%s-%d", "x", 42);
    ck_assert_str_eq(text.p, "x-42");
    ck_assert_uint_eq(text.n, 4);
    text = arena_printf(&arena, "%02000d", 7);
    ck_assert_uint_eq(text.n, 2000);
    ck_assert_uint_eq(strlen(text.p), 2000);
    ck_assert_int_eq(text.p[1999], '7');
    arena_fini(&arena);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("arena");
    TCase *tc = tcase_create("arena");
    tcase_add_test(tc, test_arena_heap_chunks);
    tcase_add_test(tc, test_arena_slab_chunks);
    tcase_add_test(tc, test_arena_cap);
    tcase_add_test(tc, test_arena_text);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
