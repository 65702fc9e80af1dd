/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, arm64 with SDOT: 4 x 8 sums, signed by signed, four bytes of a picked from a register by lane.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

enum { MR = 4, NR = 8 };

AY_INLINE void half_block(const int rows, const int8_t *a, const int8_t *b, int32x4_t s[MR][2]) {
    int8x16_t x[MR];
    AY_UNROLL for (int i = 0; i < rows; i++) x[i] = vld1q_s8(a + i * AY_I8_RECORD);
#define STEP(q)                                                                                                             \
    {                                                                                                                       \
        int8x16_t w0 = vld1q_s8(b + (q)*4 * NR), w1 = vld1q_s8(b + (q)*4 * NR + 16);                                        \
        AY_UNROLL for (int i = 0; i < rows; i++) {                                                                          \
            s[i][0] = vdotq_laneq_s32(s[i][0], w0, x[i], q);                                                                \
            s[i][1] = vdotq_laneq_s32(s[i][1], w1, x[i], q);                                                                \
        }                                                                                                                   \
    }
    STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
}

AY_INLINE void tile(const int rows, int64_t blocks, const char *a, const uint8_t *b, const float *scale, float *c,
                    int64_t ldc, bool accumulate) {
    vf sum[MR][2];
    AY_UNROLL for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = v_set(0);
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD, b += AY_I8_BLOCK * NR) {
        int32x4_t s[MR][2];
        AY_UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = vdupq_n_s32(0);
        half_block(rows, (const int8_t *)a, (const int8_t *)b, s);
        half_block(rows, (const int8_t *)a + 16, (const int8_t *)b + 16 * NR, s);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            float by;
            memcpy(&by, a + i * AY_I8_RECORD + 32, sizeof by);
            AY_UNROLL for (int v = 0; v < 2; v++) {
                vf x = scale ? v_mul(v_load(scale + v * VL), v_set(by)) : v_set(by);
                sum[i][v] = v_fma(vcvtq_f32_s32(s[i][v]), x, sum[i][v]);
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

    extern const ay_gemm_i8_row ay_gemm_i8_dotprod;
const ay_gemm_i8_row ay_gemm_i8_dotprod = {"gemm_i8_dotprod", AY_ISA_DOTPROD, MR, NR, 4, 8, 0, {tile_1, tile_2, tile_3, tile_4}, {0}};
