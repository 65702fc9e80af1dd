/* SPDX-License-Identifier: MIT
 *
 * Bulk conversion to and from float32: one row of functions per instruction-set level. A NULL entry falls through to the
 * level below; the C row has all. Every level gives the same bits.
 */
#ifndef AY_CONVERT_H
#define AY_CONVERT_H

#include "base/base.h"

/** `n` elements from element `begin` of `from`, which need not be aligned. */
typedef void (*ay_to_f32_fn)(const void *from, int64_t begin, int64_t n, float *out);
/** `n` elements to the beginning of `out`, which need not be aligned. */
typedef void (*ay_from_f32_fn)(const float *from, int64_t n, void *out);

/** x = scale * (x - offset), rounded to half precision too if `half`. */
typedef void (*ay_affine_fn)(float *x, int64_t n, float scale, float offset, bool half);
/** x = table[x]; x holds whole numbers below k, a power of two up to 256. */
typedef void (*ay_lookup_fn)(float *x, int64_t n, const float *table, int k);

typedef struct ay_convert_row {
    ay_to_f32_fn to[AY_DTYPE_COUNT];
    ay_from_f32_fn from[AY_DTYPE_COUNT];
    ay_affine_fn affine;
    ay_lookup_fn lookup;
} ay_convert_row;

extern const ay_convert_row ay_convert_c;
#if defined(__x86_64__)
extern const ay_convert_row ay_convert_avx2;
extern const ay_convert_row ay_convert_avx512;
#elif defined(__aarch64__)
extern const ay_convert_row ay_convert_neon;
#endif

/** The function of level `isa` (an ay_isa), or of the next lower level that has one; NULL for AY_NONE. */
ay_to_f32_fn ay_to_f32_at(int isa, ay_dtype t);
ay_from_f32_fn ay_from_f32_at(int isa, ay_dtype t);
ay_affine_fn ay_affine_at(int isa);
ay_lookup_fn ay_lookup_at(int isa);

#endif
