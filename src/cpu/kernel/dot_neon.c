/* SPDX-License-Identifier: MIT
 *
 * Dot products, NEON: the algorithm is dot_body.h's.
 */
#include "cpu/kernel/dot_body.h"

extern const ay_dot_row ay_dot_neon;
const ay_dot_row ay_dot_neon = {"dot_neon", AY_ISA_NEON, dot, codes};
