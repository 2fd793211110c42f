/* SPDX-License-Identifier: MIT */
/*
 * subject: what routing looks at: one parsed request, where it came from, its edits, and the verdict so far.
 * Routes and scripts know only this, no socket: so `moongate route` and live traffic judge alike. The step machine
 * embeds it.
 */
#ifndef MOONGATE_TRAFFIC_SUBJECT_H
#define MOONGATE_TRAFFIC_SUBJECT_H

#include "base/addr.h"
#include "config/config.h"
#include "wire/http.h"
#include "wire/upgrade.h"

#define SUBJECT_ARENA_MAX (1024 * 1024) /* bytes of edits, tables and bodies one request may make */
#define SUBJECT_ID_SIZE 32              /* hex digits of an id made here */
#define SUBJECT_LOG_MAX 16              /* extra access-log fields */

struct tls;

struct subject_param {
    struct span name, value; /* of ":name" in the matched path; value decoded */
};

struct subject_log {
    struct span key, value;
};

struct subject {
    struct arena arena;       /* all that this request makes; freed with it */
    struct http_message head; /* as received, then as edited: what is forwarded */
    const struct config_listener *listener;
    const char *scheme;       /* "http" or "https" (static) */
    struct addr_small client; /* after trusted_proxies */
    struct addr_small peer;   /* of the TCP connection */
    bool peer_trusted;        /* forwarding headers of the peer are believed */
    uint16_t local_port;      /* that the client connected to, for X-Forwarded-Port */
    struct addr_small destination; /* that the client connected to; family 0: not known, or of no use */
    const struct tls *tls;    /* NULL when plain, and in `moongate route` */
    struct span sni;          /* lower case, from the TLS session; .n 0: none */
    struct span raw_path;     /* path as received */
    struct span path;         /* normalised; set_path changes it */
    struct span query;        /* .p NULL: none */
    struct span host;         /* normalised, without port; set_host changes it */
    uint16_t host_port;       /* named in Host; 0: none */
    bool path_edited, query_edited, host_edited;
    struct span id;             /* X-Request-Id, kept or made */
    bool websocket;             /* a valid RFC 6455 handshake */
    struct upgrade_offer offer; /* of a WebSocket handshake: protocols as edited by only() and take() */
    bool offer_edited;
    /* Of the route that is being tried or has decided. */
    struct subject_param *params;
    unsigned param_count;
    /*
     * What the path's final "*" matched, without its leading slash; .p NULL: no such pattern. It lies in the path that
     * was matched, so rest.p[-1] may be read: no slash there means that the path ended before the pattern's one.
     */
    struct span rest;
    uint64_t wall_us; /* when the head was complete */
    struct subject_log *logs; /* room for SUBJECT_LOG_MAX in the arena once there is one */
    unsigned log_count;
    void *script; /* the script's own record of this request, NULL while it has none */
};

/* Empty, with its arena. chunks may be NULL. */
void subject_init(struct subject *subject, struct slab *chunks);
void subject_fini(struct subject *subject);
/*
 * Fills path, query, host, scheme, id, websocket and client from head (already read), listener and peer. 0, or the
 * status to answer (400, 426) with *reason (static); id, peer, client and scheme are set either way. Removes from head
 * what an untrusted peer may not say (rules.md part 6) and what Connection names, then applies the listener's
 * request_headers.
 */
unsigned subject_prepare(struct subject *subject, const struct config_listener *listener,
                         const struct config_settings *settings, const struct addr *peer, uint16_t local_port,
                         const struct tls *tls, const char **reason);

/* For a head that was refused before subject_prepare(): who sent it, and an id, so that the log can name both. */
void subject_name_refused(struct subject *subject, const struct addr *peer);

/* A snapshot of the edits, so that a route that throws can be undone (rules.md part 2, rule 3). */
struct subject_mark {
    struct http_field *fields; /* arena copy, used again by the next mark; start with a zeroed mark */
    uint16_t field_count, field_cap;
    struct span path, query, host, rest;
    uint16_t host_port;
    bool path_edited, query_edited, host_edited, offer_edited;
    struct span *protocols; /* arena copy, as fields */
    unsigned protocol_count, log_count;
};
/* False: out of memory. */
bool subject_mark(struct subject *subject, struct subject_mark *mark);
void subject_restore(struct subject *subject, const struct subject_mark *mark);

/* The value of one cookie (RFC 6265), as it stands; .p NULL. */
struct span subject_cookie(const struct subject *subject, struct span name);
/* Rewrites Sec-WebSocket-Protocol of head from offer.protocols after an edit. False: out of memory. */
bool subject_apply_offer(struct subject *subject);

#endif
