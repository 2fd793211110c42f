/* SPDX-License-Identifier: MIT */
/*
 * The parts of `moongate dump`: texts, headers, actions, match keys, pools and probes as JSON values.
 *
 * Values of fields that carry credentials are replaced, in what is set and in what is matched.
 *
 * The subtle thing: JSON is Unicode, a configuration is bytes. A text that is not UTF-8 is shown byte for byte as
 * U+0080..U+00FF, rather than lost.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/dump.h"

json_t *dump_span(struct span text) {
    if (!text.p)
        return json_null();
    json_t *json = json_stringn(text.p, text.n);
    if (json)
        return json;
    char *wide = mem_alloc(2 * text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x80)
            wide[n++] = (char)(0xc0 | (c >> 6));
        wide[n++] = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    }
    json = json_stringn(wide, n);
    mem_free(wide);
    return json ? json : json_null();
}

json_t *dump_text(const char *text) { return dump_span(span_of(text)); }

json_t *dump_limit(uint64_t value) { return value ? json_integer((json_int_t)value) : json_null(); }

json_t *dump_body_limit(uint64_t value) { return value == UINT64_MAX ? json_null() : json_integer((json_int_t)value); }

/* Sets o[name], where name is bytes of the configuration. */
static void dump_set(json_t *o, struct span name, json_t *value) {
    json_t *key = dump_span(name);
    json_object_set_new(o, json_string_value(key) ? json_string_value(key) : "?", value);
    json_decref(key);
}

static bool dump_is_secret(struct span name) {
    static const char *const secrets[] = {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"};
    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        if (str_equal_nocase(name, span_of(secrets[i])))
            return true;
    return false;
}

json_t *dump_cidrs(const struct cidr *list, unsigned count) {
    json_t *array = json_array();
    for (unsigned i = 0; i < count; i++) {
        struct addr_small ip = {.family = AF_INET6};
        char text[ADDR_TEXT_MAX];
        static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
        bool v4 = list[i].bits >= 96 && memcmp(list[i].ip, mapped, sizeof mapped) == 0;
        memcpy(ip.ip, list[i].ip, sizeof ip.ip);
        ip.family = v4 ? AF_INET : AF_INET6;
        json_array_append_new(
            array, json_sprintf("%s/%d", addr_small_format_ip(&ip, text), v4 ? list[i].bits - 96 : list[i].bits));
    }
    return array;
}

json_t *dump_headers(const struct action_header *list, unsigned count) {
    json_t *o = json_object();
    for (unsigned i = 0; i < count; i++) {
        bool hide = list[i].value.p && dump_is_secret(list[i].name);
        json_t *value = !list[i].value.p ? json_false() : hide ? json_string("(redacted)") : dump_span(list[i].value);
        dump_set(o, list[i].name, value);
    }
    return o;
}

/* The pools that are used when none before them has a live server. */
static json_t *dump_others(const struct config *config, const struct action *action) {
    json_t *array = json_array();
    for (unsigned i = 0; i < action->forward.other_count; i++)
        json_array_append_new(array, dump_text(config->pools[action->forward.others[i]].name));
    return array;
}

json_t *dump_action(const struct config *config, const struct action *action) {
    json_t *o = json_object();
    switch (action->kind) {
    case ACTION_FORWARD:
        json_object_set_new(o, "forward", dump_text(config->pools[action->forward.pool].name));
        json_object_set_new(o, "otherwise", dump_others(config, action));
        json_object_set_new(o, "server", dump_span(action->forward.server));
        json_object_set_new(o, "key", dump_span(action->forward.key));
        json_object_set_new(o, "path", dump_span(action->forward.path));
        json_object_set_new(o, "host", dump_span(action->forward.host));
        json_object_set_new(o, "response_timeout_ms", dump_limit(action->forward.response_timeout_ms));
        break;
    case ACTION_REPLY:
        json_object_set_new(o, "reply", json_integer(action->reply.status));
        json_object_set_new(o, "body", dump_span(action->reply.body));
        json_object_set_new(o, "headers", dump_headers(action->reply.headers, action->reply.header_count));
        break;
    case ACTION_REDIRECT:
        json_object_set_new(o, "redirect", json_integer(action->redirect.status));
        json_object_set_new(o, "url", dump_span(action->redirect.url));
        json_object_set_new(o, "scheme", dump_span(action->redirect.scheme));
        json_object_set_new(o, "host", dump_span(action->redirect.host));
        json_object_set_new(o, "port", dump_limit(action->redirect.port));
        json_object_set_new(o, "path", dump_span(action->redirect.path));
        json_object_set_new(o, "query", dump_span(action->redirect.query));
        break;
    case ACTION_DROP:
    case ACTION_NONE: json_object_set_new(o, "drop", json_true()); break;
    }
    return o;
}

/* o[key] = texts, with false in front when "none" matches too; left out when the key was not declared. */
static void dump_texts(json_t *o, const char *key, const struct match_texts *texts, bool none) {
    if (texts->count == 0 && !none)
        return;
    json_t *array = json_array();
    if (none)
        json_array_append_new(array, json_false());
    for (unsigned i = 0; i < texts->count; i++)
        json_array_append_new(array, dump_span(texts->list[i]));
    json_object_set_new(o, key, array);
}

static void dump_named(json_t *o, const char *key, const struct match_named *list, unsigned count, bool is_cookie) {
    if (count == 0)
        return;
    json_t *names = json_object();
    for (unsigned i = 0; i < count; i++) {
        json_t *value;
        if (list[i].presence != MATCH_VALUES)
            value = json_boolean(list[i].presence == MATCH_PRESENT);
        else if (is_cookie || dump_is_secret(list[i].name))
            value = json_string("(redacted)");
        else {
            value = json_array();
            for (unsigned k = 0; k < list[i].values.count; k++)
                json_array_append_new(value, dump_span(list[i].values.list[k]));
        }
        dump_set(names, list[i].name, value);
    }
    json_object_set_new(o, key, names);
}

json_t *dump_match(const struct match *match) {
    json_t *o = json_object();
    dump_texts(o, "listener", &match->listeners, false);
    dump_texts(o, "host", &match->hosts, false);
    dump_texts(o, "path", &match->paths, false);
    dump_texts(o, "method", &match->methods, false);
    dump_texts(o, "scheme", &match->schemes, false);
    if (match->websocket != MATCH_ANY)
        json_object_set_new(o, "websocket", json_boolean(match->websocket == MATCH_YES));
    dump_texts(o, "subprotocol", &match->subprotocols, match->no_subprotocol);
    dump_named(o, "header", match->headers, match->header_count, false);
    dump_named(o, "query", match->queries, match->query_count, false);
    dump_named(o, "cookie", match->cookies, match->cookie_count, true);
    if (match->client_count > 0)
        json_object_set_new(o, "client", dump_cidrs(match->clients, match->client_count));
    dump_texts(o, "origin", &match->origins, match->no_origin);
    dump_texts(o, "sni", &match->snis, match->no_sni);
    return o;
}

static json_t *dump_probe(const struct config_probe *probe) {
    static const char *const kinds[] = {
        [CONFIG_PROBE_HTTP] = "http", [CONFIG_PROBE_TCP] = "tcp", [CONFIG_PROBE_WEBSOCKET] = "websocket"};
    if (probe->kind == CONFIG_PROBE_NONE)
        return json_false();
    json_t *o = json_object();
    json_object_set_new(o, "kind", json_string(kinds[probe->kind]));
    json_object_set_new(o, "written", json_boolean(probe->written));
    if (probe->kind == CONFIG_PROBE_HTTP) {
        json_t *expect = json_array();
        for (unsigned i = 0; i < probe->expect_count; i++)
            json_array_append_new(expect, json_sprintf("%u-%u", probe->expect[i].low, probe->expect[i].high));
        json_object_set_new(o, "method", dump_text(probe->method));
        json_object_set_new(o, "path", dump_text(probe->path));
        json_object_set_new(o, "host", dump_text(probe->host));
        json_object_set_new(o, "headers", dump_headers(probe->headers.list, probe->headers.count));
        json_object_set_new(o, "expect", expect);
        json_object_set_new(o, "body", dump_text(probe->body));
    }
    if (probe->kind == CONFIG_PROBE_WEBSOCKET) {
        json_object_set_new(o, "path", dump_text(probe->path));
        json_object_set_new(o, "host", dump_text(probe->host));
        json_object_set_new(o, "headers", dump_headers(probe->headers.list, probe->headers.count));
        json_object_set_new(o, "subprotocol", dump_text(probe->subprotocol));
        json_object_set_new(o, "ping", json_boolean(probe->ping));
    }
    json_object_set_new(o, "port", dump_limit(probe->port));
    json_object_set_new(o, "tls", probe->tls < 0 ? json_null() : json_boolean(probe->tls));
    json_object_set_new(o, "every_ms", json_integer(probe->every_ms));
    json_object_set_new(o, "fast_ms", json_integer(probe->fast_ms));
    json_object_set_new(o, "timeout_ms", json_integer(probe->timeout_ms));
    json_object_set_new(o, "rise", json_integer(probe->rise));
    json_object_set_new(o, "fall", json_integer(probe->fall));
    return o;
}

static json_t *dump_servers(const struct config_pool *pool) {
    json_t *array = json_array();
    for (unsigned i = 0; i < pool->server_count; i++) {
        const struct config_server *server = &pool->servers[i];
        json_array_append_new(array,
                              json_pack("{s:o,s:o,s:i,s:b,s:o}", "name", dump_text(server->name), "address",
                                        dump_text(server->address), "weight", (int)server->weight, "backup",
                                        server->backup, "max_connections", dump_limit(server->max_connections)));
    }
    return array;
}

static json_t *dump_affinity(const struct config_affinity *affinity) {
    static const char *const sites[] = {
        [CONFIG_SAME_SITE_LAX] = "lax", [CONFIG_SAME_SITE_STRICT] = "strict", [CONFIG_SAME_SITE_NONE] = "none"};
    if (!affinity->cookie)
        return json_null();
    return json_pack("{s:o,s:s,s:o,s:o}", "cookie", dump_text(affinity->cookie), "same_site", sites[affinity->same_site],
                     "ttl_ms", dump_limit(affinity->ttl_ms), "key",
                     affinity->key ? json_string("(redacted)") : json_null());
}

json_t *dump_pool(const struct config_pool *pool) {
    static const char *const balances[] = {
        [CONFIG_BALANCE_ROUNDROBIN] = "roundrobin", [CONFIG_BALANCE_LEASTCONN] = "leastconn",
        [CONFIG_BALANCE_RANDOM] = "random",         [CONFIG_BALANCE_HASH] = "hash",
        [CONFIG_BALANCE_FIRST] = "first"};
    char source[ADDR_TEXT_MAX];
    json_t *o = json_object();
    json_object_set_new(o, "name", dump_text(pool->name));
    json_object_set_new(o, "place", dump_place(pool->place));
    json_object_set_new(o, "servers", dump_servers(pool));
    json_object_set_new(o, "balance", json_string(balances[pool->balance]));
    json_object_set_new(o, "hash_bound", dump_limit(pool->hash_bound));
    json_object_set_new(o, "slow_start_ms", dump_limit(pool->slow_start_ms));
    json_object_set_new(o, "affinity", dump_affinity(&pool->affinity));
    json_object_set_new(o, "probe", dump_probe(&pool->probe));
    json_object_set_new(o, "queue", json_integer(pool->queue));
    json_object_set_new(o, "queue_timeout_ms", dump_limit(pool->queue_timeout_ms));
    json_object_set_new(o, "on_down", json_string("keep")); /* the one there is */
    json_object_set_new(o, "connect_timeout_ms", dump_limit(pool->connect_timeout_ms));
    json_object_set_new(o, "response_timeout_ms", dump_limit(pool->response_timeout_ms));
    json_object_set_new(o, "upgrade_timeout_ms", dump_limit(pool->upgrade_timeout_ms));
    json_object_set_new(o, "tunnel_idle_timeout_ms", dump_limit(pool->tunnel_idle_timeout_ms));
    json_object_set_new(o, "tunnel_max_age_ms", dump_limit(pool->tunnel_max_age_ms));
    json_object_set_new(o, "half_close_timeout_ms", dump_limit(pool->half_close_timeout_ms));
    json_object_set_new(o, "retries", json_integer(pool->retries));
    json_object_set_new(o, "tls",
                        pool->tls ? json_pack("{s:b,s:o,s:o,s:o,s:o}", "verify", pool->tls_verify, "sni",
                                              dump_text(pool->tls_sni), "ca", dump_text(pool->tls_ca), "cert",
                                              dump_text(pool->tls_cert), "key", dump_text(pool->tls_key))
                                  : json_false());
    json_object_set_new(o, "proxy_protocol",
                        pool->proxy_protocol ? json_string(pool->proxy_protocol == CONFIG_PROXY_V1 ? "v1" : "v2") : json_null());
    json_object_set_new(o, "host",
                        pool->host == CONFIG_HOST_FIXED
                            ? dump_text(pool->host_fixed)
                            : json_string(pool->host == CONFIG_HOST_SERVER ? "server" : "client"));
    json_object_set_new(o, "keepalive", json_integer(pool->keepalive));
    json_object_set_new(o, "keepalive_timeout_ms", dump_limit(pool->keepalive_timeout_ms));
    json_object_set_new(o, "source", pool->source.len ? dump_text(addr_format(&pool->source, source)) : json_null());
    json_object_set_new(o, "resolve_ms", dump_limit(pool->resolve_ms));
    return o;
}
