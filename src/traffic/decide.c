/* SPDX-License-Identifier: MIT */
/*
 * decide: runs the routes in order and ends with one verdict.
 *
 * A route whose steps are plain actions costs no more than its match. Only for a route that holds a function the edits
 * are marked first, so that an error can undo them (rules.md part 2, rule 3); an error answers 500 unless the route
 * says on_error = "next".
 *
 * The subtle thing: a wait leaves everything in struct decide, so that decide_run() can be called again at the very
 * step. What matched is not matched again then: params and rest of the subject still belong to that route.
 */
#include "traffic/decide.h"

#include <assert.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "traffic/forward.h"
#include "traffic/pattern.h"
#include "wire/uri.h"

static const struct action decide_no_route = {.kind = ACTION_REPLY,
                                              .reply = {.status = 404, .body = {"no route\n", 9}}};
static const struct action decide_error = {.kind = ACTION_REPLY,
                                           .reply = {.status = 500, .body = {"internal error\n", 15}}};

void decide_init(struct decide *decide, const struct config *config, const struct routes *routes,
                 const struct script_ops *ops, void *script, struct subject *subject, void (*resume)(void *owner),
                 void *owner) {
    memset(decide, 0, sizeof *decide);
    decide->config = config;
    decide->routes = routes;
    decide->ops = ops;
    decide->script = script;
    decide->subject = subject;
    decide->resume = resume;
    decide->owner = owner;
    decide->route = ROUTES_END;
}

static enum decide_status decide_end(struct decide *decide, const struct action *action) {
    decide->action = action;
    return DECIDE_DONE;
}

static bool decide_note_ran(struct decide *decide) {
    if (decide->ran_count == decide->ran_cap) {
        unsigned cap = decide->ran_cap ? 2 * decide->ran_cap : 8;
        unsigned *ran = arena_alloc(&decide->subject->arena, cap * sizeof *ran);
        if (!ran)
            return false;
        if (decide->ran_count > 0)
            memcpy(ran, decide->ran, decide->ran_count * sizeof *ran);
        decide->ran = ran;
        decide->ran_cap = cap;
    }
    decide->ran[decide->ran_count++] = decide->route;
    return true;
}

static bool decide_has_function(const struct config_route *route) {
    if (route->when != CONFIG_NO_FUNCTION)
        return true;
    for (unsigned i = 0; i < route->step_count; i++)
        if (route->steps[i].kind == CONFIG_STEP_FUNCTION)
            return true;
    return false;
}

enum decide_outcome { DECIDE_NEXT_ROUTE, DECIDE_VERDICT, DECIDE_FAILED, DECIDE_LATER };

/*
 * The route matched but for its when: marks, asks when, applies the declared header edits. DECIDE_VERDICT: go into its
 * steps.
 */
static enum decide_outcome decide_enter(struct decide *decide, const struct config_route *route) {
    bool match = true;
    if (decide_has_function(route) && !subject_mark(decide->subject, &decide->mark))
        return DECIDE_FAILED;
    if (route->when != CONFIG_NO_FUNCTION &&
        decide->ops->when(decide->script, route->when, decide->subject, &match) != SCRIPT_OK)
        return DECIDE_FAILED;
    if (!match) {
        subject_restore(decide->subject, &decide->mark);
        if (decide->trace)
            decide->trace(decide->trace_owner, decide->route, "when");
        return DECIDE_NEXT_ROUTE;
    }
    if (!forward_apply_headers(&decide->subject->head, &route->request_headers))
        return DECIDE_FAILED;
    decide->step = 0;
    return DECIDE_VERDICT;
}

static enum decide_outcome decide_steps(struct decide *decide, const struct config_route *route) {
    for (; decide->step < route->step_count; decide->step++) {
        const struct config_step *step = &route->steps[decide->step];
        const struct action *action = &step->action;
        if (step->kind == CONFIG_STEP_FUNCTION) {
            action = NULL;
            enum script_status status = decide->ops->step(decide->script, step->function, decide->subject, &action,
                                                          decide->resume, decide->owner);
            if (status == SCRIPT_WAIT)
                return DECIDE_LATER;
            if (status == SCRIPT_ERROR)
                return DECIDE_FAILED;
        }
        if (action && action->kind != ACTION_NONE) {
            decide->action = action;
            return decide_note_ran(decide) ? DECIDE_VERDICT : DECIDE_FAILED;
        }
    }
    return decide_note_ran(decide) ? DECIDE_NEXT_ROUTE : DECIDE_FAILED;
}

/* False: go on with the next route. */
static bool decide_fail(struct decide *decide, const struct config_route *route) {
    if (decide_has_function(route) && decide->mark.fields)
        subject_restore(decide->subject, &decide->mark);
    if (route->on_error_next)
        return false;
    decide->script_failed = true;
    decide->action = &decide_error;
    return true;
}

enum decide_status decide_run(struct decide *decide) {
    for (;;) {
        enum decide_outcome outcome = DECIDE_VERDICT;
        if (!decide->inside)
            decide->route =
                routes_next(decide->routes, decide->subject, decide->next, decide->trace, decide->trace_owner);
        if (decide->route == ROUTES_END)
            return decide_end(decide, &decide_no_route);
        assert(decide->route < decide->config->route_count);
        const struct config_route *route = &decide->config->routes[decide->route];
        if (!decide->inside)
            outcome = decide_enter(decide, route);
        decide->inside = false;
        if (outcome == DECIDE_VERDICT)
            outcome = decide_steps(decide, route);
        if (outcome == DECIDE_LATER) {
            decide->inside = true;
            return DECIDE_WAIT;
        }
        if (outcome == DECIDE_VERDICT || (outcome == DECIDE_FAILED && decide_fail(decide, route)))
            return DECIDE_DONE;
        decide->next = decide->route + 1;
    }
}

/* A path template: as it stands, or with its final star replaced by what the route's wildcard took. */
static struct span decide_join_path(struct subject *subject, struct span template) {
    struct arena *arena = &subject->arena;
    struct span path = pattern_escape(arena, template);
    if (!path.p)
        return SPAN_NULL;
    const char *slash = path.n > 0 && path.p[0] == '/' ? "" : "/";
    if (!str_ends(path, SPAN("*")))
        return *slash ? arena_printf(arena, "/%.*s", SPAN_ARGS(path)) : path;
    path.n--;
    struct span rest = subject->rest;
    if (!rest.p) /* the route has no wildcard: the star takes all of the path */
        rest = subject->path.n > 0 ? span_make(subject->path.p + 1, subject->path.n - 1) : SPAN("");
    else if (rest.n == 0 && rest.p[-1] != '/' && path.n > 1 && path.p[path.n - 1] == '/')
        path.n--; /* "/old" became "/new", not "/new/" */
    size_t lead = *slash ? 1 : 0, n = lead + path.n + rest.n;
    char *out = arena_alloc(arena, n + 1);
    if (!out)
        return SPAN_NULL;
    out[0] = '/';
    if (path.n > 0)
        memcpy(out + lead, path.p, path.n);
    if (rest.n > 0)
        memcpy(out + lead + path.n, rest.p, rest.n);
    out[n] = '\0';
    return span_make(out, n);
}

/* In the one form that a client's own path has; .p NULL where it can have none. */
static struct span decide_fill_path(struct subject *subject, struct span template) {
    const struct span path = decide_join_path(subject, template);
    const char *reason;
    return path.p ? uri_normalise_path(&subject->arena, path, true, &reason) : path;
}

static bool decide_same_place(struct span a, struct span b) { return a.p == b.p && a.n == b.n; }

struct span decide_target(struct subject *subject, const struct action *forward) {
    struct span path = subject->path, query = subject->query;
    if (forward->forward.path.p)
        path = decide_fill_path(subject, forward->forward.path);
    if (!path.p || !query.p)
        return path;
    if (decide_same_place(path, subject->raw_path) && !subject->query_edited && query.p == path.p + path.n + 1)
        return span_make(path.p, path.n + 1 + query.n); /* untouched: they still lie side by side in the request line */
    char *out = arena_alloc(&subject->arena, path.n + 1 + query.n);
    if (!out)
        return SPAN_NULL;
    memcpy(out, path.p, path.n);
    out[path.n] = '?';
    if (query.n > 0)
        memcpy(out + path.n + 1, query.p, query.n);
    return span_make(out, path.n + 1 + query.n);
}

static bool decide_host_has_port(struct span host) {
    for (size_t i = host.n; i-- > 0 && host.p[i] != ']';)
        if (host.p[i] == ':')
            return true;
    return false;
}

struct span decide_location(struct subject *subject, const struct action *redirect) {
    if (redirect->redirect.url.p)
        return redirect->redirect.url;
    struct span scheme = span_of(subject->scheme), host = subject->host;
    uint16_t port = subject->host_port;
    if (redirect->redirect.scheme.p && !span_equal(redirect->redirect.scheme, scheme)) {
        scheme = redirect->redirect.scheme;
        port = 0;
    }
    if (redirect->redirect.host.p) {
        host = redirect->redirect.host;
        port = 0; /* the old port says nothing about another host */
    }
    if (redirect->redirect.port)
        port = redirect->redirect.port;
    if ((port == 80 && span_equal(scheme, SPAN("http"))) || (port == 443 && span_equal(scheme, SPAN("https"))) ||
        decide_host_has_port(host))
        port = 0;
    struct span path = redirect->redirect.path.p ? decide_join_path(subject, redirect->redirect.path) : subject->path;
    struct span query = subject->query;
    if (redirect->redirect.query.p)
        query = pattern_escape(&subject->arena, redirect->redirect.query);
    if (!path.p || (redirect->redirect.query.p && !query.p))
        return SPAN_NULL;
    const char *mark = query.n > 0 || (query.p && !redirect->redirect.query.p) ? "?" : "";
    if (span_equal(path, SPAN("*")))
        path = SPAN("/");
    char port_text[8] = "";
    if (port)
        snprintf(port_text, sizeof port_text, ":%u", port);
    if (host.n == 0) { /* an HTTP/1.0 request without Host: all we can name is the path, and "//" would name a host; so would "/\", to browsers */
        for (; path.n > 0 && (path.p[0] == '/' || path.p[0] == '\\'); path.p++)
            path.n--;
        return arena_printf(&subject->arena, "/%.*s%s%.*s", SPAN_ARGS(path), mark, SPAN_ARGS(query));
    }
    return arena_printf(&subject->arena, "%.*s://%.*s%s%.*s%s%.*s", SPAN_ARGS(scheme), SPAN_ARGS(host), port_text,
                        SPAN_ARGS(path), mark, SPAN_ARGS(query));
}
