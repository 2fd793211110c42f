/* SPDX-License-Identifier: MIT */
/* test_dump: what the JSON says, and what it must not say. */
#include "cli/dump.h"
#include "routing_fixture.h"

static const char *text_of(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }

START_TEST(credentials_are_left_out)
{
    struct action_header list[] = {{SPAN("Authorization"), SPAN("Bearer secret")},
                                   {SPAN("cookie"), SPAN_NULL},
                                   {SPAN("x-a"), SPAN("1")}};
    json_t *o = dump_headers(list, 3);
    ck_assert_str_eq(text_of(o, "Authorization"), "(redacted)");
    ck_assert(json_is_false(json_object_get(o, "cookie")));
    ck_assert_str_eq(text_of(o, "x-a"), "1");
    json_decref(o);
    struct span secret = SPAN("Bearer secret");
    struct match_named named[] = {{SPAN("authorization"), MATCH_VALUES, {&secret, 1}}, {SPAN("x-b"), MATCH_ABSENT, {0}}};
    struct match match = {.headers = named, .header_count = 2, .cookies = named, .cookie_count = 1, .no_origin = true};
    o = dump_match(&match);
    char *text = json_dumps(o, 0);
    ck_assert_ptr_null(strstr(text, "secret"));
    ck_assert_str_eq(text, "{\"header\": {\"authorization\": \"(redacted)\", \"x-b\": false}, "
                           "\"cookie\": {\"authorization\": \"(redacted)\"}, \"origin\": [false]}");
    free(text);
    json_decref(o);
}
END_TEST

START_TEST(bytes_and_limits)
{
    json_t *o = dump_span(SPAN("caf\xc3\xa9"));
    ck_assert_str_eq(json_string_value(o), "caf\xc3\xa9");
    json_decref(o);
    o = dump_span(SPAN("caf\xe9\x01"));
    ck_assert_str_eq(json_string_value(o), "caf\xc3\xa9\x01"); /* no UTF-8: byte for byte */
    json_decref(o);
    o = dump_body_limit(UINT64_MAX);
    ck_assert(json_is_null(o));
    json_decref(o);
    struct cidr cidrs[2];
    ck_assert(cidr_parse(SPAN("10.0.0.0/8"), &cidrs[0]) && cidr_parse(SPAN("2001:db8::/32"), &cidrs[1]));
    o = dump_cidrs(cidrs, 2);
    ck_assert_str_eq(json_string_value(json_array_get(o, 0)), "10.0.0.0/8");
    ck_assert_str_eq(json_string_value(json_array_get(o, 1)), "2001:db8::/32");
    json_decref(o);
}
END_TEST

START_TEST(a_whole_configuration)
{
    struct config *config = config_new("g.lua");
    struct config_listener listener;
    struct config_pool pool;
    struct config_step steps[2] = {{.kind = CONFIG_STEP_FUNCTION, .function = 3}, {.kind = CONFIG_STEP_ACTION}};
    struct config_route route = {.name = (char[]){"r"}, .place = {"g.lua", 7}, .steps = steps, .step_count = 2,
                                 .when = CONFIG_NO_FUNCTION, .on_response = CONFIG_NO_FUNCTION, .max_body = UINT64_MAX};
    config_listener_defaults(&listener);
    config_pool_defaults(&pool);
    listener.name = (char[]){"http"};
    pool.name = (char[]){"web"};
    pool.balance = CONFIG_BALANCE_HASH;
    pool.affinity = (struct config_affinity){.cookie = (char[]){"node"}, .key = (char[]){"a secret of the file"}, .ttl_ms = 5000};
    steps[1].action = (struct action){.kind = ACTION_FORWARD, .forward = {.path = SPAN("/*")}};
    config->listeners = &listener;
    config->pools = &pool;
    config->routes = &route;
    config->listener_count = config->pool_count = config->route_count = 1;
    json_t *o = dump_config(config), *shown = json_array_get(json_object_get(o, "routes"), 0);
    ck_assert_str_eq(text_of(o, "file"), "g.lua");
    ck_assert_str_eq(text_of(shown, "place"), "g.lua:7");
    json_t *step = json_array_get(json_object_get(shown, "steps"), 1);
    ck_assert_str_eq(text_of(step, "forward"), "web");
    ck_assert_str_eq(text_of(step, "path"), "/*");
    ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(json_object_get(shown, "steps"), 0), "function")), 3);
    json_t *server = json_array_get(json_object_get(o, "pools"), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(server, "connect_timeout_ms")), 5000);
    ck_assert_str_eq(text_of(server, "balance"), "hash");
    json_t *affinity = json_object_get(server, "affinity");
    ck_assert_str_eq(text_of(affinity, "cookie"), "node");
    ck_assert_str_eq(text_of(affinity, "same_site"), "lax");
    ck_assert_str_eq(text_of(affinity, "key"), "(redacted)");
    char *text = json_dumps(o, 0);
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_null(strstr(text, "a secret"));
    free(text);
    json_decref(o);
    config_free(&config);
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, credentials_are_left_out);
    tcase_add_test(tests, bytes_and_limits);
    tcase_add_test(tests, a_whole_configuration);
}

int main(void) { return fixture_run("dump", add); }
