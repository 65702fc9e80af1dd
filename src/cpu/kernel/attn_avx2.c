/* SPDX-License-Identifier: MIT
 *
 * Attention's panels, AVX2, 6 x 16 sums in 12 of the 16 registers: the algorithm is attn_body.h's.
 */
#define MR 6
#define NV 2
#define HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_avx2;
const ay_attn_row ay_attn_avx2 = ROW("attn_avx2", AY_ISA_AVX2);
