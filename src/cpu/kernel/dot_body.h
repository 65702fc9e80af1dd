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
