/* SPDX-License-Identifier: MIT */
/*
 * Processors, descriptors, identity. Workers follow what the process may really use: the affinity mask, and the quota of its cgroup, since a
 * container with one processor's worth of time gains nothing from sixteen threads.
 *
 * The subtle one: credentials are per thread in the kernel, so they are dropped before the first thread exists.
 */
#include "control/machine.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MACHINE_RESERVE 64   /* descriptors kept for logs, probes, resolving, accept errors */
#define MACHINE_A_WORKER 8   /* a loop, its mailbox, and room to move */

/* Whole processors of the cgroup v2 quota, or 0 when there is none. */
static unsigned machine_quota(void) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!file)
        return 0;
    unsigned long long quota = 0, period = 0;
    int got = fscanf(file, "%llu %llu", &quota, &period); /* "max 100000" gives 0 */
    fclose(file);
    if (got != 2 || quota == 0 || period == 0)
        return 0;
    return (unsigned)((quota + period - 1) / period);
}

unsigned machine_processors(void) {
    cpu_set_t set;
    unsigned count = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        count = (unsigned)CPU_COUNT(&set);
    unsigned quota = machine_quota();
    if (quota > 0 && quota < count)
        count = quota;
    return count > 0 ? count : 1;
}

unsigned machine_max_connections(size_t limit, unsigned workers, unsigned listeners) {
    size_t reserve = MACHINE_RESERVE + (size_t)workers * MACHINE_A_WORKER + listeners;
    if (limit <= reserve + 2)
        return 1;
    size_t count = (limit - reserve) / 2;
    return count > 10000000 ? 10000000 : (unsigned)count;
}

static bool machine_fail(char *error, size_t size, const char *what, const char *name) {
    snprintf(error, size, "settings: %s \"%s\": %s", what, name, errno ? strerror(errno) : "no such name");
    return false;
}

bool machine_drop_privileges(const struct config_settings *settings, char *error, size_t size) {
    if (!settings->user && !settings->group)
        return true;
    if (geteuid() != 0) {
        snprintf(error, size, "settings: user and group can only be changed by root: start as root or leave them out");
        return false;
    }
    errno = 0;
    const struct passwd *user = settings->user ? getpwnam(settings->user) : NULL;
    if (settings->user && !user)
        return machine_fail(error, size, "user", settings->user);
    uid_t uid = user ? user->pw_uid : 0;
    gid_t gid = user ? user->pw_gid : getgid();
    const struct group *group = settings->group ? getgrnam(settings->group) : NULL;
    if (settings->group && !group)
        return machine_fail(error, size, "group", settings->group);
    if (group)
        gid = group->gr_gid;
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0)
        return machine_fail(error, size, "group", settings->group ? settings->group : settings->user);
    if (user && setresuid(uid, uid, uid) != 0)
        return machine_fail(error, size, "user", settings->user);
    if ((user && uid != 0 && setuid(0) == 0) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        snprintf(error, size, "settings: the privileges of root could not be given up");
        return false;
    }
    return true;
}

static bool machine_readable(const char *path, char *error, size_t size) {
    if (!path || access(path, R_OK) == 0)
        return true;
    snprintf(error, size, "the user in force cannot read \"%s\" (%s): a reload would fail", path, strerror(errno));
    return false;
}

bool machine_check_files(const struct config *config, char *error, size_t size) {
    if (!machine_readable(config->file, error, size))
        return false;
    for (unsigned i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        if (!machine_readable(listener->client_ca, error, size))
            return false;
        for (unsigned j = 0; j < listener->certificate_count; j++)
            if (!machine_readable(listener->certificates[j].cert, error, size) ||
                !machine_readable(listener->certificates[j].key, error, size))
                return false;
    }
    for (unsigned i = 0; i < config->pool_count; i++) {
        const struct config_pool *pool = &config->pools[i];
        if (!machine_readable(pool->tls_ca, error, size) || !machine_readable(pool->tls_cert, error, size) ||
            !machine_readable(pool->tls_key, error, size))
            return false;
    }
    return true;
}
