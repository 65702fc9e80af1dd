/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels, AVX2: the algorithm is elt_body.h's.
 */
#include "cpu/kernel/elt_body.h"

extern const ay_elt_row ay_elt_avx2;
const ay_elt_row ay_elt_avx2 = {"elt_avx2", AY_ISA_AVX2, ELT_FUNCTIONS, gated, round_f16};
