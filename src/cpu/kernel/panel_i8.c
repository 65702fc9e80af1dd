/* SPDX-License-Identifier: MIT
 *
 * Weights as they are stored to panels of int8 codes: int8 and int4 codes with a scale for each row or for each run of a
 * multiple of 32 along it, and palettes of 16, whose table is rounded to int8 (an error of 1/254 of its largest entry, small
 * beside that of having 16 entries). A panel is made for one tile and thrown away.
 */
#include "base/half.h"
#include "cpu/kernel/i8.h"

#include <math.h>
#include <string.h>

/* ---- which weights ------------------------------------------------------------------------------------------------ */

static bool all_zero(const void *p, size_t bytes) {
    const char *c = p;
    for (size_t i = 0; i < bytes; i++) {
        if (c[i]) return false;
    }
    return true;
}

static bool codes_fit(const ay_weight *w, ay_i8_weight *out) {
    if (w->data_dtype != AY_I8 && w->data_dtype != AY_I4 && w->data_dtype != AY_U4) return false;
    int64_t inner = 1;
    for (int i = 2; i < w->rank; i++) {
        if (w->scale_dim[i] != 1) return false;
        inner *= w->dim[i];
    }
    if (w->scale_dim[1] > 1) out->run = w->dim[1] / w->scale_dim[1] * inner / out->taps;
    if (out->run % AY_I8_BLOCK != 0) return false;
    return w->offset_dtype == AY_NONE || (w->offset && all_zero(w->offset, ay_weight_offset_bytes(w)));
}

static bool palette_fits(const ay_weight *w) {
    if (w->data_dtype != AY_U4 || w->lut_dim[w->rank] != 16 || w->lut_dim[w->rank + 1] != 1) return false;
    for (int i = 1; i < w->rank; i++) {
        if (w->lut_dim[i] != 1) return false;
    }
    return true;
}

/** Whether 16 numbers keep their distances when rounded to 255 steps: none apart by less than two, but equal ones. */
static bool is_coarse(const float lut[16]) {
    float top = 0;
    for (int i = 0; i < 16; i++) {
        if (!isfinite(lut[i])) return false;
        top = fabsf(lut[i]) > top ? fabsf(lut[i]) : top;
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < i; k++) {
            if (lut[i] != lut[k] && fabsf(lut[i] - lut[k]) < 2 * top / 127) return false;
        }
    }
    return true;
}

bool ay_i8_is_accurate(const ay_weight *w) {
    if (w->store != AY_STORE_LUT) return true;
    for (int64_t g = 0; g < w->lut_dim[0]; g++) {
        float lut[16];
        ay_convert_to_f32(w->lut_dtype, w->lut, g * 16, 16, lut);
        if (!is_coarse(lut)) return false;
    }
    return true;
}

bool ay_i8_weight_of(const ay_weight *w, int64_t n, int64_t c, int64_t taps, ay_i8_weight *out) {
    *out = (ay_i8_weight){.w = w, .n = n, .c = c, .taps = taps};
    if (w->rank < 2 || w->dim[0] != n || n <= 0 || c <= 0) return false;
    if (taps > 1 && (w->dim[1] != c || c % AY_I8_BLOCK != 0)) return false;
    if (ay_dtype_bits(w->data_dtype) == 4 && c * taps % 2 != 0) return false; /* rows begin on a byte */
    return w->store == AY_STORE_BLOCK ? codes_fit(w, out) : w->store == AY_STORE_LUT && palette_fits(w);
}

/* ---- scales ------------------------------------------------------------------------------------------------------- */

/** Largest magnitude of a palette's 16 numbers over 127, and the table in those units. */
static float table_of(const ay_weight *w, int64_t group, int8_t table[16]) {
    float lut[16], top = 0;
    ay_convert_to_f32(w->lut_dtype, w->lut, group * 16, 16, lut);
    for (int i = 0; i < 16; i++) top = fabsf(lut[i]) > top ? fabsf(lut[i]) : top;
    for (int i = 0; i < 16; i++) table[i] = top > 0 && lut[i] == lut[i] ? (int8_t)rintf(lut[i] / top * 127) : 0;
    return top / 127;
}

void ay_i8_row_scales(const ay_i8_weight *p, int64_t at, int64_t count, float *out) {
    const ay_weight *w = p->w;
    bool codes = w->store == AY_STORE_BLOCK;
    int64_t groups = codes ? w->scale_dim[0] : w->lut_dim[0], rows = p->n / groups, have = -1;
    if (codes && rows == 1) {
        ay_convert_to_f32(w->scale_dtype, w->scale, at, count, out);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        int8_t table[16];
        int64_t group = (at + i) / rows;
        if (group == have) out[i] = out[i - 1];
        else if (codes) ay_convert_to_f32(w->scale_dtype, w->scale, group, 1, out + i);
        else out[i] = table_of(w, group, table);
        have = group;
    }
}

/** scale [nb][nr]; `t` holds as many. */
static void run_scales(const ay_i8_panel *p, int64_t at, int count, int64_t b0, int64_t nb, float *t, float *scale) {
    const ay_weight *w = p->w->w;
    int64_t nr = p->kernel->nr, across = w->scale_dim[1], rows = p->w->n / w->scale_dim[0], per = p->w->run / AY_I8_BLOCK;
    int64_t r0 = b0 / p->w->taps / per, nruns = (b0 + nb - 1) / p->w->taps / per - r0 + 1;
    bool direct = per * p->w->taps == 1;
    if (rows == 1) {
        int64_t size = w->scale_dtype == AY_F32 ? 4 : 2;
        p->pack->turn(w->scale_dtype, (const char *)w->scale + (at * across + r0) * size, across, count, (int)nr, nruns,
                      direct ? scale : t);
    } else {
        for (int64_t r = 0; r < nruns; r++) {
            for (int64_t j = 0; j < nr; j++) {
                float v = 0;
                if (j < count) ay_convert_to_f32(w->scale_dtype, w->scale, (at + j) / rows * across + r0 + r, 1, &v);
                (direct ? scale : t)[r * nr + j] = v;
            }
        }
    }
    for (int64_t b = 0; b < nb && !direct; b++)
        memcpy(scale + b * nr, t + ((b0 + b) / p->w->taps / per - r0) * nr, (size_t)nr * sizeof(float));
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

static const int8_t signed_codes[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1},
                    unsigned_codes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/** How many rows share a palette. */
static int64_t palette_rows(const ay_i8_weight *w) { return w->w->store == AY_STORE_LUT ? w->n / w->w->lut_dim[0] : w->n; }

/** The table of four-bit codes, or that of a row's palette, as the kernel wants them. */
static void kernel_table(const ay_i8_panel *p, int64_t row, int8_t table[16]) {
    const ay_weight *w = p->w->w;
    const ay_gemm_i8_row *kernel = p->kernel;
    if (w->store == AY_STORE_LUT) table_of(w, row / palette_rows(p->w), table);
    else memcpy(table, w->data_dtype == AY_I4 ? signed_codes : unsigned_codes, 16);
    for (int i = 0; i < 16; i++) table[i] = (int8_t)((kernel->bits == 4 ? table[i] & 15 : table[i]) ^ kernel->flip);
}

/** Rows of the panel, [count][kn], in the order of the file: bytes as they are stored, others as the kernel wants them. */
static void stage_rows(const ay_i8_panel *p, int64_t at, int count, int64_t k0, int64_t kn) {
    const ay_weight *w = p->w->w;
    int64_t k = p->w->c * p->w->taps, have = ay_min_i64(kn, k - k0), same = palette_rows(p->w);
    int8_t table[16];
    for (int i = 0; i < count; i++) {
        int8_t *to = p->stage + i * kn;
        int64_t begin = (at + i) * k + k0;
        if (w->data_dtype == AY_I8) {
            memcpy(to, (const int8_t *)w->data + begin, (size_t)have);
        } else {
            if (i == 0 || (at + i) % same == 0) kernel_table(p, at + i, table);
            p->a8->lut16(table, have, (const uint8_t *)w->data + begin / 2, to);
        }
        memset(to + have, 0, (size_t)(kn - have));
    }
}

/** Columns of four bytes each, in pairs of k, become columns of eight. */
static void in_eights(int nr, int64_t nb, uint8_t *b) {
    uint8_t t[AY_I8_MAX_NR * 8];
    for (int64_t q = 0; q < nb * AY_I8_BLOCK / 8; q++, b += nr * 8) {
        for (int j = 0; j < nr; j++) {
            memcpy(t + j * 8, b + j * 4, 4);
            memcpy(t + j * 8 + 4, b + (nr + j) * 4, 4);
        }
        memcpy(b, t, (size_t)nr * 8);
    }
}

size_t ay_i8_stage_bytes(const ay_gemm_i8_row *kernel, int64_t nb) { return (size_t)(2 * kernel->nr * nb * AY_I8_BLOCK); }

void ay_i8_panel_make(const ay_i8_panel *p, int64_t at, int count, int64_t b0, int64_t nb, uint8_t *dst, float *scale) {
    int64_t k = p->w->c * p->w->taps, k0 = b0 * AY_I8_BLOCK, kn = nb * AY_I8_BLOCK, taps = p->w->taps, same = palette_rows(p->w);
    int nr = p->kernel->nr;
    const ay_weight *w = p->w->w;
    bool bytes = w->data_dtype == AY_I8;
    uint8_t *turned = taps > 1 ? (uint8_t *)p->stage + nr * kn : dst;
    ay_code_rows rows = {.count = count, .flip = bytes ? p->kernel->flip : 0};
    int8_t table[16];
    if (scale) run_scales(p, at, count, b0, nb, (float *)(void *)p->stage, scale);
    if (k0 + kn <= k && (bytes || at / same == (at + count - 1) / same)) { /* as they lie in the file */
        int64_t begin = at * k + k0;
        rows.at = (const uint8_t *)w->data + (bytes ? begin : begin / 2);
        rows.pitch = bytes ? k : k / 2;
        if (!bytes) kernel_table(p, at, table), rows.table = table;
    } else {
        stage_rows(p, at, count, k0, kn);
        rows.at = (const uint8_t *)p->stage;
        rows.pitch = kn;
    }
    p->a8->turn(&rows, nr, kn, turned);
    for (int64_t b = 0; b < nb && taps > 1; b += taps)
        p->a8->taps_first(taps, nr, turned + b * AY_I8_BLOCK * nr, dst + b * AY_I8_BLOCK * nr);
    if (p->kernel->group == 8) in_eights(nr, nb, dst);
}

void ay_i8_panel_doubled(const ay_i8_panel *p, int64_t at, int count, const ay_a8_head *head, int64_t e0, int64_t n, uint8_t *dst,
                         float *scale) {
    int64_t taps = p->w->taps, nr = p->kernel->nr;
    for (int64_t e = 0; e < n; e++) {
        ay_i8_panel_make(p, at, count, head->block[e0 + e] * taps, taps, dst + e * taps * AY_I8_BLOCK * nr,
                         scale ? scale + e * taps * nr : NULL);
    }
}
