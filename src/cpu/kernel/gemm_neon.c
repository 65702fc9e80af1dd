/* SPDX-License-Identifier: MIT
 *
 * float32 products, NEON: 8 x 12 sums in 24 of the 32 registers.
 */
#define MR 8
#define NV 3
#include "cpu/kernel/gemm_body.h"

HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8)

    extern const ay_gemm_f32_row ay_gemm_f32_neon;
const ay_gemm_f32_row ay_gemm_f32_neon = {
    "gemm_f32_neon", AY_ISA_NEON, MR, NV *VL, tile_8, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8},
};
