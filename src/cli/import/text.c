/* SPDX-License-Identifier: MIT */
/*
 * text: makes JSON of what people paste from templates and documentation: members without their outer braces, several fragments in a row,
 * commas too many or forgotten, brackets that are never closed or close nothing, comments, Markdown fences, line breaks in strings.
 * The result is one array: each value of the top level, and {"key": value} for each member that stands there alone.
 *
 * Commas are never copied: they are written where two elements meet, so that it does not matter where the input had them. Line
 * breaks are copied, so that a mistake which JSON's parser finds has the line of the input.
 */
#include <stdio.h>

#include "cli/import/arm.h"

#define TEXT_DEPTH_MAX 200

enum text_state { TEXT_FIRST, TEXT_KEY, TEXT_COLON, TEXT_AFTER }; /* of a container: nothing yet, key read, colon read, element read */

struct text {
    struct span in;
    size_t at;
    unsigned line;
    struct buf *out;
    char stack[TEXT_DEPTH_MAX]; /* '[' or '{'; 'm': a lone member of the top level */
    enum text_state states[TEXT_DEPTH_MAX];
    unsigned depth; /* the current container is depth - 1 */
    struct span key; /* the last one that was read, as it was written */
    unsigned key_line;
    char *error;
    size_t size;
};

static bool text_fail(struct text *text, const char *what) {
    (void)snprintf(text->error, text->size, "line %u: %s", text->line, what);
    return false;
}

static bool text_push(struct text *text, char kind) {
    if (text->depth == TEXT_DEPTH_MAX)
        return text_fail(text, "too many levels of brackets");
    text->states[text->depth] = TEXT_FIRST;
    text->stack[text->depth++] = kind;
    return buf_append(text->out, kind == '[' ? "[" : "{", 1);
}

static bool text_is_object(const struct text *text) { return text->stack[text->depth - 1] != '['; }

/* After an element: a lone member is complete with its value. */
static bool text_end_element(struct text *text) {
    text->states[text->depth - 1] = TEXT_AFTER;
    if (text->stack[text->depth - 1] != 'm')
        return true;
    text->depth--;
    text->states[text->depth - 1] = TEXT_AFTER;
    return buf_append(text->out, "}", 1);
}

static bool text_pop(struct text *text) {
    char kind = text->stack[text->depth - 1];
    enum text_state state = text->states[text->depth - 1];
    bool ok = true;
    if (kind != '[' && state == TEXT_KEY)
        ok = buf_append_text(text->out, ":null");
    else if (kind != '[' && state == TEXT_COLON)
        ok = buf_append_text(text->out, "null");
    text->depth--;
    return ok && buf_append(text->out, kind == '[' ? "]" : "}", 1) && (text->depth == 0 || text_end_element(text));
}

/* Before an element: the comma that the input may lack. */
static bool text_begin_element(struct text *text, bool is_key) {
    enum text_state *state = &text->states[text->depth - 1];
    if (text_is_object(text)) {
        if (*state == TEXT_KEY)
            return text_fail(text, "a ':' is missing");
        if (*state == TEXT_COLON)
            return is_key ? text_fail(text, "a value is missing") : true;
        if (!is_key)
            return text_fail(text, "a value without a name");
    }
    bool comma = *state == TEXT_AFTER;
    return !comma || buf_append(text->out, ",", 1);
}

static bool text_close(struct text *text, char closer) {
    char kind = closer == ']' ? '[' : '{';
    unsigned at = text->depth;
    while (at > 1 && text->stack[at - 1] != kind)
        at--;
    if (at <= 1)
        return true; /* closes nothing: its opener was not pasted */
    unsigned wanted = at - 1;
    while (text->depth > wanted)
        if (!text_pop(text))
            return false;
    return true;
}

/* Blanks, commas, comments and fences; line breaks are copied. */
static bool text_skip(struct text *text) {
    const char *p = text->in.p;
    size_t n = text->in.n;
    while (text->at < n) {
        char c = p[text->at];
        if (c == '\n') {
            text->line++;
            text->at++;
            if (!buf_append(text->out, "\n", 1))
                return false;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == ',' || c == ';') {
            text->at++;
        } else if (c == '/' && text->at + 1 < n && p[text->at + 1] == '*') {
            const char *end = memmem(p + text->at + 2, n - text->at - 2, "*/", 2);
            size_t stop = end ? (size_t)(end - p) + 2 : n;
            for (; text->at < stop; text->at++)
                if (p[text->at] == '\n' && (text->line++, !buf_append(text->out, "\n", 1)))
                    return false;
        } else if ((c == '/' && text->at + 1 < n && p[text->at + 1] == '/') || c == '`') {
            while (text->at < n && p[text->at] != '\n')
                text->at++;
        } else {
            return true;
        }
    }
    return true;
}

/* The string at the cursor, which is closed, as JSON: raw control characters and unknown escapes become valid ones. */
static bool text_string(struct text *text) {
    const char *p = text->in.p;
    bool ok = buf_append(text->out, "\"", 1);
    for (text->at++; ok && text->at < text->in.n && p[text->at] != '"'; text->at++) {
        char c = p[text->at];
        char next = text->at + 1 < text->in.n ? p[text->at + 1] : '\0';
        if (c == '\\' && next && strchr("\"\\/bfnrtu", next)) {
            ok = buf_append(text->out, p + text->at, 2);
            text->at++;
        } else if (c == '\\') {
            ok = buf_append(text->out, "\\\\", 2);
        } else if ((unsigned char)c < 0x20) {
            text->line += c == '\n';
            ok = buf_printf(text->out, "\\u%04x", (unsigned)c);
        } else {
            ok = buf_append(text->out, &c, 1);
        }
    }
    text->at++;
    return ok && buf_append(text->out, "\"", 1);
}

/* Where the string that begins at the cursor has its closing quote; the input's end, or behind it, if it has none. */
static size_t text_string_end(const struct text *text) {
    const char *p = text->in.p;
    size_t at = text->at + 1;
    while (at < text->in.n && p[at] != '"')
        at += p[at] == '\\' ? 2 : 1;
    return at;
}

/* Whether a ':' follows the string that ends there, or would in an object that is cut short. */
static bool text_is_key(const struct text *text, size_t end) {
    const char *p = text->in.p;
    size_t at = end;
    for (at++; at < text->in.n && strchr(" \t\r\n", p[at]);)
        at++;
    return at < text->in.n ? p[at] == ':' : text_is_object(text);
}

static bool text_take_string(struct text *text) {
    enum text_state *state = &text->states[text->depth - 1];
    size_t end = text_string_end(text);
    if (end >= text->in.n)
        return text_fail(text, "a string without its closing quote");
    bool key = text_is_key(text, end) && !(text_is_object(text) && *state == TEXT_COLON);
    if (key && !text_is_object(text)) {
        if (text->depth > 1)
            return text_fail(text, "a name in a list: braces are missing");
        if (!text_begin_element(text, false) || !text_push(text, 'm'))
            return false;
    } else if (!text_begin_element(text, key)) {
        return false;
    }
    if (key) {
        text->key = span_make(text->in.p + text->at + 1, end - text->at - 1);
        text->key_line = text->line;
    }
    if (!text_string(text))
        return false;
    if (!key)
        return text_end_element(text);
    text->states[text->depth - 1] = TEXT_KEY;
    return true;
}

/* true, false, null, a number; whatever else is there is shown. */
static bool text_take_word(struct text *text) {
    size_t start = text->at;
    while (text->at < text->in.n && !strchr(" \t\r\n,:;[]{}\"`", text->in.p[text->at]))
        text->at++;
    struct span word = span_make(text->in.p + start, text->at - start);
    bool number = word.n > 0 && (word.p[0] == '-' || (word.p[0] >= '0' && word.p[0] <= '9'));
    if (!number && !span_equal(word, SPAN("true")) && !span_equal(word, SPAN("false")) && !span_equal(word, SPAN("null"))) {
        char what[80];
        (void)snprintf(what, sizeof(what), "\"%.*s\" is no JSON", (int)(word.n < 40 ? word.n : 40), word.p);
        return text_fail(text, what);
    }
    return text_begin_element(text, false) && buf_append_span(text->out, word) && text_end_element(text);
}

static bool text_take(struct text *text) {
    char c = text->in.p[text->at];
    switch (c) {
    case '{':
    case '[':
        text->at++;
        return text_begin_element(text, false) && text_push(text, c);
    case '}':
    case ']':
        text->at++;
        return text_close(text, c);
    case ':':
        text->at++;
        if (!text_is_object(text) || text->states[text->depth - 1] != TEXT_KEY)
            return text_fail(text, "a ':' without a name before it");
        text->states[text->depth - 1] = TEXT_COLON;
        return buf_append(text->out, ":", 1);
    case '"':
        return text_take_string(text);
    default:
        return text_take_word(text);
    }
}

/* Brackets that were never closed are made good, a value that never came is not: there the input was cut short. */
static bool text_end(struct text *text) {
    enum text_state state = text->states[text->depth - 1];
    if (state == TEXT_KEY || state == TEXT_COLON) {
        char what[120];
        text->line = text->key_line;
        (void)snprintf(what, sizeof(what), "the JSON ends too early: the value of \"%.*s\" is missing",
                       (int)(text->key.n < 40 ? text->key.n : 40), text->key.p);
        return text_fail(text, what);
    }
    bool ok = true;
    while (ok && text->depth > 0)
        ok = text_pop(text);
    return ok;
}

bool arm_text_repair(struct span in, struct buf *out, unsigned *open, char *error, size_t size) {
    struct text text = {.in = in, .line = 1, .out = out, .error = error, .size = size};
    error[0] = '\0';
    if (in.n >= 3 && memcmp(in.p, "\xef\xbb\xbf", 3) == 0)
        text.at = 3;
    if (memchr(in.p ? in.p : "", '\0', in.n))
        return text_fail(&text, "a zero byte: save the file as UTF-8");
    bool ok = text_push(&text, '[');
    while (ok && (ok = text_skip(&text)) && text.at < in.n)
        ok = text_take(&text);
    *open = text.depth > 0 ? text.depth - 1 : 0;
    ok = ok && text_end(&text);
    if (!ok && error[0] == '\0')
        (void)snprintf(error, size, "the file is too large");
    return ok;
}
