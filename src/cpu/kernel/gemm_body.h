/* SPDX-License-Identifier: MIT
 *
 * The float32 micro-kernel, written once over simd.h: a tile of `rows` x (NV * VL) sums kept in registers while k runs. The
 * including file defines MR (full rows), NV (vectors a row) and the name of its row. Every height from 1 to MR is made,
 * so that the last rows of a matrix cost what they are, not a whole tile.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/simd.h"

AY_INLINE void tile(const int rows, int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool accumulate) {
    vf acc[MR][NV];
    AY_UNROLL for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NV * VL - 1, 1);
        AY_UNROLL for (int v = 0; v < NV; v++) acc[i][v] = v_set(0);
    }
    for (int64_t p = 0; p < k; p++, a += rows, b += NV * VL) {
        vf bv[NV];
        __builtin_prefetch(b + 8 * NV * VL);
        if (NV * VL > 16) __builtin_prefetch(b + 8 * NV * VL + 16);
        AY_UNROLL for (int v = 0; v < NV; v++) bv[v] = v_load(b + v * VL);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            vf av = v_set(a[i]);
            AY_UNROLL for (int v = 0; v < NV; v++) acc[i][v] = v_fma(av, bv[v], acc[i][v]);
        }
    }
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < NV; v++) {
            float *to = c + i * ldc + v * VL;
            v_store(to, accumulate ? v_add(v_load(to), acc[i][v]) : acc[i][v]);
        }
    }
}

#define HEIGHT(r)                                                                                                           \
    static void tile_##r(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool accumulate) {               \
        tile(r, k, a, b, c, ldc, accumulate);                                                                               \
    }
