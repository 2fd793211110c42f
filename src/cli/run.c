/* SPDX-License-Identifier: MIT */
/*
 * moongate run: loads one file and serves it. Every mistake of the file is printed before anything is opened; what cannot be opened
 * stops the start with its name. Here, and only here, the script layer is plugged into traffic.
 */
#include "cli/run.h"

#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "control/control.h"
#include "script/load.h"

static void run_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    (void)is_error; /* the text says so */
    fprintf(stderr, "%s\n", text);
}

static void run_free_load(void *load) {
    struct script_load *script = load;
    script_load_free(&script);
}

int run_gateway(const char *file, const struct run_options *options) {
    struct script_load *load = script_load_file(file, run_report, NULL);
    if (!load)
        return CLI_FAILED;
    struct config *config = script_load_config(load);
    if (options->drain_ms > 0)
        config->settings.drain_timeout_ms = options->drain_ms;
    char error[GENERATION_ERROR_MAX] = "";
    struct generation *generation = generation_new(config, load, run_free_load, &script_lua_ops, NULL, error);
    if (!generation) {
        fprintf(stderr, "moongate: %s\n", error);
        return CLI_FAILED;
    }
    const struct control_options control = {.on_ready = options->on_ready, .owner = options->owner};
    bool ok = control_serve(generation, &control, error);
    if (!ok)
        fprintf(stderr, "moongate: %s\n", error);
    return ok ? CLI_OK : CLI_FAILED;
}

static int run_main(int argc, char **argv) {
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    int option;
    opterr = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
        if (option != 'h')
            return cli_usage_error(&cli_run, "unknown option '%s'", argv[optind - 1]);
        cli_print_help(&cli_run);
        return CLI_OK;
    }
    if (argc - optind != 1)
        return cli_usage_error(&cli_run, "expected one FILE");
    const struct run_options run = {0};
    return run_gateway(argv[optind], &run);
}

const struct cli_command cli_run = {
    .name = "run",
    .main = run_main,
    .usage = "run FILE",
    .what = "serve: SIGTERM finishes what is in flight, then stops; SIGUSR1 logs the counters",
    .help = "  -h, --help  this text\n",
};
