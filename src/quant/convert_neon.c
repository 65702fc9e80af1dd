/* SPDX-License-Identifier: MIT
 *
 * Conversions for arm64, where half precision conversion is part of the base architecture: 8 elements a step. The compiler
 * makes the rest (integers, bfloat16) from the C row by itself.
 */
#include "quant/convert.h"

#include <arm_neon.h>
#include <string.h>

static void halves(const uint16_t *h, float *out) {
    float16x8_t v = vreinterpretq_f16_u16(vld1q_u16(h));
    vst1q_f32(out, vcvt_f32_f16(vget_low_f16(v)));
    vst1q_f32(out + 4, vcvt_high_f32_f16(v));
}

static void f16_to_f32(const void *from, int64_t begin, int64_t n, float *out) {
    const unsigned char *p = (const unsigned char *)from + (size_t)begin * 2;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint16_t h[8];
        memcpy(h, p + 2 * i, sizeof h); /* may lie at any address */
        halves(h, out + i);
    }
    if (i < n) ay_convert_c.to[AY_F16](p + 2 * i, 0, n - i, out + i);
}

static void f8e5m2_to_f32(const void *from, int64_t begin, int64_t n, float *out) {
    const unsigned char *p = (const unsigned char *)from + (size_t)begin;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint16_t h[8];
        vst1q_u16(h, vshll_n_u8(vld1_u8(p + i), 8));
        halves(h, out + i);
    }
    if (i < n) ay_convert_c.to[AY_F8E5M2](p + i, 0, n - i, out + i);
}

static void f16_from_f32(const float *from, int64_t n, void *out) {
    unsigned char *p = out;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        float16x8_t v = vcvt_high_f16_f32(vcvt_f16_f32(vld1q_f32(from + i)), vld1q_f32(from + i + 4));
        memcpy(p + 2 * i, &v, sizeof v);
    }
    if (i < n) ay_convert_c.from[AY_F16](from + i, n - i, p + 2 * i);
}

const ay_convert_row ay_convert_neon = {
    .to = {[AY_F16] = f16_to_f32, [AY_F8E5M2] = f8e5m2_to_f32},
    .from = {[AY_F16] = f16_from_f32},
};
