/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits over simd.h. A block of 32 numbers gets the scale largest / 127; what is below 1e-30 counts as
 * zero, and a block with a number that is not finite gets the scale NaN, so that its products are NaN as in float.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

#include <math.h>

enum { PARTS = AY_I8_BLOCK / VL };

/** Scale and correction of n <= VL records; the sum of the codes of a block that is not finite is of no use. */
AY_INLINE void put_ends(const int n, char *out, int64_t step, vf scale, vf sum) {
    float s[VL], c[VL];
    int32_t correction[VL];
    v_store(s, scale);
    v_store(c, v_sel(v_isnan(scale), v_set(0), v_mul(sum, v_set(-AY_I8_OFFSET))));
    for (int i = 0; i < VL; i++) correction[i] = (int32_t)c[i];
    for (int i = 0; i < n; i++, out += step) {
        memcpy(out + 32, &s[i], 4);
        memcpy(out + 36, &correction[i], 4);
    }
}

/** Largest magnitudes `top`, and 0 or NaN, to scales; returns what to multiply by. */
AY_INLINE vf scales(vf top, vf odd, vf *scale) {
    vf none = v_set(0), tiny = v_set(1e-30f);
    vm zero = v_lt(top, tiny);
    *scale = v_add(v_sel(zero, none, v_mul(top, v_set(1.0f / 127))), odd);
    return v_sel(zero, none, v_div(v_set(127), top));
}

/** 0, or NaN where one of the n <= VL blocks has a number that is not finite. Its sum of squares tells, but for those of numbers
 *  that are large. */
AY_INLINE vf odd_blocks(const int n, const float *x, vf squares) {
    float odd[VL] = {0};
    if (v_count(v_lt(squares, v_set(INFINITY))) == VL) return v_set(0);
    for (int i = 0; i < n * AY_I8_BLOCK; i++) odd[i / AY_I8_BLOCK] += x[i] * 0.0f;
    return v_load(odd);
}

/** VL blocks (fewer: the rest counts as zeros). */
AY_INLINE void blocks_of_row(const int n, const float *x, const float *next, char *out, int64_t step, float *noise, float *power) {
    vf top[VL], sum[VL], squares[VL], scale;
    float by[VL];
    AY_UNROLL for (int i = 0; i < VL; i++) {
        top[i] = squares[i] = v_set(0);
        if (i >= n) continue;
        AY_UNROLL for (int p = 0; p < PARTS; p++) {
            vf v = v_load(x + i * AY_I8_BLOCK + p * VL);
            if (p * VL % 16 == 0) __builtin_prefetch(next + i * AY_I8_BLOCK + p * VL);
            top[i] = v_max(top[i], v_abs(v));
            squares[i] = v_fma(v, v, squares[i]);
        }
    }
    vf t = v_fold(v_max, top), all = v_fold(v_add, squares);
    v_store(by, scales(t, odd_blocks(n, x, all), &scale));
    vf rest = v_max(v_set(0), v_sub(all, v_mul(t, t)));
    if (n == VL) {
        v_store(noise, v_fma(scale, scale, v_load(noise)));
        v_store(power, v_add(rest, v_load(power)));
    } else {
        v_storen(noise, v_fma(scale, scale, v_loadn(noise, n)), n);
        v_storen(power, v_add(rest, v_loadn(power, n)), n);
    }
    AY_UNROLL for (int i = 0; i < VL; i++) {
        sum[i] = v_set(0);
        if (i >= n) continue;
        vf q[PARTS];
        AY_UNROLL for (int p = 0; p < PARTS; p++) {
            q[p] = v_rint(v_mul(v_load(x + i * AY_I8_BLOCK + p * VL), v_set(by[i])));
            sum[i] = v_add(sum[i], q[p]);
        }
        v_store_32_i8((int8_t *)out + i * step, q);
    }
    put_ends(n, out, step, scale, v_fold(v_add, sum));
}

static void row(int64_t blocks, const float *x, const float *next, char *out, int64_t step, float *noise, float *power) {
    int64_t b = 0;
    for (; b + VL <= blocks; b += VL) blocks_of_row(VL, x + b * AY_I8_BLOCK, next + b * AY_I8_BLOCK, out + b * step, step, noise + b, power + b);
    if (b < blocks) blocks_of_row((int)(blocks - b), x + b * AY_I8_BLOCK, next + b * AY_I8_BLOCK, out + b * step, step, noise + b, power + b);
}

static void rest(const float *x, const char *record, float *out) {
    float scale;
    memcpy(&scale, record + AY_I8_BLOCK, sizeof scale);
    AY_UNROLL for (int i = 0; i < AY_I8_BLOCK; i += VL) v_store(out + i, v_sub(v_load(x + i), v_mul(v_load_i8(record + i), v_set(scale))));
}

enum { WORDS = AY_I8_BLOCK / 4, SQUARE = VL > WORDS ? VL : WORDS };

/** The codes of n <= VL pixels, four channels a word. */
AY_INLINE void put_codes(const int n, const vf words[WORDS], char *out, int64_t step) {
    vf r[SQUARE];
    AY_UNROLL for (int i = 0; i < SQUARE; i++) r[i] = i < WORDS ? words[i] : v_set(0);
    AY_UNROLL for (int p = 0; p < WORDS; p += VL) {
        v_transpose(r + p);
        AY_UNROLL for (int i = 0; i < VL; i++) {
            if (i < n) memcpy(out + i * step + p * 4, &r[p + i], VL < WORDS ? VL * 4 : WORDS * 4);
        }
    }
}

/** n <= VL pixels. `next`: those that will be read soon; their lines are not kept near, since channels are often so far apart
 *  that all of them fall in the same place of the first cache. */
AY_INLINE void pixels_of_block(const int n, const float *x, const float *next, int64_t plane, char *out, int64_t step, float *stats) {
    vf q[AY_I8_BLOCK], top = v_set(0), odd = top, sum = top, squares = top, scale, words[WORDS];
    for (int i = 0; i < AY_I8_BLOCK; i++) {
        __builtin_prefetch(next + i * plane, 0, 2);
        q[i] = n == VL ? v_load(x + i * plane) : v_loadn(x + i * plane, n);
        top = v_max(top, v_abs(q[i]));
        squares = v_fma(q[i], q[i], squares);
    }
    if (v_count(v_lt(squares, v_set(INFINITY))) < VL) {
        for (int i = 0; i < AY_I8_BLOCK; i++) odd = v_fma(q[i], v_set(0), odd);
    }
    vf by = scales(top, odd, &scale);
    stats[0] += v_hsum(v_mul(scale, scale));
    stats[1] += v_hsum(v_max(v_set(0), v_sub(squares, v_mul(top, top))));
    AY_UNROLL for (int i = 0; i < WORDS; i++) {
        vf c[4];
        AY_UNROLL for (int k = 0; k < 4; k++) {
            c[k] = v_rint(v_mul(q[4 * i + k], by));
            sum = v_add(sum, c[k]);
        }
        words[i] = v_four_bytes(c[0], c[1], c[2], c[3]);
    }
    put_codes(n, words, out, step);
    put_ends(n, out, step, scale, sum);
}

static void pixels(int64_t n, const float *x, const float *next, int64_t plane, char *out, int64_t step, float *stats) {
    enum { AHEAD = 32 };
    for (int64_t p = 0; p < n; p += VL) {
        const float *then = p + AHEAD < n ? x + p + AHEAD : next + (p + AHEAD - n);
        if (n - p >= VL) pixels_of_block(VL, x + p, then, plane, out + p * step, step, stats);
        else pixels_of_block((int)(n - p), x + p, then, plane, out + p * step, step, stats);
    }
}

static void lut16(const int8_t lut[16], int64_t n, const uint8_t *src, int8_t *out) {
    int64_t i = 0;
    for (; i + 2 * PAIRS <= n; i += 2 * PAIRS, src += PAIRS) v_lut16(lut, src, out + i);
    for (; i + 2 <= n; i += 2, src++) {
        out[i] = lut[*src & 15];
        out[i + 1] = lut[*src >> 4];
    }
    if (i < n) out[i] = lut[*src & 15];
}

enum { STRETCH = 4 * VL > 2 * PAIRS ? 4 * VL : 2 * PAIRS }; /* codes of a row that are taken at once */

typedef uint8_t codes __attribute__((vector_size(STRETCH)));

/** The first `n` codes of a stretch as bytes; the others are open. */
AY_INLINE codes stretch(const bool table, const int n, const ay_code_rows *s, const uint8_t *from) {
    codes t = {0};
    memcpy(&t, from, (size_t)(n < STRETCH ? n : STRETCH) / (table ? 2 : 1));
    if (!table) return t ^ s->flip;
    uint8_t packed[STRETCH];
    int8_t room[STRETCH];
    memcpy(packed, &t, sizeof t);
    AY_UNROLL for (int i = 0; i < STRETCH; i += 2 * PAIRS) v_lut16(s->table, packed + i / 2, room + i);
    memcpy(&t, room, sizeof t);
    return t;
}

/** A stretch of VL rows turned: groups of four codes of all rows, 4 * nr bytes apart. */
AY_INLINE void turn_stretch(const bool table, const int n, const ay_code_rows *s, const uint8_t *const row[VL], int64_t k, int nr,
                            uint8_t *dst) {
    codes t[VL];
    AY_UNROLL for (int i = 0; i < VL; i++) t[i] = stretch(table, n, s, row[i] + (table ? k / 2 : k));
    AY_UNROLL for (int c = 0; c < STRETCH; c += 4 * VL) {
        vf r[VL];
        AY_UNROLL for (int i = 0; i < VL; i++) r[i] = v_load((const char *)&t[i] + c);
        v_transpose(r);
        AY_UNROLL for (int i = 0; i < VL; i++) {
            if (c + 4 * i < n) v_store((float *)(void *)(dst + (c / 4 + i) * 4 * nr), r[i]);
        }
    }
}

AY_INLINE void turn_rows(const bool table, const ay_code_rows *s, int nr, int64_t n, uint8_t *dst) {
    for (int r = 0; r < nr; r += VL, dst += 4 * VL) {
        const uint8_t *row[VL];
        for (int i = 0; i < VL; i++) row[i] = s->at + (r + i < s->count ? r + i : 0) * s->pitch;
        int64_t k = 0;
        for (; k + STRETCH <= n; k += STRETCH) turn_stretch(table, STRETCH, s, row, k, nr, dst + k * nr);
        if (k < n) turn_stretch(table, AY_I8_BLOCK, s, row, k, nr, dst + k * nr);
    }
}

static void turn(const ay_code_rows *s, int nr, int64_t n, uint8_t *dst) {
    if (s->table) turn_rows(true, s, nr, n, dst);
    else turn_rows(false, s, nr, n, dst);
}

enum { LANES = VL > 4 ? VL : 4 };
typedef uint32_t lanes __attribute__((vector_size(LANES * 4)));

/** Bytes j * taps + t, j = 0 .. 3, of `taps` groups of four bytes a lane. */
AY_INLINE lanes tap(const int64_t taps, const int64_t t, const uint8_t *from, int64_t pitch) {
    lanes out = {0};
    AY_UNROLL for (int64_t j = 0; j < 4; j++) {
        const int64_t at = j * taps + t;
        const int shift = (int)(at % 4 - j) * 8;
        lanes v;
        memcpy(&v, from + at / 4 * pitch, sizeof v);
        out |= (shift >= 0 ? v >> (shift & 31) : v << (-shift & 31)) & (0xffu << 8 * j);
    }
    return out;
}

/* One tap of the eight groups and LANES rows at (q, l); with taps and t known, its shifts are constants. */
AY_INLINE void move_tap(const int64_t taps, const int64_t t, int64_t nr, int64_t q, int64_t l, const uint8_t *from, uint8_t *to) {
    lanes v = tap(taps, t, from + (q * taps * nr + l) * 4, nr * 4);
    memcpy(to + ((t * 8 + q) * nr + l) * 4, &v, sizeof v);
}

static void taps_first(int64_t taps, int64_t nr, const uint8_t *from, uint8_t *to) {
    for (int64_t q = 0; q < 8; q++) {
        for (int64_t l = 0; l < nr; l += LANES) {
            if (taps == 9) {
                AY_UNROLL for (int64_t t = 0; t < 9; t++) move_tap(9, t, nr, q, l, from, to);
            } else {
                for (int64_t t = 0; t < taps; t++) move_tap(taps, t, nr, q, l, from, to);
            }
        }
    }
}
