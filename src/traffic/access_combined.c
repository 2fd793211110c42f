/* SPDX-License-Identifier: MIT */
/*
 * The access log as the "combined" lines that other servers write and many tools read: client, time, request line, status, bytes, Referer,
 * User-Agent. One line a request; a tunnel has one, when it opens: the format has no place for how it ended (JSON has).
 *
 * The subtle one: a Referer carries a query as the path does, with the same secrets, so it is cut at its question mark unless queries are
 * asked for. All values pass the escaper: no peer can end a quote or a line.
 */
#include "base/clock.h"
#include "base/line.h"
#include "traffic/access.h"

/* "22/Nov/2026:13:45:46 +0000" from "Sun, 22 Nov 2026 13:45:46 GMT". */
static void combined_time(struct line *line) {
    char http[CLOCK_TEXT_MAX];
    clock_format_http(http, clock_wall_us());
    line_put(line, http + 5, 2);
    LINE_PUT(line, "/");
    line_put(line, http + 8, 3);
    LINE_PUT(line, "/");
    line_put(line, http + 12, 4);
    LINE_PUT(line, ":");
    line_put(line, http + 17, 8);
    LINE_PUT(line, " +0000");
}

static void combined_field(struct line *line, const struct request *request, struct span name, bool query) {
    const struct http_field *field = http_find_name(&request->subject.head, name);
    struct span value = field ? field->value : SPAN_NULL;
    const char *mark = value.p && !query ? memchr(value.p, '?', value.n) : NULL;
    LINE_PUT(line, " \"");
    if (value.n > 0)
        line_put_json(line, mark ? span_make(value.p, (size_t)(mark - value.p)) : value);
    else
        LINE_PUT(line, "-");
    LINE_PUT(line, "\"");
}

void access_combined(const struct request *request, unsigned status) {
    const struct subject *subject = &request->subject;
    const bool query = request->local->generation->config->settings.access_query;
    char *const start = request->worker->log_line;
    struct line built = {start, start + LOG_LINE_MAX}, *line = &built;
    const struct addr_small *client = subject->client.family ? &subject->client : &subject->peer;
    char text[ADDR_TEXT_MAX];
    addr_small_format_ip(client, text);
    line_put(line, text, strlen(text));
    LINE_PUT(line, " - - [");
    combined_time(line);
    LINE_PUT(line, "] \"");
    if (subject->head.method_name.n > 0 && subject->raw_path.n > 0) {
        line_put_json(line, subject->head.method_name);
        LINE_PUT(line, " ");
        line_put_json(line, subject->raw_path);
        if (query && subject->query.n > 0) {
            LINE_PUT(line, "?");
            line_put_json(line, subject->query);
        }
        line_put(line, subject->head.minor ? " HTTP/1.1" : " HTTP/1.0", 9);
    } else {
        LINE_PUT(line, "-");
    }
    LINE_PUT(line, "\" ");
    line_put(line, "00", status ? 0 : 2); /* nothing was answered: 000, three digits as tools expect */
    line_put_u64(line, status);
    LINE_PUT(line, " ");
    line_put_u64(line, request->bytes_out);
    combined_field(line, request, SPAN("referer"), query);
    combined_field(line, request, SPAN("user-agent"), true);
    log_access(start, (size_t)(line->p - start));
}
