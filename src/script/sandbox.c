/* SPDX-License-Identifier: MIT */
/*
 * sandbox: the safe part of Lua (rules.md part 2, rule 8), and the freeze after the load. What could reach files, bytecode, other
 * coroutines, finalizers or the collector is taken out. While loading, order, time and chance are fixed, since every worker runs the file
 * anew and must come to the same result. A table is frozen in place: its contents move to a hidden table behind __index, so that the
 * references that scripts hold are frozen too; `pairs` and `next` here know the hidden one.
 */
#include <stdlib.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/mem.h"
#include "script/load_private.h"

#define SANDBOX_ELEMENTS_MAX (1 << 22) /* of a table, in one call into C */

static const char sandbox_hidden_key; /* in a frozen table's metatable: where the contents went */
static const char sandbox_seed_key;   /* in the registry: Lua's math.randomseed */

static bool sandbox_loading(lua_State *L) {
    const struct script *script = script_of(L);
    return script && script->loading;
}

struct sandbox_key {
    int rank; /* numbers, strings, booleans, the rest */
    lua_Number number;
    const char *text;
    size_t n;
    lua_Integer slot;
};

static int sandbox_compare(const void *a, const void *b) {
    const struct sandbox_key *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->rank == 0 && (x->number < y->number || x->number > y->number))
        return x->number < y->number ? -1 : 1;
    if (x->rank == 1) {
        int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
        if (order != 0)
            return order;
        if (x->n != y->n)
            return x->n < y->n ? -1 : 1;
    }
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static struct sandbox_key sandbox_key_of(lua_State *L, int index, lua_Integer slot) {
    struct sandbox_key key = {.rank = 3, .slot = slot};
    if (lua_type(L, index) == LUA_TNUMBER) {
        key.rank = 0;
        key.number = lua_tonumber(L, index);
    } else if (lua_type(L, index) == LUA_TSTRING) {
        key.rank = 1;
        key.text = lua_tolstring(L, index, &key.n);
    } else if (lua_type(L, index) == LUA_TBOOLEAN) {
        key.rank = 2;
        key.number = lua_toboolean(L, index);
    }
    return key;
}

void script_push_sorted_keys(lua_State *L, int index) {
    luaL_checkstack(L, 6, "too many values");
    index = lua_absindex(L, index);
    lua_newtable(L); /* keys as they come, which also keeps their texts alive */
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, index);) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, ++count);
    }
    struct sandbox_key *keys = lua_newuserdatauv(L, (size_t)count * sizeof(*keys) + 1, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(L, -2, i + 1);
        keys[i] = sandbox_key_of(L, -1, i + 1);
        lua_pop(L, 1);
    }
    if (count > 1)
        qsort(keys, (size_t)count, sizeof(*keys), sandbox_compare);
    lua_createtable(L, (int)(count < 1 << 20 ? count : 1 << 20), 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_rawgeti(L, -3, keys[i].slot);
        lua_rawseti(L, -2, i + 1);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* Replaces a frozen table at index by what it hides. */
static void sandbox_unwrap(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TTABLE || !lua_getmetatable(L, index))
        return;
    if (lua_rawgetp(L, -1, &sandbox_hidden_key) == LUA_TTABLE)
        lua_replace(L, index);
    else
        lua_pop(L, 1);
    lua_pop(L, 1);
}

/* next() in sorted order: the first key above the given one. */
static int sandbox_next_sorted(lua_State *L) {
    script_push_sorted_keys(L, 1);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 3), at = 1;
    if (!lua_isnil(L, 2)) {
        for (; at <= count; at++) {
            lua_rawgeti(L, 3, at);
            bool same = lua_rawequal(L, -1, 2);
            lua_pop(L, 1);
            if (same)
                break;
        }
        if (at > count)
            return luaL_error(L, "next: the key was removed from the table while loading");
        at++;
    }
    if (at > count) {
        lua_pushnil(L);
        return 1;
    }
    lua_rawgeti(L, 3, at);
    lua_pushvalue(L, -1);
    lua_rawget(L, 1);
    return 2;
}

static int sandbox_next(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    sandbox_unwrap(L, 1);
    if (sandbox_loading(L))
        return sandbox_next_sorted(L);
    if (lua_next(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

/* Iterator of a sorted traversal: upvalues are the table, its keys, the place. Keys removed meanwhile are passed over. */
static int sandbox_pairs_step(lua_State *L) {
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(3));
    for (;;) {
        if (lua_rawgeti(L, lua_upvalueindex(2), ++at) == LUA_TNIL)
            return 1;
        lua_pushvalue(L, -1);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
            break;
        lua_pop(L, 2);
    }
    lua_pushinteger(L, at);
    lua_replace(L, lua_upvalueindex(3));
    return 2;
}

static int sandbox_pairs(lua_State *L) {
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    if (script_is_mistake(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    sandbox_unwrap(L, 1);
    if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
        lua_pushvalue(L, 1);
        lua_call(L, 1, 3);
        return 3;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    if (!sandbox_loading(L)) {
        lua_pushcfunction(L, sandbox_next);
        lua_pushvalue(L, 1);
        lua_pushnil(L);
        return 3;
    }
    lua_pushvalue(L, 1);
    script_push_sorted_keys(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, sandbox_pairs_step, 3);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int sandbox_setmetatable(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    int type = lua_type(L, 2);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected metatable");
    if (type == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "setmetatable: __gc is not allowed (a finalizer could not be interrupted); use <close>");
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

/*
 * Goes on as Lua's own function, which is the upvalue: called as C, not by lua_call(), so that it reports mistakes at the line of the script.
 * (None of the functions wrapped here has upvalues of its own.)
 */
static int sandbox_call_original(lua_State *L) {
    lua_CFunction original = lua_tocfunction(L, lua_upvalueindex(1));
    return original(L);
}

/* load(), for text only. */
static int sandbox_load(lua_State *L) {
    int top = lua_gettop(L);
    luaL_checkany(L, 1);
    lua_settop(L, top < 4 ? 3 : 4);
    lua_pushliteral(L, "t");
    lua_replace(L, 3);
    return sandbox_call_original(L);
}

static int sandbox_print(lua_State *L) {
    int count = lua_gettop(L);
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (int i = 1; i <= count; i++) {
        if (i > 1)
            luaL_addchar(&text, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&text);
    }
    luaL_pushresult(&text);
    const struct script *script = script_of(L);
    if (!script->loading || !script->config) /* the other states' loads say nothing a second time */
        log_info("%s", lua_tostring(L, -1));
    return 0;
}

static lua_Integer sandbox_fixed_time(lua_State *L) {
    const struct script *script = script_of(L);
    return script->load ? (lua_Integer)script->load->time : 0;
}

static int sandbox_time(lua_State *L) {
    if (!sandbox_loading(L) || !lua_isnoneornil(L, 1))
        return sandbox_call_original(L);
    lua_pushinteger(L, sandbox_fixed_time(L));
    return 1;
}

static int sandbox_date(lua_State *L) {
    if (sandbox_loading(L) && lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        if (lua_isnil(L, 1)) {
            lua_pushliteral(L, "%c");
            lua_replace(L, 1);
        }
        lua_pushinteger(L, sandbox_fixed_time(L));
    }
    return sandbox_call_original(L);
}

static int sandbox_clock(lua_State *L) {
    if (!sandbox_loading(L))
        return sandbox_call_original(L);
    lua_pushnumber(L, 0);
    return 1;
}

static void sandbox_wrap(lua_State *L, const char *name, lua_CFunction wrapper) {
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, wrapper, 1);
    lua_setfield(L, -2, name);
}

/*
 * --- calls into C that could go on for ever: no budget is looked at inside them, but at each call of a function from there ---
 */

/* Memory bounds every other repetition. */
static int sandbox_rep(lua_State *L) {
    size_t n, separator;
    luaL_checklstring(L, 1, &n);
    luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &separator);
    if (n + separator > 0)
        return sandbox_call_original(L);
    lua_pushliteral(L, "");
    return 1;
}

static int sandbox_move_elements(lua_State *L) {
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
    if (last >= first && (lua_Unsigned)last - (lua_Unsigned)first >= SANDBOX_ELEMENTS_MAX)
        return luaL_error(L, "move: more than %d elements", SANDBOX_ELEMENTS_MAX);
    return sandbox_call_original(L);
}

/* A table may claim any length, by __len or by a few far keys. */
static int sandbox_bound_length(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    if (luaL_len(L, 1) > SANDBOX_ELEMENTS_MAX)
        return luaL_error(L, "a table of more than %d elements", SANDBOX_ELEMENTS_MAX);
    return sandbox_call_original(L);
}

static int sandbox_less(lua_State *L) {
    lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
    return 1;
}

/* Always with a function that compares: the budget's hook fires at each call of it. */
static int sandbox_sort(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 1);
        lua_pushcfunction(L, sandbox_less);
    }
    return sandbox_bound_length(L);
}

/* Elements may be empty texts, which no memory bounds. */
static int sandbox_concat(lua_State *L) {
    luaL_checkany(L, 1);
    luaL_optstring(L, 2, "");
    lua_Integer first = luaL_optinteger(L, 3, 1), last = luaL_opt(L, luaL_checkinteger, 4, luaL_len(L, 1));
    if (last >= first && (lua_Unsigned)last - (lua_Unsigned)first >= SANDBOX_ELEMENTS_MAX)
        return luaL_error(L, "concat: more than %d elements", SANDBOX_ELEMENTS_MAX);
    return sandbox_call_original(L);
}

static void sandbox_bound_calls(lua_State *L) {
    script_open_strings(L);
    lua_getglobal(L, LUA_STRLIBNAME);
    sandbox_wrap(L, "rep", sandbox_rep);
    lua_pop(L, 1);
    lua_getglobal(L, LUA_TABLIBNAME);
    sandbox_wrap(L, "move", sandbox_move_elements);
    sandbox_wrap(L, "insert", sandbox_bound_length);
    sandbox_wrap(L, "remove", sandbox_bound_length);
    sandbox_wrap(L, "sort", sandbox_sort);
    sandbox_wrap(L, "concat", sandbox_concat);
    lua_pop(L, 1);
}

static void sandbox_remove(lua_State *L, const char *const *names) {
    for (; *names; names++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *names);
    }
}

static void sandbox_open_os(lua_State *L) {
    static const char *const kept[] = {"time", "date", "clock", "difftime", NULL};
    lua_pushcfunction(L, luaopen_os);
    lua_call(L, 0, 1);
    lua_newtable(L);
    for (const char *const *name = kept; *name; name++) {
        lua_getfield(L, -2, *name);
        lua_setfield(L, -2, *name);
    }
    sandbox_wrap(L, "time", sandbox_time);
    sandbox_wrap(L, "date", sandbox_date);
    sandbox_wrap(L, "clock", sandbox_clock);
    lua_setglobal(L, "os");
    lua_pop(L, 1);
}

static void sandbox_seed(lua_State *L, lua_Integer a, lua_Integer b) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &sandbox_seed_key);
    lua_pushinteger(L, a);
    lua_pushinteger(L, b);
    lua_call(L, 2, 0);
}

void script_open_sandbox(lua_State *L) {
    static const char *const removed[] = {"collectgarbage", "dofile", "loadfile", "rawset", "warn", NULL};
    static const char *const removed_string[] = {"dump", NULL};
    static const luaL_Reg libraries[] = {{LUA_STRLIBNAME, luaopen_string}, {LUA_TABLIBNAME, luaopen_table},
                                         {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8}, {NULL, NULL}};
    static const luaL_Reg own[] = {{"next", sandbox_next}, {"pairs", sandbox_pairs}, {"setmetatable", sandbox_setmetatable},
                                   {"print", sandbox_print}, {NULL, NULL}};
    lua_pushcfunction(L, luaopen_base);
    lua_call(L, 0, 1);
    sandbox_remove(L, removed);
    luaL_setfuncs(L, own, 0);
    sandbox_wrap(L, "load", sandbox_load);
    lua_pop(L, 1);
    for (const luaL_Reg *library = libraries; library->name; library++) {
        lua_pushcfunction(L, library->func);
        lua_call(L, 0, 1);
        lua_setglobal(L, library->name);
    }
    sandbox_bound_calls(L);
    lua_getglobal(L, LUA_STRLIBNAME);
    sandbox_remove(L, removed_string);
    lua_pop(L, 1);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, false); /* getmetatable("") gives false: nobody changes what strings can do */
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    sandbox_open_os(L);
    lua_getglobal(L, LUA_MATHLIBNAME);
    lua_getfield(L, -1, "randomseed");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &sandbox_seed_key);
    lua_pop(L, 1);
    sandbox_seed(L, 0x6d6f6f6e, 0x67617465);
}

static int sandbox_refuse(lua_State *L) {
    luaL_tolstring(L, 2, NULL);
    return luaL_error(L, "%s read-only after the load (set \"%s\")", lua_tostring(L, lua_upvalueindex(1)), lua_tostring(L, -1));
}

static int sandbox_hidden_length(lua_State *L) {
    lua_pushinteger(L, luaL_len(L, lua_upvalueindex(1)));
    return 1;
}

static void sandbox_move(lua_State *L, int from, int to) {
    for (lua_pushnil(L); lua_next(L, from);) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, to);
    }
    for (lua_pushnil(L); lua_next(L, from);) { /* clearing a field is allowed on the way */
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, from);
    }
}

/* Freezes the table on top in place (pops it); what stands in its error. */
static void sandbox_freeze_table(lua_State *L, const char *what) {
    int table = lua_gettop(L);
    luaL_checkstack(L, 12, "too many values");
    bool had = lua_getmetatable(L, table);
    if (had && lua_rawgetp(L, -1, &sandbox_hidden_key) != LUA_TNIL) {
        lua_settop(L, table - 1);
        return;
    }
    lua_settop(L, table + had);
    lua_newtable(L);
    int hidden = lua_gettop(L);
    sandbox_move(L, table, hidden);
    lua_newtable(L);
    int meta = lua_gettop(L);
    if (had) { /* what the table could do, it still can: called, compared, printed; lookups go on behind the hidden one */
        for (lua_pushnil(L); lua_next(L, table + 1);) {
            lua_pushvalue(L, -2);
            lua_insert(L, -2);
            lua_rawset(L, meta);
        }
        lua_pushvalue(L, table + 1);
        lua_setmetatable(L, hidden);
    }
    lua_pushvalue(L, hidden);
    lua_setfield(L, meta, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, sandbox_refuse, 1);
    lua_setfield(L, meta, "__newindex");
    lua_pushvalue(L, hidden);
    lua_pushcclosure(L, sandbox_hidden_length, 1);
    lua_setfield(L, meta, "__len");
    lua_pushboolean(L, false);
    lua_setfield(L, meta, "__metatable");
    lua_pushvalue(L, hidden);
    lua_rawsetp(L, meta, &sandbox_hidden_key);
    lua_pushvalue(L, meta);
    lua_setmetatable(L, table);
    lua_settop(L, table - 1);
}

static void sandbox_freeze_library(lua_State *L, const char *name) {
    if (lua_getglobal(L, name) == LUA_TTABLE)
        sandbox_freeze_table(L, "libraries are");
    else
        lua_pop(L, 1);
}

void script_freeze(lua_State *L) {
    static const char *const libraries[] = {"string", "table", "math", "utf8", "os", "ip", "log"};
    lua_Integer seed[2] = {0, 0};
    if (getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
        sandbox_seed(L, seed[0], seed[1]);
    for (size_t i = 0; i < ARRAY_LEN(libraries); i++)
        sandbox_freeze_library(L, libraries[i]);
    lua_pushliteral(L, ""); /* s:upper() needs no second look through the frozen table */
    lua_getmetatable(L, -1);
    lua_getfield(L, -1, "__index");
    sandbox_unwrap(L, lua_gettop(L));
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
    if (lua_getfield(L, LUA_REGISTRYINDEX, "moongate.modules") == LUA_TTABLE)
        for (lua_pushnil(L); lua_next(L, -2);) {
            if (lua_type(L, -1) == LUA_TTABLE)
                sandbox_freeze_table(L, "required modules are");
            else
                lua_pop(L, 1);
        }
    lua_pop(L, 1);
    lua_pushglobaltable(L);
    lua_pushnil(L);
    lua_setmetatable(L, -2);
    sandbox_freeze_table(L, "globals are");
}
