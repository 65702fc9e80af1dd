/* SPDX-License-Identifier: MIT
 *
 * Dot products, AVX-512: the algorithm is dot_body.h's.
 */
#include "cpu/kernel/dot_body.h"

extern const ay_dot_row ay_dot_avx512;
const ay_dot_row ay_dot_avx512 = {"dot_avx512", AY_ISA_AVX512, dot, codes};
