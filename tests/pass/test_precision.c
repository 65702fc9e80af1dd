/* SPDX-License-Identifier: MIT
 *
 * Typing for half precision: what becomes float16, what a rule keeps, where casts stand and that they are shared, how
 * parameters and consts are stored, and that the result is that of the float32 graph up to half's rounding.
 */
#include "../support/random_graph.h"
#include "base/half.h"
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

static int count(const ay_graph *g, ay_op op, ay_dtype t) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) n += g->nodes[i].op == op && g->nodes[i].type.dtype == t;
    return n;
}

static const ay_node *named(const ay_graph *g, const char *name) {
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].name && strcmp(g->nodes[i].name, name) == 0) return &g->nodes[i];
    }
    fail_msg("no node \"%s\"", name);
    return NULL;
}

static void run(ay_graph *g, const ay_precision *how) {
    const ay_pass pass = {"precision", ay_pass_precision, (void *)how};
    if (ay_passes_run(g, &pass, 1)) fail_msg("%s", ay_error_text(cx));
}

/* x, time -> a T5-like feed-forward beside a normal one, sharing one parameter */
static ay_graph *network(float *weights) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 3, 8)), t = ay_input(g, "time", ay_shape(AY_F32, 1, 3));
    ay_val ids = ay_input(g, "ids", ay_shape(AY_I32, 1, 3));
    ay_val table = ay_param(g, "table", ay_shape(AY_F32, 2, 5, 8)), shared = ay_param(g, "shared", ay_shape(AY_F32, 1, 8));
    x = ay_add(g, x, ay_gather(g, table, ids, 0));
    ay_push(g, "block.0.ff");
    ay_val h = ay_mul(g, ay_linear_layer(g, "wi", x, 8, true), shared);
    h = ay_reshape(g, ay_linear_layer(g, "wo", h, 8, false), 2, 8, 3);
    h = ay_reshape(g, h, 2, 3, 8);
    ay_pop(g);
    x = ay_add(g, x, h);
    x = ay_sub(g, x, ay_muls(g, h, 0.5)); /* h is cast back once for both */
    ay_val angle = ay_mul(g, ay_reshape(g, t, 2, 3, 1), ay_const_f32(g, 0.1));
    x = ay_add(g, ay_mul(g, x, shared), ay_unary(g, AY_OP_SIN, angle));
    x = ay_where(g, ay_binary(g, AY_OP_GT, x, ay_const_f32(g, 0)), x, ay_muls(g, x, 0.25));
    ay_set_output(g, "y", x);
    ay_set_output(g, "h", h);
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op == AY_OP_PARAM) g->nodes[i].weight->data = weights;
    }
    return g;
}

static const ay_precision_rule keep_ff[] = {
    {"*.ff.wo", AY_OP_COUNT, AY_F32, "test"}, {"block.*.ff", AY_OP_MUL, AY_F32, "test"}, {0}};

static void test_types(void **state) {
    float w[64] = {0};
    const char *const time[] = {"time", NULL};
    ay_precision how = {keep_ff, false, time};
    ay_graph *g = network(w);
    run(g, &how);
    assert_int_equal(named(g, "x")->type.dtype, AY_F16);
    assert_int_equal(named(g, "time")->type.dtype, AY_F32);
    assert_int_equal(named(g, "ids")->type.dtype, AY_I32);
    assert_int_equal(named(g, "table")->type.dtype, AY_F16);
    assert_int_equal(named(g, "table")->weight->data_dtype, AY_F16);
    assert_int_equal(named(g, "block.0.ff.wi.weight")->type.dtype, AY_F16);
    assert_int_equal(named(g, "block.0.ff.wo.weight")->type.dtype, AY_F16); /* a float32 product's weight stays half */
    assert_int_equal(named(g, "block.0.ff.wo.weight")->weight->data_dtype, AY_F16);
    assert_int_equal(named(g, "shared")->type.dtype, AY_F16); /* both read it: stored half, cast */
    assert_int_equal(count(g, AY_OP_LINEAR, AY_F32), 1);
    assert_int_equal(count(g, AY_OP_LINEAR, AY_F16), 1);
    assert_int_equal(count(g, AY_OP_RESHAPE, AY_F32), 3); /* two behind wo, one of the float32 time */
    assert_int_equal(count(g, AY_OP_CAST, AY_F32), 2); /* wi's result and `shared` into the product */
    assert_int_equal(count(g, AY_OP_CAST, AY_F16), 2); /* h back, once; time where the product reads it */
    assert_int_equal(g->nodes[g->outputs[1].value].type.dtype, AY_F32);
    ay_graph_free(g);
    how.io_f32 = true;
    g = network(w);
    run(g, &how);
    assert_int_equal(named(g, "x")->type.dtype, AY_F32);
    assert_int_equal(g->nodes[g->outputs[0].value].type.dtype, AY_F32);
    ay_graph_free(g);
}

static void evaluate(const ay_graph *g, bool half, float *y, int64_t *overflows) {
    float x[24], t[3] = {1, 100, 900};
    int32_t ids[3] = {4, 0, 2};
    for (int i = 0; i < 24; i++) x[i] = (float)(i % 7) / 3 - 1;
    ay_tensor in[] = {
        {"x", ay_shape(AY_F32, 2, 3, 8), x}, {"time", ay_shape(AY_F32, 1, 3), t}, {"ids", ay_shape(AY_I32, 1, 3), ids}};
    ay_tensor out = {"y", ay_shape(AY_F32, 2, 3, 8), y};
    if (ay_eval(g, in, 3, &out, 1, half, overflows)) fail_msg("%s", ay_error_text(cx));
}

/* Bound weights are converted, and the result is the float32 graph's up to half's rounding. */
static void test_values(void **state) {
    float w[64], full[24], half[24];
    for (int i = 0; i < 64; i++) w[i] = (float)((i * 29) % 64) / 40 - 0.8f;
    ay_graph *g = network(w);
    int64_t overflows;
    evaluate(g, false, full, NULL);
    const char *const time[] = {"time", NULL};
    ay_precision how = {keep_ff, false, time};
    run(g, &how);
    evaluate(g, true, half, &overflows);
    assert_int_equal(overflows, 0);
    double worst = 0, size = 0;
    for (int i = 0; i < 24; i++)
        worst = fmax(worst, fabs((double)half[i] - full[i])), size = fmax(size, fabs((double)full[i]));
    if (worst > 4e-3 * size || worst == 0) fail_msg("off by %g of %g", worst, size);
    ay_graph_free(g);
}

/* A feed-forward whose middle leaves half's range overflows without the rule and passes with it; consts beyond half's range
 * become its largest number. */
static void test_overflow(void **state) {
    float w[64], up[64], down[64], y[24];
    for (int i = 0; i < 64; i++) w[i] = 0.4f * (float)((i * 29) % 64) - 8, up[i] = 40 * w[i], down[i] = 1e-6f * w[i];
    for (int ruled = 0; ruled < 2; ruled++) {
        ay_graph *g = network(w);
        int64_t overflows;
        for (int i = 0; i < g->n_nodes; i++) {
            const char *name = g->nodes[i].name;
            if (name && strstr(name, "wi.weight")) g->nodes[i].weight->data = up;
            if (name && strstr(name, "wo.weight")) g->nodes[i].weight->data = down;
        }
        ay_set_output(g, "z", ay_mul(g, g->outputs[0].value, ay_const_f32(g, 3e38)));
        const char *const time[] = {"time", NULL};
        const ay_precision how = {ruled ? keep_ff : NULL, false, time};
        run(g, &how);
        evaluate(g, true, y, &overflows);
        if (ruled != (overflows == 0)) fail_msg("%d overflows %s the rule", (int)overflows, ruled ? "with" : "without");
        for (int i = 0; i < g->n_nodes; i++) {
            uint16_t v;
            if (g->nodes[i].op != AY_OP_CONST || g->nodes[i].type.dtype != AY_F16) continue;
            memcpy(&v, g->nodes[i].data, 2);
            assert_true(isfinite(ay_f16_to_f32(v)));
        }
        ay_graph_free(g);
    }
}

/* Unbound and compressed weights change their types only. */
static void test_storage(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 1, 8));
    ay_set_output(g, "y", ay_linear_layer(g, "a", ay_linear_layer(g, "b", x, 8, false), 8, false));
    ay_weight *w = g->nodes[1].weight;
    assert_string_equal(g->nodes[1].name, "b.weight");
    float scale[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    w->store = AY_STORE_BLOCK;
    w->data_dtype = AY_I8;
    w->scale_dtype = AY_F32;
    w->scale_dim[0] = 8;
    w->scale_dim[1] = 1;
    w->scale = scale;
    run(g, NULL);
    const ay_weight *a = named(g, "a.weight")->weight, *b = named(g, "b.weight")->weight;
    assert_true(a->value_dtype == AY_F16 && a->data_dtype == AY_F16 && !a->data);
    assert_true(b->value_dtype == AY_F16 && b->data_dtype == AY_I8 && b->scale_dtype == AY_F16);
    assert_int_equal(((const uint16_t *)b->scale)[2], ay_f32_to_f16(3));
    ay_graph_free(g);
}

static void test_random(void **state) {
    static const ay_precision_rule rules[] = {
        {"s1", AY_OP_COUNT, AY_F32, "test"}, {"*2", AY_OP_LINEAR, AY_F32, "test"}, {0}};
    const char *const names[] = {"b", NULL};
    const ay_precision how[] = {{NULL, true, NULL}, {rules, false, names}, {rules, true, NULL}};
    int judged = 0;
    for (int seed = 0; seed < 200; seed++) {
        uint8_t bytes[400];
        uint64_t s = (uint64_t)seed * 0x9E3779B97F4A7C15u + 7;
        for (size_t i = 0; i < sizeof bytes; i++) s ^= s << 13, s ^= s >> 7, s ^= s << 17, bytes[i] = (uint8_t)(s >> 32);
        random_graph r;
        void *before[3], *after[3];
        assert_true(random_graph_make(cx, bytes, sizeof bytes, true, &r));
        alloy_status st = random_graph_eval(&r, r.g, before);
        for (int k = 0; k < 3; k++) {
            ay_graph *g = ay_graph_clone(r.g);
            run(g, &how[k]);
            assert_int_equal(random_graph_eval(&r, g, after), st); /* not rounded: only consts and weights are half */
            if (!st && !random_graph_equal(&r, before, after, 2e-2)) fail_msg("seed %d, %d", seed, k);
            judged += !st;
            random_graph_free_data(after);
            ay_graph_free(g);
        }
        random_graph_free_data(before);
        ay_graph_free(r.g);
    }
    assert_true(judged > 300);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_types), cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_overflow), cmocka_unit_test(test_storage),
                                       cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
