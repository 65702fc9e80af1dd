/* SPDX-License-Identifier: MIT
 *
 * Thin matrix products, at each level: what adapters of low rank need. Sums run over the rank in order, nothing is contracted,
 * so every level gives the same bits. product_{c,avx2,avx512}.c include this file with V, the floats of a vector.
 */
#ifndef AY_PRODUCT_H
#define AY_PRODUCT_H

#include <stdint.h>

/** out[i * ldo + j] = sum over k of a[i * lda + k] * b[k * ldb + j], for i < rows, j < cols, k < rank. */
typedef void (*ay_product_fn)(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t rank, int64_t rows, int64_t cols,
                              float *out, int64_t ldo);
extern const ay_product_fn ay_product_c, ay_product_avx2, ay_product_avx512;

#ifdef V
#include <string.h>

typedef float vec __attribute__((vector_size(V * sizeof(float))));
enum { ROWS = 4 };

static inline vec load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ROWS x 2V of the result */
static inline void block(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t rank, float *out, int64_t ldo) {
    vec s[ROWS][2] = {{{0}}};
    for (int64_t k = 0; k < rank; k++) {
        vec left = load(b + k * ldb), right = load(b + k * ldb + V);
        for (int i = 0; i < ROWS; i++) {
            float x = a[i * lda + k];
            s[i][0] += x * left;
            s[i][1] += x * right;
        }
    }
    for (int i = 0; i < ROWS; i++) memcpy(out + i * ldo, s[i], sizeof s[i]);
}

static void product(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t rank, int64_t rows, int64_t cols, float *out,
                    int64_t ldo) {
    int64_t wide = cols / (2 * V) * (2 * V), i = 0;
    for (; i + ROWS <= rows; i += ROWS) {
        for (int64_t j = 0; j < wide; j += 2 * V) block(a + i * lda, lda, b + j, ldb, rank, out + i * ldo + j, ldo);
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = r < i ? wide : 0; j < cols; j++) {
            float s = 0;
            for (int64_t k = 0; k < rank; k++) s += a[r * lda + k] * b[k * ldb + j];
            out[r * ldo + j] = s;
        }
    }
}
#endif
#endif
