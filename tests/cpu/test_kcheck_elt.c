/* SPDX-License-Identifier: MIT
 *
 * kcheck of the elementwise kernels and the strided copy: every operation over its whole range against double, special
 * numbers, broadcasting, results that do not depend on where in a row a number stands.
 */
#include "kcheck.h"

static double wanted(ay_elt op, double a, double b) {
    switch (op) {
    case AY_ELT_ADD: return a + b;
    case AY_ELT_SUB: return a - b;
    case AY_ELT_MUL: return a * b;
    case AY_ELT_DIV: return a / b;
    case AY_ELT_MAX: return isnan(a) || isnan(b) ? NAN : fmax(a, b);
    case AY_ELT_MIN: return isnan(a) || isnan(b) ? NAN : fmin(a, b);
    case AY_ELT_POW: return pow(a, b);
    case AY_ELT_MOD: return a - (double)floorf((float)(a / b)) * b;
    case AY_ELT_COPY: return a;
    case AY_ELT_ABS: return fabs(a);
    case AY_ELT_EXP: return exp(a);
    case AY_ELT_LOG: return log(a);
    case AY_ELT_SQRT: return sqrt(a);
    case AY_ELT_RSQRT: return 1 / sqrt(a);
    case AY_ELT_SIN: return sin(a);
    case AY_ELT_COS: return cos(a);
    case AY_ELT_TANH: return tanh(a);
    case AY_ELT_ERF: return erf(a);
    case AY_ELT_FLOOR: return floor(a);
    case AY_ELT_CEIL: return ceil(a);
    case AY_ELT_ROUND: return rint(a);
    case AY_ELT_SIGN: return a > 0 ? 1 : a < 0 ? -1 : a;
    case AY_ELT_SIGMOID: return kc_act(AY_ACT_SIGMOID, a);
    case AY_ELT_SILU: return kc_act(AY_ACT_SILU, a);
    case AY_ELT_GELU_EXACT: return kc_act(AY_ACT_GELU_ERF, a);
    case AY_ELT_GELU_TANH: return kc_act(AY_ACT_GELU_TANH, a);
    case AY_ELT_GELU_SIGMOID: return kc_act(AY_ACT_GELU_SIGMOID, a);
    case AY_ELT_COUNT: break;
    }
    return NAN;
}

/** How far a result may be off: `ulps` of the result, and `abs` times the input (cancellation in the tails of gelu). */
static double allowed(ay_elt op, double a, double want) {
    double ulps = 1, tail = 0, least = 0x1p-149;
    switch (op) {
    case AY_ELT_SIN:
    case AY_ELT_COS: ulps = 3; break; /* relative, also where an argument lies beside a multiple of pi / 2 */
    case AY_ELT_EXP:
    case AY_ELT_POW:
    case AY_ELT_LOG:
    case AY_ELT_TANH:
    case AY_ELT_ERF:
    case AY_ELT_RSQRT: ulps = 4; break;
    case AY_ELT_SIGMOID:
    case AY_ELT_SILU: ulps = 8, least = 0x1p-126 * (1 + fabs(a)); break; /* 1 / (1 + inf) is 0 a little early */
    case AY_ELT_GELU_SIGMOID:
        ulps = 8 + 2 * fabs(a), least = 0x1p-126 * (1 + fabs(a));
        break; /* e^x of a rounded multiple of x */
    case AY_ELT_GELU_EXACT:
    case AY_ELT_GELU_TANH: ulps = 8, tail = 6; break;
    case AY_ELT_MOD: ulps = 2, tail = 2; break;
    default: break;
    }
    return KC_EPS * (ulps * fabs(want) + tail * fabs(a)) + least * (ulps + 1);
}

/** Inputs spread over the range where the operation does something, and past it. */
static float argument(ay_elt op) {
    float r = kc_real();
    switch (op) {
    case AY_ELT_EXP: return r * 110;
    case AY_ELT_SIN:
    case AY_ELT_COS:
        if (kc_coin()) return (float)(kc_between(-50000, 50000) * 1.57079632679489662) * (1 + (float)kc_between(-2, 2) * 0x1p-23f);
        return r * (kc_coin() ? 7.0f : kc_coin() ? 10000.0f : 200000.0f);
    case AY_ELT_LOG:
    case AY_ELT_SQRT:
    case AY_ELT_RSQRT:
    case AY_ELT_POW: return fabsf(r) * (kc_coin() ? 1.0f : 1e6f) + 1e-30f;
    default: return r * (kc_coin() ? 1.0f : kc_coin() ? 8.0f : 100.0f);
    }
}

static void check_range(ay_elt op, const ay_elt_row *row) {
    int64_t n = 3000 + kc_between(0, 40);
    float *x = kc_floats(n), *y = kc_floats(n), *out = kc_floats(n);
    char what[80];
    for (int64_t i = 0; i < n; i++) x[i] = argument(op), y[i] = op == AY_ELT_POW ? kc_real() * 3 : kc_real() * 10;
    if (op == AY_ELT_MOD) {
        for (int64_t i = 0; i < n; i++) y[i] = 3; /* the quotient must not lie within rounding of a whole number */
        for (int64_t i = 0; i < n; i++) x[i] = (float)kc_between(-999, 999) + 0.5f;
    }
    row->fn[op](n, x, y, out);
    snprintf(what, sizeof what, "%s, operation %d", row->name, (int)op);
    for (int64_t i = 0; i < n; i++) {
        double want = wanted(op, (double)x[i], (double)y[i]);
        if (fabs(want) > 3.4028235e38) want = copysign(INFINITY, want);
        kc_near(what, row->isa, i, want, out[i], allowed(op, (double)x[i], want));
    }
    for (int64_t w = 0; w <= 70; w++) { /* every width, from any start, gives the same bits */
        int64_t at = kc_between(0, 99);
        float *part = kc_floats(w);
        row->fn[op](w, x + at, y + at, part);
        kc_same(what, row->isa, 1, out + at, part, w);
        kc.n--;
    }
    kc_done();
}

static void check_special(ay_elt op, const ay_elt_row *row) {
    static const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN,  1e-40f, -1e-40f, 3.4e38f, -3.4e38f,
                                    1.0f, -1.0f, 88.72f,   -103.9f,   0.5f, 2.5f,   -0.5f,   1e-6f};
    enum { N = sizeof special / sizeof *special };
    float x[N], y[N], out[N];
    for (int i = 0; i < N; i++) x[i] = special[i], y[i] = special[(i + 4) % N];
    row->fn[op](N, x, y, out);
    for (int i = 0; i < N; i++) {
        double want = wanted(op, (double)x[i], (double)y[i]);
        bool tails =
            (op >= AY_ELT_SIGMOID && isinf(x[i])) || (op == AY_ELT_GELU_TANH && fabsf(x[i]) > 1e30f); /* inf * 0, and x^3 */
        if (op == AY_ELT_MOD || (op == AY_ELT_SIN && isinf(x[i])) || (op == AY_ELT_COS && isinf(x[i]))) continue;
        if (tails) continue;
        if (fabs(want) > 3.4028235e38) want = copysign(INFINITY, want);
        kc_near(row->name, row->isa, op * 1000 + i, want, out[i], allowed(op, (double)x[i], want));
    }
}

/* Where the rest is below rounding, gelu gives x and 0, not nearly. */
static void check_ends(ay_elt op, const ay_elt_row *row) {
    static const float ends[] = {8.0f, 9.5f, 12.0f, 100.0f, 1e6f, 1e12f};
    enum { N = sizeof ends / sizeof *ends };
    float x[2 * N], out[2 * N];
    for (int i = 0; i < N; i++) x[i] = ends[i], x[N + i] = -ends[i];
    row->fn[op](2 * N, x, x, out);
    for (int i = 0; i < 2 * N; i++) kc_near(row->name, row->isa, op * 1000 + i, i < N ? (double)x[i] : 0.0, out[i], 0);
}

static void test_functions(void **state) {
    int n;
    const ay_elt_row *const *rows = ay_elt_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_runs(rows[r]->isa)) continue;
        for (int op = 0; op < AY_ELT_COUNT; op++) {
            assert_non_null(rows[r]->fn[op]);
            check_range((ay_elt)op, rows[r]);
            check_special((ay_elt)op, rows[r]);
            if (op == AY_ELT_GELU_EXACT || op == AY_ELT_GELU_TANH) check_ends((ay_elt)op, rows[r]);
        }
    }
}

static void test_gated_and_rounding(void **state) {
    int n;
    const ay_elt_row *const *rows = ay_elt_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_runs(rows[r]->isa)) continue;
        for (int act = 0; act <= AY_ACT_TANH; act++) {
            for (int64_t w = 1; w < 70; w++) {
                float *x = kc_matrix(1, w, w, false), *y = kc_matrix(1, w, w, false), *out = kc_floats(w);
                rows[r]->gated((ay_act)act, w, x, y, out);
                for (int64_t i = 0; i < w; i++) {
                    double want = kc_act((ay_act)act, (double)x[i]) * (double)y[i];
                    kc_near("gated", rows[r]->isa, i, want, out[i],
                            KC_EPS * (9 * fabs(want) + 6 * fabs((double)(x[i] * y[i]))));
                }
                kc_done();
            }
        }
        int64_t count = 70000, over = 0;
        float *x = kc_floats(count), *was = kc_floats(count);
        for (int64_t i = 0; i < count; i++)
            was[i] = x[i] = i < 65536 ? ay_f16_to_f32((uint16_t)i) * (1 + kc_real() * 0x1p-10f) : kc_real() * 1e6f;
        x[3] = was[3] = INFINITY;
        int64_t got = rows[r]->round_f16(count, x);
        for (int64_t i = 0; i < count; i++) {
            float want = ay_f16_to_f32(ay_f32_to_f16(was[i]));
            over += isinf(want) && !isinf(was[i]);
            if (!isnan(want) || !isnan(x[i])) kc_near("round_f16", rows[r]->isa, i, (double)want, x[i], 0);
        }
        assert_int_equal(got, over);
        kc_done();
    }
}

/* ---- drivers: broadcasting and strides ---------------------------------------------------------------------------- */

static void broadcast_case(ay_isa isa) {
    ay_elt_args a = {.op = AY_ELT_SUB, .rank = (int)kc_between(0, 5)};
    int64_t n = 1, sizes[2] = {1, 1}, *strides[2] = {a.xs, a.ys};
    bool large = kc_next() % 8 == 0;
    for (int d = a.rank - 1; d >= 0; d--) {
        a.dim[d] = kc_between(1, large && a.rank < 4 ? 60 : 7);
        for (int o = 0; o < 2; o++) {
            bool shared = kc_next() % 3 == 0;
            strides[o][d] = shared ? 0 : sizes[o];
            if (!shared) sizes[o] *= a.dim[d];
        }
        n *= a.dim[d];
    }
    float *x = kc_matrix(1, sizes[0], sizes[0], true), *y = kc_matrix(1, sizes[1], sizes[1], true), *first = kc_floats(n);
    a.x = x, a.y = y;
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        a.out = t == 1 ? first : kc_floats(n);
        ay_elt_run(&ex, &a);
        for (int64_t i = 0; i < n; i++) {
            int64_t rest = i, px = 0, py = 0;
            for (int d = a.rank - 1; d >= 0; d--) {
                px += rest % a.dim[d] * a.xs[d], py += rest % a.dim[d] * a.ys[d];
                rest /= a.dim[d];
            }
            kc_near("broadcast", isa, i, (double)(x[px] - y[py]), a.out[i], 0);
        }
    }
    kc_done();
}

static void copy_case(ay_isa isa) {
    ay_copy_args a = {.rank = (int)kc_between(1, 5), .size = 1 << kc_between(0, 3)};
    int64_t n = 1, order[AY_MAX_RANK], to = 1;
    bool large = kc_next() % 6 == 0, backward = kc_next() % 4 == 0;
    for (int d = 0; d < a.rank; d++) a.dim[d] = kc_between(1, large && a.rank < 4 ? 90 : 7), order[d] = d;
    for (int d = a.rank - 1; d > 0; d--) { /* a permutation */
        int64_t with = kc_between(0, d), was = order[d];
        order[d] = order[with], order[with] = was;
    }
    for (int d = a.rank - 1; d >= 0; d--) {
        a.ys[d] = to, to *= a.dim[d];
        a.xs[order[d]] = n, n *= a.dim[order[d]];
    }
    unsigned char *x = kc_bytes((size_t)(n * a.size)), *y = kc_bytes((size_t)(n * a.size));
    for (int64_t i = 0; i < n * a.size; i++) x[i] = (unsigned char)kc_next();
    a.x = x, a.y = y;
    if (backward) {
        int d = (int)kc_between(0, a.rank - 1);
        a.x = x + (a.dim[d] - 1) * a.xs[d] * a.size;
        a.xs[d] = -a.xs[d];
    }
    ay_exec ex = {.pool = kc.pool[kc_between(1, KC_THREADS)], .isa = isa};
    ay_copy_run(&ex, &a);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, from = 0;
        for (int d = a.rank - 1; d >= 0; d--) from += rest % a.dim[d] * a.xs[d], rest /= a.dim[d];
        if (memcmp(y + i * a.size, (const unsigned char *)a.x + from * a.size, (size_t)a.size) != 0)
            fail_msg("copy: element %lld (KCHECK_SEED=%llu)", (long long)i, (unsigned long long)kc.seed);
    }
    kc_done();
}

/* Planes turned, out of larger ones and into larger ones: what lies between the rows stays. */
static void turned_case(ay_isa isa) {
    int64_t planes = kc_between(1, 3), m = kc_between(1, 130), n = kc_between(1, kc_coin() ? 130 : 1500), size = 1 << kc_between(0, 3);
    int64_t xs = m + kc_between(0, 20), ys = n + kc_between(0, 20), xp = n * xs + kc_between(0, 9), yp = m * ys + kc_between(0, 9);
    int64_t xn = (planes - 1) * xp + (n - 1) * xs + m, yn = (planes - 1) * yp + (m - 1) * ys + n;
    unsigned char *x = kc_bytes((size_t)(xn * size)), *y = kc_bytes((size_t)(yn * size)), *want = kc_bytes((size_t)(yn * size));
    for (int64_t i = 0; i < xn * size; i++) x[i] = (unsigned char)kc_next();
    memset(want, 0x5a, (size_t)(yn * size));
    for (int64_t i = 0; i < planes * m * n; i++) {
        int64_t p = i / (m * n), r = i / n % m, c = i % n;
        memcpy(want + (p * yp + r * ys + c) * size, x + (p * xp + c * xs + r) * size, (size_t)size);
    }
    ay_copy_args a = {.rank = 3, .dim = {planes, m, n}, .x = x, .xs = {xp, 1, xs}, .y = y, .ys = {yp, ys, 1}, .size = (int)size};
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        memset(y, 0x5a, (size_t)(yn * size));
        ay_copy_run(&ex, &a);
        for (int64_t i = 0; i < yn * size; i++)
            if (y[i] != want[i])
                fail_msg("turned copy, %d threads, level %s: byte %lld (KCHECK_SEED=%llu)", t, ay_isa_name(isa), (long long)i,
                         (unsigned long long)kc.seed);
    }
    kc_done();
}

/* Rows with room between them, as the halves of a product's result are: the same numbers as each row by itself. */
static void gated_rows_case(ay_isa isa) {
    int64_t rows = kc_between(1, 90), n = kc_between(1, 300), ldx = n + kc_between(0, 40), ldy = n + kc_between(0, 40);
    ay_act act = (ay_act)kc_between(0, AY_ACT_TANH);
    float *x = kc_matrix(1, (rows - 1) * ldx + n, (rows - 1) * ldx + n, false), *want = kc_floats(rows * n);
    float *y = kc_matrix(1, (rows - 1) * ldy + n, (rows - 1) * ldy + n, false);
    for (int64_t r = 0; r < rows; r++) ay_elt_pick(isa)->gated(act, n, x + r * ldx, y + r * ldy, want + r * n);
    for (int t = 1; t <= KC_THREADS; t++) {
        float *got = kc_floats(rows * n);
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        ay_gated_rows_run(&ex, act, rows, n, x, ldx, y, ldy, got);
        kc_same("gated rows", isa, t, want, got, rows * n);
    }
    kc_done();
}

static void test_drivers(void **state) {
    ay_isa levels[AY_ISA_COUNT];
    int n = kc_levels(levels);
    for (int i = 0; i < 300; i++) broadcast_case(levels[i % n]);
    for (int i = 0; i < 500; i++) copy_case(levels[i % n]);
    for (int i = 0; i < 100; i++) turned_case(levels[i % n]);
    for (int i = 0; i < 60; i++) gated_rows_case(levels[i % n]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions), cmocka_unit_test(test_gated_and_rounding),
                                       cmocka_unit_test(test_drivers)};
    kc_start(4);
    int failed = cmocka_run_group_tests_name("kcheck elementwise", tests, NULL, NULL);
    kc_end();
    return failed;
}
