/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, AVX2 without VNNI: |w| as unsigned bytes times the activations with the sign of w, in pairs to int16.
 * Activations lie within 127, so a pair is at most 2 * 128 * 127 = 32512 and vpmaddubsw never saturates: results are exact.
 * 12 x 16 sums, those of a block for four rows at a time; those across blocks stay in memory (the first cache).
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/i8_x256.h"

enum { MR = 12, NR = 16, GROUP = 4 };

/** One block of `rows` <= GROUP rows. */
AY_INLINE void block(const int rows, const bool scaled, const char *a, const uint8_t *b, const float *scale, float *sum) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i s[GROUP][2];
    AY_UNROLL for (int q = 0; q < 8; q++) {
        __m256i w0 = load(b + q * 4 * NR), w1 = load(b + q * 4 * NR + 32), u0 = _mm256_abs_epi8(w0), u1 = _mm256_abs_epi8(w1);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            __m256i av = four_bytes(a + i * AY_I8_RECORD + q * 4);
            __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(u0, _mm256_sign_epi8(av, w0)), one),
                    p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(u1, _mm256_sign_epi8(av, w1)), one);
            s[i][0] = q > 0 ? _mm256_add_epi32(s[i][0], p0) : p0;
            s[i][1] = q > 0 ? _mm256_add_epi32(s[i][1], p1) : p1;
            IN_ORDER(s[i][0]);
            IN_ORDER(s[i][1]);
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < 2; v++) {
            vf by = _mm256_castsi256_ps(four_bytes(a + i * AY_I8_RECORD + 32));
            if (scaled) by = v_mul(v_load(scale + v * VL), by);
            float *to = sum + i * NR + v * VL;
            v_store(to, v_fma(_mm256_cvtepi32_ps(s[i][v]), by, v_load(to)));
        }
    }
}

AY_INLINE void tile(const int rows, const bool scaled, int64_t blocks, const char *a, const uint8_t *b, const float *scale,
                    float *c, int64_t ldc, bool accumulate) {
    _Alignas(32) float sum[MR * NR];
    const int whole = rows / GROUP * GROUP;
    for (int i = 0; i < rows * NR; i += VL) v_store(sum + i, v_set(0));
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD, b += AY_I8_BLOCK * NR) {
        for (int i = 0; i < whole; i += GROUP) block(GROUP, scaled, a + i * AY_I8_RECORD, b, scale, sum + i * NR);
        if (rows > whole) block(rows - whole, scaled, a + whole * AY_I8_RECORD, b, scale, sum + whole * NR);
        if (scaled) scale += NR;
    }
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NR; v += VL) {
            float *to = c + i * ldc + v;
            vf x = v_load(sum + i * NR + v);
            v_store(to, accumulate ? v_add(v_load(to), x) : x);
        }
    }
}

HEIGHTS_OF_12
const ay_gemm_i8_row ay_gemm_i8_avx2 = {"gemm_i8_avx2", AY_ISA_AVX2, MR, NR, 4, 8, 0, HEIGHTS, {0}};
