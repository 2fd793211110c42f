/* SPDX-License-Identifier: MIT */
/* log_writer: the log thread, which empties all rings into their files. Private to log. */
#ifndef MOONGATE_BASE_LOG_WRITER_H
#define MOONGATE_BASE_LOG_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts the thread. access_fd: -1 for none, else borrowed until the stop. False with errno set. */
bool log_writer_start(int access_fd);
/*
 * Writes out what the rings hold and ends the thread. False when a destination blocks (3 s without progress): the
 * thread is left behind then, and its descriptors must stay open.
 */
bool log_writer_stop(void);
/* Called by a thread whose ring is crowded: a system call only when the log thread sleeps. */
void log_writer_wake(void);
/* All of n bytes, blocking; returns how many were written before an error (errno set). */
size_t log_writer_write(int fd, const char *p, size_t n);
/* Lines that a destination refused. */
uint64_t log_writer_dropped(void);

#endif
