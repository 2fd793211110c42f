/* SPDX-License-Identifier: MIT */
/*
 * moongate route: what would the gateway do with this request? It loads the file, reads the request's bytes with the
 * same guard and parser, and decides with the same code and Lua functions as live traffic, but opens no socket.
 *
 * Output: the verdict on the first line (--expect looks there), the route with its place, with --trace why each earlier
 * route did not decide, then the head that would be forwarded or answered.
 */
#include "cli/route.h"

#include <getopt.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/metrics.h"
#include "base/str.h"
#include "cli/cli.h"
#include "script/load.h"
#include "wire/uri.h"

#define ROUTE_REQUEST_MAX (256 * 1024)
#define ROUTE_ERROR_MAX 512

static const char route_not_tried[] = "not tried";

/* One run of the command. */
struct route_run {
    const struct route_options *options;
    struct route_url url;
    struct script_load *load;
    const struct config *config;
    const struct config_listener *listener;
    struct addr peer;
    struct routes *routes;
    void *script;
    struct subject subject;
    struct decide decide;
    struct buf request;
    struct buf verdict;
    const char **traced; /* a route: the key that did not match, NULL when it matched, or route_not_tried */
    int code;
};

static void route_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    (void)is_error; /* the text says so */
    fprintf(stderr, "%s\n", text);
}

static void route_on_trace(void *owner, unsigned route, const char *key) {
    struct route_run *run = owner;
    run->traced[route] = key;
}

/* Never called: no word of this version waits, and this command could not wait. */
static void route_on_resume(void *owner) { (void)owner; }

static int route_fail(const char *what) {
    fprintf(stderr, "moongate route: %s\n", what);
    return CLI_FAILED;
}

static bool route_parse_client(const char *text, struct addr *peer) {
    struct addr_small ip;
    if (!addr_parse_ip(span_of(text), &ip))
        return addr_parse(span_of(text), 40000, peer);
    bool bare_v6 = strchr(text, ':') && text[0] != '[';
    char *whole = mem_printf(bare_v6 ? "[%s]:40000" : "%s:40000", text);
    bool ok = addr_parse(span_of(whole), 0, peer);
    mem_free(whole);
    return ok;
}

/* --- what is printed --- */

static void route_say_verdict(struct route_run *run, unsigned status) {
    const struct action *action = run->decide.action;
    struct buf *out = &run->verdict;
    struct span location;
    if (status != 0) {
        buf_printf(out, "reply %u", status);
        return;
    }
    switch (action->kind) {
    case ACTION_FORWARD:
        buf_printf(out, "forward to pool \"%s\"", run->config->pools[action->forward.pool].name);
        for (unsigned i = 0; i < action->forward.other_count; i++)
            buf_printf(out, ", else \"%s\"", run->config->pools[action->forward.others[i]].name);
        if (action->forward.server.p)
            buf_printf(out, " server \"%.*s\"", SPAN_ARGS(action->forward.server));
        if (action->forward.key.p)
            buf_printf(out, " key \"%.*s\"", SPAN_ARGS(action->forward.key));
        break;
    case ACTION_REPLY: buf_printf(out, "reply %u", action->reply.status); break;
    case ACTION_REDIRECT:
        location = decide_location(&run->subject, action);
        buf_printf(out, "redirect %u to %.*s", action->redirect.status, SPAN_ARGS(location));
        break;
    case ACTION_DROP:
    case ACTION_NONE: buf_append_text(out, "drop"); break;
    }
}

static void route_print_trace(const struct route_run *run) {
    for (unsigned i = 0; i < run->config->route_count; i++) {
        const struct config_route *route = &run->config->routes[i];
        const char *key = run->traced[i];
        if (key == route_not_tried)
            continue;
        printf("  %s:%d: route \"%s\": ", route->place.file, route->place.line, route->name);
        if (key && strcmp(key, "except") == 0)
            printf("no, a key of its except matches\n");
        else if (key && strcmp(key, "when") == 0)
            printf("no, its when said so\n");
        else if (key)
            printf("no, %s does not match\n", key);
        else if (i == run->decide.route)
            printf("yes, it decides\n");
        else
            printf("matches, but its steps went on\n");
    }
}

static bool route_print_decided(const struct route_run *run) {
    const struct decide *decide = &run->decide;
    if (decide->route == ROUTES_END) {
        printf("no route decided\n");
    } else {
        const struct config_route *route = &run->config->routes[decide->route];
        printf("route \"%s\" at %s:%d%s\n", route->name, route->place.file, route->place.line,
               decide->script_failed ? ": its function failed" : "");
    }
    if (run->options->trace)
        route_print_trace(run);
    if (decide->action->kind == ACTION_DROP)
        return true;
    printf("\n");
    return decide->action->kind == ACTION_FORWARD ? route_print_forward(decide) : route_print_answer(decide);
}

/* --- the run --- */

/* Reads the request as a client connection would. 0, or the status it is refused with. */
static unsigned route_read(struct route_run *run, const char **reason) {
    const struct config_settings *settings = &run->config->settings;
    struct http1_limits limits = {.max_target = run->listener->max_target,
                                  .max_head = run->listener->max_header,
                                  .max_fields = run->listener->max_fields,
                                  .underscores = HTTP1_UNDERSCORES_DROP};
    if (settings->underscores == CONFIG_UNDERSCORES_PASS)
        limits.underscores = HTTP1_UNDERSCORES_PASS;
    else if (settings->underscores == CONFIG_UNDERSCORES_REJECT)
        limits.underscores = HTTP1_UNDERSCORES_REJECT;
    struct http1_error error = {.status = 400, .reason = "the head is not complete"};
    size_t scanned = 0, size = 0, skip = 0;
    struct span bytes = buf_span(&run->request);
    if (http1_find_head(bytes.p, bytes.n, false, &limits, &scanned, &size, &skip, &error) != HTTP1_OK ||
        http1_read_request(bytes.p + skip, size - skip, &limits, &run->subject.head, &error) != HTTP1_OK) {
        *reason = error.reason;
        return error.status;
    }
    return subject_prepare(&run->subject, run->listener, settings, &run->peer,
                           route_local_port(run->listener, &run->url), NULL, reason);
}

/* A client that connects by TLS names the URL's host; an address is not sent as SNI (RFC 6066 section 3). */
static void route_set_sni(struct route_run *run) {
    struct addr_small ip;
    uint16_t port;
    if (run->listener->tls && !addr_parse_ip(run->url.host, &ip))
        run->subject.sni = uri_normalise_host(&run->subject.arena, run->url.host, &port);
}

/* What the request machine refuses after the decision: a declared length above max_body. */
static unsigned route_check_length(const struct route_run *run) {
    uint64_t max_body = run->listener->max_body;
    if (run->decide.route != ROUTES_END && run->config->routes[run->decide.route].max_body != UINT64_MAX)
        max_body = run->config->routes[run->decide.route].max_body;
    const struct http_message *head = &run->subject.head;
    return head->body == HTTP_BODY_LENGTH && head->content_length > max_body ? 413 : 0;
}

static int route_check_expected(const struct route_run *run) {
    const char *expect = run->options->expect;
    struct span verdict = buf_span(&run->verdict);
    if (!expect || memmem(verdict.p, verdict.n, expect, strlen(expect)))
        return CLI_OK;
    fprintf(stderr, "moongate route: expected \"%s\", not \"%.*s\"\n", expect, SPAN_ARGS(verdict));
    return CLI_FAILED;
}

static int route_judge(struct route_run *run) {
    const char *reason = NULL;
    run->subject.listener = run->listener;
    run->decide = (struct decide){.config = run->config, .subject = &run->subject}; /* for what is refused before it is routed */
    unsigned status = route_read(run, &reason);
    if (status == 0) {
        route_set_sni(run);
        decide_init(&run->decide, run->config, run->routes, &script_lua_ops, run->script, &run->subject,
                    route_on_resume, run);
        run->decide.trace = run->options->trace ? route_on_trace : NULL;
        run->decide.trace_owner = run;
        if (decide_run(&run->decide) != DECIDE_DONE)
            return route_fail("a function waits, which cannot be followed here");
        status = route_check_length(run);
        reason = "the body is longer than max_body";
    }
    route_say_verdict(run, status);
    printf("%.*s\n", SPAN_ARGS(buf_span(&run->verdict)));
    if (status != 0)
        printf("refused: %s\n\n", reason ? reason : "malformed");
    if (status != 0 ? !route_print_refusal(&run->decide, status) : !route_print_decided(run))
        return route_fail("the head cannot be made: too large, or the pool has no server");
    return route_check_expected(run);
}

/* Compiles and opens what route_judge() needs, and closes it again. */
static int route_with_script(struct route_run *run) {
    char error[ROUTE_ERROR_MAX] = "";
    metrics_attach();
    script_monitor_start();
    run->script = script_lua_ops.open(run->load, 0, error, sizeof error);
    int code = CLI_FAILED;
    if (run->script) {
        run->routes = routes_new(run->config);
        run->traced = mem_alloc_array(run->config->route_count + 1, sizeof *run->traced);
        for (unsigned i = 0; i < run->config->route_count; i++)
            run->traced[i] = route_not_tried;
        subject_init(&run->subject, NULL);
        code = route_judge(run);
        if (run->subject.script)
            script_lua_ops.release(run->script, &run->subject);
        subject_fini(&run->subject);
        mem_free(run->traced);
        routes_free(&run->routes);
        script_lua_ops.close(run->script);
    } else {
        route_fail(error);
    }
    script_monitor_stop();
    return code;
}

/* A guess would be judged by the rules of another door than the one that was asked about. */
static int route_fail_listener(const struct route_run *run) {
    const struct route_options *options = run->options;
    const struct config *config = run->config;
    if (config->listener_count == 0)
        return route_fail("the file declares no listener");
    if (options->listener) {
        fprintf(stderr, "moongate route: %s has no listener \"%s\"\n", options->file, options->listener);
        return CLI_FAILED;
    }
    fprintf(stderr, "moongate route: no listener takes %s on port %u; there are", run->url.tls ? "https" : "http", run->url.port);
    for (unsigned i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        char address[ADDR_TEXT_MAX];
        fprintf(stderr, "%s \"%s\" (%s", i ? "," : "", listener->name, listener->tls ? "https" : "http");
        for (unsigned j = 0; j < listener->bind_count; j++)
            fprintf(stderr, " %s", addr_format(&listener->binds[j], address));
        fprintf(stderr, ")");
    }
    fprintf(stderr, ": choose one by --listener\n");
    return CLI_FAILED;
}

static int route_load(struct route_run *run) {
    run->load = script_load_file(run->options->file, route_report, NULL);
    if (!run->load)
        return CLI_FAILED;
    run->config = script_load_config(run->load);
    run->listener = route_choose_listener(run->config, run->options, &run->url);
    if (!run->listener)
        return route_fail_listener(run);
    if (!run->options->listener && run->listener->tls != run->url.tls)
        fprintf(stderr, "moongate route: no listener speaks %s: judged as if it came by %s to \"%s\"\n", run->url.tls ? "https" : "http",
                run->url.tls ? "http" : "https", run->listener->name);
    return route_with_script(run);
}

static int route_run(const struct route_options *options) {
    struct route_run run = {.options = options};
    const char *problem = route_url_parse(options->url, &run.url);
    if (problem)
        return cli_usage_error(&cli_route, "URL '%s': %s", options->url, problem);
    if (!route_parse_client(options->client ? options->client : "127.0.0.1", &run.peer))
        return cli_usage_error(&cli_route, "'%s' is no address", options->client);
    buf_init(&run.request, ROUTE_REQUEST_MAX);
    buf_init(&run.verdict, ROUTE_REQUEST_MAX);
    int code =
        route_write_head(&run.request, options, &run.url) ? route_load(&run) : route_fail("the request is too large");
    script_load_free(&run.load);
    buf_release(&run.request);
    buf_release(&run.verdict);
    return code;
}

enum { ROUTE_OPTION_CLIENT = 256, ROUTE_OPTION_LISTENER, ROUTE_OPTION_TRACE, ROUTE_OPTION_EXPECT };

static int route_main(int argc, char **argv) {
    static const struct option long_options[] = {
        {"client", required_argument, NULL, ROUTE_OPTION_CLIENT},
        {"listener", required_argument, NULL, ROUTE_OPTION_LISTENER},
        {"trace", no_argument, NULL, ROUTE_OPTION_TRACE},
        {"expect", required_argument, NULL, ROUTE_OPTION_EXPECT},
        {"request", required_argument, NULL, 'X'},
        {"header", required_argument, NULL, 'H'},
        {0},
    };
    struct route_options options = {0};
    int option;
    opterr = 0;
    optind = 0;
    while ((option = getopt_long(argc, argv, ":X:H:", long_options, NULL)) != -1) {
        switch (option) {
        case 'X': options.method = optarg; break;
        case 'H':
            if (options.field_count == ROUTE_FIELDS_MAX)
                return cli_usage_error(&cli_route, "more than %d headers", ROUTE_FIELDS_MAX);
            if (!strpbrk(optarg, ":;"))
                return cli_usage_error(&cli_route, "'%s' is no header like 'name: value'", optarg);
            options.fields[options.field_count++] = optarg;
            break;
        case ROUTE_OPTION_CLIENT: options.client = optarg; break;
        case ROUTE_OPTION_LISTENER: options.listener = optarg; break;
        case ROUTE_OPTION_TRACE: options.trace = true; break;
        case ROUTE_OPTION_EXPECT: options.expect = optarg; break;
        case ':': return cli_usage_error(&cli_route, "option '%s' needs a value", argv[optind - 1]);
        default: return cli_usage_error(&cli_route, "unknown option '%s'", argv[optind - 1]);
        }
    }
    if (argc - optind != 2)
        return cli_usage_error(&cli_route, "expected FILE and URL");
    options.file = argv[optind];
    options.url = argv[optind + 1];
    return route_run(&options);
}

const struct cli_command cli_route = {
    .name = "route",
    .main = route_main,
    .usage = "route [OPTIONS] FILE URL",
    .what = "say what would be done with a request",
    .help = "  -X, --request METHOD   the method, instead of GET\n"
            "  -H, --header 'N: V'    a header field; 'N:' takes one of ours away\n"
            "  --client ADDRESS       where the connection comes from, instead of 127.0.0.1\n"
            "  --listener NAME        where it arrives, instead of the first that fits the URL\n"
            "  --trace                say of each earlier route why it did not decide\n"
            "  --expect TEXT          exit with 1 unless the first line holds TEXT\n"
            "\n"
            "The URL is http://, https://, ws:// or wss:// (the last two make a WebSocket handshake).",
};
