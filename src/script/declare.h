/* SPDX-License-Identifier: MIT */
/*
 * declare: what the words of a file have declared so far, while it loads. In the loader's state they fill a struct config; in all
 * other states (replay) only functions are bound. Internal to the loading half of the script layer.
 */
#ifndef MOONGATE_SCRIPT_DECLARE_H
#define MOONGATE_SCRIPT_DECLARE_H

#include "script/options.h"

/* A word that got its name and waits for its table. */
struct declare_pending {
    const char *word;
    char *name;
    struct config_place place;
    bool done;
};

/* A route before pool names are resolved: where its actions are kept in the registry. */
struct declare_route {
    struct config_route route;
    int *actions; /* a reference a step, LUA_NOREF for functions; in the arena */
};

struct declare_hooks {
    unsigned *list;
    unsigned count;
};

enum declare_hook { DECLARE_ON_RESPONSE, DECLARE_ON_OPEN, DECLARE_ON_CLOSE, DECLARE_HOOKS };

/* A global that was used and was not known when its file was compiled. */
struct declare_global {
    char *name;
    struct config_place place;
    bool set;   /* assigned in a function */
    bool early; /* read while loading, before any file had set it */
};

struct script_declare {
    struct script *script;
    const struct script_load *load;
    struct script_load *writable;   /* the same, in the loader's state; NULL in a replay */
    struct config *config;          /* likewise */
    struct load_report report;
    struct config_listener *listeners;
    struct config_pool *pools;
    struct declare_route *routes;
    unsigned listener_count, pool_count, route_count;
    struct declare_hooks hooks[DECLARE_HOOKS];
    struct declare_pending **pending;
    unsigned pending_count;
    bool has_settings;
    struct config_place settings_place;
    struct declare_global *globals; /* unknown uses */
    unsigned global_count, global_cap;
    char **known;                   /* globals that the files set, ended by NULL */
    unsigned known_count;
    struct buf chunk;               /* of lua_dump() */
    bool aborted;                   /* a file ended before its end: names may be missing */
    bool finished;                  /* the configuration is filled in */
    uint64_t deadline_ms;
    unsigned include_depth;
};

/* Adds a mistake or a warning. In a replay the first mistake fails it. */
void declare_report(struct script_declare *declare, struct config_place place, bool is_error, const char *text);
/* The line of the Lua code that called the running C function. */
struct config_place declare_place(lua_State *L);
struct script_declare *declare_of(lua_State *L);
/* Keeps the function on top (popped) under the next index; in a replay it must have the same label. Raises on a mismatch. */
unsigned declare_bind(lua_State *L, const char *label);
/* Whether there is a function of a file's own; the language's words are C functions, and one of those bare is a forgotten call. */
bool declare_is_function(lua_State *L, int index);
/* Pushes the value that swallows every use (script_mistake()), without a report. */
void declare_push_mistake(lua_State *L);
/* A path relative to the configuration file's folder, in the arena. */
char *declare_path(struct option_reader *reader, const char *path);
/* A reader for a declaration. */
void declare_start_reader(struct option_reader *reader, lua_State *L, const char *subject, struct config_place place);
/* An array that grows by one zeroed element; returns it. */
void *declare_grow(void **list, unsigned *count, size_t size);

/* The words: each takes the table at index (absolute); name may be NULL where the word has none. */
void declare_settings(lua_State *L, int index, struct config_place place);
void declare_listener(lua_State *L, int index, const char *name, struct config_place place);
void declare_pool(lua_State *L, int index, const char *name, struct config_place place);
void declare_route(lua_State *L, int index, const char *name, struct config_place place);
/* Checks a probe table and remembers that its mistakes have been said. */
void declare_probe(lua_State *L, int index, const char *name, struct config_place place);
option_read_fn declare_read_probe;
/* declare_pages.c: settings error_pages. */
option_read_fn declare_read_pages;
/* Fixes what match keys imply for each other; at the end of a match table. */
void declare_finish_match(struct option_reader *reader, struct match *match);

/* declare_end.c: what can be judged when all is declared: pending words, pools and listeners named by routes; then fills the config. */
void declare_finish(lua_State *L);

/* words.c: readfile env include require strict. */
void words_open(lua_State *L);
/* run_file.c. Compiles, scans and runs a file. Its mistakes are reported; nothing is raised but lack of memory. Leaves what the file returned. */
bool words_run_file(lua_State *L, const char *path, const char *bytes, size_t n);
/* While the loader runs, reading a global that is not there gives the value that swallows every use. */
void words_open_globals(lua_State *L);
/* Reports globals that no file sets. */
void words_check_globals(struct script_declare *declare);

/* declare.c */
void declare_init(struct script_declare *declare, struct script *script, struct script_load *writable, const struct script_load *load);
void declare_fini(struct script_declare *declare);

#endif
