/* SPDX-License-Identifier: MIT */
/*
 * kernel: sockets, epoll, pipes, a clock and chance in memory, in the place of the system calls of src/io and src/base (ld --wrap,
 * kernel_wrap in Makefile.am), so that a test owns every event and every millisecond. Descriptors of it begin at KERNEL_BASE; all others
 * go to the real system. A link joins the gateway's descriptor with the far end, which the test holds: the client of an
 * accepted connection, or the server of one that was connected.
 */
#ifndef MOONGATE_TESTS_MEMORY_KERNEL_H
#define MOONGATE_TESTS_MEMORY_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_BASE 5000
#define KERNEL_MAX 256

struct kernel_queue {
    char *data;
    size_t len, cap;
    size_t size; /* of data's memory, which only grows */
};

struct kernel_link {
    struct kernel_queue in, out; /* towards the gateway; from it */
    int fd;                      /* the gateway's; -1: not accepted yet, or closed */
    bool waiting;                /* in the backlog, or connect() under way */
    bool far_fin, far_closed, far_reset;
    bool near_fin, near_closed, near_reset;
    int error;                   /* the gateway's SO_ERROR */
    bool linger;                 /* its close resets */
    struct kernel_link *next;    /* of those waiting */
};

struct kernel {
    uint64_t now_us;
    uint64_t calls;     /* system calls that the gateway has made here; a look at the clock is none */
    bool idle;          /* the last epoll_wait() had nothing */
    int idle_ms;        /* and would have waited so long */
    unsigned first;     /* descriptor that epoll_wait() looks at first */
    bool prompt;        /* connect() makes the connection at once, though it says EINPROGRESS: as to the same host */
    size_t read_max;    /* a recv() or splice() gives at most so many bytes; 0: all */
    int accept_error, connect_error, socket_error, add_error; /* errno of the next such call, once */
    struct kernel_link *backlog, *dialed; /* oldest first */
};
extern struct kernel kernel;

/* Everything must be closed: aborts else. */
void kernel_end(void);
/* A client connects; NULL when nobody listens. */
struct kernel_link *kernel_dial(size_t cap);
/* The server takes the oldest connect() (NULL: there is none), or refuses it (a prompt one: resets it). */
struct kernel_link *kernel_answer(size_t cap);
bool kernel_refuse(int error);
/* Far end: bytes taken (0: full, or the gateway has closed), bytes got, the end. */
size_t kernel_give(struct kernel_link *link, const char *data, size_t n);
size_t kernel_take(struct kernel_link *link, char *data, size_t n);
void kernel_shut(struct kernel_link *link);
void kernel_reset(struct kernel_link *link);
/* Room for cap bytes each way from now on. */
void kernel_widen(struct kernel_link *link, size_t cap);
/* The far end lets go of the link: a FIN unless it has reset. */
void kernel_drop(struct kernel_link **link);

#endif
