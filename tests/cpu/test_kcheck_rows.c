/* SPDX-License-Identifier: MIT
 *
 * kcheck of what works on rows: normalisation with every combination of weights and modulation, groups, softmax, rotary
 * embedding, and the packing kernels under the products.
 */
#include "kcheck.h"

static void norm_case(ay_isa isa, int64_t rows, int64_t d, float offset) {
    if (kc_left_out()) return;
    ay_norm n = {
        .rows = rows, .d = d, .eps = 1e-6, .rms = kc_coin(), .mod_plus_one = kc_coin(), .rows_per_mod = kc_between(1, rows)};
    n.mod_stride = d + 3;
    float *x = kc_matrix(1, rows * d, rows * d, false), *first = kc_floats(rows * d);
    for (int64_t i = 0; i < rows * d; i++) x[i] += offset;
    n.x = x;
    if (kc_coin()) n.w = kc_matrix(1, d, d, false);
    if (kc_coin()) n.b = kc_matrix(1, d, d, false);
    if (kc_coin()) n.scale = kc_matrix((rows - 1) / n.rows_per_mod + 1, d, d + 3, false);
    if (kc_coin()) n.shift = kc_matrix((rows - 1) / n.rows_per_mod + 1, d, d + 3, false);
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        n.y = t == 1 ? first : kc_floats(rows * d);
        ay_norm_run(&ex, &n);
        if (t > 1) kc_same("norm", isa, t, first, n.y, rows * d);
    }
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < d && !n.rms; i++) mean += (double)x[r * d + i] / (double)d;
        for (int64_t i = 0; i < d; i++) var += ((double)x[r * d + i] - mean) * ((double)x[r * d + i] - mean) / (double)d;
        double by = 1 / sqrt(var + n.eps);
        for (int64_t i = 0; i < d; i++) {
            double v = ((double)x[r * d + i] - mean) * by, mod = 1, size;
            if (n.w) v *= (double)n.w[i];
            size = 2 + fabs(v) + fabs(mean) * by; /* 2: the mean's own rounding, in deviations */
            if (n.b) v += (double)n.b[i], size += fabs((double)n.b[i]);
            if (n.scale) mod = (double)n.scale[r / n.rows_per_mod * n.mod_stride + i] + (n.mod_plus_one ? 1 : 0);
            v *= mod;
            if (n.shift) v += (double)n.shift[r / n.rows_per_mod * n.mod_stride + i];
            kc_near("norm", isa, r * d + i, v, first[r * d + i], KC_EPS * (10 * size * (1 + fabs(mod)) + 3 * fabs(v)));
        }
    }
    kc_done();
}

static void group_case(ay_isa isa, int64_t n, int64_t groups, int64_t each, int64_t s) {
    if (kc_left_out()) return;
    ay_group_norm_args a = {
        .n = n, .groups = groups, .c = groups * each, .s = s, .eps = 1e-5, .act = kc_coin() ? AY_ACT_SILU : AY_ACT_NONE};
    int64_t count = n * a.c * s, size = each * s;
    float *x = kc_matrix(1, count, count, false), *first = kc_floats(count);
    a.x = x;
    if (kc_coin()) a.w = kc_matrix(1, a.c, a.c, false);
    if (kc_coin()) a.b = kc_matrix(1, a.c, a.c, false);
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        a.y = t == 1 ? first : kc_floats(count);
        ay_group_norm_run(&ex, &a);
        if (t > 1) kc_same("group norm", isa, t, first, a.y, count);
    }
    for (int64_t g = 0; g < n * groups; g++) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < size; i++) mean += (double)x[g * size + i] / (double)size;
        for (int64_t i = 0; i < size; i++)
            var += ((double)x[g * size + i] - mean) * ((double)x[g * size + i] - mean) / (double)size;
        for (int64_t i = 0; i < size; i++) {
            int64_t c = g % groups * each + i / s;
            double by = 1 / sqrt(var + a.eps), w = a.w ? (double)a.w[c] : 1, b = a.b ? (double)a.b[c] : 0,
                   v = ((double)x[g * size + i] - mean) * by * w + b;
            double all = (fabs((double)x[g * size + i]) + fabs(mean)) * by * fabs(w) + fabs(b);
            kc_near("group norm", isa, g * size + i, kc_act(a.act, v), first[g * size + i], KC_EPS * 14 * (all + 0.1));
        }
    }
    kc_done();
}

static void softmax_case(ay_isa isa, int64_t rows, int64_t d, float size, float special) {
    if (kc_left_out()) return;
    float *x = kc_matrix(1, rows * d, rows * d, false), *first = kc_floats(rows * d);
    for (int64_t i = 0; i < rows * d; i++) x[i] *= size;
    if (special != 0) x[kc_between(0, d - 1)] = special;
    if (special == -INFINITY) {
        for (int64_t i = 0; i < d; i++) x[i] = -INFINITY; /* a row of nothing else: NaN, as everywhere */
    }
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        float *y = t == 1 ? first : kc_floats(rows * d);
        if (t == 2) memcpy(y, x, (size_t)(rows * d) * sizeof *y);
        ay_softmax_run(&ex, rows, d, t == 2 ? y : x, y); /* once in place */
        if (t > 1) kc_same("softmax", isa, t, first, y, rows * d);
    }
    for (int64_t r = 0; r < rows; r++) {
        double top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < d; i++) top = fmax(top, (double)x[r * d + i]);
        for (int64_t i = 0; i < d; i++) sum += exp((double)x[r * d + i] - top);
        for (int64_t i = 0; i < d; i++) {
            double want = exp((double)x[r * d + i] - top) / sum, apart = top - (double)x[r * d + i];
            kc_near("softmax", isa, r * d + i, want, first[r * d + i],
                    KC_EPS * want * (10 + (double)d / 16 + apart) + 0x1p-148);
        }
    }
    kc_done();
}

/** x, cos and sin over [outer, rows, d], cos and sin shared by outer. */
static void rope_case(ay_isa isa, int64_t outer, int64_t rows, int64_t d, bool pairs, bool dense) {
    int64_t step = dense ? 1 : 2, n = outer * rows * d, half = d / 2;
    float *x = kc_matrix(1, n * step, n * step, false), *c = kc_matrix(1, rows * d * step, rows * d * step, false),
          *s = kc_matrix(1, rows * d * step, rows * d * step, false);
    float *first = kc_floats(n);
    ay_rope_args a = {.rank = 3,
                      .dim = {outer, rows, d},
                      .x = x,
                      .cos = c,
                      .sin = s,
                      .xs = {rows * d * step, d * step, step},
                      .cs = {0, d * step, step},
                      .interleaved = pairs};
    for (int t = 1; t <= KC_THREADS; t++) {
        ay_exec ex = {.pool = kc.pool[t], .isa = isa};
        a.out = t == 1 ? first : kc_floats(n);
        ay_rope_run(&ex, &a);
        if (t > 1) kc_same("rope", isa, t, first, a.out, n);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % d, base = i - at, other = pairs ? at ^ 1 : at < half ? at + half : at - half, f = i % (rows * d);
        double sign = (pairs ? at % 2 == 0 : at < half) ? -1 : 1;
        double p = (double)x[i * step] * (double)c[f * step],
               q = sign * (double)x[(base + other) * step] * (double)s[f * step];
        kc_near("rope", isa, i, p + q, first[i], KC_EPS * 3 * (fabs(p) + fabs(q)));
    }
    kc_done();
}

static void test_rows(void **state) {
    ay_isa levels[AY_ISA_COUNT];
    int n = kc_levels(levels);
    for (int i = 0; i < n; i++) {
        for (int64_t d = 1; d <= 70; d++) {
            norm_case(levels[i], kc_between(1, 9), d, 0);
            group_case(levels[i], kc_between(1, 2), kc_between(1, 4), kc_between(1, 3), d);
            softmax_case(levels[i], kc_between(1, 9), d, 5, 0);
            rope_case(levels[i], kc_between(1, 3), kc_between(1, 5), 2 * d, kc_coin(), kc_next() % 4 > 0);
        }
        norm_case(levels[i], 40, 3072, 0);
        norm_case(levels[i], 3, 9000, 1000); /* a mean far from 0, several chunks */
        group_case(levels[i], 1, 4, 4, 5000);
        softmax_case(levels[i], 20, 4608, 5, 0);
        softmax_case(levels[i], 3, 40, 1e30f, 0);
        softmax_case(levels[i], 3, 40, 1e-41f, 0);
        softmax_case(levels[i], 3, 40, 5, NAN);
        softmax_case(levels[i], 3, 40, 5, INFINITY);
        softmax_case(levels[i], 3, 40, 5, -INFINITY);
    }
}

/* ---- packing ------------------------------------------------------------------------------------------------------ */

static void turn_case(const ay_pack_row *p, ay_dtype t, int rows, int width, int64_t k) {
    if (kc_left_out()) return;
    int64_t ld = k + kc_between(0, 4), n = (rows - 1) * ld + k;
    int size = t == AY_F32 ? 4 : 2;
    float *plain = malloc((size_t)n * sizeof *plain), *dst;
    char *src = kc_bytes((size_t)(n * size));
    for (int64_t i = 0; i < n; i++) plain[i] = (float)kc_between(-99, 99);
    ay_convert_from_f32(t, plain, n, src);
    dst = kc_floats(k * width);
    p->turn(t, src, ld, rows, width, k, dst);
    for (int64_t i = 0; i < k * width; i++)
        kc_near(p->name, p->isa, i, i % width < rows ? (double)plain[i % width * ld + i / width] : 0, dst[i], 0);
    free(plain);
    kc_done();
}

static void rows_case(const ay_pack_row *p, int cols, int width, int64_t k) {
    int64_t ld = cols + kc_between(0, 9);
    float *src = kc_matrix(k, cols, ld, true), *dst = kc_floats(k * width);
    p->rows(src, ld, cols, width, k, dst);
    for (int64_t i = 0; i < k * width; i++)
        kc_near(p->name, p->isa, i, i % width < cols ? (double)src[i / width * ld + i % width] : 0, dst[i], 0);
    kc_done();
}

static void transpose_case(const ay_pack_row *p, int64_t m, int64_t n) {
    if (kc_left_out()) return;
    int64_t xs = m + kc_between(0, 9), ys = n + kc_between(0, 9), out = (m - 1) * ys + n;
    float *x = kc_matrix(n, m, xs, true), *y = kc_floats(out);
    for (int64_t i = 0; i < out; i++) y[i] = 77;
    p->transpose(m, n, x, xs, y, ys);
    for (int64_t i = 0; i < out; i++)
        kc_near(p->name, p->isa, i, i % ys < n ? (double)x[i % ys * xs + i / ys] : 77, y[i], 0);
    kc_done();
}

/** `rows` rows of n numbers from a panel, and the first in place. */
static void finish_case(const ay_pack_row *p, int64_t rows, int64_t n, ay_act act) {
    int64_t width = (n + 15) / 16 * 16 + 16 * kc_between(0, 1), ldo = n + kc_between(0, 5), ldr = n + kc_between(0, 5);
    float *c = kc_matrix(rows, width, width, false), *out = kc_floats((rows - 1) * ldo + n), *line = kc_floats(n);
    ay_finish f = {.alpha = kc_coin() ? 1 : 0.7f, .bias_all = kc_coin() ? 0 : 0.3f, .act = act};
    if (kc_coin()) f.scale = kc_matrix(1, n, n, false);
    if (kc_coin()) f.bias = kc_matrix(1, n, n, false);
    if (kc_coin()) f.gate = kc_matrix(1, n, n, false);
    if (kc_coin()) f.residual = kc_matrix(rows, n, ldr, false);
    memcpy(line, c, (size_t)n * sizeof *line);
    p->finish(&f, n, line);
    p->finish_panel(&f, rows, n, c, width, out, ldo, ldr);
    ay_finish ft = f;
    int64_t ldt = rows + kc_between(0, 5);
    float *turned = kc_floats((n - 1) * ldt + rows);
    if (f.residual) ft.residual = kc_matrix(n, rows, ldt, false);
    p->finish_turned(&ft, rows, n, c, width, turned, ldt);
    for (int64_t i = 0; i < rows * n; i++) {
        int64_t r = i / n, x = i % n;
        double v = (double)c[r * width + x] * (double)f.alpha * (f.scale ? (double)f.scale[x] : 1), size = fabs(v);
        if (f.bias) v += (double)f.bias[x], size += fabs((double)f.bias[x]);
        v = kc_act(act, v + (double)f.bias_all) * (f.gate ? (double)f.gate[x] : 1);
        double vt = v + (f.residual ? (double)ft.residual[x * ldt + r] : 0), more = f.residual ? fabs((double)ft.residual[x * ldt + r]) : 0;
        kc_near(p->name, p->isa, i, vt, turned[x * ldt + r], KC_EPS * 24 * (1 + size + more));
        if (f.residual) v += (double)f.residual[r * ldr + x], size += fabs((double)f.residual[r * ldr + x]);
        if (r == 0) kc_near(p->name, p->isa, x, v, line[x], KC_EPS * 24 * (1 + size));
        kc_near(p->name, p->isa, i, v, out[r * ldo + x], KC_EPS * 24 * (1 + size));
    }
    kc_done();
}

static void test_finishing(void **state) {
    int n;
    const ay_pack_row *const *rows = ay_pack_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_allows(ay_isa_best(), rows[r]->isa)) continue;
        for (int64_t i = 1; i <= 100; i++) finish_case(rows[r], kc_between(1, 40), i, (ay_act)(i % (AY_ACT_TANH + 1)));
    }
}

static void test_packing(void **state) {
    static const ay_dtype types[] = {AY_F32, AY_F16, AY_BF16};
    int n;
    const ay_pack_row *const *rows = ay_pack_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_runs(rows[r]->isa)) continue;
        const ay_gemm_f32_row *g = ay_gemm_f32_pick(rows[r]->isa);
        for (int64_t k = 1; k <= 40; k++) {
            for (int i = 0; i < 3; i++) {
                for (int h = 1; h <= g->mr; h++) turn_case(rows[r], types[i], h, h, k);
                turn_case(rows[r], types[i], (int)kc_between(1, g->nr), g->nr, k);
            }
            for (int h = 1; h <= g->mr; h++) rows_case(rows[r], h, h, k);
            rows_case(rows[r], (int)kc_between(1, g->nr), g->nr, k);
            rows_case(rows[r], g->nr, g->nr, k);
            transpose_case(rows[r], k, kc_between(1, 70));
            transpose_case(rows[r], kc_between(1, 70), k);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_packing), cmocka_unit_test(test_finishing)};
    kc_start(5);
    int failed = cmocka_run_group_tests_name("kcheck rows", tests, NULL, NULL);
    kc_end();
    return failed;
}
