/* SPDX-License-Identifier: MIT
 *
 * 512-bit multiply-adds, and without VNNI integer products: of numbers widened to 16 bits (int8; vpsignb, vpmaddubsw and
 * vpmaddwd come to the same), of bytes added up in 16 bits (int4).
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm512_fmadd_ps(x, x, s)
PEAK(f32, __m512, _mm512_set1_ps(0.5f), FMA, "v", 32)
/* A sum is a factor of the next product, else the compiler would multiply once for all chains. */
#define WIDE(s, x) _mm512_add_epi32(s, _mm512_madd_epi16(s, x))
PEAK(i8, __m512i, _mm512_set1_epi16(1), WIDE, "v", 64)
#define BYTES(s, x) _mm512_add_epi16(s, _mm512_maddubs_epi16(x, s))
PEAK(i4, __m512i, _mm512_set1_epi16(1), BYTES, "v", 128)

const ay_peak_row ay_peak_avx512 = {"avx512", AY_ISA_AVX512, f32, i8, i4};
