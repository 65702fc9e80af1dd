/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products in portable C: 4 x 8 sums, signed by signed, in the order of the kernels that go four bytes at a time.
 */
#include "cpu/kernel/i8.h"

#include <string.h>

enum { MR = 4, NR = 8 };

static inline void block(int rows, const int8_t *a, const uint8_t *b, int32_t s[MR][NR]) {
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < NR; j++) s[i][j] = 0;
        for (int q = 0; q < AY_I8_BLOCK / 4; q++) {
            const int8_t *x = a + i * AY_I8_RECORD + q * 4, *w = (const int8_t *)b + (int64_t)q * NR * 4;
            for (int j = 0; j < NR; j++) s[i][j] += x[0] * w[4 * j] + x[1] * w[4 * j + 1] + x[2] * w[4 * j + 2] + x[3] * w[4 * j + 3];
        }
    }
}

static inline void tile(int rows, int64_t blocks, const char *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,
                        bool accumulate) {
    float sum[MR][NR] = {{0}};
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD, b += AY_I8_BLOCK * NR) {
        int32_t s[MR][NR];
        block(rows, (const int8_t *)a, b, s);
        for (int i = 0; i < rows; i++) {
            float by;
            memcpy(&by, a + i * AY_I8_RECORD + 32, sizeof by);
            for (int j = 0; j < NR; j++) sum[i][j] += (float)s[i][j] * (scale ? scale[j] * by : by);
        }
        if (scale) scale += NR;
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < NR; j++) c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum[i][j] : sum[i][j];
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        tile(r, blocks, a, b, scale, c, ldc, accumulate);                                                                   \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4)

    extern const ay_gemm_i8_row ay_gemm_i8_c;
const ay_gemm_i8_row ay_gemm_i8_c = {"gemm_i8_c", AY_ISA_C, MR, NR, 4, 8, 0, {tile_1, tile_2, tile_3, tile_4}, {0}};
