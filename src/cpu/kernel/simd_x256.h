/* SPDX-License-Identifier: MIT
 *
 * simd.h for AVX2 with FMA and F16C: eight lanes, masks as all-ones lanes.
 */
#include <immintrin.h>

#define VL 8
typedef __m256 vf;
typedef __m256 vm;

AY_INLINE __m256i v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
AY_INLINE vf v_load(const void *p) { return _mm256_loadu_ps(p); }
AY_INLINE void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
AY_INLINE vf v_loadn(const void *p, int n) { return _mm256_maskload_ps(p, v_first(n)); }
AY_INLINE vf v_load_between(const float *p, int lo, int hi) {
    return _mm256_maskload_ps(p, _mm256_andnot_si256(v_first(lo), v_first(hi)));
}
AY_INLINE void v_storen(float *p, vf v, int n) { _mm256_maskstore_ps(p, v_first(n), v); }
AY_INLINE vf v_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
AY_INLINE vf v_load_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
AY_INLINE vf v_loadn_f16(const void *p, int n) {
    uint16_t t[8] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_f16(t);
}
AY_INLINE vf v_loadn_bf16(const void *p, int n) {
    uint16_t t[8] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_bf16(t);
}
AY_INLINE vf v_load_i8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p))); }
AY_INLINE vf v_load_u8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p))); }
AY_INLINE vf v_set(float x) { return _mm256_set1_ps(x); }
AY_INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
AY_INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
AY_INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
AY_INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
AY_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
AY_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
AY_INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
AY_INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
AY_INLINE vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
AY_INLINE vf v_rint(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_floor(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_ceil(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
/** (-a1, a0, -a3, a2, ..): a quarter turn of each pair. */
AY_INLINE vf v_turn_pairs(vf a) {
    return _mm256_xor_ps(_mm256_permute_ps(a, 0xb1), _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)));
}
AY_INLINE vf v_copysign(vf mag, vf sign) { return _mm256_or_ps(v_abs(mag), _mm256_and_ps(_mm256_set1_ps(-0.0f), sign)); }
AY_INLINE vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
AY_INLINE vm v_isnan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
AY_INLINE vm v_or(vm a, vm b) { return _mm256_or_ps(a, b); }
AY_INLINE vm v_andnot(vm a, vm b) { return _mm256_andnot_ps(a, b); }
AY_INLINE int v_count(vm m) { return __builtin_popcount((unsigned)_mm256_movemask_ps(m)); }
AY_INLINE vf v_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
/** In two steps, so that the power never leaves the range of normal numbers before the product does. */
AY_INLINE vf v_ldexp(vf x, vf n) {
    __m256i e = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(e, 1), bias = _mm256_set1_epi32(127);
    vf p = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(h, bias), 23));
    vf q = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, h), bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, p), q);
}
AY_INLINE vf v_fraction(vf a) { return _mm256_sub_ps(a, v_floor(a)); }
/** p 2^floor(y), p in 1 .. 2 and y <= 0; 0 where y is below -126, whatever p. */
AY_INLINE vf v_ldexp_down(vf p, vf y) {
    __m256i n = _mm256_slli_epi32(_mm256_cvtps_epi32(v_floor(y)), 23);
    vf some = _mm256_cmp_ps(y, _mm256_set1_ps(-126), _CMP_NLT_UQ);
    return _mm256_and_ps(some, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n)));
}
AY_INLINE vf v_round_f16(vf a) { return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)); }
AY_INLINE float v_hsum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
AY_INLINE float v_hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
AY_INLINE void v_transpose(vf r[VL]) {
    vf t[8];
    AY_UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    AY_UNROLL for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    AY_UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    AY_UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}
/** Of 4 * VL numbers one behind the other to the vectors of every fourth, and back (in what order of lanes is open). */
AY_INLINE void v_fours(vf r[4]) {
    vf a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    vf c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    r[0] = _mm256_shuffle_ps(a, c, 0x44);
    r[1] = _mm256_shuffle_ps(a, c, 0xee);
    r[2] = _mm256_shuffle_ps(b, d, 0x44);
    r[3] = _mm256_shuffle_ps(b, d, 0xee);
}
/** Lane i: what op makes of all lanes of r[i]. */
AY_INLINE vf v_fold(vf (*const op)(vf, vf), vf r[VL]) {
    v_transpose(r);
    AY_UNROLL for (int w = VL / 2; w > 0; w /= 2) {
        AY_UNROLL for (int i = 0; i < w; i++) r[i] = op(r[i], r[i + w]);
    }
    return r[0];
}
/** The lanes of v, whole numbers within int8, as bytes. */
AY_INLINE void v_store_i8(int8_t *p, vf v) {
    __m256i i = _mm256_cvtps_epi32(v);
    __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(w, w));
}
/** The same of 32 numbers. */
AY_INLINE void v_store_32_i8(int8_t *p, const vf v[32 / VL]) {
    AY_UNROLL for (int i = 0; i < 32 / VL; i++) v_store_i8(p + i * VL, v[i]);
}
/** Lane i: the bytes a[i], b[i], c[i], d[i], whole numbers within int8. */
AY_INLINE vf v_four_bytes(vf a, vf b, vf c, vf d) {
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b)),
            z = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d)); /* in quarters: a b, c d */
    const __m256i columns = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10,
                                             14, 3, 7, 11, 15);
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(_mm256_packs_epi16(w, z), columns));
}
/** 2 * PAIRS codes of four bits from PAIRS bytes, the lower half first, through a table of 16. */
#define PAIRS 16
AY_INLINE void v_lut16(const int8_t lut[16], const uint8_t *src, int8_t *out) {
    __m256i w = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)src));
    w = _mm256_and_si256(_mm256_or_si256(w, _mm256_slli_epi16(w, 4)), _mm256_set1_epi8(15));
    _mm256_storeu_si256((__m256i *)out,
                        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)lut)), w));
}
/** VL entries of a table of 16 or 64 numbers. */
AY_INLINE vf v_lookup(const float *table, const int size, const uint8_t *index) {
    __m256i i = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)index));
    if (size != 16) return _mm256_i32gather_ps(table, i, 4);
    vf low = _mm256_permutevar8x32_ps(v_load(table), i), high = _mm256_permutevar8x32_ps(v_load(table + 8), i);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
