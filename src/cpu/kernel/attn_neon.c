/* SPDX-License-Identifier: MIT
 *
 * Attention's panels, NEON, 8 x 12 sums in 24 of the 32 registers: the algorithm is attn_body.h's.
 */
#define MR 8
#define NV 3
#define HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_neon;
const ay_attn_row ay_attn_neon = ROW("attn_neon", AY_ISA_NEON);
