/* SPDX-License-Identifier: MIT
 *
 * GGUF files for tests.
 */
#ifndef AY_GGUF_WRITE_H
#define AY_GGUF_WRITE_H

#include "support.h"

/** Writes tensors as GGUF, version 3; blocks[i] says how tensor i's data is packed (blocks may be NULL: plain), which of rows that
 *  are no whole blocks is in rows of 256, as city96's tools write convolutions. */
void ay_gguf_write(ay_test *t, const char *path, const ay_tensor *x, const ay_block *blocks, int n);
/** Random blocks that stand for small numbers, for `elements` of them; in the test's arena. */
void *ay_gguf_random(ay_test *t, ay_block block, int64_t elements, uint64_t *seed);

#endif
