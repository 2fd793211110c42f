/* SPDX-License-Identifier: MIT */
/*
 * upgrade: judges both heads of a WebSocket handshake (RFC 6455 sections 4.1 and 4.2). A request is one only when
 * Connection and Upgrade both say so in HTTP/1.1; then every other part must be right, since a server that is laxer
 * than we are would open a tunnel that we take for plain HTTP.
 *
 * The subtle thing: fields that decide are taken only when they stand once. Subprotocols may be spread over lines,
 * are compared with case, and keep their order, which is the client's preference.
 */
#include "wire/upgrade.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/str.h"

#define UPGRADE_KEY_SIZE 24 /* base64 of 16 bytes */
#define UPGRADE_KEY_BYTES 16
#define UPGRADE_SHA1_SIZE 20

/* The only live field with this id; NULL when there is none or more than one (*count tells). */
static const struct http_field *upgrade_only(const struct http_message *message, enum http_field_id id,
                                             unsigned *count) {
    const struct http_field *only = NULL;
    *count = 0;
    for (unsigned i = 0; i < message->field_count; i++) {
        const struct http_field *field = &message->fields[i];
        if (field->id == id && !(field->flags & HTTP_DELETED)) {
            only = field;
            ++*count;
        }
    }
    return *count == 1 ? only : NULL;
}

/* 16 bytes in base64: 22 characters of the alphabet and "==". */
static bool upgrade_valid_key(struct span key) {
    if (key.n != UPGRADE_KEY_SIZE || key.p[22] != '=' || key.p[23] != '=')
        return false;
    for (unsigned i = 0; i < 22; i++) {
        const char c = key.p[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '+' && c != '/')
            return false;
    }
    return true;
}

static const char *upgrade_read_protocols(const struct http_message *request, struct upgrade_offer *offer) {
    bool present = false;
    for (unsigned i = 0; i < request->field_count; i++) {
        const struct http_field *field = &request->fields[i];
        if (field->id != HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL || field->flags & HTTP_DELETED)
            continue;
        present = true;
        struct span rest = field->value, name;
        while (str_next_token(&rest, &name)) {
            if (!http_valid_name(name))
                return "malformed Sec-WebSocket-Protocol";
            for (unsigned k = 0; k < offer->protocol_count; k++) {
                if (span_equal(offer->protocols[k], name))
                    return "repeated subprotocol";
            }
            if (offer->protocol_count == UPGRADE_PROTOCOLS_MAX)
                return "too many subprotocols";
            if (!offer->protocols &&
                !(offer->protocols = arena_alloc(request->arena, UPGRADE_PROTOCOLS_MAX * sizeof *offer->protocols)))
                return "too many fields";
            offer->protocols[offer->protocol_count++] = name;
        }
    }
    return present && offer->protocol_count == 0 ? "empty Sec-WebSocket-Protocol" : NULL;
}

static enum upgrade_kind upgrade_bad(struct upgrade_offer *offer, const char *reason) {
    offer->reason = reason;
    return UPGRADE_BAD;
}

enum upgrade_kind upgrade_check_request(const struct http_message *request, struct upgrade_offer *offer) {
    unsigned versions, keys;
    *offer = (struct upgrade_offer){0};
    /* RFC 9110 section 7.8: an Upgrade in HTTP/1.0, or one that Connection does not name, is no Upgrade. */
    if (!request->connection_upgrade || request->minor != 1 ||
        !http_list_has(request, HTTP_FIELD_UPGRADE, SPAN("websocket")))
        return UPGRADE_NONE;
    if (request->method != HTTP_GET)
        return upgrade_bad(offer, "WebSocket handshake without GET");
    if (request->body != HTTP_BODY_NONE && !(request->body == HTTP_BODY_LENGTH && request->content_length == 0))
        return upgrade_bad(offer, "WebSocket handshake with a body");
    const struct http_field *version = upgrade_only(request, HTTP_FIELD_SEC_WEBSOCKET_VERSION, &versions);
    if (!version)
        return upgrade_bad(offer, versions ? "two Sec-WebSocket-Version fields" : "no Sec-WebSocket-Version");
    if (!span_equal(version->value, SPAN("13"))) {
        offer->reason = "unknown Sec-WebSocket-Version";
        return UPGRADE_BAD_VERSION;
    }
    const struct http_field *key = upgrade_only(request, HTTP_FIELD_SEC_WEBSOCKET_KEY, &keys);
    if (!key)
        return upgrade_bad(offer, keys ? "two Sec-WebSocket-Key fields" : "no Sec-WebSocket-Key");
    if (!upgrade_valid_key(key->value))
        return upgrade_bad(offer, "malformed Sec-WebSocket-Key");
    offer->key = key->value;
    const char *reason = upgrade_read_protocols(request, offer);
    return reason ? upgrade_bad(offer, reason) : UPGRADE_WEBSOCKET;
}

static const char *upgrade_check_protocol(const struct http_message *response, const struct span *offered,
                                          unsigned offered_count, struct span *protocol) {
    unsigned count;
    const struct http_field *field = upgrade_only(response, HTTP_FIELD_SEC_WEBSOCKET_PROTOCOL, &count);
    if (count == 0)
        return NULL;
    if (!field)
        return "101 with two Sec-WebSocket-Protocol fields";
    for (unsigned i = 0; i < offered_count; i++) {
        if (span_equal(offered[i], field->value)) {
            *protocol = field->value;
            return NULL;
        }
    }
    return "101 with a subprotocol that was not offered";
}

const char *upgrade_check_response(const struct http_message *response, struct span key, const struct span *offered,
                                   unsigned offered_count, struct span *protocol) {
    unsigned count;
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    *protocol = SPAN_NULL;
    if (response->status != 101 || response->minor != 1)
        return "no 101 in HTTP/1.1";
    if (!response->connection_upgrade)
        return "101 without Connection: upgrade";
    const struct http_field *upgrade = upgrade_only(response, HTTP_FIELD_UPGRADE, &count);
    if (!upgrade || !str_equal_nocase(upgrade->value, SPAN("websocket")))
        return "101 without Upgrade: websocket alone";
    if (http_find(response, HTTP_FIELD_CONTENT_LENGTH) || http_find(response, HTTP_FIELD_TRANSFER_ENCODING))
        return "101 with framing fields";
    const struct http_field *value = upgrade_only(response, HTTP_FIELD_SEC_WEBSOCKET_ACCEPT, &count);
    if (!value)
        return count ? "101 with two Sec-WebSocket-Accept fields" : "101 without Sec-WebSocket-Accept";
    upgrade_accept(key, accept);
    if (!span_equal(value->value, span_make(accept, UPGRADE_ACCEPT_SIZE)))
        return "101 with the wrong Sec-WebSocket-Accept";
    return upgrade_check_protocol(response, offered, offered_count, protocol);
}

/* Fetched once: a look-up by name takes a lock that all workers share, and twice the time of the hash. */
static EVP_MD *upgrade_sha1;
static pthread_once_t upgrade_once = PTHREAD_ONCE_INIT;

static void upgrade_fetch_sha1(void) { upgrade_sha1 = EVP_MD_fetch(NULL, "SHA1", NULL); }

void upgrade_accept(struct span key, char out[UPGRADE_ACCEPT_SIZE + 1]) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[UPGRADE_KEY_SIZE + sizeof(guid)];
    unsigned char digest[EVP_MAX_MD_SIZE] = {0}; /* stays so when memory is out, and equals no server's answer */
    const size_t n = key.n < UPGRADE_KEY_SIZE ? key.n : UPGRADE_KEY_SIZE; /* keys are checked before */
    if (n > 0)
        memcpy(text, key.p, n);
    memcpy(text + n, guid, sizeof(guid) - 1);
    (void)pthread_once(&upgrade_once, upgrade_fetch_sha1);
    (void)EVP_Digest(text, n + sizeof(guid) - 1, digest, NULL, upgrade_sha1 ? upgrade_sha1 : EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)out, digest, UPGRADE_SHA1_SIZE);
}

void upgrade_make_key(char out[25]) {
    unsigned char bytes[UPGRADE_KEY_BYTES];
    ssize_t n;
    do {
        n = getrandom(bytes, sizeof(bytes), 0); /* up to 256 bytes come whole */
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(bytes))
        abort();
    EVP_EncodeBlock((unsigned char *)out, bytes, sizeof(bytes));
}
