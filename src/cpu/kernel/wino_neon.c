/* SPDX-License-Identifier: MIT
 *
 * Winograd's transformations, NEON.
 */
#include "cpu/kernel/wino_body.h"

extern const ay_wino_row ay_wino_neon;
const ay_wino_row ay_wino_neon = {"wino_neon", AY_ISA_NEON, VL, input, edge, output, weights};
