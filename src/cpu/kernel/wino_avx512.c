/* SPDX-License-Identifier: MIT
 *
 * Winograd's transformations, AVX-512.
 */
#include "cpu/kernel/wino_body.h"

extern const ay_wino_row ay_wino_avx512;
const ay_wino_row ay_wino_avx512 = {"wino_avx512", AY_ISA_AVX512, VL, input, edge, output, weights};
