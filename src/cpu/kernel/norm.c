/* SPDX-License-Identifier: MIT
 *
 * Normalisation over rows and over groups of channels, and softmax: one row is one unit of work, so that the order of
 * additions never depends on the number of threads.
 */
#include "cpu/kernel/act.h"

#include <math.h>

enum { TILE = 16384 }; /* numbers in one tile of work: below this, waking a thread costs more than it saves */

typedef struct job {
    const void *args;
    int64_t rows, d, per_tile;
    const float *x;
    float *y;
} job;

static void norm_row(const ay_norm *n, int64_t row) {
    const float *x = n->x + row * n->d;
    float *y = n->y + row * n->d;
    int64_t mod = n->rows_per_mod > 0 ? row / n->rows_per_mod * n->mod_stride : 0;
    double mean = 0, var = 0;
    if (!n->rms) {
        for (int64_t i = 0; i < n->d; i++) mean += x[i];
        mean /= (double)n->d;
    }
    for (int64_t i = 0; i < n->d; i++) var += (x[i] - mean) * (x[i] - mean);
    float m = (float)mean, r = (float)(1.0 / sqrt(var / (double)n->d + n->eps));
    for (int64_t i = 0; i < n->d; i++) {
        float v = (x[i] - m) * r;
        if (n->w) v *= n->w[i];
        if (n->b) v += n->b[i];
        if (n->scale) v *= n->scale[mod + i] + (n->mod_plus_one ? 1.0f : 0.0f);
        if (n->shift) v += n->shift[mod + i];
        y[i] = v;
    }
}

static void norm_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    int64_t end = ay_min_i64(j->rows, (tile + 1) * j->per_tile);
    for (int64_t row = tile * j->per_tile; row < end; row++) norm_row(j->args, row);
}

void ay_norm_run(const ay_exec *ex, const ay_norm *n) {
    job j = {n, n->rows, n->d, ay_max_i64(1, TILE / ay_max_i64(1, n->d)), n->x, n->y};
    ay_parallel(ex->pool, ay_div_up(n->rows, j.per_tile), norm_tile, &j, ex->stop);
}

static void group_tile(void *arg, int64_t tile, int thread) {
    const ay_group_norm_args *a = arg;
    int64_t cg = a->c / a->groups, first = tile % a->groups * cg, size = cg * a->s;
    const float *x = a->x + tile * size;
    float *y = a->y + tile * size;
    double mean = 0, var = 0;
    for (int64_t i = 0; i < size; i++) mean += x[i];
    mean /= (double)size;
    for (int64_t i = 0; i < size; i++) var += (x[i] - mean) * (x[i] - mean);
    double r = 1.0 / sqrt(var / (double)size + a->eps);
    for (int64_t c = 0; c < cg; c++) {
        float w = (float)(a->w ? a->w[first + c] * r : r), b = (float)((a->b ? a->b[first + c] : 0.0) - mean * w);
        for (int64_t i = 0; i < a->s; i++) y[c * a->s + i] = ay_act1(a->act, x[c * a->s + i] * w + b);
    }
}

void ay_group_norm_run(const ay_exec *ex, const ay_group_norm_args *a) {
    ay_group_norm_args copy = *a;
    ay_parallel(ex->pool, a->n * a->groups, group_tile, &copy, ex->stop);
}

static void softmax_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    int64_t end = ay_min_i64(j->rows, (tile + 1) * j->per_tile);
    for (int64_t row = tile * j->per_tile; row < end; row++) {
        const float *x = j->x + row * j->d;
        float *y = j->y + row * j->d, top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < j->d; i++) top = x[i] > top ? x[i] : top;
        for (int64_t i = 0; i < j->d; i++) sum += y[i] = expf(x[i] - top);
        for (int64_t i = 0; i < j->d; i++) y[i] /= sum;
    }
}

void ay_softmax_run(const ay_exec *ex, int64_t rows, int64_t d, const float *x, float *y) {
    job j = {NULL, rows, d, ay_max_i64(1, TILE / ay_max_i64(1, d)), x, y};
    ay_parallel(ex->pool, ay_div_up(rows, j.per_tile), softmax_tile, &j, ex->stop);
}
