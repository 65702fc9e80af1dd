/* SPDX-License-Identifier: MIT
 *
 * Arena, growing bytes, errors of the context, pool, instruction-set levels, element types.
 */
#include "../support/support.h"
#include "base/isa.h"
#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_arena(void **state) {
    ay_arena *a = ay_arena_new();
    uint64_t seed = 1;
    enum { N = 2000 };
    unsigned char *p[N];
    size_t size[N];
    for (int i = 0; i < N; i++) { /* of all sizes, some larger than a chunk */
        size[i] = (size_t)(ay_test_random(&seed) % (i % 50 == 0 ? 3000000 : 300));
        p[i] = ay_alloc(a, size[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(p[i][k], 0);
        memset(p[i], i & 255, size[i]);
    }
    for (int i = 0; i < N; i++) {
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(p[i][k], i & 255); /* nobody wrote into another */
    }
    assert_string_equal(ay_sprintf(a, "%s-%d", "x", 42), "x-42");
    assert_string_equal(ay_strndup(a, "abcdef", 3), "abc");
    assert_false(ay_arena_failed(a));
    assert_null(ay_alloc(a, SIZE_MAX - 8));
    assert_true(ay_arena_failed(a));
    assert_non_null(ay_alloc(a, 8)); /* still usable, but known to have failed */
    assert_true(ay_arena_failed(a));
    ay_arena_free(a);
    ay_arena_free(NULL);
}

static void test_buf(void **state) {
    ay_buf b = {0};
    for (int i = 0; i < 1000; i++) ay_buf_printf(&b, "%d,", i);
    ay_buf_add(&b, "\0z", 2);
    assert_int_equal(b.len, 3890 + 2);
    assert_memory_equal(b.data + 3886, "999,\0z", 7); /* with the NUL past the end */
    assert_false(b.failed);
    size_t before = b.len;
    ay_buf_add(&b, "x", SIZE_MAX - 4);
    assert_true(b.failed);
    ay_buf_add(&b, "x", 1);
    assert_int_equal(b.len, before); /* failure sticks */
    ay_buf_free(&b);
    assert_null(b.data);
}

static void test_errors(void **state) {
    ay_test *t = *state;
    assert_string_equal(ay_error_text(t->cx), "");
    assert_int_equal(ay_fail(t->cx, ALLOY_E_FORMAT, "bad %d", 7), ALLOY_E_FORMAT);
    assert_string_equal(ay_error_text(t->cx), "bad 7");
    ay_fail_prefix(t->cx, "%s: ", "file.json");
    assert_string_equal(ay_error_text(t->cx), "file.json: bad 7");
    assert_int_equal(ay_nomem(t->cx), ALLOY_E_NOMEM);
    assert_contains(ay_error_text(t->cx), "memory");
    ay_fail_prefix(t->cx, "x: "); /* over a sentence that is not on the heap */
    assert_contains(ay_error_text(t->cx), "x: ");
    assert_ok(t->cx, ay_check_stop(t->cx));
    atomic_store(&t->cx->stop, 1);
    assert_fails(t->cx, ay_check_stop(t->cx), ALLOY_E_CANCELLED, "stop");
}

typedef struct count_arg {
    atomic_int hits[500];
    atomic_int stop;
    int threads;
    int stop_at;
    atomic_int bad;
} count_arg;

static void count_tile(void *arg, int64_t tile, int thread) {
    count_arg *c = arg;
    atomic_fetch_add(&c->hits[tile], 1);
    if (thread < 0 || thread >= c->threads) atomic_store(&c->bad, 1);
    if (c->stop_at == tile) atomic_store(&c->stop, 1);
}

static void slow_tile(void *arg, int64_t tile, int thread) {
    if (tile == 1) usleep(1000);
    count_tile(arg, tile, thread);
}

/* Both ways of waiting, for the workers and for the caller: a job at once, and one after they have gone to sleep. */
static void test_pool_sleeps(void **state) {
    for (int threads = 2; threads <= 3; threads++) {
        ay_pool *p = ay_pool_new(threads);
        count_arg c = {.threads = threads, .stop_at = -1};
        for (int round = 1; round <= 20; round++) {
            if (round % 2) usleep(1000);
            ay_parallel(p, 4, round % 3 ? count_tile : slow_tile, &c, &c.stop);
            for (int i = 0; i < 4; i++) assert_int_equal(c.hits[i], round);
        }
        assert_int_equal(c.bad, 0);
        ay_pool_free(p);
    }
}

static void test_pool(void **state) {
    for (int threads = 1; threads <= 5; threads++) {
        ay_pool *p = ay_pool_new(threads);
        assert_int_equal(ay_pool_threads(p), threads);
        for (int round = 0; round < 50; round++) {
            count_arg c = {.threads = threads, .stop_at = -1};
            int tiles = round * 10;
            ay_parallel(p, tiles, count_tile, &c, &c.stop);
            for (int i = 0; i < 500; i++) assert_int_equal(c.hits[i], i < tiles ? 1 : 0);
            assert_int_equal(c.bad, 0);
        }
        count_arg c = {.threads = threads, .stop_at = 3};
        ay_parallel(p, 500, count_tile, &c, &c.stop);
        int sum = 0;
        for (int i = 0; i < 500; i++) sum += c.hits[i];
        assert_true(threads > 1 ? sum >= 4
                                : sum == 4); /* other threads may be quick: only alone is it certain what is left out */
        count_arg stopped = {.threads = threads, .stop_at = -1, .stop = 1};
        ay_parallel(p, 500, count_tile, &stopped, &stopped.stop);
        for (int i = 0; i < 500; i++) assert_int_equal(stopped.hits[i], 0);
        ay_pool_free(p);
    }
    ay_pool_free(NULL);
}

static void test_isa(void **state) {
    for (int i = 0; i < AY_ISA_COUNT; i++) assert_int_equal(ay_isa_from_name(ay_isa_name((ay_isa)i)), i);
    assert_int_equal(ay_isa_from_name("mmx"), -1);
    assert_true(ay_isa_allows(AY_ISA_AVX512, AY_ISA_AVX2) && ay_isa_allows(AY_ISA_VNNI, AY_ISA_AVX512));
    assert_false(ay_isa_allows(AY_ISA_AVX2, AY_ISA_AVX512));
    assert_false(ay_isa_allows(AY_ISA_NEON, AY_ISA_AVX2) || ay_isa_allows(AY_ISA_AMX, AY_ISA_NEON));
    assert_true(ay_isa_allows(AY_ISA_C, AY_ISA_C) && ay_isa_allows(AY_ISA_NEON, AY_ISA_C));
    assert_false(ay_isa_allows(AY_ISA_C, AY_ISA_AVX2) || ay_isa_allows(AY_ISA_C, AY_ISA_NEON));
    assert_true(ay_isa_allows(ay_isa_best(), ay_isa_best()));
    assert_true(ay_isa_allows(AY_ISA_AVXVNNI, AY_ISA_AVX2) && ay_isa_allows(AY_ISA_AVXVNNI, AY_ISA_AVXVNNI));
    assert_false(ay_isa_allows(AY_ISA_AVX2, AY_ISA_AVXVNNI) || ay_isa_allows(AY_ISA_VNNI, AY_ISA_AVXVNNI));
    assert_true(ay_isa_runs(AY_ISA_C) && ay_isa_runs(ay_isa_best()));
    assert_false(ay_isa_runs(AY_ISA_NEON) && ay_isa_runs(AY_ISA_AVX2));
}

static void test_isa_cap(void **state) {
    ay_ctx *cx = NULL;
    setenv("ALLOY_ISA", "c", 1);
    setenv("ALLOY_THREADS", "3", 1);
    assert_int_equal(ay_ctx_open(0, &cx), ALLOY_OK);
    assert_int_equal(cx->isa, AY_ISA_C);
    assert_int_equal(ay_pool_threads(cx->pool), 3);
    assert_string_equal(cx->notice, "");
    ay_ctx_close(&cx);
    setenv("ALLOY_ISA", "nonsense", 1);
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    assert_int_equal(cx->isa, (int)ay_isa_best());
    assert_contains(cx->notice, "ALLOY_ISA is \"nonsense\"");
    ay_ctx_close(&cx);
    static const char *const counts[] = {"abc", "-2", "0", "3x", "1.5"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        setenv("ALLOY_THREADS", counts[i], 1);
        assert_int_equal(ay_ctx_open(0, &cx), ALLOY_OK);
        assert_contains(cx->notice, "not a number of threads");
        assert_contains(cx->notice, "ALLOY_ISA is");
        ay_ctx_close(&cx);
    }
    unsetenv("ALLOY_ISA");
    assert_int_equal(ay_ctx_open(100000, &cx), ALLOY_OK);
    assert_contains(cx->notice, "100000 threads would only wait");
    assert_int_equal(ay_pool_threads(cx->pool), ay_pool_most());
    ay_ctx_close(&cx);
    unsetenv("ALLOY_ISA");
    unsetenv("ALLOY_THREADS");
}

static void test_types(void **state) {
    char text[160];
    ay_type t = {AY_F16, 3, {1, 77, 768}};
    assert_string_equal(ay_type_text(&t, text), "float16[1, 77, 768]");
    assert_int_equal(ay_type_count(&t), 77 * 768);
    ay_type scalar = {.dtype = AY_F32};
    assert_int_equal(ay_type_count(&scalar), 1);
    ay_type huge = {AY_F16, 3, {INT64_MAX, 2, 1}}, negative = {AY_F16, 2, {-1, 2}}, none = {AY_F16, 2, {0, INT64_MAX}};
    assert_int_equal(ay_type_count(&huge), -1);
    assert_int_equal(ay_type_count(&negative), -1);
    assert_int_equal(ay_type_count(&none), 0);
    ay_type wide = {AY_F8E4M3, 6, {INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN}};
    assert_true(strlen(ay_type_text(&wide, text)) < 160); /* fits whatever the numbers */
    assert_int_equal(ay_dtype_bytes(AY_U3, 3), 2);
    assert_int_equal(ay_dtype_bytes(AY_U6, 5), 4);
    assert_int_equal(ay_dtype_bytes(AY_I4, 0), 0);
    assert_true(ay_dtype_bytes(AY_F64, INT64_MAX) == SIZE_MAX && ay_dtype_bytes(AY_F32, -1) == SIZE_MAX);
    assert_false(ay_type_equal(&t, &scalar));
    for (int i = 1; i < AY_DTYPE_COUNT; i++) assert_true(ay_dtype_bits((ay_dtype)i) > 0 && ay_dtype_name((ay_dtype)i)[0]);
    assert_int_equal(ay_dtype_bits((ay_dtype)1000), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_arena), AY_TEST(test_buf),     AY_TEST(test_errors), AY_TEST(test_pool),
                                       AY_TEST(test_pool_sleeps),
                                       AY_TEST(test_isa), AY_TEST(test_isa_cap), AY_TEST(test_types)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
