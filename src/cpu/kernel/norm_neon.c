/* SPDX-License-Identifier: MIT
 *
 * Rows: normalisation, softmax, rotary embedding, NEON: the algorithm is norm_body.h's.
 */
#include "cpu/kernel/norm_body.h"

extern const ay_norm_row ay_norm_neon;
const ay_norm_row ay_norm_neon = {"norm_neon", AY_ISA_NEON, moments, affine, scaled, softmax, rope_pairs, rope_halves};
