/* SPDX-License-Identifier: MIT */
/*
 * load_private: the body of struct script_load, and what the files of the loading half share: mistakes, the snapshot of
 * everything read while loading, the scan for globals. Internal to the script layer.
 */
#ifndef MOONGATE_SCRIPT_LOAD_PRIVATE_H
#define MOONGATE_SCRIPT_LOAD_PRIVATE_H

#include <stdatomic.h>
#include <time.h>

#include "script/state.h"

/* One thing read while loading; every other state gets the same answer from here. */
enum load_source_kind { LOAD_SOURCE_FILE, LOAD_SOURCE_ENV, LOAD_SOURCE_GLOB, LOAD_SOURCE_REQUIRE };

struct load_source {
    enum load_source_kind kind;
    char *key;     /* path, name of the variable, pattern, name of the module */
    char *data;    /* bytes; NULL: there was none */
    size_t n;
    int error;     /* errno of a file that could not be read */
};

/* One mistake, kept until all are known. */
struct load_mistake {
    unsigned file; /* order in which the files were met */
    int line;
    unsigned order;
    bool is_error;
    char *text;
};

struct load_report {
    struct load_mistake *list;
    unsigned count, cap, errors;
    char **files;
    unsigned file_count;
};

struct script_load {
    struct config *config;
    char *file;             /* as given */
    char *folder;           /* of file, with its final slash, or "" */
    time_t time;            /* what os.time() says while loading */
    struct load_source *sources;
    unsigned source_count, source_cap;
    char **labels;          /* of each function by index: `route "chat": step 1` */
    unsigned label_count, label_cap;
    _Atomic(uint64_t) *errors; /* of each function by index, added to by all workers; the one thing that changes once frozen */
    bool frozen;            /* loaded: nothing else in here changes any more */
};

/* A fresh frozen state with all functions bound by the indexes of the configuration. NULL with a sentence in error[size]. Thread-safe. */
struct script *script_load_replay(const struct script_load *load, char *error, size_t size);

/* load.c. Raises when the load takes too long, and from then on at every instruction and call. */
void load_check_clock(lua_State *L);

/* report.c. The file's place in the order of files (added when new). */
unsigned load_report_file(struct load_report *report, const char *file);
/* Adds "file:line: text" (line 0: none). Copies. */
void load_report_add(struct load_report *report, struct config_place place, bool is_error, const char *text);
/* Adds a text of Lua's, which begins with its place; file is where it belongs when it does not. */
void load_report_add_lua(struct load_report *report, const char *file, const char *text);
/* Hands all out, sorted by file and line, each once. */
void load_report_flush(struct load_report *report, script_report_fn *fn, void *owner);
void load_report_fini(struct load_report *report);

/* source.c. What was read under key, or NULL. */
const struct load_source *load_source_find(const struct script_load *load, enum load_source_kind kind, const char *key);
/*
 * Reads (the first time) what key names: a file's bytes; a variable; the paths that match a pattern, each ended by NUL; the path of a
 * module. data is NULL when there is none. Never NULL.
 */
const struct load_source *load_source_get(struct script_load *load, enum load_source_kind kind, const char *key);
/* path, relative to the configuration file's folder. Free with mem_free(). */
char *load_source_path(const struct script_load *load, const char *path);
void load_source_fini(struct script_load *load);

/* globals.c: one use of a global variable, found in a compiled chunk. */
struct globals_use {
    const char *name; /* not NUL-terminated */
    size_t n;
    int line;
    bool set;         /* assigned, not read */
    bool top;         /* in the file's own body, not in a function */
};
typedef void globals_use_fn(void *owner, const struct globals_use *use);
/*
 * Walks all functions of a chunk that lua_dump() wrote with debug information. False with a sentence in error[size]: not the chunk format that
 * this was built for.
 */
bool globals_scan(const char *chunk, size_t n, globals_use_fn *use, void *owner, char *error, size_t size);

#endif
