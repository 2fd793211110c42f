/* SPDX-License-Identifier: MIT */
/*
 * Copies an action value out of Lua into an arena as the struct action that traffic knows. Every text is copied: the
 * arena outlives the call, the Lua strings may not. Pools are found by name through a cache in the registry, so that
 * a gateway with a thousand pools pays one table lookup; the cache is used only for the configuration that the state
 * was loaded for, since the loader reads actions of one that is still growing.
 */
#include "script/action.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"

struct action_reader {
    lua_State *L;
    int index; /* absolute, of the userdata */
    struct arena *arena;
    const struct config *config;
    char *error;
    size_t size;
};

static const char action_pools_key;

const char *script_action_pool(lua_State *L, int index) {
    struct action_value *action = script_test_action(L, index);
    if (!action || action->kind != ACTION_FORWARD)
        return NULL;
    if (lua_getiuservalue(L, index, ACTION_FORWARD_POOL) == LUA_TTABLE) {
        lua_rawgeti(L, -1, 1);
        lua_remove(L, -2);
    }
    const char *name = lua_tostring(L, -1);
    lua_pop(L, 1); /* the userdata keeps it alive */
    return name;
}

/* User value slot as arena text; .p stays NULL when it is nil. False: out of memory. */
static bool action_copy(struct action_reader *reader, int slot, struct span *out) {
    *out = SPAN_NULL;
    bool ok = true;
    if (lua_getiuservalue(reader->L, reader->index, slot) == LUA_TSTRING || lua_type(reader->L, -1) == LUA_TNUMBER) {
        struct span text;
        text.p = lua_tolstring(reader->L, -1, &text.n);
        *out = arena_dup(reader->arena, text);
        ok = out->p != NULL;
        if (!ok)
            (void)snprintf(reader->error, reader->size, "the request's memory is used up");
    }
    lua_pop(reader->L, 1);
    return ok;
}

/* Index of the pool that is named on top of the stack, from the cache or the configuration; -1 when unknown. */
static lua_Integer action_find_pool(struct action_reader *reader) {
    lua_State *L = reader->L;
    const char *name = lua_tostring(L, -1);
    bool cached = script_of(L)->config == reader->config;
    if (cached) {
        if (lua_rawgetp(L, LUA_REGISTRYINDEX, &action_pools_key) != LUA_TTABLE) {
            lua_pop(L, 1);
            lua_newtable(L);
            lua_pushvalue(L, -1);
            lua_rawsetp(L, LUA_REGISTRYINDEX, &action_pools_key);
        }
        lua_pushvalue(L, -2);
        bool known = lua_rawget(L, -2) == LUA_TNUMBER;
        lua_Integer pool = lua_tointeger(L, -1);
        lua_pop(L, 2);
        if (known)
            return pool;
    }
    const struct config_pool *pool = config_find_pool(reader->config, name);
    if (!pool)
        return -1;
    if (cached) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &action_pools_key);
        lua_pushvalue(L, -2);
        lua_pushinteger(L, pool - reader->config->pools);
        lua_rawset(L, -3);
        lua_pop(L, 1);
    }
    return pool - reader->config->pools;
}

static bool action_unknown_pool(struct action_reader *reader, const char *name) {
    const struct config *config = reader->config;
    const char **names = mem_alloc_array(config->pool_count + 1u, sizeof(*names));
    for (unsigned i = 0; i < config->pool_count; i++)
        names[i] = config->pools[i].name;
    const char *near = str_nearest(name, names);
    if (near)
        (void)snprintf(reader->error, reader->size, "unknown pool \"%s\" (did you mean \"%s\"?)", name, near);
    else
        (void)snprintf(reader->error, reader->size, "unknown pool \"%s\"", name);
    mem_free(names);
    return false;
}

static bool action_has_server(const struct config_pool *pool, struct span server) {
    for (unsigned i = 0; i < pool->server_count; i++)
        if (span_equal(server, span_of(pool->servers[i].name)) || span_equal(server, span_of(pool->servers[i].address)))
            return true;
    return false;
}

static bool action_check_server(struct action_reader *reader, const struct action *action) {
    const struct config_pool *pool = &reader->config->pools[action->forward.pool];
    struct span server = action->forward.server;
    if (!server.p || action_has_server(pool, server))
        return true;
    for (unsigned i = 0; i < action->forward.other_count; i++)
        if (action_has_server(&reader->config->pools[action->forward.others[i]], server))
            return true;
    (void)snprintf(reader->error, reader->size, "pool \"%s\" has no server \"%s\"", pool->name,
                   action->forward.server.p);
    return false;
}

/* The name on top is a pool's. */
static bool action_read_pool(struct action_reader *reader, unsigned *out) {
    lua_Integer pool = action_find_pool(reader);
    if (pool < 0)
        return action_unknown_pool(reader, lua_tostring(reader->L, -1));
    *out = (unsigned)pool;
    return true;
}

static bool action_read_pools(struct action_reader *reader, struct action *action) {
    lua_State *L = reader->L;
    if (lua_getiuservalue(L, reader->index, ACTION_FORWARD_POOL) != LUA_TTABLE) {
        bool ok = action_read_pool(reader, &action->forward.pool);
        lua_pop(L, 1);
        return ok;
    }
    unsigned count = (unsigned)lua_rawlen(L, -1);
    unsigned *others = arena_alloc(reader->arena, count * sizeof *others);
    bool ok = others != NULL;
    if (!ok)
        (void)snprintf(reader->error, reader->size, "the request's memory is used up");
    for (unsigned i = 0; ok && i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        ok = action_read_pool(reader, i == 0 ? &action->forward.pool : &others[i - 1]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    action->forward.others = others;
    action->forward.other_count = ok ? count - 1 : 0;
    return ok;
}

static bool action_read_forward(struct action_reader *reader, const struct action_value *value, struct action *action) {
    if (!action_read_pools(reader, action))
        return false;
    if (value->plain)
        return true;
    action->forward.response_timeout_ms = value->response_timeout_ms;
    return action_copy(reader, ACTION_FORWARD_SERVER, &action->forward.server) &&
        action_copy(reader, ACTION_FORWARD_PATH, &action->forward.path) &&
        action_copy(reader, ACTION_FORWARD_HOST, &action->forward.host) &&
        action_copy(reader, ACTION_FORWARD_KEY, &action->forward.key) && action_check_server(reader, action);
}

static int action_compare_names(struct span a, struct span b) {
    int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* By name, fields of one name in their order: a Lua table has no order, and answers should not vary by worker. */
static void action_sort_headers(struct action_header *list, unsigned count) {
    for (unsigned i = 1; i < count; i++) {
        struct action_header moved = list[i];
        unsigned at = i;
        for (; at > 0 && action_compare_names(list[at - 1].name, moved.name) > 0; at--)
            list[at] = list[at - 1];
        list[at] = moved;
    }
}

static struct span action_copy_item(struct action_reader *reader, lua_Integer at) {
    struct span text;
    lua_rawgeti(reader->L, -1, at);
    text.p = lua_tolstring(reader->L, -1, &text.n);
    text = arena_dup(reader->arena, str_trim(text));
    lua_pop(reader->L, 1);
    return text;
}

static bool action_read_headers(struct action_reader *reader, struct action *action) {
    lua_State *L = reader->L;
    bool ok = true;
    if (lua_getiuservalue(L, reader->index, ACTION_REPLY_HEADERS) == LUA_TTABLE) {
        unsigned count = (unsigned)lua_rawlen(L, -1) / 2;
        struct action_header *list = arena_alloc(reader->arena, (count + 1) * sizeof(*list));
        ok = list != NULL;
        for (unsigned i = 0; ok && i < count; i++) {
            list[i].name = action_copy_item(reader, 2 * (lua_Integer)i + 1);
            list[i].value = action_copy_item(reader, 2 * (lua_Integer)i + 2);
            ok = list[i].name.p && list[i].value.p;
        }
        if (ok) {
            action_sort_headers(list, count);
            action->reply.headers = list;
            action->reply.header_count = count;
        } else {
            (void)snprintf(reader->error, reader->size, "the request's memory is used up");
        }
    }
    lua_pop(L, 1);
    return ok;
}

static bool action_read_redirect(struct action_reader *reader, const struct action_value *value,
                                 struct action *action) {
    action->redirect.status = value->status;
    action->redirect.port = value->port;
    return action_copy(reader, ACTION_REDIRECT_URL, &action->redirect.url) &&
        action_copy(reader, ACTION_REDIRECT_SCHEME, &action->redirect.scheme) &&
        action_copy(reader, ACTION_REDIRECT_HOST, &action->redirect.host) &&
        action_copy(reader, ACTION_REDIRECT_PATH, &action->redirect.path) &&
        action_copy(reader, ACTION_REDIRECT_QUERY, &action->redirect.query);
}

struct action *script_read_action(lua_State *L, int index, struct arena *arena, const struct config *config,
                                  char *error, size_t size) {
    struct action_reader reader = {L, lua_absindex(L, index), arena, config, error, size};
    struct action_value *value = script_test_action(L, index);
    struct action *action = arena_alloc(arena, sizeof(*action));
    if (!action || !value) {
        (void)snprintf(error, size, "%s", value ? "the request's memory is used up" : "not an action");
        return NULL;
    }
    memset(action, 0, sizeof(*action));
    action->kind = value->kind;
    bool ok = true;
    switch (value->kind) {
    case ACTION_FORWARD:
        if (value->found && script_of(L)->config == config) {
            action->forward.pool = value->pool;
            break;
        }
        ok = action_read_forward(&reader, value, action);
        if (ok && value->plain && action->forward.other_count == 0 && script_of(L)->config == config) {
            value->found = true;
            value->pool = action->forward.pool;
        }
        break;
    case ACTION_REPLY:
        action->reply.status = value->status;
        ok = action_copy(&reader, ACTION_REPLY_BODY, &action->reply.body) && action_read_headers(&reader, action);
        break;
    case ACTION_REDIRECT:
        ok = action_read_redirect(&reader, value, action);
        break;
    case ACTION_NONE:
    case ACTION_DROP:
        break;
    }
    return ok ? action : NULL;
}
