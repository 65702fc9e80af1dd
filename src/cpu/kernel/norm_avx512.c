/* SPDX-License-Identifier: MIT
 *
 * Rows: normalisation, softmax, rotary embedding, AVX-512: the algorithm is norm_body.h's.
 */
#include "cpu/kernel/norm_body.h"

extern const ay_norm_row ay_norm_avx512;
const ay_norm_row ay_norm_avx512 = {"norm_avx512", AY_ISA_AVX512, moments, affine, scaled, softmax, rope_pairs, rope_halves};
