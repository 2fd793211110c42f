/* SPDX-License-Identifier: MIT */
/*
 * cause: who ended a request or a tunnel, and why: one enum for logs, hooks and tests. Every end has exactly one.
 */
#ifndef MOONGATE_TRAFFIC_CAUSE_H
#define MOONGATE_TRAFFIC_CAUSE_H

/* id, name in logs, side: "client", "server" or "gateway" */
#define CAUSES(X) \
    X(DONE, "done", "gateway") \
    X(REPLY, "reply", "gateway") \
    X(DROP, "drop", "gateway") \
    X(SCRIPT, "script error", "gateway") \
    X(NO_ROUTE, "no route", "gateway") \
    X(NO_SERVER, "no live server", "gateway") \
    X(QUEUE_FULL, "queue full", "gateway") \
    X(QUEUE_TIMEOUT, "queue timeout", "gateway") \
    X(LOCAL, "out of descriptors, ports or memory", "gateway") \
    X(DRAIN, "shutdown", "gateway") \
    X(IDLE, "idle timeout", "gateway") \
    X(MAX_AGE, "maximum age", "gateway") \
    X(HALF_CLOSE_TIMEOUT, "half-close timeout", "gateway") \
    X(CLIENT_BAD, "bad request", "client") \
    X(CLIENT_GONE, "client gone", "client") \
    X(CLIENT_CLOSED, "client closed", "client") \
    X(CLIENT_RESET, "client reset", "client") \
    X(CLIENT_HEADER_TIMEOUT, "header timeout", "client") \
    X(CLIENT_BODY_TIMEOUT, "body timeout", "client") \
    X(CLIENT_SEND_TIMEOUT, "send timeout", "client") \
    X(CLIENT_SLOW, "below the minimum rate", "client") \
    X(SERVER_CONNECT, "connect failed", "server") \
    X(SERVER_TLS, "server TLS failed", "server") \
    X(SERVER_CLOSED, "server closed", "server") \
    X(SERVER_RESET, "server reset", "server") \
    X(SERVER_BAD, "bad response", "server") \
    X(SERVER_TRUNCATED, "response cut short", "server") \
    X(SERVER_TIMEOUT, "response timeout", "server") \
    X(SERVER_HANDSHAKE, "bad WebSocket handshake of the server", "server")

enum cause {
    CAUSE_NONE,
#define CAUSE_ENUM(id, name, side) CAUSE_##id,
    CAUSES(CAUSE_ENUM)
#undef CAUSE_ENUM
    CAUSE_COUNT
};

const char *cause_name(enum cause cause);
const char *cause_side(enum cause cause);

#endif
