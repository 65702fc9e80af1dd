/* SPDX-License-Identifier: MIT
 *
 * The machine's ceilings: multiply-adds that never leave the registers, one row a level. A share of a ceiling means
 * something only when both were measured in the same run.
 */
#ifndef AY_KERNEL_PEAK_H
#define AY_KERNEL_PEAK_H

#include "base/isa.h"

#include <stddef.h>
#include <stdint.h>

/** Does `rounds` rounds and returns how many operations that was (a multiply-add counts as two). */
typedef double (*ay_peak_fn)(int64_t rounds);
typedef struct ay_peak_row {
    const char *name;
    ay_isa isa;
    ay_peak_fn f32;
    ay_peak_fn i8; /* sums of int8 products, exact, by the quickest instructions there are for them; NULL: f32's */
    ay_peak_fn i4; /* the same with weights of four bits, which leave room for sums of pairs; NULL: i8's */
} ay_peak_row;
const ay_peak_row *const *ay_peak_rows(int *n);
const ay_peak_row *ay_peak_pick(ay_isa isa);

#endif
