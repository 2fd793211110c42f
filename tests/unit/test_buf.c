/* SPDX-License-Identifier: MIT */
/* Tests of base/buf: a queue against a model, the cap, growth and release. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static uint32_t test_buf_random(void) {
    static uint32_t state = 99;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* Bytes in are a running count; bytes out must be the same count. */
START_TEST(test_buf_is_a_queue) {
    struct buf buf;
    unsigned char in = 0, out = 0, piece[700];
    size_t held = 0;
    buf_init(&buf, 5000);
    for (unsigned step = 0; step < 20000; step++) {
        size_t n = test_buf_random() % sizeof(piece);
        if (test_buf_random() % 2) {
            unsigned char next = in;
            for (size_t i = 0; i < n; i++)
                piece[i] = next++;
            bool fits = held + n <= 5000;
            ck_assert(buf_append(&buf, piece, n) == fits);
            if (fits) {
                in = next;
                held += n;
            }
        } else {
            if (n > held)
                n = held;
            struct span unread = buf_span(&buf);
            size_t wrong = 0;
            for (size_t i = 0; i < n; i++)
                wrong += (unsigned char)unread.p[i] != out++;
            ck_assert_uint_eq(wrong, 0);
            buf_consume(&buf, n);
            held -= n;
        }
        ck_assert_uint_eq(buf.len, held);
        ck_assert_uint_le(buf.size, 5000);
        ck_assert_uint_le(buf.off + buf.len, buf.size);
    }
    buf_release(&buf);
}
END_TEST

START_TEST(test_buf_grows_to_its_cap) {
    struct buf buf;
    buf_init(&buf, 3000);
    ck_assert_ptr_null(buf.data);
    ck_assert_uint_eq(buf_room(&buf), 0);
    ck_assert(buf_append_text(&buf, "x"));
    ck_assert_uint_eq(buf.size, 1024);
    ck_assert(buf_reserve(&buf, 1500));
    ck_assert_uint_eq(buf.size, 2048);
    ck_assert(!buf_reserve(&buf, 3000));
    ck_assert(!buf_reserve(&buf, SIZE_MAX));
    ck_assert_uint_eq(buf.size, 2048);
    ck_assert(buf_reserve(&buf, 2999));
    ck_assert_uint_eq(buf.size, 3000);
    buf_consume(&buf, 1);
    ck_assert_uint_eq(buf.off, 0); /* empty: starts over */
    buf_release(&buf);
    ck_assert_ptr_null(buf.data);
    ck_assert_uint_eq(buf.cap, 3000);
    ck_assert(buf_append_text(&buf, "again"));
    buf_release(&buf);
}
END_TEST

START_TEST(test_buf_tail) {
    struct buf buf;
    buf_init(&buf, 100);
    ck_assert(buf_reserve(&buf, 100));
    memcpy(buf_tail(&buf), "hello", 5);
    buf_commit(&buf, 5);
    ck_assert_uint_eq(buf_room(&buf), 95);
    buf_consume(&buf, 3);
    ck_assert(buf_reserve(&buf, 98)); /* only after moving to the front */
    ck_assert(span_equal(buf_span(&buf), SPAN("lo")));
    buf_release(&buf);
}
END_TEST

START_TEST(test_buf_text) {
    struct buf buf;
    buf_init(&buf, 600);
    ck_assert(buf_append_u64(&buf, 0));
    ck_assert(buf_append_text(&buf, " "));
    ck_assert(buf_append_u64(&buf, 18446744073709551615ull));
    ck_assert(buf_printf(&buf, " %s=%d", "a", -1));
    ck_assert(buf_append_span(&buf, SPAN("!")));
    ck_assert(buf_append(&buf, NULL, 0));
    ck_assert(span_equal(buf_span(&buf), SPAN("0 18446744073709551615 a=-1!")));
    buf_consume(&buf, buf.len);
    ck_assert(buf_printf(&buf, "%0600d", 5)); /* exactly the cap: no room for a NUL needed */
    ck_assert_uint_eq(buf.len, 600);
    ck_assert_int_eq(buf.data[599], '5');
    ck_assert(!buf_append_text(&buf, "x"));
    ck_assert_uint_eq(buf.len, 600);
    buf_consume(&buf, 600);
    ck_assert(!buf_printf(&buf, "%0601d", 5));
    ck_assert(buf_empty(&buf));
    buf_release(&buf);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("buf");
    TCase *tc = tcase_create("buf");
    tcase_add_test(tc, test_buf_is_a_queue);
    tcase_add_test(tc, test_buf_grows_to_its_cap);
    tcase_add_test(tc, test_buf_tail);
    tcase_add_test(tc, test_buf_text);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
