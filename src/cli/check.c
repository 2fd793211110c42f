/* SPDX-License-Identifier: MIT */
/*
 * moongate check: loads a configuration as `run` would and prints every mistake as file:line, one a line, to
 * stderr. It opens no socket and needs no privileges, so that it can stand in an editor or in CI.
 *
 * The subtle thing: the loader only knows that certificate files can be read. Whether a key fits its certificate,
 * or a CA file holds one, shows when the TLS contexts are made; so they are made here too, as `run` does, and thrown
 * away.
 */
#include <stdio.h>
#include <string.h>

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

static void check_mistake(struct check *check, struct config_place place, const char *kind, const char *name,
                          const char *text) {
    char *line = mem_printf("%s:%d: %s \"%s\": %s", place.file ? place.file : "?", place.line, kind, name, text);
    check_report(check, true, line);
    mem_free(line);
}

static void check_listener(struct check *check, const struct config_listener *listener) {
    if (!listener->tls || listener->certificate_count == 0)
        return;
    struct tls_certificate *certificates = mem_alloc_array(listener->certificate_count, sizeof(*certificates));
    for (unsigned i = 0; i < listener->certificate_count; i++) {
        const struct config_certificate *from = &listener->certificates[i];
        certificates[i] = (struct tls_certificate){.cert = from->cert, .key = from->key, .name = from->name};
    }
    struct tls_server_options options = {
        .certificates = certificates,
        .certificate_count = listener->certificate_count,
        .min_version = listener->tls_min,
        .session_id = listener->name,
        .client_cert = (enum tls_client_cert)listener->client_cert,
        .client_ca = listener->client_ca,
    };
    char error[TLS_ERROR_MAX];
    struct tls_server *server = tls_server_new(&options, error);
    if (server)
        tls_server_free(&server);
    else
        check_mistake(check, listener->place, "listener", listener->name, error);
    mem_free(certificates);
}

static void check_pool(struct check *check, const struct config_pool *pool) {
    if (!pool->tls)
        return;
    struct tls_client_options options = {
        .verify = pool->tls_verify, .ca = pool->tls_ca, .cert = pool->tls_cert, .key = pool->tls_key};
    char error[TLS_ERROR_MAX];
    struct tls_client *client = tls_client_new(&options, error);
    if (client)
        tls_client_free(&client);
    else
        check_mistake(check, pool->place, "pool", pool->name, error);
}

static void check_config(struct check *check, const struct config *config) {
    for (unsigned i = 0; i < config->listener_count; i++)
        check_listener(check, &config->listeners[i]);
    for (unsigned i = 0; i < config->pool_count; i++)
        check_pool(check, &config->pools[i]);
}

static const char *check_plural(unsigned count) {
    return count == 1 ? "" : "s";
}

static int check_file(const char *file, bool strict) {
    struct check check = {0};
    struct script_load *load = script_load_file(file, check_report, &check);
    if (load) {
        const struct config *config = script_load_config(load);
        check_config(&check, config);
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
