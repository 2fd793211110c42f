/* SPDX-License-Identifier: MIT */
/*
 * fuzz_body: libFuzzer target for the body decoder. The first byte chooses kind and cut; whole and cut input must
 * give the same bytes (by digest), the same end and the same number of bytes used, and trailers must be readable.
 * Built with clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/body.h"

struct fuzz_outcome {
    enum body_event event;
    size_t used;
    uint64_t total, digest, trailer;
};

static bool fuzz_feed(struct body *body, const char *data, size_t n, struct fuzz_outcome *out) {
    char *copy = malloc(n ? n : 1);
    size_t at = 0;
    memcpy(copy, data, n);
    do {
        size_t used;
        struct span bytes;
        out->event = body_next(body, copy + at, n - at, &used, &bytes);
        at += used;
        for (size_t i = 0; i < bytes.n; i++)
            out->digest = (out->digest ^ (unsigned char)bytes.p[i]) * 1099511628211u;
    } while (out->event == BODY_DATA);
    out->used += at;
    free(copy);
    return out->event == BODY_MORE;
}

static struct fuzz_outcome fuzz_run(enum http_body kind, const char *data, size_t n, size_t cut) {
    struct fuzz_outcome out = {0};
    struct body body;
    struct arena arena;
    struct http_message message;
    body_init(&body, kind, 37);
    if (fuzz_feed(&body, data, cut, &out))
        fuzz_feed(&body, data + cut, n - cut, &out);
    out.total = body.total;
    out.trailer = body.trailer.len;
    arena_init(&arena, NULL, 1 << 18);
    http_message_init(&message, &arena);
    body_trailers(&body, &message);
    for (unsigned i = 0; i < message.field_count; i++) {
        if (!http_valid_name(message.fields[i].name) || !http_valid_value(message.fields[i].value))
            abort();
    }
    arena_fini(&arena);
    if ((body_eof(&body) == BODY_BAD) != (body.reason != NULL))
        abort();
    body_fini(&body);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1)
        return 0;
    const enum http_body kind = data[0] & 7 ? HTTP_BODY_CHUNKED : (enum http_body)(data[0] >> 6);
    const char *text = (const char *)data + 1;
    const size_t cut = --n > 0 ? data[0] * n / 256 : 0;
    const struct fuzz_outcome whole = fuzz_run(kind, text, n, 0), other = fuzz_run(kind, text, n, cut);
    if (whole.event != other.event || whole.used != other.used || whole.total != other.total ||
        whole.digest != other.digest || whole.trailer != other.trailer)
        abort();
    return 0;
}
