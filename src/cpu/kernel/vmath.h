/* SPDX-License-Identifier: MIT
 *
 * Elementary functions over simd.h's vectors, each within about two units in the last place where nothing else is said.
 * The polynomials are our own least-squares fits at Chebyshev nodes. NaN goes through; infinities give the limits.
 */
#ifndef AY_KERNEL_VMATH_H
#define AY_KERNEL_VMATH_H

#include "cpu/kernel/kernel.h"
#include "cpu/kernel/simd.h"

/** e^x: n = round(x / ln 2), a polynomial on the rest, times 2^n. */
AY_INLINE vf v_exp(vf x) {
    vf y = v_min(v_set(89.0f), v_max(v_set(-104.0f), x));
    vf n = v_rint(v_mul(y, v_set(1.44269504f)));
    vf r = v_fnma(n, v_set(0.693359375f), y);
    r = v_fnma(n, v_set(-2.12194440e-4f), r);
    vf p = v_set(1.991808629e-04f);
    p = v_fma(p, r, v_set(1.394725682e-03f));
    p = v_fma(p, r, v_set(8.333265160e-03f));
    p = v_fma(p, r, v_set(4.166625315e-02f));
    p = v_fma(p, r, v_set(1.666666686e-01f));
    p = v_fma(p, r, v_set(5.000000083e-01f));
    p = v_add(v_fma(v_mul(r, r), p, r), v_set(1.0f));
    return v_ldexp(p, n);
}

/** 2^y of y <= 0, for weights that are summed: 1 of 0, 0 of -infinity, and below 2^-126 perhaps 0. */
AY_INLINE vf v_exp2_down(vf y) {
    vf r = v_fraction(y), p = v_set(1.866952633e-03f);
    p = v_fma(p, r, v_set(9.017480537e-03f));
    p = v_fma(p, r, v_set(5.579951406e-02f));
    p = v_fma(p, r, v_set(2.401645929e-01f));
    p = v_fma(p, r, v_set(6.931512952e-01f));
    p = v_fma(p, r, v_set(1.0f));
    return v_ldexp_down(p, y);
}

AY_INLINE vf v_sigmoid(vf x) { return v_div(v_set(1.0f), v_add(v_set(1.0f), v_exp(v_sub(v_set(0.0f), x)))); }

/** An odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel. */
AY_INLINE vf v_tanh(vf x) {
    vf a = v_abs(x), s = v_mul(x, x);
    vf p = v_set(-5.709477751e-03f);
    p = v_fma(p, s, v_set(2.064411690e-02f));
    p = v_fma(p, s, v_set(-5.374161620e-02f));
    p = v_fma(p, s, v_set(1.333147008e-01f));
    p = v_fma(p, s, v_set(-3.333328320e-01f));
    p = v_fma(v_mul(p, s), x, x);
    vf big = v_sub(v_set(1.0f), v_div(v_set(2.0f), v_add(v_exp(v_add(a, a)), v_set(1.0f))));
    return v_sel(v_lt(a, v_set(0.625f)), p, v_sel(v_isnan(x), x, v_copysign(big, x)));
}

/** An odd polynomial below 0.92; above, 1 - e^-q(|x|) with q fitted to -ln(erfc). */
AY_INLINE vf v_erf(vf x) {
    vf a = v_min(v_set(4.0f), v_abs(x)), s = v_mul(a, a);
    vf p = v_set(-5.976890567e-04f);
    p = v_fma(p, s, v_set(4.990979556e-03f));
    p = v_fma(p, s, v_set(-2.676556647e-02f));
    p = v_fma(p, s, v_set(1.128180276e-01f));
    p = v_fma(p, s, v_set(-3.761249432e-01f));
    p = v_fma(p, s, v_set(1.283791500e-01f));
    p = v_fma(p, x, x);
    vf q = v_set(2.090967612e-05f);
    q = v_fma(q, a, v_set(-4.323043177e-04f));
    q = v_fma(q, a, v_set(4.160532973e-03f));
    q = v_fma(q, a, v_set(-2.509151156e-02f));
    q = v_fma(q, a, v_set(1.082366408e-01f));
    q = v_fma(q, a, v_set(6.333866283e-01f));
    q = v_fma(q, a, v_set(1.129495168e+00f));
    q = v_fma(q, a, v_set(-1.705536787e-04f));
    vf big = v_copysign(v_sub(v_set(1.0f), v_exp(v_sub(v_set(0.0f), q))), x);
    return v_sel(v_lt(a, v_set(0.92f)), p, v_sel(v_isnan(x), x, big));
}

#define V_WAVE_LIMIT 1e5f
/** sin(x + quarters * pi / 2) for |x| below V_WAVE_LIMIT, where v_fma rounds once: the first difference is exact then, and pi / 2
 *  in three parts leaves nothing that shows. */
AY_INLINE vf v_wave(vf x, const float quarters) {
    vf n = v_rint(v_mul(x, v_set(0.636619772f)));
    vf r = v_fnma(n, v_set(0x1.921fb6p+0f), x);
    r = v_fnma(n, v_set(-0x1.777a5cp-25f), r);
    r = v_fnma(n, v_set(-0x1.ee59dap-50f), r);
    vf s = v_mul(r, r), odd = v_set(-1.950291522e-04f), even = v_set(2.442118357e-05f);
    odd = v_fma(odd, s, v_set(8.332070036e-03f));
    odd = v_fma(odd, s, v_set(-1.666665317e-01f));
    odd = v_fma(v_mul(odd, s), r, r);
    even = v_fma(even, s, v_set(-1.388721456e-03f));
    even = v_fma(even, s, v_set(4.166664367e-02f));
    even = v_fma(v_mul(even, s), s, v_fma(v_set(-0.5f), s, v_set(1.0f)));
    vf q = v_add(n, v_set(quarters)), half = v_floor(v_mul(q, v_set(0.5f))); /* q = 2 * half + (0 or 1) */
    vf turn = v_sub(half, v_mul(v_set(2.0f), v_floor(v_mul(half, v_set(0.5f)))));
    vf y = v_sel(v_lt(v_add(half, half), q), even, odd);
    return v_sel(v_lt(v_set(0.5f), turn), v_sub(v_set(0.0f), y), y);
}

AY_INLINE vf v_silu(vf x) { return v_div(x, v_add(v_set(1.0f), v_exp(v_sub(v_set(0.0f), x)))); }

/** x * p(x^2) / q(x^2), fitted to an odd function between -limit and limit, where it comes out as 1 exactly, rounded once or
 *  twice. The coefficients, highest first, are all positive, so nothing cancels: within three units in the last place, for a
 *  third of the time of what is within two. */
AY_INLINE vf v_ratio(vf x, const float limit, const int degree, const float *p, const float *q) {
    vf y = v_min(v_set(limit), v_max(v_set(-limit), x)), s = v_mul(y, y), over = v_set(p[0]), under = v_set(q[0]);
    AY_UNROLL for (int i = 1; i <= degree; i++) {
        over = v_fma(over, s, v_set(p[i]));
        under = v_fma(under, s, v_set(q[i]));
    }
    return v_div(v_mul(y, over), under);
}

/* To the ratio 1 is added, so what matters is the error beside 1. */
AY_INLINE vf v_gelu_tanh(vf x) {
    static const float p[] = {1.335510033e-08f, 2.060943417e-05f, 3.495610997e-03f, 1.338104536e-01f, 9.999999794e-01f};
    static const float q[] = {7.776748329e-07f, 3.285671184e-04f, 2.587707067e-02f, 4.671436096e-01f, 1.0f};
    vf u = v_mul(v_set(0.7978845608f), v_fma(v_mul(v_set(0.044715f), v_mul(x, x)), x, x));
    vf h = v_mul(v_set(0.5f), x);
    return v_fma(h, v_ratio(u, 8.75f, 4, p, q), h);
}

AY_INLINE vf v_gelu_erf(vf x) {
    static const float p[] = {1.986669140e-06f, 2.845658508e-04f, 3.883594855e-03f, 5.310257493e-02f, 1.935516650e-01f, 1.128379139e+00f};
    static const float q[] = {3.741897301e-05f, 1.185619740e-03f, 1.520778562e-02f, 1.153526813e-01f, 5.048632541e-01f, 1.0f};
    vf h = v_mul(v_set(0.5f), x);
    return v_fma(h, v_ratio(v_mul(x, v_set(0.7071067812f)), 4.0f, 5, p, q), h);
}

AY_INLINE vf v_gelu_sigmoid(vf x) { return v_div(x, v_add(v_set(1.0f), v_exp(v_mul(v_set(-1.702f), x)))); }
AY_INLINE vf v_relu(vf x) { return v_sel(v_lt(x, v_set(0.0f)), v_set(0.0f), x); }

AY_INLINE vf v_act(const ay_act act, vf x) {
    switch (act) {
    case AY_ACT_NONE: return x;
    case AY_ACT_GELU_TANH: return v_gelu_tanh(x);
    case AY_ACT_GELU_ERF: return v_gelu_erf(x);
    case AY_ACT_GELU_SIGMOID: return v_gelu_sigmoid(x);
    case AY_ACT_SILU: return v_silu(x);
    case AY_ACT_RELU: return v_relu(x);
    case AY_ACT_SIGMOID: return v_sigmoid(x);
    case AY_ACT_TANH: return v_tanh(x);
    }
    return x;
}

#endif
