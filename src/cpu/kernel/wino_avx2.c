/* SPDX-License-Identifier: MIT
 *
 * Winograd's transformations, AVX2 with FMA.
 */
#include "cpu/kernel/wino_body.h"

extern const ay_wino_row ay_wino_avx2;
const ay_wino_row ay_wino_avx2 = {"wino_avx2", AY_ISA_AVX2, VL, input, edge, output, weights};
