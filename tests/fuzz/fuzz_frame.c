/* SPDX-License-Identifier: MIT */
/*
 * fuzz_frame: libFuzzer target for the frame reader. The first byte chooses the side, the bits allowed and the cut; whole
 * and cut input must give the same frames and the same verdict, and every header must be written back as it was read.
 * Built with clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

struct fuzz_outcome {
    uint64_t frames, payload, digest;
    const char *reason;
    bool boundary;
};

static void fuzz_check_header(const struct frame_reader *reader) {
    unsigned char bytes[FRAME_HEADER_MAX];
    size_t n = frame_write_header(&reader->header, bytes);
    if (n != reader->need || memcmp(bytes, reader->bytes, n) != 0)
        abort();
}

static void fuzz_feed(struct frame_reader *reader, const char *data, size_t n, struct fuzz_outcome *out) {
    char *copy = malloc(n ? n : 1);
    size_t at = 0;
    enum frame_event event;
    memcpy(copy, data, n);
    do {
        size_t used;
        struct span payload;
        event = frame_next(reader, copy + at, n - at, &used, &payload);
        at += used;
        if (event == FRAME_BEGIN)
            fuzz_check_header(reader);
        out->frames += event == FRAME_END;
        out->payload += payload.n;
        if (event == FRAME_PAYLOAD && reader->header.masked)
            frame_mask(copy + at - used, used, reader->header.mask, reader->offset - used);
        for (size_t i = 0; i < payload.n; i++)
            out->digest = (out->digest ^ (unsigned char)payload.p[i]) * 1099511628211u;
        if (event == FRAME_END && reader->header.opcode == FRAME_CLOSE)
            out->digest += frame_close_code(payload);
    } while (event != FRAME_MORE && event != FRAME_BAD);
    if (event == FRAME_MORE && at != n)
        abort();
    out->reason = reader->reason;
    out->boundary = frame_at_boundary(reader);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1)
        return 0;
    const char *text = (const char *)data + 1;
    const size_t cut = --n > 0 ? data[0] * n / 256 : 0;
    const enum frame_from from = data[0] & 1 ? FRAME_FROM_CLIENT : FRAME_FROM_SERVER;
    struct fuzz_outcome whole = {0}, other = {0};
    struct frame_reader reader;
    frame_reader_init(&reader, from, data[0] >> 5);
    fuzz_feed(&reader, text, n, &whole);
    frame_reader_init(&reader, from, data[0] >> 5);
    fuzz_feed(&reader, text, cut, &other);
    if (!other.reason)
        fuzz_feed(&reader, text + cut, n - cut, &other);
    if (whole.frames != other.frames || whole.payload != other.payload || whole.digest != other.digest ||
        whole.reason != other.reason || whole.boundary != other.boundary)
        abort();
    return 0;
}
