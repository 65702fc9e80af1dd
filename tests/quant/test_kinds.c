/* SPDX-License-Identifier: MIT
 *
 * Every kind of quantised storage as the weight of everything it can be the weight of (linear layers, convolutions over 1, 2
 * and 3 dimensions, tables of embeddings), for both targets and value types: written into a package, nothing for the
 * validator to say, read back number for number.
 *
 * With a folder as argument the packages stay there, each beside the numbers of its compressed weights, for
 * `tests/reference/quantize.py kinds`, which asks coremltools for the same.
 */
#include "../support/support.h"
#include "coreml/coreml.h"
#include "io/io.h"
#include "quant/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct held { /* one quantised weight in memory */
    uint8_t *data;
    size_t n;
} held;

static alloy_status keep(void *user, const void *bytes, size_t n) {
    held *h = user;
    memcpy(h->data + h->n, bytes, n);
    h->n += n;
    return ALLOY_OK;
}

static void read_numbers(void *user, int64_t begin, int64_t count, float *out) { memcpy(out, (const float *)user + begin, (size_t)count * sizeof *out); }

/* Quantises a PARAM in place: heavy tails, some channels far larger, some nothing but zeros. */
static bool quantise(ay_test *t, ay_node *n, ay_quant_kind kind, uint64_t *seed) {
    ay_weight w;
    ay_quantized parts;
    int64_t count = ay_type_count(&n->type), row = count / n->type.dim[0];
    float *x = ay_alloc(t->arena, (size_t)count * sizeof *x);
    held h = {ay_alloc(t->arena, (size_t)count * 4 + 64), 0};
    if (!ay_quant_storage(&kind, &n->type, &w)) return false;
    for (int64_t i = 0; i < count; i++) {
        float u = ay_test_uniform(seed), v = ay_test_uniform(seed);
        x[i] = u * u * u / (0.05f + v * v) * (i / row % 7 == 3 ? 30.0f : i / row % 11 == 5 ? 0.0f : 1.0f);
    }
    ay_quant_rows rows = {read_numbers, NULL, x};
    assert_ok(t->cx, ay_quantize(t->cx, n->name, &w, false, &rows, keep, &h, &parts));
    w.data = h.data;
    if (w.store == AY_STORE_BLOCK) w.scale = memcpy(ay_alloc(t->arena, ay_weight_scale_bytes(&w)), parts.scale, ay_weight_scale_bytes(&w));
    else w.lut = memcpy(ay_alloc(t->arena, ay_weight_lut_bytes(&w)), parts.lut, ay_weight_lut_bytes(&w));
    ay_quantized_free(&parts);
    assert_int_equal(h.n, ay_weight_data_bytes(&w));
    *n->weight = w;
    return true;
}

static ay_val conv(ay_graph *g, int dims, ay_dtype t) {
    ay_attr a = {.conv = {.groups = 1}};
    ay_type x = {.dtype = t, .rank = dims + 2, .dim = {1, 64, 5, 4, 3}}, w = {.dtype = t, .rank = dims + 2, .dim = {24, 64, 3, 1, 2}};
    for (int i = 0; i < dims; i++) a.conv.stride[i] = a.conv.dilation[i] = 1;
    char name[24];
    snprintf(name, sizeof name, "conv%d_weight", dims);
    ay_val in[2] = {ay_input(g, dims == 1 ? "x1" : dims == 2 ? "x2" : "x3", x), ay_param(g, name, w)};
    return ay_node_add(g, AY_OP_CONV, in, 2, &a, NULL);
}

static ay_graph *build(ay_test *t, ay_dtype dtype) {
    ay_graph *g = ay_graph_new(t->cx);
    ay_val ids = ay_input(g, "ids", ay_shape(AY_I32, 1, 3));
    ay_set_output(g, "rows", ay_gather(g, ay_param(g, "table_weight", ay_shape(dtype, 2, 40, 64)), ids, 0));
    ay_val x = ay_input(g, "x", ay_shape(dtype, 2, 3, 96));
    ay_set_output(g, "line", ay_linear(g, x, ay_param(g, "linear_weight", ay_shape(dtype, 2, 48, 96)), AY_NO_VALUE));
    ay_val odd = ay_input(g, "odd", ay_shape(dtype, 2, 3, 50)); /* no block divides it */
    ay_set_output(g, "oddly", ay_linear(g, odd, ay_param(g, "odd_weight", ay_shape(dtype, 2, 9, 50)), AY_NO_VALUE));
    ay_set_output(g, "c1", conv(g, 1, dtype));
    ay_set_output(g, "c2", conv(g, 2, dtype));
    ay_set_output(g, "c3", conv(g, 3, dtype));
    assert_ok(t->cx, ay_graph_status(g));
    return g;
}

static void say(void *user, bool warning, const char *text) {
    if (!warning) print_message("%s\n", text);
}

/* The constants of the package against those that were written; into `values`, if asked for. */
static int compare(ay_test *t, const char *path, const ay_graph *g, const char *values) {
    ay_package *p;
    ay_graph *back;
    int found = 0;
    assert_ok(t->cx, ay_package_open(t->cx, path, &p));
    assert_ok(t->cx, ay_package_graph(p, NULL, &back));
    ay_tensor *all = ay_alloc(t->arena, (size_t)back->n_nodes * sizeof *all);
    for (int i = 0; i < back->n_nodes; i++) {
        const ay_node *n = &back->nodes[i], *own = NULL;
        if (n->op != AY_OP_PARAM || n->weight->store == AY_STORE_PLAIN) continue;
        for (int k = 0; k < g->n_nodes; k++) {
            if (g->nodes[k].op == AY_OP_PARAM && strcmp(g->nodes[k].name, n->name) == 0) own = &g->nodes[k];
        }
        assert_non_null(own);
        int64_t count = ay_type_count(&n->type);
        float *a = ay_alloc(t->arena, (size_t)count * sizeof *a), *b = ay_alloc(t->arena, (size_t)count * sizeof *b);
        ay_weight_read(own->weight, 0, count, a);
        ay_weight_read(n->weight, 0, count, b);
        assert_memory_equal(a, b, (size_t)count * sizeof *a);
        all[found] = (ay_tensor){n->name, n->type, b};
        all[found++].type.dtype = AY_F32;
    }
    if (values) assert_ok(t->cx, ay_st_write(t->cx, values, all, found, NULL));
    ay_graph_free(back);
    ay_package_close(&p);
    return found;
}

static const struct {
    const char *name;
    ay_quant_kind kind;
    bool old; /* macOS 14 has it */
} kinds[] = {{"int8", AY_QUANT_INT8, true},         {"int4", AY_QUANT_INT4, false},        {"palette4", AY_QUANT_PALETTE4, true},
             {"palette6", AY_QUANT_PALETTE6, true}, {"palette8", AY_QUANT_PALETTE8, true}};

static void write_all(ay_test *t, const char *to) {
    uint64_t seed = 77;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int form = 0; form < 4; form++) {
            ay_dtype dtype = form & 1 ? AY_F32 : AY_F16;
            ay_target target = form & 2 ? AY_TARGET_MACOS15 : AY_TARGET_MACOS14;
            if (target == AY_TARGET_MACOS14 && !kinds[k].old) continue;
            const char *stem = ay_sprintf(t->arena, "%s/%s_%s_%d", to, kinds[k].name, ay_dtype_name(dtype), form & 2 ? 15 : 14);
            const char *path = ay_sprintf(t->arena, "%s.mlpackage", stem);
            ay_graph *g = build(t, dtype);
            int quantised = 0, findings, warnings;
            for (int i = 0; i < g->n_nodes; i++) {
                if (g->nodes[i].op == AY_OP_PARAM) quantised += quantise(t, &g->nodes[i], kinds[k].kind, &seed);
            }
            assert_int_equal(quantised, 6);
            ay_function f = {"main", g};
            ay_package_options o = {.target = target};
            assert_ok(t->cx, ay_package_write(t->cx, path, &f, 1, &o, t->arena, NULL, NULL));
            assert_ok(t->cx, ay_package_validate(t->cx, path, say, NULL, &findings, &warnings));
            assert_int_equal(findings, 0);
            assert_int_equal(compare(t, path, g, ay_sprintf(t->arena, "%s.safetensors", stem)), 6);
            ay_graph_free(g);
        }
    }
}

static void test_kinds(void **state) {
    ay_test *t = *state;
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_test_path(t, "kinds")));
    write_all(t, ay_test_path(t, "kinds"));
}

int main(int argc, char **argv) {
    if (argc == 2) {
        void *state;
        if (ay_test_setup(&state)) return 1;
        ay_test *t = state;
        assert_ok(t->cx, ay_mkdirs(t->cx, argv[1]));
        write_all(t, argv[1]);
        return ay_test_teardown(&state);
    }
    const struct CMUnitTest tests[] = {AY_TEST(test_kinds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
