/* SPDX-License-Identifier: MIT */
/*
 * luamatch: Lua's patterns (manual, 6.4.1), with a budget: the matcher looks at the CPU budget of the running call as it goes, since no
 * hook of Lua's fires inside a call into C. Internal to the script layer; everything here may raise.
 */
#ifndef MOONGATE_SCRIPT_LUAMATCH_H
#define MOONGATE_SCRIPT_LUAMATCH_H

#include <stddef.h>

#include "script/state.h"

#define LUAMATCH_CAPTURES_MAX 32 /* as in Lua */

enum { LUAMATCH_OPEN = -1, LUAMATCH_POSITION = -2 }; /* lengths of a capture that has none */

struct luamatch_capture {
    const char *start;
    ptrdiff_t n; /* or LUAMATCH_OPEN, LUAMATCH_POSITION */
};

/* One text and one pattern, for any number of matches. Both are strings of Lua's: a NUL follows each. */
struct luamatch {
    lua_State *L;
    const char *text, *text_end;
    const char *pattern, *pattern_end; /* without the anchor */
    ptrdiff_t left;                    /* steps until the next look at the budget */
    unsigned count;                    /* captures of the last match */
    struct luamatch_capture captures[LUAMATCH_CAPTURES_MAX];
};

void luamatch_init(struct luamatch *match, lua_State *L, const char *text, size_t text_n, const char *pattern, size_t pattern_n);
/* The end of a match that begins at the given place of the text, or NULL. */
const char *luamatch_at(struct luamatch *match, const char *at);
/* The first match at or behind the given place; *end gets its end. NULL: none. */
const char *luamatch_search(struct luamatch *match, const char *at, const char **end);
/* Tells of n steps of work beside the matching, of the same call. */
void luamatch_count(struct luamatch *match, size_t n);

#endif
