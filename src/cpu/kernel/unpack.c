/* SPDX-License-Identifier: MIT
 *
 * Rows of compressed weights to float32. The forms that large models come in (one scale per run of int8 or int4 along a
 * row, palettes of up to 256 numbers) are done here; the rest goes through ay_weight_read, correct and slow.
 */
#include "base/half.h"
#include "cpu/kernel/mm.h"

#include <string.h>

static float number(ay_dtype t, const void *p, int64_t i) {
    float v;
    if (t == AY_F16) { /* a block's scale: once every few numbers */
        uint16_t h;
        memcpy(&h, (const char *)p + i * 2, sizeof h);
        return ay_f16_to_f32(h);
    }
    if (t == AY_I8) return (float)((const int8_t *)p)[i];
    ay_convert_to_f32(t, p, i, 1, &v);
    return v;
}

/** Blocks that only the first two dimensions are cut into: scale [s0, s1, 1..], so one for each run of a row. */
static bool blocks_simple(const ay_weight *w) {
    if (w->rank < 2 || ay_dtype_bits(w->data_dtype) > 8) return false;
    if (w->data_dtype != AY_I8 && w->data_dtype != AY_U8 && w->data_dtype != AY_I4 && w->data_dtype != AY_U4) return false;
    for (int i = 2; i < w->rank; i++) {
        if (w->scale_dim[i] != 1) return false;
    }
    return true;
}

static void unpack_blocks(const ay_pack_row *p, const ay_weight *w, int64_t k, int64_t row, int64_t k0, int64_t n,
                          float *out) {
    int64_t across = w->scale_dim[1], run = k / across, block_row = row / (w->dim[0] / w->scale_dim[0]);
    for (int64_t i = k0; i < k0 + n;) {
        int64_t b = i / run, end = ay_min_i64(k0 + n, (b + 1) * run), at = block_row * across + b;
        float scale = number(w->scale_dtype, w->scale, at);
        float offset = w->offset_dtype == AY_NONE ? 0 : number(w->offset_dtype, w->offset, at);
        p->codes(w->data_dtype, end - i, w->data, row * k + i, scale, offset, out + (i - k0));
        i = end;
    }
}

bool ay_codes_run(const ay_weight *w, int64_t k, int64_t *run) {
    if (w->store != AY_STORE_BLOCK || w->offset_dtype != AY_NONE || k % 64 != 0 || !blocks_simple(w)) return false;
    *run = k / w->scale_dim[1];
    return *run % 32 == 0 && (w->data_dtype == AY_I8 || w->data_dtype == AY_I4);
}

void ay_codes_scales(const ay_weight *w, int64_t k, int64_t row, float *out) {
    int64_t run, n;
    if (!ay_codes_run(w, k, &run)) return;
    n = k / run;
    ay_convert_to_f32(w->scale_dtype, w->scale, row / (w->dim[0] / w->scale_dim[0]) * n, n, out);
}

/** Palettes of single numbers, one for each run of rows. */
static bool palette_simple(const ay_weight *w) {
    if (w->rank < 1 || w->lut_dim[w->rank + 1] != 1 || w->lut_dim[w->rank] > 256) return false;
    for (int i = 1; i < w->rank; i++) {
        if (w->lut_dim[i] != 1) return false;
    }
    int bits = ay_dtype_bits(w->data_dtype);
    return bits == 8 || bits == 6 || bits == 4;
}

static void unpack_palette(const ay_pack_row *p, const ay_weight *w, int64_t k, int64_t row, int64_t k0, int64_t n, float *out) {
    float lut[256];
    int64_t size = w->lut_dim[w->rank], group = row / (w->dim[0] / w->lut_dim[0]);
    const float *table = lut;
    if (w->lut_dtype == AY_F32 && (uintptr_t)w->lut % sizeof(float) == 0) table = (const float *)w->lut + group * size;
    else ay_convert_to_f32(w->lut_dtype, w->lut, group * size, size, lut);
    p->lookup(ay_dtype_bits(w->data_dtype), table, n, w->data, row * k + k0, out);
}

void ay_unpack_row(const ay_pack_row *p, const ay_weight *w, int64_t k, int64_t row, int64_t k0, int64_t n, float *out) {
    if (w->store == AY_STORE_BLOCK && blocks_simple(w)) unpack_blocks(p, w, k, row, k0, n, out);
    else if (w->store == AY_STORE_LUT && palette_simple(w)) unpack_palette(p, w, k, row, k0, n, out);
    else ay_weight_read(w, row * k + k0, n, out);
}
