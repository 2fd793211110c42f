/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/log: the form of lines, where they go, that no line is lost without being counted, and that a
 * destination that blocks or fails never delays who logs. Each test runs in a process of its own and may redirect its
 * descriptors.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static char test_log_folder[] = "/tmp/test_log.XXXXXX";
static char test_log_access_path[64], test_log_error_path[64];

static void test_log_setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(test_log_folder));
    snprintf(test_log_access_path, sizeof(test_log_access_path), "%s/access", test_log_folder);
    snprintf(test_log_error_path, sizeof(test_log_error_path), "%s/error", test_log_folder);
    int fd = open(test_log_error_path, O_RDWR | O_CREAT | O_APPEND, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    signal(SIGPIPE, SIG_IGN);
}

static void test_log_teardown(void) {
    unlink(test_log_access_path);
    unlink(test_log_error_path);
    rmdir(test_log_folder);
}

/* The whole file, NUL-terminated; to be freed. */
static char *test_log_read(const char *path, size_t *size) {
    struct stat st;
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    char *text = malloc((size_t)st.st_size + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(read(fd, text, (size_t)st.st_size), st.st_size);
    close(fd);
    text[st.st_size] = '\0';
    if (size)
        *size = (size_t)st.st_size;
    return text;
}

static size_t test_log_count_lines(const char *p, size_t n) {
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

static void test_log_pause(long ms) {
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

START_TEST(test_log_direct) {
    log_error("no %s", "file");
    log_warn("careful");
    log_info("hello");
    log_debug("not at this level");
    log_access("{}", 2); /* goes nowhere */
    errno = ENOENT;
    log_info("kept");
    ck_assert_int_eq(errno, ENOENT);
    char *text = test_log_read(test_log_error_path, NULL);
    ck_assert_str_eq(text, "moongate: error: no file\nmoongate: warning: careful\nmoongate: hello\nmoongate: kept\n");
    free(text);
}
END_TEST

START_TEST(test_log_lines) {
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = test_log_access_path};
    ck_assert(log_start(&options));
    ck_assert(!log_start(&options));
    log_attach("test");
    log_info("one");
    log_warn("%s", "a\nb\x1b[1m\x7f\xff \xe2\x82\xac");
    log_debug("hidden");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("shown");
    log_access("{\"a\":1}", 7);
    log_access("{\"b\":2}", 7);
    log_stop();
    log_info("direct again");
    char *text = test_log_read(test_log_error_path, NULL);
    /* 2026-11-22T12:00:00.123Z info  one */
    ck_assert_int_eq(text[10], 'T');
    ck_assert_int_eq(text[23], 'Z');
    ck_assert(strncmp(text + 24, " info  one\n20", 13) == 0);
    ck_assert_ptr_nonnull(strstr(text, "Z warn  a\\nb\\x1b[1m\\x7f\\xff \xe2\x82\xac\n"));
    ck_assert_ptr_null(strstr(text, "hidden"));
    ck_assert_ptr_nonnull(strstr(text, "Z debug shown\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nmoongate: direct again\n"));
    free(text);
    text = test_log_read(test_log_access_path, NULL);
    ck_assert_str_eq(text, "{\"a\":1}\n{\"b\":2}\n");
    free(text);
    ck_assert_uint_eq(log_dropped(), 0);
}
END_TEST

START_TEST(test_log_long_line_is_cut) {
    static char huge[3 * LOG_LINE_MAX];
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = test_log_access_path};
    memset(huge, '\x01', sizeof(huge) - 1);
    ck_assert(log_start(&options));
    log_info("%s", huge);
    log_access(huge, sizeof(huge) - 1);
    log_info("next");
    log_stop();
    size_t size;
    char *text = test_log_read(test_log_error_path, &size);
    ck_assert_uint_eq(test_log_count_lines(text, size), 2);
    ck_assert_uint_le((size_t)(strchr(text, '\n') - text), LOG_LINE_MAX);
    ck_assert(strncmp(strchr(text, '\n') - 7, "\\x01...", 7) == 0);
    free(text);
    text = test_log_read(test_log_access_path, &size);
    ck_assert_uint_eq(size, LOG_LINE_MAX + 1);
    free(text);
}
END_TEST

START_TEST(test_log_start_fails) {
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = "/nonexistent/folder/access.log"};
    ck_assert(!log_start(&options));
    ck_assert_int_eq(errno, ENOENT);
    options.access_to = NULL; /* none at all is fine */
    ck_assert(log_start(&options));
    log_access("{}", 2);
    log_stop();
    ck_assert_uint_eq(log_dropped(), 0);
}
END_TEST

#define TEST_LOG_THREADS 4
#define TEST_LOG_LINES 20000

static void *test_log_run(void *name) {
    char line[200], dashes[100] = {0};
    memset(dashes, '-', sizeof(dashes) - 1);
    int base = *(int *)name;
    log_attach("test");
    for (int i = 0; i < TEST_LOG_LINES; i++) {
        int n = snprintf(line, sizeof(line), "%d %d %.*s", base, i, i % 97, dashes);
        log_access(line, (size_t)n);
        if (i % 500 == 0)
            test_log_pause(1);
    }
    return NULL;
}

/* Two rounds of threads, the second in the rings of the first: nothing is torn, doubled or out of order. */
START_TEST(test_log_threads) {
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = test_log_access_path};
    pthread_t threads[TEST_LOG_THREADS];
    int names[TEST_LOG_THREADS], last[2 * TEST_LOG_THREADS];
    ck_assert(log_start(&options));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < TEST_LOG_THREADS; i++) {
            names[i] = round * TEST_LOG_THREADS + i;
            last[names[i]] = -1;
            ck_assert_int_eq(pthread_create(&threads[i], NULL, test_log_run, &names[i]), 0);
        }
        for (int i = 0; i < TEST_LOG_THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    log_stop();
    char *text = test_log_read(test_log_access_path, NULL);
    size_t lines = 0;
    for (char *p = text, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
        char *rest;
        long name = strtol(p, &rest, 10), number = strtol(rest, &rest, 10);
        ck_assert(name >= 0 && name < 2 * TEST_LOG_THREADS && number > last[name] && number < TEST_LOG_LINES);
        ck_assert_int_eq(end - rest - 1, number % 97);
        last[name] = (int)number;
        lines++;
    }
    free(text);
    ck_assert_uint_eq(lines + log_dropped(), 2 * TEST_LOG_THREADS * TEST_LOG_LINES);
    ck_assert_uint_gt(lines, TEST_LOG_LINES); /* most, in truth */
}
END_TEST

/* Standard output is a pipe that nobody reads: who logs goes on at once, every line is read later or counted. */
START_TEST(test_log_blocked) {
    int ends[2];
    enum { LINES = 20000 };
    char line[100];
    memset(line, 'x', sizeof(line));
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
    close(ends[1]);
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = "stdout"};
    ck_assert(log_start(&options));
    log_attach("test");
    uint64_t start_ms = clock_ms();
    for (int i = 0; i < LINES; i++)
        log_access(line, sizeof(line));
    ck_assert_uint_lt(clock_ms() - start_ms, 20000);
    ck_assert_uint_gt(log_dropped(), 0);
    ck_assert_int_eq(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0); /* left as it was */

    static char got[65536];
    size_t lines = 0;
    uint64_t dropped = log_dropped();
    while (lines + dropped < LINES) {
        ssize_t n = read(ends[0], got, sizeof(got));
        ck_assert_int_gt(n, 0);
        lines += test_log_count_lines(got, (size_t)n);
    }
    ck_assert_uint_eq(lines + log_dropped(), LINES);
    log_stop();
    size_t size;
    char *text = test_log_read(test_log_error_path, &size); /* and the operator was told */
    ck_assert_ptr_nonnull(strstr(text, " log lines dropped\n"));
    free(text);
}
END_TEST

START_TEST(test_log_broken_pipe) {
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = "stdout"};
    ck_assert(log_start(&options));
    for (int i = 0; i < 100; i++)
        log_access("{}", 2);
    log_info("still here");
    log_stop();
    ck_assert_uint_eq(log_dropped(), 100);
    char *text = test_log_read(test_log_error_path, NULL);
    ck_assert_ptr_nonnull(strstr(text, "still here\n"));
    free(text);
}
END_TEST

START_TEST(test_log_disk_full) {
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = "/dev/full"};
    ck_assert(log_start(&options));
    for (int i = 0; i < 100; i++)
        log_access("{}", 2);
    log_stop();
    ck_assert_uint_eq(log_dropped(), 100);
}
END_TEST

/* A destination that blocks for ever must not keep the process from ending. */
START_TEST(test_log_stop_gives_up) {
    int ends[2];
    char line[1000];
    memset(line, 'x', sizeof(line));
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = "stdout"};
    ck_assert(log_start(&options));
    for (int i = 0; i < 200; i++)
        log_access(line, sizeof(line));
    uint64_t start_ms = clock_ms();
    log_stop();
    ck_assert_uint_lt(clock_ms() - start_ms, 30000);
    log_info("after all"); /* stderr is a file and takes it */
    char *text = test_log_read(test_log_error_path, NULL);
    ck_assert_ptr_nonnull(strstr(text, "moongate: after all\n"));
    free(text);
}
END_TEST

/* A log thread that went idle still writes a single line soon. */
START_TEST(test_log_wakes) {
    struct log_options options = {.level = LOG_LEVEL_INFO, .access_to = test_log_access_path};
    struct stat st = {0};
    ck_assert(log_start(&options));
    test_log_pause(200);
    log_access("first", 5);
    for (int i = 0; i < 100 && st.st_size == 0; i++) {
        test_log_pause(20);
        ck_assert_int_eq(stat(test_log_access_path, &st), 0);
    }
    ck_assert_int_eq(st.st_size, 6);
    log_stop();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, test_log_setup, test_log_teardown);
    tcase_add_test(tc, test_log_direct);
    tcase_add_test(tc, test_log_lines);
    tcase_add_test(tc, test_log_long_line_is_cut);
    tcase_add_test(tc, test_log_start_fails);
    tcase_add_test(tc, test_log_threads);
    tcase_add_test(tc, test_log_blocked);
    tcase_add_test(tc, test_log_broken_pipe);
    tcase_add_test(tc, test_log_disk_full);
    tcase_add_test(tc, test_log_stop_gives_up);
    tcase_add_test(tc, test_log_wakes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
