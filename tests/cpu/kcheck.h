/* SPDX-License-Identifier: MIT
 *
 * kcheck: how kernels are checked, after dav1d's checkasm but for floats. Buffers end on an unreadable page and begin after
 * canaries; seeds are printed and replayable (KCHECK_SEED=n); inputs are small whole numbers, whose results must be exact,
 * or real ones, held to a bound per element against double; every level this machine has is run, and results must be the
 * same bits for 1, 2 and 3 threads. Header only: each test_kcheck_*.c is a program of its own.
 */
#ifndef AY_KCHECK_H
#define AY_KCHECK_H

#include "base/half.h"
#include "cpu/kernel/rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KC_EPS 5.9604645e-8 /* half a unit in the last place of 1 */
enum { KC_SLOTS = 16, KC_THREADS = 3, KC_CANARY = 64 };
#define KC_SLOT_BYTES ((size_t)48 << 20)
#define KC_UNUSED __attribute__((unused))

typedef struct kc_state {
    char *slot[KC_SLOTS]; /* ends (unreadable from here on) */
    size_t used[KC_SLOTS];
    int n;
    uint64_t seed, rng;
    int64_t every, cases; /* KCHECK_EVERY=n: only every n-th case, for slow machines (emulators) */
    ay_pool *pool[KC_THREADS + 1];
} kc_state;
static kc_state kc;

KC_UNUSED static uint64_t kc_next(void) {
    kc.rng ^= kc.rng << 13;
    kc.rng ^= kc.rng >> 7;
    return kc.rng ^= kc.rng << 17;
}
KC_UNUSED static int64_t kc_between(int64_t lo, int64_t hi) { return lo + (int64_t)(kc_next() >> 11) % (hi - lo + 1); }
KC_UNUSED static float kc_real(void) { return (float)((double)(kc_next() >> 11) * 0x1p-52 - 1.0); } /* -1 .. 1 */
KC_UNUSED static bool kc_coin(void) { return kc_next() >> 40 & 1; }

KC_UNUSED static void kc_start(uint64_t salt) {
    const char *s = getenv("KCHECK_SEED");
    kc.seed = s ? strtoull(s, NULL, 10) : (uint64_t)getpid() * 2654435761u + salt;
    kc.rng = kc.seed * 0x9e3779b97f4a7c15u + 88172645463325252u;
    const char *every = getenv("KCHECK_EVERY");
    kc.every = every && atoi(every) > 0 ? atoi(every) : 1;
    printf("kcheck: KCHECK_SEED=%llu replays this run\n", (unsigned long long)kc.seed);
    for (int i = 0; i < KC_SLOTS; i++) {
        char *p = mmap(NULL, KC_SLOT_BYTES + (1 << 16), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                       -1, 0);
        assert_true(p != MAP_FAILED);
        assert_int_equal(mprotect(p + KC_SLOT_BYTES, 1 << 16, PROT_NONE), 0);
        kc.slot[i] = p + KC_SLOT_BYTES;
    }
    for (int t = 1; t <= KC_THREADS; t++) kc.pool[t] = ay_pool_new(t);
}
KC_UNUSED static bool kc_left_out(void) { return kc.cases++ % kc.every != 0; }
KC_UNUSED static void kc_end(void) {
    for (int i = 0; i < KC_SLOTS; i++) munmap(kc.slot[i] - KC_SLOT_BYTES, KC_SLOT_BYTES + (1 << 16));
    for (int t = 1; t <= KC_THREADS; t++) ay_pool_free(kc.pool[t]);
}

/** `bytes` bytes that end on the unreadable page, with a canary before them. kc_done() checks all of them. */
KC_UNUSED static void *kc_bytes(size_t bytes) {
    assert_true(kc.n < KC_SLOTS && bytes + KC_CANARY <= KC_SLOT_BYTES);
    char *p = kc.slot[kc.n] - bytes;
    memset(p - KC_CANARY, 0xa5, KC_CANARY);
    kc.used[kc.n++] = bytes;
    return p;
}
KC_UNUSED static float *kc_floats(int64_t n) { return kc_bytes((size_t)n * sizeof(float)); }
KC_UNUSED static void *kc_scratch(size_t bytes) { return kc_bytes((bytes + 63) / 64 * 64); }
KC_UNUSED static void kc_done(void) {
    for (int i = 0; i < kc.n; i++) {
        const unsigned char *p = (const unsigned char *)(kc.slot[i] - kc.used[i] - KC_CANARY);
        for (int c = 0; c < KC_CANARY; c++) {
            if (p[c] != 0xa5)
                fail_msg("buffer %d was written before its start (KCHECK_SEED=%llu)", i, (unsigned long long)kc.seed);
        }
    }
    kc.n = 0;
}
/** n numbers of which every ld-th row starts with `w` used ones; the rest hold NaN, which must never matter. */
KC_UNUSED static float *kc_matrix(int64_t rows, int64_t w, int64_t ld, bool whole) {
    int64_t n = rows > 0 ? (rows - 1) * ld + w : 0;
    float *p = kc_floats(n);
    for (int64_t i = 0; i < n; i++) p[i] = i % ld >= w ? NAN : whole ? (float)kc_between(-3, 3) : kc_real();
    return p;
}

/** The levels this machine can be held to. */
KC_UNUSED static int kc_levels(ay_isa out[AY_ISA_COUNT]) {
    int n = 0;
    for (int i = 0; i < AY_ISA_COUNT; i++) {
        if (ay_isa_runs((ay_isa)i) && i != AY_ISA_AVXVNNI && (i <= AY_ISA_AVX512 || i == AY_ISA_NEON)) out[n++] = (ay_isa)i;
    }
    return n;
}
KC_UNUSED static void kc_near(const char *what, ay_isa isa, int64_t at, double want, float got, double bound) {
    if (isnan(want) && isnan(got)) return;
    if (want == (double)got || fabs(want - (double)got) <= bound) return;
    fail_msg("%s at level %s, element %lld: expected %.9g, found %.9g, off by %.3g where %.3g is allowed (KCHECK_SEED=%llu)",
             what, ay_isa_name(isa), (long long)at, want, (double)got, fabs(want - (double)got), bound,
             (unsigned long long)kc.seed);
}
KC_UNUSED static void kc_same(const char *what, ay_isa isa, int threads, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (memcmp(a + i, b + i, sizeof *a) != 0) {
            fail_msg("%s at level %s: %d threads give %.9g at %lld where 1 gives %.9g (KCHECK_SEED=%llu)", what,
                     ay_isa_name(isa), threads, (double)b[i], (long long)i, (double)a[i], (unsigned long long)kc.seed);
        }
    }
}

KC_UNUSED static double kc_act(ay_act act, double x) {
    switch (act) {
    case AY_ACT_NONE: return x;
    case AY_ACT_GELU_TANH: return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case AY_ACT_GELU_ERF: return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    case AY_ACT_GELU_SIGMOID: return x / (1 + exp(-1.702 * x));
    case AY_ACT_SILU: return x / (1 + exp(-x));
    case AY_ACT_RELU: return x < 0 ? 0 : x;
    case AY_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case AY_ACT_TANH: return tanh(x);
    }
    return x;
}

#endif
