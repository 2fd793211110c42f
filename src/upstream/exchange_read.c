/* SPDX-License-Identifier: MIT */
/*
 * The response of an exchange. Reads go into the thread's scratch buffer; a head that is whole there (nearly
 * always) is copied to the arena, where its spans live as long as the exchange, and the body behind it is decoded
 * in place. Only a head that comes in pieces is gathered in a buffer of its own.
 *
 * Bulk of a known length between plain connections goes through a pipe of the owner's instead.
 *
 * The subtle thing: readiness is edge-triggered, so every way out of exchange_pull() leaves either nothing to
 * read, or a conn that is on the ready list, or a pause that exchange_resume() ends with conn_again().
 */
#include "upstream/exchange_state.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "io/pipe.h"

#define EXCHANGE_READS 4         /* a turn, of at most EXCHANGE_READ each */
/*
 * What is read goes out in one write, and the kernel sends it as one packet if it is below 64 KiB with the head of the response, the seals of
 * four TLS records and the packet's own headers; else a second packet of some hundred bytes costs as much as the first.
 */
#define EXCHANGE_READ (63 * 1024)
_Static_assert(EXCHANGE_READ <= UPSTREAM_SCRATCH, "it is read into the scratch buffer");
#define EXCHANGE_BULK_READ (32 * 1024)  /* bytes: what counts as large; copying less is cheaper than two splices */
#define EXCHANGE_BULK_LEFT (128 * 1024) /* and so much must still come */
#define EXCHANGE_HEAD_FIRST 4096 /* room made for a head that came in pieces */

static const struct http1_limits exchange_limits = {.max_target = 1,
                                                    .max_head = EXCHANGE_HEAD_MAX,
                                                    .max_fields = EXCHANGE_FIELDS_MAX,
                                                    .underscores = HTTP1_UNDERSCORES_PASS};

/* What is being decoded: in is true when it lies in exchange->in (and stays there), false in the scratch buffer. */
struct exchange_input {
    const char *p;
    size_t n;
    bool in;
};

static void exchange_skip(struct exchange *ex, struct exchange_input *input, size_t n) {
    input->p += n;
    input->n -= n;
    ex->scanned = 0;
}

static void exchange_switch(struct exchange *ex, struct exchange_input *input, size_t head_size) {
    if (!ex->options.upgrade) {
        exchange_fail(ex, EXCHANGE_BAD, "a 101 that was not asked for");
        return;
    }
    if (input->in) {
        ex->rest = (size_t)(input->p - buf_span(&ex->in).p) + head_size;
    } else if (!buf_append(&ex->in, input->p + head_size, input->n - head_size)) {
        exchange_fail(ex, EXCHANGE_LOCAL, "out of memory for the bytes behind the 101");
        return;
    }
    ex->phase = EXCHANGE_PHASE_SWITCHED;
    timer_stop(ex->upstream->loop, &ex->timer);
    ex->ops->on_upgrade(ex->owner, &ex->response);
}

static void exchange_interim(struct exchange *ex, struct exchange_input *input, size_t head_size) {
    if (++ex->interims > EXCHANGE_INTERIM_MAX) {
        exchange_fail(ex, EXCHANGE_BAD, "more than 16 interim answers");
        return;
    }
    http_mark_hops(&ex->response);
    if (ex->ops->on_interim)
        ex->ops->on_interim(ex->owner, &ex->response);
    if (ex->phase != EXCHANGE_PHASE_HEAD)
        return;
    size_t cap = ex->arena.cap;
    arena_fini(&ex->arena);
    arena_init(&ex->arena, &ex->upstream->chunks, cap);
    exchange_skip(ex, input, head_size);
}

/* The input starts with one whole head. Leaves phase HEAD only after an interim answer. */
static void exchange_take_head(struct exchange *ex, struct exchange_input *input, size_t head_size) {
    const char *head = input->p;
    if (!input->in) {
        char *copy = arena_alloc(&ex->arena, head_size);
        if (!copy) {
            exchange_fail(ex, EXCHANGE_LOCAL, "out of memory for the response head");
            return;
        }
        memcpy(copy, head, head_size);
        head = copy;
    }
    struct http1_error error = {0};
    http_message_init(&ex->response, &ex->arena);
    if (http1_read_response(head, head_size, &exchange_limits, ex->options.method, &ex->response, &error) != HTTP1_OK) {
        exchange_fail(ex, EXCHANGE_BAD, error.reason ? error.reason : "response head refused");
        return;
    }
    if (ex->response.status == 101) {
        exchange_switch(ex, input, head_size);
        return;
    }
    if (ex->response.status < 200) {
        exchange_interim(ex, input, head_size);
        return;
    }
    exchange_skip(ex, input, head_size);
    ex->phase = EXCHANGE_PHASE_BODY;
    body_fini(&ex->body);
    body_init(&ex->body, ex->response.body, ex->response.content_length);
    ex->ops->on_head(ex->owner, &ex->response);
}

/* Heads as far as they are whole; what is left of an unfinished one is kept. */
static void exchange_take_heads(struct exchange *ex, struct exchange_input *input) {
    while (ex->phase == EXCHANGE_PHASE_HEAD && input->n > 0) {
        size_t head_size = 0, skip = 0;
        struct http1_error error = {0};
        switch (http1_find_head(input->p, input->n, true, &exchange_limits, &ex->scanned, &head_size, &skip, &error)) {
        case HTTP1_OK:
            exchange_take_head(ex, input, head_size);
            break;
        case HTTP1_BAD:
            exchange_fail(ex, EXCHANGE_BAD, error.reason ? error.reason : "response head refused");
            return;
        case HTTP1_MORE:
            if (input->in)
                buf_consume(&ex->in, (size_t)(input->p - buf_span(&ex->in).p));
            else if (!buf_reserve(&ex->in, input->n + EXCHANGE_HEAD_FIRST) || !buf_append(&ex->in, input->p, input->n))
                exchange_fail(ex, EXCHANGE_LOCAL, "out of memory for the response head");
            return;
        }
    }
    /* All of it was interim answers. */
    if (ex->phase == EXCHANGE_PHASE_HEAD && input->in)
        buf_consume(&ex->in, buf_span(&ex->in).n);
}

static void exchange_take_body(struct exchange *ex, struct exchange_input *input) {
    for (;;) {
        struct span data = SPAN_NULL;
        size_t used = 0;
        enum body_event event = body_next(&ex->body, input->p, input->n, &used, &data);
        input->p += used;
        input->n -= used;
        switch (event) {
        case BODY_DATA:
            ex->bytes_in += data.n;
            ex->ops->on_body(ex->owner, data.p, data.n);
            if (ex->phase != EXCHANGE_PHASE_BODY)
                return;
            break;
        case BODY_MORE: {
            bool go_on = ex->ops->on_flush(ex->owner);
            ex->paused = !go_on;
            return;
        }
        case BODY_END:
            exchange_finish(ex, input->n != 0);
            return;
        case BODY_BAD:
            exchange_fail(ex, EXCHANGE_BAD, ex->body.reason ? ex->body.reason : "response body refused");
            return;
        }
    }
}

/* No byte will come any more; detail says why. */
static void exchange_take_end(struct exchange *ex, bool clean, const char *detail) {
    if (ex->phase == EXCHANGE_PHASE_HEAD) {
        bool stale = ex->reused && !ex->heard;
        exchange_fail(ex, stale ? EXCHANGE_STALE : EXCHANGE_CLOSED, detail);
        return;
    }
    if (clean && !ex->conn->truncated && body_eof(&ex->body) == BODY_END)
        exchange_finish(ex, true);
    else
        exchange_fail(ex, EXCHANGE_TRUNCATED,
                      ex->conn->truncated ? "TLS connection ended without close_notify" : detail);
}

/* One read and what it brought. False: nothing more to do now. */
static bool exchange_read_once(struct exchange *ex) {
    bool in = ex->phase == EXCHANGE_PHASE_HEAD && !buf_empty(&ex->in);
    char *to = ex->upstream->scratch;
    size_t room = EXCHANGE_READ, n = 0;
    if (in) {
        if (!buf_reserve(&ex->in, EXCHANGE_HEAD_FIRST)) {
            exchange_fail(ex, EXCHANGE_LOCAL, "out of memory for the response head");
            return false;
        }
        to = buf_tail(&ex->in);
        room = buf_room(&ex->in);
    }
    switch (conn_read(ex->conn, to, room, &n)) {
    case IO_OK:
        break;
    case IO_AGAIN:
        return false;
    case IO_EOF:
        /* A reset is told once: when a write has taken it, the read sees an end that is none. */
        exchange_take_end(ex, ex->conn->error != ECONNRESET, ex->phase == EXCHANGE_PHASE_HEAD
                                                                 ? "closed before the response head was complete"
                                                                 : "closed in mid-body");
        return false;
    case IO_ERROR: {
        int error = ex->conn->error;
        exchange_take_end(ex, false, error ? strerror(error) : tls_error_text());
        return false;
    }
    }
    ex->heard = true;
    ex->bulk = n >= EXCHANGE_BULK_READ;
    exchange_touch(ex);
    struct exchange_input input = {.p = to, .n = n, .in = in};
    if (in) {
        buf_commit(&ex->in, n);
        struct span all = buf_span(&ex->in);
        input.p = all.p;
        input.n = all.n;
    }
    if (ex->phase == EXCHANGE_PHASE_HEAD)
        exchange_take_heads(ex, &input);
    if (ex->phase == EXCHANGE_PHASE_BODY)
        exchange_take_body(ex, &input);
    return exchange_is_live(ex);
}

/* The pipe that the next bytes shall go through, or NULL. */
static struct pipe *exchange_pipe(const struct exchange *ex) {
    if (ex->phase != EXCHANGE_PHASE_BODY || !ex->bulk || ex->body.kind != HTTP_BODY_LENGTH ||
        ex->body.left < EXCHANGE_BULK_LEFT || ex->conn->tls || !ex->ops->on_pipe)
        return NULL;
    return ex->ops->on_pipe(ex->owner);
}

/* As exchange_read_once(), through the pipe. */
static bool exchange_splice_once(struct exchange *ex, struct pipe *pipe) {
    uint64_t left = ex->body.left;
    size_t n = 0;
    switch (pipe_fill(pipe, ex->conn, left < PIPE_SIZE ? (size_t)left : PIPE_SIZE, &n)) {
    case IO_OK:
        break;
    case IO_AGAIN:
        ex->ops->on_flush(ex->owner); /* gives the pipe back */
        return false;
    case IO_EOF:
        exchange_take_end(ex, true, "closed in mid-body");
        return false;
    case IO_ERROR:
        exchange_take_end(ex, false, strerror(ex->conn->error));
        return false;
    }
    exchange_touch(ex);
    ex->bulk = n >= EXCHANGE_BULK_READ;
    ex->bytes_in += n;
    body_pass(&ex->body, n);
    ex->ops->on_piped(ex->owner, n);
    struct exchange_input nothing = {.p = ""};
    exchange_take_body(ex, &nothing);
    return exchange_is_live(ex);
}

void exchange_pull(struct exchange *ex) {
    for (unsigned reads = 0; reads < EXCHANGE_READS; reads++) {
        if (ex->paused || !conn_may_read(ex->conn))
            return;
        struct pipe *pipe = exchange_pipe(ex);
        if (!(pipe ? exchange_splice_once(ex, pipe) : exchange_read_once(ex)))
            return;
    }
    if (!ex->paused && conn_may_read(ex->conn))
        conn_again(ex->conn);
}
