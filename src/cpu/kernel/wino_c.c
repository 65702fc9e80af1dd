/* SPDX-License-Identifier: MIT
 *
 * Winograd's transformations, in portable C.
 */
#define AY_SIMD_C
#include "cpu/kernel/wino_body.h"

extern const ay_wino_row ay_wino_c;
const ay_wino_row ay_wino_c = {"wino_c", AY_ISA_C, VL, input, edge, output, weights};
