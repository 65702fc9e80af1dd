/* SPDX-License-Identifier: MIT
 *
 * float32 products, AVX-512: 14 x 32 sums in 28 of the 32 registers, two for b, one for the broadcast of a.
 */
#define MR 14
#define NV 2
#include "cpu/kernel/gemm_body.h"

HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) HEIGHT(11) HEIGHT(12) HEIGHT(13)
    HEIGHT(14)

        extern const ay_gemm_f32_row ay_gemm_f32_avx512;
const ay_gemm_f32_row ay_gemm_f32_avx512 = {
    "gemm_f32_avx512",
    AY_ISA_AVX512,
    MR,
    NV *VL,
    tile_14,
    {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14},
};
