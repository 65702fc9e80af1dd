/* SPDX-License-Identifier: MIT
 *
 * Packing and finishing over simd.h: rows of weights or activations, in their file's number format, become the panels
 * [k][width] that micro-kernels stream through; finished sums get their bias, activation, gate and residual.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/vmath.h"

AY_INLINE vf load_as(const ay_dtype t, const char *p) {
    return t == AY_F16 ? v_load_f16(p) : t == AY_BF16 ? v_load_bf16(p) : v_load(p);
}
AY_INLINE vf loadn_as(const ay_dtype t, const char *p, int n) {
    return t == AY_F16 ? v_loadn_f16(p, n) : t == AY_BF16 ? v_loadn_bf16(p, n) : v_loadn(p, n);
}

/** VL columns (fewer at the end of k) of up to VL rows, turned. Narrow panels are written in rising order with whole
 *  vectors, each overwriting what the one before spilled; only the last of the panel must stop in time. */
AY_INLINE void turn_block(const ay_dtype t, const char *src, int64_t pitch, int rows, int kn, int lanes, int width,
                          bool spill, float *dst) {
    vf r[VL];
    if (kn == VL && rows == VL) {
        AY_UNROLL for (int i = 0; i < VL; i++) r[i] = load_as(t, src + i * pitch);
    } else if (kn == VL) {
        AY_UNROLL for (int i = 0; i < VL; i++) r[i] = i < rows ? load_as(t, src + i * pitch) : v_set(0);
    } else {
        AY_UNROLL for (int i = 0; i < VL; i++) r[i] = i < rows ? loadn_as(t, src + i * pitch, kn) : v_set(0);
    }
    v_transpose(r);
    if (kn == VL && (lanes == VL || spill)) {
        AY_UNROLL for (int i = 0; i < VL; i++) v_store(dst + i * width, r[i]);
    } else {
        vf turned[VL]; /* a copy in memory: r above stays in registers only if nobody indexes it by a variable */
        AY_UNROLL for (int i = 0; i < VL; i++) turned[i] = r[i];
        for (int i = 0; i < kn; i++) v_storen(dst + i * width, turned[i], lanes);
    }
}

/* Bytes of a row that are fetched ahead: processors follow fewer streams by themselves than a panel has rows. */
enum { AHEAD = 256 };

AY_INLINE void turn_as(const ay_dtype t, const void *src, int64_t ld, int rows, int width, int64_t k, float *dst) {
    int size = t == AY_F32 ? 4 : 2;
    int64_t pitch = ld * size;
    for (int64_t p = 0; p < k; p += VL) {
        int kn = k - p < VL ? (int)(k - p) : VL;
        for (int r0 = 0; r0 < width; r0 += VL) {
            int left = rows - r0 < 0 ? 0 : rows - r0, lanes = width - r0 < VL ? width - r0 : VL;
            bool spill = width < VL && p + 2 * VL <= k;
            for (int i = 0; i < left && i < VL; i++) {
                __builtin_prefetch((const char *)src + (r0 + i) * pitch + p * size + AHEAD);
            }
            turn_block(t, (const char *)src + r0 * pitch + p * size, pitch, left < VL ? left : VL, kn, lanes, width, spill,
                       dst + p * width + r0);
        }
    }
}

static void turn(ay_dtype t, const void *src, int64_t ld, int rows, int width, int64_t k, float *dst) {
    if (t == AY_F32) turn_as(AY_F32, src, ld, rows, width, k, dst);
    else if (t == AY_F16) turn_as(AY_F16, src, ld, rows, width, k, dst);
    else turn_as(AY_BF16, src, ld, rows, width, k, dst);
}

enum { LINE = 16 }; /* numbers in a cache line: squares of so many are turned, so that lines are read and written whole */

/** y [m][n] = x [n][m] of up to VL by VL numbers. */
AY_INLINE void turn_square(int m, int n, const float *x, int64_t xs, float *y, int64_t ys) {
    vf r[VL];
    if (m == VL && n == VL) {
        AY_UNROLL for (int i = 0; i < VL; i++) r[i] = v_load(x + i * xs);
        v_transpose(r);
        AY_UNROLL for (int i = 0; i < VL; i++) v_store(y + i * ys, r[i]);
        return;
    }
    AY_UNROLL for (int i = 0; i < VL; i++) r[i] = i < n ? v_loadn(x + i * xs, m) : v_set(0);
    v_transpose(r);
    vf turned[VL];
    AY_UNROLL for (int i = 0; i < VL; i++) turned[i] = r[i];
    for (int i = 0; i < m; i++) v_storen(y + i * ys, turned[i], n);
}

static void transpose(int64_t m, int64_t n, const float *x, int64_t xs, float *y, int64_t ys) {
    for (int64_t i0 = 0; i0 < m; i0 += LINE) {
        int64_t i1 = i0 + LINE < m ? i0 + LINE : m;
        for (int64_t j0 = 0; j0 < n; j0 += LINE) {
            int64_t j1 = j0 + LINE < n ? j0 + LINE : n;
            for (int64_t i = i0; i < i1; i += VL) {
                for (int64_t j = j0; j < j1; j += VL)
                    turn_square(i1 - i < VL ? (int)(i1 - i) : VL, j1 - j < VL ? (int)(j1 - j) : VL, x + j * xs + i, xs,
                                y + i * ys + j, ys);
            }
        }
    }
}

static void rows(const float *src, int64_t ld, int cols, int width, int64_t k, float *dst) {
    if (cols == width && width == 2 * VL) {
        for (int64_t p = 0; p < k; p++, src += ld, dst += 2 * VL) {
            v_store(dst, v_load(src));
            v_store(dst + VL, v_load(src + VL));
        }
        return;
    }
    if (cols == width && width < VL) { /* narrow: whole vectors, each overwriting what the one before spilled */
        for (int64_t p = 0; p < k; p++, src += ld, dst += width) {
            if ((k - p) * width >= VL) v_store(dst, v_loadn(src, cols));
            else v_storen(dst, v_loadn(src, cols), cols);
        }
        return;
    }
    for (int64_t p = 0; p < k; p++, src += ld, dst += width) {
        int c = 0;
        for (; c + VL <= cols; c += VL) v_store(dst + c, v_load(src + c));
        for (; c < cols; c++) dst[c] = src[c];
        for (; c < width; c++) dst[c] = 0;
    }
}

enum { CHUNK = 256 }; /* codes in a row of bytes on the way to numbers */

/** n four-bit codes from number `begin` on, as bytes through a table; n + 1 <= CHUNK. Returns the first. */
AY_INLINE const int8_t *nibbles(const int8_t table[16], int64_t n, const uint8_t *src, int64_t begin, int8_t t[CHUNK]) {
    int64_t odd = begin & 1, i = 0;
    src += begin / 2;
    n += odd;
    for (; i + 2 * PAIRS <= n; i += 2 * PAIRS, src += PAIRS) v_lut16(table, src, t + i);
    for (; i < n; i += 2, src++) {
        t[i] = table[*src & 15];
        if (i + 1 < n) t[i + 1] = table[*src >> 4];
    }
    return t + odd;
}

AY_INLINE void bytes_to(const ay_dtype t, int64_t n, const uint8_t *p, float scale, float offset, float *out) {
    vf s = v_set(scale), o = v_set(offset);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(out + i, v_mul(v_sub(t == AY_I8 ? v_load_i8(p + i) : v_load_u8(p + i), o), s));
    for (; i < n; i++) out[i] = ((t == AY_I8 ? (float)(int8_t)p[i] : (float)p[i]) - offset) * scale;
}

static void codes(ay_dtype t, int64_t n, const void *src, int64_t begin, float scale, float offset, float *out) {
    static const int8_t signs[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1},
                        plain[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (t == AY_I8) bytes_to(AY_I8, n, (const uint8_t *)src + begin, scale, offset, out);
    else if (t == AY_U8) bytes_to(AY_U8, n, (const uint8_t *)src + begin, scale, offset, out);
    for (int64_t i = 0; i < n && t != AY_I8 && t != AY_U8;) {
        int8_t room[CHUNK];
        int64_t some = n - i < CHUNK - 1 ? n - i : CHUNK - 1;
        some -= (begin + i + some) & (some > 1); /* the next chunk begins on a byte */
        bytes_to(AY_I8, some, (const uint8_t *)nibbles(t == AY_I4 ? signs : plain, some, src, begin + i, room), scale, offset,
                 out + i);
        i += some;
    }
}

/** n six-bit codes, packed from the lowest bit up, four in three bytes. */
static void sixes(int64_t n, const uint8_t *src, int64_t begin, uint8_t *t) {
    int64_t i = 0;
    for (const uint8_t *p = src + begin / 4 * 3; begin % 4 == 0 && i + 4 <= n; i += 4, p += 3) {
        uint32_t v = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
        t[i] = v & 63, t[i + 1] = v >> 6 & 63, t[i + 2] = v >> 12 & 63, t[i + 3] = v >> 18 & 63;
    }
    for (; i < n; i++) {
        int64_t bit = (begin + i) * 6;
        unsigned v = src[bit / 8];
        if (bit % 8 > 2) v |= (unsigned)src[bit / 8 + 1] << 8;
        t[i] = v >> bit % 8 & 63;
    }
}

AY_INLINE void lookup_as(const int size, const float *table, int64_t n, const uint8_t *index, float *out) {
    int64_t i = 0; /* gathers of 256 are slower than loads */
    for (; size < 256 && i + VL <= n; i += VL) v_store(out + i, v_lookup(table, size, index + i));
    for (; i + 4 <= n; i += 4) {
        float a = table[index[i]], b = table[index[i + 1]], c = table[index[i + 2]], d = table[index[i + 3]];
        out[i] = a, out[i + 1] = b, out[i + 2] = c, out[i + 3] = d;
    }
    for (; i < n; i++) out[i] = table[index[i]];
}

static void lookup(int bits, const float *table, int64_t n, const uint8_t *src, int64_t begin, float *out) {
    static const int8_t plain[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (bits == 8) lookup_as(256, table, n, src + begin, out);
    for (int64_t i = 0; i < n && bits != 8;) {
        int8_t room[CHUNK];
        int64_t some = n - i < CHUNK - 4 ? n - i : CHUNK - 4;
        if (bits == 4) {
            lookup_as(16, table, some, (const uint8_t *)nibbles(plain, some, src, begin + i, room), out + i);
        } else {
            sixes(some, src, begin + i, (uint8_t *)room);
            lookup_as(64, table, some, (const uint8_t *)room, out + i);
        }
        i += some;
    }
}

AY_INLINE vf finish_one(const ay_finish *f, const ay_act act, int64_t i, int n, vf v) {
    bool whole = n == VL;
    v = v_mul(v, v_set(f->alpha));
    if (f->scale) v = v_mul(v, whole ? v_load(f->scale + i) : v_loadn(f->scale + i, n));
    if (f->bias) v = v_add(v, whole ? v_load(f->bias + i) : v_loadn(f->bias + i, n));
    v = v_act(act, v_add(v, v_set(f->bias_all)));
    if (f->gate) v = v_mul(v, whole ? v_load(f->gate + i) : v_loadn(f->gate + i, n));
    if (f->residual) v = v_add(v, whole ? v_load(f->residual + i) : v_loadn(f->residual + i, n));
    return v;
}

AY_INLINE void finish_as(const ay_finish *f, const ay_act act, int64_t n, float *c) {
    int64_t i = 0;
    for (; i + VL <= n; i += VL) v_store(c + i, finish_one(f, act, i, VL, v_load(c + i)));
    if (i < n) v_storen(c + i, finish_one(f, act, i, (int)(n - i), v_loadn(c + i, (int)(n - i))), (int)(n - i));
}

/* One case a function of the finish, so that the compiler knows it in the loops. */
#define EACH_ACT(each)                                                                                                      \
    each(AY_ACT_NONE) each(AY_ACT_GELU_TANH) each(AY_ACT_GELU_ERF) each(AY_ACT_GELU_SIGMOID) each(AY_ACT_SILU)              \
        each(AY_ACT_RELU) each(AY_ACT_SIGMOID) each(AY_ACT_TANH)

static void finish(const ay_finish *f, int64_t n, float *c) {
#define AS(act) case act: finish_as(f, act, n, c); return;
    switch (f->act) { EACH_ACT(AS) }
#undef AS
}

/** `vectors` vectors of each of some rows, the last of `lanes` numbers, or of VL where that is known to the compiler. `more`:
 *  gate or residual. */
AY_INLINE void finish_columns(const ay_finish *f, const ay_act act, const bool more, const int vectors, const int lanes, int64_t i,
                              int64_t rows, const float *c, int64_t width, float *out, int64_t ldo, int64_t ldr) {
    vf scale[2], bias[2], gate[2];
    AY_UNROLL for (int v = 0; v < vectors; v++) {
        int64_t at = i + v * VL;
        scale[v] = v_set(f->alpha), bias[v] = v_set(f->bias_all), gate[v] = v_set(1);
        if (f->scale) scale[v] = v_mul(scale[v], lanes == VL ? v_load(f->scale + at) : v_loadn(f->scale + at, lanes));
        if (f->bias) bias[v] = v_add(bias[v], lanes == VL ? v_load(f->bias + at) : v_loadn(f->bias + at, lanes));
        if (f->gate) gate[v] = lanes == VL ? v_load(f->gate + at) : v_loadn(f->gate + at, lanes);
    }
    const float *res = f->residual;
    for (int64_t r = 0; r < rows; r++) {
        AY_UNROLL for (int v = 0; v < vectors; v++) {
            int64_t at = i + v * VL;
            vf x = v_act(act, v_fma(v_load(c + r * width + at), scale[v], bias[v]));
            if (more) x = v_mul(x, gate[v]);
            if (more && res) x = v_add(x, lanes == VL ? v_load(res + r * ldr + at) : v_loadn(res + r * ldr + at, lanes));
            if (lanes == VL) v_store(out + r * ldo + at, x);
            else v_storen(out + r * ldo + at, x, lanes);
        }
    }
}

AY_INLINE void panel_as(const ay_finish *f, const ay_act act, int64_t rows, int64_t n, const float *c, int64_t width, float *out,
                        int64_t ldo, int64_t ldr) {
    int64_t i = 0;
    bool more = f->gate || f->residual;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        if (more) finish_columns(f, act, true, 2, VL, i, rows, c, width, out, ldo, ldr);
        else finish_columns(f, act, false, 2, VL, i, rows, c, width, out, ldo, ldr);
    }
    for (; i < n; i += VL) finish_columns(f, act, true, 1, n - i < VL ? (int)(n - i) : VL, i, rows, c, width, out, ldo, ldr);
}

/** VL columns of c (`count` of them are wanted) as rows of VL numbers (or `lanes`). */
AY_INLINE void turned_square(const ay_finish *f, const ay_act act, int64_t o, int64_t p, const int lanes, int count, const float *c,
                             int64_t width, float *out, int64_t ldo) {
    vf r[VL];
    AY_UNROLL for (int i = 0; i < VL; i++) r[i] = v_load(c + (p + (i < lanes ? i : 0)) * width + o);
    v_transpose(r);
    AY_UNROLL for (int i = 0; i < VL; i++) {
        if (i >= count) continue;
        float scale = f->scale ? f->alpha * f->scale[o + i] : f->alpha, bias = f->bias ? f->bias[o + i] + f->bias_all : f->bias_all;
        int64_t at = (o + i) * ldo + p;
        vf v = v_act(act, v_fma(r[i], v_set(scale), v_set(bias)));
        if (f->gate) v = v_mul(v, v_set(f->gate[o + i]));
        if (f->residual) v = v_add(v, lanes == VL ? v_load(f->residual + at) : v_loadn(f->residual + at, lanes));
        if (lanes == VL) v_store(out + at, v);
        else v_storen(out + at, v, lanes);
    }
}

AY_INLINE void turned_as(const ay_finish *f, const ay_act act, int64_t rows, int64_t n, const float *c, int64_t width, float *out, int64_t ldo) {
    for (int64_t o = 0; o < n; o += VL) {
        int count = n - o < VL ? (int)(n - o) : VL;
        int64_t p = 0;
        for (; p + VL <= rows; p += VL) turned_square(f, act, o, p, VL, count, c, width, out, ldo);
        if (p < rows) turned_square(f, act, o, p, (int)(rows - p), count, c, width, out, ldo);
    }
}

static void finish_panel(const ay_finish *f, int64_t rows, int64_t n, const float *c, int64_t width, float *out, int64_t ldo,
                         int64_t ldr) {
#define AS(act) case act: panel_as(f, act, rows, n, c, width, out, ldo, ldr); return;
    switch (f->act) { EACH_ACT(AS) }
#undef AS
}

static void finish_turned(const ay_finish *f, int64_t rows, int64_t n, const float *c, int64_t width, float *out, int64_t ldo) {
#define AS(act) case act: turned_as(f, act, rows, n, c, width, out, ldo); return;
    switch (f->act) { EACH_ACT(AS) }
#undef AS
}
