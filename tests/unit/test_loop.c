/* SPDX-License-Identifier: MIT */
/* Timers (lazy re-arm), ready list, deferral, mailbox from other threads, closed sources in one batch. */
#include <check.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/loop.h"

struct thing {
    struct loop *loop;
    struct timer timer;
    struct loop_source source;
    struct deferred deferred;
    struct message message;
    int fired, again, freed, posted;
};

static void on_timer(struct timer *timer) { container_of(timer, struct thing, timer)->fired++; }

static void on_ready(struct loop_source *source, uint32_t events) {
    struct thing *thing = container_of(source, struct thing, source);
    ck_assert_uint_eq(events, 0);
    if (++thing->again < 3)
        loop_again(thing->loop, source);
}

static void on_free(struct deferred *deferred) { container_of(deferred, struct thing, deferred)->freed++; }
static void on_message(struct message *message) { container_of(message, struct thing, message)->posted++; }

static void *poster(void *argument) {
    struct thing *thing = argument;
    loop_post(thing->loop, &thing->message, on_message);
    return NULL;
}

START_TEST(test_timer_fires_once_and_moves) {
    struct thing thing = {.loop = loop_new()};
    timer_init(&thing.timer, on_timer);
    timer_set(thing.loop, &thing.timer, 20);
    timer_set(thing.loop, &thing.timer, 80); /* later: one store */
    uint64_t begin = loop_now_ms(thing.loop); /* what it counts from */
    while (thing.fired == 0)
        loop_turn(thing.loop, -1);
    ck_assert_uint_ge(loop_now_ms(thing.loop) - begin, 80);
    ck_assert(!timer_is_set(&thing.timer));
    timer_set(thing.loop, &thing.timer, 5000);
    timer_set(thing.loop, &thing.timer, 10); /* earlier: re-inserted now */
    begin = clock_ms();
    while (thing.fired == 1)
        loop_turn(thing.loop, -1);
    ck_assert_uint_lt(clock_ms() - begin, 1000);
    timer_set(thing.loop, &thing.timer, 5);
    timer_stop(thing.loop, &thing.timer);
    loop_turn(thing.loop, 30);
    ck_assert_int_eq(thing.fired, 2);
    loop_free(&thing.loop);
    ck_assert_ptr_eq(thing.loop, NULL);
}
END_TEST

START_TEST(test_ready_list_and_deferral) {
    struct thing thing = {.loop = loop_new()};
    loop_source_init(&thing.source, on_ready);
    loop_again(thing.loop, &thing.source);
    loop_again(thing.loop, &thing.source); /* twice is once */
    loop_turn(thing.loop, 1000);
    ck_assert_int_eq(thing.again, 1);
    loop_turn(thing.loop, 1000);
    loop_turn(thing.loop, 1000);
    ck_assert_int_eq(thing.again, 3);
    loop_again(thing.loop, &thing.source);
    loop_source_detach(&thing.source);
    loop_defer(thing.loop, &thing.deferred, on_free);
    ck_assert_int_eq(thing.freed, 0);
    loop_turn(thing.loop, 0);
    ck_assert_int_eq(thing.freed, 1);
    ck_assert_int_eq(thing.again, 3);
    loop_free(&thing.loop);
}
END_TEST

START_TEST(test_letter_from_another_thread_wakes_the_loop) {
    struct thing thing = {.loop = loop_new()};
    for (int i = 1; i <= 100; i++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, poster, &thing), 0);
        uint64_t begin = clock_ms();
        while (thing.posted < i)
            loop_turn(thing.loop, -1);
        ck_assert_uint_lt(clock_ms() - begin, 5000);
        pthread_join(thread, NULL);
    }
    loop_free(&thing.loop);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("loop");
    TCase *tests = tcase_create("loop");
    tcase_add_test(tests, test_timer_fires_once_and_moves);
    tcase_add_test(tests, test_ready_list_and_deferral);
    tcase_add_test(tests, test_letter_from_another_thread_wakes_the_loop);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
