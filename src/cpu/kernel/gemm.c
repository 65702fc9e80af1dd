/* SPDX-License-Identifier: MIT
 *
 * Matrix products: plain form, one weight row at a time.
 */
#include "cpu/kernel/act.h"

#include <string.h>

typedef struct job {
    const ay_gemm_batch *g;
    float *rows;
} job;

size_t ay_gemm_scratch(ay_isa isa, int threads, const ay_gemm *g) { return (size_t)threads * (size_t)g->k * sizeof(float) + 64; }
size_t ay_gemm_batch_scratch(ay_isa isa, int threads, const ay_gemm_batch *g) { return ay_gemm_scratch(isa, threads, &g->one); }

static void column(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_gemm *g = &j->g->one;
    int64_t at = tile / g->n, n = tile % g->n;
    float *row = j->rows + thread * g->k;
    if (g->w) ay_weight_read(g->w, n * g->k, g->k, row);
    else {
        const float *b = g->b + at * j->g->stride_b;
        for (int64_t k = 0; k < g->k; k++) row[k] = g->b_trans ? b[n * g->ldb + k] : b[k * g->ldb + n];
    }
    for (int64_t m = 0; m < g->m; m++) {
        const float *a = g->a + at * j->g->stride_a + m * g->lda;
        float sum = 0;
        for (int64_t k = 0; k < g->k; k++) sum += a[k] * row[k];
        sum *= g->alpha;
        if (g->bias) sum += g->bias[n];
        sum = ay_act1(g->act, sum);
        if (g->gate) sum *= g->gate[n];
        if (g->residual) sum += g->residual[m * g->ldr + n];
        g->c[at * j->g->stride_c + m * g->ldc + n] = sum;
    }
}

void ay_gemm_batch_run(const ay_exec *ex, const ay_gemm_batch *g) {
    job j = {g, ex->scratch};
    ay_parallel(ex->pool, g->batch * g->one.n, column, &j, ex->stop);
}

void ay_gemm_run(const ay_exec *ex, const ay_gemm *g) {
    ay_gemm_batch b = {*g, 1, 0, 0, 0};
    ay_gemm_batch_run(ex, &b);
}
