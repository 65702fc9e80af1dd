/* SPDX-License-Identifier: MIT
 *
 * Elementwise operations with numpy broadcasting, the gated product and the rounding to half. Rows are cut into pieces
 * that fit the first cache; operands that are not contiguous are gathered into a small buffer first, so that the kernels
 * (elt_*.c) know contiguous numbers only.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/walk.h"

enum {
    PIECE = 512,  /* numbers handed to a kernel at once */
    TILE = 16384, /* numbers in one tile of work */
    LINE = 16,    /* numbers in a cache line */
};

typedef struct job {
    const ay_elt_args *a;
    ay_walk w;
    ay_elt_fn fn;
    int64_t rows, rows_per_tile, cols_per_tile, col_tiles;
} job;

/** n numbers at p with a step: p itself when contiguous, else a copy in `room`. */
static const float *gathered(const float *p, int64_t step, int64_t n, float *room) {
    if (!p || step == 1) return p;
    for (int64_t i = 0; i < n; i++) room[i] = p[i * step];
    return room;
}

static void elt_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_walk *w = &j->w;
    float xr[PIECE], yr[PIECE];
    int64_t last = w->rank - 1, width = w->dim[last], col0 = tile % j->col_tiles * j->cols_per_tile;
    int64_t col1 = ay_min_i64(width, col0 + j->cols_per_tile), row0 = tile / j->col_tiles * j->rows_per_tile;
    int64_t row1 = ay_min_i64(j->rows, row0 + j->rows_per_tile), xstep = w->s[0][last], ystep = w->s[1][last];
    for (int64_t row = row0; row < row1; row++) {
        int64_t at[AY_WALK_OPERANDS];
        ay_walk_at(w, row, at);
        const float *x = j->a->x + at[0], *y = j->a->y ? j->a->y + at[1] : NULL;
        float *out = j->a->out + row * width;
        for (int64_t c = col0; c < col1; c += PIECE) {
            int64_t n = ay_min_i64(PIECE, col1 - c);
            const float *px = gathered(x + c * xstep, xstep, n, xr);
            const float *py = y ? gathered(y + c * ystep, ystep, n, yr) : px;
            j->fn(n, px, py, out + c);
        }
    }
}

void ay_elt_run(const ay_exec *ex, const ay_elt_args *a) {
    int64_t dense[AY_MAX_RANK], n = 1;
    for (int i = a->rank - 1; i >= 0; i--) {
        dense[i] = n;
        n *= a->dim[i];
    }
    if (n <= 0) return;
    job j = {.a = a,
             .w = ay_walk_make(a->rank, a->dim, a->xs, a->y ? a->ys : NULL, dense, false),
             .fn = ay_elt_pick(ex->isa)->fn[a->op]};
    int64_t width = j.w.dim[j.w.rank - 1];
    j.rows = ay_walk_rows(&j.w);
    j.cols_per_tile = ay_min_i64(width, TILE);
    j.col_tiles = ay_div_up(width, j.cols_per_tile);
    j.rows_per_tile = ay_max_i64(1, TILE / width);
    ay_parallel(ex->pool, ay_div_up(j.rows, j.rows_per_tile) * j.col_tiles, elt_tile, &j, ex->stop);
}

/* ---- gated product, rounding to half ------------------------------------------------------------------------------ */

typedef struct flat {
    const ay_elt_row *row;
    ay_act act;
    int64_t n, rows, ldx, ldy, per_tile; /* rows: of the gated product */
    const float *x, *y;
    float *out;
    _Atomic int64_t overflows;
} flat;

static void gated_tile(void *arg, int64_t tile, int thread) {
    const flat *f = arg;
    int64_t at = tile * TILE, n = ay_min_i64(TILE, f->n - at);
    f->row->gated(f->act, n, f->x + at, f->y + at, f->out + at);
}

void ay_gated_run(const ay_exec *ex, ay_act act, int64_t n, const float *x, const float *y, float *out) {
    flat f = {.row = ay_elt_pick(ex->isa), .act = act, .n = n, .x = x, .y = y, .out = out};
    ay_parallel(ex->pool, ay_div_up(n, TILE), gated_tile, &f, ex->stop);
}

/** Numbers of the next row, which the processor does not guess where rows are short pieces of longer ones. */
AY_INLINE void fetch(int64_t n, const float *p) {
    for (int64_t i = 0; i < n; i += LINE) __builtin_prefetch(p + i);
}

static void gated_rows_tile(void *arg, int64_t tile, int thread) {
    const flat *f = arg;
    int64_t end = ay_min_i64(f->rows, (tile + 1) * f->per_tile);
    for (int64_t r = tile * f->per_tile; r < end; r++) {
        const float *x = f->x + r * f->ldx, *y = f->y + r * f->ldy;
        for (int64_t c = 0; c < f->n; c += PIECE) {
            int64_t n = ay_min_i64(PIECE, f->n - c);
            if (r + 1 < end) fetch(n, x + f->ldx + c), fetch(n, y + f->ldy + c);
            f->row->gated(f->act, n, x + c, y + c, f->out + r * f->n + c);
        }
    }
}

void ay_gated_rows_run(const ay_exec *ex, ay_act act, int64_t rows, int64_t n, const float *x, int64_t ldx, const float *y,
                       int64_t ldy, float *out) {
    if (rows <= 0 || n <= 0) return;
    flat f = {.row = ay_elt_pick(ex->isa), .act = act, .n = n, .rows = rows, .ldx = ldx, .ldy = ldy, .x = x, .y = y, .out = out};
    f.per_tile = ay_max_i64(1, TILE / n);
    ay_parallel(ex->pool, ay_div_up(rows, f.per_tile), gated_rows_tile, &f, ex->stop);
}

static void round_tile(void *arg, int64_t tile, int thread) {
    flat *f = arg;
    int64_t at = tile * TILE, n = ay_min_i64(TILE, f->n - at);
    int64_t over = f->row->round_f16(n, f->out + at);
    if (over) atomic_fetch_add_explicit(&f->overflows, over, memory_order_relaxed);
}

void ay_round_f16_run(const ay_exec *ex, int64_t n, float *x, int64_t *overflows) {
    flat f = {.row = ay_elt_pick(ex->isa), .n = n, .out = x};
    ay_parallel(ex->pool, ay_div_up(n, TILE), round_tile, &f, ex->stop);
    if (overflows) *overflows += atomic_load(&f.overflows);
}
