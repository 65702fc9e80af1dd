/* SPDX-License-Identifier: MIT
 *
 * Products with four-bit weights, AVX2: codes + 8 as unsigned bytes of 0 .. 15 times activations within 127. vpmaddubsw sums
 * pairs to int16, at most 2 * 15 * 127 = 3810, and the eight pairs of a block that meet in a lane to at most 30480: one
 * addition a product of 32 bytes, and one widening to int32 a block. That is done times 16, so that the records' correction
 * (-128 = 16 * -8 times the sum of the codes) fits as it is; sums are divided by 16, exactly, when they leave.
 * 12 x 16 sums, three rows at a time: those of a block and those across blocks in twelve registers.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/i8_x256.h"

enum { MR = 12, NR = 16, GROUP = 3, TIMES = AY_I8_OFFSET / 8 };

/** `rows` <= GROUP of the rows of a panel whose blocks are `step` bytes apart. */
AY_INLINE void group(const int rows, const bool scaled, int64_t blocks, const char *a, int64_t step, const uint8_t *b,
                     const float *scale, float *c, int64_t ldc, bool accumulate) {
    const __m256i times = _mm256_set1_epi16(TIMES);
    vf sum[GROUP][2];
    AY_UNROLL for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = v_set(0);
    for (int64_t k = 0; k < blocks; k++, a += step) {
        __m256i s[GROUP][2];
        AY_UNROLL for (int q = 0; q < 8; q++, b += 4 * NR) {
            __m256i w0 = load(b), w1 = load(b + 32);
            AY_UNROLL for (int i = 0; i < rows; i++) {
                __m256i av = four_bytes(a + i * AY_I8_RECORD + q * 4);
                __m256i p0 = _mm256_maddubs_epi16(w0, av), p1 = _mm256_maddubs_epi16(w1, av);
                s[i][0] = q > 0 ? _mm256_add_epi16(s[i][0], p0) : p0;
                s[i][1] = q > 0 ? _mm256_add_epi16(s[i][1], p1) : p1;
                IN_ORDER(s[i][0]);
                IN_ORDER(s[i][1]);
            }
        }
        AY_UNROLL for (int i = 0; i < rows; i++) {
            vf by = _mm256_castsi256_ps(four_bytes(a + i * AY_I8_RECORD + 32));
            __m256i correction = four_bytes(a + i * AY_I8_RECORD + 36);
            AY_UNROLL for (int v = 0; v < 2; v++) {
                vf x = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(s[i][v], times), correction));
                sum[i][v] = v_fma(x, scaled ? v_mul(by, v_load(scale + v * VL)) : by, sum[i][v]);
            }
        }
        if (scaled) scale += NR;
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < 2; v++) {
            float *to = c + i * ldc + v * VL;
            vf x = v_mul(sum[i][v], v_set(1.0f / TIMES));
            v_store(to, accumulate ? v_add(v_load(to), x) : x);
        }
    }
}

AY_INLINE void tile(const int rows, const bool scaled, int64_t blocks, const char *a, const uint8_t *b, const float *scale,
                    float *c, int64_t ldc, bool accumulate) {
    const int whole = rows / GROUP * GROUP, step = rows * AY_I8_RECORD;
    for (int i = 0; i < whole; i += GROUP)
        group(GROUP, scaled, blocks, a + i * AY_I8_RECORD, step, b, scale, c + i * ldc, ldc, accumulate);
    if (rows > whole)
        group(rows - whole, scaled, blocks, a + whole * AY_I8_RECORD, step, b, scale, c + whole * ldc, ldc, accumulate);
}

HEIGHTS_OF_12
const ay_gemm_i8_row ay_gemm_i4_avx2 = {"gemm_i4_avx2", AY_ISA_AVX2, MR, NR, 4, 4, 8, HEIGHTS, {0}};
