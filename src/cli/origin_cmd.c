/* SPDX-License-Identifier: MIT */
/*
 * moongate origin: the small HTTP and WebSocket server of cli/origin alone, for examples, tests and benchmarks. It
 * runs until SIGINT or SIGTERM. Its first line on stdout says where it listens; with port 0 that is how to learn it.
 *
 * The subtle thing: the signals are blocked before the origin's thread starts and waited for here, so that a stop
 * never interrupts a write.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/addr.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/origin/origin.h"

/* The word behind argv[*i], or NULL after a message. */
static const char *origin_cmd_value(int argc, char **argv, int *i) {
    if (*i + 1 < argc)
        return argv[++*i];
    cli_usage_error(&cli_origin, "%s needs a value", argv[*i]);
    return NULL;
}

static const char **origin_cmd_slot(struct origin_options *options, const char *word) {
    if (strcmp(word, "--bind") == 0)
        return &options->bind;
    if (strcmp(word, "--name") == 0)
        return &options->name;
    if (strcmp(word, "--tls-cert") == 0)
        return &options->tls_cert;
    if (strcmp(word, "--tls-key") == 0)
        return &options->tls_key;
    if (strcmp(word, "--subprotocols") == 0)
        return &options->subprotocols;
    return NULL;
}

static int origin_cmd_parse(int argc, char **argv, struct origin_options *options) {
    const char *port = NULL;
    for (int i = 1; i < argc; i++) {
        const char **slot = origin_cmd_slot(options, argv[i]);
        if (slot) {
            *slot = origin_cmd_value(argc, argv, &i);
            if (!*slot)
                return CLI_USAGE;
        } else if (argv[i][0] == '-') {
            return cli_usage_error(&cli_origin, "unknown option '%s'", argv[i]);
        } else if (port) {
            return cli_usage_error(&cli_origin, "one port at a time, '%s' is one too many", argv[i]);
        } else {
            port = argv[i];
        }
    }
    uint64_t number;
    if (!port)
        return cli_usage_error(&cli_origin, "which port?");
    if (!str_parse_u63(span_of(port), &number) || number > 65535)
        return cli_usage_error(&cli_origin, "'%s' is no port", port);
    options->port = (uint16_t)number;
    struct addr_small ip;
    if (options->bind && (!addr_parse_ip(span_of(options->bind), &ip) || options->bind[0] == '['))
        return cli_usage_error(&cli_origin, "--bind wants an IP address, '%s' is none", options->bind);
    if (options->tls_key && !options->tls_cert)
        return cli_usage_error(&cli_origin, "--tls-key needs --tls-cert");
    /* The name is a field value in every answer. */
    if (options->name && (strlen(options->name) > 64 || !str_is_token(span_of(options->name))))
        return cli_usage_error(&cli_origin, "'%s' is no name: at most 64 letters, digits, '-', '_', '.'", options->name);
    return CLI_OK;
}

static void origin_cmd_raise_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int origin_cmd_main(int argc, char **argv) {
    struct origin_options options = {0};
    int code = origin_cmd_parse(argc, argv, &options);
    if (code != CLI_OK)
        return code;
    origin_cmd_raise_limit();
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    char error[256];
    struct origin *origin = origin_start(&options, error);
    if (!origin) {
        fprintf(stderr, "moongate origin: %s\n", error);
        return CLI_FAILED;
    }
    const char *bind = options.bind ? options.bind : "127.0.0.1";
    bool v6 = strchr(bind, ':') != NULL;
    printf("origin %s on %s://%s%s%s:%u/\n", options.name ? options.name : "origin",
           options.tls_cert ? "https" : "http", v6 ? "[" : "", bind, v6 ? "]" : "", origin_port(origin));
    fflush(stdout);
    int number;
    sigwait(&stop, &number);
    origin_stop(&origin);
    return CLI_OK;
}

const struct cli_command cli_origin = {
    .name = "origin",
    .main = origin_cmd_main,
    .usage = "origin PORT [OPTIONS]",
    .what = "a small HTTP and WebSocket echo server to test with",
    .help = "  --bind ADDRESS         IP to listen on (127.0.0.1)\n"
            "  --name NAME            said in every answer as x-origin (origin)\n"
            "  --tls-cert FILE        PEM certificate chain; makes it https and wss\n"
            "  --tls-key FILE         its key (in the same file unless named)\n"
            "  --subprotocols A,B     accepted ones in order of preference (the first that is offered)\n"
            "\n"
            "PORT 0 takes any free port; the first line of output names it. Paths:\n"
            "  /  /size/N  /status/N  /echo  /slow/MS  /stream/N/MS  /headers  /trailers  /drop\n"
            "  /healthz, switched by POST to /healthz/fail and /healthz/ok\n"
            "  query: chunked=1 close=1 cut=N early=1 stream=1; every other path takes WebSockets and echoes\n",
};
