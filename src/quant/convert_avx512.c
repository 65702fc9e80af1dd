/* SPDX-License-Identifier: MIT
 *
 * Conversions for AVX-512: 16 elements a step, the rest in one masked step that touches nothing outside the arrays.
 */
#include "quant/convert.h"

#include <immintrin.h>

static __mmask16 first(int64_t n) { return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1); }

/* Defines NAME_to_f32 over `step`, which gives 16 floats from the elements loaded as `v`. */
#define TO_F32(name, size, load, step)                                                                                      \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        const unsigned char *p = (const unsigned char *)from + (size_t)begin * (size);                                      \
        for (int64_t i = 0; i < n; i += 16) {                                                                               \
            __mmask16 m = first(n - i);                                                                                     \
            load;                                                                                                           \
            _mm512_mask_storeu_ps(out + i, m, step);                                                                        \
        }                                                                                                                   \
    }
#define WORDS __m256i v = _mm256_maskz_loadu_epi16(m, p + 2 * i)
#define BYTES __m128i v = _mm_maskz_loadu_epi8(m, p + i)

/* e4m3 has half's layout with fewer bits: 4 of 5 exponent bits (bias 7 instead of 15, so times 2^8) and 3 mantissa bits. */
static __m512 f8e4m3_step(__m128i b) {
    __m256i v = _mm256_cvtepu8_epi16(b), mag = _mm256_and_si256(v, _mm256_set1_epi16(0x7f));
    __m256i sign = _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x80)), 8);
    __m512 f = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(mag, 7), sign)), _mm512_set1_ps(256.0f));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(mag, _mm256_set1_epi16(0x7f));
    __m512 sign_only = _mm512_and_ps(f, _mm512_set1_ps(-0.0f));
    return _mm512_mask_or_ps(f, nan, sign_only, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

TO_F32(f16, 2, WORDS, _mm512_cvtph_ps(v))
TO_F32(bf16, 2, WORDS, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)))
TO_F32(f8e4m3, 1, BYTES, f8e4m3_step(v))
TO_F32(f8e5m2, 1, BYTES, _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(v), 8)))
TO_F32(i8, 1, BYTES, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v)))
TO_F32(u8, 1, BYTES, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v)))

static void f16_from_f32(const float *from, int64_t n, void *out) {
    unsigned char *p = out;
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m256i h = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(m, from + i), _MM_FROUND_TO_NEAREST_INT);
        _mm256_mask_storeu_epi16(p + 2 * i, m, h);
    }
}

/* Round to nearest even on the integer; a NaN keeps its top bits and becomes quiet. */
static void bf16_from_f32(const float *from, int64_t n, void *out) {
    unsigned char *p = out;
    const __m512i one = _mm512_set1_epi32(1), bias = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x40);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 f = _mm512_maskz_loadu_ps(m, from + i);
        __m512i u = _mm512_castps_si512(f), top = _mm512_srli_epi32(u, 16);
        __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(_mm512_and_si512(top, one), bias)), 16);
        r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q), top, quiet);
        _mm256_mask_storeu_epi16(p + 2 * i, m, _mm512_cvtepi32_epi16(r));
    }
}

/* ---- codes to values ----------------------------------------------------------------------------------------------- */

static void affine(float *x, int64_t n, float scale, float offset, bool half) {
    __m512 s = _mm512_set1_ps(scale), o = _mm512_set1_ps(offset);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512 v = _mm512_mul_ps(s, _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), o));
        if (half) v = _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
        _mm512_mask_storeu_ps(x + i, m, v);
    }
}

/* 16 entries to a register: up to 64 are permuted, larger tables are gathered from the cache. */
static void lookup(float *x, int64_t n, const float *table, int k) {
    __m512 t[4];
    for (int r = 0; r < 4; r++)
        t[r] = _mm512_maskz_loadu_ps(k > 16 * r ? first(k - 16 * r) : 0, table + (k > 16 * r ? 16 * r : 0));
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = first(n - i);
        __m512i c = _mm512_cvttps_epi32(_mm512_maskz_loadu_ps(m, x + i));
        __m512 v;
        if (k <= 16) v = _mm512_permutexvar_ps(c, t[0]);
        else if (k <= 64) {
            __mmask16 upper = _mm512_test_epi32_mask(c, _mm512_set1_epi32(32));
            v = _mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(t[0], c, t[1]), _mm512_permutex2var_ps(t[2], c, t[3]));
        } else v = _mm512_i32gather_ps(c, table, 4);
        _mm512_mask_storeu_ps(x + i, m, v);
    }
}

const ay_convert_row ay_convert_avx512 = {
    .to = {[AY_F16] = f16_to_f32,
           [AY_BF16] = bf16_to_f32,
           [AY_F8E4M3] = f8e4m3_to_f32,
           [AY_F8E5M2] = f8e5m2_to_f32,
           [AY_I8] = i8_to_f32,
           [AY_U8] = u8_to_f32},
    .from = {[AY_F16] = f16_from_f32, [AY_BF16] = bf16_from_f32},
    .affine = affine,
    .lookup = lookup,
};
