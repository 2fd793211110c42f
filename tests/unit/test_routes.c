/* SPDX-License-Identifier: MIT */
/* test_routes: every match key, path and host patterns, and that the index says what trying every route says. */
#include <time.h>

#include "routing_fixture.h"
#include "traffic/routes.h"

#define TEXTS(...)                                                                                                     \
    ((struct match_texts){(struct span[]){__VA_ARGS__}, sizeof((struct span[]){__VA_ARGS__}) / sizeof(struct span)})

static struct fixture fx;
static struct subject subject;
static struct config config;
static const char *failed_key;

static void on_trace(void *owner, unsigned route, const char *key) {
    (void)owner;
    (void)route;
    failed_key = key;
}

/* One route with these keys: does it match, and what does the trace say? */
static const char *judge(const struct match *match, const struct match *except) {
    struct config_route route = {.name = NULL, .match = *match, .when = CONFIG_NO_FUNCTION};
    if (except) {
        route.except = *except;
        route.has_except = true;
    }
    config.listeners = &fx.listener;
    config.listener_count = 1;
    config.routes = &route;
    config.route_count = 1;
    struct routes *routes = routes_new(&config);
    unsigned traced = routes_next(routes, &subject, 0, on_trace, NULL);
    unsigned found = routes_next(routes, &subject, 0, NULL, NULL);
    ck_assert_uint_eq(traced, found);
    ck_assert((found == 0) == (failed_key == NULL));
    ck_assert_uint_eq(routes_next(routes, &subject, 1, NULL, NULL), ROUTES_END);
    routes_next(routes, &subject, 0, NULL, NULL); /* leaves params and rest of the match */
    routes_free(&routes);
    ck_assert_ptr_null(routes);
    return failed_key;
}

#define yes(...) ck_assert_ptr_null(judge(&(struct match){__VA_ARGS__}, NULL))
#define no(key, ...) ck_assert_pstr_eq(judge(&(struct match){__VA_ARGS__}, NULL), key)

static void request(const char *head) { ck_assert_uint_eq(fixture_prepare(&fx, &subject, head), 0); }

static bool path_matches(const char *pattern, const char *path) {
    struct span list[1] = {span_of(pattern)};
    subject.path = span_of(path);
    struct match match = {.paths = {list, 1}};
    return judge(&match, NULL) == NULL;
}

static const struct {
    const char *pattern, *path;
    bool match;
    const char *rest; /* NULL: none */
} path_cases[] = {
    {"/a", "/a", true, NULL},
    {"/a", "/a/", false, NULL},
    {"/a", "/ab", false, NULL},
    {"/a", "/A", false, NULL},
    {"/a/", "/a/", true, NULL},
    {"/a/", "/a", false, NULL},
    {"/", "/", true, NULL},
    {"/", "/a", false, NULL},
    {"/a/*", "/a", true, ""},
    {"/a/*", "/a/", true, ""},
    {"/a/*", "/a/b/c", true, "b/c"},
    {"/a/*", "/ab", false, NULL},
    {"/a/*", "/", false, NULL},
    {"/*", "/", true, ""},
    {"/*", "/x/y", true, "x/y"},
    {"/*", "*", false, NULL},
    {"*", "*", true, NULL},
    {"/a*", "/ab", false, NULL},
    {"/a*", "/a*", true, NULL},
    {"/a/*/b", "/a/x/b", false, NULL},
    {"/a/*/b", "/a/*/b", true, NULL},
    {"/chat/:room", "/chat/x", true, NULL},
    {"/chat/:room", "/chat/", false, NULL},
    {"/chat/:room", "/chat", false, NULL},
    {"/chat/:room", "/chat/x/y", false, NULL},
    {"/:a/x/:b/*", "/1/x/2", true, ""},
    {"/:a/x/:b/*", "/1/x/2/3/4", true, "3/4"},
    {"/:a/x/:b/*", "/1/y/2/3", false, NULL},
    {"/:a", "/", false, NULL},
    {"/:", "/:", true, NULL},
    {"/:", "/x", false, NULL},
    {"/caf\xc3\xa9", "/caf%C3%A9", true, NULL},
    {"/a b", "/a%20b", true, NULL},
    {"/%61", "/a", true, NULL},
};

START_TEST(paths)
{
    fixture_init(&fx);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (size_t i = 0; i < ARRAY_LEN(path_cases); i++) {
        ck_assert_msg(path_matches(path_cases[i].pattern, path_cases[i].path) == path_cases[i].match, "%s %s", path_cases[i].pattern,
                      path_cases[i].path);
        if (path_cases[i].rest)
            ck_assert_span(subject.rest, path_cases[i].rest);
        else
            ck_assert_ptr_null(subject.rest.p);
    }
    ck_assert(path_matches("/:a/x/:bee/*", "/1%2B/x/%41%20/3"));
    ck_assert_uint_eq(subject.param_count, 2);
    ck_assert_span(subject.params[0].name, "a");
    ck_assert_span(subject.params[0].value, "1+");
    ck_assert_span(subject.params[1].name, "bee");
    ck_assert_span(subject.params[1].value, "A ");
    ck_assert(path_matches("/*", "/"));
    ck_assert_uint_eq(subject.param_count, 0);
    subject_fini(&subject);
}
END_TEST

START_TEST(hosts)
{
    static const struct {
        const char *pattern, *host;
        bool match;
    } cases[] = {
        {"a.example", "a.example", true},
        {"a.example", "b.a.example", false},
        {"*.example", "a.example", true},
        {"*.example", "c.b.a.example", true},
        {"*.example", "example", false},
        {"*.example", "xexample", false},
        {"*.b.example", "a.example", false},
        {"*", "any.thing", true},
        {"[::1]", "[::1]", true},
        {"a", "", false},
        {"*", "", true},
    };
    fixture_init(&fx);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct span list[1] = {span_of(cases[i].pattern)};
        struct match match = {.hosts = {list, 1}};
        subject.host = span_of(cases[i].host);
        ck_assert_msg((judge(&match, NULL) == NULL) == cases[i].match, "%s %s", cases[i].pattern, cases[i].host);
    }
    subject_fini(&subject);
}
END_TEST

START_TEST(plain_keys)
{
    fixture_init(&fx);
    request("HEAD /p?q=a%20b&flag&r=2 HTTP/1.1\r\nHost: a\r\nX-V: one\r\nX-V: two\r\nCookie: c=blue\r\n\r\n");
    yes(.no_origin = true);
    yes(.listeners = TEXTS(SPAN("other"), SPAN("http")));
    no("listener", .listeners = TEXTS(SPAN("https")));
    yes(.methods = TEXTS(SPAN("POST"), SPAN("GET"))); /* GET matches HEAD */
    yes(.methods = TEXTS(SPAN("HEAD")));
    no("method", .methods = TEXTS(SPAN("POST")));
    yes(.schemes = TEXTS(SPAN("http")));
    yes(.schemes = TEXTS(SPAN("ws")));
    no("scheme", .schemes = TEXTS(SPAN("https"), SPAN("wss")));
    yes(.websocket = MATCH_NO);
    no("websocket", .websocket = MATCH_YES);
    no("subprotocol", .no_subprotocol = true); /* implies a WebSocket */
    yes(.no_sni = true);
    no("sni", .snis = TEXTS(SPAN("a")));
    no("origin", .origins = TEXTS(SPAN("*")));
    struct cidr cidr;
    ck_assert(cidr_parse(SPAN("192.0.2.0/28"), &cidr));
    yes(.clients = &cidr, .client_count = 1);
    ck_assert(cidr_parse(SPAN("192.0.2.128/28"), &cidr));
    no("client", .clients = &cidr, .client_count = 1);
    subject.head.method = HTTP_METHOD_OTHER;
    subject.head.method_name = SPAN("PURGE");
    yes(.methods = TEXTS(SPAN("PURGE")));
    no("method", .methods = TEXTS(SPAN("GET")));
    subject.sni = SPAN("b.a");
    yes(.snis = TEXTS(SPAN("*.a")));
    no("sni", .no_sni = true);
    subject_fini(&subject);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    no("method", .methods = TEXTS(SPAN("HEAD")));
    subject_fini(&subject);
}
END_TEST

#define NAMED(what, name_, presence_, ...)                                                                             \
    .what = &(struct match_named) { .name = SPAN(name_), .presence = presence_, .values = __VA_ARGS__ }
#define NONE ((struct match_texts){NULL, 0})

START_TEST(named_keys)
{
    fixture_init(&fx);
    request("GET /p?q=a%20b&flag&r=2 HTTP/1.1\r\nHost: a\r\nX-V: one\r\nX-V: two\r\nCookie: c=blue\r\nOrigin: "
            "https://x.example\r\n\r\n");
    yes(NAMED(headers, "x-v", MATCH_VALUES, TEXTS(SPAN("one, two"))), .header_count = 1);
    yes(NAMED(headers, "x-v", MATCH_VALUES, TEXTS(SPAN("no"), SPAN("*wo"))), .header_count = 1);
    yes(NAMED(headers, "x-v", MATCH_VALUES, TEXTS(SPAN("*e, t*"))), .header_count = 1);
    no("header", NAMED(headers, "x-v", MATCH_VALUES, TEXTS(SPAN("one"))), .header_count = 1);
    yes(NAMED(headers, "x-v", MATCH_PRESENT, NONE), .header_count = 1);
    no("header", NAMED(headers, "x-v", MATCH_ABSENT, NONE), .header_count = 1);
    yes(NAMED(headers, "x-w", MATCH_ABSENT, NONE), .header_count = 1);
    no("header", NAMED(headers, "x-w", MATCH_VALUES, TEXTS(SPAN("*"))), .header_count = 1);
    yes(NAMED(queries, "q", MATCH_VALUES, TEXTS(SPAN("a b"))), .query_count = 1);
    yes(NAMED(queries, "flag", MATCH_PRESENT, NONE), .query_count = 1);
    no("query", NAMED(queries, "r", MATCH_VALUES, TEXTS(SPAN("3"))), .query_count = 1);
    yes(NAMED(cookies, "c", MATCH_VALUES, TEXTS(SPAN("bl*"))), .cookie_count = 1);
    no("cookie", NAMED(cookies, "d", MATCH_PRESENT, NONE), .cookie_count = 1);
    yes(.origins = TEXTS(SPAN("https://*.example")));
    yes(.origins = TEXTS(SPAN("*.example")));
    no("origin", .origins = TEXTS(SPAN("https://x.exam")));
    no("origin", .no_origin = true);
    subject_fini(&subject);
    request("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil:1/x.example\r\n\r\n");
    no("origin", .origins = TEXTS(SPAN("https://*.example"), SPAN("https://*x.example/")));
    subject_fini(&subject);
    request("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://good\r\nOrigin: https://evil\r\n\r\n");
    no("origin", .origins = TEXTS(SPAN("https://good"))); /* a second line hides nothing */
    subject_fini(&subject);
}
END_TEST

START_TEST(websockets_and_except)
{
    fixture_init(&fx);
    request("GET /c HTTP/1.1\r\nHost: a\r\nOrigin: https://evil\r\n" FIXTURE_HANDSHAKE
            "Sec-WebSocket-Protocol: chat\r\n"
            "Sec-WebSocket-Protocol: v2\r\n\r\n");
    yes(.websocket = MATCH_YES);
    no("websocket", .websocket = MATCH_NO);
    yes(.subprotocols = TEXTS(SPAN("v1"), SPAN("v2")));
    no("subprotocol", .subprotocols = TEXTS(SPAN("Chat")));
    no("subprotocol", .no_subprotocol = true);
    struct match all = {.websocket = MATCH_YES};
    struct match foreign = {.no_origin = true, .origins = TEXTS(SPAN("https://good"), SPAN("https://*.good"))};
    ck_assert_ptr_null(judge(&all, &foreign));
    struct match path = {.paths = TEXTS(SPAN("/c/*"), SPAN("/:x")), .methods = TEXTS(SPAN("POST"))};
    ck_assert_pstr_eq(judge(&all, &path), "except"); /* one of its keys is enough */
    ck_assert_uint_eq(subject.param_count, 0);
    struct match empty = {.websocket = MATCH_ANY};
    ck_assert_ptr_null(judge(&all, &empty));
    subject_fini(&subject);
    request("GET /c HTTP/1.1\r\nHost: a\r\nOrigin: https://x.good\r\n" FIXTURE_HANDSHAKE "\r\n");
    ck_assert_pstr_eq(judge(&all, &foreign), "except");
    yes(.no_subprotocol = true);
    subject_fini(&subject);
    request("GET /c HTTP/1.1\r\nHost: a\r\n" FIXTURE_HANDSHAKE "\r\n");
    ck_assert_pstr_eq(judge(&all, &foreign), "except");
    subject_fini(&subject);
}
END_TEST

/* --- the index against trying every route --- */

static const char *const some_hosts[] = {"a",        "a.b", "x.a.b", "b", "*.b", "*.a.b", "*", "long.name.example",
                                         "*.example"};
static const char *const some_paths[] = {"/",   "/a",    "/a/b",    "/a/",      "/*",       "/a/*", "/a/b/*",
                                         "/:x", "/a/:x", "/a/:x/*", "/c/d/e/f", "/c/d/e/*", "*"};
static const char *const hosts_asked[] = {
    "a", "b", "a.b", "x.a.b", "y.x.a.b", "example", "long.name.example", "", "very.long.host.name.indeed.example"};
static const char *const paths_asked[] = {"/",      "/a",       "/a/",        "/a/b", "/a/b/", "/a/b/c",
                                          "/c/d/e", "/c/d/e/f", "/c/d/e/f/g", "/zz",  "*"};

static unsigned pick(unsigned *seed, unsigned n) {
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % n;
}

static struct match_texts pick_texts(unsigned *seed, const char *const *from, unsigned n, unsigned max) {
    unsigned count = pick(seed, max + 1);
    struct span *list = mem_alloc_array(max + 1, sizeof *list);
    for (unsigned i = 0; i < count; i++)
        list[i] = span_of(from[pick(seed, n)]);
    return (struct match_texts){list, count};
}

static void ignore(void *owner, unsigned route, const char *key) {
    (void)owner;
    (void)route;
    (void)key;
}

static void compare(const struct routes *routes) {
    for (size_t h = 0; h < ARRAY_LEN(hosts_asked); h++)
        for (size_t p = 0; p < ARRAY_LEN(paths_asked); p++) {
            unsigned at = 0;
            subject.host = span_of(hosts_asked[h]);
            subject.path = span_of(paths_asked[p]);
            do {
                unsigned linear = routes_next(routes, &subject, at, ignore, NULL);
                struct span rest = subject.rest;
                unsigned indexed = routes_next(routes, &subject, at, NULL, NULL);
                ck_assert_msg(linear == indexed, "%s%s from %u: %u, not %u", hosts_asked[h], paths_asked[p], at,
                              indexed, linear);
                ck_assert(rest.p == subject.rest.p && rest.n == subject.rest.n);
                at = linear + 1;
            } while (at != 0);
        }
}

START_TEST(index_agrees_with_trying_all)
{
    fixture_init(&fx);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for (unsigned round = 0; round < 40; round++) {
        unsigned seed = round * 7919 + 1, count = 1 + pick(&seed, 60);
        struct config_route *list = mem_alloc_array(count, sizeof *list);
        for (unsigned i = 0; i < count; i++) {
            bool many = pick(&seed, 10) == 0; /* more pairs than the index takes */
            list[i].match.hosts = pick_texts(&seed, some_hosts, ARRAY_LEN(some_hosts), many ? 40 : 2);
            list[i].match.paths = pick_texts(&seed, some_paths, ARRAY_LEN(some_paths), many ? 40 : 2);
        }
        config.routes = list;
        config.route_count = count;
        struct routes *routes = routes_new(&config);
        compare(routes);
        routes_free(&routes);
        for (unsigned i = 0; i < count; i++) {
            mem_free(list[i].match.hosts.list);
            mem_free(list[i].match.paths.list);
        }
        mem_free(list);
    }
    subject_fini(&subject);
}
END_TEST

START_TEST(more_lists_than_fit)
{
    enum { DEPTH = 30 };
    static char texts[2 * DEPTH][128];
    struct config_route list[2 * DEPTH];
    struct span spans[2 * DEPTH];
    fixture_init(&fx);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    memset(list, 0, sizeof list);
    for (unsigned i = 0; i < DEPTH; i++) {
        for (unsigned k = 0; k <= i; k++) {
            memcpy(texts[i] + 2 * k, "/x", 3);
            memcpy(texts[DEPTH + i] + 1 + 2 * k, ".x", 3);
        }
        memcpy(texts[i] + 2 * i + 2, "/*", 3);
        texts[DEPTH + i][0] = '*';
        spans[i] = span_of(texts[i]);
        spans[DEPTH + i] = span_of(texts[DEPTH + i]);
        list[i].match.paths = (struct match_texts){&spans[i], 1};
        list[DEPTH + i].match.hosts = (struct match_texts){&spans[DEPTH + i], 1};
    }
    config.routes = list;
    config.route_count = 2 * DEPTH;
    struct routes *routes = routes_new(&config);
    subject.path = SPAN("/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x");
    subject.host = SPAN("x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x");
    for (unsigned i = 0; i < 2 * DEPTH; i++)
        ck_assert_uint_eq(routes_next(routes, &subject, i, NULL, NULL), i);
    routes_free(&routes);
    subject_fini(&subject);
}
END_TEST

static void trace_nothing(void *owner, unsigned route, const char *key) { (void)owner, (void)route, (void)key; }

/* Of this thread, which others on the machine do not count for. */
static double cpu_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* The best of a few runs: microseconds that one look-up of the last route takes. */
static double look_up_us(const struct routes *routes, unsigned last, unsigned repeats, routes_trace_fn *trace) {
    double best = 1e9;
    for (unsigned run = 0; run < 7; run++) {
        double start = cpu_us();
        for (unsigned i = 0; i < repeats; i++)
            ck_assert(routes_next(routes, &subject, 0, trace, NULL) == last);
        double took = (cpu_us() - start) / repeats;
        best = took < best ? took : best;
    }
    return best;
}

struct routes_cost {
    double load_us, indexed_us, all_us; /* all_us: every route tried in turn, as a trace does */
};

static struct routes_cost cost_of(unsigned count) {
    struct config_route *list = mem_alloc_array(count, sizeof *list);
    struct span *spans = mem_alloc_array(2 * count, sizeof *spans);
    char path[64], host[64];
    for (unsigned i = 0; i < count; i++) {
        spans[2 * i] = span_of(mem_printf("h%u.example.com", i % 100));
        spans[2 * i + 1] = span_of(mem_printf("/api/v%u/*", i));
        list[i].match.hosts = (struct match_texts){&spans[2 * i], 1};
        list[i].match.paths = (struct match_texts){&spans[2 * i + 1], 1};
    }
    config.routes = list;
    config.route_count = count;
    struct routes_cost cost;
    double start = cpu_us();
    struct routes *routes = routes_new(&config);
    cost.load_us = cpu_us() - start;
    snprintf(host, sizeof host, "h%u.example.com", (count - 1) % 100);
    snprintf(path, sizeof path, "/api/v%u/items/4711", count - 1);
    subject.host = span_of(host);
    subject.path = span_of(path);
    cost.indexed_us = look_up_us(routes, count - 1, 2000, NULL);
    cost.all_us = look_up_us(routes, count - 1, 20, trace_nothing);
    routes_free(&routes);
    for (unsigned i = 0; i < 2 * count; i++)
        mem_free((char *)(uintptr_t)spans[i].p);
    mem_free(spans);
    mem_free(list);
    return cost;
}

/* Ratios of what is measured side by side: a busy machine or a sanitizer slows both. */
START_TEST(many_routes_cost_what_one_does)
{
    fixture_init(&fx);
    request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    struct routes_cost one = cost_of(1), many = cost_of(10000);
    if (getenv("ROUTES_VERBOSE"))
        printf("look-up: 1 route %.3f us, 10,000 %.3f us (all in turn: %.0f us); compiling 10,000: %.0f us\n", one.indexed_us,
               many.indexed_us, many.all_us, many.load_us);
    ck_assert_msg(many.indexed_us * 20 < many.all_us, "%.3f us against %.3f us", many.indexed_us, many.all_us);
    ck_assert_msg(many.indexed_us < one.indexed_us * 20, "%.3f us against %.3f us", many.indexed_us, one.indexed_us);
    ck_assert_msg(many.load_us < 1000 * many.all_us, "10,000 routes take %.0f us", many.load_us); /* trying each pair takes 10,000 times */
    subject_fini(&subject);
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, paths);
    tcase_add_test(tests, hosts);
    tcase_add_test(tests, plain_keys);
    tcase_add_test(tests, named_keys);
    tcase_add_test(tests, websockets_and_except);
    tcase_add_test(tests, index_agrees_with_trying_all);
    tcase_add_test(tests, more_lists_than_fit);
    tcase_add_test(tests, many_routes_cost_what_one_does);
}

int main(void) { return fixture_run("routes", add); }
