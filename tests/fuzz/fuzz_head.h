/* SPDX-License-Identifier: MIT */
/*
 * fuzz_head: what fuzz_request and fuzz_response share. A head is judged whole and cut in two; the verdicts must agree,
 * and guard and http-parser must never differ on what the guard accepts. The first byte of the input chooses the cut.
 */
#ifndef MOONGATE_TESTS_FUZZ_HEAD_H
#define MOONGATE_TESTS_FUZZ_HEAD_H

#include <stdlib.h>
#include <string.h>

#include "wire/http1.h"

static const struct http1_limits fuzz_limits = {
    .max_target = 300, .max_head = 2000, .max_fields = 40, .underscores = HTTP1_UNDERSCORES_DROP};

static inline void fuzz_read(const char *data, size_t n, bool is_response) {
    struct arena arena;
    struct http_message message;
    struct http1_error error = {0};
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&message, &arena);
    const enum http1_result result =
        is_response ? http1_read_response(data, n, &fuzz_limits, HTTP_GET, &message, &error)
                    : http1_read_request(data, n, &fuzz_limits, &message, &error);
    if (error.mismatch || (result == HTTP1_BAD && (error.status == 0 || !error.reason)))
        abort();
    if (result == HTTP1_OK) {
        struct buf out;
        buf_init(&out, 1 << 16);
        http_mark_hops(&message);
        if (!http1_write_fields(&out, &message))
            abort();
        buf_release(&out);
    }
    arena_fini(&arena);
}

static inline enum http1_result fuzz_find(const char *data, size_t n, bool is_response, size_t *scanned, size_t *size,
                                          size_t *skip, struct http1_error *error) {
    char *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    const enum http1_result result = http1_find_head(copy, n, is_response, &fuzz_limits, scanned, size, skip, error);
    free(copy);
    return result;
}

static inline int fuzz_head(const uint8_t *input, size_t n, bool is_response) {
    if (n < 1)
        return 0;
    const char *data = (const char *)input + 1;
    size_t scanned = 0, size = 0, skip = 0, other_size = 0, other_skip = 0;
    struct http1_error error = {0}, other_error = {0};
    const size_t cut = --n > 0 ? input[0] * n / 256 : 0;
    const enum http1_result result = fuzz_find(data, n, is_response, &scanned, &size, &skip, &error);
    scanned = 0;
    enum http1_result other = fuzz_find(data, cut, is_response, &scanned, &other_size, &other_skip, &other_error);
    if (other == HTTP1_MORE)
        other = fuzz_find(data, n, is_response, &scanned, &other_size, &other_skip, &other_error);
    if (result != other || size != other_size || skip != other_skip || error.status != other_error.status ||
        error.reason != other_error.reason)
        abort();
    if (result == HTTP1_OK) {
        char *head = malloc(size - skip);
        memcpy(head, data + skip, size - skip);
        fuzz_read(head, size - skip, is_response);
        free(head);
    }
    return 0;
}

#endif
