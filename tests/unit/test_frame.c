/* SPDX-License-Identifier: MIT */
/*
 * frame: headers of every size there and back, whole and byte by byte; what RFC 6455 calls a failure; masks; codes.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

/* Feeds the bytes in pieces of step; notes events as letters (B, P joined, E, X) and unmasked payload. */
struct trace {
    char events[256];
    char payload[1024];
    size_t payload_size;
    struct frame_reader reader;
};

static void trace_feed(struct trace *trace, const char *data, size_t n, size_t step) {
    size_t count = strlen(trace->events), at = 0;
    while (at < n || step == 0) {
        size_t piece = step && n - at > step ? step : n - at, left = piece;
        for (;;) {
            size_t used;
            struct span payload;
            enum frame_event event = frame_next(&trace->reader, data + at + piece - left, left, &used, &payload);
            left -= used;
            if (event == FRAME_MORE) {
                ck_assert_uint_eq(left, 0);
                break;
            }
            if (event == FRAME_PAYLOAD) {
                ck_assert_uint_le(trace->payload_size + payload.n, sizeof trace->payload);
                memcpy(trace->payload + trace->payload_size, payload.p, payload.n);
                if (trace->reader.header.masked)
                    frame_mask(trace->payload + trace->payload_size, payload.n, trace->reader.header.mask,
                               trace->reader.offset - payload.n);
                trace->payload_size += payload.n;
            }
            char letter = "MBPEX"[event];
            if (count == 0 || letter != 'P' || trace->events[count - 1] != 'P')
                trace->events[count++] = letter;
            ck_assert_uint_lt(count, sizeof trace->events);
            if (event == FRAME_BAD)
                return;
        }
        at += piece;
        if (step == 0)
            break;
    }
}

/* The examples of RFC 6455 section 5.7. */
static const struct {
    const char *bytes;
    size_t n;
    enum frame_from from;
    const char *events, *payload;
} examples[] = {
    {"\x81\x05Hello", 7, FRAME_FROM_SERVER, "BPE", "Hello"},
    {"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 11, FRAME_FROM_CLIENT, "BPE", "Hello"},
    {"\x01\x03Hel\x80\x02lo", 9, FRAME_FROM_SERVER, "BPEBPE", "Hello"},
    {"\x01\x03Hel\x89\x01!\x80\x02lo", 12, FRAME_FROM_SERVER, "BPEBPEBPE", "Hel!lo"},
    {"\x89\x05Hello\x8a\x00", 9, FRAME_FROM_SERVER, "BPEBE", "Hello"},
};

START_TEST(test_frame_examples) {
    for (size_t step = 0; step < 4; step++) {
        struct trace trace = {.payload_size = 0};
        frame_reader_init(&trace.reader, examples[_i].from, 0);
        trace_feed(&trace, examples[_i].bytes, examples[_i].n, step);
        ck_assert_str_eq(trace.events, examples[_i].events);
        ck_assert_uint_eq(trace.payload_size, strlen(examples[_i].payload));
        ck_assert_int_eq(memcmp(trace.payload, examples[_i].payload, trace.payload_size), 0);
        ck_assert(frame_at_boundary(&trace.reader));
    }
}
END_TEST

static const struct {
    const char *bytes;
    size_t n;
    enum frame_from from;
    const char *reason;
} failures[] = {
    {"\xc1\x00", 2, FRAME_FROM_SERVER, "reserved bit"},
    {"\x83\x00", 2, FRAME_FROM_SERVER, "reserved opcode"},
    {"\x8b\x00", 2, FRAME_FROM_SERVER, "reserved opcode"},
    {"\x09\x00", 2, FRAME_FROM_SERVER, "fragmented control"},
    {"\x89\x7e", 2, FRAME_FROM_SERVER, "more than 125"},
    {"\x81\x80", 2, FRAME_FROM_SERVER, "masked frame of a server"},
    {"\x81\x00", 2, FRAME_FROM_CLIENT, "unmasked frame of a client"},
    {"\x80\x00", 2, FRAME_FROM_SERVER, "continuation of nothing"},
    {"\x01\x00\x81\x00", 4, FRAME_FROM_SERVER, "new message inside"},
    {"\x81\x7e\x00\x7d", 4, FRAME_FROM_SERVER, "shortest"},
    {"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 10, FRAME_FROM_SERVER, "shortest"},
    {"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 10, FRAME_FROM_SERVER, "2^63"},
};

START_TEST(test_frame_failures) {
    for (size_t step = 0; step < 3; step++) {
        struct trace trace = {.payload_size = 0};
        frame_reader_init(&trace.reader, failures[_i].from, 0);
        trace_feed(&trace, failures[_i].bytes, failures[_i].n, step);
        ck_assert_ptr_nonnull(strchr(trace.events, 'X'));
        ck_assert_msg(strstr(trace.reader.reason, failures[_i].reason) != NULL, "%s", trace.reader.reason);
        ck_assert(!frame_at_boundary(&trace.reader));
        size_t used;
        struct span payload;
        ck_assert_int_eq(frame_next(&trace.reader, "\x81\x00", 2, &used, &payload), FRAME_BAD);
        ck_assert_uint_eq(used, 0);
    }
}
END_TEST

START_TEST(test_frame_extension_bits) {
    struct trace trace = {.payload_size = 0};
    frame_reader_init(&trace.reader, FRAME_FROM_SERVER, 4);
    trace_feed(&trace, "\xc1\x01x", 3, 0);
    ck_assert_str_eq(trace.events, "BPE");
    ck_assert_uint_eq(trace.reader.header.rsv, 4);
}
END_TEST

static const uint64_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536, (uint64_t)1 << 40, ((uint64_t)1 << 63) - 1};

START_TEST(test_frame_header_there_and_back) {
    static const size_t sizes[] = {2, 2, 2, 4, 4, 4, 10, 10, 10};
    for (unsigned masked = 0; masked < 2; masked++) {
        struct frame_header header = {.opcode = FRAME_BINARY, .fin = _i % 2, .masked = masked, .length = lengths[_i]};
        memcpy(header.mask, masked ? "\x01\x02\x03\x04" : "\0\0\0\0", 4);
        unsigned char bytes[FRAME_HEADER_MAX];
        size_t n = frame_write_header(&header, bytes);
        ck_assert_uint_eq(n, sizes[_i] + (masked ? 4 : 0));
        struct frame_reader reader;
        frame_reader_init(&reader, masked ? FRAME_FROM_CLIENT : FRAME_FROM_SERVER, 0);
        size_t used;
        struct span payload;
        ck_assert_int_eq(frame_next(&reader, (char *)bytes, n, &used, &payload), FRAME_BEGIN);
        ck_assert_uint_eq(used, n);
        ck_assert_int_eq(reader.header.opcode, FRAME_BINARY);
        ck_assert(reader.header.fin == (_i % 2));
        ck_assert(reader.header.masked == (masked == 1));
        ck_assert(reader.header.length == lengths[_i]);
        ck_assert_int_eq(memcmp(reader.header.mask, header.mask, 4), 0);
    }
}
END_TEST

START_TEST(test_frame_close_codes) {
    static const struct {
        const char *payload;
        size_t n;
        unsigned code;
    } codes[] = {{"", 0, 1005},         {"\x03", 1, 0},           {"\x03\xe8", 2, 1000},    {"\x03\xe8 bye", 6, 1000},
                 {"\x03\xf3", 2, 1011}, {"\x03\xed", 2, 0},       {"\x03\xee", 2, 0},       {"\x03\xf7", 2, 0},
                 {"\x03\xe7", 2, 0},    {"\x0b\xb8", 2, 3000},    {"\x13\x87", 2, 4999},    {"\x13\x88", 2, 0}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        ck_assert_uint_eq(frame_close_code(span_make(codes[i].payload, codes[i].n)), codes[i].code);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("frame");
    TCase *tests = tcase_create("frame");
    tcase_add_loop_test(tests, test_frame_examples, 0, (int)(sizeof examples / sizeof *examples));
    tcase_add_loop_test(tests, test_frame_failures, 0, (int)(sizeof failures / sizeof *failures));
    tcase_add_test(tests, test_frame_extension_bits);
    tcase_add_loop_test(tests, test_frame_header_there_and_back, 0, (int)(sizeof lengths / sizeof *lengths));
    tcase_add_test(tests, test_frame_close_codes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
