/* SPDX-License-Identifier: MIT
 *
 * Packing and finishing, NEON: the algorithm is pack_body.h's.
 */
#include "cpu/kernel/pack_body.h"

extern const ay_pack_row ay_pack_neon;
const ay_pack_row ay_pack_neon = {"pack_neon", AY_ISA_NEON, turn, rows, codes, lookup, finish, finish_panel, finish_turned, transpose};
