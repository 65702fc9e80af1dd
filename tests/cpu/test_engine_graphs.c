/* SPDX-License-Identifier: MIT
 *
 * Whole graphs through the engine, fused and as they are, against the reference evaluator: at every instruction-set level,
 * bit-identical for 1, 2 and 3 threads, with a memory plan in which no two live values overlap.
 */
#include "../support/engine_graphs.h"
#include "base/isa.h"
#include "cpu/plan.h"

#include <stdlib.h>
#include <string.h>

enum { N_THREADS = 3 };
static ay_ctx *cxs[N_THREADS];

static int open_all(void **state) {
    for (int i = 0; i < N_THREADS; i++)
        if (ay_ctx_open(i + 1, &cxs[i])) return 1;
    return 0;
}

static int close_all(void **state) {
    for (int i = 0; i < N_THREADS; i++) ay_ctx_close(&cxs[i]);
    return 0;
}

static void clear(graph_case *c) {
    for (int i = 0; i < c->n_out; i++) memset(c->out[i].data, 0xff, (size_t)ay_type_count(&c->out[i].type) * 4);
}

static uint64_t digest(const graph_case *c) {
    uint64_t h = 0;
    for (int i = 0; i < c->n_out; i++) h = ay_test_digest(h, c->out[i].data, (size_t)ay_type_count(&c->out[i].type));
    return h;
}

/* Compiles and runs twice (a program may be run again); returns the error. */
static double run_case(ay_ctx *cx, graph_case *c, const ay_compile_opts *o, int64_t *overflows) {
    ay_program *p = NULL;
    assert_ok(cx, ay_cpu_compile(cx, c->g, o, &p));
    if (!ay_plan_memory_ok(p)) fail_msg("two live values overlap");
    size_t sum = 0;
    for (int i = 0; i < p->n_bufs; i++) sum += p->bufs[i].home == AY_HOME_FIXED ? 0 : p->bufs[i].bytes + 64;
    assert_true(p->slab_bytes <= sum);
    assert_true(ay_program_peak(p) >= p->slab_bytes);
    memset(p->slab, 0xff, p->slab_bytes);
    clear(c);
    assert_ok(cx, ay_program_run(cx, p, c->in, c->n_in, c->out, c->n_out));
    uint64_t first = digest(c);
    assert_ok(cx, ay_program_run(cx, p, c->in, c->n_in, c->out, c->n_out));
    assert_true(first == digest(c));
    if (overflows) *overflows = ay_program_overflows(p);
    ay_program_free(&p);
    return graph_case_error(c);
}

static void check(graph_fn make, const char *name, int seeds, double tol) {
    static const ay_compile_opts fused = {0}, plain = {.keep_as_is = true};
    int best = cxs[0]->isa;
    if (getenv("ALLOY_TEST_SEEDS")) seeds = atoi(getenv("ALLOY_TEST_SEEDS")); /* more than a test run should take */
    for (int seed = 1; seed <= seeds; seed++) {
        graph_case c;
        graph_case_make(&c, cxs[0], make, (uint64_t)seed, AY_F32, false, NULL);
        for (int isa = 0; isa < AY_ISA_COUNT; isa++) {
            if (isa > best || !ay_isa_runs((ay_isa)isa)) continue;
            uint64_t one = 0;
            for (int t = 0; t < N_THREADS; t++) {
                cxs[t]->isa = isa;
                double e = run_case(cxs[t], &c, &fused, NULL);
                if (!(e <= tol)) fail_msg("%s, seed %d, %s: fused is off by %g", name, seed, ay_isa_name((ay_isa)isa), e);
                if (t == 0) one = digest(&c);
                else if (one != digest(&c))
                    fail_msg("%s, seed %d, %s: %d threads give other bits", name, seed, ay_isa_name((ay_isa)isa), t + 1);
            }
            double e = run_case(cxs[0], &c, &plain, NULL);
            if (!(e <= tol)) fail_msg("%s, seed %d, %s: plain is off by %g", name, seed, ay_isa_name((ay_isa)isa), e);
        }
        for (int t = 0; t < N_THREADS; t++) cxs[t]->isa = best;
        graph_case_free(&c);
    }
}

static void test_joint(void **state) { check(graph_joint_blocks, "joint blocks", 12, 1e-5); }
static void test_encoder(void **state) { check(graph_encoder, "encoder", 12, 1e-5); }
static void test_decoder(void **state) { check(graph_decoder, "decoder", 12, 1e-5); }
static void test_tangle(void **state) { check(graph_tangle, "tangle", 60, 1e-4); }

static void test_epilogues(void **state) { check(graph_epilogues, "epilogues", 60, 1e-5); }
static void test_integers(void **state) { check(graph_integers, "integers", 60, 0); }

static void test_tables(void **state) { check(graph_tables, "tables", 20, 0); }

/* A crop of a table of positions costs what the crop's span takes, not what the table does. */
static void test_part_of_table(void **state) {
    enum { M = 96, D = 64, ROWS = 4 };
    ay_graph *g = ay_graph_new(cxs[0]);
    ay_program *p = NULL;
    ay_val table = ay_reshape(g, ay_param(g, "table", ay_shape(AY_F16, 2, M * M, D)), 3, M, M, D);
    ay_val crop = ay_slice(g, ay_slice(g, ay_cast(g, table, AY_F32), 0, 40, 40 + ROWS), 1, 10, 90);
    ay_set_output(g, "y", ay_mul(g, ay_reshape(g, crop, 2, ROWS * 80, D), ay_input(g, "x", ay_shape(AY_F32, 1, 1))));
    uint16_t *data = calloc((size_t)M * M * D, sizeof *data);
    assert_non_null(data);
    for (int k = 0; k < g->n_nodes; k++)
        if (g->nodes[k].op == AY_OP_PARAM) *g->nodes[k].weight = ay_weight_plain(&g->nodes[k].type, data);
    assert_ok(cxs[0], ay_graph_status(g));
    assert_ok(cxs[0], ay_cpu_compile(cxs[0], g, NULL, &p));
    assert_true(ay_program_peak(p) < (size_t)M * M * D * 4 / 4); /* twice the span, and the result */
    ay_program_free(&p);
    ay_graph_free(g);
    free(data);
}

static bool keeps_nothing(const ay_lower_rule *rule, const ay_graph *g, const ay_node *n) { return false; }

static int steps_of(const graph_case *c) {
    ay_program *p = NULL;
    assert_ok(cxs[0], ay_cpu_compile(cxs[0], c->g, NULL, &p));
    int n = ay_program_steps(p, NULL);
    ay_program_free(&p);
    return n;
}

/* A network taken apart into core ops, as a package's own program has it, becomes the same steps again. */
static void test_lowered(void **state) {
    static const graph_fn all[] = {graph_joint_blocks, graph_encoder, graph_decoder};
    for (int i = 0; i < 3; i++)
        for (uint64_t seed = 1; seed <= 6; seed++) {
            graph_case c;
            ay_lower_rule rule = {keeps_nothing, NULL};
            graph_case_make(&c, cxs[0], all[i], seed, AY_F32, false, NULL);
            int whole = steps_of(&c);
            assert_ok(cxs[0], ay_pass_lower(c.g, &rule));
            assert_int_equal(steps_of(&c), whole);
            double e = run_case(cxs[0], &c, NULL, NULL);
            if (!(e <= 1e-5)) fail_msg("graph %d, seed %d: off by %g after lowering", i, (int)seed, e);
            graph_case_free(&c);
        }
}

/* Emulation rounds where the evaluator rounds; sums differ in the last bit before rounding, so single values may fall on the
 * other side. */
static void check_half(graph_fn make, const char *name, int seeds, double tol) {
    static const ay_compile_opts half = {.emulate_f16 = true};
    for (int seed = 1; seed <= seeds; seed++) {
        graph_case c;
        int64_t want = 0, got = 0;
        graph_case_make(&c, cxs[1], make, (uint64_t)seed, AY_F16, true, &want);
        double e = run_case(cxs[1], &c, &half, &got);
        if (!(e <= tol)) fail_msg("%s, seed %d: emulation is off by %g", name, seed, e);
        if (want != got)
            fail_msg("%s, seed %d: %lld overflows, the evaluator counts %lld", name, seed, (long long)got, (long long)want);
        graph_case_free(&c);
    }
}

static void test_half(void **state) {
    check_half(graph_joint_blocks, "joint blocks", 6, 2e-3);
    check_half(graph_encoder, "encoder", 6, 2e-3);
    check_half(graph_decoder, "decoder", 6, 2e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_joint), cmocka_unit_test(test_encoder),
                                       cmocka_unit_test(test_decoder), cmocka_unit_test(test_tangle),
                                       cmocka_unit_test(test_epilogues), cmocka_unit_test(test_tables),
                                       cmocka_unit_test(test_part_of_table), cmocka_unit_test(test_integers), cmocka_unit_test(test_lowered), cmocka_unit_test(test_half)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
