/* SPDX-License-Identifier: MIT */
/*
 * declare_pool: the word pool and its servers. A server's address is written as people write it: with a port or by the pool's `port`, as a
 * number or as a name, or as the name of SRV records; a name keeps addr.len 0 and is resolved later. The subtle thing: `port` has to be known
 * before `servers` is read, whatever the order of keys, so it is looked up first.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

/* A pool while it is read. */
struct declare_pool {
    struct config_pool pool;
    uint16_t port; /* for servers without one; 0: none */
};

#define SERVER_ADDRESS "address like \"10.0.0.1:8080\", \"[::1]:8080\", \"name:8080\" or \"unix:/path\""

static bool declare_host_valid(struct span host) {
    bool name = false;
    for (size_t i = 0; i < host.n; i++) {
        char c = str_lower(host.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'))
            return false;
        name = name || ((c < '0' || c > '9') && c != '.');
    }
    return name && host.n <= 253; /* digits and dots only: an IPv4 address with a mistake */
}

static void declare_server_named(struct option_reader *reader, struct span text, uint16_t port, struct config_server *server) {
    struct span host;
    uint16_t own = 0;
    if (!addr_split(text, &host, &own) || host.n == 0) {
        option_mistake(reader, "\"%.80s\" is no " SERVER_ADDRESS, text.p);
        return;
    }
    struct addr_small ip;
    bool numeric = addr_parse_ip(host, &ip);
    if (!numeric && !declare_host_valid(host)) {
        option_mistake(reader, "\"%.80s\" is no " SERVER_ADDRESS, text.p);
        return;
    }
    if (own == 0 && port == 0) {
        option_mistake(reader, "\"%.80s\" has no port, and the pool names none (port = 8080)", text.p);
        return;
    }
    server->port = own ? own : port;
    server->host = option_copy(reader, host);
    bool v6 = memchr(host.p, ':', host.n) != NULL;
    struct span whole = arena_printf(reader->arena, v6 ? "[%.*s]:%u" : "%.*s:%u", SPAN_ARGS(host), server->port);
    if (!whole.p)
        luaL_error(reader->L, "the configuration is too large for its memory");
    server->address = (char *)(uintptr_t)whole.p;
    if (numeric && !addr_parse(whole, 0, &server->addr))
        option_mistake(reader, "\"%.80s\" is no " SERVER_ADDRESS, text.p);
}

/* "srv:_ws._tcp.chat.internal": the records say hosts, ports, weights and priorities. */
static void declare_server_srv(struct option_reader *reader, struct span text, struct config_server *server) {
    struct span name = span_make(text.p + 4, text.n - 4);
    if (!declare_host_valid(name)) {
        option_mistake(reader, "\"%.80s\" is no name of SRV records like \"srv:_ws._tcp.chat.internal\"", text.p);
        return;
    }
    server->srv = true;
    server->address = option_copy(reader, text);
    server->host = option_copy(reader, name);
}

static void declare_server_address(struct option_reader *reader, int index, uint16_t port, struct config_server *server) {
    struct span text = option_text(reader, index, "an " SERVER_ADDRESS);
    if (!text.p)
        return;
    if (str_starts(text, SPAN("unix:"))) {
        if (!addr_parse(text, 0, &server->addr))
            option_mistake(reader, "\"%.120s\" is no address like \"unix:/path\"", text.p);
        server->address = option_copy(reader, text);
        server->host = option_copy(reader, SPAN("localhost"));
        return;
    }
    if (str_starts(text, SPAN("srv:")))
        declare_server_srv(reader, text, server);
    else
        declare_server_named(reader, text, port, server);
}

#define FIELD(name) .offset = offsetof(struct config_server, name)
const struct option option_server[] = {
    {.key = "name", .type = OPTION_TEXT, FIELD(name), .fallback = "its address", .help = "what logs and commands call it"},
    {.key = "weight", .type = OPTION_COUNT, FIELD(weight), .max = 1000, .fallback = "1", .help = "share of new work; 0: none"},
    {.key = "backup", .type = OPTION_BOOL, FIELD(backup), .fallback = "false", .help = "only while no other server is up"},
    {.key = "max_connections", .type = OPTION_COUNT, FIELD(max_connections), .min = 1, .max = 10000000, .none = true, .fallback = "none",
     .help = "requests and tunnels at once, over all workers; more wait in the pool's queue"},
    {.key = NULL},
};
#undef FIELD

static void declare_read_server(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct declare_pool *reading = owner;
    struct config_pool *pool = &reading->pool;
    struct config_server *server = &pool->servers[i];
    lua_State *L = reader->L;
    server->weight = 1;
    if (lua_type(L, index) != LUA_TTABLE)
        declare_server_address(reader, index, reading->port, server);
    else {
        lua_rawgeti(L, index, 1);
        if (lua_isnil(L, -1))
            option_mistake(reader, "the address is missing: { \"10.0.0.1:8080\", weight = 2 }");
        else
            declare_server_address(reader, lua_gettop(L), reading->port, server);
        lua_pop(L, 1);
        option_read_table(reader, index, option_server, server, NULL, NULL, 1);
    }
    if (!server->name)
        server->name = server->address;
    for (unsigned j = 0; server->name && j < i; j++)
        if (pool->servers[j].name && strcmp(pool->servers[j].name, server->name) == 0)
            option_mistake(reader, "\"%.80s\" is there twice", server->name);
}

static void declare_read_servers(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct declare_pool *reading = field;
    (void)option;
    reading->pool.server_count = option_list_length(reader, index);
    reading->pool.servers = option_alloc(reader, reading->pool.server_count, sizeof(struct config_server));
    if (reading->pool.server_count == 0 && lua_type(reader->L, index) == LUA_TTABLE) {
        lua_pushnil(reader->L);
        if (!lua_next(reader->L, index))
            return; /* {}: validation says what an empty pool means */
        lua_pop(reader->L, 2);
    }
    option_read_list(reader, index, declare_read_server, reading);
}

static void declare_read_pool_host(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_pool *pool = field;
    struct span text = option_text(reader, index, "\"client\", \"server\" or a name");
    (void)option;
    if (!text.p)
        return;
    if (span_equal(text, SPAN("client")))
        pool->host = CONFIG_HOST_CLIENT;
    else if (span_equal(text, SPAN("server")))
        pool->host = CONFIG_HOST_SERVER;
    else {
        if (!option_is_host(text)) {
            option_wrong(reader, index, "\"client\", \"server\" or a name");
            return;
        }
        pool->host = CONFIG_HOST_FIXED;
        pool->host_fixed = option_copy(reader, text);
    }
}

static void declare_read_source(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct addr *addr = field;
    struct addr_small ip;
    struct span text = option_text(reader, index, "an address without port, like \"10.0.0.1\"");
    (void)option;
    if (!text.p)
        return;
    if (!addr_parse_ip(text, &ip) || !addr_parse(text, 1, addr)) {
        option_wrong(reader, index, "an address without port, like \"10.0.0.1\"");
        return;
    }
    if (addr->sa.any.sa_family == AF_INET)
        addr->sa.in.sin_port = 0;
    else
        addr->sa.in6.sin6_port = 0;
}

static void declare_read_cookie_name(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct span text = option_text(reader, index, "a cookie's name");
    (void)option;
    if (text.p && !str_is_token(text))
        option_wrong(reader, index, "a cookie's name");
    else if (text.p)
        *(char **)field = option_copy(reader, text);
}

#define AFFINITY_KEY_MIN 16

/* Never quoted in a report: it is a secret. */
static void declare_read_affinity_key(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    if (lua_type(reader->L, index) != LUA_TSTRING) {
        option_wrong(reader, index, "a secret text");
        return;
    }
    struct span text;
    text.p = lua_tolstring(reader->L, index, &text.n);
    text = str_trim(text);
    while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) /* as readfile() gives it */
        text.n--;
    if (text.n < AFFINITY_KEY_MIN || memchr(text.p, '\0', text.n))
        option_mistake(reader, "a key has at least %d characters, none of them NUL (openssl rand -hex 32 makes one)", AFFINITY_KEY_MIN);
    else
        *(char **)field = option_copy(reader, text);
}

#define FIELD(name) .offset = offsetof(struct config_pool, name)
const struct option option_pool_tls[] = {
    {.key = "verify", .type = OPTION_BOOL, FIELD(tls_verify), .fallback = "true", .help = "check the server's chain and name"},
    {.key = "sni", .type = OPTION_TEXT, FIELD(tls_sni), .fallback = "the server's name", .help = "name to ask for and to check"},
    {.key = "ca", .type = OPTION_PATH, FIELD(tls_ca), .fallback = "the system's", .help = "certificates to trust, PEM"},
    {.key = "cert", .type = OPTION_PATH, FIELD(tls_cert), .fallback = "none", .help = "our certificate chain for servers that ask, PEM"},
    {.key = "key", .type = OPTION_PATH, FIELD(tls_key), .fallback = "none", .help = "its private key, PEM"},
    {.key = NULL},
};
#undef FIELD

static void declare_read_pool_tls(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_pool *pool = field;
    (void)option;
    if (lua_isboolean(reader->L, index)) {
        pool->tls = lua_toboolean(reader->L, index);
        return;
    }
    if (!option_is_table(reader, index, "true, false or a table like { verify = true }"))
        return;
    pool->tls = true;
    unsigned mistakes = reader->mistakes;
    option_read_table(reader, index, option_pool_tls, pool, NULL, NULL, 0);
    if (reader->mistakes == mistakes && !pool->tls_cert != !pool->tls_key)
        option_mistake(reader, "%s is missing", pool->tls_cert ? "key" : "cert");
}

#define FIELD(name) .offset = offsetof(struct config_affinity, name)
const struct option option_pool_affinity[] = {
    {.key = "cookie", .type = OPTION_READ, .read = declare_read_cookie_name, FIELD(cookie), .fallback = "-", .help = "the cookie's name"},
    {.key = "same_site", .type = OPTION_WORD, .words = "lax strict none", FIELD(same_site), .fallback = "\"lax\"",
     .help = "its SameSite attribute: lax, strict or none"},
    {.key = "ttl", .type = OPTION_DURATION, FIELD(ttl_ms), .min = 1000, .none = true, .fallback = "the browser's session",
     .help = "how long the browser keeps it, from when it was set"},
    {.key = "key", .type = OPTION_READ, .read = declare_read_affinity_key, FIELD(key), .fallback = "from the machine's id",
     .help = "secret of the cookie's value; the same in all gateways that share clients"},
    {.key = NULL},
};
#undef FIELD

static void declare_read_affinity(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_affinity *affinity = field;
    (void)option;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        return;
    if (!option_is_table(reader, index, "a table like { cookie = \"node\" }, or false"))
        return;
    unsigned mistakes = reader->mistakes;
    option_read_table(reader, index, option_pool_affinity, affinity, NULL, NULL, 0);
    if (!affinity->cookie && reader->mistakes == mistakes)
        option_mistake(reader, "cookie is missing: its name");
}

static void declare_read_proxy_protocol(struct option_reader *reader, const struct option *option, int index, void *field) {
    static const struct option word = {.key = "proxy_protocol", .type = OPTION_WORD, .words = "v1 v2"};
    unsigned version = 0, mistakes = reader->mistakes;
    (void)option;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        return;
    option_read_one(reader, &word, index, &version);
    if (reader->mistakes == mistakes)
        *(enum config_proxy *)field = version == 0 ? CONFIG_PROXY_V1 : CONFIG_PROXY_V2;
}

/* "keep" is what this version does. */
static void declare_read_on_down(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    (void)field;
    if (lua_type(reader->L, index) == LUA_TTABLE)
        option_later(reader, "close");
    else if (lua_type(reader->L, index) != LUA_TSTRING || strcmp(lua_tostring(reader->L, index), "keep") != 0)
        option_wrong(reader, index, "\"keep\"");
}

#define FIELD(name) .offset = offsetof(struct declare_pool, pool.name)
const struct option option_pool[] = {
    {.key = "servers", .type = OPTION_READ, .read = declare_read_servers, .fallback = "-",
     .help = "addresses, or { address, name, weight, backup }"},
    {.key = "port", .type = OPTION_COUNT16, .offset = offsetof(struct declare_pool, port), .min = 1, .max = 65535, .fallback = "none",
     .help = "of servers whose address has none"},
    {.key = "balance", .type = OPTION_WORD, .words = "roundrobin leastconn random hash first", FIELD(balance), .fallback = "\"roundrobin\"",
     .help = "how a server is picked: roundrobin, leastconn, random, hash or first"},
    {.key = "probe", .type = OPTION_READ, .read = declare_read_probe, FIELD(probe), .fallback = "GET / below 500",
     .help = "health check: a table, \"tcp\" or false"},
    {.key = "connect_timeout", .type = OPTION_DURATION, FIELD(connect_timeout_ms), .fallback = "\"5s\"", .help = "to connect, TLS included"},
    {.key = "response_timeout", .type = OPTION_DURATION, FIELD(response_timeout_ms), .none = true, .fallback = "\"60s\"",
     .help = "without a byte of the answer; never cuts a tunnel"},
    {.key = "upgrade_timeout", .type = OPTION_DURATION, FIELD(upgrade_timeout_ms), .fallback = "\"10s\"", .help = "for the answer to a handshake"},
    {.key = "tunnel_idle_timeout", .type = OPTION_DURATION, FIELD(tunnel_idle_timeout_ms), .none = true, .fallback = "\"1h\"",
     .help = "without a byte either way"},
    {.key = "tunnel_max_age", .type = OPTION_DURATION, FIELD(tunnel_max_age_ms), .none = true, .fallback = "false", .help = "a tunnel's longest life"},
    {.key = "half_close_timeout", .type = OPTION_DURATION, FIELD(half_close_timeout_ms), .none = true, .fallback = "\"30s\"",
     .help = "after one side of a tunnel ended"},
    {.key = "retries", .type = OPTION_COUNT, FIELD(retries), .max = 10, .none = true, .fallback = "2", .help = "other tries where that is safe"},
    {.key = "tls", .type = OPTION_READ, .read = declare_read_pool_tls, .offset = offsetof(struct declare_pool, pool), .fallback = "false",
     .help = "true, or verify, sni, ca, cert, key"},
    {.key = "host", .type = OPTION_READ, .read = declare_read_pool_host, .offset = offsetof(struct declare_pool, pool), .fallback = "\"client\"",
     .help = "Host to send: \"client\" (as it came), \"server\", or a name"},
    {.key = "keepalive", .type = OPTION_COUNT, FIELD(keepalive), .max = 65535, .none = true, .fallback = "32",
     .help = "idle connections kept, a worker and server"},
    {.key = "keepalive_timeout", .type = OPTION_DURATION, FIELD(keepalive_timeout_ms), .fallback = "\"4s\"", .help = "how long they are kept"},
    {.key = "resolve", .type = OPTION_DURATION, FIELD(resolve_ms), .min = 100, .fallback = "\"30s\"",
     .help = "pace at which names of servers are resolved again"},
    {.key = "source", .type = OPTION_READ, .read = declare_read_source, FIELD(source), .fallback = "any", .help = "address to connect from"},
    {.key = "hash_bound", .type = OPTION_COUNT, FIELD(hash_bound), .min = 101, .max = 10000, .none = true, .fallback = "200",
     .help = "percent of its share that a server may have before hash goes on to the next"},
    {.key = "slow_start", .type = OPTION_DURATION, FIELD(slow_start_ms), .none = true, .fallback = "\"30s\"",
     .help = "how long the share of a server that came back grows"},
    {.key = "affinity", .type = OPTION_READ, .read = declare_read_affinity, FIELD(affinity), .fallback = "none",
     .help = "cookie that keeps a client with its server: cookie, same_site, ttl, key"},
    {.key = "queue", .type = OPTION_COUNT, FIELD(queue), .max = 1000000, .none = true, .fallback = "100",
     .help = "requests that may wait while all live servers are at max_connections"},
    {.key = "queue_timeout", .type = OPTION_DURATION, FIELD(queue_timeout_ms), .fallback = "\"5s\"", .help = "how long one waits in the queue"},
    {.key = "on_down", .type = OPTION_READ, .read = declare_read_on_down, .fallback = "\"keep\"", .help = "tunnels of a server that fails stay"},
    {.key = "drain_timeout", .type = OPTION_LATER},
    {.key = "proxy_protocol", .type = OPTION_READ, .read = declare_read_proxy_protocol, FIELD(proxy_protocol), .fallback = "none",
     .help = "connections begin with a PROXY header that names the client: \"v1\" or \"v2\"; they are not kept"},
    {.key = NULL},
};
#undef FIELD

void declare_pool(lua_State *L, int index, const char *name, struct config_place place) {
    struct script_declare *declare = declare_of(L);
    struct option_reader reader;
    char subject[96];
    snprintf(subject, sizeof(subject), "pool \"%s\"", name);
    declare_start_reader(&reader, L, subject, place);
    for (unsigned i = 0; i < declare->pool_count; i++)
        if (strcmp(declare->pools[i].name, name) == 0)
            option_mistake(&reader, "declared twice (first in %s:%d)", declare->pools[i].place.file, declare->pools[i].place.line);
    struct declare_pool reading = {.port = 0};
    config_pool_defaults(&reading.pool);
    reading.pool.name = option_copy(&reader, span_of(name));
    reading.pool.place = place;
    lua_pushliteral(L, "port");
    if (lua_rawget(L, index) == LUA_TNUMBER && lua_tointeger(L, -1) > 0 && lua_tointeger(L, -1) <= UINT16_MAX)
        reading.port = (uint16_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    option_read_table(&reader, index, option_pool, &reading, NULL, NULL, 0);
    if (reader.mistakes && reading.pool.server_count == 0) { /* said already: validation need not miss servers too */
        reading.pool.servers = option_alloc(&reader, 1, sizeof(*reading.pool.servers));
        reading.pool.server_count = 1;
    }
    void *list = declare->pools;
    struct config_pool *entry = declare_grow(&list, &declare->pool_count, sizeof(*entry));
    declare->pools = list;
    *entry = reading.pool;
}
