/* SPDX-License-Identifier: MIT
 *
 * Attention's softmax panels, portable C: the algorithm is attn_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_c;
const ay_attn_row ay_attn_c = {"attn_c", AY_ISA_C, soften, rescale, unturn};
