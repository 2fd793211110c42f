/* SPDX-License-Identifier: MIT */
/*
 * affinity: the cookie's value: the keyed hash that it is said to be, one a server, the same again, another with
 * another key; and back from the value to the server.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/pool.h"

static char *text(const char *literal) { return (char *)(uintptr_t)literal; }

START_TEST(test_affinity_is_the_hash_it_is_said_to_be) {
    struct config_affinity affinity = {.cookie = text("node"), .key = text("0123456789abcdef")};
    char value[AFFINITY_VALUE_SIZE];
    affinity_value(&affinity, "10.0.0.1:80", value);
    /* printf %s "moongate affinity 10.0.0.1:80" | openssl dgst -sha256 -hmac 0123456789abcdef | cut -c 1-32 */
    ck_assert_str_eq(value, "5bd88f52906a21a0ece587cec191bf59");
}
END_TEST

START_TEST(test_affinity_differs_by_key_and_name) {
    struct config_affinity none = {.cookie = text("node")}, keyed = {.cookie = text("node"), .key = text("0123456789abcdef")};
    char a[AFFINITY_VALUE_SIZE], b[AFFINITY_VALUE_SIZE], c[AFFINITY_VALUE_SIZE], again[AFFINITY_VALUE_SIZE];
    affinity_value(&none, "10.0.0.1:80", a);
    affinity_value(&none, "10.0.0.2:80", b);
    affinity_value(&keyed, "10.0.0.1:80", c);
    affinity_value(&none, "10.0.0.1:80", again);
    ck_assert_str_ne(a, b);
    ck_assert_str_ne(a, c);
    ck_assert_str_eq(a, again);
    ck_assert_uint_eq(strspn(a, "0123456789abcdef"), AFFINITY_VALUE_SIZE - 1);
}
END_TEST

START_TEST(test_affinity_values_of_a_cookie) {
    struct span rest = SPAN("..0123456789abcdef0123456789abcdef.x.0123456789ABCDEF0123456789ABCDEF.ffffffffffffffffffffffffffffffff"), value;
    ck_assert(affinity_next(&rest, &value));
    ck_assert(span_equal(value, SPAN("0123456789abcdef0123456789abcdef")));
    ck_assert(affinity_next(&rest, &value));
    ck_assert(span_equal(value, SPAN("ffffffffffffffffffffffffffffffff")));
    ck_assert(!affinity_next(&rest, &value));
    rest = SPAN_NULL;
    ck_assert(!affinity_next(&rest, &value));
}
END_TEST

static struct config_server servers[3];
static struct config_pool config;

static struct pool *open_pool(const char *cookie) {
    static char names[3][24] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};
    char error[TLS_ERROR_MAX];
    config_pool_defaults(&config);
    for (unsigned i = 0; i < 3; i++) {
        servers[i] = (struct config_server){.name = names[i], .address = names[i], .host = names[i], .weight = 1};
        ck_assert(addr_parse(span_of(names[i]), 0, &servers[i].addr));
    }
    config.name = text("p");
    config.servers = servers;
    config.server_count = 3;
    config.affinity.cookie = text(cookie);
    struct pool *pool = pool_new(&config, NULL, error);
    ck_assert_ptr_nonnull(pool);
    return pool;
}

START_TEST(test_affinity_of_a_pool) {
    struct pool *pool = open_pool("node");
    for (unsigned i = 0; i < 3; i++) {
        char value[AFFINITY_VALUE_SIZE];
        affinity_value(&config.affinity, pool->servers[i]->name, value);
        ck_assert_uint_eq(pool_find_affinity(pool, span_of(value)), i);
        ck_assert_uint_eq(pool_find_affinity(pool, span_make(value, AFFINITY_VALUE_SIZE - 2)), 3);
    }
    char several[200];
    snprintf(several, sizeof several, "x.0123456789abcdef0123456789abcdef..%s.%s", pool->servers[2]->affinity, pool->servers[1]->affinity);
    ck_assert_uint_eq(pool_find_affinity(pool, span_of(several)), 2); /* the first that is one of this pool */
    ck_assert_uint_eq(pool_find_affinity(pool, SPAN("")), 3);
    ck_assert_uint_eq(pool_find_affinity(pool, SPAN_NULL), 3);
    ck_assert_uint_eq(pool_find_affinity(pool, SPAN("10.0.0.1:80")), 3);
    pool_free(&pool);
    pool = open_pool(NULL);
    ck_assert_str_eq(pool->servers[0]->affinity, "");
    ck_assert_uint_eq(pool_find_affinity(pool, SPAN("x")), 3);
    pool_free(&pool);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("affinity");
    TCase *tests = tcase_create("affinity");
    tcase_add_test(tests, test_affinity_is_the_hash_it_is_said_to_be);
    tcase_add_test(tests, test_affinity_differs_by_key_and_name);
    tcase_add_test(tests, test_affinity_values_of_a_cookie);
    tcase_add_test(tests, test_affinity_of_a_pool);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
