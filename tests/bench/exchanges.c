/* SPDX-License-Identifier: MIT */
/*
 * exchanges: plays fixed exchanges through one real worker over sockets and a clock in memory (tests/memory), so that callgrind counts the
 * same instructions in each run. tests/bench/instructions runs it that way; alone it is a test that each exchange comes to its end.
 *
 *   exchanges                  plays every exchange a few times
 *   exchanges --list           their names
 *   exchanges --made-by        what the count depends on besides our sources: compiler and libraries
 *   exchanges NAME ROUNDS      plays one ROUNDS times after a warm-up; prints the system calls of a round
 *
 * Both sides of the gateway are played here, and time stands still but between rounds. The warm-up fills slabs, buffers and kept connections.
 * exchange_mark() is called before and after the counted rounds, for callgrind's --dump-before. What the counting leaves out is all that
 * is named __wrap_*: the kernel in memory, and the log thread, which is played by __wrap_log_writer_wake().
 */
#include <gnu/libc-version.h>
#include <lua.h>
#include <openssl/opensslv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "../memory/kernel.h"
#include "base/log.h"
#include "base/log_ring.h"
#include "base/log_writer.h"
#include "base/metrics.h"
#include "script/load.h"
#include "traffic/worker.h"

unsigned long http_parser_version(void); /* its header and ours do not go together */

#define STAGE_WARM 64       /* rounds before the counted ones */
#define STAGE_TURNS 1000    /* more in one round is a spin */
#define STAGE_ROUND_US 100
#define STAGE_WIRE (1 << 20)

#define HOST "Host: www.example.com\r\n"
#define USUAL HOST "User-Agent: exchanges/1.0\r\nAccept: text/html,application/json;q=0.9\r\nAccept-Encoding: gzip, deflate\r\n"
#define BODY_64 "................................................................"
#define ANSWER "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n" BODY_64

static struct stage {
    struct script_load *load;
    struct generation *generation;
    struct listeners listeners;
    struct worker_shared shared;
    struct worker worker;
    struct kernel_link *client, *server;
    char got[1 << 17]; /* what the last stage_expect() took */
    size_t size;
    const char *name;
    char error[GENERATION_ERROR_MAX];
} stage;

static _Noreturn void stage_fail(const char *why) {
    fprintf(stderr, "exchanges: %s: %s\nlast bytes: %.*s\n", stage.name ? stage.name : "start", why, (int)stage.size, stage.got);
    exit(1);
}

/* --- what must be the same in each run besides the kernel --- */

/* Lua seeds its hashes from it: liblua is a shared library, which --wrap does not reach. */
time_t time(time_t *into) {
    if (into)
        *into = 1700000000;
    return 1700000000;
}

bool __wrap_log_writer_start(int access_fd);
bool __wrap_log_writer_start(int access_fd) {
    (void)access_fd;
    return true;
}

/* The log thread's part, when it wakes. */
void __wrap_log_writer_wake(void);
void __wrap_log_writer_wake(void) {
    static char line[LOG_LINE_MAX];
    struct log_ring *ring = log_ring_mine("exchanges");
    enum log_kind kind;
    while (log_ring_waiting(ring) > 0)
        log_ring_take(ring, line, log_ring_peek(ring, &kind));
}

/* --- the gateway --- */

static void stage_report(void *owner, bool is_error, const char *text) {
    (void)owner;
    fprintf(stderr, "%s%s\n", is_error ? "" : "warning: ", text);
}

static void stage_free_load(void *load) {
    struct script_load *script = load;
    script_load_free(&script);
}

static void stage_open(const char *file) {
    kernel.prompt = true; /* the server is 127.0.0.1, as in compare */
    stage.load = script_load_file(file, stage_report, NULL);
    if (!stage.load)
        stage_fail("the configuration is refused");
    struct config *config = script_load_config(stage.load);
    config->settings.rule_cpu_ms = 0; /* as cheap as with the monitor thread, which is not here */
    stage.generation = generation_new(config, stage.load, stage_free_load, &script_lua_ops, NULL, stage.error);
    if (!stage.generation || !listeners_open(&stage.listeners, config, stage.error, sizeof stage.error))
        stage_fail(stage.error);
    stage.shared = (struct worker_shared){.listeners = &stage.listeners, .workers = &stage.worker, .worker_count = 1, .max_connections = 100};
    worker_init(&stage.worker, 0, &stage.shared, stage.generation, stage.error);
    if (!worker_begin(&stage.worker))
        stage_fail(stage.error);
    worker_listen(&stage.worker);
    loop_turn(stage.worker.loop, 0);
}

static void stage_close(void) {
    if (stage.client)
        kernel_drop(&stage.client);
    if (stage.server)
        kernel_drop(&stage.server);
    worker_stop(&stage.worker);
    loop_run(stage.worker.loop);
    worker_end(&stage.worker);
    worker_free(&stage.worker);
    listeners_close(&stage.listeners);
    generation_unref(&stage.generation);
    kernel_end();
}

/* --- the two sides --- */

/* One turn; the worker must have had something to do. */
static void stage_turn(unsigned *turns) {
    loop_turn(stage.worker.loop, -1);
    if (kernel.idle)
        stage_fail("the gateway waits");
    if (++*turns > STAGE_TURNS)
        stage_fail("the gateway spins");
}

static void stage_give(struct kernel_link *link, const char *text, size_t n) {
    if (kernel_give(link, text, n) != n)
        stage_fail("the gateway has closed, or reads nothing");
}

/* Turns until all that a side gets has come: n bytes (0: any number), the last of them tail. */
static void stage_expect(struct kernel_link **link, size_t n, const char *tail) {
    size_t tail_size = strlen(tail);
    unsigned turns = 0;
    for (stage.size = 0;;) {
        if (!*link && link == &stage.server)
            *link = kernel_answer(STAGE_WIRE);
        if (*link)
            stage.size += kernel_take(*link, stage.got + stage.size, sizeof stage.got - stage.size);
        if (stage.size >= n && stage.size >= tail_size && stage.size > 0 &&
            memcmp(stage.got + stage.size - tail_size, tail, tail_size) == 0)
            return;
        stage_turn(&turns);
    }
}

static void stage_expect_closed(struct kernel_link **link) {
    unsigned turns = 0;
    while (!(*link)->near_closed)
        stage_turn(&turns);
    kernel_drop(link);
}

static void stage_expect_status(const char *status) {
    if (stage.size < 12 || memcmp(stage.got + 9, status, 3) != 0)
        stage_fail("another status");
}

/* A request whose last bytes are tail, and its answer, whose last bytes are answer_tail. */
static void stage_request(const char *text, const char *tail, const char *answer, const char *answer_tail) {
    if (!stage.client)
        stage.client = kernel_dial(STAGE_WIRE);
    stage_give(stage.client, text, strlen(text));
    stage_expect(&stage.server, 0, tail);
    stage_give(stage.server, answer, strlen(answer));
    stage_expect(&stage.client, 0, answer_tail);
    stage_expect_status("200");
}

/* --- the exchanges --- */

static void play_get(void) { stage_request("GET /a/page?q=1 HTTP/1.1\r\n" USUAL "\r\n", "\r\n\r\n", ANSWER, BODY_64); }

static void play_logged(void) { stage_request("GET /logged/page?q=1 HTTP/1.1\r\n" USUAL "\r\n", "\r\n\r\n", ANSWER, BODY_64); }

static void play_fields(void) {
    static char text[8192];
    if (text[0] == '\0') {
        size_t n = (size_t)snprintf(text, sizeof text, "GET /a/page?q=1 HTTP/1.1\r\n" USUAL);
        for (int i = 4; i < 50; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "X-Field-%02d: value %d of this field\r\n", i, i);
        snprintf(text + n, sizeof text - n, "\r\n");
    }
    stage_request(text, "\r\n\r\n", ANSWER, BODY_64);
}

static void play_post(void) {
    static char text[4096];
    if (text[0] == '\0') {
        int n = snprintf(text, sizeof text, "POST /a/form HTTP/1.1\r\n" USUAL "Content-Type: text/plain\r\nContent-Length: 1000\r\n\r\n");
        memset(text + n, 'p', 999);
        text[n + 999] = '!';
    }
    stage_request(text, "!", ANSWER, BODY_64);
}

/* A body of many small chunks that come at once must not cost a system call each. */
static void play_crumbs(void) {
    static char text[8192];
    if (text[0] == '\0') {
        size_t n = (size_t)snprintf(text, sizeof text, "POST /a/form HTTP/1.1\r\n" USUAL "Transfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < 500; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "1\r\nx\r\n");
        snprintf(text + n, sizeof text - n, "0\r\n\r\n");
    }
    stage_request(text, "\r\n0\r\n\r\n", ANSWER, BODY_64);
}

static void play_chunked(void) {
    stage_request("GET /a/page?q=1 HTTP/1.1\r\n" USUAL "\r\n", "\r\n\r\n",
                  "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "40\r\n" BODY_64 "\r\n40\r\n" BODY_64 "\r\n40\r\n" BODY_64 "\r\n0\r\n\r\n",
                  "\r\n0\r\n\r\n");
}

static void play_close(void) {
    stage_request("GET /a/page?q=1 HTTP/1.1\r\n" USUAL "Connection: close\r\n\r\n", "\r\n\r\n", ANSWER, BODY_64);
    kernel_shut(stage.client);
    stage_expect_closed(&stage.client);
}

static void play_reply(void) {
    static const char text[] = "GET /reply HTTP/1.1\r\n" USUAL "\r\n";
    if (!stage.client)
        stage.client = kernel_dial(STAGE_WIRE);
    stage_give(stage.client, text, strlen(text));
    stage_expect(&stage.client, 0, "no\n");
    stage_expect_status("403");
}

/* With the example of RFC 6455 section 1.3. */
static void play_open(void) {
    static const char text[] = "GET /chat/1 HTTP/1.1\r\n" USUAL "Origin: https://www.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                               "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n";
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
    stage.client = kernel_dial(STAGE_WIRE);
    stage_give(stage.client, text, strlen(text));
    stage_expect(&stage.server, 0, "\r\n\r\n");
    stage_give(stage.server, answer, strlen(answer));
    stage_expect(&stage.client, 0, "\r\n\r\n");
    stage_expect_status("101");
}

static void play_upgrade(void) {
    unsigned turns = 0;
    play_open();
    kernel_shut(stage.client);
    while (!stage.server->near_fin)
        stage_turn(&turns);
    kernel_shut(stage.server);
    stage_expect_closed(&stage.client);
    stage_expect_closed(&stage.server);
}

/* One way through a tunnel: n bytes. */
static void play_pass(struct kernel_link *from, struct kernel_link **to, size_t n) {
    static char bytes[65536];
    if (n > sizeof bytes)
        stage_fail("too much");
    stage_give(from, bytes, n);
    stage_expect(to, n, "");
}

static void play_echo(void) {
    play_pass(stage.client, &stage.server, 64);
    play_pass(stage.server, &stage.client, 64);
}

/* Pieces that are copied, and such that go through a pipe from the fourth on. */
static void play_copied(void) { play_pass(stage.server, &stage.client, 12000); }

static const struct play {
    const char *name;
    void (*begin)(void);
    void (*round)(void);
} plays[] = {
    {"get", NULL, play_get},
    {"get-50-fields", NULL, play_fields},
    {"post-1000", NULL, play_post},
    {"post-500-chunks", NULL, play_crumbs},
    {"chunked", NULL, play_chunked},
    {"close", NULL, play_close},
    {"reply", NULL, play_reply},
    {"get-logged", NULL, play_logged},
    {"upgrade", NULL, play_upgrade},
    {"echo-64", play_open, play_echo},
    {"copy-12000", play_open, play_copied},
};

#define PLAYS (sizeof plays / sizeof plays[0])

void exchange_mark(void);
__attribute__((noinline)) void exchange_mark(void) { __asm__ volatile("" ::: "memory"); }

static void play_rounds(const struct play *play, unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        play->round();
        kernel.now_us += STAGE_ROUND_US;
    }
}

/* $EXCHANGES_LUA, or the one beside this source ($srcdir is make check's). */
static const char *play_file(void) {
    static char path[4096];
    const char *file = getenv("EXCHANGES_LUA"), *srcdir = getenv("srcdir");
    if (file)
        return file;
    snprintf(path, sizeof path, "%s/tests/bench/exchanges.lua", srcdir ? srcdir : ".");
    return path;
}

/* Returns the system calls of a round. */
static double play_whole(const struct play *play, unsigned rounds) {
    stage.name = play->name;
    stage_open(play_file());
    if (play->begin)
        play->begin();
    play_rounds(play, STAGE_WARM);
    uint64_t before = kernel.calls;
    exchange_mark();
    play_rounds(play, rounds);
    exchange_mark();
    double calls = (double)(kernel.calls - before) / rounds;
    stage_close();
    return calls;
}

static void print_made_by(void) {
#ifdef __clang__
    const char *compiler = "clang " __clang_version__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    unsigned long parser = http_parser_version();
    struct utsname machine;
    if (uname(&machine) != 0)
        exit(1);
    printf("%s %s, libc %s, %s, http-parser %lu.%lu.%lu, OpenSSL %d.%d, %s\n", compiler, EXCHANGES_CFLAGS, gnu_get_libc_version(), LUA_RELEASE,
           parser >> 16, parser >> 8 & 255, parser & 255, OPENSSL_VERSION_MAJOR, OPENSSL_VERSION_MINOR, machine.machine);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < PLAYS; i++)
            puts(plays[i].name);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--made-by") == 0) {
        print_made_by();
        return 0;
    }
    unsigned rounds = argc == 3 ? (unsigned)strtoul(argv[2], NULL, 10) : 10;
    if ((argc != 1 && argc != 3) || rounds == 0) {
        fprintf(stderr, "usage: exchanges [--list | --made-by | NAME ROUNDS]\n");
        return 2;
    }
    const struct log_options log = {.level = LOG_LEVEL_ERROR, .access_to = "/dev/null"};
    bool found = argc == 1;
    if (!log_start(&log))
        stage_fail("no log");
    metrics_attach();
    for (size_t i = 0; i < PLAYS; i++) {
        if (argc == 3 && strcmp(argv[1], plays[i].name) != 0)
            continue;
        found = true;
        printf("%s %.2f\n", plays[i].name, play_whole(&plays[i], rounds));
    }
    if (!found)
        fprintf(stderr, "exchanges: there is no \"%s\" (--list)\n", argv[1]);
    return found ? 0 : 2;
}
