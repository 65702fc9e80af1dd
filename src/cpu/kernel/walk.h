/* SPDX-License-Identifier: MIT
 *
 * Walking strided arrays of up to six dimensions: dimensions of one are dropped and neighbours that lie one behind the
 * other in every operand are merged, so that kernels see the fewest and longest rows. Shared by elt.c, copy.c, rope.c.
 */
#ifndef AY_KERNEL_WALK_H
#define AY_KERNEL_WALK_H

#include "cpu/kernel/kernel.h"

enum { AY_WALK_OPERANDS = 3 };

typedef struct ay_walk {
    int rank;                                                   /* at least 1 */
    int64_t dim[AY_MAX_RANK], s[AY_WALK_OPERANDS][AY_MAX_RANK]; /* strides in elements */
} ay_walk;

/** dim and strides as the arguments give them (a NULL stride array is all zeros); the last dimension is kept apart when
 *  keep_last is set (rope pairs numbers within it). */
static inline ay_walk ay_walk_make(int rank, const int64_t *dim, const int64_t *s0, const int64_t *s1, const int64_t *s2,
                                   bool keep_last) {
    const int64_t *in[AY_WALK_OPERANDS] = {s0, s1, s2};
    ay_walk w = {.rank = 0};
    for (int i = 0; i < rank; i++) {
        bool last = i == rank - 1 && keep_last, merge = w.rank > 0 && !last;
        if (dim[i] == 1 && !last) continue;
        for (int o = 0; o < AY_WALK_OPERANDS && merge; o++) merge = w.s[o][w.rank - 1] == (in[o] ? in[o][i] * dim[i] : 0);
        if (!merge) {
            w.dim[w.rank] = 1;
            w.rank++;
        }
        w.dim[w.rank - 1] *= dim[i];
        for (int o = 0; o < AY_WALK_OPERANDS; o++) w.s[o][w.rank - 1] = in[o] ? in[o][i] : 0;
    }
    if (w.rank == 0) {
        w.rank = 1;
        w.dim[0] = 1;
    }
    return w;
}

/** How many rows (all dimensions but the last). */
static inline int64_t ay_walk_rows(const ay_walk *w) {
    int64_t n = 1;
    for (int i = 0; i + 1 < w->rank; i++) n *= w->dim[i];
    return n;
}

/** Offsets of row `row` in each operand. */
static inline void ay_walk_at(const ay_walk *w, int64_t row, int64_t at[AY_WALK_OPERANDS]) {
    for (int o = 0; o < AY_WALK_OPERANDS; o++) at[o] = 0;
    for (int i = w->rank - 2; i >= 0; i--) {
        int64_t k = row % w->dim[i];
        row /= w->dim[i];
        for (int o = 0; o < AY_WALK_OPERANDS; o++) at[o] += k * w->s[o][i];
    }
}

#endif
