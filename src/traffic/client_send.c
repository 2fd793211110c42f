/* SPDX-License-Identifier: MIT */
/*
 * The way out of an HTTP/1 client: heads, chunks, ends. Small pieces gather in `out` and leave in one write at flush; a large one goes out at once
 * together with what is staged before it, and only what the client did not take is copied.
 *
 * A bulk response between plain connections comes in a pipe, always behind what is in `out`.
 *
 * The subtle one: a write may fail inside a call from the request. The client is not closed there, because the request is still on the stack: what
 * remains is dropped, conn->failed stands, and the next turn closes it.
 */
#include "traffic/client.h"

#define CLIENT_SEND_JOIN (16 * 1024) /* bytes gathered before a write: one TLS record */

static uint64_t client_send_now(const struct client *client) { return loop_now_ms(client->worker->loop); }

static void client_send_failed(struct client *client) {
    client->conn->failed = true;
    buf_release(&client->out);
    pipes_return(&client->worker->pipes, &client->pipe);
    client_pace_stop(&client->sending, client_send_now(client));
    conn_again(client->conn);
}

static void client_send_wait(struct client *client) {
    client_pace_wait(&client->sending, client_send_now(client));
    if (!timer_is_set(&client->timer) || client->timer.deadline_ms > client_send_now(client) + 1000)
        timer_set(client->worker->loop, &client->timer, 1000);
}

/* False while bytes remain in the pipe. It goes back as soon as it is empty. */
static bool client_flush_pipe(struct client *client) {
    while (client->pipe && client->pipe->filled > 0) {
        size_t n;
        enum io result = pipe_drain(client->pipe, client->conn, &n);
        if (result == IO_AGAIN) {
            client_send_wait(client);
            return false;
        }
        if (result != IO_OK)
            client_send_failed(client);
        else if (client->sending.since_ms != 0)
            client_pace_progress(&client->sending, client_send_now(client), n);
    }
    pipes_return(&client->worker->pipes, &client->pipe);
    return true;
}

/* As conn_write(); what left counts as progress, also when it was taken before (TLS seals more than the socket takes). */
static enum io client_write(struct client *client, struct span data, size_t *n) {
    size_t before = conn_unsent(client->conn);
    *n = 0;
    enum io result = conn_write(client->conn, data.p, data.n, n);
    size_t given = before + *n, left = conn_unsent(client->conn);
    if (client->sending.since_ms != 0 && given > left)
        client_pace_progress(&client->sending, client_send_now(client), given - left);
    return result;
}

bool client_flush(struct client *client) {
    while (!buf_empty(&client->out)) {
        size_t n;
        enum io result = client_write(client, buf_span(&client->out), &n);
        if (result == IO_OK) {
            buf_consume(&client->out, n);
            continue;
        }
        if (result == IO_AGAIN) {
            client_send_wait(client);
            return false;
        }
        client_send_failed(client);
        return true;
    }
    if (!client_flush_pipe(client))
        return false;
    if (client->sending.since_ms != 0)
        client_pace_stop(&client->sending, client_send_now(client));
    stock_take_back(&client->worker->stock, &client->out);
    return true;
}

/* Writes out + pieces in one call and keeps what was not taken. */
static void client_send_large(struct client *client, const struct iovec *pieces, int count) {
    struct iovec iov[5];
    int used = 0;
    struct span staged = buf_span(&client->out);
    size_t n = 0;
    if (staged.n > 0)
        iov[used++] = (struct iovec){(char *)(uintptr_t)staged.p, staged.n};
    for (int i = 0; i < count; i++)
        iov[used++] = pieces[i];
    enum io result = conn_writev(client->conn, iov, used, &n);
    if (result != IO_OK && result != IO_AGAIN) {
        client_send_failed(client);
        return;
    }
    size_t from_staged = n < staged.n ? n : staged.n;
    buf_consume(&client->out, from_staged);
    n -= from_staged;
    for (int i = 0; i < count; i++) {
        size_t skip = n < pieces[i].iov_len ? n : pieces[i].iov_len;
        n -= skip;
        if (!buf_append(&client->out, (const char *)pieces[i].iov_base + skip, pieces[i].iov_len - skip)) {
            client_send_failed(client);
            return;
        }
    }
}

static void client_send_body(void *responder, const char *data, size_t n) {
    struct client *client = responder;
    if (client->head_only || client->conn->failed || n == 0)
        return;
    char line[HTTP1_CHUNK_MAX];
    size_t line_size = client->chunked ? http1_chunk_line(line, n) : 0;
    size_t end_size = client->chunked ? 2 : 0;
    if (client->out.len + line_size + n + end_size <= CLIENT_SEND_JOIN) {
        if (!buf_append(&client->out, line, line_size) || !buf_append(&client->out, data, n) ||
            !buf_append(&client->out, "\r\n", end_size))
            client_send_failed(client);
        return;
    }
    char end[] = "\r\n";
    const struct iovec pieces[3] = {{line, line_size}, {(char *)(uintptr_t)data, n}, {end, end_size}};
    client_send_large(client, pieces, 3);
}

static void client_send_interim(void *responder, const struct http_message *head) {
    struct client *client = responder;
    if (client->old_http || client->conn->failed)
        return;
    if (!http1_write_status_line(&client->out, head->status, head->reason) || !http1_write_fields(&client->out, head) ||
        !http1_write_end(&client->out)) {
        client_send_failed(client);
        return;
    }
    client_flush(client);
}

/* Our own framing and connection fields, the last lines of a head. */
static bool client_send_framing(struct client *client, const struct http_message *head, enum http_body body, uint64_t length) {
    struct buf *out = &client->out;
    bool ok = true;
    if (body == HTTP_BODY_LENGTH) {
        ok = buf_append_text(out, "Content-Length: ") && buf_append_u64(out, length) && buf_append_text(out, "\r\n");
    } else if (body == HTTP_BODY_NONE) {
        if (head->has_content_length && (client->head_only || head->status == 304))
            ok = buf_append_text(out, "Content-Length: ") && buf_append_u64(out, head->content_length) &&
                 buf_append_text(out, "\r\n");
    } else if (client->old_http) {
        client->until_close = client->close_after = true;
    } else {
        client->chunked = true;
        ok = buf_append_text(out, "Transfer-Encoding: chunked\r\n");
    }
    if (client->close_after)
        ok = ok && buf_append_text(out, "Connection: close\r\n");
    else if (client->old_http)
        ok = ok && buf_append_text(out, "Connection: keep-alive\r\n");
    return ok && http1_write_end(out);
}

static void client_send_head(void *responder, const struct http_message *head, enum http_body body, uint64_t length) {
    struct client *client = responder;
    if (!client->body_over && !client->reading_body)
        client_h1_discard_body(client);
    /* A handshake that failed: what its client sent or sends on behind it is no request, whenever it comes (RFC 9931). */
    if (client->request->subject.websocket)
        client->refused = client->wants_close = true;
    client->close_after = client->wants_close || !client->body_over || client->worker->draining;
    stock_lend(&client->worker->stock, &client->out);
    if (!http1_write_status_line(&client->out, head->status, head->reason) || !http1_write_fields(&client->out, head) ||
        !client_send_framing(client, head, body, length))
        client_send_failed(client);
}

static void client_send_finish(void *responder, const struct http_message *trailers) {
    struct client *client = responder;
    if (client->chunked && !client->head_only && !client->conn->failed) {
        bool ok = buf_append_text(&client->out, "0\r\n") && (!trailers || http1_write_fields(&client->out, trailers)) &&
                  http1_write_end(&client->out);
        if (!ok)
            client_send_failed(client);
    }
    client->request = NULL;
    client->reading_body = false;
    client_pace_stop(&client->reading, client_send_now(client));
    if (!client->body_over)
        client->close_after = true;
    client_set_phase(client, CLIENT_SENDING);
    if (client_flush(client))
        client_h1_next(client);
}

static void client_send_abort(void *responder) {
    struct client *client = responder;
    bool answered = request_answered(client->request);
    client->request = NULL;
    if (answered)
        client_flush(client);
    else
        client->until_close = false;
    client_close(client, CAUSE_NONE);
}

static struct pipe *client_send_pipe(void *responder) {
    struct client *client = responder;
    if (client->conn->tls || client->conn->failed || client->chunked || client->head_only || client->pipe ||
        !buf_empty(&client->out))
        return NULL;
    client->pipe = pipes_borrow(&client->worker->pipes);
    return client->pipe;
}

static bool client_send_flush(void *responder) { return client_flush(responder); }

static void client_resume_body(void *responder) {
    struct client *client = responder;
    if (client->body_over)
        return;
    client->reading_body = true;
    client_h1_feed_buffered(client);
    if (!client->closed && client->reading_body && !client->in_event)
        conn_again(client->conn);
}

static void client_pause_body(void *responder) {
    struct client *client = responder;
    client->reading_body = false;
    client_pace_stop(&client->reading, client_send_now(client));
}

static struct conn *client_take_conn(void *responder, const struct http_message *head, struct buf *early, struct buf *unsent) {
    struct client *client = responder;
    struct buf *out = &client->out;
    bool ok = http1_write_status_line(out, head->status, head->reason) && http1_write_fields(out, head) &&
              buf_append_text(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n") && http1_write_end(out);
    if (!ok)
        client_send_failed(client);
    else
        client_flush(client);
    struct conn *conn = client->conn;
    buf_consume(&client->in, client->head_size);
    *early = client->in; /* the request's spans still point into it */
    *unsent = client->out;
    buf_init(&client->in, 0);
    buf_init(&client->out, 0);
    client_detach(client);
    return conn;
}

static struct listener *client_listener(void *responder) {
    const struct client *client = responder;
    return client->listener;
}

const struct responder_ops client_h1_responder = {
    .interim = client_send_interim,
    .head = client_send_head,
    .body = client_send_body,
    .pipe = client_send_pipe,
    .flush = client_send_flush,
    .finish = client_send_finish,
    .abort = client_send_abort,
    .resume_body = client_resume_body,
    .pause_body = client_pause_body,
    .take_conn = client_take_conn,
    .listener = client_listener,
};
