/* SPDX-License-Identifier: MIT
 *
 * Normalisations and softmax. All work on rows that lie together: axes that are not last are moved there by a copy, and a
 * gapless permuted operand is normalised in the order it lies in, its result keeping that layout.
 */
#include "cpu/plan.h"

#include <string.h>

/* Moves `axes` of v last. out is row-major in the new order of axes (perm); copied only when it is not so already. */
alloy_status ay_plan_axes_last(ay_plan *pl, ay_val v, int n, const int *axes, ay_view *out, int64_t *rows, int64_t *d,
                               int perm[AY_MAX_RANK]) {
    ay_view x;
    AY_TRY(ay_plan_view(pl, v, &x));
    int at = 0;
    for (int i = 0; i < x.rank; i++) {
        bool taken = false;
        for (int k = 0; k < n; k++) taken = taken || axes[k] == i;
        if (!taken) perm[at++] = i;
    }
    for (int k = 0; k < n; k++) perm[at++] = axes[k];
    ay_view moved = ay_view_permuted(&x, perm);
    *d = *rows = 1;
    for (int i = 0; i < x.rank; i++) *(i < x.rank - n ? rows : d) *= moved.dim[i];
    if (ay_view_is_dense(&moved)) return *out = moved, ALLOY_OK;
    return ay_plan_copy(pl, &moved, out);
}

/* The result's view when the step writes row-major in the order of `perm`: seen through the inverse. */
static ay_view unpermuted(const ay_view *moved, const int *perm) {
    ay_view o = *moved;
    for (int i = 0; i < moved->rank; i++) {
        o.dim[perm[i]] = moved->dim[i];
        o.stride[perm[i]] = moved->stride[i];
    }
    return o;
}

static bool identity(const int *perm, int rank) {
    for (int i = 0; i < rank; i++)
        if (perm[i] != i) return false;
    return true;
}

/* Operand and result of a step over rows of `d` numbers along the last axis, or along `axes`. */
typedef struct rows_plan {
    ay_view x, y; /* both gapless, rows of d numbers in the same order */
    int64_t rows, d;
} rows_plan;

static alloy_status plan_rows(ay_plan *pl, const ay_fused *f, ay_val v, int n, const int *axes, bool keep_order,
                              rows_plan *r) {
    int order[AY_MAX_RANK], perm[AY_MAX_RANK];
    ay_view x;
    AY_TRY(ay_plan_view(pl, v, &x));
    int last = x.rank - 1;
    bool placed = pl->val[f->result].placed;
    if (placed && !ay_view_is_dense(&pl->val[f->result].place)) { /* rows in the order of the place */
        AY_TRY(ay_plan_out(pl, f, &r->y));
        ay_view_order(&r->y, order);
        r->x = ay_view_permuted(&x, order);
        r->d = x.dim[last];
        r->rows = ay_view_count(&x) / r->d;
        if (ay_view_is_dense(&r->x)) return ALLOY_OK;
        ay_view from = r->x;
        return ay_plan_copy(pl, &from, &r->x);
    }
    if (!placed && !keep_order && n == 1 && axes[0] == last && ay_view_order(&x, order) && order[last] == last) {
        r->x = x;
        r->d = x.dim[last];
        r->rows = ay_view_count(&x) / r->d;
        return ay_plan_out_like(pl, f, &x, &r->y);
    }
    AY_TRY(ay_plan_axes_last(pl, v, n, axes, &r->x, &r->rows, &r->d, perm));
    if (identity(perm, x.rank)) return ay_plan_out(pl, f, &r->y);
    if (placed) return ay_plan_fail(pl, "a result over axes that are not last cannot be placed");
    AY_TRY(ay_plan_new(pl, AY_KIND_F32, r->x.rank, r->x.dim, &r->y));
    ay_view seen = unpermuted(&r->y, perm);
    ay_plan_set_view(pl, f->result, &seen);
    return ALLOY_OK;
}

/* ---- layer norm, rms norm ---------------------------------------------------------------------------------------- */

typedef struct norm_args {
    ay_norm n;
    ay_ref x, y, w, b, scale, shift;
} norm_args;

static alloy_status run_norm(ay_run *r, const ay_step *s) {
    const norm_args *p = s->args;
    ay_norm n = p->n;
    n.x = ay_at(r, p->x);
    n.y = ay_at(r, p->y);
    n.w = ay_at(r, p->w);
    n.b = ay_at(r, p->b);
    n.scale = ay_at(r, p->scale);
    n.shift = ay_at(r, p->shift);
    ay_norm_run(&r->ex, &n);
    return ALLOY_OK;
}

/* Modulation rows [mods, d] with a uniform stride. */
static alloy_status mod_operand(ay_plan *pl, ay_val v, ay_view *out, int64_t *stride) {
    int64_t rows;
    out->buf = -1;
    if (v == AY_NO_VALUE) return ALLOY_OK;
    AY_TRY(ay_plan_view(pl, v, out));
    int last = out->rank - 1;
    if (out->stride[last] == 1 && ay_view_merge(out, 0, last, &rows, stride)) return ALLOY_OK;
    AY_TRY(ay_plan_dense(pl, v, out));
    *stride = out->dim[last];
    return ALLOY_OK;
}

static alloy_status modulation(ay_plan *pl, const ay_fused *f, norm_args *a, ay_view *scale, ay_view *shift) {
    int64_t s1 = 0, s2 = 0;
    AY_TRY(mod_operand(pl, f->scale, scale, &s1));
    AY_TRY(mod_operand(pl, f->shift, shift, &s2));
    if (scale->buf < 0 && shift->buf < 0) return ALLOY_OK;
    int64_t mods = ay_view_count(scale->buf >= 0 ? scale : shift) / a->n.d;
    if (mods > 1 && scale->buf >= 0 && shift->buf >= 0 && s1 != s2) {
        AY_TRY(ay_plan_dense(pl, f->scale, scale));
        AY_TRY(ay_plan_dense(pl, f->shift, shift));
        s1 = s2 = a->n.d;
    }
    a->n.rows_per_mod = a->n.rows / mods;
    a->n.mod_stride = mods == 1 ? 0 : scale->buf >= 0 ? s1 : s2;
    a->n.mod_plus_one = f->scale_plus_one;
    return ALLOY_OK;
}

alloy_status ay_build_norm(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    bool rms = n->op == AY_OP_RMS_NORM, mod = f->scale != AY_NO_VALUE || f->shift != AY_NO_VALUE;
    int last = n->type.rank - 1;
    ay_view w = {.buf = -1}, b = {.buf = -1}, scale, shift;
    rows_plan r;
    if (n->n_in > 1) AY_TRY(ay_plan_dense(pl, n->in[1], &w));
    if (n->n_in > 2) AY_TRY(ay_plan_dense(pl, n->in[2], &b));
    AY_TRY(plan_rows(pl, f, n->in[0], rms ? 1 : n->attr.norm.n, rms ? &last : n->attr.norm.axes, mod, &r));
    norm_args args = {.n = {.rows = r.rows, .d = r.d, .rms = rms, .eps = n->attr.norm.eps}};
    AY_TRY(modulation(pl, f, &args, &scale, &shift));
    ay_step *s = ay_step_add(pl, run_norm, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    norm_args *p = (norm_args *)s->args;
    p->x = ay_step_read_inplace(s, &r.x);
    p->w = ay_step_read(s, &w);
    p->b = ay_step_read(s, &b);
    p->scale = ay_step_read(s, &scale);
    p->shift = ay_step_read(s, &shift);
    p->y = ay_step_write(s, &r.y);
    s->bytes = 8.0 * (double)r.rows * (double)r.d;
    ay_step_what(pl, s, "%s%s %lldx%lld", s->what, mod ? " modulated" : "", (long long)r.rows, (long long)r.d);
    return ALLOY_OK;
}

/* ---- group norm -------------------------------------------------------------------------------------------------- */

typedef struct group_args {
    ay_group_norm_args a;
    ay_ref x, y, w, b;
} group_args;

static alloy_status run_group(ay_run *r, const ay_step *s) {
    const group_args *p = s->args;
    ay_group_norm_args a = p->a;
    a.x = ay_at(r, p->x);
    a.y = ay_at(r, p->y);
    a.w = ay_at(r, p->w);
    a.b = ay_at(r, p->b);
    ay_group_norm_run(&r->ex, &a);
    return ALLOY_OK;
}

alloy_status ay_build_group_norm(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y, w = {.buf = -1}, b = {.buf = -1};
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    if (n->n_in > 1) AY_TRY(ay_plan_dense(pl, n->in[1], &w));
    if (n->n_in > 2) AY_TRY(ay_plan_dense(pl, n->in[2], &b));
    AY_TRY(ay_plan_out(pl, f, &y));
    int64_t all = ay_view_count(&x);
    group_args args = {.a = {.n = x.dim[0], .c = x.dim[1], .s = all / x.dim[0] / x.dim[1], .groups = n->attr.norm.groups,
                             .eps = n->attr.norm.eps, .act = f->act}};
    ay_step *s = ay_step_add(pl, run_group, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    group_args *p = (group_args *)s->args;
    p->x = ay_step_read_inplace(s, &x);
    p->w = ay_step_read(s, &w);
    p->b = ay_step_read(s, &b);
    p->y = ay_step_write(s, &y);
    s->bytes = 8.0 * (double)all;
    ay_step_what(pl, s, "group_norm %lldx%lldx%lld", (long long)args.a.n, (long long)args.a.c, (long long)args.a.s);
    return ALLOY_OK;
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

typedef struct softmax_args {
    int64_t rows, d;
    ay_ref x, y;
} softmax_args;

static alloy_status run_softmax(ay_run *r, const ay_step *s) {
    const softmax_args *p = s->args;
    ay_softmax_run(&r->ex, p->rows, p->d, ay_at(r, p->x), ay_at(r, p->y));
    return ALLOY_OK;
}

alloy_status ay_build_softmax(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    rows_plan r;
    if (n->type.rank == 0) return ay_plan_fail(pl, "softmax of a scalar");
    AY_TRY(plan_rows(pl, f, n->in[0], 1, &n->attr.axis, false, &r));
    softmax_args args = {.rows = r.rows, .d = r.d};
    ay_step *s = ay_step_add(pl, run_softmax, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    softmax_args *p = (softmax_args *)s->args;
    p->x = ay_step_read_inplace(s, &r.x);
    p->y = ay_step_write(s, &r.y);
    s->bytes = 8.0 * (double)r.rows * (double)r.d;
    ay_step_what(pl, s, "softmax %lldx%lld", (long long)r.rows, (long long)r.d);
    return ALLOY_OK;
}
