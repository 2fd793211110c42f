/* SPDX-License-Identifier: MIT */
/* Tests of wire/uri: rules.md part 3 (path and host normalising), targets (requirements A1), queries. */
#include "wire_fixture.h"

#include "wire/uri.h"

static struct arena uri_arena;

static void uri_setup(void) {
    arena_init(&uri_arena, NULL, 1 << 20);
}
static void uri_teardown(void) {
    arena_fini(&uri_arena);
}

/* A copy of exactly its size, so that ASan sees a byte read too far. */
static struct span uri_copy(const char *text, size_t n) {
    char *copy = arena_alloc(&uri_arena, n);
    memcpy(copy, text, n);
    return span_make(copy, n);
}

static void uri_path_is(const char *raw, const char *expected) {
    const char *reason = NULL;
    const struct span in = uri_copy(raw, strlen(raw));
    const struct span out = uri_normalise_path(&uri_arena, in, false, &reason);
    ck_assert_msg(out.p && span_equal(out, span_of(expected)), "%s -> %.*s (%s), not %s", raw, SPAN_ARGS(out),
                  reason ? reason : "", expected);
    if (strcmp(raw, expected) == 0)
        ck_assert_ptr_eq(out.p, in.p);
    /* Once is enough: what is forwarded would be matched as itself. */
    const struct span again = uri_normalise_path(&uri_arena, out, false, &reason);
    ck_assert_msg(again.p == out.p && again.n == out.n, "%s is not stable", expected);
}

static void uri_path_bad(const char *raw, size_t n, bool encoded_slash) {
    const char *reason = NULL;
    const struct span out = uri_normalise_path(&uri_arena, uri_copy(raw, n), encoded_slash, &reason);
    ck_assert_msg(!out.p && reason, "%s -> %.*s", raw, SPAN_ARGS(out));
}

START_TEST(test_uri_path) { /* dot segments and "//" collapsed, unreserved decoded, hex upper case */
    static const char *const same[] = {"/",          "/a",           "/a/",     "/a.b/c~d-e_f", "/.well-known/x",
                                       "/a/..b/...", "/a;b=c/d",     "/%20",    "/%2A",         "/a%3Fb",
                                       "/%25",       "/%252e%252e/", "*",       "/a|b",         "/%5C",
                                       "/a..;b/",    "/...;x",       "/%C3%A4", "/%3B"};
    static const char *const pairs[][2] = {{"//", "/"},
                                           {"///a////b//", "/a/b/"},
                                           {"/./", "/"},
                                           {"/.", "/"},
                                           {"/a/.", "/a/"},
                                           {"/a/./b", "/a/b"},
                                           {"/./a", "/a"},
                                           {"/a/..", "/"},
                                           {"/a/../", "/"},
                                           {"/a/../b", "/b"},
                                           {"/a/b/..", "/a/"},
                                           {"/a/b/../c", "/a/c"},
                                           {"/a/b/../../c", "/c"},
                                           {"/a//../b", "/b"},
                                           {"/a/.//../b/", "/b/"},
                                           {"/%61", "/a"},
                                           {"/%7e%5F%2d%2E%2D", "/~_-.-"},
                                           {"/%2e", "/"},
                                           {"/a/%2E%2e/b", "/b"},
                                           {"/a/.%2e/b", "/b"},
                                           {"/a/%2e./b", "/b"},
                                           {"/%c3%a4", "/%C3%A4"},
                                           {"/%2a%3f", "/%2A%3F"},
                                           {"/a/%2e%2e%2e", "/a/..."},
                                           {"/abc/../", "/"}};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        uri_path_is(same[i], same[i]);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        uri_path_is(pairs[i][0], pairs[i][1]);
}
END_TEST

START_TEST(test_uri_path_bad) { /* ".." above the root, "..;", NUL, bad escapes, encoded slash: 400 */
    static const char *const bad[] = {
        "/..",       "/../", "/../a",  "/a/../..",    "/a/../../b", "/%2e%2e",   "/%2E./a",   "/./..",
        "//..",      "/..;", "/..;/a", "/a/..;x=y/b", "/%2e%2e;/",  "/a/.;/b",   "/a/..\\b",  "/a/..%5cb",
        "/a/..%5Cb", "/%00", "/a%00b", "/%",          "/%4",        "/%4g",      "/%g4",      "/a%",
        "/a%2",      "/%2f", "/a%2Fb", "/a?b",        "/a#b",       "/a b",      "/\x01",     "/\x7f",
        "/\xc3\xa4", "",     "a",      "a/b",         "**",         "http://a/", "/%2e%2e%2f", "/a\\..", "/a\\..\\b",
        "/a\\.\\b", "/a%5c..%5Cb", "/a%5C..", "/a\\%2e%2e", "/a\\..;x", "/.\\a", "/a/b%5c.%5c/c", "/\\..", "/a\\\\..\\b",
        "/a/..%3Bx/b", "/a/..%3b", "/..%20/", "/a/%2e%2e%20", "/a/..%09/b", "/a/.%0a", "/a/.%1F/b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        uri_path_bad(bad[i], strlen(bad[i]), false);
    uri_path_bad("/a\0b", 4, false);
    uri_path_bad("/%00", 4, true);
    const char *reason;
    ck_assert(span_equal(uri_normalise_path(&uri_arena, SPAN("/a%2fb/%2F"), true, &reason), SPAN("/a%2Fb/%2F")));
    /* A kept slash is none to us, but one to some servers: no dot segment beside it. */
    static const char *const kept[] = {"/a/..%2fb", "/a%2F..", "/a%2f..%2Fb", "/a/.%2Fb", "/a%2F%2e%2e/b", "/a%2F..;x", "/%2F.."};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        uri_path_bad(kept[i], strlen(kept[i]), true);
    ck_assert(span_equal(uri_normalise_path(&uri_arena, SPAN("/a..%2F..b\\...%5C"), true, &reason), SPAN("/a..%2F..b\\...%5C")));
}
END_TEST

START_TEST(test_uri_dot_segment) {
    static const char *const with[] = {"/.", "/..", "/a/./b", "/a/../b", "/a/..", "/%2e", "/a/%2E./b", "/.%2e/a", "..", "./a"};
    static const char *const without[] = {"/", "", "/a", "/...", "/.a/..b/a./a..", "/%2e%2e%2e", "/%2f..", "/..;", "/%2", "/a%2e"};
    for (size_t i = 0; i < sizeof(with) / sizeof(with[0]); i++)
        ck_assert_msg(uri_has_dot_segment(span_of(with[i])), "%s", with[i]);
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        ck_assert_msg(!uri_has_dot_segment(span_of(without[i])), "%s", without[i]);
}
END_TEST

START_TEST(test_uri_path_random) { /* whatever goes in: no dot segment, no "//" comes out, and once is enough */
    static const char *const parts[] = {"/", "/", ".", "..", "%2e", "%2E", "%2f", "%5c", ";", "a", "%", "%252e", "\\",
                                        "%61"};
    unsigned seed = 7, accepted = 0;
    for (unsigned round = 0; round < 60000; round++) {
        char text[64] = "/";
        size_t n = 1;
        seed = seed * 1664525 + 1013904223;
        for (unsigned i = 0, count = 1 + (seed >> 29); i < count; i++) {
            seed = seed * 1664525 + 1013904223;
            const char *part = parts[(seed >> 16) % (sizeof(parts) / sizeof(parts[0]))];
            memcpy(text + n, part, strlen(part));
            n += strlen(part);
        }
        struct arena arena;
        const char *reason = NULL;
        arena_init(&arena, NULL, 4096);
        const struct span out = uri_normalise_path(&arena, span_make(text, n), round & 1, &reason);
        if (out.p) {
            char copy[80];
            snprintf(copy, sizeof(copy), "%.*s/", SPAN_ARGS(out));
            ck_assert_msg(copy[0] == '/' && !strstr(copy, "/../") && !strstr(copy, "/./"), "%s -> %s", text, copy);
            ck_assert(!memmem(out.p, out.n, "//", 2) && !memmem(out.p, out.n, "/..;", 4));
            /* As it is to a server that takes a backslash, an encoded one or a kept slash for a slash: */
            for (char *like; (like = strstr(copy, "%5C")) || (like = strstr(copy, "%2F"));) {
                memmove(like, like + 2, strlen(like + 2) + 1);
                *like = '/';
            }
            for (char *like; (like = strchr(copy, '\\'));)
                *like = '/';
            ck_assert_msg(!strstr(copy, "/../") && !strstr(copy, "/./"), "%s -> %s", text, copy);
            ck_assert_ptr_eq(uri_normalise_path(&arena, out, round & 1, &reason).p, out.p);
            accepted++;
        } else {
            ck_assert_ptr_nonnull(reason);
        }
        arena_fini(&arena);
    }
    ck_assert_uint_gt(accepted, 6000);
}
END_TEST

START_TEST(test_uri_path_no_memory) {
    struct arena small;
    const char *reason = NULL;
    arena_init(&small, NULL, 0);
    ck_assert_ptr_null(uri_normalise_path(&small, SPAN("/a/./b"), false, &reason).p);
    ck_assert_str_eq(reason, "out of memory");
    ck_assert_ptr_nonnull(uri_normalise_path(&small, SPAN("/a/b"), false, &reason).p); /* needs none */
    arena_fini(&small);
}
END_TEST

static bool uri_splits(const char *target, const char *scheme, const char *authority, const char *path,
                       const char *query) {
    struct uri uri;
    if (!uri_split_target(uri_copy(target, strlen(target)), &uri))
        return false;
    ck_assert_msg(span_equal(uri.scheme, span_of(scheme)) && span_equal(uri.authority, span_of(authority)) &&
                      span_equal(uri.path, span_of(path)) && span_equal(uri.query, span_of(query)) &&
                      (uri.query.p == NULL) == (query == NULL),
                  "%s -> %.*s %.*s %.*s %.*s", target, SPAN_ARGS(uri.scheme), SPAN_ARGS(uri.authority),
                  SPAN_ARGS(uri.path), SPAN_ARGS(uri.query));
    return true;
}

START_TEST(test_uri_target) { /* A1: origin, absolute and asterisk form */
    static const char *const bad[] = {
        "",          "a",     "**",         "?",          "http:",       "http:/",        "http://",
        "http:///x", "://a/", "1http://a/", "ht_tp://a/", "http://u@a/", "http://u:p@a/", "/a#b",
        "/a b",      "/\xe4", "http:a/b",   "a:80"};
    ck_assert(uri_splits("/", "", "", "/", NULL));
    ck_assert(uri_splits("/a?b=c?d", "", "", "/a", "b=c?d"));
    ck_assert(uri_splits("/a?", "", "", "/a", ""));
    ck_assert(uri_splits("//a/b", "", "", "//a/b", NULL));
    ck_assert(uri_splits("*", "", "", "*", NULL));
    ck_assert(uri_splits("http://a", "http", "a", "/", NULL));
    ck_assert(uri_splits("http://a?b", "http", "a", "/", "b"));
    ck_assert(uri_splits("WSS://A:80/x?y", "WSS", "A:80", "/x", "y"));
    ck_assert(uri_splits("http://[::1]:80/", "http", "[::1]:80", "/", NULL));
    ck_assert(uri_splits("http://a/u@b", "http", "a", "/u@b", NULL));
    ck_assert(uri_splits("/http://a/", "", "", "/http://a/", NULL));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!uri_splits(bad[i], "", "", "", NULL), "%s", bad[i]);
}
END_TEST

START_TEST(test_uri_host) { /* rules.md part 3: without port, case and trailing dot; A2: nothing else in it */
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"a", "a", 0},
                {"Example.COM", "example.com", 0},
                {"example.com.", "example.com", 0},
                {"example.com.:80", "example.com", 80},
                {"a:1", "a", 1},
                {"a:65535", "a", 65535},
                {"A_b-c.d~e:08", "a_b-c.d~e", 8},
                {"10.0.0.1:80", "10.0.0.1", 80},
                {"[::1]", "[::1]", 0},
                {"[2001:DB8::A]:443", "[2001:db8::a]", 443},
                {"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", 0}};
    static const char *const bad[] = {
        "",        ".",         "..",     "a..b",     ".a",     "a..",    "a:",       "a:0",
        "a:65536", "a:123456",  "a:x",    "a:1:2",    "a:-1",   "a:+1",   ":80",      "::1",
        "[",       "[]",        "[::1",   "[::1]x",   "[::1]:", "[::1].", "[::1%lo]", "[fe80::1%25lo]",
        "[g::]",   "[1.2.3.4]", "[a]",    "a b",      "a,b",    "u@a",    "a/b",      "a\\b",
        "a?b",     "a#b",       "a%62",   "\xc3\xa4", "a\tb",   " a",     "a ",       "*",
        "a;b",     "(a)",       "[[::1]]"};
    uint16_t port;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        const struct span in = uri_copy(good[i].text, strlen(good[i].text));
        const struct span out = uri_normalise_host(&uri_arena, in, &port);
        ck_assert_msg(out.p && span_equal(out, span_of(good[i].host)) && port == good[i].port, "%s -> %.*s %u",
                      good[i].text, SPAN_ARGS(out), port);
        if (memcmp(good[i].text, good[i].host, strlen(good[i].host)) == 0)
            ck_assert_ptr_eq(out.p, in.p);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!uri_normalise_host(&uri_arena, uri_copy(bad[i], strlen(bad[i])), &port).p, "%s", bad[i]);
    ck_assert_ptr_null(uri_normalise_host(&uri_arena, SPAN("a\0b"), &port).p);
    ck_assert_ptr_null(uri_normalise_host(&uri_arena, SPAN("[::1\0]"), &port).p);
    char text[300];
    memset(text, 'a', sizeof(text));
    ck_assert_ptr_nonnull(uri_normalise_host(&uri_arena, span_make(text, 253), &port).p);
    ck_assert_ptr_null(uri_normalise_host(&uri_arena, span_make(text, 254), &port).p);
    text[0] = '[';
    text[299] = ']';
    ck_assert_ptr_null(uri_normalise_host(&uri_arena, span_make(text, 300), &port).p);
}
END_TEST

START_TEST(test_uri_decode) {
    const struct span plain = SPAN("a+b");
    ck_assert_ptr_eq(uri_decode(&uri_arena, plain, false).p, plain.p);
    ck_assert(span_equal(uri_decode(&uri_arena, plain, true), SPAN("a b")));
    ck_assert(span_equal(uri_decode(&uri_arena, SPAN("%41%2b%e4%00"), true), SPAN("A+\xe4\0")));
    ck_assert(span_equal(uri_decode(&uri_arena, SPAN("%2541"), false), SPAN("%41")));
    ck_assert_ptr_nonnull(uri_decode(&uri_arena, SPAN(""), false).p);
    static const char *const bad[] = {"%", "%4", "a%4", "%g0", "%0g", "%%41"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!uri_decode(&uri_arena, uri_copy(bad[i], strlen(bad[i])), false).p, "%s", bad[i]);
}
END_TEST

START_TEST(test_uri_encode) {
    ck_assert(span_equal(uri_encode_path(&uri_arena, SPAN("/a b/%?#;:@\xe4\0")), SPAN("/a%20b/%25%3F%23;:@%E4%00")));
    ck_assert(span_equal(uri_encode_query(&uri_arena, SPAN("a b&c=d/~+")), SPAN("a%20b%26c%3Dd%2F~%2B")));
    const struct span plain = SPAN("/plain/path");
    ck_assert_ptr_eq(uri_encode_path(&uri_arena, plain).p, plain.p);
    for (unsigned c = 0; c < 256; c++) { /* every byte there and back */
        const char byte = (char)c;
        const struct span one = {&byte, 1};
        ck_assert(span_equal(uri_decode(&uri_arena, uri_encode_path(&uri_arena, one), false), one));
        ck_assert(span_equal(uri_decode(&uri_arena, uri_encode_query(&uri_arena, one), true), one));
    }
}
END_TEST

static bool uri_gets(const char *query, const char *name, const char *expected) {
    const struct span value = uri_query_get(&uri_arena, query ? span_of(query) : SPAN_NULL, span_of(name));
    return expected ? value.p && span_equal(value, span_of(expected)) : !value.p;
}

START_TEST(test_uri_query_get) {
    ck_assert(uri_gets("a=1&b=2&a=3", "a", "1"));
    ck_assert(uri_gets("a=1&b=2&a=3", "b", "2"));
    ck_assert(uri_gets("a=1&b=2", "c", NULL));
    ck_assert(uri_gets("ab=1", "a", NULL));
    ck_assert(uri_gets("a", "a", ""));
    ck_assert(uri_gets("a=", "a", ""));
    ck_assert(uri_gets("x&&a==b=c", "a", "=b=c"));
    ck_assert(uri_gets("%61=%2b+x", "a", "+ x"));
    ck_assert(uri_gets("a=%zz", "a", "%zz"));
    ck_assert(uri_gets("%=1", "%", "1"));
    ck_assert(uri_gets("", "", NULL));
    ck_assert(uri_gets("&", "", NULL));
    ck_assert(uri_gets(NULL, "a", NULL));
}
END_TEST

static void uri_sets(const char *query, const char *name, const char *value, const char *expected) {
    const struct span out = uri_query_set(&uri_arena, query ? uri_copy(query, strlen(query)) : SPAN_NULL, span_of(name),
                                          value ? span_of(value) : SPAN_NULL);
    ck_assert_msg(out.p && span_equal(out, span_of(expected)), "%s %s=%s -> %.*s, not %s", query ? query : "-", name,
                  value ? value : "-", SPAN_ARGS(out), expected);
}

START_TEST(test_uri_query_set) {
    uri_sets("a=1&b=2", "a", "9", "a=9&b=2");
    uri_sets("a=1&b=2", "b", "9", "a=1&b=9");
    uri_sets("a=1&b=2&a=3&a", "a", "9", "a=9&b=2");
    uri_sets("a=1", "b", "2", "a=1&b=2");
    uri_sets("", "b", "2", "b=2");
    uri_sets(NULL, "b", "2", "b=2");
    uri_sets("a=1&b=2&a=3", "a", NULL, "b=2");
    uri_sets("a=1", "a", NULL, "");
    uri_sets(NULL, "a", NULL, "");
    uri_sets("b=%20+&x", "a", NULL, "b=%20+&x"); /* others as they stand */
    uri_sets("%61=1", "a", "2", "a=2");
    uri_sets("x=1", "a b", "c&d", "x=1&a%20b=c%26d");
    uri_sets("a=1", "a", "", "a=");
    struct arena small;
    arena_init(&small, NULL, 0);
    ck_assert_ptr_null(uri_query_set(&small, SPAN("a=1"), SPAN("a"), SPAN("2")).p);
    arena_fini(&small);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("uri");
    TCase *tc = tcase_create("uri");
    tcase_set_timeout(tc, 60); /* sanitizers on a busy machine */
    tcase_add_checked_fixture(tc, uri_setup, uri_teardown);
    tcase_add_test(tc, test_uri_path);
    tcase_add_test(tc, test_uri_path_bad);
    tcase_add_test(tc, test_uri_dot_segment);
    tcase_add_test(tc, test_uri_path_random);
    tcase_add_test(tc, test_uri_path_no_memory);
    tcase_add_test(tc, test_uri_target);
    tcase_add_test(tc, test_uri_host);
    tcase_add_test(tc, test_uri_decode);
    tcase_add_test(tc, test_uri_encode);
    tcase_add_test(tc, test_uri_query_get);
    tcase_add_test(tc, test_uri_query_set);
    suite_add_tcase(suite, tc);
    return wire_run(suite);
}
