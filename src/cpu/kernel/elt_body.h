/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels over simd.h and vmath.h. The last few numbers of a row go through the same vector code as the rest,
 * so that a result does not depend on where in a row its number stands.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/vmath.h"

#include <math.h>

#define VECTOR(name, expr)                                                                                                  \
    AY_INLINE vf name##_v(vf a, vf b) {                                                                                     \
        (void)b;                                                                                                            \
        return (expr);                                                                                                      \
    }                                                                                                                       \
    static void name(int64_t n, const float *x, const float *y, float *out) {                                               \
        int64_t i = 0;                                                                                                      \
        for (; i + VL <= n; i += VL) v_store(out + i, name##_v(v_load(x + i), v_load(y + i)));                              \
        if (i < n) v_storen(out + i, name##_v(v_loadn(x + i, (int)(n - i)), v_loadn(y + i, (int)(n - i))), (int)(n - i));   \
    }
#define SCALAR(name, expr)                                                                                                  \
    static void name(int64_t n, const float *x, const float *y, float *out) {                                               \
        for (int64_t i = 0; i < n; i++) {                                                                                   \
            float a = x[i], b = y[i];                                                                                       \
            (void)b;                                                                                                        \
            out[i] = (expr);                                                                                                \
        }                                                                                                                   \
    }

VECTOR(add, v_add(a, b))
VECTOR(subtract, v_sub(a, b))
VECTOR(multiply, v_mul(a, b))
VECTOR(divide, v_div(a, b))
VECTOR(larger, v_sel(v_or(v_lt(b, a), v_isnan(a)), a, b)) /* NaN in either goes through */
VECTOR(smaller, v_sel(v_or(v_lt(a, b), v_isnan(a)), a, b))
VECTOR(mod, v_sub(a, v_mul(v_floor(v_div(a, b)), b)))
VECTOR(copy, a)
VECTOR(absolute, v_abs(a))
VECTOR(exponential, v_exp(a))
VECTOR(root, v_sqrt(a))
VECTOR(rroot, v_div(v_set(1.0f), v_sqrt(a)))
VECTOR(tangent, v_tanh(a))
VECTOR(error, v_erf(a))
VECTOR(down, v_floor(a))
VECTOR(up, v_ceil(a))
VECTOR(nearest, v_rint(a))
VECTOR(sign, v_sel(v_lt(v_set(0), a), v_set(1), v_sel(v_lt(a, v_set(0)), v_set(-1), a)))
VECTOR(sigmoid, v_sigmoid(a))
VECTOR(silu, v_silu(a))
VECTOR(gelu_exact, v_gelu_erf(a))
VECTOR(gelu_tanh, v_gelu_tanh(a))
VECTOR(gelu_sigmoid, v_gelu_sigmoid(a))
SCALAR(power, powf(a, b)) /* the C library's: exact argument reduction, and never where the time goes */
SCALAR(logarithm, logf(a))

/** Sines from `quarters` quarter turns on; the C library's for large numbers, and where nothing rounds once. */
AY_INLINE void waves(const float quarters, float (*exact)(float), int64_t n, const float *x, float *out) {
    vf limit = v_set(V_WAVE_LIMIT);
    for (int64_t i = 0; i < n; i += VL) {
        int lanes = n - i < VL ? (int)(n - i) : VL;
        vf v = lanes == VL ? v_load(x + i) : v_loadn(x + i, lanes), y = v;
        if (VL > 1) y = v_wave(v, quarters);
        if (VL > 1 && v_count(v_lt(v_abs(v), limit)) == VL) {
            if (lanes == VL) v_store(out + i, y);
            else v_storen(out + i, y, lanes);
            continue;
        }
        float from[VL], to[VL];
        v_store(from, v);
        v_store(to, y);
        for (int k = 0; k < lanes; k++) out[i + k] = VL > 1 && fabsf(from[k]) < V_WAVE_LIMIT ? to[k] : exact(from[k]);
    }
}
static void sine(int64_t n, const float *x, const float *y, float *out) { waves(0, sinf, n, x, out); }
static void cosine(int64_t n, const float *x, const float *y, float *out) { waves(1, cosf, n, x, out); }

AY_INLINE void gated_as(const ay_act act, int64_t n, const float *x, const float *y, float *out) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(out + i, v_mul(v_act(act, v_load(x + i)), v_load(y + i)));
    if (i < n) {
        int left = (int)(n - i);
        v_storen(out + i, v_mul(v_act(act, v_loadn(x + i, left)), v_loadn(y + i, left)), left);
    }
}

static void gated(ay_act act, int64_t n, const float *x, const float *y, float *out) {
    switch (act) {
    case AY_ACT_NONE: gated_as(AY_ACT_NONE, n, x, y, out); return;
    case AY_ACT_GELU_TANH: gated_as(AY_ACT_GELU_TANH, n, x, y, out); return;
    case AY_ACT_GELU_ERF: gated_as(AY_ACT_GELU_ERF, n, x, y, out); return;
    case AY_ACT_GELU_SIGMOID: gated_as(AY_ACT_GELU_SIGMOID, n, x, y, out); return;
    case AY_ACT_SILU: gated_as(AY_ACT_SILU, n, x, y, out); return;
    case AY_ACT_RELU: gated_as(AY_ACT_RELU, n, x, y, out); return;
    case AY_ACT_SIGMOID: gated_as(AY_ACT_SIGMOID, n, x, y, out); return;
    case AY_ACT_TANH: gated_as(AY_ACT_TANH, n, x, y, out); return;
    }
}

/** Finite before, not below infinity after. */
AY_INLINE int overflowed(vf before, vf after) {
    vf inf = v_set(INFINITY);
    return v_count(v_andnot(v_lt(v_abs(after), inf), v_lt(v_abs(before), inf)));
}

static int64_t round_f16(int64_t n, float *x) {
    int64_t over = 0, i = 0;
    for (; i + VL <= n; i += VL) {
        vf v = v_load(x + i), r = v_round_f16(v);
        over += overflowed(v, r);
        v_store(x + i, r);
    }
    if (i < n) {
        vf v = v_loadn(x + i, (int)(n - i)), r = v_round_f16(v);
        over += overflowed(v, r);
        v_storen(x + i, r, (int)(n - i));
    }
    return over;
}

#define ELT_FUNCTIONS                                                                                                       \
    {                                                                                                                       \
        [AY_ELT_ADD] = add, [AY_ELT_SUB] = subtract, [AY_ELT_MUL] = multiply, [AY_ELT_DIV] = divide, [AY_ELT_MAX] = larger, \
        [AY_ELT_MIN] = smaller, [AY_ELT_POW] = power, [AY_ELT_MOD] = mod, [AY_ELT_COPY] = copy, [AY_ELT_ABS] = absolute,    \
        [AY_ELT_EXP] = exponential, [AY_ELT_LOG] = logarithm, [AY_ELT_SQRT] = root, [AY_ELT_RSQRT] = rroot,                 \
        [AY_ELT_SIN] = sine, [AY_ELT_COS] = cosine, [AY_ELT_TANH] = tangent, [AY_ELT_ERF] = error, [AY_ELT_FLOOR] = down,   \
        [AY_ELT_CEIL] = up, [AY_ELT_ROUND] = nearest, [AY_ELT_SIGN] = sign, [AY_ELT_SIGMOID] = sigmoid,                     \
        [AY_ELT_SILU] = silu, [AY_ELT_GELU_EXACT] = gelu_exact, [AY_ELT_GELU_TANH] = gelu_tanh,                             \
        [AY_ELT_GELU_SIGMOID] = gelu_sigmoid                                                                                \
    }
