/* SPDX-License-Identifier: MIT */
/*
 * splice(2) between two sockets through a pipe. The pipe is filled only while it is empty: then EAGAIN can mean one thing only, that the socket has
 * nothing, and the readable flag may be cleared; with bytes inside it could also mean a full pipe.
 */
#include "io/pipe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/mem.h"

#define PIPES_KEPT 4 /* empty ones a thread keeps for the next flow */

void pipes_init(struct pipes *pipes, unsigned max) { *pipes = (struct pipes){.max = max}; }

static void pipe_destroy(struct pipes *pipes, struct pipe *pipe) {
    close(pipe->in);
    close(pipe->out);
    mem_free(pipe);
    pipes->made--;
}

void pipes_fini(struct pipes *pipes) {
    while (pipes->free) {
        struct pipe *pipe = pipes->free;
        pipes->free = pipe->next;
        pipe_destroy(pipes, pipe);
    }
    assert(pipes->made == 0);
}

struct pipe *pipes_borrow(struct pipes *pipes) {
    struct pipe *pipe = pipes->free;
    if (pipe) {
        pipes->free = pipe->next;
        return pipe;
    }
    int ends[2];
    if (pipes->made >= pipes->max || pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return NULL;
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
    pipe = mem_alloc(sizeof *pipe);
    pipe->out = ends[0];
    pipe->in = ends[1];
    pipes->made++;
    return pipe;
}

void pipes_return(struct pipes *pipes, struct pipe **slot) {
    struct pipe *pipe = *slot;
    *slot = NULL;
    if (!pipe)
        return;
    unsigned kept = 0;
    for (const struct pipe *it = pipes->free; it; it = it->next)
        kept++;
    if (pipe->filled > 0 || kept >= PIPES_KEPT) {
        pipe_destroy(pipes, pipe);
        return;
    }
    pipe->next = pipes->free;
    pipes->free = pipe;
}

static enum io pipe_fail(struct conn *conn) {
    conn->error = (uint16_t)errno;
    conn->failed = true;
    return IO_ERROR;
}

static enum io pipe_result(struct conn *conn, ssize_t moved) {
    if (moved > 0)
        return IO_OK;
    return errno == EAGAIN ? IO_AGAIN : pipe_fail(conn);
}

enum io pipe_fill(struct pipe *pipe, struct conn *from, size_t max, size_t *n) {
    assert(pipe->filled == 0 && max > 0 && !from->tls);
    if (from->eof)
        return IO_EOF;
    if (!from->readable)
        return IO_AGAIN;
    ssize_t moved;
    do
        moved = splice(from->fd, NULL, pipe->in, NULL, max < PIPE_SIZE ? max : PIPE_SIZE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (moved < 0 && errno == EINTR);
    if (moved == 0) {
        from->eof = true;
        return IO_EOF;
    }
    enum io result = pipe_result(from, moved);
    if (result == IO_AGAIN)
        from->readable = false;
    if (result == IO_OK)
        *n = pipe->filled = (size_t)moved;
    return result;
}

enum io pipe_drain(struct pipe *pipe, struct conn *to, size_t *n) {
    assert(pipe->filled > 0 && !to->tls);
    if (!to->writable)
        return IO_AGAIN;
    conn_will_write(to);
    ssize_t moved;
    do
        moved = splice(pipe->out, NULL, to->fd, NULL, pipe->filled, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (moved < 0 && errno == EINTR);
    enum io result = pipe_result(to, moved);
    if (result == IO_AGAIN && !conn_stop_writing(to))
        return pipe_fail(to);
    if (result == IO_OK) {
        *n = (size_t)moved;
        pipe->filled -= (size_t)moved;
    }
    return result;
}
