/* SPDX-License-Identifier: MIT */
/*
 * moongate import arm: an Azure Application Gateway's template, or fragments of one, as a Moongate file on stdout. What stands in for
 * nothing here is said in comments of that file, counted on stderr; the work is done in cli/import.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/addr.h"
#include "cli/cli.h"
#include "cli/import/arm.h"

#define IMPORT_FILE_MAX ((size_t)32 << 20)
#define IMPORT_PASSWORD_MAX 1024

struct import {
    struct arm_options options;
    char passwords[ARM_LIST_MAX][IMPORT_PASSWORD_MAX]; /* of --pfx-password-file */
    unsigned file_passwords;
};

static bool import_read(const char *path, struct buf *text) {
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "rbe");
    const char *problem = file ? NULL : strerror(errno);
    size_t got = 1;
    while (!problem && got > 0) {
        if (!buf_reserve(text, 65536)) {
            problem = "too large";
            break;
        }
        got = fread(buf_tail(text), 1, 65536, file);
        buf_commit(text, got);
        if (ferror(file))
            problem = strerror(errno);
    }
    if (file && !standard)
        (void)fclose(file);
    if (problem)
        fprintf(stderr, "moongate import: %s: %s\n", path, problem);
    return !problem;
}

static int import_files(struct arm *arm, char **files, int count) {
    struct buf text;
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        buf_init(&text, IMPORT_FILE_MAX);
        ok = import_read(files[i], &text);
        if (ok && !arm_read(arm, buf_span(&text))) {
            fprintf(stderr, "%s: %s\n", files[i], arm->error);
            ok = false;
        }
        buf_release(&text);
    }
    if (ok && !arm_convert(arm)) {
        if (arm->misused)
            return cli_usage_error(&cli_import, "%s", arm->error);
        fprintf(stderr, "moongate import: %s\n", arm->error);
        ok = false;
    }
    if (!ok)
        return CLI_FAILED;
    struct span out = buf_span(&arm->out);
    (void)fwrite(out.p, 1, out.n, stdout);
    if (arm->notes > 0)
        fprintf(stderr, "moongate import: %u note%s in the output: look for NOTE\n", arm->notes, arm->notes == 1 ? "" : "s");
    return CLI_OK;
}

/* The first line of a file. */
static const char *import_password(struct import *import, const char *path) {
    FILE *file = import->file_passwords < ARM_LIST_MAX ? fopen(path, "re") : NULL;
    char *line = import->passwords[import->file_passwords];
    if (!file || !fgets(line, IMPORT_PASSWORD_MAX, file)) {
        fprintf(stderr, "moongate import: no password in %s\n", path);
        line = NULL;
    } else {
        line[strcspn(line, "\r\n")] = '\0';
        import->file_passwords++;
    }
    if (file)
        (void)fclose(file);
    return line;
}

static bool import_add(const char **list, unsigned *count, const char *value) {
    if (!value || *count == ARM_LIST_MAX)
        return false;
    list[(*count)++] = value;
    return true;
}

static bool import_option(struct import *import, int option) {
    struct arm_options *options = &import->options;
    switch (option) {
    case 'x':
        return import_add(options->pfx, &options->pfx_count, optarg);
    case 'p':
        return import_add(options->passwords, &options->password_count, optarg);
    case 'P':
        return import_add(options->passwords, &options->password_count, import_password(import, optarg));
    case 'o':
        options->pfx_out = optarg;
        return true;
    case 'b':
        return import_add(options->binds, &options->bind_count, optarg);
    case 'g':
        options->gateway = optarg;
        return true;
    case 'i':
        options->ignore_case = true;
        return true;
    default:
        return false;
    }
}

/* "FRONTEND=IP" or "IP"; the port is the template's to say. */
static bool import_bind_good(const char *text) {
    const char *equals = strchr(text, '=');
    const char *ip = equals ? equals + 1 : text;
    struct addr_small parsed;
    return equals != text && ip[0] != '[' && addr_parse_ip(span_of(ip), &parsed);
}

static int import_main(int argc, char **argv) {
    static const struct option options[] = {
        {"pfx", required_argument, NULL, 'x'},     {"pfx-password", required_argument, NULL, 'p'},
        {"pfx-password-file", required_argument, NULL, 'P'}, {"pfx-out", required_argument, NULL, 'o'},
        {"bind", required_argument, NULL, 'b'},    {"gateway", required_argument, NULL, 'g'},
        {"ignore-case", no_argument, NULL, 'i'},   {0}};
    struct import import = {0};
    opterr = 0;
    optind = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        if (option == '?')
            return cli_usage_error(&cli_import, "unknown option '%s'", argv[optind - 1]);
        if (option == ':')
            return cli_usage_error(&cli_import, "%s needs a value", argv[optind - 1]);
        if (!import_option(&import, option))
            return cli_usage_error(&cli_import, "'%s' cannot be used, or is one too many", optarg);
    }
    if (argc - optind < 2)
        return cli_usage_error(&cli_import, "expected a format (arm) and a FILE");
    if (strcmp(argv[optind], "arm") != 0)
        return cli_usage_error(&cli_import, "'%s' is no format: arm is the one there is", argv[optind]);
    for (unsigned i = 0; i < import.options.bind_count; i++)
        if (!import_bind_good(import.options.binds[i]))
            return cli_usage_error(&cli_import, "--bind wants IP or FRONTEND=IP, an address without a port, not '%s'",
                                   import.options.binds[i]);
    if (import.options.pfx_count > 0 && !import.options.pfx_out)
        return cli_usage_error(&cli_import, "--pfx needs --pfx-out, where the PEM files go");
    struct arm arm;
    arm_init(&arm, &import.options);
    int code = import_files(&arm, argv + optind + 1, argc - optind - 1);
    arm_fini(&arm);
    return code;
}

const struct cli_command cli_import = {
    .name = "import",
    .main = import_main,
    .usage = "import arm FILE... [OPTIONS]",
    .what = "an Azure Application Gateway template as a Moongate file",
    .help = "  --pfx-out FOLDER       write certificates and keys there, as PEM\n"
            "  --pfx [NAME=]FILE      the PFX of an sslCertificate (else the template's own data)\n"
            "  --pfx-password P       opens a PFX; several are tried in order\n"
            "  --pfx-password-file F  likewise, the first line of a file\n"
            "  --bind [FRONTEND=]IP   address to listen on (0.0.0.0; a private frontend's own)\n"
            "  --gateway NAME         which one, where a template has several\n"
            "  --ignore-case          match paths whatever their case, as Azure does\n"
            "\n"
            "Prints to stdout. Several files add up: a template and its parameters, or fragments; \"-\" is stdin.\n"
            "Fragments may lack outer braces and commas. What has no counterpart becomes a comment with NOTE.\n",
};
