/* SPDX-License-Identifier: MIT */
/* Tests of wire/upgrade by requirements B11 and B12, on heads read as any other. */
#include "wire_fixture.h"

#include "wire/upgrade.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* of RFC 6455 section 1.3 */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define UP "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
#define KV "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n"
#define GET(fields) "GET /chat HTTP/1.1\r\n" fields "\r\n"

static struct arena upgrade_arena;
static struct upgrade_offer upgrade_offer;

static void upgrade_setup(void) {
    arena_init(&upgrade_arena, NULL, 1 << 20);
}
static void upgrade_teardown(void) {
    arena_fini(&upgrade_arena);
}

static enum upgrade_kind upgrade_judge(const char *text) {
    struct http_message message;
    struct http1_error error = {0};
    http_message_init(&message, &upgrade_arena);
    ck_assert_msg(http1_read_request(text, strlen(text), &wire_limits, &message, &error) == HTTP1_OK, "%s: %s", text,
                  error.reason);
    const enum upgrade_kind kind = upgrade_check_request(&message, &upgrade_offer);
    ck_assert((kind == UPGRADE_BAD) <= (upgrade_offer.reason != NULL));
    return kind;
}

START_TEST(test_upgrade_request) { /* B11: honoured only when everything is right */
    static const struct {
        enum upgrade_kind kind;
        const char *text;
    } rows[] = {
        {UPGRADE_WEBSOCKET, GET(UP KV)},
        /* "upgrade" a token of Connection: any case, any position, any line */
        {UPGRADE_WEBSOCKET, GET("Host: a\r\nConnection: keep-alive, x,UPGRADE\r\nUpgrade: WebSocket\r\n" KV)},
        {UPGRADE_WEBSOCKET, GET("Host: a\r\nConnection: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nUpgrade: websocket\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: upgraded\r\nUpgrade: websocket\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nProxy-Connection: upgrade\r\nUpgrade: websocket\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: upgrade\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\n")},
        /* other protocols are stripped, the request goes on as plain HTTP */
        {UPGRADE_NONE, GET("Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n")},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.3, h2c\r\n")},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: Upgrade\r\nUpgrade: websockets\r\n" KV)},
        {UPGRADE_NONE, GET("Host: a\r\nConnection: Upgrade\r\nUpgrade:\r\n" KV)},
        {UPGRADE_WEBSOCKET, GET("Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n" KV)},
        {UPGRADE_WEBSOCKET, GET("Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n" KV)},
        /* HTTP/1.1 only; RFC 9110 section 7.8 has it ignored in HTTP/1.0 */
        {UPGRADE_NONE, "GET / HTTP/1.0\r\n" UP KV "\r\n"},
        /* GET without a body only */
        {UPGRADE_BAD, "POST / HTTP/1.1\r\n" UP KV "\r\n"},
        {UPGRADE_BAD, "HEAD / HTTP/1.1\r\n" UP KV "\r\n"},
        {UPGRADE_BAD, GET(UP KV "Content-Length: 1\r\n")},
        {UPGRADE_BAD, GET(UP KV "Transfer-Encoding: chunked\r\n")},
        {UPGRADE_WEBSOCKET, GET(UP KV "Content-Length: 0\r\n")},
        /* version */
        {UPGRADE_BAD_VERSION, GET(UP "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 8\r\n")},
        {UPGRADE_BAD_VERSION, GET(UP "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13, 8\r\n")},
        {UPGRADE_BAD_VERSION, GET(UP "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 013\r\n")},
        {UPGRADE_BAD_VERSION, GET(UP "Sec-WebSocket-Version: 8\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Key: " KEY "\r\n")},
        {UPGRADE_BAD, GET(UP KV "Sec-WebSocket-Version: 13\r\n")},
        /* key: 16 bytes in base64, once */
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\n")},
        {UPGRADE_BAD, GET(UP KV "Sec-WebSocket-Key: " KEY "\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key:\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE=\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ_==\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBs=SBub25jZQ==\r\n")},
        {UPGRADE_BAD, GET(UP "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBs ZSBub25jZQ==\r\n")},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const enum upgrade_kind kind = upgrade_judge(rows[i].text);
        ck_assert_msg(kind == rows[i].kind, "%d (%s) for %s", (int)kind,
                      upgrade_offer.reason ? upgrade_offer.reason : "", rows[i].text);
        if (kind == UPGRADE_WEBSOCKET)
            ck_assert(span_equal(upgrade_offer.key, SPAN(KEY)));
    }
}
END_TEST

START_TEST(test_upgrade_protocols) { /* subprotocols in order, over all lines, each once, at most 32 */
    ck_assert_int_eq(
        upgrade_judge(
            GET(UP KV "Sec-WebSocket-Protocol: chat , superchat\r\nX: y\r\nSec-WebSocket-Protocol: b,Chat\r\n")),
        UPGRADE_WEBSOCKET);
    ck_assert_uint_eq(upgrade_offer.protocol_count, 4);
    ck_assert(span_equal(upgrade_offer.protocols[0], SPAN("chat")));
    ck_assert(span_equal(upgrade_offer.protocols[1], SPAN("superchat")));
    ck_assert(span_equal(upgrade_offer.protocols[2], SPAN("b")));
    ck_assert(span_equal(upgrade_offer.protocols[3], SPAN("Chat")));
    ck_assert_int_eq(upgrade_judge(GET(UP KV)), UPGRADE_WEBSOCKET);
    ck_assert_uint_eq(upgrade_offer.protocol_count, 0);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol: a, b, a\r\n")), UPGRADE_BAD);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n")),
                     UPGRADE_BAD);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol: a b\r\n")), UPGRADE_BAD);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol: \"a\"\r\n")), UPGRADE_BAD);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol:\r\n")), UPGRADE_BAD);
    ck_assert_int_eq(upgrade_judge(GET(UP KV "Sec-WebSocket-Protocol: , ,\r\n")), UPGRADE_BAD);
    for (unsigned count = 32; count <= 33; count++) {
        char text[1024];
        size_t n = (size_t)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" UP KV "Sec-WebSocket-Protocol: p0");
        for (unsigned i = 1; i < count; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, ",p%u", i);
        snprintf(text + n, sizeof(text) - n, "\r\n\r\n");
        ck_assert_int_eq(upgrade_judge(text), count == 32 ? UPGRADE_WEBSOCKET : UPGRADE_BAD);
    }
}
END_TEST

static const char *upgrade_answer(const char *text, struct span *protocol) {
    static const struct span offered[] = {{"chat", 4}, {"superchat", 9}};
    struct http_message message;
    struct http1_error error = {0};
    http_message_init(&message, &upgrade_arena);
    ck_assert_msg(http1_read_response(text, strlen(text), &wire_limits, HTTP_GET, &message, &error) == HTTP1_OK,
                  "%s: %s", text, error.reason);
    return upgrade_check_response(&message, SPAN(KEY), offered, 2, protocol);
}

#define SWITCH(fields) "HTTP/1.1 101 Switching Protocols\r\n" fields "\r\n"
#define BACK "Connection: Upgrade\r\nUpgrade: websocket\r\n"
#define PROOF "Sec-WebSocket-Accept: " ACCEPT "\r\n"

START_TEST(test_upgrade_response) { /* B12: anything wrong with the 101 is a reason to refuse it */
    static const char *const bad[] = {
        "HTTP/1.1 200 OK\r\n" BACK PROOF "\r\n",
        "HTTP/1.0 101 Switching Protocols\r\n" BACK PROOF "\r\n",
        SWITCH("Upgrade: websocket\r\n" PROOF),
        SWITCH("Connection: close\r\nUpgrade: websocket\r\n" PROOF),
        SWITCH("Connection: Upgrade\r\n" PROOF),
        SWITCH("Connection: Upgrade\r\nUpgrade: h2c\r\n" PROOF),
        SWITCH("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" PROOF),
        SWITCH("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n" PROOF),
        SWITCH("Connection: Upgrade\r\nUpgrade:\r\n" PROOF),
        SWITCH(BACK PROOF "Content-Length: 0\r\n"),
        SWITCH(BACK PROOF "Transfer-Encoding: chunked\r\n"),
        SWITCH(BACK),
        SWITCH(BACK PROOF PROOF),
        SWITCH(BACK "Sec-WebSocket-Accept:\r\n"),
        SWITCH(BACK "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        SWITCH(BACK "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo\r\n"),
        SWITCH(BACK PROOF "Sec-WebSocket-Protocol: other\r\n"),
        SWITCH(BACK PROOF "Sec-WebSocket-Protocol: Chat\r\n"),
        SWITCH(BACK PROOF "Sec-WebSocket-Protocol: chat, superchat\r\n"),
        SWITCH(BACK PROOF "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n"),
        SWITCH(BACK PROOF "Sec-WebSocket-Protocol:\r\n"),
    };
    struct span protocol = SPAN("x");
    ck_assert_ptr_null(upgrade_answer(SWITCH(BACK PROOF), &protocol));
    ck_assert_ptr_null(protocol.p);
    ck_assert_ptr_null(upgrade_answer(SWITCH("Connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n" PROOF
                                             "Sec-WebSocket-Protocol: superchat\r\n"),
                                      &protocol));
    ck_assert(span_equal(protocol, SPAN("superchat")));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(upgrade_answer(bad[i], &protocol) != NULL, "%s", bad[i]);
        ck_assert_ptr_null(protocol.p);
    }
}
END_TEST

START_TEST(test_upgrade_keys) { /* RFC 6455 section 1.3 */
    char accept[UPGRADE_ACCEPT_SIZE + 1], key[25], other[25];
    upgrade_accept(SPAN(KEY), accept);
    ck_assert_str_eq(accept, ACCEPT);
    upgrade_make_key(key);
    upgrade_make_key(other);
    ck_assert_uint_eq(strlen(key), 24);
    ck_assert_str_ne(key, other);
    char text[512];
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n%sSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", UP,
             key);
    ck_assert_int_eq(upgrade_judge(text), UPGRADE_WEBSOCKET);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("upgrade");
    TCase *tc = tcase_create("upgrade");
    tcase_add_checked_fixture(tc, upgrade_setup, upgrade_teardown);
    tcase_add_test(tc, test_upgrade_request);
    tcase_add_test(tc, test_upgrade_protocols);
    tcase_add_test(tc, test_upgrade_response);
    tcase_add_test(tc, test_upgrade_keys);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
