/* SPDX-License-Identifier: MIT */
/*
 * fuzz_import: libFuzzer target for `moongate import arm`: whatever text comes, the import ends, and what it prints holds no line break that it
 * did not write itself (a comment of the template's would become code). Built with clang -fsanitize=fuzzer,address,undefined.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/import/arm.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    const struct arm_options options = {.ignore_case = size % 2 == 1};
    struct arm arm;
    char *copy = malloc(size + 1);
    memcpy(copy, data, size);
    arm_init(&arm, &options);
    if (arm_read(&arm, span_make(copy, size)) && arm_convert(&arm)) {
        struct span out = buf_span(&arm.out);
        for (size_t i = 0; i + 1 < out.n; i++)
            if (out.p[i] == '\n' && !strchr("\n-lprf}{ ", out.p[i + 1]))
                abort();
    }
    arm_fini(&arm);
    free(copy);
    return 0;
}
