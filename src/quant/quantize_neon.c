/* SPDX-License-Identifier: MIT
 *
 * The search for scales over 4 floats at a time.
 */
#include <arm_neon.h>

enum { V = 4 };
#define VEC float32x4_t
#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define SET(s) vdupq_n_f32(s)
#define ADD(a, b) vaddq_f32(a, b)
#define SUB(a, b) vsubq_f32(a, b)
#define MUL(a, b) vmulq_f32(a, b)
#define DIV(a, b) vdivq_f32(a, b)
#define MIN(a, b) vminq_f32(a, b)
#define MAX(a, b) vmaxq_f32(a, b)
#define ABS(a) vabsq_f32(a)
#define ROUND(a) vrndnq_f32(a)
#define IF_ABOVE(a, b, x, y) vbslq_f32(vcgtq_f32(a, b), x, y)

#include "quant/quantize_search.h"

const ay_quant_level ay_quant_level_neon = {.int4 = runs4, .int8 = runs8};
