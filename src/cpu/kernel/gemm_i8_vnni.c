/* SPDX-License-Identifier: MIT
 *
 * Eight-bit products, AVX-512 with VNNI: 6 x 32 sums. Inside a block they are int32, across blocks float32, so 24 registers
 * hold sums, two hold weights, two their scales. vpdpbusd multiplies unsigned by signed bytes: weights are stored with 128
 * added, and the sums start at the correction that takes it off.
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/simd.h"

enum { MR = 6, NR = 32 };

AY_INLINE __m512i four_bytes(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

AY_INLINE void tile(const int rows, const bool scaled, int64_t blocks, const char *a, const uint8_t *b, const float *scale,
                    float *c, int64_t ldc, bool accumulate) {
    __m512 sum[MR][2];
    AY_UNROLL for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
        sum[i][0] = sum[i][1] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < blocks; k++, a += rows * AY_I8_RECORD) {
        __m512i s[MR][2];
        AY_UNROLL for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = four_bytes(a + i * AY_I8_RECORD + 36);
        AY_UNROLL for (int q = 0; q < 8; q++, b += 4 * NR) {
            __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64);
            AY_UNROLL for (int i = 0; i < rows; i++) {
                __m512i av = four_bytes(a + i * AY_I8_RECORD + q * 4);
                s[i][0] = _mm512_dpbusd_epi32(s[i][0], b0, av);
                s[i][1] = _mm512_dpbusd_epi32(s[i][1], b1, av);
            }
        }
        __m512 w0 = _mm512_setzero_ps(), w1 = w0;
        if (scaled) w0 = _mm512_loadu_ps(scale), w1 = _mm512_loadu_ps(scale + 16), scale += NR;
        AY_UNROLL for (int i = 0; i < rows; i++) {
            __m512 x0 = _mm512_cvtepi32_ps(s[i][0]), x1 = _mm512_cvtepi32_ps(s[i][1]);
            __m512 by = _mm512_castsi512_ps(four_bytes(a + i * AY_I8_RECORD + 32));
            sum[i][0] = _mm512_fmadd_ps(x0, scaled ? _mm512_mul_ps(w0, by) : by, sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(x1, scaled ? _mm512_mul_ps(w1, by) : by, sum[i][1]);
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        float *to = c + i * ldc;
        v_store(to, accumulate ? v_add(v_load(to), sum[i][0]) : sum[i][0]);
        v_store(to + 16, accumulate ? v_add(v_load(to + 16), sum[i][1]) : sum[i][1]);
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        if (scale) tile(r, true, blocks, a, b, scale, c, ldc, accumulate);                                                  \
        else tile(r, false, blocks, a, b, scale, c, ldc, accumulate);                                                       \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6)

    extern const ay_gemm_i8_row ay_gemm_i8_vnni;
const ay_gemm_i8_row ay_gemm_i8_vnni = {
    "gemm_i8_vnni", AY_ISA_VNNI, MR, NR, 4, 8, 0x80, {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6}};
