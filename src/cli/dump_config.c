/* SPDX-License-Identifier: MIT */
/*
 * The declarations of a configuration as JSON values: settings, listeners, routes. Names follow the words of the
 * language; times end in _ms, sizes are bytes, null means none. Functions appear by the index that all Lua states share.
 */
#include "cli/dump.h"

static json_t *dump_function(unsigned function) {
    return function == CONFIG_NO_FUNCTION ? json_null() : json_integer(function);
}

static json_t *dump_functions(const unsigned *list, unsigned count) {
    json_t *array = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(array, json_integer(list[i]));
    return array;
}

json_t *dump_place(struct config_place place) {
    return json_sprintf("%s:%d", place.file ? place.file : "?", place.line);
}

/* Status, type and size: what the pages hold is in the file or beside it. */
static json_t *dump_error_pages(const struct config_settings *settings) {
    json_t *list = json_array();
    for (unsigned i = 0; i < settings->error_page_count; i++) {
        const struct config_error_page *page = &settings->error_pages[i];
        json_array_append_new(list, json_pack("{s:i,s:s,s:I}", "status", (int)page->status, "type", page->type, "bytes",
                                              (json_int_t)page->body.n));
    }
    return list;
}

static json_t *dump_settings(const struct config_settings *settings) {
    static const char *const underscores[] = {"drop", "reject", "pass"},
                             *const levels[] = {"error", "warn", "info", "debug"};
    json_t *o = json_object();
    json_object_set_new(o, "workers", settings->workers ? json_integer(settings->workers) : json_string("auto"));
    json_object_set_new(o, "user", dump_text(settings->user));
    json_object_set_new(o, "group", dump_text(settings->group));
    json_object_set_new(o, "access_log",
                        settings->access_to ? json_pack("{s:o,s:s,s:b}", "to", dump_text(settings->access_to), "format",
                                                        settings->access_format == CONFIG_ACCESS_COMBINED ? "combined" : "json",
                                                        "query", settings->access_query)
                                            : json_false());
    json_object_set_new(o, "error_pages", dump_error_pages(settings));
    json_object_set_new(o, "log_level", json_string(levels[settings->log_level]));
    json_object_set_new(o, "trusted_proxies",
                        dump_cidrs(settings->trusted_proxies.list, settings->trusted_proxies.count));
    json_object_set_new(o, "rule_cpu_ms", json_integer(settings->rule_cpu_ms));
    json_object_set_new(o, "rule_deadline_ms", json_integer(settings->rule_deadline_ms));
    json_object_set_new(o, "lua_memory", json_integer((json_int_t)settings->lua_memory));
    json_object_set_new(o, "drain_timeout_ms", json_integer(settings->drain_timeout_ms));
    json_object_set_new(o, "nameservers", dump_text(settings->nameservers));
    json_object_set_new(o, "max_connections", dump_limit(settings->max_connections));
    json_object_set_new(o, "via", dump_text(settings->via));
    json_object_set_new(o, "underscore_headers", json_string(underscores[settings->underscores]));
    return o;
}

static json_t *dump_tls(const struct config_listener *listener) {
    if (!listener->tls)
        return json_false();
    json_t *list = json_array();
    for (unsigned i = 0; i < listener->certificate_count; i++) {
        const struct config_certificate *certificate = &listener->certificates[i];
        json_array_append_new(list,
                              json_pack("{s:o,s:o,s:o}", "cert", dump_text(certificate->cert), "key",
                                        dump_text(certificate->key), "name", dump_text(certificate->name)));
    }
    static const char *const modes[] = {"none", "ask", "require"};
    return json_pack("{s:o,s:o,s:s,s:o}", "min", dump_text(listener->tls_min), "certs", list, "client_cert",
                     modes[listener->client_cert], "client_ca", dump_text(listener->client_ca));
}

static json_t *dump_listener(const struct config_listener *listener) {
    json_t *o = json_object(), *binds = json_array();
    for (unsigned i = 0; i < listener->bind_count; i++)
        json_array_append_new(binds, dump_text(listener->bind_texts[i]));
    json_object_set_new(o, "name", dump_text(listener->name));
    json_object_set_new(o, "place", dump_place(listener->place));
    json_object_set_new(o, "bind", binds);
    json_object_set_new(o, "proxy_protocol_from", dump_cidrs(listener->proxy_from.list, listener->proxy_from.count));
    json_object_set_new(o, "tls", dump_tls(listener));
    json_object_set_new(o, "tls_timeout_ms", dump_limit(listener->tls_timeout_ms));
    json_object_set_new(o, "header_timeout_ms", dump_limit(listener->header_timeout_ms));
    json_object_set_new(o, "body_timeout_ms", dump_limit(listener->body_timeout_ms));
    json_object_set_new(o, "send_timeout_ms", dump_limit(listener->send_timeout_ms));
    json_object_set_new(o, "idle_timeout_ms", dump_limit(listener->idle_timeout_ms));
    json_object_set_new(o, "min_rate", dump_limit(listener->min_rate));
    json_object_set_new(o, "max_connections", dump_limit(listener->max_connections));
    json_object_set_new(o, "max_target", json_integer(listener->max_target));
    json_object_set_new(o, "max_header", json_integer(listener->max_header));
    json_object_set_new(o, "max_fields", json_integer(listener->max_fields));
    json_object_set_new(o, "max_body", dump_body_limit(listener->max_body));
    json_object_set_new(o, "encoded_slash", json_string(listener->encoded_slash_keep ? "keep" : "reject"));
    json_object_set_new(o, "half_close", json_boolean(listener->half_close));
    json_object_set_new(o, "tcp_keepalive_ms", dump_limit(listener->tcp_keepalive_ms));
    const struct config_cidrs *trusted = &listener->trusted_proxies; /* null: the settings' */
    json_object_set_new(o, "trusted_proxies", trusted->set ? dump_cidrs(trusted->list, trusted->count) : json_null());
    json_object_set_new(o, "request_headers",
                        dump_headers(listener->request_headers.list, listener->request_headers.count));
    json_object_set_new(o, "response_headers",
                        dump_headers(listener->response_headers.list, listener->response_headers.count));
    return o;
}

static json_t *dump_route(const struct config *config, const struct config_route *route) {
    json_t *o = json_object(), *steps = json_array();
    for (unsigned i = 0; i < route->step_count; i++) {
        const struct config_step *step = &route->steps[i];
        json_array_append_new(steps,
                              step->kind == CONFIG_STEP_FUNCTION
                                  ? json_pack("{s:I}", "function", (json_int_t)step->function)
                                  : dump_action(config, &step->action));
    }
    json_object_set_new(o, "name", dump_text(route->name));
    json_object_set_new(o, "place", dump_place(route->place));
    json_object_set_new(o, "match", dump_match(&route->match));
    json_object_set_new(o, "except", route->has_except ? dump_match(&route->except) : json_null());
    json_object_set_new(o, "when", dump_function(route->when));
    json_object_set_new(o, "steps", steps);
    json_object_set_new(o, "on_error", json_string(route->on_error_next ? "next" : "fail"));
    json_object_set_new(o, "access_log", json_boolean(route->access_log));
    json_object_set_new(o, "max_body", dump_body_limit(route->max_body));
    json_object_set_new(o, "request_headers", dump_headers(route->request_headers.list, route->request_headers.count));
    json_object_set_new(o, "response_headers",
                        dump_headers(route->response_headers.list, route->response_headers.count));
    json_object_set_new(o, "on_response", dump_function(route->on_response));
    return o;
}

json_t *dump_config(const struct config *config) {
    json_t *o = json_object(), *listeners = json_array(), *pools = json_array(), *routes = json_array();
    for (unsigned i = 0; i < config->listener_count; i++)
        json_array_append_new(listeners, dump_listener(&config->listeners[i]));
    for (unsigned i = 0; i < config->pool_count; i++)
        json_array_append_new(pools, dump_pool(&config->pools[i]));
    for (unsigned i = 0; i < config->route_count; i++)
        json_array_append_new(routes, dump_route(config, &config->routes[i]));
    json_object_set_new(o, "file", dump_text(config->file));
    json_object_set_new(o, "settings", dump_settings(&config->settings));
    json_object_set_new(o, "listeners", listeners);
    json_object_set_new(o, "pools", pools);
    json_object_set_new(o, "routes", routes);
    json_object_set_new(o, "on_response", dump_functions(config->on_response, config->on_response_count));
    json_object_set_new(o, "on_open", dump_functions(config->on_open, config->on_open_count));
    json_object_set_new(o, "on_close", dump_functions(config->on_close, config->on_close_count));
    return o;
}
