/* SPDX-License-Identifier: MIT */
/*
 * The entry: finds the subcommand in one table and hands it its own argv. --help and --version are answered
 * here for every command, so that each behaves alike; a command's file parses only its own options. What is
 * asked for goes to stdout with exit code 0, what is wrong goes to stderr with CLI_USAGE.
 *
 * The subtle thing: output that could not be written (a full disk, a closed pipe) turns success into failure.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"

static const struct cli_command *const main_commands[] = {
    &cli_run, &cli_check, &cli_route, &cli_dump, &cli_import, &cli_demo, &cli_origin,
};

static const char *main_program = "moongate";

const char *cli_program(void) { return main_program; }

static void main_print_help(FILE *out) {
    fputs("Moongate, a reverse proxy and WebSocket gateway with rules in Lua.\n\nusage:\n", out);
    for (size_t i = 0; i < ARRAY_LEN(main_commands); i++)
        fprintf(out, "  moongate %-34s %s\n", main_commands[i]->usage, main_commands[i]->what);
    fputs("\n"
          "  moongate COMMAND --help                     a command's options\n"
          "  moongate --version                          the version\n"
          "\n"
          "exit codes: 0 success; 1 the configuration has mistakes, an expectation failed or the\n"
          "service could not start; 2 an unknown option or a missing argument\n"
          "manual: man 8 moongate, man 5 moongate.lua, man 7 moongate-rules\n",
          out);
}

static void main_print_version(void) {
    printf("moongate %s\n", PACKAGE_VERSION);
}

void cli_print_help(const struct cli_command *command) {
    printf("usage: moongate %s\n\n%s\n\n", command->usage, command->what);
    if (command->help && command->help[0])
        printf("%s%s", command->help, command->help[strlen(command->help) - 1] == '\n' ? "" : "\n");
    if (!command->help || !strstr(command->help, "--help"))
        puts("  --help                 this text");
    puts("  --version              the version");
}

int cli_usage_error(const struct cli_command *command, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "moongate %s: ", command->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (moongate %s --help)\n", command->name);
    va_end(args);
    return CLI_USAGE;
}

static const struct cli_command *main_find_command(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(main_commands); i++)
        if (strcmp(main_commands[i]->name, name) == 0)
            return main_commands[i];
    return NULL;
}

static int main_unknown(const char *word) {
    if (word[0] == '-') {
        fprintf(stderr, "moongate: unknown option '%s' (moongate --help)\n", word);
        return CLI_USAGE;
    }
    const char *names[ARRAY_LEN(main_commands) + 1] = {NULL};
    for (size_t i = 0; i < ARRAY_LEN(main_commands); i++)
        names[i] = main_commands[i]->name;
    const char *nearest = str_nearest(word, names);
    if (nearest)
        fprintf(stderr, "moongate: unknown command '%s', did you mean '%s'? (moongate --help)\n", word, nearest);
    else
        fprintf(stderr, "moongate: unknown command '%s' (moongate --help)\n", word);
    return CLI_USAGE;
}

/* "--" ends options: a file may be called --help. */
static bool main_has_option(int argc, char **argv, const char *option) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], option) == 0)
            return true;
    return false;
}

static int main_dispatch(int argc, char **argv) {
    if (argc < 2) {
        main_print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        const struct cli_command *asked = argc > 2 ? main_find_command(argv[2]) : NULL;
        if (argc > 2 && !asked)
            return main_unknown(argv[2]);
        if (asked)
            cli_print_help(asked);
        else
            main_print_help(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        main_print_version();
        return CLI_OK;
    }
    const struct cli_command *command = main_find_command(argv[1]);
    if (!command)
        return main_unknown(argv[1]);
    if (main_has_option(argc - 1, argv + 1, "--help")) {
        cli_print_help(command);
        return CLI_OK;
    }
    if (main_has_option(argc - 1, argv + 1, "--version")) {
        main_print_version();
        return CLI_OK;
    }
    return command->main(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
    if (argc > 0 && strchr(argv[0], '/'))
        main_program = argv[0];
    int code = main_dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("moongate: stdout");
        return code == CLI_OK ? CLI_FAILED : code;
    }
    return code;
}
