/* SPDX-License-Identifier: MIT
 *
 * Packages that coremltools made of traced torch modules (tests/reference/traced.py): their attention, norms, rotary
 * embeddings and activations are found again as composites, nothing of what they were taken apart into is left, and the
 * numbers are torch's.
 */
#include "../support/support.h"

#include "coreml/coreml.h"
#include "cpu/cpu.h"
#include "io/io.h"
#include "pass/pass.h"

#include <math.h>
#include <stdlib.h>

static int count(const ay_graph *g, ay_op op) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) n += g->nodes[i].op == op;
    return n;
}

static void check_raised(ay_graph *g) {
    static const ay_pass passes[] = {{"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL}, {"dce", ay_pass_dce, NULL},
                                     {"raise", ay_pass_raise, NULL}, {"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL},
                                     {"dce", ay_pass_dce, NULL}};
    static const ay_op gone[] = {AY_OP_MATMUL, AY_OP_SOFTMAX, AY_OP_EXP, AY_OP_SUM, AY_OP_RSQRT, AY_OP_SQRT, AY_OP_ERF,
                                 AY_OP_TANH, AY_OP_SIGMOID, AY_OP_EXPAND, AY_OP_POW};
    static const struct { ay_op op; int least; } found[] = {{AY_OP_SDPA, 9}, {AY_OP_ROPE, 2}, {AY_OP_RMS_NORM, 2},
                                                           {AY_OP_LAYER_NORM, 1}, {AY_OP_GROUP_NORM, 1}, {AY_OP_GELU, 3},
                                                           {AY_OP_UPSAMPLE, 1}, {AY_OP_SILU, 2}, {AY_OP_LINEAR, 6}};
    assert_int_equal(ay_passes_run(g, passes, (int)(sizeof passes / sizeof *passes)), ALLOY_OK);
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        if (count(g, gone[i])) fail_msg("%d x %s are left", count(g, gone[i]), ay_op_get(gone[i])->name);
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        if (count(g, found[i].op) < found[i].least)
            fail_msg("%d x %s, expected %d", count(g, found[i].op), ay_op_get(found[i].op)->name, found[i].least);
}

static double error_of(const float *got, const float *want, int64_t n) {
    double e = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        e += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += (double)want[i] * want[i];
    }
    return sqrt(e / size);
}

static void run_package(ay_test *t, const char *name, double tol) {
    ay_package *p = NULL;
    ay_graph *g = NULL;
    ay_program *program = NULL;
    ay_safetensors *values = NULL;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, "traced/values.safetensors"), &values));
    assert_ok(t->cx, ay_package_open(t->cx, ay_test_golden(t, ay_sprintf(t->arena, "traced/%s.mlpackage", name)), &p));
    assert_ok(t->cx, ay_package_graph(p, NULL, &g));
    assert_ok(t->cx, ay_cpu_compile(t->cx, g, NULL, &program));
    ay_tensor in[16], out[64];
    int n_in = 0, n_out = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_INPUT) continue;
        const ay_st_tensor *v = ay_st_find(values, n->name);
        assert_non_null(v);
        in[n_in++] = (ay_tensor){n->name, v->type, (void *)(uintptr_t)ay_st_data(values, v)};
    }
    for (int i = 0; i < g->n_outputs; i++) {
        ay_type type = *ay_type_of(g, g->outputs[i].value);
        type.dtype = AY_F32;
        out[n_out++] = (ay_tensor){g->outputs[i].name, type, ay_alloc(t->arena, (size_t)ay_type_count(&type) * 4)};
    }
    assert_ok(t->cx, ay_program_run(t->cx, program, in, n_in, out, n_out));
    for (int i = 0; i < n_out; i++) {
        const ay_st_tensor *v = ay_st_find(values, out[i].name);
        assert_non_null(v);
        float *want = ay_alloc(t->arena, (size_t)ay_type_count(&out[i].type) * 4);
        ay_convert_to_f32(v->type.dtype, ay_st_data(values, v), 0, ay_type_count(&out[i].type), want);
        double e = error_of(out[i].data, want, ay_type_count(&out[i].type));
        if (!(e <= tol)) fail_msg("%s: %s is off by %g", name, out[i].name, e);
    }
    assert_true(n_out > 15);
    check_raised(g);
    ay_program_free(&program);
    ay_graph_free(g);
    ay_package_close(&p);
    ay_st_close(&values);
}

static void test_float(void **state) { run_package(*state, "traced17", 1e-5); }
static void test_half(void **state) { run_package(*state, "traced18", 2e-3); }

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_float), AY_TEST(test_half)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
