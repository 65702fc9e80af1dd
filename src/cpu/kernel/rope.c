/* SPDX-License-Identifier: MIT
 *
 * Rotary position embedding: out = x * cos + rotated(x) * sin over the last dimension, where rotated pairs neighbours
 * (interleaved: FLUX) or the two halves (language models).
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/walk.h"

enum { TILE = 16384 };

typedef struct job {
    const ay_rope_args *a;
    const ay_norm_row *row;
    ay_walk w;
    int64_t rows, per_tile;
} job;

/* Any strides; the contiguous case, which is the usual one, is the vector kernels'. */
static void interleaved(int64_t d, const float *x, int64_t xs, const float *c, const float *s, int64_t cs, float *out) {
    for (int64_t i = 0; i + 1 < d; i += 2) {
        float a = x[i * xs], b = x[(i + 1) * xs];
        out[i] = a * c[i * cs] - b * s[i * cs];
        out[i + 1] = b * c[(i + 1) * cs] + a * s[(i + 1) * cs];
    }
}

static void halves(int64_t d, const float *x, int64_t xs, const float *c, const float *s, int64_t cs, float *out) {
    int64_t h = d / 2;
    for (int64_t i = 0; i < h; i++) {
        float a = x[i * xs], b = x[(i + h) * xs];
        out[i] = a * c[i * cs] - b * s[i * cs];
        out[i + h] = b * c[(i + h) * cs] + a * s[(i + h) * cs];
    }
}

static void rope_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_rope_args *a = j->a;
    int last = j->w.rank - 1;
    int64_t d = j->w.dim[last], end = ay_min_i64(j->rows, (tile + 1) * j->per_tile);
    bool dense = j->w.s[0][last] == 1 && j->w.s[1][last] == 1;
    for (int64_t row = tile * j->per_tile; row < end; row++) {
        int64_t at[AY_WALK_OPERANDS];
        ay_walk_at(&j->w, row, at);
        const float *x = a->x + at[0], *c = a->cos + at[1], *s = a->sin + at[1];
        float *out = a->out + row * d;
        if (dense) (a->interleaved ? j->row->rope_pairs : j->row->rope_halves)(d, x, c, s, out);
        else (a->interleaved ? interleaved : halves)(d, x, j->w.s[0][last], c, s, j->w.s[1][last], out);
    }
}

void ay_rope_run(const ay_exec *ex, const ay_rope_args *a) {
    job j = {.a = a, .row = ay_norm_pick(ex->isa), .w = ay_walk_make(a->rank, a->dim, a->xs, a->cs, NULL, true)};
    j.rows = ay_walk_rows(&j.w);
    j.per_tile = ay_max_i64(1, TILE / ay_max_i64(1, j.w.dim[j.w.rank - 1]));
    ay_parallel(ex->pool, ay_div_up(j.rows, j.per_tile), rope_tile, &j, ex->stop);
}
