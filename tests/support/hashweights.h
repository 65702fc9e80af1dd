/* SPDX-License-Identifier: MIT
 *
 * Weights made from the hash of a tensor's name: the same numbers here and in tests/reference/hashweights.py, so that
 * golden outputs of a whole model need no stored weights.
 *
 *   u_i   = (splitmix64(fnv1a64(name) + i) >> 40) / 2^23 - 1          in [-1, 1), exact
 *   1-d, name ends in "weight" or "scale" (norms):    1 + 0.1 gain u_i
 *   name ends in "bias":                              0.05 gain u_i
 *   all others:                                       sqrt(3) gain / sqrt(fan_in) u_i
 *                                                     (fan_in: the product of the dimensions after the first)
 *
 * computed in double, rounded once to float32 and from there to the tensor's type. `gain` is that of the first pattern that
 * matches the name ("*": any text, "?": one character), else 1.
 *
 * A manifest is a text file: a line `NAME DTYPE D0,D1,...` per tensor (a scalar's shape is "-"; DTYPE as in safetensors:
 * F32, F16, BF16, F8_E4M3, F8_E5M2), lines `@gain PATTERN VALUE`, and lines beginning with "#".
 */
#ifndef AY_HASHWEIGHTS_H
#define AY_HASHWEIGHTS_H

#include "base/base.h"

typedef struct ay_gain {
    const char *pattern;
    double gain;
} ay_gain;

uint64_t ay_splitmix64(uint64_t x);
uint64_t ay_fnv1a64(const char *text);

/** Elements [begin, begin + count) of the tensor, as float32. gains: n_gains rows, may be NULL. */
void ay_hash_values(const char *name, const ay_type *type, const ay_gain *gains, int n_gains, int64_t begin, int64_t count,
                    float *out);

/** Writes the tensors of a manifest as one safetensors file. */
alloy_status ay_hash_write(ay_ctx *cx, const char *manifest, const char *path);
/** The same as DIR/STEM-00001-of-0000N.safetensors ... of at most `shard_bytes` each (one tensor at least) and
 *  DIR/STEM.safetensors.index.json, as diffusers and transformers save large models. */
alloy_status ay_hash_write_shards(ay_ctx *cx, const char *manifest, const char *dir, const char *stem, uint64_t shard_bytes);

#endif
