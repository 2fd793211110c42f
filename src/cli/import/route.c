/* SPDX-License-Identifier: MIT */
/*
 * route: requestRoutingRules in the order of their priority. A Basic rule is one route; a PathBasedRouting rule is one a path rule, in their
 * order, then one for the default. Each names its listener and hosts, so that what a site of Azure takes, no other route gets.
 *
 * The subtle thing: host and path patterns that the keys `host` and `path` cannot say ("shop.*.example.com", "/images*") become a
 * function, and so do all paths where the case is to be ignored, as it is there. A path that backendHttpSettings put in front takes the
 * place of what stands before the pattern's star: here the star of a forward says that only behind a key `path`, so it may need a function, too.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"
#include "wire/uri.h"

#define ROUTE_LINE_MAX 116

struct route {
    struct arm *arm;
    const char *name;
    json_t *listener;     /* NULL: not found */
    json_t *paths;        /* texts; NULL: any */
    const char *path_key; /* the one path of the key `path`; NULL: several, or none */
    bool paths_when;      /* a function looks at the paths */
    const char *set_path; /* a step before the action; NULL: none */
};

/* Rules by priority; those without one behind, in their order. */
static json_t *route_sorted_rules(struct arm *arm) {
    json_t *sorted = arm_keep(arm, json_array()), *rule;
    size_t i;
    json_array_foreach(arm->sections[ARM_RULES], i, rule) {
        unsigned priority = arm_number(arm, rule, "priority", 1, 100000, 100001);
        size_t at = json_array_size(sorted);
        while (at > 0 && arm_number(arm, json_array_get(sorted, at - 1), "priority", 1, 100000, 100001) > priority)
            at--;
        json_array_insert(sorted, at, rule);
    }
    return sorted;
}

static json_t *route_map(struct arm *arm, json_t *rule) {
    return arm_find(arm, ARM_URL_PATH_MAPS, arm_reference(arm, rule, "urlPathMap"));
}

void arm_each_target(struct arm *arm, arm_target_fn *each) {
    json_t *rule, *path_rule;
    size_t i, j;
    json_array_foreach(route_sorted_rules(arm), i, rule) {
        json_t *map = route_map(arm, rule);
        json_array_foreach(map ? arm_list(arm, map, "pathRules") : NULL, j, path_rule) {
            each(arm, path_rule, "backendAddressPool", "backendHttpSettings");
        }
        if (map)
            each(arm, map, "defaultBackendAddressPool", "defaultBackendHttpSettings");
        else
            each(arm, rule, "backendAddressPool", "backendHttpSettings");
    }
}

/* Whether the key `path` can say it. */
static bool route_path_plain(const struct arm *arm, const char *path) {
    const char *star = strchr(path, '*');
    return !arm->options.ignore_case && !strstr(path, "/:") && (!star || (star[1] == '\0' && star > path && star[-1] == '/'));
}

static bool route_path_valid(struct arm *arm, const char *path) {
    const char *reason = NULL;
    for (const char *p = path; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '?' || *p == '#')
            return false;
    return *path == '/' && uri_normalise_path(&arm->memory, span_of(path), true, &reason).p != NULL;
}

/* May stand in front of the request's path: what `forward` and req:set_path() take on any listener. */
static bool route_prefix_valid(struct arm *arm, const char *path) {
    const char *reason = NULL;
    return route_path_valid(arm, path) && !strchr(path, '*') && !uri_has_dot_segment(span_of(path)) &&
           uri_normalise_path(&arm->memory, span_of(path), false, &reason).p != NULL;
}

/* "a", or { "a", "b" }. */
static void route_append_list(struct arm *arm, struct buf *out, json_t *list) {
    json_t *text;
    size_t i;
    bool several = json_array_size(list) > 1;
    buf_append_text(out, several ? "{ " : "");
    json_array_foreach(list, i, text) {
        buf_printf(out, "%s%s", i ? ", " : "", arm_quote(arm, json_string_value(text)));
    }
    buf_append_text(out, several ? " }" : "");
}

/* (subject:find(..) or subject:find(..)) ~= nil */
static void route_append_patterns(struct arm *arm, struct buf *out, json_t *list, const char *subject, bool lower) {
    json_t *text;
    size_t i;
    buf_append_text(out, "(");
    json_array_foreach(list, i, text) {
        buf_printf(out, "%s%s:find(%s)", i ? " or " : "", subject, arm_quote_pattern(arm, json_string_value(text), lower));
    }
    buf_append_text(out, ") ~= nil");
}

static void route_append_match(struct route *route, struct buf *out) {
    struct arm *arm = route->arm;
    json_t *hosts = arm_hosts(arm, route->listener), *text;
    bool host_key = true, path_key = true;
    size_t i;
    json_array_foreach(hosts, i, text) {
        host_key = host_key && arm_host_plain(json_string_value(text));
    }
    json_array_foreach(route->paths, i, text) {
        path_key = path_key && route_path_plain(arm, json_string_value(text));
    }
    buf_printf(out, "listener = %s", arm_listener_name(arm, route->listener));
    if (json_array_size(hosts) > 0 && host_key) {
        buf_append_text(out, ", host = ");
        route_append_list(arm, out, hosts);
    }
    if (json_array_size(route->paths) > 0 && path_key) {
        buf_append_text(out, ", path = ");
        route_append_list(arm, out, route->paths);
        if (json_array_size(route->paths) == 1)
            route->path_key = json_string_value(json_array_get(route->paths, 0));
    }
    route->paths_when = !path_key;
    if (host_key && path_key)
        return;
    buf_append_text(out, ", when = function(req) return ");
    if (!host_key)
        route_append_patterns(arm, out, hosts, "(req.host or \"\")", true);
    buf_append_text(out, !host_key && !path_key ? " and " : "");
    if (!path_key)
        route_append_patterns(arm, out, route->paths, arm->options.ignore_case ? "req.path:lower()" : "req.path", arm->options.ignore_case);
    buf_append_text(out, " end");
}

/* What of the request's path goes behind the settings' path, as Lua: all from the pattern's star on; nothing of a path without one. */
static const char *route_path_rest(struct arm *arm, const char *pattern) {
    const char *star = strchr(pattern, '*');
    return star ? arm_format(arm, "req.path:sub(%d)", (int)(star - pattern) + 1) : "\"\"";
}

/* A step that puts the path in front, whichever of the route's patterns it was that matched: the first, as there. */
static const char *route_set_path(const struct route *route, const char *front) {
    struct arm *arm = route->arm;
    const char *which = "", *subject = arm->options.ignore_case ? "req.path:lower()" : "req.path";
    size_t i, count = json_array_size(route->paths);
    json_t *path;
    json_array_foreach(route->paths, i, path) {
        const char *text = json_string_value(path), *rest = route_path_rest(arm, text);
        if (i + 1 < count)
            which = arm_format(arm, "%s%s:find(%s) and %s or ", which, subject, arm_quote_pattern(arm, text, arm->options.ignore_case), rest);
        else
            which = arm_format(arm, count > 1 ? "(%s%s)" : "%s%s", which, rest);
    }
    return arm_format(arm, "function(req) req:set_path(%s .. %s) end,\n  ", arm_quote(arm, front), which);
}

/* The forward to the pool with this path in front. */
static const char *route_override(struct route *route, const char *pool, const char *settings_name, const char *path) {
    struct arm *arm = route->arm;
    const char *front = arm_format(arm, "%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/");
    size_t i, stars = 0;
    json_t *text;
    json_array_foreach(route->paths, i, text) {
        const char *star = strchr(json_string_value(text), '*');
        stars += star != NULL;
        if (star && star[1])
            arm_note(arm, "backendHttpSettings %s: the path %s takes the place of what %s has before its star", settings_name, path, json_string_value(text));
    }
    if (stars == 0 && json_array_size(route->paths) > 0)
        return arm_format(arm, "forward(%s, { path = %s })", pool, arm_quote(arm, path));
    if (stars == json_array_size(route->paths) && !route->paths_when)
        return arm_format(arm, "forward(%s, { path = %s })", pool, arm_quote(arm, arm_format(arm, "%s*", front)));
    route->set_path = route_set_path(route, front);
    return arm_format(arm, "forward %s", pool);
}

static const char *route_forward(struct route *route, const char *pool, const char *settings_name, bool rewritten) {
    struct arm *arm = route->arm;
    const char *name = arm_pool_name(arm, pool, settings_name);
    json_t *settings = arm_find(arm, ARM_BACKEND_SETTINGS, settings_name);
    const char *path = settings ? arm_text(arm, settings, "path") : NULL;
    if (!path || strcmp(path, "/") == 0)
        return arm_format(arm, "forward %s", name);
    if (!rewritten && route_prefix_valid(arm, path))
        return route_override(route, name, settings_name, path);
    arm_note(arm, "backendHttpSettings %s: the path %s that it puts in front is left out%s", settings_name, path,
             rewritten ? ": a rewriteRuleSet sets the path" : "");
    return arm_format(arm, "forward %s", name);
}

/* The action of a rule, path rule or path map's default. rewritten: a step before it sets the path. */
static const char *route_action(struct route *route, json_t *object, bool is_default, bool rewritten) {
    struct arm *arm = route->arm;
    const char *pool = arm_reference(arm, object, is_default ? "defaultBackendAddressPool" : "backendAddressPool");
    const char *settings = arm_reference(arm, object, is_default ? "defaultBackendHttpSettings" : "backendHttpSettings");
    const char *redirect = arm_reference(arm, object, is_default ? "defaultRedirectConfiguration" : "redirectConfiguration");
    bool tls = false;
    unsigned port;
    const char *host;
    if (redirect) {
        arm_listener_target(arm, route->listener, &tls, &port, &host);
        return arm_redirect(arm, redirect, route->path_key, tls);
    }
    if (pool)
        return route_forward(route, pool, settings, rewritten);
    arm_note(arm, "%s names neither a pool nor a redirect in the input", route->name);
    return "reply(502, \"nothing to forward to\\n\")";
}

static void route_write(struct route *route, json_t *object, bool is_default) {
    struct arm *arm = route->arm;
    const char *keys, *steps;
    struct buf match;
    buf_init(&match, 1 << 20);
    route_append_match(route, &match);
    arm_rewrite(arm, arm_reference(arm, object, is_default ? "defaultRewriteRuleSet" : "rewriteRuleSet"), &keys, &steps);
    if (arm_get(arm, object, "firewallPolicy"))
        arm_note(arm, "%s: its firewallPolicy (WAF) has no counterpart", route->name);
    if (arm_get(arm, object, is_default ? "defaultLoadDistributionPolicy" : "loadDistributionPolicy"))
        arm_note(arm, "%s: loadDistributionPolicy is not imported: give the servers of one pool weights instead", route->name);
    const char *action = route_action(route, object, is_default, strstr(steps, "req:set_path(") != NULL);
    steps = arm_format(arm, "%s%s", steps, route->set_path ? route->set_path : "");
    const char *name = arm_quote_name(arm, route->name);
    size_t length = strlen(name) + buf_span(&match).n + strlen(action) + 16;
    if (length <= ROUTE_LINE_MAX && !*keys && !*steps)
        arm_write(arm, "route %s { %.*s, %s }\n", name, SPAN_ARGS(buf_span(&match)), action);
    else
        arm_write(arm, "route %s {\n  %.*s%s,\n  %s%s,\n}\n", name, SPAN_ARGS(buf_span(&match)), keys, steps, action);
    buf_release(&match);
}

/* A path rule: its valid paths, together, or each for itself where its redirect has to know which it was. */
static void route_write_path_rule(struct arm *arm, const char *rule, json_t *listener, json_t *object) {
    const char *name = arm_format(arm, "%s/%s", rule, arm_name(arm, object));
    const char *redirect = arm_reference(arm, object, "redirectConfiguration");
    json_t *paths = arm_keep(arm, json_array()), *path;
    size_t i;
    json_array_foreach(arm_list(arm, object, "paths"), i, path) {
        const char *text = json_string_value(arm_evaluate(arm, path));
        if (text && route_path_valid(arm, text))
            json_array_append_new(paths, json_string(text));
        else
            arm_note(arm, "%s: a path that cannot be one was left out: %s", name, text ? text : "(unknown)");
    }
    if (json_array_size(paths) == 0) {
        arm_note(arm, "%s has no path and was left out", name);
        return;
    }
    if (!redirect || json_array_size(paths) == 1 || !arm_redirect_splits(arm, redirect)) {
        route_write(&(struct route){.arm = arm, .name = name, .listener = listener, .paths = paths}, object, false);
        return;
    }
    json_array_foreach(paths, i, path) {
        json_t *one = arm_keep(arm, json_pack("[O]", path));
        route_write(&(struct route){.arm = arm, .name = arm_format(arm, "%s-%zu", name, i + 1), .listener = listener, .paths = one}, object, false);
    }
}

static void route_write_rule(struct arm *arm, json_t *rule) {
    const char *name = arm_name(arm, rule), *type = arm_text(arm, rule, "ruleType");
    const char *map_name = arm_reference(arm, rule, "urlPathMap");
    json_t *listener = arm_find(arm, ARM_LISTENERS, arm_reference(arm, rule, "httpListener")), *map = route_map(arm, rule), *path_rule;
    size_t i;
    arm_write(arm, "\n");
    if (!listener) {
        arm_note(arm, "requestRoutingRule %s names no httpListener and was left out", name);
        return;
    }
    if (!map && (map_name || arm_same(type, "PathBasedRouting")))
        arm_note(arm, "requestRoutingRule %s: its urlPathMap %s was not in the input", name, map_name ? map_name : "(none)");
    json_array_foreach(map ? arm_list(arm, map, "pathRules") : NULL, i, path_rule) {
        route_write_path_rule(arm, name, listener, path_rule);
    }
    route_write(&(struct route){.arm = arm, .name = name, .listener = listener}, map ? map : rule, map != NULL);
}

void arm_write_routes(struct arm *arm) {
    json_t *rule;
    size_t i;
    json_array_foreach(route_sorted_rules(arm), i, rule) {
        route_write_rule(arm, rule);
    }
}
