/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, AVX2 without VNNI: |w| as unsigned bytes times the activations with the sign of w, in pairs to int16.
 * Activations lie within 127, so a pair is at most 2 * 128 * 127 = 32512 and vpmaddubsw never saturates: results are exact.
 * 6 x 16 sums; those across blocks stay in memory (the first cache), since sixteen registers hold three rows of a block.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

enum { MR = 6, NR = 16, GROUP = 3 };

AY_INLINE __m256i four_bytes(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/** One block of `rows` <= GROUP rows. */
AY_INLINE void block(const int rows, const char *a, const uint8_t *b, const float *scale, float *sum) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i s[GROUP][2];
    AY_UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = _mm256_setzero_si256();
    AY_UNROLL for (int q = 0; q < 8; q++) {
        __m256i w0 = _mm256_loadu_si256((const __m256i *)(b + q * 4 * NR)),
                w1 = _mm256_loadu_si256((const __m256i *)(b + q * 4 * NR + 32)), u0 = _mm256_abs_epi8(w0),
                u1 = _mm256_abs_epi8(w1);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            __m256i av = four_bytes(a + i * AY_I8_RECORD + q * 4);
            __m256i p0 = _mm256_maddubs_epi16(u0, _mm256_sign_epi8(av, w0)),
                    p1 = _mm256_maddubs_epi16(u1, _mm256_sign_epi8(av, w1));
            s[i][0] = _mm256_add_epi32(s[i][0], _mm256_madd_epi16(p0, one));
            s[i][1] = _mm256_add_epi32(s[i][1], _mm256_madd_epi16(p1, one));
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < 2; v++) {
            vf x = _mm256_castsi256_ps(four_bytes(a + i * AY_I8_RECORD + 32));
            if (scale) x = v_mul(v_load(scale + v * VL), x);
            float *to = sum + i * NR + v * VL;
            v_store(to, v_fma(_mm256_cvtepi32_ps(s[i][v]), x, v_load(to)));
        }
    }
}

AY_INLINE void tile(const int rows, int64_t blocks, const char *a, const uint8_t *b, const float *scale, float *c,
                    int64_t ldc, bool accumulate) {
    _Alignas(32) float sum[MR * NR];
    for (int i = 0; i < rows * NR; i += VL) v_store(sum + i, v_set(0));
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD, b += AY_I8_BLOCK * NR) {
        const int first = rows < GROUP ? rows : GROUP, rest = rows - first;
        block(first, a, b, scale, sum);
        if (rest > 0) block(rest, a + first * AY_I8_RECORD, b, scale, sum + first * NR);
        if (scale) scale += NR;
    }
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NR; v += VL) {
            float *to = c + i * ldc + v;
            vf x = v_load(sum + i * NR + v);
            v_store(to, accumulate ? v_add(v_load(to), x) : x);
        }
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        tile(r, blocks, a, b, scale, c, ldc, accumulate);                                                                   \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)

    extern const ay_gemm_i8_row ay_gemm_i8_avx2;
const ay_gemm_i8_row ay_gemm_i8_avx2 = {
    "gemm_i8_avx2", AY_ISA_AVX2, MR, NR, 4, 0, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6}};
