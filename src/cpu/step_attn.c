/* SPDX-License-Identifier: MIT
 *
 * Attention and rotary embedding. q, k, v and the result are read and written where they lie, as [B, H, L, D] through any
 * strides with contiguous rows, so the permutes around attention cost nothing.
 */
#include "cpu/plan.h"

#include <string.h>

typedef struct sdpa_args {
    ay_attn a;
    ay_ref q, k, v, mask, o;
} sdpa_args;

static alloy_status run_sdpa(ay_run *r, const ay_step *s) {
    const sdpa_args *p = s->args;
    ay_attn a = p->a;
    a.q = ay_at(r, p->q);
    a.k = ay_at(r, p->k);
    a.v = ay_at(r, p->v);
    a.mask = ay_at(r, p->mask);
    a.o = ay_at(r, p->o);
    ay_attn_run(&r->ex, &a);
    return ALLOY_OK;
}

/* The leading dims of v as [B, H] before its last two: rank 4, if strides can say it. */
static bool as_four(const ay_view *v, ay_view *out) {
    int64_t dim[4] = {1, 1, v->dim[v->rank - 2], v->dim[v->rank - 1]};
    for (int i = 0; i < v->rank - 3; i++) dim[0] *= v->dim[i];
    if (v->rank >= 3) dim[1] = v->dim[v->rank - 3];
    if (v->rank <= 4) {
        *out = *v;
        out->rank = 4;
        for (int i = 0; i < 4; i++) {
            int k = i - (4 - v->rank);
            out->dim[i] = dim[i];
            out->stride[i] = k < 0 ? 0 : v->stride[k];
        }
        return true;
    }
    int64_t n, stride;
    if (!ay_view_merge(v, 0, v->rank - 3, &n, &stride)) return false;
    ay_view o = {.buf = v->buf, .kind = v->kind, .off = v->off, .rank = 4};
    memcpy(o.dim, dim, sizeof dim);
    o.stride[0] = stride;
    for (int i = 1; i < 4; i++) o.stride[i] = v->stride[v->rank - 4 + i];
    *out = o;
    return true;
}

/* An operand broadcast to the result's leading dims, as [B, H, L, D] with contiguous rows. */
static alloy_status operand(ay_plan *pl, ay_val v, const ay_type *t, ay_view *out) {
    ay_view x, wide;
    AY_TRY(ay_plan_view(pl, v, &x));
    if (x.stride[x.rank - 1] != 1 && x.dim[x.rank - 1] != 1) AY_TRY(ay_plan_dense(pl, v, &x));
    wide = ay_view_with_lead(&x, t->rank, t->dim);
    if (as_four(&wide, out)) return ALLOY_OK;
    AY_TRY(ay_plan_copy(pl, &wide, &x));
    as_four(&x, out);
    return ALLOY_OK;
}

/* A copy of x in which a query's number for a key lies beside the next query's: the order of attention's panels. Dims that
 * are only seen again and again are copied once. */
static alloy_status turned_copy(ay_plan *pl, const ay_view *x, ay_view *out) {
    ay_view from = *x, to;
    int q = x->rank - 2, k = x->rank - 1;
    for (int i = 0; i < q; i++) {
        if (from.stride[i] == 0) from.dim[i] = 1;
    }
    int64_t dim[AY_MAX_RANK];
    memcpy(dim, from.dim, sizeof dim);
    dim[q] = from.dim[k], dim[k] = from.dim[q];
    AY_TRY(ay_plan_new(pl, x->kind, x->rank, dim, &to));
    memcpy(to.dim, from.dim, sizeof to.dim);
    to.stride[k] = to.stride[q], to.stride[q] = 1;
    *out = ay_view_broadcast(&to, x->rank, x->dim);
    return ay_add_copy_step(pl, &from, &to);
}

/* A mask that several attentions add (a bias by distance) is turned once for all of them, and one that does not lie by rows at
 * all is turned because reading it otherwise costs more; a single one by rows is turned panel by panel as it is read. */
static alloy_status readable_mask(ay_plan *pl, ay_val v, ay_view *out) {
    ay_value_plan *vp = &pl->val[v];
    ay_view x, m;
    if (vp->has_mask) return *out = vp->mask, ALLOY_OK;
    AY_TRY(ay_plan_view(pl, v, &x));
    AY_TRY(ay_plan_mask(pl, &x, &m));
    int q = m.rank - 2, k = m.rank - 1;
    bool full = m.rank >= 2 && m.dim[q] > 1 && m.dim[k] > 1 && m.stride[q] != 0 && m.stride[q] != 1;
    *out = m;
    if (full && (m.stride[k] != 1 || vp->uses > 1)) AY_TRY(turned_copy(pl, &m, out));
    if (vp->ready) {
        vp->mask = *out;
        vp->has_mask = true;
    }
    return ALLOY_OK;
}

static alloy_status mask_operand(ay_plan *pl, ay_val v, const ay_type *t, int64_t lq, int64_t lk, ay_view *out) {
    ay_view x, wide;
    int64_t dim[AY_MAX_RANK];
    AY_TRY(readable_mask(pl, v, &x));
    memcpy(dim, t->dim, sizeof dim);
    dim[t->rank - 2] = lq;
    dim[t->rank - 1] = lk;
    wide = ay_view_broadcast(&x, t->rank, dim);
    if (as_four(&wide, out)) return ALLOY_OK;
    AY_TRY(ay_plan_copy(pl, &wide, &x));
    as_four(&x, out);
    return ALLOY_OK;
}

alloy_status ay_build_sdpa(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    const ay_type *t = ay_type_of(pl->g, f->result);
    ay_view q, k, v, o, mask = {.buf = -1}, out;
    AY_TRY(operand(pl, n->in[0], t, &q));
    AY_TRY(operand(pl, n->in[1], t, &k));
    AY_TRY(operand(pl, n->in[2], t, &v));
    if (n->n_in > 3) AY_TRY(mask_operand(pl, n->in[3], t, q.dim[2], k.dim[2], &mask));
    AY_TRY(ay_plan_out(pl, f, &out));
    if (!as_four(&out, &o)) return ay_plan_fail(pl, "sdpa: the result is placed where it cannot be written");
    sdpa_args args = {.a = {.batch = o.dim[0], .heads = o.dim[1],
                            .lq = q.dim[2], .lk = k.dim[2], .d = q.dim[3], .dv = v.dim[3],
                            .scale = (float)n->attr.sdpa.scale}};
    memcpy(args.a.qs, q.stride, sizeof args.a.qs);
    memcpy(args.a.ks, k.stride, sizeof args.a.ks);
    memcpy(args.a.vs, v.stride, sizeof args.a.vs);
    memcpy(args.a.os, o.stride, sizeof args.a.os);
    memcpy(args.a.ms, mask.stride, sizeof args.a.ms);
    ay_step *s = ay_step_add(pl, run_sdpa, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    sdpa_args *p = (sdpa_args *)s->args;
    p->q = ay_step_read(s, &q);
    p->k = ay_step_read(s, &k);
    p->v = ay_step_read(s, &v);
    p->mask = ay_step_read(s, &mask);
    p->o = ay_step_write(s, &o);
    const ay_attn *a = &p->a;
    double pairs = (double)(a->batch * a->heads) * (double)a->lq * (double)a->lk;
    s->flops = 2 * pairs * (double)(a->d + a->dv);
    s->bytes = 4.0 * (double)(a->batch * a->heads) * (double)(a->lq * (a->d + a->dv) + a->lk * (a->d + a->dv));
    ay_step_what(pl, s, "sdpa %lldx%lld heads, %lld x %lld, dim %lld", (long long)a->batch, (long long)a->heads,
                 (long long)a->lq, (long long)a->lk, (long long)a->d);
    /* the mask only has to be there for the driver to know that it needs room for it */
    ay_attn sized = *a;
    static const float there;
    if (mask.buf >= 0) sized.mask = &there;
    return ay_step_scratch(pl, s, ay_attn_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &sized));
}

bool ay_writes_sdpa(const ay_plan *pl, const ay_fused *f, const ay_view *target) {
    ay_view four;
    int64_t d = target->dim[target->rank - 1];
    if (target->rank < 2 || (target->stride[target->rank - 1] != 1 && d != 1)) return false;
    return as_four(target, &four);
}

/* ---- rope -------------------------------------------------------------------------------------------------------- */

typedef struct rope_args {
    ay_rope_args a;
    ay_ref x, cos, sin, out;
} rope_args;

static alloy_status run_rope(ay_run *r, const ay_step *s) {
    const rope_args *p = s->args;
    ay_rope_args a = p->a;
    a.x = ay_at(r, p->x);
    a.cos = ay_at(r, p->cos);
    a.sin = ay_at(r, p->sin);
    a.out = ay_at(r, p->out);
    ay_rope_run(&r->ex, &a);
    return ALLOY_OK;
}

/* cos or sin broadcast to x; the kernel steps through both alike, so where they lie differently both are copied whole. */
static alloy_status tables(ay_plan *pl, const ay_node *n, const ay_view *x, ay_view *c, ay_view *s) {
    AY_TRY(ay_plan_view(pl, n->in[1], c));
    AY_TRY(ay_plan_view(pl, n->in[2], s));
    *c = ay_view_broadcast(c, x->rank, x->dim);
    *s = ay_view_broadcast(s, x->rank, x->dim);
    bool alike = true;
    for (int i = 0; i < x->rank; i++) alike = alike && (c->stride[i] == s->stride[i] || x->dim[i] == 1);
    if (alike) return ALLOY_OK;
    ay_view from = *c;
    AY_TRY(ay_plan_copy(pl, &from, c));
    from = *s;
    return ay_plan_copy(pl, &from, s);
}

alloy_status ay_build_rope(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, c, si, out;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(tables(pl, n, &x, &c, &si));
    int order[AY_MAX_RANK], last = x.rank - 1;
    if (!pl->val[f->result].placed && ay_view_order(&x, order) && order[last] == last)
        AY_TRY(ay_plan_out_like(pl, f, &x, &out));
    else AY_TRY(ay_plan_out(pl, f, &out));
    ay_view_order(&out, order);
    if (order[last] != last) /* a last dim of 1 cannot be: it is even; so only its place among equals */
        return ay_plan_fail(pl, "rope: the last dim is not contiguous");
    ay_view o = ay_view_permuted(&out, order), xv = ay_view_permuted(&x, order), cv = ay_view_permuted(&c, order);
    rope_args args = {.a = {.rank = x.rank, .interleaved = n->attr.rope.interleaved}};
    memcpy(args.a.dim, o.dim, sizeof args.a.dim);
    memcpy(args.a.xs, xv.stride, sizeof args.a.xs);
    memcpy(args.a.cs, cv.stride, sizeof args.a.cs);
    ay_step *s = ay_step_add(pl, run_rope, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    rope_args *p = (rope_args *)s->args;
    p->x = ay_step_read(s, &x);
    p->cos = ay_step_read(s, &c);
    p->sin = ay_step_read(s, &si);
    p->out = ay_step_write(s, &out);
    s->bytes = 16.0 * (double)ay_view_count(&out);
    ay_step_what(pl, s, "rope x%lld", (long long)ay_view_count(&out));
    return ALLOY_OK;
}
