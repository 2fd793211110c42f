/* SPDX-License-Identifier: MIT */
/*
 * `req`: one userdata a request, made when a function first needs it. It holds one pointer, nulled when the request
 * is over, so that a `req` that a script kept raises instead of reading freed memory. Fields are read straight from
 * the subject: a table (an upvalue of __index) turns the interned name into a number or gives the method, nothing is
 * built that was not asked for. The subtle thing: getmetatable() is closed by __metatable, so __index is only ever
 * called with a `req`; methods can be called on anything and check.
 */
#include "script/object.h"

#include "base/str.h"
#include "wire/uri.h"

#define REQUEST_LOG_KEY_MAX 64
#define REQUEST_LOG_VALUE_MAX 1024

static const char request_type;

enum { REQUEST_VALUE_VARS = 1, REQUEST_VALUE_WEBSOCKET, REQUEST_VALUE_TLS, REQUEST_USER_VALUES = 3 };

/* name, in the order of enum request_field */
#define REQUEST_FIELDS(X) \
    X(METHOD, "method") X(PATH, "path") X(RAW_PATH, "raw_path") X(QUERY_STRING, "query_string") X(SCHEME, "scheme") \
    X(HOST, "host") X(PORT, "port") X(VERSION, "version") X(ID, "id") X(TIME, "time") X(LISTENER, "listener") \
    X(PARAMS, "params") X(CLIENT, "client") X(PEER, "peer") X(TLS, "tls") X(WS, "ws") X(VARS, "vars")

enum request_field {
    REQUEST_NO_FIELD,
#define REQUEST_FIELD_ENUM(id, name) REQUEST_##id,
    REQUEST_FIELDS(REQUEST_FIELD_ENUM)
#undef REQUEST_FIELD_ENUM
};

static const char *const request_fields[] = {
#define REQUEST_FIELD_NAME(id, name) name,
    REQUEST_FIELDS(REQUEST_FIELD_NAME)
#undef REQUEST_FIELD_NAME
    NULL,
};

static struct subject *request_live(lua_State *L, const struct script_request *request) {
    if (!request->subject)
        luaL_error(L, "request is over: its req cannot be used any more");
    return request->subject;
}

struct subject *script_check_request(lua_State *L, int index) {
    struct script_request *request = script_object_test(L, index, &request_type);
    if (!request)
        luaL_error(L, "a method was called on a %s: write req:method(...), with a colon", luaL_typename(L, index));
    return request_live(L, request);
}

void script_push_request(lua_State *L, struct subject *subject) {
    struct script_record *record = subject->script;
    if (record->request) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, record->reference);
        return;
    }
    struct script_request *request = lua_newuserdatauv(L, sizeof *request, REQUEST_USER_VALUES);
    request->subject = subject;
    script_object_bless(L, &request_type);
    lua_pushvalue(L, -1);
    if (record->reference == LUA_NOREF)
        record->reference = luaL_ref(L, LUA_REGISTRYINDEX);
    else
        lua_rawseti(L, LUA_REGISTRYINDEX, record->reference);
    record->request = request;
}

/* --- fields --- */

static void request_push_text(lua_State *L, struct span text) {
    lua_pushlstring(L, text.p ? text.p : "", text.n);
}

static void request_push_params(lua_State *L, const struct subject *subject) {
    lua_createtable(L, 0, (int)subject->param_count);
    for (unsigned i = 0; i < subject->param_count; i++) {
        request_push_text(L, subject->params[i].name);
        request_push_text(L, subject->params[i].value);
        lua_rawset(L, -3);
    }
}

static void request_push_address(lua_State *L, const struct addr_small *addr) {
    char text[ADDR_TEXT_MAX];
    lua_pushstring(L, addr_small_format_ip(addr, text));
}

static void request_push_tls(lua_State *L, struct subject *subject) {
    if (lua_getiuservalue(L, 1, REQUEST_VALUE_TLS) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    script_push_tls(L, subject);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, REQUEST_VALUE_TLS);
}

static void request_push_vars(lua_State *L) {
    if (lua_getiuservalue(L, 1, REQUEST_VALUE_VARS) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, REQUEST_VALUE_VARS);
}

static void request_push_websocket(lua_State *L, struct subject *subject) {
    if (!subject->websocket) {
        lua_pushnil(L);
        return;
    }
    if (lua_getiuservalue(L, 1, REQUEST_VALUE_WEBSOCKET) == LUA_TUSERDATA)
        return;
    lua_pop(L, 1);
    script_push_websocket(L, lua_touserdata(L, 1));
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, REQUEST_VALUE_WEBSOCKET);
}

/* The port of the URL that was asked for: named in Host, else the scheme's. */
static unsigned request_port(const struct subject *subject) {
    if (subject->host_port)
        return subject->host_port;
    return subject->scheme && strcmp(subject->scheme, "https") == 0 ? 443 : 80;
}

static int request_push_field(lua_State *L, struct subject *subject, enum request_field field) {
    switch (field) {
    case REQUEST_METHOD: request_push_text(L, subject->head.method_name); break;
    case REQUEST_PATH: request_push_text(L, subject->path); break;
    case REQUEST_RAW_PATH: request_push_text(L, subject->raw_path); break;
    case REQUEST_QUERY_STRING: request_push_text(L, subject->query); break;
    case REQUEST_SCHEME: lua_pushstring(L, subject->scheme); break;
    case REQUEST_HOST: request_push_text(L, subject->host); break;
    case REQUEST_PORT: lua_pushinteger(L, (lua_Integer)request_port(subject)); break;
    case REQUEST_VERSION: lua_pushstring(L, subject->head.minor ? "1.1" : "1.0"); break;
    case REQUEST_ID: request_push_text(L, subject->id); break;
    case REQUEST_TIME: lua_pushnumber(L, (lua_Number)subject->wall_us / 1e6); break;
    case REQUEST_LISTENER: lua_pushstring(L, subject->listener ? subject->listener->name : NULL); break;
    case REQUEST_PARAMS: request_push_params(L, subject); break;
    case REQUEST_CLIENT: request_push_address(L, &subject->client); break;
    case REQUEST_PEER: request_push_address(L, &subject->peer); break;
    case REQUEST_TLS: request_push_tls(L, subject); break;
    case REQUEST_WS: request_push_websocket(L, subject); break;
    case REQUEST_VARS: request_push_vars(L); break;
    case REQUEST_NO_FIELD: lua_pushnil(L); break;
    }
    return 1;
}

/* --- methods --- */

static int request_query(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    struct span name = script_check_text(L, 2);
    script_push_span(L, uri_query_get(&subject->arena, subject->query, name));
    return 1;
}

static int request_set_query(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    struct span name = script_copy_text(L, &subject->arena, script_check_text(L, 2));
    luaL_checkany(L, 3);
    struct span value = SPAN_NULL;
    if (!lua_isnil(L, 3))
        value = script_copy_text(L, &subject->arena, script_check_text(L, 3));
    else if (!subject->query.p)
        return 0;
    struct span query = uri_query_set(&subject->arena, subject->query, name, value);
    if (!query.p)
        return luaL_error(L, "the request's memory is used up");
    subject->query = query.n || value.p ? query : SPAN_NULL;
    subject->query_edited = true;
    return 0;
}

static int request_cookie(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    script_push_span(L, subject_cookie(subject, script_check_text(L, 2)));
    return 1;
}

/* The token of "Authorization: Bearer token"; .p NULL when there is none or it is not alone. */
static struct span request_bearer_token(const struct subject *subject) {
    unsigned index = 0;
    struct http_field *field = http_next_name(&subject->head, SPAN("authorization"), &index);
    if (!field || http_next_name(&subject->head, SPAN("authorization"), &index))
        return SPAN_NULL;
    struct span value = field->value;
    if (value.n < 8 || !str_equal_nocase(span_make(value.p, 6), SPAN("bearer")) || value.p[6] != ' ')
        return SPAN_NULL;
    struct span token = str_trim(span_make(value.p + 7, value.n - 7));
    return token.n == 0 || memchr(token.p, ' ', token.n) || memchr(token.p, ',', token.n) ? SPAN_NULL : token;
}

static int request_bearer(lua_State *L) {
    script_push_span(L, request_bearer_token(script_check_request(L, 1)));
    return 1;
}

static int request_set_path(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    struct span path = script_check_text(L, 2);
    if (path.n == 0 || path.p[0] != '/')
        return luaL_error(L, "set_path: the path must begin with '/'");
    for (size_t i = 0; i < path.n; i++) {
        unsigned char c = (unsigned char)path.p[i];
        if (c <= ' ' || c >= 0x7f || c == '#')
            return luaL_error(L, "set_path: byte %d of the path must be written as %%XX", (int)i + 1);
        if (c == '?')
            return luaL_error(L, "set_path: '?' would begin a query; use set_query, or write %%3F");
    }
    if (uri_has_dot_segment(path))
        return luaL_error(L, "set_path: dot segment in the path");
    const char *reason = "the request's memory is used up";
    bool keep_slash = subject->listener && subject->listener->encoded_slash_keep;
    path = script_copy_text(L, &subject->arena, path);
    path = uri_normalise_path(&subject->arena, path, keep_slash, &reason);
    if (!path.p)
        return luaL_error(L, "set_path: %s", reason);
    subject->path = path;
    subject->path_edited = true;
    return 0;
}

static int request_set_host(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    struct span host = script_copy_text(L, &subject->arena, script_check_text(L, 2));
    uint16_t port = 0;
    host = uri_normalise_host(&subject->arena, host, &port);
    if (!host.p || host.n == 0)
        return luaL_error(L, "set_host: '%s' is not a host name", lua_tostring(L, 2));
    subject->host = host;
    subject->host_port = port;
    subject->host_edited = true;
    return 0;
}

static bool request_log_key_valid(struct span key) {
    if (key.n == 0 || key.n > REQUEST_LOG_KEY_MAX)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        char c = str_lower(key.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'))
            return false;
    }
    return true;
}

/* log(key, value): an extra field of the access line; a second value of one key replaces the first. */
static int request_log(lua_State *L) {
    struct subject *subject = script_check_request(L, 1);
    struct span key = script_check_text(L, 2), value;
    if (!request_log_key_valid(key))
        return luaL_error(L, "log: the key must be 1 to 64 letters, digits, '_', '-' or '.'");
    luaL_checkany(L, 3);
    value.p = luaL_tolstring(L, 3, &value.n);
    if (value.n > REQUEST_LOG_VALUE_MAX)
        value.n = REQUEST_LOG_VALUE_MAX;
    value = script_copy_text(L, &subject->arena, value);
    for (unsigned i = 0; i < subject->log_count; i++)
        if (span_equal(subject->logs[i].key, key)) {
            subject->logs[i].value = value;
            return 0;
        }
    if (subject->log_count == SUBJECT_LOG_MAX)
        return luaL_error(L, "log: more than %d extra fields", SUBJECT_LOG_MAX);
    if (!subject->logs && !(subject->logs = arena_alloc(&subject->arena, SUBJECT_LOG_MAX * sizeof *subject->logs)))
        return luaL_error(L, "the request's memory is used up");
    subject->logs[subject->log_count].key = script_copy_text(L, &subject->arena, key);
    subject->logs[subject->log_count].value = value;
    subject->log_count++;
    return 0;
}

static int request_body(lua_State *L) {
    return luaL_error(L, "req:body is not in this version");
}

static const luaL_Reg request_methods[] = {
    {"query", request_query},
    {"set_query", request_set_query},
    {"cookie", request_cookie},
    {"bearer", request_bearer},
    {"set_path", request_set_path},
    {"set_host", request_set_host},
    {"log", request_log},
    {"body", request_body},
    {NULL, NULL},
};

/* --- the type --- */

/* Upvalue: the member table. */
static int request_index(lua_State *L) {
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(1));
    if (type == LUA_TNUMBER) {
        struct subject *subject = request_live(L, lua_touserdata(L, 1));
        return request_push_field(L, subject, (enum request_field)lua_tointeger(L, -1));
    }
    if (type == LUA_TFUNCTION)
        return 1;
    return script_object_unknown(L, "req", 2, request_fields, request_methods);
}

static int request_newindex(lua_State *L) {
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "?";
    if (strcmp(name, "path") == 0 || strcmp(name, "host") == 0)
        return luaL_error(L, "req.%s is read-only: use req:set_%s(...)", name, name);
    return luaL_error(L, "req.%s cannot be set: req.vars is the place for values of your own", name);
}

void script_open_request(lua_State *L) {
    script_object_type(L, &request_type, "req");
    lua_newtable(L);
    script_object_members(L, request_fields, script_header_methods);
    script_object_members(L, NULL, request_methods);
    lua_pushcclosure(L, request_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, request_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pop(L, 1);
}
