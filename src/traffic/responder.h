/* SPDX-License-Identifier: MIT */
/*
 * responder: the side of a client that a request talks to. HTTP/1 clients implement it (client_h1); HTTP/2 streams and Lua's own calls
 * can stand in the same place.
 */
#ifndef MOONGATE_TRAFFIC_RESPONDER_H
#define MOONGATE_TRAFFIC_RESPONDER_H

#include "traffic/cause.h"
#include "wire/http.h"

struct conn;
struct pipe;
struct listener;

struct responder_ops {
    /* A 1xx other than 101. */
    void (*interim)(void *responder, const struct http_message *head);
    /*
     * The final head. body: HTTP_BODY_LENGTH with length, HTTP_BODY_CHUNKED for an unknown length, HTTP_BODY_NONE when no bytes
     * follow (then head's own Content-Length, if any, is passed on: HEAD, 304).
     */
    void (*head)(void *responder, const struct http_message *head, enum http_body body, uint64_t length);
    /* Body bytes, all taken; written out at flush() at the latest. */
    void (*body)(void *responder, const char *data, size_t n);
    /* An empty pipe to the client for body bytes of a known length, or NULL: body(). flush() or finish() empties it. May be NULL. */
    struct pipe *(*pipe)(void *responder);
    /* Pushes out. False: the client did not take all; request_drained() comes when it has. */
    bool (*flush)(void *responder);
    /* The response is complete; the request is about to be freed. trailers may be NULL. */
    void (*finish)(void *responder, const struct http_message *trailers);
    /* No complete response can be given: the client must see a cut, never a clean end. Before head(): just closes. */
    void (*abort)(void *responder);
    /* Start (again) or stop delivering the request's body: request_body(), request_body_end(). Delivery may happen inside resume. */
    void (*resume_body)(void *responder);
    void (*pause_body)(void *responder);
    /*
     * Writes head (a 101) and gives the connection up. *early: what the client sent behind its handshake; *unsent: what it has not
     * taken of the 101. Both buffers become the caller's.
     */
    struct conn *(*take_conn)(void *responder, const struct http_message *head, struct buf *early, struct buf *unsent);
    /* The listener that the client came in by; a tunnel goes on counting against it. */
    struct listener *(*listener)(void *responder);
};

#endif
