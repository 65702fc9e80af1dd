/* SPDX-License-Identifier: MIT
 *
 * Dot products, portable C: the algorithm is dot_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/dot_body.h"

extern const ay_dot_row ay_dot_c;
const ay_dot_row ay_dot_c = {"dot_c", AY_ISA_C, dot, codes};
