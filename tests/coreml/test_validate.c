/* SPDX-License-Identifier: MIT
 *
 * The validator and the round trip: every package that the writer makes is without findings, and read back it computes what
 * its graph computes; and each broken package of a catalogue gives the finding that names what is broken.
 */
#include "cases.h"

#include "coreml/package.h"

#include <math.h>

typedef struct told {
    char text[16384];
    size_t len;
} told;

static void line(void *user, bool warning, const char *text) {
    told *t = user;
    int n = snprintf(t->text + t->len, sizeof t->text - t->len, "%s: %s\n", warning ? "warning" : "finding", text);
    if (n > 0 && (size_t)n < sizeof t->text - t->len) t->len += (size_t)n;
}

static int validate(ay_test *t, const char *path, told *out) {
    int findings, warnings;
    *out = (told){.len = 0};
    assert_ok(t->cx, ay_package_validate(t->cx, path, line, out, &findings, &warnings));
    return findings;
}

/* ---- good packages ----------------------------------------------------------------------------------------------- */

/* Inputs of one graph, the same for the same name; ids small enough for every table in the cases. */
static int make_inputs(ay_test *t, const ay_graph *g, ay_tensor *in) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *x = &g->nodes[i];
        if (x->op != AY_OP_INPUT) continue;
        int64_t count = ay_type_count(&x->type);
        in[n] = (ay_tensor){.name = x->name, .type = x->type, .data = ay_alloc(t->arena, (size_t)count * 4)};
        uint64_t seed = 77;
        for (const char *p = x->name; *p; p++) seed = seed * 131 + (uint8_t)*p;
        for (int64_t k = 0; k < count; k++) {
            float f = 0.5f + 0.4f * ay_test_uniform(&seed); /* positive: logarithms and roots stay numbers */
            if (x->type.dtype == AY_I32)
                ((int32_t *)in[n].data)[k] = (int32_t)(1 + ay_test_random(&seed) % 2);
            else
                ay_convert_from_f32(x->type.dtype, &f, 1,
                                    (char *)in[n].data + (size_t)k * (x->type.dtype == AY_F16 ? 2 : 4));
        }
        n++;
    }
    return n;
}

static void evaluate(ay_test *t, const ay_graph *g, ay_tensor *out) {
    ay_tensor in[16];
    int n = make_inputs(t, g, in);
    for (int i = 0; i < g->n_outputs; i++) {
        const ay_type *type = ay_type_of(g, g->outputs[i].value);
        out[i] = (ay_tensor){
            .name = g->outputs[i].name, .type = *type, .data = ay_alloc(t->arena, (size_t)ay_type_count(type) * 4)};
    }
    assert_ok(t->cx, ay_eval(g, in, n, out, g->n_outputs, false, NULL));
}

static void bind(ay_test *t, ay_graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        ay_node *n = &g->nodes[i];
        size_t bytes;
        if (n->op != AY_OP_PARAM) continue;
        n->weight->data = part_bytes(t->arena, n, AY_PART_DATA, &bytes);
        if (n->weight->store == AY_STORE_BLOCK) n->weight->scale = part_bytes(t->arena, n, AY_PART_SCALE, &bytes);
        if (n->weight->offset_dtype != AY_NONE) n->weight->offset = part_bytes(t->arena, n, AY_PART_OFFSET, &bytes);
        if (n->weight->store == AY_STORE_LUT) n->weight->lut = part_bytes(t->arena, n, AY_PART_LUT, &bytes);
    }
}

static void compare(const char *name, const ay_tensor *a, const ay_tensor *b, double bound) {
    int64_t count = ay_type_count(&a->type);
    double error = 0, norm = 0;
    assert_true(ay_type_equal(&a->type, &b->type));
    for (int64_t i = 0; i < count; i++) {
        float x, y;
        ay_convert_to_f32(a->type.dtype, a->data, i, 1, &x);
        ay_convert_to_f32(b->type.dtype, b->data, i, 1, &y);
        if (isnan(x) && isnan(y)) continue;
        error += ((double)x - y) * ((double)x - y);
        norm += (double)x * x;
    }
    if (!(sqrt(error) <= bound * sqrt(norm) + 1e-7))
        fail_msg("%s, output %s: relative error %g", name, a->name, sqrt(error / norm));
}

/* The package has no finding, and read back it computes what the graph computes. */
static void round_trip(ay_test *t, const char *name, ay_graph *g, ay_target target, double bound) {
    ay_tensor want[8], got[8];
    ay_package *p;
    ay_graph *back;
    told out;
    const char *path = ay_test_path(t, "trip.mlpackage");
    bind(t, g);
    evaluate(t, g, want);
    assert_ok(t->cx, write_one(t, path, g, target));
    if (validate(t, path, &out) != 0) fail_msg("%s:\n%s", name, out.text);
    assert_ok(t->cx, ay_package_open(t->cx, path, &p));
    assert_ok(t->cx, ay_package_graph(p, NULL, &back));
    assert_int_equal(back->n_outputs, g->n_outputs);
    evaluate(t, back, got);
    for (int i = 0; i < g->n_outputs; i++) {
        assert_string_equal(want[i].name, got[i].name);
        compare(name, &want[i], &got[i], bound);
    }
    ay_graph_free(back);
    ay_package_close(&p);
    assert_ok(t->cx, ay_remove_tree(t->cx, path));
    ay_graph_free(g);
}

static void test_round_trip(void **state) {
    ay_test *t = *state;
    for (int target = 0; target < 2; target++) { /* check_packages.py sees the other pairs, too */
        for (int i = 0; i < N_CASES; i++)
            round_trip(t, cases[i].name, case_graph(t->cx, i, target ? AY_F16 : AY_F32), (ay_target)target,
                       target ? 4e-3 : 1e-5);
        for (int i = 0; i < N_STORAGES; i++)
            if (target || !storages[i].only15)
                round_trip(t, storages[i].name, storage_graph(t->cx, &storages[i], AY_F16), (ay_target)target, 4e-3);
    }
}

/* ---- broken packages --------------------------------------------------------------------------------------------- */

typedef AyMil__Operation *op_ptr;
static AyMil__Block *block_of(AyMil__Model *m) {
    return m->ml_program->functions[0]->value->block_specializations[0]->value;
}
static op_ptr find_op(AyMil__Model *m, const char *type) {
    AyMil__Block *b = block_of(m);
    for (size_t i = 0; i < b->n_operations; i++)
        if (strcmp(b->operations[i]->type, type) == 0) return b->operations[i];
    fail_msg("no operation %s", type);
    return NULL;
}
static AyMil__Argument *find_arg(AyMil__Model *m, const char *type, const char *param) {
    AyMil__Argument *a = (AyMil__Argument *)(uintptr_t)ay_mil_argument(find_op(m, type), param);
    assert_non_null(a);
    return a;
}
/* The const operation that a parameter is bound to. */
static op_ptr const_of(AyMil__Model *m, const char *type, const char *param) {
    const char *name = find_arg(m, type, param)->arguments[0]->name;
    AyMil__Block *b = block_of(m);
    for (size_t i = 0; i < b->n_operations; i++)
        if (b->operations[i]->n_outputs && strcmp(b->operations[i]->outputs[0]->name, name) == 0) return b->operations[i];
    fail_msg("no const %s", name);
    return NULL;
}
static AyMil__Value *val_of(op_ptr op) { return (AyMil__Value *)(uintptr_t)ay_mil_attribute(op, "val"); }
static void set_text(char **s, const char *to) {
    if (*s != protobuf_c_empty_string) free(*s);
    *s = strdup(to);
}
static AyMil__TensorType *out_type(op_ptr op) { return op->outputs[0]->type->tensor_type; }

static void remove_arg(AyMil__Model *m, const char *type, const char *param) {
    op_ptr op = find_op(m, type);
    for (size_t i = 0; i < op->n_inputs; i++) {
        if (strcmp(op->inputs[i]->key, param) != 0) continue;
        ay_mil__argument_entry__free_unpacked(op->inputs[i], NULL);
        op->inputs[i] = op->inputs[--op->n_inputs];
        return;
    }
    fail_msg("%s has no %s", type, param);
}
static void rename_arg(AyMil__Model *m, const char *type, const char *param, const char *to) {
    op_ptr op = find_op(m, type);
    for (size_t i = 0; i < op->n_inputs; i++)
        if (strcmp(op->inputs[i]->key, param) == 0) set_text(&op->inputs[i]->key, to);
}

static void no_interleave(AyMil__Model *m) { remove_arg(m, "concat", "interleave"); }
static void no_pad(AyMil__Model *m) { remove_arg(m, "conv", "pad"); }
static void no_validate(AyMil__Model *m) { remove_arg(m, "gather", "validate_indices"); }
static void no_bias(AyMil__Model *m) { remove_arg(m, "linear", "bias"); }
static void other_param(AyMil__Model *m) { rename_arg(m, "concat", "axis", "axes"); }
static void const_type(AyMil__Model *m) { out_type(const_of(m, "concat", "axis"))->data_type = AY_MIL__DATA_TYPE__BOOL; }
static void no_name(AyMil__Model *m) {
    op_ptr op = find_op(m, "concat");
    set_text(&op->attributes[0]->key, "title");
}
static void bad_name(AyMil__Model *m) { set_text(&find_op(m, "concat")->outputs[0]->name, "a-b"); }
static void reserved_name(AyMil__Model *m) { set_text(&const_of(m, "concat", "axis")->outputs[0]->name, "tensor"); }
static void same_name(AyMil__Model *m) {
    set_text(&const_of(m, "concat", "axis")->outputs[0]->name, const_of(m, "concat", "interleave")->outputs[0]->name);
}
static void wrong_order(AyMil__Model *m) {
    AyMil__Block *b = block_of(m);
    op_ptr last = b->operations[b->n_operations - 1];
    b->operations[b->n_operations - 1] = b->operations[0];
    b->operations[0] = last;
}
static void unknown_op(AyMil__Model *m) { set_text(&find_op(m, "concat")->type, "conquer"); }
static void too_new(AyMil__Model *m) { set_text(&find_op(m, "softmax")->type, "scaled_dot_product_attention"); }
static void opset_string(AyMil__Model *m) {
    AyMil__Function *f = m->ml_program->functions[0]->value;
    set_text(&f->opset, "CoreML8");
    set_text(&f->block_specializations[0]->key, "CoreML8");
}
static void opset_key(AyMil__Model *m) {
    set_text(&m->ml_program->functions[0]->value->block_specializations[0]->key, "CoreML6");
}
static void opset_unknown(AyMil__Model *m) { set_text(&m->ml_program->functions[0]->value->opset, "CoreML4"); }
static void program_version(AyMil__Model *m) { m->ml_program->version = 2; }
static void old_version(AyMil__Model *m) { m->specification_version = 6; }
static void doc_string(AyMil__Model *m) { set_text(&m->ml_program->doc_string, "hello"); }
static void input_renamed(AyMil__Model *m) { set_text(&m->description->input[0]->name, "other"); }
static void input_dtype(AyMil__Model *m) {
    m->description->input[0]->type->multi_array_type->data_type = AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT32;
}
static void input_int8(AyMil__Model *m) {
    m->description->input[0]->type->multi_array_type->data_type = AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT8;
}
static void input_shape(AyMil__Model *m) { m->description->input[0]->type->multi_array_type->shape[0] = 99; }
static void output_shape(AyMil__Model *m) { m->description->output[0]->type->multi_array_type->shape[0] = 99; }
static void output_optional(AyMil__Model *m) { m->description->output[0]->type->is_optional = true; }
static void default_named(AyMil__Model *m) { set_text(&m->description->default_function_name, "main"); }
static void input_returned(AyMil__Model *m) {
    set_text(&block_of(m)->outputs[0], m->ml_program->functions[0]->value->inputs[0]->name);
}
static void output_unmade(AyMil__Model *m) { set_text(&block_of(m)->outputs[0], "nowhere"); }
static void unknown_dim(AyMil__Model *m) {
    AyMil__Dimension *d = out_type(find_op(m, "concat"))->dimensions[0];
    AyMil__UnknownDimension *u = calloc(1, sizeof *u);
    ay_mil__unknown_dimension__init(u);
    ay_mil__constant_dimension__free_unpacked(d->constant, NULL);
    d->dimension_case = AY_MIL__DIMENSION__DIMENSION_UNKNOWN;
    d->unknown = u;
}
static void wrong_dim(AyMil__Model *m) { out_type(find_op(m, "concat"))->dimensions[0]->constant->size++; }
static void wrong_rank(AyMil__Model *m) { out_type(find_op(m, "concat"))->rank++; }
static void zero_dim(AyMil__Model *m) { out_type(find_op(m, "concat"))->dimensions[0]->constant->size = 0; }
static void wrong_dtype(AyMil__Model *m) { out_type(find_op(m, "concat"))->data_type = AY_MIL__DATA_TYPE__INT32; }
static void strange_dtype(AyMil__Model *m) { out_type(find_op(m, "concat"))->data_type = (AyMil__DataType)77; }
static void blob_offset(AyMil__Model *m) { val_of(const_of(m, "linear", "weight"))->blob_file_value->offset += 64; }
static void blob_odd(AyMil__Model *m) { val_of(const_of(m, "linear", "weight"))->blob_file_value->offset += 1; }
static void blob_far(AyMil__Model *m) { val_of(const_of(m, "linear", "weight"))->blob_file_value->offset = UINT64_MAX - 63; }
static void blob_folder(AyMil__Model *m) {
    set_text(&val_of(const_of(m, "linear", "weight"))->blob_file_value->file_name, "@model_path/other/weight.bin");
}
static void blob_other(AyMil__Model *m) { /* bias and weight lie at the same place: counts differ */
    val_of(const_of(m, "linear", "weight"))->blob_file_value->offset =
        val_of(const_of(m, "linear", "bias"))->blob_file_value->offset;
}
static void two_values(AyMil__Model *m) {
    AyMil__Argument *a = find_arg(m, "softmax", "axis");
    a->arguments = realloc(a->arguments, 2 * sizeof *a->arguments);
    a->arguments[1] = calloc(1, sizeof **a->arguments);
    ay_mil__binding__init(a->arguments[1]);
    a->arguments[1]->binding_case = AY_MIL__BINDING__BINDING_NAME;
    a->arguments[1]->name = strdup(a->arguments[0]->name);
    a->n_arguments = 2;
}
static void bound_nowhere(AyMil__Model *m) { set_text(&find_arg(m, "softmax", "x")->arguments[0]->name, "nobody"); }
static void computed_axis(AyMil__Model *m) {
    set_text(&find_arg(m, "layer_norm", "epsilon")->arguments[0]->name, m->ml_program->functions[0]->value->inputs[0]->name);
}
static void short_value(AyMil__Model *m) {
    val_of(const_of(m, "conv", "strides"))->immediate_value->tensor->ints->n_values = 1;
}
static void wrong_word(AyMil__Model *m) {
    set_text(&val_of(const_of(m, "conv", "pad_type"))->immediate_value->tensor->strings->values[0], "mirror");
}
static void pool_same(AyMil__Model *m) {
    set_text(&val_of(const_of(m, "avg_pool", "pad_type"))->immediate_value->tensor->strings->values[0], "same");
    val_of(const_of(m, "avg_pool", "ceil_mode"))->immediate_value->tensor->bools->values[0] = true;
}
static void float_pad(AyMil__Model *m) {
    op_ptr c = const_of(m, "pad", "constant_val");
    out_type(c)->data_type = AY_MIL__DATA_TYPE__INT32;
    val_of(c)->type->tensor_type->data_type = AY_MIL__DATA_TYPE__INT32;
}
static void not_utf8(AyMil__Model *m) { set_text(&m->description->metadata->author, "\xc3\x28"); }
static void rank_five(AyMil__Model *m) { set_text(&find_op(m, "layer_norm")->type, "instance_norm"); }
static void extra_attribute(AyMil__Model *m) {
    op_ptr op = find_op(m, "softmax"), from = find_op(m, "const");
    set_text(&op->type, "silu"); /* whose axis is then a stranger, too */
    op->attributes = realloc(op->attributes, 2 * sizeof *op->attributes);
    for (size_t i = 0; i < from->n_attributes; i++)
        if (strcmp(from->attributes[i]->key, "val") == 0) {
            op->attributes[op->n_attributes++] = from->attributes[i];
            from->attributes[i] = from->attributes[--from->n_attributes];
            return;
        }
}
static void constexpr_shape(AyMil__Model *m) {
    out_type(find_op(m, "constexpr_affine_dequantize"))->dimensions[0]->constant->size = 8;
}
static void constexpr_axis(AyMil__Model *m) {
    op_ptr op = find_op(m, "constexpr_affine_dequantize");
    ((AyMil__Value *)(uintptr_t)ay_mil_attribute(op, "axis"))->immediate_value->tensor->ints->values[0] = 1;
}
static void to_sdpa(AyMil__Model *m) {
    opset_string(m);
    m->specification_version = 9;
    set_text(&find_op(m, "matmul")->type, "scaled_dot_product_attention");
    rename_arg(m, "scaled_dot_product_attention", "x", "query");
    rename_arg(m, "scaled_dot_product_attention", "y", "key");
    rename_arg(m, "scaled_dot_product_attention", "transpose_x", "value");
    set_text(&find_arg(m, "scaled_dot_product_attention", "value")->arguments[0]->name, "k");
}
static void constexpr_param(AyMil__Model *m) {
    op_ptr op = find_op(m, "constexpr_affine_dequantize");
    for (size_t i = 0; i < op->n_attributes; i++)
        if (strcmp(op->attributes[i]->key, "zero_point") == 0) set_text(&op->attributes[i]->key, "offset");
}

/* The literal parameters of macOS 15's compressed constants. */
static AyMil__Value *literal(AyMil__Model *m, const char *type, const char *key) { return find_arg(m, type, key)->arguments[0]->value; }
static AyMil__TensorType *block_part(AyMil__Model *m, const char *key) { return literal(m, "constexpr_blockwise_shift_scale", key)->type->tensor_type; }
static AyMil__TensorType *lut_part(AyMil__Model *m, const char *key) { return literal(m, "constexpr_lut_to_dense", key)->type->tensor_type; }
static void block_scale_shape(AyMil__Model *m) { block_part(m, "scale")->dimensions[1]->constant->size = 5; }
static void block_scale_turned(AyMil__Model *m) { /* as many numbers, which divide nothing */
    block_part(m, "scale")->dimensions[0]->constant->size = 3;
    block_part(m, "scale")->dimensions[1]->constant->size = 16;
}
static void block_scale_rank(AyMil__Model *m) {
    block_part(m, "scale")->rank = 1;
    ay_mil__dimension__free_unpacked(block_part(m, "scale")->dimensions[1], NULL);
    block_part(m, "scale")->n_dimensions = 1;
    block_part(m, "scale")->dimensions[0]->constant->size = 48;
}
static void block_scale_dtype(AyMil__Model *m) { block_part(m, "scale")->data_type = AY_MIL__DATA_TYPE__INT32; }
static void block_data_dtype(AyMil__Model *m) { block_part(m, "data")->data_type = AY_MIL__DATA_TYPE__INT8; }
static void block_data_sign(AyMil__Model *m) { block_part(m, "data")->data_type = AY_MIL__DATA_TYPE__UINT4; }
static void block_data_shape(AyMil__Model *m) { block_part(m, "data")->dimensions[0]->constant->size = 15; }
static void block_no_scale(AyMil__Model *m) { remove_arg(m, "constexpr_blockwise_shift_scale", "scale"); }
static void block_strange(AyMil__Model *m) { rename_arg(m, "constexpr_blockwise_shift_scale", "offset", "zero_point"); }
static void block_offset_shape(AyMil__Model *m) {
    block_part(m, "offset")->dimensions[0]->constant->size = 48;
    block_part(m, "offset")->dimensions[1]->constant->size = 1;
}
static void block_too_new(AyMil__Model *m) {
    set_text(&m->ml_program->functions[0]->value->opset, "CoreML7");
    set_text(&m->ml_program->functions[0]->value->block_specializations[0]->key, "CoreML7");
    m->specification_version = 8;
}
static void lut_entries(AyMil__Model *m) {
    lut_part(m, "lut")->dimensions[2]->constant->size = 8;
    lut_part(m, "lut")->dimensions[3]->constant->size = 2;
}
static void lut_groups(AyMil__Model *m) {
    lut_part(m, "lut")->dimensions[0]->constant->size = 1;
    lut_part(m, "lut")->dimensions[1]->constant->size = 5;
}
static void lut_indices(AyMil__Model *m) { lut_part(m, "indices")->data_type = AY_MIL__DATA_TYPE__UINT6; }
static void lut_axis(AyMil__Model *m) {
    literal(m, "constexpr_lut_to_dense", "vector_axis")->immediate_value->tensor->ints->values[0] = 2;
}
static void lut_no_axis(AyMil__Model *m) { remove_arg(m, "constexpr_lut_to_dense", "vector_axis"); }
static void lut_offset(AyMil__Model *m) {
    AyMil__Value *lut = literal(m, "constexpr_lut_to_dense", "lut"), *indices = literal(m, "constexpr_lut_to_dense", "indices");
    lut->blob_file_value->offset = indices->blob_file_value->offset;
}

/* What most mutations start from: most of the operations that they touch. */
static ay_graph *base_graph(ay_ctx *cx) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_linear_layer(g, "proj", ay_input(g, "x", S(AY_F32, 2, 4, 12)), 16, true);
    ay_val e = ay_gather(g, ay_param(g, "embed.weight", S(AY_F32, 2, 9, 16)), ay_input(g, "ids", S(AY_I32, 1, 4)), 0);
    x = ay_softmax(g, ay_layer_norm(g, ay_concat(g, 0, 2, x, e), AY_NO_VALUE, AY_NO_VALUE, 1e-5), -1);
    x = ay_conv2d_layer(g, "conv", ay_reshape(g, x, 4, 1, 2, 8, 8), 3, 3, 1, 1, true);
    x = ay_pad2d(g, OP1(POOL, x, .pool = {.kernel = {2, 2}, .stride = {2, 2}, .average = true}), 1, 1, 1, 1);
    ay_set_output(g, "y", x);
    return g;
}
static ay_graph *five_graph(ay_ctx *cx) {
    ay_graph *g = ay_graph_new(cx);
    ay_set_output(g, "y", ay_layer_norm(g, ay_input(g, "x", S(AY_F32, 5, 1, 2, 2, 2, 8)), AY_NO_VALUE, AY_NO_VALUE, 1e-5));
    return g;
}
static ay_graph *heads_graph(ay_ctx *cx) { /* keys of one head for two heads of queries, as a matmul may have them */
    ay_graph *g = ay_graph_new(cx);
    ay_val q = ay_input(g, "q", S(AY_F32, 4, 1, 2, 4, 8)), k = ay_input(g, "k", S(AY_F32, 4, 1, 1, 4, 8));
    ay_set_output(g, "y", ay_matmul(g, q, k, false, true));
    return g;
}
static ay_graph *block_graph(ay_ctx *cx) { return storage_graph(cx, &storages[5], AY_F16); }
static ay_graph *offset_graph(ay_ctx *cx) { return storage_graph(cx, &storages[6], AY_F16); }
static ay_graph *groups_graph(ay_ctx *cx) { return storage_graph(cx, &storages[14], AY_F16); }
static ay_graph *vector_graph(ay_ctx *cx) { return storage_graph(cx, &storages[15], AY_F16); }
static ay_graph *codes_graph(ay_ctx *cx) { return storage_graph(cx, &storages[0], AY_F16); }

static const struct mutation {
    ay_graph *(*graph)(ay_ctx *);
    void (*change)(AyMil__Model *);
    const char *says;
    bool macos15;
} mutations[] = {
    {base_graph, no_interleave, "Required param 'interleave' is missing", false},
    {base_graph, no_pad, "Required param 'pad' is missing", false},
    {base_graph, no_validate, "Required param 'validate_indices' is missing", false},
    {base_graph, no_bias, "Required param 'bias' is missing", false},
    {base_graph, other_param, "parameter axes is none that this operation has", false},
    {base_graph, const_type, "val is int32[] and the output is declared bool[]", false},
    {base_graph, no_name, "the attribute name is missing", false},
    {base_graph, bad_name, "\"a-b\" is not a name", false},
    {base_graph, reserved_name, "\"tensor\" is not a name", false},
    {base_graph, same_name, "two values are called", false},
    {base_graph, wrong_order, "which no operation before this one makes", false},
    {base_graph, unknown_op, "there is no operation of this type", false},
    {base_graph, too_new, "came with CoreML8", false},
    {base_graph, opset_string, "needs specification version 9, found 8", false},
    {base_graph, opset_key, "no block for the function's opset", false},
    {base_graph, opset_unknown, "Unknown opset 'CoreML4'", false},
    {base_graph, program_version, "version is 2", false},
    {base_graph, old_version, "needs specification version 8, found 6", false},
    {base_graph, doc_string, "docString", false},
    {base_graph, input_renamed, "input x of the function is not in the description", false},
    {base_graph, input_dtype, "another element type than the program's, float32[4, 12]", false},
    {base_graph, input_int8, "which specification version 8 does not have", false},
    {base_graph, input_shape, "another shape than the program's, float32[4, 12]", false},
    {base_graph, output_shape, "y is described with another shape", false},
    {base_graph, output_optional, "output y is optional", false},
    {base_graph, default_named, "a default function is named and no functions are described", false},
    {base_graph, input_returned, "input x is returned as an output", false},
    {base_graph, output_unmade, "Failed to find type of nowhere", false},
    {base_graph, unknown_dim, "unknown dimension 0, which its inputs make known", false},
    {base_graph, wrong_dim, "the program declares output", false},
    {base_graph, wrong_rank, "has rank 3 and 2 dimensions", false},
    {base_graph, zero_dim, "it must be 1 to 2147483647", false},
    {base_graph, wrong_dtype, "declares output", false},
    {base_graph, strange_dtype, "unknown element type 77", false},
    {base_graph, blob_offset, "no blob at offset", false},
    {base_graph, blob_odd, "expected a multiple of 64", false},
    {base_graph, blob_far, "past the end of the file", false},
    {base_graph, blob_folder, "expected @model_path/weights/weight.bin", false},
    {base_graph, blob_other, "val has 192 elements, its blob at", false},
    {base_graph, two_values, "parameter axis has 2 values", false},
    {base_graph, bound_nowhere, "bound to nobody, which no operation before this one makes", false},
    {base_graph, computed_axis, "must be constant and is bound to x", false},
    {base_graph, short_value, "val has 1 elements, its type needs 2", false},
    {base_graph, wrong_word, "parameter pad_type is \"mirror\"", false},
    {base_graph, pool_same, "ceil_mode must be False when pad_type is equal to same", false},
    {base_graph, float_pad, "parameter constant_val is int32[]", false},
    {base_graph, not_utf8, "not UTF-8", false},
    {base_graph, extra_attribute, "the attribute val is none that this operation has", false},
    {five_graph, rank_five, "parameter x[0] has invalid rank 5, expected [3, 4]", false},
    {heads_graph, to_sdpa, "query, key and value must have the same batch dimensions", false},
    {codes_graph, constexpr_shape, "declares output", false},
    {codes_graph, constexpr_axis, "expected 1 or 24", false},
    {codes_graph, constexpr_param, "Required param 'zero_point' is missing", false},
    {block_graph, block_scale_shape, "its blob at", true},
    {block_graph, block_scale_turned, "does not divide the shape of data", true},
    {block_graph, block_scale_rank, "does not divide the shape of data", true},
    {block_graph, block_scale_dtype, "a type this operation does not take", true},
    {block_graph, block_data_dtype, "its blob at", true},
    {block_graph, block_data_sign, "its blob at", true},
    {block_graph, block_data_shape, "its blob at", true},
    {block_graph, block_no_scale, "Required param 'scale' is missing", true},
    {block_graph, block_too_new, "came with CoreML8", true},
    {offset_graph, block_strange, "parameter zero_point is none that this operation has", true},
    {offset_graph, block_offset_shape, "offset has not the shape of scale", true},
    {groups_graph, lut_entries, "lut must be", true},
    {groups_graph, lut_groups, "its blob at", true},
    {groups_graph, lut_indices, "its blob at", true},
    {groups_graph, lut_offset, "its blob at", true},
    {vector_graph, lut_axis, "vector_axis is 2 for rank 2", true},
    {vector_graph, lut_no_axis, "vector_axis", true},
};

static void expect(ay_test *t, const char *path, const char *says) {
    told out;
    int findings = validate(t, path, &out);
    if (findings == 0) fail_msg("no finding; expected \"%s\"\n%s", says, out.text);
    if (!strstr(out.text, says)) fail_msg("expected \"%s\", told:\n%s", says, out.text);
}

static void mutate(ay_test *t, const struct mutation *mu) {
    const char *path = ay_test_path(t, "broken.mlpackage"),
               *file = ay_path_join(t->arena, path, "Data/com.apple.CoreML/model.mlmodel");
    ay_graph *g = mu->graph(t->cx);
    size_t n;
    assert_ok(t->cx, write_one(t, path, g, mu->macos15 ? AY_TARGET_MACOS15 : AY_TARGET_MACOS14));
    uint8_t *bytes = (uint8_t *)ay_test_read(t, file, &n);
    AyMil__Model *m = ay_mil__model__unpack(NULL, n, bytes);
    assert_non_null(m);
    mu->change(m);
    n = ay_mil__model__get_packed_size(m);
    bytes = ay_alloc(t->arena, n);
    ay_mil__model__pack(m, bytes);
    ay_mil__model__free_unpacked(m, NULL);
    ay_test_write(t, file, bytes, n);
    expect(t, path, mu->says);
    assert_ok(t->cx, ay_remove_tree(t->cx, path));
    ay_graph_free(g);
}

static void test_mutations(void **state) {
    for (size_t i = 0; i < sizeof mutations / sizeof *mutations; i++) mutate(*state, &mutations[i]);
}

/* One byte, or one word of the manifest, of a good package is changed. */
static void test_files(void **state) {
    static const struct {
        size_t at;
        uint8_t value;
        const char *says;
    } bytes[] = {
        {0, 200, "the header counts"},
        {0, 1, "which end before"},
        {4, 3, "version 3"},
        {64, 0, "no blob at offset 64"},
        {68, 99, "unknown element type"},
        {68, 2, "its blob at 64 is"},
        {72, 1, "its blob at 64 has 257"},
        {72, 255, "overlap"},
        {79, 9, "claims"},
        {80, 1, "claims"},
        {88, 8, "padding bits"},
    };
    static const struct {
        const char *from, *to, *says;
    } words[] = {
        {"1.0.0", "9.0.0", "fileFormatVersion"},
        {"\"rootModelIdentifier\": \"", "\"rootModelIdentifier\": \"0", "is not among the items"},
        {"com.apple.CoreML/model.mlmodel", "../../../etc/passwd", "does not stay inside"},
        {"\"name\": \"weights\"", "\"name\": \"heights\"", "no item called weights"},
        {"\"name\": \"model.mlmodel\"", "\"name\": \"model.bin\"", "expected author/name"},
        {"{", "[", "Manifest.json"},
    };
    ay_test *t = *state;
    const char *path = ay_test_path(t, "file.mlpackage");
    ay_graph *g = storage_graph(t->cx, &storages[0], AY_F16);
    assert_ok(t->cx, write_one(t, path, g, AY_TARGET_MACOS14));
    ay_graph_free(g);
    size_t n;
    const char *weights = ay_path_join(t->arena, path, "Data/com.apple.CoreML/weights/weight.bin");
    const char *manifest = ay_path_join(t->arena, path, "Manifest.json");
    char *good = ay_test_read(t, weights, &n);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        char *bad = ay_alloc(t->arena, n);
        memcpy(bad, good, n);
        bad[bytes[i].at] = (char)bytes[i].value;
        ay_test_write(t, weights, bad, n);
        expect(t, path, bytes[i].says);
    }
    ay_test_write(t, weights, good, 100);
    expect(t, path, "weight.bin");
    ay_test_write(t, weights, good, n);
    good = ay_test_read(t, manifest, &n);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char *at = strstr(good, words[i].from);
        assert_non_null(at);
        const char *bad = ay_sprintf(t->arena, "%.*s%s%s", (int)(at - good), good, words[i].to, at + strlen(words[i].from));
        ay_test_write(t, manifest, bad, strlen(bad));
        expect(t, path, words[i].says);
    }
    ay_test_write(t, manifest, good, n);
    told out;
    assert_int_equal(validate(t, path, &out), 0);
    assert_fails(t->cx, ay_package_validate(t->cx, ay_test_path(t, "absent.mlpackage"), line, &out, &(int){0}, &(int){0}),
                 ALLOY_E_IO, "absent.mlpackage");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_round_trip), AY_TEST(test_mutations), AY_TEST(test_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
