/* SPDX-License-Identifier: MIT
 *
 * simd.h for arm64's NEON: four lanes, masks as all-ones lanes.
 */
#include <arm_neon.h>

#define VL 4
typedef float32x4_t vf;
typedef uint32x4_t vm;

AY_INLINE vf v_load(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }
AY_INLINE void v_store(float *p, vf v) { vst1q_f32(p, v); }
AY_INLINE vf v_loadn(const void *p, int n) {
    float t[4] = {0};
    memcpy(t, p, (size_t)n * 4);
    return vld1q_f32(t);
}
AY_INLINE vf v_load_between(const float *p, int lo, int hi) {
    float t[4] = {0};
    for (int i = lo < 0 ? 0 : lo; i < hi && i < 4; i++) t[i] = p[i];
    return vld1q_f32(t);
}
AY_INLINE void v_storen(float *p, vf v, int n) {
    float t[4];
    vst1q_f32(t, v);
    memcpy(p, t, (size_t)n * 4);
}
AY_INLINE vf v_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
AY_INLINE vf v_load_bf16(const void *p) { return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16)); }
AY_INLINE vf v_loadn_f16(const void *p, int n) {
    uint16_t t[4] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_f16(t);
}
AY_INLINE vf v_loadn_bf16(const void *p, int n) {
    uint16_t t[4] = {0};
    memcpy(t, p, (size_t)n * 2);
    return v_load_bf16(t);
}
AY_INLINE vf v_load_i8(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8((uint32_t)bytes)))));
}
AY_INLINE vf v_load_u8(const void *p) {
    uint32_t bytes;
    memcpy(&bytes, p, 4);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes)))));
}
AY_INLINE vf v_set(float x) { return vdupq_n_f32(x); }
AY_INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
AY_INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
AY_INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
AY_INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
AY_INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
AY_INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
AY_INLINE vf v_max(vf a, vf b) { return vmaxq_f32(a, b); }
AY_INLINE vf v_min(vf a, vf b) { return vminq_f32(a, b); }
AY_INLINE vf v_sqrt(vf a) { return vsqrtq_f32(a); }
AY_INLINE vf v_rint(vf a) { return vrndnq_f32(a); }
AY_INLINE vf v_floor(vf a) { return vrndmq_f32(a); }
AY_INLINE vf v_ceil(vf a) { return vrndpq_f32(a); }
AY_INLINE vf v_abs(vf a) { return vabsq_f32(a); }
/** (-a1, a0, -a3, a2, ..): a quarter turn of each pair. */
AY_INLINE vf v_turn_pairs(vf a) {
    uint32x4_t even = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(vrev64q_f32(a)), even));
}
AY_INLINE vf v_copysign(vf mag, vf sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, mag); }
AY_INLINE vm v_lt(vf a, vf b) { return vcltq_f32(a, b); }
AY_INLINE vm v_isnan(vf a) { return vmvnq_u32(vceqq_f32(a, a)); }
AY_INLINE vm v_or(vm a, vm b) { return vorrq_u32(a, b); }
AY_INLINE vm v_andnot(vm a, vm b) { return vbicq_u32(b, a); }
AY_INLINE int v_count(vm m) { return (int)vaddvq_u32(vshrq_n_u32(m, 31)); }
AY_INLINE vf v_sel(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
AY_INLINE vf v_ldexp(vf x, vf n) {
    int32x4_t e = vcvtnq_s32_f32(n), h = vshrq_n_s32(e, 1), bias = vdupq_n_s32(127);
    vf p = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(h, bias), 23));
    vf q = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(e, h), bias), 23));
    return vmulq_f32(vmulq_f32(x, p), q);
}
AY_INLINE vf v_fraction(vf a) { return vsubq_f32(a, vrndmq_f32(a)); }
/** p 2^floor(y), p in 1 .. 2 and y <= 0; 0 where y is below -126, whatever p. */
AY_INLINE vf v_ldexp_down(vf p, vf y) {
    int32x4_t scaled = vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtmq_s32_f32(y), 23));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_s32(scaled), vcltq_f32(y, vdupq_n_f32(-126))));
}
AY_INLINE vf v_round_f16(vf a) { return vcvt_f32_f16(vcvt_f16_f32(a)); }
AY_INLINE float v_hsum(vf a) { return vaddvq_f32(a); }
AY_INLINE float v_hmax(vf a) { return vmaxvq_f32(a); }
AY_INLINE void v_transpose(vf r[VL]) {
    float32x4_t a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]), c = vtrn1q_f32(r[2], r[3]),
                d = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    r[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    r[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    r[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}
/** Of 4 * VL numbers one behind the other to the vectors of every fourth, and back (in what order of lanes is open). */
AY_INLINE void v_fours(vf r[4]) { v_transpose(r); }
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
    int16x4_t w = vqmovn_s32(vcvtq_s32_f32(v));
    vst1_lane_u32((uint32_t *)(void *)p, vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(w, w))), 0);
}
/** The same of 32 numbers. */
AY_INLINE void v_store_32_i8(int8_t *p, const vf v[32 / VL]) {
    AY_UNROLL for (int i = 0; i < 32 / VL; i++) v_store_i8(p + i * VL, v[i]);
}
/** Lane i: the bytes a[i], b[i], c[i], d[i], whole numbers within int8. */
AY_INLINE vf v_four_bytes(vf a, vf b, vf c, vf d) {
    uint32x4_t w = vreinterpretq_u32_s32(vcvtnq_s32_f32(a));
    w = vsliq_n_u32(w, vreinterpretq_u32_s32(vcvtnq_s32_f32(b)), 8);
    w = vsliq_n_u32(w, vreinterpretq_u32_s32(vcvtnq_s32_f32(c)), 16);
    return vreinterpretq_f32_u32(vsliq_n_u32(w, vreinterpretq_u32_s32(vcvtnq_s32_f32(d)), 24));
}
/** 2 * PAIRS codes of four bits from PAIRS bytes, the lower half first, through a table of 16. */
#define PAIRS 16
AY_INLINE void v_lut16(const int8_t lut[16], const uint8_t *src, int8_t *out) {
    int8x16_t t = vld1q_s8(lut);
    uint8x16_t b = vld1q_u8(src);
    int8x16x2_t z = {{vqtbl1q_s8(t, vandq_u8(b, vdupq_n_u8(15))), vqtbl1q_s8(t, vshrq_n_u8(b, 4))}};
    vst2q_s8(out, z);
}
/** VL entries of a table of 16 or 64 numbers. */
AY_INLINE vf v_lookup(const float *table, const int size, const uint8_t *index) {
    float t[4] = {table[index[0]], table[index[1]], table[index[2]], table[index[3]]};
    return vld1q_f32(t);
}
