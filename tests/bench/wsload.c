/* SPDX-License-Identifier: MIT */
/*
 * wsload: WebSocket load over N plain tunnels, for tests/bench/quick. It opens all of them, says "open N", and obeys
 * lines on stdin: "echo S" plays ping-pong with 64-byte messages on every tunnel for S seconds and answers "done ECHOES
 * SECONDS"; the end of input ends it. Between commands the tunnels are idle, which is when memory is measured.
 *
 * Opening is blocking and one by one, as it is not what is measured. Each reply is compared byte for byte with what that
 * tunnel sent: a proxy that mixes tunnels up, or is fast because it loses messages, fails here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define SENT (2 + 4 + MESSAGE) /* client frames are masked, RFC 6455 section 5.3 */
#define REPLY (2 + MESSAGE)
#define EVENTS 256
#define PATIENCE_S 10

struct tunnel {
    int fd;
    unsigned number;
    uint64_t round; /* messages sent; part of each message */
    size_t got;     /* bytes of the reply so far */
    unsigned char reply[REPLY];
};

static void fail(const char *what) {
    fprintf(stderr, "wsload: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill_message(const struct tunnel *tunnel, unsigned char *out) {
    uint64_t head[2] = {tunnel->number, tunnel->round};
    memset(out, 'm', MESSAGE);
    memcpy(out, head, sizeof(head));
}

static void send_message(struct tunnel *tunnel) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char frame[SENT] = {0x82, 0x80 | MESSAGE, mask[0], mask[1], mask[2], mask[3]};
    tunnel->round++;
    tunnel->got = 0;
    fill_message(tunnel, frame + 6);
    for (size_t i = 0; i < MESSAGE; i++)
        frame[6 + i] ^= mask[i & 3];
    errno = 0;
    if (send(tunnel->fd, frame, SENT, MSG_NOSIGNAL) != SENT)
        fail("send");
}

/* True once the whole reply is there; it must be what was sent. */
static bool read_reply(struct tunnel *tunnel) {
    unsigned char wanted[REPLY] = {0x82, MESSAGE};
    errno = 0;
    ssize_t n = recv(tunnel->fd, tunnel->reply + tunnel->got, REPLY - tunnel->got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        fail(n == 0 ? "the tunnel was closed" : "recv");
    tunnel->got += (size_t)n;
    if (tunnel->got < REPLY)
        return false;
    fill_message(tunnel, wanted + 2);
    errno = 0;
    if (memcmp(wanted, tunnel->reply, REPLY) != 0)
        fail("reply");
    return true;
}

/* Reads a response head byte by byte, so that nothing behind it is taken. */
static void read_head(int fd, char *head, size_t size) {
    size_t used = 0;
    while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
        errno = 0;
        if (used + 1 >= size || recv(fd, head + used, 1, 0) != 1)
            fail("handshake");
        used++;
    }
    head[used] = 0;
}

static void open_tunnel(struct tunnel *tunnel, uint16_t port, const char *path) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    char head[4096];
    int one = 1;
    int n = snprintf(head, sizeof(head),
                     "GET %s HTTP/1.1\r\nHost: localhost:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n",
                     path, port);
    if (n < 0 || (size_t)n >= sizeof(head))
        fail("path");
    tunnel->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (tunnel->fd < 0 || connect(tunnel->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        fail("connect");
    setsockopt(tunnel->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(tunnel->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (send(tunnel->fd, head, (size_t)n, MSG_NOSIGNAL) != n)
        fail("send");
    read_head(tunnel->fd, head, sizeof(head));
    errno = 0;
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || !strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
        fprintf(stderr, "wsload: answer to the handshake:\n%s", head);
        fail("handshake");
    }
}

/* Ping-pong on all tunnels; a message under way at the deadline is still awaited. Returns the echoes. */
static uint64_t run_echo(int epoll, struct tunnel *tunnels, unsigned count, double seconds) {
    struct epoll_event events[EVENTS];
    double deadline = now_s() + seconds;
    uint64_t echoes = 0;
    unsigned under_way = count;
    bool over = false;
    for (unsigned i = 0; i < count; i++)
        send_message(&tunnels[i]);
    while (under_way > 0) {
        errno = 0;
        int n = epoll_wait(epoll, events, EVENTS, PATIENCE_S * 1000);
        if (n <= 0 && errno != EINTR)
            fail("no echo came");
        over = over || now_s() >= deadline;
        for (int i = 0; i < n; i++) {
            struct tunnel *tunnel = events[i].data.ptr;
            if (!read_reply(tunnel))
                continue;
            echoes++;
            if (over)
                under_way--;
            else
                send_message(tunnel);
        }
    }
    return echoes;
}

static unsigned long number_of(const char *text, unsigned long max) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || value < 1 || value > max) {
        fprintf(stderr, "usage: wsload PORT PATH TUNNELS\n");
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    struct rlimit limit;
    char line[64];
    if (argc != 4)
        number_of("", 0);
    uint16_t port = (uint16_t)number_of(argv[1], 65535);
    unsigned count = (unsigned)number_of(argv[3], 100000);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    struct tunnel *tunnels = calloc(count, sizeof(*tunnels));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!tunnels || epoll < 0)
        fail("start");
    for (unsigned i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &tunnels[i]};
        tunnels[i].number = i;
        open_tunnel(&tunnels[i], port, argv[2]);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, tunnels[i].fd, &event) != 0)
            fail("epoll_ctl");
    }
    printf("open %u\n", count);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        if (strncmp(line, "echo ", 5) != 0)
            fail("command");
        double start = now_s();
        uint64_t echoes = run_echo(epoll, tunnels, count, strtod(line + 5, NULL));
        printf("done %llu %.6f\n", (unsigned long long)echoes, now_s() - start);
        fflush(stdout);
    }
    free(tunnels);
    return 0;
}
