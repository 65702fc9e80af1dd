/* SPDX-License-Identifier: MIT
 *
 * The blocked matrix product under gemm.c and conv.c. A job is a tile of C with the whole of k: the thread packs what it
 * needs of both operands for itself, so tiles need no barrier, and every sum runs over k in the same order however the
 * work is split. Operands say how a panel of theirs is packed.
 */
#ifndef AY_KERNEL_MM_H
#define AY_KERNEL_MM_H

#include "cpu/kernel/rows.h"

typedef struct ay_operand ay_operand;
/** Panel dst [kn][width]: rows (of A) or columns (of B) at .. at + count <= width, k0 .. k0 + kn; columns past count: 0. */
typedef void (*ay_panel_fn)(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn, float *dst);
struct ay_operand {
    ay_panel_fn panel;
    const ay_pack_row *row;
    const float *f; /* float32 numbers and the distance of their rows, or */
    int64_t ld;
    const ay_weight *w; /* a weight [n, k], from row w_first on, or */
    int64_t k, w_first;
    const void *more; /* whatever the panel function knows (conv.c) */
};
void ay_panel_turned(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn,
                     float *dst); /* f [at][k] */
void ay_panel_rows(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn,
                   float *dst); /* f [k][at] */
void ay_panel_weight(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn,
                     float *dst); /* w [at][k] */

typedef struct ay_mm {
    int64_t m, n, k;
    ay_operand a, b;
    float *c;
    int64_t ldc;
    ay_finish finish;    /* bias, gate: along n; residual: its first row, or c itself */
    const float *bias_m; /* bias along m instead */
    int64_t ldr;
} ay_mm;

typedef struct ay_mm_plan {
    const ay_gemm_f32_row *kernel;
    const ay_pack_row *pack;
    int64_t mt, nt; /* a job's tile of C */
    int64_t mc, kc; /* block of A that stays in the second cache */
    int64_t tiles_m, tiles_n;
    size_t a_floats, b_floats; /* scratch a thread */
} ay_mm_plan;
/** `batch`: how many such products run side by side. */
ay_mm_plan ay_mm_plan_make(ay_isa isa, int threads, int64_t batch, int64_t m, int64_t n, int64_t k);
size_t ay_mm_plan_scratch(const ay_mm_plan *p); /* bytes a thread, a multiple of 64 */
void ay_mm_tile(const ay_mm_plan *p, const ay_mm *mm, int64_t tile, float *scratch);

/** Numbers k0 .. k0 + n of row `row` of a weight seen as [.., k]. */
void ay_unpack_row(const ay_pack_row *p, const ay_weight *w, int64_t k, int64_t row, int64_t k0, int64_t n, float *out);
/** Whether rows of such a weight [.., k] can be multiplied as codes (ay_dot_row.codes), and how long their runs are. */
bool ay_codes_run(const ay_weight *w, int64_t k, int64_t *run);
/** The scales of row `row`, one a run. */
void ay_codes_scales(const ay_weight *w, int64_t k, int64_t row, float *out);
/** Whether the numbers lie there as float32, float16 or bfloat16, one behind the other. */
static inline bool ay_weight_is_direct(const ay_weight *w) {
    return w->store == AY_STORE_PLAIN && (w->data_dtype == AY_F32 || w->data_dtype == AY_F16 || w->data_dtype == AY_BF16);
}
static inline const void *ay_weight_at(const ay_weight *w, int64_t element) {
    return (const char *)w->data + element * (w->data_dtype == AY_F32 ? 4 : 2);
}

static inline int64_t ay_round_up(int64_t x, int64_t to) { return ay_div_up(x, to) * to; }
/** Largest side not above `most` that cuts `size` into equal parts, rounded up to whole micro-tiles. */
static inline int64_t ay_even(int64_t size, int64_t most, int64_t unit) {
    int64_t parts = ay_div_up(size, ay_max_i64(unit, most));
    return ay_round_up(ay_div_up(size, ay_max_i64(1, parts)), unit);
}

#endif
