/* SPDX-License-Identifier: MIT */
/*
 * declare_settings: the words settings and listener. Their tables of options stand here, in the order of the manual; what one type cannot say
 * (workers = "auto", certificates by name, addresses) has a reader of its own. A certificate's path is kept relative to the file's folder.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

static void declare_read_workers(struct option_reader *reader, const struct option *option, int index, void *field) {
    uint64_t count = 0;
    (void)option;
    if (lua_type(reader->L, index) == LUA_TSTRING && strcmp(lua_tostring(reader->L, index), "auto") == 0)
        return;
    if (lua_type(reader->L, index) != LUA_TNUMBER)
        option_wrong(reader, index, "\"auto\" or a whole number from 1 to 64");
    else if (option_read_count(reader, index, 1, CONFIG_WORKERS_MAX, &count))
        *(unsigned *)field = (unsigned)count;
}

/* Joined by commas, as c-ares wants them. */
static void declare_read_nameserver(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct buf *joined = owner;
    struct addr addr;
    char text[ADDR_TEXT_MAX];
    struct span written = option_text(reader, index, "an address like \"10.0.0.1\" or \"10.0.0.1:53\"");
    if (!written.p)
        return;
    if (!addr_parse(written, 53, &addr) || addr.sa.any.sa_family == AF_UNIX || addr_port(&addr) == 0)
        option_wrong(reader, index, "an address like \"10.0.0.1\" or \"10.0.0.1:53\"");
    else if (!buf_printf(joined, "%s%s", i ? "," : "", addr_format(&addr, text)))
        option_mistake(reader, "too many name servers");
}

static void declare_read_nameservers(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct buf joined;
    (void)option;
    buf_init(&joined, 4096);
    option_read_list(reader, index, declare_read_nameserver, &joined);
    if (!buf_empty(&joined))
        *(char **)field = option_copy(reader, buf_span(&joined));
    buf_release(&joined);
}

static void declare_read_encoded_slash(struct option_reader *reader, const struct option *option, int index, void *field) {
    static const struct option word = {.key = "encoded_slash", .type = OPTION_WORD, .words = "reject keep"};
    unsigned keep = 0;
    (void)option;
    option_read_one(reader, &word, index, &keep);
    *(bool *)field = keep == 1;
}

static void declare_read_access_log(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_settings *settings = field;
    (void)option;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index)) {
        settings->access_to = NULL;
        return;
    }
    if (option_is_table(reader, index, "a table like { to = \"stdout\" }, or false"))
        option_read_table(reader, index, option_access_log, settings, NULL, NULL, 0);
}

/* access_log.to: a file's path is relative to where the process runs, as a shell would have it. */
const struct option option_access_log[] = {
    {.key = "to", .type = OPTION_TEXT, .offset = offsetof(struct config_settings, access_to), .fallback = "\"stdout\"",
     .help = "where to: stdout, stderr or a file's path"},
    {.key = "format", .type = OPTION_WORD, .words = "json combined", .offset = offsetof(struct config_settings, access_format),
     .fallback = "\"json\"", .help = "json: one object a line, two for a tunnel; combined: as other web servers write"},
    {.key = "query", .type = OPTION_BOOL, .offset = offsetof(struct config_settings, access_query), .fallback = "false",
     .help = "log query strings too: they often hold secrets"},
    {.key = NULL},
};

#define FIELD(name) .offset = offsetof(struct config_settings, name)
const struct option option_settings[] = {
    {.key = "workers", .type = OPTION_READ, .read = declare_read_workers, FIELD(workers), .fallback = "\"auto\"",
     .help = "threads that carry traffic; auto: by affinity mask and cgroup quota"},
    {.key = "user", .type = OPTION_TEXT, FIELD(user), .fallback = "none", .help = "become this user after the listeners are open"},
    {.key = "group", .type = OPTION_TEXT, FIELD(group), .fallback = "the user's", .help = "and this group"},
    {.key = "access_log", .type = OPTION_READ, .read = declare_read_access_log, .fallback = "{ to = \"stdout\" }",
     .help = "to, format, query; false: none"},
    {.key = "log_level", .type = OPTION_WORD, .words = "error warn info debug", FIELD(log_level), .fallback = "\"info\"",
     .help = "the least that is said on standard error"},
    {.key = "trusted_proxies", .type = OPTION_READ, .read = option_read_cidrs, FIELD(trusted_proxies), .fallback = "none",
     .help = "peers whose forwarding headers are believed: blocks of addresses"},
    {.key = "rule_cpu", .type = OPTION_DURATION, FIELD(rule_cpu_ms), .fallback = "\"20ms\"", .max = 60000,
     .help = "processor time that one call of a function may take"},
    {.key = "rule_deadline", .type = OPTION_DURATION, FIELD(rule_deadline_ms), .fallback = "\"5s\"", .help = "time that one call may take with its waits"},
    {.key = "lua_memory", .type = OPTION_SIZE, FIELD(lua_memory), .min = 1 << 20, .fallback = "\"64m\"", .help = "memory of Lua, a worker"},
    {.key = "drain_timeout", .type = OPTION_DURATION, FIELD(drain_timeout_ms), .fallback = "\"60s\"",
     .help = "how long requests and tunnels may go on after SIGTERM"},
    {.key = "max_connections", .type = OPTION_COUNT, FIELD(max_connections), .min = 1, .max = 100000000, .fallback = "by descriptors",
     .help = "client connections at once"},
    {.key = "via", .type = OPTION_READ, .read = option_read_host, FIELD(via), .none = true, .fallback = "false", .help = "name to add in Via"},
    {.key = "underscore_headers", .type = OPTION_WORD, .words = "drop reject pass", FIELD(underscores), .fallback = "\"drop\"",
     .help = "header names with an underscore"},
    {.key = "nameservers", .type = OPTION_READ, .read = declare_read_nameservers, FIELD(nameservers), .fallback = "of resolv.conf",
     .help = "who resolves names of servers: addresses, port 53 unless written"},
    {.key = "admin", .type = OPTION_LATER},
    {.key = "drain_window", .type = OPTION_LATER},
    {.key = "error_pages", .type = OPTION_READ, .read = declare_read_pages, .fallback = "none",
     .help = "[503] = \"503.html\" or a text: what answers of our own hold"},
    {.key = NULL},
};
#undef FIELD

/* listener tls{}: read here, then copied where it belongs. */
struct declare_tls {
    char *cert, *key, *name;
    unsigned min;
    struct config_certificate *list;
    unsigned count;
    char *client_ca;
    enum config_client_cert client_cert;
    bool client_cert_set;
};

static const struct option declare_certificate[] = {
    {.key = "cert", .type = OPTION_PATH, .offset = offsetof(struct config_certificate, cert)},
    {.key = "key", .type = OPTION_PATH, .offset = offsetof(struct config_certificate, key)},
    {.key = "name", .type = OPTION_TEXT, .offset = offsetof(struct config_certificate, name)},
    {.key = NULL},
};

static void declare_check_pair(struct option_reader *reader, const char *cert, const char *key, unsigned mistakes) {
    if (reader->mistakes == mistakes && (!cert || !key))
        option_mistake(reader, "%s is missing", cert ? "key" : "cert");
}

static void declare_read_certificate(struct option_reader *reader, int index, struct config_certificate *certificate) {
    unsigned mistakes = reader->mistakes;
    if (!option_is_table(reader, index, "a table like { cert = \"a.pem\", key = \"a.key\" }"))
        return;
    option_read_table(reader, index, declare_certificate, certificate, NULL, NULL, 0);
    declare_check_pair(reader, certificate->cert, certificate->key, mistakes);
}

/* A list of { cert, key, name }, or a table whose keys are the names. */
static void declare_read_certificates(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct declare_tls *tls = field;
    lua_State *L = reader->L;
    (void)option;
    if (!option_is_table(reader, index, "a list of { cert, key }, or a table by server name"))
        return;
    script_push_sorted_keys(L, index);
    int keys = lua_gettop(L);
    size_t count = lua_rawlen(L, keys);
    tls->list = option_alloc(reader, count, sizeof(*tls->list));
    for (size_t i = 1; i <= count; i++, lua_settop(L, keys)) {
        struct config_certificate *certificate = &tls->list[tls->count];
        lua_rawgeti(L, keys, (lua_Integer)i);
        lua_pushvalue(L, -1);
        lua_rawget(L, index);
        bool named = lua_type(L, keys + 1) == LUA_TSTRING;
        size_t length = named ? option_enter(reader, lua_tostring(L, keys + 1)) : option_enter_index(reader, (lua_Integer)i);
        declare_read_certificate(reader, keys + 2, certificate);
        if (named && !certificate->name)
            certificate->name = option_copy(reader, span_of(lua_tostring(L, keys + 1)));
        for (char *p = certificate->name; p && *p; p++)
            *p = str_lower(*p);
        if (certificate->cert && certificate->key)
            tls->count++;
        option_leave(reader, length);
    }
    lua_settop(L, keys - 1);
}

static void declare_read_alpn_name(struct option_reader *reader, int index, unsigned i, void *owner) {
    (void)i;
    (void)owner;
    struct span text = option_text(reader, index, "\"http/1.1\"");
    if (text.p && !span_equal(text, SPAN("http/1.1")))
        option_later(reader, text.p);
}

static void declare_read_alpn(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    (void)field;
    option_read_list(reader, index, declare_read_alpn_name, NULL);
}

static void declare_read_client_cert(struct option_reader *reader, const struct option *option, int index, void *field) {
    static const struct option word = {.key = "client_cert", .type = OPTION_WORD, .words = "none ask require"};
    struct declare_tls *tls = field;
    unsigned mode = 0;
    (void)option;
    option_read_one(reader, &word, index, &mode);
    tls->client_cert = (enum config_client_cert)mode;
    tls->client_cert_set = true;
}

/* A CA that nobody is checked against would look like protection: so it means "require" unless the file says otherwise. */
static void declare_client_cert(struct option_reader *reader, const struct declare_tls *tls, struct config_listener *listener) {
    enum config_client_cert mode = tls->client_cert;
    if (!tls->client_cert_set && tls->client_ca)
        mode = CONFIG_CLIENT_CERT_REQUIRE;
    if (mode != CONFIG_CLIENT_CERT_NONE && !tls->client_ca)
        option_mistake(reader, "client_cert needs client_ca: who may sign clients' certificates");
    else if (mode != CONFIG_CLIENT_CERT_NONE)
        listener->client_ca = tls->client_ca;
    listener->client_cert = listener->client_ca ? mode : CONFIG_CLIENT_CERT_NONE;
}

const struct option option_listener_tls[] = {
    {.key = "cert", .type = OPTION_PATH, .offset = offsetof(struct declare_tls, cert), .fallback = "-",
     .help = "certificate chain, PEM; relative to this file's folder"},
    {.key = "key", .type = OPTION_PATH, .offset = offsetof(struct declare_tls, key), .fallback = "-", .help = "its private key, PEM"},
    {.key = "certs", .type = OPTION_READ, .read = declare_read_certificates, .fallback = "none",
     .help = "more certificates: a list of {cert, key, name}, or a table by server name (SNI)"},
    {.key = "min", .type = OPTION_WORD, .words = "1.2 1.3", .offset = offsetof(struct declare_tls, min), .fallback = "\"1.2\"",
     .help = "lowest version of TLS"},
    {.key = "alpn", .type = OPTION_READ, .read = declare_read_alpn, .fallback = "\"http/1.1\"", .help = "protocols offered"},
    {.key = "client_ca", .type = OPTION_PATH, .offset = offsetof(struct declare_tls, client_ca), .fallback = "none",
     .help = "who may sign clients' certificates, PEM"},
    {.key = "client_cert", .type = OPTION_READ, .read = declare_read_client_cert, .fallback = "require with client_ca, else none",
     .help = "a client's certificate: \"none\", \"ask\" (rules judge by req.tls.cert) or \"require\" (a valid one)"},
    {.key = NULL},
};

static void declare_read_listener_tls(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_listener *listener = field;
    struct declare_tls tls = {0};
    unsigned mistakes = reader->mistakes;
    static const char *const versions[] = {"1.2", "1.3"};
    (void)option;
    if (lua_isboolean(reader->L, index) && !lua_toboolean(reader->L, index))
        return;
    if (!option_is_table(reader, index, "a table like { cert = \"a.pem\", key = \"a.key\" }"))
        return;
    listener->tls = true;
    option_read_table(reader, index, option_listener_tls, &tls, NULL, NULL, 0);
    if (tls.cert || tls.key)
        declare_check_pair(reader, tls.cert, tls.key, mistakes);
    if (reader->mistakes == mistakes)
        declare_client_cert(reader, &tls, listener);
    listener->tls_min = option_copy(reader, span_of(versions[tls.min]));
    unsigned own = tls.cert && tls.key;
    listener->certificates = option_alloc(reader, own + tls.count, sizeof(*listener->certificates));
    if (own)
        listener->certificates[0] = (struct config_certificate){.cert = tls.cert, .key = tls.key};
    for (unsigned i = 0; i < tls.count; i++)
        listener->certificates[own + i] = tls.list[i];
    listener->certificate_count = own + tls.count;
    if (reader->mistakes > mistakes && listener->certificate_count == 0)
        listener->tls = false; /* said already: validation need not miss a certificate too */
}

static void declare_read_bind(struct option_reader *reader, int index, unsigned i, void *owner) {
    struct config_listener *listener = owner;
    struct span text = option_text(reader, index, "an address like \"0.0.0.0:80\", \"[::]:80\" or \"unix:/path\"");
    if (!text.p)
        return;
    (void)i;
    struct addr addr;
    if (!addr_parse(text, 0, &addr)) {
        bool no_port = addr_parse(text, 1, &addr);
        option_mistake(reader, no_port ? "\"%.80s\" has no port" : "\"%.80s\" is no address like \"0.0.0.0:80\", \"[::]:80\" or \"unix:/path\"",
                       text.p);
        return;
    }
    listener->binds[listener->bind_count] = addr;
    listener->bind_texts[listener->bind_count++] = option_copy(reader, text);
}

static void declare_read_binds(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_listener *listener = field;
    unsigned count = option_list_length(reader, index);
    (void)option;
    listener->binds = option_alloc(reader, count, sizeof(*listener->binds));
    listener->bind_texts = option_alloc(reader, count, sizeof(*listener->bind_texts));
    option_read_list(reader, index, declare_read_bind, listener);
}

#define FIELD(name) .offset = offsetof(struct config_listener, name)
const struct option option_listener[] = {
    {.key = "bind", .type = OPTION_READ, .read = declare_read_binds, .fallback = "-",
     .help = "one address or a list: \"0.0.0.0:80\", \"[::]:80\", \"unix:/path\""},
    {.key = "tls", .type = OPTION_READ, .read = declare_read_listener_tls, .fallback = "none", .help = "cert, key, certs, min, alpn, client_ca, client_cert"},
    {.key = "proxy_protocol_from", .type = OPTION_READ, .read = option_read_cidrs, FIELD(proxy_from), .fallback = "none",
     .help = "peers whose connections begin with a PROXY header: blocks of addresses"},
    {.key = "tls_timeout", .type = OPTION_DURATION, FIELD(tls_timeout_ms), .fallback = "\"10s\"", .help = "for the TLS handshake"},
    {.key = "header_timeout", .type = OPTION_DURATION, FIELD(header_timeout_ms), .fallback = "\"10s\"", .help = "for a whole head, absolute"},
    {.key = "body_timeout", .type = OPTION_DURATION, FIELD(body_timeout_ms), .none = true, .fallback = "\"30s\"",
     .help = "without a byte of the request's body"},
    {.key = "min_rate", .type = OPTION_COUNT32, FIELD(min_rate), .none = true, .fallback = "500",
     .help = "bytes a second over a window, while we wait on the client"},
    {.key = "send_timeout", .type = OPTION_DURATION, FIELD(send_timeout_ms), .none = true, .fallback = "\"30s\"",
     .help = "without the client taking a byte"},
    {.key = "idle_timeout", .type = OPTION_DURATION, FIELD(idle_timeout_ms), .none = true, .fallback = "\"75s\"", .help = "between requests"},
    {.key = "max_connections", .type = OPTION_COUNT, FIELD(max_connections), .min = 1, .max = 100000000, .fallback = "the settings'",
     .help = "client connections at once"},
    {.key = "max_target", .type = OPTION_SIZE32, FIELD(max_target), .min = 64, .max = 1 << 20, .fallback = "\"8k\"", .help = "request target (414)"},
    {.key = "max_header", .type = OPTION_SIZE32, FIELD(max_header), .min = 256, .max = 1 << 20, .fallback = "\"32k\"", .help = "whole head (431)"},
    {.key = "max_fields", .type = OPTION_COUNT16, FIELD(max_fields), .min = 1, .max = 900, .fallback = "100", .help = "header fields (431)"},
    {.key = "max_body", .type = OPTION_SIZE64, FIELD(max_body), .none = true, .fallback = "none", .help = "request body (413)"},
    {.key = "encoded_slash", .type = OPTION_READ, .read = declare_read_encoded_slash, FIELD(encoded_slash_keep), .fallback = "\"reject\"",
     .help = "%2F in a path"},
    {.key = "half_close", .type = OPTION_BOOL, FIELD(half_close), .fallback = "false",
     .help = "a client may end its sending side and still wait for the answer"},
    {.key = "tcp_keepalive", .type = OPTION_DURATION, FIELD(tcp_keepalive_ms), .min = 1000, .none = true, .fallback = "\"60s\"",
     .help = "probes of idle connections, to find peers that vanished"},
    {.key = "trusted_proxies", .type = OPTION_READ, .read = option_read_cidrs, FIELD(trusted_proxies), .fallback = "the settings'",
     .help = "peers whose forwarding headers are believed"},
    {.key = "request_headers", .type = OPTION_READ, .read = option_read_headers, FIELD(request_headers), .fallback = "none",
     .help = "set on what is forwarded; false removes"},
    {.key = "response_headers", .type = OPTION_READ, .read = option_read_headers, FIELD(response_headers), .fallback = "none",
     .help = "set on what is answered; false removes"},
    {.key = NULL},
};
#undef FIELD

void declare_settings(lua_State *L, int index, struct config_place place) {
    struct script_declare *declare = declare_of(L);
    struct option_reader reader;
    declare_start_reader(&reader, L, "settings", place);
    if (declare->has_settings) {
        option_mistake(&reader, "declared twice (first in %s:%d)", declare->settings_place.file, declare->settings_place.line);
        return;
    }
    declare->has_settings = true;
    declare->settings_place = place;
    option_read_table(&reader, index, option_settings, &declare->config->settings, NULL, NULL, 0);
}

void declare_listener(lua_State *L, int index, const char *name, struct config_place place) {
    struct script_declare *declare = declare_of(L);
    struct option_reader reader;
    char subject[96];
    snprintf(subject, sizeof(subject), "listener \"%s\"", name);
    declare_start_reader(&reader, L, subject, place);
    for (unsigned i = 0; i < declare->listener_count; i++)
        if (strcmp(declare->listeners[i].name, name) == 0)
            option_mistake(&reader, "declared twice (first in %s:%d)", declare->listeners[i].place.file, declare->listeners[i].place.line);
    struct config_listener listener;
    config_listener_defaults(&listener);
    listener.name = option_copy(&reader, span_of(name));
    listener.place = place;
    option_read_table(&reader, index, option_listener, &listener, NULL, NULL, 0);
    if (listener.bind_count == 0 && reader.mistakes == 0)
        option_mistake(&reader, "bind is missing: bind = \"0.0.0.0:80\"");
    void *list = declare->listeners;
    struct config_listener *entry = declare_grow(&list, &declare->listener_count, sizeof(*entry));
    declare->listeners = list;
    *entry = listener;
}
