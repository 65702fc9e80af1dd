/* SPDX-License-Identifier: MIT
 *
 * Movement that views cannot say, by place: pad, upsampling.
 */
#include "cpu/plan.h"

#include <string.h>

enum { TILE = 1 << 14 };

/* ---- pad, nearest upsampling: each place of the result along a dim comes from one place of x, or from the constant  */

typedef struct map_args {
    int rank;
    int64_t dim[AY_MAX_RANK], stride[AY_MAX_RANK], rows, rows_per_tile;
    const int32_t *from[AY_MAX_RANK]; /* place in x for each place along the dim; -1: the constant */
    int64_t repeat;                   /* floats side by side along the last dim, each so many times; else 0 */
    ay_kind kind;
    double value;
    ay_ref x, y;
} map_args;

typedef struct map_job {
    const map_args *a;
    const unsigned char *x;
    unsigned char *y;
} map_job;

static void put_constant(const map_args *a, unsigned char *y, int64_t i) {
    if (a->kind == AY_KIND_F32) ((float *)(void *)y)[i] = (float)a->value;
    else if (a->kind == AY_KIND_I32) ((int32_t *)(void *)y)[i] = (int32_t)a->value;
    else y[i] = a->value != 0;
}

/* Each of `count` floats so many times. */
static void repeat_row(int64_t count, int64_t times, const float *x, float *y) {
    if (times == 2) {
        for (int64_t i = 0; i < count; i++) y[2 * i] = y[2 * i + 1] = x[i];
        return;
    }
    for (int64_t i = 0; i < count; i++, y += times) {
        for (int64_t k = 0; k < times; k++) y[k] = x[i];
    }
}

/* A row of the last dim, from x at `off`, or all of it the constant. */
static void map_row(const map_args *a, const unsigned char *x, int64_t off, bool inside, unsigned char *y) {
    int last = a->rank - 1;
    size_t size = ay_kind_size(a->kind);
    if (inside && a->repeat) {
        repeat_row(a->dim[last] / a->repeat, a->repeat, (const float *)(const void *)x + off, (float *)(void *)y);
        return;
    }
    for (int64_t i = 0; i < a->dim[last]; i++) {
        int32_t k = a->from[last][i];
        if (!inside || k < 0) put_constant(a, y, i);
        else if (size == 4) memcpy(y + i * 4, x + (off + k * a->stride[last]) * 4, 4);
        else y[i] = x[off + k * a->stride[last]];
    }
}

/* A row that comes from where the one before came from is a copy of that. */
static void map_tile(void *arg, int64_t tile, int thread) {
    const map_job *j = arg;
    const map_args *a = j->a;
    int last = a->rank - 1;
    int64_t begin = tile * a->rows_per_tile, end = ay_min_i64(a->rows, begin + a->rows_per_tile), was = -1;
    size_t bytes = (size_t)a->dim[last] * ay_kind_size(a->kind);
    for (int64_t row = begin; row < end; row++) {
        int64_t off = 0, rest = row;
        bool inside = true;
        for (int d = last - 1; d >= 0; d--) {
            int32_t k = a->from[d][rest % a->dim[d]];
            rest /= a->dim[d];
            inside = inside && k >= 0;
            off += k * a->stride[d];
        }
        unsigned char *y = j->y + (size_t)row * bytes;
        if (inside && off == was) memcpy(y, y - bytes, bytes);
        else map_row(a, j->x, off, inside, y);
        was = inside ? off : -1;
    }
}

static alloy_status run_map(ay_run *r, const ay_step *s) {
    const map_args *a = s->args;
    map_job j = {a, ay_at(r, a->x), ay_at(r, a->y)};
    ay_parallel(r->ex.pool, ay_div_up(a->rows, a->rows_per_tile), map_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

typedef int64_t (*map_fn)(const ay_node *n, int axis, int64_t at, int64_t dim); /* dim of x */

/* Whether `from` counts every place of x so many times in turn. */
static bool repeats(const int32_t *from, int64_t n, int64_t times) {
    for (int64_t i = 0; i < n; i++)
        if (from[i] != i / times) return false;
    return true;
}

static alloy_status add_map(ay_plan *pl, const ay_fused *f, map_fn fn, double value) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(ay_plan_out(pl, f, &y));
    if (y.rank == 0) return ay_add_copy_step(pl, &x, &y);
    map_args a = {.rank = y.rank, .kind = y.kind, .value = value, .rows = 1};
    memcpy(a.dim, y.dim, sizeof a.dim);
    memcpy(a.stride, x.stride, sizeof a.stride);
    for (int d = 0; d < y.rank; d++) {
        int32_t *from = ay_alloc(pl->arena, (size_t)y.dim[d] * sizeof *from);
        if (!from) return ay_nomem(pl->cx);
        if (x.dim[d] > INT32_MAX) return ay_plan_fail(pl, "%s: a dim of more than 2^31", ay_op_get(n->op)->name);
        for (int64_t i = 0; i < y.dim[d]; i++) from[i] = (int32_t)fn(n, d, i, x.dim[d]);
        a.from[d] = from;
        if (d < y.rank - 1) a.rows *= y.dim[d];
    }
    int last = y.rank - 1;
    int64_t width = y.dim[last], times = x.dim[last] > 0 ? width / x.dim[last] : 0;
    a.rows_per_tile = ay_max_i64(1, TILE / ay_max_i64(1, width));
    if (y.kind == AY_KIND_F32 && x.stride[last] == 1 && times * x.dim[last] == width && repeats(a.from[last], width, times)) a.repeat = times;
    ay_step *s = ay_step_add(pl, run_map, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((map_args *)s->args)->x = ay_step_read(s, &x);
    ((map_args *)s->args)->y = ay_step_write(s, &y);
    s->bytes = (double)(ay_kind_size(y.kind)) * (double)(ay_view_count(&x) + ay_view_count(&y));
    return ALLOY_OK;
}

static int64_t pad_from(const ay_node *n, int axis, int64_t at, int64_t dim) {
    int64_t k = at - n->attr.pad.before[axis];
    if (k >= 0 && k < dim) return k;
    if (n->attr.pad.mode == AY_PAD_CONSTANT) return -1;
    if (n->attr.pad.mode == AY_PAD_REPLICATE) return k < 0 ? 0 : dim - 1;
    return k < 0 ? -k : 2 * (dim - 1) - k; /* reflect: the border itself is not repeated; the padding is less than the dim */
}

alloy_status ay_build_pad(ay_plan *pl, const ay_fused *f) {
    return add_map(pl, f, pad_from, ay_plan_node(pl, f->anchor)->attr.pad.value);
}

static int64_t nearest_from(const ay_node *n, int axis, int64_t at, int64_t dim) {
    int last = n->type.rank - 1;
    return at / (axis == last ? n->attr.upsample.fw : axis == last - 1 ? n->attr.upsample.fh : 1);
}

/* ---- bilinear upsampling ----------------------------------------------------------------------------------------- */

typedef struct tap { int32_t lo, hi; float t; } tap; /* x[lo] * (1 - t) + x[hi] * t */

typedef struct bilinear_args {
    int64_t h, w, oh, ow, rows;
    const tap *ty, *tx;
    ay_ref x, y;
} bilinear_args;

typedef struct bilinear_job {
    const bilinear_args *a;
    const float *x;
    float *y;
} bilinear_job;

static void bilinear_tile(void *arg, int64_t tile, int thread) {
    const bilinear_job *j = arg;
    const bilinear_args *a = j->a;
    tap ty = a->ty[tile % a->oh];
    const float *plane = j->x + tile / a->oh * a->h * a->w, *lo = plane + ty.lo * a->w, *hi = plane + ty.hi * a->w;
    float *y = j->y + tile * a->ow;
    for (int64_t i = 0; i < a->ow; i++) {
        tap tx = a->tx[i];
        float top = lo[tx.lo] * (1 - tx.t) + lo[tx.hi] * tx.t, bottom = hi[tx.lo] * (1 - tx.t) + hi[tx.hi] * tx.t;
        y[i] = top * (1 - ty.t) + bottom * ty.t;
    }
}

static alloy_status run_bilinear(ay_run *r, const ay_step *s) {
    const bilinear_args *a = s->args;
    bilinear_job j = {a, ay_at(r, a->x), ay_at(r, a->y)};
    ay_parallel(r->ex.pool, a->rows, bilinear_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

/* torch's three ways to place the samples: corners on corners, half-pixel centres, or plain at / factor. */
static tap *bilinear_taps(ay_plan *pl, const ay_node *n, int64_t in, int64_t out) {
    tap *t = ay_alloc(pl->arena, (size_t)out * sizeof *t);
    for (int64_t i = 0; t && i < out; i++) {
        double at;
        if (n->attr.upsample.align_corners) at = out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
        else if (n->attr.upsample.half_pixel) at = ((double)i + 0.5) * (double)in / (double)out - 0.5;
        else at = (double)i * (double)in / (double)out;
        if (at < 0) at = 0;
        int64_t lo = ay_min_i64((int64_t)at, in - 1);
        t[i] = (tap){(int32_t)lo, (int32_t)ay_min_i64(lo + 1, in - 1), (float)(at - (double)lo)};
    }
    return t;
}

alloy_status ay_build_upsample(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    if (!n->attr.upsample.bilinear) return add_map(pl, f, nearest_from, 0);
    ay_view x, y;
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    AY_TRY(ay_plan_out(pl, f, &y));
    int last = y.rank - 1;
    bilinear_args a = {.h = x.dim[last - 1], .w = x.dim[last], .oh = y.dim[last - 1], .ow = y.dim[last],
                       .rows = ay_view_count(&y) / y.dim[last]};
    a.ty = bilinear_taps(pl, n, a.h, a.oh);
    a.tx = bilinear_taps(pl, n, a.w, a.ow);
    ay_step *s = a.ty && a.tx ? ay_step_add(pl, run_bilinear, &a, sizeof a) : NULL;
    if (!s) return ay_nomem(pl->cx);
    ((bilinear_args *)s->args)->x = ay_step_read(s, &x);
    ((bilinear_args *)s->args)->y = ay_step_write(s, &y);
    s->bytes = 4.0 * (double)(ay_view_count(&x) + ay_view_count(&y));
    return ALLOY_OK;
}
