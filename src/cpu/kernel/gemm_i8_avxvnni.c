/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, VNNI without AVX-512: 6 x 16 sums. Twelve registers hold those of a block, two weights; those across
 * blocks stay in memory (the first cache), which is told to the compiler, lest it moves others in and out.
 */
#include <immintrin.h>

#define vi __m256i
#define vi_load(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define vi_set(x) _mm256_set1_epi32(x)
#define vi_dot(s, b, a) _mm256_dpbusd_avx_epi32(s, b, a)
#define vi_float(v) _mm256_cvtepi32_ps(v)
#define SUM_STAYS(v) __asm__("" : "+m"(v))
#include "cpu/kernel/gemm_i8_vnni_body.h"

extern const ay_gemm_i8_row ay_gemm_i8_avxvnni;
const ay_gemm_i8_row ay_gemm_i8_avxvnni = {
    "gemm_i8_avxvnni", AY_ISA_AVXVNNI, MR, NR, 4, 8, AY_I8_OFFSET, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6},
    {at_1, at_2, at_3, at_4, at_5, at_6}};
