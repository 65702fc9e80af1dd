/* SPDX-License-Identifier: MIT
 *
 * Dot products, AVX2: the algorithm is dot_body.h's.
 */
#include "cpu/kernel/dot_body.h"

extern const ay_dot_row ay_dot_avx2;
const ay_dot_row ay_dot_avx2 = {"dot_avx2", AY_ISA_AVX2, dot, codes};
