/* SPDX-License-Identifier: MIT */
#include "base/stock.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 64

static struct stock stock;

static void setup(void) { stock_init(&stock, SIZE); }
static void teardown(void) { stock_fini(&stock); }

START_TEST(test_lends_and_takes_back) {
    struct buf buf;
    buf_init(&buf, 1000);
    stock_lend(&stock, &buf);
    ck_assert_ptr_nonnull(buf.data);
    ck_assert_uint_eq(buf_room(&buf), SIZE);
    ck_assert(buf_append(&buf, "moon", 4));
    ck_assert(buf_append(&buf, "gate", 4));
    buf_consume(&buf, 1);
    stock_take_back(&stock, &buf);
    ck_assert_ptr_null(buf.data);
    ck_assert_uint_eq(buf.len + buf.off + buf.size, 0);
    ck_assert_uint_eq(buf.cap, 1000);
    stock_lend(&stock, &buf); /* whatever its last user left, it begins empty */
    ck_assert(buf_empty(&buf));
    ck_assert_uint_eq(buf_room(&buf), SIZE);
    stock_take_back(&stock, &buf);
    stock_take_back(&stock, &buf);
}
END_TEST

START_TEST(test_leaves_alone_what_has_memory_or_a_small_cap) {
    struct buf full, small;
    buf_init(&full, 1000);
    ck_assert(buf_append(&full, "moon", 4));
    const char *data = full.data;
    stock_lend(&stock, &full);
    ck_assert_ptr_eq(full.data, data);
    ck_assert(span_equal(buf_span(&full), SPAN("moon")));
    buf_init(&small, SIZE - 1);
    stock_lend(&stock, &small);
    ck_assert_ptr_null(small.data);
    buf_release(&full);
}
END_TEST

START_TEST(test_grown_memory_is_not_kept) {
    struct buf buf;
    char bytes[SIZE + 1] = {0};
    buf_init(&buf, 1000);
    stock_lend(&stock, &buf);
    ck_assert(buf_append(&buf, bytes, sizeof bytes));
    stock_take_back(&stock, &buf);
    ck_assert_uint_eq(stock.count, 0);
}
END_TEST

START_TEST(test_keeps_a_bounded_number) {
    struct buf bufs[STOCK_MAX + 10];
    for (size_t i = 0; i < STOCK_MAX + 10; i++) {
        buf_init(&bufs[i], SIZE);
        stock_lend(&stock, &bufs[i]);
        ck_assert_ptr_nonnull(bufs[i].data);
        memset(bufs[i].data, (int)i, SIZE);
    }
    for (size_t i = 0; i < STOCK_MAX + 10; i++)
        ck_assert_int_eq((unsigned char)bufs[i].data[SIZE - 1], (int)i);
    for (size_t i = 0; i < STOCK_MAX + 10; i++)
        stock_take_back(&stock, &bufs[i]);
    ck_assert_uint_le(stock.count, STOCK_MAX);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("stock");
    TCase *tests = tcase_create("stock");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_lends_and_takes_back);
    tcase_add_test(tests, test_leaves_alone_what_has_memory_or_a_small_cap);
    tcase_add_test(tests, test_grown_memory_is_not_kept);
    tcase_add_test(tests, test_keeps_a_bounded_number);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
