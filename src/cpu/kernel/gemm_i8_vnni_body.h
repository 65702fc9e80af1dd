/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products by vpdpbusd, in vectors of 512 or 256 bits: 6 rows times two vectors of sums. Inside a block those are
 * int32, across blocks float32. vpdpbusd multiplies unsigned by signed bytes: weights are stored with 128 added, and the sums
 * start at the correction that takes it off. The includer names the vectors of integers: vi, vi_load, vi_set, vi_dot (of
 * sums, weights, activations), vi_float; and SUM_STAYS(v), where the sums across blocks live meanwhile.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

enum { MR = 6, NR = 2 * VL };

AY_INLINE vi four_bytes(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return vi_set(v);
}

AY_INLINE float scale_of(const char *record) {
    float v;
    memcpy(&v, record + AY_I8_BLOCK, sizeof v);
    return v;
}

/** The records of some rows of a block, side by side or anywhere. */
typedef struct source {
    const char *side_by_side;
    const ay_i8_places *places;
} source;

AY_INLINE void tile(const int rows, const bool scaled, const bool anywhere, int64_t blocks, source from, const uint8_t *b,
                    const float *scale, float *c, int64_t ldc, bool accumulate) {
    vf sum[MR][2];
    const char *a = anywhere ? from.places->from : from.side_by_side;
    const int32_t *offset = anywhere ? from.places->offset : NULL;
    int64_t left = anywhere ? from.places->taps : 0;
    AY_UNROLL for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
        sum[i][0] = sum[i][1] = v_set(0);
    }
    for (int64_t k = 0; k < blocks; k++) {
        vi s[MR][2];
        const char *r[MR];
        AY_UNROLL for (int i = 0; i < rows; i++) r[i] = a + (anywhere ? offset[i] : i * AY_I8_RECORD);
        AY_UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = four_bytes(r[i] + 36);
        AY_UNROLL for (int q = 0; q < 8; q++, b += 4 * NR) {
            vi b0 = vi_load(b), b1 = vi_load(b + 2 * NR);
            AY_UNROLL for (int i = 0; i < rows; i++) {
                vi av = four_bytes(r[i] + q * 4);
                s[i][0] = vi_dot(s[i][0], b0, av);
                s[i][1] = vi_dot(s[i][1], b1, av);
            }
        }
        vf w0 = v_set(0), w1 = w0;
        if (scaled) w0 = v_load(scale), w1 = v_load(scale + VL), scale += NR;
        AY_UNROLL for (int i = 0; i < rows; i++) {
            vf by = v_set(scale_of(r[i]));
            SUM_STAYS(sum[i][0]);
            SUM_STAYS(sum[i][1]);
            sum[i][0] = v_fma(vi_float(s[i][0]), scaled ? v_mul(w0, by) : by, sum[i][0]);
            sum[i][1] = v_fma(vi_float(s[i][1]), scaled ? v_mul(w1, by) : by, sum[i][1]);
        }
        if (!anywhere) {
            a += rows * AY_I8_RECORD;
        } else if (--left > 0) {
            offset += from.places->pitch;
        } else {
            left = from.places->taps;
            offset = from.places->offset;
            a += from.places->stride;
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        float *to = c + i * ldc;
        v_store(to, accumulate ? v_add(v_load(to), sum[i][0]) : sum[i][0]);
        v_store(to + VL, accumulate ? v_add(v_load(to + VL), sum[i][1]) : sum[i][1]);
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        if (scale) tile(r, true, false, blocks, (source){a, NULL}, b, scale, c, ldc, accumulate);                           \
        else tile(r, false, false, blocks, (source){a, NULL}, b, scale, c, ldc, accumulate);                                \
    }                                                                                                                       \
    static void at_##r(int64_t blocks, const ay_i8_places *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,  \
                       bool accumulate) {                                                                                   \
        if (scale) tile(r, true, true, blocks, (source){NULL, a}, b, scale, c, ldc, accumulate);                            \
        else tile(r, false, true, blocks, (source){NULL, a}, b, scale, c, ldc, accumulate);                                 \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)
