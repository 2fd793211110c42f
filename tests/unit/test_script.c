/* SPDX-License-Identifier: MIT */
/*
 * test_script: functions of a configuration called for real requests: what `req`, `resp` and `tunnel` show and
 * change, what a step may return, and that nothing a function does (errors, endless loops, memory) reaches beyond its
 * request.
 */
#include <time.h>
#include <unistd.h>

#include "base/metrics.h"
#include "routing_fixture.h"
#include "script/load.h"

/* One configuration whose route "t" holds one function with the body under test, opened as a worker would. */
struct rig {
    struct fixture fixture;
    struct script_load *load;
    struct config *config;
    void *script;
    struct subject subject;
    bool has_subject;
};

static void rig_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    fprintf(stderr, "%s: %s\n", is_error ? "error" : "warning", text);
}

/* settings is the inside of settings{}; routes is Lua. */
static void rig_open(struct rig *rig, const char *settings, const char *routes) {
    char folder[] = "/tmp/moongate-test-XXXXXX", path[64], error[512] = "";
    memset(rig, 0, sizeof *rig);
    metrics_attach();
    fixture_init(&rig->fixture);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/moongate.lua", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file,
            "settings { access_log = false, lua_memory = \"8m\", %s }\n"
            "listener \"http\" { bind = \"127.0.0.1:18080\" }\n"
            "pool \"chat\" { servers = { \"127.0.0.1:9000\" } }\n"
            "pool \"super\" { servers = { { \"127.0.0.1:9001\", name = \"one\" } } }\n%s\n",
            settings, routes);
    ck_assert_int_eq(fclose(file), 0);
    rig->load = script_load_file(path, rig_report, NULL);
    unlink(path);
    rmdir(folder);
    ck_assert_ptr_nonnull(rig->load);
    rig->config = script_load_config(rig->load);
    rig->script = script_lua_ops.open(rig->load, 0, error, sizeof error);
    ck_assert_msg(rig->script != NULL, "%s", error);
}

static void rig_open_body(struct rig *rig, const char *body) {
    char routes[4096];
    ck_assert_uint_lt((size_t)snprintf(routes, sizeof routes, "route \"t\" { function(req)\n%s\nend }", body),
                      sizeof routes);
    /* A sanitizer makes some bodies slow; budgets have tests of their own. */
    rig_open(rig, "rule_cpu = '2s'", routes);
}

static void rig_end_request(struct rig *rig) {
    if (!rig->has_subject)
        return;
    script_lua_ops.release(rig->script, &rig->subject);
    ck_assert_ptr_null(rig->subject.script);
    subject_fini(&rig->subject);
    rig->has_subject = false;
}

static void rig_request(struct rig *rig, const char *head) {
    rig_end_request(rig);
    ck_assert_uint_eq(fixture_prepare(&rig->fixture, &rig->subject, head), 0);
    rig->has_subject = true;
}

static void rig_close(struct rig *rig) {
    rig_end_request(rig);
    script_lua_ops.close(rig->script);
    script_load_free(&rig->load);
}

static enum script_status rig_step(struct rig *rig, unsigned route, const struct action **action) {
    return script_lua_ops.step(rig->script, rig->config->routes[route].steps[0].function, &rig->subject, action, NULL,
                               NULL);
}

#define PLAIN_HEAD \
    "GET /a/../chat/r%20oom?x=1&y=two%20words&x=3 HTTP/1.1\r\nHost: Example.COM:8443\r\nX-Multi: a\r\nX-Other: " \
    "o\r\nx-multi: b\r\n" \
    "Cookie: sid=42; theme=dark\r\nAuthorization: bearer s3cret\r\n\r\n"
#define WEBSOCKET_HEAD \
    "GET /chat HTTP/1.1\r\nHost: example.com\r\nOrigin: https://example.com\r\n" FIXTURE_HANDSHAKE \
    "Sec-WebSocket-Protocol: bearer, t0ken\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n"

/* The text that `return reply(200, EXPRESSION)` gives for a request. */
static void rig_expect(const char *head, const char *body, const char *want) {
    struct rig rig;
    const struct action *action = NULL;
    rig_open_body(&rig, body);
    rig_request(&rig, head);
    ck_assert_msg(rig_step(&rig, 0, &action) == SCRIPT_OK, "failed: %s", body);
    ck_assert_msg(action->kind == ACTION_REPLY, "no reply: %s", body);
    ck_assert_msg(action->reply.body.p && span_equal(action->reply.body, span_of(want)), "%s: \"%.*s\", not \"%s\"",
                  body, SPAN_ARGS(action->reply.body), want);
    rig_close(&rig);
}

/* The function must fail closed, count one error, and leave the state usable. */
static void rig_expect_error(const char *head, const char *body) {
    struct rig rig;
    const struct action *action = NULL;
    rig_open_body(&rig, body);
    for (int turn = 0; turn < 2; turn++) {
        uint64_t before = metric_sum(METRIC_script_errors);
        rig_request(&rig, head);
        ck_assert_msg(rig_step(&rig, 0, &action) == SCRIPT_ERROR, "no error: %s", body);
        ck_assert_int_eq(action->kind, ACTION_NONE);
        ck_assert_uint_eq(metric_sum(METRIC_script_errors), before + 1);
    }
    rig_close(&rig);
}

START_TEST(test_fields) {
    rig_expect(PLAIN_HEAD,
               "return reply(200, table.concat({req.method, req.path, req.raw_path, req.query_string, req.scheme,"
               " req.host, req.port, req.version, req.listener, req.client, req.peer}, '|'))",
               "GET|/chat/r%20oom|/a/../chat/"
               "r%20oom|x=1&y=two%20words&x=3|http|example.com|8443|1.1|http|192.0.2.7|192.0.2.7");
    rig_expect(PLAIN_HEAD,
               "return reply(200, tostring(req.tls) .. tostring(req.ws) .. #req.id .. math.type(req.time)"
               " .. tostring(next(req.params)))",
               "nilnil32floatnil");
    rig_expect("GET / HTTP/1.0\r\n\r\n", "return reply(200, req.version .. '|' .. req.host .. '|' .. req.query_string)",
               "1.0||");
}
END_TEST

START_TEST(test_headers_read) {
    rig_expect(
        PLAIN_HEAD,
        "return reply(200, req:header('X-MULTI') .. '|' .. req:header('x-other') .. '|' .. tostring(req:header('no')))",
        "a, b|o|nil");
    rig_expect(PLAIN_HEAD,
               "return reply(200, #req:headers('x-multi') .. req:headers('x-multi')[2] .. #req:headers('no'))", "2b0");
    rig_expect(
        PLAIN_HEAD,
        "local t = {} for n, v in req:all_headers() do if n:find('^x%-[mo]') then t[#t+1] = n .. '=' .. v end end"
        " return reply(200, table.concat(t, ' '))",
        "x-multi=a x-other=o x-multi=b");
}
END_TEST

START_TEST(test_headers_edit) {
    struct rig rig;
    const struct action *action;
    rig_open_body(
        &rig, "req:set_header('X-User', 'anna') req:add_header('x-multi', 7) req:del_header('cookie')"
              " assert(req:header('x-user') == 'anna' and req:header('x-multi') == 'a, b, 7' and not req:cookie('sid'))"
              " req:set_header('x-multi', 'only')");
    rig_request(&rig, PLAIN_HEAD);
    struct subject_mark mark = {0};
    ck_assert(subject_mark(&rig.subject, &mark));
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_int_eq(action->kind, ACTION_NONE);
    ck_assert_span(http_find_name(&rig.subject.head, SPAN("x-user"))->value, "anna");
    ck_assert_span(http_join(&rig.subject.head, SPAN("x-multi")), "only");
    ck_assert_ptr_null(http_find(&rig.subject.head, HTTP_FIELD_COOKIE));
    subject_restore(&rig.subject, &mark);
    ck_assert_ptr_null(http_find_name(&rig.subject.head, SPAN("x-user")));
    ck_assert_span(http_join(&rig.subject.head, SPAN("x-multi")), "a, b");
    ck_assert_ptr_nonnull(http_find(&rig.subject.head, HTTP_FIELD_COOKIE));
    rig_close(&rig);
}
END_TEST

static const char *const bad_edits[] = {
    "req:set_header('x', 'a\\r\\nb: c')",
    "req:set_header('x', 'a\\0b')",
    "req:set_header('x', 'a\\nb')",
    "req:set_header('x y', 'a')",
    "req:set_header('', 'a')",
    "req:set_header('x', nil)",
    "req:set_header('x', {})",
    "req:set_header('Content-Length', '3')",
    "req:del_header('Transfer-Encoding')",
    "req:set_header('Connection', 'close')",
    "req:set_header('Upgrade', 'h2c')",
    "req:set_header('Sec-WebSocket-Key', 'x')",
    "req:del_header('sec-websocket-accept')",
    "req:set_header('Host', 'x')",
    "req:set_header('Sec-WebSocket-Protocol', 'x')",
    "for i = 1, 10000 do req:add_header('x-' .. i, i) end",
    "for i = 1, 100 do req:set_header('x', string.rep('y', 100000)) end",
    "req:set_path('no-slash')",
    "req:set_path('/a/../../b')",
    "req:set_path('/a/%2e%2E/b')",
    "req:set_path('/a b')",
    "req:set_path('/a?b')",
    "req:set_path('/%zz')",
    "req:set_path('/a\\r\\nb')",
    "req:set_host('a b')",
    "req:set_host('')",
    "req:set_host('a\\r\\nx: y')",
    "req.path = '/x'",
    "req.mine = 1",
    "return reply(200, req.hots)",
    "return reply(200, req.subprotocol)",
    "req.header('x')",
    "req:log('a b', 1)",
    "for i = 1, 17 do req:log('k' .. i, i) end",
    "req:body(10)",
    "req.vars.x.y = 1",
};

START_TEST(test_bad_edits) { rig_expect_error(PLAIN_HEAD, bad_edits[_i]); }
END_TEST

START_TEST(test_target) {
    struct rig rig;
    const struct action *action;
    rig_open_body(
        &rig,
        "assert(req:query('x') == '1' and req:query('y') == 'two words' and req:query('z') == nil)"
        " assert(req:cookie('theme') == 'dark' and req:cookie('no') == nil and req:bearer() == 's3cret')"
        " req:set_query('y', 'a&b') req:set_query('x', nil) req:set_path('/new//x') "
        "req:set_host('Other.Example.:81')"
        " assert(req.path == '/new/x' and req.host == 'other.example' and req.port == 81 and req:query('y') == 'a&b')");
    rig_request(&rig, PLAIN_HEAD);
    struct subject_mark mark = {0};
    ck_assert(subject_mark(&rig.subject, &mark));
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_span(rig.subject.path, "/new/x");
    ck_assert_span(rig.subject.host, "other.example");
    ck_assert_span(rig.subject.query, "y=a%26b");
    ck_assert(rig.subject.path_edited && rig.subject.query_edited && rig.subject.host_edited);
    ck_assert_uint_eq(rig.subject.host_port, 81);
    subject_restore(&rig.subject, &mark);
    ck_assert_span(rig.subject.path, "/chat/r%20oom");
    ck_assert_span(rig.subject.host, "example.com");
    ck_assert(!rig.subject.path_edited && !rig.subject.query_edited && !rig.subject.host_edited);
    rig_close(&rig);
}
END_TEST

START_TEST(test_websocket) {
    rig_expect(WEBSOCKET_HEAD, "return reply(200, table.concat(req.ws.subprotocols, ' ') .. '|' .. req.ws.origin)",
               "bearer t0ken chat superchat|https://example.com");
    rig_expect(WEBSOCKET_HEAD, "return reply(200, tostring(req.ws:offers 'chat') .. tostring(req.ws:offers 'Chat'))",
               "truefalse");
    rig_expect(WEBSOCKET_HEAD,
               "local t = req.ws:take('bearer') return reply(200, t .. '|' .. req:header('sec-websocket-protocol')"
               " .. '|' .. tostring(req.ws:take('nope')) .. tostring(req.ws:take('superchat')))",
               "t0ken|chat, superchat|nilnil");
    rig_expect(WEBSOCKET_HEAD,
               "local ok = req.ws:only { 'superchat', 'chat', 'x' } return reply(200, tostring(ok) .. "
               "req:header('sec-websocket-protocol') .. tostring(req.ws:only {}) .. "
               "tostring(req:header('sec-websocket-protocol')))",
               "truechat, superchatfalsenil");
}
END_TEST

START_TEST(test_websocket_edit_is_seen) {
    struct rig rig;
    const struct action *action;
    rig_open_body(&rig, "req.ws:take('bearer') return forward 'chat'");
    rig_request(&rig, WEBSOCKET_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_int_eq(action->kind, ACTION_FORWARD);
    ck_assert_uint_eq(action->forward.pool, 0);
    ck_assert(rig.subject.offer_edited);
    ck_assert_uint_eq(rig.subject.offer.protocol_count, 2);
    ck_assert_span(rig.subject.offer.protocols[0], "chat");
    rig_close(&rig);
}
END_TEST

START_TEST(test_actions) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "route \"a\" { function(req) return forward('super', { server = 'one', path = '/x/*', host = 'h.example',"
             " response_timeout = '1500ms' }) end }\n"
             "route \"b\" { function(req) return reply(429, 'slow\\n', { ['retry-after'] = math.ceil(1.5), "
             "['Set-Cookie'] = {'a', 'b'} }) end }\n"
             "route \"c\" { function(req) return redirect { scheme = 'https', port = 8443, query = false, status = 308 "
             "} end }\n"
             "route \"d\" { function(req) return redirect(('https://example_com/'):gsub('_', '.')) end }\n"
             "route \"e\" { function(req) return drop() end }\n");
    rig_request(&rig, PLAIN_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert(action->kind == ACTION_FORWARD && action->forward.pool == 1 &&
              action->forward.response_timeout_ms == 1500);
    ck_assert_span(action->forward.server, "one");
    ck_assert_span(action->forward.path, "/x/*");
    ck_assert_span(action->forward.host, "h.example");
    ck_assert_int_eq(rig_step(&rig, 1, &action), SCRIPT_OK);
    ck_assert(action->kind == ACTION_REPLY && action->reply.status == 429 && action->reply.header_count == 3);
    ck_assert_span(action->reply.body, "slow\n");
    ck_assert_span(action->reply.headers[0].name, "Set-Cookie");
    ck_assert_span(action->reply.headers[1].value, "b");
    ck_assert_span(action->reply.headers[2].value, "2");
    ck_assert_int_eq(rig_step(&rig, 2, &action), SCRIPT_OK);
    ck_assert(action->kind == ACTION_REDIRECT && action->redirect.status == 308 && action->redirect.port == 8443);
    ck_assert_span(action->redirect.scheme, "https");
    ck_assert_span(action->redirect.query, "");
    ck_assert_ptr_null(action->redirect.url.p);
    ck_assert_int_eq(rig_step(&rig, 3, &action), SCRIPT_OK);
    ck_assert_uint_eq(action->redirect.status, 302);
    ck_assert_span(action->redirect.url, "https://example.com/");
    ck_assert_int_eq(rig_step(&rig, 4, &action), SCRIPT_OK);
    ck_assert_int_eq(action->kind, ACTION_DROP);
    rig_close(&rig);
}
END_TEST

START_TEST(test_action_pools_and_key) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "local order = { 'super', 'chat' }\n"
             "local go = forward(order, { key = 42 })\norder[1] = 'chat'\n"
             "route \"a\" { function(req) return go end }\n"
             "route \"b\" { function(req) return forward({ 'chat', 'super' }, { server = 'one' }) end }\n"
             "route \"c\" { function(req) return forward('chat', { key = 'a\\0b' }) end }\n"
             "route \"d\" { path = '/never', go }");
    rig_request(&rig, PLAIN_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_uint_eq(action->forward.pool, 1);
    ck_assert_uint_eq(action->forward.other_count, 1);
    ck_assert_uint_eq(action->forward.others[0], 0);
    ck_assert_span(action->forward.key, "42");
    ck_assert_int_eq(rig_step(&rig, 1, &action), SCRIPT_OK); /* a server of any pool in the list */
    ck_assert_span(action->forward.server, "one");
    ck_assert_ptr_null(action->forward.key.p);
    ck_assert_int_eq(rig_step(&rig, 2, &action), SCRIPT_OK);
    ck_assert_uint_eq(action->forward.key.n, 3);
    ck_assert_uint_eq(action->forward.other_count, 0);
    const struct action *made = &rig.config->routes[3].steps[0].action;
    ck_assert(made->forward.pool == 1 && made->forward.other_count == 1 && made->forward.others[0] == 0);
    rig_close(&rig);
}
END_TEST

/* Static steps and returned values are the same constructors. */
START_TEST(test_actions_made_at_load) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "local go = forward('chat', { path = '/y' })\nroute \"a\" { function(req) return go end }\n"
             "route \"b\" { path = '/never', go }");
    rig_request(&rig, PLAIN_HEAD);
    for (int turn = 0; turn < 3; turn++) {
        ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
        ck_assert_span(action->forward.path, "/y");
    }
    ck_assert_int_eq(rig.config->routes[1].steps[0].kind, CONFIG_STEP_ACTION);
    ck_assert_span(rig.config->routes[1].steps[0].action.forward.path, "/y");
    rig_close(&rig);
}
END_TEST

static const char *const bad_returns[] = {
    "return nil, 'why'",
    "return false",
    "return true",
    "return 'chat'",
    "return 404",
    "return {}",
    "return req",
    "reply(403)",
    "forward('chat')",
    "local ok = drop()",
    "return reply(99999)",
    "return reply(199)",
    "return reply(200.5)",
    "return reply('200')",
    "return reply(200, {})",
    "return reply(200, string.rep('x', 1024 * 1024 + 1))",
    "return reply(204, 'x')",
    "return reply(200, '', { ['x'] = 'a\\r\\nb: c' })",
    "return reply(200, '', { ['content-length'] = 3 })",
    "return reply(200, '', { ['x y'] = 'a' })",
    "return reply(200, '', { ['x'] = true })",
    "return reply(200, '', 'x')",
    "local h = {} for i = 1, 10000 do h['x' .. i] = 'y' end return reply(200, '', h)",
    "return forward('nowhere')",
    "return forward('cha' .. 't2')",
    "return forward('chat', { key = '' })",
    "return forward('chat', { key = {} })",
    "return forward {}",
    "return forward { 'chat', 'nowhere' }",
    "return forward { 'chat', 'chat' }",
    "return forward('chat', { server = 'nope' })",
    "return forward('chat', { pth = '/' })",
    "return forward('chat', { path = 'x' })",
    "return forward('chat', { host = 'a\\r\\nb' })",
    "return forward('chat', { response_timeout = 0 })",
    "return forward(nil)",
    "return redirect 'a\\r\\nb'",
    "return redirect {}",
    "return redirect { status = 304 }",
    "return redirect { statsu = 301 }",
    "return redirect { scheme = 'ftp' }",
    "return redirect { port = 70000 }",
    "return redirect(nil)",
    "error('plain')",
    "error({})",
    "error(nil)",
    "error(setmetatable({}, { __tostring = function() error('again') end }))",
    "error(setmetatable({}, { __tostring = function() return 5 end }))",
    "local x <close> = setmetatable({}, { __close = function() error('c') end })",
    "local function f() return f() + 1 end return f()",
    "return log.info('%d', 'x')",
    "ip.within(req.client, '10.0.0.0/33')",
    "ip.within('nonsense', '10.0.0.0/8')",
};

START_TEST(test_bad_returns) { rig_expect_error(PLAIN_HEAD, bad_returns[_i]); }
END_TEST

START_TEST(test_request_is_over) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "local kept, ws, iterate\n"
             "route \"keep\" { function(req) kept, ws, iterate = req, req.ws, req:all_headers() end }\n"
             "route \"field\" { function(req) return reply(200, kept.path) end }\n"
             "route \"method\" { function(req) kept:set_header('x', 'y') end }\n"
             "route \"ws\" { function(req) return reply(200, tostring(ws:offers('chat'))) end }\n"
             "route \"iterate\" { function(req) iterate() end }\n"
             "route \"vars\" { function(req) return reply(200, tostring(kept.vars.x)) end }\n");
    rig_request(&rig, WEBSOCKET_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    rig_request(&rig, WEBSOCKET_HEAD);
    for (unsigned route = 1; route <= 5; route++)
        ck_assert_msg(rig_step(&rig, route, &action) == SCRIPT_ERROR, "route %u", route);
    rig_close(&rig);
}
END_TEST

START_TEST(test_vars_and_log) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "route \"a\" { function(req) req.vars.n = (req.vars.n or 0) + 1 req:log('n', req.vars.n) req:log('who', "
             "'x') end }");
    rig_request(&rig, PLAIN_HEAD);
    for (int turn = 0; turn < 3; turn++)
        ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_uint_eq(rig.subject.log_count, 2);
    ck_assert_span(rig.subject.logs[0].key, "n");
    ck_assert_span(rig.subject.logs[0].value, "3");
    rig_request(&rig, PLAIN_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    ck_assert_span(rig.subject.logs[0].value, "1");
    rig_close(&rig);
}
END_TEST

START_TEST(test_when) {
    struct rig rig;
    bool match;
    rig_open(&rig, "",
             "route \"y\" { when = function(req) return req:header('x-other') end, drop() }\n"
             "route \"n\" { when = function(req) return req:header('x-none') end, drop() }\n"
             "route \"e\" { when = function(req) return nil, 'failed' end, drop() }\n"
             "route \"a\" { when = function(req) return reply(200) end, drop() }\n");
    rig_request(&rig, PLAIN_HEAD);
    static const struct {
        enum script_status status;
        bool match;
    } want[] = {
        {SCRIPT_OK, true},
        {SCRIPT_OK, false},
        {SCRIPT_ERROR, false},
        {SCRIPT_ERROR, false},
    };
    for (unsigned i = 0; i < 4; i++) {
        match = !want[i].match;
        ck_assert_int_eq(script_lua_ops.when(rig.script, rig.config->routes[i].when, &rig.subject, &match),
                         want[i].status);
        ck_assert_int_eq(match, want[i].match);
    }
    rig_close(&rig);
}
END_TEST

static enum script_status rig_respond(struct rig *rig, unsigned hook, struct http_message *head,
                                      const struct action **action) {
    struct script_response response = {.head = head, .server = "chat/127.0.0.1:9000", .tunnel = false};
    return script_lua_ops.response(rig->script, rig->config->on_response[hook], &rig->subject, &response, action);
}

START_TEST(test_response) {
    struct rig rig;
    const struct action *action;
    rig_open(&rig, "",
             "local old\nroute \"x\" { drop() }\n"
             "on_response(function(req, resp) old = resp assert(resp.status == 200 and resp.server == "
             "'chat/127.0.0.1:9000' and not resp.tunnel)"
             " resp:set_header('x-frame', req.host) resp:del_header('server') end)\n"
             "on_response(function(req, resp) if resp:header('x-frame') == 'example.com' then return reply(503, 'no') "
             "end end)\n"
             "on_response(function(req, resp) return forward('chat') end)\n"
             "on_response(function(req, resp) reply(200) end)\n"
             "on_response(function(req, resp) resp:set_header('content-length', '3') end)\n"
             "on_response(function(req, resp) return old.status end)\n");
    rig_request(&rig, PLAIN_HEAD);
    static const char head[] = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 0\r\n\r\n";
    struct http_message message;
    struct http1_error error;
    http_message_init(&message, &rig.subject.arena);
    ck_assert_int_eq(http1_read_response(head, sizeof head - 1, &fixture_limits, HTTP_GET, &message, &error), HTTP1_OK);
    ck_assert_int_eq(rig_respond(&rig, 0, &message, &action), SCRIPT_OK);
    ck_assert_int_eq(action->kind, ACTION_NONE);
    ck_assert_span(http_find_name(&message, SPAN("X-Frame"))->value, "example.com");
    ck_assert_ptr_null(http_find(&message, HTTP_FIELD_SERVER));
    ck_assert_int_eq(rig_respond(&rig, 1, &message, &action), SCRIPT_OK);
    ck_assert(action->kind == ACTION_REPLY && action->reply.status == 503);
    for (unsigned hook = 2; hook < 6; hook++)
        ck_assert_msg(rig_respond(&rig, hook, &message, &action) == SCRIPT_ERROR, "hook %u", hook);
    rig_close(&rig);
}
END_TEST

START_TEST(test_tunnel) {
    struct rig rig;
    rig_open(
        &rig, "",
        "route \"x\" { drop() }\non_close(function(t) assert(t.id == 'i' and t.route == 'r' and t.pool == 'p' and "
        "t.server == 's')"
        " assert(t.client == '192.0.2.1' and t.subprotocol == nil and t.cause == 'client_fin' and t.side == 'client')"
        " assert(t.age == 1.5 and t.bytes_in == 10 and t.bytes_out == 20) end)\n"
        "on_open(function(t) error('x') end)\n");
    struct script_tunnel tunnel = {.id = "i",
                                   .route = "r",
                                   .pool = "p",
                                   .server = "s",
                                   .client = "192.0.2.1",
                                   .subprotocol = "",
                                   .cause = "client_fin",
                                   .side = "client",
                                   .age_ms = 1500,
                                   .bytes_in = 10,
                                   .bytes_out = 20};
    uint64_t before = metric_sum(METRIC_script_errors);
    script_lua_ops.tunnel(rig.script, rig.config->on_close[0], &tunnel);
    ck_assert_uint_eq(metric_sum(METRIC_script_errors), before);
    script_lua_ops.tunnel(rig.script, rig.config->on_open[0], &tunnel);
    ck_assert_uint_eq(metric_sum(METRIC_script_errors), before + 1);
    rig_close(&rig);
}
END_TEST

static const char *const endless[] = {
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function f() pcall(f) return f() end f()",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "xpcall(function() error('x') end, function() while true do end end)",
    "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
    "error(setmetatable({}, { __tostring = function() while true do end end }))",
    "local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end",
    "string.gsub('x', 'x', function() while true do end end)",
    "table.sort({ 1, 2, 3 }, function() while true do end end)",
    "for _ in function() return 1 end do end",
    "(' '):rep(32000):find('.-%s.-x')",
    "while true do pcall(string.match, (' '):rep(32000), '%s*.-%s*.-x') end",
    "for _ in (' '):rep(32000):gmatch('.-%s.-x') do end",
    "(' '):rep(32000):gsub('[^x]*[ ]*[^x]*x', '')",
    "('('):rep(30000):gsub('()()()', ('%1'):rep(30000))",
    "for _ in ('('):rep(300000):gmatch('%b()') do end",
    "xpcall(string.find, function() while true do end end, (' '):rep(32000), '.-%s.-x')",
    "local t = setmetatable({ '', '' }, { __index = table.concat }) table.concat(t, '', 1, 1 << 22)",
    "local t, s = {}, ('x'):rep(100000) for i = 1, 5000 do t[i] = s end while true do table.sort(t) end",
};

static uint64_t test_cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ThreadSanitizer keeps signals back until the next call of libc, which an endless loop never makes. */
#ifdef __SANITIZE_THREAD__
#define SIGNALS_WAIT true
#else
#define SIGNALS_WAIT false
#endif

/* Even turns with the monitor thread, odd ones with the timer that stands in for it. */
START_TEST(test_endless) {
    struct rig rig;
    const struct action *action;
    char routes[1024];
    bool monitor = _i % 2 == 0;
    if (monitor)
        script_monitor_start();
    snprintf(routes, sizeof routes,
             "route \"t\" { function(req) %s end }\nroute \"fine\" { function(req) return reply(200, 'fine') end }",
             endless[_i / 2]);
    rig_open(&rig, "rule_cpu = '20ms'", routes);
    for (int turn = 0; turn < 3; turn++) {
        uint64_t before = metric_sum(METRIC_script_overruns), start = test_cpu_ms();
        rig_request(&rig, PLAIN_HEAD);
        ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_ERROR);
        ck_assert_uint_eq(metric_sum(METRIC_script_overruns), before + 1);
        uint64_t used = test_cpu_ms() - start;
        ck_assert_msg(used >= 15 && used < 500, "%llu ms", (unsigned long long)used);
        ck_assert_int_eq(rig_step(&rig, 1, &action), SCRIPT_OK); /* no hook is left behind */
        ck_assert_span(action->reply.body, "fine");
    }
    rig_close(&rig);
    if (monitor)
        script_monitor_stop();
}
END_TEST

/* A parked monitor wakes up for the next call. */
START_TEST(test_monitor_parks) {
    struct rig rig;
    const struct action *action;
    script_monitor_start();
    rig_open(&rig, "rule_cpu = '20ms'", "route \"t\" { function(req) while true do end end }");
    struct timespec pause = {.tv_nsec = 400 * 1000 * 1000};
    for (int turn = 0; turn < 2; turn++) {
        nanosleep(&pause, NULL);
        rig_request(&rig, PLAIN_HEAD);
        ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_ERROR);
    }
    rig_close(&rig);
    script_monitor_stop();
}
END_TEST

START_TEST(test_memory) {
    struct rig rig;
    const struct action *action;
    rig_open(
        &rig, "rule_cpu = '2s'",
        "local hoard = {}\n"
        "route \"bomb\" { function(req) local t = {} while true do t[#t + 1] = string.rep('x', 1000) .. #t end end }\n"
        "route \"big\" { function(req) return reply(200, string.rep('x', 100000000)) end }\n"
        "route \"hoard\" { function(req) while true do hoard[#hoard + 1] = string.rep('x', 1000) .. #hoard end end }\n"
        "route \"fine\" { function(req) return reply(200, 'fine ' .. #hoard) end }\n");
    rig_request(&rig, PLAIN_HEAD);
    for (int turn = 0; turn < 3; turn++) {
        ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_ERROR);
        ck_assert_int_eq(rig_step(&rig, 1, &action), SCRIPT_ERROR);
        ck_assert_int_eq(rig_step(&rig, 3, &action), SCRIPT_OK);
    }
    ck_assert_int_eq(rig_step(&rig, 2, &action), SCRIPT_ERROR);
    /* The hoard fills the state: the next request gets a fresh one, while the old request still has its own. */
    struct subject *old = &rig.subject, fresh;
    ck_assert_uint_eq(fixture_prepare(&rig.fixture, &fresh, PLAIN_HEAD), 0);
    ck_assert_int_eq(
        script_lua_ops.step(rig.script, rig.config->routes[3].steps[0].function, &fresh, &action, NULL, NULL),
        SCRIPT_OK);
    ck_assert_span(action->reply.body, "fine 0");
    (void)script_lua_ops.step(rig.script, rig.config->routes[3].steps[0].function, old, &action, NULL, NULL);
    script_lua_ops.release(rig.script, &fresh);
    subject_fini(&fresh);
    rig_close(&rig);
}
END_TEST

START_TEST(test_library) {
    rig_expect(PLAIN_HEAD,
               "return reply(200, tostring(ip.within(req.client, '192.0.2.0/24')) .. tostring(ip.within('10.1.2.3', "
               "{'::1', '10.0.0.0/8'}))"
               " .. tostring(ip.within('2001:db8::1', {'10.0.0.0/8'})) .. tostring(ip.within('unix:', '0.0.0.0/0')))",
               "truetruefalsefalse");
    rig_expect(PLAIN_HEAD, "return reply(200, ip.prefix('192.0.2.1') .. ' ' .. ip.prefix('2001:db8:1:2:3::4'))",
               "192.0.2.1/32 2001:db8:1:2::/64");
    rig_expect(PLAIN_HEAD,
               "log.info('100% literal') log.warn('%s is %d', 'x', 5) log.debug('no') return reply(200, 'ok')", "ok");
    rig_expect(
        PLAIN_HEAD,
        "local ok, e = pcall(reply, 99999) local ok2, e2 = xpcall(error, function(m) return 'seen ' .. m end, 'x', 0)"
        " return reply(200, tostring(ok) .. tostring(ok2) .. e2)",
        "falsefalseseen x");
    rig_expect(PLAIN_HEAD, "local ok, e = pcall(function() return req.hots end) return reply(200, e:match('%(.*%)'))",
               "(did you mean 'host'?)");
}
END_TEST

/* What is returned lives in the request's arena: later calls and collections do not touch it. */
START_TEST(test_texts_outlive_lua) {
    struct rig rig;
    const struct action *action, *other;
    rig_open(&rig, "rule_cpu = '2s'",
             "route \"a\" { function(req) return reply(200, ('ab'):rep(500), { x = ('cd'):rep(50) }) end }\n"
             "route \"b\" { function(req) local t = {} for i = 1, 20000 do t[i] = ('z'):rep(100) .. i end end }");
    rig_request(&rig, PLAIN_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    for (int turn = 0; turn < 5; turn++)
        ck_assert_int_eq(rig_step(&rig, 1, &other), SCRIPT_OK);
    ck_assert_uint_eq(action->reply.body.n, 1000);
    for (size_t i = 0; i < 1000; i += 2)
        ck_assert(memcmp(action->reply.body.p + i, "ab", 2) == 0);
    ck_assert_uint_eq(action->reply.headers[0].value.n, 100);
    rig_close(&rig);
}
END_TEST

/* close() may come before the last request is released. */
START_TEST(test_close_first) {
    struct rig rig;
    const struct action *action;
    rig_open_body(&rig, "req.vars.x = 1");
    rig_request(&rig, PLAIN_HEAD);
    ck_assert_int_eq(rig_step(&rig, 0, &action), SCRIPT_OK);
    script_lua_ops.close(rig.script);
    script_lua_ops.release(rig.script, &rig.subject);
    subject_fini(&rig.subject);
    script_load_free(&rig.load);
}
END_TEST

static void add_tests(TCase *tests) {
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_fields);
    tcase_add_test(tests, test_headers_read);
    tcase_add_test(tests, test_headers_edit);
    tcase_add_loop_test(tests, test_bad_edits, 0, (int)ARRAY_LEN(bad_edits));
    tcase_add_test(tests, test_target);
    tcase_add_test(tests, test_websocket);
    tcase_add_test(tests, test_websocket_edit_is_seen);
    tcase_add_test(tests, test_actions);
    tcase_add_test(tests, test_action_pools_and_key);
    tcase_add_test(tests, test_actions_made_at_load);
    tcase_add_loop_test(tests, test_bad_returns, 0, (int)ARRAY_LEN(bad_returns));
    tcase_add_test(tests, test_request_is_over);
    tcase_add_test(tests, test_vars_and_log);
    tcase_add_test(tests, test_when);
    tcase_add_test(tests, test_response);
    tcase_add_test(tests, test_tunnel);
    if (!SIGNALS_WAIT) {
        tcase_add_loop_test(tests, test_endless, 0, 2 * (int)ARRAY_LEN(endless));
        tcase_add_test(tests, test_monitor_parks);
    }
    tcase_add_test(tests, test_memory);
    tcase_add_test(tests, test_library);
    tcase_add_test(tests, test_texts_outlive_lua);
    tcase_add_test(tests, test_close_first);
}

int main(void) { return fixture_run("script", add_tests); }
