/* SPDX-License-Identifier: MIT */
/*
 * rewrite: rewriteRuleSets. Header edits with fixed values become request_headers and response_headers, which C applies; request headers made
 * of variables become a function before the action. Conditions, URL rewrites with variables and edits of framing have no
 * counterpart that could be written mechanically: each is named in a note.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/import/arm.h"
#include "wire/http.h"

struct rewrite {
    struct arm *arm;
    const char *set;
    struct buf request, response, steps;
    json_t *request_names, *response_names; /* said already: the first rule's wins no more, the last one's does */
};

/* A name that may be edited here; Host and what frames a message may not. */
static bool rewrite_editable(const char *name) {
    static const struct { const char *name; unsigned flags; } fixed[] = {
#define REWRITE_FIXED(id, text, bits) {text, bits},
        HTTP_FIELDS(REWRITE_FIXED)
#undef REWRITE_FIXED
    };
    if (!str_is_token(span_of(name)) || arm_same(name, "host"))
        return false;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        if (arm_same(fixed[i].name, name))
            return !(fixed[i].flags & (HTTP_HOP | HTTP_FRAMING));
    return true;
}

/* The Lua expression of a server variable; NULL: none. */
static const char *rewrite_variable(struct arm *arm, struct span name) {
    static const struct { const char *name, *lua; } known[] = {
        {"var_client_ip", "req.client"},      {"var_host", "req.host"},           {"var_uri_path", "req.path"},
        {"var_request_method", "req.method"}, {"var_request_scheme", "req.scheme"}, {"var_query_string", "req.query_string"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (str_equal_nocase(name, span_of(known[i].name)))
            return arm_format(arm, "(%s or \"\")", known[i].lua);
    if (name.n > 9 && str_equal_nocase(span_make(name.p, 9), SPAN("http_req_")) && str_is_token(span_make(name.p + 9, name.n - 9)))
        return arm_format(arm, "(req:header(\"%.*s\") or \"\")", (int)(name.n - 9), name.p + 9);
    return NULL;
}

/* "a{var_client_ip}" as a Lua expression; NULL where a variable is unknown. */
static const char *rewrite_expression(struct arm *arm, const char *value) {
    const char *out = NULL;
    while (*value) {
        const char *piece, *close = *value == '{' ? strchr(value, '}') : NULL;
        size_t n = *value == '{' && !close ? strlen(value) : strcspn(value, "{");
        if (close) {
            piece = rewrite_variable(arm, span_make(value + 1, (size_t)(close - value) - 1));
            n = (size_t)(close - value) + 1;
        } else {
            piece = arm_quote(arm, arm_format(arm, "%.*s", (int)n, value));
        }
        if (!piece)
            return NULL;
        out = out ? arm_format(arm, "%s .. %s", out, piece) : piece;
        value += n;
    }
    return out;
}

static bool rewrite_value_valid(const char *value) {
    for (; *value; value++)
        if (((unsigned char)*value < 0x20 && *value != '\t') || *value == 0x7f)
            return false;
    return true;
}

static void rewrite_header(struct rewrite *rewrite, json_t *edit, bool response) {
    struct arm *arm = rewrite->arm;
    const char *name = arm_text(arm, edit, "headerName"), *value = arm_text(arm, edit, "headerValue");
    struct buf *out = response ? &rewrite->response : &rewrite->request;
    json_t *names = response ? rewrite->response_names : rewrite->request_names;
    if (!name || !rewrite_editable(name) || (value && !rewrite_value_valid(value)) || arm_get(arm, edit, "headerValueMatcher")) {
        arm_note(arm, "rewriteRuleSet %s: the edit of %s was left out: it cannot be said here", rewrite->set, name ? name : "(no name)");
        return;
    }
    if (json_object_get(names, name)) {
        arm_note(arm, "rewriteRuleSet %s edits %s twice: the first is kept", rewrite->set, name);
        return;
    }
    const char *expression = value && strchr(value, '{') ? rewrite_expression(arm, value) : NULL;
    if (value && strchr(value, '{') && (!expression || response)) {
        arm_note(arm, "rewriteRuleSet %s: %s = %s was left out: %s", rewrite->set, name, value,
                 arm_same(name, "x-forwarded-for") ? "that field is always set here" : "write it as a function");
        return;
    }
    json_object_set_new(names, name, json_true());
    if (expression)
        buf_printf(&rewrite->steps, "function(req) req:set_header(%s, %s) end,\n  ", arm_quote(arm, name), expression);
    else
        buf_printf(out, "%s[%s] = %s", buf_empty(out) ? "" : ", ", arm_quote(arm, name), value ? arm_quote(arm, value) : "false");
}

static void rewrite_url(struct rewrite *rewrite, json_t *url) {
    struct arm *arm = rewrite->arm;
    const char *path = arm_text(arm, url, "modifiedPath"), *query = arm_text(arm, url, "modifiedQueryString");
    bool plain = path && *path == '/' && !query && !strpbrk(path, "{?# *") && !arm_true(arm, url, "reroute") && rewrite_value_valid(path);
    if (plain)
        buf_printf(&rewrite->steps, "function(req) req:set_path(%s) end,\n  ", arm_quote(arm, path));
    else
        arm_note(arm, "rewriteRuleSet %s: its URL rewrite (%s%s%s) was left out: write it with req:set_path() and req:set_query()",
                 rewrite->set, path ? path : "", query ? "?" : "", query ? query : "");
}

static void rewrite_rule(struct rewrite *rewrite, json_t *rule) {
    struct arm *arm = rewrite->arm;
    json_t *actions = arm_get(arm, rule, "actionSet"), *edit;
    size_t i;
    if (json_array_size(arm_list(arm, rule, "conditions")) > 0) {
        arm_note(arm, "rewriteRuleSet %s: rule %s has conditions and was left out: write it as a function", rewrite->set, arm_name(arm, rule));
        return;
    }
    if (!actions)
        return;
    json_array_foreach(arm_list(arm, actions, "requestHeaderConfigurations"), i, edit) {
        rewrite_header(rewrite, edit, false);
    }
    json_array_foreach(arm_list(arm, actions, "responseHeaderConfigurations"), i, edit) {
        rewrite_header(rewrite, edit, true);
    }
    json_t *url = arm_get(arm, actions, "urlConfiguration");
    if (url)
        rewrite_url(rewrite, url);
}

/* Rules by ruleSequence. */
static void rewrite_rules(struct rewrite *rewrite, json_t *set) {
    struct arm *arm = rewrite->arm;
    json_t *sorted = arm_keep(arm, json_array()), *rule;
    size_t i;
    json_array_foreach(arm_list(arm, set, "rewriteRules"), i, rule) {
        unsigned sequence = arm_number(arm, rule, "ruleSequence", 0, 100000, 100001);
        size_t at = json_array_size(sorted);
        while (at > 0 && arm_number(arm, json_array_get(sorted, at - 1), "ruleSequence", 0, 100000, 100001) > sequence)
            at--;
        json_array_insert(sorted, at, rule);
    }
    json_array_foreach(sorted, i, rule) {
        rewrite_rule(rewrite, rule);
    }
}

void arm_rewrite(struct arm *arm, const char *name, const char **keys, const char **steps) {
    *keys = *steps = "";
    if (!name)
        return;
    json_t *set = arm_find(arm, ARM_REWRITES, name);
    if (!set) {
        arm_note(arm, "rewriteRuleSet %s was not in the input", name);
        return;
    }
    struct rewrite rewrite = {.arm = arm, .set = name, .request_names = arm_keep(arm, json_object()),
                              .response_names = arm_keep(arm, json_object())};
    struct buf *const parts[] = {&rewrite.request, &rewrite.response, &rewrite.steps};
    for (size_t i = 0; i < 3; i++)
        buf_init(parts[i], 1 << 20);
    rewrite_rules(&rewrite, set);
    if (!buf_empty(&rewrite.request))
        *keys = arm_format(arm, ",\n  request_headers = { %.*s }", SPAN_ARGS(buf_span(&rewrite.request)));
    if (!buf_empty(&rewrite.response))
        *keys = arm_format(arm, "%s,\n  response_headers = { %.*s }", *keys, SPAN_ARGS(buf_span(&rewrite.response)));
    if (!buf_empty(&rewrite.steps))
        *steps = arm_format(arm, "%.*s", SPAN_ARGS(buf_span(&rewrite.steps)));
    for (size_t i = 0; i < 3; i++)
        buf_release(parts[i]);
}
