/* SPDX-License-Identifier: MIT
 *
 * Dot products over simd.h, for products of few rows (timestep embeddings, modulation, short texts): the weight is read
 * once, as it lies in the file, and the time is that of reading it.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/simd.h"

AY_INLINE vf load_as(const ay_dtype t, const char *p) {
    return t == AY_F16 ? v_load_f16(p) : t == AY_BF16 ? v_load_bf16(p) : v_load(p);
}
AY_INLINE vf loadn_as(const ay_dtype t, const char *p, int n) {
    return t == AY_F16 ? v_loadn_f16(p, n) : t == AY_BF16 ? v_loadn_bf16(p, n) : v_loadn(p, n);
}

AY_INLINE void dot_tile(const ay_dtype t, const int m, const int n, int64_t k, const float *a, int64_t lda, const char *w,
                        int64_t pitch, float *out) {
    const int size = t == AY_F32 ? 4 : 2;
    vf acc[AY_DOT_M][AY_DOT_N];
    int64_t p = 0;
    AY_UNROLL for (int i = 0; i < m; i++) { AY_UNROLL for (int j = 0; j < n; j++) acc[i][j] = v_set(0); }
    for (; p + VL <= k; p += VL) {
        vf wv[AY_DOT_N];
        AY_UNROLL for (int j = 0; j < n; j++) wv[j] = load_as(t, w + j * pitch + p * size);
        AY_UNROLL for (int i = 0; i < m; i++) {
            vf av = v_load(a + i * lda + p);
            AY_UNROLL for (int j = 0; j < n; j++) acc[i][j] = v_fma(av, wv[j], acc[i][j]);
        }
    }
    if (p < k) {
        int left = (int)(k - p);
        vf wv[AY_DOT_N];
        AY_UNROLL for (int j = 0; j < n; j++) wv[j] = loadn_as(t, w + j * pitch + p * size, left);
        AY_UNROLL for (int i = 0; i < m; i++) {
            vf av = v_loadn(a + i * lda + p, left);
            AY_UNROLL for (int j = 0; j < n; j++) acc[i][j] = v_fma(av, wv[j], acc[i][j]);
        }
    }
    AY_UNROLL for (int i = 0; i < m; i++) {
        AY_UNROLL for (int j = 0; j < n; j++) out[i * AY_DOT_N + j] = v_hsum(acc[i][j]);
    }
}

AY_INLINE void dot_as(const ay_dtype t, int m, int n, int64_t k, const float *a, int64_t lda, const void *w, int64_t ldw,
                      float *out) {
    const char *p = w;
    int64_t pitch = ldw * (t == AY_F32 ? 4 : 2);
    if (n == AY_DOT_N) {
        if (m == 4) dot_tile(t, 4, 4, k, a, lda, p, pitch, out);
        else if (m == 3) dot_tile(t, 3, 4, k, a, lda, p, pitch, out);
        else if (m == 2) dot_tile(t, 2, 4, k, a, lda, p, pitch, out);
        else dot_tile(t, 1, 4, k, a, lda, p, pitch, out);
        return;
    }
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) dot_tile(t, 1, 1, k, a + i * lda, lda, p + j * pitch, pitch, out + i * AY_DOT_N + j);
    }
}

static void dot(ay_dtype t, int m, int n, int64_t k, const float *a, int64_t lda, const void *w, int64_t ldw, float *out) {
    if (t == AY_F32) dot_as(AY_F32, m, n, k, a, lda, w, ldw, out);
    else if (t == AY_F16) dot_as(AY_F16, m, n, k, a, lda, w, ldw, out);
    else dot_as(AY_BF16, m, n, k, a, lda, w, ldw, out);
}

enum { CODES = 64, BLOCK = 32, BLOCKS = CODES / BLOCK }; /* sums of neighbouring blocks do not wait for each other */

AY_INLINE void dot_codes(const ay_dtype t, const int m, int64_t k, const float *a, int64_t lda, const uint8_t *w, int64_t run,
                         const float *scale, float *out) {
    static const int8_t signs[16] = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
    vf acc[AY_DOT_M][BLOCKS];
    int64_t used = 0;
    AY_UNROLL for (int i = 0; i < m; i++) { AY_UNROLL for (int b = 0; b < BLOCKS; b++) acc[i][b] = v_set(0); }
    for (int64_t p = 0; p < k; p += CODES) {
        int8_t room[CODES];
        const char *c = (const char *)w + p;
        if (t == AY_I4) {
            for (int i = 0; i < CODES; i += 2 * PAIRS) v_lut16(signs, w + (p + i) / 2, room + i);
            c = (const char *)room;
        }
        AY_UNROLL for (int b = 0; b < BLOCKS; b++) {
            vf part[AY_DOT_M], s = v_set(*scale);
            AY_UNROLL for (int i = 0; i < m; i++) part[i] = v_set(0);
            for (int v = 0; v < BLOCK; v += VL) {
                vf x = v_load_i8(c + b * BLOCK + v);
                AY_UNROLL for (int i = 0; i < m; i++) part[i] = v_fma(v_load(a + i * lda + p + b * BLOCK + v), x, part[i]);
            }
            AY_UNROLL for (int i = 0; i < m; i++) acc[i][b] = v_fma(part[i], s, acc[i][b]);
            used += BLOCK;
            if (used == run) used = 0, scale++;
        }
    }
    AY_UNROLL for (int i = 0; i < m; i++) out[i * AY_DOT_N] = v_hsum(v_add(acc[i][0], acc[i][1]));
}

AY_INLINE void codes_of(const ay_dtype t, int m, int64_t k, const float *a, int64_t lda, const uint8_t *w, int64_t run,
                        const float *scale, float *out) {
    if (m == 4) dot_codes(t, 4, k, a, lda, w, run, scale, out);
    else if (m == 3) dot_codes(t, 3, k, a, lda, w, run, scale, out);
    else if (m == 2) dot_codes(t, 2, k, a, lda, w, run, scale, out);
    else dot_codes(t, 1, k, a, lda, w, run, scale, out);
}

static void codes(ay_dtype t, int m, int64_t k, const float *a, int64_t lda, const void *w, int64_t run, const float *scale,
                  float *out) {
    if (t == AY_I4) codes_of(AY_I4, m, k, a, lda, w, run, scale, out);
    else codes_of(AY_I8, m, k, a, lda, w, run, scale, out);
}
