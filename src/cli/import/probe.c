/* SPDX-License-Identifier: MIT */
/*
 * probe: a backendHttpSettings' health check. Azure's own defaults are written out, since they differ from those here: Host 127.0.0.1, every
 * 30 s, 30 s to answer, 3 failures, up again after one good answer, 200 to 399. A probe of Azure gates WebSocket as it does here.
 */
#include "base/str.h"
#include "cli/import/arm.h"

#define PROBE_RANGES_MAX 16

static bool probe_range(struct span text) {
    const char *dash = memchr(text.p, '-', text.n);
    uint64_t low = 0, high = 0;
    struct span first = dash ? span_make(text.p, (size_t)(dash - text.p)) : text;
    struct span second = dash ? span_make(dash + 1, text.n - first.n - 1) : text;
    return str_parse_u63(str_trim(first), &low) && str_parse_u63(str_trim(second), &high) && low >= 100 && high <= 999 && low <= high;
}

/* The statuses that are healthy: texts. Notes go before the pool, so the list is made there too. */
static void probe_write_expect(struct arm *arm, json_t *match) {
    json_t *codes = match ? arm_list(arm, match, "statusCodes") : NULL, *code;
    struct buf list;
    unsigned count = 0;
    size_t i;
    buf_init(&list, 4096);
    json_array_foreach(codes, i, code) {
        json_t *value = arm_evaluate(arm, code);
        const char *text = json_is_integer(value) ? arm_format(arm, "%lld", (long long)json_integer_value(value)) : json_string_value(value);
        struct span rest = span_of(text), one;
        while (text && str_next_token(&rest, &one))
            if (probe_range(one) && count < PROBE_RANGES_MAX)
                buf_printf(&list, "%s\"%.*s\"", count++ ? ", " : "", SPAN_ARGS(one));
    }
    if (count == 0)
        arm_write(arm, "expect = \"200-399\"");
    else if (count == 1)
        arm_write(arm, "expect = %.*s", SPAN_ARGS(buf_span(&list)));
    else
        arm_write(arm, "expect = { %.*s }", SPAN_ARGS(buf_span(&list)));
    buf_release(&list);
}

/* What the probe sends as Host: its own, that of the settings, the server's (NULL), or Azure's 127.0.0.1. */
static const char *probe_host(struct arm *arm, json_t *probe, json_t *settings) {
    bool pick = probe && (arm_true(arm, probe, "pickHostNameFromBackendHttpSettings") || arm_true(arm, probe, "pickHostNameFromBackendSettings"));
    const char *own = probe && !pick ? arm_text(arm, probe, "host") : NULL;
    if (own)
        return own;
    if (arm_true(arm, settings, "pickHostNameFromBackendAddress"))
        return NULL;
    const char *named = arm_text(arm, settings, "hostName");
    return named ? named : "127.0.0.1";
}

static bool probe_path_valid(const char *path) {
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '#')
            return false;
    return *path == '/';
}

void arm_write_probe(struct arm *arm, json_t *settings) {
    const char *name = arm_reference(arm, settings, "probe");
    json_t *probe = arm_find(arm, ARM_PROBES, name), *match = probe ? arm_get(arm, probe, "match") : NULL;
    const char *protocol = probe ? arm_text(arm, probe, "protocol") : NULL, *path = probe ? arm_text(arm, probe, "path") : NULL;
    const char *host = probe_host(arm, probe, settings), *body = match ? arm_text(arm, match, "body") : NULL;
    unsigned every = probe ? arm_number(arm, probe, "interval", 1, 86400, 30) : 30;
    unsigned timeout = probe ? arm_number(arm, probe, "timeout", 1, 86400, 30) : 30;
    unsigned fall = probe ? arm_number(arm, probe, "unhealthyThreshold", 1, 100, 3) : 3;
    unsigned port = probe ? arm_number(arm, probe, "port", 1, 65535, 0) : 0;
    if (name && probe)
        arm_write(arm, "  probe = { -- %s\n", arm_quote_name(arm, name));
    else if (name)
        arm_write(arm, "  probe = { -- %s was not in the input: Azure's default\n", arm_quote_name(arm, name));
    else
        arm_write(arm, "  probe = { -- Azure's default\n");
    arm_write(arm, "    path = %s, ", arm_quote(arm, path && probe_path_valid(path) ? path : "/"));
    if (host)
        arm_write(arm, "host = %s, ", arm_quote(arm, host));
    if (port)
        arm_write(arm, "port = %u, ", port);
    if (protocol && arm_same(protocol, "https") != arm_same(arm_text(arm, settings, "protocol"), "https"))
        arm_write(arm, "tls = %s, ", arm_same(protocol, "https") ? "true" : "false");
    probe_write_expect(arm, match);
    if (body)
        arm_write(arm, ",\n    body = %s", arm_quote(arm, body));
    arm_write(arm, ",\n    every = \"%us\", timeout = \"%us\", fall = %u, rise = 1,\n  },\n", every, timeout, fall);
    if (probe && arm_number(arm, probe, "minServers", 1, 1000, 0) > 0)
        arm_write(arm, "  -- NOTE: minServers of the probe has no counterpart\n"), arm->notes++;
}
