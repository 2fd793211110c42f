/* SPDX-License-Identifier: MIT */
/*
 * arm: an import from reading to the written file. Every file's values are searched for resources of the gateway's type; where there is
 * none, the lists that have a gateway's names are taken wherever they stand (fragments). Several files add up: a template and its parameters, or
 * fragments one by one.
 *
 * The subtle thing: a template may hold other resources with lists of the same names (a load balancer's probes), so with a gateway only
 * its own are read, and without one no other resource is entered.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"

#define ARM_TEXT_MAX ((size_t)64 << 20)
#define ARM_DEPTH_MAX 100

static const char *const arm_section_names[ARM_SECTIONS][3] = {
    [ARM_AUTHENTICATION_CERTIFICATES] = {"authenticationCertificates"},
    [ARM_BACKEND_POOLS] = {"backendAddressPools", "backendAddressPool"},
    [ARM_BACKEND_SETTINGS] = {"backendHttpSettingsCollection", "backendHttpSettingsList", "backendHttpSettings"},
    [ARM_FRONTEND_IPS] = {"frontendIPConfigurations"},
    [ARM_FRONTEND_PORTS] = {"frontendPorts"},
    [ARM_LISTENERS] = {"httpListeners"},
    [ARM_PROBES] = {"probes"},
    [ARM_REDIRECTS] = {"redirectConfigurations"},
    [ARM_REWRITES] = {"rewriteRuleSets"},
    [ARM_RULES] = {"requestRoutingRules"},
    [ARM_SSL_CERTIFICATES] = {"sslCertificates"},
    [ARM_SSL_PROFILES] = {"sslProfiles"},
    [ARM_TRUSTED_CLIENTS] = {"trustedClientCertificates"},
    [ARM_TRUSTED_ROOTS] = {"trustedRootCertificates"},
    [ARM_URL_PATH_MAPS] = {"urlPathMaps"},
};

void arm_init(struct arm *arm, const struct arm_options *options) {
    *arm = (struct arm){.options = *options};
    arena_init(&arm->memory, NULL, ARM_TEXT_MAX);
    buf_init(&arm->out, ARM_TEXT_MAX);
    arm->kept = json_array();
    if (!arm->kept)
        mem_abort();
    json_t **const tables[] = {&arm->parameters, &arm->variables, &arm->certificates};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++)
        *tables[i] = arm_keep(arm, json_object());
    arm->gateways = arm_keep(arm, json_array());
    arm->loose = arm_keep(arm, json_array());
    for (size_t i = 0; i < ARM_SECTIONS; i++)
        arm->sections[i] = arm_keep(arm, json_array());
}

void arm_fini(struct arm *arm) {
    json_decref(arm->kept);
    arena_fini(&arm->memory);
    buf_release(&arm->out);
}

static const char *arm_type(json_t *object) {
    const char *type = json_string_value(json_object_get(object, "type"));
    return type && strchr(type, '/') ? type : NULL;
}

/* Adds a template's parameters or variables; a parameter file's values join the template's defaults. */
static void arm_merge(json_t *into, json_t *from) {
    const char *name;
    json_t *value;
    json_object_foreach(from, name, value) {
        json_t *known = json_object_get(into, name);
        if (json_is_object(known) && json_is_object(value))
            json_object_update(known, value);
        else if (!known)
            json_object_set(into, name, value);
    }
}

static void arm_find_gateways(struct arm *arm, json_t *value, unsigned depth) {
    const char *key, *type = json_is_object(value) ? arm_type(value) : NULL;
    json_t *member;
    size_t i;
    if (depth > ARM_DEPTH_MAX)
        return;
    if (type && str_ends(span_of(type), SPAN("/applicationGateways"))) {
        json_array_append(arm->gateways, value);
        return;
    }
    if (json_is_object(value) && (depth == 0 || json_object_get(value, "$schema"))) {
        arm_merge(arm->parameters, json_object_get(value, "parameters"));
        arm_merge(arm->variables, json_object_get(value, "variables"));
    }
    json_array_foreach(json_is_array(value) ? value : NULL, i, member) {
        arm_find_gateways(arm, member, depth + 1);
    }
    json_object_foreach(json_is_object(value) ? value : NULL, key, member) {
        arm_find_gateways(arm, member, depth + 1);
    }
}

bool arm_read(struct arm *arm, struct span text) {
    struct buf repaired;
    json_error_t error;
    size_t i;
    json_t *value;
    unsigned open;
    buf_init(&repaired, ARM_TEXT_MAX);
    bool ok = arm_text_repair(text, &repaired, &open, arm->error, sizeof(arm->error));
    json_t *values = ok ? json_loadb(buf_span(&repaired).p, repaired.len, 0, &error) : NULL;
    if (ok && !values)
        (void)snprintf(arm->error, sizeof(arm->error), "line %d: %s", error.line, error.text);
    buf_release(&repaired);
    if (!values)
        return false;
    arm_keep(arm, values);
    arm->open_brackets += open;
    json_array_foreach(values, i, value) {
        arm_find_gateways(arm, value, 0);
        json_array_append(arm->loose, value);
    }
    return true;
}

/* One element; what was pasted twice counts once. */
static void arm_add_element(struct arm *arm, enum arm_section section, json_t *element) {
    json_t *read = arm_evaluate(arm, element);
    if (!json_is_object(read) || json_object_size(read) == 0)
        return;
    if (arm_find(arm, section, arm_name(arm, read)))
        arm->duplicates++;
    else
        json_array_append(arm->sections[section], read);
}

/* A list under one of the section's names; an object stands for a list of one. */
static bool arm_take_section(struct arm *arm, enum arm_section section, const char *key, json_t *value) {
    const char *const *names = arm_section_names[section];
    for (size_t i = 0; i < 3 && names[i]; i++) {
        if (!arm_same(names[i], key))
            continue;
        json_t *list = arm_evaluate(arm, value), *element;
        size_t at;
        if (json_is_object(list))
            arm_add_element(arm, section, list);
        json_array_foreach(json_is_array(list) ? list : NULL, at, element) {
            arm_add_element(arm, section, element);
        }
        return true;
    }
    return false;
}

static void arm_take_sections(struct arm *arm, json_t *value, bool deep, unsigned depth) {
    const char *key;
    json_t *member;
    size_t i;
    if (depth > ARM_DEPTH_MAX || (deep && json_is_object(value) && arm_type(value)))
        return;
    json_array_foreach(deep && json_is_array(value) ? value : NULL, i, member) {
        arm_take_sections(arm, member, deep, depth + 1);
    }
    json_object_foreach(json_is_object(value) ? value : NULL, key, member) {
        unsigned section = 0;
        while (section < ARM_SECTIONS && !arm_take_section(arm, (enum arm_section)section, key, member))
            section++;
        if (section == ARM_SECTIONS && (deep || arm_same(key, "properties")))
            arm_take_sections(arm, member, deep, depth + 1);
    }
}

/* The one that is meant; false: several, or not that one. */
static bool arm_choose_gateway(struct arm *arm) {
    json_t *gateway, *found = NULL;
    size_t i, count = 0;
    struct buf names;
    buf_init(&names, 256);
    json_array_foreach(arm->gateways, i, gateway) {
        const char *name = arm_name(arm, gateway);
        buf_printf(&names, "%s%s", i ? ", " : "", name);
        if (!arm->options.gateway || arm_same(arm->options.gateway, name)) {
            found = gateway;
            count++;
        }
    }
    bool ok = count == 1 || (count == 0 && !arm->options.gateway);
    arm->gateway = found;
    if (!ok && count == 0)
        (void)snprintf(arm->error, sizeof(arm->error), "no application gateway %s: there is %.*s", arm->options.gateway,
                       buf_empty(&names) ? 4 : (int)names.len, buf_empty(&names) ? "none" : buf_span(&names).p);
    else if (!ok)
        (void)snprintf(arm->error, sizeof(arm->error), "several application gateways (%.*s): choose one by --gateway", SPAN_ARGS(buf_span(&names)));
    buf_release(&names);
    return ok;
}

/* Listeners that only rules name, in fragments: by their names, so that there is something to correct. */
static void arm_add_missing_listeners(struct arm *arm) {
    json_t *rule;
    size_t i;
    json_array_foreach(arm->sections[ARM_RULES], i, rule) {
        const char *name = arm_reference(arm, rule, "httpListener");
        if (name && !arm_find(arm, ARM_LISTENERS, name))
            json_array_append_new(arm->sections[ARM_LISTENERS],
                                  json_pack("{s:s, s:s}", "name", name, "protocol", strcasestr(name, "https") ? "Https" : "Http"));
    }
}

static void arm_write_gateway_notes(struct arm *arm) {
    static const struct { const char *key, *text; } known[] = {
        {"autoscaleConfiguration", "autoscaleConfiguration has no counterpart: one process, all cores (settings: workers)"},
        {"webApplicationFirewallConfiguration", "the web application firewall (WAF) has no counterpart: nothing here inspects requests for attacks"},
        {"firewallPolicy", "firewallPolicy (WAF) has no counterpart: nothing here inspects requests for attacks"},
        {"enableHttp2", "enableHttp2: this version serves HTTP/1.1"},
        {"enableFips", "enableFips has no counterpart: it is a matter of OpenSSL's configuration"},
        {"privateLinkConfigurations", "privateLinkConfigurations have no counterpart"},
        {"globalConfiguration", "globalConfiguration (request and response buffering) has no counterpart: bodies stream"},
        {"listeners", "listeners of TCP and TLS (layer 4) have no counterpart"},
        {"backendSettingsCollection", "backend settings of TCP and TLS (layer 4) have no counterpart"},
        {"routingRules", "routing rules of TCP and TLS (layer 4) have no counterpart"},
        {"customErrorConfigurations", "customErrorConfigurations are pages elsewhere: save them as files and name them in settings { error_pages }"},
    };
    for (size_t i = 0; arm->gateway && i < ARRAY_LEN(known); i++) {
        json_t *value = arm_get(arm, arm->gateway, known[i].key);
        bool empty = !value || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0);
        if (!empty)
            arm_note(arm, "%s", known[i].text);
    }
    json_t *sku = arm->gateway ? arm_get(arm, arm->gateway, "sku") : NULL;
    const char *tier = sku ? arm_text(arm, sku, "tier") : NULL;
    if (tier && str_starts(span_of(tier), SPAN("WAF")))
        arm_note(arm, "sku %s: the firewall of that tier has no counterpart", tier);
}

static void arm_write_head(struct arm *arm) {
    if (arm->gateway)
        arm_comment(arm, "Made by moongate import arm from the application gateway %s.", arm_name(arm, arm->gateway));
    else
        arm_comment(arm, "Made by moongate import arm from fragments of an application gateway.");
    arm_comment(arm, "Lines with NOTE say what has no counterpart here or had to be assumed. Besides:");
    arm_comment(arm, "a WebSocket that is silent ends after tunnel_idle_timeout (1h); Azure ends it after the request time-out;");
    if (json_array_size(arm->sections[ARM_URL_PATH_MAPS]) > 0 && !arm->options.ignore_case)
        arm_comment(arm, "paths differ by case here, there they do not (import with --ignore-case); \"/a/*\" takes \"/a\" as well;");
    arm_comment(arm, "X-Forwarded-For, -Proto, -Host and -Port are set here, and what a client sends in them is dropped.");
    arm_write_gateway_notes(arm);
    if (arm->duplicates > 0)
        arm_note(arm, "%u elements have the name of one before them in their list: the first was taken", arm->duplicates);
    if (arm->open_brackets > 0)
        arm_note(arm, "the input ends with %u bracket%s open: if it was cut short, what stood behind is missing here", arm->open_brackets,
                 arm->open_brackets == 1 ? "" : "s");
}

bool arm_convert(struct arm *arm) {
    size_t i;
    json_t *value;
    if (!arm_choose_gateway(arm))
        return false;
    if (arm->gateway)
        arm_take_sections(arm, arm->gateway, false, 0);
    json_array_foreach(arm->gateway ? NULL : arm->loose, i, value) {
        arm_take_sections(arm, value, true, 0);
    }
    arm_add_missing_listeners(arm);
    if (json_array_size(arm->sections[ARM_LISTENERS]) == 0) {
        (void)snprintf(arm->error, sizeof(arm->error), "no httpListeners and no requestRoutingRules: %s",
                       arm->open_brackets > 0 ? "the JSON ends too early, with brackets open" : "is it an application gateway's template?");
        return false;
    }
    if (!arm_check_binds(arm)) {
        arm->misused = true;
        return false;
    }
    arm_collect_listeners(arm);
    arm_collect_pools(arm);
    arm_write_head(arm);
    if (!arm_write_listeners(arm) || !arm_write_pools(arm))
        return false;
    arm_write_routes(arm);
    if (json_array_size(arm->sections[ARM_RULES]) == 0)
        arm_note(arm, "no requestRoutingRules were in the input: every request is answered 404");
    return true;
}
