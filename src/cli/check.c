/* SPDX-License-Identifier: MIT */
/*
 * moongate check: loads a configuration as `run` would and prints every mistake as file:line, one a line, to
 * stderr. It opens no socket and needs no privileges, so that it can stand in an editor or in CI.
 *
 * The subtle thing: the loader only knows that certificate files can be read. Whether a key fits its certificate,
 * or a CA file holds one, shows when the TLS contexts are made; so they are made here too, as `run` does, and thrown
 * away. Likewise the users and the folder of the access log that settings name, which `run` needs only once its listeners are open.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "config/config.h"
#include "io/tls.h"
#include "script/load.h"

struct check {
    unsigned errors, warnings;
};

static void check_report(void *owner, bool is_error, const char *text) {
    struct check *check = owner;
    if (is_error)
        check->errors++;
    else
        check->warnings++;
    fprintf(stderr, "%s\n", text);
}

/* One declaration at which files are looked, and where its mistakes go. */
struct check_look {
    script_add_fn *add;
    void *adder;
    struct config_place place;
    const char *kind, *name;
};

static void check_add(const struct check_look *look, bool is_error, const char *text) {
    char *line = mem_printf("%s \"%s\": %s", look->kind, look->name, text);
    look->add(look->adder, look->place, is_error, line);
    mem_free(line);
}

static void check_warn(void *look, const char *text) { check_add(look, false, text); }

/* False also where the loader has said already what is wrong. */
static bool check_readable(const char *path) { return path && access(path, R_OK) == 0; }

static bool check_certificates(struct check_look *look, const struct config_listener *listener,
                               const struct tls_certificate *certificates, unsigned count) {
    bool ca = !listener->client_ca || check_readable(listener->client_ca);
    struct tls_server_options options = {
        .certificates = certificates,
        .certificate_count = count,
        .min_version = listener->tls_min,
        .session_id = listener->name,
        .client_cert = ca ? (enum tls_client_cert)listener->client_cert : TLS_CLIENT_CERT_NONE,
        .client_ca = ca ? listener->client_ca : NULL,
        .warn = {check_warn, look},
    };
    char error[TLS_ERROR_MAX];
    struct tls_server *server = tls_server_new(&options, error);
    if (!server)
        check_add(look, true, error);
    bool good = server != NULL;
    tls_server_free(&server);
    return good;
}

/* Each certificate by itself, so that one that is bad hides no other; then, if they are good, all together. */
static void check_listener(struct check_look *look, const struct config_listener *listener) {
    struct tls_certificate *certificates = mem_alloc_array(listener->certificate_count + 1, sizeof(*certificates));
    unsigned good = 0;
    for (unsigned i = 0; i < listener->certificate_count; i++) {
        const struct config_certificate *from = &listener->certificates[i];
        certificates[good] = (struct tls_certificate){.cert = from->cert, .key = from->key, .name = from->name};
        if (check_readable(from->cert) && check_readable(from->key) && check_certificates(look, listener, &certificates[good], 1))
            good++;
    }
    if (good > 1)
        check_certificates(look, listener, certificates, good);
    mem_free(certificates);
}

static void check_pool(struct check_look *look, const struct config_pool *pool) {
    const char *const files[] = {pool->tls_ca, pool->tls_cert, pool->tls_key};
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (files[i] && !check_readable(files[i]))
            return;
    if (!pool->tls || !pool->tls_cert != !pool->tls_key)
        return;
    struct tls_client_options options = {
        .verify = pool->tls_verify, .ca = pool->tls_ca, .cert = pool->tls_cert, .key = pool->tls_key, .warn = {check_warn, look}};
    char error[TLS_ERROR_MAX];
    struct tls_client *client = tls_client_new(&options, error);
    if (client)
        tls_client_free(&client);
    else
        check_add(look, true, error);
}

/* A mistake of settings, whose place is not kept: by the file's name alone. */
static void check_add_setting(const struct check_look *look, bool is_error, const char *key, const char *value, const char *what) {
    char *line = mem_printf("settings: %s \"%s\": %s", key, value, what);
    look->add(look->adder, look->place, is_error, line);
    mem_free(line);
}

/*
 * Where the file would be made. A relative path is the working folder's, which may be another one when it is run: so it is warned of.
 * A folder that cannot be looked into from here is left to `run`, which may be another user.
 */
static void check_access_log(const struct check_look *look, const char *to) {
    const char *slash = strrchr(to, '/');
    struct stat found;
    if (strcmp(to, "stdout") == 0 || strcmp(to, "stderr") == 0 || !slash)
        return;
    char *folder = mem_printf("%.*s/", (int)(slash - to), to); /* the slash at the end refuses what is no folder */
    if (stat(folder, &found) != 0 && (errno == ENOENT || errno == ENOTDIR))
        check_add_setting(look, to[0] == '/', "access_log", to, to[0] == '/' ? "its folder does not exist" : "its folder does not exist below this one");
    mem_free(folder);
}

/* As `run` looks them up, so that what stops it is told before it is stopped. */
static void check_settings(const struct check_look *look, const struct config_settings *settings) {
    if (settings->user && !getpwnam(settings->user))
        check_add_setting(look, true, "user", settings->user, "there is no such user on this machine");
    if (settings->group && !getgrnam(settings->group))
        check_add_setting(look, true, "group", settings->group, "there is no such group on this machine");
    if (settings->access_to)
        check_access_log(look, settings->access_to);
}

static void check_look(void *owner, const struct config *config, script_add_fn *add, void *adder) {
    (void)owner;
    check_settings(&(struct check_look){add, adder, {config->file, 0}, NULL, NULL}, &config->settings);
    for (unsigned i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        check_listener(&(struct check_look){add, adder, listener->place, "listener", listener->name}, listener);
    }
    for (unsigned i = 0; i < config->pool_count; i++) {
        const struct config_pool *pool = &config->pools[i];
        check_pool(&(struct check_look){add, adder, pool->place, "pool", pool->name}, pool);
    }
}

static const char *check_plural(unsigned count) {
    return count == 1 ? "" : "s";
}

static int check_file(const char *file, bool strict) {
    struct check check = {0};
    struct script_load *load = script_load_look(file, check_report, check_look, &check);
    if (load) {
        const struct config *config = script_load_config(load);
        if (check.errors == 0 && !(strict && check.warnings > 0))
            printf("%s: ok: %u listener%s, %u pool%s, %u route%s\n", file, config->listener_count,
                   check_plural(config->listener_count), config->pool_count, check_plural(config->pool_count),
                   config->route_count, check_plural(config->route_count));
        script_load_free(&load);
    } else if (check.errors == 0) {
        /* A load that fails says why; should it not, silence must not look like success. */
        check_report(&check, true, "the load failed without giving a reason");
    }
    if (check.errors > 0) {
        fprintf(stderr, "%s: %u mistake%s\n", file, check.errors, check_plural(check.errors));
        return CLI_FAILED;
    }
    if (strict && check.warnings > 0) {
        fprintf(stderr, "%s: %u warning%s, refused by --strict\n", file, check.warnings, check_plural(check.warnings));
        return CLI_FAILED;
    }
    return CLI_OK;
}

static int check_main(int argc, char **argv) {
    const char *file = NULL;
    bool strict = false, options_end = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!options_end && strcmp(word, "--") == 0)
            options_end = true;
        else if (!options_end && strcmp(word, "--strict") == 0)
            strict = true;
        else if (!options_end && word[0] == '-')
            return cli_usage_error(&cli_check, "unknown option '%s'", word);
        else if (file)
            return cli_usage_error(&cli_check, "one file at a time, '%s' is one too many", word);
        else
            file = word;
    }
    if (!file)
        return cli_usage_error(&cli_check, "which file?");
    return check_file(file, strict);
}

const struct cli_command cli_check = {
    .name = "check",
    .main = check_main,
    .usage = "check [--strict] FILE",
    .what = "load a configuration and print its mistakes",
    .help = "  --strict               warnings fail too",
};
