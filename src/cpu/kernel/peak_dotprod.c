/* SPDX-License-Identifier: MIT
 *
 * 128-bit multiply-adds, and sums of int8 products (sdot).
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <arm_neon.h>

#define FMA(s, x) vfmaq_f32(s, x, x)
PEAK(f32, float32x4_t, vdupq_n_f32(0.5f), FMA, "w", 8)
#define DOT(s, x) vdotq_s32(s, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(x))
PEAK(i8, int32x4_t, vdupq_n_s32(0x01010101), DOT, "w", 32)

const ay_peak_row ay_peak_dotprod = {"dotprod", AY_ISA_DOTPROD, f32, i8, NULL};
