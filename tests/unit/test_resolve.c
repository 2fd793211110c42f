/* SPDX-License-Identifier: MIT */
/*
 * resolve: answers of a name server of ours, of /etc/hosts, of nobody; what comes when it does not come in time.
 */
#include "dns.h"

#include "base/clock.h"
#include "base/mem.h"
#include "upstream/resolve.h"

static struct dns dns;
static struct loop *loop;
static struct resolver *resolver;
static char got[4096]; /* "127.0.0.1:80 ..." in order of the text, then what failed */
static unsigned done;

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void on_done(void *owner, const struct resolve_answer *answer) {
    ck_assert_ptr_eq(owner, &dns);
    char *texts[RESOLVE_ANSWERS_MAX];
    got[0] = 0;
    for (unsigned i = 0; i < answer->count; i++) {
        char addr[ADDR_TEXT_MAX];
        addr_format(&answer->list[i].addr, addr);
        texts[i] = mem_printf("%s/%s/%u/%u ", addr, answer->list[i].host, answer->list[i].priority, answer->list[i].weight);
    }
    qsort(texts, answer->count, sizeof *texts, compare);
    for (unsigned i = 0; i < answer->count; i++) {
        strncat(got, texts[i], sizeof got - strlen(got) - 1);
        mem_free(texts[i]);
    }
    size_t used = strlen(got);
    snprintf(got + used, sizeof got - used, "%s%s%s", answer->failed & RESOLVE_V4 ? "!4 " : "", answer->failed & RESOLVE_V6 ? "!6 " : "",
             answer->error ? answer->error : "");
    ck_assert((answer->count == 0) == (answer->error != NULL));
    ck_assert(!answer->error || answer->hint);
    done++;
}

static void setup(const struct dns_record *records, unsigned count) {
    dns_start(&dns);
    dns_set(&dns, records, count);
    loop = loop_new();
    resolver = resolver_new(loop, dns.nameservers);
}

static void teardown(void) {
    resolver_free(&resolver);
    loop_free(&loop);
    dns_stop(&dns);
}

static void ask(const char *name, bool srv, uint32_t timeout_ms, const char *want) {
    done = 0;
    ck_assert_ptr_nonnull(resolve_start(resolver, name, 80, srv, timeout_ms, on_done, &dns));
    ck_assert_uint_eq(done, 0);
    for (unsigned i = 0; i < 10000 && done == 0; i++)
        loop_turn(loop, 10);
    ck_assert_uint_eq(done, 1);
    ck_assert_msg(strcmp(got, want) == 0, "%s, not %s", got, want);
}

START_TEST(test_resolve_both_families) {
    static const struct dns_record records[] = {{"web.test", DNS_A, "127.0.0.1", 0, 0, 0},
                                                {"web.test", DNS_A, "127.0.0.2", 0, 0, 0},
                                                {"web.test", DNS_A, "127.0.0.1", 0, 0, 0},
                                                {"web.test", DNS_AAAA, "::1", 0, 0, 0},
                                                {"other.test", DNS_A, "127.0.0.3", 0, 0, 0}};
    setup(records, 5);
    ask("web.test", false, 5000, "127.0.0.1:80/web.test/0/1 127.0.0.2:80/web.test/0/1 [::1]:80/web.test/0/1 ");
    ask("other.test", false, 5000, "127.0.0.3:80/other.test/0/1 ");
    ask("127.0.0.9", false, 5000, "127.0.0.9:80/127.0.0.9/0/1 ");
    teardown();
}
END_TEST

START_TEST(test_resolve_no_answer) {
    static const struct dns_record records[] = {{"web.test", DNS_SRV, "x.test", 1, 1, 1}};
    setup(records, 1);
    ask("no.test", false, 5000, "no such name");
    ask("web.test", false, 5000, "the name has no address");
    ask("no.test", true, 5000, "no such name");
    dns_set_mood(&dns, DNS_FAILS, 0);
    ask("web.test", false, 5000, "!4 !6 Could not contact DNS servers");
    dns_set_mood(&dns, DNS_SILENT, 0);
    uint64_t start = clock_ms();
    ask("web.test", false, 200, "!4 !6 Timeout while contacting DNS servers");
    ask("web.test", true, 200, "!4 !6 Timeout while contacting DNS servers");
    ck_assert_uint_lt(clock_ms() - start, 2000);
    teardown();
}
END_TEST

/* A server that drops questions for IPv6 addresses does not take the others with it, and not much time. */
START_TEST(test_resolve_half_an_answer) {
    static const struct dns_record records[] = {{"web.test", DNS_A, "127.0.0.1", 0, 0, 0}};
    setup(records, 1);
    dns_set_mood(&dns, DNS_ANSWERS, DNS_AAAA);
    uint64_t start = clock_ms();
    ask("web.test", false, 9000, "127.0.0.1:80/web.test/0/1 !6 ");
    ck_assert_uint_lt(clock_ms() - start, 4000);
    ask("web.test", false, 100, "127.0.0.1:80/web.test/0/1 !6 ");
    teardown();
}
END_TEST

START_TEST(test_resolve_srv) {
    static const struct dns_record records[] = {{"_ws._tcp.chat.test", DNS_SRV, "a.test", 10, 5, 9001},
                                                {"_ws._tcp.chat.test", DNS_SRV, "b.test", 20, 0, 9002},
                                                {"_ws._tcp.chat.test", DNS_SRV, "gone.test", 10, 1, 9003},
                                                {"_none._tcp.chat.test", DNS_SRV, "", 0, 0, 0},
                                                {"a.test", DNS_A, "127.0.0.1", 0, 0, 0},
                                                {"b.test", DNS_A, "127.0.0.1", 0, 0, 0},
                                                {"b.test", DNS_AAAA, "::1", 0, 0, 0}};
    setup(records, 7);
    ask("_ws._tcp.chat.test", true, 5000, "127.0.0.1:9001/a.test/10/5 127.0.0.1:9002/b.test/20/0 [::1]:9002/b.test/20/0 ");
    ask("_none._tcp.chat.test", true, 5000, "the name has no address");
    teardown();
}
END_TEST

/* /etc/hosts knows this one; no name server hears of it. */
START_TEST(test_resolve_hosts) {
    setup(NULL, 0);
    dns_set_mood(&dns, DNS_SILENT, 0);
    done = 0;
    resolve_start(resolver, "localhost", 80, false, 3000, on_done, &dns);
    uint64_t start = clock_ms();
    while (done == 0 && clock_ms() - start < 5000)
        loop_turn(loop, 10);
    ck_assert_ptr_nonnull(strstr(got, "127.0.0.1:80/localhost"));
    ck_assert_uint_eq(dns.queries, 0);
    teardown();
}
END_TEST

START_TEST(test_resolve_cancelled) {
    setup(NULL, 0);
    dns_set_mood(&dns, DNS_SILENT, 0);
    done = 0;
    struct resolve *a = resolve_start(resolver, "web.test", 80, false, 1000, on_done, &dns);
    struct resolve *b = resolve_start(resolver, "web.test", 80, true, 1000, on_done, &dns);
    struct resolve *c = resolve_start(resolver, "localhost", 80, false, 1000, on_done, &dns);
    if (_i == 1)
        loop_turn(loop, 0);
    if (_i == 0 || done == 0)
        resolve_cancel(&c);
    unsigned before = done;
    resolve_cancel(&a);
    resolve_cancel(&b);
    ck_assert_ptr_null(a);
    for (unsigned i = 0; i < 5; i++)
        loop_turn(loop, 1);
    ck_assert_uint_eq(done, before);
    teardown(); /* with questions under way */
}
END_TEST

int main(void) {
    Suite *suite = suite_create("resolve");
    TCase *tests = tcase_create("resolve");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_resolve_both_families);
    tcase_add_test(tests, test_resolve_no_answer);
    tcase_add_test(tests, test_resolve_half_an_answer);
    tcase_add_test(tests, test_resolve_srv);
    tcase_add_test(tests, test_resolve_hosts);
    tcase_add_loop_test(tests, test_resolve_cancelled, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
