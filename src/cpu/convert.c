/* SPDX-License-Identifier: MIT
 *
 * Numbers in and out of the engine. float32 is the way for every float dtype; 32- and 64-bit integers, which float32
 * cannot carry, have their own.
 */
#include "cpu/convert.h"

#include "quant/weight.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 512 };

bool ay_kind_is_native(ay_kind kind, ay_dtype t, const void *data) {
    if (kind == AY_KIND_U8) return t == AY_BOOL;
    return t == (kind == AY_KIND_F32 ? AY_F32 : AY_I32) && (uintptr_t)data % 4 == 0;
}

static int32_t saturate(int64_t v) {
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

/* Saturating, NaN to 0: an input or a foreign const may hold anything. */
static int32_t truncate_f32(float f) {
    if (f != f) return 0;
    return f >= 2147483648.0f ? INT32_MAX : f <= -2147483648.0f ? INT32_MIN : (int32_t)f;
}

/* One element of a wide integer array; false when t is not one. */
static bool read_wide(ay_dtype t, const unsigned char *p, int64_t i, int64_t *out) {
    if (t == AY_I32 || t == AY_U32) {
        uint32_t u;
        memcpy(&u, p + i * 4, 4);
        *out = t == AY_I32 ? (int64_t)(int32_t)u : (int64_t)u;
        return true;
    }
    if (t != AY_I64 && t != AY_U64) return false;
    memcpy(out, p + i * 8, 8);
    if (t == AY_U64 && *out < 0) *out = INT64_MAX;
    return true;
}

static void to_int(ay_dtype t, const void *from, int64_t begin, int64_t count, int32_t *out) {
    int64_t wide;
    if (count > 0 && read_wide(t, from, begin, &wide)) {
        for (int64_t i = 0; i < count; i++) {
            read_wide(t, from, begin + i, &wide);
            out[i] = saturate(wide);
        }
        return;
    }
    float part[CHUNK];
    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t n = ay_min_i64(CHUNK, count - done);
        ay_convert_to_f32(t, from, begin + done, n, part);
        for (int64_t i = 0; i < n; i++) out[done + i] = truncate_f32(part[i]);
    }
}

static void to_bool(ay_dtype t, const void *from, int64_t begin, int64_t count, unsigned char *out) {
    if (t == AY_BOOL) {
        const unsigned char *b = (const unsigned char *)from + begin;
        for (int64_t i = 0; i < count; i++) out[i] = b[i] != 0;
        return;
    }
    float part[CHUNK];
    for (int64_t done = 0; done < count; done += CHUNK) {
        int64_t n = ay_min_i64(CHUNK, count - done);
        ay_convert_to_f32(t, from, begin + done, n, part);
        for (int64_t i = 0; i < n; i++) out[done + i] = part[i] != 0;
    }
}

void ay_convert_to_kind(ay_kind kind, ay_dtype t, const void *from, int64_t begin, int64_t count, void *out) {
    if (kind == AY_KIND_F32) ay_convert_to_f32(t, from, begin, count, out);
    else if (kind == AY_KIND_I32) to_int(t, from, begin, count, out);
    else to_bool(t, from, begin, count, out);
}

void ay_convert_from_kind(ay_kind kind, const void *from, ay_dtype t, int64_t begin, int64_t count, void *out) {
    unsigned char *to = (unsigned char *)out + begin * (ay_dtype_bits(t) / 8);
    if (kind == AY_KIND_F32 && t != AY_BOOL) {
        ay_convert_from_f32(t, from, count, to);
        return;
    }
    if (kind == AY_KIND_I32 && t == AY_I32) {
        memcpy(to, from, (size_t)count * 4);
        return;
    }
    float part[CHUNK];
    for (int64_t i = 0; i < count; i++) {
        double v = kind == AY_KIND_F32 ? ((const float *)from)[i]
                 : kind == AY_KIND_I32 ? ((const int32_t *)from)[i] : ((const unsigned char *)from)[i] != 0;
        if (t == AY_BOOL) {
            to[i] = v != 0;
        } else if (t == AY_I64 || t == AY_U64) {
            int64_t w = v < 0 && t == AY_U64 ? 0 : (int64_t)v;
            memcpy(to + i * 8, &w, 8);
        } else if (t == AY_F64) {
            memcpy(to + i * 8, &v, 8);
        } else { /* narrow: float32 holds what the target can, and saturates beyond */
            part[i % CHUNK] = (float)v;
            if (i % CHUNK == CHUNK - 1 || i == count - 1) {
                int64_t first = i - i % CHUNK;
                ay_convert_from_f32(t, part, i - first + 1, to + first * (ay_dtype_bits(t) / 8));
            }
        }
    }
}
