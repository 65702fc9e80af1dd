/* SPDX-License-Identifier: MIT
 *
 * Patterns of norms: first the bare norm, then its weight and bias as the factors and terms around it, then a pair of casts
 * around the whole (a norm in float32 inside a half-precision graph: engines compute norms in float32 anyway).
 */
#include "pass/raise.h"

#include <string.h>

/* x / (sqrt(mean((x / m)^2) + eps) * m), as coremltools writes torch's rms_norm so that half's range is kept with m = max |x|:
 * the norm of x / m */
static ay_val scaled_rms_norm(ay_graph *g, ay_val v) {
    if (!ay_is(g, v, AY_OP_DIV) || !ay_is(g, ay_arg(g, v, 1), AY_OP_MUL)) return AY_NO_VALUE;
    ay_val product = ay_arg(g, v, 1);
    for (int i = 0; i < 2; i++) {
        ay_val root = ay_arg(g, product, i), m = ay_arg(g, product, 1 - i), w, square, y;
        double eps;
        const ay_attr *over;
        if (!ay_is(g, root, AY_OP_SQRT) || !ay_raise_by_const(g, ay_arg(g, root, 0), AY_OP_ADD, &w, &eps) || eps < 0) continue;
        if (!ay_raise_mean(g, w, &square, &over) || !ay_raise_square(g, square, &y) || !ay_is(g, y, AY_OP_DIV)) continue;
        if (ay_arg(g, y, 0) != ay_arg(g, v, 0) || ay_arg(g, y, 1) != m) continue;
        if (over->reduce.n != 1 || over->reduce.axes[0] != ay_type_of(g, y)->rank - 1) continue;
        return ay_raise_emit(g, v, AY_OP_RMS_NORM, &y, 1, &(ay_attr){.norm = {.eps = eps}});
    }
    return AY_NO_VALUE;
}

/* x / sqrt(mean(x^2) + eps) over the last dim */
ay_val ay_raise_rms_norm(ay_graph *g, ay_val v) {
    ay_val scaled = scaled_rms_norm(g, v);
    if (scaled != AY_NO_VALUE) return scaled;
    for (int which = 0; which < 2; which++) {
        ay_val x, w, square, y;
        double eps;
        const ay_attr *over;
        if (!ay_raise_over_root(g, v, which, &x, &w, &eps) || !ay_raise_mean(g, w, &square, &over)) continue;
        if (!ay_raise_square(g, square, &y) || y != x) continue;
        if (over->reduce.n != 1 || over->reduce.axes[0] != ay_type_of(g, x)->rank - 1) continue;
        return ay_raise_emit(g, v, AY_OP_RMS_NORM, &x, 1, &(ay_attr){.norm = {.eps = eps}});
    }
    return AY_NO_VALUE;
}

static bool same_axes(const ay_attr *a, const ay_attr *b) {
    return a->reduce.n == b->reduce.n && memcmp(a->reduce.axes, b->reduce.axes, (size_t)a->reduce.n * sizeof(int)) == 0;
}

/* d / sqrt(mean(d^2) + eps) with d = x - mean(x) */
ay_val ay_raise_layer_norm(ay_graph *g, ay_val v) {
    for (int which = 0; which < 2; which++) {
        ay_val d, w, square, y, x;
        double eps;
        const ay_attr *over, *over_x;
        if (!ay_raise_over_root(g, v, which, &d, &w, &eps) || !ay_raise_mean(g, w, &square, &over)) continue;
        if (!ay_raise_square(g, square, &y)) continue;
        if (!ay_is(g, d, AY_OP_SUB) || !ay_is(g, y, AY_OP_SUB)) continue;
        bool same = y == d ||
                    (ay_arg(g, y, 0) == ay_arg(g, d, 0) && ay_arg(g, y, 1) == ay_arg(g, d, 1)); /* x - mean, written twice */
        if (!same || !ay_raise_mean(g, ay_arg(g, d, 1), &x, &over_x) || x != ay_arg(g, d, 0) || !same_axes(over, over_x))
            continue;
        ay_attr a = {.norm = {.n = over->reduce.n, .eps = eps}};
        memcpy(a.norm.axes, over->reduce.axes, sizeof a.norm.axes);
        return ay_raise_emit(g, v, AY_OP_LAYER_NORM, &x, 1, &a);
    }
    return AY_NO_VALUE;
}

/* reshape(layer_norm(reshape(x, [N, G, C/G..]), axes from 2 on), x's shape) */
ay_val ay_raise_group_norm(ay_graph *g, ay_val v) {
    ay_val norm = ay_arg(g, v, 0);
    if (!ay_is(g, norm, AY_OP_LAYER_NORM) || g->nodes[norm].n_in != 1 || !ay_is(g, ay_arg(g, norm, 0), AY_OP_RESHAPE))
        return AY_NO_VALUE;
    const ay_type *view = ay_type_of(g, norm), *out = ay_type_of(g, v);
    const ay_attr *a = &g->nodes[norm].attr;
    ay_val x = ay_arg(g, ay_arg(g, norm, 0), 0);
    if (out->rank < 2 || view->rank < 3 || view->dim[0] != out->dim[0] || out->dim[1] % view->dim[1]) return AY_NO_VALUE;
    if (a->norm.n != view->rank - 2 || a->norm.axes[0] != 2) return AY_NO_VALUE;
    ay_attr norm_attr = {.norm = {.groups = view->dim[1], .eps = a->norm.eps}};
    if (!ay_type_equal(ay_type_of(g, x), out)) { /* the image itself was a reshape, merged with the view's */
        ay_type shape = *out;
        g->scope = g->nodes[v].scope;
        x = ay_reshape_to(g, x, shape.rank, shape.dim);
    }
    return ay_raise_emit(g, v, AY_OP_GROUP_NORM, &x, 1, &norm_attr);
}

/* ---- weight and bias ----------------------------------------------------------------------------------------------- */

static bool is_norm(const ay_graph *g, ay_val v) {
    return ay_is(g, v, AY_OP_RMS_NORM) || ay_is(g, v, AY_OP_LAYER_NORM) || ay_is(g, v, AY_OP_GROUP_NORM);
}

/* The shape a weight of this norm has, and the same with ones so that it broadcasts to the input. */
static void weight_shapes(const ay_graph *g, ay_val norm, ay_type *own, ay_type *wide) {
    const ay_node *n = &g->nodes[norm];
    *own = (ay_type){.dtype = n->type.dtype};
    *wide = n->type;
    unsigned axes = 0;
    if (n->op == AY_OP_RMS_NORM) axes = 1u << (n->type.rank - 1);
    if (n->op == AY_OP_GROUP_NORM) axes = 1u << 1;
    for (int i = 0; n->op == AY_OP_LAYER_NORM && i < n->attr.norm.n; i++) axes |= 1u << n->attr.norm.axes[i];
    for (int i = 0; i < wide->rank; i++) {
        if (axes & 1u << i) own->dim[own->rank++] = wide->dim[i];
        else wide->dim[i] = 1;
    }
}

/* w as the norm's own weight: directly, from under a reshape, or reshaped; AY_NO_VALUE if its shape says otherwise. */
static ay_val weight_for(ay_graph *g, ay_val norm, ay_val w) {
    ay_type own, wide, met;
    const ay_type *t = ay_type_of(g, w);
    weight_shapes(g, norm, &own, &wide);
    if (!ay_raise_is_stored(g, w)) return AY_NO_VALUE; /* modulation by activations stays what it is */
    if (t->dtype != own.dtype || t->rank > wide.rank || ay_type_count(t) != ay_type_count(&own)) return AY_NO_VALUE;
    met.dtype = own.dtype;
    if (!ay_broadcast(t, &wide, &met) || !ay_type_equal(&met, &wide)) return AY_NO_VALUE; /* dims aligned from the right */
    ay_val source = ay_raise_unshape(g, w);
    if (ay_type_equal(t, &own)) return w;
    if (ay_type_equal(ay_type_of(g, source), &own)) return source;
    g->scope = g->nodes[w].scope;
    return ay_reshape_to(g, w, own.rank, own.dim);
}

static ay_val with_input(ay_graph *g, ay_val v, int had, int most) {
    for (int i = 0; i < 2; i++) {
        ay_val norm = ay_arg(g, v, i), other = ay_arg(g, v, 1 - i);
        if (!is_norm(g, norm) || g->nodes[norm].n_in != had || ay_op_get(g->nodes[norm].op)->most < most) continue;
        ay_val w = weight_for(g, norm, other);
        if (w == AY_NO_VALUE) continue;
        ay_val in[3];
        memcpy(in, g->nodes[norm].in, (size_t)had * sizeof *in);
        in[had] = w;
        ay_attr a = g->nodes[norm].attr;
        return ay_raise_emit(g, v, g->nodes[norm].op, in, had + 1, &a);
    }
    return AY_NO_VALUE;
}

ay_val ay_raise_norm_weight(ay_graph *g, ay_val v) { return with_input(g, v, 1, 2); }

ay_val ay_raise_norm_bias(ay_graph *g, ay_val v) { return with_input(g, v, 2, 3); }

/* ---- casts around -------------------------------------------------------------------------------------------------- */

ay_val ay_raise_norm_cast(ay_graph *g, ay_val v) {
    ay_val norm = ay_arg(g, v, 0);
    if (!ay_dtype_is_float(ay_type_of(g, v)->dtype) || !(is_norm(g, norm) || ay_is(g, norm, AY_OP_SOFTMAX)))
        return AY_NO_VALUE;
    ay_val in[3];
    int n_in = g->nodes[norm].n_in;
    for (int i = 0; i < n_in; i++) {
        in[i] = ay_raise_uncast(g, ay_arg(g, norm, i));
        if (in[i] == ay_arg(g, norm, i) || ay_type_of(g, in[i])->dtype != ay_type_of(g, v)->dtype) return AY_NO_VALUE;
    }
    ay_attr a = g->nodes[norm].attr;
    return ay_raise_emit(g, v, g->nodes[norm].op, in, n_in, &a);
}
