/* SPDX-License-Identifier: MIT
 *
 * Packages that are broken, hostile or not supported: one good package is changed in one place each time, and the sentence
 * must say what is wrong. Nothing may crash or leak (the sanitizers see to that).
 */
#include "../support/support.h"

#include "coreml/package.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct good {
    AyMil__Model *m;
    AyMil__Function *f;
    AyMil__Block *b;
    uint8_t *weights;
    size_t n_weights;
} good;

static char *part(ay_test *t, const char *package, const char *inner, size_t *n) {
    const char *path = ay_sprintf(t->arena, "mlprograms/%s.mlpackage/Data/com.apple.CoreML/%s", package, inner);
    return ay_test_read(t, ay_test_golden(t, path), n);
}

static good load(ay_test *t, const char *package) {
    good g;
    size_t n;
    const char *spec = part(t, package, "model.mlmodel", &n);
    g.m = ay_mil__model__unpack(NULL, n, (const uint8_t *)spec);
    assert_non_null(g.m);
    g.f = g.m->ml_program->functions[0]->value;
    g.b = g.f->block_specializations[0]->value;
    const char *weights = ay_sprintf(t->arena, "mlprograms/%s.mlpackage/Data/com.apple.CoreML/weights/weight.bin", package);
    g.weights = NULL;
    g.n_weights = 0;
    if (ay_path_kind_of(ay_test_golden(t, weights)) == AY_PATH_FILE)
        g.weights = (uint8_t *)part(t, package, "weights/weight.bin", &g.n_weights);
    return g;
}

static AyMil__Operation *find_op(good *g, const char *type) {
    for (size_t i = 0; i < g->b->n_operations; i++)
        if (strcmp(g->b->operations[i]->type, type) == 0) return g->b->operations[i];
    fail_msg("no %s in the package", type);
    return NULL;
}

static AyMil__Argument *find_arg(AyMil__Operation *op, const char *key) {
    for (size_t i = 0; i < op->n_inputs; i++)
        if (strcmp(op->inputs[i]->key, key) == 0) return op->inputs[i]->value;
    fail_msg("%s has no %s", op->type, key);
    return NULL;
}

static AyMil__Value *find_attr(AyMil__Operation *op, const char *key) {
    for (size_t i = 0; i < op->n_attributes; i++)
        if (strcmp(op->attributes[i]->key, key) == 0) return op->attributes[i]->value;
    fail_msg("%s has no %s", op->type, key);
    return NULL;
}

/** The const op that makes parameter `key` of `op`. */
static AyMil__Operation *maker(good *g, AyMil__Operation *op, const char *key) {
    const char *name = find_arg(op, key)->arguments[0]->name;
    for (size_t i = 0; i < g->b->n_operations; i++)
        if (g->b->operations[i]->n_outputs && strcmp(g->b->operations[i]->outputs[0]->name, name) == 0)
            return g->b->operations[i];
    fail_msg("%s is not made", name);
    return NULL;
}

static void set_string(char **s, const char *to) {
    free(*s);
    *s = strdup(to);
}

/** Packs the changed model, opens it and reads the function: must end with this status and sentence. */
static void expect(ay_test *t, good *g, const char *function, alloy_status status, const char *sentence) {
    size_t n = ay_mil__model__get_packed_size(g->m);
    uint8_t *spec = malloc(n + 1);
    ay_package *p = NULL;
    ay_graph *graph = NULL;
    ay_mil__model__pack(g->m, spec);
    alloy_status st = ay_package_from_bytes(t->cx, "x.mlpackage", spec, n, g->weights, g->n_weights, &p);
    if (!st) st = ay_package_graph(p, function, &graph);
    ay_assert_status(t->cx, st, status, sentence, __FILE__, __LINE__);
    if (sentence) ay_assert_contains(ay_error_text(t->cx), "x.mlpackage", __FILE__, __LINE__);
    ay_graph_free(graph);
    ay_package_close(&p);
    free(spec);
    ay_mil__model__free_unpacked(g->m, NULL);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void models_that_are_not_ours(void **state) {
    ay_test *t = *state;
    good g = load(t, "newer");
    expect(t, &g, NULL, ALLOY_OK, NULL);
    g = load(t, "newer");
    g.m->specification_version = 11;
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "specification version 11");
    g = load(t, "newer");
    g.m->ml_program->version = 2;
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "version is 2");
    g = load(t, "newer");
    set_string(&g.f->opset, "CoreML42");
    expect(t, &g, NULL, ALLOY_E_FORMAT, "CoreML42");
    g = load(t, "newer");
    set_string(&g.f->opset, "CoreML0");
    set_string(&g.f->block_specializations[0]->key, "CoreML0");
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "CoreML5 to CoreML9");
    g = load(t, "newer");
    expect(t, &g, "side", ALLOY_E_MISMATCH, "no function \"side\"; it has main");

    AyMil__Model pipeline;
    ay_mil__model__init(&pipeline);
    pipeline.specification_version = 9;
    pipeline.type_case = AY_MIL__MODEL__TYPE_PIPELINE;
    pipeline.pipeline = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
    uint8_t bytes[64];
    ay_package *p;
    assert_fails(t->cx, ay_package_from_bytes(t->cx, "x", bytes, ay_mil__model__pack(&pipeline, bytes), NULL, 0, &p),
                 ALLOY_E_UNSUPPORTED, "pipeline");
    assert_fails(t->cx, ay_package_from_bytes(t->cx, "x", (const uint8_t *)"\377\377", 2, NULL, 0, &p), ALLOY_E_FORMAT,
                 "not a Core ML model");
    assert_null(p);
}

static void inputs_that_cannot_be_given(void **state) {
    ay_test *t = *state;
    good g = load(t, "newer");
    AyMil__Dimension *d = g.f->inputs[0]->type->tensor_type->dimensions[2];
    free(d->constant);
    d->dimension_case = AY_MIL__DIMENSION__DIMENSION_UNKNOWN;
    d->unknown = calloc(1, sizeof *d->unknown);
    ay_mil__unknown_dimension__init(d->unknown);
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "input q has a flexible shape");

    g = load(t, "newer");
    AyMil__FeatureType *f = g.m->description->input[1]->type;
    AyMil__ImageFeatureType image = AY_MIL__IMAGE_FEATURE_TYPE__INIT, *heap = malloc(sizeof image);
    *heap = image;
    ay_mil__array_feature_type__free_unpacked(f->multi_array_type, NULL);
    f->type_case = AY_MIL__FEATURE_TYPE__TYPE_IMAGE_TYPE;
    f->image_type = heap;
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "input k is an image");

    g = load(t, "newer");
    AyMil__ValueType *v = g.f->inputs[2]->type;
    ay_mil__tensor_type__free_unpacked(v->tensor_type, NULL);
    v->type_case = AY_MIL__VALUE_TYPE__TYPE_STATE_TYPE;
    v->state_type = calloc(1, sizeof *v->state_type);
    ay_mil__state_type__init(v->state_type);
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "is a state");
}

static void operations_that_are_wrong(void **state) {
    ay_test *t = *state;
    good g = load(t, "reductions");
    set_string(&find_op(&g, "softmax")->type, "softmaxx");
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "operation r_softmax (softmaxx): alloy does not know this type");
    g = load(t, "reductions");
    set_string(&find_op(&g, "softmax")->inputs[0]->key, "nothing");
    set_string(&find_op(&g, "softmax")->inputs[1]->key, "nothing");
    expect(t, &g, NULL, ALLOY_E_FORMAT, "parameter x is missing");
    g = load(t, "reductions");
    set_string(&find_arg(find_op(&g, "softmax"), "x")->arguments[0]->name, "later");
    expect(t, &g, NULL, ALLOY_E_FORMAT, "parameter x is \"later\", which no earlier operation makes");
    g = load(t, "reductions");
    find_attr(maker(&g, find_op(&g, "softmax"), "axis"), "val")->immediate_value->tensor->ints->values[0] = 4;
    expect(t, &g, NULL, ALLOY_E_FORMAT, "axis is 4 for a value of rank 4");
    g = load(t, "reductions");
    find_op(&g, "softmax")->outputs[0]->type->tensor_type->dimensions[1]->constant->size = 7;
    expect(t, &g, NULL, ALLOY_E_MISMATCH,
           "declares output r_softmax as float32[2, 7, 4, 5], its inputs make it float32[2, 3, 4, 5]");
    g = load(t, "reductions");
    set_string(&find_op(&g, "softmax")->outputs[0]->name, "x");
    expect(t, &g, NULL, ALLOY_E_FORMAT, "two values are called \"x\"");
    g = load(t, "reductions");
    set_string(&g.b->outputs[0], "nowhere");
    expect(t, &g, NULL, ALLOY_E_FORMAT, "output nowhere is made by no operation");
    g = load(t, "reductions");
    AyMil__Operation *topk = find_op(&g, "topk");
    ay_mil__named_value_type__free_unpacked(topk->outputs[--topk->n_outputs], NULL);
    expect(t, &g, NULL, ALLOY_E_FORMAT, "which no earlier operation makes");
    g = load(t, "shapes");
    find_attr(maker(&g, find_op(&g, "tile"), "reps"), "val")->immediate_value->tensor->ints->values[0] = INT32_MAX;
    expect(t, &g, NULL, ALLOY_E_MISMATCH, "s_tile");
    g = load(t, "shapes");
    find_attr(maker(&g, find_op(&g, "range_1d"), "step"), "val")->immediate_value->tensor->floats->values[0] = 1e-9f;
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "too many");
    g = load(t, "matrices");
    find_attr(maker(&g, find_op(&g, "conv"), "strides"), "val")->immediate_value->tensor->ints->values[0] = 0;
    expect(t, &g, NULL, ALLOY_E_FORMAT, "strides holds 0");
}

static void weights_that_are_wrong(void **state) {
    ay_test *t = *state;
    good g = load(t, "weights16");
    AyMil__Value *v = find_attr(find_op(&g, "constexpr_affine_dequantize"), "quantized_data");
    v->blob_file_value->offset += 64;
    expect(t, &g, NULL, ALLOY_E_FORMAT, "quantized_data");
    g = load(t, "weights16");
    find_attr(find_op(&g, "constexpr_affine_dequantize"), "quantized_data")->blob_file_value->offset = UINT64_MAX - 63;
    expect(t, &g, NULL, ALLOY_E_FORMAT, "quantized_data");
    g = load(t, "weights16");
    find_attr(find_op(&g, "constexpr_affine_dequantize"),
              "quantized_data")->type->tensor_type->dimensions[0]->constant->size = 9;
    expect(t, &g, NULL, ALLOY_E_MISMATCH, "declared as 216 numbers of int8, but the blob at offset");
    g = load(t, "weights16");
    set_string(&find_attr(find_op(&g, "constexpr_affine_dequantize"), "quantized_data")->blob_file_value->file_name,
               "@model_path/../../x");
    expect(t, &g, NULL, ALLOY_E_UNSUPPORTED, "weight.bin only");
    g = load(t, "weights16");
    find_attr(find_op(&g, "constexpr_lut_to_dense"), "shape")->immediate_value->tensor->bytes->values.data[0] = 200;
    expect(t, &g, NULL, ALLOY_E_MISMATCH, "indices has");
    g = load(t, "weights16");
    g.n_weights -= 300;
    expect(t, &g, NULL, ALLOY_E_FORMAT, NULL);
    g = load(t, "weights16");
    g.weights = NULL;
    g.n_weights = 0;
    expect(t, &g, NULL, ALLOY_E_FORMAT, "needs weights/weight.bin");
    g = load(t, "weights16"); /* a mask with one bit more than there are values */
    v = find_attr(find_op(&g, "constexpr_sparse_to_dense"), "mask");
    ay_blob b;
    assert_ok(t->cx, ay_blob_read(t->cx, "x", g.weights, g.n_weights, v->blob_file_value->offset, &b));
    g.weights[b.offset] ^= 8;
    expect(t, &g, NULL, ALLOY_E_MISMATCH, "bits set, but there are");
}

static void two_functions(void **state) {
    ay_test *t = *state;
    good g = load(t, "newer");
    size_t n;
    const char *spec = part(t, "newer", "model.mlmodel", &n);
    AyMil__Model *again = ay_mil__model__unpack(NULL, n, (const uint8_t *)spec);
    AyMil__Program *prog = g.m->ml_program;
    prog->functions = realloc(prog->functions, 2 * sizeof *prog->functions);
    prog->functions[1] = again->ml_program->functions[0];
    set_string(&prog->functions[1]->key, "second");
    AyMil__Block *second = prog->functions[1]->value->block_specializations[0]->value;
    while (second->n_outputs > 2) free(second->outputs[--second->n_outputs]);
    prog->n_functions = 2;
    AyMil__ModelDescription *d = g.m->description;
    AyMil__FunctionDescription f[2] = {AY_MIL__FUNCTION_DESCRIPTION__INIT, AY_MIL__FUNCTION_DESCRIPTION__INIT},
        *list[2] = {&f[0], &f[1]};
    f[0].name = "main", f[1].name = "second";
    d->functions = list;
    d->n_functions = 2;
    d->default_function_name = "second";
    size_t size = ay_mil__model__get_packed_size(g.m);
    uint8_t *packed = malloc(size);
    ay_mil__model__pack(g.m, packed);
    ay_package *p;
    assert_ok(t->cx, ay_package_from_bytes(t->cx, "x", packed, size, g.weights, g.n_weights, &p));
    assert_int_equal(ay_package_describe(p)->n_functions, 2);
    assert_string_equal(ay_package_describe(p)->default_function, "second");
    ay_graph *a, *b;
    assert_ok(t->cx, ay_package_graph(p, NULL, &a));
    assert_ok(t->cx, ay_package_graph(p, "main", &b));
    assert_int_equal(a->n_outputs, 2);
    assert_int_equal(b->n_outputs, 7);
    ay_graph_free(a);
    ay_graph_free(b);
    ay_package_close(&p);
    free(packed);
    d->functions = NULL;
    d->n_functions = 0;
    d->default_function_name = (char *)protobuf_c_empty_string;
    prog->n_functions = 1;
    ay_mil__model__free_unpacked(g.m, NULL);
    ay_mil__model__free_unpacked(again, NULL);
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

static const char *copy_package(ay_test *t, const char *package) {
    const char *root = ay_test_path(t, "p.mlpackage"), *from = ay_test_golden(t,
                                                            ay_sprintf(t->arena, "mlprograms/%s.mlpackage", package));
    static const char *const files[] = {"Manifest.json", "Data/com.apple.CoreML/model.mlmodel",
                                        "Data/com.apple.CoreML/weights/weight.bin"};
    ay_remove_tree(t->cx, root);
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_path_join(t->arena, root, "Data/com.apple.CoreML/weights")));
    for (int i = 0; i < 3; i++) {
        const char *src = ay_path_join(t->arena, from, files[i]);
        if (ay_path_kind_of(src) == AY_PATH_FILE)
            assert_ok(t->cx, ay_file_copy(t->cx, src, ay_path_join(t->arena, root, files[i])));
    }
    return root;
}

static void change_manifest(ay_test *t, const char *root, const char *from, const char *to) {
    const char *path = ay_path_join(t->arena, root, "Manifest.json");
    char *text = ay_test_read(t, path, NULL), *at = strstr(text, from);
    assert_non_null(at);
    const char *changed = ay_sprintf(t->arena, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    ay_test_write(t, path, changed, strlen(changed));
}

static void folders_that_are_wrong(void **state) {
    ay_test *t = *state;
    ay_package *p;
    const char *root = copy_package(t, "weights16"), *model = "com.apple.CoreML/model.mlmodel";
    assert_ok(t->cx, ay_package_open(t->cx, root, &p));
    ay_package_close(&p);
    static const struct { const char *from, *to; alloy_status status; const char *sentence; } rows[] = {
        {"1.0.0", "1.1.0", ALLOY_E_UNSUPPORTED, "fileFormatVersion is 1.1.0"},
        {"\"1.0.0\"", "\"1.0.0\",,", ALLOY_E_FORMAT, "Manifest.json, line"},
        {"rootModelIdentifier", "root", ALLOY_E_FORMAT, "rootModelIdentifier"},
        {"\"author\"", "\"writer\"", ALLOY_E_FORMAT, "has no string \"author\""},
        {"com.apple.CoreML/model.mlmodel", "../../x", ALLOY_E_FORMAT, "does not stay inside"},
        {"com.apple.CoreML/model.mlmodel", "a/../../../x", ALLOY_E_FORMAT, "does not stay inside"},
        {"com.apple.CoreML/model.mlmodel", "/etc/passwd", ALLOY_E_FORMAT, "does not stay inside"},
        {"com.apple.CoreML/model.mlmodel", "", ALLOY_E_FORMAT, "does not stay inside"},
        {"com.apple.CoreML/model.mlmodel", "com.apple.CoreML/gone", ALLOY_E_IO, "com.apple.CoreML/gone"},
        {"com.apple.CoreML/weights", "elsewhere/weights", ALLOY_E_UNSUPPORTED, "beside the model"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        root = copy_package(t, "weights16");
        change_manifest(t, root, rows[i].from, rows[i].to);
        assert_fails(t->cx, ay_package_open(t->cx, root, &p), rows[i].status, rows[i].sentence);
        assert_null(p);
    }
    root = copy_package(t, "weights16"); /* a link that leads out */
    const char *link = ay_path_join(t->arena, ay_path_join(t->arena, root, "Data"), model),
        *out = ay_test_path(t, "outside");
    assert_ok(t->cx, ay_file_copy(t->cx, link, out));
    assert_int_equal(unlink(link), 0);
    assert_int_equal(symlink(out, link), 0);
    assert_fails(t->cx, ay_package_open(t->cx, root, &p), ALLOY_E_FORMAT, "leads out of the package");
    assert_fails(t->cx, ay_package_open(t->cx, ay_test_path(t, "none"), &p), ALLOY_E_IO, "no such package");
    assert_fails(t->cx, ay_package_open(t->cx, out, &p), ALLOY_E_FORMAT, "not a folder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(models_that_are_not_ours), AY_TEST(inputs_that_cannot_be_given), AY_TEST(operations_that_are_wrong),
        AY_TEST(weights_that_are_wrong),   AY_TEST(two_functions),               AY_TEST(folders_that_are_wrong),
    };
    return cmocka_run_group_tests_name("coreml/read_bad", tests, NULL, NULL);
}
