/* SPDX-License-Identifier: MIT
 *
 * The row tables beyond kernel.h's: each family of vector kernels is one row per instruction-set level, filled in by the
 * family_isa.c files and listed in kernels.c. Drivers, kcheck and the benchmark read them through the *_rows and *_pick
 * calls. Picking takes the last row of the highest level that the cap allows.
 */
#ifndef AY_KERNEL_ROWS_H
#define AY_KERNEL_ROWS_H

#include "cpu/kernel/kernel.h"

/* ---- elementwise: contiguous numbers; operations with one input ignore y; out may be x or y -------------------------- */
typedef void (*ay_elt_fn)(int64_t n, const float *x, const float *y, float *out);
typedef struct ay_elt_row {
    const char *name;
    ay_isa isa;
    ay_elt_fn fn[AY_ELT_COUNT];
    void (*gated)(ay_act act, int64_t n, const float *x, const float *y, float *out);
    int64_t (*round_f16)(int64_t n, float *x); /* returns how many finite numbers became infinite */
} ay_elt_row;
const ay_elt_row *ay_elt_rows(int *n);
const ay_elt_row *ay_elt_pick(ay_isa isa);

#endif
