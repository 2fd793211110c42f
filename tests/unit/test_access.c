/* SPDX-License-Identifier: MIT */
/* The access log of a real worker: one line a request, two a tunnel, fields escaped, no query. */
#include "traffic_rig.h"
#include "wire/upgrade.h"

static struct rig rig;
static char folder[] = "/tmp/moongate-access-XXXXXX";
static char path[64];
static char text[65536];

static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/access.log", folder);
    const struct log_options options = {.level = LOG_LEVEL_ERROR, .access_to = path};
    ck_assert(log_start(&options));
    rig_init(&rig);
    rig.config->settings.access_to = path;
}

static void teardown(void) {
    unlink(path);
    rmdir(folder);
}

/* Stops all and returns the log's text. */
static const char *finish(void) {
    rig_stop(&rig);
    log_stop();
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static unsigned lines(const char *of) {
    unsigned count = 0;
    for (; *of; of++)
        count += *of == '\n';
    return count;
}

START_TEST(test_one_line_a_request) {
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /a\"b%0a?token=secret HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    rig_read(client, "hello");
    close(client);
    close(server);
    const char *log = finish();
    ck_assert_uint_eq(lines(log), 1);
    ck_assert_ptr_nonnull(strstr(log, "\"event\":\"request\""));
    ck_assert_ptr_nonnull(strstr(log, "\"path\":\"/a\\\"b%0a\""));
    ck_assert_ptr_null(strstr(log, "secret"));
    ck_assert_ptr_nonnull(strstr(log, "\"status\":200"));
    ck_assert_ptr_nonnull(strstr(log, "\"bytes_out\":5,"));
    ck_assert_ptr_nonnull(strstr(log, "\"route\":\"all\""));
    ck_assert_ptr_nonnull(strstr(log, "\"pool\":\"chat\""));
    ck_assert_ptr_nonnull(strstr(log, "\"cause\":\"done\""));
}
END_TEST

/* A value that does not fit leaves the line whole: only that value is missing. */
START_TEST(test_line_with_too_long_a_value) {
    static char request[LOG_LINE_MAX + 256];
    rig.config->settings.access_query = true;
    rig.listener.max_target = rig.listener.max_header = 4 * LOG_LINE_MAX;
    rig_start(&rig);
    int client = rig_connect(&rig);
    int n = snprintf(request, sizeof request, "GET /a?");
    memset(request + n, 'q', LOG_LINE_MAX);
    snprintf(request + n + LOG_LINE_MAX, 64, " HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_send(client, request);
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 204 No Content\r\n\r\n");
    rig_read(client, "\r\n\r\n");
    close(client);
    close(server);
    const char *log = finish();
    ck_assert_uint_eq(lines(log), 1);
    ck_assert_ptr_nonnull(strstr(log, "\"path\":\"/a\",\"status\":204,"));
    ck_assert_ptr_null(strstr(log, "query"));
    ck_assert_ptr_nonnull(strstr(log, "\"side\":\"gateway\"}\n"));
}
END_TEST

START_TEST(test_two_lines_a_tunnel) {
    char answer[512], accept[UPGRADE_ACCEPT_SIZE + 1];
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    upgrade_accept(SPAN("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accept);
    rig_send(server, answer);
    rig_read(client, "\r\n\r\n");
    rig_send(client, "four");
    rig_read(server, "four");
    close(client);
    ck_assert_str_eq(rig_read(server, NULL), "");
    close(server);
    rig_reconcile(METRIC_tunnels_opened, METRIC_tunnels_closed);
    const char *log = finish();
    ck_assert_uint_eq(lines(log), 2);
    const char *end = strstr(log, "\"event\":\"close\"");
    ck_assert_ptr_nonnull(strstr(log, "\"event\":\"open\""));
    ck_assert_ptr_nonnull(strstr(log, "\"handshake_ms\":"));
    ck_assert_ptr_nonnull(end);
    ck_assert_ptr_nonnull(strstr(end, "\"bytes_in\":4,\"bytes_out\":0,"));
    ck_assert_ptr_nonnull(strstr(end, "\"cause\":\"client closed\",\"side\":\"client\""));
}
END_TEST

START_TEST(test_route_without_access_log) {
    rig.route.access_log = false;
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 204 No Content\r\n\r\n");
    rig_read(client, "\r\n\r\n");
    close(client);
    close(server);
    ck_assert_str_eq(finish(), "");
}
END_TEST

START_TEST(test_combined_line) {
    rig.config->settings.access_format = CONFIG_ACCESS_COMBINED;
    rig_start(&rig);
    int client = rig_connect(&rig);
    rig_send(client, "GET /a?token=secret HTTP/1.1\r\nHost: a\r\nReferer: http://b/?token=secret\r\nUser-Agent: x\" y\r\n\r\n");
    int server = rig_accept(&rig);
    rig_read(server, "\r\n\r\n");
    rig_send(server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    rig_read(client, "hello");
    close(client);
    close(server);
    const char *log = finish();
    ck_assert_uint_eq(lines(log), 1);
    ck_assert_ptr_nonnull(strstr(log, " - - ["));
    ck_assert_ptr_nonnull(strstr(log, " +0000] \"GET /a HTTP/1.1\" 200 5 \"http://b/\" \"x\\\" y\"\n"));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("access");
    TCase *tests = tcase_create("access");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_one_line_a_request);
    tcase_add_test(tests, test_line_with_too_long_a_value);
    tcase_add_test(tests, test_two_lines_a_tunnel);
    tcase_add_test(tests, test_route_without_access_log);
    tcase_add_test(tests, test_combined_line);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
