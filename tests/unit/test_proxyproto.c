/* SPDX-License-Identifier: MIT */
/* PROXY headers: what is read, what is refused, at every cut, and that what is written is read back. */
#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "wire/proxyproto.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x90\x01\xbb" /* 1.2.3.4:8080 to 5.6.7.8:443 */
#define V6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x1f\x90\x01\xbb"
#define BYTES(text) text, sizeof(text) - 1

/* From a block of exactly n bytes, so that a sanitizer sees a read behind it. */
static enum proxyproto_result parse(const char *data, size_t n, struct proxyproto *out, size_t *used,
                                    const char **reason) {
    char *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    enum proxyproto_result result = proxyproto_parse(copy, n, out, used, reason);
    free(copy);
    return result;
}

static const struct {
    const char *data;
    size_t n;
    const char *source, *destination; /* NULL: local */
} good[] = {
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 8080 443\r\n"), "1.2.3.4:8080", "5.6.7.8:443"},
    {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255:65535", "255.255.255.255:65535"},
    {BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "0.0.0.0:0", "0.0.0.0:0"},
    {BYTES("PROXY TCP6 2001:db8::1 2001:db8::2 8080 443\r\n"), "[2001:db8::1]:8080", "[2001:db8::2]:443"},
    {BYTES("PROXY TCP6 ffff:f...f:ffff"), NULL, NULL}, /* replaced below: the longest line */
    {BYTES("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n"), "1.2.3.4:1", "[::1]:2"},
    {BYTES("PROXY UNKNOWN\r\n"), NULL, NULL},
    {BYTES("PROXY UNKNOWN ffff:f...f:ffff what ever 65535\r\n"), NULL, NULL},
    {BYTES(SIG "\x20\x00\0\0"), NULL, NULL},
    {BYTES(SIG "\x20\xff\0\x03" "abc"), NULL, NULL},          /* LOCAL: the family is ignored, the block skipped */
    {BYTES(SIG "\x20\x11\0\x0c" V4), NULL, NULL},
    {BYTES(SIG "\x21\x00\0\0"), NULL, NULL},
    {BYTES(SIG "\x21\x00\0\x05\x01\x02\x03\x04\x05"), NULL, NULL},
    {BYTES(SIG "\x21\x11\0\x0c" V4), "1.2.3.4:8080", "5.6.7.8:443"},
    {BYTES(SIG "\x21\x12\0\x0c" V4), "1.2.3.4:8080", "5.6.7.8:443"},
    {BYTES(SIG "\x21\x21\0\x24" V6), "[2001:db8::1]:8080", "[2001:db8::2]:443"},
    {BYTES(SIG "\x21\x22\0\x24" V6), "[2001:db8::1]:8080", "[2001:db8::2]:443"},
    {BYTES(SIG "\x21\x11\0\x15" V4 "\x01\0\x02h2\xee\0\x01x"), "1.2.3.4:8080", "5.6.7.8:443"}, /* TLVs */
    {BYTES(SIG "\x21\x11\0\x0f" V4 "\x01\xff\xff"), "1.2.3.4:8080", "5.6.7.8:443"},      /* a broken TLV is no matter */
};

static const char longest[] = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";

static void check_addr(const struct addr *addr, const char *want) {
    char text[ADDR_TEXT_MAX];
    ck_assert_str_eq(addr_format(addr, text), want);
}

START_TEST(test_good) {
    const char *data = good[_i].data, *reason, *source = good[_i].source;
    const char *destination = good[_i].destination;
    size_t n = good[_i].n, used;
    struct proxyproto out;
    if (strstr(data, "...f:ffff") && !strstr(data, "UNKNOWN")) {
        data = longest;
        n = sizeof longest - 1;
        source = destination = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    }
    for (size_t cut = 0; cut < n; cut++)
        ck_assert_msg(parse(data, cut, &out, &used, &reason) == PROXYPROTO_MORE, "row %d cut at %zu", _i, cut);
    char more[512];
    memset(more, 'G', sizeof more);
    memcpy(more, data, n);
    for (size_t size = n; size < n + 40; size++) {
        ck_assert_int_eq(parse(more, size, &out, &used, &reason), PROXYPROTO_OK);
        ck_assert_uint_eq(used, n); /* and not a byte of what follows */
    }
    ck_assert_int_eq(out.version, data[0] == 'P' ? PROXYPROTO_V1 : PROXYPROTO_V2);
    ck_assert_int_eq(out.local, source == NULL);
    if (!source) {
        ck_assert_uint_eq(out.source.len, 0);
        ck_assert_uint_eq(out.destination.len, 0);
        return;
    }
    check_addr(&out.source, source);
    check_addr(&out.destination, destination);
}
END_TEST

static const struct {
    const char *data;
    size_t n;
} bad[] = {
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
    {BYTES("P ")}, {BYTES("PROXX")}, {BYTES("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("\x16\x03\x01")}, {BYTES("\r\nGET")}, {BYTES("\r\n\r\n\r")}, {BYTES(" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY\r\n")}, {BYTES("PROXY \r\n")}, {BYTES("PROXY TCP4\r\n")}, {BYTES("PROXY TCP4 \r\n")},
    {BYTES("PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n")}, {BYTES("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY UNKNOWNX\r\n")}, {BYTES("PROXY unknown\r\n")}, {BYTES("PROXY  UNKNOWN\r\n")},
    {BYTES("PROXY UNKNOWN\n")}, {BYTES("PROXY UNKNOWN\r\r\n")}, {BYTES("PROXY UNKNOWN a\0b\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n")},
    {BYTES("PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY TCP4 256.2.3.4 5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP4 0x1.2.3.4 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4:1 5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP4 ::1 ::1 1 2\r\n")},
    {BYTES("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n")}, {BYTES("PROXY TCP6 [::1] ::1 1 2\r\n")},
    {BYTES("PROXY TCP6 ::1 [::1] 1 2\r\n")}, {BYTES("PROXY TCP6 ::g ::1 1 2\r\n")}, {BYTES("PROXY TCP6 fe80::1%lo ::1 1 2\r\n")},
    {BYTES("PROXY TCP6 ::1 ::1::1 1 2\r\n")}, {BYTES("PROXY TCP4 localhost 5.6.7.8 1 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n")}, {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1x 2\r\n")},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 000000 2\r\n")}, {BYTES("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n")},
    {BYTES(SIG "\x11\x11\0\x0c" V4)}, {BYTES(SIG "\x31\x11\0\x0c" V4)}, {BYTES(SIG "\x01\x11\0\x0c" V4)}, /* version */
    {BYTES(SIG "\x22\x11\0\x0c" V4)}, {BYTES(SIG "\x2f\x11\0\x0c" V4)},                               /* command */
    {BYTES(SIG "\x21\x01\0\x0c" V4)}, {BYTES(SIG "\x21\x10\0\x0c" V4)}, {BYTES(SIG "\x21\x13\0\x0c" V4)}, /* family */
    {BYTES(SIG "\x21\x20\0\x24" V6)}, {BYTES(SIG "\x21\x23\0\x24" V6)}, {BYTES(SIG "\x21\x41\0\x24" V6)},
    {BYTES(SIG "\x21\xf1\0\x24" V6)},
    {BYTES(SIG "\x21\x11\0\x0b" V4)}, {BYTES(SIG "\x21\x11\0\0")}, {BYTES(SIG "\x21\x21\0\x23" V6)}, /* short block */
    {BYTES(SIG "\x21\x21\0\x0c" V4)}, {BYTES(SIG "\x21\x31\0\x24" V6)},
    {BYTES(SIG "\x21\x11\x0f\xf1")}, {BYTES(SIG "\x20\x00\xff\xff")},                             /* too long, at once */
};

START_TEST(test_bad) {
    const char *data = bad[_i].data, *reason;
    size_t used;
    struct proxyproto out;
    ck_assert_msg(parse(data, bad[_i].n, &out, &used, &reason) == PROXYPROTO_BAD, "row %d: %s", _i, data);
    ck_assert_ptr_nonnull(reason);
    ck_assert_uint_eq(used, 0);
    ck_assert_uint_eq(out.source.len, 0);
    /* Once bad, always bad; before that, never good. */
    bool is_bad = false;
    for (size_t cut = 0; cut <= bad[_i].n; cut++) {
        enum proxyproto_result result = parse(data, cut, &out, &used, &reason);
        ck_assert_int_ne(result, PROXYPROTO_OK);
        ck_assert(!is_bad || result == PROXYPROTO_BAD);
        is_bad = result == PROXYPROTO_BAD;
    }
}
END_TEST

/* A client that speaks something else is told at its first byte. */
START_TEST(test_first_byte) {
    const char *reason;
    size_t used;
    struct proxyproto out;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        bool may = byte == 'P' || byte == '\r';
        ck_assert_int_eq(parse(&byte, 1, &out, &used, &reason), may ? PROXYPROTO_MORE : PROXYPROTO_BAD);
    }
}
END_TEST

START_TEST(test_bounds) {
    static char data[PROXYPROTO_MAX + 1];
    const char *reason;
    size_t used;
    struct proxyproto out;
    memset(data, 'x', sizeof data);
    memcpy(data, BYTES("PROXY UNKNOWN "));
    memcpy(data + 105, "\r\n", 2);
    ck_assert_int_eq(parse(data, 107, &out, &used, &reason), PROXYPROTO_OK);
    ck_assert_uint_eq(used, 107);
    data[105] = 'x';
    memcpy(data + 106, "\r\n", 2);
    ck_assert_int_eq(parse(data, 106, &out, &used, &reason), PROXYPROTO_MORE);
    ck_assert_int_eq(parse(data, 107, &out, &used, &reason), PROXYPROTO_BAD);
    ck_assert_int_eq(parse(data, 108, &out, &used, &reason), PROXYPROTO_BAD);
    memcpy(data, BYTES(SIG "\x21\x11\x0f\xf0" V4));
    ck_assert_int_eq(parse(data, PROXYPROTO_MAX - 1, &out, &used, &reason), PROXYPROTO_MORE);
    ck_assert_int_eq(parse(data, PROXYPROTO_MAX, &out, &used, &reason), PROXYPROTO_OK);
    ck_assert_uint_eq(used, PROXYPROTO_MAX);
    data[15] = '\xf1';
    ck_assert_int_eq(parse(data, 16, &out, &used, &reason), PROXYPROTO_BAD);
}
END_TEST

START_TEST(test_unix) {
    char data[16 + 216];
    const char *reason;
    size_t used;
    struct proxyproto out;
    memset(data, 0, sizeof data);
    memcpy(data, BYTES(SIG "\x21\x31\0\xd8"));
    memcpy(data + 16, BYTES("/run/a.sock"));
    memset(data + 16 + 108, 'b', 108); /* no NUL at the end, as the specification allows */
    data[16 + 108] = '/';
    ck_assert_int_eq(parse(data, sizeof data - 1, &out, &used, &reason), PROXYPROTO_MORE);
    ck_assert_int_eq(parse(data, sizeof data, &out, &used, &reason), PROXYPROTO_OK);
    ck_assert_uint_eq(used, sizeof data);
    check_addr(&out.source, "unix:/run/a.sock");
    ck_assert_uint_eq(strlen(out.destination.sa.un.sun_path), 107);
    char text[ADDR_TEXT_MAX];
    ck_assert_str_eq(addr_format_ip(&out.source, text), "unix:");
    memset(data + 16, 0, 216);
    ck_assert_int_eq(parse(data, sizeof data, &out, &used, &reason), PROXYPROTO_OK);
    ck_assert_int_eq(out.source.sa.any.sa_family, AF_UNIX);
    data[15] = '\xd7';
    ck_assert_int_eq(parse(data, sizeof data, &out, &used, &reason), PROXYPROTO_BAD);
}
END_TEST

static const struct {
    const char *source, *destination, *line, *read_source, *read_destination;
} pairs[] = {
    {"1.2.3.4:8080", "5.6.7.8:443", "PROXY TCP4 1.2.3.4 5.6.7.8 8080 443\r\n", "1.2.3.4:8080", "5.6.7.8:443"},
    {"[2001:db8::1]:1", "[::1]:65535", "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", "[2001:db8::1]:1", "[::1]:65535"},
    {"1.2.3.4:8080", "[::1]:443", "PROXY TCP6 ::ffff:1.2.3.4 ::1 8080 443\r\n", "1.2.3.4:8080", "[::1]:443"},
    {"[::1]:443", "1.2.3.4:8080", "PROXY TCP6 ::1 ::ffff:1.2.3.4 443 8080\r\n", "[::1]:443", "1.2.3.4:8080"},
    {"1.2.3.4:8080", NULL, "PROXY TCP4 1.2.3.4 0.0.0.0 8080 0\r\n", "1.2.3.4:8080", "0.0.0.0:0"},
    {"[::1]:443", NULL, "PROXY TCP6 ::1 :: 443 0\r\n", "[::1]:443", "[::]:0"},
    {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", longest,
     "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
    {"unix:/run/a", "unix:/run/b", "PROXY UNKNOWN\r\n", NULL, NULL},
    {"1.2.3.4:8080", "unix:/run/b", "PROXY UNKNOWN\r\n", NULL, NULL},
    {NULL, NULL, "PROXY UNKNOWN\r\n", NULL, NULL},
};

static struct addr_small small(const char *text) {
    struct addr addr = {.len = 0};
    if (text)
        ck_assert(addr_parse(span_of(text), 0, &addr));
    return addr_shrink(&addr);
}

START_TEST(test_write) {
    struct addr_small source = small(pairs[_i].source), destination = small(pairs[_i].destination);
    const char *reason;
    size_t used;
    struct proxyproto out;
    for (enum proxyproto_version version = PROXYPROTO_V1; version <= PROXYPROTO_V2; version++) {
        char *header = malloc(PROXYPROTO_WRITE_MAX);
        size_t n = proxyproto_write(header, version, &source, &destination);
        ck_assert_uint_le(n, PROXYPROTO_WRITE_MAX);
        if (version == PROXYPROTO_V1) {
            ck_assert_uint_eq(n, strlen(pairs[_i].line));
            ck_assert_mem_eq(header, pairs[_i].line, n);
        } else { /* our own connection, or one that is passed on */
            ck_assert_int_eq(header[12], pairs[_i].source ? 0x21 : 0x20);
        }
        ck_assert_int_eq(parse(header, n, &out, &used, &reason), PROXYPROTO_OK);
        ck_assert_uint_eq(used, n);
        ck_assert_int_eq(out.version, version);
        ck_assert_int_eq(out.local, pairs[_i].read_source == NULL);
        if (pairs[_i].read_source) {
            check_addr(&out.source, pairs[_i].read_source);
            check_addr(&out.destination, pairs[_i].read_destination);
        }
        free(header);
    }
}
END_TEST

#define COUNT(list) (int)(sizeof(list) / sizeof *(list))

int main(void) {
    Suite *suite = suite_create("proxyproto");
    TCase *tests = tcase_create("proxyproto");
    tcase_add_loop_test(tests, test_good, 0, COUNT(good));
    tcase_add_loop_test(tests, test_bad, 0, COUNT(bad));
    tcase_add_test(tests, test_first_byte);
    tcase_add_test(tests, test_bounds);
    tcase_add_test(tests, test_unix);
    tcase_add_loop_test(tests, test_write, 0, COUNT(pairs));
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
