/* SPDX-License-Identifier: MIT */
/* request_steps: what the parts of the step machine share. Internal to request*.c. */
#ifndef MOONGATE_TRAFFIC_REQUEST_STEPS_H
#define MOONGATE_TRAFFIC_REQUEST_STEPS_H

#include "traffic/request.h"

enum step_result { STEP_NEXT, STEP_WAIT, STEP_DONE };

/* request_pick.c: a server for the request, at once or after a wait (first probe answer, slot of a full server). */
void request_init_pick(struct request *request);
enum step_result request_step_pick(struct request *request);
void request_stop_waiting(struct request *request);

/* request_choose.c: of the action's pools the one to use now: sets pool and pool_index. */
void request_choose_pool(struct request *request);
/* The server of the affinity cookie, else the balancer's; not entered. NULL when none has room. */
struct server *request_choose_server(struct request *request);
/* Adds the affinity cookie to an answer of the server when the client has none or another one's. False: out of memory. */
bool request_add_affinity(struct request *request, struct http_message *head);

/* request_exchange.c: the events of the exchange with the server. */
extern const struct exchange_ops request_exchange_ops;

/* The request is over and was answered: logs, frees, tells the responder. */
void request_finish(struct request *request, enum cause cause, const struct http_message *trailers);
/* It cannot be answered completely: as above, but the client sees a cut. */
void request_cut(struct request *request, enum cause cause);
/* Gives the exchange and the server slot back. */
void request_leave_server(struct request *request);
/* Frees it (at the end of the turn). The responder is not told. */
void request_free(struct request *request);
/* Another server or connection for the same request: back to PICK. */
void request_retry(struct request *request, bool same_server);
/* True when all that was sent of the body can be sent again. */
bool request_can_replay(const struct request *request);

/* request_reply.c: answers of our own. */
void request_reply_action(struct request *request, const struct action *action);
void request_reply_status(struct request *request, unsigned status);
/* response_headers and on_response hooks; false: a hook has replaced the response by a reply, which was sent. */
bool request_run_response_hooks(struct request *request, struct http_message *head, bool tunnel);

#endif
