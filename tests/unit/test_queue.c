/* SPDX-License-Identifier: MIT */
/* Slots across workers: order, the limit, hand-over by letter, waiters that leave, two threads that fight for one slot. */
#include <check.h>
#include <pthread.h>

#include "base/mem.h"
#include "upstream/server.h"

struct waiting {
    struct queue_waiter waiter;
    struct server *got;
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

static void setup(void) {
    char name[] = "127.0.0.1:1";
    struct config_server config = {.name = name, .address = name, .host = name, .port = 1, .weight = 1, .max_connections = 1};
    ck_assert(addr_parse(SPAN("127.0.0.1:1"), 0, &config.addr));
    server = server_new("p", &config);
    server_set_state(server, SERVER_UP);
    queue = queue_new();
    server->queue = queue_ref(queue);
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

static void join(unsigned worker, struct waiting *waiting) {
    *waiting = (struct waiting){0};
    queue_waiter_init(&waiting->waiter, on_slot);
    ck_assert(queue_join(queue, worker, &waiting->waiter, 3));
}

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
    queue_waiter_init(&fourth.waiter, on_slot);
    ck_assert(!queue_join(queue, 1, &fourth.waiter, 3)); /* full */
    ck_assert_uint_eq(queue_length(queue), 3);
    for (int i = 1; i <= 3; i++) {
        server_leave(server);
        ck_assert(!server_enter(server)); /* a newcomer cannot take what is on its way */
        turn();
        ck_assert_int_eq(served, i);
    }
    ck_assert_int_lt(first.order, second.order);
    ck_assert_int_eq(first.order + second.order + third.order, 6);
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
    queue_leave(queue, 0, &first.waiter); /* its client has gone while the letter was under way, or before */
    queue_leave(queue, 0, &first.waiter); /* twice is harmless */
    turn();
    turn();
    ck_assert_ptr_null(first.got);
    ck_assert_ptr_eq(second.got, server);
    server_leave(server);
    turn();
    uint32_t active = atomic_load(&server->active);
    ck_assert_uint_eq(active, 0);
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
    ck_assert_ptr_eq(queue_first(queue, 0), &first.waiter);
    queue_leave(queue, 0, &first.waiter);
    ck_assert_ptr_null(queue_first(queue, 0));
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
            queue_waiter_init(&fighter->waiting.waiter, on_slot);
            ck_assert(queue_join(queue, fighter->worker, &fighter->waiting.waiter, 100));
            if (server_enter(server)) {
                queue_leave(queue, fighter->worker, &fighter->waiting.waiter);
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
    uint32_t active = atomic_load(&server->active);
    ck_assert_uint_eq(active, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("queue");
    TCase *tests = tcase_create("queue");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_slot_is_handed_over_and_never_free_in_between);
    tcase_add_test(tests, test_waiter_that_left_passes_the_slot_on);
    tcase_add_test(tests, test_dead_server_gives_nothing);
    tcase_add_test(tests, test_two_threads_and_one_slot);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
