/* SPDX-License-Identifier: MIT */
/* Tests of script/load: a file becomes a configuration; other states bind the same functions from the same bytes. */
#include "load_fixture.h"

/* The example of the language's description, less the words of later versions. */
static const char example[] =
    "settings { access_log = { to = 'stdout', format = 'json' } }\n"
    "listener 'http'  { bind = { '0.0.0.0:80', '[::]:80' } }\n"
    "listener 'https' { bind = { '0.0.0.0:443', '[::]:443' }, tls = { cert = 'cert.pem', key = 'key.pem' },\n"
    "                   response_headers = { server = false, ['strict-transport-security'] = 'max-age=31536000' } }\n"
    "pool 'chat'  { port = 9000, balance = 'leastconn', servers = { '10.0.1.1', { '10.0.1.2', weight = 2 }, { '10.0.1.9', backup = true } },\n"
    "               probe = { path = '/healthz', every = '2s', timeout = '500ms' }, tunnel_idle_timeout = '1h' }\n"
    "pool 'super' { servers = { '10.0.4.1:9000' }, probe = { path = '/healthz' } }\n"
    "pool 'web'   { servers = { '10.0.3.1:8080' } }\n"
    "pool 'auth'  { servers = { 'auth.internal:8443' }, tls = true }\n"
    "route 'guard' { request_headers = { ['x-user'] = false }, function(req)\n"
    "  if ip.within(req.client, { '192.0.2.0/24' }) then return reply(429, 'slow down\\n', { ['retry-after'] = math.ceil(1.5) }) end\n"
    "end }\n"
    "route 'wss-only' { listener = 'http', websocket = true, reply(403, 'use wss\\n') }\n"
    "route 'to-https' { listener = 'http', redirect { scheme = 'https', status = 308 } }\n"
    "route 'foreign'  { websocket = true, except = { origin = { false, 'https://example.com', 'https://*.example.com' } }, reply(403) }\n"
    "local function need_user(req)\n"
    "  local token = req:bearer() or (req.ws and req.ws:take('bearer'))\n"
    "  if not token then return reply(401, 'token required\\n') end\n"
    "  req:set_header('x-user', token)\n"
    "end\n"
    "local hosts, rooms = { 'example.com', '*.example.com' }, { '/chat', '/chat/:room' }\n"
    "route 'chat'  { host = hosts, path = rooms, subprotocol = 'chat', need_user, forward 'chat' }\n"
    "route 'super' { host = hosts, path = rooms, subprotocol = 'superchat', need_user, forward 'super' }\n"
    "route 'no-socket' { websocket = true, reply(404, 'no such socket\\n') }\n"
    "route 'old'   { path = '/old/*', redirect { path = '/new/*', status = 301 } }\n"
    "route 'api'   { path = '/api/*', forward('web', { path = '/*', response_timeout = '10s' }) }\n"
    "route 'web'   { forward 'web' }\n"
    "on_close(function(tunnel) log.info('%s ended: %s', tunnel.id, tunnel.cause) end)\n";

static struct config *load_example(void) {
    load_write("cert.pem", "x");
    load_write("key.pem", "x");
    struct config *config = load_text(example);
    ck_assert_msg(config != NULL, "refused: %s", load_said);
    ck_assert_str_eq(load_said, "");
    return config;
}

static const struct config_route *route_of(const struct config *config, const char *name) {
    for (unsigned i = 0; i < config->route_count; i++)
        if (strcmp(config->routes[i].name, name) == 0)
            return &config->routes[i];
    ck_abort_msg("no route %s", name);
}

START_TEST(test_load_example_listeners) {
    const struct config *config = load_example();
    ck_assert_str_eq(config->settings.access_to, "stdout");
    ck_assert_uint_eq(config->listener_count, 2);
    const struct config_listener *https = config_find_listener(config, "https");
    ck_assert_uint_eq(https->bind_count, 2);
    ck_assert_str_eq(https->bind_texts[1], "[::]:443");
    ck_assert(https->tls);
    ck_assert_uint_eq(https->certificate_count, 1);
    ck_assert_str_eq(https->certificates[0].cert, load_path("cert.pem"));
    ck_assert_str_eq(https->tls_min, "1.2");
    ck_assert_uint_eq(https->response_headers.count, 2);
    ck_assert_ptr_null(https->response_headers.list[0].value.p);
    ck_assert(span_equal(https->response_headers.list[1].value, SPAN("max-age=31536000")));
    ck_assert_int_eq(https->place.line, 3);
    ck_assert_str_eq(https->place.file, load_path("moongate.lua"));
    ck_assert_uint_eq(https->idle_timeout_ms, 75000);
}
END_TEST

START_TEST(test_load_example_pools) {
    const struct config *config = load_example();
    ck_assert_uint_eq(config->pool_count, 4);
    const struct config_pool *chat = config_find_pool(config, "chat");
    ck_assert_int_eq(chat->balance, CONFIG_BALANCE_LEASTCONN);
    ck_assert_uint_eq(chat->server_count, 3);
    ck_assert_str_eq(chat->servers[0].name, "10.0.1.1:9000");
    ck_assert_uint_eq(addr_port(&chat->servers[0].addr), 9000);
    ck_assert_uint_eq(chat->servers[0].weight, 1);
    ck_assert_uint_eq(chat->servers[1].weight, 2);
    ck_assert(chat->servers[2].backup);
    ck_assert_str_eq(chat->probe.path, "/healthz");
    ck_assert_uint_eq(chat->probe.every_ms, 2000);
    ck_assert_uint_eq(chat->probe.timeout_ms, 500);
    ck_assert(chat->probe.written);
    ck_assert_uint_eq(chat->probe.expect[0].high, 399);
    ck_assert_uint_eq(chat->tunnel_idle_timeout_ms, 3600000);
    ck_assert(!config_find_pool(config, "web")->probe.written);
    const struct config_pool *auth = config_find_pool(config, "auth");
    ck_assert(auth->tls && auth->tls_verify);
    ck_assert_uint_eq(auth->servers[0].addr.len, 0);
    ck_assert_str_eq(auth->servers[0].host, "auth.internal");
    ck_assert_str_eq(auth->servers[0].address, "auth.internal:8443");
}
END_TEST

START_TEST(test_load_example_routes) {
    const struct config *config = load_example();
    ck_assert_uint_eq(config->route_count, 10);
    ck_assert_uint_eq(config->function_count, 4);
    ck_assert_uint_eq(config->on_close_count, 1);
    ck_assert_uint_eq(config->on_close[0], 3);
    const struct config_route *chat = route_of(config, "chat");
    ck_assert_uint_eq(chat->match.hosts.count, 2);
    ck_assert(span_equal(chat->match.paths.list[1], SPAN("/chat/:room")));
    ck_assert_int_eq(chat->match.websocket, MATCH_YES);
    ck_assert_uint_eq(chat->step_count, 2);
    ck_assert_int_eq(chat->steps[0].kind, CONFIG_STEP_FUNCTION);
    ck_assert_uint_eq(chat->steps[0].function, 1);
    ck_assert_int_eq(chat->steps[1].action.kind, ACTION_FORWARD);
    ck_assert_ptr_eq(&config->pools[chat->steps[1].action.forward.pool], config_find_pool(config, "chat"));
    const struct config_route *foreign = route_of(config, "foreign");
    ck_assert(foreign->has_except && foreign->except.no_origin);
    ck_assert_uint_eq(foreign->except.origins.count, 2);
    ck_assert_uint_eq(route_of(config, "api")->steps[0].action.forward.response_timeout_ms, 10000);
    ck_assert_uint_eq(route_of(config, "to-https")->steps[0].action.redirect.status, 308);
    const struct config_route *guard = route_of(config, "guard");
    ck_assert_uint_eq(guard->request_headers.count, 1);
    ck_assert(guard->when == CONFIG_NO_FUNCTION && guard->on_response == CONFIG_NO_FUNCTION && guard->access_log);
    ck_assert_int_eq(guard->place.line, 10);
}
END_TEST

START_TEST(test_load_error_pages) {
    const struct config_settings *s = &load_good("settings { access_log = { format = 'combined' },"
        "error_pages = { [503] = 'back soon', [404] = '<p>', [500] = '{}' } }")->settings;
    static const char *const types[] = {"text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"};
    static const unsigned statuses[] = {404, 500, 503};
    ck_assert_int_eq(s->access_format, CONFIG_ACCESS_COMBINED);
    ck_assert_uint_eq(s->error_page_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(s->error_pages[i].status, statuses[i]);
        ck_assert_str_eq(s->error_pages[i].type, types[i]);
    }
    ck_assert(span_equal(s->error_pages[2].body, SPAN("back soon")));
}
END_TEST

START_TEST(test_load_settings) {
    const struct config_settings *s = &load_good("settings { workers = 3, user = 'nobody', group = 'nogroup', access_log = false, log_level = 'debug',"
        "trusted_proxies = { '10.0.0.0/8', '::1' }, rule_cpu = '10ms', rule_deadline = 2, lua_memory = '32m', drain_timeout = '5s',"
        "max_connections = 1000, via = 'gate', underscore_headers = 'reject' }")->settings;
    ck_assert_uint_eq(s->workers, 3);
    ck_assert_str_eq(s->user, "nobody");
    ck_assert_str_eq(s->group, "nogroup");
    ck_assert_ptr_null(s->access_to);
    ck_assert_int_eq(s->log_level, LOG_LEVEL_DEBUG);
    ck_assert_uint_eq(s->trusted_proxies.count, 2);
    ck_assert_uint_eq(s->rule_cpu_ms, 10);
    ck_assert_uint_eq(s->rule_deadline_ms, 2000);
    ck_assert_uint_eq(s->lua_memory, 32u << 20);
    ck_assert_uint_eq(s->drain_timeout_ms, 5000);
    ck_assert_uint_eq(s->max_connections, 1000);
    ck_assert_str_eq(s->via, "gate");
    ck_assert_int_eq(s->underscores, CONFIG_UNDERSCORES_REJECT);
}
END_TEST

START_TEST(test_load_listener) {
    load_write("cert.pem", "x");
    load_write("key.pem", "x");
    const struct config *config = load_good("listener 'l' { bind = 'unix:/tmp/moongate-test.sock', tls = { certs = { ['B.example'] = "
        "{ cert = 'cert.pem', key = 'key.pem' } }, cert = 'cert.pem', key = 'key.pem', min = '1.3', alpn = 'http/1.1' }, tls_timeout = '1s', "
        "header_timeout = '2s', body_timeout = false, min_rate = false, send_timeout = '3s', idle_timeout = 0.5, max_connections = 7, "
        "max_target = '4k', max_header = 16384, max_fields = 50, max_body = '1m', encoded_slash = 'keep', half_close = true, "
        "tcp_keepalive = false, trusted_proxies = {}, request_headers = { ['X-A'] = ' b ' } }");
    const struct config_listener *l = config_find_listener(config, "l");
    ck_assert_uint_eq(l->certificate_count, 2);
    ck_assert_str_eq(l->certificates[1].name, "b.example");
    ck_assert_str_eq(l->tls_min, "1.3");
    ck_assert_uint_eq(l->tls_timeout_ms, 1000);
    ck_assert_uint_eq(l->header_timeout_ms, 2000);
    ck_assert_uint_eq(l->body_timeout_ms, 0);
    ck_assert_uint_eq(l->min_rate, 0);
    ck_assert_uint_eq(l->idle_timeout_ms, 500);
    ck_assert_uint_eq(l->max_connections, 7);
    ck_assert_uint_eq(l->max_target, 4096);
    ck_assert_uint_eq(l->max_header, 16384);
    ck_assert_uint_eq(l->max_fields, 50);
    ck_assert_uint_eq(l->max_body, 1u << 20);
    ck_assert(l->encoded_slash_keep && l->half_close);
    ck_assert_uint_eq(l->tcp_keepalive_ms, 0);
    ck_assert(l->trusted_proxies.set && l->trusted_proxies.count == 0);
    ck_assert(span_equal(l->request_headers.list[0].name, SPAN("x-a")));
    ck_assert(span_equal(l->request_headers.list[0].value, SPAN("b")));
}
END_TEST

START_TEST(test_load_pool) {
    const struct config *config = load_good("local p = probe { method = 'HEAD', expect = { 200, '300-399' }, host = 'h', port = 81, body = 'ok', "
        "rise = 1, fall = 5, fast = '100ms', tls = false, headers = { a = 'b' } }\n"
        "pool 'p' { servers = { '[::1]:1', 'unix:/tmp/x.sock', { 'name.example', name = 'n', weight = 0 } }, port = 8, probe = p, "
        "connect_timeout = '1s', response_timeout = false, upgrade_timeout = '2s', tunnel_max_age = '1d', half_close_timeout = '3s', "
        "retries = 0, tls = { verify = false, sni = 's' }, host = 'server', keepalive = false, keepalive_timeout = '1s', resolve = '10s', "
        "source = '127.0.0.1' }\n"
        "pool 'q' { servers = '127.0.0.1:2', probe = 'tcp', host = 'fixed.example' } pool 'r' { servers = { '127.0.0.1:3' }, probe = false }\n"
        "pool 's' { servers = '127.0.0.1:2', balance = 'hash', hash_bound = 125, slow_start = '90s', affinity = { cookie = 'node', "
        "same_site = 'strict', ttl = '8h', key = '0123456789abcdef\\n' } } pool 't' { servers = '127.0.0.1:2', balance = 'first', "
        "hash_bound = false, slow_start = false, affinity = false }");
    const struct config_pool *p = config_find_pool(config, "p");
    ck_assert_str_eq(p->servers[0].address, "[::1]:1");
    ck_assert_str_eq(p->servers[0].host, "::1");
    ck_assert_int_eq(p->servers[1].addr.sa.any.sa_family, AF_UNIX);
    ck_assert_str_eq(p->servers[2].name, "n");
    ck_assert_str_eq(p->servers[2].address, "name.example:8");
    ck_assert_uint_eq(p->servers[2].weight, 0);
    ck_assert_str_eq(p->probe.method, "HEAD");
    ck_assert_uint_eq(p->probe.expect_count, 2);
    ck_assert_uint_eq(p->probe.expect[1].low, 300);
    ck_assert_uint_eq(p->probe.port, 81);
    ck_assert_int_eq(p->probe.tls, 0);
    ck_assert_uint_eq(p->probe.headers.count, 1);
    ck_assert_uint_eq(p->response_timeout_ms, 0);
    ck_assert_uint_eq(p->tunnel_max_age_ms, 86400000);
    ck_assert_uint_eq(p->retries, 0);
    ck_assert(p->tls && !p->tls_verify);
    ck_assert_str_eq(p->tls_sni, "s");
    ck_assert_int_eq(p->host, CONFIG_HOST_SERVER);
    ck_assert_uint_eq(p->keepalive, 0);
    ck_assert_uint_eq(p->source.len, sizeof(struct sockaddr_in));
    ck_assert_int_eq(config_find_pool(config, "q")->probe.kind, CONFIG_PROBE_TCP);
    ck_assert_str_eq(config_find_pool(config, "q")->host_fixed, "fixed.example");
    ck_assert_int_eq(config_find_pool(config, "r")->probe.kind, CONFIG_PROBE_NONE);
    ck_assert_int_eq(p->balance, CONFIG_BALANCE_ROUNDROBIN);
    ck_assert_uint_eq(p->hash_bound, 200);
    ck_assert_uint_eq(p->slow_start_ms, 30000);
    ck_assert_ptr_null(p->affinity.cookie);
    const struct config_pool *s = config_find_pool(config, "s"), *t = config_find_pool(config, "t");
    ck_assert_int_eq(s->balance, CONFIG_BALANCE_HASH);
    ck_assert_uint_eq(s->hash_bound, 125);
    ck_assert_uint_eq(s->slow_start_ms, 90000);
    ck_assert_str_eq(s->affinity.cookie, "node");
    ck_assert_str_eq(s->affinity.key, "0123456789abcdef");
    ck_assert_int_eq(s->affinity.same_site, CONFIG_SAME_SITE_STRICT);
    ck_assert_uint_eq(s->affinity.ttl_ms, 8 * 3600000);
    ck_assert_int_eq(t->balance, CONFIG_BALANCE_FIRST);
    ck_assert_uint_eq(t->hash_bound, 0);
    ck_assert_uint_eq(t->slow_start_ms, 0);
    ck_assert_ptr_null(t->affinity.cookie);
}
END_TEST

START_TEST(test_load_route) {
    const struct config *config = load_good("route 'r' { listener = 'http', host = 'Example.COM.', path = { '/a/%7Eb', '/c/*' }, method = 'get', "
        "scheme = 'wss', header = { ['X-A'] = true, ['x-b'] = { 'a*', '*b' } }, query = { q = false }, cookie = { c = 'd' }, "
        "client = { '10.0.0.0/8' }, origin = '*.x', sni = false, when = function() return true end, on_error = 'next', max_body = false, "
        "access_log = false, on_response = function() end, function() end, forward 'web' }\nroute 's' { subprotocol = { 'a', false }, drop() }");
    const struct config_route *r = route_of(config, "r");
    ck_assert(span_equal(r->match.hosts.list[0], SPAN("example.com")));
    ck_assert(span_equal(r->match.paths.list[0], SPAN("/a/~b")));
    ck_assert(span_equal(r->match.paths.list[1], SPAN("/c/*")));
    ck_assert(span_equal(r->match.methods.list[0], SPAN("GET")));
    ck_assert(span_equal(r->match.schemes.list[0], SPAN("https")));
    ck_assert_uint_eq(r->match.header_count, 2);
    ck_assert_int_eq(r->match.headers[0].presence, MATCH_PRESENT);
    ck_assert(span_equal(r->match.headers[0].name, SPAN("x-a")));
    ck_assert_uint_eq(r->match.headers[1].values.count, 2);
    ck_assert_int_eq(r->match.queries[0].presence, MATCH_ABSENT);
    ck_assert(span_equal(r->match.cookies[0].values.list[0], SPAN("d")));
    ck_assert_uint_eq(r->match.client_count, 1);
    ck_assert(r->match.no_sni && r->match.snis.count == 0);
    ck_assert_uint_eq(r->when, 0);
    ck_assert_uint_eq(r->on_response, 1);
    ck_assert_uint_eq(r->steps[0].function, 2);
    ck_assert(r->on_error_next && !r->access_log);
    ck_assert_uint_eq(r->max_body, UINT64_MAX - 1);
    const struct config_route *s = route_of(config, "s");
    ck_assert(s->match.no_subprotocol && s->match.subprotocols.count == 1 && s->match.websocket == MATCH_YES);
}
END_TEST

/* What a function returned, called in a replayed state. */
static const char *call(struct script *script, unsigned function) {
    script_push_function(script, function);
    ck_assert_int_eq(script_call(script, 0, 1), LUA_OK);
    return lua_tostring(script->L, -1);
}

START_TEST(test_load_replay_same_bytes) {
    char error[256];
    load_write("a.lua", "route 'a' { function() return 'a' end }");
    load_write("b.lua", "return { word = 'module' }");
    load_write("c.txt", "text");
    setenv("MOONGATE_TEST_VALUE", "one", 1);
    const struct config *config = load_good("include '[a].lua' local b = require 'b' local c, e = readfile 'c.txt', env.MOONGATE_TEST_VALUE\n"
                                            "route 'b' { function() return b.word .. c .. e .. env.MOONGATE_TEST_VALUE end, forward 'web' }");
    ck_assert_uint_eq(config->function_count, 2);
    load_write("moongate.lua", "syntax error");
    load_write("a.lua", "another");
    load_write("b.lua", "another");
    load_write("c.txt", "another");
    setenv("MOONGATE_TEST_VALUE", "two", 1);
    struct script *script = script_load_replay(loaded, error, sizeof error);
    ck_assert_msg(script != NULL, "%s", error);
    ck_assert_uint_eq(script->function_count, 2);
    ck_assert_uint_eq(loaded->label_count, 2);
    ck_assert_str_eq(loaded->labels[0], "route \"a\": step 1");
    ck_assert_str_eq(call(script, 0), "a");
    ck_assert_str_eq(call(script, 1), "moduletextoneone");
    ck_assert(!script->loading);
    script_free(&script);
}
END_TEST

START_TEST(test_load_replay_mismatch) {
    char error[256];
    load_good("route 'a' { function() end, forward 'web' }");
    loaded->labels[0][7] = 'z';
    ck_assert_ptr_null(script_load_replay(loaded, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "route \"a\": step 1"));
}
END_TEST

START_TEST(test_load_replay_memory) {
    char error[256];
    load_good("settings { lua_memory = '1m' } local big = ('x'):rep(2000000) route 'a' { function() return big end }");
    ck_assert_ptr_null(script_load_replay(loaded, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "memory"));
}
END_TEST

/* The order of pairs differs between states of Lua; not while loading. */
START_TEST(test_load_pairs_sorted) {
    const struct config *config = load_good("local t = { zulu = 1, alpha = 1, mike = 1, [2] = 1, [1.5] = 1, [true] = 1, delta = 1 }\n"
        "local out, k = {}, nil for key in pairs(t) do out[#out + 1] = tostring(key) end\n"
        "repeat k = next(t, k) out[#out + 1] = tostring(k) until k == nil\n"
        "out[#out + 1] = tostring(os.clock() == 0 and os.time() == os.time() and os.date('!%H:%M:%S') == os.date('!%H:%M:%S', os.time()))\n"
        "route 'a' { request_headers = { x = table.concat(out, ' ') }, forward 'web' }");
    ck_assert_str_eq(config->routes[0].request_headers.list[0].value.p,
                     "1.5 2 alpha delta mike zulu true 1.5 2 alpha delta mike zulu true nil true");
}
END_TEST

START_TEST(test_load_random_fixed) {
    static const char text[] = "route 'a' { request_headers = { x = tostring(math.random(1 << 60)) }, forward 'web' }";
    char first[64];
    snprintf(first, sizeof first, "%s", load_good(text)->routes[0].request_headers.list[0].value.p);
    ck_assert_str_eq(load_good(text)->routes[0].request_headers.list[0].value.p, first);
}
END_TEST

START_TEST(test_load_missing_file) {
    ck_assert_ptr_null(script_load_file(load_path("nothing.lua"), load_on_report, NULL));
    ck_assert_str_eq(load_said, "nothing.lua: No such file or directory\n");
}
END_TEST

int main(void) {
    Suite *suite = suite_create("load");
    TCase *tests = tcase_create("load");
    tcase_add_checked_fixture(tests, load_setup, load_teardown);
    tcase_add_test(tests, test_load_example_listeners);
    tcase_add_test(tests, test_load_example_pools);
    tcase_add_test(tests, test_load_example_routes);
    tcase_add_test(tests, test_load_settings);
    tcase_add_test(tests, test_load_error_pages);
    tcase_add_test(tests, test_load_listener);
    tcase_add_test(tests, test_load_pool);
    tcase_add_test(tests, test_load_route);
    tcase_add_test(tests, test_load_replay_same_bytes);
    tcase_add_test(tests, test_load_replay_mismatch);
    tcase_add_test(tests, test_load_replay_memory);
    tcase_add_test(tests, test_load_pairs_sorted);
    tcase_add_test(tests, test_load_random_fixed);
    tcase_add_test(tests, test_load_missing_file);
    suite_add_tcase(suite, tests);
    return load_run_tests(suite);
}
