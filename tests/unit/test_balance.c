/* SPDX-License-Identifier: MIT */
/*
 * balance: who is next, by weight, by load, with backups, in a retry.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "upstream/pool.h"

#define SERVERS 10

static struct config_server servers[SERVERS];
static struct config_pool config;
static struct pool *pool;

static void setup(enum config_balance balance, unsigned count) {
    static char names[SERVERS][24];
    config_pool_defaults(&config);
    for (unsigned i = 0; i < SERVERS; i++) {
        snprintf(names[i], sizeof names[i], "10.0.0.%u:80", i + 1);
        servers[i] = (struct config_server){.name = names[i], .address = names[i], .host = names[i], .weight = 1};
        ck_assert(addr_parse(span_of(names[i]), 0, &servers[i].addr));
    }
    config.name = (char *)(uintptr_t) "p";
    config.servers = servers;
    config.server_count = count;
    config.balance = balance;
    config.probe.kind = CONFIG_PROBE_NONE;
}

static void open_pool(void) {
    char error[TLS_ERROR_MAX];
    pool = pool_new(&config, NULL, error);
    ck_assert_ptr_nonnull(pool);
}

/* The next n picks as letters. */
static const char *picks(struct balance *balance, unsigned n) {
    static char text[64];
    unsigned i;
    for (i = 0; i < n; i++) {
        struct server *server = balance_pick(balance, NULL, 0);
        text[i] = '-';
        for (unsigned k = 0; k < pool->server_count; k++) {
            if (pool->servers[k] == server)
                text[i] = (char)('a' + k);
        }
    }
    text[i] = 0;
    return text;
}

/* How often each server is picked, every pick with a key of its own. */
static void count_picks(struct balance *balance, unsigned picks_made, unsigned *counts) {
    memset(counts, 0, SERVERS * sizeof *counts);
    for (unsigned n = 0; n < picks_made; n++) {
        struct server *server = balance_pick(balance, NULL, n);
        for (unsigned k = 0; k < pool->server_count; k++)
            counts[k] += pool->servers[k] == server;
    }
}

START_TEST(test_balance_roundrobin_is_smooth) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    servers[0].weight = 5;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 2);
    ck_assert_str_eq(picks(balance, 14), "aabacaaaabacaa");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_workers_do_not_move_in_step) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    open_pool();
    struct balance *first = balance_new(pool, 0, 2), *second = balance_new(pool, 1, 2);
    ck_assert_str_eq(picks(first, 4), "abca");
    ck_assert_str_eq(picks(second, 4), "bcab");
    balance_free(&first);
    balance_free(&second);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_skips_what_is_not_live) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 3);
    servers[2].weight = 0;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_str_eq(picks(balance, 4), "abab");
    server_set_state(pool->servers[0], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "bbb");
    server_set_state(pool->servers[1], SERVER_UNKNOWN);
    ck_assert_str_eq(picks(balance, 2), "--");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_backups_come_last) {
    setup((enum config_balance)_i, 3);
    servers[1].backup = true;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_ptr_null(strchr(picks(balance, 6), 'b'));
    server_set_state(pool->servers[0], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "ccc");
    server_set_state(pool->servers[2], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 3), "bbb");
    server_set_state(pool->servers[0], SERVER_UP);
    ck_assert_str_eq(picks(balance, 3), "aaa");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_avoids_what_was_tried) {
    setup((enum config_balance)_i, 3);
    servers[2].backup = true;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    struct pool_tried tried = {.list = {pool->servers[0]}, .count = 1};
    for (unsigned i = 0; i < 4; i++)
        ck_assert_ptr_eq(balance_pick(balance, &tried, 0), pool->servers[1]);
    tried.list[tried.count++] = pool->servers[1];
    ck_assert_ptr_eq(balance_pick(balance, &tried, 0), pool->servers[2]);
    server_set_state(pool->servers[2], SERVER_DOWN);
    ck_assert_ptr_nonnull(balance_pick(balance, &tried, 0));
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* Who would be next but is full is waited for: neither a backup nor one that was tried takes its place. */
START_TEST(test_balance_waits_for_who_is_full) {
    setup((enum config_balance)_i, 4);
    servers[0].max_connections = servers[2].max_connections = 1;
    servers[2].backup = servers[3].backup = true;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    struct pool_tried tried = {.list = {pool->servers[1]}, .count = 1};
    ck_assert(server_enter(pool->servers[0]));
    ck_assert_ptr_null(balance_pick(balance, &tried, 0)); /* a is up */
    ck_assert(pool_is_next(pool, &tried, pool->servers[0]));
    for (unsigned k = 1; k < 4; k++)
        ck_assert(!pool_is_next(pool, &tried, pool->servers[k]));
    server_set_state(pool->servers[1], SERVER_DOWN);
    ck_assert_ptr_null(balance_pick(balance, NULL, 0));
    server_set_state(pool->servers[0], SERVER_DOWN);
    ck_assert(server_enter(pool->servers[2]));
    ck_assert_ptr_eq(balance_pick(balance, NULL, 0), pool->servers[3]);
    tried = (struct pool_tried){.list = {pool->servers[3]}, .count = 1};
    ck_assert_ptr_null(balance_pick(balance, &tried, 0)); /* the other backup is up */
    ck_assert(pool_is_next(pool, &tried, pool->servers[2]));
    ck_assert(!pool_is_next(pool, &tried, pool->servers[3]));
    server_leave(pool->servers[2]);
    ck_assert_ptr_eq(balance_pick(balance, &tried, 0), pool->servers[2]);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* What balance_pick() picks and what the queue takes a slot of is the same, whatever is up or was tried. */
START_TEST(test_balance_and_queue_agree) {
    setup((enum config_balance)_i, 4);
    servers[2].backup = servers[3].backup = true;
    for (unsigned k = 0; k < 4; k++)
        servers[k].max_connections = 1;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    for (unsigned bits = 0; bits < 1 << 12; bits++) {
        struct pool_tried tried = {.count = 0};
        bool next = false;
        for (unsigned k = 0; k < 4; k++) {
            server_set_state(pool->servers[k], bits >> k & 1 ? SERVER_UP : SERVER_DOWN);
            atomic_store(&pool->servers[k]->active, bits >> (4 + k) & 1);
            if (bits >> (8 + k) & 1)
                tried.list[tried.count++] = pool->servers[k];
        }
        struct server *picked = balance_pick(balance, &tried, bits);
        for (unsigned k = 0; k < 4; k++)
            next = next || (server_has_room(pool->servers[k]) && pool_is_next(pool, &tried, pool->servers[k]));
        if (picked ? !pool_is_next(pool, &tried, picked) : next)
            ck_abort_msg("not so for %x", bits);
    }
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* Smooth weighted round-robin the long way: every live server grows by its weight, the highest pays the sum. */
static struct server *pick_long_way(int64_t *current, bool backup) {
    int64_t total = 0;
    unsigned best = SERVERS;
    for (unsigned k = 0; k < pool->server_count; k++) {
        const struct server *server = pool->servers[k];
        if (!server_is_live(server) || server->backup != backup)
            continue;
        current[k] += (int64_t)server->weight * SERVER_RAMP_FULL;
        total += (int64_t)server->weight * SERVER_RAMP_FULL;
        if (best == SERVERS || current[k] > current[best])
            best = k;
    }
    if (best == SERVERS)
        return NULL;
    current[best] -= total;
    return pool->servers[best];
}

static const unsigned weights[][SERVERS] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 1, 1, 5, 2, 2, 7, 1, 3, 1},
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 1000}, {UINT32_MAX, UINT32_MAX, 1, UINT32_MAX, 7, UINT32_MAX, 7, 7, UINT32_MAX, 1},
};

/* The last one's payments outgrow a key several times. */
START_TEST(test_balance_roundrobin_as_the_long_way) {
    setup(CONFIG_BALANCE_ROUNDROBIN, SERVERS);
    for (unsigned k = 0; k < SERVERS; k++) {
        servers[k].weight = weights[_i][k];
        servers[k].backup = k == 4 || k == 6 || k == 8;
    }
    config.slow_start_ms = 0;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    int64_t current[SERVERS] = {0};
    uint64_t chance = 1;
    for (unsigned step = 0; step < 400000; step++) {
        chance = chance * 6364136223846793005u + 1442695040888963407u;
        if (step < 100000 && chance >> 59 == 0) /* sometimes all of one kind are down, or all */
            server_set_state(pool->servers[(chance >> 40) % SERVERS], chance >> 20 & 1 ? SERVER_UP : SERVER_DOWN);
        struct server *expected = pick_long_way(current, false);
        if (!expected)
            expected = pick_long_way(current, true);
        if (balance_pick(balance, NULL, 0) != expected) /* each ck_assert() is a write to a file */
            ck_abort_msg("pick %u is another", step);
    }
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* A retry passes over what was tried, as if it were not there: neither does it grow meanwhile. */
START_TEST(test_balance_roundrobin_retries) {
    setup(CONFIG_BALANCE_ROUNDROBIN, 2);
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    struct pool_tried tried = {.list = {pool->servers[0]}, .count = 1};
    unsigned first = 0;
    for (unsigned n = 0; n < 100; n++) {
        if (balance_pick(balance, NULL, 0) != pool->servers[0])
            continue;
        first++;
        ck_assert_ptr_eq(balance_pick(balance, &tried, 0), pool->servers[1]);
    }
    ck_assert_uint_eq(first, 50); /* a server that fails has its share of first tries, not all of them */
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* Who is full is passed over, and has nothing to catch up on afterwards but one turn. */
START_TEST(test_balance_skips_full_servers) {
    setup((enum config_balance)_i, 6);
    servers[1].max_connections = servers[2].max_connections = 1;
    servers[2].weight = 4;
    config.slow_start_ms = 0;
    config.hash_bound = 0;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    struct pool_tried tried = {.list = {pool->servers[0]}, .count = 1};
    unsigned counts[SERVERS];
    ck_assert(server_enter(pool->servers[1]) && server_enter(pool->servers[2]));
    count_picks(balance, 600, counts);
    ck_assert_uint_eq(counts[1] + counts[2], 0);
    for (unsigned n = 0; n < 100; n++) {
        struct server *server = balance_pick(balance, &tried, n);
        ck_assert(server != pool->servers[0] && server != pool->servers[1] && server != pool->servers[2]);
    }
    server_leave(pool->servers[2]);
    count_picks(balance, 600, counts); /* 1:-:4:1:1:1 */
    ck_assert_uint_eq(counts[1], 0);
    if (_i == CONFIG_BALANCE_ROUNDROBIN) {
        for (unsigned k = 0; k < 6; k++)
            ck_assert_int_le(abs((int)counts[k] - (k == 1 ? 0 : k == 2 ? 300 : 75)), 3);
    } else if (_i == CONFIG_BALANCE_RANDOM || _i == CONFIG_BALANCE_HASH) {
        ck_assert_uint_gt(counts[2], 200);
    }
    server_leave(pool->servers[1]);
    count_picks(balance, 900, counts); /* 1:1:4:1:1:1 */
    if (_i == CONFIG_BALANCE_ROUNDROBIN)
        for (unsigned k = 0; k < 6; k++)
            ck_assert_int_le(abs((int)counts[k] - (k == 2 ? 400 : 100)), 3);
    else if (_i != CONFIG_BALANCE_FIRST)
        ck_assert_uint_gt(counts[1], 50);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_leastconn) {
    setup(CONFIG_BALANCE_LEASTCONN, 3);
    servers[1].weight = 2;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    ck_assert_str_eq(picks(balance, 6), "abcabc"); /* ties go round */
    server_enter(pool->servers[0]);
    server_enter(pool->servers[2]);
    server_enter(pool->servers[1]);
    ck_assert_str_eq(picks(balance, 3), "bbb"); /* 1/1, 1/2, 1/1 */
    server_enter(pool->servers[1]);
    server_enter(pool->servers[1]);
    ck_assert_ptr_null(strchr(picks(balance, 4), 'b')); /* 1/1, 3/2, 1/1 */
    server_leave(pool->servers[2]);
    ck_assert_str_eq(picks(balance, 2), "cc");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_no_servers) {
    setup((enum config_balance)_i, 0);
    open_pool();
    struct balance *balance = balance_new(pool, 3, 4);
    ck_assert_ptr_null(balance_pick(balance, NULL, 0));
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

/* Down, and up again ago_ms before now. */
static void come_back(struct server *server, uint64_t ago_ms) {
    server_set_state(server, SERVER_DOWN);
    ck_assert(server_set_state(server, SERVER_UP));
    ck_assert_uint_ne(atomic_load(&server->returned_ms), 0);
    atomic_store(&server->returned_ms, clock_ms() - ago_ms);
}

START_TEST(test_balance_slow_start) {
    setup((enum config_balance)_i, 2);
    config.slow_start_ms = 100000;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    unsigned counts[SERVERS], before = 0;
    for (unsigned step = 0; step < 4; step++) { /* the one that came back is the first: "first" prefers it, too */
        come_back(pool->servers[0], step * 30000);
        count_picks(balance, 3000, counts);
        ck_assert_uint_gt(counts[0], before + 100);
        before = counts[0];
        if (step == 0)
            ck_assert_uint_lt(counts[0], 400);
    }
    atomic_store(&pool->servers[0]->returned_ms, clock_ms() - 100001);
    count_picks(balance, 3000, counts);
    ck_assert_uint_gt(counts[0], 1300);
    ck_assert_uint_eq(atomic_load(&pool->servers[0]->returned_ms), 0); /* nobody looks at the clock any more */
    config.slow_start_ms = 0;
    come_back(pool->servers[0], 0);
    count_picks(balance, 3000, counts);
    ck_assert_uint_gt(counts[0], 1300);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_slow_start_alone) {
    setup((enum config_balance)_i, 2);
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    server_set_state(pool->servers[1], SERVER_DOWN);
    come_back(pool->servers[0], 0);
    ck_assert_str_eq(picks(balance, 20), "aaaaaaaaaaaaaaaaaaaa");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_slow_start_leastconn_tunnels) {
    setup(CONFIG_BALANCE_LEASTCONN, 2);
    config.slow_start_ms = 100000;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    for (unsigned i = 0; i < 5000; i++)
        server_enter(pool->servers[0]);
    come_back(pool->servers[1], 20000); /* a quarter of the newcomers, though it has no tunnel at all */
    unsigned counts[SERVERS];
    count_picks(balance, 2000, counts);
    ck_assert_uint_gt(counts[1], 350);
    ck_assert_uint_lt(counts[1], 650);
    ck_assert_uint_eq(counts[0] + counts[1], 2000);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_random) {
    setup(CONFIG_BALANCE_RANDOM, 3);
    servers[0].weight = 2;
    open_pool();
    struct balance *one = balance_new(pool, 0, 2), *two = balance_new(pool, 1, 2);
    unsigned counts[SERVERS];
    count_picks(one, 4000, counts);
    ck_assert_uint_gt(counts[0], 1700);
    ck_assert_uint_lt(counts[0], 2300);
    ck_assert_uint_gt(counts[1], 800);
    ck_assert_uint_gt(counts[2], 800);
    char first[64];
    snprintf(first, sizeof first, "%s", picks(one, 50));
    ck_assert_str_ne(first, picks(two, 50));
    balance_free(&one);
    balance_free(&two);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_random_prefers_the_less_loaded) {
    setup(CONFIG_BALANCE_RANDOM, 10);
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    unsigned most = 0;
    for (unsigned i = 0; i < 1000; i++)
        server_enter(balance_pick(balance, NULL, 0));
    for (unsigned k = 0; k < 10; k++) {
        unsigned active = atomic_load(&pool->servers[k]->active);
        most = active > most ? active : most;
    }
    ck_assert_uint_lt(most, 108); /* by lot alone the fullest of ten would have about 115 */
    for (unsigned i = 0; i < 50; i++)
        server_enter(pool->servers[3]);
    ck_assert_ptr_null(strchr(picks(balance, 50), 'd'));
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_first) {
    setup(CONFIG_BALANCE_FIRST, 3);
    servers[0].max_connections = 2;
    config.slow_start_ms = 0;
    open_pool();
    struct balance *balance = balance_new(pool, 2, 4);
    ck_assert_str_eq(picks(balance, 4), "aaaa");
    ck_assert(server_enter(pool->servers[0]) && server_enter(pool->servers[0]));
    ck_assert_str_eq(picks(balance, 4), "bbbb");
    server_leave(pool->servers[0]);
    ck_assert_str_eq(picks(balance, 4), "aaaa");
    server_set_state(pool->servers[0], SERVER_DOWN);
    server_set_state(pool->servers[1], SERVER_DOWN);
    ck_assert_str_eq(picks(balance, 4), "cccc");
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_hash_shares_by_weight) {
    setup(CONFIG_BALANCE_HASH, 4);
    servers[2].weight = 3;
    open_pool();
    struct balance *one = balance_new(pool, 0, 2), *two = balance_new(pool, 1, 2);
    unsigned counts[SERVERS];
    count_picks(one, 6000, counts); /* 1:1:3:1 */
    ck_assert_uint_gt(counts[2], 2800);
    ck_assert_uint_lt(counts[2], 3200);
    ck_assert_uint_gt(counts[0], 850);
    ck_assert_uint_lt(counts[0], 1150);
    for (unsigned key = 0; key < 500; key++) /* all workers choose alike */
        ck_assert_ptr_eq(balance_pick(one, NULL, key), balance_pick(two, NULL, key));
    balance_free(&one);
    balance_free(&two);
    pool_free(&pool);
}
END_TEST

#define KEYS 5000

START_TEST(test_balance_hash_moves_its_share_only) {
    static unsigned before[KEYS];
    unsigned moved = 0, elsewhere = 0;
    setup(CONFIG_BALANCE_HASH, 9);
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    for (unsigned key = 0; key < KEYS; key++)
        for (unsigned k = 0; k < 9; k++)
            before[key] = balance_pick(balance, NULL, key) == pool->servers[k] ? k : before[key];
    balance_free(&balance);
    pool_free(&pool);
    setup(CONFIG_BALANCE_HASH, 10);
    open_pool();
    balance = balance_new(pool, 0, 1);
    for (unsigned key = 0; key < KEYS; key++) {
        struct server *now = balance_pick(balance, NULL, key);
        moved += now == pool->servers[9];
        elsewhere += now != pool->servers[9] && now != pool->servers[before[key]];
    }
    ck_assert_uint_gt(moved, KEYS / 10 - 100);
    ck_assert_uint_lt(moved, KEYS / 10 + 100);
    ck_assert_uint_eq(elsewhere, 0); /* no key moves between those that were there */
    server_set_state(pool->servers[9], SERVER_DOWN);
    for (unsigned key = 0; key < KEYS; key++)
        ck_assert_ptr_eq(balance_pick(balance, NULL, key), pool->servers[before[key]]);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

START_TEST(test_balance_hash_is_bounded) {
    setup(CONFIG_BALANCE_HASH, 4);
    config.hash_bound = 150;
    open_pool();
    struct balance *balance = balance_new(pool, 0, 1);
    unsigned used = 0, most = 0;
    for (unsigned n = 0; n < 400; n++) /* one hot key */
        server_enter(balance_pick(balance, NULL, 77));
    for (unsigned k = 0; k < 4; k++) {
        unsigned active = atomic_load(&pool->servers[k]->active);
        used += active > 0;
        most = active > most ? active : most;
    }
    ck_assert_uint_eq(most, 150); /* half more than its 100 */
    ck_assert_uint_eq(used, 3);   /* 150, 150, 100: the key's own order */
    config.hash_bound = 0;
    struct server *owner = balance_pick(balance, NULL, 77);
    ck_assert_uint_eq(atomic_load(&owner->active), 150);
    balance_free(&balance);
    pool_free(&pool);
    setup(CONFIG_BALANCE_HASH, 4);
    open_pool();
    balance = balance_new(pool, 0, 1);
    for (unsigned n = 0; n < 16; n++) { /* a quiet pool is not torn apart */
        ck_assert_ptr_eq(balance_pick(balance, NULL, 77), owner = balance_pick(balance, NULL, 77));
        server_enter(owner);
    }
    ck_assert_uint_eq(atomic_load(&owner->active), 16);
    balance_free(&balance);
    pool_free(&pool);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("balance");
    TCase *tests = tcase_create("balance");
    tcase_add_test(tests, test_balance_roundrobin_is_smooth);
    tcase_add_test(tests, test_balance_workers_do_not_move_in_step);
    tcase_add_test(tests, test_balance_skips_what_is_not_live);
    tcase_add_loop_test(tests, test_balance_backups_come_last, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_avoids_what_was_tried, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_waits_for_who_is_full, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_and_queue_agree, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_roundrobin_as_the_long_way, 0, (int)(sizeof weights / sizeof weights[0]));
    tcase_add_test(tests, test_balance_roundrobin_retries);
    tcase_add_loop_test(tests, test_balance_skips_full_servers, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_test(tests, test_balance_leastconn);
    tcase_add_loop_test(tests, test_balance_no_servers, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_slow_start, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_loop_test(tests, test_balance_slow_start_alone, 0, CONFIG_BALANCE_FIRST + 1);
    tcase_add_test(tests, test_balance_slow_start_leastconn_tunnels);
    tcase_add_test(tests, test_balance_random);
    tcase_add_test(tests, test_balance_random_prefers_the_less_loaded);
    tcase_add_test(tests, test_balance_first);
    tcase_add_test(tests, test_balance_hash_shares_by_weight);
    tcase_add_test(tests, test_balance_hash_moves_its_share_only);
    tcase_add_test(tests, test_balance_hash_is_bounded);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
