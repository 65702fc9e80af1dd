/* SPDX-License-Identifier: MIT
 *
 * The tables of kernels: one list per family, ordered from portable C to the newest level of each processor family. A new
 * kernel is a file and a line here. Rows of levels that this machine lacks are present (compiled) but never picked.
 */
#include "cpu/kernel/rows.h"

#if defined(__x86_64__)
#define AY_ROWS_X86(x) x
#else
#define AY_ROWS_X86(x)
#endif
#if defined(__aarch64__)
#define AY_ROWS_ARM(x) x
#else
#define AY_ROWS_ARM(x)
#endif

extern const ay_elt_row ay_elt_row_c;
static const ay_elt_row *const elt_rows[] = {&ay_elt_row_c};

const ay_elt_row *ay_elt_pick(ay_isa isa) { return elt_rows[0]; }
