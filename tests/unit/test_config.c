/* SPDX-License-Identifier: MIT */
/* Tests of config: the defaults that the manual promises, and every mistake that validation finds. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "config/config.h"

START_TEST(test_config_settings) {
    struct config *config = config_new("gate.lua");
    ck_assert_str_eq(config->file, "gate.lua");
    ck_assert_str_eq(config->settings.access_to, "stdout");
    ck_assert_uint_eq(config->settings.workers, 0);
    ck_assert_uint_eq(config->settings.rule_cpu_ms, 20);
    ck_assert_uint_eq(config->settings.rule_deadline_ms, 5000);
    ck_assert_uint_eq(config->settings.lua_memory, 64 << 20);
    ck_assert_uint_eq(config->settings.drain_timeout_ms, 60000);
    ck_assert_int_eq(config->settings.log_level, LOG_LEVEL_INFO);
    ck_assert_int_eq(config->settings.underscores, CONFIG_UNDERSCORES_DROP);
    ck_assert_ptr_null(config->settings.via);
    ck_assert_ptr_nonnull(arena_alloc(&config->memory, 1 << 20));
    config_free(&config);
    ck_assert_ptr_null(config);
    config_free(&config);
}
END_TEST

START_TEST(test_config_listener) {
    struct config_listener listener;
    memset(&listener, 0xff, sizeof(listener));
    config_listener_defaults(&listener);
    ck_assert_ptr_null(listener.name);
    ck_assert(!listener.tls && !listener.encoded_slash_keep && !listener.half_close);
    ck_assert_str_eq(listener.tls_min, "1.2");
    ck_assert_uint_eq(listener.tls_timeout_ms, 10000);
    ck_assert_uint_eq(listener.header_timeout_ms, 10000);
    ck_assert_uint_eq(listener.body_timeout_ms, 30000);
    ck_assert_uint_eq(listener.send_timeout_ms, 30000);
    ck_assert_uint_eq(listener.idle_timeout_ms, 75000);
    ck_assert_uint_eq(listener.tcp_keepalive_ms, 60000);
    ck_assert_uint_eq(listener.min_rate, 500);
    ck_assert_uint_eq(listener.max_target, 8192);
    ck_assert_uint_eq(listener.max_header, 32768);
    ck_assert_uint_eq(listener.max_fields, 100);
    ck_assert(listener.max_body == UINT64_MAX);
    ck_assert_uint_eq(listener.max_connections, 0);
}
END_TEST

START_TEST(test_config_pool) {
    struct config_pool pool;
    memset(&pool, 0xff, sizeof(pool));
    config_pool_defaults(&pool);
    ck_assert_uint_eq(pool.server_count, 0);
    ck_assert_int_eq(pool.balance, CONFIG_BALANCE_ROUNDROBIN);
    ck_assert_uint_eq(pool.connect_timeout_ms, 5000);
    ck_assert_uint_eq(pool.response_timeout_ms, 60000);
    ck_assert_uint_eq(pool.upgrade_timeout_ms, 10000);
    ck_assert_uint_eq(pool.tunnel_idle_timeout_ms, 3600000);
    ck_assert_uint_eq(pool.tunnel_max_age_ms, 0);
    ck_assert_uint_eq(pool.half_close_timeout_ms, 30000);
    ck_assert_uint_eq(pool.retries, 2);
    ck_assert(!pool.tls && pool.tls_verify);
    ck_assert_int_eq(pool.host, CONFIG_HOST_CLIENT);
    ck_assert_uint_gt(pool.keepalive, 0);
    ck_assert_uint_eq(pool.keepalive_timeout_ms, 4000);
    ck_assert_uint_eq(pool.resolve_ms, 30000);
    ck_assert_uint_eq(pool.source.len, 0);
    struct config_probe *probe = &pool.probe;
    ck_assert_int_eq(probe->kind, CONFIG_PROBE_HTTP);
    ck_assert_str_eq(probe->path, "/");
    ck_assert_str_eq(probe->method, "GET");
    ck_assert_int_eq(probe->tls, -1);
    ck_assert_uint_eq(probe->every_ms, 5000);
    ck_assert_uint_eq(probe->fast_ms, 500);
    ck_assert_uint_eq(probe->timeout_ms, 2000);
    ck_assert(probe->rise == 2 && probe->fall == 3 && !probe->written);
    ck_assert(probe->expect_count == 1 && probe->expect[0].low == 100 && probe->expect[0].high == 499);
    config_probe_written(probe);
    ck_assert(probe->expect_count == 1 && probe->expect[0].low == 200 && probe->expect[0].high == 399);
    ck_assert(probe->written);
}
END_TEST

/* --- validation: a small configuration, and the mistakes reported for it ---------------------------------------- */

static struct config *test_config;
static struct config_listener test_listeners[3];
static struct addr test_binds[3][2];
static struct config_pool test_pools[2];
static struct config_server test_server;
static char test_texts[8][512];
static int test_lines[8];
static unsigned test_count;

static void test_config_report(void *owner, struct config_place place, const char *text) {
    ck_assert_ptr_eq(owner, &test_count);
    ck_assert_str_eq(place.file, "gate.lua");
    ck_assert_uint_lt(test_count, 8);
    test_lines[test_count] = place.line;
    ck_assert(str_copy(test_texts[test_count++], sizeof(test_texts[0]), span_of(text)));
}

static void test_config_bind(unsigned listener, unsigned bind, const char *text) {
    ck_assert(addr_parse(span_of(text), 0, &test_binds[listener][bind]));
    test_listeners[listener].bind_count = bind + 1;
}

static void test_config_setup(void) {
    static char names[3][4] = {"one", "two", "six"}, pools[2][4] = {"web", "api"};
    test_config = config_new("gate.lua");
    for (unsigned i = 0; i < 3; i++) {
        config_listener_defaults(&test_listeners[i]);
        test_listeners[i].name = names[i];
        test_listeners[i].place = (struct config_place){"gate.lua", (int)i + 10};
        test_listeners[i].binds = test_binds[i];
    }
    test_config_bind(0, 0, "0.0.0.0:80");
    test_config_bind(0, 1, "[::]:80");
    test_config_bind(1, 0, "0.0.0.0:443");
    test_config_bind(2, 0, "unix:/run/six");
    for (unsigned i = 0; i < 2; i++) {
        config_pool_defaults(&test_pools[i]);
        test_pools[i].name = pools[i];
        test_pools[i].place = (struct config_place){"gate.lua", (int)i + 20};
        test_pools[i].servers = &test_server;
        test_pools[i].server_count = 1;
    }
    test_config->listeners = test_listeners;
    test_config->listener_count = 3;
    test_config->pools = test_pools;
    test_config->pool_count = 2;
    test_count = 0;
}

static void test_config_teardown(void) { config_free(&test_config); }

static void test_config_expect(unsigned count) {
    ck_assert_uint_eq(config_validate(test_config, true, test_config_report, &test_count), count);
    ck_assert_uint_eq(test_count, count);
}

START_TEST(test_config_valid) {
    test_config_expect(0);
    ck_assert_ptr_eq(config_find_pool(test_config, "api"), &test_pools[1]);
    ck_assert_ptr_null(config_find_pool(test_config, "ap"));
    ck_assert_ptr_eq(config_find_listener(test_config, "six"), &test_listeners[2]);
    ck_assert_ptr_null(config_find_listener(test_config, "web"));
}
END_TEST

START_TEST(test_config_addresses) {
    test_config_bind(1, 0, "0.0.0.0:80");
    test_config_bind(1, 1, "127.0.0.1:80");
    test_config_bind(2, 0, "[::1]:80");
    test_config_expect(3);
    ck_assert_str_eq(test_texts[0], "listener \"two\": bind[1]: 0.0.0.0:80 is used already by listener \"one\"");
    ck_assert_int_eq(test_lines[0], 11);
    ck_assert_str_eq(test_texts[1], "listener \"two\": bind[2]: 127.0.0.1:80 overlaps 0.0.0.0:80 of listener \"one\"");
    ck_assert_str_eq(test_texts[2], "listener \"six\": bind: [::1]:80 overlaps [::]:80 of listener \"one\"");
}
END_TEST

START_TEST(test_config_addresses_apart) {
    test_config_bind(0, 0, "127.0.0.1:80");
    test_config_bind(0, 1, "127.0.0.2:80");
    test_config_bind(1, 0, "[::]:80"); /* another family */
    test_config_bind(2, 0, "unix:/run/other");
    test_config_expect(0);
    test_config_bind(1, 0, "unix:/run/other");
    test_config_expect(1);
    ck_assert_str_eq(test_texts[0],
                     "listener \"six\": bind: unix:/run/other is used already by listener \"two\"");
}
END_TEST

START_TEST(test_config_nothing) {
    test_config->listener_count = 0;
    test_pools[1].server_count = 0;
    test_config_expect(2);
    ck_assert(strncmp(test_texts[0], "no listener", 11) == 0);
    ck_assert_str_eq(test_texts[1], "pool \"api\": servers: no server");
    ck_assert_int_eq(test_lines[1], 21);
}
END_TEST

START_TEST(test_config_files) {
    char folder[] = "/tmp/test_config.XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    char *good = mem_printf("%s/good.pem", folder), *missing = mem_printf("%s/x.pem", folder);
    int fd = open(good, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    struct config_certificate certificates[2] = {{.cert = missing, .key = good}, {.cert = good, .key = folder}};
    char name[] = "a.example";
    test_listeners[1].tls = true;
    test_config_expect(1);
    ck_assert_str_eq(test_texts[0], "listener \"two\": tls: no certificate (cert and key)");
    test_count = 0;
    test_listeners[1].certificates = certificates;
    test_listeners[1].certificate_count = 2;
    test_pools[0].tls = true;
    test_pools[0].tls_ca = missing;
    test_listeners[1].client_ca = good;
    test_pools[0].tls_cert = test_pools[0].tls_key = good;
    test_config_expect(3);
    char *expected = mem_printf("listener \"two\": tls.cert: cannot read \"%s\": No such file or directory", missing);
    ck_assert_str_eq(test_texts[0], expected);
    mem_free(expected);
    expected = mem_printf("listener \"two\": tls.certs[1].key: cannot read \"%s\": Is a directory", folder);
    ck_assert_str_eq(test_texts[1], expected);
    mem_free(expected);
    certificates[1].name = name;
    test_count = 0;
    test_config_expect(3);
    ck_assert(strncmp(test_texts[1], "listener \"two\": tls.certs[\"a.example\"].key: ", 44) == 0);
    expected = mem_printf("pool \"web\": tls.ca: cannot read \"%s\": No such file or directory", missing);
    ck_assert_str_eq(test_texts[2], expected);
    ck_assert_int_eq(test_lines[2], 20);
    mem_free(expected);
    certificates[0].cert = good;
    certificates[1].key = good;
    test_pools[0].tls_ca = NULL;
    test_listeners[1].client_ca = test_pools[0].tls_cert = test_pools[0].tls_key = missing;
    test_count = 0;
    test_config_expect(3);
    ck_assert(strncmp(test_texts[0], "listener \"two\": tls.client_ca: cannot read ", 43) == 0);
    ck_assert(strncmp(test_texts[1], "pool \"web\": tls.cert: cannot read ", 34) == 0);
    ck_assert(strncmp(test_texts[2], "pool \"web\": tls.key: cannot read ", 33) == 0);
    unlink(good);
    rmdir(folder);
    mem_free(good);
    mem_free(missing);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config");
    TCase *defaults = tcase_create("defaults"), *validation = tcase_create("validation");
    tcase_add_test(defaults, test_config_settings);
    tcase_add_test(defaults, test_config_listener);
    tcase_add_test(defaults, test_config_pool);
    tcase_add_checked_fixture(validation, test_config_setup, test_config_teardown);
    tcase_add_test(validation, test_config_valid);
    tcase_add_test(validation, test_config_addresses);
    tcase_add_test(validation, test_config_addresses_apart);
    tcase_add_test(validation, test_config_nothing);
    tcase_add_test(validation, test_config_files);
    suite_add_tcase(suite, defaults);
    suite_add_tcase(suite, validation);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
