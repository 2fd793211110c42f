/* SPDX-License-Identifier: MIT */
/*
 * The access log's lines, built in one piece of memory a worker and handed to the log thread. Each value passes the JSON escaper, so that no
 * peer can inject a line (requirements D29); numbers and our own words do not need it. Keys are literals, so that all between two values
 * is a few stores. A value that has no room is left out with its key; what follows it is still told.
 *
 * The subtle one: a tunnel's close line is written long after its request is gone, so its names are kept in one heap block with the tunnel.
 */
#include "traffic/access.h"

#include <string.h>

#include "base/clock.h"
#include "base/line.h"
#include "base/mem.h"
#include "io/tls.h"

/* Takes the key back where its value has no room: a line is never cut in the middle. */
static void access_value(struct line *line, char *start, struct span value) {
    if (!line_put_json(line, value) || !LINE_PUT(line, "\""))
        line->p = start;
}

/* The key is a literal. */
#define ACCESS_TEXT(line, key, value) \
    do { \
        const struct span access_given = (value); \
        char *access_start = (line)->p; \
        if (access_given.p && LINE_PUT(line, ",\"" key "\":\"")) \
            access_value(line, access_start, access_given); \
    } while (0)

#define ACCESS_NUMBER(line, key, value) \
    do { \
        char *access_start = (line)->p; \
        if (LINE_PUT(line, ",\"" key "\":") && !line_put_u64(line, value)) \
            (line)->p = access_start; \
    } while (0)

/* Microseconds as milliseconds with three decimals. */
static void access_put_ms(struct line *line, uint64_t us) {
    const char decimals[4] = {'.', (char)('0' + us / 100 % 10), (char)('0' + us / 10 % 10), (char)('0' + us % 10)};
    line_put_u64(line, us / 1000);
    line_put(line, decimals, sizeof decimals);
}

#define ACCESS_MS(line, key, us) \
    do { \
        if (line_room(line) >= sizeof(key) + 2 * DIGITS_MAX && LINE_PUT(line, ",\"" key "\":")) \
            access_put_ms(line, us); \
    } while (0)

/* now_us: of clock_us(). One byte is kept for the brace at the end. */
static struct line access_begin(struct worker *worker, struct span event, uint64_t now_us) {
    struct line line = {worker->log_line, worker->log_line + LOG_LINE_MAX - 1};
    LINE_PUT(&line, "{\"time\":\"");
    line.p += clock_format_iso(line.p, clock_wall_of(now_us));
    LINE_PUT(&line, "\",\"event\":\"");
    line_put(&line, event.p, event.n);
    LINE_PUT(&line, "\"");
    return line;
}

static void access_end(struct worker *worker, struct line *line) {
    *line->p++ = '}';
    log_access(worker->log_line, (size_t)(line->p - worker->log_line));
}

static bool access_wanted(const struct request *request) {
    const struct config *config = request->local->generation->config;
    return config->settings.access_to && (!request->route || request->route->access_log);
}

static void access_identity(struct line *line, const struct request *request) {
    const struct subject *subject = &request->subject;
    char text[ADDR_TEXT_MAX];
    const struct addr_small *client = subject->client.family ? &subject->client : &subject->peer;
    ACCESS_TEXT(line, "id", subject->id);
    ACCESS_TEXT(line, "client", span_of(addr_small_format_ip(client, text)));
    if (subject->listener)
        ACCESS_TEXT(line, "listener", span_of(subject->listener->name));
    ACCESS_TEXT(line, "method", subject->head.method_name);
    ACCESS_TEXT(line, "host", subject->host);
    ACCESS_TEXT(line, "path", subject->raw_path);
    if (request->local->generation->config->settings.access_query)
        ACCESS_TEXT(line, "query", subject->query);
    if (subject->tls)
        ACCESS_TEXT(line, "tls", span_of(tls_version(subject->tls)));
}

static void access_decision(struct line *line, const struct request *request) {
    if (request->route)
        ACCESS_TEXT(line, "route", span_of(request->route->name));
    if (request->pool)
        ACCESS_TEXT(line, "pool", span_of(request->pool->config->name));
    if (request->last_server)
        ACCESS_TEXT(line, "server", span_of(request->last_server->name));
    ACCESS_TEXT(line, "affinity", span_of(request_affinity(request)));
    if (request->attempts > 1)
        ACCESS_NUMBER(line, "retries", request->attempts - 1);
    for (unsigned i = 0; i < request->subject.log_count; i++) {
        char *start = line->p;
        if (!LINE_PUT(line, ",\"") || !line_put_json(line, request->subject.logs[i].key) || !LINE_PUT(line, "\":\""))
            line->p = start;
        else
            access_value(line, start, request->subject.logs[i].value);
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
    const uint64_t now_us = clock_us();
    struct line built = access_begin(request->worker, SPAN("request"), now_us), *line = &built;
    access_identity(line, request);
    ACCESS_NUMBER(line, "status", request->head_sent ? request->status : 0);
    ACCESS_NUMBER(line, "bytes_in", request->bytes_in);
    ACCESS_NUMBER(line, "bytes_out", request->bytes_out);
    ACCESS_MS(line, "duration_ms", now_us - request->started_us);
    access_decision(line, request);
    ACCESS_TEXT(line, "cause", span_of(cause_name(request->cause)));
    ACCESS_TEXT(line, "side", span_of(cause_side(request->cause)));
    if (request->detail && *request->detail)
        ACCESS_TEXT(line, "detail", span_of(request->detail));
    access_end(request->worker, line);
}

void access_tunnel_open(const struct request *request, const struct access_names *names) {
    if (!access_wanted(request))
        return;
    if (access_is_combined(request)) {
        access_combined(request, 101);
        return;
    }
    const uint64_t now_us = clock_us();
    struct line built = access_begin(request->worker, SPAN("open"), now_us), *line = &built;
    access_identity(line, request);
    ACCESS_NUMBER(line, "status", 101);
    ACCESS_TEXT(line, "subprotocol", span_of(names->subprotocol));
    ACCESS_MS(line, "handshake_ms", now_us - request->started_us);
    access_decision(line, request);
    access_end(request->worker, line);
}

void access_tunnel_close(struct worker *worker, const struct access_names *names, const char *client, const char *server,
                         uint64_t age_ms, uint64_t bytes_in, uint64_t bytes_out, enum cause cause) {
    if (!names->log)
        return;
    const char *slash = strchr(server, '/');
    struct line built = access_begin(worker, SPAN("close"), clock_us()), *line = &built;
    ACCESS_TEXT(line, "id", span_of(names->id));
    ACCESS_TEXT(line, "client", span_of(client));
    ACCESS_TEXT(line, "listener", span_of(names->listener));
    ACCESS_TEXT(line, "host", span_of(names->host));
    ACCESS_TEXT(line, "path", span_of(names->path));
    ACCESS_TEXT(line, "subprotocol", span_of(names->subprotocol));
    ACCESS_TEXT(line, "route", span_of(names->route));
    ACCESS_TEXT(line, "pool", span_of(names->pool));
    ACCESS_TEXT(line, "server", span_of(slash ? slash + 1 : server));
    ACCESS_NUMBER(line, "bytes_in", bytes_in);
    ACCESS_NUMBER(line, "bytes_out", bytes_out);
    ACCESS_NUMBER(line, "age_ms", age_ms);
    ACCESS_TEXT(line, "cause", span_of(cause_name(cause)));
    ACCESS_TEXT(line, "side", span_of(cause_side(cause)));
    access_end(worker, line);
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
