/* SPDX-License-Identifier: MIT */
/*
 * fuzz_upgrade: libFuzzer target for the WebSocket handshake, both sides. The input is a request head, a zero byte, a response
 * head (or its fields, behind a right 101). What is accepted must keep the promises of RFC 6455 section 4: a GET of HTTP/1.1
 * without body, a key of 24 characters, tokens without repeats; a 101 that names an offered subprotocol or none. Built with
 * clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "wire/http1.h"
#include "wire/upgrade.h"

static const struct http1_limits fuzz_limits = {
    .max_target = 300, .max_head = 4000, .max_fields = 60, .underscores = HTTP1_UNDERSCORES_DROP};

static void fuzz_require(bool holds) {
    if (!holds)
        abort();
}

static void fuzz_check_offer(const struct http_message *request, const struct upgrade_offer *offer) {
    fuzz_require(request->method == HTTP_GET && request->minor == 1);
    fuzz_require(request->body == HTTP_BODY_NONE || (request->body == HTTP_BODY_LENGTH && request->content_length == 0));
    fuzz_require(offer->key.n == 24 && offer->protocol_count <= UPGRADE_PROTOCOLS_MAX);
    for (unsigned i = 0; i < offer->protocol_count; i++) {
        fuzz_require(offer->protocols[i].n > 0);
        for (unsigned j = 0; j < i; j++)
            fuzz_require(!span_equal(offer->protocols[i], offer->protocols[j]));
    }
}

static void fuzz_response(const char *data, size_t n, const struct upgrade_offer *offer) {
    struct arena arena;
    struct http_message response;
    struct http1_error error = {0};
    struct span protocol = SPAN_NULL;
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&response, &arena);
    if (http1_read_response(data, n, &fuzz_limits, HTTP_GET, &response, &error) == HTTP1_OK && response.status == 101 &&
        !upgrade_check_response(&response, offer->key, offer->protocols, offer->protocol_count, &protocol)) {
        bool offered = !protocol.p;
        for (unsigned i = 0; i < offer->protocol_count; i++)
            offered |= span_equal(protocol, offer->protocols[i]);
        fuzz_require(offered);
        fuzz_require(!http_find(&response, HTTP_FIELD_CONTENT_LENGTH) && !http_find(&response, HTTP_FIELD_TRANSFER_ENCODING));
    }
    arena_fini(&arena);
}

/* The input's second half behind a right start, so that the fuzzer need not find SHA-1. */
static void fuzz_fields(const char *data, size_t n, const struct upgrade_offer *offer) {
    char accept[UPGRADE_ACCEPT_SIZE + 1], *head = malloc(n + 512);
    upgrade_accept(offer->key, accept);
    int start = snprintf(head, 512, "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n", accept);
    memcpy(head + start, data, n);
    memcpy(head + (size_t)start + n, "\r\n", 2);
    fuzz_response(head, (size_t)start + n + 2, offer);
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *zero = n > 0 ? memchr(data, 0, n) : NULL;
    size_t first = zero ? (size_t)(zero - data) : n, second = zero ? n - first - 1 : 0;
    struct arena arena;
    struct http_message request;
    struct http1_error error = {0};
    struct upgrade_offer offer = {0};
    if (first == 0)
        return 0;
    char *head = malloc(first), *answer = malloc(second + 1);
    memcpy(head, data, first);
    if (second > 0)
        memcpy(answer, zero + 1, second);
    arena_init(&arena, NULL, 1 << 16);
    http_message_init(&request, &arena);
    if (http1_read_request(head, first, &fuzz_limits, &request, &error) == HTTP1_OK) {
        enum upgrade_kind kind = upgrade_check_request(&request, &offer);
        fuzz_require(kind != UPGRADE_BAD || offer.reason);
        if (kind == UPGRADE_WEBSOCKET) {
            fuzz_check_offer(&request, &offer);
            if (second > 0)
                fuzz_response(answer, second, &offer);
            fuzz_fields(answer, second, &offer);
        }
    }
    arena_fini(&arena);
    free(head);
    free(answer);
    return 0;
}
