/* SPDX-License-Identifier: MIT
 *
 * Fused attention: plain form, one query at a time.
 */
#include "cpu/kernel/kernel.h"

#include <math.h>

typedef struct job {
    const ay_attn *a;
    float *scores;
} job;

size_t ay_attn_scratch(ay_isa isa, int threads, const ay_attn *a) { return (size_t)threads * (size_t)a->lk * sizeof(float) + 64; }

static void query(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_attn *a = j->a;
    int64_t row = tile % a->lq, h = tile / a->lq % a->heads, b = tile / a->lq / a->heads;
    const float *q = a->q + b * a->qs[0] + h * a->qs[1] + row * a->qs[2];
    float *s = j->scores + thread * a->lk, *o = a->o + b * a->os[0] + h * a->os[1] + row * a->os[2], top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < a->lk; i++) {
        const float *k = a->k + b * a->ks[0] + h * a->ks[1] + i * a->ks[2];
        float dot = 0;
        for (int64_t c = 0; c < a->d; c++) dot += q[c] * k[c];
        s[i] = dot * a->scale;
        if (a->mask) s[i] += a->mask[b * a->ms[0] + h * a->ms[1] + row * a->ms[2] + i * a->ms[3]];
        if (s[i] > top) top = s[i];
    }
    for (int64_t c = 0; c < a->dv; c++) o[c] = 0;
    if (top == -INFINITY && a->lk > 0 && s[0] == s[0]) return; /* everything masked: zeros */
    for (int64_t i = 0; i < a->lk; i++) sum += s[i] = expf(s[i] - top);
    for (int64_t i = 0; i < a->lk; i++) {
        const float *v = a->v + b * a->vs[0] + h * a->vs[1] + i * a->vs[2];
        float p = s[i] / sum;
        for (int64_t c = 0; c < a->dv; c++) o[c] += p * v[c];
    }
}

void ay_attn_run(const ay_exec *ex, const ay_attn *a) {
    job j = {a, ex->scratch};
    ay_parallel(ex->pool, a->batch * a->heads * a->lq, query, &j, ex->stop);
}
