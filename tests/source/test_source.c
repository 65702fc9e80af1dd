/* SPDX-License-Identifier: MIT
 *
 * Parameters made of a file's tensors in every way a naming can say, in pieces, against the same done by hand.
 */
#include "../support/support.h"
#include "base/half.h"
#include "ir/ir.h"
#include "source/source.h"

#include <string.h>

enum { ROWS = 24, COLS = 10 };

static const ay_alias aliases[] = {
    {"blocks.*.q.*", "layer.*.qkv.*", AY_TAKE_PART, 0},   {"blocks.*.k.*", "layer.*.qkv.*", AY_TAKE_PART, 1},
    {"blocks.*.last.*", "layer.*.qkv.*", AY_TAKE_LAST, 0}, {"norm.*", "layer.0.qkv.*", AY_TAKE_SWAPPED, 0},
    {"across", "layer.0.qkv.weight", AY_TAKE_TRANSPOSED, 0}, {"point.*", "layer.0.qkv.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const keys[] = {"layer.0.qkv.weight", NULL};
static const ay_naming naming = {.name = "test", .keys = keys, .aliases = aliases};
static const ay_arch arch = {.class_name = "Test", .graph_kind = ""};

static float value(int64_t i) { return (float)(i % 251) - 100; }

static const char *write_file(ay_test *t, const char *prefix, const char *name, ay_dtype dtype) {
    float f[ROWS * COLS];
    uint16_t h[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++) f[i] = value(i), h[i] = ay_f32_to_f16(f[i]);
    ay_tensor w[2] = {{ay_sprintf(t->arena, "%s%s", prefix, name), {dtype, 2, {ROWS, COLS}}, dtype == AY_F32 ? (void *)f : h},
                      {"elsewhere", {AY_F32, 0, {0}}, f}};
    const char *path = ay_test_path(t, "file.safetensors");
    assert_ok(t->cx, ay_st_write(t->cx, path, w, 2, NULL));
    return path;
}

typedef struct put {
    float got[ROWS * COLS];
    size_t n;
} put;

static alloy_status take(void *user, const void *bytes, size_t n) {
    put *p = user;
    memcpy((char *)p->got + p->n, bytes, n);
    p->n += n;
    return ALLOY_OK;
}

/* The parameter at once, in pieces of every length, and as a stream. */
static void check(ay_test *t, const ay_source *s, const char *name, ay_type type, const float *want) {
    ay_origin o;
    float got[ROWS * COLS];
    int64_t n = ay_type_count(&type);
    assert_true(ay_source_find(s, &arch, name, &type, &o));
    assert_true(o.fits);
    for (int64_t step = 1; step <= n; step++) {
        for (int64_t at = 0; at < n; at += step) ay_origin_read(&o, at, ay_min_i64(step, n - at), got + at);
        assert_memory_equal(got, want, (size_t)n * 4);
    }
    put p = {.n = 0};
    uint64_t done = 0;
    assert_ok(t->cx, ay_source_stream(t->cx, s, &arch, name, &type, AY_F32, take, &p, &done));
    assert_int_equal(p.n, n * 4);
    assert_memory_equal(p.got, want, (size_t)n * 4);
    assert_int_equal(done, ay_origin_bytes(&o, 0, n));
    ay_origin_drop(&o, 0, n);
    ay_origin_drop(&o, 3, n - 1);
    ay_origin_read(&o, 0, n, got); /* pages come back */
    assert_memory_equal(got, want, (size_t)n * 4);
}

static void check_takes(ay_test *t, ay_source *s) {
    float want[ROWS * COLS];
    for (int k = 0; k < 3; k++) {
        static const char *const names[] = {"blocks.0.q.weight", "blocks.0.k.weight", "blocks.0.last.weight"};
        for (int i = 0; i < 6 * COLS; i++) want[i] = value(i + (k == 2 ? ROWS - 6 : 6 * k) * COLS);
        check(t, s, names[k], ay_shape(AY_F32, 2, (int64_t)6, (int64_t)COLS), want);
    }
    for (int i = 0; i < ROWS * COLS; i++) want[i] = value((i + ROWS / 2 * COLS) % (ROWS * COLS));
    check(t, s, "norm.weight", ay_shape(AY_F32, 2, (int64_t)ROWS, (int64_t)COLS), want);
    for (int i = 0; i < ROWS * COLS; i++) want[i] = value(i % ROWS * COLS + i / ROWS);
    check(t, s, "across", ay_shape(AY_F32, 2, (int64_t)COLS, (int64_t)ROWS), want);
    for (int i = 0; i < ROWS * COLS; i++) want[i] = value(i);
    check(t, s, "point.weight", ay_shape(AY_F32, 4, (int64_t)ROWS, (int64_t)COLS, (int64_t)1, (int64_t)1), want);
}

static void test_takes(void **state) {
    ay_test *t = *state;
    for (int half = 0; half < 2; half++) {
        ay_source *s;
        const char *path = write_file(t, "in.here.", "layer.0.qkv.weight", half ? AY_F16 : AY_F32);
        assert_ok(t->cx, ay_source_open_file(t->cx, path, &s));
        ay_source_focus(s, "in.here.", false, &naming, NULL);
        ay_names names = ay_source_names(s);
        assert_true(ay_naming_fits(&naming, &names));
        assert_int_equal(ay_names_count(&names, "layer.", ".qkv.weight"), 1);
        check_takes(t, s);
        ay_source_focus(s, "", false, &naming, NULL);
        assert_false(ay_naming_fits(&naming, &names));
        ay_source_close(&s);
    }
}

static void test_flat(void **state) {
    ay_test *t = *state;
    ay_source *s;
    const char *path = write_file(t, "ema.", "layer0qkvweight", AY_F32);
    assert_ok(t->cx, ay_source_open_file(t->cx, path, &s));
    ay_source_focus(s, "ema.", true, &naming, NULL);
    check_takes(t, s);
    ay_source_close(&s);
}

static void test_misfits(void **state) {
    ay_test *t = *state;
    ay_source *s;
    ay_origin o;
    assert_ok(t->cx, ay_source_open_file(t->cx, write_file(t, "", "layer.0.qkv.weight", AY_F32), &s));
    ay_source_focus(s, "", false, &naming, NULL);
    ay_type bad[] = {{AY_F32, 2, {30, COLS}}, {AY_F32, 2, {6, 9}}, {AY_F32, 1, {6}}, {AY_F32, 0, {0}}, {AY_F32, 2, {0, COLS}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        static const char *const names[] = {"blocks.0.k.weight", "blocks.0.last.weight", "norm.weight", "across", "point.weight"};
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
            assert_true(ay_source_find(s, &arch, names[k], &bad[i], &o));
            if (bad[i].rank == 2 && bad[i].dim[0] == 0 && k < 2) continue; /* nothing, of something */
            assert_false(o.fits);
        }
    }
    assert_false(ay_source_find(s, &arch, "blocks.1.k.weight", &bad[0], &o));
    ay_source_close(&s);
}

/* Every row of a fused tensor has to go somewhere. */
static void test_used_in_part(void **state) {
    ay_test *t = *state;
    ay_source *s;
    static const char *const ignore[] = {"elsewhere", NULL};
    static const ay_naming strict = {.name = "test", .keys = keys, .aliases = aliases, .ignore = ignore};
    assert_ok(t->cx, ay_source_open_file(t->cx, write_file(t, "", "layer.0.qkv.weight", AY_F32), &s));
    ay_source_focus(s, "", false, &strict, NULL);
    for (int whole = 0; whole < 2; whole++) {
        ay_graph *g = ay_graph_new(t->cx);
        ay_param(g, "blocks.0.q.weight", ay_shape(AY_F32, 2, (int64_t)8, (int64_t)COLS));
        ay_param(g, "blocks.0.k.weight", ay_shape(AY_F32, 2, (int64_t)8, (int64_t)COLS));
        if (whole) ay_param(g, "blocks.0.last.weight", ay_shape(AY_F32, 2, (int64_t)8, (int64_t)COLS));
        if (whole) assert_ok(t->cx, ay_source_check(t->cx, s, g, &arch));
        else assert_fails(t->cx, ay_source_check(t->cx, s, g, &arch), ALLOY_E_MISMATCH, "only 160 of the elements of float32[24, 10]");
        ay_graph_free(g);
    }
    ay_source_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_takes), AY_TEST(test_flat), AY_TEST(test_misfits), AY_TEST(test_used_in_part)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
