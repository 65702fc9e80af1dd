/* SPDX-License-Identifier: MIT
 *
 * GGUF files: every type that is read against the numbers of the gguf package (tests/reference/gguf_files.py), and files that
 * nobody should have written. And ComfyUI's scaled float8.
 */
#include "../support/support.h"
#include "base/half.h"
#include "quant/blocks.h"
#include "source/source.h"

#include <string.h>

static const ay_arch plain = {.class_name = "", .graph_kind = ""};

/* Bit for bit, at once and in pieces of every length that does not fit the blocks. */
static void test_types(void **state) {
    ay_test *t = *state;
    static const int64_t steps[] = {1, 7, 31, 33, 100, 255, 257, 4000};
    ay_safetensors *want;
    ay_source *s;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, "gguf/types.safetensors"), &want));
    assert_ok(t->cx, ay_source_open_file(t->cx, ay_test_golden(t, "gguf/types.gguf"), &s));
    assert_int_equal(ay_source_count(s), want->n);
    for (int i = 0; i < want->n; i++) {
        const ay_st_tensor *w = &want->tensors[i];
        int64_t n = ay_type_count(&w->type);
        float *got = ay_alloc(t->arena, (size_t)n * 4);
        ay_origin o;
        assert_true(ay_source_find(s, &plain, w->name, &w->type, &o));
        if (!o.fits) fail_msg("%s has another shape", w->name);
        for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
            memset(got, 0, (size_t)n * 4);
            for (int64_t at = 0; at < n; at += steps[k]) ay_origin_read(&o, at, ay_min_i64(steps[k], n - at), got + at);
            if (memcmp(got, ay_st_data(want, w), (size_t)n * 4) != 0) fail_msg("%s in steps of %d differs", w->name, (int)steps[k]);
        }
        assert_int_equal(ay_origin_bytes(&o, 0, n), o.tensor->bytes);
        ay_origin_drop(&o, 0, n);
    }
    ay_source_close(&s);
    ay_st_close(&want);
}

/* ---- files by hand ---------------------------------------------------------------------------------------------------- */

static void put(ay_buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++, v >>= 8) ay_buf_add(b, (char[]){(char)v}, 1);
}
static void put_text(ay_buf *b, const char *s) {
    put(b, strlen(s), 8);
    ay_buf_add(b, s, strlen(s));
}

typedef struct one {
    uint64_t tensors, settings; /* counts in the header */
    uint32_t version, rank, type;
    uint64_t dim[2], offset;
    const char *name;
    uint32_t alignment; /* 0: not said */
    size_t data;
} one;

static const one good = {1, 0, 3, 2, 8, {32, 2}, 0, "a.weight", 0, 68};

/* A file of one tensor and `data` bytes. */
static void make(const one *o, ay_buf *b) {
    *b = (ay_buf){0};
    put(b, 0x46554747, 4);
    put(b, o->version, 4);
    put(b, o->tensors, 8);
    put(b, o->alignment ? 1 : o->settings, 8);
    if (o->alignment) {
        put_text(b, "general.alignment");
        put(b, 4, 4);
        put(b, o->alignment, 4);
    }
    put_text(b, o->name);
    put(b, o->rank, 4);
    for (uint32_t i = 0; i < o->rank; i++) put(b, o->dim[i % 2], 8);
    put(b, o->type, 4);
    put(b, o->offset, 8);
    size_t align = o->alignment && o->alignment < 4096 ? o->alignment : 32;
    while (b->len % align) put(b, 0, 1);
    for (size_t i = 0; i < o->data; i++) put(b, i, 1);
}

static void refuse(ay_test *t, const one *o, const char *words) {
    ay_buf b;
    ay_safetensors *st;
    make(o, &b);
    assert_int_not_equal(ay_gguf_open_bytes(t->cx, "bad.gguf", b.data, b.len, &st), ALLOY_OK);
    print_message("%s\n", ay_error_text(t->cx));
    assert_contains(ay_error_text(t->cx), words);
    assert_contains(ay_error_text(t->cx), "bad.gguf: ");
    ay_buf_free(&b);
}

static void test_what_is_refused(void **state) {
    ay_test *t = *state;
    one o;
    o = good, o.version = 1;
    refuse(t, &o, "version 1");
    o = good, o.version = 0x03000000;
    refuse(t, &o, "big-endian");
    o = good, o.tensors = 2;
    refuse(t, &o, "more tensors than it names");
    o = good, o.tensors = 1000;
    refuse(t, &o, "more tensors than fit");
    o = good, o.tensors = UINT64_MAX;
    refuse(t, &o, "more tensors than fit");
    o = good, o.settings = 1;
    refuse(t, &o, "bad.gguf");
    o = good, o.settings = UINT64_MAX / 2;
    refuse(t, &o, "more settings than fit");
    o = good, o.rank = 7;
    refuse(t, &o, "more dimensions");
    o = good, o.type = 16;
    refuse(t, &o, "ggml's type 16");
    o = good, o.dim[0] = 33;
    refuse(t, &o, "whole blocks");
    o = good, o.dim[1] = UINT64_MAX;
    refuse(t, &o, "dimension that is none");
    o = good, o.dim[0] = o.dim[1] = (uint64_t)1 << 40;
    refuse(t, &o, "63 bits");
    o = good, o.dim[1] = 3;
    refuse(t, &o, "behind the end of the file");
    o = good, o.offset = 32;
    refuse(t, &o, "behind the end of the file");
    o = good, o.offset = UINT64_MAX - 31;
    refuse(t, &o, "behind the end of the file");
    o = good, o.offset = 1;
    refuse(t, &o, "not aligned");
    o = good, o.alignment = 48;
    refuse(t, &o, "no power of two");
}

static void test_alignment_and_damage(void **state) {
    ay_test *t = *state;
    static const uint32_t alignments[] = {0, 1, 8, 64, 256};
    ay_safetensors *st;
    ay_buf b;
    uint64_t seed = 5;
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        one o = good;
        o.alignment = alignments[i];
        make(&o, &b);
        assert_ok(t->cx, ay_gguf_open_bytes(t->cx, "good.gguf", b.data, b.len, &st));
        assert_int_equal(st->tensors[0].offset + 68, b.len);
        assert_int_equal(((const uint8_t *)ay_st_data(st, &st->tensors[0]))[5], 5);
        ay_st_close(&st);
        for (size_t cut = 0; cut < b.len; cut++) assert_int_not_equal(ay_gguf_open_bytes(t->cx, "cut.gguf", b.data, cut, &st), ALLOY_OK);
        ay_buf_free(&b);
    }
    size_t n;
    char *bytes = ay_test_read(t, ay_test_golden(t, "gguf/types.gguf"), &n);
    for (int k = 0; k < 3000; k++) {
        size_t at = ay_test_random(&seed) % 1600;
        char was = bytes[at];
        bytes[at] = (char)ay_test_random(&seed);
        if (ay_gguf_open_bytes(t->cx, "changed.gguf", bytes, n, &st) == ALLOY_OK) {
            for (int i = 0; i < st->n; i++) assert_true(st->tensors[i].offset + st->tensors[i].bytes <= n);
            ay_st_close(&st);
        }
        bytes[at] = was;
    }
}

/* ---- float8 with factors ------------------------------------------------------------------------------------------------ */

enum { ROWS = 6, COLS = 4 };

typedef struct scaled {
    const char *factor; /* "scale_weight" ... */
    int n_factors;      /* 1 or ROWS */
    const char *quant;  /* text of comfy_quant, or NULL */
    const char *metadata;
} scaled;

static const char *write_scaled(ay_test *t, const scaled *s, uint8_t *codes, float *factors) {
    ay_tensor x[5];
    int n = 0;
    float bias[ROWS] = {1, 2, 3, 4, 5, 6};
    for (int i = 0; i < ROWS * COLS; i++) codes[i] = (uint8_t)(i * 5 + 1);
    for (int i = 0; i < ROWS; i++) factors[i] = 0.013f * (float)(i + 1);
    x[n++] = (ay_tensor){"a.weight", {AY_F8E4M3, 2, {ROWS, COLS}}, codes};
    x[n++] = (ay_tensor){"a.bias", {AY_F32, 1, {ROWS}}, bias};
    x[n++] = (ay_tensor){ay_sprintf(t->arena, "a.%s", s->factor), {AY_F32, s->n_factors > 1 ? 2 : 0, {s->n_factors, 1}}, factors};
    x[n++] = (ay_tensor){"a.input_scale", {AY_F32, 0, {0}}, factors};
    if (s->quant) x[n++] = (ay_tensor){"a.comfy_quant", {AY_U8, 1, {(int64_t)strlen(s->quant)}}, (void *)(uintptr_t)s->quant};
    const char *const metadata[] = {"_quantization_metadata", s->metadata, NULL}, *path = ay_test_path(t, "scaled.safetensors");
    assert_ok(t->cx, ay_st_write(t->cx, path, x, n, s->metadata ? metadata : NULL));
    return path;
}

static void test_scaled(void **state) {
    ay_test *t = *state;
    static const scaled cases[] = {
        {"scale_weight", 1, NULL, NULL},
        {"weight_scale", 1, "{\"format\": \"float8_e4m3fn\"}", NULL},
        {"weight_scale", ROWS, "{\"format\": \"float8_e4m3fn\", \"full_precision_matrix_mult\": true}", NULL},
        {"weight_scale", 1, NULL, "{\"format_version\": \"1.0\", \"layers\": {\"a\": {\"format\": \"float8_e4m3fn\"}}}"},
    };
    ay_type type = {AY_F32, 2, {ROWS, COLS}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t codes[ROWS * COLS];
        float factors[ROWS], got[ROWS * COLS];
        ay_source *s;
        ay_origin o;
        assert_ok(t->cx, ay_source_open_file(t->cx, write_scaled(t, &cases[i], codes, factors), &s));
        assert_true(ay_source_find(s, &plain, "a.weight", &type, &o) && o.fits);
        for (int64_t at = 0; at < ROWS * COLS; at += 5) ay_origin_read(&o, at, ay_min_i64(5, ROWS * COLS - at), got + at);
        for (int k = 0; k < ROWS * COLS; k++) {
            float want = ay_f8e4m3_to_f32(codes[k]) * factors[cases[i].n_factors > 1 ? k / COLS : 0];
            assert_memory_equal(&got[k], &want, 4);
        }
        ay_graph *g = ay_graph_new(t->cx); /* what stands beside is not unused */
        ay_param(g, "a.weight", type);
        ay_param(g, "a.bias", ay_shape(AY_F32, 1, (int64_t)ROWS));
        assert_ok(t->cx, ay_source_check(t->cx, s, g, &plain));
        ay_graph_free(g);
        ay_source_close(&s);
    }
}

static void test_scaled_refused(void **state) {
    ay_test *t = *state;
    static const struct {
        scaled s;
        const char *words;
    } bad[] = {
        {{"weight_scale", 1, "{\"format\": \"nvfp4\"}", NULL}, "stored as nvfp4"},
        {{"weight_scale", 1, "{\"form", NULL}, "scaled.safetensors"},
        {{"weight_scale", 1, "{}", NULL}, "without a format's name"},
        {{"weight_scale", 1, NULL, "{\"layers\": {\"a\": {\"format\": \"mxfp8\"}}}"}, "\"a\" are stored as mxfp8"},
    };
    uint8_t codes[ROWS * COLS];
    float factors[ROWS];
    ay_source *s;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_not_equal(ay_source_open_file(t->cx, write_scaled(t, &bad[i].s, codes, factors), &s), ALLOY_OK);
        print_message("%s\n", ay_error_text(t->cx));
        assert_contains(ay_error_text(t->cx), bad[i].words);
    }
    /* five factors for six rows */
    ay_origin o;
    ay_type type = {AY_F32, 2, {ROWS, COLS}};
    scaled few = {"weight_scale", 5, NULL, NULL};
    assert_ok(t->cx, ay_source_open_file(t->cx, write_scaled(t, &few, codes, factors), &s));
    assert_true(ay_source_find(s, &plain, "a.weight", &type, &o));
    assert_false(o.fits);
    ay_graph *g = ay_graph_new(t->cx);
    ay_param(g, "a.weight", type);
    ay_param(g, "a.bias", ay_shape(AY_F32, 1, (int64_t)ROWS));
    assert_fails(t->cx, ay_source_check(t->cx, s, g, &plain), ALLOY_E_MISMATCH, "5 factors beside it");
    ay_graph_free(g);
    ay_source_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_types),  AY_TEST(test_what_is_refused),    AY_TEST(test_alignment_and_damage),
        AY_TEST(test_scaled), AY_TEST(test_scaled_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
