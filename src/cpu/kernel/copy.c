/* SPDX-License-Identifier: MIT
 *
 * Strided copies: permute, slice, expand, reverse, the parts of a concatenation. Contiguous rows are memcpy; where the
 * contiguous dimension of the source is not that of the target, small squares are turned, so that each cache line is fetched
 * once. A tile of those is a few whole rows of the target: two threads that wrote neighbouring pieces of one row would fetch
 * each other's lines ahead.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/walk.h"

#include <stdlib.h>
#include <string.h>

enum {
    TILE = 65536, /* bytes in one tile of work */
    SQUARE = 32,  /* side of the squares that are turned at once: one or two cache lines; rows of the target in a tile */
    SPREAD = 64,  /* tiles wanted: where there are fewer rows, they are cut */
    CUT = 512,    /* numbers in a piece of a row at least */
};

typedef struct job {
    const ay_copy_args *a;
    const ay_pack_row *pack;
    ay_walk w; /* operand 0: x, 1: y; last dimension: the target's shortest stride */
    int cross; /* the dimension in which x is contiguous, when that is not the last and turning pays; else -1 */
    int64_t rows, rows_per_tile, cols_per_tile, col_tiles;
    int64_t bands; /* crossing: runs of SQUARE places of that dimension; tiles are bands, then col_tiles */
} job;

#define STEPPED(bits)                                                                                                       \
    static void stepped##bits(int64_t n, const void *from, int64_t xs, void *to, int64_t ys) {                              \
        const uint##bits##_t *x = from;                                                                                     \
        uint##bits##_t *y = to;                                                                                             \
        for (int64_t i = 0; i < n; i++) y[i * ys] = x[i * xs];                                                              \
    }
STEPPED(8)
STEPPED(16)
STEPPED(32)
STEPPED(64)

static void row_copy(int size, int64_t n, const void *x, int64_t xs, void *y, int64_t ys) {
    if (xs == 1 && ys == 1) memcpy(y, x, (size_t)n * (size_t)size);
    else if (size == 1) stepped8(n, x, xs, y, ys);
    else if (size == 2) stepped16(n, x, xs, y, ys);
    else if (size == 4) stepped32(n, x, xs, y, ys);
    else stepped64(n, x, xs, y, ys);
}

static void copy_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_walk *w = &j->w;
    int last = w->rank - 1, size = j->a->size;
    int64_t col0 = tile % j->col_tiles * j->cols_per_tile, col1 = ay_min_i64(w->dim[last], col0 + j->cols_per_tile);
    int64_t row0 = tile / j->col_tiles * j->rows_per_tile, row1 = ay_min_i64(j->rows, row0 + j->rows_per_tile);
    for (int64_t row = row0; row < row1; row++) {
        int64_t at[AY_WALK_OPERANDS];
        ay_walk_at(w, row, at);
        const char *x = (const char *)j->a->x + (at[0] + col0 * w->s[0][last]) * size;
        char *y = (char *)j->a->y + (at[1] + col0 * w->s[1][last]) * size;
        row_copy(size, col1 - col0, x, w->s[0][last], y, w->s[1][last]);
    }
}

#define TURNED(bits)                                                                                                        \
    /* y [m][SQUARE] = x [n][m], rows of x xs apart */                                                                      \
    static void turned##bits(int64_t m, int64_t n, const void *from, int64_t xs, void *to) {                                \
        const uint##bits##_t *x = from;                                                                                     \
        uint##bits##_t *y = to;                                                                                             \
        for (int64_t j = 0; j < n; j++) {                                                                                   \
            for (int64_t i = 0; i < m; i++) y[i * SQUARE + j] = x[j * xs + i];                                              \
        }                                                                                                                   \
    }
TURNED(8)
TURNED(16)
TURNED(64)

/** One square, by way of a small one: rows that lie a power of two apart would share a few places of the cache. */
static void turn_square(const job *j, int64_t m, int64_t n, const void *x, int64_t xs, char *y, int64_t ys) {
    _Alignas(64) uint64_t room[SQUARE * SQUARE];
    int size = j->a->size;
    if (size == 1) turned8(m, n, x, xs, room);
    else if (size == 2) turned16(m, n, x, xs, room);
    else turned64(m, n, x, xs, room);
    for (int64_t i = 0; i < m; i++) memcpy(y + i * ys * size, (const char *)room + i * SQUARE * size, (size_t)(n * size));
}

/** The plane of dimensions `cross` and last: SQUARE rows of the target, or pieces of them. */
static void cross_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    ay_walk w = j->w;
    int last = w.rank - 1, size = j->a->size;
    int64_t m0 = tile % j->bands * SQUARE, m = ay_min_i64(SQUARE, w.dim[j->cross] - m0), at[AY_WALK_OPERANDS];
    int64_t n0 = tile / j->bands % j->col_tiles * j->cols_per_tile, n = ay_min_i64(j->cols_per_tile, w.dim[last] - n0);
    int64_t xs = w.s[0][last], ys = w.s[1][j->cross];
    w.dim[j->cross] = 1;
    ay_walk_at(&w, tile / j->bands / j->col_tiles, at);
    const char *x = (const char *)j->a->x + (at[0] + m0 + n0 * xs) * size;
    char *y = (char *)j->a->y + (at[1] + m0 * ys + n0) * size;
    if (size == 4) {
        j->pack->transpose(m, n, (const void *)x, xs, (void *)y, ys);
        return;
    }
    for (int64_t i = 0; i < n; i += SQUARE) turn_square(j, m, ay_min_i64(SQUARE, n - i), x + i * xs * size, xs, y + i * size, ys);
}

static int crossing(const ay_walk *w) {
    int last = w->rank - 1;
    if (w->s[1][last] != 1 || w->s[0][last] == 1 || w->dim[last] < 4) return -1;
    for (int i = 0; i < last; i++) {
        if (w->s[0][i] == 1 && w->dim[i] >= 4) return i;
    }
    return -1;
}

/** Dimensions in falling order of the target's stride, so that writing runs forward. Stable, and few: insertion sort. */
static void order(const ay_copy_args *a, int64_t *dim, int64_t *xs, int64_t *ys) {
    for (int i = 0; i < a->rank; i++) {
        int at = i;
        for (; at > 0 && llabs(ys[at - 1]) < llabs(a->ys[i]); at--) {
            dim[at] = dim[at - 1];
            xs[at] = xs[at - 1];
            ys[at] = ys[at - 1];
        }
        dim[at] = a->dim[i];
        xs[at] = a->xs[i];
        ys[at] = a->ys[i];
    }
}

void ay_copy_run(const ay_exec *ex, const ay_copy_args *a) {
    int64_t dim[AY_MAX_RANK], xs[AY_MAX_RANK], ys[AY_MAX_RANK];
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] <= 0) return;
    }
    order(a, dim, xs, ys);
    job j = {.a = a, .pack = ay_pack_pick(ex->isa), .w = ay_walk_make(a->rank, dim, xs, ys, NULL, false)};
    int64_t width = j.w.dim[j.w.rank - 1], per = TILE / a->size;
    j.rows = ay_walk_rows(&j.w);
    j.cols_per_tile = ay_min_i64(width, per);
    j.col_tiles = ay_div_up(width, j.cols_per_tile);
    j.rows_per_tile = ay_max_i64(1, per / width);
    j.cross = crossing(&j.w);
    if (j.cross >= 0) {
        int64_t planes = j.rows / j.w.dim[j.cross];
        j.bands = ay_div_up(j.w.dim[j.cross], SQUARE);
        j.col_tiles = ay_max_i64(1, ay_min_i64(width / CUT, ay_div_up(SPREAD, planes * j.bands)));
        j.cols_per_tile = ay_div_up(ay_div_up(width, j.col_tiles), SQUARE) * SQUARE;
        j.col_tiles = ay_div_up(width, j.cols_per_tile);
        ay_parallel(ex->pool, planes * j.bands * j.col_tiles, cross_tile, &j, ex->stop);
        return;
    }
    ay_parallel(ex->pool, ay_div_up(j.rows, j.rows_per_tile) * j.col_tiles, copy_tile, &j, ex->stop);
}
