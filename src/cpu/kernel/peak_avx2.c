/* SPDX-License-Identifier: MIT
 *
 * 256-bit multiply-adds, and without VNNI integer products: of numbers widened to 16 bits (int8; vpsignb, vpmaddubsw and
 * vpmaddwd come to the same), of bytes added up in 16 bits (int4).
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm256_fmadd_ps(x, x, s)
PEAK(f32, __m256, _mm256_set1_ps(0.5f), FMA, "x", 16)
/* A sum is a factor of the next product, else the compiler would multiply once for all chains. */
#define WIDE(s, x) _mm256_add_epi32(s, _mm256_madd_epi16(s, x))
PEAK(i8, __m256i, _mm256_set1_epi16(1), WIDE, "x", 32)
#define BYTES(s, x) _mm256_add_epi16(s, _mm256_maddubs_epi16(x, s))
PEAK(i4, __m256i, _mm256_set1_epi16(1), BYTES, "x", 64)

const ay_peak_row ay_peak_avx2 = {"avx2", AY_ISA_AVX2, f32, i8, i4};
