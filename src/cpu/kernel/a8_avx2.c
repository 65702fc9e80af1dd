/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits, level avx2.
 */

#include "cpu/kernel/a8_body.h"

extern const ay_a8_row ay_a8_avx2;
const ay_a8_row ay_a8_avx2 = {"a8_avx2", AY_ISA_AVX2, row, rest, pixels, lut16, turn, taps_first};
