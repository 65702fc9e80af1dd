/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits, level c.
 */
#define AY_SIMD_C
#include "cpu/kernel/a8_body.h"

extern const ay_a8_row ay_a8_c;
const ay_a8_row ay_a8_c = {"a8_c", AY_ISA_C, row, rest, pixels, lut16, turn, taps_first};
