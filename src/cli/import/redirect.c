/* SPDX-License-Identifier: MIT */
/*
 * redirect: redirectConfigurations, to another listener or to a URL, with or without path and query. All are said as parts, so that the
 * status can stand beside them: a listener gives scheme, port and (a site of one name) host, a URL is cut up.
 *
 * The subtle thing: there, a target URL with a path of its own and `includePath` puts that path in front of the whole requested path; here the
 * star of a redirect is what the route's star took. So the pattern of the route stands between the two, and a rule of several paths is split.
 */
#include <stdio.h>

#include "base/addr.h"
#include "base/str.h"
#include "cli/import/arm.h"

struct redirect_url {
    bool tls;
    unsigned port; /* 0: none */
    const char *host, *path, *query; /* path "" or from its slash; query NULL: none */
};

static bool redirect_parse(struct arm *arm, const char *text, struct redirect_url *url) {
    *url = (struct redirect_url){.path = ""};
    size_t scheme = 7;
    if (str_starts(span_of(text), SPAN("https://"))) {
        url->tls = true;
        scheme = 8;
    } else if (!str_starts(span_of(text), SPAN("http://"))) {
        return false;
    }
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || strchr("\"\\*#", *p))
            return false;
    text += scheme;
    size_t n = strcspn(text, "/?");
    struct span host;
    uint16_t port = 0;
    if (n == 0 || memchr(text, '@', n) || !addr_split(span_make(text, n), &host, &port) || host.n == 0)
        return false;
    bool v6 = memchr(host.p, ':', host.n) != NULL;
    url->host = arm_format(arm, v6 ? "[%.*s]" : "%.*s", SPAN_ARGS(host));
    url->port = port;
    const char *query = strchr(text + n, '?');
    url->path = query ? arm_format(arm, "%.*s", (int)(query - text - (ptrdiff_t)n), text + n) : text + n;
    url->query = query && query[1] ? query + 1 : NULL;
    return true;
}

static unsigned redirect_status(struct arm *arm, json_t *redirect) {
    static const struct { const char *name; unsigned status; } types[] = {
        {"Permanent", 301}, {"Found", 302}, {"SeeOther", 303}, {"Temporary", 307}};
    const char *type = arm_text(arm, redirect, "redirectType");
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (arm_same(type, types[i].name))
            return types[i].status;
    arm_note(arm, "redirectConfiguration %s: its type is unknown: 302", arm_name(arm, redirect));
    return 302;
}

bool arm_redirect_splits(struct arm *arm, const char *name) {
    json_t *redirect = arm_find(arm, ARM_REDIRECTS, name);
    const char *target = redirect ? arm_text(arm, redirect, "targetUrl") : NULL;
    struct redirect_url url;
    return target && arm_true(arm, redirect, "includePath") && redirect_parse(arm, target, &url) && url.path[0] && strcmp(url.path, "/") != 0;
}

/* path and query, behind the other parts. */
static const char *redirect_end(struct arm *arm, json_t *redirect, const struct redirect_url *url, const char *pattern) {
    bool keep_path = arm_true(arm, redirect, "includePath"), keep_query = arm_true(arm, redirect, "includeQueryString");
    const char *base = url->path, *path = "", *query = "";
    size_t n = strlen(base);
    if (n > 0 && base[n - 1] == '/')
        base = arm_format(arm, "%.*s", (int)--n, base);
    if (!keep_path)
        path = arm_format(arm, ", path = %s", arm_quote(arm, *url->path ? url->path : "/"));
    else if (n > 0)
        path = arm_format(arm, ", path = %s", arm_quote(arm, arm_format(arm, "%s%s", base, pattern ? pattern : "/*")));
    if (url->query)
        query = arm_format(arm, ", query = %s", arm_quote(arm, url->query));
    else if (!keep_query)
        query = ", query = false";
    if (url->query && keep_query)
        arm_note(arm, "redirectConfiguration %s: the query of its target replaces the request's", arm_name(arm, redirect));
    return arm_format(arm, "%s%s, status = %u }", path, query, redirect_status(arm, redirect));
}

static const char *redirect_port(struct arm *arm, bool tls, unsigned port, bool source_tls) {
    bool usual = port == 0 || port == (tls ? 443u : 80u);
    return usual && tls != source_tls ? "" : arm_format(arm, ", port = %u", port ? port : tls ? 443 : 80);
}

const char *arm_redirect(struct arm *arm, const char *name, const char *path, bool source_tls) {
    json_t *redirect = arm_find(arm, ARM_REDIRECTS, name);
    const char *target = redirect ? arm_text(arm, redirect, "targetUrl") : NULL;
    const char *listener_name = redirect ? arm_reference(arm, redirect, "targetListener") : NULL;
    json_t *listener = arm_find(arm, ARM_LISTENERS, listener_name);
    struct redirect_url url = {.path = ""};
    if (listener) {
        arm_listener_target(arm, listener, &url.tls, &url.port, &url.host);
    } else if (!target || !redirect_parse(arm, target, &url)) {
        const char *said = target ? target : listener_name ? listener_name : "(not in the input)";
        arm_note(arm, "redirectConfiguration %s: where it leads is not known: %s", name, said);
        return "reply(502, \"this redirect was not imported\\n\")";
    }
    const char *host = url.host ? arm_format(arm, ", host = %s", arm_quote(arm, url.host)) : "";
    /* A URL without a port means the scheme's own, whatever the port that the request came to. */
    return arm_format(arm, "redirect { scheme = \"%s\"%s%s%s", url.tls ? "https" : "http", host,
                      redirect_port(arm, url.tls, url.port, source_tls), redirect_end(arm, redirect, &url, path));
}
