/* SPDX-License-Identifier: MIT
 *
 * simd.h for AVX-512 (f, bw, dq, vl): sixteen lanes, masks in mask registers.
 */
#include <immintrin.h>

#define VL 16
typedef __m512 vf;
typedef __mmask16 vm;

AY_INLINE vm v_first(int n) { return (vm)_cvtu32_mask16((1u << n) - 1u); }
AY_INLINE vf v_load(const void *p) { return _mm512_loadu_ps(p); }
AY_INLINE void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
AY_INLINE vf v_loadn(const void *p, int n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
AY_INLINE vf v_load_between(const float *p, int lo, int hi) {
    return _mm512_maskz_loadu_ps((vm)(v_first(hi < 0    ? 0
                                              : hi > 16 ? 16
                                                        : hi) &
                                      ~v_first(lo < 0    ? 0
                                               : lo > 16 ? 16
                                                         : lo)),
                                 p);
}
AY_INLINE void v_storen(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, v_first(n), v); }
AY_INLINE vf v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
AY_INLINE vf v_widen_bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
AY_INLINE vf v_load_bf16(const void *p) { return v_widen_bf16(_mm256_loadu_si256(p)); }
AY_INLINE vf v_loadn_f16(const void *p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_first(n), p)); }
AY_INLINE vf v_loadn_bf16(const void *p, int n) { return v_widen_bf16(_mm256_maskz_loadu_epi16(v_first(n), p)); }
AY_INLINE vf v_load_i8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
AY_INLINE vf v_load_u8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p))); }
AY_INLINE vf v_set(float x) { return _mm512_set1_ps(x); }
AY_INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
AY_INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
AY_INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
AY_INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
AY_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
AY_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
AY_INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
AY_INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
AY_INLINE vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
AY_INLINE vf v_rint(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_floor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_ceil(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_abs(vf a) { return _mm512_abs_ps(a); }
/** (-a1, a0, -a3, a2, ..): a quarter turn of each pair. */
AY_INLINE vf v_turn_pairs(vf a) {
    vf even = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000));
    return _mm512_xor_ps(_mm512_permute_ps(a, 0xb1), even);
}
AY_INLINE vf v_copysign(vf mag, vf sign) {
    __m512i s = _mm512_castps_si512(sign), m = _mm512_castps_si512(mag), bit = _mm512_set1_epi32(INT32_MIN);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bit, s, m, 0xca)); /* bit ? s : m */
}
AY_INLINE vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
AY_INLINE vm v_isnan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
AY_INLINE vm v_or(vm a, vm b) { return (vm)(a | b); }
AY_INLINE vm v_andnot(vm a, vm b) { return (vm)(~a & b); }
AY_INLINE int v_count(vm m) { return __builtin_popcount(m); }
AY_INLINE vf v_sel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
AY_INLINE vf v_ldexp(vf x, vf n) { return _mm512_scalef_ps(x, n); }
/** a - floor(a) in one step, which makes 0 of an infinity; and p 2^floor(y). */
AY_INLINE vf v_fraction(vf a) { return _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
AY_INLINE vf v_ldexp_down(vf p, vf y) { return _mm512_scalef_ps(p, y); }
AY_INLINE vf v_round_f16(vf a) { return _mm512_cvtph_ps(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
AY_INLINE float v_hsum(vf a) { return _mm512_reduce_add_ps(a); }
AY_INLINE float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }
/** Rows become columns: pairs, quads, then 128-bit quarters across the register. */
AY_INLINE void v_transpose(vf r[VL]) {
    vf t[16];
    AY_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    AY_UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    AY_UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    AY_UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}
/** Of 4 * VL numbers one behind the other to the vectors of every fourth, and back (in what order of lanes is open). */
AY_INLINE void v_fours(vf r[4]) {
    vf a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    vf c = _mm512_unpacklo_ps(r[2], r[3]), d = _mm512_unpackhi_ps(r[2], r[3]);
    r[0] = _mm512_shuffle_ps(a, c, 0x44);
    r[1] = _mm512_shuffle_ps(a, c, 0xee);
    r[2] = _mm512_shuffle_ps(b, d, 0x44);
    r[3] = _mm512_shuffle_ps(b, d, 0xee);
}
/** Lane i: what op makes of all lanes of r[i]. Each step halves the vectors and what they hold of each. */
AY_INLINE vf v_fold(vf (*const op)(vf, vf), vf r[VL]) {
    AY_UNROLL for (int i = 0; i < 8; i++)
        r[i] = op(_mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]), _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]));
    AY_UNROLL for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(r[2 * i]), b = _mm512_castps_pd(r[2 * i + 1]);
        r[i] = op(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    AY_UNROLL for (int w = 2; w > 0; w /= 2) {
        AY_UNROLL for (int i = 0; i < w; i++)
            r[i] = op(_mm512_shuffle_f32x4(r[2 * i], r[2 * i + 1], 0x88), _mm512_shuffle_f32x4(r[2 * i], r[2 * i + 1], 0xdd));
    }
    return r[0];
}
/** The lanes of v, whole numbers within int8, as bytes. */
AY_INLINE void v_store_i8(int8_t *p, vf v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}
/** The same of 32 numbers. */
AY_INLINE void v_store_32_i8(int8_t *p, const vf v[32 / VL]) {
    static const int16_t even[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                     32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
    __m512i w = _mm512_permutex2var_epi16(_mm512_cvtps_epi32(v[0]), _mm512_loadu_si512(even), _mm512_cvtps_epi32(v[1]));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi16_epi8(w));
}
/** Lane i: the bytes a[i], b[i], c[i], d[i], whole numbers within int8. */
AY_INLINE vf v_four_bytes(vf a, vf b, vf c, vf d) {
    enum { PICK = 0xca }; /* the second where a bit of the first is set, else the third */
    const __m512i one = _mm512_set1_epi32(0xff), two = _mm512_set1_epi32(0xffff), three = _mm512_set1_epi32(0xffffff);
    __m512i w = _mm512_slli_epi32(_mm512_cvtps_epi32(d), 24);
    w = _mm512_ternarylogic_epi32(three, _mm512_slli_epi32(_mm512_cvtps_epi32(c), 16), w, PICK);
    w = _mm512_ternarylogic_epi32(two, _mm512_slli_epi32(_mm512_cvtps_epi32(b), 8), w, PICK);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(one, _mm512_cvtps_epi32(a), w, PICK));
}
/** 2 * PAIRS codes of four bits from PAIRS bytes, the lower half first, through a table of 16. */
#define PAIRS 32
AY_INLINE void v_lut16(const int8_t lut[16], const uint8_t *src, int8_t *out) {
    __m512i w = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)src));
    w = _mm512_and_si512(_mm512_or_si512(w, _mm512_slli_epi16(w, 4)), _mm512_set1_epi8(15));
    _mm512_storeu_si512(out, _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)lut)), w));
}
/** VL entries of a table of 16 or 64 numbers. */
AY_INLINE vf v_lookup(const float *table, const int size, const uint8_t *index) {
    __m512i i = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)index));
    if (size == 16) return _mm512_permutexvar_ps(i, v_load(table));
    vf low = _mm512_permutex2var_ps(v_load(table), i, v_load(table + 16)),
       high = _mm512_permutex2var_ps(v_load(table + 32), i, v_load(table + 48));
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(i, _mm512_set1_epi32(32)), low, high);
}
