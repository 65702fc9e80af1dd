/* SPDX-License-Identifier: MIT
 *
 * What the two AVX2 kernels of eight-bit products share.
 */
#include "cpu/kernel/simd.h"

AY_INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

AY_INLINE __m256i four_bytes(const char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* A sum that the compiler must have by here. Integer sums may be taken in any order, so compilers gather the summands of a
 * whole block and add them up as a tree, for which there are too few registers: 1.2 to 2 times as slow. */
#define IN_ORDER(v) __asm__("" : "+x"(v))

/* Micro-kernels of each height up to 12, from the includer's tile(). */
#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,        \
                         bool accumulate) {                                                                                 \
        if (scale) tile(r, true, blocks, a, b, scale, c, ldc, accumulate);                                                  \
        else tile(r, false, blocks, a, b, scale, c, ldc, accumulate);                                                       \
    }
#define HEIGHTS_OF_12 HEIGHT(1) HEIGHT(2) HEIGHT(3) HEIGHT(4) HEIGHT(5) HEIGHT(6) HEIGHT(7) HEIGHT(8) HEIGHT(9) HEIGHT(10) \
    HEIGHT(11) HEIGHT(12)
#define HEIGHTS {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8, tile_9, tile_10, tile_11, tile_12}
