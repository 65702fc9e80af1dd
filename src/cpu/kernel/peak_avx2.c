/* SPDX-License-Identifier: MIT
 *
 * 256-bit multiply-adds.
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm256_fmadd_ps(x, x, s)
PEAK(f32, __m256, _mm256_set1_ps(0.5f), FMA, "x", 16)

const ay_peak_row ay_peak_avx2 = {"avx2", AY_ISA_AVX2, f32, NULL};
