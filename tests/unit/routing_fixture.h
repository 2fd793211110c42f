/* SPDX-License-Identifier: MIT */
/*
 * routing_fixture: a configuration made by hand and a subject read from text, for the tests of subject, routes, decide,
 * forward.
 */
#ifndef MOONGATE_TESTS_ROUTING_FIXTURE_H
#define MOONGATE_TESTS_ROUTING_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "traffic/subject.h"
#include "wire/http1.h"

/* A listener and settings to prepare subjects with; tests change them as they need. */
struct fixture {
    struct config_listener listener;
    struct config_settings settings;
    struct addr peer;
    uint16_t local_port;
    const char *reason;
};

static inline void fixture_init(struct fixture *fixture) {
    memset(fixture, 0, sizeof *fixture);
    char *name = "http";
    fixture->listener.name = name;
    fixture->local_port = 8080;
    ck_assert(addr_parse(SPAN("192.0.2.7:4711"), 0, &fixture->peer));
}

static const struct http1_limits fixture_limits = {8192, 32768, 100, HTTP1_UNDERSCORES_DROP};

/* Reads head (static text: the subject points into it) and prepares; returns subject_prepare()'s status. */
static inline unsigned fixture_prepare(struct fixture *fixture, struct subject *subject, const char *head) {
    struct http1_error error = {0};
    subject_init(subject, NULL);
    enum http1_result result = http1_read_request(head, strlen(head), &fixture_limits, &subject->head, &error);
    ck_assert_msg(result == HTTP1_OK, "%s: %u %s", head, error.status, error.reason ? error.reason : "");
    return subject_prepare(subject, &fixture->listener, &fixture->settings, &fixture->peer, fixture->local_port, NULL,
                           &fixture->reason);
}

#define FIXTURE_HANDSHAKE                                                                                              \
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: "                                                 \
    "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

#define ck_assert_span(have, text)                                                                                     \
    do {                                                                                                               \
        struct span have_ = (have);                                                                                    \
        const char *text_ = (text);                                                                                    \
        ck_assert_msg(have_.p &&have_.n == strlen(text_) && memcmp(have_.p, text_, have_.n) == 0,                      \
                      "%s is \"%.*s\", not \"%s\"", #have, SPAN_ARGS(have_), text_);                                   \
    } while (0)

static inline int fixture_run(const char *name, void (*add)(TCase *)) {
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create(name);
    add(tests);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
