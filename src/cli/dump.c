/* SPDX-License-Identifier: MIT */
/*
 * moongate dump: the loaded configuration as JSON, defaults filled in, made by jansson. Paths of private keys are shown,
 * what is in them is never read here; values of fields that carry credentials are left out (dump_parts.c), so that a dump
 * can be pasted into a bug report.
 */
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/dump.h"
#include "script/load.h"

static void dump_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    (void)is_error; /* the text says so */
    fprintf(stderr, "%s\n", text);
}

static int dump_file(const char *file) {
    struct script_load *load = script_load_file(file, dump_report, NULL);
    if (!load)
        return CLI_FAILED;
    json_t *json = dump_config(script_load_config(load));
    bool ok = json_dumpf(json, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
    if (!ok)
        fprintf(stderr, "moongate dump: the JSON cannot be written\n");
    json_decref(json);
    script_load_free(&load);
    return ok ? CLI_OK : CLI_FAILED;
}

static int dump_main(int argc, char **argv) {
    static const struct option options[] = {{0}};
    opterr = 0;
    optind = 0;
    if (getopt_long(argc, argv, ":", options, NULL) != -1)
        return cli_usage_error(&cli_dump, "unknown option '%s'", argv[optind - 1]);
    if (argc - optind != 1)
        return cli_usage_error(&cli_dump, "expected one FILE");
    return dump_file(argv[optind]);
}

const struct cli_command cli_dump = {
    .name = "dump",
    .main = dump_main,
    .usage = "dump FILE",
    .what = "print the loaded configuration as JSON",
    .help = "  Times end in _ms, sizes are bytes, null means none; values of fields with credentials are redacted.",
};
