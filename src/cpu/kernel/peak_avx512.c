/* SPDX-License-Identifier: MIT
 *
 * 512-bit multiply-adds.
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm512_fmadd_ps(x, x, s)
PEAK(f32, __m512, _mm512_set1_ps(0.5f), FMA, "v", 32)

const ay_peak_row ay_peak_avx512 = {"avx512", AY_ISA_AVX512, f32, NULL};
