/* SPDX-License-Identifier: MIT */
/*
 * config: plain structs of what one configuration file declares. The loader (script layer) fills them; nothing here
 * knows Lua or sockets. Strings are owned by the config and NUL-terminated; times are milliseconds, 0 means none; sizes are bytes.
 * Every list is an array with its count, in the order of the file. Immutable once loaded.
 */
#ifndef MOONGATE_CONFIG_CONFIG_H
#define MOONGATE_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/arena.h"
#include "base/log.h"
#include "config/action.h"
#include "config/match.h"

struct config_place {
    const char *file;
    int line;
};

struct config_cidrs {
    struct cidr *list;
    unsigned count;
    bool set; /* named in the file; a listener without it takes the settings' */
};

struct config_headers {
    struct action_header *list;
    unsigned count;
};

#define CONFIG_WORKERS_MAX 64

enum config_underscores { CONFIG_UNDERSCORES_DROP, CONFIG_UNDERSCORES_REJECT, CONFIG_UNDERSCORES_PASS };

enum config_access_format { CONFIG_ACCESS_JSON, CONFIG_ACCESS_COMBINED };

/* What an answer of our own with that status holds. */
struct config_error_page {
    uint16_t status;
    const char *type; /* Content-Type */
    struct span body;
};

struct config_settings {
    unsigned workers; /* at most CONFIG_WORKERS_MAX; 0: automatic */
    char *user, *group;
    char *access_to;         /* NULL: no access log */
    bool access_query;       /* log query strings */
    enum config_access_format access_format;
    struct config_error_page *error_pages;
    unsigned error_page_count;
    enum log_level log_level;
    struct config_cidrs trusted_proxies;
    uint32_t rule_cpu_ms, rule_deadline_ms;
    size_t lua_memory;       /* a worker */
    uint32_t drain_timeout_ms;
    unsigned max_connections; /* 0: from the descriptor limit */
    char *via;               /* pseudonym; NULL: off */
    enum config_underscores underscores;
    char *nameservers;       /* "127.0.0.1:53,[::1]:53"; NULL: as resolv.conf says */
};

struct config_certificate {
    char *cert, *key, *name; /* name: SNI, NULL: from the certificate */
};

enum config_client_cert { CONFIG_CLIENT_CERT_NONE, CONFIG_CLIENT_CERT_ASK, CONFIG_CLIENT_CERT_REQUIRE };

struct config_listener {
    char *name;
    struct config_place place;
    struct addr *binds;
    char **bind_texts; /* as written */
    unsigned bind_count;
    struct config_cidrs proxy_from; /* peers that begin with a PROXY header */
    bool tls;
    enum config_client_cert client_cert;
    char *client_ca; /* set unless client_cert is NONE */
    struct config_certificate *certificates;
    unsigned certificate_count;
    char *tls_min;
    uint32_t tls_timeout_ms, header_timeout_ms, body_timeout_ms, send_timeout_ms, idle_timeout_ms;
    uint32_t min_rate;       /* bytes a second; 0: none */
    unsigned max_connections; /* 0: the settings' */
    uint32_t max_target, max_header;
    uint16_t max_fields;
    uint64_t max_body;       /* UINT64_MAX: none */
    bool encoded_slash_keep, half_close;
    uint32_t tcp_keepalive_ms;
    struct config_cidrs trusted_proxies;
    struct config_headers request_headers, response_headers;
};

enum config_probe_kind { CONFIG_PROBE_NONE, CONFIG_PROBE_HTTP, CONFIG_PROBE_TCP, CONFIG_PROBE_WEBSOCKET };

struct config_status_range {
    uint16_t low, high;
};

#define CONFIG_EXPECT_MAX 16

struct config_probe {
    enum config_probe_kind kind;
    char *path, *host, *method; /* host NULL: the server's own name */
    uint16_t port;              /* 0: the server's */
    int tls;                    /* -1: as the pool; 0, 1 */
    struct config_headers headers;
    struct config_status_range expect[CONFIG_EXPECT_MAX];
    unsigned expect_count;
    char *body;                 /* text that the first 64 KiB of the answer must hold; NULL: any */
    uint32_t every_ms, fast_ms, timeout_ms;
    unsigned rise, fall;
    bool websocket, ping;       /* as written; websocket: then kind says so too */
    char *subprotocol;          /* that a WebSocket probe offers and wants; NULL: none */
    bool written;               /* false: the default probe */
};

struct config_server {
    char *name;    /* "10.0.1.1:9000" unless named */
    char *address; /* as written, with the port added: "host:port", "unix:/path" */
    char *host;    /* the host part, for SNI and Host */
    uint16_t port;
    struct addr addr; /* .len 0: a name, to be resolved */
    bool srv;         /* host is the name of SRV records, which name hosts, ports, weights and priorities */
    unsigned weight;  /* 0..1000; 0 gets no new work */
    unsigned max_connections; /* requests and tunnels at once, all workers; 0: none */
    bool backup;
};

enum config_balance {
    CONFIG_BALANCE_ROUNDROBIN,
    CONFIG_BALANCE_LEASTCONN,
    CONFIG_BALANCE_RANDOM,
    CONFIG_BALANCE_HASH,
    CONFIG_BALANCE_FIRST
};
enum config_same_site { CONFIG_SAME_SITE_LAX, CONFIG_SAME_SITE_STRICT, CONFIG_SAME_SITE_NONE };

/* A client stays with its server by a cookie. */
struct config_affinity {
    char *cookie; /* its name; NULL: no affinity */
    char *key;    /* secret of the cookie's value; NULL: made from the machine's id */
    enum config_same_site same_site;
    uint32_t ttl_ms; /* 0: as long as the browser's session */
};

enum config_host { CONFIG_HOST_CLIENT, CONFIG_HOST_SERVER, CONFIG_HOST_FIXED };

/* The header that connections to servers begin with. */
enum config_proxy { CONFIG_PROXY_NONE, CONFIG_PROXY_V1, CONFIG_PROXY_V2 };

struct config_pool {
    char *name;
    struct config_place place;
    struct config_server *servers;
    unsigned server_count;
    enum config_balance balance;
    unsigned hash_bound;    /* percent of its share that a server may have before hash goes on to another; 0: no bound */
    uint32_t slow_start_ms; /* how long the weight of a server that came back grows */
    struct config_affinity affinity;
    struct config_probe probe;
    uint32_t connect_timeout_ms, response_timeout_ms, upgrade_timeout_ms;
    uint32_t tunnel_idle_timeout_ms, tunnel_max_age_ms, half_close_timeout_ms;
    unsigned queue; /* requests that may wait for a full server, all workers; 0: none */
    uint32_t queue_timeout_ms;
    unsigned retries;
    bool tls, tls_verify;
    char *tls_sni, *tls_ca;
    char *tls_cert, *tls_key; /* ours, for servers that ask; both or none */
    enum config_proxy proxy_protocol;
    enum config_host host;
    char *host_fixed;
    unsigned keepalive; /* idle connections a worker and server */
    uint32_t keepalive_timeout_ms;
    struct addr source; /* .len 0: any */
    uint32_t resolve_ms; /* pace at which names are resolved again */
};

enum config_step_kind { CONFIG_STEP_ACTION, CONFIG_STEP_FUNCTION };

struct config_step {
    enum config_step_kind kind;
    struct action action;
    unsigned function; /* index given by the loader, the same in every Lua state */
};

#define CONFIG_NO_FUNCTION 0xffffffffu

struct config_route {
    char *name;
    struct config_place place;
    struct match match, except;
    bool has_except;
    unsigned when; /* function index or CONFIG_NO_FUNCTION */
    struct config_step *steps;
    unsigned step_count;
    bool on_error_next;
    bool access_log;
    uint64_t max_body; /* UINT64_MAX: the listener's */
    struct config_headers request_headers, response_headers;
    unsigned on_response; /* function index or CONFIG_NO_FUNCTION */
};

struct config {
    char *file;
    struct arena memory; /* what the structs point at: strings, arrays, action parts */
    struct config_settings settings;
    struct config_listener *listeners;
    unsigned listener_count;
    struct config_pool *pools;
    unsigned pool_count;
    struct config_route *routes;
    unsigned route_count;
    /* Global hooks, in order: function indexes. */
    unsigned *on_response, *on_open, *on_close;
    unsigned on_response_count, on_open_count, on_close_count;
    unsigned function_count;
};

/* Empty, with the defaults of settings. */
struct config *config_new(const char *file);
void config_free(struct config **config);
/* Fill in the defaults of each kind (rules.md part 3). */
void config_listener_defaults(struct config_listener *listener);
void config_pool_defaults(struct config_pool *pool);
/* The default probe (GET /, below 500); config_probe_written() changes the defaults to those of a written one (200-399). */
void config_probe_defaults(struct config_probe *probe);
void config_probe_written(struct config_probe *probe);

/* A mistake found by validation: subject ("pool \"chat\": servers[2]"), text, place. */
typedef void config_mistake_fn(void *owner, struct config_place place, const char *text);
/*
 * Checks what concerns more than one declaration: two listeners on one address, certificate files readable, a forward to a pool
 * without servers, no listener (if whole: the file was read to its end). Reports each mistake; returns their count.
 */
unsigned config_validate(const struct config *config, bool whole, config_mistake_fn *report, void *owner);

const struct config_pool *config_find_pool(const struct config *config, const char *name);
const struct config_listener *config_find_listener(const struct config *config, const char *name);
/* The page for answers of our own with that status; NULL: none is named. */
const struct config_error_page *config_find_page(const struct config_settings *settings, unsigned status);

#endif
