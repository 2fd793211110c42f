/* SPDX-License-Identifier: MIT */
/*
 * script_lua_ops: how a worker calls the functions of its configuration. Everything that touches Lua happens inside
 * one protected call (ops_invoke), results are copied into the request's arena there, and what comes out is a status:
 * a throw, an overrun, or nonsense returned is SCRIPT_ERROR, logged (rate-limited) and counted. Functions run on the
 * state itself, which is used again and again, so a call makes no coroutine; none of this version's words waits.
 *
 * The subtle thing is memory: a state that is still nearly full after a collection is replaced by a fresh replay of
 * the load. Requests under way keep the old one (their `req` lives in it), which is freed with the last of them;
 * hence struct ops_state.
 */
#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/str.h"
#include "script/load_private.h"
#include "script/object.h"

#define OPS_LOGGED_A_SECOND 10
#define OPS_REBUILD_PACE_MS 1000
#define OPS_FREE_MAX 64
#define OPS_TEXT_MAX 4096 /* bytes of one error in the log */
#define OPS_ERRORS_MAX 7000 /* bytes of counts in one line of the log */

struct ops_state {
    struct script *script;
    unsigned records; /* requests that have a `req` in it */
    unsigned free_count;
    int free[OPS_FREE_MAX]; /* registry references whose request is over, to be used again without luaL_ref()'s list */
};

/* What open() gives: one worker's. */
struct ops {
    const struct script_load *load;
    struct ops_state *state;
    unsigned worker;
    unsigned records; /* over all states */
    bool closed;
    bool rebuild;     /* the state is nearly full: replace it before the next request */
    uint64_t rebuilt_ms;
    uint64_t window_ms; /* of the error log */
    unsigned logged;
    uint64_t silent;
};

enum ops_kind { OPS_STEP, OPS_WHEN, OPS_RESPONSE, OPS_TUNNEL };

/* One call, handed through the protected call as a light userdata. */
struct ops_call {
    enum ops_kind kind;
    struct script *script;
    unsigned function;
    struct subject *subject;
    const struct script_tunnel *tunnel;
    const struct action *action; /* results */
    bool match;
};

static const struct action ops_none = {.kind = ACTION_NONE};

/* --- inside the protected call --- */

/* Raises "file:line: the function ...". */
static int ops_refuse(lua_State *L, const struct ops_call *call, const char *what) {
    lua_Debug place;
    script_push_function(call->script, call->function);
    lua_getinfo(L, ">S", &place);
    return luaL_error(L, "%s:%d: the function %s", place.short_src, place.linedefined, what);
}

/* The results of a step or response hook: stack indexes first and first + 1. */
static void ops_take_action(lua_State *L, struct ops_call *call, int first) {
    if (lua_isnil(L, first)) {
        if (!lua_isnil(L, first + 1))
            ops_refuse(L, call, "returned nil and a second value: a failure was passed on as if it were an answer");
        if (call->script->built > 0)
            ops_refuse(L, call, "made an action and did not return it: `return` is missing before forward, reply, "
                       "redirect or drop");
        call->action = &ops_none;
        return;
    }
    if (!script_is_action(L, first)) {
        const char *type = luaL_typename(L, first);
        if (lua_isboolean(L, first))
            type = lua_toboolean(L, first) ? "true" : "false";
        lua_pushfstring(L, "returned %s: an action or nothing is expected", type);
        ops_refuse(L, call, lua_tostring(L, -1));
    }
    char error[256];
    const struct action *action =
        script_read_action(L, first, &call->subject->arena, call->script->config, error, sizeof error);
    if (!action) {
        lua_pushfstring(L, "returned an action that cannot be done: %s", error);
        ops_refuse(L, call, lua_tostring(L, -1));
    }
    if (call->kind == OPS_RESPONSE && action->kind != ACTION_REPLY)
        ops_refuse(L, call, "returned an action other than reply(...), which is all that a response hook can do");
    call->action = action;
}

static void ops_take_match(lua_State *L, struct ops_call *call, int first) {
    if (call->script->built > 0 || script_is_action(L, first))
        ops_refuse(L, call, "made an action: when = function(req) can only say true or false");
    if (lua_isnil(L, first) && !lua_isnil(L, first + 1))
        ops_refuse(L, call, "returned nil and a second value: a failure was passed on as if it were an answer");
    call->match = lua_toboolean(L, first);
}

static int ops_invoke(lua_State *L) {
    struct ops_call *call = lua_touserdata(L, 1);
    script_push_function(call->script, call->function);
    int nargs = 1;
    if (call->kind == OPS_TUNNEL)
        script_push_tunnel(L, call->tunnel);
    else
        script_push_request(L, call->subject);
    if (call->kind == OPS_RESPONSE) {
        script_push_response(L);
        nargs = 2;
    }
    lua_call(L, nargs, 2);
    if (call->kind == OPS_STEP || call->kind == OPS_RESPONSE)
        ops_take_action(L, call, 2);
    else if (call->kind == OPS_WHEN)
        ops_take_match(L, call, 2);
    return 0;
}

static int ops_prepare(lua_State *L) {
    script_open_request(L);
    script_open_websocket(L);
    script_open_response(L);
    return 0;
}

/* --- states --- */

static struct ops_state *ops_state_new(const struct ops *ops, char *error, size_t size) {
    struct script *script = script_load_replay(ops->load, error, size);
    if (!script)
        return NULL;
    script->budget.limit_ms = script->config->settings.rule_cpu_ms;
    lua_pushcfunction(script->L, ops_prepare);
    if (script_call(script, 0, 0) != LUA_OK) {
        (void)snprintf(error, size, "%s", lua_tostring(script->L, -1));
        script_free(&script);
        return NULL;
    }
    struct ops_state *state = mem_alloc(sizeof *state);
    state->script = script;
    return state;
}

static void ops_state_free(struct ops_state *state) {
    script_free(&state->script);
    mem_free(state);
}

static void ops_rebuild(struct ops *ops) {
    uint64_t now_ms = clock_ms();
    if (now_ms - ops->rebuilt_ms < OPS_REBUILD_PACE_MS)
        return;
    ops->rebuilt_ms = now_ms;
    char error[512];
    struct ops_state *fresh = ops_state_new(ops, error, sizeof error);
    if (!fresh) {
        log_error("worker %u: Lua memory is nearly full and a new state cannot be made: %s", ops->worker, error);
        return;
    }
    log_warn("worker %u: Lua memory stayed nearly full (%zu of %zu bytes) after a collection: the state was made anew, "
             "what its functions kept is lost",
             ops->worker, ops->state->script->memory, ops->state->script->memory_cap);
    if (ops->state->records == 0)
        ops_state_free(ops->state);
    ops->state = fresh;
    ops->rebuild = false;
}

/* The state in which this request's functions run; NULL when its memory is used up. */
static struct ops_state *ops_state_of(struct ops *ops, struct subject *subject) {
    struct script_record *record = subject->script;
    if (record)
        return record->state;
    if (ops->rebuild)
        ops_rebuild(ops);
    record = arena_alloc(&subject->arena, sizeof *record);
    if (!record)
        return NULL;
    *record = (struct script_record){.state = ops->state, .reference = LUA_NOREF};
    struct ops_state *state = ops->state;
    if (state->free_count > 0)
        record->reference = state->free[--state->free_count];
    state->records++;
    ops->records++;
    subject->script = record;
    return state;
}

/* --- errors --- */

/* One line: a traceback's line ends become " | ". */
static void ops_flatten(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text && n + 4 < size; text++) {
        if (*text == '\n') {
            memcpy(out + n, " | ", 3);
            n += 3;
        } else if (*text != '\t') {
            out[n++] = *text;
        }
    }
    out[n] = '\0';
}

/* Counted for its function, and in full: the log has only some of them. */
static void ops_count(const struct ops *ops, const struct ops_call *call, enum metric metric) {
    metric_add(metric, 1);
    if (call->function < ops->load->label_count)
        atomic_fetch_add_explicit(&ops->load->errors[call->function], 1, memory_order_relaxed);
}

static bool ops_errors(const void *handle, struct buf *json) {
    const struct script_load *load = handle;
    bool ok = true, any = false;
    for (unsigned i = 0; ok && i < load->label_count && json->len < OPS_ERRORS_MAX; i++) {
        uint64_t count = atomic_load_explicit(&load->errors[i], memory_order_relaxed);
        if (!count)
            continue;
        ok = buf_append_text(json, any ? ",\"" : "{\"") && str_append_json(json, span_of(load->labels[i])) &&
             buf_append_text(json, "\":") && buf_append_u64(json, count);
        any = true;
    }
    return ok && any && buf_append_text(json, "}");
}

static void ops_log(struct ops *ops, const struct ops_call *call, const char *text) {
    uint64_t now_ms = clock_ms();
    if (now_ms - ops->window_ms >= 1000) {
        if (ops->silent)
            log_error("worker %u: %llu more errors of Lua functions were not logged", ops->worker,
                      (unsigned long long)ops->silent);
        ops->window_ms = now_ms;
        ops->logged = 0;
        ops->silent = 0;
    }
    if (ops->logged >= OPS_LOGGED_A_SECOND) {
        ops->silent++;
        return;
    }
    ops->logged++;
    char line[OPS_TEXT_MAX];
    ops_flatten(line, sizeof line, text);
    const char *label = call->function < ops->load->label_count ? ops->load->labels[call->function] : NULL;
    struct span id = call->subject ? call->subject->id : span_of(call->tunnel ? call->tunnel->id : "");
    log_error("%s: request %.*s: %s", label ? label : "Lua function", SPAN_ARGS(id), line);
}

/* An allocation was refused. luaL_Buffer makes an ordinary error of that, and a pcall may have caught it, so no status tells. */
static void ops_relieve(struct ops *ops, struct script *script) {
    script->starved = false;
    lua_gc(script->L, LUA_GCCOLLECT);
    if (script == ops->state->script && script->memory > script->memory_cap / 10 * 8)
        ops->rebuild = true;
}

static void ops_fail(struct ops *ops, const struct ops_call *call, bool overrun) {
    struct script *script = call->script;
    const char *text = lua_tostring(script->L, -1); /* a string already: script_call()'s promise */
    ops_count(ops, call, overrun ? METRIC_script_overruns : METRIC_script_errors);
    ops_log(ops, call, text ? text : "error");
}

/* Runs one call in the state. */
static enum script_status ops_run(struct ops *ops, struct ops_call *call, struct ops_state *state) {
    struct script *script = state->script;
    lua_State *L = script->L;
    int top = lua_gettop(L);
    call->script = script;
    script->subject = call->subject;
    script->built = 0;
    lua_pushcfunction(L, ops_invoke);
    lua_pushlightuserdata(L, call);
    script_budget_enter(script, L);
    int status = script_call(script, 1, 0);
    bool overrun = script_budget_leave(script);
    script->subject = NULL;
    if (status != LUA_OK)
        ops_fail(ops, call, overrun);
    lua_settop(L, top);
    if (script->starved)
        ops_relieve(ops, script);
    return status == LUA_OK ? SCRIPT_OK : SCRIPT_ERROR;
}

static enum script_status ops_run_subject(struct ops *ops, struct ops_call *call) {
    struct ops_state *state = ops_state_of(ops, call->subject);
    if (state)
        return ops_run(ops, call, state);
    ops_count(ops, call, METRIC_script_errors);
    ops_log(ops, call, "the request's memory is used up");
    return SCRIPT_ERROR;
}

/* --- the ops --- */

static void *ops_open(const void *load, unsigned worker, char *error, size_t size) {
    struct ops *ops = mem_alloc(sizeof *ops);
    ops->load = load;
    ops->worker = worker;
    ops->state = ops_state_new(ops, error, size);
    if (!ops->state)
        mem_free(ops);
    return ops->state ? ops : NULL;
}

static void ops_close(void *handle) {
    struct ops *ops = handle;
    if (!ops)
        return;
    ops->closed = true;
    if (ops->state->records == 0)
        ops_state_free(ops->state);
    if (ops->records == 0)
        mem_free(ops);
}

static enum script_status ops_step(void *handle, unsigned function, struct subject *subject,
                                   const struct action **action, void (*resume)(void *owner), void *owner) {
    (void)resume;
    (void)owner;
    struct ops_call call = {.kind = OPS_STEP, .function = function, .subject = subject, .action = &ops_none};
    enum script_status status = ops_run_subject(handle, &call);
    *action = status == SCRIPT_OK ? call.action : &ops_none;
    return status;
}

static enum script_status ops_when(void *handle, unsigned function, struct subject *subject, bool *match) {
    struct ops_call call = {.kind = OPS_WHEN, .function = function, .subject = subject};
    enum script_status status = ops_run_subject(handle, &call);
    *match = status == SCRIPT_OK && call.match;
    return status;
}

static enum script_status ops_response(void *handle, unsigned function, struct subject *subject,
                                       struct script_response *response, const struct action **action) {
    struct ops *ops = handle;
    struct ops_call call = {.kind = OPS_RESPONSE, .function = function, .subject = subject, .action = &ops_none};
    struct ops_state *state = ops_state_of(ops, subject);
    if (state) {
        state->script->response = response;
        state->script->response_serial++;
    }
    enum script_status status = ops_run_subject(ops, &call);
    if (state)
        state->script->response = NULL;
    *action = status == SCRIPT_OK ? call.action : &ops_none;
    return status;
}

static void ops_tunnel(void *handle, unsigned function, const struct script_tunnel *tunnel) {
    struct ops *ops = handle;
    struct ops_call call = {.kind = OPS_TUNNEL, .function = function, .tunnel = tunnel};
    if (ops->rebuild)
        ops_rebuild(ops);
    (void)ops_run(ops, &call, ops->state);
}

/* Makes the request's `req` dead and collectable. Sets slots that exist: nothing here allocates or raises. */
static void ops_forget(struct ops_state *state, struct script_record *record) {
    lua_State *L = state->script->L;
    if (record->request) {
        record->request->subject = NULL;
        lua_pushboolean(L, false);
        lua_rawseti(L, LUA_REGISTRYINDEX, record->reference);
    }
    if (record->reference == LUA_NOREF)
        return;
    if (state->free_count < OPS_FREE_MAX)
        state->free[state->free_count++] = record->reference;
    else
        luaL_unref(L, LUA_REGISTRYINDEX, record->reference);
}

static void ops_release(void *handle, struct subject *subject) {
    struct ops *ops = handle;
    struct script_record *record = subject->script;
    if (!record)
        return;
    struct ops_state *state = record->state;
    assert(state->records > 0 && ops->records > 0);
    ops_forget(state, record);
    subject->script = NULL;
    state->records--;
    ops->records--;
    if (state->records == 0 && (state != ops->state || ops->closed))
        ops_state_free(state);
    if (ops->closed && ops->records == 0)
        mem_free(ops);
}

const struct script_ops script_lua_ops = {
    .open = ops_open,
    .close = ops_close,
    .step = ops_step,
    .when = ops_when,
    .response = ops_response,
    .tunnel = ops_tunnel,
    .release = ops_release,
    .errors = ops_errors,
};
