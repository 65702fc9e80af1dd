/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits, level avx512.
 */

#include "cpu/kernel/a8_body.h"

extern const ay_a8_row ay_a8_avx512;
const ay_a8_row ay_a8_avx512 = {"a8_avx512", AY_ISA_AVX512, row, rest, pixels, lut16, turn, taps_first};
