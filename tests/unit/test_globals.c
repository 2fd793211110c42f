/* SPDX-License-Identifier: MIT */
/* Tests of script/globals: every use of a global is found in a compiled chunk, with its line, and nothing else is. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "script/load_private.h"

static struct buf chunk, found;

static int write_chunk(lua_State *L, const void *data, size_t n, void *owner) {
    (void)L;
    return !buf_append(owner, data, n);
}

/* The compiled form of source, in chunk. */
static void compile(const char *source) {
    lua_State *L = luaL_newstate();
    ck_assert_ptr_nonnull(L);
    ck_assert_msg(luaL_loadbuffer(L, source, strlen(source), "@test.lua") == LUA_OK, "%s", lua_tostring(L, -1));
    ck_assert_int_eq(lua_dump(L, write_chunk, &chunk, 0), 0);
    lua_close(L);
}

static void on_use(void *owner, const struct globals_use *use) {
    (void)owner;
    ck_assert(buf_printf(&found, "%s%s%.*s@%d ", use->top ? "" : "f:", use->set ? "=" : "", (int)use->n, use->name, use->line));
}

/* All uses, in order, as text: "f:" inside a function, "=" assigned. */
static const char *scan(const char *source) {
    char error[160] = "";
    buf_release(&chunk);
    buf_release(&found);
    compile(source);
    ck_assert_msg(globals_scan(buf_span(&chunk).p, buf_span(&chunk).n, on_use, NULL, error, sizeof error), "%s", error);
    ck_assert(buf_append(&found, "", 1));
    return buf_span(&found).p;
}

static void setup(void) {
    buf_init(&chunk, 1 << 24);
    buf_init(&found, 1 << 24);
}

static void teardown(void) {
    buf_release(&chunk);
    buf_release(&found);
}

START_TEST(test_globals_top_and_functions) {
    ck_assert_str_eq(scan("x = y"), "y@1 =x@1 ");
    ck_assert_str_eq(scan("local a = 1\nlocal function f() return a + b end\nreturn f"), "f:b@2 ");
    ck_assert_str_eq(scan("return function()\n  return function()\n    z = 1\n  end\nend"), "f:=z@3 ");
    ck_assert_str_eq(scan("local t = {}\nt.x = 1\nreturn t.y, t['z']"), "");
    ck_assert_str_eq(scan("pool 'a' {\n  port = 1\n}\nfunction f() end"), "pool@1 =f@4 ");
}
END_TEST

START_TEST(test_globals_own_environment) {
    ck_assert_str_eq(scan("local _ENV = { a = 1 }\nreturn function() return b end"), "");
    ck_assert_str_eq(scan("local print = print\nreturn function() local _ENV = {}; c = print end"), "print@1 ");
    ck_assert_str_eq(scan("return function() return _ENV.d end"), "f:d@1 ");
}
END_TEST

/* Lines further apart than a byte can say, and more than 128 instructions. */
START_TEST(test_globals_far_lines) {
    struct buf source;
    buf_init(&source, 1 << 20);
    ck_assert(buf_append_text(&source, "return function()\nlocal a = one\n"));
    for (int i = 0; i < 400; i++)
        ck_assert(buf_append_text(&source, "\n"));
    ck_assert(buf_append_text(&source, "a = two\n"));
    for (int i = 0; i < 300; i++)
        ck_assert(buf_append_text(&source, "a = a + 1.5\n"));
    ck_assert(buf_append(&source, "a = three end", sizeof("a = three end")));
    ck_assert_str_eq(scan(buf_span(&source).p), "f:one@2 f:two@403 f:three@704 ");
    buf_release(&source);
}
END_TEST

/* Behind 256 constants the compiler loads _ENV and the name into registers. */
START_TEST(test_globals_many_constants) {
    struct buf source;
    buf_init(&source, 1 << 20);
    ck_assert(buf_append_text(&source, "return function()\nlocal t = {}\n"));
    for (int i = 0; i < 300; i++)
        ck_assert(buf_printf(&source, "t[%d] = 'v%d'\n", i, i));
    ck_assert(buf_append_text(&source, "t.a = late\nlater = t.b\nlast = tail(t)\nend"));
    ck_assert(buf_append(&source, "", 1));
    ck_assert_str_eq(scan(buf_span(&source).p), "f:late@303 f:=later@304 f:=last@305 f:tail@305 ");
    buf_release(&source);
}
END_TEST

START_TEST(test_globals_refuses_other_formats) {
    char error[160] = "";
    compile("x = y");
    char *bytes = chunk.data + chunk.off;
    size_t n = chunk.len;
    ck_assert(!globals_scan(bytes, 10, on_use, NULL, error, sizeof error));
    ck_assert_ptr_nonnull(strstr(error, "another format"));
    bytes[4] = 0x53;
    ck_assert(!globals_scan(bytes, n, on_use, NULL, error, sizeof error));
    bytes[4] = 0x54;
    for (size_t cut = 0; cut < n; cut++) /* cut anywhere: refused, never read beyond */
        ck_assert(!globals_scan(bytes, cut, on_use, NULL, error, sizeof error));
    ck_assert(globals_scan(bytes, n, on_use, NULL, error, sizeof error));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("globals");
    TCase *tests = tcase_create("globals");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_globals_top_and_functions);
    tcase_add_test(tests, test_globals_own_environment);
    tcase_add_test(tests, test_globals_far_lines);
    tcase_add_test(tests, test_globals_many_constants);
    tcase_add_test(tests, test_globals_refuses_other_formats);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
