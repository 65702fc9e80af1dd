/* SPDX-License-Identifier: MIT
 *
 * Packing of pictures for convolution, NEON: the algorithm is conv_body.h's.
 */
#include "cpu/kernel/conv_body.h"

extern const ay_conv_row ay_conv_neon;
const ay_conv_row ay_conv_neon = {"conv_neon", AY_ISA_NEON, strip};
