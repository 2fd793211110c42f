/* SPDX-License-Identifier: MIT */
/* The origin as a client sees it: bodies of each framing, requests cut at every byte, the health switch, WebSocket echo. */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/origin/origin.h"

static struct origin *origin;

static void setup(void) {
    char error[256] = "";
    origin = origin_start(&(struct origin_options){.name = "unit", .subprotocols = "superchat,chat"}, error);
    ck_assert_msg(origin != NULL, "%s", error);
}

static void teardown(void) {
    origin_stop(&origin);
    ck_assert_ptr_null(origin);
}

static int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(origin_port(origin))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void say(int fd, const void *p, size_t n) {
    ck_assert_int_eq(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Reads to the end, at most size - 1 bytes; NUL-terminated. */
static size_t hear_all(int fd, char *out, size_t size) {
    size_t n = 0;
    ssize_t got;
    while (n < size - 1 && (got = recv(fd, out + n, size - 1 - n, 0)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    return n;
}

static void hear(int fd, void *out, size_t n) {
    ck_assert_int_eq(recv(fd, out, n, MSG_WAITALL), (ssize_t)n);
}

/* One exchange on a connection of its own. */
static char *ask(const char *request, size_t cut) {
    static char answer[300000];
    int fd = dial();
    size_t n = strlen(request);
    if (cut) {
        say(fd, request, cut);
        usleep(1000);
    }
    say(fd, request + cut, n - cut);
    hear_all(fd, answer, sizeof(answer));
    close(fd);
    return answer;
}

static const char *body_of(const char *answer) {
    const char *end = strstr(answer, "\r\n\r\n");
    ck_assert_ptr_nonnull(end);
    return end + 4;
}

START_TEST(test_sizes) {
    const char *answer = ask("GET /size/70000 HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
    ck_assert_ptr_nonnull(strstr(answer, "content-length: 70000\r\n"));
    ck_assert_ptr_nonnull(strstr(answer, "x-origin: unit\r\n"));
    ck_assert_uint_eq(strlen(body_of(answer)), 70000);
    for (size_t i = 0; i < 70000; i += 64)
        ck_assert_int_eq(body_of(answer)[i], 'A');
    answer = ask("GET /size/100?chunked=1 HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
    ck_assert_ptr_nonnull(strstr(answer, "\r\n\r\n64\r\n"));
    ck_assert_str_eq(answer + strlen(answer) - 7, "\r\n0\r\n\r\n");
    answer = ask("GET /size/100?close=1 HTTP/1.1\r\n\r\n", 0);
    ck_assert_ptr_null(strstr(answer, "content-length"));
    ck_assert_uint_eq(strlen(body_of(answer)), 100);
    answer = ask("GET /size/100?cut=10 HTTP/1.1\r\n\r\n", 0);
    ck_assert_ptr_nonnull(strstr(answer, "content-length: 100\r\n"));
    ck_assert_uint_eq(strlen(body_of(answer)), 10);
}
END_TEST

START_TEST(test_echo_cut_at_every_byte) {
    static const char request[] = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: 1\r\n\r\n"
                                  "GET /status/404 HTTP/1.1\r\nConnection: close\r\n\r\n";
    char *whole = mem_strdup(ask(request, 0));
    ck_assert_ptr_nonnull(strstr(whole, "Transfer-Encoding: chunked\r\n\r\nhello worldHTTP/1.1 404 Not Found\r\n"));
    for (size_t cut = 1; cut < sizeof(request) - 1; cut++)
        ck_assert_str_eq(ask(request, cut), whole);
    mem_free(whole);
}
END_TEST

START_TEST(test_refusals) {
    static const char *const bad[] = {
        "GET\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n",
        "GET /size/99999999999 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nname : x\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(strncmp(ask(bad[i], 0), "HTTP/1.1 400 ", 13) == 0, "%s", bad[i]);
    ck_assert_str_eq(ask("GET /drop HTTP/1.1\r\n\r\n", 0), "");
}
END_TEST

START_TEST(test_health_switch) {
    static const char get[] = "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n";
    ck_assert_int_eq(strncmp(ask(get, 0), "HTTP/1.1 200", 12), 0);
    ask("POST /healthz/fail HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
    ck_assert_int_eq(strncmp(ask(get, 0), "HTTP/1.1 503", 12), 0);
    ask("POST /healthz/ok HTTP/1.1\r\nConnection: close\r\n\r\n", 0);
    ck_assert_int_eq(strncmp(ask(get, 0), "HTTP/1.1 200", 12), 0);
}
END_TEST

START_TEST(test_streams) {
    const char *answer = ask("GET /stream/3/5 HTTP/1.0\r\n\r\n", 0);
    ck_assert_str_eq(body_of(answer), "data: 2 more from unit\n\ndata: 1 more from unit\n\ndata: 0 more from unit\n\n");
    ck_assert_str_eq(body_of(ask("GET /slow/20 HTTP/1.0\r\n\r\n", 0)), "unit, 20 ms later\n");
    answer = ask("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", 0);
    ck_assert_int_eq(strncmp(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", 37), 0);
}
END_TEST

static int open_socket(void) {
    /* The handshake of RFC 6455 section 1.2. */
    static const char handshake[] = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                    "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char answer[1024] = "";
    int fd = dial();
    say(fd, handshake, sizeof(handshake) - 1);
    for (size_t n = 0; n < sizeof(answer) - 1 && !strstr(answer, "\r\n\r\n"); n++)
        hear(fd, answer + n, 1);
    ck_assert_int_eq(strncmp(answer, "HTTP/1.1 101 ", 13), 0);
    ck_assert_ptr_nonnull(strstr(answer, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    ck_assert_ptr_nonnull(strstr(answer, "sec-websocket-protocol: superchat\r\n"));
    return fd;
}

START_TEST(test_websocket) {
    int fd = open_socket();
    /* "Hello" masked, in two fragments with a ping between them, byte by byte; then Close 1000. */
    static const unsigned char frames[] = {0x01, 0x83, 1, 2, 3, 4, 'H' ^ 1, 'e' ^ 2, 'l' ^ 3, 0x89, 0x82, 0, 0, 0, 0, 'h', 'i',
                                           0x80, 0x82, 9, 8, 7, 6, 'l' ^ 9, 'o' ^ 8, 0x88, 0x82, 0, 0, 0, 0, 3, 0xe8};
    static const unsigned char echo[] = {0x01, 3, 'H', 'e', 'l', 0x8a, 2, 'h', 'i', 0x80, 2, 'l', 'o', 0x88, 2, 3, 0xe8};
    unsigned char got[sizeof(echo)];
    for (size_t i = 0; i < sizeof(frames); i++)
        say(fd, frames + i, 1);
    hear(fd, got, sizeof(got));
    ck_assert_mem_eq(got, echo, sizeof(echo));
    ck_assert_int_eq(recv(fd, got, 1, 0), 0);
    close(fd);
}
END_TEST

START_TEST(test_websocket_large) {
    enum { SIZE = 1 << 18 };
    int fd = open_socket();
    unsigned char *message = mem_alloc(SIZE), *echo = mem_alloc(SIZE);
    unsigned char head[14] = {0x82, 0xff, 0, 0, 0, 0, 0, 0x04, 0, 0, 0x5a, 0xa5, 0x0f, 0xf0};
    say(fd, head, sizeof(head));
    for (size_t sent = 0; sent < SIZE; sent += 4096) {
        for (size_t i = 0; i < 4096; i++)
            message[sent + i] = (unsigned char)((sent + i) * 7);
        say(fd, message + sent, 4096);
    }
    unsigned char echo_head[10];
    hear(fd, echo_head, sizeof(echo_head));
    head[1] = 0x7f;
    ck_assert_mem_eq(echo_head, head, 10);
    hear(fd, echo, SIZE);
    static const unsigned char mask[4] = {0x5a, 0xa5, 0x0f, 0xf0};
    for (size_t i = 0; i < SIZE; i++)
        message[i] ^= mask[i % 4];
    ck_assert_int_eq(memcmp(echo, message, SIZE), 0);
    /* A frame that is not masked is an error of the protocol: Close 1002. */
    say(fd, "\x82\x01x", 3);
    unsigned char refusal[4];
    hear(fd, refusal, 4);
    ck_assert_mem_eq(refusal, "\x88\x02\x03\xea", 4);
    mem_free(message);
    mem_free(echo);
    close(fd);
}
END_TEST

START_TEST(test_busy_port) {
    char error[256] = "";
    struct origin *second = origin_start(&(struct origin_options){.port = origin_port(origin)}, error);
    ck_assert_ptr_null(second);
    ck_assert_ptr_nonnull(strstr(error, "Address already in use"));
    ck_assert_ptr_null(origin_start(&(struct origin_options){.bind = "nowhere"}, error));
    ck_assert_ptr_null(origin_start(&(struct origin_options){.tls_cert = "/nonexistent.pem"}, error));
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent.pem"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("origin");
    TCase *tests = tcase_create("origin");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_sizes);
    tcase_add_test(tests, test_echo_cut_at_every_byte);
    tcase_add_test(tests, test_refusals);
    tcase_add_test(tests, test_health_switch);
    tcase_add_test(tests, test_streams);
    tcase_add_test(tests, test_websocket);
    tcase_add_test(tests, test_websocket_large);
    tcase_add_test(tests, test_busy_port);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
