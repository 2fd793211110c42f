/* SPDX-License-Identifier: MIT */
/* test_answer: replies, redirects, pages and words of our own, with the fields that come with them. */
#include <check.h>

#include "traffic/answer.h"

static struct subject subject;
static struct answer answer;

static void setup(void) {
    subject = (struct subject){.scheme = "http", .host = SPAN("a.example"), .path = SPAN("/x"), .raw_path = SPAN("/x")};
    arena_init(&subject.arena, NULL, SUBJECT_ARENA_MAX);
}

static void teardown(void) { arena_fini(&subject.arena); }

/* value NULL: the field is not there. */
static void field_is(const char *name, const char *value) {
    const struct http_field *field = http_find_name(&answer.head, span_of(name));
    ck_assert_msg(value ? field && span_equal(field->value, span_of(value)) : !field, "%s: %.*s", name, field ? (int)field->value.n : 6,
                  field ? field->value.p : "absent");
}

START_TEST(test_reply) {
    const struct action_header headers[] = {{SPAN("X-A"), SPAN("1")}, {SPAN("content-type"), SPAN("text/html")}};
    struct action action = {.kind = ACTION_REPLY, .reply = {.status = 418, .body = SPAN("tea\n")}};
    ck_assert(answer_action(&answer, &subject, &action));
    ck_assert_uint_eq(answer.head.status, 418);
    ck_assert(answer.head.is_response && span_equal(answer.body, SPAN("tea\n")) && span_equal(answer.head.reason, SPAN("I'm a teapot")));
    field_is("Content-Type", "text/plain; charset=utf-8");
    ck_assert_ptr_nonnull(http_find(&answer.head, HTTP_FIELD_DATE));
    action.reply.headers = (struct action_header *)(uintptr_t)headers;
    action.reply.header_count = 2;
    ck_assert(answer_action(&answer, &subject, &action));
    field_is("X-A", "1");
    field_is("Content-Type", "text/html");
    action = (struct action){.kind = ACTION_REPLY, .reply = {.status = 204}};
    ck_assert(answer_action(&answer, &subject, &action));
    field_is("Content-Type", NULL);
}
END_TEST

START_TEST(test_redirect) {
    const struct action action = {.kind = ACTION_REDIRECT, .redirect = {.status = 308, .scheme = SPAN("https")}};
    ck_assert(answer_action(&answer, &subject, &action));
    ck_assert_uint_eq(answer.head.status, 308);
    field_is("Location", "https://a.example/x");
    ck_assert_uint_eq(answer.body.n, 0);
}
END_TEST

START_TEST(test_status) {
    struct config_error_page page = {.status = 404, .body = SPAN("<p>no</p>"), .type = "text/html"};
    const struct config_settings settings = {.error_pages = &page, .error_page_count = 1};
    answer_status(&answer, &subject, &settings, 404);
    ck_assert(span_equal(answer.body, SPAN("<p>no</p>")));
    field_is("Content-Type", "text/html");
    field_is("Allow", NULL);
    answer_status(&answer, &subject, &settings, 405);
    ck_assert(span_equal(answer.body, SPAN("405 Method Not Allowed\n")));
    field_is("Content-Type", "text/plain; charset=utf-8");
    field_is("Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS");
    answer_status(&answer, &subject, &settings, 426);
    field_is("Sec-WebSocket-Version", "13");
}
END_TEST

START_TEST(test_no_memory) { /* the words are left out, the status is not */
    const struct action action = {.kind = ACTION_REDIRECT, .redirect = {.status = 308}};
    subject.arena.cap = 0;
    ck_assert(!answer_action(&answer, &subject, &action));
    answer_status(&answer, &subject, &(struct config_settings){.workers = 1}, 500);
    ck_assert_uint_eq(answer.head.status, 500);
    ck_assert_uint_eq(answer.body.n, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("answer");
    TCase *tests = tcase_create("answer");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, test_reply);
    tcase_add_test(tests, test_redirect);
    tcase_add_test(tests, test_status);
    tcase_add_test(tests, test_no_memory);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
