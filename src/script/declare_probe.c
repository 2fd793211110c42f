/* SPDX-License-Identifier: MIT */
/*
 * declare_probe: a health check, as the key of a pool or as the word probe{}, which checks a table that several pools share. A table that
 * the word has seen is remembered, so that its mistakes are said once, where it stands.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

static const char declare_probe_key; /* in the registry: tables that probe{} has checked */

static void declare_read_probe_path(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct span text = option_text(reader, index, "a path like \"/healthz\"");
    (void)option;
    if (!text.p)
        return;
    bool plain = text.p[0] == '/';
    for (size_t i = 0; i < text.n; i++)
        plain = plain && (unsigned char)text.p[i] > 0x20 && (unsigned char)text.p[i] < 0x7f && text.p[i] != '#';
    if (plain)
        *(char **)field = option_copy(reader, text);
    else
        option_wrong(reader, index, "a path like \"/healthz\"");
}

static void declare_read_method(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct span text = option_text(reader, index, "a method like \"GET\"");
    (void)option;
    if (text.p && !str_is_token(text))
        option_wrong(reader, index, "a method like \"GET\"");
    else if (text.p)
        *(char **)field = option_copy(reader, text);
}

static void declare_read_subprotocol(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct span text = option_text(reader, index, "a subprotocol like \"chat\"");
    (void)option;
    if (text.p && !str_is_token(text))
        option_wrong(reader, index, "a subprotocol like \"chat\"");
    else if (text.p)
        *(char **)field = option_copy(reader, text);
}

static void declare_read_probe_headers(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_headers *headers = field;
    option_read_headers(reader, option, index, headers);
    for (unsigned i = 0; i < headers->count; i++)
        if (!headers->list[i].value.p && reader->mistakes == 0)
            option_mistake(reader, "a probe has no header to remove: %s = false", headers->list[i].name.p);
}

/* "200", "200-399" or 200. */
static bool declare_parse_range(struct span text, struct config_status_range *range) {
    uint64_t low, high;
    const char *dash = memchr(text.p, '-', text.n);
    struct span first = dash ? span_make(text.p, (size_t)(dash - text.p)) : text;
    struct span second = dash ? span_make(dash + 1, text.n - first.n - 1) : text;
    if (!str_parse_u63(str_trim(first), &low) || !str_parse_u63(str_trim(second), &high) || low < 100 || high > 999 || low > high)
        return false;
    *range = (struct config_status_range){(uint16_t)low, (uint16_t)high};
    return true;
}

static void declare_read_range(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct config_probe *probe = owner;
    lua_State *L = reader->L;
    struct config_status_range range = {0, 0};
    (void)i;
    if (lua_isinteger(L, index) && lua_tointeger(L, index) >= 100 && lua_tointeger(L, index) <= 999)
        range.low = range.high = (uint16_t)lua_tointeger(L, index);
    else if (lua_type(L, index) != LUA_TSTRING || !declare_parse_range(span_of(lua_tostring(L, index)), &range)) {
        option_wrong(reader, index, "a status like 200 or a range like \"200-399\"");
        return;
    }
    if (probe->expect_count < CONFIG_EXPECT_MAX)
        probe->expect[probe->expect_count++] = range;
    else
        option_mistake(reader, "more than %d ranges", CONFIG_EXPECT_MAX);
}

static void declare_read_expect(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_probe *probe = field;
    (void)option;
    struct config_status_range before = probe->expect[0];
    probe->expect_count = 0;
    option_read_list(reader, index, declare_read_range, probe);
    if (probe->expect_count == 0) { /* a mistake, said */
        probe->expect[0] = before;
        probe->expect_count = 1;
    }
}

static void declare_read_probe_tls(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    if (lua_isboolean(reader->L, index))
        *(int *)field = lua_toboolean(reader->L, index);
    else
        option_wrong(reader, index, "true or false");
}

#define FIELD(name) .offset = offsetof(struct config_probe, name)
const struct option option_probe[] = {
    {.key = "path", .type = OPTION_READ, .read = declare_read_probe_path, FIELD(path), .fallback = "\"/\"", .help = "what to ask for"},
    {.key = "host", .type = OPTION_READ, .read = option_read_host, FIELD(host), .fallback = "the server's", .help = "Host to send"},
    {.key = "port", .type = OPTION_COUNT16, FIELD(port), .min = 1, .max = 65535, .fallback = "the server's", .help = "port to ask"},
    {.key = "method", .type = OPTION_READ, .read = declare_read_method, FIELD(method), .fallback = "\"GET\"", .help = "request method"},
    {.key = "headers", .type = OPTION_READ, .read = declare_read_probe_headers, FIELD(headers), .fallback = "none", .help = "headers to send"},
    {.key = "expect", .type = OPTION_READ, .read = declare_read_expect, .fallback = "\"200-399\"",
     .help = "statuses that are healthy: 200, \"200-399\", or a list"},
    {.key = "body", .type = OPTION_TEXT, FIELD(body), .fallback = "any", .help = "text that the answer's first 64 KiB must hold"},
    {.key = "every", .type = OPTION_DURATION, FIELD(every_ms), .min = 10, .fallback = "\"5s\"", .help = "pace"},
    {.key = "fast", .type = OPTION_DURATION, FIELD(fast_ms), .min = 10, .fallback = "\"500ms\"", .help = "pace while a change is in the air"},
    {.key = "timeout", .type = OPTION_DURATION, FIELD(timeout_ms), .min = 1, .fallback = "\"2s\"", .help = "for one whole probe"},
    {.key = "rise", .type = OPTION_COUNT, FIELD(rise), .min = 1, .max = 100, .fallback = "2", .help = "good answers in a row until up"},
    {.key = "fall", .type = OPTION_COUNT, FIELD(fall), .min = 1, .max = 100, .fallback = "3", .help = "failures in a row until down"},
    {.key = "tls", .type = OPTION_READ, .read = declare_read_probe_tls, FIELD(tls), .fallback = "as the pool", .help = "probe over TLS"},
    {.key = "websocket", .type = OPTION_BOOL, FIELD(websocket), .fallback = "false",
     .help = "make a WebSocket handshake, then close it with code 1000"},
    {.key = "subprotocol", .type = OPTION_READ, .read = declare_read_subprotocol, FIELD(subprotocol), .fallback = "none",
     .help = "what a WebSocket probe offers, and the server must choose"},
    {.key = "ping", .type = OPTION_BOOL, FIELD(ping), .fallback = "false", .help = "a WebSocket probe sends a ping and waits for its pong"},
    {.key = NULL},
};
#undef FIELD

/* Whether probe{} has checked the table at index. */
static bool declare_probe_checked(lua_State *L, int index) {
    bool checked = false;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &declare_probe_key) == LUA_TTABLE) {
        lua_pushvalue(L, index);
        checked = lua_rawget(L, -2) != LUA_TNIL;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return checked;
}

/* Keys that say nothing about this kind of probe. */
static void declare_check_probe_keys(struct option_reader *reader, int index, bool websocket) {
    static const char *const http_only[] = {"method", "expect", "body", NULL}, *const websocket_only[] = {"subprotocol", "ping", NULL};
    for (const char *const *key = websocket ? http_only : websocket_only; *key; key++) {
        lua_pushstring(reader->L, *key);
        if (lua_rawget(reader->L, index) != LUA_TNIL) {
            size_t length = option_enter(reader, *key);
            option_mistake(reader, websocket ? "a WebSocket probe has none: it expects 101" : "only with websocket = true");
            option_leave(reader, length);
        }
        lua_pop(reader->L, 1);
    }
}

static void declare_read_probe_table(struct option_reader *reader, int index, struct config_probe *probe) {
    option_read_table(reader, index, option_probe, probe, NULL, NULL, 0);
    declare_check_probe_keys(reader, index, probe->websocket);
    if (!probe->websocket)
        return;
    probe->kind = CONFIG_PROBE_WEBSOCKET;
    for (unsigned i = 0; i < probe->headers.count; i++)
        if (str_starts(probe->headers.list[i].name, SPAN("sec-websocket-")))
            option_mistake(reader, "a WebSocket probe sets %s itself", probe->headers.list[i].name.p);
}

void declare_read_probe(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_probe *probe = field;
    lua_State *L = reader->L;
    (void)option;
    if (lua_isboolean(L, index) && !lua_toboolean(L, index))
        probe->kind = CONFIG_PROBE_NONE;
    else if (lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), "tcp") == 0)
        probe->kind = CONFIG_PROBE_TCP;
    else if (lua_type(L, index) == LUA_TTABLE) {
        config_probe_written(probe);
        reader->muted = declare_probe_checked(L, index);
        declare_read_probe_table(reader, index, probe);
        reader->muted = false;
        return;
    } else {
        option_wrong(reader, index, "a table, \"tcp\" or false");
        return;
    }
    probe->written = true;
}

void declare_probe(lua_State *L, int index, const char *name, struct config_place place) {
    struct option_reader reader;
    struct config_probe probe;
    char subject[96];
    snprintf(subject, sizeof(subject), name ? "probe \"%s\"" : "probe", name ? name : "");
    declare_start_reader(&reader, L, subject, place);
    config_probe_defaults(&probe);
    config_probe_written(&probe);
    declare_read_probe_table(&reader, index, &probe);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &declare_probe_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &declare_probe_key);
    }
    lua_pushvalue(L, index);
    lua_pushboolean(L, true);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}
