/* SPDX-License-Identifier: MIT */
/*
 * pipe: kernel pipes lent to bulk flows between two plain sockets, so that their bytes never enter this process (splice(2)). A worker keeps a few;
 * only empty ones come back. Their number stays under the kernel's soft limit of pipe pages; without one the caller copies.
 */
#ifndef MOONGATE_IO_PIPE_H
#define MOONGATE_IO_PIPE_H

#include <stddef.h>

#include "io/conn.h"

#define PIPE_SIZE (256 * 1024) /* bytes asked for; the kernel may give less */

struct pipe {
    struct pipe *next;
    int in, out;   /* written to, read from */
    size_t filled; /* bytes inside */
};

/* One thread's. */
struct pipes {
    struct pipe *free;
    unsigned made, max;
};

/* max: pipes alive at once. */
void pipes_init(struct pipes *pipes, unsigned max);
/* All must be back. */
void pipes_fini(struct pipes *pipes);
/* An empty pipe, or NULL: none to be had. */
struct pipe *pipes_borrow(struct pipes *pipes);
/* Gives it back; one that still holds bytes is closed. Clears the pointer; NULL inside is fine. */
void pipes_return(struct pipes *pipes, struct pipe **pipe);

/* At most max bytes from a plain conn into an empty pipe: as conn_read(), but a short count proves nothing. */
enum io pipe_fill(struct pipe *pipe, struct conn *from, size_t max, size_t *n);
/* From the pipe to a plain conn: IO_OK with *n > 0, IO_AGAIN until writable. */
enum io pipe_drain(struct pipe *pipe, struct conn *to, size_t *n);

#endif
