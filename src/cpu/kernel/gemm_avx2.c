/* SPDX-License-Identifier: MIT
 *
 * float32 products, AVX2 with FMA: 6 x 16 sums in 12 of the 16 registers.
 */
#define MR 6
#define NV 2
#include "cpu/kernel/gemm_body.h"

HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)

    extern const ay_gemm_f32_row ay_gemm_f32_avx2;
const ay_gemm_f32_row ay_gemm_f32_avx2 = {
    "gemm_f32_avx2", AY_ISA_AVX2, MR, NV *VL, tile_6, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
};
