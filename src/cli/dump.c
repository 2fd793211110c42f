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
#include "script/meta.h"

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

/* What editors and checkers can know of the language: made from the tables by which it is read. */
static int dump_language(void (*write)(struct buf *out)) {
    struct buf out;
    buf_init(&out, 1 << 20);
    write(&out);
    bool ok = fwrite(buf_span(&out).p, 1, out.len, stdout) == out.len;
    buf_release(&out);
    return ok ? CLI_OK : CLI_FAILED;
}

static int dump_main(int argc, char **argv) {
    static const struct option options[] = {{"meta", no_argument, NULL, 'm'}, {"luacheck", no_argument, NULL, 'l'}, {0}};
    void (*write)(struct buf *out) = NULL;
    opterr = 0;
    optind = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        if (option == '?')
            return cli_usage_error(&cli_dump, "unknown option '%s'", argv[optind - 1]);
        write = option == 'm' ? script_write_meta : script_write_luacheck;
    }
    if (write && argc == optind)
        return dump_language(write);
    if (write)
        return cli_usage_error(&cli_dump, "--meta and --luacheck take no FILE");
    if (argc - optind != 1)
        return cli_usage_error(&cli_dump, "expected one FILE");
    return dump_file(argv[optind]);
}

const struct cli_command cli_dump = {
    .name = "dump",
    .main = dump_main,
    .usage = "dump FILE | --meta | --luacheck",
    .what = "print the loaded configuration as JSON",
    .help = "  --meta                 the language itself, for lua-language-server\n"
            "  --luacheck             the language itself, for luacheck\n"
            "\n"
            "  Times end in _ms, sizes are bytes, null means none; values of fields with credentials are redacted.",
};
