/* SPDX-License-Identifier: MIT */
/*
 * wsload: WebSocket load over N tunnels, plain or TLS 1.3, for tests/bench. It opens all of them, says "open N", and obeys
 * lines on stdin; the end of input ends it. Between commands the tunnels are idle, which is when memory is measured.
 *
 *   echo S       ping-pong with 64-byte messages on every tunnel for S seconds      done ECHOES SECONDS
 *   flood S      messages of 32 KiB, 256 KiB in flight on every tunnel              done BYTES SECONDS (both directions)
 *   upgrade S N  N threads open a tunnel, read its 101, close it, again             done UPGRADES SECONDS
 *
 * Opening is blocking and one by one, as it is not what is measured. Each reply is compared byte for byte with what that
 * tunnel sent: a proxy that mixes tunnels up, or is fast because it loses messages, fails here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
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
#define HEAD_MAX 4096
#define THREADS_MAX 64

#define FLOOD_MESSAGE (32 * 1024)
#define FLOOD_SENT (4 + 4 + FLOOD_MESSAGE) /* 16-bit length, mask */
#define FLOOD_REPLY (4 + FLOOD_MESSAGE)
#define FLOOD_CYCLE 8 /* frames that lie in one buffer, so that a send is not cut at each */
#define FLOOD_WINDOW (256 * 1024)
#define FLOOD_READS 8

struct tunnel {
    int fd;
    unsigned number;
    SSL *tls;       /* NULL: plain */
    uint64_t round; /* messages sent; part of each message */
    size_t got;     /* bytes of the reply so far */
    uint64_t flood_sent, flood_got;
    size_t refused; /* bytes offered in vain: TLS has sealed some of them, and wants them again */
    unsigned char reply[REPLY];
};

static SSL_CTX *tls_context; /* NULL: plain */
static uint16_t port;
static const char *path;
static unsigned char flood_out[FLOOD_SENT * FLOOD_CYCLE], flood_in[FLOOD_REPLY * FLOOD_CYCLE];

static void fail(const char *what) {
    fprintf(stderr, "wsload: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
    if (tls_context)
        ERR_print_errors_fp(stderr);
    exit(1);
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- bytes: as send() and recv(), over either kind --- */

static ssize_t tls_result(SSL *tls, int n) {
    if (n > 0)
        return n;
    switch (SSL_get_error(tls, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return -1;
    }
}

static ssize_t put(struct tunnel *tunnel, const void *data, size_t size) {
    errno = 0;
    if (!tunnel->tls)
        return send(tunnel->fd, data, size, MSG_NOSIGNAL);
    ERR_clear_error();
    return tls_result(tunnel->tls, SSL_write(tunnel->tls, data, (int)size));
}

static ssize_t get(struct tunnel *tunnel, void *data, size_t size) {
    errno = 0;
    if (!tunnel->tls)
        return recv(tunnel->fd, data, size, 0);
    ERR_clear_error();
    return tls_result(tunnel->tls, SSL_read(tunnel->tls, data, (int)size));
}

/* As get(), but 0: nothing there now; an end is a failure. */
static size_t get_some(struct tunnel *tunnel, void *data, size_t size) {
    ssize_t n = get(tunnel, data, size);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0)
        fail(n == 0 ? "the tunnel was closed" : "recv");
    return (size_t)n;
}

/* --- opening --- */

static void connect_tunnel(struct tunnel *tunnel) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int one = 1;
    tunnel->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (tunnel->fd < 0 || connect(tunnel->fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        fail("connect");
    setsockopt(tunnel->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(tunnel->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (!tls_context)
        return;
    tunnel->tls = SSL_new(tls_context);
    if (!tunnel->tls || !SSL_set_fd(tunnel->tls, tunnel->fd) || !SSL_set_tlsext_host_name(tunnel->tls, "localhost"))
        fail("TLS");
    if (SSL_connect(tunnel->tls) != 1)
        fail("TLS handshake");
}

static void open_tunnel(struct tunnel *tunnel) {
    char head[HEAD_MAX];
    connect_tunnel(tunnel);
    int n = snprintf(head, sizeof(head),
                     "GET %s HTTP/1.1\r\nHost: localhost:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n",
                     path, port);
    if (n < 0 || (size_t)n >= sizeof(head))
        fail("path");
    if (put(tunnel, head, (size_t)n) != n)
        fail("send");
    size_t used = 0;
    while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
        ssize_t got = used + 1 < sizeof(head) ? get(tunnel, head + used, sizeof(head) - 1 - used) : -1;
        if (got <= 0)
            fail("handshake");
        used += (size_t)got; /* nothing follows the head: the server waits for a message */
    }
    head[used] = 0;
    errno = 0;
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || !strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
        fprintf(stderr, "wsload: answer to the handshake:\n%s", head);
        fail("handshake");
    }
}

static void close_tunnel(struct tunnel *tunnel) {
    if (tunnel->tls) {
        SSL_shutdown(tunnel->tls);
        SSL_free(tunnel->tls);
        tunnel->tls = NULL;
    }
    close(tunnel->fd);
}

/* --- echo --- */

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
    if (put(tunnel, frame, SENT) != SENT)
        fail("send");
}

/* True once the whole reply is there; it must be what was sent. */
static bool read_reply(struct tunnel *tunnel) {
    unsigned char wanted[REPLY] = {0x82, MESSAGE};
    tunnel->got += get_some(tunnel, tunnel->reply + tunnel->got, REPLY - tunnel->got);
    if (tunnel->got < REPLY)
        return false;
    fill_message(tunnel, wanted + 2);
    errno = 0;
    if (memcmp(wanted, tunnel->reply, REPLY) != 0)
        fail("reply");
    return true;
}

static int wait_events(int epoll, struct epoll_event *events) {
    errno = 0;
    int n = epoll_wait(epoll, events, EVENTS, PATIENCE_S * 1000);
    if (n <= 0 && errno != EINTR)
        fail("no reply came");
    return n;
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
        int n = wait_events(epoll, events);
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

/* --- flood --- */

/* A mask of zeros is a mask: what is sent and what comes back differ by heads only. */
static void prepare_flood(void) {
    uint64_t random = 88172645463325252u;
    for (size_t frame = 0; frame < FLOOD_CYCLE; frame++) {
        unsigned char *out = flood_out + frame * FLOOD_SENT, *in = flood_in + frame * FLOOD_REPLY;
        memcpy(out, (unsigned char[8]){0x82, 0x80 | 126, FLOOD_MESSAGE >> 8, FLOOD_MESSAGE & 255}, 8);
        memcpy(in, (unsigned char[4]){0x82, 126, FLOOD_MESSAGE >> 8, FLOOD_MESSAGE & 255}, 4);
        for (size_t i = 0; i < FLOOD_MESSAGE; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            out[8 + i] = in[4 + i] = (unsigned char)random;
        }
    }
}

/* Replies counted as the bytes whose replies they are. */
static uint64_t flood_returned(const struct tunnel *tunnel) {
    return tunnel->flood_got / FLOOD_REPLY * FLOOD_SENT + tunnel->flood_got % FLOOD_REPLY;
}

/* Fills the window; once it is over only the frame begun is ended. No EPOLLOUT is needed: what is under way comes back. */
static void flood_send(struct tunnel *tunnel, bool over) {
    for (;;) {
        size_t at = (size_t)(tunnel->flood_sent % sizeof(flood_out)), room = sizeof(flood_out) - at;
        uint64_t window = FLOOD_WINDOW - (tunnel->flood_sent - flood_returned(tunnel));
        size_t in_frame = at % FLOOD_SENT;
        if (tunnel->refused)
            room = tunnel->refused;
        else if (over && in_frame == 0)
            return;
        else if (over)
            room = FLOOD_SENT - in_frame;
        else if (room > window)
            room = (size_t)window;
        if (room == 0)
            return;
        ssize_t n = put(tunnel, flood_out + at, room);
        tunnel->refused = n < 0 && errno == EAGAIN ? room : 0;
        if (tunnel->refused)
            return;
        if (n <= 0)
            fail("send");
        tunnel->flood_sent += (uint64_t)n;
    }
}

static void flood_receive(struct tunnel *tunnel) {
    static unsigned char data[128 * 1024];
    for (int reads = 0; reads < FLOOD_READS; reads++) {
        size_t n = get_some(tunnel, data, sizeof(data));
        for (size_t done = 0; done < n;) {
            size_t at = (size_t)(tunnel->flood_got % sizeof(flood_in)), part = sizeof(flood_in) - at;
            if (part > n - done)
                part = n - done;
            errno = 0;
            if (memcmp(flood_in + at, data + done, part) != 0)
                fail("reply");
            done += part;
            tunnel->flood_got += part;
        }
        if (n == 0 || (!tunnel->tls && n < sizeof(data)))
            return;
    }
}

/* Returns the bytes moved, both directions. */
static uint64_t run_flood(int epoll, struct tunnel *tunnels, unsigned count, double seconds) {
    struct epoll_event events[EVENTS];
    double deadline = now_s() + seconds;
    uint64_t bytes = 0;
    unsigned under_way = count;
    bool over = false;
    for (unsigned i = 0; i < count; i++) {
        tunnels[i].flood_sent = tunnels[i].flood_got = 0;
        flood_send(&tunnels[i], false);
    }
    while (under_way > 0) {
        int n = wait_events(epoll, events);
        over = over || now_s() >= deadline;
        for (int i = 0; i < n; i++) {
            struct tunnel *tunnel = events[i].data.ptr;
            flood_receive(tunnel);
            flood_send(tunnel, over);
            if (!over || tunnel->refused || tunnel->flood_sent % FLOOD_SENT != 0 || flood_returned(tunnel) != tunnel->flood_sent)
                continue;
            under_way--;
            bytes += tunnel->flood_sent + tunnel->flood_got;
        }
    }
    return bytes;
}

/* --- upgrade, close, again --- */

struct upgrader {
    pthread_t thread;
    double deadline;
    uint64_t upgrades;
};

static void *upgrade_main(void *arg) {
    struct upgrader *upgrader = arg;
    while (now_s() < upgrader->deadline) {
        struct tunnel tunnel = {0};
        open_tunnel(&tunnel);
        close_tunnel(&tunnel);
        upgrader->upgrades++;
    }
    return NULL;
}

static uint64_t run_upgrade(double seconds, unsigned threads) {
    struct upgrader upgraders[THREADS_MAX];
    uint64_t upgrades = 0;
    for (unsigned i = 0; i < threads; i++) {
        upgraders[i] = (struct upgrader){.deadline = now_s() + seconds};
        errno = pthread_create(&upgraders[i].thread, NULL, upgrade_main, &upgraders[i]);
        if (errno)
            fail("thread");
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(upgraders[i].thread, NULL);
        upgrades += upgraders[i].upgrades;
    }
    return upgrades;
}

/* --- the program --- */

static unsigned long number_of(const char *text, unsigned long max) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || value > max) {
        fprintf(stderr, "usage: wsload [--tls] PORT PATH TUNNELS\n");
        exit(2);
    }
    return value;
}

/* The server's certificate is made for the run and belongs to nobody: it is not looked at. */
static void prepare_tls(void) {
    tls_context = SSL_CTX_new(TLS_client_method());
    if (!tls_context || !SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION) ||
        !SSL_CTX_set1_groups_list(tls_context, "X25519"))
        fail("TLS");
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
}

static struct tunnel *open_all(unsigned count, int epoll) {
    struct tunnel *tunnels = calloc(count + 1, sizeof(*tunnels));
    if (!tunnels)
        fail("start");
    for (unsigned i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &tunnels[i]};
        tunnels[i].number = i;
        open_tunnel(&tunnels[i]);
        if (fcntl(tunnels[i].fd, F_SETFL, O_NONBLOCK) != 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, tunnels[i].fd, &event) != 0)
            fail("epoll_ctl");
    }
    return tunnels;
}

static uint64_t obey(const char *line, int epoll, struct tunnel *tunnels, unsigned count) {
    char word[16];
    double seconds;
    unsigned threads = 1;
    int fields = sscanf(line, "%15s %lf %u", word, &seconds, &threads);
    if (fields >= 2 && strcmp(word, "echo") == 0)
        return run_echo(epoll, tunnels, count, seconds);
    if (fields >= 2 && strcmp(word, "flood") == 0)
        return run_flood(epoll, tunnels, count, seconds);
    if (fields >= 2 && strcmp(word, "upgrade") == 0 && threads >= 1 && threads <= THREADS_MAX)
        return run_upgrade(seconds, threads);
    fail("command");
    return 0;
}

int main(int argc, char **argv) {
    struct rlimit limit;
    char line[64];
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    if (argc > 1 && strcmp(argv[1], "--tls") == 0) {
        prepare_tls();
        argc--;
        argv++;
    }
    if (argc != 4)
        number_of("", 0);
    port = (uint16_t)number_of(argv[1], 65535);
    path = argv[2];
    unsigned count = (unsigned)number_of(argv[3], 100000);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    prepare_flood();
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("start");
    struct tunnel *tunnels = open_all(count, epoll);
    printf("open %u\n", count);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        double start = now_s();
        uint64_t done = obey(line, epoll, tunnels, count);
        printf("done %llu %.6f\n", (unsigned long long)done, now_s() - start);
        fflush(stdout);
    }
    for (unsigned i = 0; i < count; i++)
        close_tunnel(&tunnels[i]);
    free(tunnels);
    SSL_CTX_free(tls_context);
    return 0;
}
