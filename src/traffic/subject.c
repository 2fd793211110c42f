/* SPDX-License-Identifier: MIT */
/*
 * subject: turns a head that was read into what rules look at, and takes snapshots of it.
 *
 * All that a peer may say about somebody else (forwarding fields) is judged here, once, before any rule runs: dropped
 * from an untrusted peer, believed from a trusted one. What Connection names is deleted here too, not when forwarding:
 * later a field of that name is ours (an edit of a rule), and a client must not be able to strip it.
 *
 * The subtle thing: identity fields are exempt from Connection. A proxy in front of us that passes its client's
 * Connection field on must not thereby lose the address it told us, or the client would appear to be that proxy.
 */
#include "traffic/subject.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "io/tls.h"
#include "traffic/forward.h"
#include "wire/uri.h"

#define SUBJECT_ID_MAX 128 /* characters of an X-Request-Id that is kept */
#define SUBJECT_SNI_MAX 255

_Static_assert(HTTP_FIELD_COUNT <= 64, "field ids are used as bits of 64");

#define SUBJECT_BIT(id) (UINT64_C(1) << HTTP_FIELD_##id)
#define SUBJECT_HOP_BIT(id, name, flags) | (((flags)&HTTP_HOP) ? SUBJECT_BIT(id) : 0)

static const uint64_t subject_hops = 0 HTTP_FIELDS(SUBJECT_HOP_BIT);
static const uint64_t subject_forwarding = SUBJECT_BIT(FORWARDED) | SUBJECT_BIT(X_FORWARDED_FOR) |
    SUBJECT_BIT(X_FORWARDED_PROTO) | SUBJECT_BIT(X_FORWARDED_HOST) | SUBJECT_BIT(X_FORWARDED_PORT) |
    SUBJECT_BIT(X_FORWARDED_PREFIX) | SUBJECT_BIT(X_REAL_IP) | SUBJECT_BIT(X_ORIGINAL_URL) | SUBJECT_BIT(X_REWRITE_URL);

void subject_init(struct subject *subject, struct slab *chunks) {
    memset(subject, 0, sizeof *subject);
    arena_init(&subject->arena, chunks, SUBJECT_ARENA_MAX);
    http_message_init(&subject->head, &subject->arena);
}

void subject_fini(struct subject *subject) {
    arena_fini(&subject->arena);
    subject->script = NULL;
}

/* Unique, not secret: ids name requests in logs. xorshift128+ seeded once a thread, no system call a request. */
static uint64_t subject_random(void) {
    static _Thread_local uint64_t state[2];
    if ((state[0] | state[1]) == 0) {
        size_t got = 0;
        while (got < sizeof state) {
            ssize_t n = getrandom((char *)state + got, sizeof state - got, 0);
            if (n < 0 && errno != EINTR)
                abort(); /* every kernel since 3.17 has it */
            got += n > 0 ? (size_t)n : 0;
        }
        state[0] |= 1;
    }
    uint64_t a = state[0], b = state[1], sum = a + b;
    a ^= a << 23;
    state[0] = b;
    state[1] = a ^ b ^ (a >> 18) ^ (b >> 5);
    return sum;
}

static bool subject_make_id(struct subject *subject) {
    static const char digits[16] = "0123456789abcdef";
    char *text = arena_alloc(&subject->arena, SUBJECT_ID_SIZE + 1);
    if (!text)
        return false;
    for (unsigned half = 0; half < 2; half++) {
        uint64_t bits = subject_random();
        for (unsigned i = 0; i < SUBJECT_ID_SIZE / 2; i++, bits >>= 4)
            text[half * (SUBJECT_ID_SIZE / 2) + i] = digits[bits & 15];
    }
    text[SUBJECT_ID_SIZE] = '\0';
    subject->id = span_make(text, SUBJECT_ID_SIZE);
    return http_add(&subject->head, SPAN("X-Request-Id"), subject->id);
}

static bool subject_id_valid(struct span id) {
    if (id.n == 0 || id.n > SUBJECT_ID_MAX)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        bool alnum = (c >= '0' && c <= '9') || (str_lower(c) >= 'a' && str_lower(c) <= 'z');
        if (!alnum && c != '.' && c != '_' && c != ':' && c != '-')
            return false;
    }
    return true;
}

/* One pass over the fields: strips what may not be believed or forwarded, keeps one good X-Request-Id. */
static void subject_screen_fields(struct subject *subject) {
    for (unsigned i = 0; i < subject->head.field_count; i++) {
        struct http_field *field = &subject->head.fields[i];
        uint64_t bit = UINT64_C(1) << field->id;
        if (field->flags & HTTP_DELETED)
            continue;
        if (bit & subject_forwarding) {
            if (!subject->peer_trusted)
                field->flags |= HTTP_DELETED;
            else
                field->flags &= (uint8_t)~HTTP_HOP;
        } else if (field->id == HTTP_FIELD_X_REQUEST_ID) {
            field->flags &= (uint8_t)~HTTP_HOP;
            if (subject->id.p || !subject_id_valid(field->value))
                field->flags |= HTTP_DELETED;
            else
                subject->id = field->value;
        } else if ((field->flags & HTTP_HOP) && !(bit & subject_hops)) {
            field->flags |= HTTP_DELETED;
        }
    }
}

/* An element of X-Forwarded-For: an address, with or without a port. */
static bool subject_parse_hop(struct span text, struct addr_small *out) {
    struct addr addr;
    if (addr_parse_ip(text, out))
        return true;
    if (str_starts(text, SPAN("unix:")) || !addr_parse(text, 1, &addr))
        return false;
    *out = addr_shrink(&addr);
    out->port = 0;
    return true;
}

/*
 * The client is the rightmost address that is no trusted proxy. Something that is no address ends the search: what
 * stands left of it was said by an unknown party.
 */
static void subject_find_client(struct subject *subject, const struct config_cidrs *trusted) {
    for (unsigned i = subject->head.field_count; i-- > 0;) {
        const struct http_field *field = &subject->head.fields[i];
        if (field->id != HTTP_FIELD_X_FORWARDED_FOR || (field->flags & HTTP_DELETED))
            continue;
        struct span left = field->value;
        while (left.n > 0) {
            size_t start = left.n;
            while (start > 0 && left.p[start - 1] != ',')
                start--;
            struct span element = str_trim(span_make(left.p + start, left.n - start));
            left.n = start > 0 ? start - 1 : 0;
            struct addr_small hop;
            if (element.n == 0)
                continue;
            if (!subject_parse_hop(element, &hop))
                return;
            subject->client = hop;
            if (!cidr_match_any(trusted->list, trusted->count, &hop))
                return;
        }
    }
}

static void subject_identify(struct subject *subject, const struct config_settings *settings, const struct addr *peer) {
    const struct config_listener *listener = subject->listener;
    const struct config_cidrs *trusted = &settings->trusted_proxies;
    if (listener->trusted_proxies.set)
        trusted = &listener->trusted_proxies;
    subject->peer = addr_shrink(peer);
    subject->client = subject->peer;
    subject->scheme = listener->tls ? "https" : "http";
    subject->peer_trusted = trusted->count > 0 && cidr_match_any(trusted->list, trusted->count, &subject->peer);
    http_mark_hops(&subject->head);
    subject_screen_fields(subject);
    if (!subject->peer_trusted)
        return;
    subject_find_client(subject, trusted);
    const struct http_field *proto = http_find(&subject->head, HTTP_FIELD_X_FORWARDED_PROTO);
    if (proto && span_equal(proto->value, SPAN("https")))
        subject->scheme = "https";
    else if (proto && span_equal(proto->value, SPAN("http")))
        subject->scheme = "http";
}

static bool subject_copy_sni(struct subject *subject) {
    struct span sni = subject->tls ? span_of(tls_sni(subject->tls)) : SPAN_NULL;
    if (sni.n == 0 || sni.n > SUBJECT_SNI_MAX)
        return true;
    char *text = arena_alloc(&subject->arena, sni.n);
    if (!text)
        return false;
    for (size_t i = 0; i < sni.n; i++)
        text[i] = str_lower(sni.p[i]);
    subject->sni = span_make(text, sni.n);
    return true;
}

/* An authority in the target must say what Host says (requirements A1): no rule may see one and a server the other. */
static const char *subject_check_absolute(const struct uri *uri, const struct http_field *host) {
    if (uri->scheme.n == 0 && uri->authority.n == 0)
        return NULL;
    if (!str_equal_nocase(uri->scheme, SPAN("http")) && !str_equal_nocase(uri->scheme, SPAN("https")))
        return "scheme in the target";
    if (uri->authority.n == 0 || memchr(uri->authority.p, '@', uri->authority.n))
        return "authority in the target";
    if (!host || !str_equal_nocase(uri->authority, host->value))
        return "target and Host disagree";
    return NULL;
}

static const char *subject_read_target(struct subject *subject) {
    struct uri uri;
    const char *reason = NULL;
    if (!uri_split_target(subject->head.target, &uri))
        return "malformed target";
    const struct http_field *host = http_find(&subject->head, HTTP_FIELD_HOST);
    reason = subject_check_absolute(&uri, host);
    if (reason)
        return reason;
    subject->host = SPAN("");
    if (host && host->value.n > 0) {
        subject->host = uri_normalise_host(&subject->arena, host->value, &subject->host_port);
        if (!subject->host.p) {
            subject->host = SPAN("");
            return "malformed Host";
        }
    }
    subject->raw_path = uri.path;
    subject->path = uri.path;
    subject->query = uri.query;
    if (span_equal(uri.path, SPAN("*")))
        return NULL;
    struct span path = uri_normalise_path(&subject->arena, uri.path, subject->listener->encoded_slash_keep, &reason);
    if (!path.p)
        return reason ? reason : "malformed path";
    subject->path = path;
    return NULL;
}

unsigned subject_prepare(struct subject *subject, const struct config_listener *listener,
                         const struct config_settings *settings, const struct addr *peer, uint16_t local_port,
                         const struct tls *tls, const char **reason) {
    subject->listener = listener;
    subject->local_port = local_port;
    subject->tls = tls;
    subject->wall_us = clock_wall_us();
    subject_identify(subject, settings, peer);
    *reason = "too many fields";
    if ((!subject->id.p && !subject_make_id(subject)) || !subject_copy_sni(subject))
        return 400;
    *reason = subject_read_target(subject);
    if (*reason)
        return 400;
    switch (upgrade_check_request(&subject->head, &subject->offer)) {
    case UPGRADE_NONE: subject->offer.protocol_count = 0; break;
    case UPGRADE_WEBSOCKET: subject->websocket = true; break;
    case UPGRADE_BAD: *reason = subject->offer.reason ? subject->offer.reason : "bad WebSocket handshake"; return 400;
    case UPGRADE_BAD_VERSION: *reason = "WebSocket version"; return 426;
    }
    if (!forward_apply_headers(&subject->head, &listener->request_headers)) {
        *reason = "too many fields";
        return 400;
    }
    return 0;
}

bool subject_mark(struct subject *subject, struct subject_mark *mark) {
    const struct http_message *head = &subject->head;
    if (head->field_count > mark->field_cap) {
        mark->fields = arena_alloc(&subject->arena, head->field_count * sizeof *mark->fields);
        mark->field_cap = mark->fields ? head->field_count : 0;
        if (!mark->fields)
            return false;
    }
    if (head->field_count > 0)
        memcpy(mark->fields, head->fields, head->field_count * sizeof *mark->fields);
    mark->field_count = head->field_count;
    mark->path = subject->path;
    mark->query = subject->query;
    mark->host = subject->host;
    mark->host_port = subject->host_port;
    mark->rest = subject->rest;
    mark->path_edited = subject->path_edited;
    mark->query_edited = subject->query_edited;
    mark->host_edited = subject->host_edited;
    mark->offer_edited = subject->offer_edited;
    mark->protocol_count = subject->offer.protocol_count;
    if (mark->protocol_count > 0) { /* only() and take() make fewer of them, never more */
        if (!mark->protocols && !(mark->protocols = arena_alloc(&subject->arena, mark->protocol_count * sizeof *mark->protocols)))
            return false;
        memcpy(mark->protocols, subject->offer.protocols, mark->protocol_count * sizeof *mark->protocols);
    }
    mark->log_count = subject->log_count;
    return true;
}

void subject_restore(struct subject *subject, const struct subject_mark *mark) {
    /* The table only ever grows, so the marked fields fit into it. */
    if (mark->field_count > 0)
        memcpy(subject->head.fields, mark->fields, mark->field_count * sizeof *mark->fields);
    subject->head.field_count = mark->field_count;
    subject->path = mark->path;
    subject->query = mark->query;
    subject->host = mark->host;
    subject->host_port = mark->host_port;
    subject->rest = mark->rest;
    subject->path_edited = mark->path_edited;
    subject->query_edited = mark->query_edited;
    subject->host_edited = mark->host_edited;
    subject->offer_edited = mark->offer_edited;
    subject->offer.protocol_count = mark->protocol_count;
    if (mark->protocol_count > 0)
        memcpy(subject->offer.protocols, mark->protocols, mark->protocol_count * sizeof *mark->protocols);
    subject->log_count = mark->log_count;
}

struct span subject_cookie(const struct subject *subject, struct span name) {
    for (unsigned i = 0; i < subject->head.field_count; i++) {
        const struct http_field *field = &subject->head.fields[i];
        if (field->id != HTTP_FIELD_COOKIE || (field->flags & HTTP_DELETED))
            continue;
        struct span left = field->value;
        while (left.n > 0) {
            const char *end = memchr(left.p, ';', left.n);
            size_t n = end ? (size_t)(end - left.p) : left.n;
            struct span pair = str_trim(span_make(left.p, n));
            n += end ? 1 : 0;
            left = span_make(left.p + n, left.n - n);
            const char *equals = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
            size_t at = equals ? (size_t)(equals - pair.p) : 0;
            if (equals && span_equal(str_trim(span_make(pair.p, at)), name))
                return str_trim(span_make(equals + 1, pair.n - at - 1));
        }
    }
    return SPAN_NULL;
}

bool subject_apply_offer(struct subject *subject) {
    const struct upgrade_offer *offer = &subject->offer;
    subject->offer_edited = true;
    if (offer->protocol_count == 0) {
        http_delete_id(&subject->head, HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL);
        return true;
    }
    size_t size = 0;
    for (unsigned i = 0; i < offer->protocol_count; i++)
        size += offer->protocols[i].n + 2;
    char *text = arena_alloc(&subject->arena, size);
    if (!text)
        return false;
    size_t n = 0;
    for (unsigned i = 0; i < offer->protocol_count; i++) {
        if (i > 0) {
            text[n++] = ',';
            text[n++] = ' ';
        }
        memcpy(text + n, offer->protocols[i].p, offer->protocols[i].n);
        n += offer->protocols[i].n;
    }
    return http_set(&subject->head, SPAN("Sec-WebSocket-Protocol"), span_make(text, n));
}

void subject_name_refused(struct subject *subject, const struct addr *peer) {
    if (subject->peer.family == 0)
        subject->peer = subject->client = addr_shrink(peer);
    if (!subject->id.p)
        (void)subject_make_id(subject);
}
