/* SPDX-License-Identifier: MIT */
/*
 * mem: thin wrappers around malloc. Two families on purpose: what is small and ours aborts when memory is out,
 * since no caller could do better than stop; what a peer can make large returns NULL. The subtle thing: a size
 * of zero is rounded up to one byte, so that a NULL always means that memory is out.
 */
#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void mem_abort(void) {
    static const char text[] = "moongate: out of memory\n";
    /* No stdio here: it may want memory itself. */
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(134);
    abort();
}

void *mem_alloc(size_t size) { return mem_alloc_array(1, size); }

void *mem_alloc_array(size_t count, size_t size) {
    void *p = count && size ? calloc(count, size) : calloc(1, 1);
    if (!p)
        mem_abort();
    return p;
}

void *mem_resize(void *p, size_t size) {
    void *q = realloc(p, size ? size : 1);
    if (!q)
        mem_abort();
    return q;
}

char *mem_strdup(const char *text) { return text ? mem_strndup(text, strlen(text)) : NULL; }

char *mem_strndup(const char *p, size_t n) {
    if (n == SIZE_MAX)
        mem_abort();
    char *copy = malloc(n + 1);
    if (!copy)
        mem_abort();
    if (n)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

char *mem_printf(const char *format, ...) {
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0 || !text)
        mem_abort();
    return text;
}

void *mem_try_alloc(size_t size) { return malloc(size ? size : 1); }

void *mem_try_resize(void *p, size_t size) { return realloc(p, size ? size : 1); }

void mem_free(void *p) { free(p); }
