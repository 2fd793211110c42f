/* SPDX-License-Identifier: MIT */
/*
 * fuzz_target: libFuzzer target for request targets, hosts and queries. What was normalised once must stay as it is, hold no
 * dot segment and no byte outside visible ASCII, and mean the same when it is split again; edits of a query must be found in it.
 * The first byte chooses whether encoded slashes pass. Built with clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "wire/uri.h"

static void fuzz_require(bool holds) {
    if (!holds)
        abort();
}

static bool fuzz_has(struct span text, const char *part) { return text.n > 0 && memmem(text.p, text.n, part, strlen(part)); }

static bool fuzz_ends(struct span text, const char *part) {
    size_t n = strlen(part);
    return text.n >= n && memcmp(text.p + text.n - n, part, n) == 0;
}

static void fuzz_path(struct arena *arena, struct span raw, bool keep_slash) {
    const char *reason = NULL, *again_reason = NULL;
    struct span path = uri_normalise_path(arena, raw, keep_slash, &reason);
    fuzz_require((path.p == NULL) == (reason != NULL));
    if (!path.p || span_equal(path, SPAN("*")))
        return;
    fuzz_require(path.n > 0 && path.p[0] == '/' && path.n <= raw.n + 1);
    fuzz_require(!fuzz_has(path, "//") && !fuzz_has(path, "/./") && !fuzz_has(path, "/../"));
    fuzz_require(!fuzz_ends(path, "/.") && !fuzz_ends(path, "/..") && !fuzz_has(path, "%00"));
    fuzz_require(keep_slash || (!fuzz_has(path, "%2F") && !fuzz_has(path, "%2f")));
    fuzz_require(!fuzz_has(path, "\\..\\") && !fuzz_has(path, "/..\\") && !fuzz_has(path, "%5C..%5C") && !fuzz_has(path, "/..%2F") && !fuzz_has(path, "%2F../") && !fuzz_ends(path, "\\..") && !fuzz_ends(path, "%5C.."));
    for (size_t i = 0; i < path.n; i++)
        fuzz_require(path.p[i] > 0x20 && path.p[i] < 0x7f && path.p[i] != '?' && path.p[i] != '#');
    struct span again = uri_normalise_path(arena, path, keep_slash, &again_reason);
    fuzz_require(again.p && span_equal(again, path));
}

static void fuzz_host(struct arena *arena, struct span text) {
    uint16_t port = 0, again_port = 0;
    struct span host = uri_normalise_host(arena, text, &port);
    if (!host.p)
        return;
    fuzz_require(host.n > 0);
    for (size_t i = 0; i < host.n; i++)
        fuzz_require(host.p[i] > 0x20 && host.p[i] < 0x7f && !strchr("@/,?# \\", host.p[i]) &&
                     !(host.p[i] >= 'A' && host.p[i] <= 'Z'));
    struct span again = uri_normalise_host(arena, host, &again_port);
    fuzz_require(again.p && span_equal(again, host) && again_port == 0);
}

static void fuzz_query(struct arena *arena, struct span query) {
    struct span value = span_make(query.p, query.n < 20 ? query.n : 20);
    struct span set = uri_query_set(arena, query, SPAN("na me"), value);
    if (!set.p)
        return;
    struct span got = uri_query_get(arena, set, SPAN("na me"));
    fuzz_require(got.p && span_equal(got, value));
    struct span without = uri_query_set(arena, set, SPAN("na me"), SPAN_NULL);
    fuzz_require(without.p && !uri_query_get(arena, without, SPAN("na me")).p);
    struct span plain = uri_decode(arena, query, false);
    fuzz_require(!plain.p || plain.n <= query.n);
    struct span coded = uri_encode_query(arena, query), back = coded.p ? uri_decode(arena, coded, true) : SPAN_NULL;
    fuzz_require(back.p && span_equal(back, query));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 || n > 9000)
        return 0;
    struct arena arena;
    struct uri uri;
    char *copy = malloc(n);
    memcpy(copy, data + 1, n - 1);
    struct span text = span_make(copy, n - 1);
    arena_init(&arena, NULL, 1 << 20);
    if (uri_split_target(text, &uri)) {
        fuzz_require(uri.path.n > 0);
        fuzz_path(&arena, uri.path, data[0] & 1);
        fuzz_host(&arena, uri.authority);
        if (uri.query.p)
            fuzz_query(&arena, uri.query);
    }
    fuzz_path(&arena, text, data[0] & 1);
    fuzz_host(&arena, text);
    fuzz_query(&arena, text);
    arena_fini(&arena);
    free(copy);
    return 0;
}
