/* SPDX-License-Identifier: MIT */
/*
 * matcher: evaluates match keys. One table names the keys in the order they are tried, cheap ones first; a route keeps
 * the numbers of those it declares, so that an absent key costs nothing. The same table serves match (all must hold),
 * except (none may hold) and the trace of `moongate route` (which one did not).
 *
 * The subtle thing: a field that is repeated is judged as its lines joined. Looking at the first line only would
 * let a second Origin pass a rule that the server then believes.
 */
#include "traffic/matcher.h"

#include "base/mem.h"
#include "base/str.h"
#include "wire/uri.h"

typedef bool matcher_test_fn(const struct matcher *matcher, struct subject *subject);
typedef bool matcher_declared_fn(const struct match *match);

struct matcher_key {
    const char *name;
    matcher_declared_fn *declared;
    matcher_test_fn *test;
};

static bool matcher_has_listener(const struct match *m) { return m->listeners.count > 0; }
static bool matcher_has_scheme(const struct match *m) { return m->schemes.count > 0; }
static bool matcher_has_websocket(const struct match *m) { return m->websocket != MATCH_ANY; }
static bool matcher_has_method(const struct match *m) { return m->methods.count > 0; }
static bool matcher_has_host(const struct match *m) { return m->hosts.count > 0; }
static bool matcher_has_path(const struct match *m) { return m->paths.count > 0; }
static bool matcher_has_subprotocol(const struct match *m) { return m->subprotocols.count > 0 || m->no_subprotocol; }
static bool matcher_has_client(const struct match *m) { return m->client_count > 0; }
static bool matcher_has_sni(const struct match *m) { return m->snis.count > 0 || m->no_sni; }
static bool matcher_has_origin(const struct match *m) { return m->origins.count > 0 || m->no_origin; }
static bool matcher_has_header(const struct match *m) { return m->header_count > 0; }
static bool matcher_has_cookie(const struct match *m) { return m->cookie_count > 0; }
static bool matcher_has_query(const struct match *m) { return m->query_count > 0; }

static bool matcher_test_listener(const struct matcher *matcher, struct subject *subject) {
    for (unsigned i = 0; i < matcher->listener_count; i++)
        if (matcher->listeners[i] == subject->listener)
            return true;
    return false;
}

static bool matcher_test_scheme(const struct matcher *matcher, struct subject *subject) {
    const struct match_texts *schemes = &matcher->match->schemes;
    for (unsigned i = 0; i < schemes->count; i++) {
        struct span scheme = schemes->list[i];
        if (span_equal(scheme, SPAN("ws")))
            scheme = SPAN("http");
        else if (span_equal(scheme, SPAN("wss")))
            scheme = SPAN("https");
        if (span_equal(scheme, span_of(subject->scheme)))
            return true;
    }
    return false;
}

static bool matcher_test_websocket(const struct matcher *matcher, struct subject *subject) {
    return subject->websocket == (matcher->match->websocket == MATCH_YES);
}

static bool matcher_test_method(const struct matcher *matcher, struct subject *subject) {
    if (subject->head.method != HTTP_METHOD_OTHER)
        return (matcher->methods >> subject->head.method) & 1;
    const struct match_texts *methods = &matcher->match->methods;
    for (unsigned i = 0; i < methods->count; i++)
        if (span_equal(methods->list[i], subject->head.method_name))
            return true;
    return false;
}

static bool matcher_test_host(const struct matcher *matcher, struct subject *subject) {
    const struct match_texts *hosts = &matcher->match->hosts;
    for (unsigned i = 0; i < hosts->count; i++)
        if (pattern_match_host(hosts->list[i], subject->host))
            return true;
    return false;
}

static const struct pattern *matcher_find_path(const struct matcher *matcher, const struct subject *subject) {
    for (unsigned i = 0; i < matcher->match->paths.count; i++)
        if (pattern_match_path(&matcher->paths[i], subject->path, NULL, NULL, NULL))
            return &matcher->paths[i];
    return NULL;
}

static bool matcher_test_path(const struct matcher *matcher, struct subject *subject) {
    return matcher_find_path(matcher, subject) != NULL;
}

static bool matcher_test_subprotocol(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    if (!subject->websocket)
        return false;
    if (subject->offer.protocol_count == 0)
        return match->no_subprotocol;
    for (unsigned i = 0; i < subject->offer.protocol_count; i++)
        for (unsigned j = 0; j < match->subprotocols.count; j++)
            if (span_equal(subject->offer.protocols[i], match->subprotocols.list[j]))
                return true;
    return false;
}

static bool matcher_test_client(const struct matcher *matcher, struct subject *subject) {
    return cidr_match_any(matcher->match->clients, matcher->match->client_count, &subject->client);
}

static bool matcher_test_sni(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    if (subject->sni.n == 0)
        return match->no_sni;
    for (unsigned i = 0; i < match->snis.count; i++)
        if (pattern_match_host(match->snis.list[i], subject->sni))
            return true;
    return false;
}

static bool matcher_test_globs(const struct match_texts *globs, struct span text) {
    for (unsigned i = 0; i < globs->count; i++)
        if (str_glob(globs->list[i], text))
            return true;
    return false;
}

/*
 * Besides globs: a star inside, as in a scheme before "*.example", stands for host labels alone: no path or port slips
 * in.
 */
static bool matcher_test_origin_glob(struct span glob, struct span origin) {
    const char *star = glob.n > 2 ? memchr(glob.p + 1, '*', glob.n - 2) : NULL;
    if (!star)
        return str_glob(glob, origin);
    size_t head = (size_t)(star - glob.p), tail = glob.n - head - 1;
    if (origin.n <= head + tail || !str_starts(origin, span_make(glob.p, head)) ||
        !str_ends(origin, span_make(star + 1, tail)))
        return false;
    for (size_t i = head; i < origin.n - tail; i++) {
        char c = str_lower(origin.p[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.')
            return false;
    }
    return true;
}

static bool matcher_test_origin(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    if (!http_find(&subject->head, HTTP_FIELD_ORIGIN))
        return match->no_origin;
    struct span origin = http_join(&subject->head, SPAN("origin"));
    for (unsigned i = 0; origin.p && i < match->origins.count; i++)
        if (matcher_test_origin_glob(match->origins.list[i], origin))
            return true;
    return false;
}

static bool matcher_test_named(const struct match_named *named, struct span value) {
    if (named->presence != MATCH_VALUES)
        return (value.p != NULL) == (named->presence == MATCH_PRESENT);
    return value.p && matcher_test_globs(&named->values, value);
}

static bool matcher_test_header(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    for (unsigned i = 0; i < match->header_count; i++)
        if (!matcher_test_named(&match->headers[i], http_join(&subject->head, match->headers[i].name)))
            return false;
    return true;
}

static bool matcher_test_cookie(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    for (unsigned i = 0; i < match->cookie_count; i++)
        if (!matcher_test_named(&match->cookies[i], subject_cookie(subject, match->cookies[i].name)))
            return false;
    return true;
}

static bool matcher_test_query(const struct matcher *matcher, struct subject *subject) {
    const struct match *match = matcher->match;
    for (unsigned i = 0; i < match->query_count; i++)
        if (!matcher_test_named(&match->queries[i],
                                uri_query_get(&subject->arena, subject->query, match->queries[i].name)))
            return false;
    return true;
}

static const struct matcher_key matcher_keys[] = {
    {"listener", matcher_has_listener, matcher_test_listener},
    {"websocket", matcher_has_websocket, matcher_test_websocket},
    {"method", matcher_has_method, matcher_test_method},
    {"scheme", matcher_has_scheme, matcher_test_scheme},
    {"host", matcher_has_host, matcher_test_host},
    {"path", matcher_has_path, matcher_test_path},
    {"subprotocol", matcher_has_subprotocol, matcher_test_subprotocol},
    {"client", matcher_has_client, matcher_test_client},
    {"sni", matcher_has_sni, matcher_test_sni},
    {"origin", matcher_has_origin, matcher_test_origin},
    {"header", matcher_has_header, matcher_test_header},
    {"cookie", matcher_has_cookie, matcher_test_cookie},
    {"query", matcher_has_query, matcher_test_query},
};
_Static_assert(ARRAY_LEN(matcher_keys) <= MATCHER_KEYS_MAX, "every key has a place");

static void matcher_init_listeners(struct matcher *matcher, const struct config *config) {
    const struct match_texts *names = &matcher->match->listeners;
    if (names->count == 0)
        return;
    matcher->listeners = mem_alloc_array(names->count, sizeof(struct config_listener *));
    for (unsigned i = 0; i < names->count; i++)
        for (unsigned j = 0; j < config->listener_count; j++)
            if (span_equal(names->list[i], span_of(config->listeners[j].name)))
                matcher->listeners[matcher->listener_count++] = &config->listeners[j];
}

static void matcher_init_paths(struct matcher *matcher, struct arena *arena) {
    const struct match_texts *paths = &matcher->match->paths;
    if (paths->count == 0)
        return;
    matcher->paths = mem_alloc_array(paths->count, sizeof *matcher->paths);
    for (unsigned i = 0; i < paths->count; i++) {
        pattern_compile(&matcher->paths[i], arena, paths->list[i]);
        matcher->captures = matcher->captures || matcher->paths[i].kind != PATTERN_EXACT;
    }
}

void matcher_init(struct matcher *matcher, const struct match *match, const struct config *config,
                  struct arena *arena) {
    *matcher = (struct matcher){.match = match};
    for (unsigned i = 0; i < ARRAY_LEN(matcher_keys); i++)
        if (matcher_keys[i].declared(match))
            matcher->keys[matcher->key_count++] = (uint8_t)i;
    for (unsigned i = 0; i < match->methods.count; i++) {
        enum http_method method = http_method_of(match->methods.list[i]);
        if (method != HTTP_METHOD_OTHER)
            matcher->methods |= 1u << method;
    }
    if (matcher->methods & (1u << HTTP_GET))
        matcher->methods |= 1u << HTTP_HEAD;
    matcher_init_listeners(matcher, config);
    matcher_init_paths(matcher, arena);
}

void matcher_fini(struct matcher *matcher) {
    mem_free(matcher->listeners);
    mem_free(matcher->paths);
    *matcher = (struct matcher){0};
}

const char *matcher_test_all(const struct matcher *matcher, struct subject *subject) {
    for (unsigned i = 0; i < matcher->key_count; i++) {
        const struct matcher_key *key = &matcher_keys[matcher->keys[i]];
        if (!key->test(matcher, subject))
            return key->name;
    }
    return NULL;
}

bool matcher_test_any(const struct matcher *matcher, struct subject *subject) {
    for (unsigned i = 0; i < matcher->key_count; i++)
        if (matcher_keys[matcher->keys[i]].test(matcher, subject))
            return true;
    return false;
}

static void matcher_add_param(void *owner, struct span name, struct span segment) {
    struct subject *subject = owner;
    struct span value = uri_decode(&subject->arena, segment, false);
    subject->params[subject->param_count++] = (struct subject_param){name, value.p ? value : segment};
}

void matcher_capture(const struct matcher *matcher, struct subject *subject) {
    subject->params = NULL;
    subject->param_count = 0;
    subject->rest = SPAN_NULL;
    if (!matcher->captures)
        return;
    const struct pattern *pattern = matcher_find_path(matcher, subject);
    if (!pattern)
        return;
    if (pattern->params > 0)
        subject->params = arena_alloc(&subject->arena, pattern->params * sizeof *subject->params);
    pattern_match_path(pattern, subject->path, &subject->rest, subject->params ? matcher_add_param : NULL, subject);
}
