/* SPDX-License-Identifier: MIT */
/* load_fixture: a folder of configuration files, a load of one, and what it said. For the tests of loading. */
#ifndef MOONGATE_TEST_LOAD_FIXTURE_H
#define MOONGATE_TEST_LOAD_FIXTURE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/metrics.h"
#include "script/load_private.h"

static char load_folder[64], load_said[65536];
static struct script_load *loaded;

static inline const char *load_path(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", load_folder, name);
    return path;
}

static inline void load_write(const char *name, const char *text) {
    FILE *file = fopen(load_path(name), "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

/* Lines without the folder, so that tests can name them. */
static inline void load_on_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    (void)is_error;
    size_t at = strlen(load_said), folder = strlen(load_folder) + 1;
    if (strncmp(text, load_folder, folder - 1) == 0)
        text += folder;
    snprintf(load_said + at, sizeof load_said - at, "%s\n", text);
}

/* Loads text as moongate.lua; what was said is in load_said. */
static inline struct config *load_text(const char *text) {
    script_load_free(&loaded);
    load_said[0] = '\0';
    load_write("moongate.lua", text);
    loaded = script_load_file(load_path("moongate.lua"), load_on_report, NULL);
    return loaded ? script_load_config(loaded) : NULL;
}

/* The same with a listener and the pool "web" before it, on line 1. */
static inline struct config *load_rest(const char *rest) {
    char text[16384];
    snprintf(text, sizeof text, "listener 'http' { bind = '127.0.0.1:18080' } pool 'web' { servers = { '127.0.0.1:9000' } }\n%s", rest);
    return load_text(text);
}

static inline struct config *load_good(const char *rest) {
    struct config *config = load_rest(rest);
    ck_assert_msg(config != NULL, "refused: %s", load_said);
    ck_assert_msg(load_said[0] == '\0', "said: %s", load_said);
    return config;
}

static inline void load_bad(const char *rest, const char *expected) {
    ck_assert_msg(load_rest(rest) == NULL, "accepted: %s", rest);
    ck_assert_msg(strstr(load_said, expected) != NULL, "expected: %s\nsaid: %s", expected, load_said);
}

static inline void load_setup(void) {
    snprintf(load_folder, sizeof load_folder, "/tmp/moongate-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(load_folder));
    metrics_attach();
}

static inline void load_teardown(void) {
    static const char *const names[] = {"moongate.lua", "a.lua", "b.lua", "c.txt", "cert.pem", "key.pem"};
    script_load_free(&loaded);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(load_path(names[i]));
    ck_assert_int_eq(rmdir(load_folder), 0);
}

static inline int load_run_tests(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif
