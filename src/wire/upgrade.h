/* SPDX-License-Identifier: MIT */
/*
 * upgrade: the opening handshake of RFC 6455 section 4, both sides. It judges heads; it moves no bytes.
 */
#ifndef MOONGATE_WIRE_UPGRADE_H
#define MOONGATE_WIRE_UPGRADE_H

#include "wire/http.h"

#define UPGRADE_ACCEPT_SIZE 28 /* base64 of SHA-1, no NUL counted */
#define UPGRADE_PROTOCOLS_MAX 32

enum upgrade_kind {
    UPGRADE_NONE,       /* no WebSocket asked for (another protocol's Upgrade is stripped) */
    UPGRADE_WEBSOCKET,  /* a valid handshake */
    UPGRADE_BAD,        /* asked for, but wrong: answer 400 */
    UPGRADE_BAD_VERSION /* answer 426 with Sec-WebSocket-Version: 13 */
};

struct upgrade_offer {
    struct span key;                                 /* Sec-WebSocket-Key */
    struct span *protocols;                          /* offered subprotocols in order, over all field lines; in the request's arena */
    unsigned protocol_count;
    const char *reason;                              /* for UPGRADE_BAD */
};

/*
 * Judges a request (requirements B11). UPGRADE_WEBSOCKET fills offer; more than UPGRADE_PROTOCOLS_MAX or repeated
 * subprotocols: UPGRADE_BAD.
 */
enum upgrade_kind upgrade_check_request(const struct http_message *request, struct upgrade_offer *offer);
/*
 * Judges a 101 (requirements B12): Connection: upgrade, Upgrade: websocket alone, no framing fields, the accept value,
 * a subprotocol that was offered or none (sets *protocol, .p NULL for none). NULL when right, else a static phrase.
 */
const char *upgrade_check_response(const struct http_message *response, struct span key, const struct span *offered,
                                   unsigned offered_count, struct span *protocol);
/* Sec-WebSocket-Accept for key. */
void upgrade_accept(struct span key, char out[UPGRADE_ACCEPT_SIZE + 1]);
/* A fresh random key, 24 characters; for handshakes of our own (probes). */
void upgrade_make_key(char out[25]);

#endif
