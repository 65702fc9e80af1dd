/* SPDX-License-Identifier: MIT
 *
 * Packing of pictures for convolution, AVX-512: the algorithm is conv_body.h's.
 */
#include "cpu/kernel/conv_body.h"

extern const ay_conv_row ay_conv_avx512;
const ay_conv_row ay_conv_avx512 = {"conv_avx512", AY_ISA_AVX512, strip};
