/* SPDX-License-Identifier: MIT */
/*
 * Slots across workers: order, the limit, hand-over by letter, waiters that leave or want another server, two threads that fight for one
 * slot, and two with many waiters, after which all must come to rest.
 */
#include <check.h>
#include <pthread.h>

#include "base/mem.h"
#include "upstream/server.h"

struct waiting {
    struct queue_waiter waiter;
    struct server *got;
    const struct server *avoids;
    int order;
};

static struct queue *queue;
static struct server *server;
static struct loop *loops[2];
static int served;

static void on_slot(struct queue_waiter *waiter, struct server *slot) {
    struct waiting *waiting = container_of(waiter, struct waiting, waiter);
    waiting->got = slot;
    waiting->order = ++served;
}

static bool wants(const struct queue_waiter *waiter, const struct server *slot) {
    return container_of(waiter, const struct waiting, waiter)->avoids != slot;
}

/* Of one slot, and up. */
static struct server *make_server(const char *address) {
    char *name = (char *)(uintptr_t)address;
    struct config_server config = {.name = name, .address = name, .host = name, .port = 1, .weight = 1, .max_connections = 1};
    ck_assert(addr_parse(span_of(address), 0, &config.addr));
    struct server *made = server_new("p", &config);
    server_set_state(made, SERVER_UP);
    made->queue = queue_ref(queue);
    return made;
}

static void setup(void) {
    queue = queue_new();
    server = make_server("127.0.0.1:1");
    served = 0;
    for (unsigned i = 0; i < 2; i++) {
        loops[i] = loop_new();
        queue_open(queue, i, loops[i]);
    }
}

static void teardown(void) {
    for (unsigned i = 0; i < 2; i++) {
        queue_close(queue, i);
        loop_free(&loops[i]);
    }
    server_unref(&server);
    queue_unref(&queue);
}

static void join_one(unsigned worker, struct waiting *waiting, unsigned limit) {
    *waiting = (struct waiting){0};
    queue_waiter_init(&waiting->waiter, wants, on_slot);
    ck_assert(queue_join(queue, worker, &waiting->waiter, limit));
}

static void join(unsigned worker, struct waiting *waiting) { join_one(worker, waiting, 3); }

static unsigned active(void) { return atomic_load(&server->active); }

static void turn(void) {
    loop_turn(loops[0], 0);
    loop_turn(loops[1], 0);
}

START_TEST(test_slot_is_handed_over_and_never_free_in_between) {
    struct waiting first, second, third, fourth;
    ck_assert(server_enter(server));
    ck_assert(!server_enter(server));
    join(0, &first);
    join(0, &second);
    join(1, &third);
    queue_waiter_init(&fourth.waiter, wants, on_slot);
    ck_assert(!queue_join(queue, 1, &fourth.waiter, 3)); /* full */
    ck_assert_uint_eq(queue_length(queue), 3);
    for (int i = 1; i <= 3; i++) {
        server_leave(server);
        ck_assert(!server_enter(server)); /* a newcomer cannot take what is on its way */
        turn();
        ck_assert_int_eq(served, i);
    }
    ck_assert_int_eq(first.order, 1);
    ck_assert_int_eq(second.order, 2);
    ck_assert_int_eq(third.order, 3);
    ck_assert_uint_eq(queue_length(queue), 0);
    server_leave(server);
    ck_assert(server_enter(server));
    server_leave(server);
}
END_TEST

START_TEST(test_waiter_that_left_passes_the_slot_on) {
    struct waiting first, second;
    ck_assert(server_enter(server));
    join(0, &first);
    join(1, &second);
    server_leave(server);
    server_enter(server);
    queue_leave(queue, &first.waiter); /* its client has gone while the letter was under way, or before */
    queue_leave(queue, &first.waiter); /* twice is harmless */
    turn();
    turn();
    ck_assert_ptr_null(first.got);
    ck_assert_ptr_eq(second.got, server);
    server_leave(server);
    turn();
    ck_assert_uint_eq(active(), 0);
}
END_TEST

/* Turns are by arrival, however many wait at each worker. */
START_TEST(test_arrival_is_the_order_over_all_workers) {
    static const unsigned workers[] = {1, 1, 0, 1, 1, 1, 0};
    struct waiting waiting[7];
    ck_assert(server_enter(server));
    for (unsigned i = 0; i < 7; i++)
        join_one(workers[i], &waiting[i], 7);
    for (int i = 0; i < 7; i++) {
        server_leave(server);
        turn();
        ck_assert_int_eq(waiting[i].order, i + 1);
    }
    server_leave(server);
    ck_assert_uint_eq(active(), 0);
}
END_TEST

START_TEST(test_only_who_wants_the_server_gets_it) {
    struct waiting first, second;
    ck_assert(server_enter(server));
    join(0, &first);
    join(1, &second);
    first.avoids = server;
    server_leave(server);
    turn();
    ck_assert_ptr_null(first.got);
    ck_assert_ptr_eq(second.got, server);
    server_leave(server); /* nobody wants it */
    ck_assert_uint_eq(active(), 0);
    ck_assert(queue_is_waiting(&first.waiter));
    queue_leave(queue, &first.waiter);
}
END_TEST

/* Its worker may end before it reads the letter. */
START_TEST(test_slot_on_its_way_is_passed_on_at_once) {
    struct waiting first, second;
    ck_assert(server_enter(server));
    join(0, &first);
    join(1, &second);
    server_leave(server);
    ck_assert(queue_is_waiting(&first.waiter));
    ck_assert_uint_eq(queue_length(queue), 1);
    queue_leave(queue, &first.waiter);
    loop_turn(loops[1], 0);
    ck_assert_ptr_eq(second.got, server);
    ck_assert_uint_eq(active(), 1);
    server_leave(server);
    ck_assert_uint_eq(active(), 0);
    turn();
    ck_assert_ptr_null(first.got);
}
END_TEST

static unsigned looked;

/* The second one leaves, and comes back at once behind all others. */
static void look(struct queue_waiter *waiter) {
    if (++looked != 2)
        return;
    queue_leave(queue, waiter);
    ck_assert(queue_join(queue, 0, waiter, 3));
}

START_TEST(test_all_of_a_worker_look_again) {
    struct waiting waiting[3];
    ck_assert(server_enter(server));
    for (unsigned i = 0; i < 3; i++)
        join(i == 2, &waiting[i]);
    const unsigned before = queue_looks(queue);
    looked = 0;
    queue_look_again(queue, 0, look);
    ck_assert_uint_eq(looked, 2);
    ck_assert_uint_gt(queue_looks(queue), before); /* who frees a slot now looks for waiters again */
    for (unsigned i = 0; i < 3; i++) {
        server_leave(server);
        turn();
    }
    ck_assert_int_eq(waiting[0].order, 1);
    ck_assert_int_eq(waiting[2].order, 2);
    ck_assert_int_eq(waiting[1].order, 3);
    server_leave(server);
}
END_TEST

static bool late_wanted;

static void look_in_vain(struct queue_waiter *waiter) {
    (void)waiter;
    ck_assert(!server_has_room(server));
    late_wanted = true;
}

/* As if another thread let it look between the leaver's look at the queue and the end of its slot. */
static bool late_wants(const struct queue_waiter *waiter, const struct server *slot) {
    (void)waiter, (void)slot;
    if (late_wanted)
        return true;
    queue_look_again(queue, 0, look_in_vain);
    return false;
}

START_TEST(test_who_looked_meanwhile_is_not_forgotten) {
    struct waiting first = {.got = NULL};
    late_wanted = false;
    ck_assert(server_enter(server));
    queue_waiter_init(&first.waiter, late_wants, on_slot);
    ck_assert(queue_join(queue, 0, &first.waiter, 1));
    server_leave(server);
    turn();
    ck_assert_ptr_eq(first.got, server);
    ck_assert_uint_eq(active(), 1);
    server_leave(server);
    ck_assert_uint_eq(active(), 0);
}
END_TEST

START_TEST(test_dead_server_gives_nothing) {
    struct waiting first;
    ck_assert(server_enter(server));
    join(0, &first);
    server_set_state(server, SERVER_DOWN);
    server_leave(server);
    turn();
    ck_assert_ptr_null(first.got);
    ck_assert(queue_is_waiting(&first.waiter));
    ck_assert_uint_eq(queue_length(queue), 1);
    queue_leave(queue, &first.waiter);
    ck_assert(!queue_is_waiting(&first.waiter));
}
END_TEST

#define ROUNDS 20000

struct fighter {
    unsigned worker;
    struct waiting waiting;
    unsigned done;
    _Atomic(unsigned) *inside;
    _Atomic(unsigned) *finished;
};

static void fight_leave(struct fighter *fighter, struct server *slot) {
    ck_assert_uint_eq(atomic_fetch_sub(fighter->inside, 1), 1);
    fighter->done++;
    server_leave(slot);
}

static void *fight(void *argument) {
    struct fighter *fighter = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!server_enter(server)) {
            fighter->waiting = (struct waiting){0};
            queue_waiter_init(&fighter->waiting.waiter, wants, on_slot);
            ck_assert(queue_join(queue, fighter->worker, &fighter->waiting.waiter, 100));
            if (server_enter(server)) {
                queue_leave(queue, &fighter->waiting.waiter);
            } else {
                while (!fighter->waiting.got) /* a lost wake-up would hang here */
                    loop_turn(loops[fighter->worker], 1000);
            }
        }
        ck_assert_uint_eq(atomic_fetch_add(fighter->inside, 1), 0);
        fight_leave(fighter, server);
        loop_turn(loops[fighter->worker], 0);
    }
    atomic_fetch_add(fighter->finished, 1);
    while (atomic_load(fighter->finished) < 2) /* pass on what comes late */
        loop_turn(loops[fighter->worker], 1);
    return NULL;
}

START_TEST(test_two_threads_and_one_slot) {
    _Atomic(unsigned) inside = 0, finished = 0;
    struct fighter fighters[2];
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        fighters[i] = (struct fighter){.worker = i, .inside = &inside, .finished = &finished};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fight, &fighters[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    turn();
    ck_assert_uint_eq(fighters[0].done + fighters[1].done, 2 * ROUNDS);
    ck_assert_uint_eq(active(), 0);
}
END_TEST

#define CROWD 6
#define CROWD_ROUNDS 400

/* Two servers of one slot each; some of a crowd want only one of them. */
struct crowd {
    unsigned worker;
    uint64_t chance;
    struct waiting waiting[CROWD];
};

static struct server *crowd_servers[2];
static pthread_barrier_t crowd_barrier;

static unsigned crowd_chance(struct crowd *crowd, unsigned of) {
    crowd->chance = crowd->chance * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(crowd->chance >> 33) % of;
}

static bool crowd_enter(struct waiting *waiting) {
    for (unsigned k = 0; k < 2 && !waiting->got; k++)
        if (waiting->avoids != crowd_servers[k] && server_enter(crowd_servers[k]))
            waiting->got = crowd_servers[k];
    return waiting->got != NULL;
}

static void crowd_leave(struct waiting *waiting) {
    struct server *got = waiting->got;
    waiting->got = NULL;
    server_leave(got);
}

static void crowd_take_slot(struct queue_waiter *waiter, struct server *slot) {
    struct waiting *waiting = container_of(waiter, struct waiting, waiter);
    waiting->got = slot;
}

static void crowd_step(struct crowd *crowd, struct waiting *waiting) {
    if (waiting->got) {
        crowd_leave(waiting);
    } else if (queue_is_waiting(&waiting->waiter)) {
        if (crowd_chance(crowd, 4) == 0)
            queue_leave(queue, &waiting->waiter);
    } else {
        const unsigned avoids = crowd_chance(crowd, 4);
        waiting->avoids = avoids < 2 ? crowd_servers[avoids] : NULL;
        if (!crowd_enter(waiting) && queue_join(queue, crowd->worker, &waiting->waiter, 2 * CROWD) && crowd_enter(waiting))
            queue_leave(queue, &waiting->waiter);
    }
}

static void *crowd_run(void *argument) {
    struct crowd *crowd = argument;
    for (unsigned i = 0; i < CROWD; i++)
        queue_waiter_init(&crowd->waiting[i].waiter, wants, crowd_take_slot);
    for (unsigned round = 0; round < CROWD_ROUNDS; round++) {
        for (unsigned n = 0; n < 40; n++) {
            crowd_step(crowd, &crowd->waiting[crowd_chance(crowd, CROWD)]);
            loop_turn(loops[crowd->worker], 0);
        }
        /* No newcomers: who waits must get its turn. A lost wake-up would hang here. */
        for (bool rest = false; !rest;) {
            rest = true;
            for (unsigned i = 0; i < CROWD; i++) {
                if (crowd->waiting[i].got)
                    crowd_leave(&crowd->waiting[i]);
                rest = rest && !queue_is_waiting(&crowd->waiting[i].waiter);
            }
            loop_turn(loops[crowd->worker], rest ? 0 : 1);
        }
        pthread_barrier_wait(&crowd_barrier);
        if (crowd->worker == 0 && (queue_length(queue) != 0 || atomic_load(&crowd_servers[0]->active) != 0 ||
                                   atomic_load(&crowd_servers[1]->active) != 0))
            ck_abort_msg("not at rest after round %u", round);
        pthread_barrier_wait(&crowd_barrier);
    }
    return NULL;
}

START_TEST(test_crowds_come_to_rest) {
    struct crowd crowds[2];
    pthread_t threads[2];
    crowd_servers[0] = server;
    crowd_servers[1] = make_server("127.0.0.1:2");
    pthread_barrier_init(&crowd_barrier, NULL, 2);
    for (unsigned i = 0; i < 2; i++) {
        crowds[i] = (struct crowd){.worker = i, .chance = i + 1};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, crowd_run, &crowds[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&crowd_barrier);
    turn();
    server_unref(&crowd_servers[1]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("queue");
    TCase *tests = tcase_create("queue");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_slot_is_handed_over_and_never_free_in_between);
    tcase_add_test(tests, test_waiter_that_left_passes_the_slot_on);
    tcase_add_test(tests, test_arrival_is_the_order_over_all_workers);
    tcase_add_test(tests, test_only_who_wants_the_server_gets_it);
    tcase_add_test(tests, test_slot_on_its_way_is_passed_on_at_once);
    tcase_add_test(tests, test_all_of_a_worker_look_again);
    tcase_add_test(tests, test_who_looked_meanwhile_is_not_forgotten);
    tcase_add_test(tests, test_dead_server_gives_nothing);
    tcase_add_test(tests, test_two_threads_and_one_slot);
    tcase_add_test(tests, test_crowds_come_to_rest);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
