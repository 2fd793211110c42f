/* SPDX-License-Identifier: MIT */
/*
 * report: the mistakes of a load, kept until all are known and then handed out in the order of files and lines. The scan for globals and the
 * run of the file can both find one mistake; equal texts are said once. The subtle thing: Lua shortens long file names in its messages
 * ("...tc/moongate/x.lua:3:"), so those are matched by their end and written out in full.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "base/str.h"
#include "script/load_private.h"

unsigned load_report_file(struct load_report *report, const char *file) {
    for (unsigned i = 0; i < report->file_count; i++)
        if (strcmp(report->files[i], file) == 0)
            return i;
    report->files = mem_resize(report->files, (report->file_count + 1) * sizeof(*report->files));
    report->files[report->file_count] = mem_strdup(file);
    return report->file_count++;
}

static void load_report_push(struct load_report *report, unsigned file, int line, bool is_error, char *text) {
    if (report->count == report->cap) {
        report->cap = report->cap ? report->cap * 2 : 16;
        report->list = mem_resize(report->list, report->cap * sizeof(*report->list));
    }
    struct load_mistake *mistake = &report->list[report->count];
    *mistake = (struct load_mistake){.file = file, .line = line, .order = report->count, .is_error = is_error, .text = text};
    report->count++;
    report->errors += is_error;
}

void load_report_add(struct load_report *report, struct config_place place, bool is_error, const char *text) {
    unsigned file = load_report_file(report, place.file);
    const char *mark = is_error ? "" : "warning: ";
    char *line = place.line > 0 ? mem_printf("%s:%d: %s%s", place.file, place.line, mark, text)
                                : mem_printf("%s: %s%s", place.file, mark, text);
    load_report_push(report, file, place.line, is_error, line);
}

/* True when Lua's name for a chunk, short[0..n), stands for file. */
static bool load_report_names(const char *file, const char *shortened, size_t n) {
    size_t whole = strlen(file);
    if (n > 3 && memcmp(shortened, "...", 3) == 0)
        return whole >= n - 3 && memcmp(file + whole - (n - 3), shortened + 3, n - 3) == 0;
    return whole == n && memcmp(file, shortened, n) == 0;
}

void load_report_add_lua(struct load_report *report, const char *file, const char *text) {
    for (unsigned i = 0; i < report->file_count; i++) {
        for (const char *colon = strchr(text, ':'); colon; colon = strchr(colon + 1, ':')) {
            if (!load_report_names(report->files[i], text, (size_t)(colon - text)))
                continue;
            char *end;
            long line = strtol(colon + 1, &end, 10);
            if (end == colon + 1 || *end != ':' || line < 0 || line > 0x7fffffff)
                continue;
            end += end[1] == ' ' ? 2 : 1;
            load_report_push(report, i, (int)line, true, mem_printf("%s:%ld: %s", report->files[i], line, end));
            return;
        }
    }
    load_report_add(report, (struct config_place){.file = file}, true, text);
}

static int load_report_compare(const void *a, const void *b) {
    const struct load_mistake *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static bool load_report_said(const struct load_report *report, unsigned i) {
    for (unsigned j = i; j-- > 0 && report->list[j].file == report->list[i].file && report->list[j].line == report->list[i].line;)
        if (strcmp(report->list[j].text, report->list[i].text) == 0)
            return true;
    return false;
}

void load_report_flush(struct load_report *report, script_report_fn *fn, void *owner) {
    if (report->count > 1)
        qsort(report->list, report->count, sizeof(*report->list), load_report_compare);
    for (unsigned i = 0; fn && i < report->count; i++)
        if (!load_report_said(report, i))
            fn(owner, report->list[i].is_error, report->list[i].text);
}

void load_report_fini(struct load_report *report) {
    for (unsigned i = 0; i < report->count; i++)
        mem_free(report->list[i].text);
    for (unsigned i = 0; i < report->file_count; i++)
        mem_free(report->files[i]);
    mem_free(report->list);
    mem_free(report->files);
    *report = (struct load_report){0};
}
