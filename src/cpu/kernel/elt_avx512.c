/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels, AVX-512: the algorithm is elt_body.h's.
 */
#include "cpu/kernel/elt_body.h"

extern const ay_elt_row ay_elt_avx512;
const ay_elt_row ay_elt_avx512 = {"elt_avx512", AY_ISA_AVX512, ELT_FUNCTIONS, gated, round_f16};
