/* SPDX-License-Identifier: MIT
 *
 * Random numbers against PyTorch's, bit for bit: tests/golden/rng.txt holds digests of what one generator draws in turn,
 * over 248 seeds, and some numbers to look at.
 */
#include "../support/support.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As LENGTHS of tests/reference/base_golden.py. */
static const size_t lengths[] = {16, 17, 31, 1000, 1, 2, 3, 5, 15, 4096, 7, 64, 129, 33, 48};

static uint64_t digest_of_seed(uint64_t h, uint64_t seed, float *x) {
    ay_rng r;
    ay_rng_seed(&r, seed);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        ay_rng_normal(&r, x, lengths[i]);
        h = ay_test_digest(h, x, lengths[i]);
    }
    if (seed % 5 == 0) {
        ay_rng_normal(&r, x, 65536);
        h = ay_test_digest(h, x, 65536);
    }
    float u = ay_rng_uniform(&r);
    return ay_test_digest(h, &u, 1);
}

static void test_digests(void **state) {
    ay_test *t = *state;
    char *text = ay_test_read(t, ay_test_golden(t, "rng.txt"), NULL), *save = NULL;
    float *x = ay_alloc(t->arena, 65536 * sizeof *x);
    int seeds = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long first, digest;
        int count;
        if (sscanf(line, "seeds %llu %d %llx", &first, &count, &digest) != 3) continue;
        uint64_t h = 0;
        for (int i = 0; i < count; i++) h = digest_of_seed(h, first + (unsigned)i, x);
        if (h != digest) fail_msg("seeds from %llu on differ from the reference", first);
        seeds += count;
    }
    assert_true(seeds >= 200);
}

static void test_values(void **state) {
    ay_test *t = *state;
    char *text = ay_test_read(t, ay_test_golden(t, "rng.txt"), NULL), *save = NULL;
    int lines = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long seed;
        int n, at = 0;
        if (sscanf(line, "values %llu %d%n", &seed, &n, &at) != 2) continue;
        float x[64];
        ay_rng r;
        ay_rng_seed(&r, seed);
        ay_rng_normal(&r, x, (size_t)n);
        char *p = line + at;
        for (int i = 0; i < n; i++) {
            uint32_t want = (uint32_t)strtoul(p, &p, 16), got;
            memcpy(&got, &x[i], 4);
            if (got != want) fail_msg("seed %llu, number %d of %d: %08x where %08x was expected", seed, i, n, got, want);
        }
        lines++;
    }
    assert_int_equal(lines, 3);
}

/* The generator itself: the 10000th number of the standard's default seed (C++ [rand.predef]). */
static void test_mt19937(void **state) {
    ay_rng r;
    uint32_t v = 0;
    ay_rng_seed(&r, 5489);
    for (int i = 0; i < 10000; i++) v = ay_rng_u32(&r);
    assert_int_equal(v, 4123659995u);
    for (int i = 0; i < 10000; i++) {
        float u = ay_rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
    }
}

static void test_moments(void **state) {
    ay_test *t = *state;
    enum { N = 1 << 18 };
    float *x = ay_alloc(t->arena, N * sizeof *x);
    double mean = 0, square = 0;
    ay_rng r;
    ay_rng_seed(&r, 99);
    ay_rng_normal(&r, x, N);
    for (int i = 0; i < N; i++) {
        mean += x[i] / N;
        square += (double)x[i] * x[i] / N;
    }
    assert_true(mean > -0.01 && mean < 0.01 && square > 0.98 && square < 1.02);
    ay_rng_normal(&r, x, 0); /* nothing is drawn */
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_mt19937), AY_TEST(test_digests), AY_TEST(test_values),
                                       AY_TEST(test_moments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
