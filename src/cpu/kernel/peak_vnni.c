/* SPDX-License-Identifier: MIT
 *
 * 512-bit multiply-adds, and sums of int8 products (vpdpbusd).
 */
#include "cpu/kernel/peak.h"
#include "cpu/kernel/peak_body.h"

#include <immintrin.h>

#define FMA(s, x) _mm512_fmadd_ps(x, x, s)
PEAK(f32, __m512, _mm512_set1_ps(0.5f), FMA, "v", 32)
#define DOT(s, x) _mm512_dpbusd_epi32(s, x, x)
PEAK(i8, __m512i, _mm512_set1_epi8(1), DOT, "v", 128)

const ay_peak_row ay_peak_vnni = {"vnni", AY_ISA_VNNI, f32, i8, NULL};
