/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits, level neon.
 */

#include "cpu/kernel/a8_body.h"

extern const ay_a8_row ay_a8_neon;
const ay_a8_row ay_a8_neon = {"a8_neon", AY_ISA_NEON, row, rest, pixels, lut16, turn, taps_first};
