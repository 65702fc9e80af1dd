/* SPDX-License-Identifier: MIT
 *
 * Raising: what lower.c writes is found again and still gives torch's numbers; so are the forms that traced programs have;
 * and what only looks like a composite is left alone.
 */
#include "../support/golden_ops.h"
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

static int count_op(const ay_graph *g, int op) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        n += op < 0 ? ay_op_get(g->nodes[i].op)->cls == AY_CLASS_COMPOSITE : (int)g->nodes[i].op == op;
    }
    return n;
}

static bool has_mil_op(const golden *c) { /* never lowered on the way to a package, so not raised */
    return c->op == AY_OP_CONV_TRANSPOSE || c->op == AY_OP_DEQUANT || (c->op == AY_OP_UPSAMPLE && c->attr.upsample.bilinear);
}

static void round_trip(golden *c, bool fold) {
    bool weights =
        c->op == AY_OP_LINEAR || c->op == AY_OP_RMS_NORM || c->op == AY_OP_LAYER_NORM || c->op == AY_OP_GROUP_NORM;
    ay_graph *g = golden_graph_stored(cx, c, weights ? 1 : 5);
    const ay_pass passes[] = {{"lower", ay_pass_lower, NULL}, {"raise", ay_pass_raise, NULL}};
    const ay_pass folding[] = {{"lower", ay_pass_lower, NULL},
                               {"fold", ay_pass_fold, NULL},
                               {"cse", ay_pass_cse, NULL},
                               {"raise", ay_pass_raise, NULL}};
    void *got = NULL;
    if (ay_passes_run(g, fold ? folding : passes, fold ? 4 : 2) || golden_eval(g, c, &got))
        fail_msg("case %d: %s", c->number, ay_error_text(cx));
    if (count_op(g, (int)c->op) != 1 || count_op(g, -1) != 1) {
        ay_buf text = {0};
        ay_graph_print(g, &text);
        fail_msg("case %d: %s was not found again in\n%s", c->number, ay_op_get(c->op)->name, text.data);
    }
    if (!golden_equal(c, got, 3e-6)) fail_msg("case %d", c->number);
    free(got);
    ay_graph_free(g);
}

static void test_golden(void **state) {
    FILE *f = fopen(GOLDEN_OPS, "r");
    assert_non_null(f);
    golden c = {0};
    int seen = 0;
    while (golden_next(f, &c)) {
        if (ay_op_get(c.op)->cls == AY_CLASS_COMPOSITE && !has_mil_op(&c)) {
            round_trip(&c, false);
            round_trip(&c, true);
            seen++;
        }
        golden_free(&c);
    }
    fclose(f);
    assert_true(seen > 25);
}

/* ---- other people's forms: each builds from x [2, 6, 8] (float32) and says which single composite it must become --- */

static ay_val scalar(ay_graph *g, double v) { return ay_const_f32(g, v); }
static ay_val pow2(ay_graph *g, ay_val x) { return ay_binary(g, AY_OP_POW, x, scalar(g, 2)); }

static ay_val mean_div(ay_graph *g, ay_val x) { return ay_div(g, ay_reduce(g, AY_OP_SUM, x, -1, true), scalar(g, 8)); }

static ay_val ramp(ay_graph *g, int rank, const int64_t *dim, ay_dtype t) { /* a stored weight */
    float v[64];
    ay_type type = {.dtype = AY_F32, .rank = rank};
    for (int i = 0; i < rank; i++) type.dim[i] = dim[i];
    for (int i = 0; i < 64; i++) v[i] = 0.5f + 0.03125f * (float)i;
    ay_val w = ay_const_data(g, type, v);
    return ay_cast(g, w, t);
}

static ay_val rms_div_sqrt(ay_graph *g, ay_val x) {
    ay_val root = ay_unary(g, AY_OP_SQRT, ay_adds(g, mean_div(g, pow2(g, x)), 1e-3));
    return ay_mul(g, ramp(g, 1, (int64_t[]){8}, AY_F32), ay_div(g, x, root));
}

static ay_val rms_pow_half(ay_graph *g, ay_val x) {
    ay_val root = ay_binary(g, AY_OP_POW, ay_adds(g, mean_div(g, ay_mul(g, x, x)), 1e-3), scalar(g, -0.5));
    return ay_mul(g, root, x);
}

/* T5 in a half-precision program: the norm in float32, the weight in half */
static ay_val rms_casts(ay_graph *g, ay_val x) {
    ay_val h = ay_cast(g, x, AY_F16), f = ay_cast(g, h, AY_F32);
    ay_val n = ay_mul(g, f, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean_div(g, ay_mul(g, f, f)), 1e-3)));
    ay_val w = ay_const_data(g, ay_shape(AY_F16, 1, 8),
                             (uint16_t[]){0x3c00, 0x3800, 0x4000, 0x3c00, 0x3c00, 0x4200, 0xb800, 0x3c00});
    return ay_cast(g, ay_mul(g, ay_cast(g, n, AY_F16), w), AY_F32);
}

static ay_val layer_twice(ay_graph *g, ay_val x) { /* x - mean(x) written twice, weight and bias [1, 1, 8] */
    ay_val a = ay_sub(g, x, mean_div(g, x)), m = mean_div(g, x), b = ay_sub(g, x, m);
    a = ay_sub(g, x, m);
    ay_val y = ay_div(g, a, ay_unary(g, AY_OP_SQRT, ay_adds(g, mean_div(g, pow2(g, b)), 1e-3)));
    y = ay_mul(g, y, ramp(g, 3, (int64_t[]){1, 1, 8}, AY_F32));
    return ay_add(g, ramp(g, 3, (int64_t[]){1, 1, 8}, AY_F32), y);
}

/* as MIL's own group norm: a view of rank 5, layer norm over the last three */
static ay_val group_view5(ay_graph *g, ay_val x) {
    ay_val image = ay_reshape(g, x, 4, 2, 6, 4, 2), view = ay_reshape(g, image, 5, 2, 3, 2, 4, 2);
    ay_attr a = {.reduce = {.n = 3, .axes = {2, 3, 4}, .keep = true}};
    ay_val m = ay_muls(g, ay_node_add(g, AY_OP_SUM, &view, 1, &a, NULL), 1.0 / 16), d = ay_sub(g, view, m),
           sq = ay_mul(g, d, d);
    ay_val var = ay_muls(g, ay_node_add(g, AY_OP_SUM, &sq, 1, &a, NULL), 1.0 / 16);
    ay_val y = ay_mul(g, d, ay_unary(g, AY_OP_RSQRT, ay_adds(g, var, 1e-3)));
    y = ay_mul(g, ay_reshape(g, y, 4, 2, 6, 4, 2), ramp(g, 4, (int64_t[]){1, 6, 1, 1}, AY_F32));
    return ay_add(g, y, ramp(g, 3, (int64_t[]){6, 1, 1}, AY_F32));
}

static ay_val sdpa_product(ay_graph *g, ay_val x) { /* scale on the product, a mask added, k permuted */
    float m[36];
    for (int i = 0; i < 36; i++) m[i] = i % 7 == 3 ? -3.0e4f : 0.25f * (float)(i % 3);
    ay_val mask = ay_const_data(g, ay_shape(AY_F32, 2, 6, 6), m);
    ay_val logits = ay_div(g, ay_matmul(g, x, ay_permute(g, x, 3, 0, 2, 1), false, false), scalar(g, 4));
    return ay_matmul(g, ay_softmax(g, ay_add(g, mask, logits), -1), x, false, false);
}

static ay_val sdpa_both(ay_graph *g, ay_val x) { /* the root of the scale on q and on k, as torch does it */
    ay_val q = ay_muls(g, x, 0.5), k = ay_muls(g, x, 0.5);
    return ay_matmul(g, ay_softmax(g, ay_matmul(g, q, k, false, true), 2), x, false, false);
}

static ay_val angle(ay_graph *g, ay_op op) {
    float v[48];
    for (int i = 0; i < 48; i++) v[i] = 0.1f * (float)i;
    return ay_unary(g, op, ay_const_data(g, ay_shape(AY_F32, 2, 6, 8), v));
}

/* diffusers' apply_rotary_emb with unbind_dim -1: split, squeeze, negate, stack, flatten */
static ay_val rope_stack(ay_graph *g, ay_val x) {
    ay_val pairs = ay_reshape(g, x, 4, 2, 6, 4, 2);
    ay_val re = ay_reshape(g, ay_slice(g, pairs, 3, 0, 1), 3, 2, 6, 4),
           im = ay_reshape(g, ay_slice(g, pairs, 3, 1, 2), 3, 2, 6, 4);
    im = ay_muls(g, im, -1);
    ay_val stack = ay_concat(g, 3, 2, ay_reshape(g, im, 4, 2, 6, 4, 1), ay_reshape(g, re, 4, 2, 6, 4, 1));
    ay_val rot = ay_mul(g, ay_reshape(g, stack, 3, 2, 6, 8), angle(g, AY_OP_SIN));
    return ay_add(g, ay_mul(g, x, angle(g, AY_OP_COS)), rot);
}

static ay_val rope_halves(ay_graph *g, ay_val x) { /* transformers' rotate_half */
    ay_val a = ay_slice(g, x, -1, 0, 4), b = ay_slice(g, x, -1, 4, 8);
    ay_val rot = ay_concat(g, 2, 2, ay_sub(g, scalar(g, 0), b), a);
    return ay_add(g, ay_mul(g, angle(g, AY_OP_SIN), rot), ay_mul(g, x, angle(g, AY_OP_COS)));
}

static ay_val gelu_last_half(ay_graph *g, ay_val x) { /* (x * (1 + erf(x / sqrt 2))) * 0.5 */
    ay_val e = ay_adds(g, ay_unary(g, AY_OP_ERF, ay_div(g, x, scalar(g, sqrt(2)))), 1);
    return ay_muls(g, ay_mul(g, x, e), 0.5);
}

static ay_val gelu_tanh_pow(ay_graph *g, ay_val x) {
    ay_val cube = ay_binary(g, AY_OP_POW, x, scalar(g, 3));
    ay_val in = ay_muls(g, ay_add(g, ay_muls(g, cube, 0.044715), x), 0.7978845608028654);
    return ay_mul(g, x, ay_muls(g, ay_adds(g, ay_unary(g, AY_OP_TANH, in), 1), 0.5));
}

static ay_val gelu_quick(ay_graph *g, ay_val x) { return ay_mul(g, ay_unary(g, AY_OP_SIGMOID, ay_muls(g, x, 1.702)), x); }

static ay_val silu_plain(ay_graph *g, ay_val x) { return ay_mul(g, ay_unary(g, AY_OP_SIGMOID, x), x); }

static ay_val linear_1n(ay_graph *g, ay_val x) { /* bias stored as [1, 1, 4] */
    return ay_add(g, ay_matmul(g, x, ramp(g, 2, (int64_t[]){4, 8}, AY_F32), false, true),
                  ramp(g, 3, (int64_t[]){1, 1, 4}, AY_F32));
}

/* ---- what only looks like one: must stay without the composite ----------------------------------------------------- */

static ay_val not_rms_axis(ay_graph *g, ay_val x) {
    ay_val m = ay_muls(g, ay_reduce(g, AY_OP_SUM, ay_mul(g, x, x), 1, true), 1.0 / 6);
    return ay_mul(g, x, ay_unary(g, AY_OP_RSQRT, ay_adds(g, m, 1e-3)));
}

static ay_val not_rms_count(ay_graph *g, ay_val x) {
    ay_val m = ay_muls(g, ay_reduce(g, AY_OP_SUM, ay_mul(g, x, x), -1, true), 1.0 / 9);
    return ay_mul(g, x, ay_unary(g, AY_OP_RSQRT, ay_adds(g, m, 1e-3)));
}

static ay_val not_rms_other(ay_graph *g, ay_val x) { /* the root of another tensor's mean */
    ay_val y = ay_unary(g, AY_OP_TANH, x);
    return ay_mul(g, x, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean_div(g, ay_mul(g, y, y)), 1e-3)));
}

static ay_val not_layer_other(ay_graph *g, ay_val x) { /* variance about another mean */
    ay_val d = ay_sub(g, x, mean_div(g, x)), e = ay_sub(g, x, mean_div(g, ay_unary(g, AY_OP_TANH, x)));
    return ay_mul(g, d, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean_div(g, ay_mul(g, e, e)), 1e-3)));
}

static ay_val not_gelu(ay_graph *g, ay_val x) {
    return ay_muls(g, ay_mul(g, x, ay_adds(g, ay_unary(g, AY_OP_ERF, ay_muls(g, x, 0.72)), 1)), 0.5);
}

static ay_val not_rope_sign(ay_graph *g, ay_val x) { /* the first half negated, not the second */
    ay_val rot = ay_concat(g, 2, 2, ay_slice(g, x, -1, 4, 8), ay_muls(g, ay_slice(g, x, -1, 0, 4), -1));
    return ay_add(g, ay_mul(g, rot, angle(g, AY_OP_SIN)), ay_mul(g, x, angle(g, AY_OP_COS)));
}

static ay_val not_rope_other(ay_graph *g, ay_val x) { /* turns one tensor, adds to another */
    ay_val y = ay_unary(g, AY_OP_TANH, x);
    ay_val rot = ay_concat(g, 2, 2, ay_muls(g, ay_slice(g, x, -1, 4, 8), -1), ay_slice(g, x, -1, 0, 4));
    return ay_add(g, ay_mul(g, rot, angle(g, AY_OP_SIN)), ay_mul(g, y, angle(g, AY_OP_COS)));
}

static ay_val not_silu(ay_graph *g, ay_val x) {
    return ay_mul(g, ay_unary(g, AY_OP_TANH, x), ay_unary(g, AY_OP_SIGMOID, x));
}

static ay_val not_group(ay_graph *g, ay_val x) { /* the layer norm's view is [12, 8], then another shape */
    return ay_reshape(g, ay_layer_norm(g, ay_reshape(g, x, 3, 4, 3, 8), AY_NO_VALUE, AY_NO_VALUE, 1e-3), 3, 2, 6, 8);
}

static ay_val not_weight(ay_graph *g, ay_val x) { /* modulation, not a stored weight */
    ay_val n = ay_mul(g, x, ay_unary(g, AY_OP_RSQRT, ay_adds(g, mean_div(g, ay_mul(g, x, x)), 1e-3)));
    return ay_mul(g, n, ay_reshape(g, ay_slice(g, ay_slice(g, x, 0, 0, 1), 1, 0, 1), 1, 8));
}

static ay_val not_sdpa_axis(ay_graph *g, ay_val x) {
    return ay_matmul(g, ay_softmax(g, ay_matmul(g, x, x, false, true), 1), x, false, false);
}

static const struct { ay_val (*build)(ay_graph *g, ay_val x); ay_op op; bool found; double tol;
} forms[] = {
    {rms_div_sqrt, AY_OP_RMS_NORM, true, 2e-6},
    {rms_pow_half, AY_OP_RMS_NORM, true, 2e-6},
    {rms_casts, AY_OP_RMS_NORM, true, 2e-3},
    {layer_twice, AY_OP_LAYER_NORM, true, 5e-6},
    {group_view5, AY_OP_GROUP_NORM, true, 5e-6},
    {sdpa_product, AY_OP_SDPA, true, 2e-6},
    {sdpa_both, AY_OP_SDPA, true, 2e-6},
    {rope_stack, AY_OP_ROPE, true, 2e-6},
    {rope_halves, AY_OP_ROPE, true, 2e-6},
    {gelu_last_half, AY_OP_GELU, true, 2e-6},
    {gelu_tanh_pow, AY_OP_GELU, true, 2e-6},
    {gelu_quick, AY_OP_GELU, true, 2e-6},
    {silu_plain, AY_OP_SILU, true, 2e-6},
    {linear_1n, AY_OP_LINEAR, true, 2e-6},
    {not_rms_axis, AY_OP_RMS_NORM, false, 2e-6},
    {not_rms_count, AY_OP_RMS_NORM, false, 2e-6},
    {not_gelu, AY_OP_GELU, false, 2e-6},
    {not_rms_other, AY_OP_RMS_NORM, false, 2e-6},
    {not_layer_other, AY_OP_LAYER_NORM, false, 2e-6},
    {not_rope_sign, AY_OP_ROPE, false, 2e-6},
    {not_rope_other, AY_OP_ROPE, false, 2e-6},
    {not_silu, AY_OP_SILU, false, 2e-6},
    {not_group, AY_OP_GROUP_NORM, false, 2e-6},
    {not_sdpa_axis, AY_OP_SDPA, false, 2e-6},
};

static void test_forms(void **state) {
    float x[96], before[192], after[192];
    for (int i = 0; i < 96; i++) x[i] = (float)((i * 37 + 11) % 64) / 16 - 2;
    for (size_t k = 0; k < sizeof forms / sizeof forms[0]; k++) {
        ay_graph *g = ay_graph_new(cx);
        ay_push(g, "form%d", (int)k);
        ay_val y = forms[k].build(g, ay_input(g, "x", ay_shape(AY_F32, 3, 2, 6, 8)));
        ay_set_output(g, "y", y);
        if (ay_graph_verify(g)) fail_msg("form %zu: %s", k, ay_error_text(cx));
        ay_tensor in = {"x", ay_shape(AY_F32, 3, 2, 6, 8), x}, out = {"y", *ay_type_of(g, y), before};
        assert_int_equal(ay_eval(g, &in, 1, &out, 1, false, NULL), ALLOY_OK);
        const ay_pass passes[] = {{"fold", ay_pass_fold, NULL}, {"raise", ay_pass_raise, NULL}};
        if (ay_passes_run(g, passes, 2)) fail_msg("form %zu: %s", k, ay_error_text(cx));
        out.data = after;
        assert_int_equal(ay_eval(g, &in, 1, &out, 1, false, NULL), ALLOY_OK);
        if (count_op(g, (int)forms[k].op) != (int)forms[k].found || (forms[k].found && count_op(g, -1) != 1)) {
            ay_buf text = {0};
            ay_graph_print(g, &text);
            fail_msg("form %zu: %s %s in\n%s", k, ay_op_get(forms[k].op)->name,
                     forms[k].found ? "was not found" : "was found", text.data);
        }
        for (int64_t i = 0; i < ay_type_count(&out.type); i++) {
            if (fabs((double)after[i] - before[i]) > forms[k].tol * fmax(1, fabs((double)before[i]))) {
                fail_msg("form %zu, element %d: %g became %g", k, (int)i, (double)before[i], (double)after[i]);
            }
        }
        ay_graph_free(g);
    }
}

/* A norm scaled by activations becomes a norm without weight. */
static void test_modulation(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_set_output(g, "y", not_weight(g, ay_input(g, "x", ay_shape(AY_F32, 3, 2, 6, 8))));
    assert_int_equal(ay_pass_raise(g, NULL), ALLOY_OK);
    assert_int_equal(count_op(g, AY_OP_RMS_NORM), 1);
    for (int i = 0; i < g->n_nodes; i++) assert_true(g->nodes[i].op != AY_OP_RMS_NORM || g->nodes[i].n_in == 1);
    ay_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_modulation)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
