/* SPDX-License-Identifier: MIT */
/* machine: what this process may use of its machine: processors, descriptors, another user's identity. */
#ifndef MOONGATE_CONTROL_MACHINE_H
#define MOONGATE_CONTROL_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

/* Processors of the affinity mask, cut to the cgroup's quota (rounded up); at least 1. */
unsigned machine_processors(void);
/* Client connections that the descriptor limit allows when each may become a tunnel (two descriptors). */
unsigned machine_max_connections(size_t descriptor_limit, unsigned workers, unsigned listeners);
/*
 * Drops to settings' user and group, when named: groups, gid, uid, each checked, then no_new_privs. Before any thread exists (requirements F37). False
 * with a sentence in error[size].
 */
bool machine_drop_privileges(const struct config_settings *settings, char *error, size_t size);
/* Files of the configuration that the user in force cannot read: false with the first one's name in error[size]. */
bool machine_check_files(const struct config *config, char *error, size_t size);

#endif
