/* SPDX-License-Identifier: MIT */
/*
 * log: what the process says. Before log_start() lines go straight to stderr (command-line use).
 * After it, each attached thread writes into a ring of its own and one log thread writes it out,
 * blocking; a full ring drops the line and counts it (requirements D28), so that a log that cannot be
 * written never delays traffic. Diagnostics go to stderr, access lines to where log_options say.
 */
#ifndef MOONGATE_BASE_LOG_H
#define MOONGATE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct log_options {
    enum log_level level;
    const char *access_to; /* "stdout", "stderr", or a file's path (appended); NULL: no access log */
};

#define LOG_LINE_MAX 16384 /* a longer line is cut */

/* Opens the access log and starts the log thread. False with errno set if the file cannot be opened. */
bool log_start(const struct log_options *options);
/* Writes out all rings, stops the thread; lines go straight to stderr again. */
void log_stop(void);
/* Gives the calling thread a ring. Call once a thread, after log_start(); name is a literal. */
void log_attach(const char *name);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* One diagnostic line: time, level, text. Control bytes are escaped (requirements D29). No newline in format. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One access line, complete and already escaped, without its newline. */
void log_access(const char *line, size_t n);
/* Lines dropped since the start. */
uint64_t log_dropped(void);

#endif
