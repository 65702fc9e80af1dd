/* SPDX-License-Identifier: MIT
 *
 * 256-bit multiply-adds, and sums of int8 products (vpdpbusd in 256 bits, without AVX-512).
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm256_fmadd_ps(x, x, s)
PEAK(f32, __m256, _mm256_set1_ps(0.5f), FMA, "x", 16)
#define DOT(s, x) _mm256_dpbusd_avx_epi32(s, x, x)
PEAK(i8, __m256i, _mm256_set1_epi8(1), DOT, "x", 64)

const ay_peak_row ay_peak_avxvnni = {"avxvnni", AY_ISA_AVXVNNI, f32, i8, NULL};
