/* SPDX-License-Identifier: MIT */
/* Tests of base/addr: parsing, printing, mapped IPv4, CIDR blocks. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"

static void test_addr_round(const char *text, uint16_t default_port, const char *expected) {
    struct addr addr;
    char out[ADDR_TEXT_MAX];
    if (!addr_parse(span_of(text), default_port, &addr)) {
        ck_assert_msg(expected == NULL, "%s was refused", text);
        return;
    }
    ck_assert_msg(expected != NULL, "%s was taken", text);
    ck_assert_str_eq(addr_format(&addr, out), expected);
}

START_TEST(test_addr_parse_forms) {
    test_addr_round("1.2.3.4:80", 0, "1.2.3.4:80");
    test_addr_round("1.2.3.4", 8080, "1.2.3.4:8080");
    test_addr_round("[::1]:80", 0, "[::1]:80");
    test_addr_round("[2001:DB8::1]", 443, "[2001:db8::1]:443");
    test_addr_round("[::ffff:1.2.3.4]:5", 0, "1.2.3.4:5");
    test_addr_round("unix:/run/a.sock", 0, "unix:/run/a.sock");
    test_addr_round("1.2.3.4:65535", 0, "1.2.3.4:65535");
}
END_TEST

START_TEST(test_addr_parse_refuses) {
    static const char *const bad[] = {
        "", "1.2.3.4", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:8x", "1.2.3:80", "::1:80", "::1",
        "[::1]80", "[::1]:", "[::1", "[]:80", "[1.2.3.4]:80", "host:80", "01.2.3.4:80", " 1.2.3.4:80",
        "1.2.3.4:+80", ":80", "unix:", "unix:relative", "1.2.3.4:80:80", "[::1]:80 "
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        test_addr_round(bad[i], 0, NULL);
    struct addr addr;
    ck_assert(!addr_parse(SPAN("1.2.3.4\0:80"), 0, &addr));
    ck_assert(!addr_parse(SPAN("1.2.3.4\0"), 80, &addr));
    ck_assert(!addr_parse(SPAN_NULL, 80, &addr));
    char path[200] = "unix:/";
    memset(path + 6, 'x', 107);
    test_addr_round(path, 0, NULL); /* longer than sun_path holds */
    path[5 + 107] = '\0';
    test_addr_round(path, 0, path);
}
END_TEST

START_TEST(test_addr_split_names) {
    struct span host;
    uint16_t port;
    ck_assert(addr_split(SPAN("example.com:8443"), &host, &port));
    ck_assert(span_equal(host, SPAN("example.com")) && port == 8443);
    ck_assert(addr_split(SPAN("example.com"), &host, &port));
    ck_assert(span_equal(host, SPAN("example.com")) && port == 0);
    ck_assert(addr_split(SPAN("[::1]:80"), &host, &port));
    ck_assert(span_equal(host, SPAN("::1")) && port == 80);
    ck_assert(!addr_split(SPAN("a:b:1"), &host, &port));
    ck_assert(!addr_split(SPAN(":1"), &host, &port));
    ck_assert(!addr_split(SPAN(""), &host, &port));
}
END_TEST

START_TEST(test_addr_mapped_is_ipv4) {
    struct addr v4, mapped = {.len = sizeof(struct sockaddr_in6)};
    char out[ADDR_TEXT_MAX];
    ck_assert(addr_parse(SPAN("10.0.0.1:80"), 0, &v4));
    mapped.sa.in6.sin6_family = AF_INET6;
    mapped.sa.in6.sin6_port = v4.sa.in.sin_port;
    mapped.sa.in6.sin6_addr.s6_addr[10] = mapped.sa.in6.sin6_addr.s6_addr[11] = 0xff;
    mapped.sa.in6.sin6_addr.s6_addr[12] = 10;
    mapped.sa.in6.sin6_addr.s6_addr[15] = 1;
    ck_assert_str_eq(addr_format(&mapped, out), "10.0.0.1:80");
    ck_assert_str_eq(addr_format_ip(&mapped, out), "10.0.0.1");
    ck_assert(addr_equal(&v4, &mapped));
    ck_assert_uint_eq(addr_port(&mapped), 80);
    struct addr_small small = addr_shrink(&mapped);
    ck_assert_uint_eq(sizeof(small), 20);
    ck_assert_uint_eq(small.family, AF_INET);
    struct addr back = addr_expand(&small);
    ck_assert(addr_equal(&back, &v4));
    ck_assert_uint_eq(back.len, sizeof(struct sockaddr_in));
}
END_TEST

START_TEST(test_addr_others) {
    char out[ADDR_TEXT_MAX];
    struct addr none = {.len = 0}, peer = {.len = sizeof(sa_family_t)}, a, b;
    ck_assert_str_eq(addr_format(&none, out), "-");
    peer.sa.any.sa_family = AF_UNIX; /* what accept() gives for a client that was not bound */
    ck_assert_str_eq(addr_format(&peer, out), "unix:");
    ck_assert_str_eq(addr_format_ip(&peer, out), "unix:");
    ck_assert(addr_parse(SPAN("unix:/a"), 0, &a));
    ck_assert(addr_parse(SPAN("unix:/b"), 0, &b));
    ck_assert(!addr_equal(&a, &b));
    ck_assert(addr_equal(&a, &a));
    ck_assert(addr_parse(SPAN("1.2.3.4:1"), 0, &a));
    ck_assert(addr_parse(SPAN("1.2.3.4:2"), 0, &b));
    ck_assert(!addr_equal(&a, &b));
    ck_assert(!addr_is_wildcard(&a));
    ck_assert(addr_parse(SPAN("0.0.0.0:1"), 0, &a));
    ck_assert(addr_parse(SPAN("[::]:1"), 0, &b));
    ck_assert(addr_is_wildcard(&a) && addr_is_wildcard(&b));
    ck_assert(!addr_equal(&a, &b));
}
END_TEST

START_TEST(test_loopback) {
    static const struct {
        const char *text;
        bool here;
    } cases[] = {{"127.0.0.1:1", true}, {"127.8.9.1:1", true}, {"[::1]:1", true}, {"unix:/a", true},
                 {"126.0.0.1:1", false}, {"128.0.0.1:1", false}, {"[::2]:1", false}, {"[::]:1", false}, {"0.0.0.0:1", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct addr addr;
        ck_assert(addr_parse(span_of(cases[i].text), 0, &addr));
        ck_assert_msg(addr_is_loopback(&addr) == cases[i].here, "%s", cases[i].text);
    }
}
END_TEST

static bool test_addr_in(const char *block, const char *ip) {
    struct cidr cidr;
    struct addr_small addr;
    ck_assert_msg(cidr_parse(span_of(block), &cidr), "%s", block);
    ck_assert_msg(addr_parse_ip(span_of(ip), &addr), "%s", ip);
    return cidr_match(&cidr, &addr);
}

START_TEST(test_addr_cidr) {
    ck_assert(test_addr_in("10.0.0.0/8", "10.255.1.2"));
    ck_assert(!test_addr_in("10.0.0.0/8", "11.0.0.0"));
    ck_assert(test_addr_in("10.0.0.0/8", "::ffff:10.1.1.1"));
    ck_assert(test_addr_in("1.2.3.4", "1.2.3.4"));
    ck_assert(!test_addr_in("1.2.3.4", "1.2.3.5"));
    ck_assert(test_addr_in("192.168.4.0/22", "192.168.7.255"));
    ck_assert(!test_addr_in("192.168.4.0/22", "192.168.8.0"));
    ck_assert(test_addr_in("0.0.0.0/0", "255.255.255.255"));
    ck_assert(!test_addr_in("0.0.0.0/0", "2001:db8::1"));
    ck_assert(test_addr_in("::/0", "2001:db8::1"));
    ck_assert(!test_addr_in("::/0", "1.2.3.4")); /* all of IPv6, and only that */
    ck_assert(test_addr_in("2001:db8::/33", "[2001:db8:7fff::1]"));
    ck_assert(!test_addr_in("2001:db8::/33", "2001:db8:8000::1"));
    ck_assert(test_addr_in("::1/128", "::1"));
    struct cidr cidr;
    static const char *const bad[] = {"10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0/8", "",
                                      "/8", "a/8", "::1/127", "10.0.0.0/8/8", "10.0.0.0/0008"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!cidr_parse(span_of(bad[i]), &cidr), "%s", bad[i]);
    struct addr_small none = {.family = AF_UNIX};
    ck_assert(cidr_parse(SPAN("::/0"), &cidr));
    ck_assert(!cidr_match(&cidr, &none));
    struct cidr list[2];
    struct addr_small ip;
    ck_assert(cidr_parse(SPAN("10.0.0.0/8"), &list[0]) && cidr_parse(SPAN("::1"), &list[1]));
    ck_assert(addr_parse_ip(SPAN("::1"), &ip));
    ck_assert(cidr_match_any(list, 2, &ip));
    ck_assert(!cidr_match_any(list, 1, &ip));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("addr");
    TCase *tc = tcase_create("addr");
    tcase_add_test(tc, test_addr_parse_forms);
    tcase_add_test(tc, test_loopback);
    tcase_add_test(tc, test_addr_parse_refuses);
    tcase_add_test(tc, test_addr_split_names);
    tcase_add_test(tc, test_addr_mapped_is_ipv4);
    tcase_add_test(tc, test_addr_others);
    tcase_add_test(tc, test_addr_cidr);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
