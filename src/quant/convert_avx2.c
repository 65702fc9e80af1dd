/* SPDX-License-Identifier: MIT
 *
 * Conversions for AVX2 with F16C: 8 elements a step, the rest through the C row. The bits are those of the scalar forms: the
 * hardware's half conversions round to nearest even and quiet a NaN, as base/half.c does.
 */
#include "quant/convert.h"

#include <immintrin.h>
#include <string.h>

#define LOAD128(p) _mm_loadu_si128((const __m128i *)(p))
#define LOAD64(p) _mm_loadl_epi64((const __m128i *)(p))

/* Defines NAME_to_f32 over `step`, which gives 8 floats from the bytes at `p`; elements have `size` bytes. */
#define TO_F32(name, dtype, size, step)                                                                                     \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        const unsigned char *p = (const unsigned char *)from + (size_t)begin * (size);                                      \
        int64_t i = 0;                                                                                                      \
        for (; i + 8 <= n; i += 8, p += 8 * (size)) _mm256_storeu_ps(out + i, step);                                        \
        if (i < n) ay_convert_c.to[dtype](p, 0, n - i, out + i);                                                            \
    }

static __m256 bf16_step(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }

/* e4m3 has half's layout with fewer bits: 4 of 5 exponent bits (bias 7 instead of 15, so times 2^8) and 3 mantissa bits. */
static __m256 f8e4m3_step(__m128i b) {
    __m128i v = _mm_cvtepu8_epi16(b), mag = _mm_and_si128(v, _mm_set1_epi16(0x7f));
    __m128i sign = _mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0x80)), 8);
    __m256 f = _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(_mm_slli_epi16(mag, 7), sign)), _mm256_set1_ps(256.0f));
    __m256i nan = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(mag, _mm_set1_epi16(0x7f)));
    __m256 quiet = _mm256_or_ps(_mm256_and_ps(f, _mm256_set1_ps(-0.0f)), _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)));
    return _mm256_blendv_ps(f, quiet, _mm256_castsi256_ps(nan));
}

TO_F32(f16, AY_F16, 2, _mm256_cvtph_ps(LOAD128(p)))
TO_F32(bf16, AY_BF16, 2, bf16_step(LOAD128(p)))
TO_F32(f8e4m3, AY_F8E4M3, 1, f8e4m3_step(LOAD64(p)))
TO_F32(f8e5m2, AY_F8E5M2, 1, _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(LOAD64(p)), 8)))
TO_F32(i8, AY_I8, 1, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(LOAD64(p))))
TO_F32(u8, AY_U8, 1, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(LOAD64(p))))

/* 4-bit elements: 8 bytes give 16, low nibble first. */
static __m128i nibbles(const unsigned char *p) {
    __m128i b = LOAD64(p), low = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(b, low), _mm_and_si128(_mm_srli_epi16(b, 4), low));
}

#define NIBBLES_TO_F32(name, dtype, widen)                                                                                  \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        int64_t i = 0;                                                                                                      \
        if ((begin & 1) && n > 0) {                                                                                         \
            ay_convert_c.to[dtype](from, begin, 1, out);                                                                    \
            i = 1;                                                                                                          \
        }                                                                                                                   \
        const unsigned char *p = (const unsigned char *)from + ((begin + i) >> 1);                                          \
        for (; i + 16 <= n; i += 16, p += 8) {                                                                              \
            __m128i v = widen(nibbles(p));                                                                                  \
            _mm256_storeu_ps(out + i, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)));                                         \
            _mm256_storeu_ps(out + i + 8, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))));                  \
        }                                                                                                                   \
        if (i < n) ay_convert_c.to[dtype](p, 0, n - i, out + i);                                                            \
    }

static __m128i as_unsigned(__m128i v) { return v; }
static __m128i as_signed(__m128i v) { return _mm_sub_epi8(_mm_xor_si128(v, _mm_set1_epi8(8)), _mm_set1_epi8(8)); }
NIBBLES_TO_F32(u4, AY_U4, as_unsigned)
NIBBLES_TO_F32(i4, AY_I4, as_signed)

/* Elements of 1, 2, 3 and 6 bits: 8 of them fill `bits` bytes, from which each lane shifts its own down. */
static __m256 few_bits_step(const unsigned char *p, int bits) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i v, at;
    if (bits <= 3) { /* byte by byte: what is loaded in parts through memory stalls */
        v = _mm256_set1_epi32(p[0] | (bits > 1 ? p[1] << 8 : 0) | (bits > 2 ? p[2] << 16 : 0));
        at = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(bits));
    } else { /* 48 bits: the upper four lanes take the upper 24 */
        v = _mm256_set_m128i(_mm_set1_epi32(p[3] | p[4] << 8 | p[5] << 16), _mm_set1_epi32(p[0] | p[1] << 8 | p[2] << 16));
        at = _mm256_mullo_epi32(_mm256_and_si256(lanes, _mm256_set1_epi32(3)), _mm256_set1_epi32(bits));
    }
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srlv_epi32(v, at), _mm256_set1_epi32((1 << bits) - 1)));
}

#define FEW_BITS_TO_F32(name, dtype, bits)                                                                                  \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        int64_t i = ay_min_i64(n, -begin & 7); /* up to an element that begins a byte */                                    \
        if (i > 0) ay_convert_c.to[dtype](from, begin, i, out);                                                             \
        const unsigned char *p = (const unsigned char *)from + (size_t)((begin + i) >> 3) * (bits);                         \
        for (; i + 8 <= n; i += 8, p += (bits)) _mm256_storeu_ps(out + i, few_bits_step(p, bits));                          \
        if (i < n) ay_convert_c.to[dtype](from, begin + i, n - i, out + i);                                                 \
    }
FEW_BITS_TO_F32(u6, AY_U6, 6)
FEW_BITS_TO_F32(u3, AY_U3, 3)
FEW_BITS_TO_F32(u2, AY_U2, 2)
FEW_BITS_TO_F32(u1, AY_U1, 1)

static void f16_from_f32(const float *from, int64_t n, void *out) {
    unsigned char *p = out;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(p + 2 * i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    if (i < n) ay_convert_c.from[AY_F16](from + i, n - i, p + 2 * i);
}

/* Round to nearest even on the integer; a NaN keeps its top bits and becomes quiet. */
static __m256i bf16_bits(__m256 f) {
    __m256i u = _mm256_castps_si256(f), top = _mm256_srli_epi32(u, 16);
    __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
}

static void bf16_from_f32(const float *from, int64_t n, void *out) {
    unsigned char *p = out;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i b = bf16_bits(_mm256_loadu_ps(from + i));
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(b, b), 0x08);
        _mm_storeu_si128((__m128i *)(p + 2 * i), _mm256_castsi256_si128(packed));
    }
    if (i < n) ay_convert_c.from[AY_BF16](from + i, n - i, p + 2 * i);
}

/* ---- codes to values ----------------------------------------------------------------------------------------------- */

static __m256i tail_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static __m256 affine_step(__m256 x, __m256 s, __m256 o, bool half) {
    x = _mm256_mul_ps(s, _mm256_sub_ps(x, o));
    return half ? _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)) : x;
}

static void affine(float *x, int64_t n, float scale, float offset, bool half) {
    __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, affine_step(_mm256_loadu_ps(x + i), s, o, half));
    if (i == n) return;
    __m256i m = tail_mask(n - i);
    _mm256_maskstore_ps(x + i, m, affine_step(_mm256_maskload_ps(x + i, m), s, o, half));
}

/* Up to 8 entries lie in one register, up to 16 in two; larger tables are gathered from the cache. */
static __m256 lookup_step(__m256 x, __m256 lo, __m256 hi, const float *table, int k) {
    __m256i i = _mm256_cvttps_epi32(x);
    if (k > 16) return _mm256_i32gather_ps(table, i, 4);
    __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)); /* to the sign, by which blendv chooses */
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lo, i), _mm256_permutevar8x32_ps(hi, i), bit3);
}

static void lookup(float *x, int64_t n, const float *table, int k) {
    float first[16] = {0};
    memcpy(first, table, sizeof first[0] * (size_t)(k < 16 ? k : 16));
    __m256 lo = _mm256_loadu_ps(first), hi = _mm256_loadu_ps(first + 8);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, lookup_step(_mm256_loadu_ps(x + i), lo, hi, table, k));
    if (i == n) return;
    __m256i m = tail_mask(n - i);
    _mm256_maskstore_ps(x + i, m, lookup_step(_mm256_maskload_ps(x + i, m), lo, hi, table, k));
}

const ay_convert_row ay_convert_avx2 = {
    .to = {[AY_F16] = f16_to_f32,
           [AY_BF16] = bf16_to_f32,
           [AY_F8E4M3] = f8e4m3_to_f32,
           [AY_F8E5M2] = f8e5m2_to_f32,
           [AY_I8] = i8_to_f32,
           [AY_U8] = u8_to_f32,
           [AY_I4] = i4_to_f32,
           [AY_U4] = u4_to_f32,
           [AY_U6] = u6_to_f32,
           [AY_U3] = u3_to_f32,
           [AY_U2] = u2_to_f32,
           [AY_U1] = u1_to_f32},
    .from = {[AY_F16] = f16_from_f32, [AY_BF16] = bf16_from_f32},
    .affine = affine,
    .lookup = lookup,
};
