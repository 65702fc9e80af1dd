/* SPDX-License-Identifier: MIT
 *
 * Movement that moves nothing, as far as strides can say it: reshape, permute, slice, expand, free casts. Where they
 * cannot (a reshape across a permuted layout, a reversed axis) a copy is planned. Also concat and the copy step itself.
 */
#include "cpu/plan.h"

#include <string.h>

/* ---- copy -------------------------------------------------------------------------------------------------------- */

typedef struct copy_args {
    ay_copy_args c;
    ay_ref x, y;
} copy_args;

static alloy_status run_copy(ay_run *r, const ay_step *s) {
    const copy_args *a = s->args;
    ay_copy_args c = a->c;
    c.x = ay_at(r, a->x);
    c.y = ay_at(r, a->y);
    ay_copy_run(&r->ex, &c);
    return ALLOY_OK;
}

alloy_status ay_add_copy_step(ay_plan *pl, const ay_view *from, const ay_view *to) {
    copy_args a = {.c = {.rank = to->rank, .size = (int)ay_kind_size(to->kind)}};
    memcpy(a.c.dim, to->dim, sizeof a.c.dim);
    memcpy(a.c.xs, from->stride, sizeof a.c.xs);
    memcpy(a.c.ys, to->stride, sizeof a.c.ys);
    ay_step *s = ay_step_add(pl, run_copy, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    copy_args *kept = (copy_args *)s->args;
    kept->x = ay_step_read(s, from);
    kept->y = ay_step_write(s, to);
    s->bytes = 2.0 * (double)ay_view_count(to) * a.c.size;
    ay_step_what(pl, s, "copy %lld for %s", (long long)ay_view_count(to), s->what);
    return ALLOY_OK;
}

/* ---- views ------------------------------------------------------------------------------------------------------- */

bool ay_plan_is_view(const ay_plan *pl, const ay_node *n) {
    return n->op == AY_OP_CAST ? ay_plan_cast_is_free(pl, n) : ay_row_get(n->op)->is_view;
}

static ay_view permuted(const ay_node *n, const ay_view *x) { return ay_view_permuted(x, n->attr.permute.perm); }

static ay_view sliced(const ay_node *n, const ay_view *x) {
    return ay_view_sliced(x, n->attr.slice.begin, n->attr.slice.stride, n->type.dim);
}

static ay_view expanded(const ay_node *n, const ay_view *x) { return ay_view_broadcast(x, n->type.rank, n->type.dim); }

static ay_view same(const ay_node *n, const ay_view *x) { return *x; }

static ay_view reversed(const ay_node *n, const ay_view *x) {
    ay_view v = *x;
    for (int i = 0; i < n->attr.reduce.n; i++) {
        int a = n->attr.reduce.axes[i];
        v.off += (v.dim[a] - 1) * v.stride[a];
        v.stride[a] = -v.stride[a];
    }
    return v;
}

typedef ay_view (*view_fn)(const ay_node *n, const ay_view *x);
static view_fn view_of_op(ay_op op) {
    static const view_fn fn[AY_OP_COUNT] = {
        [AY_OP_PERMUTE] = permuted, [AY_OP_SLICE] = sliced,     [AY_OP_EXPAND] = expanded,
        [AY_OP_CAST] = same,        [AY_OP_REVERSE] = reversed,
    };
    return fn[op];
}

bool ay_view_through(const ay_node *n, const ay_view *x, ay_view *out) {
    if (n->op == AY_OP_RESHAPE) return ay_view_reshape(x, n->type.rank, n->type.dim, out);
    *out = view_of_op(n->op)(n, x);
    return true;
}

alloy_status ay_view_of_node(ay_plan *pl, ay_val v, ay_view *out) {
    const ay_node *n = ay_plan_node(pl, v);
    ay_view x;
    bool part = false;
    if (n->op == AY_OP_SLICE) AY_TRY(ay_plan_part(pl, v, out, &part));
    if (part) return ALLOY_OK;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    if (!ay_view_through(n, &x, out)) { /* a reshape across a permuted layout */
        ay_view scattered = x;
        if (pl->val[n->in[0]].ready) AY_TRY(ay_plan_dense(pl, n->in[0], &x)); /* which later users find */
        else AY_TRY(ay_plan_copy(pl, &scattered, &x)); /* seen again, a part of a table would be read again */
        if (!ay_view_through(n, &x, out)) return ay_plan_fail(pl, "reshape: the element counts differ");
    }
    for (int i = 0; i < out->rank; i++) {
        if (out->stride[i] >= 0 || out->dim[i] == 1) continue; /* kernels are promised strides that are not negative */
        ay_view backwards = *out;
        return ay_plan_copy(pl, &backwards, out);
    }
    return ALLOY_OK;
}

/* ---- concat ------------------------------------------------------------------------------------------------------ */

alloy_status ay_build_concat(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view out, x;
    AY_TRY(ay_plan_out(pl, f, &out));
    int64_t at = 0;
    for (int i = 0; i < n->n_in; i++) {
        AY_TRY(ay_plan_view(pl, n->in[i], &x));
        ay_view part = ay_concat_part(&out, n->attr.axis, at, x.dim[n->attr.axis]);
        at += x.dim[n->attr.axis];
        if (!ay_view_same(&x, &part)) AY_TRY(ay_add_copy_step(pl, &x, &part)); /* else it was made in place (place.c) */
    }
    return ALLOY_OK;
}
