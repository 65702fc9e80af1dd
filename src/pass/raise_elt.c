/* SPDX-License-Identifier: MIT
 *
 * Patterns of elementwise composites: sigmoid, silu, the three gelus, softmax, nearest upsampling.
 */
#include "pass/raise.h"

/* 1 / (1 + exp(-x)) */
ay_val ay_raise_sigmoid(ay_graph *g, ay_val v) {
    double one, plus, minus;
    ay_val e, x;
    if (!ay_raise_scalar(g, ay_arg(g, v, 0), &one) || one != 1) return AY_NO_VALUE;
    if (!ay_raise_by_const(g, ay_arg(g, v, 1), AY_OP_ADD, &e, &plus) || plus != 1 || !ay_is(g, e, AY_OP_EXP))
        return AY_NO_VALUE;
    if (!ay_raise_by_const(g, ay_arg(g, e, 0), AY_OP_MUL, &x, &minus) || minus != -1) return AY_NO_VALUE;
    return ay_raise_emit(g, v, AY_OP_SIGMOID, &x, 1, NULL);
}

/* x * sigmoid(x); with sigmoid(1.702 x), the sigmoid gelu */
ay_val ay_raise_silu(ay_graph *g, ay_val v) {
    for (int i = 0; i < 2; i++) {
        ay_val x = ay_arg(g, v, 1 - i), s = ay_arg(g, v, i), y;
        double c;
        if (!ay_is(g, s, AY_OP_SIGMOID)) continue;
        if (ay_arg(g, s, 0) == x) return ay_raise_emit(g, v, AY_OP_SILU, &x, 1, NULL);
        if (!ay_raise_by_const(g, ay_arg(g, s, 0), AY_OP_MUL, &y, &c) || y != x || !ay_close(c, 1.702)) continue;
        return ay_raise_emit(g, v, AY_OP_GELU, &x, 1, &(ay_attr){.gelu = {AY_GELU_SIGMOID}});
    }
    return AY_NO_VALUE;
}

/* v = x ^ 3 */
static bool is_cube(const ay_graph *g, ay_val v, ay_val x) {
    double c;
    ay_val y;
    if (ay_is(g, v, AY_OP_POW)) return ay_arg(g, v, 0) == x && ay_raise_scalar(g, ay_arg(g, v, 1), &c) && c == 3;
    for (int i = 0; ay_is(g, v, AY_OP_MUL) && i < 2; i++) {
        if (ay_arg(g, v, i) == x && ay_raise_square(g, ay_arg(g, v, 1 - i), &y) && y == x) return true;
    }
    return false;
}

/* v = sqrt(2/pi) * (x + 0.044715 x^3) */
static bool tanh_inner(const ay_graph *g, ay_val v, ay_val *x) {
    double c;
    ay_val sum, cube;
    if (!ay_raise_by_const(g, v, AY_OP_MUL, &sum, &c) || !ay_close(c, 0.7978845608) || !ay_is(g, sum, AY_OP_ADD))
        return false;
    for (int i = 0; i < 2; i++) {
        *x = ay_arg(g, sum, i);
        if (ay_raise_by_const(g, ay_arg(g, sum, 1 - i), AY_OP_MUL, &cube, &c) && ay_close(c, 0.044715) &&
            is_cube(g, cube, *x))
            return true;
    }
    return false;
}

/* v = 1 + erf(x / sqrt(2)) or 1 + tanh(..x..) */
static bool gelu_gate(const ay_graph *g, ay_val v, ay_val *x, ay_gelu_mode *mode) {
    double c;
    ay_val f;
    if (!ay_raise_by_const(g, v, AY_OP_ADD, &f, &c) || c != 1) return false;
    *mode = ay_is(g, f, AY_OP_ERF) ? AY_GELU_EXACT : AY_GELU_TANH;
    if (ay_is(g, f, AY_OP_ERF)) return ay_raise_by_const(g, ay_arg(g, f, 0), AY_OP_MUL, x, &c) && ay_close(c, 0.7071067812);
    return ay_is(g, f, AY_OP_TANH) && tanh_inner(g, ay_arg(g, f, 0), x);
}

/* v = x * 0.5 */
static bool is_half_of(const ay_graph *g, ay_val v, ay_val x) {
    double c;
    ay_val y;
    return ay_raise_by_const(g, v, AY_OP_MUL, &y, &c) && c == 0.5 && y == x;
}

/* 0.5 * x * gate(x), in any association */
ay_val ay_raise_gelu(ay_graph *g, ay_val v) {
    ay_gelu_mode mode;
    ay_val x, y;
    double c;
    for (int i = 0; i < 2; i++) { /* gate * (x * 0.5); x * (gate * 0.5) */
        ay_val a = ay_arg(g, v, i), b = ay_arg(g, v, 1 - i);
        bool ok = gelu_gate(g, a, &x, &mode) && is_half_of(g, b, x);
        if (!ok) ok = ay_raise_by_const(g, a, AY_OP_MUL, &y, &c) && c == 0.5 && gelu_gate(g, y, &x, &mode) && b == x;
        if (ok) return ay_raise_emit(g, v, AY_OP_GELU, &x, 1, &(ay_attr){.gelu = {mode}});
    }
    if (!ay_raise_by_const(g, v, AY_OP_MUL, &y, &c) || c != 0.5 || !ay_is(g, y, AY_OP_MUL)) return AY_NO_VALUE;
    for (int i = 0; i < 2; i++) { /* (x * gate) * 0.5 */
        if (!gelu_gate(g, ay_arg(g, y, i), &x, &mode) || ay_arg(g, y, 1 - i) != x) continue;
        return ay_raise_emit(g, v, AY_OP_GELU, &x, 1, &(ay_attr){.gelu = {mode}});
    }
    return AY_NO_VALUE;
}

/* e / sum(e) with e = exp(x - max(x)) */
ay_val ay_raise_softmax(ay_graph *g, ay_val v) {
    ay_val e = ay_arg(g, v, 0), sum = ay_arg(g, v, 1);
    if (!ay_is(g, e, AY_OP_EXP) || !ay_is(g, sum, AY_OP_SUM) || ay_arg(g, sum, 0) != e) return AY_NO_VALUE;
    const ay_attr *a = &g->nodes[sum].attr;
    ay_val x = ay_arg(g, e, 0);
    if (a->reduce.n != 1 || !a->reduce.keep) return AY_NO_VALUE;
    if (ay_is(g, x, AY_OP_SUB) && ay_is(g, ay_arg(g, x, 1), AY_OP_RMAX) && ay_arg(g, ay_arg(g, x, 1), 0) == ay_arg(g, x, 0))
        x = ay_arg(g, x, 0);
    return ay_raise_emit(g, v, AY_OP_SOFTMAX, &x, 1, &(ay_attr){.axis = a->reduce.axes[0]});
}

/* reshape(expand(reshape(x))), [.., H, 1, W, 1] to [.., H, fh, W, fw] */
ay_val ay_raise_upsample(ay_graph *g, ay_val v) {
    ay_val wide = ay_arg(g, v, 0);
    if (!ay_is(g, wide, AY_OP_EXPAND) || !ay_is(g, ay_arg(g, wide, 0), AY_OP_RESHAPE)) return AY_NO_VALUE;
    ay_val apart = ay_arg(g, wide, 0), x = ay_arg(g, apart, 0);
    const ay_type *w = ay_type_of(g, wide), *a = ay_type_of(g, apart), *t = ay_type_of(g, x);
    int r = w->rank;
    if (r < 4 || a->rank != r || t->rank < 2 || a->dim[r - 1] != 1 || a->dim[r - 3] != 1) return AY_NO_VALUE;
    for (int i = 0; i < r; i++) {
        if (i != r - 1 && i != r - 3 && a->dim[i] != w->dim[i]) return AY_NO_VALUE;
    }
    if (a->dim[r - 4] != t->dim[t->rank - 2] || a->dim[r - 2] != t->dim[t->rank - 1]) return AY_NO_VALUE;
    return ay_raise_emit(g, v, AY_OP_UPSAMPLE, &x, 1, &(ay_attr){.upsample = {.fh = w->dim[r - 3], .fw = w->dim[r - 1]}});
}
