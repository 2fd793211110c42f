/* SPDX-License-Identifier: MIT */
/*
 * listener: httpListeners with their frontends, ports and certificates. There, sites share a port as several httpListeners; here a port
 * is one listener, its routes name the hosts, and its certificates are chosen by server name. So httpListeners are grouped by address and port.
 *
 * The subtle thing is a private frontend: bound to every address it would be open to the world. It gets its own address, and where
 * that cannot stand beside the public one on the same port, a unix socket until somebody who knows the machine decides.
 */
#include <stdio.h>

#include "base/addr.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"

struct arm_group {
    const char *name, *address;
    json_t *listeners;
    unsigned port;
    bool tls, is_private, clash, dynamic;
};

json_t *arm_hosts(struct arm *arm, json_t *listener) {
    json_t *hosts = arm_list(arm, listener, "hostNames");
    if (json_array_size(hosts) == 0)
        hosts = arm_list(arm, listener, "hostName");
    json_t *texts = arm_keep(arm, json_array()), *host;
    size_t i;
    json_array_foreach(hosts, i, host) {
        const char *text = json_string_value(arm_evaluate(arm, host));
        if (text && *text)
            json_array_append_new(texts, json_string(text));
    }
    return texts;
}

bool arm_host_plain(const char *host) {
    if (strncmp(host, "*.", 2) == 0)
        host += 2;
    for (const char *p = host; *p; p++)
        if (!strchr("-._", *p) && !(str_lower(*p) >= 'a' && str_lower(*p) <= 'z') && !(*p >= '0' && *p <= '9'))
            return false;
    return *host != '\0';
}

static bool listener_tls(struct arm *arm, json_t *listener) {
    const char *protocol = arm_text(arm, listener, "protocol");
    return arm_same(protocol, "https") || arm_same(protocol, "tls") || (!protocol && arm_get(arm, listener, "sslCertificate"));
}

/* By its frontendPort; by the digits of the port's name where it was not pasted; by the protocol. */
static unsigned listener_port(struct arm *arm, json_t *listener, const char **guess) {
    const char *name = arm_reference(arm, listener, "frontendPort");
    json_t *port = arm_find(arm, ARM_FRONTEND_PORTS, name);
    unsigned number = port ? arm_number(arm, port, "port", 1, 65535, 0) : 0;
    *guess = NULL;
    if (number)
        return number;
    const char *digits = name ? name + strlen(name) : "";
    while (name && digits > name && digits[-1] >= '0' && digits[-1] <= '9')
        digits--;
    uint64_t value = 0;
    *guess = name ? name : "(none)";
    if (*digits && str_parse_u63(span_of(digits), &value) && value > 0 && value < 65536)
        return (unsigned)value;
    return listener_tls(arm, listener) ? 443 : 80;
}

static void listener_add_frontend(json_t *names, const char *name) {
    json_t *known;
    size_t i;
    json_array_foreach(names, i, known) {
        if (arm_same(json_string_value(known), name))
            return;
    }
    if (name)
        json_array_append_new(names, json_string(name));
}

/* Those of the list, and those that httpListeners name where the list was not pasted. */
static json_t *listener_frontends(struct arm *arm) {
    json_t *names = arm_keep(arm, json_array()), *object;
    size_t i;
    json_array_foreach(arm->sections[ARM_FRONTEND_IPS], i, object) {
        listener_add_frontend(names, arm_name(arm, object));
    }
    json_array_foreach(arm->sections[ARM_LISTENERS], i, object) {
        listener_add_frontend(names, arm_reference(arm, object, "frontendIPConfiguration"));
    }
    return names;
}

static void listener_unknown_frontend(struct arm *arm, struct span frontend, json_t *names) {
    struct buf known;
    json_t *name;
    size_t i;
    buf_init(&known, 1 << 20);
    json_array_foreach(names, i, name) {
        buf_printf(&known, "%s%s", i ? ", " : "", json_string_value(name));
    }
    (void)snprintf(arm->error, sizeof(arm->error), "--bind: no frontendIPConfiguration %.*s: there is %.*s", SPAN_ARGS(frontend),
                   buf_empty(&known) ? 4 : (int)known.len, buf_empty(&known) ? "none" : buf_span(&known).p);
    buf_release(&known);
}

bool arm_check_binds(struct arm *arm) {
    json_t *names = listener_frontends(arm), *name;
    size_t i;
    for (unsigned bind = 0; bind < arm->options.bind_count; bind++) {
        const char *text = arm->options.binds[bind], *equals = strchr(text, '=');
        struct span frontend = span_make(text, equals ? (size_t)(equals - text) : 0);
        bool found = !equals;
        json_array_foreach(names, i, name) {
            found = found || str_equal_nocase(frontend, span_of(json_string_value(name)));
        }
        if (!found) {
            listener_unknown_frontend(arm, frontend, names);
            return false;
        }
    }
    return true;
}

/* As named on the command line for this frontend, or for all public ones; NULL: not named. */
static const char *listener_named_bind(struct arm *arm, const char *frontend, bool is_private) {
    const char *any = NULL;
    for (unsigned i = 0; i < arm->options.bind_count; i++) {
        const char *text = arm->options.binds[i], *equals = strchr(text, '=');
        if (!equals)
            any = is_private ? NULL : text;
        else if (frontend && str_equal_nocase(span_make(text, (size_t)(equals - text)), span_of(frontend)))
            return equals + 1;
    }
    return any;
}

/* Where the group listens; private frontends are told apart from public ones. */
static void listener_place(struct arm *arm, json_t *listener, struct arm_group *group) {
    const char *name = arm_reference(arm, listener, "frontendIPConfiguration");
    json_t *frontend = arm_find(arm, ARM_FRONTEND_IPS, name);
    const char *address = frontend ? arm_text(arm, frontend, "privateIPAddress") : NULL;
    struct addr_small ip;
    group->is_private = frontend && !arm_get(arm, frontend, "publicIPAddress") && (address || arm_get(arm, frontend, "subnet"));
    const char *named = listener_named_bind(arm, name, group->is_private);
    if (named)
        group->address = named;
    else if (!group->is_private)
        group->address = "0.0.0.0";
    else if (address && addr_parse_ip(span_of(address), &ip))
        group->address = address;
    else {
        group->address = "127.0.0.1";
        group->dynamic = true;
    }
}

static const char *listener_group_name(struct arm *arm, const struct arm_group *group) {
    json_t *first = json_array_get(group->listeners, 0);
    if (json_array_size(group->listeners) == 1)
        return arm_name(arm, first);
    const char *port = arm_reference(arm, first, "frontendPort");
    const char *name = port ? port : arm_format(arm, "port-%u", group->port);
    for (unsigned i = 0; i < arm->group_count; i++)
        if (&arm->groups[i] != group && arm_same(arm->groups[i].name, name))
            name = arm_format(arm, "%s-%s", name, group->address);
    return arm_find(arm, ARM_LISTENERS, name) ? arm_format(arm, "%s-shared", name) : name;
}

void arm_collect_listeners(struct arm *arm) {
    size_t count = json_array_size(arm->sections[ARM_LISTENERS]), i;
    json_t *listener;
    arm->groups = arena_alloc(&arm->memory, (count + 1) * sizeof(*arm->groups));
    if (!arm->groups)
        mem_abort();
    json_array_foreach(arm->sections[ARM_LISTENERS], i, listener) {
        const char *guess;
        struct arm_group group = {.port = listener_port(arm, listener, &guess), .tls = listener_tls(arm, listener)};
        listener_place(arm, listener, &group);
        unsigned at = 0;
        while (at < arm->group_count && !(arm->groups[at].port == group.port && arm_same(arm->groups[at].address, group.address)))
            at++;
        if (at == arm->group_count) {
            group.listeners = arm_keep(arm, json_array());
            arm->groups[arm->group_count++] = group;
        }
        json_array_append(arm->groups[at].listeners, listener);
    }
    for (unsigned at = 0; at < arm->group_count; at++) {
        struct arm_group *group = &arm->groups[at];
        for (unsigned other = 0; other < arm->group_count; other++)
            group->clash = group->clash || (other != at && arm->groups[other].port == group->port &&
                                            (strcmp(arm->groups[other].address, "0.0.0.0") == 0));
        group->name = listener_group_name(arm, group);
    }
}

static struct arm_group *listener_group(struct arm *arm, json_t *listener) {
    for (unsigned i = 0; i < arm->group_count; i++)
        for (size_t j = 0; j < json_array_size(arm->groups[i].listeners); j++)
            if (json_array_get(arm->groups[i].listeners, j) == listener)
                return &arm->groups[i];
    return NULL;
}

const char *arm_listener_name(struct arm *arm, json_t *listener) {
    const struct arm_group *group = listener_group(arm, listener);
    return arm_quote_name(arm, group ? group->name : arm_name(arm, listener));
}

void arm_listener_target(struct arm *arm, json_t *listener, bool *tls, unsigned *port, const char **host) {
    const char *guess;
    json_t *hosts = arm_hosts(arm, listener);
    const char *only = json_array_size(hosts) == 1 ? json_string_value(json_array_get(hosts, 0)) : NULL;
    *tls = listener_tls(arm, listener);
    *port = listener_port(arm, listener, &guess);
    *host = only && arm_host_plain(only) && only[0] != '*' ? only : NULL;
}

/* The lowest version that an sslPolicy asks for; NULL where it is what is the default here. */
static const char *listener_tls_min(struct arm *arm, json_t *policy) {
    const char *min = arm_text(arm, policy, "minProtocolVersion"), *name = arm_text(arm, policy, "policyName");
    if (arm_get(arm, policy, "cipherSuites"))
        arm_note(arm, "sslPolicy names cipher suites: here it is TLS 1.2 and 1.3 with AEAD suites only");
    if (arm_same(min, "TLSv1_3"))
        return "1.3";
    if (arm_same(min, "TLSv1_0") || arm_same(min, "TLSv1_1") || arm_same(name, "AppGwSslPolicy20150501") ||
        arm_same(name, "AppGwSslPolicy20170401"))
        arm_note(arm, "sslPolicy allows TLS 1.0 or 1.1: 1.2 is the lowest here");
    return NULL;
}

static json_t *listener_policy(struct arm *arm, json_t *listener) {
    json_t *profile = arm_find(arm, ARM_SSL_PROFILES, arm_reference(arm, listener, "sslProfile"));
    json_t *policy = profile ? arm_get(arm, profile, "sslPolicy") : NULL;
    if (!policy && arm->gateway)
        policy = arm_get(arm, arm->gateway, "sslPolicy");
    return policy;
}

/* { cert, key } for each server name of the other httpListeners on the port. */
static bool listener_write_names(struct arm *arm, const struct arm_group *group, json_t *first, const char *default_name) {
    json_t *seen = arm_keep(arm, json_object()), *listener, *host;
    size_t i, j;
    bool open = false;
    json_array_foreach(group->listeners, i, listener) {
        const char *name = arm_reference(arm, listener, "sslCertificate"), *cert, *key;
        if (listener == first || !name || arm_same(name, default_name))
            continue;
        if (!arm_certificate(arm, name, &cert, &key))
            return false;
        json_array_foreach(arm_hosts(arm, listener), j, host) {
            const char *text = json_string_value(host);
            if (!arm_host_plain(text) || json_object_get(seen, text))
                continue;
            json_object_set_new(seen, text, json_true());
            arm_write(arm, "%s      [%s] = { cert = %s, key = %s },\n", open ? "" : ",\n    certs = {\n", arm_quote(arm, text),
                      arm_quote(arm, cert), arm_quote(arm, key));
            open = true;
        }
    }
    arm_write(arm, "%s", open ? "    }" : "");
    return true;
}

/* All certificates of the group are asked for first: their notes stand before the declaration. */
static bool listener_prepare_certificates(struct arm *arm, const struct arm_group *group) {
    json_t *listener;
    size_t i;
    json_array_foreach(group->listeners, i, listener) {
        const char *name = arm_reference(arm, listener, "sslCertificate"), *cert, *key;
        if (!name)
            arm_note(arm, "httpListener %s has no sslCertificate: name one below", arm_name(arm, listener));
        if (!arm_certificate(arm, name ? name : arm_name(arm, listener), &cert, &key))
            return false;
    }
    return true;
}

/* A site without host names answers for all others, so its certificate is the default. */
static json_t *listener_default(struct arm *arm, const struct arm_group *group) {
    json_t *listener;
    size_t i;
    json_array_foreach(group->listeners, i, listener) {
        if (json_array_size(arm_hosts(arm, listener)) == 0)
            return listener;
    }
    return json_array_get(group->listeners, 0);
}

static bool listener_write_tls(struct arm *arm, const struct arm_group *group, const char *min, const char *client_ca) {
    json_t *first = listener_default(arm, group);
    const char *name = arm_reference(arm, first, "sslCertificate"), *cert, *key;
    name = name ? name : arm_name(arm, first);
    if (!arm_certificate(arm, name, &cert, &key))
        return false;
    arm_write(arm, "  tls = {\n    cert = %s, key = %s", arm_quote(arm, cert), arm_quote(arm, key));
    if (min)
        arm_write(arm, ", min = \"%s\"", min);
    if (client_ca)
        arm_write(arm, ", client_ca = %s, client_cert = \"require\"", arm_quote(arm, client_ca));
    if (!listener_write_names(arm, group, first, name))
        return false;
    arm_write(arm, ",\n  },\n");
    return true;
}

/* A profile that asks clients for certificates: dropping that would open a door, so the placeholder stops the load instead. */
static bool listener_client_ca(struct arm *arm, const struct arm_group *group, const char **path) {
    json_t *listener;
    size_t i;
    *path = NULL;
    json_array_foreach(group->listeners, i, listener) {
        const char *name = arm_reference(arm, listener, "sslProfile");
        json_t *profile = arm_find(arm, ARM_SSL_PROFILES, name);
        json_t *trusted = profile ? arm_list(arm, profile, "trustedClientCertificates") : NULL;
        if (json_array_size(trusted) == 0)
            continue;
        json_t *holder = arm_keep(arm, json_pack("{s:O}", "ca", json_array_get(trusted, 0)));
        const char *ca = arm_reference(arm, holder, "ca");
        if (json_array_size(trusted) > 1)
            arm_note(arm, "sslProfile %s trusts %zu certificates: put all of them into the file of the first", name, json_array_size(trusted));
        if (json_array_size(group->listeners) > 1)
            arm_note(arm, "sslProfile %s: client certificates are asked for on all sites of this port", name);
        return arm_trusted(arm, ARM_TRUSTED_CLIENTS, ca ? ca : name, path);
    }
    return true;
}

static void listener_write_notes(struct arm *arm, const struct arm_group *group) {
    json_t *listener;
    size_t i;
    json_array_foreach(group->listeners, i, listener) {
        const char *guess, *name = arm_name(arm, listener);
        unsigned port = listener_port(arm, listener, &guess);
        if (guess)
            arm_note(arm, "httpListener %s: its frontendPort %s was not in the input; port %u is a guess", name, guess, port);
        if (listener_tls(arm, listener) != group->tls)
            arm_note(arm, "httpListener %s: HTTP and HTTPS on one port; this is %s", name, group->tls ? "HTTPS" : "HTTP");
        if (arm_get(arm, listener, "firewallPolicy"))
            arm_note(arm, "httpListener %s: its firewallPolicy (WAF) has no counterpart", name);
        if (json_array_size(arm_list(arm, listener, "customErrorConfigurations")) > 0)
            arm_note(arm, "httpListener %s: customErrorConfigurations are pages elsewhere: save them as files and name them in settings { "
                     "error_pages = { [502] = \"502.html\" } }", name);
    }
    if (group->dynamic)
        arm_note(arm, "a private frontend whose address is not in the input: 127.0.0.1 until you know better");
    else if (group->is_private)
        arm_note(arm, "a private frontend: bound to that address of this machine alone");
    if (group->is_private && group->clash)
        arm_note(arm, "a public listener takes port %u on every address: bind that one to its own address (or import with --bind), and "
                 "this one to %s:%u", group->port, group->address, group->port);
}

static bool listener_write(struct arm *arm, const struct arm_group *group) {
    json_t *listener;
    size_t i;
    const char *client_ca = NULL;
    arm_write(arm, "\n");
    if (json_array_size(group->listeners) > 1) {
        struct buf names;
        buf_init(&names, 1 << 20);
        json_array_foreach(group->listeners, i, listener) {
            buf_printf(&names, "%s%s", i ? ", " : "", arm_name(arm, listener));
        }
        arm_comment(arm, "httpListeners on one port: %.*s", SPAN_ARGS(buf_span(&names)));
        buf_release(&names);
    }
    listener_write_notes(arm, group);
    json_t *policy = listener_policy(arm, json_array_get(group->listeners, 0));
    const char *min = group->tls && policy ? listener_tls_min(arm, policy) : NULL;
    if (group->tls && (!listener_prepare_certificates(arm, group) || !listener_client_ca(arm, group, &client_ca)))
        return false;
    const char *bracket = strchr(group->address, ':') ? "[" : "";
    arm_write(arm, "listener %s {\n", arm_quote_name(arm, group->name));
    if (group->is_private && group->clash)
        arm_write(arm, "  bind = %s,\n", arm_quote(arm, arm_format(arm, "unix:/run/moongate/%s.sock", group->name)));
    else
        arm_write(arm, "  bind = %s,\n", arm_quote(arm, arm_format(arm, "%s%s%s:%u", bracket, group->address, *bracket ? "]" : "", group->port)));
    if (group->tls && !listener_write_tls(arm, group, min, client_ca))
        return false;
    arm_write(arm, "}\n");
    return true;
}

bool arm_write_listeners(struct arm *arm) {
    for (unsigned i = 0; i < arm->group_count; i++)
        if (!listener_write(arm, &arm->groups[i]))
            return false;
    return true;
}
