/* SPDX-License-Identifier: MIT
 *
 * Attention's softmax panels, AVX-512: the algorithm is attn_body.h's.
 */
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_avx512;
const ay_attn_row ay_attn_avx512 = {"attn_avx512", AY_ISA_AVX512, soften, rescale, unturn};
