/* SPDX-License-Identifier: MIT
 *
 * GGUF's packed blocks to numbers.
 */
#ifndef AY_BLOCKS_H
#define AY_BLOCKS_H

#include "base/base.h"

/** Elements [begin, begin + count) of a row-major array of whole blocks, as float32: the bits that gguf's own reader
 *  (gguf-py, gguf/quants.py) gives. Nothing needs to be aligned. */
void ay_blocks_read(ay_block block, const void *data, int64_t begin, int64_t count, float *out);

#endif
