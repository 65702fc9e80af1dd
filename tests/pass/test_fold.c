/* SPDX-License-Identifier: MIT
 *
 * Folding, merging and dropping, case by case: what must go, and beside it what looks alike and must stay.
 */
#include "pass/pass.h"

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

static void run(ay_graph *g, const char *name, alloy_status (*pass)(ay_graph *, void *)) {
    const ay_pass row = {name, pass, NULL};
    if (ay_passes_run(g, &row, 1)) fail_msg("%s", ay_error_text(cx));
}

static int count(const ay_graph *g, ay_op op) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) n += g->nodes[i].op == op;
    return n;
}

static ay_val reduce(ay_graph *g, ay_op op, ay_val x, int axis, bool keep, bool largest) {
    ay_attr a = {.reduce = {.n = 1, .axes = {axis}, .keep = keep, .largest = largest}};
    return ay_node_add(g, op, &x, 1, &a, NULL);
}

static ay_val slice(ay_graph *g, ay_val x, int64_t begin, int64_t stride, int64_t size) {
    ay_attr a = {.slice = {.begin = {begin, 0}, .stride = {stride, 1}}};
    ay_type want = *ay_type_of(g, x);
    want.dim[0] = size;
    return ay_node_add(g, AY_OP_SLICE, &x, 1, &a, &want);
}

/* Pairs over x [3, 3]: equal ones merge, those that differ in one thing do not. */
static void test_cse(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 3, 3)), y = ay_input(g, "y", ay_shape(AY_F32, 2, 3, 3)), v[40];
    int n = 0;
    for (int twice = 0; twice < 2; twice++) { /* the second round adds nothing */
        v[n++] = reduce(g, AY_OP_SUM, x, 0, true, false);
        v[n++] = reduce(g, AY_OP_SUM, x, 1, true, false);
        v[n++] = reduce(g, AY_OP_SUM, x, -2, false, false);
        v[n++] = reduce(g, AY_OP_RMAX, x, 0, true, false);
        v[n++] = reduce(g, AY_OP_ARGMAX, x, 0, true, true);
        v[n++] = reduce(g, AY_OP_ARGMAX, x, 0, true, false);
        v[n++] = reduce(g, AY_OP_SUM, y, 0, true, false);
        v[n++] = slice(g, x, 0, 1, 2);
        v[n++] = slice(g, x, 1, 1, 2);
        v[n++] = slice(g, x, 2, -2, 2);
        v[n++] = ay_sub(g, x, y);
        v[n++] = ay_sub(g, y, x);
        v[n++] = ay_cast(g, x, AY_F16);
        v[n++] = ay_cast(g, x, AY_I32);
        v[n++] = ay_add(g, x, ay_const_f32(g, 0.0));
        v[n++] = ay_add(g, x, ay_const_f32(g, 1.0));
        v[n++] = ay_add(g, ay_cast(g, x, AY_I32), ay_const_i32(g, 0x3f800000)); /* the bits of 1.0 */
        v[n++] = ay_add(g, x, ay_const_f32s(g, (float[]){1}, 1, (int64_t[]){1}));
    }
    for (int i = 0; i < n; i++) {
        char name[8] = {'o', (char)('a' + i % 26), (char)('a' + i / 26)};
        ay_set_output(g, name, v[i]);
    }
    run(g, "cse", ay_pass_cse);
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            bool same = g->outputs[i].value == g->outputs[j].value;
            if (same != (j == i + n / 2)) fail_msg("%d and %d %s", i, j, same ? "were merged" : "were not merged");
        }
    }
    assert_int_equal(count(g, AY_OP_CONST), 4);
    ay_graph_free(g);
}

/* Each row builds from x [3, 3] an expression that is x, or only looks like it. */
static ay_val scalar(ay_graph *g, double v) { return ay_const_f32(g, v); }
static ay_val ones(ay_graph *g) { return ay_const_f32s(g, (float[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, 2, (int64_t[]){3, 3}); }
static ay_val zeros(ay_graph *g) { return ay_const_f32s(g, (float[9]){0}, 2, (int64_t[]){3, 3}); }

static ay_val expression(ay_graph *g, ay_val x, int which) {
    ay_attr none = {0};
    switch (which) {
    case 0: return ay_add(g, x, scalar(g, 0));
    case 1: return ay_mul(g, scalar(g, 1), x);
    case 2: return ay_mul(g, x, ones(g));
    case 3: return ay_sub(g, x, zeros(g));
    case 4: return ay_div(g, x, ones(g));
    case 5: return ay_concat(g, 0, 1, x);
    case 6: return ay_permute(g, x, 2, 0, 1);
    case 7: return slice(g, x, 0, 1, 3);
    case 8: return ay_node_add(g, AY_OP_PAD, &x, 1, &none, NULL);
    case 9: return ay_expand_to(g, x, 2, (int64_t[]){3, 3});
    case 10: return ay_reshape(g, ay_reshape(g, x, 1, 9), 2, 3, 3);
    case 11: return ay_upsample_nearest(g, x, 1, 1);
    case 12: return ay_mul(g, x, ay_unary(g, AY_OP_EXP, zeros(g))); /* folds to ones first */
    /* from here on: not x */
    case 13: return ay_sub(g, zeros(g), x);
    case 14: return ay_div(g, ones(g), x);
    case 15: return ay_permute(g, x, 2, 1, 0);
    case 16: return slice(g, x, 2, -1, 3);
    case 17: return ay_add(g, x, scalar(g, 1));
    case 18: return ay_mul(g, x, scalar(g, 0));
    case 19: return ay_concat(g, 0, 3, slice(g, x, 1, 1, 1), slice(g, x, 0, 1, 1), slice(g, x, 2, 1, 1));
    case 20: return ay_binary(g, AY_OP_MAX, x, zeros(g));
    case 21: return ay_cast(g, ay_cast(g, x, AY_I32), AY_F32);
    default: return AY_NO_VALUE;
    }
}

static void test_no_ops(void **state) {
    float x[9], y[9], z[9];
    for (int i = 0; i < 9; i++) x[i] = 0.75f * (float)(i + 1) * (i % 2 ? -1 : 1);
    for (int which = 0; which < 22; which++) {
        ay_graph *g = ay_graph_new(cx);
        ay_set_output(g, "y", expression(g, ay_input(g, "x", ay_shape(AY_F32, 2, 3, 3)), which));
        ay_tensor in = {"x", ay_shape(AY_F32, 2, 3, 3), x}, out = {"y", ay_shape(AY_F32, 2, 3, 3), y};
        assert_int_equal(ay_eval(g, &in, 1, &out, 1, false, NULL), ALLOY_OK);
        run(g, "fold", ay_pass_fold);
        out.data = z;
        assert_int_equal(ay_eval(g, &in, 1, &out, 1, false, NULL), ALLOY_OK);
        assert_memory_equal(y, z, sizeof y);
        bool gone = g->nodes[g->outputs[0].value].op == AY_OP_INPUT;
        bool equal = memcmp(x, y, sizeof x) == 0;
        if (gone != (which < 13) || equal != (which < 13)) fail_msg("expression %d: %s", which, gone ? "dropped" : "kept");
        ay_graph_free(g);
    }
}

/* Consts are computed once, in their own type; what is large, or fails, is left. */
static void test_consts(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 1, 4)), table = ay_const_f32s(g, (float[]){1, 2, 3}, 1, (int64_t[]){3});
    ay_val i = ay_add(g, ay_const_i32(g, 1 << 30), ay_const_i32(g, 1)); /* exact: not through float */
    ay_val big = ay_expand_to(g, ay_const_f32(g, 2), 2, (int64_t[]){200, 100});
    ay_val half = ay_muls(g, ay_cast(g, ay_const_f32(g, 0.1), AY_F16), 3);
    ay_set_output(g, "i", i);
    ay_set_output(g, "big", big);
    ay_set_output(g, "half", half);
    ay_set_output(g, "bad", ay_gather(g, table, ay_const_i32(g, 7), 0));
    ay_set_output(g, "good", ay_add(g, x, ay_gather(g, table, ay_const_i32(g, -1), 0)));
    run(g, "fold", ay_pass_fold);
    const ay_node *n = ay_node_of(g, g->outputs[0].value);
    assert_true(n->op == AY_OP_CONST && *(const int32_t *)n->data == (1 << 30) + 1);
    assert_int_equal(ay_node_of(g, g->outputs[1].value)->op, AY_OP_EXPAND);
    n = ay_node_of(g, g->outputs[2].value);
    assert_true(n->op == AY_OP_CONST && n->type.dtype == AY_F16 && *(const uint16_t *)n->data == 0x34cc); /* of half(0.1) */
    assert_int_equal(ay_node_of(g, g->outputs[3].value)->op, AY_OP_GATHER);
    assert_int_equal(ay_node_of(g, ay_node_of(g, g->outputs[4].value)->in[1])->op, AY_OP_CONST);
    ay_graph_free(g);
}

static void test_dce(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 3, 3));
    ay_input(g, "unused", ay_shape(AY_F32, 1, 4));
    ay_val y = ay_linear_layer(g, "a", x, 2, true);
    ay_linear_layer(g, "b", y, 2, true);
    ay_set_output(g, "y", y);
    run(g, "dce", ay_pass_dce);
    assert_int_equal(count(g, AY_OP_INPUT), 2); /* the signature stays */
    assert_int_equal(count(g, AY_OP_PARAM), 2);
    assert_int_equal(g->n_nodes, 5);
    ay_graph_free(g);
}

/* The row that breaks a graph is named. */
static alloy_status harm(ay_graph *g, void *arg) {
    g->nodes[g->n_nodes - 1].type.dim[0]++;
    return ALLOY_OK;
}

static void test_names_the_pass(void **state) {
#ifndef NDEBUG
    ay_graph *g = ay_graph_new(cx);
    ay_set_output(g, "y", ay_unary(g, AY_OP_EXP, ay_input(g, "x", ay_shape(AY_F32, 1, 3))));
    const ay_pass rows[] = {{"dce", ay_pass_dce, NULL}, {"harm", harm, NULL}};
    assert_int_not_equal(ay_passes_run(g, rows, 2), ALLOY_OK);
    assert_non_null(strstr(ay_error_text(cx), "after pass harm: graph, value 1 (exp): its type is float32[4]"));
    ay_graph_free(g);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cse), cmocka_unit_test(test_no_ops),
                                       cmocka_unit_test(test_consts), cmocka_unit_test(test_dce),
                                       cmocka_unit_test(test_names_the_pass)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
