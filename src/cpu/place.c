/* SPDX-License-Identifier: MIT
 *
 * Placing: where a value is to be made, decided before it is made. Parts of a concat are written straight into the whole,
 * and what a permute reads is written permuted, where the step that makes it can write through such strides. Walked from
 * the last node to the first, so that a concat inside a concat knows its place before its own parts ask.
 */
#include "cpu/plan.h"

static bool inverse_permute(const ay_node *n, const ay_view *target, ay_view *out) {
    *out = *target;
    for (int i = 0; i < target->rank; i++) {
        out->dim[n->attr.permute.perm[i]] = target->dim[i];
        out->stride[n->attr.permute.perm[i]] = target->stride[i];
    }
    return true;
}

/* The place of the operand of view node `n`, given the place of its result. */
static bool through_view(const ay_plan *pl, const ay_node *n, const ay_view *target, ay_view *out) {
    const ay_type *x = ay_type_of(pl->g, n->in[0]);
    if (n->op == AY_OP_PERMUTE) return inverse_permute(n, target, out);
    if (n->op == AY_OP_CAST) return *out = *target, true;
    if (n->op == AY_OP_RESHAPE) return ay_view_reshape(target, x->rank, x->dim, out);
    return false;
}

/* Places what makes v at `target`; false when it cannot be. */
static bool place(ay_plan *pl, ay_val v, ay_view target) {
    for (;;) {
        const ay_node *n = ay_plan_node(pl, v);
        ay_value_plan *vp = &pl->val[v];
        if (vp->placed || vp->absorbed) return false;
        if (ay_plan_is_view(pl, n)) {
            ay_view next;
            if (!through_view(pl, n, &target, &next)) return false;
            target = next;
            v = n->in[0];
            continue;
        }
        ay_fused alone = ay_fused_alone(v);
        const ay_fused *f = vp->fused ? vp->fused : &alone;
        const ay_row *row = ay_row_get(ay_plan_node(pl, f->anchor)->op);
        if (!row->writes || !row->writes(pl, f, &target)) return false;
        vp->place = target;
        return vp->placed = true;
    }
}

/* How v would come to lie if nobody asked for a place: strides of its dims. */
static void natural(const ay_plan *pl, ay_val v, int depth, ay_view *out) {
    enum { DEEP = 32 };
    const ay_node *n = ay_plan_node(pl, v);
    const ay_fused *f = pl->val[v].fused;
    if (f) n = ay_plan_node(pl, f->anchor);
    bool view = !f && ay_plan_is_view(pl, n);
    if (depth < DEEP && (view || ay_row_get(n->op)->keeps_layout) && n->n_in > 0) {
        ay_view x;
        natural(pl, n->in[0], depth + 1, &x);
        if (view && ay_view_through(n, &x, out)) return;
        if (!view && ay_view_count(&x) == ay_type_count(&n->type) && x.rank == n->type.rank) {
            *out = x;
            return;
        }
    }
    *out = (ay_view){.kind = ay_kind_of(n->type.dtype), .rank = n->type.rank};
    for (int i = 0; i < out->rank; i++) out->dim[i] = n->type.dim[i];
    ay_view_set_dense(out);
}

/* A concat of permuted parts lies as they do, so that they can be made in it: [B, H, L1 + L2, D] of two [B, L, H, D]. */
static alloy_status concat_home(ay_plan *pl, const ay_node *n, ay_view *out) {
    ay_view part;
    int order[AY_MAX_RANK];
    AY_TRY(ay_plan_new(pl, ay_kind_of(n->type.dtype), n->type.rank, n->type.dim, out));
    natural(pl, n->in[0], 0, &part);
    ay_view_order(&part, order);
    int64_t s = 1;
    for (int i = out->rank - 1; i >= 0; i--) {
        out->stride[order[i]] = s;
        s *= out->dim[order[i]];
    }
    return ALLOY_OK;
}

static alloy_status place_concat(ay_plan *pl, ay_val v) {
    const ay_node *n = ay_plan_node(pl, v);
    ay_value_plan *vp = &pl->val[v];
    if (!vp->placed) AY_TRY(concat_home(pl, n, &vp->place));
    vp->placed = true;
    int64_t at = 0;
    for (int i = 0; i < n->n_in; i++) {
        int64_t size = ay_type_of(pl->g, n->in[i])->dim[n->attr.axis];
        place(pl, n->in[i], ay_concat_part(&vp->place, n->attr.axis, at, size));
        at += size;
    }
    return ALLOY_OK;
}

/* A permute that moves something, of what can be written permuted (attention's result, mostly). */
static alloy_status place_permute(ay_plan *pl, ay_val v) {
    const ay_node *n = ay_plan_node(pl, v);
    ay_view dense;
    ay_val from = n->in[0];
    if (pl->val[v].placed) return ALLOY_OK;
    while (ay_plan_is_view(pl, ay_plan_node(pl, from))) from = ay_plan_node(pl, from)->in[0];
    ay_op op = ay_plan_node(pl, pl->val[from].fused ? pl->val[from].fused->anchor : from)->op;
    if (op != AY_OP_SDPA && op != AY_OP_MATMUL) return ALLOY_OK;
    AY_TRY(ay_plan_new(pl, ay_kind_of(n->type.dtype), n->type.rank, n->type.dim, &dense));
    place(pl, v, dense); /* where it cannot be, the buffer is never touched and takes no room */
    return ALLOY_OK;
}

alloy_status ay_plan_place(ay_plan *pl) {
    for (ay_val v = pl->g->n_nodes - 1; v >= 0; v--) {
        ay_op op = ay_plan_node(pl, v)->op;
        if (op == AY_OP_CONCAT) AY_TRY(place_concat(pl, v));
        if (op == AY_OP_PERMUTE) AY_TRY(place_permute(pl, v));
    }
    return ALLOY_OK;
}
