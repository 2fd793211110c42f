/* SPDX-License-Identifier: MIT */
/*
 * mem: allocation. Small fixed objects may not fail: mem_alloc() aborts with a message when memory
 * is out. Whatever a peer can make large goes through mem_try_*(), which return NULL and cost
 * that connection only.
 */
#ifndef MOONGATE_BASE_MEM_H
#define MOONGATE_BASE_MEM_H

#include <stddef.h>

/* Zeroed memory; never NULL (aborts). Free with mem_free(). */
void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
/* Zeroed array of count * size bytes, overflow checked; never NULL (aborts). */
void *mem_alloc_array(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
/* Grows or shrinks to size bytes, new bytes undefined; never NULL (aborts). */
void *mem_resize(void *p, size_t size) __attribute__((returns_nonnull));
/* A copy of the NUL-terminated text; NULL gives NULL; aborts when memory is out. */
char *mem_strdup(const char *text);
/* A NUL-terminated copy of n bytes; aborts when memory is out. */
char *mem_strndup(const char *p, size_t n);
/* printf into fresh memory; aborts when memory is out. */
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

/* Undefined contents; NULL when memory is out. Free with mem_free(). */
void *mem_try_alloc(size_t size) __attribute__((malloc));
/* Like realloc; NULL when memory is out (p is still valid then). */
void *mem_try_resize(void *p, size_t size);

/* Says that memory is out and aborts. */
void mem_abort(void) __attribute__((noreturn));

/* Frees; NULL is fine. */
void mem_free(void *p);

/* The struct that holds member at address ptr. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
