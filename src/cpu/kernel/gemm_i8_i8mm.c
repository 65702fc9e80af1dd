/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, arm64 with SMMLA, which multiplies two rows of eight bytes by two columns of eight: 4 x 8 sums as 2 x 4
 * squares. Weights come in groups of eight bytes a column; rows of a are paired on the way in.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

enum { MR = 4, NR = 8, SQUARES = MR / 2 };

/** Rows 2p and 2p + 1 (or 0 where there is none), 16 codes of each, as eight and eight. */
AY_INLINE void load_pair(const int rows, const int p, const int8_t *a, int8x16_t out[2]) {
    int8x16_t x = vld1q_s8(a + 2 * p * AY_I8_RECORD), y = 2 * p + 1 < rows ? vld1q_s8(a + (2 * p + 1) * AY_I8_RECORD) : vdupq_n_s8(0);
    out[0] = vcombine_s8(vget_low_s8(x), vget_low_s8(y));
    out[1] = vcombine_s8(vget_high_s8(x), vget_high_s8(y));
}

AY_INLINE void tile(const int rows, int64_t blocks, const char *a, const uint8_t *b, const float *scale, float *c,
                    int64_t ldc, bool accumulate) {
    const int pairs = (rows + 1) / 2;
    vf sum[MR][2];
    AY_UNROLL for (int i = 0; i < MR; i++) sum[i][0] = sum[i][1] = v_set(0);
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD) {
        int32x4_t s[SQUARES][NR / 2]; /* (row, col), (row, col + 1), (row + 1, col), (row + 1, col + 1) */
        AY_UNROLL for (int p = 0; p < pairs; p++) {
            AY_UNROLL for (int j = 0; j < NR / 2; j++) s[p][j] = vdupq_n_s32(0);
        }
        AY_UNROLL for (int h = 0; h < 2; h++) {
            int8x16_t x[SQUARES][2];
            AY_UNROLL for (int p = 0; p < pairs; p++) load_pair(rows, p, (const int8_t *)a + h * 16, x[p]);
            AY_UNROLL for (int e = 0; e < 2; e++) {
                AY_UNROLL for (int j = 0; j < NR / 2; j++, b += 16) {
                    int8x16_t w = vld1q_s8((const int8_t *)b);
                    AY_UNROLL for (int p = 0; p < pairs; p++) s[p][j] = vmmlaq_s32(s[p][j], x[p][e], w);
                }
            }
        }
        AY_UNROLL for (int i = 0; i < rows; i++) {
            float by;
            memcpy(&by, a + i * AY_I8_RECORD + 32, sizeof by);
            AY_UNROLL for (int v = 0; v < 2; v++) {
                int64x2_t lo = vreinterpretq_s64_s32(s[i / 2][2 * v]), hi = vreinterpretq_s64_s32(s[i / 2][2 * v + 1]);
                int32x4_t t = vreinterpretq_s32_s64(i & 1 ? vzip2q_s64(lo, hi) : vzip1q_s64(lo, hi));
                vf y = scale ? v_mul(v_load(scale + v * VL), v_set(by)) : v_set(by);
                sum[i][v] = v_fma(vcvtq_f32_s32(t), y, sum[i][v]);
            }
        }
        if (scale) scale += NR;
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < 2; v++) {
            float *to = c + i * ldc + v * VL;
            v_store(to, accumulate ? v_add(v_load(to), sum[i][v]) : sum[i][v]);
        }
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        tile(r, blocks, a, b, scale, c, ldc, accumulate);                                                                   \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4)

    extern const ay_gemm_i8_row ay_gemm_i8_i8mm;
const ay_gemm_i8_row ay_gemm_i8_i8mm = {"gemm_i8_i8mm", AY_ISA_I8MM, MR, NR, 8, 8, 0, {tile_1, tile_2, tile_3, tile_4}, {0}};
