/* SPDX-License-Identifier: MIT
 *
 * Thin products over 16 floats at a time.
 */
#define V 16
#include "source/product.h"

const ay_product_fn ay_product_avx512 = product;
