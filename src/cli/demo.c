/* SPDX-License-Identifier: MIT */
/*
 * moongate demo: the quickstart example against two origins inside this process, so that the first minute needs nothing
 * but the program. The example is the very file that is installed; ports, certificate and servers reach it by the
 * environment, which it reads with env(), so that it runs by itself too.
 *
 * The subtle thing: SIGINT and SIGTERM are blocked from the start. run_gateway() waits for them, and one that comes earlier
 * or later must not skip the removal of the certificate's temporary folder.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/origin/origin.h"
#include "cli/run.h"
#include "io/sock.h"
#include "io/tls.h"

#ifndef MOONGATE_EXAMPLE_DIR
#define MOONGATE_EXAMPLE_DIR "/usr/local/share/doc/moongate/examples"
#endif

#define DEMO_EXAMPLE "01-quickstart.lua"
#define DEMO_TLS_OFFSET 363 /* 8080 and 8443 */
#define DEMO_DRAIN_MS 500   /* the page keeps tunnels open: who ends the demo does not wait for them */

struct demo {
    const char *bind;    /* IP, without brackets */
    const char *shown;   /* what a client on this machine writes for it */
    uint16_t port, tls_port;
    struct origin *chat, *superchat;
    char *folder, *cert, *key; /* temporary */
    char *example;
    int held[2];         /* listens on the two ports until the gateway does; -1: not */
};

static const char *demo_left(const char *ip) {
    return strchr(ip, ':') ? "[" : "";
}

static const char *demo_right(const char *ip) {
    return strchr(ip, ':') ? "]" : "";
}

/* --- the example's file --- */

static char *demo_find_example(void) {
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    /* The build tree first: there the program stands beside its examples. The last one is for a tree that was moved. */
    char *candidates[] = {
        mem_printf("%s/examples/%s", self, DEMO_EXAMPLE),
        mem_printf("%s/%s", MOONGATE_EXAMPLE_DIR, DEMO_EXAMPLE),
        mem_printf("%s/../share/doc/moongate/examples/%s", self, DEMO_EXAMPLE),
    };
    char *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(candidates); i++) {
        if (!found && access(candidates[i], R_OK) == 0)
            found = realpath(candidates[i], NULL);
        mem_free(candidates[i]);
    }
    if (!found)
        fprintf(stderr, "moongate demo: its example %s is neither beside the program nor in %s\n", DEMO_EXAMPLE,
                MOONGATE_EXAMPLE_DIR);
    return found;
}

/* --- ports --- */

/*
 * Tries a port before anything is started, so that a busy one is told in terms of the demo. Port 0 becomes a free one, which *held keeps free
 * from the other port and the origins.
 */
static bool demo_try_port(const struct demo *demo, uint16_t *port, int *held) {
    char *text = mem_printf("%s%s%s", demo_left(demo->bind), demo->bind, demo_right(demo->bind));
    struct addr addr;
    bool parsed = addr_parse(span_of(text), *port ? *port : 1, &addr);
    mem_free(text);
    if (!parsed) {
        fprintf(stderr, "moongate demo: '%s' is no IP address\n", demo->bind);
        return false;
    }
    if (*port == 0) {
        if (addr.sa.any.sa_family == AF_INET6)
            addr.sa.in6.sin6_port = 0;
        else
            addr.sa.in.sin_port = 0;
    }
    *held = sock_listen(&addr, 1, NULL);
    if (*held < 0) {
        if (errno == EADDRINUSE)
            fprintf(stderr,
                    "moongate demo: port %u of %s is in use by another program; choose another one with\n"
                    "  moongate demo --port N     (N for http, N+%u for https)\n",
                    *port, demo->bind, DEMO_TLS_OFFSET);
        else
            fprintf(stderr, "moongate demo: port %u of %s: %s\n", *port, demo->bind, strerror(errno));
        return false;
    }
    bool known = sock_local(*held, &addr);
    if (known)
        *port = addr_port(&addr);
    return known;
}

static void demo_release_ports(struct demo *demo) {
    for (size_t i = 0; i < ARRAY_LEN(demo->held); i++) {
        if (demo->held[i] >= 0)
            close(demo->held[i]);
        demo->held[i] = -1;
    }
}

/* --- certificate --- */

static bool demo_make_certificate(struct demo *demo) {
    const char *base = getenv("TMPDIR");
    demo->folder = mem_printf("%s/moongate-demo-XXXXXX", base && base[0] == '/' ? base : "/tmp");
    if (!mkdtemp(demo->folder)) {
        fprintf(stderr, "moongate demo: a temporary folder %s: %s\n", demo->folder, strerror(errno));
        mem_free(demo->folder);
        demo->folder = NULL;
        return false;
    }
    demo->cert = mem_printf("%s/cert.pem", demo->folder);
    demo->key = mem_printf("%s/key.pem", demo->folder);
    const char *const names[] = {"localhost", "127.0.0.1", "::1", demo->bind, NULL};
    if (tls_make_certificate("localhost", names, demo->cert, demo->key))
        return true;
    fprintf(stderr, "moongate demo: cannot make a certificate in %s\n", demo->folder);
    return false;
}

static void demo_remove_certificate(struct demo *demo) {
    if (!demo->folder)
        return;
    unlink(demo->cert);
    unlink(demo->key);
    if (rmdir(demo->folder) != 0)
        fprintf(stderr, "moongate demo: %s: %s\n", demo->folder, strerror(errno));
    mem_free(demo->cert);
    mem_free(demo->key);
    mem_free(demo->folder);
}

/* --- origins and environment --- */

static struct origin *demo_start_origin(const char *name) {
    struct origin_options options = {.name = name, .subprotocols = name};
    char error[256];
    struct origin *origin = origin_start(&options, error);
    if (!origin)
        fprintf(stderr, "moongate demo: origin %s: %s\n", name, error);
    return origin;
}

static void demo_set_address(const char *variable, const char *ip, uint16_t port) {
    char *text = mem_printf("%s%s%s:%u", demo_left(ip), ip, demo_right(ip), port);
    setenv(variable, text, 1);
    mem_free(text);
}

static void demo_set_environment(const struct demo *demo) {
    demo_set_address("MOONGATE_DEMO_HTTP", demo->bind, demo->port);
    demo_set_address("MOONGATE_DEMO_HTTPS", demo->bind, demo->tls_port);
    demo_set_address("MOONGATE_DEMO_CHAT", "127.0.0.1", origin_port(demo->chat));
    demo_set_address("MOONGATE_DEMO_SUPERCHAT", "127.0.0.1", origin_port(demo->superchat));
    setenv("MOONGATE_DEMO_CERT", demo->cert, 1);
    setenv("MOONGATE_DEMO_KEY", demo->key, 1);
}

static void demo_on_ready(void *owner) {
    const struct demo *demo = owner;
    const char *ip = demo->shown, *left = demo_left(ip), *right = demo_right(ip);
    printf("\n"
           "Moongate serves the quickstart example:\n"
           "  %s\n"
           "\n"
           "  browser     http://%s%s%s:%u/\n"
           "              https://%s%s%s:%u/   (its certificate is made for this run: let the browser go on)\n"
           "  curl        curl -i http://%s%s%s:%u/echo\n"
           "              curl -ik https://%s%s%s:%u/echo\n"
           "  WebSocket   wscat -s superchat -c ws://%s%s%s:%u/ws\n"
           "              python3 -m websockets 'ws://%s%s%s:%u/ws'   (offers no subprotocol: 404, by the rule)\n"
           "  handshake   curl -iN http://%s%s%s:%u/ws -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\\n"
           "                -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' \\\n"
           "                -H 'Sec-WebSocket-Protocol: chat, superchat'\n"
           "  verdict     %s route %s --listener http -H 'Sec-WebSocket-Protocol: chat' ws://%s%s%s:%u/ws\n"
           "\n"
           "Access log below. Ctrl-C ends it.\n\n",
           demo->example, left, ip, right, demo->port, left, ip, right, demo->tls_port, left, ip, right, demo->port,
           left, ip, right, demo->tls_port, left, ip, right, demo->port, left, ip, right, demo->port, left, ip, right,
           demo->port, cli_program(), demo->example, left, ip, right, demo->port);
    fflush(stdout);
}

static int demo_serve(struct demo *demo) {
    int code = CLI_FAILED;
    demo->example = demo_find_example();
    if (demo->example && demo_try_port(demo, &demo->port, &demo->held[0]) &&
        demo_try_port(demo, &demo->tls_port, &demo->held[1]) &&
        demo_make_certificate(demo) && (demo->chat = demo_start_origin("chat")) != NULL &&
        (demo->superchat = demo_start_origin("superchat")) != NULL) {
        demo_set_environment(demo);
        demo_release_ports(demo);
        code = run_gateway(demo->example, &(struct run_options){.drain_ms = DEMO_DRAIN_MS, .on_ready = demo_on_ready, .owner = demo});
    }
    demo_release_ports(demo);
    origin_stop(&demo->chat);
    origin_stop(&demo->superchat);
    demo_remove_certificate(demo);
    free(demo->example); /* realpath()'s */
    return code;
}

static int demo_main(int argc, char **argv) {
    struct demo demo = {.bind = "127.0.0.1", .port = 8080, .held = {-1, -1}};
    for (int i = 1; i < argc; i++) {
        bool is_port = strcmp(argv[i], "--port") == 0, is_bind = strcmp(argv[i], "--bind") == 0;
        if (!is_port && !is_bind)
            return cli_usage_error(&cli_demo, argv[i][0] == '-' ? "unknown option '%s'" : "'%s' is not expected", argv[i]);
        if (i + 1 == argc)
            return cli_usage_error(&cli_demo, "%s needs a value", argv[i]);
        const char *value = argv[++i];
        uint64_t number;
        if (is_bind)
            demo.bind = value;
        else if (str_parse_u63(span_of(value), &number) && number + DEMO_TLS_OFFSET <= 65535)
            demo.port = (uint16_t)number;
        else
            return cli_usage_error(&cli_demo, "'%s' is no port up to %u", value, 65535 - DEMO_TLS_OFFSET);
    }
    struct addr_small ip;
    if (!addr_parse_ip(span_of(demo.bind), &ip) || demo.bind[0] == '[')
        return cli_usage_error(&cli_demo, "--bind wants an IP address, '%s' is none", demo.bind);
    bool any = strcmp(demo.bind, "0.0.0.0") == 0 || strcmp(demo.bind, "::") == 0;
    demo.shown = any ? "localhost" : demo.bind;
    demo.tls_port = demo.port ? (uint16_t)(demo.port + DEMO_TLS_OFFSET) : 0;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    return demo_serve(&demo);
}

const struct cli_command cli_demo = {
    .name = "demo",
    .main = demo_main,
    .usage = "demo [--port N] [--bind ADDRESS]",
    .what = "the quickstart example with servers built in",
    .help = "  --port N               port for http (8080); https is on N+363; 0: any free ones\n"
            "  --bind ADDRESS         IP to listen on (127.0.0.1)\n",
};
