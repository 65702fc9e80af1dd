/* SPDX-License-Identifier: MIT
 *
 * Rows: normalisation, softmax, rotary embedding, AVX2: the algorithm is norm_body.h's.
 */
#include "cpu/kernel/norm_body.h"

extern const ay_norm_row ay_norm_avx2;
const ay_norm_row ay_norm_avx2 = {"norm_avx2", AY_ISA_AVX2, moments, affine, scaled, softmax, rope_pairs, rope_halves};
