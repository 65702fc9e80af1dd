/* SPDX-License-Identifier: MIT
 *
 * The same computation built in another order becomes the same graph, and nothing but the order changes.
 */
#include "../support/support.h"
#include "pass/pass.h"

#include <string.h>

/* y = (a + b) * tanh(a), z = b - 1, with the operands made first to last or last to first, and a dead node */
static ay_graph *build(ay_ctx *cx, bool backwards) {
    ay_graph *g = ay_graph_new(cx);
    ay_val a = ay_input(g, "a", ay_shape(AY_F32, 1, 3)), b = ay_input(g, "b", ay_shape(AY_F32, 1, 3)), sum, tanh;
    if (backwards) {
        ay_unary(g, AY_OP_EXP, b);
        ay_val less = ay_adds(g, b, -1);
        tanh = ay_unary(g, AY_OP_TANH, a);
        sum = ay_add(g, a, b);
        ay_set_output(g, "y", ay_mul(g, sum, tanh));
        ay_set_output(g, "z", less);
    } else {
        sum = ay_add(g, a, b);
        tanh = ay_unary(g, AY_OP_TANH, a);
        ay_set_output(g, "y", ay_mul(g, sum, tanh));
        ay_set_output(g, "z", ay_adds(g, b, -1));
    }
    return g;
}

static void test_order(void **state) {
    ay_test *t = *state;
    ay_buf text[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        ay_graph *g = build(t->cx, i == 1);
        assert_ok(t->cx, ay_pass_order(g, NULL));
        assert_ok(t->cx, ay_graph_verify(g));
        ay_graph_print(g, &text[i]);
        float a[3] = {1, 2, 3}, b[3] = {4, 5, 6}, y[3], z[3];
        ay_type type = ay_shape(AY_F32, 1, 3);
        ay_tensor in[2] = {{"a", type, a}, {"b", type, b}}, out[2] = {{"y", type, y}, {"z", type, z}};
        assert_ok(t->cx, ay_eval(g, in, 2, out, 2, false, NULL));
        assert_float_equal(z[2], 5, 0);
        assert_float_equal(y[0], 5 * 0.76159416f, 1e-5);
        ay_graph_free(g);
    }
    assert_string_equal(text[0].data, text[1].data);
    ay_buf_free(&text[0]);
    ay_buf_free(&text[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
