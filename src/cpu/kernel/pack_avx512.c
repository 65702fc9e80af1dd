/* SPDX-License-Identifier: MIT
 *
 * Packing and finishing, AVX-512: the algorithm is pack_body.h's.
 */
#include "cpu/kernel/pack_body.h"

extern const ay_pack_row ay_pack_avx512;
const ay_pack_row ay_pack_avx512 = {"pack_avx512", AY_ISA_AVX512, turn, rows, codes, lookup, finish, finish_panel, finish_turned, transpose};
