/* SPDX-License-Identifier: MIT
 *
 * kcheck of products in eight-bit integers: micro-kernels row by row, the quantiser of activations, then the drivers over
 * every storage and size. The reference quantises with its own scalar code and multiplies in double.
 */
#include "kcheck.h"

#include "cpu/kernel/i8.h"

static int levels_of(ay_isa out[AY_ISA_COUNT]) {
    int n = 0;
    for (int i = 0; i < AY_ISA_COUNT; i++) {
        if (i != AY_ISA_AMX && ay_isa_runs((ay_isa)i)) out[n++] = (ay_isa)i;
    }
    return n;
}

/* ---- micro-kernels ------------------------------------------------------------------------------------------------ */

static void micro_case(const ay_gemm_i8_row *g, int rows, int64_t blocks, bool scaled, bool accumulate) {
    int64_t ldc = g->nr + kc_between(0, 9), nr = g->nr;
    const int half = 1 << (g->bits - 1);
    char *a = kc_bytes((size_t)(blocks * rows * AY_I8_RECORD));
    uint8_t *b = kc_bytes((size_t)(blocks * AY_I8_BLOCK * nr));
    float *scale = scaled ? kc_matrix(1, blocks * nr, blocks * nr, true) : NULL, *c = kc_matrix(rows, nr, ldc, true);
    float *before = malloc((size_t)(rows * ldc) * sizeof(float));
    memcpy(before, c, (size_t)((rows - 1) * ldc + nr) * sizeof(float));
    int8_t *codes = malloc((size_t)(blocks * AY_I8_BLOCK * nr) + 1); /* [block][32][nr] */
    for (int64_t k = 0; k < blocks; k++) {
        char *at = a + k * rows * AY_I8_RECORD;
        for (int i = 0; i < rows; i++) {
            float s = (float)kc_between(-2, 2);
            int32_t sum = 0;
            for (int e = 0; e < 32; e++) sum += ((int8_t *)at)[i * AY_I8_RECORD + e] = (int8_t)(kc_coin() ? kc_between(-127, 127) : kc_coin() ? 127 : -127);
            sum *= -AY_I8_OFFSET;
            memcpy(at + i * AY_I8_RECORD + 32, &s, 4);
            memcpy(at + i * AY_I8_RECORD + 36, &sum, 4);
        }
        for (int e = 0; e < 32; e++) {
            for (int64_t j = 0; j < nr; j++) {
                int8_t v = (int8_t)(kc_coin() ? kc_between(-half, half - 1) : kc_coin() ? half - 1 : -half);
                codes[(k * 32 + e) * nr + j] = v;
                b[k * 32 * nr + (e / g->group * nr + j) * g->group + e % g->group] = ((uint8_t)v & (2 * half - 1)) ^ g->flip;
            }
        }
    }
    g->height[rows - 1](blocks, a, b, scale, c, ldc, accumulate);
    for (int i = 0; i < rows; i++) {
        for (int64_t j = 0; j < (i + 1 < rows ? ldc : nr); j++) {
            double want = j < nr && !accumulate ? 0 : (double)before[i * ldc + j];
            for (int64_t k = 0; k < blocks && j < nr; k++) {
                const char *at = a + k * rows * AY_I8_RECORD;
                float s;
                int64_t dot = 0;
                memcpy(&s, at + i * AY_I8_RECORD + 32, 4);
                for (int e = 0; e < 32; e++) dot += (int64_t)((const int8_t *)at)[i * AY_I8_RECORD + e] * codes[(k * 32 + e) * nr + j];
                want += (double)dot * (double)s * (scaled ? (double)scale[k * nr + j] : 1);
            }
            kc_near(g->name, g->isa, i * ldc + j, want, c[i * ldc + j], 0);
        }
    }
    if (g->at[0]) { /* the same records through a table of places */
        int64_t taps = kc_between(1, 3), pitch = rows + kc_between(0, 3), size = (rows - 1) * ldc + nr;
        int32_t *offset = (int32_t *)kc_bytes((size_t)((taps - 1) * pitch + rows) * 4);
        float *same = kc_floats(size);
        for (int64_t t = 0; t < taps; t++)
            for (int i = 0; i < rows; i++) offset[t * pitch + i] = (int32_t)((t * rows + i) * AY_I8_RECORD);
        memcpy(same, before, (size_t)size * sizeof(float));
        ay_i8_places at = {a, offset, taps, pitch, taps * rows * AY_I8_RECORD};
        g->at[rows - 1](blocks, &at, b, scale, same, ldc, accumulate);
        kc_same(g->name, g->isa, 1, c, same, size);
    }
    free(codes);
    free(before);
    kc_done();
}

static void test_micro_kernels(void **state) {
    int n;
    const ay_gemm_i8_row *const *rows = ay_gemm_i8_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_runs(rows[r]->isa)) continue;
        assert_true(rows[r]->mr <= AY_I8_MAX_MR && rows[r]->nr <= AY_I8_MAX_NR && (rows[r]->group == 4 || rows[r]->group == 8));
        assert_true(rows[r]->bits == 8 || rows[r]->bits == 4);
        assert_int_equal(rows[r]->mr, ay_gemm_i8_pick(rows[r]->isa)->mr); /* products of either share activations */
        for (int h = 1; h <= rows[r]->mr; h++) {
            for (int64_t k = 0; k < 6; k++) micro_case(rows[r], h, k, k & 1, k & 2);
            micro_case(rows[r], h, 4, true, true);
        }
    }
}

/* ---- the reference's own quantiser -------------------------------------------------------------------------------- */

/** 32 numbers `step` apart (0 past n): codes, scale. */
static float quantise(const float *x, int64_t step, int64_t n, int8_t q[32]) {
    float top = 0;
    bool odd = false;
    for (int64_t i = 0; i < n; i++) {
        top = fabsf(x[i * step]) > top ? fabsf(x[i * step]) : top;
        odd |= !isfinite(x[i * step]);
    }
    for (int64_t i = 0; i < 32; i++) q[i] = i < n && top >= 1e-30f && !odd ? (int8_t)rintf(x[i * step] * (127 / top)) : 0;
    return odd ? NAN : top < 1e-30f ? 0 : top * (1.0f / 127);
}

/** A record against 32 numbers `step` apart (0 past n). */
static void check_block(const char *what, ay_isa isa, const float *x, int64_t step, int64_t n, const char *record) {
    int8_t q[32];
    float want = quantise(x, step, n, q), got;
    int32_t sum, expected = 0;
    memcpy(&got, record + 32, 4);
    memcpy(&sum, record + 36, 4);
    kc_near(what, isa, -1, (double)want, got, 0);
    if (isnan(want)) return;
    for (int i = 0; i < 32; i++) {
        kc_near(what, isa, i, q[i], (float)(int8_t)record[i], 0);
        if (i < n && want > 0) kc_near("rounding", isa, i, (double)x[i * step], (float)q[i] * want, (double)want * 0.5001);
        expected -= AY_I8_OFFSET * q[i];
    }
    kc_near(what, isa, 32, expected, (float)sum, 0);
}

/** Where the records of row r lie: block b at [b * step]. */
typedef struct records {
    const ay_a8_head *head;
    const char *first;
    int64_t step;
} records;
static records records_of_row(const char *a8, ay_isa isa, int64_t m, int64_t k, int64_t r) {
    int64_t mr = ay_gemm_i8_pick(isa)->mr, panel = r / mr * mr, rows = ay_min_i64(mr, m - panel);
    return (records){(const ay_a8_head *)(const void *)a8,
                     a8 + ay_a8_head_bytes(k) + (panel * ay_a8_room(k) + r - panel) * AY_I8_RECORD, rows * AY_I8_RECORD};
}
/** Pixel p of pictures of `plane` pixels. */
static records records_of_pixel(const char *a8, int64_t c, int64_t plane, int64_t p) {
    int64_t at = p / plane * ay_a8_room(c) * (plane + 1) + p % plane;
    return (records){(const ay_a8_head *)(const void *)a8, a8 + ay_a8_head_bytes(c) + at * AY_I8_RECORD, (plane + 1) * AY_I8_RECORD};
}

/** All records of one row of k numbers `step` apart; sums of noise and power to sums [2][blocks]. */
static void check_records(const char *what, ay_isa isa, const records *t, const float *x, int64_t step, int64_t k, double *sums) {
    int64_t blocks = ay_a8_blocks(k);
    for (int64_t b = 0, e = 0; b < blocks; b++) {
        const char *record = t->first + b * t->step;
        int64_t n = ay_min_i64(32, k - b * 32);
        float scale, left[32], top = 0, power = 0;
        check_block(what, isa, x + b * 32 * step, step, n, record);
        memcpy(&scale, record + 32, 4);
        for (int64_t i = 0; i < n; i++) {
            float v = x[(b * 32 + i) * step];
            left[i] = v - (float)((const int8_t *)record)[i] * scale;
            top = fmaxf(top, fabsf(v));
            power += v * v;
        }
        sums[b] += (double)scale * (double)scale;
        sums[blocks + b] += (double)power - (double)top * (double)top;
        if (e < t->head->n && t->head->block[e] == b) check_block("doubled", isa, left, 1, n, t->first + (blocks + e++) * t->step);
    }
}

/** The choice of blocks: rising, at most half, the noisiest, enough of them, and not more than that. */
static void check_choice(ay_isa isa, const ay_a8_head *h, int64_t k, float tolerance, const double *sums) {
    int64_t blocks = ay_a8_blocks(k);
    double left = 0, power = 0, least = INFINITY, most = 0;
    assert_true(h->n >= 0 && h->n <= (blocks + 1) / 2);
    for (int64_t b = 0, e = 0; b < blocks; b++) {
        power += sums[blocks + b];
        if (e < h->n && h->block[e] == b) {
            least = fmin(least, sums[b]);
            e++;
            continue;
        }
        assert_true(e == h->n || h->block[e] > b);
        left += sums[b];
        most = fmax(most, sums[b]);
    }
    double limit = (double)tolerance * (double)tolerance * 12 / 32 * power;
    if (isnan(left) || isnan(least) || isnan(power) || isinf(power)) return;
    assert_true(h->n == 0 || least >= most * (1 - 1e-4));
    assert_true(h->n == (blocks + 1) / 2 || left <= limit * (1 + 1e-4) + 1e-30);
    assert_true(h->n == 0 || left + least >= limit * (1 - 1e-4) - 1e-30);
}

/** The numbers of a row as its records have them. */
static void decode(const records *t, int64_t k, double *out, int64_t step) {
    int64_t blocks = ay_a8_blocks(k);
    for (int64_t b = 0; b < blocks + t->head->n; b++) {
        const char *record = t->first + b * t->step;
        int64_t at = (b < blocks ? b : t->head->block[b - blocks]) * 32;
        float scale;
        memcpy(&scale, record + 32, 4);
        for (int64_t i = 0; i < 32 && at + i < k; i++) {
            double v = (double)((const int8_t *)record)[i] * (double)scale;
            out[(at + i) * step] = b < blocks ? v : out[(at + i) * step] + v;
        }
    }
}

static float any_tolerance(void) {
    static const float t[] = {0, 0.004f, 0.008f, 0.03f, 1};
    return t[kc_between(0, 4)];
}

static float activation(int kind) {
    if (kind == 1 && kc_between(0, 40) == 0) return kc_real() * 100; /* an outlier */
    if (kind == 2) return kc_between(0, 300) == 0 ? kc_coin() ? NAN : INFINITY : kc_real();
    if (kind == 3) return kc_coin() ? 0 : kc_real() * 1e-31f;
    return kc_real();
}

static void test_quantiser(void **state) {
    ay_isa levels[AY_ISA_COUNT];
    int n = levels_of(levels);
    for (int64_t i = 0; i < 60; i++) {
        int64_t m = kc_between(1, 40), k = i < 40 ? i + 1 : kc_between(1, 1500), lda = k + kc_between(0, 3);
        float *a = kc_matrix(m, k, lda, false), tolerance = any_tolerance();
        for (int64_t r = 0; r < m; r++)
            for (int64_t e = 0; e < k; e++) a[r * lda + e] = activation((int)(i % 4)) * (i % 3 == 0 && e % 71 == 5 ? 50 : 1);
        int mark = kc.n;
        double *sums = malloc((size_t)(2 * ay_a8_blocks(k)) * sizeof *sums);
        for (int l = 0; l < n; l++) {
            char *out = kc_bytes(ay_a8_bytes(m, k));
            size_t bytes = ay_a8_scratch(levels[l], m, k);
            ay_exec ex = {kc.pool[1 + i % KC_THREADS], levels[l], NULL, kc_scratch(bytes), bytes};
            ay_a8_run(&ex, &(ay_a8){m, k, a, lda, tolerance, out});
            memset(sums, 0, (size_t)(2 * ay_a8_blocks(k)) * sizeof *sums);
            for (int64_t r = 0; r < m; r++) {
                records t = records_of_row(out, levels[l], m, k, r);
                check_records("row of activations", levels[l], &t, a + r * lda, 1, k, sums);
            }
            check_choice(levels[l], (const ay_a8_head *)(const void *)out, k, tolerance, sums);
            kc_done();
            kc.n = mark;
        }
        free(sums);
        kc_done();
    }
}

static void test_pictures(void **state) {
    ay_isa levels[AY_ISA_COUNT];
    int n = levels_of(levels);
    for (int i = 0; i < 30; i++) {
        int64_t batch = kc_between(1, 2), blocks = kc_between(1, 4), c = blocks * 32, plane = kc_between(1, 300);
        float *x = kc_floats(batch * c * plane), tolerance = any_tolerance();
        for (int64_t e = 0; e < batch * c * plane; e++) x[e] = activation(i % 4) * (i % 3 == 0 && e / plane % 71 == 5 ? 50 : 1);
        int mark = kc.n;
        for (int l = 0; l < n; l++) {
            char *out = kc_bytes(ay_a8_picture_bytes(batch, plane, c));
            size_t bytes = ay_a8_picture_scratch(batch, c, plane);
            double sums[8] = {0};
            ay_exec ex = {kc.pool[1 + i % KC_THREADS], levels[l], NULL, kc_scratch(bytes), bytes};
            ay_a8_picture_run(&ex, &(ay_a8_picture){.n = batch, .c = c, .plane = plane, .x = x, .tolerance = tolerance, .out = out});
            for (int64_t p = 0; p < batch * plane; p++) {
                records t = records_of_pixel(out, c, plane, p);
                check_records("pixel", levels[l], &t, x + p / plane * c * plane + p % plane, plane, c, sums);
            }
            check_choice(levels[l], (const ay_a8_head *)(const void *)out, c, tolerance, sums);
            kc_done();
            kc.n = mark;
        }
        kc_done();
    }
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

typedef enum storage { ROW_I8, RUN_I8, ROW_I4, RUN_I4, RUN_U4, SHARED_I8, PALETTE, STORAGES } storage;

/** A weight [n, c, taps..] of this storage; numbers with which products are exact if `whole`. */
static ay_weight make_weight(storage s, int64_t n, int64_t c, int64_t taps, bool whole) {
    ay_dtype t = s == ROW_I8 || s == RUN_I8 || s == SHARED_I8 ? AY_I8 : s == ROW_I4 || s == RUN_I4 ? AY_I4 : AY_U4;
    ay_weight w = {.store = AY_STORE_BLOCK, .rank = taps > 1 ? 4 : 2, .dim = {n, c, taps > 1 ? 3 : 1, taps / 3}, .value_dtype = AY_F32,
                   .data_dtype = t, .scale_dtype = whole || kc_coin() ? AY_F16 : AY_F32, .scale_dim = {n, 1, 1, 1}};
    size_t bytes = ay_dtype_bytes(t, n * c * taps);
    char *data = kc_bytes(bytes);
    for (size_t i = 0; i < bytes; i++) data[i] = (char)(t == AY_I8 && whole ? kc_between(-9, 9) : kc_between(-128, 127));
    w.data = data;
    if (s == PALETTE) {
        int64_t groups = n % 3 == 0 ? 3 : 1;
        float lut[48];
        uint16_t *stored = kc_bytes((size_t)groups * 32);
        for (int64_t i = 0; i < groups * 16; i++) lut[i] = whole ? (float)kc_between(-20, 20) : kc_real();
        for (int64_t i = 0; i < groups && whole; i++) lut[i * 16 + 3] = 127;
        ay_convert_from_f32(AY_F16, lut, groups * 16, stored);
        w.store = AY_STORE_LUT;
        w.lut_dtype = AY_F16;
        w.lut = stored;
        for (int i = 0; i < w.rank; i++) w.lut_dim[i] = 1;
        w.lut_dim[0] = groups, w.lut_dim[w.rank] = 16, w.lut_dim[w.rank + 1] = 1;
        return w;
    }
    if (s == SHARED_I8) w.scale_dim[0] = n % 2 == 0 ? n / 2 : 1;
    if ((s == RUN_I8 || s == RUN_I4 || s == RUN_U4 || s == SHARED_I8) && c % 32 == 0)
        w.scale_dim[1] = c % 96 == 0 && kc_coin() ? c / 96 : c % 64 == 0 && kc_coin() ? c / 64 : c / 32;
    int64_t count = w.scale_dim[0] * w.scale_dim[1];
    float *f = malloc((size_t)count * sizeof *f);
    for (int64_t i = 0; i < count; i++) f[i] = whole ? (float)kc_between(-2, 2) : kc_real();
    void *stored = kc_bytes((size_t)count * (w.scale_dtype == AY_F16 ? 2 : 4));
    ay_convert_from_f32(w.scale_dtype, f, count, stored);
    free(f);
    w.scale = stored;
    if (kc_coin()) {
        w.offset_dtype = t;
        w.offset = memset(kc_bytes(ay_dtype_bytes(t, count)), 0, ay_dtype_bytes(t, count));
    }
    return w;
}

/** Row n of the weight as the product uses it: a palette's table in steps of its largest / 127. */
static void weight_row(const ay_weight *w, int64_t n, int64_t k, float *out) {
    ay_weight_read(w, n * k, k, out);
    if (w->store != AY_STORE_LUT) return;
    float lut[16], top = 0;
    ay_convert_to_f32(w->lut_dtype, w->lut, n / (w->dim[0] / w->lut_dim[0]) * 16, 16, lut);
    for (int i = 0; i < 16; i++) top = fmaxf(top, fabsf(lut[i]));
    for (int64_t i = 0; i < k; i++) out[i] = rintf(out[i] / top * 127) * (top / 127);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

typedef struct expected {
    double *want, *bound;
    int64_t count;
    float tolerance;
} expected;

/** Rows of numbers that quantise exactly: whole, with a 127 in each block of 32 (`stride` apart). */
static void make_exact(float *x, int64_t n, int64_t stride) {
    for (int64_t b = 0; b < n; b += 32) x[(b + kc_between(0, ay_min_i64(31, n - b - 1))) * stride] = kc_coin() ? 127 : -127;
}

static void reference(const ay_gemm *g, const char *a8, ay_isa isa, bool whole, const expected *e) {
    float *row = malloc((size_t)g->k * sizeof *row);
    double *a = malloc((size_t)(g->m * g->k) * sizeof *a);
    for (int64_t m = 0; m < g->m; m++) {
        records t = records_of_row(a8, isa, g->m, g->k, m);
        decode(&t, g->k, a + m * g->k, 1);
    }
    for (int64_t n = 0; n < g->n; n++) {
        weight_row(g->w, n, g->k, row);
        for (int64_t m = 0; m < g->m; m++) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < g->k; k++) {
                sum += a[m * g->k + k] * (double)row[k];
                size += fabs(a[m * g->k + k] * (double)row[k]);
            }
            sum *= (double)g->alpha, size *= fabs((double)g->alpha);
            if (g->bias) sum += (double)g->bias[n], size += fabs((double)g->bias[n]);
            sum = kc_act(g->act, sum);
            double gate = g->gate ? (double)g->gate[n] : 1, v = gate * sum;
            double bound = KC_EPS * ((double)g->k / 16 + 16) * size * 1.2 * fabs(gate);
            if (g->act != AY_ACT_NONE) bound += KC_EPS * 12 * fabs(v) + KC_EPS * 4 * fabs(gate) * (1 + size);
            if (g->residual) v += (double)g->residual[m * g->ldr + n];
            e->want[m * g->ldc + n] = v;
            e->bound[m * g->ldc + n] = whole && g->act == AY_ACT_NONE ? 0 : bound + KC_EPS * 2 * fabs(v);
        }
    }
    free(a);
    free(row);
}

static void run_product(ay_gemm *g, const expected *e, bool whole, const char *what) {
    ay_isa levels[AY_ISA_COUNT];
    int n = levels_of(levels);
    float *first = malloc((size_t)e->count * sizeof *first);
    for (int l = 0; l < n; l++) {
        for (int t = 1; t <= KC_THREADS; t++) {
            int mark = kc.n;
            size_t bytes = ay_gemm_i8_scratch(levels[l], t, g), more = ay_a8_scratch(levels[l], g->m, g->k);
            char *a8 = kc_bytes(ay_a8_bytes(g->m, g->k));
            g->c = kc_floats(e->count);
            for (int64_t i = 0; i < e->count; i++) g->c[i] = 1234.5f;
            ay_exec ex = {kc.pool[t], levels[l], NULL, kc_scratch(bytes), bytes}, qx = {kc.pool[t], levels[l], NULL, kc_scratch(more), more};
            ay_a8_run(&qx, &(ay_a8){g->m, g->k, g->a, g->lda, e->tolerance, a8});
            ay_gemm_i8_run(&ex, g, a8);
            if (t == 1) reference(g, a8, levels[l], whole, e);
            for (int64_t i = 0; i < e->count && t == 1; i++) {
                if (e->bound[i] < 0) kc_near(what, levels[l], i, 1234.5, g->c[i], 0);
                else kc_near(what, levels[l], i, e->want[i], g->c[i], e->bound[i]);
            }
            if (t == 1) memcpy(first, g->c, (size_t)e->count * sizeof *first);
            else kc_same(what, levels[l], t, first, g->c, e->count);
            kc_done();
            kc.n = mark;
        }
    }
    free(first);
}

static void product(int64_t m, int64_t n, int64_t k, storage s) {
    if (kc_left_out()) return;
    bool whole = kc_coin();
    ay_gemm g = {.m = m, .n = n, .k = k, .alpha = 1, .lda = k + kc_between(0, 5), .ldc = n + kc_between(0, 5), .ldr = n + kc_between(0, 3)};
    if (s != ROW_I8 && k % 2) g.k = ++k, g.lda++;
    float *a = kc_matrix(m, k, g.lda, whole);
    for (int64_t i = 0; i < m && whole; i++) make_exact(a + i * g.lda, k, 1);
    g.a = a;
    ay_weight w = make_weight(s, n, k, 1, whole);
    g.w = &w;
    ay_i8_weight fits;
    assert_true(ay_i8_weight_of(&w, n, k, 1, &fits));
    if (kc_coin()) g.alpha = whole ? 2 : 0.37f;
    if (kc_coin()) g.bias = kc_matrix(1, n, n, whole);
    if (kc_coin()) g.gate = kc_matrix(1, n, n, whole);
    if (kc_coin()) g.residual = kc_matrix(m, n, g.ldr, whole);
    if (kc_coin()) g.act = (ay_act)kc_between(0, AY_ACT_TANH);
    expected e = {.count = (m - 1) * g.ldc + n, .tolerance = any_tolerance()};
    e.want = calloc((size_t)e.count, sizeof *e.want);
    e.bound = calloc((size_t)e.count, sizeof *e.bound);
    for (int64_t i = 0; i < e.count; i++) e.bound[i] = -1;
    if (whole && s == PALETTE) whole = false; /* 127 rows of scale 1 / 127 * 127 are not exact */
    char what[160];
    snprintf(what, sizeof what, "i8 product m=%lld n=%lld k=%lld storage=%d act=%d whole=%d", (long long)m, (long long)n, (long long)k,
             (int)s, (int)g.act, whole);
    run_product(&g, &e, whole, what);
    kc_done();
    free(e.want);
    free(e.bound);
}

static void test_products(void **state) {
    for (int64_t s = 1; s <= 40; s++) {
        storage t = (storage)kc_between(0, STORAGES - 1);
        product(s, kc_between(1, 70), t == ROW_I8 || t == PALETTE ? kc_between(1, 200) : kc_between(1, 6) * 32, t);
        product(kc_between(1, 30), s, kc_between(1, 6) * 32, (storage)kc_between(0, STORAGES - 1));
        product(kc_between(1, 30), kc_between(1, 70), s, s % 2 ? ROW_I8 : ROW_I4);
    }
    for (int s = 0; s < STORAGES; s++) {
        product(13, 70, 1728, (storage)s); /* several passes */
        product(300, 130, 64, (storage)s); /* several tiles */
    }
    product(800, 70, 32, ROW_I8);
}

/* ---- convolutions ------------------------------------------------------------------------------------------------- */

/** One output number: the quantised input's and the stored weight's products in double. */
static double conv_number(const ay_conv *c, const double *x, const float *w, int64_t n, int64_t o, const int64_t p[3], double *size) {
    double sum = 0;
    int64_t plane = c->in[0] * c->in[1] * c->in[2], taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
    *size = 0;
    for (int64_t t = 0; t < taps; t++) {
        int64_t k[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1], t % c->kernel[2]}, at = 0;
        bool in = true;
        for (int d = 0; d < 3; d++) {
            int64_t q = p[d] * c->stride[d] + k[d] * c->dilation[d] - c->before[d];
            in = in && q >= 0 && q < c->in[d];
            at = at * c->in[d] + q;
        }
        for (int64_t i = 0; in && i < c->c; i++) {
            double v = x[(n * c->c + i) * plane + at] * (double)w[(o * c->c + i) * taps + t];
            sum += v;
            *size += fabs(v);
        }
    }
    return sum;
}

static void conv_reference(const ay_conv *c, const char *x8, bool whole, const expected *e) {
    int64_t plane = c->in[0] * c->in[1] * c->in[2], pixels = c->out[0] * c->out[1] * c->out[2],
            k = c->c * c->kernel[0] * c->kernel[1] * c->kernel[2];
    double *x = malloc((size_t)(c->n * c->c * plane) * sizeof *x);
    float *w = malloc((size_t)(c->o * k) * sizeof *w);
    for (int64_t o = 0; o < c->o; o++) weight_row(c->w, o, k, w + o * k);
    for (int64_t p = 0; p < c->n * plane; p++) {
        records t = records_of_pixel(x8, c->c, plane, p);
        decode(&t, c->c, x + p / plane * c->c * plane + p % plane, plane);
    }
    for (int64_t i = 0; i < e->count; i++) {
        int64_t p = i % pixels, o = i / pixels % c->o, n = i / pixels / c->o;
        double size, v = conv_number(c, x, w, n, o, (int64_t[]){p / c->out[2] / c->out[1], p / c->out[2] % c->out[1], p % c->out[2]}, &size);
        if (c->bias) v += (double)c->bias[o], size += fabs((double)c->bias[o]);
        v = kc_act(c->act, v);
        e->bound[i] = KC_EPS * ((double)k / 16 + 16) * size * 1.2 + (c->act == AY_ACT_NONE ? 0 : KC_EPS * 16 * (1 + size));
        if (c->residual) v += (double)c->residual[i];
        e->bound[i] = whole && c->act == AY_ACT_NONE ? 0 : e->bound[i] + KC_EPS * 2 * fabs(v);
        e->want[i] = v;
    }
    free(x);
    free(w);
}

static void run_conv(ay_conv *c, const expected *e, bool whole, const char *what) {
    ay_isa levels[AY_ISA_COUNT];
    int n = levels_of(levels);
    int64_t plane = c->in[0] * c->in[1] * c->in[2];
    float *first = malloc((size_t)e->count * sizeof *first);
    for (int l = 0; l < n; l++) {
        for (int t = 1; t <= KC_THREADS; t++) {
            int mark = kc.n;
            size_t bytes = ay_conv_i8_scratch(levels[l], t, c), more = ay_a8_picture_scratch(c->n, c->c, plane);
            char *x8 = kc_bytes(ay_a8_picture_bytes(c->n, plane, c->c));
            c->y = kc_floats(e->count);
            ay_exec ex = {kc.pool[t], levels[l], NULL, kc_scratch(bytes), bytes}, qx = {kc.pool[t], levels[l], NULL, kc_scratch(more), more};
            ay_a8_picture_run(&qx, &(ay_a8_picture){.n = c->n, .c = c->c, .plane = plane, .x = c->x, .tolerance = e->tolerance, .out = x8});
            ay_conv_i8_run(&ex, c, x8);
            if (t == 1) conv_reference(c, x8, whole, e);
            for (int64_t i = 0; i < e->count && t == 1; i++) kc_near(what, levels[l], i, e->want[i], c->y[i], e->bound[i]);
            if (t == 1) memcpy(first, c->y, (size_t)e->count * sizeof *first);
            else kc_same(what, levels[l], t, first, c->y, e->count);
            kc_done();
            kc.n = mark;
        }
    }
    free(first);
}

static void conv(int64_t n, int64_t channels, int64_t o, int64_t side, int64_t kernel, storage s) {
    if (kc_left_out()) return;
    bool whole = kc_coin(), deep = kc_between(0, 4) == 0;
    ay_conv c = {.n = n, .c = channels, .o = o, .groups = 1};
    for (int d = 0; d < 3; d++) {
        bool flat = d == 0 && !deep;
        c.in[d] = flat ? 1 : ay_max_i64(1, side + kc_between(-1, 1));
        c.kernel[d] = flat ? 1 : kernel;
        c.stride[d] = flat ? 1 : kc_between(1, 2);
        c.dilation[d] = flat || kernel == 1 ? 1 : kc_between(1, 2);
        c.before[d] = flat ? 0 : kc_between(0, kernel - 1);
        int64_t reach = (kernel - 1) * c.dilation[d] + 1, after = kernel - 1;
        if (!flat && c.in[d] + c.before[d] + after < reach) c.in[d] = reach;
        c.out[d] = flat ? 1 : (c.in[d] + c.before[d] + after - reach) / c.stride[d] + 1;
    }
    int64_t plane = c.in[0] * c.in[1] * c.in[2], taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
    float *x = kc_matrix(1, n * channels * plane, n * channels * plane, whole);
    for (int64_t b = 0; b < n * channels / 32 && whole; b++)
        for (int64_t p = 0; p < plane; p++) make_exact(x + b * 32 * plane + p, 32, plane);
    c.x = x;
    ay_weight w = make_weight(s, o, channels, taps, whole);
    if (taps == 1) w.rank = 4, w.lut_dim[4] = w.lut_dim[2], w.lut_dim[5] = w.lut_dim[3], w.lut_dim[2] = w.lut_dim[3] = 1;
    if (taps % 3 != 0) w.dim[2] = 1, w.dim[3] = taps;
    c.w = &w;
    assert_true(ay_conv_i8_can(&c) || o < 16);
    if (kc_coin()) c.bias = kc_matrix(1, o, o, whole);
    if (kc_coin()) c.act = (ay_act)kc_between(0, AY_ACT_TANH);
    expected e = {.count = n * o * c.out[0] * c.out[1] * c.out[2], .tolerance = any_tolerance()};
    if (kc_coin()) c.residual = kc_matrix(1, e.count, e.count, whole);
    e.want = malloc((size_t)e.count * sizeof *e.want);
    e.bound = malloc((size_t)e.count * sizeof *e.bound);
    char what[160];
    snprintf(what, sizeof what, "i8 convolution n=%lld c=%lld o=%lld in=%lldx%lldx%lld kernel=%lld storage=%d whole=%d", (long long)n,
             (long long)channels, (long long)o, (long long)c.in[0], (long long)c.in[1], (long long)c.in[2], (long long)kernel, (int)s, whole);
    run_conv(&c, &e, whole && s != PALETTE, what);
    kc_done();
    free(e.want);
    free(e.bound);
}

static void test_convolutions(void **state) {
    for (int i = 0; i < 40; i++)
        conv(kc_between(1, 2), kc_between(1, 4) * 32, kc_between(1, 70), kc_between(1, 6), kc_coin() ? 3 : kc_between(1, 3),
             (storage)kc_between(0, STORAGES - 1));
    conv(1, 96, 100, 21, 3, RUN_I4); /* several tiles */
    conv(1, 32, 340, 4, 1, ROW_I8);
}

/** A number that is not finite reaches every product of its row, and no other. */
static void test_not_finite(void **state) {
    ay_isa levels[AY_ISA_COUNT];
    int n = levels_of(levels);
    ay_weight w = make_weight(RUN_I4, 40, 96, 1, true);
    float *a = kc_matrix(9, 96, 96, true);
    a[4 * 96 + 50] = NAN;
    a[7 * 96 + 2] = -INFINITY;
    for (int l = 0; l < n; l++) {
        int mark = kc.n;
        ay_gemm g = {.m = 9, .n = 40, .k = 96, .alpha = 1, .a = a, .lda = 96, .ldc = 40, .w = &w, .c = kc_floats(9 * 40)};
        size_t bytes = ay_gemm_i8_scratch(levels[l], 1, &g) + ay_a8_scratch(levels[l], 9, 96);
        ay_exec ex = {kc.pool[1], levels[l], NULL, kc_scratch(bytes), bytes};
        char *a8 = kc_bytes(ay_a8_bytes(9, 96));
        ay_a8_run(&ex, &(ay_a8){9, 96, a, 96, 0.008f, a8});
        ay_gemm_i8_run(&ex, &g, a8);
        for (int i = 0; i < 9 * 40; i++) assert_int_equal(isfinite(g.c[i]) != 0, i / 40 != 4 && i / 40 != 7);
        kc_done();
        kc.n = mark;
    }
    kc_done();
}

/** Storage whose numbers are no eight-bit integers is left to the float products. */
static void test_refusals(void **state) {
    ay_i8_weight out;
    ay_weight w = make_weight(RUN_I4, 8, 96, 1, true), v;
    assert_true(ay_i8_weight_of(&w, 8, 96, 1, &out));
    v = w, v.scale_dim[1] = 6; /* runs of 16 */
    assert_true(!ay_i8_weight_of(&v, 8, 96, 1, &out));
    uint8_t zero[12 * 8] = {0, 0, 3};
    v = w, v.offset_dtype = AY_U8, v.offset = zero;
    assert_true(!ay_i8_weight_of(&v, 8, 96, 1, &out));
    v = w, v.data_dtype = AY_U8;
    assert_true(!ay_i8_weight_of(&v, 8, 96, 1, &out));
    v = w, v.store = AY_STORE_PLAIN;
    assert_true(!ay_i8_weight_of(&v, 8, 96, 1, &out));
    kc_done();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_micro_kernels), cmocka_unit_test(test_quantiser), cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_products),      cmocka_unit_test(test_convolutions), cmocka_unit_test(test_not_finite), cmocka_unit_test(test_refusals),
    };
    kc_start(8);
    int failed = cmocka_run_group_tests_name("kcheck i8", tests, NULL, NULL);
    kc_end();
    return failed;
}
