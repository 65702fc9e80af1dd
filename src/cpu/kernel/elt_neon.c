/* SPDX-License-Identifier: MIT
 *
 * Elementwise kernels, NEON: the algorithm is elt_body.h's.
 */
#include "cpu/kernel/elt_body.h"

extern const ay_elt_row ay_elt_neon;
const ay_elt_row ay_elt_neon = {"elt_neon", AY_ISA_NEON, ELT_FUNCTIONS, gated, round_f16};
