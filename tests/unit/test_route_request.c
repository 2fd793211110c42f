/* SPDX-License-Identifier: MIT */
/* test_route_request: URLs and heads of `moongate route`, and where such a request arrives. */
#include "cli/route.h"
#include "routing_fixture.h"

static struct route_url url;
static struct route_options options;

START_TEST(urls_are_cut_up)
{
    ck_assert_ptr_null(route_url_parse("https://Host.example:8443/a/../b?c=d#e", &url));
    ck_assert(url.tls && !url.websocket);
    ck_assert_span(url.authority, "Host.example:8443");
    ck_assert_span(url.host, "Host.example");
    ck_assert_uint_eq(url.port, 8443);
    ck_assert_span(url.target, "/a/../b?c=d"); /* as it stands: tidying is the gateway's */
    ck_assert_ptr_null(route_url_parse("WS://[::1]:81", &url));
    ck_assert(!url.tls && url.websocket);
    ck_assert_span(url.host, "::1");
    ck_assert_uint_eq(url.target.n, 0);
    ck_assert_ptr_null(route_url_parse("wss://h", &url));
    ck_assert(url.tls && url.websocket);
    ck_assert_ptr_null(route_url_parse("host/path?next=http://x", &url));
    ck_assert(!url.tls);
    ck_assert_span(url.host, "host");
    static const char *const bad[] = {"ftp://x/", "http://", "http://a@b/", "http://a:b:c/", "http://a:99999/", "", "http://x/a b", "http://x y/", " http://x/",
                                      "http://x/\t", "http://x/\r\nA: b", "http://x/\x7f"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(route_url_parse(bad[i], &url) != NULL, "%s", bad[i]);
}
END_TEST

static char head[4096];

static const char *write_head(const char *text) {
    struct buf out;
    ck_assert_ptr_null(route_url_parse(text, &url));
    buf_init(&out, sizeof head - 1);
    ck_assert(route_write_head(&out, &options, &url));
    struct span bytes = buf_span(&out);
    memcpy(head, bytes.p, bytes.n);
    head[bytes.n] = '\0';
    buf_release(&out);
    return head;
}

START_TEST(heads_are_like_curls)
{
    options = (struct route_options){0};
    ck_assert_str_eq(write_head("http://h:81"), "GET / HTTP/1.1\r\nHost: h:81\r\nUser-Agent: moongate-route\r\n"
                                                "Accept: */*\r\n\r\n");
    options = (struct route_options){.method = "PUT", .fields = {"host: other", "Accept:", "X-Empty;", "X-A:  1 "}};
    options.field_count = 4;
    ck_assert_str_eq(write_head("http://h/x?y"), "PUT /x?y HTTP/1.1\r\nUser-Agent: moongate-route\r\nhost: other\r\n"
                                                 "X-Empty: \r\nX-A: 1\r\n\r\n");
}
END_TEST

START_TEST(ws_makes_a_valid_handshake)
{
    struct fixture fx;
    struct subject subject;
    options = (struct route_options){.fields = {"Sec-WebSocket-Protocol: chat"}, .field_count = 1};
    fixture_init(&fx);
    ck_assert_uint_eq(fixture_prepare(&fx, &subject, write_head("ws://h?q")), 0);
    ck_assert(subject.websocket);
    ck_assert_span(subject.path, "/");
    ck_assert_span(subject.query, "q");
    ck_assert_span(subject.offer.protocols[0], "chat");
    subject_fini(&subject);
    options.fields[0] = "Sec-WebSocket-Version: 8";
    ck_assert_uint_eq(fixture_prepare(&fx, &subject, write_head("ws://h")), 426);
    subject_fini(&subject);
}
END_TEST

START_TEST(listeners_are_chosen)
{
    char names[4][2] = {"a", "b", "c", "d"};
    struct addr binds[4];
    struct config_listener listeners[4];
    struct config config = {.listeners = listeners, .listener_count = 4};
    const char *addresses[] = {"127.0.0.1:81", "127.0.0.1:80", "127.0.0.1:8443", "127.0.0.1:9443"};
    memset(listeners, 0, sizeof listeners);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(addr_parse(span_of(addresses[i]), 0, &binds[i]));
        listeners[i] = (struct config_listener){.name = names[i], .binds = &binds[i], .bind_count = 1, .tls = i > 1};
    }
    static const struct {
        const char *url, *name;
        uint16_t port;
    } cases[] = {{"http://h", "b", 80},       {"http://h:81", "a", 81}, {"https://h", "c", 8443}, {"wss://h:9443", "d", 9443}};
    options = (struct route_options){0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ck_assert_ptr_null(route_url_parse(cases[i].url, &url));
        const struct config_listener *listener = route_choose_listener(&config, &options, &url);
        ck_assert_msg(strcmp(listener->name, cases[i].name) == 0, "%s: %s", cases[i].url, listener->name);
        ck_assert_uint_eq(route_local_port(listener, &url), cases[i].port);
    }
    static const char *const nowhere[] = {"http://h:99", "https://h:80", "http://h:8443"};
    for (size_t i = 0; i < ARRAY_LEN(nowhere); i++) {
        ck_assert_ptr_null(route_url_parse(nowhere[i], &url));
        ck_assert_msg(!route_choose_listener(&config, &options, &url), "%s", nowhere[i]);
    }
    options.listener = "d";
    ck_assert_ptr_eq(route_choose_listener(&config, &options, &url), &listeners[3]);
    options.listener = "nope";
    ck_assert_ptr_null(route_choose_listener(&config, &options, &url));
}
END_TEST

static void add(TCase *tests) {
    tcase_add_test(tests, urls_are_cut_up);
    tcase_add_test(tests, heads_are_like_curls);
    tcase_add_test(tests, ws_makes_a_valid_handshake);
    tcase_add_test(tests, listeners_are_chosen);
}

int main(void) { return fixture_run("route_request", add); }
