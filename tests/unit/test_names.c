/* SPDX-License-Identifier: MIT */
/*
 * names: servers come and go with the answers of a name server, keep their objects while somebody holds them, outlive
 * failures, and are taken over by the next generation's pool.
 */
#include "dns.h"

#include "base/clock.h"
#include "base/metrics.h"
#include "upstream/names.h"
#include "upstream/resolve.h"

static struct dns dns;
static struct config_server servers[2];
static struct config_pool config;
static struct pool *pool;
static struct loop *loop;
static struct upstream upstream;
static struct prober *prober;
static struct names *names;
static unsigned changes;

#define TEXT(text) ((char *)(uintptr_t)(text))

static void setup(void) {
    metrics_attach();
    dns_start(&dns);
    config_pool_defaults(&config);
    servers[0] = (struct config_server){.name = TEXT("10.0.0.1:80"), .address = TEXT("10.0.0.1:80"), .host = TEXT("10.0.0.1"), .port = 80, .weight = 1};
    ck_assert(addr_parse(SPAN("10.0.0.1:80"), 0, &servers[0].addr));
    servers[1] = (struct config_server){.name = TEXT("web.test:80"), .address = TEXT("web.test:80"), .host = TEXT("web.test"), .port = 80, .weight = 3};
    config.name = TEXT("p");
    config.servers = servers;
    config.server_count = 2;
    config.probe.kind = CONFIG_PROBE_NONE;
    config.resolve_ms = 20;
}

static struct pool *make_pool(void) {
    char error[TLS_ERROR_MAX] = "";
    struct pool *made = pool_new(&config, NULL, error);
    ck_assert_msg(made != NULL, "%s", error);
    return made;
}

static void teardown(void) {
    pool_free(&pool);
    dns_stop(&dns);
}

static void resolve(uint32_t timeout_ms) { pools_resolve(&pool, 1, dns.nameservers, timeout_ms); }

/* The names of all servers there are, in the order of their slots. */
static const char *listing(void) {
    static char text[4096];
    text[0] = 0;
    for (unsigned i = 0; i < pool->server_count; i++) {
        const struct server *server = pool->servers[i];
        if (server_state(server) == SERVER_UNRESOLVED)
            continue;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s*%u ", server->name, server->backup ? "b" : "", server->weight);
    }
    return text;
}

static struct server *find(const char *name) {
    struct server *server = pool_find_server(pool, span_of(name));
    ck_assert_ptr_nonnull(server);
    return server;
}

START_TEST(test_names_first_answer) {
    static const struct dns_record records[] = {{"web.test", DNS_A, "127.0.0.2", 0, 0, 0}, {"web.test", DNS_AAAA, "::1", 0, 0, 0}};
    setup();
    dns_set(&dns, records, 2);
    config.affinity.cookie = TEXT("node");
    pool = make_pool();
    ck_assert_str_eq(listing(), "10.0.0.1:80*1 ");
    resolve(3000);
    ck_assert_ptr_nonnull(strstr(listing(), "web.test:80(127.0.0.2)*3 "));
    ck_assert_ptr_nonnull(strstr(listing(), "web.test:80(::1)*3 "));
    struct server *server = find("web.test:80(::1)");
    ck_assert_int_eq(server_state(server), SERVER_UP);
    ck_assert_uint_eq(addr_port(&server->addr), 80);
    ck_assert_str_eq(server->host, "web.test");
    ck_assert_uint_eq(pool_find_affinity(pool, span_of(server->affinity)) >= pool->names[0].first, 1);
    server_set_state(server, SERVER_DOWN);
    ck_assert_str_eq(find("web.test:80")->name, "web.test:80(127.0.0.2)"); /* one that is live */
    unsigned queries = dns.queries;
    resolve(3000); /* nothing is left to ask */
    ck_assert_uint_eq(dns.queries, queries);
    teardown();
}
END_TEST

START_TEST(test_names_no_answer) {
    setup();
    dns_set_mood(&dns, DNS_SILENT, 0);
    pool = make_pool();
    uint64_t start = clock_ms();
    resolve(100);
    ck_assert_uint_lt(clock_ms() - start, 1500);
    ck_assert_str_eq(listing(), "10.0.0.1:80*1 ");
    ck_assert(pool->names[0].failing);
    ck_assert(!server_is_live(find("web.test:80")));
    ck_assert(!pool_is_pending(pool));
    teardown();
}
END_TEST

static struct resolve_answer answer_of(struct resolve_address *list, unsigned count, const char *const *texts) {
    for (unsigned i = 0; i < count; i++) {
        list[i] = (struct resolve_address){.host = "web.test", .weight = 1};
        ck_assert(addr_parse(span_of(texts[i]), 80, &list[i].addr));
    }
    return (struct resolve_answer){.list = list, .count = count};
}

static char told[4096];

static void on_changed(void *owner, struct server *server, bool came) {
    ck_assert_ptr_eq(owner, told);
    size_t used = strlen(told);
    snprintf(told + used, sizeof told - used, "%c%s ", came ? '+' : '-', server->name + strlen("web.test:80"));
}

static const char *update(const struct resolve_answer *answer) {
    told[0] = 0;
    pool_update_name(pool, &pool->names[0], answer, on_changed, told);
    return told;
}

START_TEST(test_names_come_and_go) {
    static const char *const one[] = {"127.0.0.1", "127.0.0.2"}, *const two[] = {"127.0.0.3", "127.0.0.2"}, *const six[] = {"[::1]"};
    struct resolve_address list[4];
    setup();
    config.probe.kind = CONFIG_PROBE_TCP;
    pool = make_pool();
    struct resolve_answer answer = answer_of(list, 2, one);
    ck_assert_str_eq(update(&answer), "+(127.0.0.1) +(127.0.0.2) ");
    struct server *first = server_ref(find("web.test:80(127.0.0.1)")), *second = find("web.test:80(127.0.0.2)");
    ck_assert_int_eq(server_state(first), SERVER_UNKNOWN);
    ck_assert(first->late);
    server_set_state(first, SERVER_UP);
    server_set_state(second, SERVER_UP);
    ck_assert(server_enter(first)); /* a tunnel */
    answer = answer_of(list, 2, two);
    ck_assert_str_eq(update(&answer), "+(127.0.0.3) -(127.0.0.1) ");
    ck_assert_str_eq(update(&answer), "");
    ck_assert(!server_is_live(first)); /* no new work; the tunnel has it still */
    ck_assert_str_eq(first->label, "p/web.test:80(127.0.0.1)");
    ck_assert_uint_eq(atomic_load(&first->refs), 1);
    server_leave(first);
    server_unref(&first);
    ck_assert_ptr_eq(find("web.test:80(127.0.0.2)"), second);
    ck_assert_int_eq(server_state(second), SERVER_UP);
    struct resolve_answer failed = {.failed = RESOLVE_V4 | RESOLVE_V6, .error = "nobody answers"};
    ck_assert_str_eq(update(&failed), "");
    ck_assert(pool->names[0].failing);
    answer = answer_of(list, 1, six);
    answer.failed = RESOLVE_V4; /* about IPv4 nothing is known: those stay */
    ck_assert_str_eq(update(&answer), "+(::1) ");
    ck_assert(!pool->names[0].failing);
    answer.failed = 0;
    ck_assert_str_eq(update(&answer), "-(127.0.0.2) -(127.0.0.3) ");
    ck_assert_uint_eq(pool->names[0].count, 1);
    teardown();
}
END_TEST

/* What a worker remembers of a pool follows the answers. */
START_TEST(test_names_are_picked) {
    static const char *const one[] = {"127.0.0.1"}, *const two[] = {"127.0.0.2"};
    struct resolve_address list[1];
    setup();
    config.balance = (enum config_balance)_i;
    servers[0].weight = 0;
    config.slow_start_ms = 0;
    pool = make_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_ptr_null(balance_pick(balance, NULL, 0));
    struct resolve_answer answer = answer_of(list, 1, one);
    update(&answer);
    ck_assert_str_eq(balance_pick(balance, NULL, 0)->name, "web.test:80(127.0.0.1)");
    answer = answer_of(list, 1, two);
    update(&answer);
    for (unsigned n = 0; n < 3; n++)
        ck_assert_str_eq(balance_pick(balance, NULL, n)->name, "web.test:80(127.0.0.2)");
    balance_free(&balance);
    teardown();
}
END_TEST

START_TEST(test_names_srv) {
    setup();
    servers[1].srv = true;
    pool = make_pool();
    struct resolve_address list[3] = {{.host = "a.test", .priority = 1, .weight = 5},
                                      {.host = "b.test", .priority = 1, .weight = 0},
                                      {.host = "c.test", .priority = 2, .weight = 7}};
    for (unsigned i = 0; i < 3; i++) {
        static const char *const texts[] = {"127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.2:9001"};
        ck_assert(addr_parse(span_of(texts[i]), 0, &list[i].addr));
    }
    struct resolve_answer answer = {.list = list, .count = 3};
    update(&answer);
    ck_assert_str_eq(listing(), "10.0.0.1:80*1 web.test:80(127.0.0.1:9001)*15 web.test:80(127.0.0.1:9002)*3 web.test:80(127.0.0.2:9001)b*21 ");
    struct server *server = find("web.test:80(127.0.0.1:9001)");
    ck_assert_str_eq(server->host, "a.test");
    ck_assert_uint_eq(server->port, 9001);
    server_set_state(server, SERVER_DOWN);
    list[0].weight = 6; /* another object in the same state */
    ck_assert_str_eq(update(&answer), "+(127.0.0.1:9001) -(127.0.0.1:9001) ");
    server = find("web.test:80(127.0.0.1:9001)");
    ck_assert_uint_eq(server->weight, 18);
    ck_assert_int_eq(server_state(server), SERVER_DOWN);
    teardown();
}
END_TEST

START_TEST(test_names_more_than_there_is_room_for) {
    struct resolve_address list[POOL_ADDRESSES_MAX + 3];
    unsigned count = POOL_ADDRESSES_MAX + 3;
    setup();
    pool = make_pool();
    for (unsigned i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "127.0.1.%u:80", i + 1);
        list[i] = (struct resolve_address){.host = "web.test", .weight = 1};
        ck_assert(addr_parse(span_of(text), 0, &list[i].addr));
    }
    struct resolve_answer answer = {.list = list, .count = count};
    update(&answer);
    ck_assert_uint_eq(pool->names[0].count, POOL_ADDRESSES_MAX);
    ck_assert(pool->names[0].full);
    ck_assert_str_eq(update(&answer), "");
    answer = (struct resolve_answer){.list = list + 3, .count = count - 3}; /* others take the places of those that go */
    update(&answer);
    ck_assert_uint_eq(pool->names[0].count, POOL_ADDRESSES_MAX);
    ck_assert(!pool->names[0].full);
    find("web.test:80(127.0.1.35)");
    teardown();
}
END_TEST

START_TEST(test_names_taken_over) {
    static const char *const texts[] = {"127.0.0.1", "127.0.0.2"};
    struct resolve_address list[2];
    setup();
    config.probe.kind = CONFIG_PROBE_TCP;
    pool = make_pool();
    struct resolve_answer answer = answer_of(list, 2, texts);
    update(&answer);
    server_set_state(find("web.test:80(127.0.0.1)"), SERVER_UP);
    server_set_state(find("web.test:80(127.0.0.2)"), SERVER_DOWN);
    struct config_server others[2] = {servers[0], servers[1]};
    struct config_pool other = config;
    struct pool *old = pool;
    if (_i == 1)
        others[1].weight = 4;
    other.servers = others;
    struct server *before = find("web.test:80(127.0.0.1)");
    char error[TLS_ERROR_MAX];
    pool = pool_new(&other, old, error);
    ck_assert_uint_eq(pool->names[0].count, 2);
    ck_assert((find("web.test:80(127.0.0.1)") == before) == (_i == 0));
    pool_free(&old);
    ck_assert_int_eq(server_state(find("web.test:80(127.0.0.1)")), SERVER_UP);
    ck_assert_int_eq(server_state(find("web.test:80(127.0.0.2)")), SERVER_DOWN);
    ck_assert_uint_eq(find("web.test:80(127.0.0.2)")->weight, _i == 0 ? 3 : 4);
    teardown();
}
END_TEST

static void on_change(void *owner, struct server *server) {
    ck_assert_ptr_eq(owner, &changes);
    ck_assert_ptr_nonnull(server);
    changes++;
}

static void wait_listing(const char *want) {
    uint64_t start = clock_ms();
    while (strcmp(listing(), want) != 0 && clock_ms() - start < 5000)
        loop_turn(loop, 5);
    ck_assert_str_eq(listing(), want);
}

/* All of it: the loop, the name server, the prober. */
START_TEST(test_names_asked_again) {
    static const struct dns_record a[] = {{"web.test", DNS_A, "127.0.0.1", 0, 0, 0}}, b[] = {{"web.test", DNS_A, "127.0.0.2", 0, 0, 0}};
    setup();
    pool = make_pool();
    resolve(1000);
    loop = loop_new();
    upstream_init(&upstream, loop);
    upstream.is_probe = true;
    prober = prober_new(&upstream, &pool, 1, on_change, &changes);
    prober_start(prober);
    names = names_new(loop, &pool, 1, dns.nameservers, prober, on_change, &changes);
    ck_assert_ptr_nonnull(names);
    ck_assert_str_eq(listing(), "10.0.0.1:80*1 ");
    dns_set(&dns, a, 1);
    wait_listing("10.0.0.1:80*1 web.test:80(127.0.0.1)*3 ");
    ck_assert_uint_eq(changes, 1);
    ck_assert(server_is_live(find("web.test:80")));
    ck_assert_ptr_nonnull(find("web.test:80")->probe);
    dns_set(&dns, b, 1);
    wait_listing("10.0.0.1:80*1 web.test:80(127.0.0.2)*3 ");
    ck_assert_uint_eq(changes, 3);
    dns_set(&dns, NULL, 0);
    uint64_t start = clock_ms();
    while (!pool->names[0].failing && clock_ms() - start < 5000)
        loop_turn(loop, 5);
    ck_assert(pool->names[0].failing);
    ck_assert_str_eq(listing(), "10.0.0.1:80*1 web.test:80(127.0.0.2)*3 ");
    dns_set(&dns, a, 1);
    wait_listing("10.0.0.1:80*1 web.test:80(127.0.0.1)*3 ");
    names_free(&names);
    prober_free(&prober);
    upstream_fini(&upstream);
    loop_free(&loop);
    teardown();
}
END_TEST

int main(void) {
    Suite *suite = suite_create("names");
    TCase *tests = tcase_create("names");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_names_first_answer);
    tcase_add_test(tests, test_names_no_answer);
    tcase_add_test(tests, test_names_come_and_go);
    tcase_add_test(tests, test_names_srv);
    tcase_add_loop_test(tests, test_names_are_picked, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_test(tests, test_names_more_than_there_is_room_for);
    tcase_add_loop_test(tests, test_names_taken_over, 0, 2);
    tcase_add_test(tests, test_names_asked_again);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
