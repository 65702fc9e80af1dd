/* SPDX-License-Identifier: MIT
 *
 * Reductions, argmax, cumsum and topk: plain loops with double accumulators, one row (or lane) by one thread, so that the
 * order of additions never depends on the number of threads.
 */
#include "cpu/plan.h"

#include <math.h>
#include <string.h>

enum { TILE = 1 << 14 }; /* numbers a tile */

typedef double (*fold_fn)(double acc, double x);
static double fold_sum(double acc, double x) { return acc + x; }
/* Integers wrap. */
static double fold_int_sum(double acc, double x) { return (int32_t)((uint32_t)(int64_t)acc + (uint32_t)(int64_t)x); }
static double fold_int_prod(double acc, double x) { return (int32_t)((uint32_t)(int64_t)acc * (uint32_t)(int64_t)x); }
static double fold_max(double acc, double x) { return x > acc || x != x ? x : acc; }
static double fold_min(double acc, double x) { return x < acc || x != x ? x : acc; }
static double fold_prod(double acc, double x) { return acc * x; }

typedef struct lanes_args { /* x [outer, n, inner] -> y, whatever the op makes of each lane of n */
    ay_kind kind, out_kind;
    int64_t outer, n, inner, k, lanes_per_tile;
    fold_fn fold;
    double start;
    bool exclusive, reverse, largest, indices;
    void (*lane)(const struct lanes_args *a, const void *x, int64_t from, void *y, int64_t lane, int32_t *room);
    ay_ref x, y;
} lanes_args;

typedef struct lanes_job {
    const lanes_args *a;
    const void *x;
    void *y;
    int32_t *room; /* n a thread, or NULL */
} lanes_job;

static double load(ay_kind kind, const void *p, int64_t i) {
    if (kind == AY_KIND_F32) return ((const float *)p)[i];
    if (kind == AY_KIND_I32) return ((const int32_t *)p)[i];
    return ((const unsigned char *)p)[i] != 0;
}

static void store(ay_kind kind, void *p, int64_t i, double v) {
    if (kind == AY_KIND_F32) ((float *)p)[i] = (float)v;
    else if (kind == AY_KIND_U8) ((unsigned char *)p)[i] = v != 0;
    else ((int32_t *)p)[i] = (int32_t)v;
}

static void lanes_tile(void *arg, int64_t tile, int thread) {
    const lanes_job *j = arg;
    const lanes_args *a = j->a;
    int64_t end = ay_min_i64(a->outer * a->inner, (tile + 1) * a->lanes_per_tile);
    for (int64_t lane = tile * a->lanes_per_tile; lane < end; lane++) {
        int64_t from = lane / a->inner * a->n * a->inner + lane % a->inner;
        a->lane(a, j->x, from, j->y, lane, j->room ? j->room + thread * a->n : NULL);
    }
}

static alloy_status run_lanes(ay_run *r, const ay_step *s) {
    const lanes_args *a = s->args;
    lanes_job j = {a, ay_at(r, a->x), ay_at(r, a->y), ay_at(r, s->scratch)};
    ay_parallel(r->ex.pool, ay_div_up(a->outer * a->inner, a->lanes_per_tile), lanes_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

static alloy_status add_lanes(ay_plan *pl, lanes_args *a, const ay_view *x, const ay_view *y, size_t room) {
    a->kind = x->kind;
    a->out_kind = y->kind;
    a->lanes_per_tile = ay_max_i64(1, TILE / a->n);
    ay_step *s = ay_step_add(pl, run_lanes, a, sizeof *a);
    if (!s) return ay_nomem(pl->cx);
    lanes_args *kept = (lanes_args *)s->args;
    kept->x = ay_step_read(s, x);
    kept->y = ay_step_write(s, y);
    s->bytes = 4.0 * (double)(ay_view_count(x) + ay_view_count(y));
    ay_step_what(pl, s, "%s %lldx%lldx%lld", s->what, (long long)a->outer, (long long)a->n, (long long)a->inner);
    return ay_step_scratch(pl, s, room);
}

static void around_axis(const ay_view *x, int axis, lanes_args *a) {
    a->outer = a->inner = 1;
    for (int i = 0; i < x->rank; i++)
        if (i != axis) *(i < axis ? &a->outer : &a->inner) *= x->dim[i];
    a->n = x->dim[axis];
}

/* ---- sum, max, min, product over any axes ------------------------------------------------------------------------ */

static void reduce_lane(const lanes_args *a, const void *x, int64_t from, void *y, int64_t lane, int32_t *room) {
    double acc = a->start;
    if (a->fold == fold_sum)
        for (int64_t i = 0; i < a->n; i++) acc += ((const float *)x)[from + i];
    else
        for (int64_t i = 0; i < a->n; i++) acc = a->fold(acc, load(a->kind, x, from + i));
    store(a->out_kind, y, lane, acc);
}

alloy_status ay_build_reduce(ay_plan *pl, const ay_fused *f) {
    static const struct {
        fold_fn fold;
        double start;
    } how[AY_OP_COUNT] = {
        [AY_OP_SUM] = {fold_sum, 0},
        [AY_OP_PROD] = {fold_prod, 1},
        [AY_OP_RMAX] = {fold_max, -INFINITY},
        [AY_OP_RMIN] = {fold_min, INFINITY},
    };
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    int perm[AY_MAX_RANK];
    lanes_args a = {.fold = how[n->op].fold, .start = how[n->op].start, .inner = 1, .lane = reduce_lane};
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32)
        a.fold = a.fold == fold_sum ? fold_int_sum : a.fold == fold_prod ? fold_int_prod : a.fold;
    AY_TRY(ay_plan_axes_last(pl, n->in[0], n->attr.reduce.n, n->attr.reduce.axes, &x, &a.outer, &a.n, perm));
    AY_TRY(ay_plan_out(pl, f, &y));
    return add_lanes(pl, &a, &x, &y, 0);
}

/* ---- argmax ------------------------------------------------------------------------------------------------------ */

/* NaN counts as the largest, as in torch. */
static bool stands_before(double x, double y, bool largest) {
    if (x != x || y != y) return largest ? x != x && y == y : y != y && x == x;
    return largest ? x > y : x < y;
}

static void argmax_lane(const lanes_args *a, const void *x, int64_t from, void *y, int64_t lane, int32_t *room) {
    int64_t best = 0;
    double top = load(a->kind, x, from);
    for (int64_t i = 1; i < a->n; i++) {
        double v = load(a->kind, x, from + i * a->inner);
        if (stands_before(v, top, a->largest)) {
            top = v;
            best = i;
        }
    }
    ((int32_t *)y)[lane] = (int32_t)best;
}

alloy_status ay_build_argmax(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    lanes_args a = {.largest = n->attr.reduce.largest, .lane = argmax_lane};
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    around_axis(&x, n->attr.reduce.axes[0], &a);
    AY_TRY(ay_plan_out(pl, f, &y));
    return add_lanes(pl, &a, &x, &y, 0);
}

/* ---- cumsum ------------------------------------------------------------------------------------------------------ */

static void cumsum_lane(const lanes_args *a, const void *x, int64_t from, void *y, int64_t lane, int32_t *room) {
    double acc = 0;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t at = from + (a->reverse ? a->n - 1 - i : i) * a->inner;
        double v = load(a->kind, x, at), next = a->kind == AY_KIND_F32 ? acc + v : fold_int_sum(acc, v);
        store(a->out_kind, y, at, a->exclusive ? acc : next);
        acc = next;
    }
}

alloy_status ay_build_cumsum(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    lanes_args a = {.exclusive = n->attr.scan.exclusive, .reverse = n->attr.scan.reverse, .lane = cumsum_lane};
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    around_axis(&x, n->attr.scan.axis, &a);
    AY_TRY(ay_plan_out(pl, f, &y));
    return add_lanes(pl, &a, &x, &y, 0);
}

/* ---- topk: heapsort of indices, best first; equal values in the order they stand --------------------------------- */

typedef struct lane_view {
    const lanes_args *a;
    const void *x;
    int64_t from;
} lane_view;

/* Whether index i stands before index j in the result. */
static bool before(const lane_view *l, int32_t i, int32_t j) {
    double x = load(l->a->kind, l->x, l->from + i * l->a->inner), y = load(l->a->kind, l->x, l->from + j * l->a->inner);
    if (stands_before(x, y, l->a->largest)) return true;
    return !stands_before(y, x, l->a->largest) && i < j;
}

/* The heap keeps the index that stands last on top. */
static void sift(const lane_view *l, int32_t *h, int64_t at, int64_t n) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && before(l, h[child], h[child + 1])) child++;
        if (before(l, h[child], h[at])) return;
        int32_t t = h[at];
        h[at] = h[child];
        h[child] = t;
        at = child;
    }
}

static void topk_lane(const lanes_args *a, const void *x, int64_t from, void *y, int64_t lane, int32_t *h) {
    lane_view l = {a, x, from};
    for (int64_t i = 0; i < a->k; i++) h[i] = (int32_t)i;
    for (int64_t i = a->k / 2; i-- > 0;) sift(&l, h, i, a->k);
    for (int64_t i = a->k; i < a->n; i++) {
        if (!before(&l, (int32_t)i, h[0])) continue;
        h[0] = (int32_t)i;
        sift(&l, h, 0, a->k);
    }
    for (int64_t left = a->k; left > 1;) {
        int32_t t = h[0];
        h[0] = h[--left];
        h[left] = t;
        sift(&l, h, 0, left);
    }
    int64_t to = lane / a->inner * a->k * a->inner + lane % a->inner;
    for (int64_t i = 0; i < a->k; i++) {
        if (a->indices) ((int32_t *)y)[to + i * a->inner] = h[i];
        else store(a->out_kind, y, to + i * a->inner, load(a->kind, x, from + h[i] * a->inner));
    }
}

alloy_status ay_build_topk(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    lanes_args a = {
        .k = n->attr.topk.k, .largest = n->attr.topk.largest, .indices = n->attr.topk.indices, .lane = topk_lane};
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    around_axis(&x, n->attr.topk.axis, &a);
    if (a.n > INT32_MAX) return ay_plan_fail(pl, "topk over an axis of more than 2^31 elements");
    AY_TRY(ay_plan_out(pl, f, &y));
    return add_lanes(pl, &a, &x, &y, (size_t)ay_plan_threads(pl) * (size_t)a.n * sizeof(int32_t));
}
