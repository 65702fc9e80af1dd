/* SPDX-License-Identifier: MIT
 *
 * Thin products over 8 floats at a time.
 */
#define V 8
#include "source/product.h"

const ay_product_fn ay_product_avx2 = product;
