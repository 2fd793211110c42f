/* SPDX-License-Identifier: MIT */
/*
 * Sockets: every descriptor is born non-blocking and close-on-exec, so that no path can forget it. TCP_NODELAY is for
 * both ends of the proxy: it always writes whole messages, and Nagle would only add a delay behind small WebSocket frames.
 *
 * The subtle one is the unix listener: a path left behind by a dead process must not block the next start, but a live one
 * must. Only a connect tells the two apart.
 */
#include "io/sock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes the kernel takes beyond what is on its way: without it a stopped reader holds 3 MB there, and a thousand exhaust tcp_mem. */
#define SOCK_NOTSENT_MAX (128 * 1024)
#define SOCK_DEFER_S 1

static void sock_set(int fd, int level, int option, int value) {
    (void)setsockopt(fd, level, option, &value, sizeof value);
}

static bool sock_is_tcp(const struct addr *addr) { return addr->sa.any.sa_family != AF_UNIX; }

/* Removes a unix socket's path if nobody listens behind it. */
static void sock_remove_stale(const struct addr *addr) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, &addr->sa.any, addr->len) < 0 && errno == ECONNREFUSED)
        unlink(addr->sa.un.sun_path);
    close(fd);
}

static int sock_fail(int fd, const char **err_step, const char *step) {
    int saved = errno;
    if (fd >= 0)
        close(fd);
    if (err_step)
        *err_step = step;
    errno = saved;
    return -1;
}

int sock_listen(const struct addr *addr, int backlog, const char **err_step) {
    int fd = socket(addr->sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return sock_fail(fd, err_step, "socket");
    if (sock_is_tcp(addr)) {
        sock_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        sock_set_stream(fd); /* accepted sockets inherit it */
        /* Every client of ours speaks first: the kernel keeps who is silent for a second, and the first bytes are there at accept. */
        sock_set(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, SOCK_DEFER_S);
    } else {
        sock_remove_stale(addr);
    }
    if (addr->sa.any.sa_family == AF_INET6)
        sock_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (bind(fd, &addr->sa.any, addr->len) < 0)
        return sock_fail(fd, err_step, "bind");
    if (listen(fd, backlog) < 0)
        return sock_fail(fd, err_step, "listen");
    return fd;
}

int sock_connect(const struct addr *to, const struct addr *source) {
    int fd = socket(to->sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (source && source->len > 0 && source->sa.any.sa_family == to->sa.any.sa_family) {
        /* The port is chosen at connect, per destination, so that many connections can share one source. */
        sock_set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        if (bind(fd, &source->sa.any, source->len) < 0)
            return sock_fail(fd, NULL, NULL);
    }
    if (connect(fd, &to->sa.any, to->len) < 0 && errno != EINPROGRESS)
        return sock_fail(fd, NULL, NULL);
    return fd;
}

void sock_set_stream(int fd) {
    sock_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    sock_set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, SOCK_NOTSENT_MAX);
}

int sock_accept(int listener, struct addr *peer) {
    peer->len = sizeof peer->sa;
    int fd = accept4(listener, &peer->sa.any, &peer->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd;
}

int sock_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return errno;
    return error;
}

void sock_set_keepalive(int fd, unsigned idle_s) {
    if (idle_s == 0)
        return;
    unsigned pace = idle_s / 4 > 0 ? idle_s / 4 : 1;
    sock_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    sock_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)idle_s);
    sock_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)pace);
    sock_set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

void sock_set_user_timeout(int fd, unsigned timeout_ms) {
    sock_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)timeout_ms);
}

void sock_set_abort(int fd) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

bool sock_local(int fd, struct addr *out) {
    out->len = sizeof out->sa;
    return getsockname(fd, &out->sa.any, &out->len) == 0;
}

size_t sock_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    if (limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
            limit.rlim_cur = before;
    }
    return (size_t)limit.rlim_cur;
}

bool sock_error_is_local(int error) {
    /* ENOSPC: fs.epoll.max_user_watches is reached. */
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == ENOSPC || error == EADDRNOTAVAIL ||
           error == EADDRINUSE || error == EAGAIN;
}
