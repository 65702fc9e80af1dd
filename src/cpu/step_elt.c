/* SPDX-License-Identifier: MIT
 *
 * Elementwise steps on floats: unary and binary with broadcasting, gated activations, rounding to half. The result takes
 * over the memory layout of its first whole operand, so that work between a permute and its undoing stays contiguous.
 */
#include "cpu/plan.h"

#include <string.h>

static int elt_of(const ay_node *n) {
    static const int elt[AY_OP_COUNT] = {
        /* ay_elt + 1; 0: no such kernel */
        [AY_OP_ADD] = AY_ELT_ADD + 1,         [AY_OP_SUB] = AY_ELT_SUB + 1,     [AY_OP_MUL] = AY_ELT_MUL + 1,
        [AY_OP_DIV] = AY_ELT_DIV + 1,         [AY_OP_MAX] = AY_ELT_MAX + 1,     [AY_OP_MIN] = AY_ELT_MIN + 1,
        [AY_OP_POW] = AY_ELT_POW + 1,         [AY_OP_MOD] = AY_ELT_MOD + 1,     [AY_OP_ABS] = AY_ELT_ABS + 1,
        [AY_OP_EXP] = AY_ELT_EXP + 1,         [AY_OP_LOG] = AY_ELT_LOG + 1,     [AY_OP_SQRT] = AY_ELT_SQRT + 1,
        [AY_OP_RSQRT] = AY_ELT_RSQRT + 1,     [AY_OP_SIN] = AY_ELT_SIN + 1,     [AY_OP_COS] = AY_ELT_COS + 1,
        [AY_OP_TANH] = AY_ELT_TANH + 1,       [AY_OP_ERF] = AY_ELT_ERF + 1,     [AY_OP_FLOOR] = AY_ELT_FLOOR + 1,
        [AY_OP_CEIL] = AY_ELT_CEIL + 1,       [AY_OP_ROUND] = AY_ELT_ROUND + 1, [AY_OP_SIGN] = AY_ELT_SIGN + 1,
        [AY_OP_SIGMOID] = AY_ELT_SIGMOID + 1, [AY_OP_SILU] = AY_ELT_SILU + 1,
    };
    static const int gelu[] = {
        [AY_GELU_EXACT] = AY_ELT_GELU_EXACT, [AY_GELU_TANH] = AY_ELT_GELU_TANH, [AY_GELU_SIGMOID] = AY_ELT_GELU_SIGMOID};
    return n->op == AY_OP_GELU ? gelu[n->attr.gelu.mode] : elt[n->op] - 1;
}

typedef struct elt_args {
    ay_elt_args a;
    ay_ref x, y, out;
} elt_args;

static alloy_status run_elt(ay_run *r, const ay_step *s) {
    const elt_args *e = s->args;
    ay_elt_args a = e->a;
    a.x = ay_at(r, e->x);
    a.y = ay_at(r, e->y);
    a.out = ay_at(r, e->out);
    ay_elt_run(&r->ex, &a);
    return ALLOY_OK;
}

/* y may be NULL. All three have the dims of `out`, which is gapless in some order of its axes. */
static alloy_status add_elt(ay_plan *pl, ay_elt op, const ay_view *x, const ay_view *y, const ay_view *out) {
    int order[AY_MAX_RANK];
    ay_view_order(out, order);
    ay_view o = ay_view_permuted(out, order), xv = ay_view_permuted(x, order), yv = {.buf = -1};
    if (y) yv = ay_view_permuted(y, order);
    elt_args e = {.a = {.op = op, .rank = o.rank}};
    memcpy(e.a.dim, o.dim, sizeof e.a.dim);
    memcpy(e.a.xs, xv.stride, sizeof e.a.xs);
    memcpy(e.a.ys, yv.stride, sizeof e.a.ys);
    ay_step *s = ay_step_add(pl, run_elt, &e, sizeof e);
    if (!s) return ay_nomem(pl->cx);
    elt_args *kept = (elt_args *)s->args;
    kept->x = ay_view_is_dense(&xv) ? ay_step_read_inplace(s, x) : ay_step_read(s, x);
    if (y) kept->y = ay_view_is_dense(&yv) ? ay_step_read_inplace(s, y) : ay_step_read(s, y);
    else kept->y = AY_NO_REF;
    kept->out = ay_step_write(s, out);
    s->bytes = 4.0 * (double)ay_view_count(out) * (y ? 3 : 2);
    ay_step_what(pl, s, "%s x%lld", s->what, (long long)ay_view_count(out));
    return ALLOY_OK;
}

alloy_status ay_build_unary(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    if (f->gate != AY_NO_VALUE) return ay_build_gated(pl, f);
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32) return ay_build_generic(pl, f);
    ay_view x, out;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(ay_plan_out_like(pl, f, &x, &out));
    return add_elt(pl, (ay_elt)elt_of(n), &x, NULL, &out);
}

alloy_status ay_build_binary(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32) return ay_build_generic(pl, f);
    ay_view x, y, out;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(ay_plan_view(pl, n->in[1], &y));
    bool x_whole = ay_view_count(&x) == ay_type_count(&n->type);
    x = ay_view_broadcast(&x, n->type.rank, n->type.dim);
    y = ay_view_broadcast(&y, n->type.rank, n->type.dim);
    AY_TRY(ay_plan_out_like(pl, f, x_whole ? &x : &y, &out));
    return add_elt(pl, (ay_elt)elt_of(n), &x, &y, &out);
}

/* ---- act(x) * y -------------------------------------------------------------------------------------------------- */

typedef struct gated_args {
    ay_act act;
    int64_t n, rows, ldx, ldy; /* rows 0: all in one run */
    ay_ref x, y, out;
} gated_args;

static alloy_status run_gated(ay_run *r, const ay_step *s) {
    const gated_args *g = s->args;
    if (g->rows)
        ay_gated_rows_run(&r->ex, g->act, g->rows, g->n, ay_at(r, g->x), g->ldx, ay_at(r, g->y), g->ldy, ay_at(r, g->out));
    else ay_gated_run(&r->ex, g->act, g->n, ay_at(r, g->x), ay_at(r, g->y), ay_at(r, g->out));
    return ALLOY_OK;
}

/* Rows along the last dim, evenly apart. */
static bool as_rows(const ay_view *v, int64_t *rows, int64_t *ld) {
    int last = v->rank - 1;
    return last >= 1 && v->stride[last] == 1 && ay_view_merge(v, 0, last, rows, ld);
}

alloy_status ay_build_gated(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y, out;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(ay_plan_view(pl, f->gate, &y));
    AY_TRY(ay_plan_out(pl, f, &out));
    gated_args g = {.act = f->act, .n = ay_view_count(&out)};
    bool whole = ay_view_is_dense(&x) && ay_view_is_dense(&y) && ay_view_is_dense(&out);
    if (!whole && as_rows(&x, &g.rows, &g.ldx) && as_rows(&y, &g.rows, &g.ldy) && ay_view_is_dense(&out)) {
        g.n = out.dim[out.rank - 1]; /* halves of one product */
    } else if (!whole) {
        ay_view mid;
        AY_TRY(ay_plan_new(pl, AY_KIND_F32, x.rank, x.dim, &mid));
        AY_TRY(add_elt(pl, (ay_elt)elt_of(n), &x, NULL, &mid));
        return add_elt(pl, AY_ELT_MUL, &mid, &y, &out);
    }
    ay_step *s = ay_step_add(pl, run_gated, &g, sizeof g);
    if (!s) return ay_nomem(pl->cx);
    gated_args *kept = (gated_args *)s->args;
    kept->x = whole ? ay_step_read_inplace(s, &x) : ay_step_read(s, &x);
    kept->y = whole ? ay_step_read_inplace(s, &y) : ay_step_read(s, &y);
    kept->out = ay_step_write(s, &out);
    s->bytes = 12.0 * (double)ay_view_count(&out);
    ay_step_what(pl, s, "%s * y x%lld", s->what, (long long)ay_view_count(&out));
    return ALLOY_OK;
}

/* ---- rounding to half, in place ---------------------------------------------------------------------------------- */

typedef struct round_args {
    int64_t n;
    ay_ref x;
} round_args;

static alloy_status run_round(ay_run *r, const ay_step *s) {
    const round_args *a = s->args;
    int64_t over = 0;
    ay_round_f16_run(&r->ex, a->n, ay_at(r, a->x), &over);
    r->p->overflows += over;
    return ALLOY_OK;
}

/* `v` is gapless in some order: emulation places nothing. */
alloy_status ay_add_round_step(ay_plan *pl, const ay_view *v) {
    round_args a = {.n = ay_view_count(v)};
    ay_step *s = ay_step_add(pl, run_round, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((round_args *)s->args)->x = ay_step_write(s, v);
    s->bytes = 8.0 * (double)a.n;
    ay_step_what(pl, s, "round to float16 after %s", s->what);
    return ALLOY_OK;
}
