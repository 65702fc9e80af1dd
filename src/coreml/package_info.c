/* SPDX-License-Identifier: MIT
 *
 * What a package says about itself: functions, their inputs and outputs, metadata; and which block runs a function.
 */
#include "coreml/package.h"

#include <string.h>

const ay_package_info *ay_package_describe(const ay_package *p) { return &p->info; }

static ay_dtype array_dtype(int code) {
    switch (code) {
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT16: return AY_F16;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT32: return AY_F32;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_DOUBLE: return AY_F64;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT8: return AY_I8;
    case AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT32: return AY_I32;
    default: return AY_NONE;
    }
}

/** The feature as a tensor; dtype AY_NONE for what is no array (images), rank -1 where no shape is given. */
static ay_tensor feature_tensor(const AyMil__Feature *f) {
    ay_tensor t = {.name = f->name, .type = {.rank = -1}};
    const AyMil__FeatureType *ft = f->type;
    const AyMil__ArrayFeatureType *a = NULL;
    if (ft && ft->type_case == AY_MIL__FEATURE_TYPE__TYPE_MULTI_ARRAY_TYPE) a = ft->multi_array_type;
    if (ft && ft->type_case == AY_MIL__FEATURE_TYPE__TYPE_STATE_TYPE && ft->state_type) a = ft->state_type->array_type;
    if (!a) return t;
    t.type.dtype = array_dtype((int)a->data_type);
    if (a->n_shape == 0 || a->n_shape > AY_MAX_RANK) return t;
    t.type.rank = (int)a->n_shape;
    for (int i = 0; i < t.type.rank; i++) t.type.dim[i] = a->shape[i];
    return t;
}

static ay_tensor *feature_list(ay_arena *arena, AyMil__Feature **f, size_t n) {
    ay_tensor *list = ay_alloc(arena, (n ? n : 1) * sizeof *list);
    for (size_t i = 0; list && i < n; i++) list[i] = feature_tensor(f[i]);
    return list;
}

/** Outputs whose shape the description leaves out get it from the program, where it is static there. */
static void shapes_from_block(ay_package_function *f, const AyMil__Block *b) {
    int missing[64], n = 0;
    for (int i = 0; i < f->n_outputs && n < 64; i++)
        if (f->outputs[i].type.rank < 0) missing[n++] = i;
    for (size_t k = 0; n && k < b->n_operations; k++)
        for (size_t j = 0; j < b->operations[k]->n_outputs; j++) {
            const AyMil__NamedValueType *o = b->operations[k]->outputs[j];
            ay_type t;
            if (!o->type || o->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE ||
                !ay_mil_type_get(o->type->tensor_type, &t))
                continue;
            for (int i = 0; i < n; i++)
                if (strcmp(f->outputs[missing[i]].name, o->name) == 0) f->outputs[missing[i]].type = t;
        }
}

static alloy_status fill_functions(ay_package *p) {
    const AyMil__ModelDescription *d = p->model->description;
    size_t n = d->n_functions ? d->n_functions : 1;
    ay_package_function *fn = ay_alloc(p->arena, n * sizeof *fn);
    if (!fn || n > 100000)
        return fn ? ay_fail(p->cx, ALLOY_E_FORMAT, "%s describes %zu functions", p->path, n) : ay_nomem(p->cx);
    p->info.functions = fn;
    p->info.n_functions = (int)n;
    for (size_t i = 0; i < n; i++) {
        const AyMil__FunctionDescription *fd = d->n_functions ? d->functions[i] : NULL;
        fn[i].name = fd ? fd->name : "main";
        size_t n_in = fd ? fd->n_input : d->n_input, n_out = fd ? fd->n_output : d->n_output;
        if (n_in > 100000 || n_out > 100000)
            return ay_fail(p->cx, ALLOY_E_FORMAT, "%s, function %s: %zu inputs and %zu outputs", p->path, fn[i].name,
                           n_in, n_out);
        fn[i].n_inputs = (int)n_in;
        fn[i].n_outputs = (int)n_out;
        fn[i].inputs = feature_list(p->arena, fd ? fd->input : d->input, n_in);
        fn[i].outputs = feature_list(p->arena, fd ? fd->output : d->output, n_out);
        if (!fn[i].inputs || !fn[i].outputs) return ay_nomem(p->cx);
        const AyMil__Function *f;
        const AyMil__Block *b;
        if (i < 64 && ay_package_function_find(p, fn[i].name, &f, &b, NULL) == ALLOY_OK) shapes_from_block(&fn[i], b);
    }
    return ALLOY_OK;
}

alloy_status ay_package_info_fill(ay_package *p) {
    const AyMil__ModelDescription *d = p->model->description;
    const AyMil__Metadata *m = d->metadata;
    ay_package_info *info = &p->info;
    info->spec_version = p->model->specification_version;
    info->description = m ? m->short_description : "";
    info->author = m ? m->author : "";
    info->license = m ? m->license : "";
    info->version = m ? m->version_string : "";
    info->weight_bytes = p->weights_size;
    info->default_function = d->n_functions && d->default_function_name[0] ? d->default_function_name : "main";
    size_t n = m ? m->n_user_defined : 0;
    const char **meta = ay_alloc(p->arena, (2 * n + 1) * sizeof *meta);
    if (!meta) return ay_nomem(p->cx);
    for (size_t i = 0; i < n; i++) {
        meta[2 * i] = m->user_defined[i]->key;
        meta[2 * i + 1] = m->user_defined[i]->value;
    }
    info->metadata = meta;
    const AyMil__Function *f;
    const AyMil__Block *b;
    info->opset = ay_package_function_find(p, NULL, &f, &b, NULL) == ALLOY_OK ? f->opset : "";
    return fill_functions(p);
}

alloy_status ay_package_function_find(ay_package *p, const char *name, const AyMil__Function **fn,
                                      const AyMil__Block **block, const char **found) {
    const AyMil__Program *prog = p->model->ml_program;
    const char *wanted = name ? name : p->info.default_function;
    const AyMil__Function *f = NULL;
    for (size_t i = 0; i < prog->n_functions && !f; i++)
        if (strcmp(prog->functions[i]->key, wanted) == 0) f = prog->functions[i]->value;
    if (!f)
        return ay_fail(p->cx, ALLOY_E_MISMATCH, "%s has no function \"%.100s\"%s%.100s%s", p->path, wanted,
                       prog->n_functions ? "; it has " : "", prog->n_functions ? prog->functions[0]->key : "",
                       prog->n_functions > 1 ? " and others, which \"alloy info\" lists" : "");
    for (size_t i = 0; i < f->n_block_specializations; i++)
        if (strcmp(f->block_specializations[i]->key, f->opset) == 0 && f->block_specializations[i]->value) {
            *fn = f;
            *block = f->block_specializations[i]->value;
            if (found) *found = wanted;
            return ALLOY_OK;
        }
    return ay_fail(p->cx, ALLOY_E_FORMAT, "%s, function %.100s: no block for its opset \"%.40s\"", p->path, wanted,
                   f->opset);
}
