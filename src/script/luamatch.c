/* SPDX-License-Identifier: MIT */
/*
 * luamatch: a matcher for Lua's patterns that can be ended. Lua's own runs inside one call into C, so a pattern that tries many ways on a
 * long text would hold a worker for as long as it likes; this one counts steps and looks at the budget (script_budget_check()).
 * Ways not tried yet are on a stack of choices instead of the C stack: a quantified item or a capture pushes one, and when nothing goes
 * on, the topmost is taken up again or undone. Its depth is bounded by the items of the pattern, not by the text.
 *
 * The subtle thing: patterns are read as they are tried, never before. A malformed rest raises only if the match gets that far, and a limit
 * is reached at the same place as in Lua; scripts can see both, so a pattern is not compiled first.
 */
#include "script/luamatch.h"

#include <ctype.h>

#define LUAMATCH_STEPS 4096    /* between looks at the budget */
#define LUAMATCH_DEPTH_MAX 199 /* choices; Lua's limit of C calls comes to the same */

enum luamatch_kind {
    LUAMATCH_LONGEST,  /* `*` `+`: try one repetition fewer, down to low */
    LUAMATCH_SHORTEST, /* `-`: try one repetition more of item */
    LUAMATCH_OPTION,   /* `?`: go on without */
    LUAMATCH_OPENED,   /* undo: the last capture was not there */
    LUAMATCH_CLOSED,   /* undo: the capture is open again */
};

struct luamatch_choice {
    enum luamatch_kind kind;
    unsigned capture;
    const char *text, *next; /* where to go on in the text, and in the pattern */
    union {
        const char *low;
        const char *item;
    } of;
};

struct luamatch_stack {
    unsigned depth;
    struct luamatch_choice choices[LUAMATCH_DEPTH_MAX];
};

/* Where a match has come to. text NULL: not this way. */
struct luamatch_place {
    const char *text, *pattern;
};

static const struct luamatch_place luamatch_failed = {NULL, NULL};

static __attribute__((noinline)) void luamatch_look(struct luamatch *match) {
    match->left = LUAMATCH_STEPS;
    script_budget_check(match->L);
}

static inline void luamatch_steps(struct luamatch *match, ptrdiff_t n) {
    match->left -= n;
    if (match->left < 0)
        luamatch_look(match);
}

void luamatch_count(struct luamatch *match, size_t n) { luamatch_steps(match, (ptrdiff_t)n); }

/* --- single characters --- */

/* %a and its like; letter is what follows the %. */
static bool luamatch_class(int c, int letter) {
    bool in;
    switch (tolower(letter)) {
    case 'a': in = isalpha(c); break;
    case 'c': in = iscntrl(c); break;
    case 'd': in = isdigit(c); break;
    case 'g': in = isgraph(c); break;
    case 'l': in = islower(c); break;
    case 'p': in = ispunct(c); break;
    case 's': in = isspace(c); break;
    case 'u': in = isupper(c); break;
    case 'w': in = isalnum(c); break;
    case 'x': in = isxdigit(c); break;
    case 'z': in = c == 0; break; /* of old; the manual has dropped it, Lua has not */
    default: return letter == c;
    }
    return isupper(letter) ? !in : in;
}

/* set is past the `[`, end at the `]`. A class cannot end a range, so `-` behind one stands for itself. */
static bool luamatch_set(int c, const char *set, const char *end) {
    const unsigned char *p = (const unsigned char *)set, *stop = (const unsigned char *)end;
    bool found = *p != '^';
    if (!found)
        p++;
    while (p < stop) {
        if (*p == '%') {
            if (luamatch_class(c, p[1])) /* at worst the `]` */
                return found;
            p += 2;
        } else if (p[1] == '-' && p + 2 < stop) {
            if (p[0] <= c && c <= p[2])
                return found;
            p += 3;
        } else if (*p++ == c)
            return found;
    }
    return !found;
}

/* Past the `]`. The first character of a set is never its end. */
static const char *luamatch_set_end(struct luamatch *match, const char *set) {
    const char *p = set;
    if (*p == '^')
        p++;
    do {
        if (p == match->pattern_end)
            luaL_error(match->L, "malformed pattern (missing ']')");
        if (*p++ == '%' && p < match->pattern_end)
            p++;
    } while (p == match->pattern_end || *p != ']');
    luamatch_steps(match, p - set);
    return p + 1;
}

/* Past the item for one character that begins at p: where its quantifier would be. */
static inline const char *luamatch_item_end(struct luamatch *match, const char *p) {
    if (*p == '[')
        return luamatch_set_end(match, p + 1);
    if (*p != '%')
        return p + 1;
    if (p + 1 == match->pattern_end)
        luaL_error(match->L, "malformed pattern (ends with '%%')");
    return p + 2;
}

/* True when item, which goes to end, is for the character at text. */
static inline bool luamatch_one(struct luamatch *match, const char *text, const char *item, const char *end) {
    if (text >= match->text_end)
        return false;
    int c = (unsigned char)*text;
    switch (*item) {
    case '.':
        return true;
    case '%':
        return luamatch_class(c, (unsigned char)item[1]);
    case '[':
        luamatch_steps(match, end - item);
        return luamatch_set(c, item + 1, end - 1);
    default:
        return *item == *text;
    }
}

/* --- the choices --- */

static struct luamatch_choice *luamatch_push(struct luamatch *match, struct luamatch_stack *stack, enum luamatch_kind kind) {
    if (stack->depth == LUAMATCH_DEPTH_MAX)
        luaL_error(match->L, "pattern too complex");
    struct luamatch_choice *choice = &stack->choices[stack->depth++];
    choice->kind = kind;
    return choice;
}

/* Takes up the last choice: where it goes on, or nowhere when it was its last way. */
static struct luamatch_place luamatch_retry(struct luamatch *match, struct luamatch_stack *stack) {
    struct luamatch_choice *choice = &stack->choices[stack->depth - 1];
    switch (choice->kind) {
    case LUAMATCH_LONGEST:
        if (choice->text > choice->of.low)
            return (struct luamatch_place){--choice->text, choice->next};
        break;
    case LUAMATCH_SHORTEST:
        if (luamatch_one(match, choice->text, choice->of.item, choice->next - 1))
            return (struct luamatch_place){++choice->text, choice->next};
        break;
    case LUAMATCH_OPTION:
        stack->depth--;
        return (struct luamatch_place){choice->text, choice->next};
    case LUAMATCH_OPENED:
        match->count--;
        break;
    case LUAMATCH_CLOSED:
        match->captures[choice->capture].n = LUAMATCH_OPEN;
        break;
    }
    stack->depth--;
    return luamatch_failed;
}

static const char *luamatch_run(struct luamatch *match, const char *text, const char *item, const char *end) {
    if (*item == '.')
        return match->text_end;
    while (luamatch_one(match, text, item, end)) {
        text++;
        luamatch_steps(match, 1);
    }
    return text;
}

/* An item for one character, with its quantifier if it has one. */
static inline struct luamatch_place luamatch_item(struct luamatch *match, struct luamatch_stack *stack, struct luamatch_place at) {
    const char *end = luamatch_item_end(match, at.pattern);
    int quantifier = *end; /* NUL at the end of the pattern */
    struct luamatch_choice *choice;
    if (!luamatch_one(match, at.text, at.pattern, end)) {
        if (quantifier == '*' || quantifier == '?' || quantifier == '-')
            return (struct luamatch_place){at.text, end + 1};
        return luamatch_failed;
    }
    switch (quantifier) {
    case '*':
    case '+':
        choice = luamatch_push(match, stack, LUAMATCH_LONGEST);
        choice->of.low = at.text + (quantifier == '+');
        at.text = luamatch_run(match, at.text + 1, at.pattern, end);
        break;
    case '-':
        choice = luamatch_push(match, stack, LUAMATCH_SHORTEST);
        choice->of.item = at.pattern;
        break;
    case '?':
        choice = luamatch_push(match, stack, LUAMATCH_OPTION);
        choice->text = at.text;
        choice->next = end + 1;
        return (struct luamatch_place){at.text + 1, end + 1};
    default:
        return (struct luamatch_place){at.text + 1, end};
    }
    choice->text = at.text;
    choice->next = end + 1;
    return (struct luamatch_place){at.text, end + 1};
}

/* --- captures and the items for more than one character --- */

static struct luamatch_place luamatch_open(struct luamatch *match, struct luamatch_stack *stack, struct luamatch_place at) {
    bool position = at.pattern[1] == ')';
    if (match->count >= LUAMATCH_CAPTURES_MAX)
        luaL_error(match->L, "too many captures");
    luamatch_push(match, stack, LUAMATCH_OPENED);
    match->captures[match->count++] = (struct luamatch_capture){at.text, position ? LUAMATCH_POSITION : LUAMATCH_OPEN};
    return (struct luamatch_place){at.text, at.pattern + 1 + position};
}

static struct luamatch_place luamatch_close(struct luamatch *match, struct luamatch_stack *stack, struct luamatch_place at) {
    unsigned i = match->count;
    while (i > 0 && match->captures[i - 1].n != LUAMATCH_OPEN)
        i--;
    if (i == 0)
        luaL_error(match->L, "invalid pattern capture");
    luamatch_push(match, stack, LUAMATCH_CLOSED)->capture = i - 1;
    match->captures[i - 1].n = at.text - match->captures[i - 1].start;
    return (struct luamatch_place){at.text, at.pattern + 1};
}

/* %bxy */
static struct luamatch_place luamatch_balance(struct luamatch *match, struct luamatch_place at) {
    if (match->pattern_end - at.pattern < 4)
        luaL_error(match->L, "malformed pattern (missing arguments to '%%b')");
    char opens = at.pattern[2], closes = at.pattern[3];
    if (at.text == match->text_end || *at.text != opens)
        return luamatch_failed;
    size_t depth = 1;
    for (const char *p = at.text + 1; p < match->text_end; p++) {
        luamatch_steps(match, 1);
        if (*p == closes) { /* first: both may be the same */
            if (--depth == 0)
                return (struct luamatch_place){p + 1, at.pattern + 4};
        } else if (*p == opens)
            depth++;
    }
    return luamatch_failed;
}

/* %f[set]: where the set begins to match; both ends of the text count as NUL. */
static struct luamatch_place luamatch_frontier(struct luamatch *match, struct luamatch_place at) {
    const char *set = at.pattern + 2;
    if (set == match->pattern_end || *set != '[')
        luaL_error(match->L, "missing '[' after '%%f' in pattern");
    const char *end = luamatch_set_end(match, set + 1);
    int before = at.text == match->text ? 0 : (unsigned char)at.text[-1];
    int here = at.text == match->text_end ? 0 : (unsigned char)*at.text;
    luamatch_steps(match, end - set);
    if (luamatch_set(before, set + 1, end - 1) || !luamatch_set(here, set + 1, end - 1))
        return luamatch_failed;
    return (struct luamatch_place){at.text, end};
}

/* %1: the same text again. A position has no text, so that never matches. */
static struct luamatch_place luamatch_again(struct luamatch *match, struct luamatch_place at) {
    int i = at.pattern[1] - '1';
    if (i < 0 || i >= (int)match->count || match->captures[i].n == LUAMATCH_OPEN)
        luaL_error(match->L, "invalid capture index %%%d", i + 1);
    const struct luamatch_capture *capture = &match->captures[i];
    if (capture->n < 0 || match->text_end - at.text < capture->n)
        return luamatch_failed;
    luamatch_steps(match, capture->n / 16);
    if (memcmp(capture->start, at.text, (size_t)capture->n) != 0)
        return luamatch_failed;
    return (struct luamatch_place){at.text + capture->n, at.pattern + 2};
}

static inline struct luamatch_place luamatch_step(struct luamatch *match, struct luamatch_stack *stack, struct luamatch_place at) {
    switch (*at.pattern) {
    case '(':
        return luamatch_open(match, stack, at);
    case ')':
        return luamatch_close(match, stack, at);
    case '$':
        if (at.pattern + 1 != match->pattern_end)
            break;
        return at.text == match->text_end ? (struct luamatch_place){at.text, match->pattern_end} : luamatch_failed;
    case '%':
        if (at.pattern[1] == 'b')
            return luamatch_balance(match, at);
        if (at.pattern[1] == 'f')
            return luamatch_frontier(match, at);
        if (isdigit((unsigned char)at.pattern[1]))
            return luamatch_again(match, at);
        break;
    }
    return luamatch_item(match, stack, at);
}

void luamatch_init(struct luamatch *match, lua_State *L, const char *text, size_t text_n, const char *pattern, size_t pattern_n) {
    match->L = L;
    match->text = text;
    match->text_end = text + text_n;
    match->pattern = pattern;
    match->pattern_end = pattern + pattern_n;
    match->left = LUAMATCH_STEPS;
    match->count = 0;
}

const char *luamatch_at(struct luamatch *match, const char *text) {
    struct luamatch_stack stack;
    struct luamatch_place at = {text, match->pattern};
    stack.depth = 0;
    match->count = 0;
    for (;;) {
        luamatch_steps(match, 1);
        if (!at.text) {
            if (stack.depth == 0)
                return NULL;
            at = luamatch_retry(match, &stack);
        } else if (at.pattern == match->pattern_end)
            return at.text;
        else
            at = luamatch_step(match, &stack, at);
    }
}

/* True when a match can only begin with the first character of the pattern. */
static bool luamatch_begins_plain(const struct luamatch *match) {
    size_t n = (size_t)(match->pattern_end - match->pattern);
    return n > 0 && !memchr("().[%$", match->pattern[0], 6) && (n == 1 || !memchr("*?-", match->pattern[1], 3));
}

const char *luamatch_search(struct luamatch *match, const char *at, const char **end) {
    bool plain = luamatch_begins_plain(match);
    for (; at <= match->text_end; at++) {
        if (plain) {
            at = memchr(at, match->pattern[0], (size_t)(match->text_end - at));
            if (!at)
                return NULL;
        }
        *end = luamatch_at(match, at);
        if (*end)
            return at;
    }
    return NULL;
}
