/* SPDX-License-Identifier: MIT
 *
 * Lowering: every golden case of a composite, taken apart, still gives torch's numbers and holds no composite; what the rule
 * keeps stays whole, also inside another composite's lowering.
 */
#include "../support/golden_ops.h"
#include "pass/pass.h"

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

static void test_golden(void **state) {
    FILE *f = fopen(GOLDEN_OPS, "r");
    assert_non_null(f);
    golden c = {0};
    int wrong = 0, seen = 0;
    const ay_pass passes[] = {{"lower", ay_pass_lower, NULL}, {"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL}};
    while (golden_next(f, &c)) {
        if (ay_op_get(c.op)->cls == AY_CLASS_COMPOSITE) {
            ay_graph *g = golden_graph(cx, &c);
            void *got = NULL;
            if (ay_passes_run(g, passes, 3) || golden_eval(g, &c, &got))
                fail_msg("case %d: %s", c.number, ay_error_text(cx));
            assert_int_equal(count_op(g, -1), 0);
            wrong += !golden_equal(&c, got, 3e-6);
            seen++;
            free(got);
            ay_graph_free(g);
        }
        golden_free(&c);
    }
    fclose(f);
    assert_int_equal(wrong, 0);
    assert_true(seen > 40);
}

static bool keep_softmax(const ay_lower_rule *rule, const ay_graph *g, const ay_node *n) {
    assert_non_null(ay_type_of(g, n->in[0]));
    return n->op == AY_OP_SOFTMAX || n->op == AY_OP_LAYER_NORM;
}

static void test_keeps(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_push(g, "top");
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 3, 2, 4, 8));
    ay_val y = ay_sdpa(g, x, x, x, AY_NO_VALUE, 0.5);
    y = ay_group_norm(g, y, 2, AY_NO_VALUE, AY_NO_VALUE, 1e-5);
    ay_set_output(g, "y", ay_unary(g, AY_OP_SILU, y));
    ay_lower_rule rule = {keep_softmax, NULL};
    const ay_pass pass = {"lower", ay_pass_lower, &rule};
    if (ay_passes_run(g, &pass, 1)) fail_msg("%s", ay_error_text(cx));
    assert_int_equal(count_op(g, -1), 2);
    assert_int_equal(count_op(g, AY_OP_SOFTMAX), 1);
    assert_int_equal(count_op(g, AY_OP_LAYER_NORM), 1);
    assert_string_equal(g->nodes[g->n_nodes - 1].scope, "top");
    ay_graph_free(g);
}

/* Half-precision graphs get half constants. */
static void test_half(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F16, 3, 2, 4, 8)), keep = ay_input(g, "keep", ay_shape(AY_BOOL, 2, 4, 4));
    ay_val y = ay_rms_norm(g, ay_sdpa(g, x, x, x, keep, 0.5), AY_NO_VALUE, 1e-5);
    ay_attr up = {.upsample = {.fh = 2, .fw = 3, .bilinear = true}};
    ay_set_output(g, "y", ay_node_add(g, AY_OP_UPSAMPLE, &y, 1, &up, NULL));
    const ay_pass pass = {"lower", ay_pass_lower, NULL};
    if (ay_passes_run(g, &pass, 1)) fail_msg("%s", ay_error_text(cx));
    for (int i = 0; i < g->n_nodes; i++) assert_int_not_equal(g->nodes[i].type.dtype, AY_F32);
    ay_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_keeps),
                                       cmocka_unit_test(test_half)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
