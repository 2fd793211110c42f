/* SPDX-License-Identifier: MIT */
/*
 * luastring: string.find, match, gmatch and gsub as in Lua 5.4, over a matcher that the CPU budget can end (luamatch.c). The plain search is
 * memmem() in the end, which stays linear where comparing at each place would not.
 *
 * The subtle thing: an empty match directly behind the last match does not count, in gmatch and gsub alike; so both keep where it ended.
 */
#include "script/luamatch.h"

#define LUASTRING_TRIES 8 /* places of the first character to compare at, before memmem() */

/* The argument `init`, as an offset; may be beyond the end. */
static size_t luastring_init(lua_State *L, int argument, size_t n) {
    lua_Integer at = luaL_optinteger(L, argument, 1);
    if (at > 0)
        return (size_t)at - 1;
    if (at == 0 || at < -(lua_Integer)n)
        return 0;
    return (size_t)((lua_Integer)n + at);
}

/* Pushes capture i of a match from start to end; the whole match stands for the first where there is none. */
static void luastring_push_capture(struct luamatch *match, unsigned i, const char *start, const char *end) {
    lua_State *L = match->L;
    if (i >= match->count) {
        if (i != 0)
            luaL_error(L, "invalid capture index %%%d", (int)i + 1);
        lua_pushlstring(L, start, (size_t)(end - start));
        return;
    }
    const struct luamatch_capture *capture = &match->captures[i];
    if (capture->n == LUAMATCH_OPEN)
        luaL_error(L, "unfinished capture");
    if (capture->n == LUAMATCH_POSITION)
        lua_pushinteger(L, capture->start - match->text + 1);
    else
        lua_pushlstring(L, capture->start, (size_t)capture->n);
}

/* Pushes all captures, or the whole match when there are none; how many values. */
static int luastring_push_captures(struct luamatch *match, const char *start, const char *end) {
    unsigned count = match->count ? match->count : 1;
    luaL_checkstack(match->L, (int)count, "too many captures");
    for (unsigned i = 0; i < count; i++)
        luastring_push_capture(match, i, start, end);
    return (int)count;
}

static bool luastring_plain(const char *pattern, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memchr("^$*+?.([%-", pattern[i], 10))
            return false;
    return true;
}

/* The first place of needle, or NULL. memmem() takes a while to begin; most searches are over before it has paid. */
static const char *luastring_find_plain(const char *text, size_t n, const char *needle, size_t needle_n) {
    const char *end = text + n;
    for (int tries = 0; needle_n > 0 && tries < LUASTRING_TRIES; tries++, text++) {
        if ((size_t)(end - text) < needle_n)
            return NULL;
        text = memchr(text, needle[0], (size_t)(end - text) - needle_n + 1);
        if (!text || memcmp(text, needle, needle_n) == 0)
            return text;
    }
    return memmem(text, (size_t)(end - text), needle, needle_n);
}

/* Pushes where the match begins and ends. */
static int luastring_push_place(lua_State *L, const char *text, const char *start, const char *end) {
    lua_pushinteger(L, start - text + 1);
    lua_pushinteger(L, end - text);
    return 2;
}

static int luastring_search(lua_State *L, bool find) {
    size_t n, pattern_n;
    const char *text = luaL_checklstring(L, 1, &n), *pattern = luaL_checklstring(L, 2, &pattern_n);
    size_t from = luastring_init(L, 3, n);
    const char *start = NULL, *end;
    struct luamatch match;
    if (from > n) {
        luaL_pushfail(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || luastring_plain(pattern, pattern_n))) {
        start = luastring_find_plain(text + from, n - from, pattern, pattern_n);
        if (start)
            return luastring_push_place(L, text, start, start + pattern_n);
    } else if (*pattern == '^') {
        luamatch_init(&match, L, text, n, pattern + 1, pattern_n - 1);
        end = luamatch_at(&match, text + from);
        start = end ? text + from : NULL;
    } else {
        luamatch_init(&match, L, text, n, pattern, pattern_n);
        start = luamatch_search(&match, text + from, &end);
    }
    if (!start) {
        luaL_pushfail(L);
        return 1;
    }
    if (!find)
        return luastring_push_captures(&match, start, end);
    luastring_push_place(L, text, start, end);
    return 2 + (match.count ? luastring_push_captures(&match, start, end) : 0);
}

static int luastring_find(lua_State *L) { return luastring_search(L, true); }

static int luastring_match(lua_State *L) { return luastring_search(L, false); }

/* The iterator. Upvalues: text, pattern, where to go on, where the last match ended (-1: there was none). */
static int luastring_gmatch_next(lua_State *L) {
    size_t n, pattern_n;
    const char *text = lua_tolstring(L, lua_upvalueindex(1), &n), *pattern = lua_tolstring(L, lua_upvalueindex(2), &pattern_n);
    size_t from = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    if (from > n)
        return 0;
    struct luamatch match;
    luamatch_init(&match, L, text, n, pattern, pattern_n);
    const char *end, *start = luamatch_search(&match, text + from, &end);
    if (start && end - text == last) /* empty, or it could not end there */
        start = start < match.text_end ? luamatch_search(&match, start + 1, &end) : NULL;
    if (!start)
        return 0;
    lua_pushinteger(L, end - text);
    lua_copy(L, -1, lua_upvalueindex(3));
    lua_replace(L, lua_upvalueindex(4));
    return luastring_push_captures(&match, start, end);
}

static int luastring_gmatch(lua_State *L) {
    size_t n;
    luaL_checklstring(L, 1, &n);
    luaL_checkstring(L, 2);
    size_t from = luastring_init(L, 3, n);
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)(from > n ? n + 1 : from));
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, luastring_gmatch_next, 4);
    return 1;
}

/* --- gsub --- */

struct luastring_gsub {
    struct luamatch match;
    luaL_Buffer out;
    int type;                /* of the replacement, argument 3 */
    const char *replacement; /* if it is a text */
    size_t replacement_n;
};

/* Adds the replacement text, with %0 to %9 filled in. */
static void luastring_add_text(struct luastring_gsub *gsub, const char *start, const char *end) {
    const char *p = gsub->replacement, *stop = p + gsub->replacement_n;
    for (const char *mark; (mark = memchr(p, '%', (size_t)(stop - p))) != NULL; p = mark + 2) {
        luaL_addlstring(&gsub->out, p, (size_t)(mark - p));
        luamatch_count(&gsub->match, 1);
        if (mark[1] == '%')
            luaL_addchar(&gsub->out, '%');
        else if (mark[1] == '0')
            luaL_addlstring(&gsub->out, start, (size_t)(end - start));
        else if (mark[1] >= '1' && mark[1] <= '9') {
            luastring_push_capture(&gsub->match, (unsigned)(mark[1] - '1'), start, end);
            luaL_addvalue(&gsub->out);
        } else
            luaL_error(gsub->match.L, "invalid use of '%%' in replacement string");
    }
    luaL_addlstring(&gsub->out, p, (size_t)(stop - p));
}

/* Adds what a match is replaced by. False: it stays as it was. */
static bool luastring_add(struct luastring_gsub *gsub, const char *start, const char *end) {
    lua_State *L = gsub->match.L;
    if (gsub->type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, luastring_push_captures(&gsub->match, start, end), 1);
    } else if (gsub->type == LUA_TTABLE) {
        luastring_push_capture(&gsub->match, 0, start, end);
        lua_gettable(L, 3);
    } else {
        luastring_add_text(gsub, start, end);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(&gsub->out, start, (size_t)(end - start));
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(&gsub->out);
    return true;
}

/* Replaces up to max matches; how many it met. *changed: the text is another now, without its rest from *rest on. */
static lua_Integer luastring_replace(struct luastring_gsub *gsub, lua_Integer max, bool anchored, const char **rest, bool *changed) {
    const char *at = gsub->match.text, *last = NULL;
    lua_Integer count = 0;
    while (count < max) {
        const char *end = luamatch_at(&gsub->match, at);
        if (end && end != last) {
            count++;
            if (luastring_add(gsub, at, end))
                *changed = true;
            at = last = end;
        } else if (at < gsub->match.text_end)
            luaL_addchar(&gsub->out, *at++);
        else
            break;
        if (anchored)
            break;
    }
    *rest = at;
    return count;
}

static int luastring_gsub(lua_State *L) {
    struct luastring_gsub gsub;
    size_t n, pattern_n;
    const char *text = luaL_checklstring(L, 1, &n), *pattern = luaL_checklstring(L, 2, &pattern_n);
    lua_Integer max = luaL_optinteger(L, 4, (lua_Integer)n + 1);
    bool anchored = *pattern == '^', changed = false;
    gsub.type = lua_type(L, 3);
    luaL_argexpected(L, gsub.type == LUA_TSTRING || gsub.type == LUA_TNUMBER || gsub.type == LUA_TFUNCTION || gsub.type == LUA_TTABLE, 3,
                     "string/function/table");
    if (gsub.type == LUA_TSTRING || gsub.type == LUA_TNUMBER)
        gsub.replacement = lua_tolstring(L, 3, &gsub.replacement_n);
    luaL_buffinit(L, &gsub.out);
    luamatch_init(&gsub.match, L, text, n, pattern + anchored, pattern_n - anchored);
    const char *rest;
    lua_Integer count = luastring_replace(&gsub, max, anchored, &rest, &changed);
    if (changed) {
        luaL_addlstring(&gsub.out, rest, (size_t)(gsub.match.text_end - rest));
        luaL_pushresult(&gsub.out);
    } else
        lua_pushvalue(L, 1);
    lua_pushinteger(L, count);
    return 2;
}

void script_open_strings(lua_State *L) {
    static const luaL_Reg functions[] = {{"find", luastring_find}, {"match", luastring_match}, {"gmatch", luastring_gmatch},
                                         {"gsub", luastring_gsub}, {NULL, NULL}};
    lua_getglobal(L, LUA_STRLIBNAME);
    luaL_setfuncs(L, functions, 0);
    lua_pop(L, 1);
}
