/* SPDX-License-Identifier: MIT
 *
 * Building, inference, verifying, printing: shapes of every op, sticky errors with their scope, and one broken graph of each
 * kind with the sentence it must give.
 */
#include "ir/graph.h"

#include <setjmp.h>
#include <stdarg.h>
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

static void assert_type(const ay_graph *g, ay_val v, ay_type want) {
    char a[160], b[160];
    if (g->status) fail_msg("%s", ay_error_text(cx));
    if (!ay_type_equal(ay_type_of(g, v), &want))
        fail_msg("%s instead of %s", ay_type_text(ay_type_of(g, v), a), ay_type_text(&want, b));
}

/* A small transformer block: what a model file writes. */
static ay_val block(ay_graph *g, ay_val x, int i) {
    int64_t L = ay_dim(g, x, 1), d = ay_dim(g, x, 2), heads = 4;
    ay_push(g, "layers.%d", i);
    ay_val h = ay_layer_norm(g, x, ay_param(g, "norm.weight", ay_shape(AY_F32, 1, d)),
                             ay_param(g, "norm.bias", ay_shape(AY_F32, 1, d)), 1e-5);
    ay_val part[3];
    const char *const names[] = {"q", "k", "v"};
    for (int j = 0; j < 3; j++) {
        part[j] = ay_linear_layer(g, names[j], h, d, true);
        part[j] = ay_permute(g, ay_reshape(g, part[j], 4, 1, L, heads, -1), 4, 0, 2, 1, 3);
    }
    h = ay_sdpa(g, part[0], part[1], part[2], AY_NO_VALUE, 0.25);
    h = ay_linear_layer(g, "out", ay_reshape(g, ay_permute(g, h, 4, 0, 2, 1, 3), 3, 1, L, d), d, true);
    x = ay_add(g, x, h);
    h = ay_gelu(g, ay_linear_layer(g, "fc1", x, 4 * d, true), AY_GELU_TANH);
    x = ay_add(g, x, ay_linear_layer(g, "fc2", h, d, true));
    ay_pop(g);
    return x;
}

static void test_block(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 3, 1, 7, 16));
    for (int i = 0; i < 120; i++) x = block(g, x, i);
    ay_set_output(g, "y", x);
    assert_type(g, x, ay_shape(AY_F32, 3, 1, 7, 16));
    if (ay_graph_verify(g)) fail_msg("%s", ay_error_text(cx));
    ay_graph *c = ay_graph_clone(g);
    assert_int_equal(ay_graph_verify(c), ALLOY_OK);
    ay_buf a = {0}, b = {0};
    ay_graph_print(g, &a);
    ay_graph_print(c, &b);
    assert_string_equal(a.data, b.data);
    assert_non_null(strstr(a.data, "%29 = gelu(%28) tanh : float32[1, 7, 64]  # layers.0"));
    ay_buf_free(&a);
    ay_buf_free(&b);
    ay_graph_free(c);
    ay_graph_free(g);
}

/* The first error is kept, names its scope and both shapes, and everything later is quiet. */
static void test_sticky(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_push(g, "blocks.%d", 3);
    ay_push(g, "attn");
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 3, 5));
    ay_val y = ay_reshape(g, x, 2, 4, 4);
    assert_int_equal(y, AY_NO_VALUE);
    int nodes = g->n_nodes;
    y = ay_add(g, ay_linear_layer(g, "to_q", y, 8, true), x);
    ay_set_output(g, "y", ay_slice(g, y, 0, 5, 2));
    ay_pop(g);
    ay_pop(g);
    ay_pop(g);
    assert_int_equal(ay_dim(g, y, 0), 0);
    assert_int_equal(g->n_nodes, nodes);
    assert_int_equal(ay_graph_status(g), ALLOY_E_MISMATCH);
    assert_string_equal(ay_error_text(cx), "in blocks.3.attn: reshape: float32[3, 5] cannot become float32[4, 4]: "
                                           "the numbers of elements differ");
    ay_graph_free(g);
}

static void test_params(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_push(g, "a");
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 2, 3, 5));
    assert_int_equal(w, ay_param(g, "weight", ay_shape(AY_F32, 2, 3, 5)));
    assert_string_equal(ay_node_of(g, w)->name, "a.weight");
    ay_param(g, "weight", ay_shape(AY_F32, 2, 5, 3));
    assert_says("in a: parameter \"a.weight\" is asked for as float32[5, 3] and earlier as float32[3, 5]");
    ay_graph_free(g);
    g = ay_graph_new(cx);
    ay_input(g, "x", ay_shape(AY_F32, 1, 3));
    ay_input(g, "x", ay_shape(AY_F32, 1, 3));
    assert_says("input \"x\" is declared twice");
    ay_graph_free(g);
}

/* A graph to break: x [2, 3] -> linear -> softmax -> y, with a const beside it. */
static ay_graph *sound(void) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 2, 3));      /* 0 */
    ay_push(g, "head");
    ay_val y = ay_linear_layer(g, "proj", x, 4, true);           /* 1 weight, 2 bias, 3 linear */
    ay_pop(g);
    ay_val s = ay_reduce(g, AY_OP_SUM, ay_softmax(g, ay_adds(g, y, 1), 1), -1, true); /* 4 const, 5 add, 6 softmax, 7 sum */
    ay_set_output(g, "y", s);
    ay_set_output(g, "z", y);
    assert_int_equal(ay_graph_verify(g), ALLOY_OK);
    return g;
}

static void break_order(ay_graph *g) { g->nodes[3].in[0] = 5; }
static void break_input(ay_graph *g) { g->nodes[5].in[1] = 99; }
static void break_arity(ay_graph *g) { g->nodes[6].n_in = 0; }
static void break_type(ay_graph *g) { g->nodes[3].type.dim[1] = 5; }
static void break_dtype(ay_graph *g) { g->nodes[5].type.dtype = AY_F16; }
static void break_axis(ay_graph *g) { g->nodes[6].attr.axis = 2; }
static void break_canon(ay_graph *g) { g->nodes[7].attr.reduce.axes[0] = -1; }
static void break_input_name(ay_graph *g) { g->nodes[0].name = NULL; }
static void break_param_name(ay_graph *g) { g->nodes[2].name = g->nodes[1].name; }
static void break_weight(ay_graph *g) { g->nodes[1].weight = NULL; }
static void break_weight_shape(ay_graph *g) { g->nodes[1].weight->dim[0] = 5; }
static void break_weight_store(ay_graph *g) { g->nodes[1].weight->data_dtype = AY_I8; }
static void break_const(ay_graph *g) { g->nodes[4].data = NULL; }
static void break_op(ay_graph *g) { g->nodes[5].op = (ay_op)500; }
static void break_scope(ay_graph *g) { g->nodes[5].scope = NULL; }
static void break_leaf(ay_graph *g) { g->nodes[2].n_in = 1; }
static void break_output(ay_graph *g) { g->outputs[0].value = 44; }
static void break_output_name(ay_graph *g) { g->outputs[1].name = "y"; }
static void break_no_output(ay_graph *g) { g->n_outputs = 0; }
static void break_leaf_type(ay_graph *g) { g->nodes[0].type.dim[0] = 0; }

static void test_verify(void **state) {
    static const struct { void (*harm)(ay_graph *g); const char *says; } rows[] = {
        {break_order, "value 3 (linear in head.proj): it is used before it is made"},
        {break_input, "value 5 (add): an input is no value of the graph"},
        {break_arity, "value 6: softmax: 0 inputs given, takes 1 to 1"},
        {break_type, "value 3 (linear in head.proj): its type is float32[2, 5], its inputs give float32[2, 4]"},
        {break_dtype, "value 5 (add): its type is float16[2, 4], its inputs give float32[2, 4]"},
        {break_axis, "softmax: axis 2 is outside of float32[2, 4]"},
        {break_canon, "value 7 (sum): its attributes are not in canonical form"},
        {break_input_name, "value 0 (input): the input has no name"},
        {break_param_name, "value 2 (param in head.proj): the parameter's name is taken"},
        {break_weight, "value 1 (param in head.proj): the parameter has no weight"},
        {break_weight_shape, "the weight's shape or value type is not the node's"},
        {break_weight_store, "the weight is stored as integers and used as floats"},
        {break_const, "value 4 (const): the const has no data"},
        {break_op, "value 5 ((no such op)): its op is unknown"},
        {break_scope, "its scope is missing"},
        {break_leaf, "a leaf has inputs"},
        {break_output, "output \"y\" is no value of the graph"},
        {break_output_name, "output name \"y\" is taken"},
        {break_no_output, "it has no output"},
        {break_leaf_type, "its type is not one a graph may hold"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ay_graph *g = sound();
        rows[i].harm(g);
        assert_int_not_equal(ay_graph_verify(g), ALLOY_OK);
        assert_says(rows[i].says);
        ay_graph_free(g);
    }
}

/* Every op refuses what it cannot take, in words. */
static void test_refusals(void **state) {
    struct { const char *says; int which;
    } rows[] = {
        {"add: float32[2, 3] and float32[4] do not broadcast", 0},
        {"add: inputs 0 and 1 differ in element type: float32 and int32", 1},
        {"exp: input 0 must be a float tensor, found int32[3]", 2},
        {"and: input 0 must be bool, found float32", 3},
        {"permute: axis 0 is named twice", 4},
        {"matmul: float32[2, 3] and float32[2, 3]: inner dims differ", 5},
        {"concat: float32[2, 3] and float32[4] (input 1) differ outside of axis 0", 6},
        {"gather: input 1 holds indices", 7},
        {"slice: [1, 9) of axis 1 of float32[2, 3] is empty or outside", 8},
        {"rope: float32[2, 3] must have an even last dim", 9},
        {"topk: k = 4 along axis 1 of float32[2, 3]", 10},
        {"permute: 3 axes for float32[2, 3]", 11},
        {"linear: float32[2, 3] and float32[4]: weight must be [out, in]", 12},
        {"linear: input 1 is missing", 13},
        {"layer_norm: bias without weight", 14},
        {"reshape: 3 numbers follow a count of 2", 15},
        {"input \"big\": float32[1000000000, 1000000000] has more than 2^38 elements", 16},
        {"input \"none\": dim 0 of float32[0] is not positive", 17},
        {"parameter \"p\": no element type", 18},
        {"expand: float32[2, 3] cannot be expanded to float32[2, 4]", 19},
        {"a scope is left that was never entered", 20},
        {"where: condition bool[4] does not broadcast with float32[2, 3]", 21},
        {"sum: no axis to reduce over", 22},
        {"cast: values of a graph cannot be int64", 23},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ay_graph *g = ay_graph_new(cx);
        ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 2, 3)), y = ay_input(g, "y", ay_shape(AY_F32, 1, 4));
        ay_val ints = ay_input(g, "i", ay_shape(AY_I32, 1, 3)), flags = ay_input(g, "b", ay_shape(AY_BOOL, 1, 4));
        switch (rows[i].which) {
        case 0: ay_add(g, x, y); break;
        case 1: ay_add(g, x, ints); break;
        case 2: ay_unary(g, AY_OP_EXP, ints); break;
        case 3: ay_binary(g, AY_OP_AND, x, flags); break;
        case 4: ay_permute(g, x, 2, 0, -2); break;
        case 5: ay_matmul(g, x, x, false, false); break;
        case 6: ay_concat(g, 0, 2, x, y); break;
        case 7: ay_gather(g, x, y, 0); break;
        case 8: ay_slice(g, x, 1, 1, 9); break;
        case 9: ay_rope(g, x, x, x, true); break;
        case 10: ay_node_add(g, AY_OP_TOPK, &x, 1, &(ay_attr){.topk = {.axis = -1, .k = 4}}, NULL); break;
        case 11: ay_permute(g, x, 3, 0, 1, 2); break;
        case 12: ay_linear(g, x, y, AY_NO_VALUE); break;
        case 13: ay_linear(g, x, AY_NO_VALUE, AY_NO_VALUE); break;
        case 14: ay_layer_norm(g, x, AY_NO_VALUE, y, 1e-5); break;
        case 15: ay_reshape(g, x, 2, 3, 2, 1); break;
        case 16: ay_input(g, "big", ay_shape(AY_F32, 2, 1000000000, 1000000000)); break;
        case 17: ay_input(g, "none", ay_shape(AY_F32, 1, 0)); break;
        case 18: ay_param(g, "p", ay_shape(AY_F32, 2, 4)); break;
        case 19: ay_expand_to(g, x, 2, (int64_t[]){2, 4}); break;
        case 20: ay_pop(g); break;
        case 21: ay_where(g, flags, x, x); break;
        case 22: ay_node_add(g, AY_OP_SUM, &x, 1, NULL, NULL); break;
        case 23: ay_cast(g, x, AY_I64); break;
        }
        assert_int_not_equal(ay_graph_status(g), ALLOY_OK);
        assert_says(rows[i].says);
        ay_graph_free(g);
    }
}

/* Each op has a row in the inference table: an empty node of it must fail on its inputs, never as unknown. */
static void test_every_op(void **state) {
    for (int op = 0; op < AY_OP_COUNT; op++) {
        ay_graph *g = ay_graph_new(cx);
        ay_node n = {.op = (ay_op)op, .type = ay_shape(AY_F32, 0), .scope = ""};
        assert_int_not_equal(ay_infer(g, &n), ALLOY_E_INTERNAL);
        ay_graph_free(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block),  cmocka_unit_test(test_sticky),   cmocka_unit_test(test_params),
        cmocka_unit_test(test_verify), cmocka_unit_test(test_refusals), cmocka_unit_test(test_every_op),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
