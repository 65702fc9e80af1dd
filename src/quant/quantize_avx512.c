/* SPDX-License-Identifier: MIT
 *
 * The search for scales over 16 floats at a time.
 */
#include <immintrin.h>

enum { V = 16 };
#define VEC __m512
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SET(s) _mm512_set1_ps(s)
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define MUL(a, b) _mm512_mul_ps(a, b)
#define DIV(a, b) _mm512_div_ps(a, b)
#define MIN(a, b) _mm512_min_ps(a, b)
#define MAX(a, b) _mm512_max_ps(a, b)
#define ABS(a) _mm512_abs_ps(a)
#define ROUND(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define IF_ABOVE(a, b, x, y) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x)

#include "quant/quantize_search.h"

const ay_quant_level ay_quant_level_avx512 = {.int4 = runs4, .int8 = runs8};
