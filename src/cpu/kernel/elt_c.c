/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels in portable C.
 */
#include "base/half.h"
#include "cpu/kernel/act.h"
#include "cpu/kernel/rows.h"

#define ROW2(name, expr)                                                                                               \
    static void name(int64_t n, const float *x, const float *y, float *out) {                                         \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            float a = x[i], b = y[i];                                                                                  \
            (void)b;                                                                                                   \
            out[i] = (expr);                                                                                           \
        }                                                                                                              \
    }
ROW2(add, a + b)
ROW2(sub, a - b)
ROW2(mul, a *b)
ROW2(divide, a / b)
ROW2(max2, a > b || a != a ? a : b)
ROW2(min2, a < b || a != a ? a : b)
ROW2(power, powf(a, b))
ROW2(mod, a - floorf(a / b) * b)
ROW2(copy, a)
ROW2(absolute, fabsf(a))
ROW2(exp1, expf(a))
ROW2(log1, logf(a))
ROW2(sqrt1, sqrtf(a))
ROW2(rsqrt1, 1.0f / sqrtf(a))
ROW2(sin1, sinf(a))
ROW2(cos1, cosf(a))
ROW2(tanh1, tanhf(a))
ROW2(erf1, erff(a))
ROW2(floor1, floorf(a))
ROW2(ceil1, ceilf(a))
ROW2(round1, rintf(a))
ROW2(sign1, a > 0 ? 1.0f : a < 0 ? -1.0f : a)
ROW2(sigmoid, ay_sigmoid1(a))
ROW2(silu, ay_act1(AY_ACT_SILU, a))
ROW2(gelu_exact, ay_act1(AY_ACT_GELU_ERF, a))
ROW2(gelu_tanh, ay_act1(AY_ACT_GELU_TANH, a))
ROW2(gelu_sigmoid, ay_act1(AY_ACT_GELU_SIGMOID, a))

static void gated(ay_act act, int64_t n, const float *x, const float *y, float *out) {
    for (int64_t i = 0; i < n; i++) out[i] = ay_act1(act, x[i]) * y[i];
}

static int64_t round_f16(int64_t n, float *x) {
    int64_t over = 0;
    for (int64_t i = 0; i < n; i++) {
        float r = ay_f16_to_f32(ay_f32_to_f16(x[i]));
        over += isinf(r) && !isinf(x[i]);
        x[i] = r;
    }
    return over;
}

const ay_elt_row ay_elt_row_c = {
    "elt_c",
    AY_ISA_C,
    {[AY_ELT_ADD] = add, [AY_ELT_SUB] = sub, [AY_ELT_MUL] = mul, [AY_ELT_DIV] = divide, [AY_ELT_MAX] = max2, [AY_ELT_MIN] = min2,
     [AY_ELT_POW] = power, [AY_ELT_MOD] = mod, [AY_ELT_COPY] = copy, [AY_ELT_ABS] = absolute, [AY_ELT_EXP] = exp1, [AY_ELT_LOG] = log1,
     [AY_ELT_SQRT] = sqrt1, [AY_ELT_RSQRT] = rsqrt1, [AY_ELT_SIN] = sin1, [AY_ELT_COS] = cos1, [AY_ELT_TANH] = tanh1, [AY_ELT_ERF] = erf1,
     [AY_ELT_FLOOR] = floor1, [AY_ELT_CEIL] = ceil1, [AY_ELT_ROUND] = round1, [AY_ELT_SIGN] = sign1, [AY_ELT_SIGMOID] = sigmoid,
     [AY_ELT_SILU] = silu, [AY_ELT_GELU_EXACT] = gelu_exact, [AY_ELT_GELU_TANH] = gelu_tanh, [AY_ELT_GELU_SIGMOID] = gelu_sigmoid},
    gated,
    round_f16,
};
