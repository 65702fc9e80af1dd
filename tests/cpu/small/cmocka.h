/* SPDX-License-Identifier: MIT
 *
 * As much of cmocka's interface as kcheck uses, for machines where cmocka itself is not installed (test_kcheck_neon.sh
 * cross-compiles for arm64 and has no libraries there but the C library). The first failure ends the program.
 */
#ifndef AY_SMALL_CMOCKA_H
#define AY_SMALL_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>

struct CMUnitTest {
    const char *name;
    void (*fn)(void **state);
};
#define cmocka_unit_test(f) {#f, f}
#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        printf("FAILED: ");                                                                                            \
        printf(__VA_ARGS__);                                                                                           \
        printf("\n");                                                                                                  \
        exit(1);                                                                                                       \
    } while (0)
#define assert_true(x)                                                                                                 \
    do {                                                                                                               \
        if (!(x)) fail_msg("%s:%d: %s", __FILE__, __LINE__, #x);                                                       \
    } while (0)
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_int_equal(a, b) assert_true((a) == (b))
#define cmocka_run_group_tests_name(name, tests, setup, teardown) small_run(name, tests, sizeof(tests) / sizeof *(tests))

static inline int small_run(const char *name, const struct CMUnitTest *t, size_t n) {
    for (size_t i = 0; i < n; i++) {
        t[i].fn(NULL);
        printf("%s: %s passed\n", name, t[i].name);
    }
    return 0;
}

#endif
