/* SPDX-License-Identifier: MIT
 *
 * Rows: normalisation, softmax, rotary embedding, portable C: the algorithm is norm_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/norm_body.h"

extern const ay_norm_row ay_norm_c;
const ay_norm_row ay_norm_c = {"norm_c", AY_ISA_C, moments, affine, scaled, softmax, rope_pairs, rope_halves};
