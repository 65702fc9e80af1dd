/* SPDX-License-Identifier: MIT
 *
 * Packing of pictures for convolution, portable C: the algorithm is conv_body.h's.
 */
#define AY_SIMD_C
#include "cpu/kernel/conv_body.h"

extern const ay_conv_row ay_conv_c;
const ay_conv_row ay_conv_c = {"conv_c", AY_ISA_C, strip};
