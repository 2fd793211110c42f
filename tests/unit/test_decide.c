/* SPDX-License-Identifier: MIT */
/*
 * test_decide: the order of routes and steps, verdicts, errors that fail closed, waits, and what targets and locations
 * become.
 */
#include "routing_fixture.h"
#include "traffic/decide.h"

static struct fixture fx;
static struct subject subject;
static struct config config;
static struct config_route list[8];
static struct config_step steps[8][4];
static struct routes *routes;

static const struct action act_reply = {.kind = ACTION_REPLY, .reply = {.status = 403}};
static const struct action act_drop = {.kind = ACTION_DROP};
static const struct action act_none = {.kind = ACTION_NONE};

/* The script: function n does script[n], and notes that it was called. */
enum does {
    DOES_NOTHING,
    DOES_NONE,
    DOES_REPLY,
    DOES_THROW,
    DOES_WAIT_ONCE,
    DOES_EDIT,
    DOES_EDIT_THROW,
    WHEN_YES,
    WHEN_NO,
    WHEN_THROW
};
static enum does script[8];
static unsigned calls[8];
static unsigned resumed;

static void edit(struct subject *s) {
    ck_assert(http_set(&s->head, SPAN("x-edit"), SPAN("yes")));
    s->path = SPAN("/edited");
    s->host = SPAN("edited");
    s->path_edited = s->host_edited = true;
}

static enum script_status do_step(void *state, unsigned function, struct subject *s, const struct action **action,
                                  void (*resume)(void *owner), void *owner) {
    ck_assert_ptr_eq(state, script);
    calls[function]++;
    switch (script[function]) {
    case DOES_NONE: *action = &act_none; break;
    case DOES_REPLY: *action = &act_reply; break;
    case DOES_EDIT: edit(s); break;
    case DOES_EDIT_THROW: edit(s); return SCRIPT_ERROR;
    case DOES_THROW: return SCRIPT_ERROR;
    case DOES_WAIT_ONCE:
        if (calls[function] == 1) {
            resume(owner);
            return SCRIPT_WAIT;
        }
        *action = &act_reply;
        break;
    default: break;
    }
    return SCRIPT_OK;
}

static enum script_status do_when(void *state, unsigned function, struct subject *s, bool *match) {
    ck_assert_ptr_eq(state, script);
    calls[function]++;
    edit(s);
    *match = script[function] == WHEN_YES;
    return script[function] == WHEN_THROW ? SCRIPT_ERROR : SCRIPT_OK;
}

static const struct script_ops ops = {.step = do_step, .when = do_when};

static void on_resume(void *owner) { (*(unsigned *)owner)++; }

static void setup(void) {
    fixture_init(&fx);
    memset(&config, 0, sizeof config);
    memset(list, 0, sizeof list);
    memset(steps, 0, sizeof steps);
    memset(calls, 0, sizeof calls);
    resumed = 0;
    config.listeners = &fx.listener;
    config.listener_count = 1;
    config.routes = list;
    for (unsigned i = 0; i < 8; i++) {
        list[i].when = list[i].on_response = CONFIG_NO_FUNCTION;
        list[i].steps = steps[i];
    }
    ck_assert_uint_eq(
        fixture_prepare(&fx, &subject, "GET /old/x/y?q=1 HTTP/1.1\r\nHost: a.example:8080\r\nX-A: 1\r\n\r\n"), 0);
}

/* Route i gets one more step: function f, or the action. */
static void add_function(unsigned route, unsigned function, enum does does) {
    script[function] = does;
    steps[route][list[route].step_count++] = (struct config_step){.kind = CONFIG_STEP_FUNCTION, .function = function};
}

static void add_action(unsigned route, struct action action) {
    steps[route][list[route].step_count++] = (struct config_step){.kind = CONFIG_STEP_ACTION, .action = action};
}

static struct decide start(unsigned count) {
    struct decide decide;
    config.route_count = count;
    routes = routes_new(&config);
    decide_init(&decide, &config, routes, &ops, script, &subject, on_resume, &resumed);
    return decide;
}

static void stop(void) {
    routes_free(&routes);
    subject_fini(&subject);
}

START_TEST(first_verdict_wins)
{
    setup();
    add_function(0, 0, DOES_NOTHING);
    add_function(0, 1, DOES_NONE);
    struct span other = SPAN("/nope");
    list[1].match.paths = (struct match_texts){&other, 1};
    add_action(1, act_drop);
    add_action(2, act_reply);
    add_action(3, act_drop);
    struct decide decide = start(4);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 2);
    ck_assert_int_eq(decide.action->kind, ACTION_REPLY);
    ck_assert_uint_eq(decide.ran_count, 2);
    ck_assert_uint_eq(decide.ran[0], 0);
    ck_assert_uint_eq(decide.ran[1], 2);
    ck_assert(calls[0] == 1 && calls[1] == 1);
    ck_assert(!decide.script_failed);
    stop();
}
END_TEST

START_TEST(no_route_is_404)
{
    setup();
    for (unsigned i = 0; i < 8; i++)
        add_function(i, i, DOES_NOTHING);
    struct decide decide = start(8);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, ROUTES_END);
    ck_assert_int_eq(decide.action->kind, ACTION_REPLY);
    ck_assert_uint_eq(decide.action->reply.status, 404);
    ck_assert_uint_eq(decide.ran_count, 8);
    stop();
}
END_TEST

START_TEST(edits_are_seen_by_later_routes)
{
    setup();
    struct span edited = SPAN("/edited"), host = SPAN("edited");
    struct match_named named = {.name = SPAN("x-edit"), .presence = MATCH_PRESENT};
    add_function(0, 0, DOES_EDIT);
    list[1].match.paths = (struct match_texts){&edited, 1};
    list[1].match.hosts = (struct match_texts){&host, 1};
    list[1].match.headers = &named;
    list[1].match.header_count = 1;
    add_action(1, act_reply);
    struct decide decide = start(2);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 1);
    stop();
}
END_TEST

START_TEST(errors_fail_closed)
{
    setup();
    struct action_header edits[] = {{SPAN("x-route"), SPAN("1")}, {SPAN("x-a"), SPAN_NULL}};
    list[0].request_headers = (struct config_headers){edits, 2};
    add_function(0, 0, DOES_EDIT_THROW);
    add_action(1, act_reply);
    struct decide decide = start(2);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 0);
    ck_assert_uint_eq(decide.action->reply.status, 500);
    ck_assert(decide.script_failed);
    ck_assert_uint_eq(decide.ran_count, 0);
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-edit")));
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-route")));
    ck_assert_ptr_nonnull(http_find_name(&subject.head, SPAN("x-a")));
    ck_assert_span(subject.path, "/old/x/y");
    ck_assert_span(subject.host, "a.example");
    ck_assert(!subject.path_edited && !subject.host_edited);
    stop();
}
END_TEST

START_TEST(on_error_next_goes_on)
{
    setup();
    list[0].on_error_next = true;
    add_function(0, 0, DOES_EDIT_THROW);
    list[1].on_error_next = true;
    add_function(1, 1, DOES_THROW);
    add_action(2, act_reply);
    struct decide decide = start(3);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 2);
    ck_assert_uint_eq(decide.action->reply.status, 403);
    ck_assert(!decide.script_failed);
    ck_assert_uint_eq(decide.ran_count, 1);
    ck_assert_span(subject.path, "/old/x/y"); /* undone either way */
    stop();
}
END_TEST

static const char *traced;
static unsigned traced_route;

static void on_trace(void *owner, unsigned route, const char *key) {
    ck_assert_ptr_eq(owner, &traced);
    if (route == 0) {
        traced = key;
        traced_route++;
    }
}

START_TEST(when_is_the_last_key)
{
    setup();
    list[0].when = 0;
    script[0] = WHEN_NO;
    add_action(0, act_drop);
    list[1].when = 1;
    script[1] = WHEN_YES;
    add_action(1, act_reply);
    struct decide decide = start(2);
    decide.trace = on_trace;
    decide.trace_owner = &traced;
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 1);
    ck_assert_pstr_eq(traced, "when");
    ck_assert_uint_eq(traced_route, 2);
    stop();
    setup();
    list[0].when = 0;
    script[0] = WHEN_THROW;
    add_action(0, act_reply);
    decide = start(1);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.action->reply.status, 500);
    ck_assert(decide.script_failed);
    ck_assert_span(subject.path, "/old/x/y");
    stop();
}
END_TEST

START_TEST(route_headers_apply_at_the_match)
{
    setup();
    struct action_header edits[] = {
        {SPAN("x-route"), SPAN("1")}, {SPAN("x-a"), SPAN_NULL}, {SPAN("content-length"), SPAN("7")}};
    list[0].request_headers = (struct config_headers){edits, 3};
    add_function(0, 0, DOES_NOTHING);
    add_action(0, act_reply);
    struct decide decide = start(1);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_span(http_find_name(&subject.head, SPAN("x-route"))->value, "1");
    ck_assert_ptr_null(http_find_name(&subject.head, SPAN("x-a")));
    ck_assert_ptr_null(http_find(&subject.head, HTTP_FIELD_CONTENT_LENGTH)); /* framing is never edited */
    stop();
}
END_TEST

START_TEST(a_wait_goes_on_at_its_step)
{
    setup();
    struct span path = SPAN("/old/:a/*");
    list[0].match.paths = (struct match_texts){&path, 1};
    add_function(0, 0, DOES_EDIT);
    add_function(0, 1, DOES_WAIT_ONCE);
    struct decide decide = start(1);
    ck_assert_int_eq(decide_run(&decide), DECIDE_WAIT);
    ck_assert_uint_eq(resumed, 1);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
    ck_assert_uint_eq(decide.route, 0);
    ck_assert_int_eq(decide.action->kind, ACTION_REPLY);
    ck_assert(calls[0] == 1 && calls[1] == 2);
    ck_assert_span(subject.params[0].value, "x"); /* still of the match, though the path was edited since */
    ck_assert_span(subject.rest, "y");
    stop();
}
END_TEST

static void route_to(const char *pattern) {
    static struct span path;
    path = span_of(pattern);
    list[0].match.paths = (struct match_texts){&path, 1};
    add_action(0, act_drop);
    struct decide decide = start(1);
    ck_assert_int_eq(decide_run(&decide), DECIDE_DONE);
}

static struct span target(const char *path) {
    struct action forward = {.kind = ACTION_FORWARD, .forward = {.path = span_of(path)}};
    return decide_target(&subject, &forward);
}

START_TEST(targets)
{
    setup();
    route_to("/old/*");
    ck_assert_ptr_eq(target(NULL).p, subject.raw_path.p); /* untouched: not even copied */
    ck_assert_span(target(NULL), "/old/x/y?q=1");
    ck_assert_span(target("/*"), "/x/y?q=1");
    ck_assert_span(target("/new/*"), "/new/x/y?q=1");
    ck_assert_span(target("/fixed"), "/fixed?q=1");
    ck_assert_span(target("//a/./b/../c%7e"), "/a/c~?q=1"); /* as a client's own path */
    ck_assert_ptr_null(target("/a/../../b").p);
    ck_assert_span(target("a b\xc3\xa9?#%"), "/a%20b%C3%A9%3F%23%25?q=1");
    subject.query = SPAN("z");
    subject.query_edited = true;
    ck_assert_span(target(NULL), "/old/x/y?z");
    subject.query = SPAN_NULL;
    ck_assert_span(target("/new/*"), "/new/x/y");
    subject.path = SPAN("/set");
    subject.path_edited = true;
    ck_assert_span(target(NULL), "/set");
    subject.rest = SPAN_NULL; /* a route without a wildcard */
    ck_assert_span(target("/v2/*"), "/v2/set");
    stop();
}
END_TEST

START_TEST(rest_keeps_the_slash_it_had)
{
    static const struct {
        const char *path, *to, *target;
    } cases[] = {
        {"/old", "/new/*", "/new"}, {"/old/", "/new/*", "/new/"}, {"/old/a", "/new/*", "/new/a"},   {"/old", "/*", "/"},
        {"/old/", "/*", "/"},       {"/old", "/new*", "/new"},    {"/old/a/", "/new/*", "/new/a/"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        setup();
        subject.path = span_of(cases[i].path);
        subject.query = SPAN_NULL;
        route_to("/old/*");
        ck_assert_span(target(cases[i].to), cases[i].target);
        stop();
    }
}
END_TEST

#define REDIRECT(...) (&(struct action){.kind = ACTION_REDIRECT, .redirect = {__VA_ARGS__}})

START_TEST(locations)
{
    setup();
    route_to("/old/*");
    ck_assert_span(decide_location(&subject, REDIRECT(.url = SPAN("https://else/x"))), "https://else/x");
    ck_assert_span(decide_location(&subject, REDIRECT(.status = 302)), "http://a.example:8080/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.scheme = SPAN("https"))), "https://a.example/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.scheme = SPAN("http"))), "http://a.example:8080/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.scheme = SPAN("https"), .port = 8443)),
                   "https://a.example:8443/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.scheme = SPAN("https"), .port = 443)),
                   "https://a.example/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.path = SPAN("/new/*"))), "http://a.example:8080/new/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.path = SPAN("/n"), .query = SPAN(""))),
                   "http://a.example:8080/n");
    ck_assert_span(decide_location(&subject, REDIRECT(.query = SPAN("a=b"))), "http://a.example:8080/old/x/y?a=b");
    ck_assert_span(decide_location(&subject, REDIRECT(.host = SPAN("b"))), "http://b/old/x/y?q=1"); /* 8080 was the other host's */
    ck_assert_span(decide_location(&subject, REDIRECT(.host = SPAN("b:9"))), "http://b:9/old/x/y?q=1");
    ck_assert_span(decide_location(&subject, REDIRECT(.host = SPAN("[::1]"), .scheme = SPAN("https"))),
                   "https://[::1]/old/x/y?q=1");
    subject.host = SPAN("");
    subject.host_port = 0;
    subject.query = SPAN_NULL;
    ck_assert_span(decide_location(&subject, REDIRECT(.scheme = SPAN("https"))), "/old/x/y");
    stop();
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, first_verdict_wins);
    tcase_add_test(tests, no_route_is_404);
    tcase_add_test(tests, edits_are_seen_by_later_routes);
    tcase_add_test(tests, errors_fail_closed);
    tcase_add_test(tests, on_error_next_goes_on);
    tcase_add_test(tests, when_is_the_last_key);
    tcase_add_test(tests, route_headers_apply_at_the_match);
    tcase_add_test(tests, a_wait_goes_on_at_its_step);
    tcase_add_test(tests, targets);
    tcase_add_test(tests, rest_keeps_the_slash_it_had);
    tcase_add_test(tests, locations);
}

int main(void) { return fixture_run("decide", add); }
