/* SPDX-License-Identifier: MIT */
/* Tests of base/heap: smallest first, removal from any place, against a plain search as the model. */
#include <check.h>
#include <stdlib.h>

#include "base/heap.h"

#define TEST_HEAP_NODES 500

static uint32_t test_heap_random(void) {
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

START_TEST(test_heap_against_search) {
    struct heap heap;
    static struct heap_node nodes[TEST_HEAP_NODES];
    heap_init(&heap);
    ck_assert_ptr_null(heap_top(&heap));
    uint32_t inside = 0;
    for (unsigned step = 0; step < 5000; step++) {
        struct heap_node *node = &nodes[test_heap_random() % TEST_HEAP_NODES];
        if (node->place) {
            heap_remove(&heap, node);
            ck_assert_uint_eq(node->place, 0);
            inside--;
        } else {
            node->key = test_heap_random() % 1000; /* equal keys as well */
            heap_insert(&heap, node);
            inside++;
        }
        ck_assert_uint_eq(heap.count, inside);
        uint64_t smallest = UINT64_MAX;
        unsigned astray = 0;
        for (unsigned i = 0; i < TEST_HEAP_NODES; i++)
            if (nodes[i].place) {
                astray += heap.nodes[nodes[i].place] != &nodes[i];
                if (nodes[i].key < smallest)
                    smallest = nodes[i].key;
            }
        ck_assert_uint_eq(astray, 0);
        struct heap_node *top = heap_top(&heap);
        if (inside)
            ck_assert_uint_eq(top->key, smallest);
        else
            ck_assert_ptr_null(top);
    }
    heap_fini(&heap);
    for (unsigned i = 0; i < TEST_HEAP_NODES; i++)
        ck_assert_uint_eq(nodes[i].place, 0);
}
END_TEST

START_TEST(test_heap_sorts) {
    struct heap heap;
    static struct heap_node nodes[TEST_HEAP_NODES];
    heap_init(&heap);
    for (unsigned i = 0; i < TEST_HEAP_NODES; i++) {
        nodes[i].key = test_heap_random();
        heap_insert(&heap, &nodes[i]);
    }
    uint64_t last = 0;
    for (unsigned i = 0; i < TEST_HEAP_NODES; i++) {
        struct heap_node *top = heap_top(&heap);
        ck_assert_uint_ge(top->key, last);
        last = top->key;
        heap_remove(&heap, top);
        heap_remove(&heap, top); /* not in it any more: nothing happens */
    }
    ck_assert_ptr_null(heap_top(&heap));
    heap_fini(&heap);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("heap");
    TCase *tc = tcase_create("heap");
    tcase_add_test(tc, test_heap_against_search);
    tcase_add_test(tc, test_heap_sorts);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
