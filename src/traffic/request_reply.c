/* SPDX-License-Identifier: MIT */
/*
 * Answers of our own (a route's reply or redirect, refusals, 503 without servers) and the edits of every response on its way out:
 * response_headers of listener and routes, then the on_response hooks.
 *
 * The subtle one: a hook may replace a response by a reply, and a reply runs no hooks again, so that no hook can answer itself for ever.
 */
#include "base/clock.h"
#include "traffic/forward.h"
#include "traffic/request_steps.h"

static bool request_add(struct http_message *head, struct span name, struct span value) {
    return value.p && http_add(head, name, value);
}

/* Sends request->answer with request->answer_body and ends the request. */
static void request_send_answer(struct request *request, bool hooks) {
    struct http_message *answer = &request->answer;
    request->step = REQUEST_RESPOND;
    request->status = answer->status;
    request_leave_server(request);
    if (hooks && !request_run_response_hooks(request, answer, false))
        return;
    request->head_sent = true;
    struct span body = request->answer_body;
    bool no_body = answer->status == 204 || answer->status == 304;
    request->ops->head(request->responder, answer, no_body ? HTTP_BODY_NONE : HTTP_BODY_LENGTH, body.n);
    if (!no_body && body.n > 0) {
        if (request->subject.head.method != HTTP_HEAD)
            request->bytes_out += body.n;
        request->ops->body(request->responder, body.p, body.n);
    }
    request_finish(request, request->cause, NULL);
}

static void request_begin_answer(struct request *request, unsigned status) {
    struct arena *arena = &request->subject.arena;
    http_message_init(&request->answer, arena);
    request->answer.is_response = true;
    request->answer.minor = 1;
    request->answer.status = (uint16_t)status;
    request->answer.reason = span_of(http_reason(status));
    request->answer_body = SPAN_NULL;
    char date[CLOCK_TEXT_MAX];
    size_t n = clock_format_http(date, clock_wall_us());
    request_add(&request->answer, SPAN("Date"), arena_dup(arena, span_make(date, n)));
}

static bool request_set_reply(struct request *request, const struct action *action) {
    struct http_message *answer = &request->answer;
    bool ok = true;
    request_begin_answer(request, action->reply.status);
    for (unsigned i = 0; i < action->reply.header_count; i++) {
        const struct action_header *header = &action->reply.headers[i];
        ok = ok && request_add(answer, header->name, header->value);
    }
    bool typed = http_find_name(answer, SPAN("content-type")) != NULL;
    request->answer_body = action->reply.body;
    if (!typed && action->reply.body.n > 0)
        ok = ok && http_add(answer, SPAN("Content-Type"), SPAN("text/plain; charset=utf-8"));
    return ok;
}

static bool request_set_redirect(struct request *request, const struct action *action) {
    request_begin_answer(request, action->redirect.status);
    struct span location = decide_location(&request->subject, action);
    return request_add(&request->answer, SPAN("Location"), location);
}

static const struct config_error_page *request_find_page(const struct request *request, unsigned status) {
    return config_find_page(&request->local->generation->config->settings, status);
}

/* The page that the settings name for the status, or the status in words. */
static void request_set_page(struct request *request, unsigned status) {
    const struct config_error_page *page = request_find_page(request, status);
    request->answer_body = page ? page->body : arena_printf(&request->subject.arena, "%u %s\n", status, http_reason(status));
    request_add(&request->answer, SPAN("Content-Type"), page ? span_of(page->type) : SPAN("text/plain; charset=utf-8"));
}

void request_reply_action(struct request *request, const struct action *action) {
    if (action->kind == ACTION_DROP) {
        request_cut(request, CAUSE_DROP);
        return;
    }
    bool ours = request->cause == CAUSE_NO_ROUTE || request->cause == CAUSE_SCRIPT; /* said by no route */
    if (ours && request_find_page(request, action->reply.status)) {
        request_reply_status(request, action->reply.status);
        return;
    }
    bool ok = action->kind == ACTION_REDIRECT ? request_set_redirect(request, action) : request_set_reply(request, action);
    if (ok)
        request_send_answer(request, true);
    else
        request_refuse(request, 500, CAUSE_LOCAL);
}

static struct span request_retry_after(struct request *request) {
    uint32_t every_ms = request->pool ? request->pool->config->probe.every_ms : 1000;
    return arena_printf(&request->subject.arena, "%u", every_ms / 1000 > 0 ? (every_ms + 999) / 1000 : 1);
}

void request_reply_status(struct request *request, unsigned status) {
    request_begin_answer(request, status);
    struct http_message *answer = &request->answer;
    request_set_page(request, status);
    if (status == 426)
        request_add(answer, SPAN("Sec-WebSocket-Version"), SPAN("13"));
    if (status == 405)
        request_add(answer, SPAN("Allow"), SPAN("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    if (status == 503)
        request_add(answer, SPAN("Retry-After"), request_retry_after(request));
    request_send_answer(request, true);
}

/* *action becomes NULL where the hook returned nothing: the next one is asked. */
static enum script_status request_hook(struct request *request, unsigned function, struct script_response *response,
                                       const struct action **action) {
    struct generation_local *local = request->local;
    enum script_status status =
        local->generation->ops->response(local->script, function, &request->subject, response, action);
    if (*action && (*action)->kind == ACTION_NONE)
        *action = NULL;
    return status;
}

/* The hooks of the routes that ran, then the global ones; the first that replies ends it. */
static enum script_status request_call_hooks(struct request *request, struct script_response *response,
                                             const struct action **action) {
    const struct config *config = request->local->generation->config;
    for (unsigned i = 0; i < request->decide.ran_count && !*action; i++) {
        unsigned function = config->routes[request->decide.ran[i]].on_response;
        if (function != CONFIG_NO_FUNCTION && request_hook(request, function, response, action) != SCRIPT_OK)
            return SCRIPT_ERROR;
    }
    for (unsigned i = 0; i < config->on_response_count && !*action; i++)
        if (request_hook(request, config->on_response[i], response, action) != SCRIPT_OK)
            return SCRIPT_ERROR;
    return SCRIPT_OK;
}

static bool request_edit_response(struct request *request, struct http_message *head) {
    const struct config *config = request->local->generation->config;
    if (!forward_apply_headers(head, &request->subject.listener->response_headers))
        return false;
    for (unsigned i = 0; i < request->decide.ran_count; i++)
        if (!forward_apply_headers(head, &config->routes[request->decide.ran[i]].response_headers))
            return false;
    return true;
}

bool request_run_response_hooks(struct request *request, struct http_message *head, bool tunnel) {
    struct script_response response = {
        .head = head, .server = request->server ? request->server->label : "", .tunnel = tunnel};
    const struct action *action = NULL;
    bool routed = request->decide.subject != NULL;
    if (!request_edit_response(request, head)) {
        request_cut(request, CAUSE_LOCAL);
        return false;
    }
    if (!routed)
        return true;
    enum script_status status = request_call_hooks(request, &response, &action);
    if (status == SCRIPT_OK && !action)
        return true;
    bool ok = false;
    if (status == SCRIPT_OK && action->kind == ACTION_REPLY) {
        request->cause = CAUSE_REPLY;
        ok = request_set_reply(request, action);
    } else {
        request->cause = CAUSE_SCRIPT;
        request_begin_answer(request, 500);
        request_set_page(request, 500);
        ok = true;
    }
    if (ok && request_edit_response(request, &request->answer))
        request_send_answer(request, false);
    else
        request_cut(request, CAUSE_LOCAL);
    return false;
}
