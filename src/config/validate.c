/* SPDX-License-Identifier: MIT */
/*
 * validate: what can only be judged once a whole file is declared, or needs a look at the machine: addresses
 * used twice, files that cannot be read, listeners or servers that are missing. Every mistake is reported,
 * none stops the search. The subtle thing: files are opened and a byte is read, as access() would answer for
 * the wrong user and takes a directory for readable.
 */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct validate {
    const struct config *config;
    config_mistake_fn *report;
    void *owner;
    unsigned mistakes;
};

static void validate_report(struct validate *v, struct config_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void validate_report(struct validate *v, struct config_place place, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    v->mistakes++;
    v->report(v->owner, place, line);
}

/* 0, or the errno that opening or reading gave. */
static int validate_read_error(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* non-blocking: a FIFO must not stop the load */
    if (fd < 0)
        return errno;
    char byte;
    int error = read(fd, &byte, 1) < 0 && errno != EAGAIN ? errno : 0;
    close(fd);
    return error;
}

/* subject: `listener "https": tls.cert`. */
static void validate_file(struct validate *v, struct config_place place, const char *subject, const char *path) {
    if (!path)
        return;
    int error = validate_read_error(path);
    if (error)
        validate_report(v, place, "%s: cannot read \"%s\": %s", subject, path, strerrordesc_np(error));
}

static void validate_certificates(struct validate *v, const struct config_listener *listener) {
    if (!listener->tls)
        return;
    if (listener->client_ca) {
        char subject[256];
        snprintf(subject, sizeof(subject), "listener \"%.128s\": tls.client_ca", listener->name);
        validate_file(v, listener->place, subject, listener->client_ca);
    }
    if (listener->certificate_count == 0)
        validate_report(v, listener->place, "listener \"%s\": tls: no certificate (cert and key)", listener->name);
    for (unsigned i = 0; i < listener->certificate_count; i++) {
        const struct config_certificate *certificate = &listener->certificates[i];
        char path[192] = "tls", subject[384];
        if (certificate->name)
            snprintf(path, sizeof(path), "tls.certs[\"%.160s\"]", certificate->name);
        else if (i > 0)
            snprintf(path, sizeof(path), "tls.certs[%u]", i);
        snprintf(subject, sizeof(subject), "listener \"%.128s\": %s.cert", listener->name, path);
        validate_file(v, listener->place, subject, certificate->cert);
        snprintf(subject, sizeof(subject), "listener \"%.128s\": %s.key", listener->name, path);
        validate_file(v, listener->place, subject, certificate->key);
    }
}

/* Whether the system would refuse to bind both. */
static bool validate_overlap(const struct addr *a, const struct addr *b) {
    if (addr_equal(a, b))
        return true;
    if (addr_shrink(a).family != addr_shrink(b).family || addr_port(a) != addr_port(b))
        return false;
    return addr_is_wildcard(a) || addr_is_wildcard(b);
}

static void validate_bind_subject(const struct config_listener *listener, unsigned i, char *out, size_t size) {
    if (listener->bind_count > 1)
        snprintf(out, size, "listener \"%.128s\": bind[%u]", listener->name, i + 1);
    else
        snprintf(out, size, "listener \"%.128s\": bind", listener->name);
}

/* One bind against all before it; the first clash is told. */
static void validate_bind(struct validate *v, unsigned at, unsigned bind) {
    const struct config_listener *listener = &v->config->listeners[at];
    const struct addr *addr = &listener->binds[bind];
    for (unsigned i = 0; i <= at; i++) {
        const struct config_listener *other = &v->config->listeners[i];
        unsigned count = i == at ? bind : other->bind_count;
        for (unsigned j = 0; j < count; j++) {
            if (!validate_overlap(addr, &other->binds[j]))
                continue;
            char subject[256], mine[ADDR_TEXT_MAX], theirs[ADDR_TEXT_MAX];
            validate_bind_subject(listener, bind, subject, sizeof(subject));
            addr_format(addr, mine);
            addr_format(&other->binds[j], theirs);
            if (addr_equal(addr, &other->binds[j]))
                validate_report(v, listener->place, "%s: %s is used already by listener \"%s\"", subject, mine,
                                other->name);
            else
                validate_report(v, listener->place, "%s: %s overlaps %s of listener \"%s\"", subject, mine, theirs,
                                other->name);
            return;
        }
    }
}

static void validate_pool(struct validate *v, const struct config_pool *pool) {
    if (pool->server_count == 0)
        validate_report(v, pool->place, "pool \"%s\": servers: no server", pool->name);
    if (pool->tls) {
        char subject[256];
        snprintf(subject, sizeof(subject), "pool \"%.128s\": tls.ca", pool->name);
        validate_file(v, pool->place, subject, pool->tls_ca);
        snprintf(subject, sizeof(subject), "pool \"%.128s\": tls.cert", pool->name);
        validate_file(v, pool->place, subject, pool->tls_cert);
        snprintf(subject, sizeof(subject), "pool \"%.128s\": tls.key", pool->name);
        validate_file(v, pool->place, subject, pool->tls_key);
    }
}

unsigned config_validate(const struct config *config, bool whole, config_mistake_fn *report, void *owner) {
    struct validate v = {.config = config, .report = report, .owner = owner};
    if (config->listener_count == 0 && whole)
        validate_report(&v, (struct config_place){.file = config->file, .line = 1},
                        "no listener: nothing would be served (listener \"http\" { bind = \"0.0.0.0:80\" })");
    for (unsigned i = 0; i < config->listener_count; i++) {
        for (unsigned j = 0; j < config->listeners[i].bind_count; j++)
            validate_bind(&v, i, j);
        validate_certificates(&v, &config->listeners[i]);
    }
    for (unsigned i = 0; i < config->pool_count; i++)
        validate_pool(&v, &config->pools[i]);
    return v.mistakes;
}
