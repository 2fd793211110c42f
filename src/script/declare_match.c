/* SPDX-License-Identifier: MIT */
/*
 * declare_match: the match keys of a route, also used for except{}. Texts are kept in the one form that the matcher compares (hosts in lower
 * case without the final dot, paths normalised as requests are), and what could never match is a mistake here.
 */
#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"
#include "wire/uri.h"

typedef struct span declare_text_fn(struct option_reader *reader, struct span text);

/* A list of texts on its way into a match. false may stand in some: *none is set then. */
struct declare_texts {
    struct match_texts *texts;
    declare_text_fn *check; /* the form to keep, or .p NULL after a report; NULL: as it is */
    const char *expected;
    bool *none;             /* NULL: false is not allowed */
};

static struct span declare_copy_span(struct option_reader *reader, struct span text) {
    return span_make(option_copy(reader, text), text.n);
}

static void declare_read_text(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct declare_texts *list = owner;
    (void)i;
    if (list->none && lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index)) {
        *list->none = true;
        return;
    }
    struct span text = option_text(reader, index, list->expected);
    if (!text.p)
        return;
    struct span kept = list->check ? list->check(reader, text) : declare_copy_span(reader, text);
    if (kept.p)
        list->texts->list[list->texts->count++] = kept;
}

static void declare_read_texts(struct option_reader *reader, int index, struct declare_texts *list) {
    list->texts->list = option_alloc(reader, option_list_length(reader, index), sizeof(*list->texts->list));
    list->texts->count = 0;
    option_read_list(reader, index, declare_read_text, list);
}

static void declare_read_listeners(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = field, .expected = "a listener's name"});
}

static struct span declare_check_host(struct option_reader *reader, struct span text) {
    struct span name = text;
    if (name.n > 1 && name.p[name.n - 1] == '.')
        name.n--;
    bool bracket = name.p[0] == '[';
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool star = c == '*' && i == 0 && (name.n == 1 || name.p[1] == '.');
        if ((unsigned char)c <= 0x20 || (unsigned char)c >= 0x7f || strchr("/?#@,\\", c) || (c == '*' && !star)) {
            option_mistake(reader, "\"%.80s\" is no host like \"example.com\" or \"*.example.com\"", text.p);
            return SPAN_NULL;
        }
        if (c == ':' && !bracket) {
            option_mistake(reader, "\"%.80s\": a host without port, please (the listener says which port)", text.p);
            return SPAN_NULL;
        }
    }
    char *lower = option_copy(reader, name);
    for (size_t i = 0; i < name.n; i++)
        lower[i] = str_lower(lower[i]);
    return span_make(lower, name.n);
}

static void declare_read_hosts(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = field, .check = declare_check_host,
                                                              .expected = "a host like \"example.com\" or \"*.example.com\""});
}

/* The ":name" segments of a path: letters, digits and underscores, each once. */
static bool declare_check_params(struct span path) {
    for (size_t i = 0; i + 1 < path.n; i++) {
        if (path.p[i] != '/' || path.p[i + 1] != ':')
            continue;
        size_t start = i + 2, end = start;
        while (end < path.n && path.p[end] != '/') {
            char c = str_lower(path.p[end]);
            if (!((c >= 'a' && c <= 'z') || c == '_' || (end > start && c >= '0' && c <= '9')))
                return false;
            end++;
        }
        if (end == start)
            return false;
        for (size_t j = 0; j < i; j++) {
            size_t length = end - start;
            if (path.p[j] == '/' && path.p[j + 1] == ':' && j + 2 + length < path.n && path.p[j + 2 + length] == '/' &&
                memcmp(path.p + j + 2, path.p + start, length) == 0)
                return false;
        }
    }
    return true;
}

static struct span declare_check_path(struct option_reader *reader, struct span text) {
    const char *star = memchr(text.p, '*', text.n);
    if (text.p[0] != '/') {
        option_mistake(reader, "\"%.80s\": a path starts with \"/\"", text.p);
        return SPAN_NULL;
    }
    if (star && (star != text.p + text.n - 1 || star[-1] != '/')) {
        option_mistake(reader, "\"%.80s\": \"*\" stands only as the last segment: \"/a/*\"", text.p);
        return SPAN_NULL;
    }
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] <= 0x20 || (unsigned char)text.p[i] >= 0x7f || text.p[i] == '?' || text.p[i] == '#') {
            option_mistake(reader, "\"%.80s\": a path without query, spaces and letters outside ASCII (percent-encode them)", text.p);
            return SPAN_NULL;
        }
    if (!declare_check_params(text)) {
        option_mistake(reader, "\"%.80s\": \":name\" segments need a name of letters, digits and _, each name once", text.p);
        return SPAN_NULL;
    }
    const char *reason = "out of memory";
    struct span normal = uri_normalise_path(reader->arena, text, true, &reason);
    if (!normal.p) {
        option_mistake(reader, "\"%.80s\": %s", text.p, reason);
        return SPAN_NULL;
    }
    return declare_copy_span(reader, normal);
}

static void declare_read_paths(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    declare_read_texts(reader, index,
                       &(struct declare_texts){.texts = field, .check = declare_check_path, .expected = "a path like \"/a\" or \"/a/*\""});
}

static struct span declare_check_method(struct option_reader *reader, struct span text) {
    if (!str_is_token(text)) {
        option_mistake(reader, "\"%.80s\" is no method like \"GET\"", text.p);
        return SPAN_NULL;
    }
    char *upper = option_copy(reader, text);
    for (size_t i = 0; i < text.n; i++)
        upper[i] = upper[i] >= 'a' && upper[i] <= 'z' ? (char)(upper[i] - 'a' + 'A') : upper[i];
    return span_make(upper, text.n);
}

static void declare_read_methods(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    declare_read_texts(reader, index,
                       &(struct declare_texts){.texts = field, .check = declare_check_method, .expected = "a method like \"GET\""});
}

/* ws and wss are what browsers call them. */
static struct span declare_check_scheme(struct option_reader *reader, struct span text) {
    if (str_equal_nocase(text, SPAN("http")) || str_equal_nocase(text, SPAN("ws")))
        return SPAN("http");
    if (str_equal_nocase(text, SPAN("https")) || str_equal_nocase(text, SPAN("wss")))
        return SPAN("https");
    option_mistake(reader, "expected \"http\" or \"https\", got \"%.60s\"", text.p);
    return SPAN_NULL;
}

static void declare_read_schemes(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    declare_read_texts(reader, index,
                       &(struct declare_texts){.texts = field, .check = declare_check_scheme, .expected = "\"http\" or \"https\""});
}

static void declare_read_websocket(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    if (lua_isboolean(reader->L, index))
        *(enum match_tristate *)field = lua_toboolean(reader->L, index) ? MATCH_YES : MATCH_NO;
    else
        option_wrong(reader, index, "true or false");
}

static struct span declare_check_protocol(struct option_reader *reader, struct span text) {
    if (str_is_token(text))
        return declare_copy_span(reader, text);
    option_mistake(reader, "\"%.80s\" is no subprotocol's name", text.p);
    return SPAN_NULL;
}

static void declare_read_subprotocols(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = &match->subprotocols, .check = declare_check_protocol,
                                                              .expected = "a subprotocol, or false", .none = &match->no_subprotocol});
}

/* Without a scheme, or a star in its place, no origin of a browser would match. */
static struct span declare_check_origin(struct option_reader *reader, struct span text) {
    if (strstr(text.p, "://") || text.p[0] == '*' || text.p[text.n - 1] == '*' || span_equal(text, SPAN("null")))
        return declare_copy_span(reader, text);
    option_mistake(reader, "\"%.80s\" is no origin like \"https://example.com\"", text.p);
    return SPAN_NULL;
}

static void declare_read_origins(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = &match->origins, .check = declare_check_origin, .none = &match->no_origin,
                                                              .expected = "an origin like \"https://example.com\", or false"});
}

static void declare_read_snis(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = &match->snis, .check = declare_check_host, .none = &match->no_sni,
                                                              .expected = "a server name like \"example.com\", or false"});
}

static void declare_read_clients(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    struct config_cidrs cidrs = {0};
    if (lua_isboolean(reader->L, index)) {
        option_wrong(reader, index, "a block of addresses like \"10.0.0.0/8\"");
        return;
    }
    option_read_cidrs(reader, option, index, &cidrs);
    match->clients = cidrs.list;
    match->client_count = cidrs.count;
    if (cidrs.count == 0 && reader->mistakes == 0)
        option_mistake(reader, "an empty list");
}

/* One name of header{} query{} cookie{}. */
static void declare_read_named_value(struct option_reader *reader, int index, struct match_named *named) {
    if (lua_isboolean(reader->L, index)) {
        named->presence = lua_toboolean(reader->L, index) ? MATCH_PRESENT : MATCH_ABSENT;
        return;
    }
    named->presence = MATCH_VALUES;
    declare_read_texts(reader, index, &(struct declare_texts){.texts = &named->values, .expected = "a text, a list, true or false"});
}

static struct match_named *declare_read_named(struct option_reader *reader, int index, bool headers, unsigned *count) {
    lua_State *L = reader->L;
    if (!option_is_table(reader, index, "a table of names and values"))
        return NULL;
    script_push_sorted_keys(L, index);
    int keys = lua_gettop(L);
    size_t length = lua_rawlen(L, keys);
    struct match_named *list = option_alloc(reader, length, sizeof(*list));
    if (length == 0)
        option_mistake(reader, "an empty table");
    for (size_t i = 1; i <= length; i++, lua_settop(L, keys)) {
        lua_rawgeti(L, keys, (lua_Integer)i);
        struct span name = {NULL, 0};
        if (lua_type(L, -1) == LUA_TSTRING)
            name.p = lua_tolstring(L, -1, &name.n);
        if (!name.p || name.n == 0 || (headers && !str_is_token(name))) {
            option_mistake(reader, "expected names as keys: { [\"x-name\"] = \"value\" }");
            continue;
        }
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        size_t path = option_enter(reader, name.p);
        char *copy = option_copy(reader, name);
        for (size_t at = 0; headers && at < name.n; at++)
            copy[at] = str_lower(copy[at]);
        list[*count].name = span_make(copy, name.n);
        declare_read_named_value(reader, lua_gettop(L), &list[(*count)++]);
        option_leave(reader, path);
    }
    lua_settop(L, keys - 1);
    return list;
}

static void declare_read_match_headers(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    match->headers = declare_read_named(reader, index, true, &match->header_count);
}

static void declare_read_queries(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    match->queries = declare_read_named(reader, index, false, &match->query_count);
}

static void declare_read_cookies(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct match *match = field;
    (void)option;
    match->cookies = declare_read_named(reader, index, false, &match->cookie_count);
}

void declare_finish_match(struct option_reader *reader, struct match *match) {
    if (match->subprotocols.count == 0 && !match->no_subprotocol)
        return;
    if (match->websocket == MATCH_NO)
        option_mistake(reader, "websocket = false with subprotocol never matches");
    match->websocket = MATCH_YES;
}

#define FIELD(name) .offset = offsetof(struct match, name)
const struct option option_match[] = {
    {.key = "listener", .type = OPTION_READ, .read = declare_read_listeners, FIELD(listeners), .fallback = "any", .help = "listener's name"},
    {.key = "host", .type = OPTION_READ, .read = declare_read_hosts, FIELD(hosts), .fallback = "any", .help = "without port; *.x at any depth"},
    {.key = "path", .type = OPTION_READ, .read = declare_read_paths, FIELD(paths), .fallback = "any", .help = "exact, \"/a/*\", or \":name\" segments"},
    {.key = "method", .type = OPTION_READ, .read = declare_read_methods, FIELD(methods), .fallback = "any", .help = "GET matches HEAD too"},
    {.key = "scheme", .type = OPTION_READ, .read = declare_read_schemes, FIELD(schemes), .fallback = "any", .help = "http (ws) or https (wss)"},
    {.key = "websocket", .type = OPTION_READ, .read = declare_read_websocket, FIELD(websocket), .fallback = "any",
     .help = "true: a valid WebSocket handshake; false: anything else"},
    {.key = "subprotocol", .type = OPTION_READ, .read = declare_read_subprotocols, .fallback = "any",
     .help = "some offered one is in the list; false: none offered; implies websocket = true"},
    {.key = "header", .type = OPTION_READ, .read = declare_read_match_headers, .fallback = "any",
     .help = "name = a text, a list, true (present) or false (absent)"},
    {.key = "query", .type = OPTION_READ, .read = declare_read_queries, .fallback = "any", .help = "likewise"},
    {.key = "cookie", .type = OPTION_READ, .read = declare_read_cookies, .fallback = "any", .help = "likewise"},
    {.key = "client", .type = OPTION_READ, .read = declare_read_clients, .fallback = "any", .help = "blocks of addresses"},
    {.key = "origin", .type = OPTION_READ, .read = declare_read_origins, .fallback = "any", .help = "Origin; false: none sent"},
    {.key = "sni", .type = OPTION_READ, .read = declare_read_snis, .fallback = "any", .help = "server name in TLS; false: none sent"},
    {.key = NULL},
};
#undef FIELD
