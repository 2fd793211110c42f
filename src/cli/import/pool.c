/* SPDX-License-Identifier: MIT */
/*
 * pool: backendAddressPools with their backendHttpSettings and probes. A rule there joins addresses and settings; here a pool has
 * both, so each distinct pair becomes one pool. It keeps the addresses' name as long as they are used with one kind of settings.
 *
 * The subtle thing: what is not in the input still has to load, and must not send traffic anywhere by accident: unknown addresses become a
 * name under .invalid, which never resolves (RFC 6761), so such a pool answers 503 until somebody fills it in.
 */
#include <stdio.h>

#include "base/addr.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"
#include "script/load.h"

struct arm_pair {
    const char *pool, *settings, *name;
};

#define POOL_PAIRS_MAX 4096

static struct arm_pair *pool_find_pair(struct arm *arm, const char *pool, const char *settings) {
    for (unsigned i = 0; i < arm->pair_count; i++)
        if (arm_same(arm->pairs[i].pool, pool) && arm_same(arm->pairs[i].settings, settings))
            return &arm->pairs[i];
    return NULL;
}

void arm_add_pair(struct arm *arm, const char *pool, const char *settings) {
    if (pool_find_pair(arm, pool, settings) || arm->pair_count == POOL_PAIRS_MAX)
        return;
    arm->pairs[arm->pair_count++] = (struct arm_pair){.pool = pool, .settings = settings};
}

static void pool_collect(struct arm *arm, json_t *object, const char *pool_key, const char *settings_key) {
    const char *pool = arm_reference(arm, object, pool_key), *settings = arm_reference(arm, object, settings_key);
    if (pool)
        arm_add_pair(arm, pool, settings ? settings : "");
}

void arm_collect_pools(struct arm *arm) {
    arm->pairs = arena_alloc(&arm->memory, POOL_PAIRS_MAX * sizeof(*arm->pairs));
    if (!arm->pairs)
        mem_abort();
    arm_each_target(arm, pool_collect);
    for (unsigned i = 0; i < arm->pair_count; i++) {
        struct arm_pair *pair = &arm->pairs[i];
        json_t *found = arm_find(arm, ARM_BACKEND_POOLS, pair->pool);
        bool alone = true;
        for (unsigned j = 0; j < arm->pair_count; j++)
            alone = alone && (i == j || !arm_same(arm->pairs[j].pool, pair->pool));
        pair->name = found ? arm_name(arm, found) : pair->pool;
        if (!alone) /* a '/' is in no Azure name: it cannot meet another pool's */
            pair->name = arm_format(arm, "%s/%s", pair->name, *pair->settings ? pair->settings : "default");
    }
}

const char *arm_pool_name(struct arm *arm, const char *pool, const char *settings) {
    const struct arm_pair *pair = pool_find_pair(arm, pool, settings ? settings : "");
    return arm_quote_name(arm, pair ? pair->name : pool);
}

/* ".invalid" below a name that a host may have. */
static const char *pool_nowhere(struct arm *arm, const char *name) {
    char label[48];
    size_t n = 0;
    for (; name[n] && n < sizeof(label) - 1; n++)
        label[n] = strchr("-_", name[n]) || (str_lower(name[n]) >= 'a' && str_lower(name[n]) <= 'z') || (name[n] >= '0' && name[n] <= '9')
            ? name[n] : '-';
    label[n] = '\0';
    return arm_format(arm, "%s.invalid", n ? label : "pool");
}

static bool pool_host_valid(const char *host) {
    bool letters = false;
    struct addr_small ip;
    if (addr_parse_ip(span_of(host), &ip))
        return true;
    for (const char *p = host; *p; p++) {
        bool letter = (str_lower(*p) >= 'a' && str_lower(*p) <= 'z') || strchr("-_", *p);
        if (!letter && *p != '.' && !(*p >= '0' && *p <= '9'))
            return false;
        letters = letters || letter;
    }
    return letters && strlen(host) <= 253;
}

/* Addresses in their order, each once. */
static json_t *pool_addresses(struct arm *arm, const struct arm_pair *pair, json_t *pool) {
    json_t *list = arm_keep(arm, json_array()), *seen = arm_keep(arm, json_object()), *address;
    size_t i;
    json_array_foreach(pool ? arm_list(arm, pool, "backendAddresses") : NULL, i, address) {
        json_t *read = arm_evaluate(arm, address);
        const char *host = json_is_string(read) ? json_string_value(read) : arm_text(arm, read, "ipAddress");
        host = host ? host : arm_text(arm, read, "fqdn");
        if (!host || !pool_host_valid(host)) {
            arm_note(arm, "backendAddressPool %s: an address that is none was left out: %s", pair->pool, host ? host : "(unknown)");
        } else if (!json_object_get(seen, host)) {
            json_object_set_new(seen, host, json_true());
            json_array_append_new(list, json_string(host));
        }
    }
    if (json_array_size(list) > 0)
        return list;
    if (!pool)
        arm_note(arm, "backendAddressPool %s was not in the input: put its servers in. The name below never resolves", pair->pool);
    else
        arm_note(arm, "backendAddressPool %s names no address%s: put its servers in. The name below never resolves", pair->pool,
                 arm_get(arm, pool, "backendIPConfigurations") ? " (its members are network interfaces)" : "");
    json_array_append_new(list, json_string(pool_nowhere(arm, pair->pool)));
    return list;
}

static void pool_write_servers(struct arm *arm, json_t *addresses, unsigned port) {
    json_t *address;
    size_t i;
    arm_write(arm, "  servers = {");
    json_array_foreach(addresses, i, address) {
        const char *host = json_string_value(address);
        bool v6 = strchr(host, ':') != NULL;
        const char *text = v6 ? arm_format(arm, "[%s]:%u", host, port) : host;
        arm_write(arm, "%s%s", i ? ", " : " ", arm_quote(arm, text));
    }
    arm_write(arm, " }, port = %u,\n", port);
}

static bool pool_write_tls(struct arm *arm, json_t *settings, json_t *addresses, const char **ca_out) {
    bool old = false;
    json_t *roots = arm_list(arm, settings, "trustedRootCertificates");
    if (json_array_size(roots) == 0) {
        roots = arm_list(arm, settings, "authenticationCertificates");
        old = true;
    }
    *ca_out = NULL;
    if (json_array_size(roots) > 0) {
        json_t *holder = arm_keep(arm, json_pack("{s:O}", "ca", json_array_get(roots, 0)));
        const char *name = arm_reference(arm, holder, "ca");
        if (json_array_size(roots) > 1)
            arm_note(arm, "%zu certificates are trusted: put all of them into the file of the first", json_array_size(roots));
        if (old)
            arm_note(arm, "authenticationCertificates pin a server's own certificate; here the file holds what its chain ends in");
        if (name && !arm_trusted(arm, old ? ARM_AUTHENTICATION_CERTIFICATES : ARM_TRUSTED_ROOTS, name, ca_out))
            return false;
    }
    if (!arm_text(arm, settings, "hostName") && !arm_text(arm, settings, "sniName") && !arm_true(arm, settings, "pickHostNameFromBackendAddress")) {
        struct addr_small ip;
        const char *first = json_string_value(json_array_get(addresses, 0));
        if (addr_parse_ip(span_of(first), &ip))
            arm_note(arm, "the servers are verified by their addresses: name what their certificates say by tls = { sni = \"...\" }");
    }
    return true;
}

static void pool_write_tls_key(struct arm *arm, json_t *settings, const char *ca) {
    const char *sni = arm_text(arm, settings, "sniName");
    json_t *validate = arm_get(arm, settings, "validateCertChainAndExpiry");
    if (!sni)
        sni = arm_text(arm, settings, "hostName");
    if (!sni && !ca && !json_is_false(validate)) {
        arm_write(arm, "  tls = true,\n");
        return;
    }
    arm_write(arm, "  tls = {");
    const char *joint = " ";
    if (sni) {
        arm_write(arm, "%ssni = %s", joint, arm_quote(arm, sni));
        joint = ", ";
    }
    if (ca) {
        arm_write(arm, "%sca = %s", joint, arm_quote(arm, ca));
        joint = ", ";
    }
    if (json_is_false(validate))
        arm_write(arm, "%sverify = false", joint);
    arm_write(arm, " },\n");
}

/* A key that a build may not have yet: a note then. */
static bool pool_knows(struct arm *arm, const char *key, const char *what) {
    if (script_option_known("pool", key))
        return true;
    arm_note(arm, "%s has no counterpart in this version (pool: %s)", what, key);
    return false;
}

static void pool_write_settings(struct arm *arm, json_t *settings, bool affinity, unsigned drain_s) {
    unsigned timeout_s = arm_number(arm, settings, "requestTimeout", 1, 86400, 30);
    const char *host = arm_text(arm, settings, "hostName");
    if (arm_true(arm, settings, "pickHostNameFromBackendAddress"))
        arm_write(arm, "  host = \"server\",\n");
    else if (host)
        arm_write(arm, "  host = %s,\n", arm_quote(arm, host));
    arm_write(arm, "  response_timeout = \"%us\", upgrade_timeout = \"%us\",\n", timeout_s, timeout_s); /* a handshake is a request there */
    if (affinity) {
        const char *cookie = arm_text(arm, settings, "affinityCookieName");
        arm_write(arm, "  affinity = { cookie = %s },\n", arm_quote(arm, cookie ? cookie : "ApplicationGatewayAffinity"));
    }
    if (drain_s)
        arm_write(arm, "  drain_timeout = \"%us\",\n", drain_s);
}

static bool pool_write(struct arm *arm, const struct arm_pair *pair) {
    json_t *pool = arm_find(arm, ARM_BACKEND_POOLS, pair->pool), *settings = arm_find(arm, ARM_BACKEND_SETTINGS, pair->settings);
    arm_write(arm, "\n");
    bool there = settings != NULL;
    if (!there) {
        arm_note(arm, "backendHttpSettings %s were not in the input: HTTP on port 80 is a guess", *pair->settings ? pair->settings : "(none)");
        settings = arm_keep(arm, json_object());
    }
    bool tls = arm_same(arm_text(arm, settings, "protocol"), "https");
    unsigned port = arm_number(arm, settings, "port", 1, 65535, 0);
    if (there && !port)
        arm_note(arm, "backendHttpSettings %s: its port is unknown: %u is a guess", pair->settings, tls ? 443 : 80);
    json_t *addresses = pool_addresses(arm, pair, pool), *draining = arm_get(arm, settings, "connectionDraining");
    const char *ca = NULL;
    if (tls && !pool_write_tls(arm, settings, addresses, &ca))
        return false;
    bool affinity = arm_same(arm_text(arm, settings, "cookieBasedAffinity"), "enabled") && pool_knows(arm, "affinity", "cookieBasedAffinity");
    unsigned drain_s = draining && arm_true(arm, draining, "enabled") && pool_knows(arm, "drain_timeout", "connectionDraining")
        ? arm_number(arm, draining, "drainTimeoutInSec", 1, 86400, 60) : 0;
    if (arm_true(arm, settings, "dedicatedBackendConnection"))
        arm_note(arm, "dedicatedBackendConnection has no counterpart: a connection serves one client's requests at a time, then others'");
    if (there)
        arm_comment(arm, "backendAddressPool %s with backendHttpSettings %s", pair->pool, pair->settings);
    arm_write(arm, "pool %s {\n", arm_quote_name(arm, pair->name));
    pool_write_servers(arm, addresses, port ? port : tls ? 443 : 80);
    if (tls)
        pool_write_tls_key(arm, settings, ca);
    pool_write_settings(arm, settings, affinity, drain_s);
    arm_write_probe(arm, settings);
    arm_write(arm, "}\n");
    return true;
}

bool arm_write_pools(struct arm *arm) {
    json_t *pool;
    size_t i;
    for (unsigned at = 0; at < arm->pair_count; at++)
        if (!pool_write(arm, &arm->pairs[at]))
            return false;
    json_array_foreach(arm->sections[ARM_BACKEND_POOLS], i, pool) {
        bool used = false;
        for (unsigned at = 0; at < arm->pair_count; at++)
            used = used || arm_same(arm->pairs[at].pool, arm_name(arm, pool));
        if (!used) {
            arm_write(arm, "\n");
            arm_note(arm, "backendAddressPool %s is used by no rule and left out", arm_name(arm, pool));
        }
    }
    return true;
}
