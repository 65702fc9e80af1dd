/* SPDX-License-Identifier: MIT
 *
 * Small floats by bit arithmetic: IEEE 754 binary16, bfloat16, and the OCP 8-bit forms e4m3fn and e5m2.
 */
#include "base/half.h"

#include <string.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float ay_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 0x3ff;
    if (exp == 31) return float_of(sign | (man ? 0x7fc00000 : 0x7f800000) | man << 13);
    if (exp) return float_of(sign | (exp + 112) << 23 | man << 13);
    float v = (float)man * 0x1p-24f; /* zero and subnormals: exact */
    return sign ? -v : v;
}

uint16_t ay_f32_to_f16(float f) {
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return (uint16_t)(sign | 0x7e00 | ((mag >> 13) & 0x1ff)); /* NaN */
    if (mag >= 0x477ff000) return (uint16_t)(sign | 0x7c00);                        /* 65520 and up round to infinity */
    if (mag < 0x38800000) { /* below 2^-14: let float addition round at the subnormal's last place */
        float r = float_of(mag) + 0.5f;
        return (uint16_t)(sign | (bits_of(r) - bits_of(0.5f)));
    }
    uint32_t odd = (mag >> 13) & 1;
    return (uint16_t)(sign | ((mag - 0x38000000 + 0xfff + odd) >> 13));
}

float ay_bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }

uint16_t ay_f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float ay_f8e4m3_to_f32(uint8_t v) {
    uint32_t sign = (uint32_t)(v & 0x80) << 24, exp = (v >> 3) & 15, man = v & 7;
    if (exp == 15 && man == 7) return float_of(sign | 0x7fc00000);
    if (exp) return float_of(sign | (exp + 120) << 23 | man << 20);
    float f = (float)man * 0x1p-9f;
    return sign ? -f : f;
}

float ay_f8e5m2_to_f32(uint8_t v) { return ay_f16_to_f32((uint16_t)(v << 8)); }

/* A magnitude to `man_bits` of mantissa and exponent bias `bias`, to nearest even; may come out beyond the largest. */
static uint32_t to_f8(uint32_t mag, int man_bits, int bias) {
    uint32_t shift = 23 - (uint32_t)man_bits, rebias = (uint32_t)(127 - bias) << 23;
    if (mag < rebias + (1u << 23)) { /* subnormal there: let float addition round at the last place of 2^(23 - place) */
        float magic = float_of((uint32_t)(127 + 1 - bias + (int)shift) << 23);
        return bits_of(float_of(mag) + magic) - bits_of(magic);
    }
    uint32_t odd = (mag >> shift) & 1;
    return (mag - rebias + (1u << (shift - 1)) - 1 + odd) >> shift;
}

uint8_t ay_f32_to_f8e4m3(float f) {
    uint32_t u = bits_of(f), sign = u >> 24 & 0x80, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (mag > 0x43e00000) mag = 0x43e00000; /* 448; infinity too, as torch 2.15 does (some earlier ones gave NaN) */
    return (uint8_t)(sign | to_f8(mag, 3, 7));
}

uint8_t ay_f32_to_f8e5m2(float f) {
    uint32_t u = bits_of(f), sign = u >> 24 & 0x80, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (mag >= 0x47800000) return (uint8_t)(sign | 0x7c); /* 65536 and up; 61440 and up round there by themselves */
    return (uint8_t)(sign | to_f8(mag, 2, 15));
}
