/* SPDX-License-Identifier: MIT
 *
 * Matrix products: layers (a weight as it lies in its file), computed operands, batches. Products of a few rows go
 * through dot products that read the weight once; the rest through the blocked product of mm.c.
 */
#include "cpu/kernel/mm.h"

#include <string.h>

enum {
    DOT_ROWS = 16, /* at most this many rows of A go through dot products */
    DOT_COLS = 32, /* columns of C in one tile of those */
};

typedef struct job {
    const ay_gemm_batch *g;
    ay_mm_plan plan;
    const ay_dot_row *dot;
    char *scratch;
    size_t per_thread;
} job;

/** Columns of B lie along k, and there are few rows: nothing is gained by packing. */
static bool by_dots(const ay_gemm *g) { return g->m <= DOT_ROWS && (g->w || g->b_trans); }

static size_t dots_scratch(const ay_gemm *g) {
    return g->w && !ay_weight_is_direct(g->w) ? (size_t)ay_round_up(AY_DOT_N * g->k, 16) * sizeof(float) : 0;
}

size_t ay_gemm_batch_scratch(ay_isa isa, int threads, const ay_gemm_batch *g) {
    if (by_dots(&g->one)) return dots_scratch(&g->one) * (size_t)threads + 64;
    ay_mm_plan p = ay_mm_plan_make(isa, threads, g->batch, g->one.m, g->one.n, g->one.k);
    return ay_mm_plan_scratch(&p) * (size_t)threads + 64;
}

size_t ay_gemm_scratch(ay_isa isa, int threads, const ay_gemm *g) {
    ay_gemm_batch b = {*g, 1, 0, 0, 0};
    return ay_gemm_batch_scratch(isa, threads, &b);
}

static void blocked_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_gemm *g = &j->g->one;
    int64_t tiles = j->plan.tiles_m * j->plan.tiles_n, at = tile / tiles;
    ay_mm mm = {.m = g->m, .n = g->n, .k = g->k, .c = g->c + at * j->g->stride_c, .ldc = g->ldc, .ldr = g->ldr};
    mm.a = (ay_operand){.panel = ay_panel_turned, .row = j->plan.pack, .f = g->a + at * j->g->stride_a, .ld = g->lda};
    if (g->w) mm.b = (ay_operand){.panel = ay_panel_weight, .row = j->plan.pack, .w = g->w, .k = g->k};
    else
        mm.b = (ay_operand){.panel = g->b_trans ? ay_panel_turned : ay_panel_rows,
                            .row = j->plan.pack,
                            .f = g->b + at * j->g->stride_b,
                            .ld = g->ldb};
    mm.finish = (ay_finish){.alpha = g->alpha, .bias = g->bias, .gate = g->gate, .residual = g->residual, .act = g->act};
    ay_mm_tile(&j->plan, &mm, tile % tiles, (float *)(j->scratch + (size_t)thread * j->per_thread));
}

/** The same of a weight stored as codes, which are never written out as numbers; `scale` holds a row's scales. */
static void dots_of_codes(const job *j, const float *a, int64_t n, int count, int64_t run, float *scale, float *sums) {
    const ay_gemm *g = &j->g->one;
    int bits = ay_dtype_bits(g->w->data_dtype);
    for (int i = 0; i < count; i++) {
        const char *row = (const char *)g->w->data + (n + i) * g->k * bits / 8;
        ay_codes_scales(g->w, g->k, n + i, scale);
        for (int64_t m = 0; m < g->m; m += AY_DOT_M) {
            float out[AY_DOT_M * AY_DOT_N];
            int rows = (int)ay_min_i64(AY_DOT_M, g->m - m);
            j->dot->codes(g->w->data_dtype, rows, g->k, a + m * g->lda, g->lda, row, run, scale, out);
            for (int r = 0; r < rows; r++) sums[(m + r) * DOT_COLS + i] = out[r * AY_DOT_N];
        }
    }
}

/** Dot products of all rows of A with columns n .. n + count (at most AY_DOT_N) of B; sums [m][DOT_COLS]. */
static void dots(const job *j, int64_t at, int64_t n, int count, int thread, float *sums) {
    const ay_gemm *g = &j->g->one;
    const float *a = g->a + at * j->g->stride_a;
    const void *w = g->b ? (const void *)(g->b + at * j->g->stride_b + n * g->ldb) : NULL;
    int64_t ldw = g->ldb, run;
    ay_dtype t = AY_F32;
    if (g->w && ay_weight_is_direct(g->w)) {
        w = ay_weight_at(g->w, n * g->k);
        ldw = g->k;
        t = g->w->data_dtype;
    } else if (g->w && ay_codes_run(g->w, g->k, &run)) {
        dots_of_codes(j, a, n, count, run, (float *)(j->scratch + (size_t)thread * j->per_thread), sums);
        return;
    } else if (g->w) {
        float *rows = (float *)(j->scratch + (size_t)thread * j->per_thread);
        for (int i = 0; i < count; i++) ay_unpack_row(j->plan.pack, g->w, g->k, n + i, 0, g->k, rows + i * g->k);
        w = rows;
        ldw = g->k;
    }
    for (int64_t m = 0; m < g->m; m += AY_DOT_M) {
        float out[AY_DOT_M * AY_DOT_N];
        int rows = (int)ay_min_i64(AY_DOT_M, g->m - m);
        j->dot->dot(t, rows, count, g->k, a + m * g->lda, g->lda, w, ldw, out);
        for (int i = 0; i < rows; i++) memcpy(sums + (m + i) * DOT_COLS, out + i * AY_DOT_N, (size_t)count * sizeof(float));
    }
}

static void dots_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_gemm *g = &j->g->one;
    int64_t tiles = ay_div_up(g->n, DOT_COLS), at = tile / tiles, n0 = tile % tiles * DOT_COLS,
            n1 = ay_min_i64(g->n, n0 + DOT_COLS);
    float sums[DOT_ROWS * DOT_COLS];
    for (int64_t n = n0; n < n1; n += AY_DOT_N) dots(j, at, n, (int)ay_min_i64(AY_DOT_N, n1 - n), thread, sums + (n - n0));
    for (int64_t m = 0; m < g->m; m++) {
        ay_finish f = {.alpha = g->alpha,
                       .bias = g->bias ? g->bias + n0 : NULL,
                       .gate = g->gate ? g->gate + n0 : NULL,
                       .residual = g->residual ? g->residual + m * g->ldr + n0 : NULL,
                       .act = g->act};
        float *row = sums + m * DOT_COLS;
        j->plan.pack->finish(&f, n1 - n0, row);
        memcpy(g->c + at * j->g->stride_c + m * g->ldc + n0, row, (size_t)(n1 - n0) * sizeof(float));
    }
}

void ay_gemm_batch_run(const ay_exec *ex, const ay_gemm_batch *g) {
    job j = {.g = g, .scratch = ex->scratch};
    if (g->one.m <= 0 || g->one.n <= 0) return;
    if (by_dots(&g->one)) {
        j.dot = ay_dot_pick(ex->isa);
        j.plan.pack = ay_pack_pick(ex->isa);
        j.per_thread = dots_scratch(&g->one);
        ay_parallel(ex->pool, g->batch * ay_div_up(g->one.n, DOT_COLS), dots_tile, &j, ex->stop);
        return;
    }
    j.plan = ay_mm_plan_make(ex->isa, ay_pool_threads(ex->pool), g->batch, g->one.m, g->one.n, g->one.k);
    j.per_thread = ay_mm_plan_scratch(&j.plan);
    ay_parallel(ex->pool, g->batch * j.plan.tiles_m * j.plan.tiles_n, blocked_tile, &j, ex->stop);
}

void ay_gemm_run(const ay_exec *ex, const ay_gemm *g) {
    ay_gemm_batch b = {*g, 1, 0, 0, 0};
    ay_gemm_batch_run(ex, &b);
}
