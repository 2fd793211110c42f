/* SPDX-License-Identifier: MIT */
/* test_forward: the head towards a server, byte by byte. */
#include "routing_fixture.h"
#include "traffic/forward.h"

static struct fixture fx;
static struct subject subject;
static struct config_pool pool;
static struct server server;
static struct action action;
static struct buf out;
static bool keep_alive;

static void setup(void) {
    fixture_init(&fx);
    memset(&pool, 0, sizeof pool);
    memset(&server, 0, sizeof server);
    memset(&action, 0, sizeof action);
    action.kind = ACTION_FORWARD;
    server.host = "10.0.0.1";
    server.port = 9000;
    keep_alive = true;
}

/* The head that goes out for this request; NUL-terminated. */
static const char *sent(void) {
    struct forward_request request = {
        .subject = &subject,
        .action = &action,
        .settings = &fx.settings,
        .pool = &pool,
        .server = &server,
        .target = subject.path,
        .keep_alive = keep_alive,
    };
    buf_release(&out);
    buf_init(&out, 1 << 20);
    ck_assert(forward_write_request(&out, &request));
    ck_assert(buf_append(&out, "", 1));
    return buf_span(&out).p;
}

static const char *forwarded(const char *head) {
    ck_assert_uint_eq(fixture_prepare(&fx, &subject, head), 0);
    return sent();
}

static void done(void) {
    buf_release(&out);
    subject_fini(&subject);
}

#define has(text) ck_assert_msg(strstr(have, "\r\n" text "\r\n") != NULL, "no %s in:\n%s", text, have)
#define lacks(text) ck_assert_msg(strstr(have, text) == NULL, "%s in:\n%s", text, have)

START_TEST(whole_head)
{
    setup();
    const char *have = forwarded(
        "GET /a HTTP/1.1\r\nHost: A.example\r\nX-Request-Id: id1\r\nAccept: */*\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n");
    ck_assert_str_eq(
        have,
        "GET /a HTTP/1.1\r\nHost: A.example\r\nX-Request-Id: id1\r\nAccept: */*\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: A.example\r\n"
        "X-Forwarded-Port: 8080\r\n\r\n");
    done();
}
END_TEST

START_TEST(hop_by_hop_ends_here)
{
    setup();
    keep_alive = false;
    fx.settings.via = (char[]){"gate"};
    const char *have = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, x-forwarded-for, host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        "TE: trailers\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTrailer: X-T\r\n"
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nVia: 1.0 other\r\n\r\n");
    has("Host: a");
    has("Connection: close");
    has("Trailer: X-T");
    has("X-Forwarded-For: 192.0.2.7");
    has("X-Forwarded-Host: a");
    has("Via: 1.0 other");
    has("Via: 1.1 gate");
    lacks("X-Hop");
    lacks("Keep-Alive");
    lacks("TE:");
    lacks("Proxy-Connection");
    lacks("Upgrade");
    lacks("HTTP2");
    lacks("evil");
    lacks("6.6.6.6");
    done();
}
END_TEST

START_TEST(trusted_peer_is_appended_to)
{
    struct cidr list[1];
    setup();
    ck_assert(cidr_parse(SPAN("192.0.2.0/24"), list));
    fx.settings.trusted_proxies = (struct config_cidrs){list, 1, true};
    const char *have =
        forwarded("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"
                  "X-Forwarded-Proto: https\r\nX-Forwarded-Host: www\r\nX-Forwarded-Port: 443\r\nForwarded: for=x\r\n"
                  "X-Real-IP: 2.2.2.2\r\n\r\n");
    has("X-Forwarded-For: 1.1.1.1, 2.2.2.2, 192.0.2.7");
    has("X-Forwarded-Proto: https");
    has("X-Forwarded-Host: www");
    has("X-Forwarded-Port: 443");
    has("Forwarded: for=x");
    has("X-Real-IP: 2.2.2.2");
    ck_assert_ptr_null(strstr(strstr(have, "X-Forwarded-For") + 1, "X-Forwarded-For"));
    done();
}
END_TEST

START_TEST(unix_peer_has_no_address)
{
    setup();
    fx.local_port = 0;
    ck_assert(addr_parse(SPAN("unix:/tmp/x"), 0, &fx.peer));
    const char *have = forwarded("GET / HTTP/1.1\r\nHost: a:81\r\n\r\n");
    lacks("X-Forwarded-For");
    has("X-Forwarded-Port: 81");
    done();
}
END_TEST

START_TEST(host_by_pool)
{
    static const char head[] = "GET / HTTP/1.1\r\nHost: A:81\r\n\r\n";
    setup();
    const char *have = forwarded(head);
    has("Host: A:81");
    subject.host = SPAN("set");
    subject.host_port = 0;
    subject.host_edited = true;
    have = sent();
    has("Host: set");
    has("X-Forwarded-Host: A:81"); /* what the client asked for */
    subject.host_port = 82;
    have = sent();
    has("Host: set:82");
    pool.host = CONFIG_HOST_SERVER;
    have = sent();
    has("Host: 10.0.0.1:9000");
    server.port = 80;
    have = sent();
    has("Host: 10.0.0.1");
    pool.tls = true;
    have = sent();
    has("Host: 10.0.0.1:80");
    server.host = "2001:db8::1";
    server.port = 443;
    have = sent();
    has("Host: [2001:db8::1]");
    pool.host = CONFIG_HOST_FIXED;
    pool.host_fixed = (char[]){"fixed.example"};
    have = sent();
    has("Host: fixed.example");
    action.forward.host = SPAN("own.example");
    have = sent();
    has("Host: own.example");
    lacks("fixed");
    done();
    setup();
    have = forwarded("GET / HTTP/1.0\r\n\r\n"); /* a server of HTTP/1.1 needs some Host */
    has("Host: 10.0.0.1:9000");
    lacks("X-Forwarded-Host");
    done();
}
END_TEST

START_TEST(framing_is_ours)
{
    setup();
    const char *have = forwarded("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n");
    has("Content-Length: 12");
    has("Expect: 100-continue");
    done();
    have = forwarded("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    has("Transfer-Encoding: chunked");
    lacks("Content-Length");
    done();
    have = forwarded("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    has("Content-Length: 0");
    done();
    have = forwarded("DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    has("Content-Length: 0");
    done();
    have = forwarded("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    lacks("Content-Length");
    lacks("Connection");
    done();
    have = forwarded("POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    ck_assert_ptr_eq(strstr(have, "POST / HTTP/1.1\r\n"), have);
    lacks("Expect");
    done();
}
END_TEST

START_TEST(handshake_is_regenerated)
{
    setup();
    keep_alive = false;
    const char *have =
        forwarded("GET /c HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, UPGRADE\r\nUpgrade: WebSocket, h2c\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n"
                  "Sec-WebSocket-Protocol: superchat, bearer\r\nOrigin: http://o\r\n\r\n");
    has("Connection: Upgrade");
    has("Upgrade: websocket");
    has("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
    has("Sec-WebSocket-Version: 13");
    has("Sec-WebSocket-Extensions: permessage-deflate");
    has("Sec-WebSocket-Protocol: chat, superchat, bearer");
    has("Origin: http://o");
    lacks("close");
    lacks("h2c");
    subject.offer.protocol_count = 1;
    ck_assert(subject_apply_offer(&subject));
    have = sent();
    has("Sec-WebSocket-Protocol: chat");
    subject.offer.protocol_count = 0;
    have = sent();
    lacks("Sec-WebSocket-Protocol");
    done();
}
END_TEST

START_TEST(a_full_buffer_is_told)
{
    setup();
    ck_assert_uint_eq(fixture_prepare(&fx, &subject, "GET /a HTTP/1.1\r\nHost: a\r\n" FIXTURE_HANDSHAKE "\r\n"), 0);
    size_t whole = strlen(sent());
    struct forward_request request = {
        .subject = &subject,
        .action = &action,
        .settings = &fx.settings,
        .pool = &pool,
        .server = &server,
        .target = subject.path,
        .keep_alive = true,
    };
    for (size_t cap = 0; cap < whole; cap++) {
        struct buf small;
        buf_init(&small, cap);
        ck_assert(!forward_write_request(&small, &request));
        buf_release(&small);
    }
    request.target = SPAN_NULL; /* decide_target() ran out of memory */
    struct buf plenty;
    buf_init(&plenty, 65536);
    ck_assert(!forward_write_request(&plenty, &request));
    buf_release(&plenty);
    done();
}
END_TEST

START_TEST(response_headers)
{
    struct arena arena;
    struct http_message message;
    arena_init(&arena, NULL, 65536);
    http_message_init(&message, &arena);
    message.is_response = true;
    ck_assert(http_add(&message, SPAN("Server"), SPAN("x")));
    struct action_header edits[] = {
        {SPAN("server"), SPAN_NULL}, {SPAN("x-frame"), SPAN("deny")}, {SPAN("Transfer-Encoding"), SPAN("gzip")}};
    ck_assert(forward_apply_headers(&message, &(struct config_headers){edits, 3}));
    ck_assert_ptr_null(http_find(&message, HTTP_FIELD_SERVER));
    ck_assert_ptr_null(http_find(&message, HTTP_FIELD_TRANSFER_ENCODING));
    ck_assert_span(http_find_name(&message, SPAN("x-frame"))->value, "deny");
    arena_fini(&arena);
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, whole_head);
    tcase_add_test(tests, hop_by_hop_ends_here);
    tcase_add_test(tests, trusted_peer_is_appended_to);
    tcase_add_test(tests, unix_peer_has_no_address);
    tcase_add_test(tests, host_by_pool);
    tcase_add_test(tests, framing_is_ours);
    tcase_add_test(tests, handshake_is_regenerated);
    tcase_add_test(tests, a_full_buffer_is_told);
    tcase_add_test(tests, response_headers);
}

int main(void) { return fixture_run("forward", add); }
