/* SPDX-License-Identifier: MIT
 *
 * Conversion between float32 and every element type: the choice of the instruction-set level and the portable C row.
 * Numbers in files may lie at any address, so each is read through memcpy, which costs nothing.
 */
#include "quant/convert.h"

#include "base/half.h"
#include "base/isa.h"
#include "quant/weight.h"

#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and read without swapping");

/* ---- to float32 ---------------------------------------------------------------------------------------------------- */

#define TO_F32(name, T, expr)                                                                                               \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        const unsigned char *p = (const unsigned char *)from + (size_t)begin * sizeof(T);                                   \
        for (int64_t i = 0; i < n; i++) {                                                                                   \
            T v;                                                                                                            \
            memcpy(&v, p + (size_t)i * sizeof v, sizeof v);                                                                 \
            out[i] = (expr);                                                                                                \
        }                                                                                                                   \
    }
TO_F32(f64, double, (float)v)
TO_F32(f16, uint16_t, ay_f16_to_f32(v))
TO_F32(bf16, uint16_t, ay_bf16_to_f32(v))
TO_F32(f8e4m3, uint8_t, ay_f8e4m3_to_f32(v))
TO_F32(f8e5m2, uint8_t, ay_f8e5m2_to_f32(v))
TO_F32(i64, int64_t, (float)v)
TO_F32(i32, int32_t, (float)v)
TO_F32(i16, int16_t, (float)v)
TO_F32(i8, int8_t, (float)v)
TO_F32(u64, uint64_t, (float)v)
TO_F32(u32, uint32_t, (float)v)
TO_F32(u16, uint16_t, (float)v)
TO_F32(u8, uint8_t, (float)v)

static void f32_to_f32(const void *from, int64_t begin, int64_t n, float *out) {
    if (n > 0) memcpy(out, (const unsigned char *)from + (size_t)begin * 4, (size_t)n * 4);
}

/* Element i occupies bits [i * BITS, (i + 1) * BITS) of the byte stream, least significant first; 3- and 6-bit elements may
 * straddle two bytes, and the second is read only then: it may lie behind the end. */
static unsigned bits_at(const unsigned char *p, int64_t i, int bits) {
    uint64_t at = (uint64_t)i * (unsigned)bits;
    unsigned shift = (unsigned)(at & 7), v = p[at >> 3] >> shift;
    if (shift + (unsigned)bits > 8) v |= (unsigned)p[(at >> 3) + 1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

#define BITS_TO_F32(name, bits, expr)                                                                                       \
    static void name##_to_f32(const void *from, int64_t begin, int64_t n, float *out) {                                     \
        for (int64_t i = 0; i < n; i++) {                                                                                   \
            unsigned v = bits_at(from, begin + i, bits);                                                                    \
            out[i] = (expr);                                                                                                \
        }                                                                                                                   \
    }
BITS_TO_F32(i4, 4, (float)((int)(v ^ 8) - 8))
BITS_TO_F32(u6, 6, (float)v)
BITS_TO_F32(u4, 4, (float)v)
BITS_TO_F32(u3, 3, (float)v)
BITS_TO_F32(u2, 2, (float)v)
BITS_TO_F32(u1, 1, (float)v)

/* ---- from float32 -------------------------------------------------------------------------------------------------- */

/* To the nearest integer, ties to even, saturated; NaN gives 0. hi + 1 is a power of two, so it is exact in float. */
static int64_t to_int(float f, int64_t lo, int64_t hi) {
    if (!(f == f)) return 0;
    float r = rintf(f);
    return r <= (float)lo ? lo : r >= (float)hi ? hi : (int64_t)r;
}

static uint64_t to_u64(float f) {
    float r = rintf(f);
    return !(r > 0) ? 0 : r >= 0x1p64f ? UINT64_MAX : (uint64_t)r;
}

#define FROM_F32(name, T, expr)                                                                                             \
    static void name##_from_f32(const float *from, int64_t n, void *out) {                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                                   \
            float f = from[i];                                                                                              \
            T v = (T)(expr);                                                                                                \
            memcpy((unsigned char *)out + (size_t)i * sizeof v, &v, sizeof v);                                              \
        }                                                                                                                   \
    }
FROM_F32(f64, double, f)
FROM_F32(f32, float, f)
FROM_F32(f16, uint16_t, ay_f32_to_f16(f))
FROM_F32(bf16, uint16_t, ay_f32_to_bf16(f))
FROM_F32(f8e4m3, uint8_t, ay_f32_to_f8e4m3(f))
FROM_F32(f8e5m2, uint8_t, ay_f32_to_f8e5m2(f))
FROM_F32(i64, int64_t, to_int(f, INT64_MIN, INT64_MAX))
FROM_F32(i32, int32_t, to_int(f, INT32_MIN, INT32_MAX))
FROM_F32(i16, int16_t, to_int(f, INT16_MIN, INT16_MAX))
FROM_F32(i8, int8_t, to_int(f, INT8_MIN, INT8_MAX))
FROM_F32(u64, uint64_t, to_u64(f))
FROM_F32(u32, uint32_t, to_int(f, 0, UINT32_MAX))
FROM_F32(u16, uint16_t, to_int(f, 0, UINT16_MAX))
FROM_F32(u8, uint8_t, to_int(f, 0, UINT8_MAX))
FROM_F32(bool, uint8_t, f != 0)

/* Packs elements of 1 to 6 bits; the unused bits of the last byte are 0. */
static void pack(const float *from, int64_t n, void *out, int bits, int64_t lo, int64_t hi) {
    unsigned char *p = out;
    unsigned held = 0, count = 0;
    for (int64_t i = 0; i < n; i++) {
        held |= ((unsigned)to_int(from[i], lo, hi) & ((1u << bits) - 1)) << count;
        count += (unsigned)bits;
        if (count >= 8) {
            *p++ = (unsigned char)held;
            held >>= 8;
            count -= 8;
        }
    }
    if (count) *p = (unsigned char)held;
}
static void i4_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 4, -8, 7); }
static void u6_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 6, 0, 63); }
static void u4_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 4, 0, 15); }
static void u3_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 3, 0, 7); }
static void u2_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 2, 0, 3); }
static void u1_from_f32(const float *from, int64_t n, void *out) { pack(from, n, out, 1, 0, 1); }

/* ---- codes to values ----------------------------------------------------------------------------------------------- */

static void affine(float *x, int64_t n, float scale, float offset, bool half) {
    for (int64_t i = 0; i < n; i++) x[i] = scale * (x[i] - offset);
    for (int64_t i = 0; half && i < n; i++) x[i] = ay_f16_to_f32(ay_f32_to_f16(x[i]));
}

static void lookup(float *x, int64_t n, const float *table, int k) {
    for (int64_t i = 0; i < n; i++) x[i] = table[(int)x[i]];
}

/* ---- the rows and the choice --------------------------------------------------------------------------------------- */

#define BOTH(T, name) .to[T] = name##_to_f32, .from[T] = name##_from_f32
const ay_convert_row ay_convert_c = {
    BOTH(AY_F64, f64),       BOTH(AY_F32, f32),       BOTH(AY_F16, f16),        BOTH(AY_BF16, bf16),
    BOTH(AY_F8E4M3, f8e4m3), BOTH(AY_F8E5M2, f8e5m2), BOTH(AY_I64, i64),        BOTH(AY_I32, i32),
    BOTH(AY_I16, i16),       BOTH(AY_I8, i8),         BOTH(AY_I4, i4),          BOTH(AY_U64, u64),
    BOTH(AY_U32, u32),       BOTH(AY_U16, u16),       BOTH(AY_U8, u8),          BOTH(AY_U6, u6),
    BOTH(AY_U4, u4),         BOTH(AY_U3, u3),         BOTH(AY_U2, u2),          BOTH(AY_U1, u1),
    .affine = affine,        .lookup = lookup,        .to[AY_BOOL] = u8_to_f32, .from[AY_BOOL] = bool_from_f32,
};

/* Best first. */
static const struct {
    ay_isa isa;
    const ay_convert_row *row;
} levels[] = {
#if defined(__x86_64__)
    {AY_ISA_AVX512, &ay_convert_avx512},
    {AY_ISA_AVX2, &ay_convert_avx2},
#elif defined(__aarch64__)
    {AY_ISA_NEON, &ay_convert_neon},
#endif
    {AY_ISA_C, &ay_convert_c},
};
enum { LEVELS = sizeof levels / sizeof levels[0] };

ay_to_f32_fn ay_to_f32_at(int isa, ay_dtype t) {
    for (int i = 0; i < LEVELS && (unsigned)t < AY_DTYPE_COUNT; i++) {
        if (ay_isa_allows((ay_isa)isa, levels[i].isa) && levels[i].row->to[t]) return levels[i].row->to[t];
    }
    return NULL;
}

ay_from_f32_fn ay_from_f32_at(int isa, ay_dtype t) {
    for (int i = 0; i < LEVELS && (unsigned)t < AY_DTYPE_COUNT; i++) {
        if (ay_isa_allows((ay_isa)isa, levels[i].isa) && levels[i].row->from[t]) return levels[i].row->from[t];
    }
    return NULL;
}

ay_affine_fn ay_affine_at(int isa) {
    for (int i = 0; i < LEVELS; i++) {
        if (ay_isa_allows((ay_isa)isa, levels[i].isa) && levels[i].row->affine) return levels[i].row->affine;
    }
    return NULL;
}

ay_lookup_fn ay_lookup_at(int isa) {
    for (int i = 0; i < LEVELS; i++) {
        if (ay_isa_allows((ay_isa)isa, levels[i].isa) && levels[i].row->lookup) return levels[i].row->lookup;
    }
    return NULL;
}

void ay_convert_to_f32(ay_dtype t, const void *from, int64_t begin, int64_t count, float *out) {
    ay_to_f32_fn fn = ay_to_f32_at(ay_isa_best(), t);
    if (fn && count > 0) fn(from, begin, count, out);
}

void ay_convert_from_f32(ay_dtype t, const float *from, int64_t count, void *out) {
    ay_from_f32_fn fn = ay_from_f32_at(ay_isa_best(), t);
    if (fn && count > 0) fn(from, count, out);
}
