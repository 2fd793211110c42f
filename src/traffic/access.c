/* SPDX-License-Identifier: MIT */
/*
 * The access log's lines, built in one buffer a worker and handed to the log thread. Each value passes the JSON escaper, so that no
 * peer can inject a line (requirements D29); numbers and our own words do not need it.
 *
 * The subtle one: a tunnel's close line is written long after its request is gone, so its names are kept in one heap block with the tunnel.
 */
#include "traffic/access.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "io/tls.h"

static void access_text(struct buf *line, const char *key, struct span value) {
    if (!value.p)
        return;
    buf_append_text(line, ",\"");
    buf_append_text(line, key);
    buf_append_text(line, "\":\"");
    str_append_json(line, value);
    buf_append_text(line, "\"");
}

static void access_number(struct buf *line, const char *key, uint64_t value) {
    buf_append_text(line, ",\"");
    buf_append_text(line, key);
    buf_append_text(line, "\":");
    buf_append_u64(line, value);
}

/* Microseconds as milliseconds with three decimals. */
static void access_ms(struct buf *line, const char *key, uint64_t us) {
    access_number(line, key, us / 1000);
    char decimals[5] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10), '\0'};
    buf_append_text(line, decimals);
}

static struct buf *access_begin(struct worker *worker, const char *event) {
    struct buf *line = &worker->log_line;
    char time[CLOCK_TEXT_MAX];
    buf_consume(line, line->len);
    buf_append_text(line, "{\"time\":\"");
    buf_append(line, time, clock_format_iso(time, clock_wall_us()));
    buf_append_text(line, "\",\"event\":\"");
    buf_append_text(line, event);
    buf_append_text(line, "\"");
    return line;
}

static void access_end(struct worker *worker) {
    struct buf *line = &worker->log_line;
    buf_append_text(line, "}");
    struct span text = buf_span(line);
    log_access(text.p, text.n);
}

static bool access_wanted(const struct request *request) {
    const struct config *config = request->local->generation->config;
    return config->settings.access_to && (!request->route || request->route->access_log);
}

static void access_identity(struct buf *line, const struct request *request) {
    const struct subject *subject = &request->subject;
    char text[ADDR_TEXT_MAX];
    const struct addr_small *client = subject->client.family ? &subject->client : &subject->peer;
    access_text(line, "id", subject->id);
    access_text(line, "client", span_of(addr_small_format_ip(client, text)));
    if (subject->listener)
        access_text(line, "listener", span_of(subject->listener->name));
    access_text(line, "method", subject->head.method_name);
    access_text(line, "host", subject->host);
    access_text(line, "path", subject->raw_path);
    if (request->local->generation->config->settings.access_query)
        access_text(line, "query", subject->query);
    if (subject->tls)
        access_text(line, "tls", span_of(tls_version(subject->tls)));
}

static void access_decision(struct buf *line, const struct request *request) {
    if (request->route)
        access_text(line, "route", span_of(request->route->name));
    if (request->pool)
        access_text(line, "pool", span_of(request->pool->config->name));
    if (request->last_server)
        access_text(line, "server", span_of(request->last_server->name));
    if (request_affinity(request))
        access_text(line, "affinity", span_of(request_affinity(request)));
    if (request->attempts > 1)
        access_number(line, "retries", request->attempts - 1);
    for (unsigned i = 0; i < request->subject.log_count; i++) {
        buf_append_text(line, ",\"");
        str_append_json(line, request->subject.logs[i].key);
        buf_append_text(line, "\":\"");
        str_append_json(line, request->subject.logs[i].value);
        buf_append_text(line, "\"");
    }
}

static bool access_is_combined(const struct request *request) {
    return request->local->generation->config->settings.access_format == CONFIG_ACCESS_COMBINED;
}

void access_request(const struct request *request) {
    if (!access_wanted(request))
        return;
    if (access_is_combined(request)) {
        access_combined(request, request->head_sent ? request->status : 0);
        return;
    }
    struct buf *line = access_begin(request->worker, "request");
    access_identity(line, request);
    access_number(line, "status", request->head_sent ? request->status : 0);
    access_number(line, "bytes_in", request->bytes_in);
    access_number(line, "bytes_out", request->bytes_out);
    access_ms(line, "duration_ms", clock_us() - request->started_us);
    access_decision(line, request);
    access_text(line, "cause", span_of(cause_name(request->cause)));
    access_text(line, "side", span_of(cause_side(request->cause)));
    if (request->detail && *request->detail)
        access_text(line, "detail", span_of(request->detail));
    access_end(request->worker);
}

void access_tunnel_open(const struct request *request, const struct access_names *names) {
    if (!access_wanted(request))
        return;
    if (access_is_combined(request)) {
        access_combined(request, 101);
        return;
    }
    struct buf *line = access_begin(request->worker, "open");
    access_identity(line, request);
    access_number(line, "status", 101);
    access_text(line, "subprotocol", span_of(names->subprotocol));
    access_ms(line, "handshake_ms", clock_us() - request->started_us);
    access_decision(line, request);
    access_end(request->worker);
}

void access_tunnel_close(struct worker *worker, const struct access_names *names, const char *client, const char *server,
                         uint64_t age_ms, uint64_t bytes_in, uint64_t bytes_out, enum cause cause) {
    if (!names->log)
        return;
    struct buf *line = access_begin(worker, "close");
    access_text(line, "id", span_of(names->id));
    access_text(line, "client", span_of(client));
    access_text(line, "listener", span_of(names->listener));
    access_text(line, "host", span_of(names->host));
    access_text(line, "path", span_of(names->path));
    access_text(line, "subprotocol", span_of(names->subprotocol));
    access_text(line, "route", span_of(names->route));
    access_text(line, "pool", span_of(names->pool));
    access_text(line, "server", span_of(server + (strchr(server, '/') ? strchr(server, '/') - server + 1 : 0)));
    access_number(line, "bytes_in", bytes_in);
    access_number(line, "bytes_out", bytes_out);
    access_number(line, "age_ms", age_ms);
    access_text(line, "cause", span_of(cause_name(cause)));
    access_text(line, "side", span_of(cause_side(cause)));
    access_end(worker);
}

#define ACCESS_NAME_MAX 256 /* bytes of each name kept with a tunnel */

static char *access_keep(char **at, struct span text) {
    char *kept = *at;
    size_t n = text.n < ACCESS_NAME_MAX ? text.n : ACCESS_NAME_MAX;
    if (n > 0)
        memcpy(kept, text.p, n);
    kept[n] = '\0';
    *at += n + 1;
    return kept;
}

struct access_names *access_names_new(const struct request *request, struct span subprotocol) {
    const struct subject *subject = &request->subject;
    const struct span texts[] = {
        subject->id,
        span_of(subject->listener->name),
        span_of(request->route ? request->route->name : ""),
        span_of(request->pool ? request->pool->config->name : ""),
        subprotocol,
        subject->host,
        subject->raw_path,
    };
    size_t size = sizeof(struct access_names);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        size += (texts[i].n < ACCESS_NAME_MAX ? texts[i].n : ACCESS_NAME_MAX) + 1;
    struct access_names *names = mem_alloc(size);
    char *at = (char *)(names + 1);
    char **const fields[] = {&names->id,          &names->listener, &names->route, &names->pool,
                             &names->subprotocol, &names->host,     &names->path};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *fields[i] = access_keep(&at, texts[i]);
    names->log = access_wanted(request) && !access_is_combined(request);
    return names;
}
