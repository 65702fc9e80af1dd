/* SPDX-License-Identifier: MIT
 *
 * The softmax of attention over simd.h, on panels whose columns are queries: maxima and sums run down the columns, so no
 * number ever crosses lanes, and the panel is at once what the second product takes as its operand.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/vmath.h"

#include <math.h>

/** Scores of one vector of queries, scaled and masked, written back; returns their maximum. */
AY_INLINE vf scaled_top(int64_t keys, int width, float *s, float scale, const float *mask, int64_t pitch,
                         const float *key_mask) {
    vf by = v_set(scale), top[4];
    AY_UNROLL for (int i = 0; i < 4; i++) top[i] = v_set(-INFINITY);
    int64_t p = 0;
    if (!mask && !key_mask) {
        for (; p + 4 <= keys; p += 4) {
            AY_UNROLL for (int i = 0; i < 4; i++) {
                vf v = v_mul(v_load(s + (p + i) * width), by);
                v_store(s + (p + i) * width, v);
                top[i] = v_max(top[i], v);
            }
        }
    }
    for (; p < keys; p++) {
        vf v = v_mul(v_load(s + p * width), by);
        if (mask) v = v_add(v, v_load(mask + p * pitch));
        if (key_mask) v = v_add(v, v_set(key_mask[p]));
        v_store(s + p * width, v);
        top[0] = v_max(top[0], v);
    }
    return v_max(v_max(top[0], top[1]), v_max(top[2], top[3]));
}

static void soften(int64_t keys, int width, float *s, float scale, const float *mask, int64_t pitch, const float *key_mask,
                   float *top, float *sum, float *shrink) {
    for (int c = 0; c < width; c += VL) {
        vf before = v_load(top + c),
           now = v_max(before, scaled_top(keys, width, s + c, scale, mask ? mask + c : NULL, pitch, key_mask));
        vf base = v_sel(v_lt(v_set(-INFINITY), now), now, v_set(0)); /* all masked so far: e^(-inf - 0), not -inf + inf */
        vf less = v_exp(v_sub(before, base)), total = v_mul(v_load(sum + c), less), odd = v_set(0);
        int64_t p = 0;
        for (; p + 2 <= keys; p += 2) {
            float *at = s + p * width + c;
            vf e = v_exp(v_sub(v_load(at), base)), f = v_exp(v_sub(v_load(at + width), base));
            v_store(at, e);
            v_store(at + width, f);
            total = v_add(total, e);
            odd = v_add(odd, f);
        }
        if (p < keys) {
            vf e = v_exp(v_sub(v_load(s + p * width + c), base));
            v_store(s + p * width + c, e);
            total = v_add(total, e);
        }
        v_store(top + c, now);
        v_store(sum + c, v_add(total, odd));
        v_store(shrink + c, less);
    }
}

static void rescale(int64_t rows, int width, float *o, const float *by) {
    for (int c = 0; c < width; c += VL) {
        vf b = v_load(by + c);
        for (int64_t r = 0; r < rows; r++) v_store(o + r * width + c, v_mul(v_load(o + r * width + c), b));
    }
}

static void unturn(int64_t rows, int width, int cols, const float *o, const float *sum, float *out, int64_t ld) {
    for (int c = 0; c < cols; c += VL) {
        vf total = v_load(sum + c), some = v_set(0);
        some = v_sel(v_or(v_lt(v_set(0), total), v_isnan(total)), v_div(v_set(1.0f), total), some);
        int n = cols - c < VL ? cols - c : VL;
        for (int64_t r = 0; r < rows; r += VL) {
            int left = rows - r < VL ? (int)(rows - r) : VL;
            vf t[VL], copy[VL];
            AY_UNROLL for (int i = 0; i < VL; i++) t[i] = i < left ? v_mul(v_load(o + (r + i) * width + c), some) : v_set(0);
            v_transpose(t);
            AY_UNROLL for (int i = 0; i < VL; i++) copy[i] = t[i];
            for (int i = 0; i < n; i++) {
                float *to = out + (c + i) * ld + r;
                if (left == VL) v_store(to, copy[i]);
                else v_storen(to, copy[i], left);
            }
        }
    }
}
