/* SPDX-License-Identifier: MIT
 *
 * Convolutions that take their input in bands: random stacks of normalised, upsampled, strided and shortened convolutions
 * against the reference evaluator and against the same program without bands, for 1, 2 and 3 threads; and what it is for,
 * memory.
 */
#include "../support/engine_graphs.h"
#include "cpu/plan.h"

#include <math.h>
#include <stdio.h>
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

/* ---- graphs ---------------------------------------------------------------------------------------------------------- */

static ay_val norm(ay_graph *g, const char *name, ay_val x, int64_t groups, int act) {
    int64_t c = ay_dim(g, x, 1);
    ay_push(g, "%s", name);
    x = ay_group_norm(g, x, c % groups ? 1 : groups, ay_param(g, "weight", ay_shape(AY_F32, 1, c)),
                      ay_param(g, "bias", ay_shape(AY_F32, 1, c)), 1e-5);
    ay_pop(g);
    return act == 0 ? ay_unary(g, AY_OP_SILU, x) : act == 1 ? ay_gelu(g, x, AY_GELU_TANH) : x;
}

static ay_val resnet(ay_graph *g, ay_val x, int64_t out, bool late) {
    ay_val s = AY_NO_VALUE, h = ay_conv2d_layer(g, "conv1", norm(g, "norm1", x, 2, 0), out, 3, 1, 1, true);
    if (!late && ay_dim(g, x, 1) != out) s = ay_conv2d_layer(g, "shortcut", x, out, 1, 1, 0, true);
    h = ay_conv2d_layer(g, "conv2", norm(g, "norm2", h, 2, 0), out, 3, 1, 1, true);
    if (late && ay_dim(g, x, 1) != out) s = ay_conv2d_layer(g, "shortcut", x, out, 1, 1, 0, true);
    return ay_add(g, s == AY_NO_VALUE ? x : s, h);
}

static ay_val odd_conv(ay_graph *g, uint64_t *seed, ay_val x) {
    ay_attr a = {.conv = {.groups = 1}};
    int64_t k[2], reach[2];
    for (int i = 0; i < 2; i++) {
        k[i] = 1 + pick(seed, 4);
        a.conv.stride[i] = 1 + pick(seed, 2);
        a.conv.dilation[i] = 1 + pick(seed, 2);
        reach[i] = (k[i] - 1) * a.conv.dilation[i] + 1;
        a.conv.before[i] = pick(seed, (int)reach[i] + 1);
        a.conv.after[i] = reach[i];
    }
    int64_t c = ay_dim(g, x, 1), o = pick(seed, 2) ? c : 1 + pick(seed, 9);
    ay_val in[3] = {norm(g, "norm", x, 1, pick(seed, 3)), ay_param(g, "w", ay_shape(AY_F32, 4, o, c, k[0], k[1])),
                    ay_param(g, "b", ay_shape(AY_F32, 1, o))};
    ay_val y = ay_node_add(g, AY_OP_CONV, in, 2 + pick(seed, 2), &a, NULL);
    return pick(seed, 3) ? y : ay_unary(g, AY_OP_SILU, y);
}

static ay_graph *graph_bands(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(t, 4, 1 + pick(seed, 4) / 3, 4, 3 + pick(seed, 22), 2 + pick(seed, 14)));
    x = ay_conv2d_layer(g, "first", x, 4 << pick(seed, 3), 3, 1, 1, true);
    for (int i = 0, n = 1 + pick(seed, 4); i < n; i++) {
        ay_push(g, "block%d", i);
        int64_t c = ay_dim(g, x, 1);
        switch (pick(seed, 5)) {
        case 0: x = resnet(g, x, c, false); break;
        case 1: x = resnet(g, x, c > 2 ? c / 2 : 2 * c, pick(seed, 2) == 0); break;
        case 2: x = resnet(g, x, 2 * c, pick(seed, 2) == 0); break;
        case 3: x = odd_conv(g, seed, x); break;
        default: x = ay_conv2d_layer(g, "up", ay_upsample_nearest(g, x, 1 + pick(seed, 3), 1 + pick(seed, 3)), c, 3, 1, 1, true);
        }
        ay_pop(g);
        if (pick(seed, 6) == 0) { /* a value that somebody else keeps */
            char name[16];
            snprintf(name, sizeof name, "block%d", i);
            ay_set_output(g, name, x);
        }
        if (pick(seed, 6) == 0) break;
    }
    ay_set_output(g, "y", ay_conv2d_layer(g, "last", norm(g, "norm_out", x, 2, 0), 3, 3, 1, 1, true));
    return g;
}

/* ---- running --------------------------------------------------------------------------------------------------------- */

static int bands_of(const ay_program *p) {
    int n = 0;
    for (int i = 0; i < p->n_steps; i++) n += strstr(p->steps[i].what, "in bands") != NULL;
    return n;
}

static double run_case(ay_ctx *cx, graph_case *c, size_t from, int *bands, uint64_t *digest) {
    ay_compile_opts o = {.band_from = from};
    ay_program *p = NULL;
    assert_ok(cx, ay_cpu_compile(cx, c->g, &o, &p));
    if (!ay_plan_memory_ok(p)) fail_msg("two live values overlap");
    *bands = bands_of(p);
    memset(p->slab, 0xff, p->slab_bytes);
    for (int run = 0; run < 2; run++) {
        for (int i = 0; i < c->n_out; i++) memset(c->out[i].data, 0xff, (size_t)ay_type_count(&c->out[i].type) * 4);
        assert_ok(cx, ay_program_run(cx, p, c->in, c->n_in, c->out, c->n_out));
        uint64_t h = 0;
        for (int i = 0; i < c->n_out; i++) h = ay_test_digest(h, c->out[i].data, (size_t)ay_type_count(&c->out[i].type));
        if (run && h != *digest) fail_msg("the second run gives other bits");
        *digest = h;
    }
    ay_program_free(&p);
    return graph_case_error(c);
}

static void test_random(void **state) {
    int banded = 0, seeds = getenv("ALLOY_TEST_SEEDS") ? atoi(getenv("ALLOY_TEST_SEEDS")) : 80;
    for (int seed = 1; seed <= seeds; seed++) {
        graph_case c;
        uint64_t one = 0, digest;
        int bands;
        graph_case_make(&c, cxs[0], graph_bands, (uint64_t)seed, AY_F32, false, NULL);
        for (int t = 0; t < N_THREADS; t++) {
            double e = run_case(cxs[t], &c, 1, &bands, &digest);
            if (!(e <= 1e-5)) fail_msg("seed %d: off by %g with %d bands", seed, e, bands);
            if (t && digest != one) fail_msg("seed %d: %d threads give other bits", seed, t + 1);
            one = digest;
        }
        banded += bands;
        double e = run_case(cxs[0], &c, SIZE_MAX, &bands, &digest);
        if (!(e <= 1e-5) || bands) fail_msg("seed %d: off by %g without bands, which there are %d of", seed, e, bands);
        graph_case_free(&c);
    }
    assert_true(banded > seeds); /* they are what is tested here */
}

/* ---- in integers ----------------------------------------------------------------------------------------------------- */

/* Weights of rank 4 as int8 codes with a scale for each output channel; vectors as floats. */
static void bind_int8(ay_graph *g, ay_arena *arena, uint64_t *seed) {
    for (int i = 0; i < g->n_nodes; i++) {
        ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        int64_t count = ay_type_count(&n->type), rows = n->type.dim[0], k = count / rows;
        float *f = ay_alloc(arena, (size_t)count * sizeof *f);
        int8_t *codes = ay_alloc(arena, (size_t)count);
        uint16_t *scale = ay_alloc(arena, (size_t)rows * sizeof *scale);
        for (int64_t e = 0; e < count; e++) {
            codes[e] = (int8_t)((int)(ay_test_random(seed) >> 40) % 255 - 127);
            f[e] = 0.5f + (float)codes[e] / 254;
        }
        for (int64_t r = 0; r < rows; r++) {
            float s = 1 / (74 * sqrtf((float)k));
            ay_convert_from_f32(AY_F16, &s, 1, &scale[r]);
        }
        n->weight->data = f;
        if (n->type.rank != 4) continue;
        n->weight->store = AY_STORE_BLOCK;
        n->weight->data_dtype = AY_I8;
        n->weight->data = codes;
        n->weight->scale_dtype = AY_F16;
        n->weight->scale = scale;
        n->weight->scale_dim[0] = rows;
        for (int d = 1; d < 4; d++) n->weight->scale_dim[d] = 1;
    }
}

enum { C8 = 32, H8 = 264, W8 = 256 }; /* larger than a band in integers */

static int run_int8(ay_ctx *cx, const ay_graph *g, const float *x, float *y, bool int8, size_t from) {
    ay_program *p = NULL;
    ay_compile_opts o = {.int8_activations = int8, .band_from = from};
    assert_ok(cx, ay_cpu_compile(cx, g, &o, &p));
    assert_true(ay_plan_memory_ok(p));
    int both = 0;
    for (int i = 0; i < p->n_steps; i++) both += strstr(p->steps[i].what, "in bands, in int8") != NULL;
    memset(p->slab, 0xff, p->slab_bytes);
    ay_tensor in = {"x", ay_shape(AY_F32, 4, 1, C8, H8, W8), (void *)(uintptr_t)x}, out = {"y", ay_shape(AY_F32, 4, 1, C8, H8, W8), y};
    assert_ok(cx, ay_program_run(cx, p, &in, 1, &out, 1));
    ay_program_free(&p);
    return both;
}

static double apart(const float *a, const float *b, int64_t n) {
    double d = 0, size = 0;
    for (int64_t i = 0; i < n; i++) d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]), size += (double)b[i] * b[i];
    return sqrt(d / size);
}

static void test_int8(void **state) {
    uint64_t seed = 11;
    int64_t n = (int64_t)C8 * H8 * W8;
    float *x = malloc((size_t)n * sizeof *x), *y[3];
    for (int i = 0; i < 3; i++) y[i] = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = ay_test_uniform(&seed) * 2 - 1;
    ay_graph *g = ay_graph_new(cxs[0]);
    ay_val v = ay_input(g, "x", ay_shape(AY_F32, 4, 1, C8, H8, W8));
    ay_push(g, "first");
    v = resnet(g, v, C8 / 2, true); /* its shortcut in a pair, of which one is in integers */
    ay_pop(g);
    v = ay_conv2d_layer(g, "wide", v, C8, 1, 1, 0, true);
    ay_push(g, "second");
    v = resnet(g, v, C8, false);
    ay_pop(g);
    ay_set_output(g, "y", v);
    bind_int8(g, g->arena, &seed);
    assert_int_equal(run_int8(cxs[0], g, x, y[0], false, 1), 0);
    assert_int_equal(run_int8(cxs[0], g, x, y[1], true, SIZE_MAX), 0);
    double whole = apart(y[1], y[0], n);
    for (int t = 0; t < N_THREADS; t++) {
        assert_int_equal(run_int8(cxs[t], g, x, t ? y[2] : y[1], true, 1), 3); /* 16 channels are not quantised */
        if (t) assert_memory_equal(y[1], y[2], (size_t)n * sizeof *x);
    }
    double bands = apart(y[1], y[0], n);
    if (!(whole > 1e-4 && whole < 0.02 && bands > 1e-4 && bands < 0.02 && bands < 1.1 * whole))
        fail_msg("in integers %g from floats as a whole, %g in bands", whole, bands);
    ay_graph_free(g);
    free(x);
    for (int i = 0; i < 3; i++) free(y[i]);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------- */

static ay_graph *graph_decoder_end(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_upsample_nearest(g, ay_input(g, "x", ay_shape(t, 4, 1, 32, 48, 80)), 2, 2);
    x = ay_conv2d_layer(g, "up", x, 32, 3, 1, 1, true);
    for (int i = 0; i < 3; i++) {
        ay_push(g, "resnet%d", i);
        x = resnet(g, x, 16, true);
        ay_pop(g);
    }
    ay_set_output(g, "y", ay_conv2d_layer(g, "last", norm(g, "norm_out", x, 2, 0), 3, 3, 1, 1, true));
    return g;
}

/* The end of a picture decoder: one value of 32 channels at the full size and what it was upsampled from, or two of 16; never
 * the upsampled picture, a normalised one, or a third. */
static void test_peak(void **state) {
    graph_case c;
    uint64_t digest;
    int bands;
    ay_program *p = NULL;
    size_t full = (size_t)32 * 96 * 160 * 4, scratch = 6 << 20;
    graph_case_make(&c, cxs[0], graph_decoder_end, 1, AY_F32, false, NULL);
    double e = run_case(cxs[0], &c, 1, &bands, &digest);
    assert_true(e <= 1e-5);
    assert_int_equal(bands, 8); /* each convolution but the shortcut, which has its own in a pair */
    assert_ok(cxs[0], ay_cpu_compile(cxs[0], c.g, &(ay_compile_opts){.band_from = 1}, &p));
    size_t with = 0;
    for (int i = 0; i < p->n_bufs; i++) { /* without scratch, which does not grow with the picture */
        const ay_buffer *b = &p->bufs[i];
        if (b->home == AY_HOME_SLAB && b->first >= 0 && b->bytes >= full / 4 && b->offset + b->bytes > with) with = b->offset + b->bytes;
    }
    ay_program_free(&p);
    assert_ok(cxs[0], ay_cpu_compile(cxs[0], c.g, &(ay_compile_opts){.band_from = SIZE_MAX}, &p));
    size_t without = ay_program_peak(p);
    ay_program_free(&p);
    if (with > full + full / 4 + scratch || without < 2 * full) fail_msg("%zu bytes in bands, %zu without, of values of %zu", with, without, full);
    graph_case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random), cmocka_unit_test(test_int8), cmocka_unit_test(test_peak)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
