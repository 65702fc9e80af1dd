/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels, portable C: the algorithm is elt_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/elt_body.h"

extern const ay_elt_row ay_elt_c;
const ay_elt_row ay_elt_c = {"elt_c", AY_ISA_C, ELT_FUNCTIONS, gated, round_f16};
