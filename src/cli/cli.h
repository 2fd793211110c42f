/* SPDX-License-Identifier: MIT */
/*
 * cli: the subcommands. Each has one file, takes its own argv (argv[0] is its name) and returns the exit code.
 */
#ifndef MOONGATE_CLI_CLI_H
#define MOONGATE_CLI_CLI_H

#include <stdbool.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1, /* the configuration has mistakes, an expectation failed, the service could not start */
    CLI_USAGE = 2   /* unknown option, missing argument */
};

struct cli_command {
    const char *name;
    int (*main)(int argc, char **argv);
    const char *usage; /* after "moongate ": "run FILE" */
    const char *what;  /* one line */
    const char *help;  /* the options, one a line */
};

extern const struct cli_command cli_run, cli_check, cli_route, cli_dump, cli_demo, cli_origin, cli_import;

/* What to type to run this program again: its path as it was started, "moongate" where the shell found it in PATH. */
const char *cli_program(void);
/* Prints usage and help of a command to stdout. */
void cli_print_help(const struct cli_command *command);
/* "moongate run: unknown option '--x' (moongate run --help)" to stderr; returns CLI_USAGE. */
int cli_usage_error(const struct cli_command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
