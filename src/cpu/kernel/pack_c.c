/* SPDX-License-Identifier: MIT
 *
 * Packing and finishing, portable C: the algorithm is pack_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/pack_body.h"

extern const ay_pack_row ay_pack_c;
const ay_pack_row ay_pack_c = {"pack_c", AY_ISA_C, turn, rows, codes, lookup, finish, finish_panel, finish_turned, transpose};
