/* SPDX-License-Identifier: MIT
 *
 * Packing of pictures for convolution, AVX2: the algorithm is conv_body.h's.
 */
#include "cpu/kernel/conv_body.h"

extern const ay_conv_row ay_conv_avx2;
const ay_conv_row ay_conv_avx2 = {"conv_avx2", AY_ISA_AVX2, strip};
