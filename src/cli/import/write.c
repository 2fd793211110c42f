/* SPDX-License-Identifier: MIT */
/*
 * write: pieces of the Moongate file. Whatever comes from the template passes through arm_quote() or a comment's folding, so that no text in
 * a template can become code: control characters are escaped, and a comment has no line break but ours.
 */
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/import/arm.h"

#define WRITE_COLUMNS 118
#define WRITE_NAME_MAX 64 /* of a declaration's name */

void arm_write(struct arm *arm, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !buf_reserve(&arm->out, (size_t)n + 1))
        mem_abort();
    va_start(args, format);
    (void)vsnprintf(buf_tail(&arm->out), (size_t)n + 1, format, args);
    va_end(args);
    buf_commit(&arm->out, (size_t)n);
}

static void write_bytes(struct arm *arm, const char *p, size_t n) {
    if (!buf_append(&arm->out, p, n))
        mem_abort();
}

/* Words until a line is full; what is not printable ASCII or UTF-8 becomes '?'. */
static void write_folded(struct arm *arm, const char *first, const char *next, const char *text) {
    size_t column = strlen(first);
    write_bytes(arm, first, column);
    while (*text) {
        size_t blanks = strspn(text, " \t\r\n");
        text += blanks;
        size_t n = strcspn(text, " \t\r\n");
        if (n == 0)
            break;
        if (column + n + 1 > WRITE_COLUMNS && column > strlen(next)) {
            write_bytes(arm, "\n", 1);
            column = strlen(next);
            write_bytes(arm, next, column);
        }
        write_bytes(arm, " ", 1);
        for (size_t i = 0; i < n;) {
            size_t length = str_utf8_printable(text + i, n - i);
            write_bytes(arm, length ? text + i : "?", length ? length : 1);
            i += length ? length : 1;
        }
        column += n + 1;
        text += n;
    }
    write_bytes(arm, "\n", 1);
}

#define WRITE_TEXT(text)                                    \
    char text[1024];                                        \
    va_list args;                                           \
    va_start(args, format);                                 \
    (void)vsnprintf(text, sizeof(text), format, args);      \
    va_end(args)

void arm_note(struct arm *arm, const char *format, ...) {
    WRITE_TEXT(text);
    arm->notes++;
    write_folded(arm, "-- NOTE:", "--  ", text);
}

void arm_comment(struct arm *arm, const char *format, ...) {
    WRITE_TEXT(text);
    write_folded(arm, "--", "--", text);
}

const char *arm_quote(struct arm *arm, const char *text) {
    struct buf out;
    buf_init(&out, 1 << 20);
    buf_append(&out, "\"", 1);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            buf_printf(&out, "\\%c", *p);
        else if ((unsigned char)*p < 0x20 || *p == 0x7f)
            buf_printf(&out, "\\%03u", (unsigned)(unsigned char)*p);
        else
            buf_append(&out, p, 1);
    }
    buf_append(&out, "\"", 1);
    struct span quoted = buf_span(&out);
    const char *kept = arm_format(arm, "%.*s", SPAN_ARGS(quoted));
    buf_release(&out);
    return kept;
}

const char *arm_quote_name(struct arm *arm, const char *name) {
    struct buf out;
    buf_init(&out, 1 << 20);
    for (const char *p = name; *p; p++)
        buf_append(&out, (unsigned char)*p <= 0x20 || *p == 0x7f || *p == '"' || *p == '\\' ? "-" : p, 1);
    struct span clean = buf_span(&out);
    const char *kept;
    if (clean.n > WRITE_NAME_MAX) /* its end would be cut: the hash keeps two such names apart */
        kept = arm_format(arm, "\"%.*s-%08x\"", WRITE_NAME_MAX - 10, clean.p, (unsigned)str_hash(clean));
    else
        kept = arm_format(arm, "\"%.*s\"", SPAN_ARGS(clean));
    buf_release(&out);
    return kept;
}

const char *arm_quote_pattern(struct arm *arm, const char *text, bool lower) {
    struct buf out;
    buf_init(&out, 1 << 20);
    buf_append(&out, "^", 1);
    for (const char *p = text; *p; p++) {
        char c = lower ? str_lower(*p) : *p;
        if (c == '*')
            buf_append_text(&out, ".*");
        else if (c == '?')
            buf_append_text(&out, ".");
        else if (strchr("^$()%.[]+-", c))
            buf_printf(&out, "%%%c", c);
        else
            buf_append(&out, &c, 1);
    }
    buf_append(&out, "$", 2);
    const char *quoted = arm_quote(arm, buf_span(&out).p);
    buf_release(&out);
    return quoted;
}
