/* SPDX-License-Identifier: MIT */
/*
 * The way in of an HTTP/1 client: heads, bodies, what comes behind them, and the clocks. One request is in flight at a time; what a client pipelines
 * behind it stays unread, or in a bounded buffer, until the answer is out.
 *
 * The subtle one: a request's fields are spans into `in`, so `in` never moves while a request is under way. Body bytes behind the head are decoded
 * from where they lie; later ones from the worker's scratch, and what is read too far goes into `ahead`.
 */
#include "traffic/client.h"

#include "base/metrics.h"

#define CLIENT_H1_BATCH 16                  /* steps a turn: pipelined requests, body reads */
#define CLIENT_H1_PIECES 256                /* chunks of a body that cost as much as a step */
#define CLIENT_H1_LINGER_MS 2000
#define CLIENT_H1_LINGER_MAX (1024 * 1024)  /* bytes read and dropped so that an answer arrives */

static uint64_t client_h1_now(const struct client *client) { return loop_now_ms(client->worker->loop); }

static void client_h1_limits(const struct client *client, struct http1_limits *limits) {
    const struct config_settings *settings = &client->local->generation->config->settings;
    limits->max_target = client->config->max_target;
    limits->max_head = client->config->max_header;
    limits->max_fields = client->config->max_fields;
    limits->underscores = settings->underscores == CONFIG_UNDERSCORES_PASS     ? HTTP1_UNDERSCORES_PASS
                          : settings->underscores == CONFIG_UNDERSCORES_REJECT ? HTTP1_UNDERSCORES_REJECT
                                                                               : HTTP1_UNDERSCORES_DROP;
}

static void client_h1_timer(struct client *client, uint32_t ms) {
    if (ms > 0)
        timer_set(client->worker->loop, &client->timer, ms);
    else
        timer_stop(client->worker->loop, &client->timer);
}

/* A request object for a new head; the client's generation moves on here, between requests. */
static struct request *client_h1_new_request(struct client *client) {
    struct worker *worker = client->worker;
    if (client->local != worker->current) {
        generation_local_unref(&client->local);
        client->local = generation_local_ref(worker->current);
        client->config = &client->local->generation->config->listeners[client->listener->index];
    }
    client->request = request_new(worker, client->local, &client_h1_responder, client);
    client->request->subject.listener = client->config;
    client->reading_body = client->chunked = client->until_close = client->close_after = client->head_only = false;
    client->refused = false;
    client->body_over = true;
    client_set_phase(client, CLIENT_BUSY);
    return client->request;
}

/* Answers a head that cannot be served; nothing behind it is ever parsed. */
static void client_h1_refuse(struct client *client, const struct http1_error *error) {
    client->wants_close = true;
    client->head_size = client->in.len;
    metric_add(METRIC_requests_bad, 1);
    if (error->mismatch)
        metric_add(METRIC_parser_mismatches, 1);
    struct request *request = client->request ? client->request : client_h1_new_request(client);
    client->refused = true;
    request->detail = error->reason;
    subject_name_refused(&request->subject, &client->peer);
    request_refuse(request, error->status, error->status == 408 ? CAUSE_CLIENT_HEADER_TIMEOUT : CAUSE_CLIENT_BAD);
}

/* A whole head stands at the front of `in`: skip bytes of empty line, then the head. */
static void client_h1_begin(struct client *client, size_t skip) {
    struct request *request = client_h1_new_request(client);
    struct http_message *head = &request->subject.head;
    struct http1_limits limits;
    struct http1_error error = {0};
    client_h1_limits(client, &limits);
    const char *data = buf_span(&client->in).p;
    if (http1_read_request(data + skip, client->head_size - skip, &limits, head, &error) != HTTP1_OK) {
        client_h1_refuse(client, &error);
        return;
    }
    client->old_http = head->minor == 0;
    client->wants_close = !head->keep_alive || client->worker->draining;
    client->head_only = head->method == HTTP_HEAD;
    client->body_over = head->body == HTTP_BODY_NONE;
    body_fini(&client->body);
    body_init(&client->body, head->body, head->content_length);
    client->reading = client->sending = (struct client_pace){0};
    request->subject.destination = client_proxy_destination(client);
    uint16_t port = client->destination.port ? client->destination.port : client->listener->port;
    error.status = (uint16_t)subject_prepare(&request->subject, client->config,
                                             &client->local->generation->config->settings, &client->peer,
                                             port, client->conn->tls, &error.reason);
    if (error.status != 0) {
        client_h1_refuse(client, &error);
        return;
    }
    request_start(request);
}

/* Reads more of a head; true when something came. */
static bool client_h1_read_more(struct client *client) {
    struct buf *in = &client->in;
    size_t n;
    stock_lend(&client->worker->stock, in);
    if (buf_room(in) == 0 && !buf_reserve(in, 1)) { /* it grows by doubling */
        client_close(client, CAUSE_LOCAL);
        return false;
    }
    switch (conn_read(client->conn, buf_tail(in), buf_room(in), &n)) {
    case IO_OK:
        buf_commit(in, n);
        if (client->phase == CLIENT_IDLE) {
            client_set_phase(client, CLIENT_HEAD);
            client_h1_timer(client, client->config->header_timeout_ms);
        }
        return true;
    case IO_AGAIN:
        if (buf_empty(in))
            stock_take_back(&client->worker->stock, in);
        return false;
    case IO_EOF:
        client_close(client, CAUSE_CLIENT_CLOSED);
        return false;
    default:
        client_close(client, CAUSE_CLIENT_RESET);
        return false;
    }
}

static bool client_h1_step_head(struct client *client) {
    if (buf_empty(&client->in))
        return client_h1_read_more(client);
    struct http1_limits limits;
    struct http1_error error = {0};
    struct span data = buf_span(&client->in);
    size_t skip = 0;
    client_h1_limits(client, &limits);
    switch (http1_find_head(data.p, data.n, false, &limits, &client->scanned, &client->head_size, &skip, &error)) {
    case HTTP1_OK:
        client_h1_begin(client, skip);
        return true;
    case HTTP1_BAD:
        client_h1_refuse(client, &error);
        return true;
    default:
        return client_h1_read_more(client);
    }
}

static void client_h1_end_body(struct client *client) {
    client->body_over = true;
    client->reading_body = false;
    client_pace_stop(&client->reading, client_h1_now(client));
    struct http_message trailers;
    http_message_init(&trailers, &client->request->subject.arena);
    bool any = body_trailers(&client->body, &trailers) && trailers.field_count > 0;
    /* An answer in place of forwarding the end must close: its body is not yet accounted for in the input. */
    bool wants_close = client->wants_close;
    client->wants_close = true;
    request_body_end(client->request, any ? &trailers : NULL);
    client->wants_close = wants_close;
}

/* The request takes no more for now; what follows is not the client's delay. */
static void client_h1_stop_body(struct client *client) {
    client->reading_body = false;
    client_pace_stop(&client->reading, client_h1_now(client));
}

/* Decodes data and hands it to the request, until it says stop; returns the bytes used. */
static size_t client_h1_feed(struct client *client, const char *data, size_t n) {
    size_t used = 0, pieces = 0;
    while (client->request && client->reading_body) {
        struct span piece;
        size_t step = 0;
        enum body_event event = body_next(&client->body, data + used, n - used, &step, &piece);
        used += step;
        if (event == BODY_DATA) {
            pieces++;
            if (!request_body(client->request, piece.p, piece.n) && client->request)
                client_h1_stop_body(client);
        } else if (event == BODY_END) {
            client_h1_end_body(client);
        } else if (event == BODY_BAD) {
            metric_add(METRIC_requests_bad, 1);
            client->wants_close = true;
            request_body_failed(client->request, 400, CAUSE_CLIENT_BAD);
        } else {
            break;
        }
    }
    if (client->request && client->reading_body && !request_body_flush(client->request))
        client_h1_stop_body(client);
    client->steps_left -= (int)(pieces / CLIENT_H1_PIECES);
    return used;
}

void client_h1_feed_buffered(struct client *client) {
    if (client->head_size < client->in.len) {
        struct span data = buf_span(&client->in);
        size_t at = client->head_size;
        size_t used = client_h1_feed(client, data.p + at, data.n - at);
        if (!client->closed && client->head_size == at)
            client->head_size += used;
    }
    if (!client->closed && client->reading_body && !buf_empty(&client->ahead)) {
        struct span data = buf_span(&client->ahead);
        size_t used = client_h1_feed(client, data.p, data.n);
        if (client->ahead.len == data.n) /* a body that was refused has taken the buffer with it */
            buf_consume(&client->ahead, used);
    }
    /* A body of no bytes ends without input. */
    if (!client->closed && client->reading_body && client->body.kind == HTTP_BODY_LENGTH && client->body.left == 0)
        client_h1_feed(client, "", 0);
}

void client_h1_discard_body(struct client *client) {
    struct span data = buf_span(&client->in);
    while (!client->body_over) {
        struct span piece;
        size_t used = 0;
        enum body_event event =
            body_next(&client->body, data.p + client->head_size, data.n - client->head_size, &used, &piece);
        client->head_size += used;
        if (event == BODY_END)
            client->body_over = true;
        else if (event != BODY_DATA)
            return;
    }
}

static void client_h1_watch_body(struct client *client) {
    client_pace_wait(&client->reading, client_h1_now(client));
    if (!timer_is_set(&client->timer) || client->timer.deadline_ms > client_h1_now(client) + 1000)
        timer_set(client->worker->loop, &client->timer, 1000);
}

static void client_h1_body_broken(struct client *client) {
    if (request_answered(client->request))
        client_close(client, CAUSE_CLIENT_GONE);
    else
        client_close(client, client->conn->failed ? CAUSE_CLIENT_RESET : CAUSE_CLIENT_GONE);
}

/* Reads body bytes; true when there may be more. */
static bool client_h1_step_body(struct client *client) {
    client_h1_feed_buffered(client);
    if (client->closed || client->phase != CLIENT_BUSY || !client->reading_body)
        return client->phase != CLIENT_BUSY;
    size_t size = UPSTREAM_SCRATCH, n;
    if (client->body.kind == HTTP_BODY_LENGTH && client->body.left < size)
        size = (size_t)client->body.left;
    char *scratch = client->worker->scratch;
    switch (conn_read(client->conn, scratch, size, &n)) {
    case IO_OK:
        break;
    case IO_AGAIN:
        client_h1_watch_body(client);
        return false;
    default:
        client_h1_body_broken(client);
        return false;
    }
    client_pace_progress(&client->reading, client_h1_now(client), n);
    size_t used = client_h1_feed(client, scratch, n);
    if (!client->closed && used < n && !buf_append(&client->ahead, scratch + used, n - used))
        client_close(client, CAUSE_LOCAL);
    return true;
}

/* While the request waits for others: has the client gone? */
static bool client_h1_step_busy(struct client *client) {
    if (client->reading_body)
        return client_h1_step_body(client);
    bool gone = client->conn->hup || (client->conn->fin_seen && !client->config->half_close);
    if (gone && !request_answered(client->request))
        client_close(client, CAUSE_CLIENT_GONE);
    return false;
}

static bool client_h1_step_linger(struct client *client) {
    size_t n;
    if (conn_read(client->conn, client->worker->scratch, UPSTREAM_SCRATCH, &n) == IO_OK) {
        client->discarded += n;
        if (client->discarded < CLIENT_H1_LINGER_MAX)
            return true;
    } else if (!client->conn->eof && !client->conn->failed) {
        return false;
    }
    client_close(client, CAUSE_DONE);
    return false;
}

static bool client_h1_step(struct client *client) {
    switch (client->phase) {
    case CLIENT_IDLE:
    case CLIENT_HEAD:
        return client_h1_step_head(client);
    case CLIENT_BUSY:
        return client_h1_step_busy(client);
    case CLIENT_LINGER:
        return client_h1_step_linger(client);
    default:
        return false;
    }
}

static void client_h1_on_event(struct conn *conn) {
    struct client *client = conn->owner;
    if (conn->failed) {
        client_close(client, CAUSE_CLIENT_RESET);
        return;
    }
    client->in_event = true;
    if ((!buf_empty(&client->out) || client->pipe) && client_flush(client)) {
        if (client->phase == CLIENT_SENDING)
            client_h1_next(client);
        else if (client->request)
            request_drained(client->request);
    }
    client->steps_left = CLIENT_H1_BATCH;
    while (!client->closed && client->steps_left > 0 && client_h1_step(client))
        client->steps_left--;
    client->in_event = false;
    if (!client->closed && client->steps_left <= 0)
        conn_again(client->conn);
}

static void client_h1_linger(struct client *client) {
    client_set_phase(client, CLIENT_LINGER);
    client->discarded = 0;
    stock_take_back(&client->worker->stock, &client->in);
    buf_release(&client->ahead);
    conn_shutdown(client->conn);
    client_h1_timer(client, CLIENT_H1_LINGER_MS);
    conn_again(client->conn);
}

void client_h1_next(struct client *client) {
    bool more = client->in.len > client->head_size || !buf_empty(&client->ahead);
    if (client->worker->draining && !more)
        client->close_after = true; /* the drain began behind this response's head */
    if (client->close_after || client->conn->failed) {
        bool unread = client->refused || !client->body_over || more || client->conn->readable;
        client_set_phase(client, CLIENT_IDLE);
        if (unread && !client->conn->failed && !client->conn->fin_seen)
            client_h1_linger(client);
        else
            client_close(client, CAUSE_DONE);
        return;
    }
    buf_consume(&client->in, client->head_size);
    client->head_size = client->scanned = 0;
    struct span ahead = buf_span(&client->ahead);
    if (ahead.n > 0 && !buf_append(&client->in, ahead.p, ahead.n)) {
        client_close(client, CAUSE_LOCAL);
        return;
    }
    buf_release(&client->ahead);
    client_set_phase(client, more ? CLIENT_HEAD : CLIENT_IDLE);
    client_h1_timer(client, more ? client->config->header_timeout_ms : client->config->idle_timeout_ms);
    if (!more)
        stock_take_back(&client->worker->stock, &client->in);
    if (!client->in_event && (more || conn_may_read(client->conn)))
        conn_again(client->conn);
}

static void client_h1_on_pace(struct client *client) {
    uint64_t now = client_h1_now(client), read_next, send_next;
    enum cause cause = client_pace_check(&client->sending, now, client->config->send_timeout_ms, client->config->min_rate,
                                         CAUSE_CLIENT_SEND_TIMEOUT, &send_next);
    if (cause != CAUSE_NONE) {
        client_close(client, cause);
        return;
    }
    cause = client_pace_check(&client->reading, now, client->config->body_timeout_ms, client->config->min_rate,
                              CAUSE_CLIENT_BODY_TIMEOUT, &read_next);
    if (cause != CAUSE_NONE && client->request) {
        client->wants_close = true;
        request_body_failed(client->request, 408, cause);
        return;
    }
    uint64_t next = send_next < read_next ? send_next : read_next;
    if (next != UINT64_MAX)
        timer_set(client->worker->loop, &client->timer, next > 0 ? next : 1);
}

void client_h1_on_timer(struct client *client) {
    static const struct http1_error late = {.status = 408, .reason = "header timeout"};
    switch (client->phase) {
    case CLIENT_HEAD:
        if (buf_empty(&client->in))
            client_close(client, CAUSE_CLIENT_HEADER_TIMEOUT);
        else
            client_h1_refuse(client, &late);
        break;
    case CLIENT_BUSY:
    case CLIENT_SENDING:
        client_h1_on_pace(client);
        break;
    default:
        client_close(client, CAUSE_IDLE);
    }
}

void client_h1_start(struct client *client) {
    conn_set_owner(client->conn, client, client_h1_on_event);
    client_set_phase(client, CLIENT_HEAD);
    client_h1_timer(client, client->config->header_timeout_ms);
    if (conn_may_read(client->conn))
        conn_again(client->conn);
}
