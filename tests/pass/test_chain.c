/* SPDX-License-Identifier: MIT
 *
 * Graphs cut into chains: on seeded random graphs, cut as small as it goes, the links run one after another give the bits of
 * the whole; every link is a sound graph whose inputs and outputs packages take; blocks stay together.
 */
#include "../support/random_graph.h"
#include "pass/pass.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

/* Scopes that random graphs do not have: some nodes in blocks, some between, some of none. */
static void give_scopes(ay_graph *g, int seed) {
    static const char *const names[] = {"", "blocks.0.a", "blocks.0.b.c", "blocks.1", "head", "blocks.1.x.7.y"};
    for (int v = 0; v < g->n_nodes; v++) {
        if (g->nodes[v].op != AY_OP_PARAM) g->nodes[v].scope = names[(v * 5 + seed) / (2 + seed % 5) % 6];
    }
}

enum { MOST = 4096 };
typedef struct pool {
    ay_tensor t[MOST];
    int n;
} pool;

static ay_tensor *find(pool *p, const char *name) {
    for (int i = 0; i < p->n; i++) {
        if (strcmp(p->t[i].name, name) == 0) return &p->t[i];
    }
    return NULL;
}

static bool takes(const ay_type *t) {
    return (t->dtype == AY_F16 || t->dtype == AY_F32 || t->dtype == AY_I32) && t->rank >= 1 && t->rank <= 5;
}

/* Runs one link with what is in the pool, and puts its outputs there. */
static alloy_status run_link(ay_arena *a, const ay_graph *g, pool *p, bool last) {
    ay_tensor in[MOST], out[MOST];
    int n_in = 0;
    for (int v = 0; v < g->n_nodes; v++) {
        if (g->nodes[v].op != AY_OP_INPUT) continue;
        ay_tensor *t = find(p, g->nodes[v].name);
        if (!t) fail_msg("no link before gives %s", g->nodes[v].name);
        assert_true(ay_type_equal(&t->type, &g->nodes[v].type));
        in[n_in++] = *t;
    }
    for (int i = 0; i < g->n_outputs; i++) {
        out[i] = (ay_tensor){ay_strdup(a, g->outputs[i].name), *ay_type_of(g, g->outputs[i].value), NULL};
        out[i].data = ay_alloc(a, ay_dtype_bytes(out[i].type.dtype, ay_type_count(&out[i].type)) + 1);
        if (strncmp(out[i].name, "carried_", 8) == 0) assert_true(takes(&out[i].type) && !last);
    }
    alloy_status st = ay_eval(g, in, n_in, out, g->n_outputs, false, NULL);
    for (int i = 0; i < g->n_outputs; i++) {
        assert_null(find(p, out[i].name));
        p->t[p->n++] = out[i];
    }
    return st;
}

static int check(int seed) {
    uint8_t bytes[600];
    random_graph r;
    ay_chain s;
    void *before[3], *after[3] = {NULL};
    ay_arena *a = ay_arena_new();
    pool *p = calloc(1, sizeof *p);
    seeded((uint64_t)seed, bytes, sizeof bytes);
    assert_true(random_graph_make(cx, bytes, sizeof bytes, false, &r));
    give_scopes(r.g, seed);
    alloy_status whole = random_graph_eval(&r, r.g, before), st = ALLOY_OK;
    assert_int_equal(ay_chain_order(r.g, a, &s), ALLOY_OK);
    uint64_t limit = 1;
    while (ay_chain_at_most(r.g, a, &s, limit, 100) != ALLOY_OK) limit += limit / 8 + 100; /* the smallest that goes */
    for (int i = 0; i < r.n_in; i++) p->t[p->n++] = r.in[i];
    for (int k = 0; k < s.n_links && st == ALLOY_OK; k++) {
        ay_graph *g;
        if (ay_chain_take(r.g, &s, k, &g) != ALLOY_OK) fail_msg("seed %d, link %d of %d: %s", seed, k, s.n_links, ay_error_text(cx));
        st = run_link(a, g, p, k == s.n_links - 1);
        ay_graph_free(g);
    }
    if (st != whole) fail_msg("seed %d: the whole came to %d, the chain to %d: %s", seed, whole, st, ay_error_text(cx));
    for (int i = 0; i < r.n_out && !st; i++) after[i] = find(p, r.out[i].name)->data;
    if (!st && !random_graph_equal(&r, before, after, 0)) fail_msg("seed %d: other numbers", seed);
    int links = s.n_links;
    random_graph_free_data(before);
    ay_graph_free(r.g);
    ay_arena_free(a);
    free(p);
    return links;
}

static void test_random(void **state) {
    int links = 0;
    for (int seed = 0; seed < 400; seed++) links += check(seed);
    assert_true(links > 800);
}

/* Three blocks of two layers; what modulates a block is computed first where the order follows from the outputs. */
static ay_graph *blocks(int64_t wide) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 3, 64)), t = ay_input(g, "t", ay_shape(AY_F32, 2, 1, wide));
    for (int i = 0; i < 3; i++) {
        ay_push(g, "blocks.%d", i);
        ay_val m = ay_linear_layer(g, "mod", ay_unary(g, AY_OP_SILU, t), 64, true);
        x = ay_add(g, ay_mul(g, m, ay_linear_layer(g, "first", x, 64, true)), x);
        x = ay_linear_layer(g, "second", ay_unary(g, AY_OP_SILU, x), 64, true);
        ay_pop(g);
    }
    ay_push(g, "head");
    ay_set_output(g, "y", ay_linear_layer(g, "proj", x, 8, true));
    ay_pop(g);
    assert_int_equal(ay_pass_order(g, NULL), ALLOY_OK);
    return g;
}

static void test_blocks_stay_together(void **state) {
    ay_graph *g = blocks(64), *other = blocks(64), *else_ = blocks(32);
    ay_arena *a = ay_arena_new();
    ay_chain s, t;
    assert_int_equal(ay_chain_order(g, a, &s), ALLOY_OK);
    assert_int_equal(ay_chain_at_most(g, a, &s, 60000, 0), ALLOY_OK); /* a block has 51 KB of weights */
    assert_int_equal(s.n_links, 3);
    for (int k = 0; k < 3; k++) {
        ay_graph *link;
        char block[16], carried[16];
        snprintf(block, sizeof block, "blocks.%d.", k);
        snprintf(carried, sizeof carried, "carried_%d", k - 1);
        assert_int_equal(ay_chain_take(g, &s, k, &link), ALLOY_OK);
        int inputs = 0;
        for (int v = 0; v < link->n_nodes; v++) {
            const ay_node *n = &link->nodes[v];
            if (n->op == AY_OP_PARAM) assert_true(strncmp(n->name, block, strlen(block)) == 0 || (k == 2 && strncmp(n->name, "head", 4) == 0));
            if (n->op != AY_OP_INPUT) continue;
            inputs++;
            assert_true(strcmp(n->name, "t") == 0 || strcmp(n->name, k == 0 ? "x" : carried) == 0);
        }
        assert_int_equal(inputs, 2);
        assert_int_equal(link->n_outputs, 1);
        ay_graph_free(link);
    }
    assert_int_equal(ay_chain_order(other, a, &t), ALLOY_OK);
    assert_int_equal(ay_chain_like(other, a, &t, g, &s), ALLOY_OK);
    assert_int_equal(t.n_links, 3);
    assert_memory_equal(t.begin, s.begin, 4 * sizeof *t.begin);
    assert_int_equal(ay_chain_at_most(g, a, &s, 10000, 0), ALLOY_E_USAGE);
    ay_chain u;
    assert_int_equal(ay_chain_order(else_, a, &u), ALLOY_OK);
    else_->nodes[u.order[3]].scope = "elsewhere";
    assert_int_equal(ay_chain_like(else_, a, &u, g, &s), ALLOY_E_UNSUPPORTED);
    ay_graph_free(g);
    ay_graph_free(other);
    ay_graph_free(else_);
    ay_arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_blocks_stay_together)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
