/* SPDX-License-Identifier: MIT
 *
 * Patterns around attention: linear layers, rotary embedding in both forms. Attention itself is in raise_sdpa.c.
 */
#include "pass/raise.h"

/* ---- linear -------------------------------------------------------------------------------------------------------- */

/* x times a stored [N, K] transposed */
ay_val ay_raise_linear(ay_graph *g, ay_val v) {
    const ay_attr *a = &g->nodes[v].attr;
    ay_val in[2] = {ay_arg(g, v, 0), ay_arg(g, v, 1)};
    if (a->matmul.ta || !a->matmul.tb || !ay_raise_is_stored(g, in[1]) || ay_type_of(g, in[1])->rank != 2)
        return AY_NO_VALUE;
    return ay_raise_emit(g, v, AY_OP_LINEAR, in, 2, NULL);
}

/* linear(x, w) + b; a bias that lies in the graph as a parameter of shape [1, .., N] is taken as [N] */
ay_val ay_raise_linear_bias(ay_graph *g, ay_val v) {
    for (int i = 0; i < 2; i++) {
        ay_val y = ay_arg(g, v, i), b = ay_arg(g, v, 1 - i);
        if (!ay_is(g, y, AY_OP_LINEAR) || g->nodes[y].n_in != 2 || !ay_raise_is_stored(g, b)) continue;
        int64_t n = ay_dim(g, y, -1);
        if (ay_dim(g, b, -1) != n || ay_type_count(ay_type_of(g, b)) != n) continue;
        if (ay_type_of(g, b)->rank != 1) {
            g->scope = g->nodes[v].scope;
            b = ay_reshape(g, b, 1, n);
        }
        return ay_raise_emit(g, v, AY_OP_LINEAR, (ay_val[]){ay_arg(g, y, 0), ay_arg(g, y, 1), b}, 3, NULL);
    }
    return AY_NO_VALUE;
}

/* reshape(linear(reshape(x, [1, K])), [N]) with x [K] */
ay_val ay_raise_linear_shape(ay_graph *g, ay_val v) {
    ay_val y = ay_arg(g, v, 0);
    if (!ay_is(g, y, AY_OP_LINEAR) || ay_type_of(g, v)->rank != 1 || !ay_is(g, ay_arg(g, y, 0), AY_OP_RESHAPE))
        return AY_NO_VALUE;
    ay_val x = ay_arg(g, ay_arg(g, y, 0), 0), in[3];
    int n_in = g->nodes[y].n_in;
    if (ay_type_of(g, x)->rank != 1) return AY_NO_VALUE;
    for (int i = 0; i < n_in; i++) in[i] = i ? ay_arg(g, y, i) : x;
    return ay_raise_emit(g, v, AY_OP_LINEAR, in, n_in, NULL);
}

/* ---- rope ---------------------------------------------------------------------------------------------------------- */

/* v = x[.., begin : begin + count] of the last dim, whole elsewhere, stride 1 */
static bool last_part(const ay_graph *g, ay_val v, ay_val *x, int64_t begin, int64_t count) {
    if (!ay_is(g, v, AY_OP_SLICE)) return false;
    const ay_type *t = ay_type_of(g, v);
    *x = ay_arg(g, v, 0);
    for (int i = 0; i < t->rank; i++) {
        bool last = i == t->rank - 1;
        if (g->nodes[v].attr.slice.begin[i] != (last ? begin : 0) || t->dim[i] != (last ? count : ay_type_of(g, *x)->dim[i]))
            return false;
        if (t->dim[i] > 1 && g->nodes[v].attr.slice.stride[i] != 1) return false;
    }
    return t->rank > 0;
}

/* The input turned by `v`, or AY_NO_VALUE: v joins minus the second parts of x with its first parts. Reshapes on the way
 * only add and merge dims: for pairs, the concat must run over a last dim of two, so that it interleaves. */
static ay_val turned(const ay_graph *g, ay_val v, const ay_type *out, bool *interleaved) {
    double minus;
    ay_val y, a, b, first, second;
    int64_t d = out->dim[out->rank - 1];
    ay_val join = ay_raise_unshape(g, v);
    if (!ay_is(g, join, AY_OP_CONCAT) || g->nodes[join].n_in != 2 ||
        g->nodes[join].attr.axis != ay_type_of(g, join)->rank - 1)
        return AY_NO_VALUE;
    *interleaved = ay_dim(g, join, -1) == 2 && (d != 2 || join != v);
    if (!ay_raise_by_const(g, ay_raise_unshape(g, ay_arg(g, join, 0)), AY_OP_MUL, &y, &minus) || minus != -1)
        return AY_NO_VALUE;
    second = ay_raise_unshape(g, y);
    first = ay_raise_unshape(g, ay_arg(g, join, 1));
    if (*interleaved) {
        if (!last_part(g, first, &a, 0, 1) || !last_part(g, second, &b, 1, 1) || a != b || ay_dim(g, a, -1) != 2)
            return AY_NO_VALUE;
        return ay_raise_unshape(g, a);
    }
    if (join != v || ay_dim(g, join, -1) != d) return AY_NO_VALUE;
    if (!last_part(g, first, &a, 0, d / 2) || !last_part(g, second, &b, d / 2, d / 2) || a != b) return AY_NO_VALUE;
    return ay_dim(g, a, -1) == d ? a : AY_NO_VALUE;
}

/* Whether both are the same elements in the same order, be it under casts or reshapes. */
static bool same_source(const ay_graph *g, ay_val a, ay_val b) {
    for (int i = 0; i < 4; i++) {
        a = ay_raise_uncast(g, ay_raise_unshape(g, a));
        b = ay_raise_uncast(g, ay_raise_unshape(g, b));
    }
    return a == b;
}

/* x * cos + turned(x) * sin */
ay_val ay_raise_rope(ay_graph *g, ay_val v) {
    const ay_type out = *ay_type_of(g, v);
    if (out.rank < 1) return AY_NO_VALUE;
    for (int k = 0; k < 8; k++) { /* which term, and which factor of each */
        ay_val plain = ay_arg(g, v, k & 1), rotated = ay_arg(g, v, !(k & 1));
        if (!ay_is(g, plain, AY_OP_MUL) || !ay_is(g, rotated, AY_OP_MUL)) return AY_NO_VALUE;
        ay_val x = ay_arg(g, plain, k >> 1 & 1), cos = ay_arg(g, plain, !(k >> 1 & 1));
        ay_val rot = ay_arg(g, rotated, k >> 2 & 1), sin = ay_arg(g, rotated, !(k >> 2 & 1));
        bool interleaved;
        ay_val from = turned(g, ay_raise_uncast(g, rot), &out, &interleaved);
        if (from == AY_NO_VALUE || !same_source(g, from, x) || ay_dim(g, rot, -1) != out.dim[out.rank - 1]) continue;
        if (!ay_type_equal(ay_type_of(g, x), &out)) continue;
        return ay_raise_emit(g, v, AY_OP_ROPE, (ay_val[]){x, cos, sin}, 3, &(ay_attr){.rope = {interleaved}});
    }
    return AY_NO_VALUE;
}
