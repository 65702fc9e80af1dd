/* SPDX-License-Identifier: MIT
 *
 * Raising: finds composites again in graphs of core ops, as MIL programs and pass/lower.c write them, so that a package runs
 * as fast from its own program as from its model. One walk: each node is copied, then the patterns of its op are tried on
 * the copy, whose inputs are raised already; so patterns build on one another (sigmoid before silu, softmax before sdpa).
 *
 * Not raised, because MIL has them as ops of their own: bilinear upsampling, transposed convolution, dequantisation.
 */
#include "pass/raise.h"
#include "ir/infer.h"
#include "quant/weight.h"

#include <math.h>
#include <string.h>

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

bool ay_raise_scalar(const ay_graph *g, ay_val v, double *value) {
    enum { MOST = 4096 };
    if (!ay_is(g, v, AY_OP_CONST)) return false;
    const ay_node *n = &g->nodes[v];
    int64_t count = ay_type_count(&n->type);
    float first, f;
    if (count > MOST || !ay_dtype_is_float(n->type.dtype)) return false;
    ay_convert_to_f32(n->type.dtype, n->data, 0, 1, &first);
    for (int64_t i = 1; i < count; i++) {
        ay_convert_to_f32(n->type.dtype, n->data, i, 1, &f);
        if (f != first) return false;
    }
    *value = first;
    return true;
}

static bool same_shape(const ay_graph *g, ay_val a, ay_val b) {
    const ay_type *s = ay_type_of(g, a), *t = ay_type_of(g, b);
    return s->rank == t->rank && memcmp(s->dim, t->dim, (size_t)s->rank * sizeof s->dim[0]) == 0;
}

bool ay_raise_by_const(const ay_graph *g, ay_val v, ay_op op, ay_val *x, double *c) {
    ay_op inverse = op == AY_OP_ADD ? AY_OP_SUB : AY_OP_DIV;
    if (ay_is(g, v, inverse) && ay_raise_scalar(g, ay_arg(g, v, 1), c)) {
        *x = ay_arg(g, v, 0);
        *c = op == AY_OP_ADD ? -*c : 1 / *c;
        return same_shape(g, v, *x);
    }
    if (op == AY_OP_MUL && ay_is(g, v, AY_OP_SUB) && ay_raise_scalar(g, ay_arg(g, v, 0), c) && *c == 0) { /* 0 - x */
        *x = ay_arg(g, v, 1);
        *c = -1;
        return same_shape(g, v, *x);
    }
    if (!ay_is(g, v, op)) return false;
    for (int i = 0; i < 2; i++) {
        *x = ay_arg(g, v, 1 - i);
        if (ay_raise_scalar(g, ay_arg(g, v, i), c) && same_shape(g, v, *x)) return true;
    }
    return false;
}

bool ay_raise_square(const ay_graph *g, ay_val v, ay_val *x) {
    double c;
    if (ay_is(g, v, AY_OP_MUL)) return *x = ay_arg(g, v, 0), *x == ay_arg(g, v, 1);
    if (!ay_is(g, v, AY_OP_POW) || !ay_raise_scalar(g, ay_arg(g, v, 1), &c) || c != 2) return false;
    *x = ay_arg(g, v, 0);
    return same_shape(g, v, *x);
}

bool ay_raise_mean(const ay_graph *g, ay_val v, ay_val *x, const ay_attr **reduce) {
    double c = 1, inner = 1;
    ay_val sum = v, y;
    if (ay_raise_by_const(g, v, AY_OP_MUL, &y, &c)) sum = y;
    if (!ay_is(g, sum, AY_OP_SUM) || !g->nodes[sum].attr.reduce.keep) return false;
    *reduce = &g->nodes[sum].attr;
    *x = ay_arg(g, sum, 0);
    int64_t count = 1;
    for (int i = 0; i < (*reduce)->reduce.n; i++) count *= ay_type_of(g, *x)->dim[(*reduce)->reduce.axes[i]];
    if (sum == v && ay_raise_by_const(g, *x, AY_OP_MUL, &y, &inner)) *x = y; /* sum(x * 1/n) */
    double ratio = c * inner * (double)count;
    return ratio > 0.998 && ratio < 1.002; /* 1/n may be a subnormal half */
}

bool ay_raise_over_root(const ay_graph *g, ay_val v, int which, ay_val *d, ay_val *w, double *eps) {
    ay_val root;
    if (ay_is(g, v, AY_OP_MUL)) {
        root = ay_arg(g, v, which);
        *d = ay_arg(g, v, 1 - which);
        double power;
        if (ay_is(g, root, AY_OP_POW) && (!ay_raise_scalar(g, ay_arg(g, root, 1), &power) || power != -0.5)) return false;
        if (!ay_is(g, root, AY_OP_POW) && !ay_is(g, root, AY_OP_RSQRT)) return false;
    } else {
        if (!ay_is(g, v, AY_OP_DIV) || which != 1) return false;
        root = ay_arg(g, v, 1);
        *d = ay_arg(g, v, 0);
        if (!ay_is(g, root, AY_OP_SQRT)) return false;
    }
    if (!ay_raise_by_const(g, ay_arg(g, root, 0), AY_OP_ADD, w, eps)) return false;
    ay_val inner;
    for (double more; ay_raise_by_const(g, *w, AY_OP_ADD, &inner, &more); *eps += more) *w = inner; /* MIL's rsqrt adds its own */
    return *eps >= 0;
}

ay_val ay_raise_uncast(const ay_graph *g, ay_val v) {
    while (ay_is(g, v, AY_OP_CAST) && ay_dtype_is_float(ay_type_of(g, v)->dtype) &&
           ay_dtype_is_float(ay_type_of(g, ay_arg(g, v, 0))->dtype)) {
        v = ay_arg(g, v, 0);
    }
    return v;
}

ay_val ay_raise_unshape(const ay_graph *g, ay_val v) {
    while (ay_is(g, v, AY_OP_RESHAPE)) v = ay_arg(g, v, 0);
    return v;
}

bool ay_raise_is_stored(const ay_graph *g, ay_val v) {
    while (ay_is(g, v, AY_OP_RESHAPE) || ay_is(g, v, AY_OP_CAST)) v = ay_arg(g, v, 0);
    return ay_is(g, v, AY_OP_PARAM) || ay_is(g, v, AY_OP_CONST);
}

ay_val ay_raise_emit(ay_graph *g, ay_val v, ay_op op, const ay_val *in, int n_in, const ay_attr *attr) {
    ay_node n;
    ay_val own[4];
    memset(&n, 0, sizeof n);
    memcpy(own, in, (size_t)n_in * sizeof *in);
    n.op = op;
    n.n_in = n_in;
    n.in = own;
    if (attr) n.attr = *attr;
    if (g->status || ay_infer(g, &n) || !ay_type_equal(&n.type, ay_type_of(g, v))) return AY_NO_VALUE;
    const char *name = g->nodes[v].name;
    g->scope = g->nodes[v].scope;
    ay_val to = ay_node_add(g, op, own, n_in, &n.attr, NULL);
    if (to != AY_NO_VALUE) g->nodes[to].name = name;
    return to;
}

/* ---- the table: patterns by the op at their root, tried in this order ---------------------------------------------- */

static const struct {
    ay_op root;
    ay_raise_fn match;
} rows[] = {
    {AY_OP_DIV, ay_raise_sigmoid},     {AY_OP_DIV, ay_raise_softmax},      {AY_OP_DIV, ay_raise_layer_norm},
    {AY_OP_DIV, ay_raise_rms_norm},    {AY_OP_MUL, ay_raise_gelu},         {AY_OP_MUL, ay_raise_silu},
    {AY_OP_MUL, ay_raise_layer_norm},  {AY_OP_MUL, ay_raise_rms_norm},     {AY_OP_MUL, ay_raise_norm_weight},
    {AY_OP_ADD, ay_raise_norm_bias},   {AY_OP_ADD, ay_raise_rope},         {AY_OP_ADD, ay_raise_linear_bias},
    {AY_OP_CAST, ay_raise_norm_cast},  {AY_OP_MATMUL, ay_raise_sdpa},      {AY_OP_MATMUL, ay_raise_linear},
    {AY_OP_MUL, ay_raise_sink_permute}, {AY_OP_SOFTMAX, ay_raise_sink_permute}, {AY_OP_PERMUTE, ay_raise_permute},
    {AY_OP_SDPA, ay_raise_sdpa_scale},
    {AY_OP_RESHAPE, ay_raise_group_norm}, {AY_OP_RESHAPE, ay_raise_upsample}, {AY_OP_RESHAPE, ay_raise_linear_shape},
};

static ay_val raised(ay_graph *g, ay_val v) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !g->status; i++) {
        if (rows[i].root != g->nodes[v].op) continue;
        ay_val to = rows[i].match(g, v);
        if (to != AY_NO_VALUE) return to;
    }
    return v;
}

alloy_status ay_pass_raise(ay_graph *g, void *arg) {
    ay_rewrite r;
    AY_TRY(ay_rewrite_begin(&r, g));
    for (ay_val v = 0; !g->status && v < r.n_old; v++) {
        ay_val to = ay_rewrite_copy(&r, v);
        if (to != AY_NO_VALUE) r.map[v] = raised(g, to);
    }
    AY_TRY(ay_rewrite_end(&r));
    return ay_pass_dce(g, NULL);
}
