/* SPDX-License-Identifier: MIT
 *
 * Attention's softmax panels, AVX2: the algorithm is attn_body.h's.
 */
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_avx2;
const ay_attn_row ay_attn_avx2 = {"attn_avx2", AY_ISA_AVX2, soften, rescale, unturn};
