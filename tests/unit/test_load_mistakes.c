/* SPDX-License-Identifier: MIT */
/* Tests of script/load: every mistake is found, all of a file at once, each with its line and key path. */
#include <sys/stat.h>

#include "load_fixture.h"

/* What follows a listener and a pool on line 1, and a line of what must be said. */
static const struct {
    const char *text, *expected;
} bad[] = {
    /* keys and types */
    {"pool 'chat' { sever = 1, servers = { '10.0.0.1:1' } }", "moongate.lua:2: pool \"chat\": unknown key \"sever\" (did you mean \"servers\"?)\n"},
    {"pool 'p' { servers = { '10.0.0.1:1', { '10.0.0.2:1', weight = 1001 } } }",
     "moongate.lua:2: pool \"p\": servers[2].weight: expected a whole number from 0 to 1000, got 1001\n"},
    {"pool 'p' { servers = { { '10.0.0.2:1', wieght = 1 } } }", "pool \"p\": servers[1]: unknown key \"wieght\" (did you mean \"weight\"?)\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, tls = { verify = 'no' } }", "pool \"p\": tls.verify: expected true or false, got \"no\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, balance = 'most' }",
     "balance: expected \"roundrobin\", \"leastconn\", \"random\", \"hash\" or \"first\", got \"most\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, hash_bound = 100 }", "hash_bound: expected a whole number from 101 to 10000, got 100\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, slow_start = 0 }", "slow_start: a zero duration; false means none\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, affinity = {} }", "pool \"p\": affinity: cookie is missing: its name\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, affinity = true }", "affinity: expected a table like { cookie = \"node\" }, or false, got true\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, affinity = { cookie = 'a;b' } }", "affinity.cookie: expected a cookie's name, got \"a;b\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, affinity = { cookie = 'a', same_site = 'Lax' } }",
     "affinity.same_site: expected \"lax\", \"strict\" or \"none\", got \"Lax\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, affinity = { cookie = 'a', key = 'short' } }",
     "affinity.key: a key has at least 16 characters, none of them NUL (openssl rand -hex 32 makes one)\n"},
    {"route 'r' { redirect('https://x/', 301) }",
     "redirect: a second argument; another status than 302 goes into a table: redirect { host = ..., path = ..., status = 301 }\n"},
    {"route 'r' { drop(403) }", "drop: it takes nothing and sends nothing; for a status: reply(403)\n"},
    {"route 'r' { reply(403, 'no', {}, 1) }", "reply: a fourth argument; it takes reply(status, body, headers)\n"},
    {"route 'r' { forward('web', {}, 'eu') }", "forward: a third argument; all options go into one table: forward(pool, { path = ..., host = ... })\n"},
    {"route 'r' { forward('web', { path = '/a/../../b' }) }", "forward: path above the root\n"},
    {"route 'r' { forward('web', { path = '/a/%2E./b' }) }", "forward: dot segment in the path\n"},
    {"route 'r' { forward('web', { path = '/a/..%2Fb' }) }", "forward: dot segment beside a backslash or an encoded slash\n"},
    {"route 'r' { forward('web', { host = 'a,b' }) }", "forward: 'a,b' is not a host name\n"},
    {"route 'r' { forward('web', { host = 'a:99999' }) }", "forward: 'a:99999' is not a host name\n"},
    {"route 'r' { redirect { host = 'a..b' } }", "redirect: 'a..b' is not a host name\n"},
    {"route 'r' { forward {} }", "forward: the pools must be a list of 1 to 16 names\n"},
    {"route 'r' { forward { 'web', 'web' } }", "forward: pool \"web\" is in the list twice\n"},
    {"route 'r' { forward { 'web', 'wep' } }", "unknown pool \"wep\" (did you mean \"web\"?)\n"},
    {"route 'r' { forward { 'web', 7 } }", "forward: the pool's name must be a string, not number\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, on_down = { close = 1012 } }", "on_down: \"close\" is not in this version\n"},
    {"pool 'p' { servers = { '10.0.0.1' } }", "servers[1]: \"10.0.0.1\" has no port, and the pool names none"},
    {"pool 'p' { servers = { '10.0.0.300:1' } }", "servers[1]: \"10.0.0.300:1\" is no address"},
    {"pool 'p' { servers = { '10.0.0.1:1', '10.0.0.1:1' } }", "servers[2]: \"10.0.0.1:1\" is there twice\n"},
    {"pool 'p' { servers = {} }", "pool \"p\": servers: no server\n"},
    {"pool 'p' { servers = { '10.0.0.1:1', nil, '10.0.0.2:1' } }", "servers: expected a list: values without keys and without holes\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, probe = { expect = '99-200' } }", "probe.expect: expected a status like 200"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, probe = { every = 0 } }", "probe.every: a zero duration\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, probe = 'http' }", "probe: expected a table, \"tcp\" or false, got \"http\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, probe = probe 'x' { path = 'no' } }", "probe \"x\": path: expected a path like \"/healthz\", got \"no\"\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, idle_timeout = 1 }", "pool \"p\": unknown key \"idle_timeout\""},
    {"pool 'p' { servers = { '10.0.0.1:1' }, response_timeout = 0 }", "response_timeout: a zero duration; false means none\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, response_timeout = true }", "response_timeout: expected a duration like \"5s\", or false, got true\n"},
    {"listener 'x' { bind = 'localhost:80' }", "listener \"x\": bind: \"localhost:80\" is no address"},
    {"listener 'x' { bind = '127.0.0.1' }", "listener \"x\": bind: \"127.0.0.1\" has no port\n"},
    {"listener 'x' {}", "listener \"x\": bind is missing"},
    {"listener 'x' { bind = '127.0.0.1:2', max_fields = 0 }", "max_fields: expected a whole number from 1 to 900, got 0\n"},
    {"listener 'x' { bind = '127.0.0.1:2', max_header = '1x' }", "max_header: expected a size like \"16m\" or bytes, got \"1x\"\n"},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a' } }", "listener \"x\": tls: key is missing\n"},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a', key = 'b' } }", "listener \"x\": tls.cert: cannot read"},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a', key = 'b', alpn = { 'h2' } } }", "tls.alpn[1]: \"h2\" is not in this version\n"},
    {"listener 'x' { bind = '127.0.0.1:2', trusted_proxies = { '10.0.0.1/8' } }", "trusted_proxies[1]: \"10.0.0.1/8\" is no address or block"},
    {"listener 'x' { bind = '127.0.0.1:2', request_headers = { connection = 'x' } }",
     "request_headers.connection: \"connection\" frames the message and cannot be edited\n"},
    {"listener 'x' { bind = '127.0.0.1:2', response_headers = { a = 'b\\r\\nc' } }", "response_headers.a: control characters in a header's value\n"},
    {"listener 'x' { bind = '127.0.0.1:2', response_headers = { ['a b'] = '' } }", "\"a b\" is no header name\n"},
    {"listener 'x' { bind = '127.0.0.1:2', 'y' }", "listener \"x\": a value without a key at position 1\n"},
    {"listener 'x' { bind = '127.0.0.1:2', proxy_protocol_from = 'all' }", "proxy_protocol_from: \"all\" is no address or block"},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a', key = 'b', client_cert = 'ask' } }",
     "listener \"x\": tls: client_cert needs client_ca: who may sign clients' certificates\n"},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a', key = 'b', client_ca = 'c', client_cert = 'must' } }", "tls.client_cert: "},
    {"listener 'x' { bind = '127.0.0.1:2', tls = { cert = 'a', key = 'b', client_ca = 'c' } }", "tls.client_ca: cannot read"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, proxy_protocol = 'v3' }", "pool \"p\": proxy_protocol: "},
    {"pool 'p' { servers = { '10.0.0.1:1' }, proxy_protocol = true }", "pool \"p\": proxy_protocol: "},
    {"pool 'p' { servers = { '10.0.0.1:1' }, tls = { cert = 'c' } }", "pool \"p\": tls: key is missing\n"},
    {"pool 'p' { servers = { '10.0.0.1:1' }, tls = { key = 'k' } }", "pool \"p\": tls: cert is missing\n"},
    {"settings { workers = 'many' }", "settings: workers: expected \"auto\" or a whole number from 1 to 64, got \"many\"\n"},
    {"settings { workers = 65 }", "settings: workers: expected a whole number from 1 to 64, got 65\n"},
    {"settings { error_pages = { [200] = 'x y' } }",
     "settings: error_pages: expected statuses from 400 to 599 as keys: [503] = \"503.html\", got 200\n"},
    {"settings { error_pages = { [503] = 'absent.html' } }",
     "settings: error_pages[503]: cannot read \"absent.html\": No such file or directory (a page's own text has a blank, or begins with '<' or '{')\n"},
    {"settings { access_log = { format = 'combine' } }", "settings: access_log.format: expected \"json\" or \"combined\", got \"combine\"\n"},
    {"settings { via = 'a\\r\\nx: b' }", "settings: via: expected a name like \"a.example\", or false, got "},
    {"pool 'p' { servers = { '10.0.0.1:1' }, probe = { host = 'a\\nb' } }", "pool \"p\": probe.host: expected a name like"},
    {"route 'r' { request_headers = { Host = 'b' }, drop() }", "request_headers.Host: the host is changed by req:set_host()"},
    {"route 'r' { origin = { 'https://a', 'a.example' }, drop() }", "origin[2]: \"a.example\" is no origin like \"https://example.com\"\n"},
    {"settings {} settings {}", "settings: declared twice (first in "},
    /* names */
    {"listener 'http' { bind = '127.0.0.1:2' }", "moongate.lua:2: listener \"http\": declared twice (first in "},
    {"pool 'web' { servers = { '10.0.0.1:1' } }", "pool \"web\": declared twice"},
    {"route 'r' { drop() }\nroute 'r' { drop() }", "moongate.lua:3: route \"r\": declared twice"},
    {"route 'r' { listener = 'htp', drop() }", "moongate.lua:2: route \"r\": listener: unknown listener \"htp\" (did you mean \"http\"?)\n"},
    {"route 'r' { except = { listener = 'no' }, drop() }", "route \"r\": except.listener: unknown listener \"no\"\n"},
    {"route 'r' { forward 'wbe' }", "moongate.lua:2: route \"r\": step 1: unknown pool \"wbe\""},
    {"pool 'a b' {}", "pool \"a b\": a name has 1 to 64 characters"},
    {"pool {}", "pool: a name is missing"},
    {"\n\nlistener 'x'", "moongate.lua:4: listener \"x\": its table is missing"},
    {"pool 'x' (5)", "pool \"x\": expected a table, got a number\n"},
    {"settings 'x'", "settings: expected a table"},
    {"on_close('x')", "on_close: expected a function, got a string\n"},
    {"on_close()", "on_close: a function is missing: on_close(function(...) ... end)\n"},
    {"on_close(log.info)", "on_close: expected a function of your own, got a function\n"},
    /* routes */
    {"route 'r' {}", "route \"r\": no steps"},
    {"route 'r' { drop(), forward 'web' }", "route \"r\": step 2 never runs"},
    {"local f route 'r' { f, forward 'web' }", "route \"r\": step 1 is nil"},
    {"route 'r' { reply }", "route \"r\": step 1: a word alone is no action: forward"},
    {"route 'r' { when = reply, drop() }", "route \"r\": when: expected a function of your own, got a function\n"},
    {"local steps = {} for i = 1, 1001 do steps[i] = function() end end route 'r' (steps)", "route \"r\": 1001 steps, 1000 are the most\n"},
    {"route 'r' { 'web' }", "route \"r\": step 1: expected an action or a function, got a string\n"},
    {"route 'r' { on_error = 'next', reply(200) }", "route \"r\": on_error = \"next\" makes no sense"},
    {"route 'r' { on_error = 'ignore', forward 'web' }", "on_error: expected \"next\", got \"ignore\"\n"},
    {"route 'r' { path = 'x', drop() }", "path: \"x\": a path starts with \"/\"\n"},
    {"route 'r' { path = { '/a', '/*/b' }, drop() }", "path[2]: \"/*/b\": \"*\" stands only as the last segment"},
    {"route 'r' { path = '/:a/:a', drop() }", "\":name\" segments need a name"},
    {"route 'r' { path = '/a/../../b', drop() }", "path: \"/a/../../b\": "},
    {"route 'r' { path = {}, drop() }", "route \"r\": path: an empty list\n"},
    {"route 'r' { host = 'a.example:80', drop() }", "host: \"a.example:80\": a host without port"},
    {"route 'r' { host = 'a.*.b', drop() }", "host: \"a.*.b\" is no host"},
    {"route 'r' { scheme = 'ftp', drop() }", "scheme: expected \"http\" or \"https\", got \"ftp\"\n"},
    {"route 'r' { websocket = false, subprotocol = 'a', drop() }", "websocket = false with subprotocol never matches\n"},
    {"route 'r' { header = { x = 5 }, drop() }", "header.x: expected a text, a list, true or false, got 5\n"},
    {"route 'r' { client = 'here', drop() }", "client: \"here\" is no address or block"},
    {"route 'r' { when = true, drop() }", "when: expected a function, got true\n"},
    {"route 'r' { except = { when = 1 }, drop() }", "except: unknown key \"when\""},
    {"route 'r' { hots = 'x', drop() }", "route \"r\": unknown key \"hots\" (did you mean \"host\"?)\n"},
    /* globals */
    {"route 'r' { function()\n  htp.get()\nend, forward 'web' }", "moongate.lua:3: unknown global \"htp\"\n"},
    {"route 'r' { function()\n  return http.get('x')\nend, forward 'web' }", "moongate.lua:3: \"http\" is not in this version\n"},
    {"local d = dict 'x' { size = '1m' }", "moongate.lua:2: \"dict\" is not in this version\n"},
    {"ruote 'r' {}", "moongate.lua:2: unknown global \"ruote\" (did you mean \"route\"?)\n"},
    {"route 'r' { function() count = 1 end, forward 'web' }", "global \"count\" is set in a function and declared nowhere"},
    {"local x = _G['nothing']", "unknown global \"nothing\"\n"},
    /* files */
    {"x = = 1", "moongate.lua:2: unexpected symbol near '='\n"},
    {"\nerror('stop')", "moongate.lua:3: stop\n"},
    {"error({})", "moongate.lua: (error object is a table value)\n"},
    {"include 'nothing.lua'", "moongate.lua:2: include: there is no file \"nothing.lua\"\n"},
    {"require 'nothing'", "moongate.lua:2: require: no module \"nothing\""},
    {"require '../nothing'", "moongate.lua:2: require: \"../nothing\" is no name of a module\n"},
    {"readfile 'nothing'", "moongate.lua:2: readfile: cannot read "},
    {"local x = env.MOONGATE_TEST_UNSET .. 'x'", "moongate.lua:2: env.MOONGATE_TEST_UNSET is not set"},
    {"local x = env('MOONGATE_TEST_UNSET')", "moongate.lua:2: env(\"MOONGATE_TEST_UNSET\") is not set and has no default\n"},
    {"local t = strict{ path = 1 } local x = t.pth", "moongate.lua:2: strict: no field \"pth\" (did you mean \"path\"?)\n"},
};

START_TEST(test_load_mistake) { load_bad(bad[_i].text, bad[_i].expected); }
END_TEST

/* Nothing hides anything; in the order of lines; each once. */
START_TEST(test_load_mistakes_at_once) {
    ck_assert_ptr_null(load_text("listener 'x'\n"
                                 "listener 'l' { bind = '127.0.0.1:80', heder_timeout = '1s', header_timeout = 0 }\n"
                                 "local d = dict 's' { size = '1m' }\n"
                                 "pool 'p' { servers = { env.MOONGATE_TEST_UNSET }, connect_timeout = '5x' }\n"
                                 "route 'r' { missing, forward 'q' }\n"
                                 "if d:get(1) > 2 then ruote 'x' {} end\n"
                                 "route 's' { function() return http.get(d) end }\n"));
    ck_assert_str_eq(load_said, "moongate.lua:1: listener \"x\": its table is missing: listener \"x\" { ... }\n"
                                "moongate.lua:2: listener \"l\": header_timeout: a zero duration\n"
                                "moongate.lua:2: listener \"l\": unknown key \"heder_timeout\" (did you mean \"header_timeout\"?)\n"
                                "moongate.lua:3: \"dict\" is not in this version\n"
                                "moongate.lua:4: env.MOONGATE_TEST_UNSET is not set (env(\"MOONGATE_TEST_UNSET\", default) where it may be missing)\n"
                                "moongate.lua:4: pool \"p\": connect_timeout: expected a duration like \"5s\", got \"5x\"\n"
                                "moongate.lua:5: route \"r\": step 2: unknown pool \"q\"\n"
                                "moongate.lua:5: unknown global \"missing\"\n"
                                "moongate.lua:6: unknown global \"ruote\" (did you mean \"route\"?)\n"
                                "moongate.lua:7: \"http\" is not in this version\n");
}
END_TEST

/* What a file that ends early has declared is judged, what it may have gone on to declare is not. */
START_TEST(test_load_mistakes_before_an_end) {
    ck_assert_ptr_null(load_text("listener 'x' { bind = { '127.0.0.1:80', '127.0.0.1:80' } }\nroute 'r' { forward 'later' }\nerror('stop')\n"));
    ck_assert_str_eq(load_said, "moongate.lua:1: listener \"x\": bind[2]: 127.0.0.1:80 is used already by listener \"x\"\n"
                                "moongate.lua:3: stop\n");
    ck_assert_ptr_null(load_text("\nerror('stop')\n"));
    ck_assert_str_eq(load_said, "moongate.lua:2: stop\n");
}
END_TEST

START_TEST(test_load_mistakes_of_several_files) {
    load_write("a.lua", "pool 'a' { serves = 1, servers = { '127.0.0.1:1' } }\nx = = 1");
    load_write("b.lua", "pool 'b' { serves = 1, servers = { '127.0.0.1:1' } }\nnothing()\n");
    ck_assert_ptr_null(load_rest("include '[ab].lua'\npool 'c' { serves = 1, servers = { '127.0.0.1:1' } }"));
    ck_assert_ptr_nonnull(strstr(load_said, "moongate.lua:3: pool \"c\": unknown key"));
    ck_assert_ptr_nonnull(strstr(load_said, "a.lua:2: unexpected symbol"));
    ck_assert_ptr_nonnull(strstr(load_said, "b.lua:1: pool \"b\": unknown key"));
    ck_assert_ptr_nonnull(strstr(load_said, "b.lua:2: unknown global \"nothing\""));
}
END_TEST

START_TEST(test_load_warnings_do_not_fail) {
    ck_assert_ptr_nonnull(load_rest("pool 'p' { servers = { '127.0.0.1:1' }, response_timeout = 1500 }\ninclude 'sites/*.lua'\n"
                                    "n = 1 local function f() n = 2 end\n"
                                    "route 'r' { forward('p', { response_timeout = 2000.5 }) }"));
    ck_assert_ptr_nonnull(strstr(load_said, "moongate.lua:2: warning: pool \"p\": response_timeout: 1500 means seconds"));
    ck_assert_ptr_nonnull(strstr(load_said, "moongate.lua:3: warning: include: no file matches \"sites/*.lua\"\n"));
    ck_assert_ptr_nonnull(strstr(load_said, "moongate.lua:4: warning: global \"n\" is set in a function"));
    ck_assert_ptr_nonnull(strstr(load_said, "moongate.lua:5: warning: forward: response_timeout: 2000.5 means seconds; write \"2000500ms\"\n"));
}
END_TEST

/* Names that a file sets are known everywhere, also before they are set. */
START_TEST(test_load_own_globals) {
    load_write("a.lua", "function helper() return reply(200) end");
    load_write("b.lua", "#! a first line like this is skipped\nlocal M = {} function M.f() return helper() end return M");
    load_good("include 'a.lua' local b = require 'b'\nlimit_of = 5\nroute 'r' { function() return helper(limit_of, later, b.f) end, forward 'web' }\n"
              "function later() end\nif false then maybe = 1 end\nif maybe then error('no') end");
}
END_TEST

START_TEST(test_load_cycles_end) {
    load_write("a.lua", "include 'a.lua'");
    load_bad("include 'a.lua'", "files include each other more than 16 deep");
    load_write("a.lua", "return require 'a'");
    load_bad("require 'a'", "a.lua:1: require: module \"a\" requires itself\n");
}
END_TEST

START_TEST(test_load_long_names) {
    char folder[256], path[300];
    snprintf(folder, sizeof folder, "%s/a-folder-with-a-name-so-long-that-lua-shortens-it-in-its-own-messages", load_folder);
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    snprintf(path, sizeof path, "%s/m.lua", folder);
    load_write("a-folder-with-a-name-so-long-that-lua-shortens-it-in-its-own-messages/m.lua", "\n\nerror('stop')");
    load_said[0] = '\0';
    ck_assert_ptr_null(script_load_file(path, load_on_report, NULL));
    ck_assert_msg(strstr(load_said, "a-folder-with-a-name-so-long-that-lua-shortens-it-in-its-own-messages/m.lua:3: stop\n"), "%s", load_said);
    unlink(path);
    rmdir(folder);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("load_mistakes");
    TCase *tests = tcase_create("load_mistakes");
    tcase_add_checked_fixture(tests, load_setup, load_teardown);
    tcase_add_loop_test(tests, test_load_mistake, 0, (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(tests, test_load_mistakes_at_once);
    tcase_add_test(tests, test_load_mistakes_before_an_end);
    tcase_add_test(tests, test_load_mistakes_of_several_files);
    tcase_add_test(tests, test_load_warnings_do_not_fail);
    tcase_add_test(tests, test_load_own_globals);
    tcase_add_test(tests, test_load_cycles_end);
    tcase_add_test(tests, test_load_long_names);
    suite_add_tcase(suite, tests);
    return load_run_tests(suite);
}
