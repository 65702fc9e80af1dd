/* SPDX-License-Identifier: MIT
 *
 * Checking a program: that functions, description and blocks say the same; names, order, and each operation's outputs.
 */
#include "coreml/validate.h"

#include <string.h>

enum { MANY = 4096 }; /* of what is compared one with all: past it no program is honest */

/* ---- description ------------------------------------------------------------------------------------------------- */

static int dtype_of_array(int code) {
    switch (code) {
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT16:
        return AY_MIL__DATA_TYPE__FLOAT16;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT32:
        return AY_MIL__DATA_TYPE__FLOAT32;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_DOUBLE:
        return AY_MIL__DATA_TYPE__FLOAT64;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT8:
        return AY_MIL__DATA_TYPE__INT8;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT32:
        return AY_MIL__DATA_TYPE__INT32;
    default:
        return 0;
    }
}

/* An array's flexibility against its default shape. */
static void check_flexible(ay_check *c, const char *name, const AyMil__ArrayFeatureType *a) {
    if (a->flexibility_case == AY_MIL__ARRAY_FEATURE_TYPE__FLEXIBILITY_SHAPE_RANGE) {
        const AyMil__ShapeRange *r = a->shape_range;
        if (r->n_size_ranges != a->n_shape)
            ay_check_error(c, "%.100s has %zu size ranges and %zu dimensions", name, r->n_size_ranges, a->n_shape);
        for (size_t i = 0; i < r->n_size_ranges && i < a->n_shape; i++) {
            const AyMil__SizeRange *s = r->size_ranges[i];
            if (s->upper_bound < 0)
                ay_check_error(c, "%.100s has unbounded dimension %zu, which is not supported", name, i);
            else if (a->shape[i] < 0 || (uint64_t)a->shape[i] < s->lower_bound || a->shape[i] > s->upper_bound)
                ay_check_error(c, "%.100s: default size %lld of dimension %zu is outside of its range", name,
                               (long long)a->shape[i], i);
        }
    }
    if (a->flexibility_case == AY_MIL__ARRAY_FEATURE_TYPE__FLEXIBILITY_ENUMERATED_SHAPES) {
        bool member = false;
        for (size_t i = 0; i < a->enumerated_shapes->n_shapes; i++) {
            const AyMil__ArrayShape *s = a->enumerated_shapes->shapes[i];
            member |= s->n_shape == a->n_shape &&
                      (a->n_shape == 0 || memcmp(s->shape, a->shape, a->n_shape * sizeof *a->shape) == 0);
        }
        if (!member) ay_check_error(c, "%.100s: the default shape is not among the enumerated ones", name);
        if (a->enumerated_shapes->n_shapes > 128) ay_check_error(c, "%.100s has more than 128 enumerated shapes", name);
    }
}

/* One feature against the program's type for it. */
static void check_feature(ay_check *c, bool output, const AyMil__Feature *f, const AyMil__ValueType *v) {
    const char *name = f->name;
    const AyMil__ArrayFeatureType *a = NULL;
    int version = c->p->model->specification_version;
    if (f->type && f->type->type_case == AY_MIL__FEATURE_TYPE__TYPE_IMAGE_TYPE) return; /* becomes an array inside */
    if (f->type && f->type->type_case == AY_MIL__FEATURE_TYPE__TYPE_MULTI_ARRAY_TYPE) a = f->type->multi_array_type;
    if (f->type && f->type->type_case == AY_MIL__FEATURE_TYPE__TYPE_STATE_TYPE && f->type->state_type)
        a = f->type->state_type->array_type;
    if (!a) {
        ay_check_error(c, "%.100s is described as no array; ML Programs take arrays and images", name);
        return;
    }
    int dtype = dtype_of_array((int)a->data_type);
    bool legal = dtype == AY_MIL__DATA_TYPE__FLOAT32 || dtype == AY_MIL__DATA_TYPE__INT32 ||
                 (dtype == AY_MIL__DATA_TYPE__FLOAT16 && version >= 7) ||
                 (dtype == AY_MIL__DATA_TYPE__INT8 && version >= 10);
    if (!legal)
        ay_check_error(c, "%.100s has array type %d, which specification version %d does not have", name, (int)a->data_type,
                       version);
    if (output && f->type->is_optional) ay_check_error(c, "output %.100s is optional, which outputs cannot be", name);
    if (!output && a->n_shape == 0) ay_check_error(c, "input %.100s is described without a shape", name);
    for (size_t i = 0; i < a->n_shape; i++)
        if (a->shape[i] < 1)
            ay_check_error(c, "%.100s is described with size %lld in dimension %zu", name, (long long)a->shape[i], i);
    check_flexible(c, name, a);
    if (!v || v->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !v->tensor_type) return;
    const AyMil__TensorType *t = v->tensor_type;
    if (legal && (int)t->data_type != dtype)
        ay_check_error(c, "%.100s is described with another element type than the program's, %s", name,
                       ay_check_type_text(c, v));
    if (a->n_shape == 0) return;
    bool same = t->n_dimensions == a->n_shape || (t->n_dimensions == 0 && a->n_shape == 1 && a->shape[0] == 1);
    for (size_t i = 0; same && i < t->n_dimensions; i++) {
        const AyMil__Dimension *d = t->dimensions[i];
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION_CONSTANT)
            same = d->constant->size == (uint64_t)a->shape[i];
        else if (a->flexibility_case == AY_MIL__ARRAY_FEATURE_TYPE__FLEXIBILITY__NOT_SET && !output)
            same = false;
    }
    if (!same)
        ay_check_error(c, "%.100s is described with another shape than the program's, %s", name, ay_check_type_text(c, v));
}

static const AyMil__Feature *find_feature(AyMil__Feature **list, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->name, name) == 0) return list[i];
    return NULL;
}

typedef struct sides {
    AyMil__Feature **in, **out, **state;
    size_t n_in, n_out, n_state;
} sides;

static void check_features(ay_check *c, const sides *d, const AyMil__Function *f, const AyMil__Block *b) {
    bool required = d->n_in == 0;
    if (d->n_in > MANY || d->n_out > MANY || f->n_inputs > MANY || b->n_outputs > MANY) {
        ay_check_error(c, "there are more than %d inputs or outputs", MANY);
        return;
    }
    for (size_t i = 0; i < d->n_in; i++) required |= !(d->in[i]->type && d->in[i]->type->is_optional);
    if (!required) ay_check_error(c, "every input is optional; at least one must not be");
    if (d->n_in + d->n_state != f->n_inputs)
        ay_check_error(c, "the description has %zu inputs and states, the function has %zu", d->n_in + d->n_state,
                       f->n_inputs);
    for (size_t i = 0; i < f->n_inputs; i++) {
        const AyMil__NamedValueType *v = f->inputs[i];
        const AyMil__Feature *one = find_feature(d->in, d->n_in, v->name);
        if (!one) one = find_feature(d->state, d->n_state, v->name);
        if (!one)
            ay_check_error(c, "input %.100s of the function is not in the description", v->name);
        else
            check_feature(c, false, one, v->type);
    }
    if (d->n_out != b->n_outputs)
        ay_check_error(c, "the description has %zu outputs, the function has %zu", d->n_out, b->n_outputs);
    for (size_t i = 0; i < b->n_outputs; i++) {
        const AyMil__Feature *one = find_feature(d->out, d->n_out, b->outputs[i]);
        const ay_seen *seen = ay_names_get(&c->values, b->outputs[i], strlen(b->outputs[i]));
        if (!one)
            ay_check_error(c, "output %.100s of the function is not in the description", b->outputs[i]);
        else
            check_feature(c, true, one, seen ? seen->type : NULL);
    }
}

/* ---- names and operations ---------------------------------------------------------------------------------------- */

static ay_seen *add_value(ay_check *c, const char *what, const char *name) {
    bool fresh;
    if (!ay_name_valid(name))
        ay_check_error(c, "%s \"%.100s\" is not a name that Core ML takes (letters, digits, underscores; no reserved word)",
                       what, name);
    void **at = ay_names_at(&c->values, name, strlen(name), &fresh);
    ay_seen *s = at ? ay_alloc(c->arena, sizeof *s) : NULL;
    if (!s) {
        c->out_of_memory = true;
        return NULL;
    }
    if (!fresh) ay_check_error(c, "two values are called \"%.100s\"", name);
    *at = s;
    return s;
}

/* Sizes that the Neural Engine's compiler names in its refusals: 65536 for batch and channels, 16384 for the rest. */
static void check_extent(ay_check *c, const AyMil__TensorType *t, const char *name) {
    for (size_t i = 0; i < t->n_dimensions; i++) {
        const AyMil__Dimension *d = t->dimensions[i];
        uint64_t most = i < 2 && t->n_dimensions >= 4 ? 65536 : 16384;
        if (d->dimension_case != AY_MIL__DIMENSION__DIMENSION_CONSTANT || d->constant->size <= most) continue;
        if (c->n_wide++ == 0)
            c->wide = ay_sprintf(c->arena, "dimension %zu of %.100s is %llu, past the Neural Engine's %llu", i, name,
                                 (unsigned long long)d->constant->size, (unsigned long long)most);
        return;
    }
}

static void check_const(ay_check *c, const AyMil__Operation *op) {
    const AyMil__Value *v = ay_mil_attribute(op, "val");
    if (op->n_inputs) ay_check_error(c, "a const operation has no inputs");
    if (op->n_outputs != 1) ay_check_error(c, "a const operation has one output, this one has %zu", op->n_outputs);
    if (!v) {
        ay_check_error(c, "the attribute val is missing");
        return;
    }
    ay_check_value(c, "val", v);
    if (op->n_outputs == 1 && !ay_check_same_type(v->type, op->outputs[0]->type))
        ay_check_error(c, "val is %s and the output is declared %s; they must be the same", ay_check_type_text(c, v->type),
                       ay_check_type_text(c, op->outputs[0]->type));
}

static void check_attributes(ay_check *c, const AyMil__Operation *op, bool constant, bool in_attributes) {
    const AyMil__Value *name = ay_mil_attribute(op, "name");
    if (!name)
        ay_check_error(c, "the attribute name is missing");
    else if (!ay_mil_string(name))
        ay_check_error(c, "the attribute name is not a string");
    for (size_t i = 0; i < op->n_attributes; i++) {
        const char *key = op->attributes[i]->key;
        for (size_t k = 0; k < i; k++)
            if (strcmp(op->attributes[k]->key, key) == 0) ay_check_error(c, "the attribute %.60s is there twice", key);
        if (strcmp(key, "name") != 0 && !(constant && strcmp(key, "val") == 0) && !in_attributes)
            ay_check_error(c, "the attribute %.60s is none that this operation has; loaders refuse it", key);
        if (op->n_attributes > 64) return; /* told; the pairs above are quadratic */
    }
}

static void check_op(ay_check *c, const AyMil__Operation *op) {
    const char *name = ay_mil_string(ay_mil_attribute(op, "name"));
    bool constant = strcmp(op->type, "const") == 0, compressed = strncmp(op->type, "constexpr_", 10) == 0;
    c->op_type = op->type;
    c->op_name = name ? name : op->n_outputs ? op->outputs[0]->name : "?";
    check_attributes(c, op, constant, compressed && op->n_inputs == 0);
    if (constant)
        check_const(c, op);
    else
        ay_check_operation(c, op);
    if (op->n_outputs == 0 && strcmp(op->type, "write_state") != 0) ay_check_error(c, "there is no output");
    for (size_t i = 0; i < op->n_outputs; i++) {
        const AyMil__NamedValueType *o = op->outputs[i];
        ay_seen *s = add_value(c, "output", o->name);
        if (!s) return;
        s->type = o->type;
        s->constant = constant;
        s->compressed = compressed;
        s->literal = constant ? ay_mil_attribute(op, "val") : NULL;
        if (ay_check_type(c, o->name, o->type, compressed ? AY_MAX_RANK + 2 : 5) && !constant && !compressed &&
            o->type->type_case == AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE)
            check_extent(c, o->type->tensor_type, o->name);
    }
}

static void check_outputs(ay_check *c, const AyMil__Block *b) {
    if (b->n_outputs == 0) ay_check_error(c, "there is no output");
    for (size_t i = 0; i < b->n_outputs; i++) {
        const ay_seen *s = ay_names_get(&c->values, b->outputs[i], strlen(b->outputs[i]));
        if (!s)
            ay_check_error(c, "output %.100s is made by no operation (Failed to find type of %.100s)", b->outputs[i],
                           b->outputs[i]);
        else if (s->input)
            ay_check_error(c, "input %.100s is returned as an output; an identity operation must stand between",
                           b->outputs[i]);
        for (size_t k = 0; k < i && k < 1000; k++)
            if (strcmp(b->outputs[k], b->outputs[i]) == 0)
                ay_check_error(c, "output %.100s is returned twice", b->outputs[i]);
    }
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static const AyMil__Block *check_form(ay_check *c, const AyMil__Function *f) {
    const AyMil__Block *b = NULL;
    c->opset = strncmp(f->opset, "CoreML", 6) == 0 && f->opset[6] >= '5' && f->opset[6] <= '9' && !f->opset[7]
                   ? f->opset[6] - '0'
                   : 0;
    if (!c->opset) ay_check_error(c, "Unknown opset '%.40s'; known are CoreML5 to CoreML9", f->opset);
    if (f->n_attributes) ay_check_error(c, "the function has attributes, which loaders refuse");
    for (size_t i = 0; i < f->n_block_specializations; i++)
        if (strcmp(f->block_specializations[i]->key, f->opset) == 0) b = f->block_specializations[i]->value;
    if (!b) ay_check_error(c, "there is no block for the function's opset %.40s", f->opset);
    if (b && b->n_inputs) ay_check_error(c, "the function's block has inputs of its own, which only control flow has");
    if (b && b->n_attributes) ay_check_error(c, "the block has attributes, which loaders refuse");
    return b;
}

static void check_function(ay_check *c, const char *name, const AyMil__Function *f, const sides *described) {
    c->function = name;
    if (!ay_name_valid(name)) ay_check_error(c, "the function's name is not one that Core ML takes");
    const AyMil__Block *b = check_form(c, f);
    ay_names_init(&c->values, c->arena);
    for (size_t i = 0; i < f->n_inputs; i++) {
        const AyMil__NamedValueType *in = f->inputs[i];
        ay_seen *s = add_value(c, "input", in->name);
        if (!s) return;
        s->type = in->type;
        s->input = true;
        if (ay_check_type(c, in->name, in->type, 5) && in->type->type_case == AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE) {
            if (in->type->tensor_type->n_dimensions == 0)
                ay_check_error(c, "input %.100s has rank 0; give it the shape [1]", in->name);
            check_extent(c, in->type->tensor_type, in->name);
        }
    }
    for (size_t i = 0; b && c->opset && i < b->n_operations && !c->out_of_memory; i++) check_op(c, b->operations[i]);
    c->op_name = c->op_type = NULL;
    if (c->n_wide && c->wide)
        ay_check_warn(c, "%s (%d values in all are too wide); they run on GPU or CPU", c->wide, c->n_wide);
    c->n_wide = 0;
    if (b) check_outputs(c, b);
    if (b && described) check_features(c, described, f, b);
    c->function = NULL;
}

static const AyMil__FunctionDescription *find_description(const AyMil__ModelDescription *d, const char *name) {
    for (size_t i = 0; i < d->n_functions; i++)
        if (strcmp(d->functions[i]->name, name) == 0) return d->functions[i];
    return NULL;
}

static const AyMil__Function *find_function(const AyMil__Program *p, const char *name) {
    for (size_t i = 0; i < p->n_functions; i++)
        if (strcmp(p->functions[i]->key, name) == 0) return p->functions[i]->value;
    return NULL;
}

static void check_multifunction(ay_check *c) {
    const AyMil__ModelDescription *d = c->p->model->description;
    const AyMil__Program *prog = c->p->model->ml_program;
    if (c->p->model->specification_version < 9)
        ay_check_error(c, "described functions need specification version 9 (macOS 15)");
    if (d->n_input || d->n_output || d->n_state)
        ay_check_error(c, "a description by functions must not list inputs, outputs or states of its own");
    if (!find_description(d, d->default_function_name))
        ay_check_error(c, "the default function \"%.60s\" is not among those described", d->default_function_name);
    for (size_t i = 0; i < d->n_functions; i++)
        if (!find_function(prog, d->functions[i]->name))
            ay_check_error(c, "function %.60s is described and not in the program", d->functions[i]->name);
}

static void check_feature_names(ay_check *c, const char *what, AyMil__Feature **f, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!ay_name_valid(f[i]->name))
            ay_check_error(c, "%s name \"%.100s\" is not one that Core ML takes", what, f[i]->name);
        if (!f[i]->type || f[i]->type->type_case == AY_MIL__FEATURE_TYPE__TYPE__NOT_SET)
            ay_check_error(c, "%s %.100s is described without a type", what, f[i]->name);
        for (size_t k = 0; k < i && k < 1000; k++)
            if (strcmp(f[k]->name, f[i]->name) == 0) ay_check_error(c, "two %ss are called %.100s", what, f[i]->name);
    }
}

void ay_check_program(ay_check *c) {
    const AyMil__ModelDescription *d = c->p->model->description;
    const AyMil__Program *prog = c->p->model->ml_program;
    if (d->n_functions)
        check_multifunction(c);
    else {
        if (d->default_function_name[0])
            ay_check_error(c, "a default function is named and no functions are described; without them main is run");
        if (!find_function(prog, "main")) ay_check_error(c, "there is no function main, and no functions are described");
        check_feature_names(c, "input", d->input, d->n_input);
        check_feature_names(c, "output", d->output, d->n_output);
    }
    for (size_t i = 0; i < prog->n_functions && !c->out_of_memory; i++) {
        const AyMil__Function *f = prog->functions[i]->value;
        const char *name = prog->functions[i]->key;
        sides s = {d->input, d->output, d->state, d->n_input, d->n_output, d->n_state};
        for (size_t k = 0; k < i; k++)
            if (strcmp(prog->functions[k]->key, name) == 0) ay_check_error(c, "two functions are called %.60s", name);
        const AyMil__FunctionDescription *fd = d->n_functions ? find_description(d, name) : NULL;
        if (fd) {
            s = (sides){fd->input, fd->output, fd->state, fd->n_input, fd->n_output, fd->n_state};
            check_feature_names(c, "input", fd->input, fd->n_input);
            check_feature_names(c, "output", fd->output, fd->n_output);
        }
        bool described = fd || (!d->n_functions && strcmp(name, "main") == 0);
        if (!described) ay_check_error(c, "function %.60s is in the program and not described", name);
        if (!f)
            ay_check_error(c, "function %.60s is empty", name);
        else
            check_function(c, name, f, described ? &s : NULL);
    }
}
