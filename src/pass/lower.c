/* SPDX-License-Identifier: MIT
 *
 * Lowering: each composite as the core ops that define it. A composite inside a lowering (the softmax of an attention) is
 * itself kept or lowered by the same rule. What is written here, pass/raise_*.c must find again.
 */
#include "pass/lower.h"

#include <stdlib.h>
#include <string.h>

/* The order in which a compiler evaluates arguments is its own affair, so a call that appends nodes is never beside another
 * in one argument list: a graph must be the same from every compiler. */

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

/* A const minus: -x as x * -1. */
static ay_val negative(ay_graph *g, ay_val x) { return ay_muls(g, x, -1); }

static ay_val sum_keep(ay_graph *g, ay_val x, int n, const int *axes) {
    ay_attr a = {0};
    a.reduce.n = n;
    a.reduce.keep = true;
    for (int i = 0; i < n; i++) a.reduce.axes[i] = axes[i];
    return ay_node_add(g, AY_OP_SUM, &x, 1, &a, NULL);
}

/* Mean over axes, dims kept: a sum times 1/n. */
static ay_val mean(ay_graph *g, ay_val x, int n, const int *axes) {
    int64_t count = 1;
    for (int i = 0; i < n; i++) count *= ay_dim(g, x, axes[i]);
    return ay_muls(g, sum_keep(g, x, n, axes), 1.0 / (double)count);
}

ay_val ay_lower_emit(const ay_lowering *l, ay_op op, const ay_val *in, int n_in, const ay_attr *attr) {
    ay_graph *g = l->g;
    ay_node n = {.op = op, .n_in = n_in, .scope = g->scope};
    ay_val own[4] = {AY_NO_VALUE, AY_NO_VALUE, AY_NO_VALUE, AY_NO_VALUE};
    if (g->status) return AY_NO_VALUE;
    memcpy(own, in, (size_t)n_in * sizeof *in);
    n.in = own;
    if (attr) n.attr = *attr;
    alloy_status st = ay_infer(g, &n);
    if (st) return ay_graph_fail(g, st, "%s", ay_error_text(g->cx));
    if (l->rule && l->rule->keeps && l->rule->keeps(l->rule, g, &n)) return ay_node_add(g, op, own, n_in, &n.attr, NULL);
    return ay_lower_node(l, &n);
}

/* ---- elementwise --------------------------------------------------------------------------------------------------- */

static ay_val lower_sigmoid(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val below = ay_adds(g, ay_unary(g, AY_OP_EXP, negative(g, n->in[0])), 1);
    return ay_div(g, ay_const_like(g, below, 1), below);
}

static ay_val lower_silu(const ay_lowering *l, const ay_node *n) {
    return ay_mul(l->g, n->in[0], ay_lower_emit(l, AY_OP_SIGMOID, n->in, 1, NULL));
}

static ay_val lower_gelu(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0], inner;
    if (n->attr.gelu.mode == AY_GELU_SIGMOID) {
        inner = ay_muls(g, x, 1.702);
        return ay_mul(g, x, ay_lower_emit(l, AY_OP_SIGMOID, &inner, 1, NULL));
    }
    if (n->attr.gelu.mode == AY_GELU_EXACT) {
        inner = ay_unary(g, AY_OP_ERF, ay_muls(g, x, 0.70710678118654752440)); /* 1 / sqrt(2) */
    } else {
        ay_val cube = ay_mul(g, ay_mul(g, x, x), x);
        inner = ay_unary(g, AY_OP_TANH,
                         ay_muls(g, ay_add(g, x, ay_muls(g, cube, 0.044715)), 0.79788456080286535588)); /* sqrt(2 / pi) */
    }
    inner = ay_adds(g, inner, 1);
    return ay_mul(g, ay_muls(g, x, 0.5), inner);
}

static ay_val lower_dequant(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_dtype t = n->type.dtype;
    int64_t dim[AY_MAX_RANK];
    int rank = n->type.rank;
    for (int i = 0; i < rank; i++) dim[i] = i == n->attr.axis ? -1 : 1;
    bool vector = ay_type_of(g, n->in[1])->rank > 0;
    ay_val x = ay_cast(g, n->in[0], t);
    if (n->n_in > 2) {
        ay_val zero = ay_cast(g, n->in[2], t);
        x = ay_sub(g, x, vector ? ay_reshape_to(g, zero, rank, dim) : zero);
    }
    return ay_mul(g, x, vector ? ay_reshape_to(g, n->in[1], rank, dim) : n->in[1]);
}

/* ---- products, norms ----------------------------------------------------------------------------------------------- */

static ay_val lower_linear(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0];
    bool vector = n->type.rank == 1; /* [K]: as [1, K] */
    if (vector) x = ay_reshape(g, x, 2, 1, -1);
    ay_dtype t = ay_type_of(g, x)->dtype; /* the weight may be stored in another */
    ay_val y = ay_matmul(g, x, ay_cast(g, n->in[1], t), false, true);
    if (n->n_in > 2) y = ay_add(g, y, ay_cast(g, n->in[2], t));
    return vector ? ay_reshape(g, y, 1, -1) : y;
}

static ay_val lower_softmax(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val most = ay_reduce(g, AY_OP_RMAX, n->in[0], n->attr.axis, true);
    ay_val e = ay_unary(g, AY_OP_EXP, ay_sub(g, n->in[0], most));
    return ay_div(g, e, ay_reduce(g, AY_OP_SUM, e, n->attr.axis, true));
}

static ay_val lower_rms_norm(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0];
    int last = n->type.rank - 1;
    ay_val y = ay_mul(g, x, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean(g, ay_mul(g, x, x), 1, &last), n->attr.norm.eps)));
    return n->n_in > 1 ? ay_mul(g, y, n->in[1]) : y;
}

static ay_val lower_layer_norm(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    const int *axes = n->attr.norm.axes;
    int count = n->attr.norm.n, rank = n->type.rank;
    ay_val d = ay_sub(g, n->in[0], mean(g, n->in[0], count, axes));
    ay_val y = ay_mul(g, d, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean(g, ay_mul(g, d, d), count, axes), n->attr.norm.eps)));
    int64_t dim[AY_MAX_RANK]; /* weight and bias as they broadcast: the axes' sizes, elsewhere 1 */
    for (int i = 0; i < rank; i++) dim[i] = 1;
    for (int i = 0; i < count; i++) dim[axes[i]] = n->type.dim[axes[i]];
    bool trailing = axes[0] == rank - count;
    if (n->n_in > 1) y = ay_mul(g, y, trailing ? n->in[1] : ay_reshape_to(g, n->in[1], rank, dim));
    if (n->n_in > 2) y = ay_add(g, y, trailing ? n->in[2] : ay_reshape_to(g, n->in[2], rank, dim));
    return y;
}

/* [N, C, *S] as [N, groups, C / groups, rest], normalised over the last two */
static ay_val lower_group_norm(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    const int64_t *x = n->type.dim;
    int64_t groups = n->attr.norm.groups, channels[AY_MAX_RANK];
    ay_val view = ay_reshape(g, n->in[0], 4, x[0], groups, x[1] / groups, -1);
    ay_attr over = {.norm = {.n = 2, .axes = {2, 3}, .eps = n->attr.norm.eps}};
    ay_val y = ay_reshape_to(g, ay_lower_emit(l, AY_OP_LAYER_NORM, &view, 1, &over), n->type.rank, x);
    for (int i = 0; i < n->type.rank; i++) channels[i] = i == 1 ? x[1] : 1;
    if (n->n_in > 1) y = ay_mul(g, y, ay_reshape_to(g, n->in[1], n->type.rank, channels));
    if (n->n_in > 2) y = ay_add(g, y, ay_reshape_to(g, n->in[2], n->type.rank, channels));
    return y;
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

/* [.., d] as [.., d/2, 2]; beyond rank 4 the leading dims are merged, since MIL stops at rank 5 */
static ay_val rotated_pairs(ay_graph *g, ay_val x, const ay_type *t) {
    int64_t dim[AY_MAX_RANK + 1];
    int rank = t->rank <= 4 ? t->rank + 1 : 3;
    for (int i = 0; i < rank - 2; i++) dim[i] = t->rank <= 4 ? t->dim[i] : -1;
    dim[rank - 2] = t->dim[t->rank - 1] / 2;
    dim[rank - 1] = 2;
    ay_val pairs = ay_reshape_to(g, x, rank, dim);
    ay_val even = ay_slice(g, pairs, -1, 0, 1), odd = ay_slice(g, pairs, -1, 1, 2);
    odd = negative(g, odd);
    return ay_reshape_to(g, ay_concat(g, -1, 2, odd, even), t->rank, t->dim);
}

static ay_val lower_rope(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0], turned;
    if (n->attr.rope.interleaved) {
        turned = rotated_pairs(g, x, &n->type);
    } else {
        int64_t half = n->type.dim[n->type.rank - 1] / 2;
        ay_val first = ay_slice(g, x, -1, 0, half), second = negative(g, ay_slice(g, x, -1, half, INT64_MAX));
        turned = ay_concat(g, -1, 2, second, first);
    }
    x = ay_mul(g, x, n->in[1]);
    return ay_add(g, x, ay_mul(g, turned, n->in[2]));
}

/* What a masked logit becomes: exp() of it is 0 beside any real logit, and it is finite in half precision. */
#define MASKED (-60000.0)

static ay_val lower_sdpa(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val q = n->attr.sdpa.scale == 1 ? n->in[0] : ay_muls(g, n->in[0], n->attr.sdpa.scale);
    ay_val logits = ay_matmul(g, q, n->in[1], false, true);
    if (n->n_in > 3) {
        bool flags = ay_type_of(g, n->in[3])->dtype == AY_BOOL;
        logits = flags ? ay_where(g, n->in[3], logits, ay_const_like(g, logits, MASKED)) : ay_add(g, logits, n->in[3]);
    }
    ay_val p = ay_lower_emit(l, AY_OP_SOFTMAX, &logits, 1, &(ay_attr){.axis = -1});
    return ay_matmul(g, p, n->in[2], false, false);
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

typedef ay_val (*lower_fn)(const ay_lowering *l, const ay_node *n);
static const lower_fn table[AY_OP_COUNT] = {
    [AY_OP_LINEAR] = lower_linear,
    [AY_OP_SIGMOID] = lower_sigmoid,
    [AY_OP_SILU] = lower_silu,
    [AY_OP_GELU] = lower_gelu,
    [AY_OP_SOFTMAX] = lower_softmax,
    [AY_OP_RMS_NORM] = lower_rms_norm,
    [AY_OP_LAYER_NORM] = lower_layer_norm,
    [AY_OP_GROUP_NORM] = lower_group_norm,
    [AY_OP_ROPE] = lower_rope,
    [AY_OP_SDPA] = lower_sdpa,
    [AY_OP_UPSAMPLE] = ay_lower_upsample,
    [AY_OP_CONV_TRANSPOSE] = ay_lower_conv_transpose,
    [AY_OP_DEQUANT] = lower_dequant,
};

ay_val ay_lower_node(const ay_lowering *l, const ay_node *n) {
    if (!table[n->op]) return ay_graph_fail(l->g, ALLOY_E_INTERNAL, "%s has no lowering", ay_op_get(n->op)->name);
    return table[n->op](l, n);
}

alloy_status ay_pass_lower(ay_graph *g, void *arg) {
    ay_lowering l = {g, arg};
    ay_rewrite r;
    AY_TRY(ay_rewrite_begin(&r, g));
    for (ay_val v = 0; !g->status && v < r.n_old; v++) {
        ay_node n = r.old[v];
        if (ay_op_get(n.op)->cls != AY_CLASS_COMPOSITE) {
            ay_rewrite_copy(&r, v);
            continue;
        }
        ay_val in[4];
        for (int i = 0; i < n.n_in; i++) in[i] = r.map[n.in[i]];
        g->scope = n.scope;
        ay_val to = ay_lower_emit(&l, n.op, in, n.n_in, &n.attr);
        if (to != AY_NO_VALUE && n.name && !g->nodes[to].name) g->nodes[to].name = n.name;
        r.map[v] = to;
    }
    return ay_rewrite_end(&r);
}
