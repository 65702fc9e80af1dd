/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, AVX-512 with VNNI: 6 x 32 sums. 24 registers hold sums, two hold weights, two their scales.
 */
#include <immintrin.h>

#define vi __m512i
#define vi_load(p) _mm512_loadu_si512(p)
#define vi_set(x) _mm512_set1_epi32(x)
#define vi_dot(s, b, a) _mm512_dpbusd_epi32(s, b, a)
#define vi_float(v) _mm512_cvtepi32_ps(v)
#define SUM_STAYS(v)
#include "cpu/kernel/gemm_i8_vnni_body.h"

extern const ay_gemm_i8_row ay_gemm_i8_vnni;
const ay_gemm_i8_row ay_gemm_i8_vnni = {
    "gemm_i8_vnni", AY_ISA_VNNI, MR, NR, 4, 8, AY_I8_OFFSET, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
    {at_1, at_2, at_3, at_4, at_5, at_6}};
