/* SPDX-License-Identifier: MIT */
/*
 * test_luamatch: string.find, match, gmatch and gsub of the sandbox against those of Lua itself: a table of patterns and many random
 * ones must give the same results and the same errors. That a budget ends them is in test_script; that the load's clock does, here.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "load_fixture.h"
#include "script/declare.h"
#include "script/state.h"

#define LUAMATCH_RANDOM 20000

/* Runs in both states: all that the four functions say of one pattern and text, as one text. */
static const char luamatch_chunk[] =
    "local s, p, init, r, n = ...\n"
    "local function show(...)\n"
    "  local out = { select('#', ...) .. '' }\n"
    "  for i = 1, select('#', ...) do local v = select(i, ...) out[#out + 1] = (math.type(v) or type(v)) .. ':' .. tostring(v) end\n"
    "  return (table.concat(out, ' '))\n"
    "end\n"
    "local function all(...)\n"
    "  local out = {}\n"
    "  for a, b, c in string.gmatch(...) do\n"
    "    out[#out + 1] = show(a, b, c)\n"
    "    if #out > 40 then break end\n"
    "  end\n"
    "  return table.concat(out, ';')\n"
    "end\n"
    "local replacements = { r, 'x', '%0%1', function(a, b) return b or #tostring(a) > 1 and 7 end, { a = 'A', b = false, [''] = 3, ab = 5.5 },\n"
    "                       function() return {} end, true }\n"
    "local out = { show(pcall(string.find, s, p, init)), show(pcall(string.find, s, p, init, true)), show(pcall(string.match, s, p, init)),\n"
    "              show(pcall(all, s, p, init)) }\n"
    "for i = 1, 7 do out[#out + 1] = show(pcall(string.gsub, s, p, replacements[i], i ~= 2 and n or nil)) end\n"
    "local text = table.concat(out, '\\n')\n"

    "return (text:gsub('table: 0x%x+', 'table'))\n";

static lua_State *luamatch_stock;
static struct script *luamatch_own;

static void luamatch_open(void) {
    luamatch_stock = luaL_newstate();
    luaL_openlibs(luamatch_stock);
    lua_newtable(luamatch_stock); /* where Lua looks up the names of functions for its messages; the sandbox fills in none */
    lua_setfield(luamatch_stock, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    luamatch_own = script_new((size_t)64 << 20);
    ck_assert_ptr_nonnull(luamatch_own);
    lua_State *states[] = {luamatch_stock, luamatch_own->L};
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        ck_assert_int_eq(luaL_loadbuffer(states[i], luamatch_chunk, sizeof luamatch_chunk - 1, "=chunk"), LUA_OK);
        ck_assert_int_eq(lua_gettop(states[i]), 1);
    }
}

static void luamatch_close(void) {
    lua_close(luamatch_stock);
    script_free(&luamatch_own);
}

struct luamatch_case {
    struct span text, pattern, replacement;
    int init, max; /* 0: none given */
};

/* Leaves what the chunk said on the stack. */
static struct span luamatch_say(lua_State *L, const struct luamatch_case *test) {
    lua_pushvalue(L, 1);
    lua_pushlstring(L, test->text.p, test->text.n);
    lua_pushlstring(L, test->pattern.p, test->pattern.n);
    if (test->init)
        lua_pushinteger(L, test->init);
    else
        lua_pushnil(L);
    lua_pushlstring(L, test->replacement.p, test->replacement.n);
    if (test->max)
        lua_pushinteger(L, test->max);
    else
        lua_pushnil(L);
    int status = lua_pcall(L, 5, 1, 0);
    struct span said;
    said.p = lua_tolstring(L, -1, &said.n);
    ck_assert_msg(status == LUA_OK, "%.*s", SPAN_ARGS(said));
    return said;
}

static void luamatch_compare(const struct luamatch_case *test) {
    struct span stock = luamatch_say(luamatch_stock, test), own = luamatch_say(luamatch_own->L, test);
    ck_assert_msg(span_equal(stock, own), "text \"%.*s\" pattern \"%.*s\" replacement \"%.*s\" init %d max %d\n--- Lua:\n%.*s\n--- ours:\n%.*s",
                  SPAN_ARGS(test->text), SPAN_ARGS(test->pattern), SPAN_ARGS(test->replacement), test->init, test->max, SPAN_ARGS(stock),
                  SPAN_ARGS(own));
    lua_settop(luamatch_stock, 1);
    lua_settop(luamatch_own->L, 1);
}

#define CASE(text, pattern) {SPAN(text), SPAN(pattern), SPAN("<%0>"), 0, 0}
#define CASE_GSUB(text, pattern, replacement, max) {SPAN(text), SPAN(pattern), SPAN(replacement), 0, max}
#define CASE_INIT(text, pattern, init) {SPAN(text), SPAN(pattern), SPAN("<%0>"), init, 0}

static const struct luamatch_case luamatch_cases[] = {
    CASE("", ""), CASE("abc", ""), CASE("", "."), CASE("abc", "b"), CASE("abc", "^b"), CASE("abc", "^a"), CASE("abc", "c$"),
    CASE("a$c", "a$c"), CASE("abc", "$"), CASE("abc", "^$"), CASE("", "^$"), CASE("a^b", "a^b"), CASE("^a", "^^a"), CASE("abc", "^"),
    CASE("hello world", "o w"), CASE("hello world", "(o)( )(w)"), CASE("hello", "()ll()"), CASE("hello", "()"), CASE("hello", "(h)(.)%2"),
    CASE("key = value", "^(%w+)%s*=%s*(%w+)$"), CASE("  trim  ", "^%s*(.-)%s*$"), CASE("aaa", "a-"), CASE("aaa", "a-$"), CASE("aaab", "a-b"),
    CASE("aaa", "a*"), CASE("aaa", "a+"), CASE("aaa", "a?"), CASE("baaa", "a?a"), CASE("abcabc", "(abc)%1"), CASE("\"it's\"", "([\"'])(.-)%1"),
    CASE("f(a(b)c)d", "%b()"), CASE("((", "%b()"), CASE("aXbXc", "%bXX"), CASE("THE (quick) fox", "%f[%a]%a+%f[%A]"), CASE("THE", "%f[%z]"),
    CASE("a.b-c", "[.-]"), CASE("a]b", "[]]"), CASE("a]b", "[^]]"), CASE("a^b", "[b^]"), CASE("a-z", "[a-]"), CASE("a-z", "[a%-z]"),
    CASE("a-z%", "[%a-z]"), CASE("a%]", "[a-%]]"), CASE("-.%]", "[--%%]"), CASE("a\0b", "%z"), CASE("a\0b", "a\0b"), CASE("a\0b", "[\0]"),
    CASE("a\0b", "[^\0]+"), CASE("\xe4\xff\x80", "[\x80-\xff]+"), CASE("\xe4\xff\x80", "%a*%c*%x*%S"), CASE("aB1_ \t\n", "%l%u%d%p%s%c"),
    CASE("aB1_ \t\n", "%L*%U*%D*%P*%S*%C*%G*%W*%X*%A*"), CASE("x", "%"), CASE("x", "x%"), CASE("x", "y%"), CASE("x", "["), CASE("x", "[^"),
    CASE("x", "[x"), CASE("x", "[]"), CASE("x", "[%"), CASE("x", "[%]"), CASE("x", "[x%]"), CASE("x", "y["), CASE("x", "x["), CASE("x", "("),
    CASE("x", "(x"), CASE("x", "x)"), CASE("x", ")"), CASE("x", "y)"), CASE("x", "()("), CASE("x", "%1"), CASE("x", "(%1)"), CASE("x", "%0"),
    CASE("x", "(x)%2"), CASE("xx", "()x%1"), CASE("x", "%b"), CASE("x", "%bx"), CASE("x", "%f"), CASE("x", "%fx"), CASE("x", "%f["),
    CASE("*+?", "*+?"), CASE("*+?", "%*%+%?"), CASE("?", "??"), CASE("a", "*"), CASE("a**", "a**"), CASE("a+-", "a+-"), CASE("a?b", "a??b"),
    CASE("(a)", "%(a%)"), CASE("abc", "(a)(b)(c)"), CASE("abc", "((a)(b))"), CASE("abc", "(a(b(c)))"), CASE("abc", "(a*(.)%w(%s*))"),
    CASE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)"),
    CASE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)(a)"),
    CASE_GSUB("abc", "%w", "%%%0%1", 0), CASE_GSUB("abc", "%w", "%", 0), CASE_GSUB("abc", "%w", "%x", 0), CASE_GSUB("abc", "%w", "%2", 0),
    CASE_GSUB("abc", "()%w", "%1,", 0), CASE_GSUB("abc", "(%w)(%w)", "%2%1", 0), CASE_GSUB("abc", "", "-", 0), CASE_GSUB("abc", "b*", "-", 0),
    CASE_GSUB("abc def", "%w+", "%0 %0", 1), CASE_GSUB("abc", "%w", "x", -1), CASE_GSUB("hello world", "^%w", "X", 0), CASE_GSUB("aaa", "^a", "", 0),
    CASE_GSUB("abc", "x", "%9", 0), CASE_GSUB("a,b,,c", "([^,]*)", "[%1]", 0), CASE_GSUB("abc", "(", "x", 0), CASE_GSUB("a\0b", "\0", "%0\0", 0),
    CASE_INIT("abcabc", "b", 3), CASE_INIT("abcabc", "b", -2), CASE_INIT("abcabc", "^b", 2), CASE_INIT("abc", "", 4), CASE_INIT("abc", "", 5),
    CASE_INIT("abc", "", -9), CASE_INIT("abc", "%f[%w]", 2), CASE_INIT("abc", "()", 3), CASE_INIT("a.c", ".", 2), CASE_INIT("", "", 2),
};

START_TEST(test_table) {
    luamatch_open();
    for (size_t i = 0; i < ARRAY_LEN(luamatch_cases); i++)
        luamatch_compare(&luamatch_cases[i]);
    luamatch_close();
}
END_TEST

static uint32_t luamatch_state;

static unsigned luamatch_pick(unsigned below) {
    luamatch_state = luamatch_state * 1664525 + 1013904223;
    return (luamatch_state >> 8) % below;
}

static size_t luamatch_fill(char *out, size_t cap, const struct span *pieces, unsigned count, unsigned most) {
    size_t n = 0;
    for (unsigned left = luamatch_pick(most + 1); left > 0; left--) {
        struct span piece = pieces[luamatch_pick(count)];
        if (n + piece.n > cap)
            break;
        memcpy(out + n, piece.p, piece.n);
        n += piece.n;
    }
    return n;
}

/* Whole items, so that many match, with loose characters between, so that many are malformed. */
START_TEST(test_random) {
    static const struct span pieces[] = {
        SPAN("a"),  SPAN("a"),    SPAN("b"),     SPAN("b"),    SPAN("ab"),  SPAN("."),    SPAN("."),    SPAN("*"),     SPAN("+"),   SPAN("-"),
        SPAN("?"),  SPAN("^"),    SPAN("$"),     SPAN("("),    SPAN(")"),   SPAN("()"),   SPAN("(a)"),  SPAN("(.-)"),  SPAN("(b*)"), SPAN("["),
        SPAN("]"),  SPAN("[ab]"), SPAN("[^a]"),  SPAN("[a-"),  SPAN("-c]"), SPAN("%"),    SPAN("%a"),   SPAN("%d"),    SPAN("%W"),  SPAN("%s"),
        SPAN("%1"), SPAN("%2"),   SPAN("%b()"),  SPAN("%bab"), SPAN("%f"),  SPAN("%f[a]"), SPAN("%f[^%w]"), SPAN("[%a_]"), SPAN("%."), SPAN("\0"),
    };
    static const struct span letters[] = {SPAN("a"), SPAN("a"), SPAN("b"),  SPAN("b"),  SPAN("("), SPAN(")"),    SPAN(" "),
                                          SPAN("1"), SPAN("."), SPAN("\0"), SPAN("aa"), SPAN("-"), SPAN("\xe4"), SPAN("]")};
    static const struct span fills[] = {SPAN("%0"), SPAN("%1"), SPAN("%2"), SPAN("%%"), SPAN("x"), SPAN("x"), SPAN("%"), SPAN("ab"), SPAN("\0")};
    char text[32], pattern[64], replacement[16];
    luamatch_open();
    luamatch_state = (uint32_t)_i + 1;
    for (int turn = 0; turn < LUAMATCH_RANDOM; turn++) {
        struct luamatch_case test = {.init = (int)luamatch_pick(12) - 6, .max = luamatch_pick(3) ? 0 : (int)luamatch_pick(4) - 1};
        test.text = span_make(text, luamatch_fill(text, sizeof text, letters, ARRAY_LEN(letters), 12));
        test.pattern = span_make(pattern, luamatch_fill(pattern, sizeof pattern, pieces, ARRAY_LEN(pieces), 7));
        test.replacement = span_make(replacement, luamatch_fill(replacement, sizeof replacement, fills, ARRAY_LEN(fills), 4));
        luamatch_compare(&test);
    }
    luamatch_close();
}
END_TEST

/* How many items a pattern may nest: the limit is where Lua has it. */
START_TEST(test_depth) {
    static const char *const items[] = {"a?", "a*", "a-", "()", "(a)", ".?", "%a", "b*"};
    luamatch_open();
    char text[401], pattern[1024];
    memset(text, 'a', sizeof text);
    for (size_t item = 0; item < ARRAY_LEN(items); item++)
        for (unsigned count = 95; count < 205; count++) {
            size_t n = 0;
            for (unsigned i = 0; i < count; i++, n += strlen(items[item]))
                memcpy(pattern + n, items[item], strlen(items[item]));
            struct luamatch_case test = {.text = span_make(text, 400), .pattern = span_make(pattern, n), .replacement = SPAN("x")};
            luamatch_compare(&test);
        }
    luamatch_close();
}
END_TEST

/* What is not a text, and where errors are said to be. */
START_TEST(test_arguments) {
    static const char *const bodies[] = {
        "return string.find()", "return string.find('x')", "return string.find({}, 'x')", "return string.find('x', 'x', 'y')",
        "return string.find(123, 2)", "return string.match(1.5, '%.')", "return string.find('x', 'x', 1.5)", "return string.find('a', 'a', '1')",
        "return string.gsub('x', 'x')", "return string.gsub('x', 'x', nil)", "return string.gsub('x', 'x', true)", "return string.gsub('x', 'x', 5)",
        "return string.gsub('x', 'x', 'y', 'z')", "return string.gsub('x', 'x', nil, 'z')", "return string.gsub('x', 'x', 'y', 2^53)",
        "return string.gmatch('x')", "return string.gmatch('x', 'x', {})", "return ('x'):find()", "return ('x'):gsub({}, '')", "return ('x'):match('(')",
        "return ('x'):gsub('x', function() error('mine') end)", "return ('x'):gsub('x', function() return {} end)",
        "return ('x'):find('x', math.mininteger)", "return ('x'):find('', math.maxinteger)", "return ('x'):find('^x', 1, true)",
        "local f = ('abc'):gmatch('.') return f(), f(), f(), f(), f()", "local f = ('abc'):gmatch('()', 3) return f(), f(), f()",
        "local f = ('abc'):gmatch('^a') return f()", "local f = ('x'):gmatch('(') return f()", "return ('x'):gmatch('.', 9)()",
        "return ('abc'):gsub('%w', setmetatable({}, { __index = function(_, k) return k .. k end }))",
        "return ('abc'):gsub('b', function(b) return (('xbx'):gsub(b, '<%0>')) end)", "return ('abc'):gsub('', '%1')",
        "return #('x'):rep(5000):gsub('x', 'yy')",
    };
    luamatch_open();
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        lua_State *states[] = {luamatch_stock, luamatch_own->L};
        for (size_t j = 0; j < ARRAY_LEN(states); j++) {
            ck_assert_int_eq(luaL_loadbuffer(states[j], bodies[i], strlen(bodies[i]), "=body"), LUA_OK);
            lua_pcall(states[j], 0, LUA_MULTRET, 0);
        }
        ck_assert_msg(lua_gettop(states[0]) == lua_gettop(states[1]), "%s", bodies[i]);
        for (int at = 2; at <= lua_gettop(states[0]); at++) {
            const char *stock = luaL_tolstring(states[0], at, NULL), *own = luaL_tolstring(states[1], at, NULL);
            ck_assert_msg(strcmp(stock, own) == 0, "%s: \"%s\", not \"%s\"", bodies[i], own, stock);
            lua_pop(states[0], 1);
            lua_pop(states[1], 1);
        }
        lua_settop(states[0], 1);
        lua_settop(states[1], 1);
    }
    luamatch_close();
}
END_TEST

/* A load that is over its time ends inside a pattern too, and pcall does not hold it. */
START_TEST(test_load_clock) {
    static const char body[] = "while true do pcall(string.find, (' '):rep(32000), '.-%s.-x') end";
    struct script_declare declare = {.deadline_ms = clock_ms() + 200};
    luamatch_open();
    luamatch_own->loading = true;
    luamatch_own->declare = &declare;
    uint64_t start = clock_ms();
    ck_assert_int_eq(luaL_loadbuffer(luamatch_own->L, body, sizeof body - 1, "=body"), LUA_OK);
    ck_assert_int_eq(lua_pcall(luamatch_own->L, 0, 0, 0), LUA_ERRRUN);
    ck_assert_ptr_nonnull(strstr(lua_tostring(luamatch_own->L, -1), "loading takes longer than"));
    ck_assert_uint_lt(clock_ms() - start, 3000);
    lua_sethook(luamatch_own->L, NULL, 0, 0);
    luamatch_own->loading = false;
    luamatch_own->declare = NULL;
    luamatch_close();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("luamatch");
    TCase *tests = tcase_create("luamatch");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_table);
    tcase_add_loop_test(tests, test_random, 0, 2);
    tcase_add_test(tests, test_depth);
    tcase_add_test(tests, test_arguments);
    tcase_add_test(tests, test_load_clock);
    suite_add_tcase(suite, tests);
    return load_run_tests(suite);
}
