/* SPDX-License-Identifier: MIT
 *
 * The search for the best scale of a run of numbers, over vectors of V floats that the including file defines by macros:
 * VEC, V, LOAD STORE SET ADD SUB MUL DIV MIN MAX ABS ROUND, and IF_ABOVE(a, b, x, y): x where a > b, else y. No operation is
 * contracted or reordered, so every level gives the same bits: int4 has one run in each lane, and int8 always sums over 16
 * lanes whatever the vector's width.
 *
 * For codes q the best scale is A / B with A = sum x q, B = sum q q, and removes A^2 / B of the squared error. So a handful
 * of trial scales give codes, the codes with the largest A^2 / B win, and their A / B is what is rounded and stored.
 * Trials for int4 put the largest value, with its sign, at -6.9 to -9.4: eight of them come within 0.1 % of the error of
 * a dense search on normal, Laplace and Student t numbers (tests/reference/quantize.py prints the comparison).
 */
#include "quant/quantize.h"

#include <math.h>
#include <string.h>

enum { LANES = 16, TRIALS = 8 };

/* ---- int4: a run in each lane -------------------------------------------------------------------------------------- */

/* t: [len][V], one run in each lane; the code of x at scale 1 / inv */
#define CODE4(x, inv) ROUND(MIN(MAX(MUL(x, inv), SET(-8)), SET(7)))

static void search4(const float *t, int64_t len, float *scale) {
    VEC largest = SET(0), zero = SET(0);
    for (int64_t i = 0; i < len; i++) {
        VEC x = LOAD(t + i * V);
        largest = IF_ABOVE(ABS(x), ABS(largest), x, largest);
    }
    largest = IF_ABOVE(ABS(largest), SET(1e-30f), largest, SET(1)); /* nearly nothing becomes nothing */
    VEC best = SET(-1), chosen = SET(0);
    for (int k = 0; k < TRIALS; k++) {
        VEC inv = DIV(SET(-(6.9f + 2.5f / (TRIALS - 1) * (float)k)), largest), a = zero, b = zero;
        for (int64_t i = 0; i < len; i++) {
            VEC x = LOAD(t + i * V), q = CODE4(x, inv);
            a = ADD(a, MUL(x, q));
            b = ADD(b, MUL(q, q));
        }
        b = MAX(b, SET(1));
        VEC s = DIV(a, b), gain = MUL(a, s);
        chosen = IF_ABOVE(gain, best, s, chosen);
        best = IF_ABOVE(gain, best, gain, best);
    }
    STORE(scale, chosen);
}

/* What the file will hold: representable, and small enough that no code leaves half's range. */
static float stored_scale(float s, float codes, bool half) {
    float limit = half ? (codes > 8 ? 515.5f : 8188.0f) : 3e38f / codes; /* in half: 65504 over 127, over 8, rounded down */
    s = s > limit ? limit : s < -limit ? -limit : s;
    if (half) s = ay_quant_round(s, true);
    return s != 0 && isfinite(1 / s) ? s : 1;
}

static void runs4(const float *x, int64_t n, int64_t len, bool half, uint8_t *out, float *scale, double *error2,
                  double *norm2, float *t) {
    for (int64_t r = 0; r < n; r += V) {
        int m = n - r < V ? (int)(n - r) : V;
        float s[V], inv[V], e[V], w[V];
        if (m < V) memset(t, 0, (size_t)(len * V) * sizeof *t);
        for (int l = 0; l < m; l++) {
            const float *from = x + (r + l) * len;
            for (int64_t i = 0; i < len; i++) t[i * V + l] = from[i];
        }
        search4(t, len, s);
        for (int l = 0; l < V; l++) {
            s[l] = stored_scale(s[l], 8, half);
            inv[l] = 1 / s[l];
        }
        VEC vs = LOAD(s), vi = LOAD(inv), error = SET(0), norm = SET(0);
        for (int64_t i = 0; i < len; i++) {
            VEC v = LOAD(t + i * V), q = CODE4(v, vi), d = SUB(v, MUL(vs, q));
            error = ADD(error, MUL(d, d));
            norm = ADD(norm, MUL(v, v));
            STORE(t + i * V, q);
        }
        STORE(e, error);
        STORE(w, norm);
        for (int l = 0; l < m; l++) {
            uint8_t *to = out + (r + l) * (len / 2);
            for (int64_t i = 0; i < len; i += 2)
                to[i / 2] = (uint8_t)(((int)t[i * V + l] & 15) | ((int)t[(i + 1) * V + l] & 15) << 4);
            scale[r + l] = s[l];
            *error2 += e[l];
            *norm2 += w[l];
        }
    }
}

/* ---- int8: a run along the lanes ----------------------------------------------------------------------------------- */

enum { G = LANES / V }; /* vectors that make up the 16 lanes */

static float lane_sum(const VEC *v) {
    float s[LANES];
    for (int g = 0; g < G; g++) STORE(s + g * V, v[g]);
    for (int k = LANES / 2; k; k /= 2) {
        for (int i = 0; i < k; i++) s[i] += s[i + k];
    }
    return s[0];
}

static float peak(const float *x, int64_t len) {
    VEC v[G];
    float s[LANES], most = 0;
    for (int g = 0; g < G; g++) v[g] = SET(0);
    for (int64_t i = 0; i < len; i += LANES) {
        for (int g = 0; g < G; g++) v[g] = MAX(v[g], ABS(LOAD(x + i + g * V)));
    }
    for (int g = 0; g < G; g++) STORE(s + g * V, v[g]);
    for (int i = 0; i < LANES; i++) most = s[i] > most ? s[i] : most;
    return most;
}

/* Where to clip: E(c) = n (c / 127)^2 / 12 + sum over |x| > c of (|x| - c)^2 is convex; Newton's steps on its derivative
 * come from below after the first. */
static float clip8(const float *x, int64_t len, float most) {
    double alpha = (double)len / (12.0 * 127 * 127);
    float c = 0.7f * most;
    for (int step = 0; step < 12; step++) {
        VEC sum[G], count[G], vc = SET(c), zero = SET(0), one = SET(1);
        for (int g = 0; g < G; g++) sum[g] = count[g] = zero;
        for (int64_t i = 0; i < len; i += LANES) {
            for (int g = 0; g < G; g++) {
                VEC v = ABS(LOAD(x + i + g * V));
                sum[g] = ADD(sum[g], IF_ABOVE(v, vc, v, zero));
                count[g] = ADD(count[g], IF_ABOVE(v, vc, one, zero));
            }
        }
        float next = (float)(lane_sum(sum) / (alpha + lane_sum(count)));
        if (!(fabsf(next - c) > 1e-3f * c)) break;
        c = next;
    }
    return c > 0 && c < most ? c : most;
}

#define CODE8(x, inv) ROUND(MIN(MAX(MUL(x, inv), SET(-127)), SET(127)))

/* A / B and A^2 / B of the codes at scale s. */
static float try8(const float *x, int64_t len, float s, double *gain) {
    VEC a[G], b[G], inv = SET(1 / s);
    for (int g = 0; g < G; g++) a[g] = b[g] = SET(0);
    for (int64_t i = 0; i < len; i += LANES) {
        for (int g = 0; g < G; g++) {
            VEC v = LOAD(x + i + g * V), q = CODE8(v, inv);
            a[g] = ADD(a[g], MUL(v, q));
            b[g] = ADD(b[g], MUL(q, q));
        }
    }
    double sa = lane_sum(a), sb = lane_sum(b);
    *gain = sb > 0 ? sa * sa / sb : 0;
    return sb > 0 ? (float)(sa / sb) : 0;
}

static double final8(const float *x, int64_t len, float s, float *codes, double *norm2) {
    VEC e[G], w[G], vs = SET(s), inv = SET(1 / s);
    for (int g = 0; g < G; g++) e[g] = w[g] = SET(0);
    for (int64_t i = 0; i < len; i += LANES) {
        for (int g = 0; g < G; g++) {
            VEC v = LOAD(x + i + g * V), q = CODE8(v, inv), d = SUB(v, MUL(vs, q));
            e[g] = ADD(e[g], MUL(d, d));
            w[g] = ADD(w[g], MUL(v, v));
            STORE(codes + i + g * V, q);
        }
    }
    *norm2 = lane_sum(w);
    return lane_sum(e);
}

static void runs8(const float *x, int64_t n, int64_t len, bool half, uint8_t *out, float *scale, double *error2,
                  double *norm2, float *t) {
    int64_t padded = (len + LANES - 1) / LANES * LANES;
    float *codes = t + padded;
    for (int64_t r = 0; r < n; r++) {
        memcpy(t, x + r * len, (size_t)len * sizeof *t);
        for (int64_t i = len; i < padded; i++) t[i] = 0;
        float most = peak(t, padded);
        double plain, clipped, norm;
        float s = 0;
        if (most > 1e-30f) {
            float s0 = try8(t, padded, most / 127, &plain), s1 = try8(t, padded, clip8(t, padded, most) / 127, &clipped);
            s = clipped > plain ? s1 : s0;
        }
        s = stored_scale(s, 127, half);
        *error2 += final8(t, padded, s, codes, &norm);
        *norm2 += norm;
        scale[r] = s;
        for (int64_t i = 0; i < len; i++) out[r * len + i] = (uint8_t)(int8_t)(int)codes[i];
    }
}
