/* SPDX-License-Identifier: MIT
 *
 * Reference evaluation, elementwise: every float op is computed in double and rounded once; integers wrap as two's
 * complement and never trap (division by zero gives 0).
 */
#include "ir/eval.h"

#include <math.h>
#include <string.h>

static double gelu(ay_gelu_mode mode, double x) {
    switch (mode) {
    case AY_GELU_TANH: return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x))); /* sqrt(2 / pi) */
    case AY_GELU_SIGMOID: return x / (1 + exp(-1.702 * x));
    default: return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    }
}

static double unary_f(const ay_node *n, double x) {
    switch (n->op) {
    case AY_OP_ABS: return fabs(x);
    case AY_OP_EXP: return exp(x);
    case AY_OP_LOG: return log(x);
    case AY_OP_SQRT: return sqrt(x);
    case AY_OP_RSQRT: return 1 / sqrt(x);
    case AY_OP_SIN: return sin(x);
    case AY_OP_COS: return cos(x);
    case AY_OP_TANH: return tanh(x);
    case AY_OP_ERF: return erf(x);
    case AY_OP_FLOOR: return floor(x);
    case AY_OP_CEIL: return ceil(x);
    case AY_OP_ROUND: return nearbyint(x); /* to even, in the default rounding mode */
    case AY_OP_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
    case AY_OP_SIGMOID: return 1 / (1 + exp(-x));
    case AY_OP_SILU: return x / (1 + exp(-x));
    case AY_OP_GELU: return gelu(n->attr.gelu.mode, x);
    default: return NAN;
    }
}

static int32_t unary_i(ay_op op, int32_t x) {
    switch (op) {
    case AY_OP_ABS: return x < 0 ? (int32_t)(0u - (uint32_t)x) : x;
    case AY_OP_SIGN: return (x > 0) - (x < 0);
    default: return x; /* floor, ceil and round of an integer */
    }
}

alloy_status ay_eval_unary(const ay_call *c) {
    const ay_array *x = c->in[0];
    for (int64_t i = 0; i < x->count; i++) {
        if (ay_dtype_is_float(x->type.dtype)) ay_f(c->out)[i] = (float)unary_f(c->n, ay_f(x)[i]);
        else if (x->type.dtype == AY_BOOL) ay_b(c->out)[i] = !ay_b(x)[i];
        else ay_i(c->out)[i] = unary_i(c->n->op, ay_i(x)[i]);
    }
    return ALLOY_OK;
}

static double mod_f(double x, double y) {
    double r = fmod(x, y);
    return r != 0 && (r < 0) != (y < 0) ? r + y : r;
}

static double binary_f(ay_op op, double x, double y) {
    switch (op) {
    case AY_OP_ADD: return x + y;
    case AY_OP_SUB: return x - y;
    case AY_OP_MUL: return x * y;
    case AY_OP_DIV: return x / y;
    case AY_OP_MOD: return mod_f(x, y);
    case AY_OP_MAX: return x > y || isnan(x) ? x : y;
    case AY_OP_MIN: return x < y || isnan(x) ? x : y;
    case AY_OP_POW: return pow(x, y);
    default: return NAN;
    }
}

static int32_t pow_i(int32_t x, int32_t y) {
    uint32_t r = 1, base = (uint32_t)x;
    if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
    for (; y; y >>= 1, base *= base) {
        if (y & 1) r *= base;
    }
    return (int32_t)r;
}

static int32_t div_i(int64_t x, int64_t y) {
    if (!y) return 0;
    int64_t q = x / y;
    return (int32_t)(uint32_t)(q - (x % y != 0 && (x < 0) != (y < 0)));
}

static int32_t mod_i(int64_t x, int64_t y) {
    if (!y) return 0;
    int64_t r = x % y;
    return (int32_t)(r != 0 && (r < 0) != (y < 0) ? r + y : r);
}

static int32_t binary_i(ay_op op, int32_t x, int32_t y) {
    switch (op) {
    case AY_OP_ADD: return (int32_t)((uint32_t)x + (uint32_t)y);
    case AY_OP_SUB: return (int32_t)((uint32_t)x - (uint32_t)y);
    case AY_OP_MUL: return (int32_t)((uint32_t)x * (uint32_t)y);
    case AY_OP_DIV: return div_i(x, y);
    case AY_OP_MOD: return mod_i(x, y);
    case AY_OP_MAX: return x > y ? x : y;
    case AY_OP_MIN: return x < y ? x : y;
    case AY_OP_POW: return pow_i(x, y);
    default: return 0;
    }
}

alloy_status ay_eval_binary(const ay_call *c) {
    const ay_array *x = c->in[0], *y = c->in[1];
    ay_walk w;
    ay_walk_start(&w, &c->out->type);
    ay_walk_operand(&w, &x->type);
    ay_walk_operand(&w, &y->type);
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) {
        int64_t a = w.offset[0], b = w.offset[1];
        if (ay_dtype_is_float(x->type.dtype)) ay_f(c->out)[i] = (float)binary_f(c->n->op, ay_f(x)[a], ay_f(y)[b]);
        else ay_i(c->out)[i] = binary_i(c->n->op, ay_i(x)[a], ay_i(y)[b]);
    }
    return ALLOY_OK;
}

static bool compare(ay_op op, double x, double y) {
    switch (op) {
    case AY_OP_EQ: return x == y;
    case AY_OP_NE: return x != y;
    case AY_OP_LT: return x < y;
    case AY_OP_LE: return x <= y;
    case AY_OP_GT: return x > y;
    case AY_OP_GE: return x >= y;
    case AY_OP_AND: return x != 0 && y != 0;
    case AY_OP_OR: return x != 0 || y != 0;
    case AY_OP_XOR: return (x != 0) != (y != 0);
    default: return false;
    }
}

/* Any held element as a double: exact for all three. */
static double at(const ay_array *a, int64_t i) {
    if (ay_dtype_is_float(a->type.dtype)) return ay_f(a)[i];
    return a->type.dtype == AY_BOOL ? ay_b(a)[i] : ay_i(a)[i];
}

alloy_status ay_eval_compare(const ay_call *c) {
    ay_walk w;
    ay_walk_start(&w, &c->out->type);
    ay_walk_operand(&w, &c->in[0]->type);
    ay_walk_operand(&w, &c->in[1]->type);
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) {
        ay_b(c->out)[i] = compare(c->n->op, at(c->in[0], w.offset[0]), at(c->in[1], w.offset[1]));
    }
    return ALLOY_OK;
}

alloy_status ay_eval_where(const ay_call *c) {
    size_t size = ay_held_size(c->out->type.dtype);
    ay_walk w;
    ay_walk_start(&w, &c->out->type);
    for (int i = 0; i < 3; i++) ay_walk_operand(&w, &c->in[i]->type);
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) {
        int from = ay_b(c->in[0])[w.offset[0]] ? 1 : 2;
        memcpy((char *)c->out->data + (size_t)i * size, (char *)c->in[from]->data + (size_t)w.offset[from] * size, size);
    }
    return ALLOY_OK;
}

/* Range of an integer type that a graph may hold. */
static void int_range(ay_dtype t, int32_t *least, int32_t *most) {
    int bits = ay_dtype_bits(t);
    bool is_signed = t == AY_I32 || t == AY_I16 || t == AY_I8 || t == AY_I4;
    *most = (int32_t)(((int64_t)1 << (is_signed ? bits - 1 : bits)) - 1);
    *least = is_signed ? -*most - 1 : 0;
}

alloy_status ay_eval_cast(const ay_call *c) {
    const ay_array *x = c->in[0];
    ay_dtype t = c->out->type.dtype;
    int32_t least = 0, most = 0;
    if (!ay_dtype_is_float(t) && t != AY_BOOL) int_range(t, &least, &most);
    for (int64_t i = 0; i < x->count; i++) {
        double v = at(x, i);
        if (ay_dtype_is_float(t)) ay_f(c->out)[i] = (float)v;
        else if (t == AY_BOOL) ay_b(c->out)[i] = v != 0;
        else ay_i(c->out)[i] = isnan(v) ? 0 : v <= least ? least : v >= most ? most : (int32_t)v; /* truncates, saturates */
    }
    return ALLOY_OK;
}
