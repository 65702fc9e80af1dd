/* SPDX-License-Identifier: MIT
 *
 * Normalisation over rows and over groups of channels, and softmax: one row, or one group, is the smallest unit of work, so
 * that the order of additions never depends on the number of threads.
 */
#include "cpu/kernel/rows.h"

#include <math.h>

enum { TILE = 16384 }; /* numbers in one tile of work: below this, waking a thread costs more than it saves */

typedef struct job {
    const void *args;
    const ay_norm_row *row;
    int64_t rows, d, per_tile;
    const float *x;
    float *y;
    float *scale, *shift; /* group norm: of each channel, instead of y */
} job;

static float inverse(double squares, int64_t n, double eps) { return (float)(1.0 / sqrt(squares / (double)n + eps)); }

static void norm_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_norm *n = j->args;
    int64_t end = ay_min_i64(j->rows, (tile + 1) * j->per_tile);
    for (int64_t row = tile * j->per_tile; row < end; row++) {
        int64_t mod = n->rows_per_mod > 0 ? row / n->rows_per_mod * n->mod_stride : 0;
        const float *x = n->x + row * n->d;
        double mean, squares;
        j->row->moments(n->rms, n->d, x, &mean, &squares);
        ay_affine a = {.mean = (float)mean,
                       .by = inverse(squares, n->d, n->eps),
                       .w = n->w,
                       .b = n->b,
                       .one = n->mod_plus_one ? 1.0f : 0.0f};
        if (n->scale) a.scale = n->scale + mod;
        if (n->shift) a.shift = n->shift + mod;
        if (row + 1 < end) a.next = x + n->d;
        j->row->affine(&a, n->d, x, n->y + row * n->d);
    }
}

void ay_norm_run(const ay_exec *ex, const ay_norm *n) {
    if (n->d <= 0) return;
    job j = {.args = n, .row = ay_norm_pick(ex->isa), .rows = n->rows, .d = n->d, .per_tile = ay_max_i64(1, TILE / n->d)};
    ay_parallel(ex->pool, ay_div_up(n->rows, j.per_tile), norm_tile, &j, ex->stop);
}

static void group_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_group_norm_args *a = j->args;
    int64_t cg = a->c / a->groups, first = tile % a->groups * cg, size = cg * a->s;
    const float *x = a->x + tile * size;
    double mean, squares;
    j->row->moments(false, size, x, &mean, &squares);
    double by = 1.0 / sqrt(squares / (double)size + a->eps);
    for (int64_t c = 0; c < cg; c++) {
        double w = (a->w ? (double)a->w[first + c] : 1.0) * by, b = (a->b ? (double)a->b[first + c] : 0.0) - mean * w;
        if (j->scale) {
            j->scale[tile * cg + c] = (float)w;
            j->shift[tile * cg + c] = (float)b;
            continue;
        }
        j->row->scaled(a->act, a->s, x + c * a->s, (float)w, (float)b, a->y + tile * size + c * a->s);
    }
}

void ay_group_norm_run(const ay_exec *ex, const ay_group_norm_args *a) {
    if (a->groups <= 0 || a->c <= 0 || a->s <= 0) return;
    job j = {.args = a, .row = ay_norm_pick(ex->isa)};
    ay_parallel(ex->pool, a->n * a->groups, group_tile, &j, ex->stop);
}

void ay_group_moments_run(const ay_exec *ex, const ay_group_norm_args *a, float *scale, float *shift) {
    if (a->groups <= 0 || a->c <= 0 || a->s <= 0) return;
    job j = {.args = a, .row = ay_norm_pick(ex->isa), .scale = scale, .shift = shift};
    ay_parallel(ex->pool, a->n * a->groups, group_tile, &j, ex->stop);
}

static void softmax_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    int64_t end = ay_min_i64(j->rows, (tile + 1) * j->per_tile);
    for (int64_t row = tile * j->per_tile; row < end; row++) j->row->softmax(j->d, j->x + row * j->d, j->y + row * j->d);
}

void ay_softmax_run(const ay_exec *ex, int64_t rows, int64_t d, const float *x, float *y) {
    if (d <= 0) return;
    job j = {.row = ay_norm_pick(ex->isa), .rows = rows, .d = d, .per_tile = ay_max_i64(1, TILE / d), .x = x, .y = y};
    ay_parallel(ex->pool, ay_div_up(rows, j.per_tile), softmax_tile, &j, ex->stop);
}
