/* SPDX-License-Identifier: MIT */
/*
 * answer: the answers that come from here, before edits and hooks: a route's reply or redirect, and the page or the words for a status that
 * no route has said. Knows no connection, so that `moongate route` shows what live traffic sends.
 */
#ifndef MOONGATE_TRAFFIC_ANSWER_H
#define MOONGATE_TRAFFIC_ANSWER_H

#include "config/action.h"
#include "traffic/subject.h"

/* All of it lies in the subject's arena, or is an action's. */
struct answer {
    struct http_message head;
    struct span body; /* not sent where the status or the method has none */
};

/* Of a reply or a redirect. False: out of memory. */
bool answer_action(struct answer *answer, struct subject *subject, const struct action *action);
/* The page that the settings name for the status, or the status in words, with the fields that 405 and 426 need (RFC 9110, RFC 6455). */
void answer_status(struct answer *answer, struct subject *subject, const struct config_settings *settings, unsigned status);
/* Adds a field; false when value.p is NULL or memory is out. */
bool answer_add(struct answer *answer, struct span name, struct span value);

#endif
