/* SPDX-License-Identifier: MIT
 *
 * Reading elementwise operations: arithmetic, comparisons, logic, activations, casts, quantize and dequantize.
 * What the graph has no op for is written with what it has; formulas and defaults are those of coremltools'
 * mil/ops/defs (iOS15 to iOS18: elementwise_unary.py, elementwise_binary.py, activation.py, quantization_ops.py).
 */
#include "coreml/read.h"

#include <string.h>

#define G (o->r->g)

static ay_val scalar_like(ay_mop *o, ay_val x, double v) {
    return x == AY_NO_VALUE ? AY_NO_VALUE : ay_mscalar(o, ay_mtype(o, x)->dtype, v);
}
static ay_val add_number(ay_mop *o, ay_val x, double v) {
    return v == 0 ? x : ay_binary(G, AY_OP_ADD, x, scalar_like(o, x, v));
}
static ay_val mul_number(ay_mop *o, ay_val x, double v) {
    return v == 1 ? x : ay_binary(G, AY_OP_MUL, x, scalar_like(o, x, v));
}
static ay_val at_least(ay_mop *o, ay_val x, double v) { return ay_binary(G, AY_OP_MAX, x, scalar_like(o, x, v)); }
static ay_val at_most(ay_mop *o, ay_val x, double v) { return ay_binary(G, AY_OP_MIN, x, scalar_like(o, x, v)); }

static ay_val unary(ay_mop *o) { return ay_unary(G, (ay_op)o->row->op, ay_mnode(o, "x")); }

/* rsqrt, log and inverse add a small number first */
static ay_val unary_epsilon(ay_mop *o) {
    static const double defaults[] = {1e-12, 1e-45, 1e-4};
    ay_val x = ay_mnode(o, "x");
    x = add_number(o, x, ay_mfloat_or(o, "epsilon", defaults[o->row->arg]));
    if (o->row->op != AY_OP_DIV) return ay_unary(G, (ay_op)o->row->op, x);
    return ay_binary(G, AY_OP_DIV, scalar_like(o, x, 1), x);
}

/* arguments are fetched one by one, so that nodes come in the same order from every compiler */
static ay_val binary(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), y = ay_mnode(o, "y");
    return ay_binary(G, (ay_op)o->row->op, x, y);
}

/* real_div of integers: the quotient cut toward zero, as the declared integer type can hold it */
static ay_val divide(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), y = ay_mnode(o, "y");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_dtype t = ay_mtype(o, x)->dtype;
    bool whole = !ay_dtype_is_float(t), floored = o->row->arg;
    if (whole && floored) return ay_div(G, x, y);
    if (whole) return ay_cast(G, ay_div(G, ay_cast(G, x, AY_F32), ay_cast(G, y, AY_F32)), t);
    ay_val q = ay_div(G, x, y);
    return floored ? ay_unary(G, AY_OP_FLOOR, q) : q;
}

static ay_val where(ay_mop *o) {
    ay_val cond = ay_mnode(o, "cond"), a = ay_mnode(o, "a"), b = ay_mnode(o, "b");
    return ay_where(G, cond, a, b);
}

static ay_val square(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_mul(G, x, x);
}

static ay_val exp2_of(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_binary(G, AY_OP_POW, scalar_like(o, x, 2), x);
}

static ay_val tangent(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_div(G, ay_unary(G, AY_OP_SIN, x), ay_unary(G, AY_OP_COS, x));
}

/* sinh (sign -1) and cosh (sign 1): (e^x +- e^-x) / 2 */
static ay_val hyperbolic(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), e = ay_unary(G, AY_OP_EXP, x), i = ay_unary(G, AY_OP_EXP, mul_number(o, x, -1));
    return mul_number(o, ay_binary(G, o->row->arg > 0 ? AY_OP_ADD : AY_OP_SUB, e, i), 0.5);
}

/* log((1 + x) / (1 - x)) / 2 */
static ay_val atanh_of(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), minus = ay_sub(G, scalar_like(o, x, 1), x);
    return mul_number(o, ay_unary(G, AY_OP_LOG, ay_div(G, add_number(o, x, 1), minus)), 0.5);
}

/* A number that goes with x: coremltools leaves some of them float32 beside a float16 x. */
static ay_val beside(ay_mop *o, const char *key, ay_val x) {
    ay_val v = ay_mnode(o, key);
    return ay_mbad(o) ? AY_NO_VALUE : ay_cast(G, v, ay_mtype(o, x)->dtype);
}

static ay_val clip(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    ay_val alpha = beside(o, "alpha", x), beta = beside(o, "beta", x);
    return ay_binary(G, AY_OP_MIN, ay_binary(G, AY_OP_MAX, x, alpha), beta);
}

static ay_val threshold(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), alpha = beside(o, "alpha", x);
    return ay_binary(G, AY_OP_MAX, x, alpha);
}

static ay_val relu(ay_mop *o) {
    ay_val x = at_least(o, ay_mnode(o, "x"), 0);
    return o->row->arg ? at_most(o, x, o->row->arg) : x;
}

static ay_val gelu(ay_mop *o) {
    static const char *const modes[] = {"EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"};
    ay_val x = ay_mnode(o, "x");
    const char *mode = ay_mstring_or(o, "mode", "EXACT");
    for (int i = 0; i < 3; i++)
        if (strcmp(mode, modes[i]) == 0) return ay_gelu(G, x, (ay_gelu_mode)i);
    return ay_mfail(o, ALLOY_E_UNSUPPORTED, "mode is \"%.40s\"", mode);
}

/* log(1 + e^x), without overflow: max(x, 0) + log(1 + e^-|x|) */
static ay_val softplus_of(ay_mop *o, ay_val x) {
    ay_val e = ay_unary(G, AY_OP_EXP, mul_number(o, ay_unary(G, AY_OP_ABS, x), -1));
    return ay_add(G, at_least(o, x, 0), ay_unary(G, AY_OP_LOG, add_number(o, e, 1)));
}

static ay_val softplus(ay_mop *o) { return softplus_of(o, ay_mnode(o, "x")); }

/* a per-channel parameter [C] that broadcasts along axis 1 of x */
static ay_val channelwise(ay_mop *o, const char *key, ay_val x) {
    ay_val v = beside(o, key, x);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type *t = ay_mtype(o, x), *vt = ay_mtype(o, v);
    if (t->rank < 2 || vt->rank != 1 || vt->dim[0] != t->dim[1])
        return ay_mfail(o, ALLOY_E_MISMATCH, "%s must have one number for each of x's channels", key);
    return ay_malong(o, v, 1, t->rank);
}

static ay_val softplus_parametric(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), alpha = channelwise(o, "alpha", x), beta = channelwise(o, "beta", x);
    return ay_mul(G, softplus_of(o, ay_mul(G, x, beta)), alpha);
}

static ay_val softsign(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_div(G, x, add_number(o, ay_unary(G, AY_OP_ABS, x), 1));
}

/* max(x, 0) + alpha * min(x, 0): leaky_relu (alpha a number) and prelu (alpha per channel) */
static ay_val leaky(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), alpha = o->row->arg ? channelwise(o, "alpha", x) : beside(o, "alpha", x);
    return ay_add(G, at_least(o, x, 0), ay_mul(G, at_most(o, x, 0), alpha));
}

static ay_val clamped_relu(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), beta = beside(o, "beta", x);
    ay_val up = ay_binary(G, AY_OP_MIN, at_least(o, x, 0), beta);
    return ay_add(G, up, ay_binary(G, AY_OP_MIN, ay_mul(G, at_most(o, x, 0), beside(o, "alpha", x)), beta));
}

/* max(x, 0) + alpha * (e^min(x, 0) - 1) */
static ay_val elu(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), e = add_number(o, ay_unary(G, AY_OP_EXP, at_most(o, x, 0)), -1);
    return ay_add(G, at_least(o, x, 0), ay_mul(G, e, beside(o, "alpha", x)));
}

static ay_val thresholded_relu(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_where(G, ay_binary(G, AY_OP_GE, x, beside(o, "alpha", x)), x, scalar_like(o, x, 0));
}

/* linear_activation x * alpha + beta; sigmoid_hard clamps it to [0, 1] */
static ay_val linear_activation(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), y = ay_add(G, ay_mul(G, x, beside(o, "alpha", x)), beside(o, "beta", x));
    return o->row->arg ? at_most(o, at_least(o, y, 0), 1) : y;
}

static ay_val scaled_tanh(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), beta = beside(o, "beta", x);
    return ay_mul(G, ay_unary(G, AY_OP_TANH, ay_mul(G, x, beta)), beside(o, "alpha", x));
}

static ay_val cast(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    const char *name = ay_mstring_or(o, "dtype", NULL);
    const ay_mil_dtype *row = ay_mil_by_name(name);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (!row) return ay_mfail(o, ALLOY_E_UNSUPPORTED, "dtype is \"%.40s\"", name);
    return ay_mcast(o, x, row->dtype);
}

static ay_val identity(ay_mop *o) {
    ay_mvalue *v = ay_marg(o, "x");
    if (!v) return AY_NO_VALUE;
    const char *name = o->out[0].name;
    if (o->n_out) o->out[0] = *v, o->out[0].name = name;
    return AY_NO_VALUE;
}

/* ---- quantize and dequantize of activations ---------------------------------------------------------------------- */

/* scale or zero point as something that broadcasts with x: a number, or a vector along `axis` */
static ay_val broadcastable(ay_mop *o, ay_val v, ay_val x) {
    if (ay_mbad(o) || v == AY_NO_VALUE) return v;
    const ay_type *t = ay_mtype(o, v), *xt = ay_mtype(o, x);
    if (t->rank == 0) return v;
    int axis = ay_maxis(o, "axis", ay_mint(o, "axis"), xt->rank);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (t->rank != 1 || t->dim[0] != xt->dim[axis])
        return ay_mfail(o, ALLOY_E_MISMATCH, "scale and zero_point must be numbers or vectors of length %lld",
                        (long long)xt->dim[axis]);
    return ay_malong(o, v, axis, xt->rank);
}

static ay_val quantize(ay_mop *o) {
    ay_val x = ay_mnode(o, "input"), scale = broadcastable(o, ay_mnode(o, "scale"), x);
    ay_val zero = broadcastable(o, ay_mnode_opt(o, "zero_point"), x);
    const char *name = ay_mstring_or(o, "output_dtype", NULL);
    const ay_mil_dtype *row = ay_mil_by_name(name);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (!row || (row->dtype != AY_I8 && row->dtype != AY_U8))
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "output_dtype is \"%.40s\"", name);
    ay_dtype t = ay_mtype(o, x)->dtype;
    ay_val q = ay_unary(G, AY_OP_ROUND, ay_div(G, x, ay_cast(G, scale, t)));
    if (zero != AY_NO_VALUE) q = ay_add(G, q, ay_cast(G, zero, t));
    bool is_signed = row->dtype == AY_I8;
    return ay_cast(G, at_most(o, at_least(o, q, is_signed ? -128 : 0), is_signed ? 127 : 255), row->dtype);
}

static ay_val dequantize(ay_mop *o) {
    ay_val x = ay_mnode(o, "input"), scale = ay_mnode(o, "scale"), zero = ay_mnode_opt(o, "zero_point");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr at = {0};
    const ay_type *xt = ay_mtype(o, x);
    if (ay_mtype(o, scale)->rank) at.axis = ay_maxis(o, "axis", ay_mint(o, "axis"), xt->rank);
    if (zero != AY_NO_VALUE && ay_mtype(o, zero)->rank != ay_mtype(o, scale)->rank) { /* a zero point of another shape */
        ay_dtype t = ay_mtype(o, scale)->dtype;
        ay_val z = ay_cast(G, broadcastable(o, zero, x), t);
        return ay_mul(G, ay_sub(G, ay_cast(G, x, t), z), broadcastable(o, scale, x));
    }
    ay_val in[3] = {x, scale, zero};
    return ay_node_add(G, AY_OP_DEQUANT, in, zero == AY_NO_VALUE ? 2 : 3, &at, NULL);
}

static const ay_mrow rows[] = {
    {"abs", unary, AY_OP_ABS, 0},
    {"exp", unary, AY_OP_EXP, 0},
    {"sqrt", unary, AY_OP_SQRT, 0},
    {"sin", unary, AY_OP_SIN, 0},
    {"cos", unary, AY_OP_COS, 0},
    {"tanh", unary, AY_OP_TANH, 0},
    {"erf", unary, AY_OP_ERF, 0},
    {"floor", unary, AY_OP_FLOOR, 0},
    {"ceil", unary, AY_OP_CEIL, 0},
    {"round", unary, AY_OP_ROUND, 0},
    {"sign", unary, AY_OP_SIGN, 0},
    {"logical_not", unary, AY_OP_NOT, 0},
    {"sigmoid", unary, AY_OP_SIGMOID, 0},
    {"silu", unary, AY_OP_SILU, 0},
    {"rsqrt", unary_epsilon, AY_OP_RSQRT, 0},
    {"log", unary_epsilon, AY_OP_LOG, 1},
    {"inverse", unary_epsilon, AY_OP_DIV, 2},
    {"square", square, 0, 0},
    {"exp2", exp2_of, 0, 0},
    {"tan", tangent, 0, 0},
    {"sinh", hyperbolic, 0, -1},
    {"cosh", hyperbolic, 0, 1},
    {"atanh", atanh_of, 0, 0},
    {"add", binary, AY_OP_ADD, 0},
    {"sub", binary, AY_OP_SUB, 0},
    {"mul", binary, AY_OP_MUL, 0},
    {"mod", binary, AY_OP_MOD, 0},
    {"maximum", binary, AY_OP_MAX, 0},
    {"minimum", binary, AY_OP_MIN, 0},
    {"pow", binary, AY_OP_POW, 0},
    {"real_div", divide, 0, 0},
    {"floor_div", divide, 0, 1},
    {"equal", binary, AY_OP_EQ, 0},
    {"not_equal", binary, AY_OP_NE, 0},
    {"less", binary, AY_OP_LT, 0},
    {"less_equal", binary, AY_OP_LE, 0},
    {"greater", binary, AY_OP_GT, 0},
    {"greater_equal", binary, AY_OP_GE, 0},
    {"logical_and", binary, AY_OP_AND, 0},
    {"logical_or", binary, AY_OP_OR, 0},
    {"logical_xor", binary, AY_OP_XOR, 0},
    {"select", where, 0, 0},
    {"clip", clip, 0, 0},
    {"threshold", threshold, 0, 0},
    {"relu", relu, 0, 0},
    {"relu6", relu, 0, 6},
    {"gelu", gelu, 0, 0},
    {"softplus", softplus, 0, 0},
    {"softplus_parametric", softplus_parametric, 0, 0},
    {"softsign", softsign, 0, 0},
    {"leaky_relu", leaky, 0, 0},
    {"prelu", leaky, 0, 1},
    {"clamped_relu", clamped_relu, 0, 0},
    {"elu", elu, 0, 0},
    {"thresholded_relu", thresholded_relu, 0, 0},
    {"linear_activation", linear_activation, 0, 0},
    {"sigmoid_hard", linear_activation, 0, 1},
    {"scaled_tanh", scaled_tanh, 0, 0},
    {"cast", cast, 0, 0},
    {"identity", identity, 0, 0},
    {"quantize", quantize, 0, 0},
    {"dequantize", dequantize, 0, 0},
};
const ay_mtable ay_read_elementwise = {rows, sizeof rows / sizeof *rows};
