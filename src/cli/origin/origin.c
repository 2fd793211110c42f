/* SPDX-License-Identifier: MIT */
/*
 * The origin: its socket, its thread, its loop. One thread and level-triggered epoll: a small request costs one wait, one
 * read and one write, and nothing has to be remembered about readiness. It is a server to test against, so it
 * is written apart from the gateway's loop, conn and wire layers on purpose.
 *
 * The subtle thing: the thread blocks all signals. OpenSSL writes without MSG_NOSIGNAL, and a SIGPIPE, like a
 * SIGTERM, must not land here.
 */
#include "cli/origin/origin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/origin/peer.h"

#define ORIGIN_ERROR_MAX 256
#define ORIGIN_EVENTS 128
#define ORIGIN_ACCEPT_BATCH 64
#define ORIGIN_OUT_MAX (8u << 20)

static bool origin_bind_address(const struct origin_options *options, struct sockaddr_storage *out, socklen_t *size) {
    const char *bind = options->bind ? options->bind : "127.0.0.1";
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(options->port)};
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, bind, &in.sin_addr) == 1) {
        memcpy(out, &in, sizeof(in));
        *size = sizeof(in);
        return true;
    }
    if (inet_pton(AF_INET6, bind, &in6.sin6_addr) == 1) {
        memcpy(out, &in6, sizeof(in6));
        *size = sizeof(in6);
        return true;
    }
    return false;
}

static bool origin_listen(struct origin *origin, const struct origin_options *options, char *error) {
    const char *bind_text = options->bind ? options->bind : "127.0.0.1";
    struct sockaddr_storage address;
    socklen_t size;
    if (!origin_bind_address(options, &address, &size)) {
        snprintf(error, ORIGIN_ERROR_MAX, "%s: not an IP address", bind_text);
        return false;
    }
    int one = 1;
    origin->listen_fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (origin->listen_fd < 0 || setsockopt(origin->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(origin->listen_fd, (struct sockaddr *)&address, size) != 0 || listen(origin->listen_fd, 4096) != 0) {
        snprintf(error, ORIGIN_ERROR_MAX, "%s port %u: %s", bind_text, options->port, strerror(errno));
        return false;
    }
    size = sizeof(address);
    if (getsockname(origin->listen_fd, (struct sockaddr *)&address, &size) != 0) {
        snprintf(error, ORIGIN_ERROR_MAX, "%s: %s", bind_text, strerror(errno));
        return false;
    }
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memcpy(&in, &address, sizeof(in));
    memcpy(&in6, &address, sizeof(in6));
    origin->port = ntohs(address.ss_family == AF_INET6 ? in6.sin6_port : in.sin_port);
    return true;
}

static bool origin_load_tls(struct origin *origin, const struct origin_options *options, char *error) {
    if (!options->tls_cert)
        return true;
    const char *key = options->tls_key ? options->tls_key : options->tls_cert;
    ERR_clear_error();
    origin->tls = SSL_CTX_new(TLS_server_method());
    if (!origin->tls || SSL_CTX_use_certificate_chain_file(origin->tls, options->tls_cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(origin->tls, key, SSL_FILETYPE_PEM) != 1) {
        const char *reason = ERR_reason_error_string(ERR_peek_error());
        snprintf(error, ORIGIN_ERROR_MAX, "%s, %s: %s", options->tls_cert, key, reason ? reason : "cannot be read");
        ERR_clear_error();
        return false;
    }
    SSL_CTX_set_mode(origin->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(origin->tls, SSL_SESS_CACHE_OFF);
    return true;
}

static bool origin_watch(struct origin *origin, int fd, void *tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    return epoll_ctl(origin->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool origin_open_loop(struct origin *origin, char *error) {
    origin->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    origin->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (origin->epoll_fd >= 0 && origin->stop_fd >= 0 && origin_watch(origin, origin->stop_fd, &origin->stop_fd) &&
        origin_watch(origin, origin->listen_fd, &origin->listen_fd))
        return true;
    snprintf(error, ORIGIN_ERROR_MAX, "epoll: %s", strerror(errno));
    return false;
}

static void origin_accept(struct origin *origin) {
    for (int i = 0; i < ORIGIN_ACCEPT_BATCH; i++) {
        int fd = accept4(origin->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            /* The pending connection stays pending, so without a pause this would spin. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            return;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        origin_peer_open(origin, fd);
    }
}

static void origin_run_timers(struct origin *origin) {
    uint64_t now = clock_ms();
    struct heap_node *node;
    while ((node = heap_top(&origin->timers)) != NULL && node->key <= now) {
        heap_remove(&origin->timers, node);
        origin_peer_expire(container_of(node, struct origin_peer, timer));
    }
}

static int origin_wait_ms(const struct origin *origin) {
    const struct heap_node *node = heap_top(&origin->timers);
    if (!node)
        return -1;
    uint64_t now = clock_ms();
    if (node->key <= now)
        return 0;
    return node->key - now > 60000 ? 60000 : (int)(node->key - now);
}

static void *origin_main(void *arg) {
    struct origin *origin = arg;
    struct epoll_event events[ORIGIN_EVENTS];
    for (;;) {
        int count = epoll_wait(origin->epoll_fd, events, ORIGIN_EVENTS, origin_wait_ms(origin));
        for (int i = 0; i < count; i++) {
            void *tag = events[i].data.ptr;
            if (tag == &origin->stop_fd)
                return NULL;
            if (tag == &origin->listen_fd)
                origin_accept(origin);
            else
                origin_peer_ready(tag, events[i].events);
        }
        origin_run_timers(origin);
    }
}

static bool origin_start_thread(struct origin *origin, char *error) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&origin->thread, NULL, origin_main, origin);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        snprintf(error, ORIGIN_ERROR_MAX, "thread: %s", strerror(failed));
        return false;
    }
    origin->started = true;
    return true;
}

struct origin *origin_start(const struct origin_options *options, char *error) {
    struct origin *origin = mem_alloc(sizeof(*origin));
    origin->epoll_fd = origin->listen_fd = origin->stop_fd = -1;
    origin->name = mem_strdup(options->name ? options->name : "origin");
    origin->subprotocols = mem_strdup(options->subprotocols);
    heap_init(&origin->timers);
    list_init(&origin->peers);
    buf_init(&origin->out, ORIGIN_OUT_MAX);
    origin->scratch = mem_alloc(ORIGIN_READ_SIZE);
    origin->pattern = mem_alloc(ORIGIN_PATTERN_SIZE);
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-\n";
    for (size_t i = 0; i < ORIGIN_PATTERN_SIZE; i++)
        origin->pattern[i] = alphabet[i % 64];
    if (origin_load_tls(origin, options, error) && origin_listen(origin, options, error) &&
        origin_open_loop(origin, error) && origin_start_thread(origin, error))
        return origin;
    origin_stop(&origin);
    return NULL;
}

uint16_t origin_port(const struct origin *origin) {
    return origin->port;
}

void origin_stop(struct origin **pointer) {
    struct origin *origin = *pointer;
    *pointer = NULL;
    if (!origin)
        return;
    if (origin->started) {
        uint64_t one = 1;
        ssize_t written;
        do
            written = write(origin->stop_fd, &one, sizeof(one));
        while (written < 0 && errno == EINTR);
        pthread_join(origin->thread, NULL);
    }
    LIST_EACH_SAFE(link, &origin->peers)
        origin_peer_close(container_of(link, struct origin_peer, link));
    int fds[] = {origin->listen_fd, origin->stop_fd, origin->epoll_fd};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    SSL_CTX_free(origin->tls);
    heap_fini(&origin->timers);
    buf_release(&origin->out);
    mem_free(origin->scratch);
    mem_free(origin->pattern);
    mem_free(origin->subprotocols);
    mem_free(origin->name);
    mem_free(origin);
}
