/* SPDX-License-Identifier: MIT */
/*
 * balance: who is next, by weight, by load, with backups, in a retry.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/pool.h"

static struct config_server servers[4];
static struct config_pool config;
static struct pool *pool;

static void setup(enum config_balance balance, unsigned count) {
    static char names[4][24] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"};
    config_pool_defaults(&config);
    for (unsigned i = 0; i < 4; i++) {
        servers[i] = (struct config_server){.name = names[i], .address = names[i], .host = names[i], .weight = 1};
        ck_assert(addr_parse(span_of(names[i]), 0, &servers[i].addr));
    }
    config.name = (char *)(uintptr_t) "p";
    config.servers = servers;
    config.server_count = count;
    config.balance = balance;
    config.probe.kind = CONFIG_PROBE_NONE;
}

static void open_pool(void) {
    char error[TLS_ERROR_MAX];
    pool = pool_new(&config, NULL, error);
    ck_assert_ptr_nonnull(pool);
}

/* The next n picks as letters. */
static const char *picks(struct balance *balance, unsigned n) {
    static char text[64];
    unsigned i;
    for (i = 0; i < n; i++) {
        struct server *server = balance_pick(balance, NULL);
        text[i] = '-';
        for (unsigned k = 0; k < pool->server_count; k++) {
            if (pool->servers[k] == server)
                text[i] = (char)('a' + k);
        }
    }
    text[i] = 0;
    return text;
}

START_TEST(test_balance_roundrobin_is_smooth) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    servers[0].weight = 5;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 2);
    ck_assert_str_eq(picks(balance, 14), "aabacaaaabacaa");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_workers_do_not_move_in_step) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    open_pool();
    struct balance *first = balance_new(pool, 0, 2), *second = balance_new(pool, 1, 2);
    ck_assert_str_eq(picks(first, 4), "abca");
    ck_assert_str_eq(picks(second, 4), "bcab");
    balance_free(&first);
    balance_free(&second);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_skips_what_is_not_live) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    servers[2].weight = 0;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_str_eq(picks(balance, 4), "abab");
    server_set_state(pool->servers[0], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "bbb");
    server_set_state(pool->servers[1], SERVER_UNKNOWN);
    ck_assert_str_eq(picks(balance, 2), "--");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_backups_come_last) {
    setup((enum config_balance)_i, 3);
    servers[1].backup = true;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_ptr_null(strchr(picks(balance, 6), 'b'));
    server_set_state(pool->servers[0], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "ccc");
    server_set_state(pool->servers[2], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "bbb");
    server_set_state(pool->servers[0], SERVER_UP);
    ck_assert_str_eq(picks(balance, 3), "aaa");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_avoids_what_was_tried) {
    setup((enum config_balance)_i, 3);
    servers[2].backup = true;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    struct pool_tried tried = {.list = {pool->servers[0]}, .count = 1};
    for (unsigned i = 0; i < 4; i++)
        ck_assert_ptr_eq(balance_pick(balance, &tried), pool->servers[1]);
    tried.list[tried.count++] = pool->servers[1];
    ck_assert_ptr_eq(balance_pick(balance, &tried), pool->servers[2]);
    server_set_state(pool->servers[2], SERVER_DOWN);
    ck_assert_ptr_nonnull(balance_pick(balance, &tried));
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_leastconn) {
    setup(CONFIG_BALANCE_LEASTCONN, 3);
    servers[1].weight = 2;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_str_eq(picks(balance, 6), "abcabc"); /* ties go round */
    server_enter(pool->servers[0]);
    server_enter(pool->servers[2]);
    server_enter(pool->servers[1]);
    ck_assert_str_eq(picks(balance, 3), "bbb"); /* 1/1, 1/2, 1/1 */
    server_enter(pool->servers[1]);
    server_enter(pool->servers[1]);
    ck_assert_ptr_null(strchr(picks(balance, 4), 'b')); /* 1/1, 3/2, 1/1 */
    server_leave(pool->servers[2]);
    ck_assert_str_eq(picks(balance, 2), "cc");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_no_servers) {
    setup((enum config_balance)_i, 0);
    open_pool();
    struct balance *balance = balance_new(pool, 3, 4);
    ck_assert_ptr_null(balance_pick(balance, NULL));
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("balance");
    TCase *tests = tcase_create("balance");
    tcase_add_test(tests, test_balance_roundrobin_is_smooth);
    tcase_add_test(tests, test_balance_workers_do_not_move_in_step);
    tcase_add_test(tests, test_balance_skips_what_is_not_live);
    tcase_add_loop_test(tests, test_balance_backups_come_last, 0, 2);
    tcase_add_loop_test(tests, test_balance_avoids_what_was_tried, 0, 2);
    tcase_add_test(tests, test_balance_leastconn);
    tcase_add_loop_test(tests, test_balance_no_servers, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
