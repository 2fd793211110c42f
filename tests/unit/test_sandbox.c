/* SPDX-License-Identifier: MIT */
/* Tests of script/sandbox: what scripts may not reach, and what is read-only after the load. */
#include "load_fixture.h"

static struct script *script;

/* Runs function 0 of route "t", whose body this is, after the load; what it returned, or its error. */
static const char *run(const char *body) {
    char text[4096], error[256];
    snprintf(text, sizeof text, "route 't' { function()\n%s\nend, forward 'web' }", body);
    load_good(text);
    script_free(&script);
    script = script_load_replay(loaded, error, sizeof error);
    ck_assert_msg(script != NULL, "%s", error);
    script_push_function(script, 0);
    script_call(script, 0, 1);
    return luaL_tolstring(script->L, -1, NULL);
}

static void teardown(void) {
    script_free(&script);
    load_teardown();
}

#define ASSERT_RUN(body, expected) do { \
        const char *said_ = run(body); \
        ck_assert_msg(strstr(said_, expected) != NULL, "expected: %s\nsaid: %s", expected, said_); \
    } while (0)

START_TEST(test_sandbox_taken_out) {
    static const char *const names[] = {"io", "debug", "coroutine", "package", "dofile", "loadfile", "collectgarbage", "rawset", "warn"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char text[128], expected[128];
        snprintf(text, sizeof text, "route 't' { function() return %s end, forward 'web' }", names[i]);
        snprintf(expected, sizeof expected, "moongate.lua:2: \"%s\" is not part of the rule language\n", names[i]);
        load_bad(text, expected);
        snprintf(text, sizeof text, "return tostring(_G['%s'])", names[i]);
        ASSERT_RUN(text, "nil");
    }
    ASSERT_RUN("local n = {} for k in pairs(os) do n[#n + 1] = k end table.sort(n) return table.concat(n, ' ')",
               "clock date difftime time");
    ASSERT_RUN("return tostring(string.dump)", "nil");
}
END_TEST

START_TEST(test_sandbox_no_bytecode) {
    ASSERT_RUN("return select(2, load('\\27Lua'))", "attempt to load a binary chunk");
    ASSERT_RUN("return select(2, load('\\27Lua', 'x', 'b'))", "attempt to load a binary chunk");
    ASSERT_RUN("return load('return 1 + 1')()", "2");
    ASSERT_RUN("return load('return x', 'x', 't', { x = 5 })()", "5");
}
END_TEST

START_TEST(test_sandbox_no_finalizers) {
    ASSERT_RUN("setmetatable({}, { __gc = function() end })", "__gc is not allowed");
    ASSERT_RUN("return setmetatable({}, { __index = function() return 'yes' end }).x", "yes");
    ASSERT_RUN("setmetatable(setmetatable({}, { __metatable = 1 }), {})", "protected metatable");
}
END_TEST

START_TEST(test_sandbox_frozen) {
    ASSERT_RUN("_G['x'] = 1", "globals are read-only after the load (set \"x\")");
    ASSERT_RUN("_G['print'] = 1", "globals are read-only after the load");
    ASSERT_RUN("string.upper = 1", "libraries are read-only after the load");
    ASSERT_RUN("table.insert(math, 1)", "libraries are read-only");
    ASSERT_RUN("getmetatable('').__index = 1", "attempt to index a boolean value");
    ASSERT_RUN("setmetatable(_G, {})", "protected metatable");
    ASSERT_RUN("return ('x'):upper() .. tostring(math.floor(1.5)) .. tostring(next(string) ~= nil)", "X1true");
    ASSERT_RUN("local n = 0 for k in pairs(string) do n = n + 1 end return n > 10", "true");
    ASSERT_RUN("return tostring(_G['nothing'])", "nil");
}
END_TEST

START_TEST(test_sandbox_modules_frozen) {
    load_write("a.lua", "return setmetatable({ x = 1 }, { __call = function() return 'called' end, __index = { y = 2 } })");
    load_good("local a = require 'a' route 't' { function() return a() .. a.x .. a.y .. select(2, pcall(function() a.x = 2 end)) end, forward 'web' }");
    char error[256];
    script = script_load_replay(loaded, error, sizeof error);
    ck_assert_msg(script != NULL, "%s", error);
    script_push_function(script, 0);
    ck_assert_int_eq(script_call(script, 0, 1), LUA_OK);
    const char *said = lua_tostring(script->L, -1);
    ck_assert_msg(strncmp(said, "called12", 8) == 0 && strstr(said, "required modules are read-only"), "%s", said);
}
END_TEST

START_TEST(test_sandbox_words_after_load) {
    ASSERT_RUN("pool 'x' {}", "pool is for loading only");
    ASSERT_RUN("on_close(function() end)", "on_close is for loading only");
    ASSERT_RUN("readfile 'x'", "readfile works while loading only");
    ASSERT_RUN("include 'x'", "include works while loading only");
    ASSERT_RUN("require 'x'", "require works while loading only");
    ASSERT_RUN("return env.MOONGATE_TEST_UNSET", "env.MOONGATE_TEST_UNSET is not set");
    ASSERT_RUN("return env('MOONGATE_TEST_UNSET', 'default')", "default");
    ASSERT_RUN("return strict{ a = 1 }.b", "strict: no field \"b\"");
    ASSERT_RUN("return strict{ server = 1 }.sever", "did you mean \"server\"?");
    ASSERT_RUN("local n = 0 for _ in ipairs(strict{ 1, 2 }) do n = n + 1 end return n", "2");
}
END_TEST

START_TEST(test_sandbox_errors_are_texts) {
    ASSERT_RUN("error({})", "(error object is a table value)");
    ASSERT_RUN("error(nil)", "(error object is a nil value)");
    ASSERT_RUN("error(setmetatable({}, { __tostring = function() return 'told' end }))", "told");
    ck_assert_ptr_nonnull(run("error(setmetatable({}, { __tostring = function() error('again') end }))"));
    const char *endless = run("local function f() return f() + 1 end return f()");
    ck_assert(strstr(endless, "stack overflow") || strstr(endless, "not enough memory"));
    ASSERT_RUN("error('plain')", "traceback");
}
END_TEST

START_TEST(test_sandbox_memory_cap) {
    struct script *small = script_new(1 << 20);
    ck_assert_ptr_nonnull(small);
    ck_assert_int_eq(luaL_loadstring(small->L, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"), LUA_OK);
    ck_assert_int_eq(script_call(small, 0, 0), LUA_ERRMEM);
    ck_assert_str_eq(lua_tostring(small->L, -1), "not enough memory");
    ck_assert_uint_le(small->memory, 1 << 20);
    lua_settop(small->L, 0);
    ck_assert_int_eq(luaL_loadstring(small->L, "return 1"), LUA_OK);
    ck_assert_int_eq(script_call(small, 0, 1), LUA_OK);
    script_free(&small);
    ck_assert_ptr_null(script_new(1000));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sandbox");
    TCase *tests = tcase_create("sandbox");
    tcase_add_checked_fixture(tests, load_setup, teardown);
    tcase_add_test(tests, test_sandbox_taken_out);
    tcase_add_test(tests, test_sandbox_no_bytecode);
    tcase_add_test(tests, test_sandbox_no_finalizers);
    tcase_add_test(tests, test_sandbox_frozen);
    tcase_add_test(tests, test_sandbox_modules_frozen);
    tcase_add_test(tests, test_sandbox_words_after_load);
    tcase_add_test(tests, test_sandbox_errors_are_texts);
    tcase_add_test(tests, test_sandbox_memory_cap);
    suite_add_tcase(suite, tests);
    return load_run_tests(suite);
}
