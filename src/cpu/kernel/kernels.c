/* SPDX-License-Identifier: MIT
 *
 * The tables of kernels: one list per family, ordered from portable C to the newest level of each processor family. A new
 * kernel is a file and a line here. Rows of levels that this machine lacks are compiled but never picked.
 */
#include "cpu/kernel/i8.h"

/* The levels a family has on this processor family; every one of them is a file family_isa.c. */
#if defined(__x86_64__)
#define LEVELS(type, family)                                                                                                \
    extern const type family##_c, family##_avx2, family##_avx512;                                                           \
    static const type *const family##_list[] = {&family##_c, &family##_avx2, &family##_avx512};
#elif defined(__aarch64__)
#define LEVELS(type, family)                                                                                                \
    extern const type family##_c, family##_neon;                                                                            \
    static const type *const family##_list[] = {&family##_c, &family##_neon};
#else
#define LEVELS(type, family)                                                                                                \
    extern const type family##_c;                                                                                           \
    static const type *const family##_list[] = {&family##_c};
#endif

/* Eight-bit products have no AVX-512 form without VNNI (AVX2's stands in), AVX-VNNI is theirs alone, and on arm64 they have
 * none without SDOT. Rows for narrower codes stand before the row of their level that takes all. */
#if defined(__x86_64__)
#define I8_LEVELS(type, family)                                                                                             \
    extern const type family##_c, ay_gemm_i4_avx2, family##_avx2, family##_avxvnni, family##_vnni;                          \
    static const type *const family##_list[] = {&family##_c, &ay_gemm_i4_avx2, &family##_avx2, &family##_avxvnni, &family##_vnni};
#elif defined(__aarch64__)
#define I8_LEVELS(type, family)                                                                                             \
    extern const type family##_c, family##_dotprod, family##_i8mm;                                                          \
    static const type *const family##_list[] = {&family##_c, &family##_dotprod, &family##_i8mm};
#else
#define I8_LEVELS LEVELS
#endif

#define FAMILY(type, family) FAMILY_OF(LEVELS, type, family)
#define FAMILY_OF(levels, type, family)                                                                                                \
    levels(type, family)                                                                                                    \
    const type *const *family##_rows(int *n) {                                                                              \
        *n = (int)(sizeof family##_list / sizeof *family##_list);                                                           \
        return family##_list;                                                                                               \
    }                                                                                                                       \
    const type *family##_pick(ay_isa isa) {                                                                                 \
        int n;                                                                                                              \
        const type *const *list = family##_rows(&n);                                                                        \
        for (int i = n - 1; i > 0; i--) {                                                                                   \
            if (ay_isa_allows(isa, list[i]->isa)) return list[i];                                                           \
        }                                                                                                                   \
        return list[0];                                                                                                     \
    }

FAMILY(ay_gemm_f32_row, ay_gemm_f32)
FAMILY(ay_pack_row, ay_pack)
FAMILY(ay_dot_row, ay_dot)
FAMILY(ay_elt_row, ay_elt)
FAMILY(ay_attn_row, ay_attn)
FAMILY(ay_conv_row, ay_conv)
FAMILY(ay_norm_row, ay_norm)
FAMILY(ay_wino_row, ay_wino)
FAMILY(ay_a8_row, ay_a8)
FAMILY_OF(I8_LEVELS, ay_gemm_i8_row, ay_gemm_i8)

const ay_gemm_i8_row *ay_gemm_i8_for(ay_isa isa, const ay_weight *w) {
    int n, bits = w->store == AY_STORE_BLOCK && w->data_dtype == AY_I4 ? 4 : 8;
    const ay_gemm_i8_row *const *list = ay_gemm_i8_rows(&n), *all = ay_gemm_i8_pick(isa);
    for (int i = 0; i < n; i++) {
        if (list[i]->isa == all->isa && list[i]->bits >= bits) return list[i];
    }
    return all;
}
