/* SPDX-License-Identifier: MIT
 *
 * Weights as stored: against coremltools' own decompression (tests/golden/weights.safetensors), against a plain
 * element-by-element evaluation on random shapes, from any place, at odd addresses, in buffers of exactly the right size.
 */
#include "../support/support.h"
#include "base/half.h"
#include "io/io.h"
#include "quant/weight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ay_dtype dtype_named(const char *name) {
    for (int i = 1; name && i < AY_DTYPE_COUNT; i++) {
        if (strcmp(ay_dtype_name((ay_dtype)i), name) == 0) return (ay_dtype)i;
    }
    return AY_NONE;
}

static int read_dims(const json_t *c, const char *key, int64_t *dim) {
    const json_t *list = json_object_get(c, key);
    for (size_t i = 0; i < json_array_size(list); i++) dim[i] = json_integer_value(json_array_get(list, i));
    return (int)json_array_size(list);
}

static ay_dtype read_dtype(const json_t *c, const char *key) {
    return dtype_named(json_string_value(json_object_get(c, key)));
}

/* A copy of a golden part at an odd address, which ends where its memory ends. */
static const void *part(ay_safetensors *st, int index, const char *what, size_t expected, void **to_free) {
    char name[32];
    snprintf(name, sizeof name, "case%02d.%s", index, what);
    const ay_st_tensor *t = ay_st_find(st, name);
    assert_non_null(t);
    assert_int_equal(t->bytes, expected);
    char *copy = malloc(t->bytes + 1);
    memcpy(copy + 1, ay_st_data(st, t), t->bytes);
    *to_free = copy;
    return copy + 1;
}

static void check_reads(const ay_weight *w, const float *want, int64_t n, const char *name) {
    uint64_t seed = 3;
    for (int k = 0; k < 60; k++) {
        int64_t begin = k ? (int64_t)(ay_test_random(&seed) % (uint64_t)n) : 0;
        int64_t count = k ? 1 + (int64_t)(ay_test_random(&seed) % (uint64_t)(n - begin)) : n;
        float *got = malloc((size_t)count * sizeof *got);
        ay_weight_read(w, begin, count, got);
        for (int64_t i = 0; i < count; i++) {
            if (got[i] != want[begin + i])
                fail_msg("%s: element %d is %.9g where %.9g was expected", name, (int)(begin + i), (double)got[i],
                         (double)want[begin + i]);
        }
        free(got);
    }
}

static void check_case(ay_test *t, ay_safetensors *st, const json_t *c, int index) {
    ay_weight w = {0};
    void *hold[3] = {NULL, NULL, NULL}, *hold_value;
    char name[32];
    snprintf(name, sizeof name, "case%02d", index);
    w.rank = read_dims(c, "dim", w.dim);
    w.value_dtype = read_dtype(c, "value");
    w.data_dtype = read_dtype(c, "data");
    if (strcmp(json_string_value(json_object_get(c, "store")), "block") == 0) {
        w.store = AY_STORE_BLOCK;
        read_dims(c, "scale_dim", w.scale_dim);
        w.scale_dtype = read_dtype(c, "scale");
        w.offset_dtype = read_dtype(c, "offset");
        w.scale = part(st, index, "scale", ay_weight_scale_bytes(&w), &hold[1]);
        if (w.offset_dtype) w.offset = part(st, index, "offset", ay_weight_offset_bytes(&w), &hold[2]);
    } else {
        w.store = AY_STORE_LUT;
        read_dims(c, "lut_dim", w.lut_dim);
        w.lut_dtype = read_dtype(c, "lut");
        w.vector_axis = (int)json_integer_value(json_object_get(c, "axis"));
        w.lut = part(st, index, "lut", ay_weight_lut_bytes(&w), &hold[1]);
    }
    w.data = part(st, index, "data", ay_weight_data_bytes(&w), &hold[0]);
    assert_ok(t->cx, ay_weight_check(t->cx, name, &w));
    ay_type type = {AY_F32, w.rank, {0}};
    memcpy(type.dim, w.dim, sizeof type.dim);
    const float *value = part(st, index, "value", ay_dtype_bytes(AY_F32, ay_type_count(&type)), &hold_value);
    float *want = malloc(ay_dtype_bytes(AY_F32, ay_type_count(&type)));
    memcpy(want, value, ay_dtype_bytes(AY_F32, ay_type_count(&type)));
    check_reads(&w, want, ay_type_count(&type), name);
    free(want);
    free(hold_value);
    for (int i = 0; i < 3; i++) free(hold[i]);
}

static void test_against_coremltools(void **state) {
    ay_test *t = *state;
    ay_safetensors *st;
    json_t *cases;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, "weights.safetensors"), &st));
    assert_string_equal(st->metadata[0], "cases");
    assert_ok(t->cx, ay_json_parse(t->cx, "cases", st->metadata[1], strlen(st->metadata[1]), &cases));
    assert_true(json_array_size(cases) >= 20);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(t, st, json_array_get(cases, i), (int)i);
    json_decref(cases);
    ay_st_close(&st);
}

/* ---- against the definition, element by element -------------------------------------------------------------------- */

static float one(ay_dtype t, const void *p, int64_t i) {
    float f;
    ay_convert_to_f32(t, p, i, 1, &f);
    return f;
}

/* value = scale_block * (data - offset_block), straight from coordinates. */
static float define_block(const ay_weight *w, int64_t e) {
    int64_t s = 0, stride = 1, rest = e;
    for (int d = w->rank - 1; d >= 0; d--) {
        int64_t at = rest % w->dim[d];
        rest /= w->dim[d];
        s += at / (w->dim[d] / w->scale_dim[d]) * stride;
        stride *= w->scale_dim[d];
    }
    float offset = w->offset ? one(w->offset_dtype, w->offset, s) : 0;
    float v = one(w->scale_dtype, w->scale, s) * (one(w->data_dtype, w->data, e) - offset);
    return w->value_dtype == AY_F16 ? ay_f16_to_f32(ay_f32_to_f16(v)) : v;
}

static int64_t some_divisor(uint64_t *seed, int64_t n) {
    for (;;) {
        int64_t d = 1 + (int64_t)(ay_test_random(seed) % (uint64_t)n);
        if (n % d == 0) return d;
    }
}

static void *random_bytes(uint64_t *seed, ay_dtype t, int64_t n) {
    size_t bytes = ay_dtype_bytes(t, n);
    uint8_t *p = malloc(bytes + 1);
    float *f = malloc((size_t)n * sizeof *f);
    for (int64_t i = 0; i < n; i++) f[i] = ay_test_uniform(seed) * (ay_dtype_is_float(t) ? 1 : 300);
    ay_convert_from_f32(t, f, n, p);
    free(f);
    return p;
}

static void test_random_blocks(void **state) {
    ay_test *t = *state;
    static const ay_dtype data[] = {AY_I8, AY_U8, AY_I4, AY_U4, AY_F16, AY_F32};
    uint64_t seed = 11;
    for (int k = 0; k < 150; k++) {
        ay_weight w = {.store = AY_STORE_BLOCK, .rank = 1 + k % 5};
        int64_t n = 1, parts = 1;
        for (int d = 0; d < w.rank; d++) {
            w.dim[d] = 1 + (int64_t)(ay_test_random(&seed) % (d == w.rank - 1 ? 40 : 7));
            w.scale_dim[d] = some_divisor(&seed, w.dim[d]);
            n *= w.dim[d];
            parts *= w.scale_dim[d];
        }
        w.data_dtype = data[ay_test_random(&seed) % 6];
        w.scale_dtype = w.value_dtype = k % 3 ? AY_F16 : AY_F32;
        w.offset_dtype = k % 2 ? w.data_dtype : AY_NONE;
        w.data = random_bytes(&seed, w.data_dtype, n);
        w.scale = random_bytes(&seed, w.scale_dtype, parts);
        if (w.offset_dtype) w.offset = random_bytes(&seed, w.offset_dtype, parts);
        assert_ok(t->cx, ay_weight_check(t->cx, "w", &w));
        float *want = malloc((size_t)n * sizeof *want);
        for (int64_t i = 0; i < n; i++) want[i] = define_block(&w, i);
        check_reads(&w, want, n, "random blocks");
        free(want);
        free((void *)w.data);
        free((void *)w.scale);
        free((void *)w.offset);
    }
}

static float define_lut(const ay_weight *w, int64_t e) {
    int64_t k = w->lut_dim[w->rank], vec = w->lut_dim[w->rank + 1], rest = e, group = 0, gstride = 1, index = 0, stride = 1,
            v = 0;
    for (int d = w->rank - 1; d >= 0; d--) {
        int64_t at = rest % w->dim[d], len = w->dim[d];
        rest /= w->dim[d];
        if (vec > 1 && d == w->vector_axis) {
            v = at % vec;
            at /= vec;
            len /= vec;
        }
        group += at / (len / w->lut_dim[d]) * gstride;
        gstride *= w->lut_dim[d];
        index += at * stride;
        stride *= len;
    }
    return one(w->lut_dtype, w->lut, (group * k + (int64_t)one(w->data_dtype, w->data, index)) * vec + v);
}

static void test_random_palettes(void **state) {
    ay_test *t = *state;
    static const ay_dtype index_types[] = {AY_U1, AY_U2, AY_U3, AY_U4, AY_U6, AY_U8},
                          entries[] = {AY_F16, AY_F32, AY_I8, AY_U8};
    uint64_t seed = 12;
    for (int k = 0; k < 150; k++) {
        ay_weight w = {.store = AY_STORE_LUT, .rank = 1 + k % 4};
        int64_t indices = 1, groups = 1, vec = k % 3 == 2 ? 2 + k % 4 : 1;
        w.data_dtype = index_types[ay_test_random(&seed) % 6];
        w.lut_dtype = w.value_dtype = entries[ay_test_random(&seed) % 4];
        w.vector_axis = (int)(ay_test_random(&seed) % (uint64_t)w.rank);
        for (int d = 0; d < w.rank; d++) {
            int64_t n = 1 + (int64_t)(ay_test_random(&seed) % (d == w.rank - 1 ? 40 : 6));
            w.lut_dim[d] = some_divisor(&seed, n);
            w.dim[d] = d == w.vector_axis ? n * vec : n;
            indices *= n;
            groups *= w.lut_dim[d];
        }
        w.lut_dim[w.rank] = (int64_t)1 << ay_dtype_bits(w.data_dtype);
        w.lut_dim[w.rank + 1] = vec;
        w.data = random_bytes(&seed, w.data_dtype, indices);
        w.lut = random_bytes(&seed, w.lut_dtype, groups * w.lut_dim[w.rank] * vec);
        assert_ok(t->cx, ay_weight_check(t->cx, "w", &w));
        float *want = malloc((size_t)(indices * vec) * sizeof *want);
        for (int64_t i = 0; i < indices * vec; i++) want[i] = define_lut(&w, i);
        check_reads(&w, want, indices * vec, "random palettes");
        free(want);
        free((void *)w.data);
        free((void *)w.lut);
    }
}

static void test_plain_and_sizes(void **state) {
    ay_type type = {AY_F16, 2, {3, 5}};
    uint16_t h[15];
    float out[15];
    for (int i = 0; i < 15; i++) h[i] = ay_f32_to_f16((float)i);
    ay_weight w = ay_weight_plain(&type, h);
    ay_weight_read(&w, 4, 6, out);
    for (int i = 0; i < 6; i++) assert_true(out[i] == (float)(i + 4));
    assert_int_equal(ay_weight_data_bytes(&w), 30);
    assert_int_equal(ay_weight_scale_bytes(&w) + ay_weight_offset_bytes(&w) + ay_weight_lut_bytes(&w), 0);
    ay_weight b = {
        .store = AY_STORE_BLOCK, .rank = 2, .dim = {4, 6}, .data_dtype = AY_U4, .scale_dtype = AY_F16, .scale_dim = {4, 2}};
    assert_int_equal(ay_weight_data_bytes(&b), 12);
    assert_int_equal(ay_weight_scale_bytes(&b), 16);
    assert_int_equal(ay_weight_offset_bytes(&b), 0);
    b.offset_dtype = AY_U4;
    assert_int_equal(ay_weight_offset_bytes(&b), 4);
}

static void test_checks(void **state) {
    ay_test *t = *state;
    ay_weight good = {
        .store = AY_STORE_BLOCK, .rank = 2, .dim = {4, 6}, .data_dtype = AY_I8, .scale_dtype = AY_F16, .scale_dim = {4, 2}};
    ay_weight w = good;
    assert_ok(t->cx, ay_weight_check(t->cx, "x", &w));
    w.scale_dim[1] = 4;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "dimension 1 has 6");
    w.scale_dim[1] = 0;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "dimension 1");
    w = good;
    w.scale_dtype = AY_I8;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_UNSUPPORTED, "int8");
    w = good;
    w.rank = 7;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_UNSUPPORTED, "7 dimensions");
    w = good;
    w.dim[0] = -4;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "shape");
    w.dim[0] = INT64_MAX;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "shape");
    ay_weight lut = {
        .store = AY_STORE_LUT, .rank = 2, .dim = {4, 6}, .data_dtype = AY_U4, .lut_dtype = AY_F16, .lut_dim = {2, 1, 16, 1}};
    w = lut;
    assert_ok(t->cx, ay_weight_check(t->cx, "x", &w));
    w.lut_dim[2] = 8;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "16 were expected");
    w = lut;
    w.lut_dim[0] = 3;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "dimension 0");
    w = lut;
    w.lut_dim[3] = 4;
    w.vector_axis = 1;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "vectors of 4");
    w.vector_axis = -1;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_MISMATCH, "vectors of 4");
    w = lut;
    w.data_dtype = AY_I4;
    assert_fails(t->cx, ay_weight_check(t->cx, "x", &w), ALLOY_E_UNSUPPORTED, "int4");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_against_coremltools), AY_TEST(test_random_blocks),
                                       AY_TEST(test_random_palettes), AY_TEST(test_plain_and_sizes), AY_TEST(test_checks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
