/* SPDX-License-Identifier: MIT
 *
 * The quantisers: what is stored reads back with the error they report, no rule of thumb and no neighbouring choice does
 * better, the bytes depend on neither threads nor instruction sets, and odd input (zeros, outliers, tiny and huge numbers,
 * what is no number) comes to a file or a sentence.
 */
#include "../support/support.h"

#include "base/half.h"
#include "base/isa.h"
#include "io/io.h"
#include "quant/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct made {
    ay_weight w; /* pointers into the arena */
    ay_quant_kind kind;
    void *factor;
    double error2, norm2;
    uint64_t digest;
} made;

static void read_array(void *user, int64_t begin, int64_t count, float *out) {
    memcpy(out, (const float *)user + begin, (size_t)count * sizeof *out);
}

static alloy_status put_bytes(void *user, const void *bytes, size_t n) {
    ay_buf_add(user, bytes, n);
    return ALLOY_OK;
}

static void *keep(ay_test *t, const void *bytes, size_t n) {
    void *p = ay_alloc(t->arena, n + 1);
    if (n) memcpy(p, bytes, n);
    return p;
}

static alloy_status quantize(ay_test *t, ay_ctx *cx, ay_quant_kind kind, const ay_type *type, const float *x, made *m) {
    ay_quant_rows rows = {read_array, NULL, (void *)(uintptr_t)x};
    ay_buf data = {0};
    ay_quantized q;
    *m = (made){.kind = kind};
    assert_true(ay_quant_storage(&m->kind, type, &m->w));
    alloy_status st = ay_quantize(cx, "w", &m->w, ay_quant_is_palette(kind), &rows, put_bytes, &data, &q);
    if (st == ALLOY_OK) {
        size_t sides = ay_weight_scale_bytes(&m->w), lut = ay_weight_lut_bytes(&m->w),
               factor = ay_dtype_bytes(type->dtype, type->dim[0]);
        assert_int_equal(data.len, ay_weight_data_bytes(&m->w));
        m->w.data = keep(t, data.data, data.len);
        if (q.scale) m->w.scale = keep(t, q.scale, sides);
        if (q.lut) m->w.lut = keep(t, q.lut, lut);
        if (q.factor) m->factor = keep(t, q.factor, factor);
        m->error2 = q.error2;
        m->norm2 = q.norm2;
        m->digest = 14695981039346656037u;
        const struct {
            const void *p;
            size_t n;
        } parts[] = {{m->w.data, data.len}, {q.scale, sides}, {q.lut, lut}, {q.factor, factor}};
        for (int i = 0; i < 4; i++) {
            for (size_t k = 0; parts[i].p && k < parts[i].n; k++)
                m->digest = (m->digest ^ ((const uint8_t *)parts[i].p)[k]) * 1099511628211u;
        }
        assert_ok(cx, ay_weight_check(cx, "w", &m->w));
        ay_quantized_free(&q);
    }
    ay_buf_free(&data);
    return st;
}

/* What the stored weight comes to, factors and all. */
static float *values(ay_test *t, const made *m) {
    int64_t n = 1, rows = m->w.dim[0];
    for (int i = 0; i < m->w.rank; i++) n *= m->w.dim[i];
    float *out = ay_alloc(t->arena, (size_t)n * sizeof *out), *f = ay_alloc(t->arena, (size_t)rows * sizeof *f);
    ay_weight_read(&m->w, 0, n, out);
    if (m->factor) {
        ay_convert_to_f32(m->w.value_dtype, m->factor, 0, rows, f);
        for (int64_t i = 0; i < n; i++) out[i] *= f[i / (n / rows)];
    }
    return out;
}

static double square(const float *a, const float *b, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += ((double)a[i] - (b ? (double)b[i] : 0)) * ((double)a[i] - (b ? (double)b[i] : 0));
    return s;
}

static float normal(uint64_t *s) {
    float v = 0;
    for (int i = 0; i < 12; i++) v += ay_test_uniform(s);
    return v / 2;
}

enum { NORMAL, TAILS, OUTLIERS, KINDS_OF_DATA };
static float *numbers(ay_test *t, int what, int64_t rows, int64_t len, uint64_t seed) {
    float *x = ay_alloc(t->arena, (size_t)(rows * len) * sizeof *x);
    for (int64_t i = 0; i < rows * len; i++) {
        float v = 0.03f * normal(&seed);
        if (what == TAILS) v = 0.03f * normal(&seed) / sqrtf(fabsf(normal(&seed)) + 0.02f);
        if (what == OUTLIERS && (i / len) % 13 == 5) v *= 40;
        x[i] = v;
    }
    return x;
}

static const ay_type shapes[] = {
    {AY_F16, 2, {37, 96}},       {AY_F16, 2, {300, 64}},      {AY_F16, 2, {5, 33}},
    {AY_F16, 4, {24, 32, 3, 3}}, {AY_F16, 4, {16, 12, 3, 3}}, {AY_F32, 2, {9, 128}},
    {AY_F16, 3, {8, 64, 5}},     {AY_F32, 2, {7, 96}},        {AY_F16, 5, {6, 32, 1, 3, 3}},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const ay_quant_kind kinds[] = {AY_QUANT_INT8, AY_QUANT_INT4, AY_QUANT_PALETTE4, AY_QUANT_PALETTE6, AY_QUANT_PALETTE8};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void test_error_is_what_it_says(void **state) {
    ay_test *t = *state;
    static const double bound[KINDS] = {0.012, 0.13, 0.14, 0.04, 0.012}; /* on normal numbers */
    for (int s = 0; s < SHAPES; s++) {
        for (int k = 0; k < KINDS; k++) {
            for (int what = 0; what < KINDS_OF_DATA; what++) {
                made m;
                int64_t n = ay_type_count(&shapes[s]), rows = shapes[s].dim[0];
                float *x = numbers(t, what, rows, n / rows, 77 + (uint64_t)s);
                assert_ok(t->cx, quantize(t, t->cx, kinds[k], &shapes[s], x, &m));
                float *y = values(t, &m);
                double norm2 = square(x, NULL, n), error2 = square(x, y, n);
                assert_true(fabs(m.norm2 / norm2 - 1) < 1e-4);
                assert_true(fabs(sqrt(m.error2 / m.norm2) - sqrt(error2 / norm2)) < 4e-4);
                if (what == NORMAL && n > 3000) assert_true(sqrt(error2 / norm2) < bound[k]);
                assert_true(m.kind == kinds[k] ||
                            (kinds[k] == AY_QUANT_INT4 && m.kind == AY_QUANT_INT8 && shapes[s].dim[1] % 32));
            }
        }
    }
}

/* A scale 1 % away, or the one from the largest value, is never better than the chosen one over a whole weight. */
static void test_scales_are_the_best_nearby(void **state) {
    ay_test *t = *state;
    for (int what = 0; what < KINDS_OF_DATA; what++) {
        for (int k = 0; k < 2; k++) {
            made m;
            ay_type type = {AY_F32, 2, {64, 128}};
            float *x = numbers(t, what, 64, 128, 5);
            assert_ok(t->cx, quantize(t, t->cx, kinds[k], &type, x, &m));
            int64_t runs = m.w.scale_dim[0] * m.w.scale_dim[1], len = 64 * 128 / runs;
            double hi = k ? 7 : 127, lo = k ? -8 : -127, others[4] = {0};
            for (int64_t r = 0; r < runs; r++) {
                float chosen, most = 0;
                memcpy(&chosen, (const char *)m.w.scale + r * 4, 4);
                for (int64_t i = 0; i < len; i++) most = fabsf(x[r * len + i]) > most ? fabsf(x[r * len + i]) : most;
                const double trial[4] = {chosen * 1.01, chosen / 1.01, most / hi, most / lo};
                for (int c = 0; c < 4; c++) {
                    for (int64_t i = 0; i < len; i++) {
                        double q = nearbyint((double)x[r * len + i] / trial[c]), d;
                        q = q > hi ? hi : q < lo ? lo : q;
                        d = (double)x[r * len + i] - q * trial[c];
                        others[c] += d * d;
                    }
                }
            }
            for (int c = 0; c < 4; c++) assert_true(m.error2 <= others[c] * (k ? 1.0 : 1.0005));
        }
    }
}

/* Brute force: the best palette of two blobs of numbers is known, and no entry can move to lessen the error. */
static void test_palettes_are_optimal(void **state) {
    ay_test *t = *state;
    ay_type type = {AY_F32, 2, {32, 512}};
    int64_t n = 32 * 512;
    float *x = numbers(t, NORMAL, 32, 512, 3);
    for (int64_t i = 0; i < n; i++) x[i] += i % 3 ? 0.0f : 0.4f; /* unequal blobs: a uniform table does badly */
    made m;
    assert_ok(t->cx, quantize(t, t->cx, AY_QUANT_PALETTE4, &type, x, &m));
    float lut[16], *y = values(t, &m);
    memcpy(lut, m.w.lut, sizeof lut);
    double uniform = 0, least = 1e9, most = -1e9;
    for (int64_t i = 0; i < n; i++) least = (double)x[i] < least ? x[i] : least, most = (double)x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i++) {
        double step = (most - least) / 15, d = (double)x[i] - (least + step * nearbyint(((double)x[i] - least) / step));
        uniform += d * d;
    }
    print_message("16 entries on two blobs: error^2 %.4f, uniform %.4f\n", square(x, y, n), uniform);
    assert_true(square(x, y, n) < 0.8 * uniform);
    for (int i = 1; i < 16; i++) assert_true(lut[i] > lut[i - 1]);
    uint8_t few[3] = {0};
    for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 7 + i / 512) % 3) - 1; /* three values: nothing is lost */
    assert_ok(t->cx, quantize(t, t->cx, AY_QUANT_PALETTE4, &type, x, &m));
    y = values(t, &m);
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabsf(y[i] - x[i]) < 1e-3f);
        few[(int)x[i] + 1] = 1;
    }
    assert_true(few[0] && few[1] && few[2]);
}

static void test_same_bytes_everywhere(void **state) {
    ay_test *t = *state;
    for (int s = 0; s < SHAPES; s++) {
        for (int k = 0; k < KINDS; k++) {
            int64_t n = ay_type_count(&shapes[s]), rows = shapes[s].dim[0];
            float *x = numbers(t, TAILS, rows, n / rows, 11);
            made m, first;
            assert_ok(t->cx, quantize(t, t->cx, kinds[k], &shapes[s], x, &first));
            for (int threads = 1; threads <= 3; threads++) {
                for (int isa = 0; isa < AY_ISA_COUNT; isa++) {
                    if (!ay_isa_runs((ay_isa)isa)) continue;
                    ay_ctx *cx;
                    assert_int_equal(ay_ctx_open(threads, &cx), ALLOY_OK);
                    cx->isa = isa;
                    assert_ok(cx, quantize(t, cx, kinds[k], &shapes[s], x, &m));
                    assert_true(m.digest == first.digest);
                    assert_true(m.error2 == first.error2);
                    ay_ctx_close(&cx);
                    if (s > 1 && threads > 1) break;
                }
            }
        }
    }
}

static void test_odd_numbers(void **state) {
    ay_test *t = *state;
    ay_type type = {AY_F16, 2, {16, 64}};
    float *x = numbers(t, NORMAL, 16, 64, 9);
    for (int i = 0; i < 64; i++) {
        x[i] = 0;                                                                   /* a channel of zeros */
        x[64 + i] = i == 9 ? 65504.0f : 65504.0f * ay_test_uniform(&(uint64_t){5}); /* the largest halves */
        x[128 + i] = (float)(i - 32) * 1e-9f;                                       /* below half's smallest */
        x[192 + i] = (float)(i - 32) * 1e-38f;                                      /* float's own denormals */
        x[256 + i] = i == 5 ? 100.0f : 1e-3f;                                       /* one outlier */
    }
    for (int k = 0; k < KINDS; k++) {
        made m;
        assert_ok(t->cx, quantize(t, t->cx, kinds[k], &type, x, &m));
        float *y = values(t, &m);
        for (int i = 0; i < 1024; i++) assert_true(isfinite(y[i]));
        for (int i = 0; i < 64; i++) assert_true(y[i] == 0);
        assert_true(fabsf(y[256 + 5] - 100) < 15);
        assert_true(fabsf(y[64 + 9] - 65504) < 9000);
    }
    memset(x, 0, 1024 * sizeof *x);
    for (int k = 0; k < KINDS; k++) {
        made m;
        assert_ok(t->cx, quantize(t, t->cx, kinds[k], &type, x, &m));
        float *y = values(t, &m);
        for (int i = 0; i < 1024; i++) assert_true(y[i] == 0);
    }
    const float bad[] = {NAN, INFINITY, 70000.0f, -1e30f};
    for (int k = 0; k < KINDS; k++) {
        for (int b = 0; b < 4; b++) {
            made m;
            x[777] = bad[b];
            assert_fails(t->cx, quantize(t, t->cx, kinds[k], &type, x, &m), ALLOY_E_UNSUPPORTED, "at element 777");
        }
        x[777] = 0;
    }
}

static void test_storage(void **state) {
    ay_weight w;
    ay_quant_kind k = AY_QUANT_INT4;
    assert_true(ay_quant_storage(&k, &(ay_type){AY_F16, 2, {10, 320}}, &w));
    assert_int_equal(w.scale_dim[1], 10);
    assert_true(ay_quant_storage(&k, &(ay_type){AY_F32, 2, {10, 320}}, &w));
    assert_int_equal(w.scale_dim[1], 5);
    assert_true(ay_quant_storage(&k, &(ay_type){AY_F16, 4, {10, 64, 3, 3}}, &w));
    assert_int_equal(w.scale_dim[1], 2);
    assert_int_equal(w.scale_dim[2], 1);
    assert_int_equal(k, AY_QUANT_INT4);
    assert_true(ay_quant_storage(&k, &(ay_type){AY_F16, 4, {10, 9, 3, 3}}, &w));
    assert_int_equal(k, AY_QUANT_INT8);
    assert_false(ay_quant_storage(&k, &(ay_type){AY_F16, 1, {64}}, &w));
    assert_false(ay_quant_storage(&k, &(ay_type){AY_F16, 2, {0, 64}}, &w));
    k = AY_QUANT_NONE;
    assert_false(ay_quant_storage(&k, &(ay_type){AY_F16, 2, {64, 64}}, &w));
}

/* For tests/reference/quantize.py: every tensor of one safetensors file, quantised in every way and read back, to another.
 */
static int compare(const char *from, const char *to) {
    static const char *const names[KINDS] = {"int8", "int4", "palette4", "palette6", "palette8"};
    void *state;
    if (ay_test_setup(&state)) return 1;
    ay_test *t = state;
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, from, &st));
    ay_tensor *out = ay_alloc(t->arena, (size_t)(st->n * KINDS) * sizeof *out);
    for (int i = 0; i < st->n; i++) {
        ay_type type = st->tensors[i].type;
        int64_t n = ay_type_count(&type);
        float *x = ay_alloc(t->arena, (size_t)n * sizeof *x);
        ay_convert_to_f32(type.dtype, ay_st_data(st, &st->tensors[i]), 0, n, x);
        type.dtype = AY_F16;
        for (int k = 0; k < KINDS; k++) {
            made m;
            assert_ok(t->cx, quantize(t, t->cx, kinds[k], &type, x, &m));
            ay_tensor *o = &out[i * KINDS + k];
            *o = (ay_tensor){ay_sprintf(t->arena, "%s %s", st->tensors[i].name, names[k]), type, values(t, &m)};
            o->type.dtype = AY_F32;
        }
    }
    assert_ok(t->cx, ay_st_write(t->cx, to, out, st->n * KINDS, NULL));
    ay_st_close(&st);
    return ay_test_teardown(&state);
}

int main(int argc, char **argv) {
    if (argc == 3) return compare(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        AY_TEST(test_error_is_what_it_says), AY_TEST(test_scales_are_the_best_nearby),
        AY_TEST(test_palettes_are_optimal),  AY_TEST(test_same_bytes_everywhere),
        AY_TEST(test_odd_numbers),           AY_TEST(test_storage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
