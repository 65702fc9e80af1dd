/* SPDX-License-Identifier: MIT
 *
 * SHA-256 (FIPS 180-4), for identifiers derived from content.
 */
#ifndef AY_SHA256_H
#define AY_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct ay_sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
    unsigned used; /* bytes waiting in block */
} ay_sha256;

void ay_sha256_init(ay_sha256 *s);
void ay_sha256_add(ay_sha256 *s, const void *bytes, size_t n);
void ay_sha256_end(ay_sha256 *s, uint8_t digest[32]);

#endif
