/* SPDX-License-Identifier: MIT
 *
 * What the engine promises beside numbers: sentences for wrong arguments, inputs read in place and never written, weights in
 * every storage, nothing allocated while running, memory that does not grow with depth, a prompt stop, an honest profile.
 */
#include "../support/engine_graphs.h"
#include "cpu/plan.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- a count of allocations: glibc lets a program bring its own malloc; sanitizers bring theirs ------------------ */

static atomic_long allocations;
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(SANITIZED)
#define COUNTS 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t a, size_t n);
void *malloc(size_t n) { return atomic_fetch_add(&allocations, 1), __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return atomic_fetch_add(&allocations, 1), __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return atomic_fetch_add(&allocations, 1), __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return atomic_fetch_add(&allocations, 1), __libc_memalign(a, n); }
#else
#define COUNTS 0
#endif

static ay_ctx *cx;
static int open_ctx(void **state) { return ay_ctx_open(2, &cx) != ALLOY_OK; }
static int close_ctx(void **state) {
    ay_ctx_close(&cx);
    return 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_no_allocation(void **state) {
    static const graph_fn all[] = {graph_joint_blocks, graph_encoder, graph_decoder, graph_tangle};
    if (!COUNTS) ay_test_skip("malloc cannot be counted here");
    for (int i = 0; i < 4; i++) {
        graph_case c;
        ay_program *p;
        graph_case_make(&c, cx, all[i], 5, AY_F32, false, NULL);
        assert_ok(cx, ay_cpu_compile(cx, c.g, NULL, &p));
        long before = atomic_load(&allocations);
        alloy_status st = ay_program_run(cx, p, c.in, c.n_in, c.out, c.n_out);
        long after = atomic_load(&allocations);
        assert_ok(cx, st);
        assert_int_equal(after - before, 0);
        assert_true(before > 0);
        ay_program_free(&p);
        graph_case_free(&c);
    }
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static ay_graph *two_inputs(void) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 2, 3)), ids = ay_input(g, "ids", ay_shape(AY_I32, 1, 2));
    ay_set_output(g, "y", ay_gather(g, ay_unary(g, AY_OP_TANH, x), ids, 1));
    return g;
}

static void test_arguments(void **state) {
    ay_graph *g = two_inputs();
    ay_program *p;
    assert_ok(cx, ay_cpu_compile(cx, g, NULL, &p));
    ay_graph_free(g); /* the program does not need it */
    float x[6] = {0, 1, 2, 3, 4, 5}, y[4];
    int64_t ids[2] = {2, -3}, bad[2] = {0, 3};
    ay_tensor in[3] = {
        {"x", ay_shape(AY_F32, 2, 2, 3), x}, {"ids", ay_shape(AY_I64, 1, 2), ids}, {"z", ay_shape(AY_F32, 1, 2), x}};
    ay_tensor out = {"y", ay_shape(AY_F32, 2, 2, 2), y}, other = {"w", out.type, y};
    assert_ok(cx, ay_program_run(cx, p, in, 2, &out, 1));
    assert_true(fabsf(y[0] - tanhf(2)) < 1e-5f && fabsf(y[3] - tanhf(3)) < 1e-5f && y[1] == 0);
    assert_fails(cx, ay_program_run(cx, p, in, 1, &out, 1), ALLOY_E_USAGE, "input ids is missing: give int32[2]");
    assert_fails(cx, ay_program_run(cx, p, in, 3, &out, 1), ALLOY_E_USAGE,
                 "there is no input named z: the program has x, ids");
    assert_fails(cx, ay_program_run(cx, p, in, 2, &other, 1), ALLOY_E_USAGE,
                 "there is no output named w: the program has y");
    ay_tensor twice[2] = {in[0], in[0]};
    assert_fails(cx, ay_program_run(cx, p, twice, 2, &out, 1), ALLOY_E_USAGE, "input x is given twice");
    out.type.dim[1] = 3;
    assert_fails(cx, ay_program_run(cx, p, in, 2, &out, 1), ALLOY_E_MISMATCH,
                 "output y is float32[2, 3], expected float32[2, 2]");
    out.type.dim[1] = 2;
    in[0].type.dim[0] = 3;
    assert_fails(cx, ay_program_run(cx, p, in, 2, &out, 1), ALLOY_E_MISMATCH,
                 "input x is float32[3, 3], expected float32[2, 3]");
    in[0].type.dim[0] = 2;
    in[1].data = bad;
    assert_fails(cx, ay_program_run(cx, p, in, 2, &out, 1), ALLOY_E_USAGE, "index 3 is outside of 0 to 2");
    in[1].data = ids;
    assert_ok(cx, ay_program_run(cx, p, in, 2, NULL, 0)); /* an output may be left out */
    ay_program_free(&p);
    ay_program_free(&p);
}

static void test_unbound(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_program *p;
    ay_push(g, "head");
    ay_set_output(g, "y", ay_linear_layer(g, "proj", ay_input(g, "x", ay_shape(AY_F32, 2, 1, 4)), 3, false));
    ay_pop(g);
    assert_fails(cx, ay_cpu_compile(cx, g, NULL, &p), ALLOY_E_MISMATCH, "weight head.proj.weight has no data");
    assert_null(p);
    ay_graph_free(g);
}

/* float32 is read where the caller has it and left as it was; other dtypes are converted on the way in and out. */
static void test_conversion(void **state) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 1, 5));
    for (int i = 0; i < 4; i++) x = ay_adds(g, x, 1);
    ay_set_output(g, "y", x);
    ay_set_output(g, "big", ay_binary(g, AY_OP_GT, x, ay_const_f32(g, 6)));
    ay_program *p;
    assert_ok(cx, ay_cpu_compile(cx, g, NULL, &p));
    float f[5] = {1, 2, 3, 4, -300}, same[5], y[5];
    uint16_t h[5];
    int8_t narrow[5];
    uint8_t big[5];
    memcpy(same, f, sizeof f);
    ay_tensor in = {"x", ay_shape(AY_F32, 1, 5), f};
    ay_tensor out[2] = {{"y", in.type, y}, {"big", ay_shape(AY_BOOL, 1, 5), big}};
    assert_ok(cx, ay_program_run(cx, p, &in, 1, out, 2));
    assert_ptr_equal(p->bufs[p->inputs[0].buf].base, f);
    assert_memory_equal(f, same, sizeof f);
    assert_true(y[0] == 5 && y[4] == -296 && !big[1] && big[2]);
    ay_convert_from_f32(AY_F16, f, 5, h);
    in.type.dtype = AY_F16;
    in.data = h;
    out[0].type.dtype = AY_I8;
    out[0].data = narrow;
    assert_ok(cx, ay_program_run(cx, p, &in, 1, out, 2));
    assert_true(narrow[0] == 5 && narrow[4] == -128);
    ay_program_free(&p);
    ay_graph_free(g);
}

/* ---- weights in every storage ------------------------------------------------------------------------------------ */

static void store_blocks(ay_arena *a, ay_weight *w, uint64_t *seed) {
    int64_t n = 1, blocks = w->dim[0];
    for (int i = 0; i < w->rank; i++) n *= w->dim[i], w->scale_dim[i] = i ? 1 : w->dim[0];
    int8_t *codes = ay_alloc(a, (size_t)n);
    float *scale = ay_alloc(a, (size_t)blocks * 4);
    for (int64_t i = 0; i < n; i++) codes[i] = (int8_t)pick(seed, 15);
    for (int64_t i = 0; i < blocks; i++) scale[i] = 0.02f * ay_test_uniform(seed);
    w->store = AY_STORE_BLOCK;
    w->data_dtype = AY_I8;
    w->data = codes;
    w->scale_dtype = AY_F32;
    w->scale = scale;
}

static void store_palette(ay_arena *a, ay_weight *w, uint64_t *seed) {
    int64_t n = 1;
    for (int i = 0; i < w->rank; i++) n *= w->dim[i], w->lut_dim[i] = 1;
    uint8_t *codes = ay_alloc(a, (size_t)n);
    float *lut = ay_alloc(a, 16 * 4);
    for (int64_t i = 0; i < (n + 1) / 2; i++) codes[i] = (uint8_t)pick(seed, 256);
    for (int i = 0; i < 16; i++) lut[i] = 0.2f * ay_test_uniform(seed);
    w->lut_dim[w->rank] = 16;
    w->lut_dim[w->rank + 1] = 1;
    w->store = AY_STORE_LUT;
    w->data_dtype = AY_U4;
    w->data = codes;
    w->lut_dtype = AY_F32;
    w->lut = lut;
}

static void test_storage(void **state) {
    static const graph_fn all[] = {graph_joint_blocks, graph_encoder, graph_decoder};
    for (int i = 0; i < 3; i++)
        for (int how = 0; how < 4; how++) {
            graph_case c;
            ay_program *p;
            uint64_t seed = 77;
            graph_case_make(&c, cx, all[i], 3, how == 3 ? AY_F16 : AY_F32, false, NULL);
            for (int k = 0; k < c.g->n_nodes; k++) {
                ay_weight *w = c.g->nodes[k].weight;
                if (!w || w->rank < 2 || how == 0 || how == 3) continue;
                (how == 1 ? store_blocks : store_palette)(c.arena, w, &seed);
            }
            assert_ok(cx, ay_eval(c.g, c.in, c.n_in, c.want, c.n_out, false, NULL));
            assert_ok(cx, ay_cpu_compile(cx, c.g, NULL, &p));
            assert_ok(cx, ay_program_run(cx, p, c.in, c.n_in, c.out, c.n_out));
            double e = graph_case_error(&c);
            if (!(e < 1e-5)) fail_msg("graph %d, storage %d: off by %g", i, how, e);
            ay_program_free(&p);
            graph_case_free(&c);
        }
}

/* A large table that is used as numbers is made in the slab in each run; a small one is kept; a float32 one is not copied.
 */
static void test_tables(void **state) {
    enum { BIG = 100000, SMALL = 1000 };
    static uint16_t half[BIG];
    static float full[BIG], x[BIG], y[BIG];
    for (int i = 0; i < BIG; i++) full[i] = (float)(i % 100) / 16, x[i] = 1;
    ay_convert_from_f32(AY_F16, full, BIG, half);
    size_t fixed[3];
    for (int how = 0; how < 3; how++) {
        int64_t n = how == 1 ? SMALL : BIG;
        ay_graph *g = ay_graph_new(cx);
        ay_type t = ay_shape(AY_F32, 1, n);
        ay_val w = ay_param(g, "table", t);
        ay_set_output(g, "y", ay_mul(g, ay_add(g, ay_input(g, "x", t), w), w));
        ay_weight *s = g->nodes[w].weight;
        s->data_dtype = how == 2 ? AY_F32 : AY_F16;
        s->data = how == 2 ? (const void *)full : half;
        ay_program *p;
        assert_ok(cx, ay_cpu_compile(cx, g, NULL, &p));
        ay_tensor in = {"x", t, x}, out = {"y", t, y};
        assert_ok(cx, ay_program_run(cx, p, &in, 1, &out, 1));
        for (int64_t i = 0; i < n; i++) assert_true(y[i] == (1 + full[i]) * full[i]);
        fixed[how] = p->fixed_bytes;
        ay_program_free(&p);
        ay_graph_free(g);
    }
    assert_int_equal(fixed[0], 0);
    assert_int_equal(fixed[1], SMALL * 4);
    assert_int_equal(fixed[2], 0);
}

/* ---- memory, fusion ---------------------------------------------------------------------------------------------- */

typedef struct layers { ay_graph *g; ay_arena *arena; float *weights; } layers;

/* n layers of norm, linear, gelu, linear, residual over [L, D], all with the same numbers. */
static layers make_layers(int n, int64_t L, int64_t D) {
    layers l = {.g = ay_graph_new(cx), .arena = ay_arena_new()};
    l.weights = ay_alloc(l.arena, (size_t)(4 * D * D) * 4);
    for (int64_t i = 0; i < 4 * D * D; i++) l.weights[i] = (float)(i % 7 - 3) / (float)(4 * D);
    ay_val x = ay_input(l.g, "x", ay_shape(AY_F32, 3, 1, L, D));
    for (int i = 0; i < n; i++) {
        ay_push(l.g, "layers.%d", i);
        ay_val h = ay_linear_layer(l.g, "in", ay_layer_norm(l.g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-6), 4 * D, true);
        x = ay_add(l.g, x, ay_linear_layer(l.g, "out", ay_gelu(l.g, h, AY_GELU_TANH), D, true));
        ay_pop(l.g);
    }
    ay_set_output(l.g, "y", x);
    for (int i = 0; i < l.g->n_nodes; i++)
        if (l.g->nodes[i].op == AY_OP_PARAM) l.g->nodes[i].weight->data = l.weights;
    return l;
}

static void free_layers(layers *l) {
    ay_graph_free(l->g);
    ay_arena_free(l->arena);
}

static void test_depth(void **state) {
    size_t peak[2];
    for (int i = 0; i < 2; i++) {
        layers l = make_layers(i ? 40 : 3, 50, 32);
        ay_program *p;
        assert_ok(cx, ay_cpu_compile(cx, l.g, NULL, &p));
        peak[i] = ay_program_peak(p);
        free_layers(&l);
        ay_program_free(&p);
    }
    assert_int_equal(peak[0], peak[1]);
}

static int steps_like(const ay_program *p, const char *word) {
    int n = 0;
    for (int i = 0; i < p->n_steps; i++) n += strncmp(p->steps[i].what, word, strlen(word)) == 0;
    return n;
}

/* A layer is three steps: norm, product with bias and gelu, product with bias and residual. In a network of joint blocks
 * nothing is copied, nothing added, nothing multiplied on its own. */
static void test_fusion(void **state) {
    layers l = make_layers(2, 50, 32);
    ay_program *p;
    assert_ok(cx, ay_cpu_compile(cx, l.g, NULL, &p));
    assert_int_equal(p->n_steps, 2 + 2 * 3);
    free_layers(&l);
    ay_program_free(&p);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        graph_case c;
        graph_case_make(&c, cx, graph_joint_blocks, seed, AY_F32, false, NULL);
        bool one_sample = c.in[0].type.dim[0] == 1;
        assert_ok(cx, ay_cpu_compile(cx, c.g, NULL, &p));
        assert_int_equal(steps_like(p, "add") + steps_like(p, "mul") + steps_like(p, "gelu"), 0);
        assert_int_equal(steps_like(p, "layer_norm modulated"), 2 * 4 + 2 + 1);
        if (one_sample) assert_int_equal(steps_like(p, "copy"), 0);
        ay_program_free(&p);
        graph_case_free(&c);
    }
}

/* ---- stopping, profiling ----------------------------------------------------------------------------------------- */

typedef struct stopper { double after, when; } stopper;

static void *stop_later(void *arg) {
    stopper *s = arg;
    nanosleep(&(struct timespec){0, (long)(s->after * 1e9)}, NULL);
    s->when = now();
    atomic_store(&cx->stop, 1);
    return NULL;
}

/* 0.2 s on a machine of one's own; more where others compute beside the test, and where every access is checked. */
static double patience(void) {
    double load = 0, cores = (double)sysconf(_SC_NPROCESSORS_ONLN), seconds = 0.2;
    if (getloadavg(&load, 1) == 1 && load > cores) seconds *= load / cores;
#if defined(__SANITIZE_ADDRESS__)
    seconds *= 10;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
    seconds *= 10;
#endif
#endif
    return seconds;
}

static void test_stop(void **state) {
    enum { L = 1024, D = 512 };
    layers l = make_layers(40, L, D);
    ay_program *p;
    float *x = calloc(L * D, 4);
    ay_tensor in = {"x", ay_shape(AY_F32, 3, 1, L, D), x}, out = {"y", in.type, x};
    assert_ok(cx, ay_cpu_compile(cx, l.g, NULL, &p));
    pthread_t t;
    stopper s = {0.05, 0};
    assert_int_equal(pthread_create(&t, NULL, stop_later, &s), 0);
    alloy_status st = ay_program_run(cx, p, &in, 1, &out, 1);
    double end = now();
    pthread_join(t, NULL);
    assert_fails(cx, ay_program_run(cx, p, &in, 1, &out, 1), ALLOY_E_CANCELLED, "stopped");
    atomic_store(&cx->stop, 0);
    assert_int_equal(st, ALLOY_E_CANCELLED);
    if (end - s.when > patience()) fail_msg("stopping took %.3f s", end - s.when);
    ay_program_free(&p);
    free_layers(&l);
    free(x);
}

static void test_profile(void **state) {
    enum { L = 64, D = 128, N = 4 };
    layers l = make_layers(N, L, D);
    ay_program *p;
    float *x = calloc(L * D, 4);
    const ay_step_profile *rows;
    ay_tensor in = {"x", ay_shape(AY_F32, 3, 1, L, D), x}, out = {"y", in.type, x};
    assert_ok(cx, ay_cpu_compile(cx, l.g, NULL, &p));
    ay_program_profile(p, true);
    double begin = now();
    for (int i = 0; i < 3; i++) assert_ok(cx, ay_program_run(cx, p, &in, 1, &out, 1));
    double wall = now() - begin, sum = 0, flops = 0;
    int n = ay_program_steps(p, &rows), linears = 0;
    for (int i = 0; i < n; i++) {
        sum += rows[i].seconds;
        flops += rows[i].flops;
        assert_int_equal(rows[i].calls, 3);
        linears += strcmp(rows[i].what, "linear 128x512 float32, 64 rows") == 0 && strcmp(rows[i].scope, "layers.1.in") == 0;
    }
    assert_true(sum <= wall);
    if (sum < 0.95 * wall) fail_msg("the profile tells of %.0f of %.0f us", sum * 1e6, wall * 1e6);
    assert_true(flops == 2.0 * N * 2 * L * D * 4 * D);
    assert_int_equal(linears, 1);
    ay_program_free(&p);
    free_layers(&l);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_allocation), cmocka_unit_test(test_arguments), cmocka_unit_test(test_unbound),
        cmocka_unit_test(test_conversion),    cmocka_unit_test(test_storage),   cmocka_unit_test(test_tables),
        cmocka_unit_test(test_depth),         cmocka_unit_test(test_fusion),    cmocka_unit_test(test_stop),
        cmocka_unit_test(test_profile),
    };
    return cmocka_run_group_tests(tests, open_ctx, close_ctx);
}
