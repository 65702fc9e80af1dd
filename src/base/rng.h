/* SPDX-License-Identifier: MIT
 *
 * PyTorch's CPU generator, bit for bit: mt19937 and the float32 normal distribution of its x86 AVX2 build
 * (aten/src/ATen/native/cpu/DistributionTemplates.h), the same numbers on every machine.
 */
#ifndef AY_RNG_H
#define AY_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct ay_rng {
    uint32_t state[624];
    int next;
    int has_spare; /* the scalar path (fewer than 16 numbers) keeps the second of a pair */
    double spare;
} ay_rng;

void ay_rng_seed(ay_rng *r, uint64_t seed); /* torch.Generator("cpu").manual_seed(seed) */
uint32_t ay_rng_u32(ay_rng *r);
void ay_rng_normal(ay_rng *r, float *out, size_t n); /* torch.randn(n, generator=g) */
float ay_rng_uniform(ay_rng *r);                     /* torch.rand(1, generator=g) */

#endif
