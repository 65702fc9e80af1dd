/* SPDX-License-Identifier: MIT
 *
 * Eight-bit activations through the engine: which layers take them, one quantised copy for all that read the same value, the
 * same bits for any number of threads, and errors against the float engine that stay small beside those of the weights, also
 * where a few channels of activations or weights are a hundred times larger than the others.
 */
#include "../support/engine_graphs.h"
#include "cpu/plan.h"
#include "quant/quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ay_ctx *cxs[3];
static int open_all(void **state) {
    for (int i = 0; i < 3; i++) {
        if (ay_ctx_open(i + 1, &cxs[i]) != ALLOY_OK) return 1;
    }
    return 0;
}
static int close_all(void **state) {
    for (int i = 0; i < 3; i++) ay_ctx_close(&cxs[i]);
    return 0;
}

static float normal(uint64_t *seed) {
    double s = -6;
    for (int i = 0; i < 12; i++) s += (double)(ay_test_random(seed) >> 40) / (1 << 24);
    return (float)s;
}

/* ---- weights: a float one and its quantised form ------------------------------------------------------------------ */

typedef struct layer {
    ay_type type;
    float *f;
    uint8_t *codes;
    size_t have;
    ay_quantized parts;
    ay_weight w;
} layer;

static void read_layer(void *user, int64_t begin, int64_t count, float *out) {
    memcpy(out, ((const layer *)user)->f + begin, (size_t)count * sizeof(float));
}
static alloy_status put_codes(void *user, const void *bytes, size_t n) {
    layer *l = user;
    memcpy(l->codes + l->have, bytes, n);
    l->have += n;
    return ALLOY_OK;
}

/** Normal numbers; every 40th input channel `outlier` times as large. */
static void layer_make(layer *l, ay_type type, ay_quant_kind kind, float outlier, uint64_t *seed) {
    int64_t n = ay_type_count(&type), inner = n / type.dim[0] / type.dim[1];
    *l = (layer){.type = type, .f = malloc((size_t)n * sizeof(float)), .codes = malloc((size_t)n)};
    for (int64_t i = 0; i < n; i++)
        l->f[i] = normal(seed) * 0.1f * (i / inner % type.dim[1] % 40 == 7 ? outlier : 1) / sqrtf((float)(n / type.dim[0]));
    type.dtype = AY_F16;
    assert_true(ay_quant_storage(&kind, &type, &l->w));
    ay_quant_rows rows = {.read = read_layer, .user = l};
    assert_ok(cxs[0], ay_quantize(cxs[0], "w", &l->w, false, &rows, put_codes, l, &l->parts));
    l->w.value_dtype = AY_F32;
    l->w.data = l->codes;
    l->w.scale = l->parts.scale;
    l->w.lut = l->parts.lut;
}

static void layer_free(layer *l) {
    free(l->f);
    free(l->codes);
    ay_quantized_free(&l->parts);
}

/* ---- nets: layers "a", "b" .. over one input ---------------------------------------------------------------------- */

enum { ROWS = 48, WIDTH = 160, SIDE = 9, THREADS = 3 };

typedef struct net {
    layer l[4];
    int n;
    ay_graph *g;
    float *x, *gate, *want, *y;
    ay_type in, out, gates;
} net;

static ay_val param(net *t, const char *name, ay_type type, ay_quant_kind kind, float outlier, uint64_t *seed) {
    layer_make(&t->l[t->n++], type, kind, outlier, seed);
    return ay_param(t->g, name, type);
}

typedef void (*net_fn)(net *t, ay_quant_kind kind, float outlier, int batch, uint64_t *seed);

/** Three products of one value, mixed, and a product with a gate for each sample and a residual. */
static void transformer(net *t, ay_quant_kind kind, float outlier, int batch, uint64_t *seed) {
    static const char *const names[] = {"a", "b", "c"};
    ay_type w = ay_shape(AY_F32, 2, WIDTH, WIDTH);
    ay_val x = ay_input(t->g, "x", t->in = ay_shape(AY_F32, 3, batch, ROWS, WIDTH)), y[3];
    ay_val gate = ay_input(t->g, "gate", t->gates = ay_shape(AY_F32, 3, batch, 1, WIDTH));
    for (int i = 0; i < 3; i++) y[i] = ay_linear(t->g, x, param(t, names[i], w, kind, outlier, seed), AY_NO_VALUE);
    ay_val h = ay_unary(t->g, AY_OP_TANH, ay_add(t->g, ay_mul(t->g, y[0], y[1]), y[2]));
    ay_val o = ay_linear(t->g, h, param(t, "d", w, kind, outlier, seed), AY_NO_VALUE);
    ay_set_output(t->g, "y", ay_add(t->g, y[2], ay_mul(t->g, gate, o)));
}

static ay_val conv(net *t, const char *name, ay_val x, ay_type w, int stride, ay_quant_kind kind, float outlier, uint64_t *seed) {
    int pad = (int)w.dim[2] / 2;
    ay_attr a = {.conv = {.stride = {stride, stride}, .dilation = {1, 1}, .before = {pad, pad}, .after = {pad, pad}, .groups = 1}};
    ay_val v = param(t, name, w, kind, outlier, seed);
    return ay_node_add(t->g, AY_OP_CONV, (ay_val[]){x, v}, 2, &a, NULL);
}

static void decoder(net *t, ay_quant_kind kind, float outlier, int batch, uint64_t *seed) {
    ay_val x = ay_input(t->g, "x", t->in = ay_shape(AY_F32, 4, batch, 64, SIDE, SIDE));
    ay_val gate = ay_input(t->g, "gate", t->gates = ay_shape(AY_F32, 1, 1));
    ay_val h = conv(t, "a", x, ay_shape(AY_F32, 4, 96, 64, 3, 3), 2, kind, outlier, seed);
    ay_val side = conv(t, "b", x, ay_shape(AY_F32, 4, 96, 64, 1, 1), 2, kind, outlier, seed);
    h = conv(t, "c", ay_unary(t->g, AY_OP_TANH, h), ay_shape(AY_F32, 4, 96, 96, 3, 3), 1, kind, 1, seed);
    ay_set_output(t->g, "y", ay_mul(t->g, gate, ay_add(t->g, h, side)));
}

/** Every 40th input channel of the weights and every 50th of x is so many times as large as the others. */
typedef struct outliers {
    float weights, x;
} outliers;

static void net_make(net *t, net_fn make, ay_quant_kind kind, outliers o, int batch, uint64_t seed) {
    *t = (net){.g = ay_graph_new(cxs[0])};
    make(t, kind, o.weights, batch, &seed);
    assert_ok(cxs[0], ay_graph_status(t->g));
    t->out = *ay_type_of(t->g, t->g->outputs[0].value);
    int64_t n = ay_type_count(&t->in), m = ay_type_count(&t->gates), axis = t->in.rank == 3 ? 2 : 1, inner = 1;
    for (int64_t i = axis + 1; i < t->in.rank; i++) inner *= t->in.dim[i];
    t->x = malloc((size_t)n * 4);
    t->gate = malloc((size_t)m * 4);
    t->want = malloc((size_t)ay_type_count(&t->out) * 4);
    t->y = malloc((size_t)ay_type_count(&t->out) * 4);
    for (int64_t i = 0; i < n; i++) t->x[i] = normal(&seed) * (i / inner % t->in.dim[axis] % 50 == 3 ? o.x : 1);
    for (int64_t i = 0; i < m; i++) t->gate[i] = normal(&seed);
}

static void net_free(net *t) {
    for (int i = 0; i < t->n; i++) layer_free(&t->l[i]);
    free(t->x), free(t->gate), free(t->want), free(t->y);
    ay_graph_free(t->g);
}

/** Weights in the order of their names: quantised or not. */
static void bind(net *t, bool quantised) {
    int at = 0;
    for (int i = 0; i < t->g->n_nodes; i++) {
        ay_node *n = &t->g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        *n->weight = quantised ? t->l[at].w : ay_weight_plain(&n->type, t->l[at].f);
        at++;
    }
    assert_int_equal(at, t->n);
}

typedef struct counts {
    int quantisers, integer, steps;
} counts;

static counts net_run(net *t, ay_ctx *cx, bool int8, float *y) {
    ay_program *p;
    assert_ok(cx, ay_cpu_compile(cx, t->g, &(ay_compile_opts){.int8_activations = int8}, &p));
    assert_true(ay_plan_memory_ok(p));
    memset(p->slab, 0xff, p->slab_bytes);
    ay_tensor in[2] = {{"x", t->in, t->x}, {"gate", t->gates, t->gate}}, out = {"y", t->out, y};
    assert_ok(cx, ay_program_run(cx, p, in, 2, &out, 1));
    counts c = {.steps = p->n_steps};
    for (int i = 0; i < p->n_steps; i++) {
        c.quantisers += strncmp(p->steps[i].what, "to int8", 7) == 0;
        c.integer += strstr(p->steps[i].what, "in int8") != NULL;
    }
    ay_program_free(&p);
    return c;
}

static double distance(const net *t, const float *a, const float *b) {
    double d = 0, n = 0;
    for (int64_t i = 0; i < ay_type_count(&t->out); i++) {
        d += pow((double)a[i] - (double)b[i], 2);
        n += pow((double)b[i], 2);
    }
    return sqrt(d / n);
}

/** Errors against float weights, of quantised weights alone and with quantised activations; the same bits for any threads. */
static void errors(net_fn make, ay_quant_kind kind, outliers o, int batch, int quantisers, double *alone, double *both) {
    net t;
    net_make(&t, make, kind, o, batch, (uint64_t)kind * 100 + (uint64_t)batch * 10 + (uint64_t)o.x + 5);
    bind(&t, false);
    assert_int_equal(net_run(&t, cxs[0], true, t.want).quantisers, 0);
    bind(&t, true);
    net_run(&t, cxs[0], false, t.y);
    *alone = distance(&t, t.y, t.want);
    float *first = malloc((size_t)ay_type_count(&t.out) * 4);
    int best = cxs[0]->isa;
    for (int isa = 0; isa < AY_ISA_COUNT; isa++) {
        if (isa > best || !ay_isa_runs((ay_isa)isa)) continue;
        for (int i = 0; i < THREADS; i++) {
            cxs[i]->isa = isa;
            counts c = net_run(&t, cxs[i], true, i ? t.y : first);
            bool palette = kind == AY_QUANT_PALETTE4; /* one with outliers may stay float */
            if (!palette || o.weights == 1) assert_int_equal(c.integer, t.n);
            assert_true(c.quantisers == quantisers || (palette && o.weights != 1 && c.quantisers < quantisers));
            if (i) assert_memory_equal(first, t.y, (size_t)ay_type_count(&t.out) * 4);
            cxs[i]->isa = best;
        }
        *both = distance(&t, first, t.want);
    }
    free(first);
    net_free(&t);
}

/** int4 and palettes of 16: at most 1.3 times the weights' error; int8: at most 2 times, and 35 dB where the weights have no
 *  outliers, whose own error is more than that otherwise. */
static void check(net_fn make, int quantisers, const char *name) {
    static const struct {
        ay_quant_kind kind;
        const char *name;
        double most;
    } kinds[] = {{AY_QUANT_INT8, "int8", 2}, {AY_QUANT_INT4, "int4", 1.3}, {AY_QUANT_PALETTE4, "palette", 1.3}};
    static const outliers cases[] = {{1, 1}, {1, 20}, {1, 100}, {20, 1}, {20, 20}};
    for (int k = 0; k < 3; k++) {
        for (int o = 0; o < 5; o++) {
            double alone, both;
            errors(make, kinds[k].kind, cases[o], 1 + o % 2, quantisers, &alone, &both);
            printf("%s, %s, outliers %g times in weights, %g in x: error %.4f -> %.4f, %.2f times\n", name, kinds[k].name,
                   (double)cases[o].weights, (double)cases[o].x, alone, both, both / alone);
            assert_true(both <= alone * kinds[k].most);
            if (kinds[k].kind == AY_QUANT_INT8 && cases[o].weights == 1) assert_true(both < pow(10, -35 / 20.0));
        }
    }
}

static void test_products(void **state) { check(transformer, 2, "products"); }
static void test_convolutions(void **state) { check(decoder, 2, "convolutions"); }

/** Emulating half means each operation as it stands. */
static void test_emulation(void **state) {
    net t;
    net_make(&t, transformer, AY_QUANT_INT8, (outliers){1, 1}, 1, 9);
    bind(&t, true);
    ay_program *p;
    assert_ok(cxs[0], ay_cpu_compile(cxs[0], t.g, &(ay_compile_opts){.int8_activations = true, .emulate_f16 = true}, &p));
    for (int i = 0; i < p->n_steps; i++) assert_null(strstr(p->steps[i].what, "int8 x"));
    for (int i = 0; i < p->n_steps; i++) assert_null(strstr(p->steps[i].what, "in int8"));
    ay_program_free(&p);
    net_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_emulation),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
