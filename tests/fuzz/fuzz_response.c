/* SPDX-License-Identifier: MIT */
/*
 * fuzz_response: libFuzzer target for response heads (see fuzz_head.h). Built with
 * clang -fsanitize=fuzzer,address,undefined.
 */
#include "fuzz_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    return fuzz_head(data, n, true);
}
