/* SPDX-License-Identifier: MIT
 *
 * Small graphs, at least one for every op and every way of storing weights: what the package tests write, check and mutate.
 * Included by the test programs of this folder, which share nothing else.
 */
#ifndef AY_TEST_COREML_CASES_H
#define AY_TEST_COREML_CASES_H

#include "base/half.h"
#include "coreml/coreml.h"
#include "ir/graph.h"
#include "io/io.h"
#include "../support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S(t, rank, ...) ay_shape(t, rank, __VA_ARGS__)
typedef ay_val (*case_fn)(ay_graph *g, ay_dtype t);

static ay_val in(ay_graph *g, ay_type t) {
    char name[8];
    snprintf(name, sizeof name, "x%d", g->n_nodes);
    return ay_input(g, name, t);
}
static ay_val add_op(ay_graph *g, ay_op op, int n, const ay_val *v, ay_attr a, const ay_type *want) {
    return ay_node_add(g, op, v, n, &a, want);
}
#define OP1(op, x, ...) add_op(g, AY_OP_##op, 1, (ay_val[]){x}, (ay_attr){__VA_ARGS__}, NULL)
#define OP2(op, x, y, ...) add_op(g, AY_OP_##op, 2, (ay_val[]){x, y}, (ay_attr){__VA_ARGS__}, NULL)
#define OP3(op, x, y, z, ...) add_op(g, AY_OP_##op, 3, (ay_val[]){x, y, z}, (ay_attr){__VA_ARGS__}, NULL)

/* Each unary op in turn, summed, so that one package holds them all. */
static ay_val case_unary(ay_graph *g, ay_dtype t) {
    static const ay_op ops[] = {AY_OP_ABS,   AY_OP_EXP,  AY_OP_SQRT, AY_OP_RSQRT,   AY_OP_SIN,
                                AY_OP_COS,   AY_OP_TANH, AY_OP_ERF,  AY_OP_FLOOR,   AY_OP_CEIL,
                                AY_OP_ROUND, AY_OP_SIGN, AY_OP_LOG,  AY_OP_SIGMOID, AY_OP_SILU};
    ay_val x = in(g, S(t, 3, 2, 3, 4)), sum = x;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) sum = ay_add(g, sum, ay_unary(g, ops[i], x));
    return sum;
}
static ay_val case_binary(ay_graph *g, ay_dtype t) {
    static const ay_op ops[] = {AY_OP_ADD, AY_OP_SUB, AY_OP_MUL, AY_OP_DIV, AY_OP_MOD, AY_OP_MAX, AY_OP_MIN, AY_OP_POW};
    ay_val x = in(g, S(t, 3, 2, 3, 4)), y = in(g, S(t, 2, 3, 1)), sum = ay_muls(g, x, 0.5);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) sum = ay_add(g, sum, ay_binary(g, ops[i], x, y));
    return sum;
}
static ay_val case_integers(ay_graph *g, ay_dtype t) {
    static const ay_op ops[] = {AY_OP_ADD, AY_OP_SUB, AY_OP_MUL, AY_OP_DIV, AY_OP_MOD, AY_OP_MAX, AY_OP_MIN};
    ay_val x = in(g, S(AY_I32, 2, 3, 4)), y = in(g, S(AY_I32, 1, 4)), sum = ay_unary(g, AY_OP_ABS, x);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) sum = ay_add(g, sum, ay_binary(g, ops[i], x, y));
    return ay_add(g, ay_cast(g, ay_unary(g, AY_OP_SIGN, sum), t), ay_cast(g, ay_unary(g, AY_OP_FLOOR, sum), t));
}
static ay_val case_logic(ay_graph *g, ay_dtype t) {
    static const ay_op ops[] = {AY_OP_EQ, AY_OP_NE, AY_OP_LT, AY_OP_LE, AY_OP_GT, AY_OP_GE};
    static const ay_op joins[] = {AY_OP_AND, AY_OP_OR, AY_OP_XOR, AY_OP_NE};
    ay_val x = in(g, S(t, 2, 3, 4)), y = in(g, S(t, 1, 4)), all = ay_binary(g, AY_OP_LT, x, y);
    for (int i = 0; i < 6; i++) all = ay_binary(g, joins[i % 4], all, ay_binary(g, ops[i], x, y));
    return ay_where(g, ay_unary(g, AY_OP_NOT, all), ay_adds(g, ay_muls(g, x, 0), -1e4), x);
}
static ay_val case_where(ay_graph *g, ay_dtype t) { /* everything broadcasts: condition, scalar, row */
    ay_val x = in(g, S(t, 3, 2, 3, 4)), m = ay_binary(g, AY_OP_GT, in(g, S(t, 2, 3, 1)), ay_cast(g, ay_const_f32(g, 0), t));
    ay_val a = ay_where(g, m, ay_cast(g, ay_const_f32(g, 2), t), in(g, S(t, 1, 4)));
    return ay_add(g, x, a);
}
static ay_val case_reduce(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 4, 2, 3, 4, 5));
    ay_val a = OP1(SUM, x, .reduce = {.n = 2, .axes = {1, 3}, .keep = true});
    ay_val b = OP1(RMAX, x, .reduce = {.n = 1, .axes = {-1}, .keep = true}), c = ay_reduce(g, AY_OP_RMIN, x, 2, true);
    ay_val d = ay_reduce(g, AY_OP_PROD, x, 0, false); /* [3, 4, 5] */
    ay_val i = OP1(ARGMAX, x, .reduce = {.n = 1, .axes = {3}, .keep = true, .largest = true});
    ay_val j = OP1(ARGMAX, x, .reduce = {.n = 1, .axes = {0}, .keep = false, .largest = false});
    ay_set_output(g, "least", j);
    return ay_add(g, ay_add(g, ay_add(g, a, b), ay_add(g, c, d)), ay_cast(g, i, t));
}
static ay_val case_scan(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 2, 4, 8));
    ay_val a = OP1(CUMSUM, x, .scan = {.axis = 1, .exclusive = true, .reverse = false});
    ay_val b = OP1(TOPK, a, .topk = {.axis = 1, .k = 3, .largest = true, .indices = false});
    ay_val c = OP1(TOPK, a, .topk = {.axis = 1, .k = 3, .largest = false, .indices = true});
    ay_set_output(g, "places", c);
    return b;
}
static ay_val case_matmul(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 4, 2, 3, 4, 8)), y = in(g, S(t, 4, 2, 3, 5, 8)), z = in(g, S(t, 2, 5, 7));
    return ay_matmul(g, ay_matmul(g, x, y, false, true), z, false, false);
}
static ay_val case_linear(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 3, 1, 5, 8));
    ay_push(g, "blocks.0.attn");
    x = ay_linear_layer(g, "to_q", x, 16, true);
    x = ay_linear_layer(g, "to_out", x, 12, false);
    ay_pop(g);
    return x;
}
static ay_val case_linear_ranks(ay_graph *g, ay_dtype t) { /* rank 4 and rank 1, and a weight that is computed */
    ay_val x = ay_linear_layer(g, "four", in(g, S(t, 4, 2, 3, 4, 8)), 6, true);
    ay_val y = ay_linear_layer(g, "one", in(g, S(t, 1, 8)), 6, true);
    ay_val w = ay_mul(g, ay_param(g, "w", S(t, 2, 6, 8)), in(g, S(t, 1, 8)));
    return ay_add(g, ay_add(g, x, y), ay_linear(g, in(g, S(t, 2, 4, 8)), w, ay_param(g, "b", S(t, 1, 6))));
}
static ay_val case_conv(ay_graph *g, ay_dtype t) {
    ay_val x = ay_conv2d_layer(g, "conv_in", in(g, S(t, 4, 1, 4, 9, 8)), 6, 3, 2, 1, true);
    ay_attr a = {.conv = {.stride = {1, 1}, .dilation = {2, 1}, .before = {2, 0}, .after = {2, 1}, .groups = 2}};
    return add_op(g, AY_OP_CONV, 2, (ay_val[]){x, ay_param(g, "grouped.weight", S(t, 4, 8, 3, 3, 2))}, a, NULL);
}
static ay_val case_conv_dims(ay_graph *g, ay_dtype t) {
    ay_attr one = {.conv = {.stride = {2}, .dilation = {1}, .before = {1}, .after = {1}, .groups = 1}};
    ay_attr three = {
        .conv = {.stride = {1, 1, 1}, .dilation = {1, 1, 1}, .before = {1, 1, 1}, .after = {1, 1, 1}, .groups = 1}};
    ay_val y = in(g, S(t, 5, 1, 2, 3, 4, 5)), x = in(g, S(t, 3, 1, 4, 9));
    y = add_op(g, AY_OP_CONV, 3,
               (ay_val[]){y, ay_param(g, "c3.weight", S(t, 5, 3, 2, 3, 3, 3)), ay_param(g, "c3.bias", S(t, 1, 3))}, three,
               NULL);
    ay_set_output(g, "volume", y);
    return add_op(g, AY_OP_CONV, 2, (ay_val[]){x, ay_param(g, "c1.weight", S(t, 3, 6, 4, 3))}, one, NULL);
}
static ay_val case_conv_transpose(ay_graph *g, ay_dtype t) {
    ay_attr a = {.conv = {.stride = {2, 2}, .dilation = {1, 1}, .before = {1, 1}, .after = {1, 1}, .groups = 2}}, b = a;
    b.conv.after[0] = -1; /* torch's output_padding */
    ay_val x = in(g, S(t, 4, 1, 4, 5, 6)), w = ay_param(g, "up.weight", S(t, 4, 4, 3, 4, 4)),
           bias = ay_param(g, "up.bias", S(t, 1, 6));
    ay_set_output(g, "longer", add_op(g, AY_OP_CONV_TRANSPOSE, 3, (ay_val[]){x, w, bias}, b, NULL));
    return add_op(g, AY_OP_CONV_TRANSPOSE, 3, (ay_val[]){x, w, bias}, a, NULL);
}
static ay_val case_pool(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 4, 1, 2, 8, 8));
    ay_val a = OP1(POOL, x, .pool = {.kernel = {2, 2}, .stride = {2, 2}, .average = true});
    ay_val b = OP1(POOL, x, .pool = {.kernel = {3, 3}, .stride = {2, 2}, .before = {1, 1}, .after = {1, 1}});
    ay_val c = OP1(
        POOL, x,
        .pool = {
            .kernel = {3, 3}, .stride = {2, 2}, .before = {1, 1}, .after = {1, 1}, .average = true, .count_padding = true});
    return ay_add(g, ay_add(g, a, b), c);
}
static ay_val case_shape(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 3, 1, 4, 6)), s = in(g, S(t, 1, 1));
    x = ay_permute(g, ay_reshape(g, x, 4, 2, 2, 3, 2), 4, 0, 3, 1, 2);
    s = ay_reshape_to(g, s, 0, NULL); /* a scalar, and back */
    return ay_add(g, ay_add(g, x, s), ay_expand_to(g, ay_reshape(g, s, 2, 1, 1), 4, (int64_t[]){2, 2, 2, 3}));
}
static ay_val case_slice(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 3, 2, 7, 9));
    ay_type want = S(t, 3, 2, 3, 5);
    ay_val a = ay_slice(g, ay_slice(g, x, 1, 2, 5), 2, 0, 5);
    ay_val b = add_op(g, AY_OP_SLICE, 1, &x, (ay_attr){.slice = {.begin = {0, 1, 8}, .stride = {1, 2, -2}}}, &want);
    ay_val c = add_op(g, AY_OP_SLICE, 1, &x, (ay_attr){.slice = {.begin = {1, 6, 4}, .stride = {-1, -2, -1}}}, &want);
    return ay_concat(g, 1, 4, a, b, c, OP1(REVERSE, a, .reduce = {.n = 2, .axes = {0, 2}}));
}
static ay_val case_pad(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 4, 1, 3, 4, 5));
    ay_val a = OP1(PAD, x, .pad = {.before = {0, 1, 1, 2}, .after = {0, 0, 3, 1}, .mode = AY_PAD_CONSTANT, .value = 0.5});
    ay_val b = OP1(PAD, x, .pad = {.before = {0, 1, 1, 2}, .after = {0, 0, 3, 1}, .mode = AY_PAD_REFLECT});
    ay_val c = OP1(PAD, x, .pad = {.before = {0, 0, 1, 2}, .after = {0, 1, 3, 1}, .mode = AY_PAD_REPLICATE});
    return ay_add(g, ay_add(g, a, b), c);
}
static ay_val case_gather(ay_graph *g, ay_dtype t) {
    ay_val ids = in(g, S(AY_I32, 2, 1, 5)), table = ay_param(g, "embed.weight", S(t, 2, 40, 8));
    int32_t picks[] = {2, 0, 1, 1};
    ay_val rows = ay_gather(g, table, ids, 0), c = ay_const_data(g, S(AY_I32, 1, 4), picks);
    ay_val x = in(g, S(t, 3, 2, 3, 8)), at = in(g, S(AY_I32, 2, 2, 4));
    ay_val b = OP2(GATHER, x, at, .gather = {.axis = 1, .batch_dims = 1}); /* [2, 4, 8] */
    ay_val along = OP2(GATHER_ALONG, b, in(g, S(AY_I32, 3, 2, 4, 8)), .gather = {.axis = 2});
    return ay_concat(g, 1, 3, ay_slice(g, along, 0, 0, 1), rows, ay_slice(g, ay_gather(g, x, c, 1), 0, 0, 1));
}
static ay_val case_norms(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 3, 1, 5, 8));
    ay_push(g, "norm1");
    x = ay_layer_norm(g, x, ay_param(g, "weight", S(t, 1, 8)), ay_param(g, "bias", S(t, 1, 8)), 1e-6);
    ay_pop(g);
    x = ay_layer_norm(g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-12);
    ay_val y = add_op(g, AY_OP_LAYER_NORM, 2, (ay_val[]){x, ay_param(g, "rows", S(t, 1, 5))},
                      (ay_attr){.norm = {.n = 1, .axes = {1}, .eps = 1e-5}}, NULL);
    ay_val w = ay_muls(g, ay_param(g, "w", S(t, 1, 8)), 2); /* computed: goes behind the op */
    return ay_softmax(g, ay_add(g, ay_layer_norm(g, y, w, ay_param(g, "b", S(t, 1, 8)), 1e-5), x), -1);
}
static ay_val case_composites(ay_graph *g, ay_dtype t) { /* what is lowered */
    ay_val x = in(g, S(t, 4, 1, 4, 6, 8)), c = in(g, S(t, 2, 6, 8)), s = in(g, S(t, 2, 6, 8));
    x = ay_rms_norm(g, x, ay_param(g, "rms.weight", S(t, 1, 8)), 1e-6);
    x = ay_rope(g, ay_rope(g, x, c, s, true), c, s, false);
    return ay_group_norm(g, x, 2, ay_param(g, "gn.weight", S(t, 1, 4)), ay_param(g, "gn.bias", S(t, 1, 4)), 1e-6);
}
static ay_val case_mean(ay_graph *g, ay_dtype t) { /* two means and a sum that is read twice */
    ay_val x = in(g, S(t, 3, 2, 3, 8)), eighth = ay_const_like(g, x, 0.125);
    ay_val kept = ay_mul(g, ay_reduce(g, AY_OP_SUM, x, -1, true), eighth);
    ay_val first = ay_mul(g, eighth, ay_reduce(g, AY_OP_SUM, x, 2, false));
    ay_val sum = ay_reduce(g, AY_OP_SUM, ay_mul(g, x, eighth), 1, true);
    sum = ay_add(g, sum, ay_muls(g, sum, 1.0 / 3));
    return ay_add(g, ay_add(g, x, kept), ay_add(g, sum, ay_reshape(g, first, 3, 2, 3, 1)));
}
static ay_val case_dequant(ay_graph *g, ay_dtype t) {
    int8_t codes[24];
    for (int i = 0; i < 24; i++) codes[i] = (int8_t)(i * 5 - 60);
    ay_val q = ay_const_data(g, S(AY_I8, 2, 4, 6), codes), scale = ay_param(g, "scale", S(t, 1, 4));
    return ay_add(g, add_op(g, AY_OP_DEQUANT, 2, (ay_val[]){q, scale}, (ay_attr){.axis = 0}, NULL), in(g, S(t, 1, 6)));
}
static ay_val case_gelu(ay_graph *g, ay_dtype t) {
    ay_val x = in(g, S(t, 2, 3, 4));
    return ay_gelu(g, ay_gelu(g, ay_gelu(g, x, AY_GELU_EXACT), AY_GELU_TANH), AY_GELU_SIGMOID);
}
static ay_val case_upsample(ay_graph *g, ay_dtype t) {
    ay_val x = ay_upsample_nearest(g, in(g, S(t, 4, 1, 3, 4, 5)), 2, 2);
    return OP1(UPSAMPLE, x, .upsample = {.fh = 2, .fw = 3, .bilinear = true, .half_pixel = true});
}
static ay_val case_sdpa(ay_graph *g, ay_dtype t) {
    ay_val q = in(g, S(t, 4, 1, 2, 5, 8)), k = in(g, S(t, 4, 1, 2, 6, 8)), v = in(g, S(t, 4, 1, 2, 6, 4));
    ay_val a = ay_sdpa(g, q, k, v, AY_NO_VALUE, 0.35355339059327379); /* 1/sqrt(8) */
    ay_val b = ay_sdpa(g, q, k, v, in(g, S(t, 2, 5, 6)), 1.0);
    ay_val mask = ay_binary(g, AY_OP_GT, in(g, S(t, 4, 1, 1, 1, 6)), ay_cast(g, ay_const_f32(g, 0), t));
    ay_val shared =
        ay_sdpa(g, q, ay_slice(g, k, 1, 0, 1), ay_slice(g, v, 1, 0, 1), AY_NO_VALUE, 0.5); /* heads broadcast: lowered */
    return ay_add(g, ay_add(g, a, b), ay_add(g, shared, ay_sdpa(g, q, k, v, mask, 0.25)));
}
static ay_val case_outputs(ay_graph *g, ay_dtype t) { /* an input, a weight and one value twice, as outputs */
    ay_val x = in(g, S(t, 2, 3, 4)), y = ay_unary(g, AY_OP_EXP, x), w = ay_param(g, "table", S(t, 2, 3, 4));
    ay_set_output(g, "same", x);
    ay_set_output(g, "weight", w);
    ay_set_output(g, "twice", y);
    return y;
}
static ay_val case_names(ay_graph *g, ay_dtype t) { /* reserved words, digits first, collisions */
    ay_val x = ay_input(g, "hidden_states", S(t, 2, 3, 4));
    static const char *const names[] = {"state", "0.weight", "a.b", "a_b", "a-b", "ü", "hidden_states", "bool"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) x = ay_add(g, x, ay_param(g, names[i], S(t, 1, 4)));
    ay_set_output(g, "a_b_1", x);
    return ay_muls(g, x, 2);
}
static ay_val case_cast(ay_graph *g, ay_dtype t) { /* a half weight that a float32 island uses too */
    ay_val x = in(g, S(t, 2, 3, 8)), w = ay_param(g, "w.weight", S(AY_F16, 2, 4, 8)), y = in(g, S(AY_F32, 2, 3, 8));
    ay_val a = ay_linear(g, ay_cast(g, y, AY_F32), ay_cast(g, w, AY_F32), AY_NO_VALUE);
    ay_val i = ay_cast(g, ay_cast(g, x, AY_I32), t);
    ay_set_output(g, "whole", i);
    return a;
}
static ay_val case_const(ay_graph *g, ay_dtype t) { /* tables of every dtype, small and large */
    float f[24];
    int32_t k[24];
    uint8_t b[24];
    for (int i = 0; i < 24; i++) f[i] = (float)i - 3.5f, k[i] = 23 - i, b[i] = i % 3 == 0;
    ay_val x = in(g, S(t, 2, 4, 6));
    ay_val a = ay_cast(g, ay_const_f32s(g, f, 2, (int64_t[]){4, 6}), t), c = ay_const_data(g, S(AY_I32, 2, 4, 6), k);
    ay_val m = ay_const_data(g, S(AY_BOOL, 2, 4, 6), b), u = ay_const_data(g, S(AY_U8, 2, 4, 6), b);
    return ay_where(g, m, ay_add(g, ay_add(g, x, a), ay_cast(g, c, t)), ay_cast(g, u, t));
}

static const struct {
    const char *name;
    case_fn build;
} cases[] = {
    {"unary", case_unary},
    {"binary", case_binary},
    {"integers", case_integers},
    {"logic", case_logic},
    {"where", case_where},
    {"reduce", case_reduce},
    {"scan", case_scan},
    {"matmul", case_matmul},
    {"linear", case_linear},
    {"linear_ranks", case_linear_ranks},
    {"conv", case_conv},
    {"conv_dims", case_conv_dims},
    {"conv_transpose", case_conv_transpose},
    {"pool", case_pool},
    {"shape", case_shape},
    {"slice", case_slice},
    {"pad", case_pad},
    {"gather", case_gather},
    {"norms", case_norms},
    {"composites", case_composites},
    {"mean", case_mean},
    {"dequant", case_dequant},
    {"gelu", case_gelu},
    {"upsample", case_upsample},
    {"sdpa", case_sdpa},
    {"outputs", case_outputs},
    {"names", case_names},
    {"cast", case_cast},
    {"const", case_const},
};
enum { N_CASES = sizeof cases / sizeof *cases };

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* Bytes of one part of one weight, the same for the same name: small floats, any codes. */
static void *part_bytes(ay_arena *a, const ay_node *n, ay_part part, size_t *bytes) {
    const ay_weight *w = n->weight;
    ay_dtype t = part == AY_PART_DATA     ? w->data_dtype
                 : part == AY_PART_SCALE  ? w->scale_dtype
                 : part == AY_PART_OFFSET ? w->offset_dtype
                                          : w->lut_dtype;
    *bytes = part == AY_PART_DATA     ? ay_weight_data_bytes(w)
             : part == AY_PART_SCALE  ? ay_weight_scale_bytes(w)
             : part == AY_PART_OFFSET ? ay_weight_offset_bytes(w)
                                      : ay_weight_lut_bytes(w);
    uint8_t *out = ay_alloc(a, *bytes + 8);
    uint64_t seed = 0x9e3779b97f4a7c15u + (uint64_t)part;
    for (const char *p = n->name; *p; p++) seed = seed * 31 + (uint8_t)*p;
    size_t size = (size_t)ay_dtype_bits(t) / 8;
    for (size_t i = 0; !ay_dtype_is_float(t) && i < *bytes; i++) out[i] = (uint8_t)ay_test_random(&seed);
    for (size_t i = 0; ay_dtype_is_float(t) && i < *bytes / size; i++) {
        float f = ay_test_uniform(&seed);
        if (part == AY_PART_SCALE) f = 0.01f + 0.005f * f;
        ay_convert_from_f32(t, &f, 1, out + i * size);
    }
    int64_t count = part == AY_PART_DATA ? ay_type_count(&n->type) : 0; /* unused bits of the last byte are 0 */
    if (part == AY_PART_DATA && w->store == AY_STORE_LUT && w->lut_dim[w->rank + 1] > 0) count /= w->lut_dim[w->rank + 1];
    if (part == AY_PART_DATA && (count * ay_dtype_bits(t)) % 8)
        out[*bytes - 1] &= (uint8_t)((1 << (count * ay_dtype_bits(t)) % 8) - 1);
    return out;
}

static alloy_status stream_part(void *user, const ay_node *n, ay_part part, ay_sink *out) {
    ay_test *t = user;
    size_t bytes;
    uint8_t *p = part_bytes(t->arena, n, part, &bytes);
    for (size_t at = 0; at < bytes;) { /* uneven pieces */
        size_t take = bytes - at < 37 ? bytes - at : 37;
        AY_TRY(out->put(out->user, p + at, take));
        at += take;
    }
    return ALLOY_OK;
}

typedef struct storage {
    const char *name;
    ay_dtype data, offset;
    int64_t scale[2], group[2], vec;
    bool only15;
} storage;
static const storage storages[] = {
    {"int8_channel", AY_I8, AY_NONE, {16, 1}, {0}, 0, false}, {"int8_tensor", AY_I8, AY_NONE, {1, 1}, {0}, 0, false},
    {"int8_offset", AY_I8, AY_I8, {16, 1}, {0}, 0, false},    {"uint8_offset", AY_U8, AY_U8, {16, 1}, {0}, 0, false},
    {"int8_input", AY_I8, AY_NONE, {1, 24}, {0}, 0, false},   {"int4_block", AY_I4, AY_NONE, {16, 3}, {0}, 0, true},
    {"uint4_block", AY_U4, AY_U4, {16, 3}, {0}, 0, true},     {"int8_block", AY_I8, AY_NONE, {4, 2}, {0}, 0, true},
    {"lut1", AY_U1, AY_NONE, {0}, {1, 1}, 1, false},          {"lut2", AY_U2, AY_NONE, {0}, {1, 1}, 1, false},
    {"lut3", AY_U3, AY_NONE, {0}, {1, 1}, 1, true},           {"lut4", AY_U4, AY_NONE, {0}, {1, 1}, 1, false},
    {"lut6", AY_U6, AY_NONE, {0}, {1, 1}, 1, false},          {"lut8", AY_U8, AY_NONE, {0}, {1, 1}, 1, false},
    {"lut4_groups", AY_U4, AY_NONE, {0}, {4, 1}, 1, true},    {"lut4_vector", AY_U4, AY_NONE, {0}, {1, 1}, 2, true},
};
enum { N_STORAGES = sizeof storages / sizeof *storages };

static void apply_storage(ay_weight *w, const storage *s) {
    w->store = s->vec ? AY_STORE_LUT : AY_STORE_BLOCK;
    w->data_dtype = s->data;
    if (w->store == AY_STORE_BLOCK) {
        w->scale_dtype = w->value_dtype;
        w->offset_dtype = s->offset;
        for (int i = 0; i < 2; i++) w->scale_dim[i] = s->scale[i];
        return;
    }
    w->lut_dtype = w->value_dtype;
    for (int i = 0; i < 2; i++) w->lut_dim[i] = s->group[i];
    w->lut_dim[2] = (int64_t)1 << ay_dtype_bits(s->data);
    w->lut_dim[3] = s->vec;
    w->vector_axis = 0;
}

/* A linear layer [16, 24] whose weight is stored this way. */
static ay_graph *storage_graph(ay_ctx *cx, const storage *s, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_linear_layer(g, "proj", in(g, S(t, 2, 3, 24)), 16, true);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == AY_OP_PARAM && g->nodes[i].type.rank == 2) apply_storage(g->nodes[i].weight, s);
    ay_set_output(g, "y", x);
    return g;
}
static ay_graph *case_graph(ay_ctx *cx, int i, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_set_output(g, "y", cases[i].build(g, t));
    return g;
}

static alloy_status write_one(ay_test *t, const char *path, const ay_graph *g, ay_target target) {
    ay_function f = {"main", g};
    static const char *const extra[] = {"zeta", "last", "alpha", "first", NULL};
    ay_package_options o = {
        .target = target, .description = "a test", .author = "alloy", .metadata = extra, .source = {.stream = stream_part, .user = t}};
    ay_weight_entry *entries;
    int n;
    AY_TRY(ay_graph_status(g));
    return ay_package_write(t->cx, path, &f, 1, &o, t->arena, &entries, &n);
}

#endif
