/* SPDX-License-Identifier: MIT
 *
 * Attention's panels, AVX-512, 14 x 32 sums in 28 of the 32 registers: the algorithm is attn_body.h's.
 */
#define MR 14
#define NV 2
#define HEIGHTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#include "cpu/kernel/attn_body.h"

extern const ay_attn_row ay_attn_avx512;
const ay_attn_row ay_attn_avx512 = ROW("attn_avx512", AY_ISA_AVX512);
