/* SPDX-License-Identifier: MIT */
/*
 * state: one Lua state: its life, its capped allocator, the safe library, and the one protected call through which everything
 * that may raise or allocate goes. Internal to the script layer.
 */
#ifndef MOONGATE_SCRIPT_STATE_H
#define MOONGATE_SCRIPT_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdatomic.h>

#include "config/config.h"
#include "script/load.h"

/* What the signal handler and the hook of budget.c know of a state. */
struct script_budget {
    _Atomic(uint32_t) overrun;    /* not 0: the running call was told to end; every instruction of it raises */
    lua_State *_Atomic running;   /* the coroutine that runs, for the handler's lua_sethook() */
    uint32_t limit_ms;            /* of CPU time a call; 0: none. The loader sets its own, ops.c settings rule_cpu */
};

struct script {
    lua_State *L;
    size_t memory, memory_cap;  /* bytes in use, and the cap (settings lua_memory) */
    const struct config *config; /* of the load; NULL in the loader until it is done */
    const struct script_load *load;
    bool loading;               /* declaring: words are allowed, time and randomness fixed, pairs sorted */
    struct script_declare *declare; /* declare.c's, while loading */
    int *functions;             /* registry references by function index */
    unsigned function_count, function_cap;
    struct subject *subject;    /* of the call under way, NULL between calls */
    unsigned built;             /* actions built in the call under way (the forgotten return) */
    struct script_response *response; /* of the on_response under way */
    uint64_t response_serial;   /* which of them it is: an older `resp` is over */
    struct script_budget budget;
    bool starved;               /* an allocation was refused since somebody looked; what the error says is not to be relied on */
};

/* A fresh sandboxed state without any declaration words; NULL when memory is out. */
struct script *script_new(size_t memory_cap);
void script_free(struct script **script);
/* The script that a Lua state (or coroutine) belongs to. */
struct script *script_of(lua_State *L);
/*
 * lua_pcall with a traceback handler: nargs arguments and the function on the stack. LUA_OK, or an error code with the message (always a
 * string, whatever was thrown, with its traceback behind it) on top.
 */
int script_call(struct script *script, int nargs, int nresults);
/* Keeps the function on top of the stack (popped) under the next index; returns the index. */
unsigned script_keep_function(struct script *script);
/* Pushes function index. */
void script_push_function(struct script *script, unsigned index);

/* sandbox.c: the safe part of Lua (rules.md part 2, rule 8). Installs it in _G. */
void script_open_sandbox(lua_State *L);
/* Makes globals, loaded modules and the string metatable read-only. After the load. */
void script_freeze(lua_State *L);
/* luastring.c: string.find match gmatch gsub, over Lua's own. */
void script_open_strings(lua_State *L);
/* library.c: ip, log, base64 and such helpers that are not words of declaration. */
void script_open_library(lua_State *L);
/* declare.c: settings listener pool probe route on_* include strict env readfile require. */
void script_open_words(lua_State *L);

/* action.c: the constructors forward reply redirect drop, and what they make. */
void script_open_actions(lua_State *L);
bool script_is_action(lua_State *L, int index);
/* The pool name of a forward, or NULL for other kinds. Borrowed from the Lua value. */
const char *script_action_pool(lua_State *L, int index);
/*
 * Copies the action at index into arena, its pool name resolved in config. NULL with a sentence in error[size]: unknown pool or out of memory.
 */
struct action *script_read_action(lua_State *L, int index, struct arena *arena, const struct config *config, char *error, size_t size);

/*
 * While loading: records a mistake at the line of the Lua caller and pushes a value that swallows every use, so that the file goes on and
 * all mistakes are seen at once; returns 1. After the load: raises. Constructors use it: return script_mistake(L, "reply: ...").
 */
int script_mistake(lua_State *L, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* While loading: a warning that what, a bare number above 1000, means seconds. */
void script_warn_seconds(lua_State *L, const char *what, double seconds);
/* True for the value that script_mistake() pushed: skip it silently, it has been reported. */
bool script_is_mistake(lua_State *L, int index);
/* Pushes an array of the table's keys: numbers, then strings, in order. Raw. */
void script_push_sorted_keys(lua_State *L, int index);

/*
 * budget.c: around each protected call of a function (script_call() or the load of a file), on the thread that calls; calls do not nest.
 * running is the state or coroutine that will run. Works without the monitor thread too, by a timer a call.
 */
void script_budget_enter(struct script *script, lua_State *running);
/* True when the call was told to end by its budget. */
bool script_budget_leave(struct script *script);
/* For loops in C, where no hook fires: raises as the hook does, once the running call is over its budget or the load over its time. */
void script_budget_check(lua_State *L);
/* xpcall whose handler does not run once the call has to end: Lua runs handlers with hooks off, so nothing could end one. */
int script_budget_xpcall(lua_State *L);

#endif
