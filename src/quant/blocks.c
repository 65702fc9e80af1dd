/* SPDX-License-Identifier: MIT
 *
 * GGUF's packed blocks to numbers, in the order of arithmetic of gguf-py (gguf/quants.py): each product and each difference
 * rounded to float32 on its own. Layouts: ggml, src/ggml-common.h.
 */
#include "quant/blocks.h"

#include "base/half.h"

#include <string.h>

enum { MAX_ELEMENTS = 256 };

typedef void (*block_fn)(const uint8_t *b, float *out);

static float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return ay_f16_to_f32(h);
}

/* ---- blocks of 32: one scale, in the _1 kinds a minimum too; the low halves of the bytes come first ---------------------- */

static void q4_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void q4_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b[4 + i] & 15) + m;
        out[i + 16] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* The fifth bits of all 32 are a word of their own. */
static void five_bits(const uint8_t *high, const uint8_t *low, int *q) {
    uint32_t h;
    memcpy(&h, high, 4);
    for (int i = 0; i < 32; i++) q[i] = (i < 16 ? low[i] & 15 : low[i - 16] >> 4) | (int)((h >> i & 1) << 4);
}

static void q5_0(const uint8_t *b, float *out) {
    int q[32];
    float d = half_at(b);
    five_bits(b + 2, b + 6, q);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(q[i] - 16);
}

static void q5_1(const uint8_t *b, float *out) {
    int q[32];
    float d = half_at(b), m = half_at(b + 2);
    five_bits(b + 4, b + 8, q);
    for (int i = 0; i < 32; i++) out[i] = d * (float)q[i] + m;
}

static void q8_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)b[2 + i] * d;
}

/* ---- blocks of 256: parts of 16 or 32 with small integer scales of their own --------------------------------------------------- */

/* 16 bytes of scale and minimum, 4 bits each; 2 bits a number, four numbers 32 apart in a byte. */
static void q2_k(const uint8_t *b, float *out) {
    float d = half_at(b + 80), dmin = half_at(b + 82);
    const uint8_t *q = b + 16;
    for (int i = 0; i < 256; i++) {
        int part = i / 16, at = i % 128;
        float dl = d * (float)(b[part] & 15), ml = dmin * (float)(b[part] >> 4);
        out[i] = dl * (float)(q[i / 128 * 32 + at % 32] >> (at / 32 * 2) & 3) - ml;
    }
}

/* 6-bit scales: the low four bits of two in each of 8 bytes, the high two of four in each of the next 4. */
static int q3_scale(const uint8_t *s, int i) {
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, high = s[8 + i % 4] >> (i / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

static void q3_k(const uint8_t *b, float *out) {
    const uint8_t *mask = b, *q = b + 32, *scales = b + 96;
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        int at = i % 128, low = q[i / 128 * 32 + at % 32] >> (at / 32 * 2) & 3, high = mask[i % 32] >> (i / 32) & 1;
        out[i] = d * (float)q3_scale(scales, i / 16) * (float)(low - (high ? 0 : 4)); /* a bit that is set takes nothing off */
    }
}

/* Eight 6-bit scales and minima in 12 bytes. */
static void k_scale_min(const uint8_t *s, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = s[i] & 63;
        *min = s[4 + i] & 63;
    } else {
        *scale = (s[4 + i] & 15) | (s[i - 4] >> 2 & 0x30);
        *min = s[4 + i] >> 4 | (s[i] >> 2 & 0x30);
    }
}

/* `high`: where the fifth bits are, or NULL. */
static void q45_k(const uint8_t *b, const uint8_t *high, const uint8_t *q, float *out) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int part = 0; part < 8; part++) {
        int scale, min;
        k_scale_min(b + 4, part, &scale, &min);
        float dl = d * (float)scale, ml = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int v = q[part / 2 * 32 + i] >> (part % 2 * 4) & 15;
            if (high) v |= (high[i] >> part & 1) << 4;
            out[part * 32 + i] = dl * (float)v - ml;
        }
    }
}
static void q4_k(const uint8_t *b, float *out) { q45_k(b, NULL, b + 16, out); }
static void q5_k(const uint8_t *b, float *out) { q45_k(b, b + 16, b + 48, out); }

static void q6_k(const uint8_t *b, float *out) {
    const uint8_t *low = b, *high = b + 128, *scales = b + 192;
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, at = i % 128;
        int l = low[half * 64 + at % 64] >> (at / 64 * 4) & 15, h = high[half * 32 + at % 32] >> (at / 32 * 2) & 3;
        out[i] = d * (float)(int8_t)scales[i / 16] * (float)((l | h << 4) - 32);
    }
}

static const block_fn rows[AY_BLOCK_COUNT] = {
    [AY_BLOCK_Q4_0] = q4_0, [AY_BLOCK_Q4_1] = q4_1, [AY_BLOCK_Q5_0] = q5_0, [AY_BLOCK_Q5_1] = q5_1, [AY_BLOCK_Q8_0] = q8_0,
    [AY_BLOCK_Q2_K] = q2_k, [AY_BLOCK_Q3_K] = q3_k, [AY_BLOCK_Q4_K] = q4_k, [AY_BLOCK_Q5_K] = q5_k, [AY_BLOCK_Q6_K] = q6_k,
};

void ay_blocks_read(ay_block block, const void *data, int64_t begin, int64_t count, float *out) {
    if ((unsigned)block >= AY_BLOCK_COUNT || !rows[block]) return;
    int64_t n = ay_block_elements(block);
    const uint8_t *b = (const uint8_t *)data + (size_t)(begin / n) * (size_t)ay_block_bytes(block);
    for (int64_t skip = begin % n; count > 0; skip = 0, b += ay_block_bytes(block)) {
        float whole[MAX_ELEMENTS];
        int64_t some = ay_min_i64(n - skip, count);
        if (some == n) {
            rows[block](b, out);
        } else {
            rows[block](b, whole);
            memcpy(out, whole + skip, (size_t)some * sizeof *out);
        }
        out += some;
        count -= some;
    }
}
