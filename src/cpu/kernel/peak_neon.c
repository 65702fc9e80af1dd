/* SPDX-License-Identifier: MIT
 *
 * 128-bit multiply-adds.
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <arm_neon.h>

#define FMA(s, x) vfmaq_f32(s, x, x)
PEAK(f32, float32x4_t, vdupq_n_f32(0.5f), FMA, "w", 8)

const ay_peak_row ay_peak_neon = {"neon", AY_ISA_NEON, f32, NULL, NULL};
