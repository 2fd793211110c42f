/* SPDX-License-Identifier: MIT */
/*
 * floor: the least a proxy can cost. Each accepted connection gets one of its own to the server, and bytes are passed on
 * unread. "copy" goes through one buffer by recv() and send(), "splice" through a pipe a direction. One thread, one
 * edge-triggered registration a socket for life, no read after a short read, TCP_NODELAY, no timers, no logs.
 *
 * The subtle thing: a FIN has no event of its own when it comes with data; once RDHUP was seen, reads go on to 0.
 *
 * usage: floor copy|splice PORT SERVER_PORT     (127.0.0.1 both)
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (64 * 1024)
#define PIPE_SIZE (256 * 1024)
#define EVENTS 256

struct link;

struct side {
    struct link *link;
    int fd;
    bool readable, writable, fin, ended; /* ended: its FIN was passed on */
    char *held;                          /* copy: bytes from this side that the other has not taken */
    size_t held_at, held_size;
    int pipe[2]; /* splice: what this side has sent */
    size_t piped;
};

struct link {
    struct side side[2];
    struct link *next_dead;
    bool dead;
};

static bool by_splice;
static int epoll_fd;
static struct sockaddr_in server;
static struct link *dead; /* freed behind the batch: it may hold another event for them */
static char buffer[BUFFER];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void link_close(struct link *link) {
    if (link->dead)
        return;
    link->dead = true;
    link->next_dead = dead;
    dead = link;
    for (int i = 0; i < 2; i++) {
        struct side *side = &link->side[i];
        close(side->fd);
        free(side->held);
        if (by_splice) {
            close(side->pipe[0]);
            close(side->pipe[1]);
        }
    }
}

static bool side_open(struct link *link, int which, int fd) {
    struct side *side = &link->side[which];
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
    int one = 1;
    side->link = link;
    side->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (by_splice) {
        if (pipe2(side->pipe, O_NONBLOCK | O_CLOEXEC) != 0)
            return false;
        fcntl(side->pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
    }
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void on_listener(int listener) {
    int client;
    while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct link *link = calloc(1, sizeof(*link));
        if (fd < 0 || !link || (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 && errno != EINPROGRESS) ||
            !side_open(link, 0, client) || !side_open(link, 1, fd))
            fail("floor: link");
        link->side[0].writable = true;
    }
}

/* What is held towards `to`. True: nothing is left. False: wait, or closed. */
static bool copy_flush(struct side *from, struct side *to) {
    while (from->held) {
        ssize_t n = send(to->fd, from->held + from->held_at, from->held_size - from->held_at, MSG_NOSIGNAL);
        if (n < 0) {
            to->writable = false;
            if (errno != EAGAIN)
                link_close(from->link);
            return false;
        }
        from->held_at += (size_t)n;
        if (from->held_at == from->held_size) {
            free(from->held);
            from->held = NULL;
        }
    }
    return true;
}

/* One read and its write. 1: there may be more, 0: not now, -1: the end. */
static int copy_once(struct side *from, struct side *to) {
    ssize_t n = recv(from->fd, buffer, BUFFER, 0);
    if (n <= 0) {
        from->readable = false;
        return n == 0 ? -1 : errno == EAGAIN ? 0 : (link_close(from->link), 0);
    }
    if (n < BUFFER && !from->fin)
        from->readable = false;
    ssize_t sent = send(to->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        link_close(from->link);
        return 0;
    }
    if (sent == n)
        return 1;
    to->writable = false;
    sent = sent < 0 ? 0 : sent;
    from->held_at = 0;
    from->held_size = (size_t)(n - sent);
    if (!(from->held = malloc(from->held_size)))
        fail("floor");
    memcpy(from->held, buffer + sent, from->held_size);
    return 0;
}

static bool splice_flush(struct side *from, struct side *to) {
    while (from->piped > 0) {
        ssize_t n = splice(from->pipe[0], NULL, to->fd, NULL, from->piped, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0) {
            to->writable = false;
            if (errno != EAGAIN)
                link_close(from->link);
            return false;
        }
        from->piped -= (size_t)n;
    }
    return true;
}

static int splice_once(struct side *from, struct side *to) {
    ssize_t n = splice(from->fd, NULL, from->pipe[1], NULL, PIPE_SIZE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n <= 0) {
        from->readable = false;
        return n == 0 ? -1 : errno == EAGAIN ? 0 : (link_close(from->link), 0);
    }
    from->piped += (size_t)n;
    return splice_flush(from, to) ? 1 : 0;
}

static void pump(struct side *from, struct side *to) {
    bool (*flush)(struct side *, struct side *) = by_splice ? splice_flush : copy_flush;
    int (*once)(struct side *, struct side *) = by_splice ? splice_once : copy_once;
    if (from->link->dead || !to->writable || !flush(from, to))
        return;
    while (!from->link->dead && from->readable && to->writable && !from->ended) {
        int result = once(from, to);
        if (result == 0)
            return;
        if (result < 0) {
            from->ended = true;
            shutdown(to->fd, SHUT_WR);
            if (to->ended)
                link_close(from->link);
        }
    }
}

static void on_side(struct side *side, uint32_t events) {
    struct link *link = side->link;
    struct side *other = side == &link->side[0] ? &link->side[1] : &link->side[0];
    if (link->dead)
        return;
    if (events & EPOLLERR) {
        link_close(link);
        return;
    }
    side->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0;
    side->fin |= (events & (EPOLLRDHUP | EPOLLHUP)) != 0;
    side->writable |= (events & EPOLLOUT) != 0;
    pump(side, other);
    pump(other, side);
}

static int listen_on(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 4096) != 0)
        fail("floor: listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("floor: epoll");
    return fd;
}

int main(int argc, char **argv) {
    struct rlimit limit;
    struct epoll_event events[EVENTS];
    if (argc != 4) {
        fprintf(stderr, "usage: floor copy|splice PORT SERVER_PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* splice() knows no MSG_NOSIGNAL */
    by_splice = strcmp(argv[1], "splice") == 0;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((uint16_t)strtoul(argv[2], NULL, 10));
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_side(events[i].data.ptr, events[i].events);
            else
                on_listener(listener);
        }
        while (dead) {
            struct link *link = dead;
            dead = link->next_dead;
            free(link);
        }
    }
}
