/* SPDX-License-Identifier: MIT
 *
 * Every pass on seeded random graphs: the graph stays verified and its outputs stay the same: bit for bit where arithmetic
 * is not rearranged (dce, cse, fold), within rounding where it is (lower, raise). A failing seed is printed with its graph.
 */
#include "../support/random_graph.h"
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

static void seeded(uint64_t seed, uint8_t *bytes, size_t n) {
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes[i] = (uint8_t)(x >> 32);
    }
}

static void say(const random_graph *r, const ay_graph *g, int seed) {
    ay_buf text = {0};
    ay_graph_print(r->g, &text);
    ay_buf_printf(&text, "became\n");
    ay_graph_print(g, &text);
    fail_msg("seed %d: %s\n%s", seed, ay_error_text(cx), text.data);
}

typedef struct tally { int64_t nodes, composites, failed; } tally;

static void check(int seed, bool smooth, const ay_pass *passes, int n_passes, double tol, tally *count) {
    uint8_t bytes[600];
    random_graph r;
    void *before[3], *after[3];
    seeded((uint64_t)seed, bytes, sizeof bytes);
    if (!random_graph_make(cx, bytes, sizeof bytes, smooth, &r) || ay_graph_verify(r.g)) say(&r, r.g, seed);
    alloy_status st = random_graph_eval(&r, r.g, before); /* an index may be out of range: then it must stay so */
    ay_graph *g = ay_graph_clone(r.g);
    if (ay_passes_run(g, passes, n_passes)) say(&r, g, seed);
    if (random_graph_eval(&r, g, after) != st) say(&r, g, seed);
    if (!st && !random_graph_equal(&r, before, after, tol)) say(&r, g, seed);
    for (int i = 0; i < r.g->n_nodes; i++) count->composites += ay_op_get(r.g->nodes[i].op)->cls == AY_CLASS_COMPOSITE;
    count->nodes += r.g->n_nodes;
    count->failed += st != ALLOY_OK;
    random_graph_free_data(before);
    random_graph_free_data(after);
    ay_graph_free(g);
    ay_graph_free(r.g);
}

static void test_exact(void **state) {
    const ay_pass one[][1] = {{{"dce", ay_pass_dce, NULL}}, {{"cse", ay_pass_cse, NULL}}, {{"fold", ay_pass_fold, NULL}}};
    const ay_pass all[] = {{"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL}, {"dce", ay_pass_dce, NULL}};
    tally count = {0};
    for (int seed = 0; seed < 300; seed++) {
        for (int k = 0; k < 3; k++) check(seed, false, one[k], 1, 0, &count);
        check(seed, false, all, 3, 0, &count);
    }
    assert_true(count.nodes > 900 * 20 && count.composites > 1000 && count.failed < 400);
}

static void test_rearranged(void **state) {
    const ay_pass lower[] = {{"lower", ay_pass_lower, NULL}};
    const ay_pass both[] = {{"lower", ay_pass_lower, NULL},
                            {"fold", ay_pass_fold, NULL},
                            {"cse", ay_pass_cse, NULL},
                            {"raise", ay_pass_raise, NULL}};
    const ay_pass raise[] = {{"raise", ay_pass_raise, NULL}};
    tally count = {0};
    for (int seed = 0; seed < 300; seed++) {
        check(seed, true, lower, 1, 2e-4, &count);
        check(seed, true, both, 4, 2e-4, &count);
        check(seed, true, raise, 1, 2e-4, &count);
    }
    assert_true(count.nodes > 900 * 15 && count.composites > 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exact), cmocka_unit_test(test_rearranged)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
