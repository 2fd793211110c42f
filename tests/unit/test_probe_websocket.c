/* SPDX-License-Identifier: MIT */
/*
 * probe_websocket: what is sent, and what each answer means. The far end is driven by hand; frames of ours must be masked.
 */
#include "peer.h"
#include "upstream/probe_run.h"
#include "wire/frame.h"
#include "wire/upgrade.h"

static struct peer peer;
static struct probe_websocket *probe;
static enum probe_result result;
static char detail[PROBE_DETAIL_MAX], hint[PROBE_DETAIL_MAX];
static unsigned done;

static void on_done(void *owner, enum probe_result got, const char *text, const char *help) {
    ck_assert_ptr_eq(owner, &peer);
    result = got;
    snprintf(detail, sizeof detail, "%s", text);
    snprintf(hint, sizeof hint, "%s", help ? help : "");
    done++;
    probe_websocket_free(&probe);
}

static int setup(const char *subprotocol, bool ping, uint32_t timeout_ms) {
    peer_prepare(&peer);
    peer.upstream.is_probe = true;
    struct config_probe *config = &peer.config.probe;
    config_probe_defaults(config);
    config_probe_written(config);
    config->kind = CONFIG_PROBE_WEBSOCKET;
    config->path = (char *)(uintptr_t) "/feed";
    config->subprotocol = (char *)(uintptr_t)subprotocol;
    config->ping = ping;
    config->timeout_ms = timeout_ms;
    peer_open(&peer);
    probe = probe_websocket_start(&peer.upstream, peer.pool, peer.server, on_done, &peer);
    ck_assert_uint_eq(done, 0);
    return peer_accept(&peer);
}

static void teardown(int fd) {
    if (fd >= 0)
        close(fd);
    probe_websocket_free(&probe);
    peer_turns(&peer, 2);
    peer_close(&peer);
    ck_assert_uint_eq(metric_sum(METRIC_server_connects), 0);
    ck_assert_uint_eq(metric_sum(METRIC_server_closed), 0);
}

/* Reads the handshake, writes the answer's accept value. */
static char *shake(int fd, char accept[UPGRADE_ACCEPT_SIZE + 1]) {
    char *request = peer_expect(&peer, fd, "\r\n\r\n");
    const char *key = strstr(request, "Sec-WebSocket-Key: ");
    ck_assert_ptr_nonnull(key);
    upgrade_accept(span_make(key + 19, 24), accept);
    return request;
}

static void answer(int fd, const char *accept, const char *lines, const char *glued, size_t n) {
    char head[1024];
    int size = snprintf(head, sizeof head, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        "Sec-WebSocket-Accept: %s\r\n%s\r\n", accept, lines);
    memcpy(head + size, glued, n);
    peer_say(fd, head, (size_t)size + n);
}

/* The next control frame of the probe, its payload unmasked into out; returns its size. */
static size_t take_frame(int fd, enum frame_opcode opcode, char *out) {
    unsigned char bytes[FRAME_HEADER_MAX + FRAME_CONTROL_MAX];
    size_t have = 0;
    while (have < 6 || have < 6u + (bytes[1] & 0x7f)) {
        size_t want = have < 6 ? 6 - have : 6u + (bytes[1] & 0x7f) - have;
        ssize_t n = recv(fd, bytes + have, want, 0);
        if (n > 0)
            have += (size_t)n;
        else
            loop_turn(peer.loop, 1);
    }
    ck_assert_uint_eq(bytes[0], 0x80u | (unsigned)opcode);
    ck_assert(bytes[1] & 0x80);
    memcpy(out, bytes + 6, have - 6);
    frame_mask(out, have - 6, bytes + 2, 0);
    return have - 6;
}

static void take_close(int fd) {
    char payload[FRAME_CONTROL_MAX];
    ck_assert_uint_eq(take_frame(fd, FRAME_CLOSE, payload), 2);
    ck_assert_int_eq(memcmp(payload, "\x03\xe8", 2), 0);
}

static void wait_done(enum probe_result want, const char *text) {
    for (unsigned i = 0; i < 3000 && done == 0; i++)
        loop_turn(peer.loop, 1);
    ck_assert_uint_eq(done, 1);
    ck_assert_msg(strstr(detail, text) != NULL, "%s", detail);
    ck_assert_int_eq(result, want);
}

START_TEST(test_probe_websocket_ok) {
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    int fd = setup("chat", false, 3000);
    char *request = shake(fd, accept);
    ck_assert_int_eq(strncmp(request, "GET /feed HTTP/1.1\r\nHost: ", 26), 0);
    ck_assert_ptr_nonnull(strstr(request, "\r\nSec-WebSocket-Version: 13\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nSec-WebSocket-Protocol: chat\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nConnection: Upgrade\r\n"));
    ck_assert_ptr_nonnull(strstr(request, "\r\nUpgrade: websocket\r\n"));
    free(request);
    answer(fd, accept, "Sec-WebSocket-Protocol: chat\r\n", "", 0);
    take_close(fd);
    peer_turns(&peer, 5);
    ck_assert_uint_eq(done, 0); /* waits for the echo */
    peer_say(fd, "\x88\x02\x03\xe8", 4);
    wait_done(PROBE_OK, "WebSocket /feed: 101, Close 1000");
    ck_assert(peer_is_closed(&peer, fd));
    teardown(fd);
}
END_TEST

/* A welcome and a ping glued to the 101, cut anywhere; the pong's echo comes late. */
START_TEST(test_probe_websocket_ping) {
    static const char glued[] = "\x81\x02hi\x89\x03who\x01\x01x";
    char accept[UPGRADE_ACCEPT_SIZE + 1], payload[FRAME_CONTROL_MAX];
    int fd = setup(NULL, true, 3000);
    free(shake(fd, accept));
    answer(fd, accept, "", glued, sizeof glued - 1);
    ck_assert_uint_eq(take_frame(fd, FRAME_PING, payload), 8);
    char pong[] = "\x8a\x08" "12345678";
    memcpy(pong + 2, payload, 8);
    ck_assert_uint_eq(take_frame(fd, FRAME_PONG, payload), 3);
    ck_assert_int_eq(memcmp(payload, "who", 3), 0);
    peer_say(fd, "\x8a\x08" "nobody's", 10); /* unasked: skipped */
    for (size_t i = 0; i < sizeof pong - 1; i++) {
        peer_say(fd, pong + i, 1);
        peer_turns(&peer, 2);
    }
    take_close(fd);
    peer_say(fd, "\x88\x00", 2);
    wait_done(PROBE_OK, "101, pong, Close 1000");
    teardown(fd);
}
END_TEST

static const struct {
    const char *subprotocol, *lines, *accept, *frames;
    size_t n;
    bool ping;
    const char *text;
} failures[] = {
    {NULL, "", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "", 0, false, "wrong Sec-WebSocket-Accept"},
    {NULL, "Sec-WebSocket-Protocol: chat\r\n", NULL, "", 0, false, "not offered"},
    {"chat", "Sec-WebSocket-Protocol: other\r\n", NULL, "", 0, false, "not offered"},
    {"chat", "", NULL, "", 0, false, "without the subprotocol \"chat\""},
    {NULL, "", NULL, "\x88\x02\x03\xf3", 4, false, "Close 1011, expected 1000"},
    {NULL, "", NULL, "\x88\x02\x03\xf5", 4, true, "Close 1013 instead of a pong"},
    {NULL, "", NULL, "\x88\x02\x03\xe8", 4, true, "Close 1000 instead of a pong"},
    {NULL, "", NULL, "\x88\x01!", 3, false, "malformed Close"},
    {NULL, "", NULL, "\x88\x80\x01\x02\x03\x04", 6, false, "masked frame of a server"},
    {NULL, "", NULL, "\xc1\x00", 2, false, "reserved bit"},
};

START_TEST(test_probe_websocket_failures) {
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    int fd = setup(failures[_i].subprotocol, failures[_i].ping, 3000);
    free(shake(fd, accept));
    answer(fd, failures[_i].accept ? failures[_i].accept : accept, failures[_i].lines, failures[_i].frames, failures[_i].n);
    wait_done(PROBE_FAILED, failures[_i].text);
    teardown(fd);
}
END_TEST

START_TEST(test_probe_websocket_no_101) {
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    int fd = setup(NULL, false, 3000);
    free(shake(fd, accept));
    const char *text = _i == 0 ? "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" : "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    peer_say(fd, text, strlen(text));
    wait_done(PROBE_FAILED, _i == 0 ? "404, expected 101" : "200, expected 101");
    ck_assert_ptr_nonnull(strstr(hint, "path"));
    teardown(fd);
}
END_TEST

/* Silence at each of the three points, and an end without a Close. */
START_TEST(test_probe_websocket_silence) {
    static const char *const texts[] = {"no answer within 60 ms", "no pong within 60 ms", "no Close within 60 ms", "without a Close frame"};
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    int fd = setup(NULL, _i == 1, _i == 3 ? 3000 : 60);
    free(shake(fd, accept));
    if (_i > 0)
        answer(fd, accept, "", "", 0);
    if (_i == 3) {
        take_close(fd);
        close(fd);
        fd = -1;
    }
    wait_done(PROBE_FAILED, texts[_i]);
    teardown(fd);
}
END_TEST

START_TEST(test_probe_websocket_refused) {
    int fd = setup(NULL, false, 3000);
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    free(shake(fd, accept)); /* read, or the close would be a reset */
    close(fd);
    wait_done(PROBE_FAILED, "WebSocket /feed: closed before the response head was complete");
    teardown(-1);
}
END_TEST

START_TEST(test_probe_websocket_freed_under_way) {
    char accept[UPGRADE_ACCEPT_SIZE + 1];
    int fd = setup(NULL, false, 3000);
    if (_i == 1) {
        free(shake(fd, accept));
        answer(fd, accept, "", "", 0);
        take_close(fd);
    }
    teardown(fd);
    ck_assert_uint_eq(done, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("probe_websocket");
    TCase *tests = tcase_create("probe_websocket");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_probe_websocket_ok);
    tcase_add_test(tests, test_probe_websocket_ping);
    tcase_add_loop_test(tests, test_probe_websocket_failures, 0, (int)(sizeof failures / sizeof *failures));
    tcase_add_loop_test(tests, test_probe_websocket_no_101, 0, 2);
    tcase_add_loop_test(tests, test_probe_websocket_silence, 0, 4);
    tcase_add_test(tests, test_probe_websocket_refused);
    tcase_add_loop_test(tests, test_probe_websocket_freed_under_way, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
