/* SPDX-License-Identifier: MIT
 *
 * Programs under a memory limit: weights of a mapped file are given back and read again, the numbers stay the same, and what
 * is in memory is what was allowed, by the system's own count.
 */
#include "../support/support.h"
#include "base/fs.h"
#include "cpu/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 24, D = 512, BYTES = D * D * 4 };

static ay_ctx *cx;
static int open_ctx(void **state) { return ay_ctx_open(2, &cx) != ALLOY_OK; }
static int close_ctx(void **state) {
    ay_ctx_close(&cx);
    return 0;
}

/* Bytes of [map, map + size) in this process's memory; -1 where the system does not say. */
static long mapped_rss(const void *map) {
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long from;
    long kb = -1;
    bool here = false;
    while (f && kb < 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-", &from) == 1 && strchr(line, '-') && strchr(line, '-') < strchr(line, ' ')) here = from == (unsigned long)map;
        if (here && sscanf(line, "Rss: %ld kB", &kb) != 1) kb = -1;
    }
    if (f) fclose(f);
    return kb < 0 ? -1 : kb * 1024;
}

static size_t resident(void) {
    long total, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &total, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

typedef struct stack {
    char path[64];
    ay_map map;
    ay_graph *g;
} stack;

static void make_stack(stack *s) {
    uint64_t seed = 7;
    float *w = malloc(BYTES);
    snprintf(s->path, sizeof s->path, "/tmp/alloy_stream_%d", (int)getpid());
    FILE *f = fopen(s->path, "wb");
    assert_non_null(f);
    for (int i = 0; i < LAYERS; i++) {
        for (int k = 0; k < D * D; k++) w[k] = 0.08f * (float)((int)(ay_test_random(&seed) >> 40) % 1000 - 500) / 500.0f;
        assert_int_equal(fwrite(w, 1, BYTES, f), BYTES);
    }
    fclose(f);
    free(w);
    assert_ok(cx, ay_map_open(cx, s->path, &s->map));
    s->g = ay_graph_new(cx);
    ay_val x = ay_input(s->g, "x", ay_shape(AY_F32, 2, 20, D));
    for (int i = 0; i < LAYERS; i++) {
        ay_push(s->g, "layer%d", i);
        x = ay_unary(s->g, AY_OP_TANH, ay_linear_layer(s->g, "proj", x, D, false));
        ay_pop(s->g);
    }
    ay_set_output(s->g, "y", x);
    for (int i = 0, n = 0; i < s->g->n_nodes; i++)
        if (s->g->nodes[i].op == AY_OP_PARAM) s->g->nodes[i].weight->data = s->map.data + (size_t)n++ * BYTES;
}

static ay_program *compile(const stack *s, size_t limit) {
    ay_program *p = NULL;
    ay_compile_opts o = {.map = s->map.data, .map_bytes = s->map.size, .memory_limit = limit};
    assert_ok(cx, ay_cpu_compile(cx, s->g, &o, &p));
    return p;
}

static void run(ay_program *p, float *x, float *y) {
    ay_tensor in = {"x", ay_shape(AY_F32, 2, 20, D), x}, out = {"y", ay_shape(AY_F32, 2, 20, D), y};
    assert_ok(cx, ay_program_run(cx, p, &in, 1, &out, 1));
}

static void test_limit(void **state) {
    static float x[20 * D], want[20 * D], got[20 * D];
    stack s;
    make_stack(&s);
    for (int i = 0; i < 20 * D; i++) x[i] = (float)(i % 17) / 17 - 0.5f;
    ay_program *p = compile(&s, 0);
    assert_int_equal(p->streamed, 0);
    run(p, x, want);
    long whole = mapped_rss(s.map.data);
    size_t slab = p->slab_bytes;
    ay_program_free(&p);
    ay_map_close(&s.map);
    assert_ok(cx, ay_map_open(cx, s.path, &s.map));
    for (int i = 0, n = 0; i < s.g->n_nodes; i++)
        if (s.g->nodes[i].op == AY_OP_PARAM) s.g->nodes[i].weight->data = s.map.data + (size_t)n++ * BYTES;

    size_t room = 6 * BYTES, own = resident() + slab + (16 << 20);
    p = compile(&s, own + room);
    if (p->streamed == 0) ay_test_skip("the system does not say what is in memory");
    assert_true(p->streamed >= (LAYERS - 8) * (size_t)BYTES && p->streamed < LAYERS * (size_t)BYTES);
    for (int again = 0; again < 3; again++) {
        memset(got, 0, sizeof got);
        run(p, x, got);
        assert_memory_equal(got, want, sizeof got);
        long now = mapped_rss(s.map.data);
        if (now < 0) continue;
        if (now > (long)(room + BYTES)) fail_msg("%ld bytes of the file are in memory, %zu were allowed", now, room);
        assert_true(whole >= LAYERS * (long)BYTES); /* so that the limit was one */
    }
    ay_program_free(&p);

    ay_compile_opts o = {.map = s.map.data, .map_bytes = s.map.size, .memory_limit = 1 << 20};
    size_t least = 0;
    o.least = &least;
    assert_fails(cx, ay_cpu_compile(cx, s.g, &o, &p), ALLOY_E_NOMEM, "a memory limit of 1 MB is too small");
    assert_true(least >= slab + BYTES && least < slab + BYTES + (1 << 30));
    o.memory_limit = least + (4 << 20);
    assert_ok(cx, ay_cpu_compile(cx, s.g, &o, &p));
    ay_program_free(&p);
    ay_graph_free(s.g);
    ay_map_close(&s.map);
    remove(s.path);
}

/* Weights that lie elsewhere are nobody's to give back. */
static void test_not_mapped(void **state) {
    static float x[20 * D], want[20 * D], got[20 * D];
    stack s;
    make_stack(&s);
    float *copy = malloc(s.map.size);
    memcpy(copy, s.map.data, s.map.size);
    ay_program *p = compile(&s, 0);
    run(p, x, want);
    ay_program_free(&p);
    for (int i = 0, n = 0; i < s.g->n_nodes; i++)
        if (s.g->nodes[i].op == AY_OP_PARAM) s.g->nodes[i].weight->data = copy + (size_t)n++ * D * D;
    ay_compile_opts o = {.map = s.map.data, .map_bytes = s.map.size, .memory_limit = resident() + (64 << 20)};
    assert_ok(cx, ay_cpu_compile(cx, s.g, &o, &p));
    assert_int_equal(p->streamed, 0);
    for (int again = 0; again < 2; again++) run(p, x, got);
    assert_memory_equal(got, want, sizeof got);
    ay_program_free(&p);
    ay_graph_free(s.g);
    ay_map_close(&s.map);
    free(copy);
    remove(s.path);
}

/* Values that no machine has room for are refused before anything is asked of the system. */
static void test_too_large(void **state) {
    ay_program *p = NULL;
    ay_graph *g = ay_graph_new(cx);
    ay_set_output(g, "y", ay_unary(g, AY_OP_TANH, ay_input(g, "x", ay_shape(AY_F32, 2, (int64_t)1 << 19, (int64_t)1 << 18))));
    assert_fails(cx, ay_cpu_compile(cx, g, NULL, &p), ALLOY_E_NOMEM, "more than three quarters of this machine's");
    assert_null(p);
    ay_graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limit), cmocka_unit_test(test_not_mapped), cmocka_unit_test(test_too_large)};
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
