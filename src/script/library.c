/* SPDX-License-Identifier: MIT */
/*
 * The helpers that are no words of declaration: ip.within ip.prefix, log.debug info warn error, and xpcall with a
 * handler that can be ended. An address or block that is none raises: a list of networks that silently matches
 * nothing would open a door. The addresses of unix-socket clients ("unix:") are in no network.
 */
#include <arpa/inet.h>

#include "base/addr.h"
#include "base/log.h"
#include "script/object.h"

static const char library_format_key; /* string.format as it was before any script ran */

/* The address at index; false for a client on a unix socket. */
static bool library_check_ip(lua_State *L, int index, struct addr_small *addr) {
    struct span text = script_check_text(L, index);
    if (span_equal(text, SPAN("unix:")))
        return false;
    if (!addr_parse_ip(text, addr))
        luaL_error(L, "'%s' is not an IP address", lua_tostring(L, index));
    return true;
}

static bool library_in_block(lua_State *L, int index, const struct addr_small *addr) {
    struct cidr block;
    if (lua_type(L, index) != LUA_TSTRING || !cidr_parse(script_check_text(L, index), &block)) {
        luaL_tolstring(L, index, NULL);
        luaL_error(L, "ip.within: '%s' is not a network like \"10.0.0.0/8\"", lua_tostring(L, -1));
    }
    return cidr_match(&block, addr);
}

/* ip.within(address, network or list of networks) */
static int library_within(lua_State *L) {
    struct addr_small addr;
    bool is_ip = library_check_ip(L, 1, &addr), inside = false;
    if (!is_ip)
        memset(&addr, 0, sizeof addr);
    if (lua_type(L, 2) == LUA_TTABLE) {
        lua_Integer count = luaL_len(L, 2);
        for (lua_Integer i = 1; i <= count && !inside; i++) {
            lua_geti(L, 2, i);
            inside = library_in_block(L, lua_gettop(L), &addr);
            lua_settop(L, 2);
        }
    } else {
        inside = library_in_block(L, 2, &addr);
    }
    lua_pushboolean(L, is_ip && inside);
    return 1;
}

/* ip.prefix(address): what one customer usually has, "192.0.2.1/32" or "2001:db8:1:2::/64". */
static int library_prefix(lua_State *L) {
    struct addr_small addr;
    char text[ADDR_TEXT_MAX];
    if (!library_check_ip(L, 1, &addr)) {
        lua_pushliteral(L, "unix:");
        return 1;
    }
    bool is_v6 = addr.family == AF_INET6;
    if (is_v6)
        memset(addr.ip + 8, 0, 8);
    lua_pushfstring(L, "%s/%d", addr_small_format_ip(&addr, text), is_v6 ? 64 : 32);
    return 1;
}

/* One argument is the text itself; more are formatted as string.format() does. Upvalue: the level. */
static int library_log(lua_State *L) {
    enum log_level level = (enum log_level)lua_tointeger(L, lua_upvalueindex(1));
    const struct script *script = script_of(L);
    luaL_checkany(L, 1);
    /* Every worker runs the file again; one of them speaks. */
    if (!log_enabled(level) || (script->loading && script->config))
        return 0;
    if (lua_gettop(L) > 1) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &library_format_key);
        lua_insert(L, 1);
        lua_call(L, lua_gettop(L) - 1, 1);
    }
    const char *text = luaL_tolstring(L, 1, NULL);
    switch (level) {
    case LOG_LEVEL_ERROR: log_error("%s", text); break;
    case LOG_LEVEL_WARN: log_warn("%s", text); break;
    case LOG_LEVEL_INFO: log_info("%s", text); break;
    case LOG_LEVEL_DEBUG: log_debug("%s", text); break;
    }
    return 0;
}

static void library_add_level(lua_State *L, const char *name, enum log_level level) {
    lua_pushinteger(L, (lua_Integer)level);
    lua_pushcclosure(L, library_log, 1);
    lua_setfield(L, -2, name);
}

void script_open_library(lua_State *L) {
    static const luaL_Reg ip[] = {{"within", library_within}, {"prefix", library_prefix}, {NULL, NULL}};
    luaL_newlib(L, ip);
    lua_setglobal(L, "ip");
    lua_newtable(L);
    library_add_level(L, "error", LOG_LEVEL_ERROR);
    library_add_level(L, "warn", LOG_LEVEL_WARN);
    library_add_level(L, "info", LOG_LEVEL_INFO);
    library_add_level(L, "debug", LOG_LEVEL_DEBUG);
    lua_setglobal(L, "log");
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "format");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &library_format_key);
    lua_pop(L, 1);
    lua_register(L, "xpcall", script_budget_xpcall);
}
