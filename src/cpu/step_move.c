/* SPDX-License-Identifier: MIT
 *
 * Movement that views cannot say, by indices: gather (also straight from a mapped weight: embeddings), gather_along. Indices
 * come from a caller and are checked in each run.
 */
#include "cpu/plan.h"

#include <string.h>

enum { TILE = 1 << 14 };

/* ---- gather ------------------------------------------------------------------------------------------------------ */

typedef struct gather_args { /* y[b, o, j, :] = x[b, o, idx[b, j], :] */
    int64_t batch, outer, n, count, inner;
    ay_kind kind;
    bool has_w;
    ay_weight w;
    ay_ref x, idx, y;
} gather_args;

typedef struct gather_job {
    const gather_args *a;
    const unsigned char *x;
    const int32_t *idx;
    unsigned char *y;
    int64_t rows_per_tile;
} gather_job;

static void gather_tile(void *arg, int64_t tile, int thread) {
    const gather_job *j = arg;
    const gather_args *a = j->a;
    size_t bytes = (size_t)a->inner * ay_kind_size(a->kind);
    int64_t end = ay_min_i64(a->batch * a->outer * a->count, (tile + 1) * j->rows_per_tile);
    for (int64_t row = tile * j->rows_per_tile; row < end; row++) {
        int64_t lead = row / a->count, k = j->idx[lead / a->outer * a->count + row % a->count];
        int64_t from = lead * a->n + (k < 0 ? k + a->n : k);
        if (a->has_w) ay_weight_read(&a->w, from * a->inner, a->inner, (float *)(void *)(j->y + (size_t)row * bytes));
        else memcpy(j->y + (size_t)row * bytes, j->x + (size_t)from * bytes, bytes);
    }
}

static alloy_status check_indices(ay_run *r, const ay_step *s, const int32_t *idx, int64_t count, int64_t n) {
    for (int64_t i = 0; i < count; i++)
        if (idx[i] < -n || idx[i] >= n)
            return ay_fail(r->cx, ALLOY_E_USAGE, "%s%s%s: index %d is outside of 0 to %lld: check the ids given as input",
                           s->scope, *s->scope ? ": " : "", s->what, (int)idx[i], (long long)(n - 1));
    return ALLOY_OK;
}

static alloy_status run_gather(ay_run *r, const ay_step *s) {
    const gather_args *a = s->args;
    gather_job j = {a, ay_at(r, a->x), ay_at(r, a->idx), ay_at(r, a->y), ay_max_i64(1, TILE / a->inner)};
    AY_TRY(check_indices(r, s, j.idx, a->batch * a->count, a->n));
    ay_parallel(r->ex.pool, ay_div_up(a->batch * a->outer * a->count, j.rows_per_tile), gather_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

alloy_status ay_build_gather(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    const ay_type *t = ay_type_of(pl->g, n->in[0]);
    int axis = n->attr.gather.axis;
    ay_view x = {.buf = -1}, idx, y;
    gather_args a = {.batch = 1, .outer = 1, .n = t->dim[axis], .inner = 1, .kind = ay_kind_of(t->dtype)};
    for (int i = 0; i < t->rank; i++)
        if (i != axis) *(i < n->attr.gather.batch_dims ? &a.batch : i < axis ? &a.outer : &a.inner) *= t->dim[i];
    a.has_w = ay_plan_weight(pl, n->in[0], &a.w);
    if (!a.has_w) AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    AY_TRY(ay_plan_dense(pl, n->in[1], &idx));
    a.count = ay_view_count(&idx) / a.batch;
    AY_TRY(ay_plan_out(pl, f, &y));
    ay_step *s = ay_step_add(pl, run_gather, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    gather_args *p = (gather_args *)s->args;
    p->x = ay_step_read(s, &x);
    p->idx = ay_step_read(s, &idx);
    p->y = ay_step_write(s, &y);
    if (a.has_w) ay_step_weight(s, &p->w);
    s->bytes = 8.0 * (double)ay_view_count(&y);
    return ALLOY_OK;
}

typedef struct along_args { /* y[o, j, i] = x[o, idx[o, j, i], i] */
    int64_t outer, n, count, inner;
    ay_kind kind;
    ay_ref x, idx, y;
} along_args;

typedef struct along_job {
    const along_args *a;
    const unsigned char *x;
    const int32_t *idx;
    unsigned char *y;
} along_job;

static void along_tile(void *arg, int64_t tile, int thread) {
    const along_job *j = arg;
    const along_args *a = j->a;
    size_t size = ay_kind_size(a->kind);
    int64_t end = ay_min_i64(a->outer * a->count * a->inner, (tile + 1) * TILE);
    for (int64_t i = tile * TILE; i < end; i++) {
        int64_t k = j->idx[i], o = i / (a->count * a->inner);
        int64_t from = (o * a->n + (k < 0 ? k + a->n : k)) * a->inner + i % a->inner;
        memcpy(j->y + (size_t)i * size, j->x + (size_t)from * size, size);
    }
}

static alloy_status run_along(ay_run *r, const ay_step *s) {
    const along_args *a = s->args;
    along_job j = {a, ay_at(r, a->x), ay_at(r, a->idx), ay_at(r, a->y)};
    int64_t all = a->outer * a->count * a->inner;
    AY_TRY(check_indices(r, s, j.idx, all, a->n));
    ay_parallel(r->ex.pool, ay_div_up(all, TILE), along_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

alloy_status ay_build_gather_along(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, idx, y;
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    AY_TRY(ay_plan_dense(pl, n->in[1], &idx));
    AY_TRY(ay_plan_out(pl, f, &y));
    int axis = n->attr.gather.axis;
    along_args a = {.outer = 1, .n = x.dim[axis], .count = idx.dim[axis], .inner = 1, .kind = x.kind};
    for (int i = 0; i < x.rank; i++)
        if (i != axis) *(i < axis ? &a.outer : &a.inner) *= idx.dim[i];
    ay_step *s = ay_step_add(pl, run_along, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((along_args *)s->args)->x = ay_step_read(s, &x);
    ((along_args *)s->args)->idx = ay_step_read(s, &idx);
    ((along_args *)s->args)->y = ay_step_write(s, &y);
    s->bytes = 12.0 * (double)ay_view_count(&y);
    return ALLOY_OK;
}
