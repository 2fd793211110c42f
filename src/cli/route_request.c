/* SPDX-License-Identifier: MIT */
/*
 * The request of `moongate route`: bytes of a head as curl, or a WebSocket client for ws:// and wss://, would send
 * them, so that from there on everything (guard, parser, routes) judges what live traffic would bring, bad requests
 * included.
 *
 * The subtle thing: nothing of the URL's path is tidied up here; tidying is the gateway's, and a rule may be tried
 * against "/a/../b".
 */
#include <string.h>

#include "base/addr.h"
#include "base/str.h"
#include "cli/route.h"

static struct span route_skip(struct span s, size_t n) { return span_make(s.p + n, s.n - n); }

static const char *route_url_scheme(struct span *rest, struct route_url *url) {
    static const struct {
        struct span prefix;
        bool tls, websocket;
    } schemes[] = {
        {{"http://", 7}, false, false},
        {{"https://", 8}, true, false},
        {{"ws://", 5}, false, true},
        {{"wss://", 6}, true, true},
    };
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        struct span prefix = schemes[i].prefix;
        if (rest->n >= prefix.n && str_equal_nocase(span_make(rest->p, prefix.n), prefix)) {
            url->tls = schemes[i].tls;
            url->websocket = schemes[i].websocket;
            *rest = route_skip(*rest, prefix.n);
            return NULL;
        }
    }
    const char *scheme = strstr(rest->p, "://"); /* the argument of main() ends with NUL */
    size_t front = strcspn(rest->p, "/?#");
    if (scheme && (size_t)(scheme - rest->p) < front)
        return "the scheme is not http, https, ws or wss";
    return NULL;
}

const char *route_url_parse(const char *text, struct route_url *url) {
    *url = (struct route_url){0};
    for (const char *p = text; *p; p++) /* would end the target, or the line, of the head that is made */
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return *p == ' ' ? "it holds a space (write %20)" : "it holds a control character (write it as %XX)";
    struct span rest = span_of(text);
    const char *problem = route_url_scheme(&rest, url);
    if (problem)
        return problem;
    size_t n = strcspn(rest.p, "/?#");
    url->authority = span_make(rest.p, n);
    rest = route_skip(rest, n);
    const char *fragment = memchr(rest.p, '#', rest.n);
    url->target = span_make(rest.p, fragment ? (size_t)(fragment - rest.p) : rest.n);
    if (url->authority.n == 0)
        return "it names no host";
    if (memchr(url->authority.p, '@', url->authority.n))
        return "a user name has no place in it (use -H 'Authorization: ...')";
    if (!addr_split(url->authority, &url->host, &url->port))
        return "host and port are malformed";
    return NULL;
}

/* Whether some -H speaks of this field: then our own line is left out. */
static bool route_names_field(const struct route_options *options, struct span name) {
    for (unsigned i = 0; i < options->field_count; i++) {
        size_t n = strcspn(options->fields[i], ":;");
        if (str_equal_nocase(span_make(options->fields[i], n), name))
            return true;
    }
    return false;
}

static bool route_write_default(struct buf *out, const struct route_options *options, const char *name,
                                struct span value) {
    if (route_names_field(options, span_of(name)))
        return true;
    return http1_write_field(out, span_of(name), value);
}

static bool route_write_handshake(struct buf *out, const struct route_options *options) {
    char key[25];
    upgrade_make_key(key);
    return route_write_default(out, options, "Connection", SPAN("Upgrade")) &&
        route_write_default(out, options, "Upgrade", SPAN("websocket")) &&
        route_write_default(out, options, "Sec-WebSocket-Version", SPAN("13")) &&
        route_write_default(out, options, "Sec-WebSocket-Key", span_of(key));
}

/* The -H options as curl takes them: "Name: value", "Name:" only takes ours away, "Name;" sends an empty one. */
static bool route_write_options(struct buf *out, const struct route_options *options) {
    for (unsigned i = 0; i < options->field_count; i++) {
        const char *text = options->fields[i];
        size_t n = strcspn(text, ":;");
        struct span value = text[n] ? str_trim(span_of(text + n + 1)) : SPAN("");
        if (text[n] == ';' &&
            value.n > 0) { /* no empty field but a name with a semicolon in it: the guard's to judge */
            if (!buf_append_text(out, text) || !buf_append(out, "\r\n", 2))
                return false;
            continue;
        }
        if (text[n] == ':' && value.n == 0)
            continue;
        if (!http1_write_field(out, span_make(text, n), value))
            return false;
    }
    return true;
}

bool route_write_head(struct buf *out, const struct route_options *options, const struct route_url *url) {
    const char *method = options->method ? options->method : "GET";
    const char *slash = url->target.n > 0 && url->target.p[0] == '/' ? "" : "/";
    return buf_append_text(out, method) && buf_append_text(out, " ") && buf_append_text(out, slash) &&
        buf_append_span(out, url->target) && buf_append_text(out, " HTTP/1.1\r\n") &&
        route_write_default(out, options, "Host", url->authority) &&
        route_write_default(out, options, "User-Agent", SPAN("moongate-route")) &&
        route_write_default(out, options, "Accept", SPAN("*/*")) &&
        (!url->websocket || route_write_handshake(out, options)) && route_write_options(out, options) &&
        http1_write_end(out);
}

static bool route_has_port(const struct config_listener *listener, uint16_t port) {
    for (unsigned i = 0; i < listener->bind_count; i++)
        if (addr_port(&listener->binds[i]) == port)
            return true;
    return false;
}

const struct config_listener *route_choose_listener(const struct config *config, const struct route_options *options,
                                                    const struct route_url *url) {
    uint16_t port = url->port ? url->port : (url->tls ? 443 : 80);
    if (options->listener)
        return config_find_listener(config, options->listener);
    for (unsigned i = 0; i < config->listener_count; i++)
        if (config->listeners[i].tls == url->tls && route_has_port(&config->listeners[i], port))
            return &config->listeners[i];
    if (url->port)
        return NULL;
    for (unsigned i = 0; i < config->listener_count; i++)
        if (config->listeners[i].tls == url->tls)
            return &config->listeners[i];
    return config->listener_count > 0 ? &config->listeners[0] : NULL;
}

uint16_t route_local_port(const struct config_listener *listener, const struct route_url *url) {
    uint16_t port = url->port ? url->port : (url->tls ? 443 : 80);
    if (route_has_port(listener, port) || listener->bind_count == 0)
        return port;
    return addr_port(&listener->binds[0]);
}
