/* SPDX-License-Identifier: MIT */
/*
 * wire_fixture: judges a head as a connection would: http1_find_head() on what has come so far, then http1_read_*() on
 * the whole head, with the input cut at a place, at every place, or byte by byte (requirements A9). Each piece is
 * fed from memory of exactly its size, so that ASan sees a byte read too far.
 */
#ifndef MOONGATE_TESTS_WIRE_FIXTURE_H
#define MOONGATE_TESTS_WIRE_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/http1.h"

#define WIRE_MORE 1 /* verdict: not complete */
#define WIRE_OK 0   /* verdict: accepted; others are the status of the refusal */
#define WIRE_DIGEST 4096

static const struct http1_limits wire_limits = {
    .max_target = 8192, .max_head = 32768, .max_fields = 100, .underscores = HTTP1_UNDERSCORES_DROP};

struct wire_verdict {
    int verdict;
    bool mismatch;
    size_t head_size, skip;
    enum http_method method;
    uint16_t status;
    uint8_t minor;
    enum http_body body;
    uint64_t content_length;
    bool has_content_length, keep_alive, connection_upgrade, expect_continue;
    char digest[WIRE_DIGEST]; /* reason of a refusal, or method, target, reason, fields */
};

struct wire_head {
    bool is_response;
    enum http_method request_method;
    const struct http1_limits *limits;
};

static inline void wire_describe(struct wire_verdict *v, const struct http_message *m) {
    v->verdict = WIRE_OK;
    v->method = m->method;
    v->status = m->status;
    v->minor = m->minor;
    v->body = m->body;
    v->content_length = m->content_length;
    v->has_content_length = m->has_content_length;
    v->keep_alive = m->keep_alive;
    v->connection_upgrade = m->connection_upgrade;
    v->expect_continue = m->expect_continue;
    size_t at = (size_t)snprintf(v->digest, WIRE_DIGEST, "%.*s|%.*s|%.*s", SPAN_ARGS(m->method_name),
                                 (int)(m->target.n < 60 ? m->target.n : 60), m->target.p ? m->target.p : "",
                                 SPAN_ARGS(m->reason));
    for (unsigned i = 0; i < m->field_count && at < WIRE_DIGEST; i++) {
        const struct http_field *f = &m->fields[i];
        at += (size_t)snprintf(v->digest + at, WIRE_DIGEST - at, "|%u %u %.*s=%.*s", f->id, f->flags,
                               SPAN_ARGS(f->name), SPAN_ARGS(f->value));
    }
}

/* One look at the first n bytes. */
static inline bool wire_look(const struct wire_head *how, const char *data, size_t n, size_t *scanned,
                             struct wire_verdict *v) {
    struct http1_error error = {0};
    char *copy = malloc(n ? n : 1);
    bool done = true;
    memcpy(copy, data, n);
    enum http1_result result =
        http1_find_head(copy, n, how->is_response, how->limits, scanned, &v->head_size, &v->skip, &error);
    if (result == HTTP1_MORE) {
        v->verdict = WIRE_MORE;
        done = false;
    } else if (result == HTTP1_OK) {
        struct arena arena;
        struct http_message message;
        size_t size = v->head_size - v->skip;
        char *head = malloc(size);
        memcpy(head, copy + v->skip, size);
        arena_init(&arena, NULL, 1 << 20);
        http_message_init(&message, &arena);
        result = how->is_response
                     ? http1_read_response(head, size, how->limits, how->request_method, &message, &error)
                     : http1_read_request(head, size, how->limits, &message, &error);
        if (result == HTTP1_OK)
            wire_describe(v, &message);
        arena_fini(&arena);
        free(head);
    }
    if (result == HTTP1_BAD) {
        v->verdict = error.status;
        v->mismatch = error.mismatch;
        ck_assert_ptr_nonnull(error.reason);
        snprintf(v->digest, WIRE_DIGEST, "%s", error.reason);
    }
    free(copy);
    return done;
}

/* First cut bytes, then all; cut == SIZE_MAX: byte by byte. */
static inline void wire_judge_cut(const struct wire_head *how, struct span text, size_t cut, struct wire_verdict *v) {
    size_t scanned = 0;
    memset(v, 0, sizeof(*v));
    if (cut == SIZE_MAX) {
        for (size_t n = 0; n < text.n; n++) {
            if (wire_look(how, text.p, n, &scanned, v))
                return;
        }
    } else if (wire_look(how, text.p, cut, &scanned, v)) {
        return;
    }
    wire_look(how, text.p, text.n, &scanned, v);
    ck_assert_uint_le(scanned, text.n);
}

/* The verdict on text, the same for every cut. */
static inline struct wire_verdict wire_judge(const struct wire_head *how, struct span text) {
    static struct wire_verdict whole, other;
    const size_t step = text.n > 2000 ? text.n / 97 : 1;
    wire_judge_cut(how, text, 0, &whole);
    for (size_t cut = 0; cut <= text.n; cut += step) {
        const size_t at = cut == 0 && text.n <= 2000 ? SIZE_MAX : cut;
        wire_judge_cut(how, text, at, &other);
        ck_assert_msg(other.verdict == whole.verdict && strcmp(other.digest, whole.digest) == 0 &&
                          memcmp(&other, &whole, offsetof(struct wire_verdict, digest)) == 0,
                      "cut at %zu: %d %s, not %d %s, for: %.*s", at, other.verdict, other.digest, whole.verdict,
                      whole.digest, SPAN_ARGS(text));
    }
    return whole;
}

static inline struct wire_verdict wire_request(struct span text) {
    return wire_judge(&(struct wire_head){.limits = &wire_limits}, text);
}

static inline struct wire_verdict wire_response(struct span text, enum http_method request_method) {
    return wire_judge(
        &(struct wire_head){.is_response = true, .request_method = request_method, .limits = &wire_limits}, text);
}

struct wire_row {
    int verdict;
    struct span text;
};
#define WIRE_ROW(verdict, literal) {verdict, {literal, sizeof(literal) - 1}}

static inline void wire_rows(bool is_response, const struct wire_row *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct wire_verdict v = is_response ? wire_response(rows[i].text, HTTP_GET) : wire_request(rows[i].text);
        ck_assert_msg(v.verdict == rows[i].verdict && !v.mismatch, "%d (%s), not %d, for: %.*s", v.verdict, v.digest,
                      rows[i].verdict, SPAN_ARGS(rows[i].text));
    }
}

static inline int wire_run(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
