/* SPDX-License-Identifier: MIT
 *
 * Packing and finishing, AVX2: the algorithm is pack_body.h's.
 */
#include "cpu/kernel/pack_body.h"

extern const ay_pack_row ay_pack_avx2;
const ay_pack_row ay_pack_avx2 = {"pack_avx2", AY_ISA_AVX2, turn, rows, codes, lookup, finish, finish_panel, finish_turned, transpose};
