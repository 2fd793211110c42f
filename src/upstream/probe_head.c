/* SPDX-License-Identifier: MIT */
/*
 * Where a probe goes and the head that it sends: what HTTP and WebSocket probes share. The headers of the configuration
 * come last and win over Host and User-Agent; what frames the request is never theirs.
 */
#include <string.h>

#include "base/str.h"
#include "upstream/probe_run.h"
#include "wire/http1.h"

struct addr probe_addr(const struct pool *pool, const struct server *server) {
    struct addr addr = server->addr;
    uint16_t port = pool->config->probe.port;
    if (port != 0 && addr.sa.any.sa_family == AF_INET)
        addr.sa.in.sin_port = htons(port);
    else if (port != 0 && addr.sa.any.sa_family == AF_INET6)
        addr.sa.in6.sin6_port = htons(port);
    return addr;
}

/* The configuration's headers win over ours. */
static bool probe_head_overrides(const struct config_probe *config, struct span name) {
    for (unsigned i = 0; i < config->headers.count; i++) {
        if (str_equal_nocase(config->headers.list[i].name, name))
            return true;
    }
    return false;
}

static bool probe_head_write_host(struct buf *out, const struct pool *pool, const struct server *server) {
    const struct config_probe *config = &pool->config->probe;
    if (config->host)
        return buf_printf(out, "Host: %s\r\n", config->host);
    bool tls = config->tls == 1 || (config->tls < 0 && pool->tls);
    uint16_t port = config->port ? config->port : server->port;
    bool v6 = strchr(server->host, ':') && server->host[0] != '[';
    bool plain = server->addr.sa.any.sa_family == AF_UNIX || port == 0 || port == (tls ? 443 : 80);
    if (!buf_printf(out, "Host: %s%s%s", v6 ? "[" : "", server->host, v6 ? "]" : ""))
        return false;
    return plain ? buf_append_text(out, "\r\n") : buf_printf(out, ":%u\r\n", (unsigned)port);
}

bool probe_head_write(struct buf *out, const struct pool *pool, const struct server *server, const char *method,
                      const char *lines) {
    const struct config_probe *config = &pool->config->probe;
    bool ok = buf_printf(out, "%s %s HTTP/1.1\r\n", method, config->path);
    if (!probe_head_overrides(config, SPAN("host")))
        ok = ok && probe_head_write_host(out, pool, server);
    if (!probe_head_overrides(config, SPAN("user-agent")))
        ok = ok && buf_append_text(out, "User-Agent: moongate-probe\r\n");
    ok = ok && buf_append_text(out, lines);
    for (unsigned i = 0; i < config->headers.count; i++) {
        const struct action_header *header = &config->headers.list[i];
        if (header->value.p)
            ok = ok && http1_write_field(out, header->name, header->value);
    }
    return ok && http1_write_end(out);
}

const char *probe_tls_hint(const char *detail) {
    return strstr(detail, "verif") ? "name who signed its certificate: tls = { ca = ... }" : "does it speak TLS there?";
}
