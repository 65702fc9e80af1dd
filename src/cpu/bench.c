/* SPDX-License-Identifier: MIT
 *
 * One operation, one graph: built, bound to made-up weights, compiled and timed as production runs it. The shapes are those
 * of real models: what they stand for is in each row.
 */
#include "cpu/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a row builds from its numbers, and from x, its only input. */
typedef ay_val (*build_fn)(ay_graph *g, const ay_bench_row *r, ay_val x);

struct ay_bench_row {
    const char *kind;
    build_fn build;
    int64_t m[4];  /* linear: rows, in, out; attention: tokens, heads, dim, keys; conv: channels in, out, side, kernel */
    ay_dtype type; /* storage of the weight */
    const char *from;
};

static ay_val build_linear(ay_graph *g, const ay_bench_row *r, ay_val x) { return ay_linear_layer(g, "layer", x, r->m[2], true); }

static ay_val build_attention(ay_graph *g, const ay_bench_row *r, ay_val x) {
    int64_t rows = r->m[0], heads = r->m[1], d = r->m[2];
    ay_val part[3];
    for (int i = 0; i < 3; i++) { /* x [3, 1, rows, heads * d]: q, k, v as three products leave them */
        ay_val v = ay_reshape(g, ay_slice(g, x, 0, i, i + 1), 4, 1, rows, heads, d);
        if (i > 0 && r->m[3]) v = ay_slice(g, v, 1, 0, r->m[3]);
        part[i] = ay_permute(g, v, 4, 0, 2, 1, 3);
    }
    ay_val o = ay_sdpa(g, part[0], part[1], part[2], AY_NO_VALUE, 0.125);
    return ay_reshape(g, ay_permute(g, o, 4, 0, 2, 1, 3), 3, 1, rows, heads * d);
}

static ay_val build_conv(ay_graph *g, const ay_bench_row *r, ay_val x) {
    return ay_conv2d_layer(g, "conv", x, r->m[1], (int)r->m[3], 1, (int)r->m[3] / 2, true);
}

static ay_val build_down(ay_graph *g, const ay_bench_row *r, ay_val x) {
    return ay_conv2d_layer(g, "conv", x, r->m[1], (int)r->m[3], 2, (int)r->m[3] / 2, true);
}

static ay_val build_group_norm(ay_graph *g, const ay_bench_row *r, ay_val x) {
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, r->m[0])), b = ay_param(g, "bias", ay_shape(AY_F32, 1, r->m[0]));
    return ay_unary(g, AY_OP_SILU, ay_group_norm(g, x, 32, w, b, 1e-5));
}

static ay_val build_layer_norm(ay_graph *g, const ay_bench_row *r, ay_val x) {
    return ay_layer_norm(g, x, ay_param(g, "weight", ay_shape(AY_F32, 1, r->m[1])), ay_param(g, "bias", ay_shape(AY_F32, 1, r->m[1])), 1e-5);
}

static ay_val build_gated(ay_graph *g, const ay_bench_row *r, ay_val x) {
    int64_t n = r->m[1] / 2;
    return ay_mul(g, ay_slice(g, x, -1, 0, n), ay_gelu(g, ay_slice(g, x, -1, n, 2 * n), AY_GELU_EXACT));
}

static ay_val build_sine(ay_graph *g, const ay_bench_row *r, ay_val x) { return ay_unary(g, AY_OP_SIN, x); }
static ay_val build_sum(ay_graph *g, const ay_bench_row *r, ay_val x) { return ay_add(g, x, ay_unary(g, AY_OP_ABS, x)); }
static ay_val build_upsample(ay_graph *g, const ay_bench_row *r, ay_val x) { return ay_upsample_nearest(g, x, 2, 2); }

static const ay_bench_row rows[] = {
    {"linear", build_linear, {1280, 3072, 12288, 0}, AY_F16, "denoising transformer, feed-forward"},
    {"linear", build_linear, {1280, 15360, 3072, 0}, AY_F16, "denoising transformer, joined block"},
    {"linear", build_linear, {4096, 320, 2560, 0}, AY_F16, "UNet, feed-forward at 64x64"},
    {"linear", build_linear, {256, 1280, 1280, 0}, AY_F16, "UNet, attention at 16x16"},
    {"linear", build_linear, {256, 4096, 10240, 0}, AY_F16, "large text encoder, feed-forward"},
    {"linear", build_linear, {77, 768, 3072, 0}, AY_F16, "small text encoder, feed-forward"},
    {"linear", build_linear, {1, 3072, 18432, 0}, AY_F16, "denoising transformer, modulation"},
    {"linear", build_linear, {1280, 3072, 12288, 0}, AY_F32, "the same as float32"},
    {"linear", build_linear, {1280, 3072, 12288, 0}, AY_I8, "the same in 8 bits"},
    {"linear", build_linear, {1280, 3072, 12288, 0}, AY_I4, "the same in blocks of 4 bits"},
    {"linear", build_linear, {256, 4096, 10240, 0}, AY_I8, "large text encoder in 8 bits"},
    {"attention", build_attention, {4096, 8, 40, 0}, AY_F32, "UNet at 64x64"},
    {"attention", build_attention, {4096, 8, 40, 77}, AY_F32, "UNet at 64x64, to the text"},
    {"attention", build_attention, {1024, 8, 80, 0}, AY_F32, "UNet at 32x32"},
    {"attention", build_attention, {256, 8, 160, 0}, AY_F32, "UNet at 16x16"},
    {"attention", build_attention, {1536, 24, 128, 0}, AY_F32, "denoising transformer, 512x512 pixels"},
    {"attention", build_attention, {4608, 24, 128, 0}, AY_F32, "denoising transformer, 1024x1024 pixels"},
    {"attention", build_attention, {4096, 1, 512, 0}, AY_F32, "picture decoder at 512x512"},
    {"conv", build_conv, {320, 320, 64, 3}, AY_F16, "UNet at 64x64"},
    {"conv", build_conv, {640, 640, 32, 3}, AY_F16, "UNet at 32x32"},
    {"conv", build_conv, {1280, 1280, 16, 3}, AY_F16, "UNet at 16x16"},
    {"conv", build_conv, {1280, 1280, 8, 3}, AY_F16, "UNet at 8x8"},
    {"conv", build_down, {320, 320, 64, 3}, AY_F16, "UNet, stride 2"},
    {"conv", build_conv, {320, 320, 64, 3}, AY_I8, "UNet at 64x64 in 8 bits"},
    {"conv", build_conv, {512, 512, 128, 3}, AY_F16, "picture decoder"},
    {"conv", build_conv, {128, 128, 512, 3}, AY_F16, "picture decoder, the largest picture"},
    {"conv", build_conv, {128, 3, 512, 3}, AY_F16, "picture decoder, the last"},
    {"conv", build_conv, {320, 640, 64, 1}, AY_F16, "1x1"},
    {"group_norm", build_group_norm, {128, 0, 512, 0}, AY_F32, "picture decoder, with silu"},
    {"layer_norm", build_layer_norm, {4096, 320, 0, 0}, AY_F32, "UNet"},
    {"gated", build_gated, {4096, 2560, 0, 0}, AY_F32, "UNet, gelu of one half times the other"},
    {"add", build_sum, {2048, 3072, 0, 0}, AY_F32, "abs, and a sum"},
    {"sin", build_sine, {2048, 3072, 0, 0}, AY_F32, "rotary tables"},
    {"upsample", build_upsample, {512, 0, 128, 0}, AY_F32, "nearest, picture decoder"},
};

const ay_bench_row *ay_bench_row_at(int i) { return &rows[i]; }
const ay_bench_row *ay_bench_rows(int *n) {
    *n = (int)(sizeof rows / sizeof *rows);
    return rows;
}

const char *ay_bench_row_name(const ay_bench_row *r, char *text) {
    snprintf(text, 96, "%s: %s", r->kind, r->from);
    return text;
}

/* Pictures [1, C, side, side], attention's three operands, or rows. */
static ay_type input_type(const ay_bench_row *r) {
    if (r->build == build_attention) return ay_shape(AY_F32, 4, 3, 1, r->m[0], r->m[1] * r->m[2]);
    if (r->m[2] && r->build != build_linear) return ay_shape(AY_F32, 4, 1, r->m[0], r->m[2], r->m[2]);
    return ay_shape(AY_F32, 2, r->m[0], r->m[1]);
}

static void *numbers(ay_arena *a, ay_dtype t, int64_t count) {
    size_t bytes = ay_dtype_bytes(t, count);
    unsigned char *p = ay_alloc(a, bytes + 64);
    if (!p) return NULL;
    p += (64 - (uintptr_t)p % 64) % 64;
    uint64_t s = 88172645463325252u;
    if (ay_dtype_is_float(t)) {
        float some[1024];
        for (int i = 0; i < 1024; i++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            some[i] = 0.04f * ((float)(s >> 40) * 0x1p-24f - 0.5f);
        }
        for (int64_t at = 0; at < count; at += 1024)
            ay_convert_from_f32(t, some, ay_min_i64(1024, count - at), p + ay_dtype_bytes(t, at));
        return p;
    }
    for (size_t i = 0; i < bytes; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        p[i] = (unsigned char)(s >> 32);
    }
    return p;
}

/* The layer's weight in the row's storage: int8 one scale a row, int4 one for every 32 numbers; whatever else is small and
 * float32. */
static alloy_status bind(ay_ctx *cx, ay_graph *g, ay_arena *a, ay_dtype type) {
    for (int i = 0; i < g->n_nodes; i++) {
        ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        ay_weight *w = n->weight;
        bool matrix = n->type.rank > 1;
        w->data_dtype = matrix ? type : AY_F32;
        w->data = numbers(a, w->data_dtype, ay_type_count(&n->type));
        if (matrix && !ay_dtype_is_float(type)) {
            int64_t blocks = n->type.dim[0] * (type == AY_I4 ? n->type.dim[1] / 32 : 1);
            w->store = AY_STORE_BLOCK;
            w->scale_dtype = AY_F16;
            for (int d = 0; d < n->type.rank; d++) w->scale_dim[d] = 1;
            w->scale_dim[0] = n->type.dim[0];
            if (type == AY_I4) w->scale_dim[1] = n->type.dim[1] / 32;
            w->scale = numbers(a, AY_F16, blocks);
            if (!w->scale) return ay_nomem(cx);
        }
        if (!w->data) return ay_nomem(cx);
    }
    return ALLOY_OK;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

enum { MOST_RUNS = 64 };

/* The row's own steps: what comes in and goes out is not part of it. */
static void sum_steps(const ay_program *p, ay_step_profile *out) {
    const ay_step_profile *s;
    int n = ay_program_steps(p, &s);
    *out = (ay_step_profile){.what = "", .scope = ""};
    for (int i = 0; i < n; i++) {
        if (strncmp(s[i].what, "input ", 6) == 0 || strncmp(s[i].what, "output ", 7) == 0) continue;
        if (s[i].seconds >= out->seconds * 0.5 || !*out->what) out->what = s[i].what; /* the one that counts most, about */
        out->seconds += s[i].seconds;
        out->flops += s[i].flops;
        out->int8_ops += s[i].int8_ops;
        out->int4_ops += s[i].int4_ops;
        out->bytes += s[i].bytes;
        out->calls = s[i].calls;
    }
}

static alloy_status time_runs(ay_ctx *cx, ay_program *p, const ay_tensor *in, ay_tensor *out, int runs, ay_step_profile *sum) {
    double t[MOST_RUNS];
    AY_TRY(ay_program_run(cx, p, in, 1, out, 1)); /* not counted: pages are touched for the first time */
    for (int i = 0; i < runs; i++) {
        ay_program_profile(p, false);
        ay_program_profile(p, true);
        AY_TRY(ay_program_run(cx, p, in, 1, out, 1));
        sum_steps(p, sum);
        t[i] = sum->seconds;
    }
    qsort(t, (size_t)runs, sizeof *t, compare);
    sum->seconds = t[runs / 2];
    return ALLOY_OK;
}

static alloy_status run_row(ay_ctx *cx, const ay_bench_row *r, int runs, ay_arena *a, ay_graph *g, char *what,
                            ay_step_profile *sum) {
    ay_program *p = NULL;
    ay_type in_type = input_type(r);
    ay_val y = r->build(g, r, ay_input(g, "x", in_type));
    ay_set_output(g, "y", y);
    AY_TRY(ay_graph_status(g));
    AY_TRY(bind(cx, g, a, r->type));
    ay_type out_type = *ay_type_of(g, y);
    ay_tensor in = {"x", in_type, numbers(a, AY_F32, ay_type_count(&in_type))};
    ay_tensor out = {"y", out_type, numbers(a, AY_F32, ay_type_count(&out_type))};
    if (!in.data || !out.data) return ay_nomem(cx);
    alloy_status st = ay_cpu_compile(cx, g, &(ay_compile_opts){.int8_activations = true}, &p);
    if (st == ALLOY_OK) st = time_runs(cx, p, &in, &out, runs, sum);
    if (st == ALLOY_OK) snprintf(what, 192, "%s", sum->what); /* the program's own text goes with it */
    ay_program_free(&p);
    return st;
}

alloy_status ay_bench_row_run(ay_ctx *cx, const ay_bench_row *r, int runs, char *what, ay_step_profile *out) {
    ay_arena *a = ay_arena_new();
    ay_graph *g = ay_graph_new(cx);
    runs = runs < 1 ? 1 : runs > MOST_RUNS ? MOST_RUNS : runs;
    alloy_status st = a && g ? run_row(cx, r, runs, a, g, what, out) : ay_nomem(cx);
    out->what = what;
    ay_graph_free(g);
    ay_arena_free(a);
    return st;
}
