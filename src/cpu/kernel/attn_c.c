/* SPDX-License-Identifier: MIT
 *
 * Attention's panels, portable C: the algorithm is attn_body.h's.
 */
#define AY_SIMD_C
#define MR 4
#define NV 8
#define HEIGHTS(X) X(1) X(2) X(3) X(4)
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_c;
const ay_attn_row ay_attn_c = ROW("attn_c", AY_ISA_C);
