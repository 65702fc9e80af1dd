/* SPDX-License-Identifier: MIT
 *
 * Rows of numbers over simd.h: moments, what follows from them, softmax, rotary embedding.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/vmath.h"

#include <math.h>

enum { CHUNK = 4096 }; /* numbers summed in float before double takes over: half of a first cache */

AY_INLINE vf lanes(const float *p, int n) { return n == VL ? v_load(p) : v_loadn(p, n); }
AY_INLINE void put(float *p, vf v, int n) {
    if (n == VL) v_store(p, v);
    else v_storen(p, v, n);
}

static double sum(int64_t n, const float *x) {
    vf s[4];
    int64_t i = 0;
    AY_UNROLL for (int j = 0; j < 4; j++) s[j] = v_set(0);
    for (; i + 4 * VL <= n; i += 4 * VL) {
        AY_UNROLL for (int j = 0; j < 4; j++) s[j] = v_add(s[j], v_load(x + i + j * VL));
    }
    for (; i + VL <= n; i += VL) s[0] = v_add(s[0], v_load(x + i));
    if (i < n) s[1] = v_add(s[1], v_loadn(x + i, (int)(n - i)));
    return (double)v_hsum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

/** Sums of (x - m) and of its square: the first corrects what rounding m left out of the second. */
static void spread(int64_t n, const float *x, float m, double *first, double *second) {
    vf s[4], q[4], mv = v_set(m);
    int64_t i = 0;
    AY_UNROLL for (int j = 0; j < 4; j++) s[j] = q[j] = v_set(0);
    for (; i + 4 * VL <= n; i += 4 * VL) {
        AY_UNROLL for (int j = 0; j < 4; j++) {
            vf d = v_sub(v_load(x + i + j * VL), mv);
            s[j] = v_add(s[j], d);
            q[j] = v_fma(d, d, q[j]);
        }
    }
    *first = (double)v_hsum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
    *second = (double)v_hsum(v_add(v_add(q[0], q[1]), v_add(q[2], q[3])));
    for (; i < n; i++) {
        double d = (double)(x[i] - m);
        *first += d;
        *second += d * d;
    }
}

static void moments(bool rms, int64_t n, const float *x, double *mean, double *squares) {
    double m = 0, m2 = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t c = n - at < CHUNK ? n - at : CHUNK;
        float near = rms ? 0.0f : (float)(sum(c, x + at) / (double)c);
        double first, second;
        spread(c, x + at, near, &first, &second);
        if (rms) {
            m2 += second;
            continue;
        }
        double cm = (double)near + first / (double)c, cm2 = second - first * first / (double)c, apart = cm - m;
        m += apart * (double)c / (double)(at + c); /* Chan, Golub and LeVeque: joining two sets of moments */
        m2 += cm2 + apart * apart * (double)at * (double)c / (double)(at + c);
    }
    *mean = m;
    *squares = m2;
}

AY_INLINE void affine_at(const ay_affine *a, const bool wb, const bool mod, int64_t i, int n, const float *x, float *y) {
    vf v = v_mul(v_sub(lanes(x + i, n), v_set(a->mean)), v_set(a->by));
    if (wb && a->w) v = v_mul(v, lanes(a->w + i, n));
    if (wb && a->b) v = v_add(v, lanes(a->b + i, n));
    if (mod && a->scale) v = v_mul(v, v_add(lanes(a->scale + i, n), v_set(a->one)));
    if (mod && a->shift) v = v_add(v, lanes(a->shift + i, n));
    put(y + i, v, n);
}

/* What is read next is fetched meanwhile: else reading and writing would take turns. */
AY_INLINE void affine_as(const ay_affine *a, const bool wb, const bool mod, int64_t n, const float *x, float *y) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        if (a->next) __builtin_prefetch(a->next + i);
        affine_at(a, wb, mod, i, VL, x, y);
    }
    if (i < n) affine_at(a, wb, mod, i, (int)(n - i), x, y);
}

static void affine(const ay_affine *a, int64_t n, const float *x, float *y) {
    bool wb = a->w || a->b, mod = a->scale || a->shift;
    if (wb && mod) affine_as(a, true, true, n, x, y);
    else if (mod) affine_as(a, false, true, n, x, y);
    else affine_as(a, true, false, n, x, y);
}

AY_INLINE void scaled_as(const ay_act act, int64_t n, const float *x, float w, float b, float *y) {
    vf wv = v_set(w), bv = v_set(b);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(y + i, v_act(act, v_fma(v_load(x + i), wv, bv)));
    if (i < n) v_storen(y + i, v_act(act, v_fma(v_loadn(x + i, (int)(n - i)), wv, bv)), (int)(n - i));
}

static void scaled(ay_act act, int64_t n, const float *x, float w, float b, float *y) {
    switch (act) {
    case AY_ACT_NONE: scaled_as(AY_ACT_NONE, n, x, w, b, y); return;
    case AY_ACT_GELU_TANH: scaled_as(AY_ACT_GELU_TANH, n, x, w, b, y); return;
    case AY_ACT_GELU_ERF: scaled_as(AY_ACT_GELU_ERF, n, x, w, b, y); return;
    case AY_ACT_GELU_SIGMOID: scaled_as(AY_ACT_GELU_SIGMOID, n, x, w, b, y); return;
    case AY_ACT_SILU: scaled_as(AY_ACT_SILU, n, x, w, b, y); return;
    case AY_ACT_RELU: scaled_as(AY_ACT_RELU, n, x, w, b, y); return;
    case AY_ACT_SIGMOID: scaled_as(AY_ACT_SIGMOID, n, x, w, b, y); return;
    case AY_ACT_TANH: scaled_as(AY_ACT_TANH, n, x, w, b, y); return;
    }
}

static void softmax(int64_t n, const float *x, float *y) {
    vf t = v_set(-INFINITY), s[2] = {v_set(0), v_set(0)};
    float top = -INFINITY, rest = 0;
    int64_t i = 0;
    for (; i + VL <= n; i += VL) t = v_max(t, v_load(x + i));
    top = v_hmax(t);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    vf tv = v_set(top);
    for (i = 0; i + 2 * VL <= n; i += 2 * VL) {
        vf a = v_exp(v_sub(v_load(x + i), tv)), b = v_exp(v_sub(v_load(x + i + VL), tv));
        v_store(y + i, a);
        v_store(y + i + VL, b);
        s[0] = v_add(s[0], a);
        s[1] = v_add(s[1], b);
    }
    for (; i < n; i += VL) {
        int left = n - i < VL ? (int)(n - i) : VL;
        put(y + i, v_exp(v_sub(lanes(x + i, left), tv)), left);
        for (int j = 0; j < left; j++) rest += y[i + j];
    }
    vf by = v_set(1.0f / (v_hsum(v_add(s[0], s[1])) + rest));
    for (i = 0; i + VL <= n; i += VL) v_store(y + i, v_mul(v_load(y + i), by));
    if (i < n) v_storen(y + i, v_mul(v_loadn(y + i, (int)(n - i)), by), (int)(n - i));
}

static void rope_pairs(int64_t d, const float *x, const float *c, const float *s, float *out) {
    int64_t i = 0;
#if VL > 1
    for (; i + VL <= d; i += VL) {
        vf v = v_load(x + i);
        v_store(out + i, v_fma(v_turn_pairs(v), v_load(s + i), v_mul(v, v_load(c + i))));
    }
#endif
    for (; i + 1 < d; i += 2) {
        float a = x[i], b = x[i + 1];
        out[i] = a * c[i] - b * s[i];
        out[i + 1] = b * c[i + 1] + a * s[i + 1];
    }
}

static void rope_halves(int64_t d, const float *x, const float *c, const float *s, float *out) {
    int64_t i = 0, h = d / 2;
    for (; i + VL <= h; i += VL) {
        vf a = v_load(x + i), b = v_load(x + h + i);
        v_store(out + i, v_fnma(b, v_load(s + i), v_mul(a, v_load(c + i))));
        v_store(out + h + i, v_fma(a, v_load(s + h + i), v_mul(b, v_load(c + h + i))));
    }
    for (; i < h; i++) {
        float a = x[i], b = x[h + i];
        out[i] = a * c[i] - b * s[i];
        out[h + i] = b * c[h + i] + a * s[h + i];
    }
}
