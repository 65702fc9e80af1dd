/* SPDX-License-Identifier: MIT
 *
 * simd.h for portable C: vectors of one float. The compiler may widen the loops as it likes.
 */
#include "base/half.h"

#include <math.h>

#define VL 1
typedef float vf;
typedef int vm;

AY_INLINE vf v_load(const void *p) {
    float v;
    memcpy(&v, p, 4);
    return v;
}
AY_INLINE void v_store(float *p, vf v) { *p = v; }
AY_INLINE vf v_loadn(const void *p, int n) { return v_load(p); }
/** Lanes lo .. hi - 1 of the vector at p, the others 0 and not touched. */
AY_INLINE vf v_load_between(const void *p, int lo, int hi) { return lo <= 0 && hi > 0 ? v_load(p) : 0.0f; }
AY_INLINE void v_storen(float *p, vf v, int n) { *p = v; }
AY_INLINE vf v_load_f16(const void *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return ay_f16_to_f32(h);
}
AY_INLINE vf v_load_bf16(const void *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return ay_bf16_to_f32(h);
}
AY_INLINE vf v_loadn_f16(const void *p, int n) { return v_load_f16(p); }
AY_INLINE vf v_loadn_bf16(const void *p, int n) { return v_load_bf16(p); }
AY_INLINE vf v_load_i8(const void *p) { return (float)*(const int8_t *)p; }
AY_INLINE vf v_load_u8(const void *p) { return (float)*(const uint8_t *)p; }
AY_INLINE vf v_set(float x) { return x; }
AY_INLINE vf v_add(vf a, vf b) { return a + b; }
AY_INLINE vf v_sub(vf a, vf b) { return a - b; }
AY_INLINE vf v_mul(vf a, vf b) { return a * b; }
AY_INLINE vf v_div(vf a, vf b) { return a / b; }
AY_INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
AY_INLINE vf v_fnma(vf a, vf b, vf c) { return c - a * b; }
AY_INLINE vf v_max(vf a, vf b) { return a > b ? a : b; }
AY_INLINE vf v_min(vf a, vf b) { return a < b ? a : b; }
AY_INLINE vf v_sqrt(vf a) { return sqrtf(a); }
AY_INLINE vf v_rint(vf a) { return rintf(a); }
AY_INLINE vf v_floor(vf a) { return floorf(a); }
AY_INLINE vf v_ceil(vf a) { return ceilf(a); }
AY_INLINE vf v_abs(vf a) { return fabsf(a); }
AY_INLINE vf v_copysign(vf mag, vf sign) { return copysignf(mag, sign); }
AY_INLINE vm v_lt(vf a, vf b) { return a < b; }
AY_INLINE vm v_isnan(vf a) { return a != a; }
AY_INLINE vm v_or(vm a, vm b) { return a | b; }
AY_INLINE vm v_andnot(vm a, vm b) { return (int)(!a && b); } /* not a, and b */
AY_INLINE int v_count(vm m) { return m; }
AY_INLINE vf v_sel(vm m, vf a, vf b) { return m ? a : b; }
/** x * 2^n, n whole, within [-152, 129]. */
AY_INLINE vf v_ldexp(vf x, vf n) { return ldexpf(x, (int)n); }
AY_INLINE vf v_fraction(vf a) { return a - floorf(a); }
/** p 2^floor(y), y <= 0; 0 where y is below -126, whatever p. */
AY_INLINE vf v_ldexp_down(vf p, vf y) { return y >= -126 ? ldexpf(p, (int)floorf(y)) : y < -126 ? 0 : y; }
AY_INLINE vf v_round_f16(vf a) { return ay_f16_to_f32(ay_f32_to_f16(a)); }
AY_INLINE float v_hsum(vf a) { return a; }
AY_INLINE float v_hmax(vf a) { return a; }
AY_INLINE void v_transpose(vf r[VL]) {}
/** Of 4 * VL numbers one behind the other to the vectors of every fourth, and back (in what order of lanes is open). */
AY_INLINE void v_fours(vf r[4]) {}
/** Lane i: what op makes of all lanes of r[i]. */
AY_INLINE vf v_fold(vf (*const op)(vf, vf), vf r[VL]) { return r[0]; }
/** The lanes of v, whole numbers within int8 (or NaN: anything), as bytes. */
AY_INLINE void v_store_i8(int8_t *p, vf v) { *p = v == v ? (int8_t)v : 0; }
/** The same of 32 numbers. */
AY_INLINE void v_store_32_i8(int8_t *p, const vf v[32 / VL]) {
    for (int i = 0; i < 32; i++) v_store_i8(p + i, v[i]);
}
/** Lane i: the bytes a[i], b[i], c[i], d[i], whole numbers within int8. */
AY_INLINE vf v_four_bytes(vf a, vf b, vf c, vf d) {
    int8_t t[4];
    vf out;
    v_store_i8(t, a), v_store_i8(t + 1, b), v_store_i8(t + 2, c), v_store_i8(t + 3, d);
    memcpy(&out, t, sizeof out);
    return out;
}
/** 2 * PAIRS codes of four bits from PAIRS bytes, the lower half first, through a table of 16. */
#define PAIRS 1
AY_INLINE void v_lut16(const int8_t lut[16], const uint8_t *src, int8_t *out) {
    out[0] = lut[*src & 15];
    out[1] = lut[*src >> 4];
}
/** VL entries of a table of 16 or 64 numbers. */
AY_INLINE vf v_lookup(const float *table, const int size, const uint8_t *index) { return table[*index]; }
