/* SPDX-License-Identifier: MIT */
/*
 * Answers of our own (a route's reply or redirect, refusals, 503 without servers) and the edits of every response on its way out:
 * response_headers of listener and routes, then the on_response hooks.
 *
 * The subtle one: a hook may replace a response by a reply, and a reply runs no hooks again, so that no hook can answer itself for ever.
 */
#include "traffic/forward.h"
#include "traffic/request_steps.h"

/* Sends request->answer and ends the request. */
static void request_send_answer(struct request *request, bool hooks) {
    struct http_message *head = &request->answer.head;
    request->step = REQUEST_RESPOND;
    request->status = head->status;
    request_leave_server(request);
    if (hooks && !request_run_response_hooks(request, head, false))
        return;
    request->head_sent = true;
    struct span body = request->answer.body;
    bool no_body = head->status == 204 || head->status == 304;
    request->ops->head(request->responder, head, no_body ? HTTP_BODY_NONE : HTTP_BODY_LENGTH, body.n);
    if (!no_body && body.n > 0) {
        if (request->subject.head.method != HTTP_HEAD)
            request->bytes_out += body.n;
        request->ops->body(request->responder, body.p, body.n);
    }
    request_finish(request, request->cause, NULL);
}

static const struct config_settings *request_settings(const struct request *request) {
    return &request->local->generation->config->settings;
}

void request_reply_action(struct request *request, const struct action *action) {
    if (action->kind == ACTION_DROP) {
        request_cut(request, CAUSE_DROP);
        return;
    }
    bool ours = request->cause == CAUSE_NO_ROUTE || request->cause == CAUSE_SCRIPT; /* said by no route */
    if (ours && config_find_page(request_settings(request), action->reply.status)) {
        request_reply_status(request, action->reply.status);
        return;
    }
    if (answer_action(&request->answer, &request->subject, action))
        request_send_answer(request, true);
    else
        request_refuse(request, 500, CAUSE_LOCAL);
}

static struct span request_retry_after(struct request *request) {
    uint32_t every_ms = request->pool ? request->pool->config->probe.every_ms : 1000;
    return arena_printf(&request->subject.arena, "%u", every_ms / 1000 > 0 ? (every_ms + 999) / 1000 : 1);
}

void request_reply_status(struct request *request, unsigned status) {
    answer_status(&request->answer, &request->subject, request_settings(request), status);
    if (status == 503)
        answer_add(&request->answer, SPAN("Retry-After"), request_retry_after(request));
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
        ok = answer_action(&request->answer, &request->subject, action);
    } else {
        request->cause = CAUSE_SCRIPT;
        answer_status(&request->answer, &request->subject, request_settings(request), 500);
        ok = true;
    }
    if (ok && request_edit_response(request, &request->answer.head))
        request_send_answer(request, false);
    else
        request_cut(request, CAUSE_LOCAL);
    return false;
}
