/* SPDX-License-Identifier: MIT */
/*
 * fuzz_proxyproto: libFuzzer target for PROXY headers. The verdict must not depend on cuts, what is accepted must be
 * bounded, and its addresses must come back when they are written and read again. Built with
 * clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdlib.h>
#include <string.h>

#include "wire/proxyproto.h"

static enum proxyproto_result fuzz_parse(const char *data, size_t n, struct proxyproto *out, size_t *used) {
    const char *reason;
    char *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    enum proxyproto_result result = proxyproto_parse(copy, n, out, used, &reason);
    free(copy);
    if ((result == PROXYPROTO_BAD) != (reason != NULL) || (result == PROXYPROTO_OK) != (*used > 0) || *used > n ||
        *used > PROXYPROTO_MAX || (result == PROXYPROTO_MORE && n >= PROXYPROTO_MAX))
        abort();
    return result;
}

static void fuzz_write_back(const struct proxyproto *read) {
    struct addr_small source = addr_shrink(&read->source), destination = addr_shrink(&read->destination);
    bool ip = source.family == AF_INET || source.family == AF_INET6;
    if (read->local != (source.family == 0) || read->local != (destination.family == 0))
        abort();
    for (enum proxyproto_version version = PROXYPROTO_V1; version <= PROXYPROTO_V2; version++) {
        char header[PROXYPROTO_WRITE_MAX];
        struct proxyproto again;
        size_t used, n = proxyproto_write(header, version, &source, &destination);
        if (fuzz_parse(header, n, &again, &used) != PROXYPROTO_OK || used != n || again.local == ip)
            abort();
        if (ip && (!addr_equal(&again.source, &read->source) || !addr_equal(&again.destination, &read->destination)))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1)
        return 0;
    const char *text = (const char *)data + 1;
    struct proxyproto whole, cut;
    size_t used, cut_used, at = --n > 0 ? data[0] * n / 256 : 0;
    enum proxyproto_result result = fuzz_parse(text, n, &whole, &used);
    enum proxyproto_result first = fuzz_parse(text, at, &cut, &cut_used);
    if (first != PROXYPROTO_MORE && (first != result || cut_used != used))
        abort();
    if (first == PROXYPROTO_MORE && result == PROXYPROTO_OK && used <= at)
        abort();
    if (result == PROXYPROTO_OK)
        fuzz_write_back(&whole);
    return 0;
}
