/* SPDX-License-Identifier: MIT */
/*
 * The access log as the "combined" lines that other servers write and many tools read: client, time, request line, status, bytes, Referer,
 * User-Agent. One line a request; a tunnel has one, when it opens: the format has no place for how it ended (JSON has).
 *
 * The subtle one: a Referer carries a query as the path does, with the same secrets, so it is cut at its question mark unless queries are
 * asked for. All values pass the escaper: no peer can end a quote or a line.
 */
#include "base/clock.h"
#include "base/str.h"
#include "traffic/access.h"

/* "22/Nov/2026:13:45:46 +0000" from "Sun, 22 Nov 2026 13:45:46 GMT". */
static void combined_time(struct buf *line) {
    char http[CLOCK_TEXT_MAX];
    clock_format_http(http, clock_wall_us());
    buf_append(line, http + 5, 2);
    buf_append_text(line, "/");
    buf_append(line, http + 8, 3);
    buf_append_text(line, "/");
    buf_append(line, http + 12, 4);
    buf_append_text(line, ":");
    buf_append(line, http + 17, 8);
    buf_append_text(line, " +0000");
}

static void combined_field(struct buf *line, const struct request *request, struct span name, bool query) {
    const struct http_field *field = http_find_name(&request->subject.head, name);
    struct span value = field ? field->value : SPAN_NULL;
    const char *mark = value.p && !query ? memchr(value.p, '?', value.n) : NULL;
    buf_append_text(line, " \"");
    if (value.n > 0)
        str_append_json(line, mark ? span_make(value.p, (size_t)(mark - value.p)) : value);
    else
        buf_append_text(line, "-");
    buf_append_text(line, "\"");
}

void access_combined(const struct request *request, unsigned status) {
    const struct subject *subject = &request->subject;
    const bool query = request->local->generation->config->settings.access_query;
    struct buf *line = &request->worker->log_line;
    const struct addr_small *client = subject->client.family ? &subject->client : &subject->peer;
    char text[ADDR_TEXT_MAX];
    buf_consume(line, line->len);
    buf_append_text(line, addr_small_format_ip(client, text));
    buf_append_text(line, " - - [");
    combined_time(line);
    buf_append_text(line, "] \"");
    if (subject->head.method_name.n > 0 && subject->raw_path.n > 0) {
        str_append_json(line, subject->head.method_name);
        buf_append_text(line, " ");
        str_append_json(line, subject->raw_path);
        if (query && subject->query.n > 0) {
            buf_append_text(line, "?");
            str_append_json(line, subject->query);
        }
        buf_append_text(line, subject->head.minor ? " HTTP/1.1" : " HTTP/1.0");
    } else {
        buf_append_text(line, "-");
    }
    buf_append_text(line, "\" ");
    buf_append_text(line, status ? "" : "00"); /* nothing was answered: 000, three digits as tools expect */
    buf_append_u64(line, status);
    buf_append_text(line, " ");
    buf_append_u64(line, request->bytes_out);
    combined_field(line, request, SPAN("referer"), query);
    combined_field(line, request, SPAN("user-agent"), true);
    struct span whole = buf_span(line);
    log_access(whole.p, whole.n);
}
