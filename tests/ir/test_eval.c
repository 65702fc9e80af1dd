/* SPDX-License-Identifier: MIT
 *
 * The reference evaluator against torch's results, op by op; half rounding and overflow counts; inputs and outputs by name.
 */
#include "base/half.h"
#include "../support/golden_ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ay_ctx *cx;
static int open_ctx(void **state) { return ay_ctx_open(1, &cx) != ALLOY_OK; }
static int close_ctx(void **state) {
    ay_ctx_close(&cx);
    return 0;
}

static void assert_says(const char *part) {
    if (!strstr(ay_error_text(cx), part)) fail_msg("\"%s\" does not say \"%s\"", ay_error_text(cx), part);
}

static void test_golden(void **state) {
    FILE *f = fopen(GOLDEN_OPS, "r");
    assert_non_null(f);
    golden c = {0};
    int seen[AY_OP_COUNT] = {0}, wrong = 0;
    while (golden_next(f, &c)) {
        ay_graph *g = golden_graph(cx, &c);
        void *got = NULL;
        if (ay_graph_verify(g) || golden_eval(g, &c, &got)) fail_msg("case %d: %s", c.number, ay_error_text(cx));
        wrong += !golden_equal(&c, got, 1e-6);
        seen[c.op]++;
        free(got);
        ay_graph_free(g);
        golden_free(&c);
    }
    fclose(f);
    assert_int_equal(wrong, 0);
    for (int op = 0; op < AY_OP_COUNT; op++) {
        if (ay_op_get((ay_op)op)->cls != AY_CLASS_LEAF && !seen[op]) fail_msg("no case for %s", ay_op_get((ay_op)op)->name);
    }
}

static alloy_status eval1(ay_graph *g, ay_tensor *in, int n_in, float *y, int64_t n, bool half, int64_t *overflows) {
    ay_tensor out = {"y", ay_shape(AY_F32, 1, n), y};
    return ay_eval(g, in, n_in, &out, 1, half, overflows);
}

/* float16 values are rounded after each node only when asked; what leaves the range is counted once, where it left. */
static void test_half(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F16, 1, 3));
    ay_val big = ay_muls(g, x, 1000);
    ay_set_output(g, "y", ay_muls(g, big, 0.001));
    float in[3] = {1.0001f, 60.0f, 70.0f}, y[3];
    int64_t overflows = -1;
    ay_tensor t = {"x", ay_shape(AY_F32, 1, 3), in};
    assert_int_equal(eval1(g, &t, 1, y, 3, false, &overflows), ALLOY_OK);
    assert_int_equal(overflows, 0);
    assert_true(fabsf(y[0] - 1.0001f * 1000 * ay_f16_to_f32(ay_f32_to_f16(0.001f))) < 1e-6f);
    assert_int_equal(eval1(g, &t, 1, y, 3, true, &overflows), ALLOY_OK);
    assert_int_equal(overflows, 1);
    assert_true(isinf(y[2]) && y[0] == ay_f16_to_f32(ay_f32_to_f16(y[0])));
    ay_graph_free(g);
}

/* Compressed and plain weights come through quant/weight.h; a weight that is not bound is named. */
static void test_params(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 1, 2));
    ay_val y = ay_linear_layer(g, "fc", x, 2, false);
    ay_set_output(g, "y", ay_reshape(g, y, 1, -1));
    float in[2] = {1, 10}, out[2], scale[2] = {0.5f, 2};
    ay_tensor t = {"x", ay_shape(AY_F32, 2, 1, 2), in};
    assert_int_equal(eval1(g, &t, 1, out, 2, false, NULL), ALLOY_E_MISMATCH);
    assert_says("parameter \"fc.weight\" has no data bound to it");
    int8_t codes[4] = {1, 2, -3, 4};
    ay_weight *w = g->nodes[1].weight;
    w->store = AY_STORE_BLOCK;
    w->data_dtype = AY_I8;
    w->data = codes;
    w->scale_dtype = AY_F32;
    w->scale_dim[0] = 2;
    w->scale_dim[1] = 1;
    w->scale = scale;
    assert_int_equal(ay_graph_verify(g), ALLOY_OK);
    assert_int_equal(eval1(g, &t, 1, out, 2, false, NULL), ALLOY_OK);
    assert_true(out[0] == 0.5f * 21 && out[1] == 2.0f * 37);
    ay_graph_free(g);
}

static void test_names(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_I32, 1, 3)), table = ay_const_f32s(g, (float[]){5, 6, 7, 8}, 1, (int64_t[]){4});
    ay_set_output(g, "y", ay_gather(g, table, x, 0));
    int64_t wide[3] = {3, -4, 1};
    int32_t bad[3] = {0, 4, 1};
    float y[3];
    ay_tensor t = {"x", ay_shape(AY_I64, 1, 3), wide}, other = {"z", ay_shape(AY_F32, 1, 3), y};
    assert_int_equal(eval1(g, &t, 1, y, 3, false, NULL), ALLOY_OK);
    assert_true(y[0] == 8 && y[1] == 5 && y[2] == 6);
    assert_int_equal(eval1(g, &other, 1, y, 3, false, NULL), ALLOY_E_MISMATCH);
    assert_says("the graph has no input \"z\"");
    assert_int_equal(eval1(g, NULL, 0, y, 3, false, NULL), ALLOY_E_MISMATCH);
    assert_says("input \"x\" (int32[3]) is missing");
    assert_int_equal(eval1(g, &t, 1, y, 2, false, NULL), ALLOY_E_MISMATCH);
    assert_says("output \"y\" is float32[3], asked for as float32[2]");
    t.type.dim[0] = 2;
    assert_int_equal(eval1(g, &t, 1, y, 3, false, NULL), ALLOY_E_MISMATCH);
    assert_says("input \"x\" is int64[2], the graph takes int32[3]");
    t = (ay_tensor){"x", ay_shape(AY_I32, 1, 3), bad};
    assert_int_equal(eval1(g, &t, 1, y, 3, false, NULL), ALLOY_E_MISMATCH);
    assert_says("gather: index 4 is outside of axis 0 of float32[4]");
    other.type = ay_shape(AY_F32, 1, 3);
    assert_int_equal(ay_eval(g, &t, 1, &other, 1, false, NULL), ALLOY_E_MISMATCH);
    assert_says("the graph has no output \"z\"");
    ay_graph_free(g);
}

/* NaN, infinities, integer corners: nothing traps, NaN is not lost. */
static void test_corners(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 1, 3));
    ay_val m = ay_reduce(g, AY_OP_RMAX, ay_binary(g, AY_OP_MAX, x, ay_const_f32(g, 1)), 0, true);
    ay_val ints = ay_cast(g, x, AY_I32), least = ay_const_i32(g, INT32_MIN);
    ay_val i =
        ay_add(g, ay_binary(g, AY_OP_DIV, least, ay_const_i32(g, -1)), ay_binary(g, AY_OP_MOD, ints, ay_const_i32(g, 0)));
    ay_set_output(g, "y", ay_concat(g, 0, 3, m, ay_cast(g, ints, AY_F32), ay_cast(g, ay_unary(g, AY_OP_ABS, i), AY_F32)));
    float in[3] = {NAN, 1e20f, -2.7f}, y[7];
    ay_tensor t = {"x", ay_shape(AY_F32, 1, 3), in};
    assert_int_equal(eval1(g, &t, 1, y, 7, false, NULL), ALLOY_OK);
    assert_true(isnan(y[0]) && y[1] == 0 && y[2] == 2147483648.0f && y[3] == -2);
    ay_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_half),
                                       cmocka_unit_test(test_params), cmocka_unit_test(test_names),
                                       cmocka_unit_test(test_corners)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
