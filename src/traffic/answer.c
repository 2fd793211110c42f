/* SPDX-License-Identifier: MIT */
/*
 * The subtle one: answer_status() goes on without what memory is out for. It makes the answer of last resort, for which there is no other.
 */
#include "traffic/answer.h"

#include "base/clock.h"
#include "traffic/decide.h"

#define ANSWER_WORDS SPAN("text/plain; charset=utf-8")

bool answer_add(struct answer *answer, struct span name, struct span value) {
    return value.p && http_add(&answer->head, name, value);
}

static void answer_begin(struct answer *answer, struct subject *subject, unsigned status) {
    char date[CLOCK_TEXT_MAX];
    http_message_init(&answer->head, &subject->arena);
    answer->head.is_response = true;
    answer->head.minor = 1;
    answer->head.status = (uint16_t)status;
    answer->head.reason = span_of(http_reason(status));
    answer->body = SPAN_NULL;
    size_t n = clock_format_http(date, clock_wall_us());
    answer_add(answer, SPAN("Date"), arena_dup(&subject->arena, span_make(date, n)));
}

static bool answer_reply(struct answer *answer, const struct action *action) {
    bool ok = true;
    for (unsigned i = 0; i < action->reply.header_count; i++) {
        const struct action_header *header = &action->reply.headers[i];
        ok = ok && answer_add(answer, header->name, header->value);
    }
    answer->body = action->reply.body;
    bool typed = http_find_name(&answer->head, SPAN("content-type")) != NULL;
    return ok && (typed || answer->body.n == 0 || answer_add(answer, SPAN("Content-Type"), ANSWER_WORDS));
}

bool answer_action(struct answer *answer, struct subject *subject, const struct action *action) {
    if (action->kind == ACTION_REDIRECT) {
        answer_begin(answer, subject, action->redirect.status);
        return answer_add(answer, SPAN("Location"), decide_location(subject, action));
    }
    answer_begin(answer, subject, action->reply.status);
    return answer_reply(answer, action);
}

void answer_status(struct answer *answer, struct subject *subject, const struct config_settings *settings, unsigned status) {
    const struct config_error_page *page = config_find_page(settings, status);
    answer_begin(answer, subject, status);
    answer->body = page ? page->body : arena_printf(&subject->arena, "%u %s\n", status, http_reason(status));
    answer_add(answer, SPAN("Content-Type"), page ? span_of(page->type) : ANSWER_WORDS);
    if (status == 426)
        answer_add(answer, SPAN("Sec-WebSocket-Version"), SPAN("13"));
    if (status == 405)
        answer_add(answer, SPAN("Allow"), SPAN("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
}
