/* SPDX-License-Identifier: MIT
 *
 * Thin products over 4 floats at a time.
 */
#define V 4
#include "source/product.h"

const ay_product_fn ay_product_c = product;
