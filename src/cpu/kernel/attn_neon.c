/* SPDX-License-Identifier: MIT
 *
 * Attention's softmax panels, NEON: the algorithm is attn_body.h's.
 */
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_neon;
const ay_attn_row ay_attn_neon = {"attn_neon", AY_ISA_NEON, soften, rescale, unturn};
