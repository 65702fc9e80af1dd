/* SPDX-License-Identifier: MIT
 *
 * float32 products in portable C: 4 x 8 sums through the compilers' own vector type, which becomes whatever the
 * baseline of the machine has.
 */
#define AY_SIMD_C
#include "cpu/kernel/rows.h"
#include "cpu/kernel/simd.h"

#include <string.h>

enum { MR = 4, NR = 8 };
typedef float quad __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) quad load(const float *p) {
    quad v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void tile(const int rows, int64_t k, const float *a, const float *b, float *c,
                                                       int64_t ldc, bool accumulate) {
    quad lo[4] = {{0}}, hi[4] = {{0}};
    for (int64_t p = 0; p < k; p++, a += rows, b += NR) {
        quad b0 = load(b), b1 = load(b + 4);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            lo[i] += a[i] * b0;
            hi[i] += a[i] * b1;
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        if (accumulate) {
            lo[i] += load(c + i * ldc);
            hi[i] += load(c + i * ldc + 4);
        }
        memcpy(c + i * ldc, &lo[i], sizeof lo[i]);
        memcpy(c + i * ldc + 4, &hi[i], sizeof hi[i]);
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool accumulate) {               \
        tile(r, k, a, b, c, ldc, accumulate);                                                                               \
    }
HEIGHT(1)
HEIGHT(2) HEIGHT(3) HEIGHT(4)

    extern const ay_gemm_f32_row ay_gemm_f32_c;
const ay_gemm_f32_row ay_gemm_f32_c = {"gemm_f32_c", AY_ISA_C, MR, NR, tile_4, {tile_1, tile_2, tile_3, tile_4}};
