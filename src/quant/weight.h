/* SPDX-License-Identifier: MIT
 *
 * A weight as it lies in a file: plain numbers, blockwise linear codes, or palettes. One struct describes what Core ML's
 * constexpr ops can say, and the CPU engine reads weights through it, straight from the mapped file.
 */
#ifndef AY_WEIGHT_H
#define AY_WEIGHT_H

#include "base/base.h"

typedef enum ay_store {
    AY_STORE_PLAIN, /* data: dtype `data_dtype`, shape dim[] */
    AY_STORE_BLOCK, /* value = scale_block * (data - offset_block); block[d] = dim[d] / scale_dim[d]  (exact division) */
    AY_STORE_LUT    /* data: palette indices; value = lut[group][index][v], see `lut_dim`, `vec`, `vector_axis` */
} ay_store;

/** All pointers are borrowed (usually from a map) and may be NULL until bound. Multi-byte numbers are little-endian and
 *  maybe unaligned. dim[] is always the shape of the value, also when vec > 1 (then indices have dim[vector_axis]/vec). */
typedef struct ay_weight {
    ay_store store;
    int rank;
    int64_t dim[AY_MAX_RANK];
    ay_dtype value_dtype; /* what the op produces: float16 or float32 (or the integer type of a plain table) */

    ay_dtype data_dtype;
    const void *data;

    ay_dtype scale_dtype; /* BLOCK: float16 or float32 */
    int64_t scale_dim[AY_MAX_RANK];
    const void *scale;
    ay_dtype offset_dtype; /* BLOCK: AY_NONE when there is no offset; else shape scale_dim */
    const void *offset;

    ay_dtype lut_dtype; /* LUT: float16, float32, int8 or uint8 */
    int64_t lut_dim[AY_MAX_RANK + 2]; /* [g0 .. g(rank-1), 2^bits, vec] */
    const void *lut;
    int vector_axis; /* meaningful when vec = lut_dim[rank + 1] > 1 */
} ay_weight;

/** Whether the parts fit together: types, divisibility, palette size against index bits. Pointers and lengths are the
 *  caller's to check, with the sizes below. A weight that passes can be read at any place without harm. */
alloy_status ay_weight_check(ay_ctx *cx, const char *name, const ay_weight *w);
/** Elements [begin, begin + count) in row-major order, as float32; BLOCK: rounded to value_dtype as the op's result is. */
void ay_weight_read(const ay_weight *w, int64_t begin, int64_t count, float *out);
/** Bytes of each part of the weight as stored (0 for parts that do not exist). */
size_t ay_weight_data_bytes(const ay_weight *w);
size_t ay_weight_scale_bytes(const ay_weight *w);
size_t ay_weight_offset_bytes(const ay_weight *w);
size_t ay_weight_lut_bytes(const ay_weight *w);
/** A plain weight of this type over `data`. */
ay_weight ay_weight_plain(const ay_type *type, const void *data);

/** `count` elements of any dtype to float32 / from float32 (round to nearest even; integers: saturated, NaN to 0). `from`
 *  is read from element `begin` (sub-byte types need not start on a byte). Nothing needs to be aligned. The bits are those
 *  of the scalar forms in base/half.h on every machine. */
void ay_convert_to_f32(ay_dtype t, const void *from, int64_t begin, int64_t count, float *out);
void ay_convert_from_f32(ay_dtype t, const float *from, int64_t count, void *out);

#endif
