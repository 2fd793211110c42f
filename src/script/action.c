/* SPDX-License-Identifier: MIT */
/*
 * The constructors forward reply redirect drop. Each makes a userdata that holds small numbers and its texts as user
 * values, checked at once, so that a mistake names the line that made it. The same values serve as steps of a route
 * while loading and as what a function returns: script_read_action() (action_read.c) copies either into an arena,
 * which is the only shape that traffic knows. Mistakes go through script_mistake(): reported and survived while
 * loading, raised afterwards.
 */
#include "script/action.h"

#include <math.h>

#include "base/str.h"
#include "traffic/pattern.h"
#include "wire/http.h"
#include "wire/uri.h"

#define ACTION_LEAST_STATUS 200
#define ACTION_PATH_ROOM (1 << 20) /* bytes to judge a path in */

static const char action_type;
static const char action_cache_key; /* plain forwards by pool name, in the registry */

/* Pushes a message for script_mistake(); always false. */
static bool action_fail(lua_State *L, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    lua_pushvfstring(L, format, arguments);
    va_end(arguments);
    return false;
}

struct action_value *script_test_action(lua_State *L, int index) {
    return script_object_test(L, index, &action_type);
}

bool script_is_action(lua_State *L, int index) {
    return script_test_action(L, index) != NULL;
}

static struct action_value *action_new(lua_State *L, enum action_kind kind, int values) {
    struct action_value *action = lua_newuserdatauv(L, sizeof *action, values);
    *action = (struct action_value){.kind = kind};
    script_object_bless(L, &action_type);
    script_of(L)->built++;
    return action;
}

static bool action_unknown_key(lua_State *L, const char *what, const char *const *keys) {
    if (lua_type(L, -2) != LUA_TSTRING)
        return action_fail(L, "%s: a value without a key", what);
    const char *key = lua_tostring(L, -2);
    const char *near = str_nearest(key, keys);
    if (near)
        return action_fail(L, "%s: unknown key '%s' (did you mean '%s'?)", what, key, near);
    return action_fail(L, "%s: unknown key '%s'", what, key);
}

static int action_key(lua_State *L, const char *const *keys) {
    if (lua_type(L, -2) != LUA_TSTRING)
        return -1;
    const char *key = lua_tostring(L, -2);
    for (int i = 0; keys[i]; i++)
        if (strcmp(keys[i], key) == 0)
            return i;
    return -1;
}

/* Printable ASCII without space and without the bytes in banned. */
static bool action_plain_text(const char *text, size_t n, const char *banned) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f || strchr(banned, text[i]))
            return false;
    return n > 0;
}

/* The value on top must be a string of plain text; keeps it as user value slot of the action at index action. */
static bool action_take_text(lua_State *L, int action, int slot, const char *what, const char *key,
                             const char *banned) {
    if (lua_type(L, -1) != LUA_TSTRING)
        return action_fail(L, "%s: %s must be a string, not %s", what, key, luaL_typename(L, -1));
    size_t n;
    const char *text = lua_tolstring(L, -1, &n);
    if (!action_plain_text(text, n, banned))
        return action_fail(L, "%s: %s is empty or holds a character that cannot stand there", what, key);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, action, slot);
    return true;
}

/* Why text can be no path to forward, or NULL: it may be made of what a client sent, decoded, and is judged as a client's own. */
static const char *action_path_fault(lua_State *L, struct span text) {
    const struct script *script = script_of(L);
    const struct config_listener *listener = script->subject ? script->subject->listener : NULL;
    const bool keep_slash = script->loading || (listener && listener->encoded_slash_keep);
    const char *reason = NULL;
    struct arena scratch;
    arena_init(&scratch, NULL, ACTION_PATH_ROOM);
    const struct span path = pattern_escape(&scratch, text);
    if (!path.p || !uri_normalise_path(&scratch, path, keep_slash, &reason).p)
        reason = reason ? reason : "path too long";
    else if (uri_has_dot_segment(path))
        reason = "dot segment in the path";
    arena_fini(&scratch);
    return reason;
}

static bool action_take_host(lua_State *L, int action, int slot, const char *what) {
    if (!action_take_text(L, action, slot, what, "host", "/?#@"))
        return false;
    struct span text, host;
    uint16_t port;
    text.p = lua_tolstring(L, -1, &text.n);
    return uri_split_host(text, &host, &port) || action_fail(L, "%s: '%s' is not a host name", what, text.p);
}

static bool action_take_path(lua_State *L, int action, int slot, const char *what) {
    if (lua_type(L, -1) == LUA_TSTRING && *lua_tostring(L, -1) != '/')
        return action_fail(L, "%s: path must begin with '/'", what);
    if (!action_take_text(L, action, slot, what, "path", "?#"))
        return false;
    const char *star = strchr(lua_tostring(L, -1), '*');
    if (star && star[1])
        return action_fail(L, "%s: '*' may stand at the end of path only", what);
    return true;
}

/* An argument too many stands for something its writer wanted: wanted says how to get it. */
static bool action_check_count(lua_State *L, int most, const char *wanted) {
    return lua_isnoneornil(L, most + 1) || action_fail(L, "%s", wanted);
}

/* forward */

static bool action_take_forward_path(lua_State *L, int self) {
    if (!action_take_path(L, self, ACTION_FORWARD_PATH, "forward"))
        return false;
    struct span text;
    text.p = lua_tolstring(L, -1, &text.n);
    const char *fault = action_path_fault(L, text);
    return !fault || action_fail(L, "forward: %s", fault);
}

static bool action_take_timeout(lua_State *L, struct action_value *action) {
    uint64_t ms = 0;
    if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1)) {
        ms = UINT32_MAX;
    } else if (lua_type(L, -1) == LUA_TNUMBER) {
        double seconds = lua_tonumber(L, -1);
        if (!(seconds >= 0.001) || seconds > 4000000)
            return action_fail(L, "forward: response_timeout must be above 0 and below 4000000 seconds");
        ms = (uint64_t)llround(seconds * 1000);
        script_warn_seconds(L, "forward: response_timeout", seconds);
    } else if (lua_type(L, -1) != LUA_TSTRING ||
               !str_parse_duration(span_of(lua_tostring(L, -1)), &ms) || ms == 0 || ms > UINT32_MAX) {
        return action_fail(L, "forward: response_timeout must be a duration like \"10s\" or false");
    }
    action->response_timeout_ms = (uint32_t)ms;
    return true;
}

/* Any bytes: they are only hashed. */
static bool action_take_key(lua_State *L, int self) {
    int type = lua_type(L, -1);
    if ((type != LUA_TSTRING && type != LUA_TNUMBER) || (type == LUA_TSTRING && lua_rawlen(L, -1) == 0))
        return action_fail(L, "forward: key must be a string with something in it, or a number, not %s",
                           type == LUA_TSTRING ? "an empty string" : luaL_typename(L, -1));
    lua_pushvalue(L, -1);
    (void)lua_tostring(L, -1);
    lua_setiuservalue(L, self, ACTION_FORWARD_KEY);
    return true;
}

static bool action_read_forward(lua_State *L, struct action_value *action, int self) {
    static const char *const keys[] = {"server", "path", "host", "response_timeout", "key", NULL};
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        bool ok = true;
        switch (action_key(L, keys)) {
        case 0: ok = action_take_text(L, self, ACTION_FORWARD_SERVER, "forward", "server", ""); break;
        case 1: ok = action_take_forward_path(L, self); break;
        case 2: ok = action_take_host(L, self, ACTION_FORWARD_HOST, "forward"); break;
        case 3: ok = action_take_timeout(L, action); break;
        case 4: ok = action_take_key(L, self); break;
        default: return action_unknown_key(L, "forward", keys);
        }
        if (!ok)
            return false;
    }
    return true;
}

/*
 * forward "name" without options, after the load: the value made last time, since actions never change. Only known
 * pools are kept, or made-up names would fill the table.
 */
static bool action_push_cached(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &action_cache_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        return false;
    }
    lua_pushvalue(L, 1);
    if (lua_rawget(L, -2) == LUA_TUSERDATA) {
        script_of(L)->built++;
        return true;
    }
    lua_pop(L, 2);
    return false;
}

/* Keeps the action on top under the name at index 1. */
static void action_cache(lua_State *L) {
    const struct script *script = script_of(L);
    if (script->loading || !script->config || !config_find_pool(script->config, lua_tostring(L, 1)))
        return;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &action_cache_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &action_cache_key);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static bool action_check_pool(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TSTRING)
        return action_fail(L, "forward: the pool's name must be a string, not %s", luaL_typename(L, index));
    if (strlen(lua_tostring(L, index)) != lua_rawlen(L, index))
        return action_fail(L, "forward: the pool's name holds a NUL");
    return true;
}

/* Puts a copy of the list of pools in its place, so that later edits of the caller's table change nothing. */
static bool action_take_pools(lua_State *L) {
    lua_Integer count = (lua_Integer)lua_rawlen(L, 1), keys = 0;
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1))
        keys++;
    if (keys != count || count == 0 || count > ACTION_POOLS_MAX)
        return action_fail(L, "forward: the pools must be a list of 1 to %d names", ACTION_POOLS_MAX);
    lua_createtable(L, (int)count, 0);
    int copy = lua_gettop(L);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        if (!action_check_pool(L, copy + 1))
            return false;
        for (lua_Integer j = 1; j < i; j++) {
            lua_rawgeti(L, copy, j);
            if (lua_rawequal(L, copy + 1, copy + 2))
                return action_fail(L, "forward: pool \"%s\" is in the list twice", lua_tostring(L, copy + 1));
            lua_pop(L, 1);
        }
        lua_rawseti(L, copy, i);
    }
    lua_replace(L, 1);
    return true;
}

static int action_forward(lua_State *L) {
    if (!action_check_count(L, 2, "forward: a third argument; all options go into one table: forward(pool, { path = ..., host = ... })"))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    bool plain = lua_isnoneornil(L, 2);
    if (plain && lua_type(L, 1) == LUA_TSTRING && action_push_cached(L))
        return 1;
    if (script_is_mistake(L, 1))
        return lua_settop(L, 1), 1;
    if (lua_type(L, 1) == LUA_TTABLE ? !action_take_pools(L) : !action_check_pool(L, 1))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    if (!plain && lua_type(L, 2) != LUA_TTABLE)
        return script_mistake(L, "forward: the second argument must be a table, not %s", luaL_typename(L, 2));
    lua_settop(L, 2);
    struct action_value *action = action_new(L, ACTION_FORWARD, plain ? 1 : ACTION_FORWARD_VALUES);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, 3, ACTION_FORWARD_POOL);
    action->plain = plain;
    if (!plain && !action_read_forward(L, action, 3))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    lua_settop(L, 3);
    if (plain && lua_type(L, 1) == LUA_TSTRING)
        action_cache(L);
    return 1;
}

/* reply */

/* Appends name (at index) and the value on top to the flat list on index list. */
static bool action_add_header(lua_State *L, int name, int list) {
    size_t n;
    int type = lua_type(L, -1);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        return action_fail(L, "reply: header %s must be a string, a number or a list, not %s", lua_tostring(L, name),
                           luaL_typename(L, -1));
    lua_pushvalue(L, -1);
    const char *text = lua_tolstring(L, -1, &n);
    if (!http_valid_value(str_trim(span_make(text, n))))
        return action_fail(L, "reply: the value of header %s holds CR, LF, NUL or another control character",
                           lua_tostring(L, name));
    lua_Unsigned count = lua_rawlen(L, list);
    if (count >= 2 * (lua_Unsigned)ACTION_HEADERS_MAX)
        return action_fail(L, "reply: more than %d headers", ACTION_HEADERS_MAX);
    lua_pushvalue(L, name);
    lua_rawseti(L, list, (lua_Integer)count + 1);
    lua_rawseti(L, list, (lua_Integer)count + 2);
    return true;
}

static bool action_header_name(lua_State *L, int index) {
    static const uint8_t flags[HTTP_FIELD_COUNT] = {
#define ACTION_FIELD_FLAGS(id, text, value) [HTTP_FIELD_##id] = (value),
        HTTP_FIELDS(ACTION_FIELD_FLAGS)
#undef ACTION_FIELD_FLAGS
    };
    if (lua_type(L, index) != LUA_TSTRING)
        return action_fail(L, "reply: headers must be a table of name = value");
    struct span name;
    name.p = lua_tolstring(L, index, &name.n);
    if (!http_valid_name(name))
        return action_fail(L, "reply: '%s' is not a valid header name", name.p);
    enum http_field_id id = http_field_id(name);
    if ((flags[id] & (HTTP_FRAMING | HTTP_HOP)) && id != HTTP_FIELD_UPGRADE)
        return action_fail(L, "reply: header %s cannot be set: it belongs to the connection or to the framing", name.p);
    return true;
}

/* Turns the table at index 3 into a flat list {name, value, ...}, kept by the action at index 4. */
static bool action_read_headers(lua_State *L) {
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, 3); lua_settop(L, 6)) {
        if (!action_header_name(L, 6))
            return false;
        if (lua_type(L, 7) != LUA_TTABLE) {
            if (!action_add_header(L, 6, 5))
                return false;
            continue;
        }
        lua_Integer count = (lua_Integer)lua_rawlen(L, 7);
        for (lua_Integer i = 1; i <= count; i++) {
            lua_rawgeti(L, 7, i);
            if (!action_add_header(L, 6, 5))
                return false;
            lua_settop(L, 7);
        }
    }
    lua_setiuservalue(L, 4, ACTION_REPLY_HEADERS);
    return true;
}

static bool action_check_reply(lua_State *L) {
    int is_integer;
    lua_Integer status = lua_tointegerx(L, 1, &is_integer);
    if (lua_type(L, 1) != LUA_TNUMBER || !is_integer || status < 200 || status > 599)
        return action_fail(L, "reply: the status must be an integer from 200 to 599");
    int body = lua_type(L, 2);
    if (body != LUA_TNIL && body != LUA_TSTRING && body != LUA_TNUMBER)
        return action_fail(L, "reply: the body must be a string, not %s", luaL_typename(L, 2));
    size_t n = 0;
    if (body != LUA_TNIL)
        (void)lua_tolstring(L, 2, &n);
    if (n > ACTION_BODY_MAX)
        return action_fail(L, "reply: the body is longer than 1 MiB");
    if (n > 0 && (status == 204 || status == 304))
        return action_fail(L, "reply: a %d has no body", (int)status);
    if (lua_type(L, 3) != LUA_TNIL && lua_type(L, 3) != LUA_TTABLE)
        return action_fail(L, "reply: headers must be a table, not %s", luaL_typename(L, 3));
    return true;
}

static int action_reply(lua_State *L) {
    if (!action_check_count(L, 3, "reply: a fourth argument; it takes reply(status, body, headers)"))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    lua_settop(L, 3);
    if (!action_check_reply(L))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    struct action_value *action = action_new(L, ACTION_REPLY, ACTION_REPLY_VALUES);
    action->status = (uint16_t)lua_tointeger(L, 1);
    if (!lua_isnil(L, 2)) {
        lua_pushvalue(L, 2);
        lua_setiuservalue(L, 4, ACTION_REPLY_BODY);
    }
    if (!lua_isnil(L, 3) && !action_read_headers(L))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    lua_settop(L, 4);
    return 1;
}

/* redirect */

static bool action_take_number(lua_State *L, const char *key, lua_Integer low, lua_Integer high, uint16_t *out) {
    int is_integer;
    lua_Integer value = lua_tointegerx(L, -1, &is_integer);
    if (lua_type(L, -1) != LUA_TNUMBER || !is_integer || value < low || value > high)
        return action_fail(L, "redirect: %s must be an integer from %d to %d", key, (int)low, (int)high);
    *out = (uint16_t)value;
    return true;
}

static bool action_take_status(lua_State *L, struct action_value *action) {
    if (!action_take_number(L, "status", 301, 308, &action->status))
        return false;
    unsigned status = action->status;
    if (status > 303 && status < 307)
        return action_fail(L, "redirect: status must be 301, 302, 303, 307 or 308");
    return true;
}

static bool action_take_scheme(lua_State *L, int self) {
    if (!action_take_text(L, self, ACTION_REDIRECT_SCHEME, "redirect", "scheme", ""))
        return false;
    const char *scheme = lua_tostring(L, -1);
    if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        return action_fail(L, "redirect: scheme must be \"http\" or \"https\"");
    return true;
}

static bool action_take_query(lua_State *L, int self) {
    bool none = lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1);
    if (none || (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) == 0)) {
        lua_pushliteral(L, "");
        lua_setiuservalue(L, self, ACTION_REDIRECT_QUERY);
        return true;
    }
    return action_take_text(L, self, ACTION_REDIRECT_QUERY, "redirect", "query", "#");
}

static bool action_read_redirect(lua_State *L, struct action_value *action, int self) {
    static const char *const keys[] = {"scheme", "host", "port", "path", "query", "status", NULL};
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        bool ok = true;
        switch (action_key(L, keys)) {
        case 0: ok = action_take_scheme(L, self); break;
        case 1: ok = action_take_host(L, self, ACTION_REDIRECT_HOST, "redirect"); break;
        case 2: ok = action_take_number(L, "port", 1, 65535, &action->port); break;
        case 3: ok = action_take_path(L, self, ACTION_REDIRECT_PATH, "redirect"); break;
        case 4: ok = action_take_query(L, self); break;
        case 5: ok = action_take_status(L, action); break;
        default: return action_unknown_key(L, "redirect", keys);
        }
        if (!ok)
            return false;
    }
    return true;
}

static int action_redirect(lua_State *L) {
    if (lua_type(L, 1) != LUA_TSTRING && lua_type(L, 1) != LUA_TTABLE)
        return script_mistake(L, "redirect: a URL or a table is needed, not %s", luaL_typename(L, 1));
    static const char wanted[] = "redirect: a second argument; another status than 302 goes into a table: "
                                 "redirect { host = ..., path = ..., status = 301 }";
    /* redirect(url:gsub(...)) brings the count of replacements along. */
    bool is_count = lua_type(L, 2) == LUA_TNUMBER && lua_tonumber(L, 2) < ACTION_LEAST_STATUS;
    if (!is_count && !action_check_count(L, 1, wanted))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    lua_settop(L, 1);
    bool ok = true;
    if (lua_type(L, 1) == LUA_TTABLE) {
        lua_pushnil(L);
        if (lua_next(L, 1) == 0)
            return script_mistake(L, "redirect: an empty table redirects to where the request came from");
        lua_settop(L, 1);
    }
    struct action_value *action = action_new(L, ACTION_REDIRECT, ACTION_REDIRECT_VALUES);
    action->status = 302;
    if (lua_type(L, 1) == LUA_TTABLE) {
        ok = action_read_redirect(L, action, 2);
    } else {
        lua_pushvalue(L, 1);
        ok = action_take_text(L, 2, ACTION_REDIRECT_URL, "redirect", "the URL", "");
    }
    if (!ok)
        return script_mistake(L, "%s", lua_tostring(L, -1));
    lua_settop(L, 2);
    return 1;
}

static int action_drop(lua_State *L) {
    if (!action_check_count(L, 0, "drop: it takes nothing and sends nothing; for a status: reply(403)"))
        return script_mistake(L, "%s", lua_tostring(L, -1));
    (void)action_new(L, ACTION_DROP, 0);
    return 1;
}

void script_open_actions(lua_State *L) {
    script_object_type(L, &action_type, "action");
    lua_pop(L, 1);
    lua_register(L, "forward", action_forward);
    lua_register(L, "reply", action_reply);
    lua_register(L, "redirect", action_redirect);
    lua_register(L, "drop", action_drop);
}
