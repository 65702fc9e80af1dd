/* SPDX-License-Identifier: MIT
 *
 * Number formats: the scalar forms against torch (digests in tests/golden/convert.txt), and the bulk conversions of every
 * instruction-set level this machine has against the scalar forms, bit for bit, at every alignment and length.
 */
#include "../support/support.h"
#include "base/half.h"
#include "base/isa.h"
#include "quant/convert.h"
#include "quant/weight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 1 << 18 };

static const ay_dtype floats[] = {AY_F16, AY_BF16, AY_F8E4M3, AY_F8E5M2};

static float scalar_decode(ay_dtype t, unsigned v) {
    switch (t) {
    case AY_F16: return ay_f16_to_f32((uint16_t)v);
    case AY_BF16: return ay_bf16_to_f32((uint16_t)v);
    case AY_F8E4M3: return ay_f8e4m3_to_f32((uint8_t)v);
    default: return ay_f8e5m2_to_f32((uint8_t)v);
    }
}

static unsigned scalar_encode(ay_dtype t, float f) {
    switch (t) {
    case AY_F16: return ay_f32_to_f16(f);
    case AY_BF16: return ay_f32_to_bf16(f);
    case AY_F8E4M3: return ay_f32_to_f8e4m3(f);
    default: return ay_f32_to_f8e5m2(f);
    }
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float one_nan(float f) { return f == f ? f : NAN; }

/* As in tests/reference/quant_golden.py: patterns of all bits, and numbers where the small types have theirs. */
static float *make_samples(ay_test *t) {
    float *x = ay_alloc(t->arena, 4 * SAMPLES * sizeof *x);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        uint32_t u = (uint32_t)(i * 2654435761u);
        memcpy(&x[i], &u, 4);
        float near = (float)((double)i / SAMPLES * 16 - 8);
        x[SAMPLES + i] = near;
        x[2 * SAMPLES + i] = near * 0x1p-12f;
        x[3 * SAMPLES + i] = near * 0x1p13f;
    }
    return x;
}

static uint64_t golden(ay_test *t, const char *what, ay_dtype dtype) {
    char *text = ay_test_read(t, ay_test_golden(t, "convert.txt"), NULL), key[64];
    snprintf(key, sizeof key, "%s %s ", what, ay_dtype_name(dtype));
    char *at = strstr(text, key);
    assert_non_null(at);
    return strtoull(at + strlen(key), NULL, 16);
}

static void test_scalar_against_torch(void **state) {
    ay_test *t = *state;
    float *x = make_samples(t), *y = ay_alloc(t->arena, 4 * SAMPLES * sizeof *y);
    for (size_t d = 0; d < 4; d++) {
        unsigned codes = 1u << ay_dtype_bits(floats[d]);
        for (unsigned v = 0; v < codes; v++) y[v] = one_nan(scalar_decode(floats[d], v));
        if (ay_test_digest(0, y, codes) != golden(t, "decode", floats[d])) fail_msg("decoding %s", ay_dtype_name(floats[d]));
        for (int i = 0; i < 4 * SAMPLES; i++) y[i] = one_nan(scalar_decode(floats[d], scalar_encode(floats[d], x[i])));
        if (ay_test_digest(0, y, 4 * SAMPLES) != golden(t, "encode", floats[d]))
            fail_msg("encoding %s", ay_dtype_name(floats[d]));
    }
}

static void test_scalar_edges(void **state) {
    assert_int_equal(ay_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(ay_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(ay_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(ay_f32_to_f16(0x1p-25f), 0); /* a tie goes to even */
    assert_int_equal(ay_f32_to_f16(0x1.8p-24f), 2);
    assert_int_equal(ay_f32_to_bf16(1.00390625f), 0x3f80);
    assert_int_equal(ay_f32_to_bf16(1.01171875f), 0x3f82);
    assert_int_equal(ay_f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(ay_f32_to_f8e4m3(448.0f), 0x7e);
    assert_int_equal(ay_f32_to_f8e4m3(464.0f), 0x7e);
    assert_int_equal(ay_f32_to_f8e4m3(1e6f), 0x7e);
    assert_int_equal(ay_f32_to_f8e4m3(-INFINITY), 0xfe);
    assert_int_equal(ay_f32_to_f8e4m3(NAN), 0x7f);
    assert_int_equal(ay_f32_to_f8e5m2(61439.0f), 0x7b);
    assert_int_equal(ay_f32_to_f8e5m2(61440.0f), 0x7c);
    assert_int_equal(ay_f32_to_f8e5m2(NAN), 0x7f);
    for (unsigned h = 0; h < 65536; h++) { /* what decodes exactly encodes to itself */
        float f = ay_f16_to_f32((uint16_t)h);
        if (f == f) assert_int_equal(ay_f32_to_f16(f), h);
    }
}

/* Levels that this machine can run. */
static int levels(int *isa) {
    int n = 0;
    for (int i = 0; i < AY_ISA_COUNT; i++) {
        if (ay_isa_runs((ay_isa)i)) isa[n++] = i;
    }
    return n;
}

static void test_bulk_decode(void **state) {
    ay_test *t = *state;
    int isa[AY_ISA_COUNT], n_isa = levels(isa);
    uint8_t *from = ay_alloc(t->arena, 65536 * 2);
    float *out = ay_alloc(t->arena, 65536 * sizeof *out);
    for (int l = 0; l < n_isa; l++) {
        for (size_t d = 0; d < 4; d++) {
            size_t width = (size_t)ay_dtype_bits(floats[d]) / 8, codes = (size_t)1 << (8 * width);
            for (size_t v = 0; v < codes; v++) memcpy(from + v * width, &v, width);
            ay_to_f32_at(isa[l], floats[d])(from, 0, (int64_t)codes, out);
            for (unsigned v = 0; v < codes; v++) {
                if (bits_of(out[v]) != bits_of(scalar_decode(floats[d], v)))
                    fail_msg("%s at %s: code %x gives %08x where %08x was expected", ay_dtype_name(floats[d]),
                             ay_isa_name((ay_isa)isa[l]), v, bits_of(out[v]), bits_of(scalar_decode(floats[d], v)));
            }
        }
    }
}

static void test_bulk_encode(void **state) {
    ay_test *t = *state;
    int isa[AY_ISA_COUNT], n_isa = levels(isa);
    float *x = make_samples(t);
    uint8_t *out = ay_alloc(t->arena, 4 * SAMPLES * 2);
    for (int l = 0; l < n_isa; l++) {
        for (size_t d = 0; d < 4; d++) {
            size_t width = (size_t)ay_dtype_bits(floats[d]) / 8;
            ay_from_f32_at(isa[l], floats[d])(x, 4 * SAMPLES, out);
            for (size_t i = 0; i < 4 * SAMPLES; i++) {
                unsigned got = 0;
                memcpy(&got, out + i * width, width);
                if (got != scalar_encode(floats[d], x[i]))
                    fail_msg("%s at %s: %a gives %x where %x was expected", ay_dtype_name(floats[d]),
                             ay_isa_name((ay_isa)isa[l]), (double)x[i], got, scalar_encode(floats[d], x[i]));
            }
        }
    }
}

/* Every dtype at every level, at odd addresses, beginnings and lengths, in buffers of exactly the right size. */
static void test_places_and_lengths(void **state) {
    int isa[AY_ISA_COUNT], n_isa = levels(isa);
    uint64_t seed = 7;
    for (int d = 1; d < AY_DTYPE_COUNT; d++) {
        ay_dtype t = (ay_dtype)d;
        for (int begin = 0; begin < 10; begin++) {
            for (int n = 0; n < 70; n += n < 36 ? 1 : 7) {
                size_t bytes = ay_dtype_bytes(t, begin + n), shift = (size_t)(ay_test_random(&seed) % 4);
                uint8_t *raw = malloc(shift + bytes), *again = malloc(shift + bytes + 1);
                float *want = malloc(((size_t)n + 1) * sizeof *want), *got = malloc((size_t)n * sizeof *got + 1);
                for (size_t i = 0; i < bytes; i++)
                    raw[shift + i] = (uint8_t)(ay_test_random(&seed) & (t == AY_BOOL ? 1 : 255));
                ay_to_f32_at(AY_ISA_C, t)(raw + shift, begin, n, want);
                for (int l = 0; l < n_isa; l++) {
                    ay_to_f32_at(isa[l], t)(raw + shift, begin, n, got);
                    assert_memory_equal(got, want, (size_t)n * sizeof *got);
                    if (begin > 0) continue;
                    again[shift + bytes] = 0xa5; /* nothing behind the end is written */
                    ay_from_f32_at(isa[l], t)(got, n, again + shift);
                    assert_int_equal(again[shift + bytes], 0xa5);
                    ay_to_f32_at(AY_ISA_C, t)(again + shift, 0, n, got);
                    for (int i = 0; i < n; i++) assert_true(bits_of(got[i]) == bits_of(want[i]) || want[i] != want[i]);
                }
                free(raw);
                free(again);
                free(want);
                free(got);
            }
        }
    }
}

/* Codes to values, at every level as in C, in arrays of exactly the right size. */
static void test_affine_and_lookup(void **state) {
    int isa[AY_ISA_COUNT], n_isa = levels(isa);
    uint64_t seed = 9;
    float table[256];
    for (int i = 0; i < 256; i++) table[i] = ay_test_uniform(&seed);
    for (int n = 0; n < 70; n++) {
        size_t bytes = (size_t)n * sizeof(float);
        float *x = malloc(bytes + 1), *want = malloc(bytes + 1), *got = malloc(bytes + 1);
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < n; i++) want[i] = x[i] = ay_test_uniform(&seed) * 100;
            ay_affine_at(AY_ISA_C)(want, n, 0.37f, 3.25f, half);
            for (int i = 0; i < n; i++) {
                float v = 0.37f * (x[i] - 3.25f);
                assert_true(want[i] == (half ? ay_f16_to_f32(ay_f32_to_f16(v)) : v));
            }
            for (int l = 0; l < n_isa; l++) {
                memcpy(got, x, bytes);
                ay_affine_at(isa[l])(got, n, 0.37f, 3.25f, half);
                assert_memory_equal(got, want, bytes);
            }
        }
        for (int k = 2; k <= 256; k *= 2) {
            for (int i = 0; i < n; i++) x[i] = (float)(ay_test_random(&seed) % (uint64_t)k);
            for (int l = 0; l < n_isa; l++) {
                float *small = malloc((size_t)k * sizeof *small);
                memcpy(small, table, (size_t)k * sizeof *small);
                memcpy(got, x, bytes);
                ay_lookup_at(isa[l])(got, n, small, k);
                for (int i = 0; i < n; i++) assert_true(got[i] == table[(int)x[i]]);
                free(small);
            }
        }
        free(x);
        free(want);
        free(got);
    }
}

static void test_integers(void **state) {
    const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f, 127.5f, 300, -300, NAN, INFINITY, -INFINITY, 1e30f, -1e30f};
    const int8_t want8[] = {0, 2, 2, 0, -2, 126, 127, 127, -128, 0, 127, -128, 127, -128};
    int8_t i8[14];
    int64_t i64[14];
    uint64_t u64[14];
    uint32_t u32[14];
    uint8_t b[14], packed[7];
    ay_convert_from_f32(AY_I8, x, 14, i8);
    assert_memory_equal(i8, want8, sizeof i8);
    ay_convert_from_f32(AY_I64, x, 14, i64);
    assert_true(i64[10] == INT64_MAX && i64[11] == INT64_MIN && i64[9] == 0 && i64[12] == INT64_MAX);
    ay_convert_from_f32(AY_U64, x, 14, u64);
    assert_true(u64[10] == UINT64_MAX && u64[11] == 0 && u64[9] == 0 && u64[8] == 0);
    ay_convert_from_f32(AY_U32, x, 14, u32);
    assert_true(u32[10] == UINT32_MAX && u32[8] == 0 && u32[7] == 300);
    ay_convert_from_f32(AY_BOOL, x, 14, b);
    assert_true(b[0] == 1 && b[13] == 1);
    ay_convert_from_f32(AY_I4, x, 14, packed); /* 0 2 | 2 0 | -2 7 ... */
    assert_true(packed[0] == 0x20 && packed[1] == 0x02 && packed[2] == 0x7e && packed[6] == 0x87);
    ay_convert_to_f32(AY_NONE, x, 0, 3, NULL); /* nothing happens */
    ay_convert_from_f32(AY_F32, x, 0, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_scalar_against_torch),
                                       AY_TEST(test_scalar_edges),
                                       AY_TEST(test_bulk_decode),
                                       AY_TEST(test_bulk_encode),
                                       AY_TEST(test_places_and_lengths),
                                       AY_TEST(test_affine_and_lookup),
                                       AY_TEST(test_integers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
