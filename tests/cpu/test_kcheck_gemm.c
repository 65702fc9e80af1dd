/* SPDX-License-Identifier: MIT
 *
 * kcheck of the matrix products: the micro-kernels row by row, then the driver over every storage, size, stride and ending.
 */
#include "kcheck.h"

static void micro_case(const ay_gemm_f32_row *g, int rows, int64_t k, bool accumulate) {
    int64_t ldc = g->nr + kc_between(0, 9);
    float *a = kc_matrix(1, rows * k, rows * k + 1, true), *b = kc_matrix(1, g->nr * k, g->nr * k + 1, true);
    float *c = kc_matrix(rows, g->nr, ldc, true), *before = malloc((size_t)(rows * ldc) * sizeof(float));
    memcpy(before, c, (size_t)((rows - 1) * ldc + g->nr) * sizeof(float));
    g->height[rows - 1](k, a, b, c, ldc, accumulate);
    for (int i = 0; i < rows; i++) {
        for (int64_t j = 0; j < (i + 1 < rows ? ldc : g->nr); j++) {
            double want = j < g->nr && !accumulate ? 0 : before[i * ldc + j];
            for (int64_t p = 0; p < k && j < g->nr; p++) want += (double)a[p * rows + i] * (double)b[p * g->nr + j];
            kc_near(g->name, g->isa, i * ldc + j, want, c[i * ldc + j], 0);
        }
    }
    free(before);
    kc_done();
}

static void test_micro_kernels(void **state) {
    int n;
    const ay_gemm_f32_row *const *rows = ay_gemm_f32_rows(&n);
    for (int r = 0; r < n; r++) {
        if (!ay_isa_runs(rows[r]->isa)) continue;
        assert_true(rows[r]->mr <= AY_MAX_MR && rows[r]->nr <= AY_MAX_NR && rows[r]->fn == rows[r]->height[rows[r]->mr - 1]);
        for (int h = 1; h <= rows[r]->mr; h++) {
            for (int64_t k = 0; k < 20; k++) micro_case(rows[r], h, k, k & 1);
            micro_case(rows[r], h, 137, true);
        }
    }
}

/* ---- the driver --------------------------------------------------------------------------------------------------- */

typedef enum storage {
    F32_KN,
    F32_NK,
    W_F32,
    W_F16,
    W_BF16,
    W_F8,
    W_I8,
    W_U8,
    W_I4,
    W_U4,
    W_LUT4,
    W_LUT6,
    W_LUT8,
    STORAGES
} storage;

typedef struct problem {
    ay_gemm_batch g;
    ay_weight w;
    double *want, *bound;
    int64_t c_count;
    bool whole;
} problem;

static float plain_value(bool whole) { return whole ? (float)kc_between(-3, 3) : kc_real(); }

static void make_weight(problem *p, storage s) {
    ay_gemm *g = &p->g.one;
    int64_t n = g->n * g->k, pad = s >= W_F16 && s <= W_BF16 && kc_coin(); /* half of them start at an odd address */
    ay_dtype t[] = {[W_F32] = AY_F32, [W_F16] = AY_F16, [W_BF16] = AY_BF16, [W_F8] = AY_F8E4M3, [W_I8] = AY_I8,
                    [W_U8] = AY_U8,   [W_I4] = AY_I4,   [W_U4] = AY_U4,     [W_LUT4] = AY_U4,   [W_LUT6] = AY_U6,   [W_LUT8] = AY_U8};
    ay_weight *w = &p->w;
    *w = (ay_weight){.store = AY_STORE_PLAIN, .rank = 2, .dim = {g->n, g->k}, .value_dtype = AY_F32, .data_dtype = t[s]};
    size_t bytes = ay_dtype_bytes(t[s], n);
    char *data = kc_bytes(bytes + (size_t)pad);
    w->data = data;
    if (s <= W_F8) {
        float *f = malloc((size_t)n * sizeof *f);
        for (int64_t i = 0; i < n; i++) f[i] = plain_value(p->whole);
        if (s == W_F8) {
            for (int64_t i = 0; i < n; i++) data[i] = (char)(0x30 + kc_between(0, 15) + (kc_coin() ? 0x80 : 0));
            p->whole = false;
        } else ay_convert_from_f32(t[s], f, n, data);
        free(f);
        return;
    }
    for (size_t i = 0; i < bytes; i++) data[i] = (char)kc_between(-128, 127);
    if (s >= W_LUT4) {
        int64_t size = (int64_t)1 << ay_dtype_bits(t[s]), groups = g->n % 3 == 0 ? 3 : 1;
        float *lut = kc_floats(size * groups);
        for (int64_t i = 0; i < size * groups; i++) lut[i] = plain_value(p->whole);
        *w = (ay_weight){.store = AY_STORE_LUT,
                         .rank = 2,
                         .dim = {g->n, g->k},
                         .value_dtype = AY_F32,
                         .data_dtype = t[s],
                         .data = data,
                         .lut_dtype = AY_F32,
                         .lut_dim = {groups, 1, size, 1},
                         .lut = lut};
        return;
    }
    w->store = AY_STORE_BLOCK;
    w->scale_dtype = AY_F32;
    w->scale_dim[0] = kc_coin() ? g->n : 1;
    w->scale_dim[1] = g->k % 64 == 0 ? g->k / 32 : g->k % 4 == 0 ? g->k / 4 : g->k % 5 == 0 ? 5 : 1;
    int64_t scales = w->scale_dim[0] * w->scale_dim[1];
    float *sc = kc_floats(scales);
    for (int64_t i = 0; i < scales; i++) sc[i] = p->whole ? (float)kc_between(1, 2) : kc_real();
    w->scale = sc;
    w->offset_dtype = AY_NONE;
    if (kc_coin()) {
        w->offset_dtype = t[s];
        unsigned char *of = kc_bytes(ay_dtype_bytes(t[s], scales));
        for (size_t i = 0; i < ay_dtype_bytes(t[s], scales); i++) of[i] = (unsigned char)kc_between(0, 255);
        w->offset = of;
    }
}

static void reference(problem *p) {
    const ay_gemm *g = &p->g.one;
    float *row = malloc((size_t)ay_max_i64(1, g->k) * sizeof *row);
    for (int64_t at = 0; at < p->g.batch; at++) {
        for (int64_t n = 0; n < g->n; n++) {
            if (g->w) ay_weight_read(g->w, n * g->k, g->k, row);
            for (int64_t k = 0; k < g->k && !g->w; k++)
                row[k] = (g->b + at * p->g.stride_b)[g->b_trans ? n * g->ldb + k : k * g->ldb + n];
            for (int64_t m = 0; m < g->m; m++) {
                double sum = 0, size = 0;
                const float *a = g->a + at * p->g.stride_a + m * g->lda;
                for (int64_t k = 0; k < g->k; k++) {
                    sum += (double)a[k] * (double)row[k];
                    size += fabs((double)a[k] * (double)row[k]);
                }
                sum *= (double)g->alpha;
                size *= fabs((double)g->alpha);
                if (g->bias) sum += (double)g->bias[n], size += fabs((double)g->bias[n]);
                sum = kc_act(g->act, sum);
                double gate = g->gate ? (double)g->gate[n] : 1, v = gate * sum,
                       bound = KC_EPS * ((double)g->k + 12) * size * 1.2 * fabs(gate);
                if (g->act != AY_ACT_NONE) bound += KC_EPS * 12 * fabs(v) + KC_EPS * 4 * fabs(gate) * (1 + size);
                if (g->residual) v += (double)g->residual[m * g->ldr + n];
                int64_t to = at * p->g.stride_c + m * g->ldc + n;
                p->want[to] = v;
                p->bound[to] = bound + KC_EPS * 2 * fabs(v);
                if (p->whole && g->act == AY_ACT_NONE) p->bound[to] = 0;
            }
        }
    }
    free(row);
}

static void run_all(problem *p, const char *what) {
    ay_isa levels[AY_ISA_COUNT];
    int n = kc_levels(levels);
    ay_gemm *g = &p->g.one;
    float *first = malloc((size_t)p->c_count * sizeof *first);
    for (int i = 0; i < n; i++) {
        for (int t = 1; t <= KC_THREADS; t++) {
            size_t bytes = ay_gemm_batch_scratch(levels[i], t, &p->g);
            int mark = kc.n;
            g->c = kc_floats(p->c_count);
            for (int64_t e = 0; e < p->c_count; e++) g->c[e] = 1234.5f;
            ay_exec ex = {kc.pool[t], levels[i], NULL, kc_scratch(bytes), bytes};
            if (p->g.batch == 1 && kc_coin()) ay_gemm_run(&ex, g);
            else ay_gemm_batch_run(&ex, &p->g);
            for (int64_t e = 0; e < p->c_count && t == 1; e++) {
                if (p->bound[e] < 0) kc_near(what, levels[i], e, 1234.5, g->c[e], 0); /* between rows: untouched */
                else kc_near(what, levels[i], e, p->want[e], g->c[e], p->bound[e]);
            }
            if (t == 1) memcpy(first, g->c, (size_t)p->c_count * sizeof *first);
            else kc_same(what, levels[i], t, first, g->c, p->c_count);
            int end = kc.n;
            kc_done();
            kc.n = mark;
            assert_true(end > mark);
        }
    }
    free(first);
}

static void problem_run(int64_t m, int64_t n, int64_t k, storage s, int64_t batch) {
    if (kc_left_out()) return;
    problem p = {.whole = kc_coin()};
    ay_gemm *g = &p.g.one;
    *g = (ay_gemm){.m = m,
                   .n = n,
                   .k = k,
                   .alpha = 1,
                   .lda = k + kc_between(0, 5),
                   .ldc = n + kc_between(0, 5),
                   .ldr = n + kc_between(0, 3)};
    p.g.batch = batch;
    p.g.stride_a = batch > 1 && kc_coin() ? 0 : m * g->lda + 3;
    p.g.stride_c = m * g->ldc + 2;
    g->a = kc_matrix((p.g.stride_a ? batch : 1) * m + (batch > 1 ? batch : 0), k, g->lda, p.whole);
    if (s <= F32_NK) {
        g->b_trans = s == F32_NK;
        g->ldb = (g->b_trans ? k : n) + kc_between(0, 5);
        p.g.stride_b = batch > 1 && kc_coin() ? 0 : (g->b_trans ? n : k) * g->ldb;
        g->b = kc_matrix((p.g.stride_b ? batch : 1) * (g->b_trans ? n : k), g->b_trans ? k : n, g->ldb, p.whole);
    } else {
        make_weight(&p, s);
        g->w = &p.w;
    }
    if (batch > 1) p.g.stride_a = p.g.stride_a ? m * g->lda : 0;
    if (kc_coin()) g->alpha = p.whole ? 2 : 0.37f;
    if (kc_coin()) g->bias = kc_matrix(1, n, n, p.whole);
    if (kc_coin()) g->gate = kc_matrix(1, n, n, p.whole);
    if (batch == 1 && kc_coin()) g->residual = kc_matrix(m, n, g->ldr, p.whole);
    if (kc_coin()) g->act = (ay_act)kc_between(0, AY_ACT_TANH);
    p.c_count = (batch - 1) * p.g.stride_c + (m - 1) * g->ldc + n;
    p.want = calloc((size_t)p.c_count, sizeof *p.want);
    p.bound = calloc((size_t)p.c_count, sizeof *p.bound);
    for (int64_t i = 0; i < p.c_count; i++) p.bound[i] = -1;
    reference(&p);
    char what[160];
    snprintf(what, sizeof what, "gemm m=%lld n=%lld k=%lld storage=%d batch=%lld act=%d whole=%d", (long long)m,
             (long long)n, (long long)k, (int)s, (long long)batch, (int)g->act, p.whole);
    run_all(&p, what);
    kc_done();
    free(p.want);
    free(p.bound);
}

static void test_sizes(void **state) {
    for (int64_t s = 1; s <= 70; s++) {
        problem_run(s, kc_between(1, 70), kc_between(1, 70), (storage)kc_between(0, STORAGES - 1), 1);
        problem_run(kc_between(1, 70), s, kc_between(1, 70), (storage)kc_between(0, STORAGES - 1), 1);
        problem_run(kc_between(1, 70), kc_between(1, 70), s, (storage)kc_between(0, STORAGES - 1), 1);
        problem_run(kc_between(1, 16), kc_between(1, 70), s, (storage)kc_between(F32_NK, STORAGES - 1), 1);
    }
}

static void test_storages_and_passes(void **state) {
    for (int s = 0; s < STORAGES; s++) {
        problem_run(37, 65, 1100, (storage)s, 1); /* three passes over k */
        problem_run(3, 70, 800, (storage)s, 1);
        for (int m = 1; m <= 5; m++) problem_run(m, 37, 192 * m, (storage)s, 1);
        problem_run(250, 210, 64, (storage)s, 1); /* several tiles */
    }
    problem_run(20, 33, 0, F32_KN, 1);
    problem_run(2, 33, 0, F32_NK, 1);
    problem_run(700, 900, 40, W_F16, 1);
}

static void test_batches(void **state) {
    for (int i = 0; i < 40; i++)
        problem_run(kc_between(1, 40), kc_between(1, 40), kc_between(1, 40), (storage)kc_between(0, W_F16),
                    kc_between(2, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_micro_kernels),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_storages_and_passes),
        cmocka_unit_test(test_batches),
    };
    kc_start(1);
    int failed = cmocka_run_group_tests_name("kcheck gemm", tests, NULL, NULL);
    kc_end();
    return failed;
}
