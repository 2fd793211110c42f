/* SPDX-License-Identifier: MIT */
/*
 * The names of the ends. One table makes the enum, the log's words and the side, so that they cannot drift apart. The
 * subtle point: the side says who ended it, not whose fault it was; a timeout belongs to the side that was silent.
 */
#include "traffic/cause.h"

static const struct {
    const char *name, *side;
} cause_table[CAUSE_COUNT] = {
    {"", ""},
#define CAUSE_ROW(id, name, side) {name, side},
    CAUSES(CAUSE_ROW)
#undef CAUSE_ROW
};

const char *cause_name(enum cause cause) { return cause_table[cause].name; }

const char *cause_side(enum cause cause) { return cause_table[cause].side; }
