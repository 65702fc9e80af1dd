/* SPDX-License-Identifier: MIT
 *
 * PyTorch's CPU random numbers, bit for bit and on every machine. Facts from PyTorch's source:
 *   aten/src/ATen/core/MT19937RNGEngine.h               the generator, seeded with the low 32 bits of the seed
 *   aten/src/ATen/core/TransformationHelper.h           uniforms: the low 24 (float) or 53 (double) bits, scaled
 *   aten/src/ATen/native/cpu/DistributionTemplates.h    normals: 16 or more by blocks of 8 + 8, fewer one by one in double
 *   aten/src/ATen/native/cpu/avx_mathfun.h              the Cephes polynomials behind the blocks' log, sin and cos
 * The released x86 builds contract a * b + c into one rounding wherever the compiler saw the chance (found by trying both
 * ways for each operation against torch); here each such place says fmaf, and the build forbids any other contraction.
 */
#include "base/rng.h"

#include <math.h>
#include <string.h>

/* ---- mt19937 ------------------------------------------------------------------------------------------------------- */

enum { N = 624, M = 397 };

void ay_rng_seed(ay_rng *r, uint64_t seed) {
    r->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->next = N;
    r->has_spare = 0;
    r->spare = 0;
}

static void twist(uint32_t *s) {
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[i + 1 < N ? i + 1 : 0] & 0x7fffffffu);
        s[i] = s[i + M < N ? i + M : i + M - N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t ay_rng_u32(ay_rng *r) {
    if (r->next >= N) {
        twist(r->state);
        r->next = 0;
    }
    uint32_t y = r->state[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

float ay_rng_uniform(ay_rng *r) { return (float)(ay_rng_u32(r) & 0xffffff) * 0x1p-24f; }

static double uniform53(ay_rng *r) {
    uint64_t hi = ay_rng_u32(r), lo = ay_rng_u32(r);
    return (double)((hi << 32 | lo) & 0x1fffffffffffffu) * 0x1p-53;
}

/* ---- the blocks' functions ----------------------------------------------------------------------------------------- */

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

/* Natural logarithm of x in [2^-24, 1]. */
static float log_block(float x) {
    static const float p[9] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,  -1.2420140846E-1f, 1.4249322787E-1f,
                               -1.6668057665E-1f, 2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    uint32_t u = bits_of(x);
    float e = (float)((int)(u >> 23) - 127) + 1; /* x = m * 2^e, m in [0.5, 1) */
    float m = float_of((u & ~0x7f800000u) | 0x3f000000u);
    if (m < 0.707106781186547524f) {
        e -= 1;
        m = (m - 1) + m;
    } else m -= 1;
    float z = m * m, y = p[0];
    for (int i = 1; i < 9; i++) y = fmaf(y, m, p[i]);
    y = fmaf(y * m, z, e * -2.12194440e-4f);
    y -= z * 0.5f;
    return fmaf(e, 0.693359375f, m + y);
}

/* Sine and cosine of x in [0, 2 pi). */
static void sincos_block(float x, float *sine, float *cosine) {
    int j = ((int)(x * 1.27323954473516f) + 1) & ~1; /* the even octant's number */
    float o = (float)j;
    x = fmaf(o, -0.78515625f, x); /* x - o * pi/4 in three steps */
    x = fmaf(o, -2.4187564849853515625e-4f, x);
    x = fmaf(o, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f), z, 4.166664568298827E-002f);
    c = fmaf(c * z, z, -(z * 0.5f)) + 1;
    float s = fmaf(fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f), z, -1.6666654611E-1f);
    s = fmaf(s * z, x, x);
    float for_sine = j & 2 ? c : s, for_cosine = j & 2 ? s : c;
    /* + 0: the blend there adds a zero, which turns -0 into 0 before the sign is set */
    *sine = float_of(bits_of(for_sine + 0.0f) ^ ((uint32_t)j & 4) << 29);
    *cosine = float_of(bits_of(for_cosine + 0.0f) ^ (~((uint32_t)j - 2) & 4) << 29);
}

/* Box-Muller over 16 uniforms in place: radius from x[j], angle from x[j + 8]. */
static void normal_16(float *x) {
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2.0f * log_block(1.0f - x[j])), s, c;
        sincos_block(6.283185307179586f * x[j + 8], &s, &c);
        x[j] = radius * c + 0.0f; /* times 1 plus 0, as there: -0 becomes 0 */
        x[j + 8] = radius * s + 0.0f;
    }
}

/* ---- normals ------------------------------------------------------------------------------------------------------- */

static double normal_1(ay_rng *r) {
    if (r->has_spare) {
        r->has_spare = 0;
        return r->spare;
    }
    double u1 = uniform53(r), u2 = uniform53(r);
    double radius = sqrt(-2.0 * log1p(-u2)), theta = 2.0 * 3.14159265358979323846 * u1;
    r->spare = radius * sin(theta);
    r->has_spare = 1;
    return radius * cos(theta);
}

void ay_rng_normal(ay_rng *r, float *out, size_t n) {
    if (n < 16) {
        for (size_t i = 0; i < n; i++) out[i] = (float)normal_1(r);
        return;
    }
    for (size_t i = 0; i < n; i++) out[i] = ay_rng_uniform(r);
    for (size_t i = 0; i + 16 <= n; i += 16) normal_16(out + i);
    if (n % 16 != 0) { /* the last 16 are drawn again */
        for (size_t i = n - 16; i < n; i++) out[i] = ay_rng_uniform(r);
        normal_16(out + n - 16);
    }
}
