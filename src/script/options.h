/* SPDX-License-Identifier: MIT */
/*
 * options: one table a kind of declaration: each key with its type, limits, default and help. It drives reading, "did you mean",
 * and the man page's table (a test compares them).
 */
#ifndef MOONGATE_SCRIPT_OPTIONS_H
#define MOONGATE_SCRIPT_OPTIONS_H

#include "script/load_private.h"

enum option_type {
    OPTION_BOOL,     /* bool */
    OPTION_DURATION, /* uint32_t, milliseconds */
    OPTION_COUNT,    /* unsigned */
    OPTION_COUNT16,  /* uint16_t */
    OPTION_COUNT32,  /* uint32_t */
    OPTION_SIZE,     /* size_t */
    OPTION_SIZE32,   /* uint32_t */
    OPTION_SIZE64,   /* uint64_t; false: UINT64_MAX */
    OPTION_TEXT,     /* char * */
    OPTION_PATH,     /* char *, relative to the configuration file's folder */
    OPTION_WORD,     /* an enum (unsigned): the place of the text in words */
    OPTION_READ,     /* read() does it */
    OPTION_LATER     /* known by name, not in this version */
};

struct option_reader;
struct option;
/* Reads the value at index (absolute) into field; reports what is wrong itself. */
typedef void option_read_fn(struct option_reader *reader, const struct option *option, int index, void *field);

struct option {
    const char *key;
    enum option_type type;
    size_t offset;          /* of the field in the struct that is read */
    const char *fallback;   /* the default, as the manual says it */
    const char *help;
    uint64_t min, max;      /* max 0: no limit but the type's; durations in ms */
    bool none;              /* false is allowed and means none (0) */
    const char *words;      /* of OPTION_WORD: "a b c"; those behind a '|' come later */
    option_read_fn *read;
};

/* A kind of declaration, for the manual: its word and its keys, ended by one without a key. */
struct option_kind {
    const char *word;
    const struct option *options, *more; /* more: a second table (the match keys of a route); may be NULL */
};
extern const struct option_kind option_kinds[]; /* ended by one without a word */
extern const struct option option_settings[], option_access_log[], option_listener[], option_listener_tls[], option_pool[],
    option_server[], option_pool_tls[], option_pool_affinity[], option_probe[], option_route[], option_match[];

/* One declaration while it is read: where it stands, and the key path that mistakes name. */
struct option_reader {
    struct script_declare *declare;
    lua_State *L;
    struct arena *arena;
    struct config_place place;
    const char *subject;     /* `pool "chat"` */
    char path[192];          /* "servers[2].weight" */
    unsigned mistakes;
    bool muted;              /* mistakes are counted, not said: they have been */
};

/* Reads the table at index into target (and keys of more into more_target). Keys 1..positions of the array part are left to the caller. */
void option_read_table(struct option_reader *reader, int index, const struct option *options, void *target, const struct option *more,
                       void *more_target, lua_Integer positions);
/* Reads one value by an option (its offset counts from target). */
void option_read_one(struct option_reader *reader, const struct option *option, int index, void *target);
/* The same for a table under one key only: "expected a table" if it is none (false). */
bool option_is_table(struct option_reader *reader, int index, const char *expected);

/* Reports a mistake at the reader's path. A sentence, printf-like. */
void option_mistake(struct option_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));
void option_warning(struct option_reader *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "expected WHAT, got VALUE", unless the value has been reported already. */
void option_wrong(struct option_reader *reader, int index, const char *expected);
/* `"name" is not in this version`, without a path. */
void option_later(struct option_reader *reader, const char *name);
/* Extend the path and give back its former length; restore it with option_leave(). */
size_t option_enter(struct option_reader *reader, const char *key);
size_t option_enter_index(struct option_reader *reader, lua_Integer index);
void option_leave(struct option_reader *reader, size_t length);

/* A text without NUL at index, or .p NULL after a report ("expected WHAT"). Borrowed from Lua. */
struct span option_text(struct option_reader *reader, int index, const char *expected);
/* Copies into the configuration's arena; raises a Lua error when memory is out. */
char *option_copy(struct option_reader *reader, struct span text);
void *option_alloc(struct option_reader *reader, size_t count, size_t size);
bool option_read_duration(struct option_reader *reader, int index, uint64_t min_ms, bool none, uint32_t *ms);
/* Whether text can stand as a host, with a port or not, in a head. */
bool option_is_host(struct span text);
/* A text that is one; false where .none is set. */
option_read_fn option_read_host;
enum { OPTION_SECONDS_MAX = 160 };
/* What to write instead of a bare number of seconds that looks like milliseconds; returns text. */
char *option_seconds_text(double seconds, char text[OPTION_SECONDS_MAX]);
/* A whole number from min to max. */
bool option_read_count(struct option_reader *reader, int index, uint64_t min, uint64_t max, uint64_t *value);

/*
 * A value that may be one thing or a list of them: calls each(reader, index, i, owner) for every element (i from 0) with the path set.
 * Returns how many there are (what to allocate is asked before with option_list_length()).
 */
typedef void option_each_fn(struct option_reader *reader, int index, unsigned i, void *owner);
unsigned option_list_length(struct option_reader *reader, int index);
void option_read_list(struct option_reader *reader, int index, option_each_fn *each, void *owner);

/* option_types.c: readers of whole values. */
option_read_fn option_read_cidrs, option_read_headers, option_read_max_body;

#endif
