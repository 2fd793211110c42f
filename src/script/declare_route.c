/* SPDX-License-Identifier: MIT */
/*
 * declare_route: the word route. Its functions are bound in one fixed order (when, on_response, steps), the same in every state; its
 * actions are kept as Lua values until the end of the load, when all pools are known. The subtle thing: a nil among the steps leaves a
 * hole in the table, which Lua's own length would hide, so the keys are counted.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/declare.h"

static void declare_check_function(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    (void)field; /* bound afterwards, in order */
    if (!declare_is_function(reader->L, index))
        option_wrong(reader, index, lua_isfunction(reader->L, index) ? "a function of your own" : "a function");
}

static void declare_read_on_error(struct option_reader *reader, const struct option *option, int index, void *field) {
    (void)option;
    if (lua_type(reader->L, index) == LUA_TSTRING && strcmp(lua_tostring(reader->L, index), "next") == 0)
        *(bool *)field = true;
    else
        option_wrong(reader, index, "\"next\"");
}

static void declare_read_except(struct option_reader *reader, const struct option *option, int index, void *field) {
    struct config_route *route = field;
    (void)option;
    if (!option_is_table(reader, index, "a table of match keys"))
        return;
    route->has_except = true;
    lua_pushnil(reader->L);
    if (lua_next(reader->L, index))
        lua_pop(reader->L, 2);
    else
        option_mistake(reader, "an empty table");
    option_read_table(reader, index, option_match, &route->except, NULL, NULL, 0);
    declare_finish_match(reader, &route->except);
}

#define FIELD(name) .offset = offsetof(struct config_route, name)
const struct option option_route[] = {
    {.key = "when", .type = OPTION_READ, .read = declare_check_function, .fallback = "none", .help = "function(req): true to match"},
    {.key = "except", .type = OPTION_READ, .read = declare_read_except, .fallback = "none", .help = "match keys that must not match"},
    {.key = "on_error", .type = OPTION_READ, .read = declare_read_on_error, FIELD(on_error_next), .fallback = "500",
     .help = "\"next\": go on when a function fails"},
    {.key = "max_body", .type = OPTION_READ, .read = option_read_max_body, FIELD(max_body), .fallback = "the listener's", .help = "request body (413)"},
    {.key = "access_log", .type = OPTION_BOOL, FIELD(access_log), .fallback = "true", .help = "false: requests decided here are not logged"},
    {.key = "request_headers", .type = OPTION_READ, .read = option_read_headers, FIELD(request_headers), .fallback = "none",
     .help = "set on what is forwarded; false removes"},
    {.key = "response_headers", .type = OPTION_READ, .read = option_read_headers, FIELD(response_headers), .fallback = "none",
     .help = "set on what is answered; false removes"},
    {.key = "on_response", .type = OPTION_READ, .read = declare_check_function, .fallback = "none", .help = "function(req, resp)"},
    {.key = NULL},
};
#undef FIELD

/* Keeps the function under key, if there is one. */
static unsigned declare_bind_key(lua_State *L, int index, const char *route, const char *key) {
    lua_pushstring(L, key);
    lua_rawget(L, index);
    if (!declare_is_function(L, -1)) {
        lua_pop(L, 1);
        return CONFIG_NO_FUNCTION;
    }
    char label[128];
    snprintf(label, sizeof(label), "route \"%s\": %s", route, key);
    return declare_bind(L, label);
}

static unsigned declare_bind_step(lua_State *L, int index, const char *route, lua_Integer step) {
    lua_rawgeti(L, index, step);
    if (!declare_is_function(L, -1)) {
        lua_pop(L, 1);
        return CONFIG_NO_FUNCTION;
    }
    char label[128];
    snprintf(label, sizeof(label), "route \"%s\": step %lld", route, (long long)step);
    return declare_bind(L, label);
}

enum { DECLARE_STEPS_MAX = 1000 };

/* How many steps there are; a hole is reported. */
static unsigned declare_count_steps(struct option_reader *reader, int index) {
    lua_State *L = reader->L;
    lua_Integer count = 0, highest = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        count += key >= 1;
        highest = key > highest ? key : highest;
    }
    if (highest != count) {
        lua_Integer hole = 1;
        while (lua_rawgeti(L, index, hole) != LUA_TNIL) {
            lua_pop(L, 1);
            hole++;
        }
        lua_pop(L, 1);
        option_mistake(reader, "step %lld is nil (a function that is not defined yet, or a misspelt name?)", (long long)hole);
        return 0;
    }
    if (count == 0)
        option_mistake(reader, "no steps: what should happen? (forward, reply, redirect, drop or a function)");
    if (count > DECLARE_STEPS_MAX) {
        option_mistake(reader, "%lld steps, %d are the most", (long long)count, DECLARE_STEPS_MAX);
        return 0;
    }
    return (unsigned)count;
}

/* Reads the steps; true when one of them can forward. */
static bool declare_read_steps(struct option_reader *reader, int index, struct declare_route *entry, unsigned count) {
    lua_State *L = reader->L;
    struct config_route *route = &entry->route;
    bool forwards = false;
    unsigned action = 0; /* the first action, from 1 */
    route->steps = option_alloc(reader, count, sizeof(*route->steps));
    entry->actions = option_alloc(reader, count, sizeof(*entry->actions));
    for (unsigned i = 0; i < count; i++) {
        struct config_step *step = &route->steps[i];
        entry->actions[i] = LUA_NOREF;
        step->function = declare_bind_step(L, index, route->name, (lua_Integer)i + 1);
        step->kind = step->function == CONFIG_NO_FUNCTION ? CONFIG_STEP_ACTION : CONFIG_STEP_FUNCTION;
        if (action && action == i)
            option_mistake(reader, "step %u never runs: step %u is an action, which ends the route", i + 1, action);
        if (step->kind == CONFIG_STEP_FUNCTION) {
            forwards = true;
            continue;
        }
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        if (script_is_action(L, -1)) {
            action = action ? action : i + 1;
            forwards = forwards || script_action_pool(L, -1);
            entry->actions[i] = luaL_ref(L, LUA_REGISTRYINDEX);
            continue;
        }
        if (script_is_mistake(L, -1))
            forwards = true;
        else if (lua_isfunction(L, -1))
            option_mistake(reader, "step %u: a word alone is no action: forward \"pool\", reply(404), redirect \"url\", drop()", i + 1);
        else
            option_mistake(reader, "step %u: expected an action or a function, got a %s", i + 1, luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    route->step_count = count;
    return forwards;
}

static void declare_bind_only(lua_State *L, int index, const char *name) {
    declare_bind_key(L, index, name, "when");
    declare_bind_key(L, index, name, "on_response");
    lua_Integer count = (lua_Integer)lua_rawlen(L, index);
    for (lua_Integer i = 1; i <= count; i++)
        declare_bind_step(L, index, name, i);
}

/* By a table of names: there may be thousands of routes. */
static void declare_check_name(struct option_reader *reader, const char *name) {
    lua_State *L = reader->L;
    const struct script_declare *declare = reader->declare;
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "moongate.routes");
    if (lua_getfield(L, -1, name) == LUA_TNUMBER) {
        const struct config_place *first = &declare->routes[lua_tointeger(L, -1)].route.place;
        option_mistake(reader, "declared twice (first in %s:%d)", first->file, first->line);
    } else {
        lua_pushinteger(L, declare->route_count); /* where it will be */
        lua_setfield(L, -3, name);
    }
    lua_pop(L, 2);
}

void declare_route(lua_State *L, int index, const char *name, struct config_place place) {
    struct script_declare *declare = declare_of(L);
    if (!declare->writable) {
        declare_bind_only(L, index, name);
        return;
    }
    struct option_reader reader;
    char subject[96];
    snprintf(subject, sizeof(subject), "route \"%s\"", name);
    declare_start_reader(&reader, L, subject, place);
    declare_check_name(&reader, name);
    struct declare_route entry = {.actions = NULL};
    struct config_route *route = &entry.route;
    route->name = option_copy(&reader, span_of(name));
    route->place = place;
    route->access_log = true;
    route->max_body = UINT64_MAX;
    unsigned count = declare_count_steps(&reader, index);
    option_read_table(&reader, index, option_route, route, option_match, &route->match, LUA_MAXINTEGER);
    declare_finish_match(&reader, &route->match);
    route->when = declare_bind_key(L, index, name, "when");
    route->on_response = declare_bind_key(L, index, name, "on_response");
    bool forwards = declare_read_steps(&reader, index, &entry, count);
    if (route->on_error_next && !forwards && count > 0)
        option_mistake(&reader, "on_error = \"next\" makes no sense where no step can forward");
    void *list = declare->routes;
    struct declare_route *kept = declare_grow(&list, &declare->route_count, sizeof(*kept));
    declare->routes = list;
    *kept = entry;
}
