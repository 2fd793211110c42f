/* SPDX-License-Identifier: MIT */
/*
 * pool: states at the start, servers taken over from the pool before, digests that tell
 * connections apart.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/pool.h"

static struct config_server servers[3];
static struct config_pool config;

static struct config_server make(const char *address, const char *host, uint16_t port) {
    struct config_server server = {.name = (char *)(uintptr_t)address,
                                   .address = (char *)(uintptr_t)address,
                                   .host = (char *)(uintptr_t)host,
                                   .port = port,
                                   .weight = 1};
    addr_parse(span_of(address), 0, &server.addr);
    return server;
}

static void setup(void) {
    config_pool_defaults(&config);
    servers[0] = make("10.0.1.1:9000", "10.0.1.1", 9000);
    servers[1] = make("[::1]:9000", "::1", 9000);
    servers[2] = make("10.0.1.3:9000", "auth.internal", 9000);
    config.name = (char *)(uintptr_t) "chat";
    config.servers = servers;
    config.server_count = 3;
    config.probe.kind = CONFIG_PROBE_HTTP;
}

static struct pool *open_pool(const struct pool *previous) {
    char error[TLS_ERROR_MAX] = "";
    struct pool *pool = pool_new(&config, previous, error);
    ck_assert_msg(pool != NULL, "%s", error);
    return pool;
}

START_TEST(test_pool_probed_servers_start_unknown) {
    setup();
    struct pool *pool = open_pool(NULL);
    ck_assert(pool_is_pending(pool));
    ck_assert(!pool_has_live(pool));
    server_set_state(pool->servers[0], SERVER_DOWN);
    server_set_state(pool->servers[1], SERVER_DOWN);
    ck_assert(pool_is_pending(pool));
    server_set_state(pool->servers[2], SERVER_DOWN);
    ck_assert(!pool_is_pending(pool));
    server_set_state(pool->servers[2], SERVER_UP);
    ck_assert(pool_has_live(pool));
    pool_free(&pool);
    ck_assert_ptr_null(pool);
}
END_TEST

START_TEST(test_pool_without_probe_is_up) {
    setup();
    config.probe.kind = CONFIG_PROBE_NONE;
    struct pool *pool = open_pool(NULL);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(server_state(pool->servers[i]), SERVER_UP);
    pool_free(&pool);
}
END_TEST

START_TEST(test_pool_finds) {
    setup();
    servers[0].name = (char *)(uintptr_t) "blue";
    struct pool *pool = open_pool(NULL);
    ck_assert_ptr_eq(pool_find_server(pool, SPAN("blue")), pool->servers[0]);
    ck_assert_ptr_eq(pool_find_server(pool, SPAN("10.0.1.1:9000")), pool->servers[0]);
    ck_assert_ptr_eq(pool_find_server(pool, SPAN("10.0.1.3:9000")), pool->servers[2]);
    ck_assert_ptr_null(pool_find_server(pool, SPAN("green")));
    pool_free(&pool);
}
END_TEST

START_TEST(test_pool_takes_over) {
    setup();
    struct pool *old = open_pool(NULL);
    server_set_state(old->servers[0], SERVER_UP);
    server_set_state(old->servers[1], SERVER_DOWN);
    servers[1].weight = 5;
    struct pool *pool = open_pool(old);
    ck_assert_ptr_eq(pool->servers[0], old->servers[0]);
    ck_assert_ptr_ne(pool->servers[1], old->servers[1]);
    ck_assert_uint_eq(pool->servers[1]->weight, 5);
    pool_free(&old);
    ck_assert_int_eq(server_state(pool->servers[0]), SERVER_UP);
    ck_assert_int_eq(server_state(pool->servers[1]), SERVER_DOWN);
    pool_free(&pool);
}
END_TEST

START_TEST(test_pool_digest_and_tls_name) {
    setup();
    struct pool *plain = open_pool(NULL), *same = open_pool(NULL);
    ck_assert(plain->digest == same->digest);
    config.tls = true;
    config.tls_verify = false;
    struct pool *loose = open_pool(NULL);
    ck_assert_ptr_nonnull(loose->tls);
    ck_assert_str_eq(pool_tls_name(loose, loose->servers[2]), "auth.internal");
    config.tls_sni = (char *)(uintptr_t) "auth.internal";
    struct pool *named = open_pool(NULL);
    ck_assert_str_eq(pool_tls_name(named, named->servers[2]), "auth.internal");
    ck_assert(plain->digest != loose->digest && loose->digest != named->digest);
    config.tls_verify = true;
    struct pool *strict = open_pool(NULL);
    ck_assert(strict->digest != named->digest);
    config.proxy_protocol = CONFIG_PROXY_V1;
    struct pool *v1 = open_pool(NULL);
    config.proxy_protocol = CONFIG_PROXY_V2;
    struct pool *v2 = open_pool(NULL);
    ck_assert(v1->digest != strict->digest && v1->digest != v2->digest);
    pool_free(&v1);
    pool_free(&v2);
    pool_free(&plain);
    pool_free(&same);
    pool_free(&loose);
    pool_free(&named);
    pool_free(&strict);
}
END_TEST

START_TEST(test_pool_proxy_header) {
    setup();
    struct addr_small source, own = {.family = 0};
    char header[PROXYPROTO_WRITE_MAX];
    ck_assert(addr_parse_ip(SPAN("192.0.2.7"), &source));
    struct pool *pool = open_pool(NULL);
    ck_assert_uint_eq(pool_write_proxy_header(pool, &source, &own, header), 0);
    ck_assert_uint_eq(pool_write_probe_header(pool, header), 0);
    pool_free(&pool);
    config.proxy_protocol = CONFIG_PROXY_V1;
    pool = open_pool(NULL);
    ck_assert_uint_eq(pool_write_proxy_header(pool, &source, &own, header), 34);
    ck_assert_mem_eq(header, "PROXY TCP4 192.0.2.7 0.0.0.0 0 0\r\n", 34);
    ck_assert_uint_eq(pool_write_probe_header(pool, header), 15);
    ck_assert_mem_eq(header, "PROXY UNKNOWN\r\n", 15);
    config.probe.port = 81; /* another port: nothing is known of what listens there */
    ck_assert_uint_eq(pool_write_probe_header(pool, header), 0);
    pool_free(&pool);
}
END_TEST

START_TEST(test_pool_tls_mistake) {
    setup();
    config.tls = config.tls_verify = true;
    config.tls_ca = (char *)(uintptr_t) "/no/such/file.pem";
    char error[TLS_ERROR_MAX] = "";
    ck_assert_ptr_null(pool_new(&config, NULL, error));
    ck_assert_ptr_nonnull(strstr(error, "/no/such/file.pem"));
}
END_TEST

/* Slots of what a reload replaced go to nobody who came after it. */
START_TEST(test_pool_next_is_one_of_its_own) {
    setup();
    config.probe.kind = CONFIG_PROBE_NONE;
    struct pool *before = open_pool(NULL);
    servers[1].max_connections = 1;
    config.server_count = 2;
    struct pool *after = open_pool(before);
    const struct pool_tried none = {.count = 0};
    ck_assert(pool_is_next(after, &none, before->servers[0])); /* taken over */
    ck_assert(pool_is_next(after, &none, after->servers[1]));
    ck_assert(!pool_is_next(after, &none, before->servers[1]));
    ck_assert(!pool_is_next(after, &none, before->servers[2]));
    ck_assert(pool_is_next(before, &none, before->servers[2])); /* those who came before it wait on */
    pool_free(&before);
    pool_free(&after);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("pool");
    TCase *tests = tcase_create("pool");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_pool_next_is_one_of_its_own);
    tcase_add_test(tests, test_pool_probed_servers_start_unknown);
    tcase_add_test(tests, test_pool_without_probe_is_up);
    tcase_add_test(tests, test_pool_finds);
    tcase_add_test(tests, test_pool_takes_over);
    tcase_add_test(tests, test_pool_digest_and_tls_name);
    tcase_add_test(tests, test_pool_proxy_header);
    tcase_add_test(tests, test_pool_tls_mistake);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
