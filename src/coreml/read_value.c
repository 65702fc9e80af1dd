/* SPDX-License-Identifier: MIT
 *
 * Values of the program: literals decoded to plain numbers, constants put into the graph when an operation wants them
 * there, and the small builders that every family of operations uses.
 */
#include "coreml/read.h"

#include <string.h>

void ay_mset_raw(ay_mvalue *v, const ay_raw *raw) {
    v->kind = AY_M_RAW;
    v->node = AY_NO_VALUE;
    v->raw = *raw;
}

void *ay_mmake(ay_mop *o, int64_t count, ay_dtype dtype) {
    ay_reader *r = o->r;
    size_t bytes = count < 0 ? SIZE_MAX : ay_dtype_bytes(dtype, count);
    if (bytes == SIZE_MAX || bytes > r->made_limit - r->made) {
        ay_mfail(o, ALLOY_E_FORMAT, "needs a constant of %lld numbers, more than a package of this size may ask for",
                 (long long)count);
        return NULL;
    }
    r->made += bytes;
    void *mem = ay_alloc(r->g->arena, bytes ? bytes : 1);
    if (!mem) ay_mfail(o, ALLOY_E_NOMEM, "out of memory for a constant of %zu bytes", bytes);
    return mem;
}

bool ay_mdeclared(const ay_mop *o, int i, ay_type *out) {
    *out = (ay_type){0};
    const AyMil__NamedValueType *nv = o->op->outputs[i];
    if (!nv->type || nv->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE) return false;
    const AyMil__TensorType *t = nv->type->tensor_type;
    const ay_mil_dtype *row = ay_mil_by_number((int)t->data_type);
    if (!row || row->dtype == AY_NONE || t->n_dimensions > AY_MAX_RANK) return false;
    out->dtype = row->dtype;
    out->rank = (int)t->n_dimensions;
    for (int d = 0; d < out->rank; d++) {
        const AyMil__Dimension *dim = t->dimensions[d];
        bool fixed = dim->dimension_case == AY_MIL__DIMENSION__DIMENSION_CONSTANT && dim->constant->size <= INT64_MAX;
        out->dim[d] = fixed ? (int64_t)dim->constant->size : -1;
    }
    return true;
}

/* ---- literals ---------------------------------------------------------------------------------------------------- */

/** Dtype, rank, dims, count of a literal. */
static bool raw_type(ay_mop *o, const char *key, const AyMil__TensorType *t, ay_raw *raw) {
    const ay_mil_dtype *row = ay_mil_by_number((int)t->data_type);
    if (!row || row->dtype == AY_NONE)
        return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "%s has element type %d, which alloy does not know", key,
                         (int)t->data_type);
    raw->count = ay_mil_type_count(t);
    if (raw->count < 0)
        return ay_mfalse(o, ALLOY_E_FORMAT, "%s has no static shape of rank 0 to %d", key, AY_RAW_RANK);
    raw->dtype = row->dtype;
    raw->rank = (int)t->n_dimensions;
    for (int i = 0; i < raw->rank; i++) raw->dim[i] = (int64_t)t->dimensions[i]->constant->size;
    return true;
}

static bool blob_value(ay_mop *o, const char *key, const AyMil__BlobFileValue *b, ay_raw *raw) {
    if (!b || strcmp(b->file_name, "@model_path/weights/weight.bin") != 0)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED,
                        "%s lies in the file \"%.100s\"; alloy reads @model_path/weights/weight.bin only", key,
                        b ? b->file_name : ""),
               false;
    ay_package *p = o->r->p;
    if (!p->weights)
        return ay_mfalse(o, ALLOY_E_FORMAT, "%s needs weights/weight.bin, which the package does not have", key);
    ay_blob blob;
    alloy_status st = ay_blob_read(o->r->cx, p->path, p->weights, p->weights_size, b->offset, &blob);
    if (st) return ay_mfalse(o, st, "%s: %s", key, ay_error_text(o->r->cx));
    if (blob.dtype != raw->dtype || ay_blob_count(&blob) != raw->count ||
        blob.bytes < ay_dtype_bytes(raw->dtype, raw->count))
        return ay_mfalse(o, ALLOY_E_MISMATCH,
                         "%s is declared as %lld numbers of %s, but the blob at offset %llu holds %lld of %s", key,
                         (long long)raw->count, ay_dtype_name(raw->dtype), (unsigned long long)b->offset,
                         (long long)ay_blob_count(&blob), blob.dtype ? ay_dtype_name(blob.dtype) : "an unknown type");
    raw->data = p->weights + blob.offset;
    raw->mapped = true;
    return true;
}

/** 16-bit integers and bools, which lie wider in the message than in memory. */
static bool narrow_values(ay_mop *o, const char *key, const AyMil__TensorValue *t, ay_raw *raw) {
    uint8_t *mem = ay_mmake(o, raw->count, raw->dtype);
    if (!mem) return false;
    for (int64_t i = 0; i < raw->count; i++) {
        if (raw->dtype == AY_BOOL) {
            mem[i] = t->bools->values[i] != 0;
            continue;
        }
        int32_t v = t->ints->values[i];
        if (raw->dtype == AY_I16 ? v < INT16_MIN || v > INT16_MAX : v < 0 || v > UINT16_MAX)
            return ay_mfalse(o, ALLOY_E_FORMAT, "%s holds %d, which is no %s", key, (int)v, ay_dtype_name(raw->dtype));
        uint16_t w = (uint16_t)v;
        memcpy(mem + 2 * i, &w, 2);
    }
    raw->data = mem;
    return true;
}

static bool immediate_value(ay_mop *o, const char *key, const AyMil__TensorValue *t, ay_raw *raw) {
    size_t n = 0, want = (size_t)raw->count;
    const void *data = NULL;
    ay_mil_slot slot = ay_mil_by_dtype(raw->dtype)->slot;
    AyMil__TensorValue__ValueCase c = t->value_case;
    if (slot == AY_SLOT_FLOATS && c == AY_MIL__TENSOR_VALUE__VALUE_FLOATS && t->floats)
        n = t->floats->n_values, data = t->floats->values;
    else if (slot == AY_SLOT_INTS && c == AY_MIL__TENSOR_VALUE__VALUE_INTS && t->ints)
        n = t->ints->n_values, data = t->ints->values;
    else if (slot == AY_SLOT_BOOLS && c == AY_MIL__TENSOR_VALUE__VALUE_BOOLS && t->bools)
        n = t->bools->n_values, data = t->bools->values;
    else if (slot == AY_SLOT_LONGS && c == AY_MIL__TENSOR_VALUE__VALUE_LONG_INTS && t->long_ints)
        n = t->long_ints->n_values, data = t->long_ints->values;
    else if (slot == AY_SLOT_DOUBLES && c == AY_MIL__TENSOR_VALUE__VALUE_DOUBLES && t->doubles)
        n = t->doubles->n_values, data = t->doubles->values;
    else if (slot == AY_SLOT_BYTES && c == AY_MIL__TENSOR_VALUE__VALUE_BYTES && t->bytes) {
        n = t->bytes->values.len;
        data = t->bytes->values.data;
        want = ay_dtype_bytes(raw->dtype, raw->count);
    } else if (raw->count)
        return ay_mfalse(o, ALLOY_E_FORMAT, "%s is declared %s but its numbers lie in member %d of the value", key,
                         ay_dtype_name(raw->dtype), (int)c);
    if (n != want)
        return ay_mfalse(o, ALLOY_E_MISMATCH, "%s should hold %zu %s of %s, found %zu", key, want,
                         slot == AY_SLOT_BYTES ? "bytes" : "numbers", ay_dtype_name(raw->dtype), n);
    if (raw->count && (raw->dtype == AY_BOOL || raw->dtype == AY_I16 || raw->dtype == AY_U16))
        return narrow_values(o, key, t, raw);
    raw->data = data ? data : "";
    return true;
}

bool ay_mdecode(ay_mop *o, const char *key, const AyMil__Value *v, ay_mvalue *out) {
    out->kind = AY_M_NONE;
    out->node = AY_NO_VALUE;
    if (!v || !v->type || v->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !v->type->tensor_type)
        return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "the value of %s is not a tensor", key);
    if ((out->string = ay_mil_string(v))) {
        out->kind = AY_M_STRING;
        return true;
    }
    ay_raw raw = {0};
    if (!raw_type(o, key, v->type->tensor_type, &raw)) return false;
    bool ok;
    if (v->value_case == AY_MIL__VALUE__VALUE_BLOB_FILE_VALUE) ok = blob_value(o, key, v->blob_file_value, &raw);
    else if (v->value_case == AY_MIL__VALUE__VALUE_IMMEDIATE_VALUE && v->immediate_value &&
             v->immediate_value->value_case == AY_MIL__IMMEDIATE_VALUE__VALUE_TENSOR && v->immediate_value->tensor)
        ok = immediate_value(o, key, v->immediate_value->tensor, &raw);
    else ok = ay_mfalse(o, ALLOY_E_FORMAT, "%s has neither immediate numbers nor a place in the weight file", key);
    if (ok) ay_mset_raw(out, &raw);
    return ok;
}

/* ---- into the graph ---------------------------------------------------------------------------------------------- */

static ay_val raw_node(ay_mop *o, ay_mvalue *v) {
    const ay_raw *raw = &v->raw;
    if (raw->rank > AY_MAX_RANK)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "constant %s has rank %d, at most %d can be computed with", v->name,
                        raw->rank, AY_MAX_RANK);
    if (ay_dtype_bits(raw->dtype) < 8)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "constant %s is of %s, which only constexpr operations take", v->name,
                        ay_dtype_name(raw->dtype));
    ay_type t = {.dtype = raw->dtype, .rank = raw->rank};
    memcpy(t.dim, raw->dim, (size_t)raw->rank * sizeof *t.dim);
    if (!raw->mapped) return ay_const_data(o->r->g, t, raw->data);
    ay_val p = ay_param(o->r->g, v->name, t);
    if (p != AY_NO_VALUE) *ay_node_of(o->r->g, p)->weight = ay_weight_plain(&t, raw->data);
    return p;
}

static ay_val weight_node(ay_mop *o, ay_mvalue *v) {
    const ay_weight *w = v->weight;
    ay_type t = {.dtype = w->value_dtype, .rank = w->rank};
    memcpy(t.dim, w->dim, sizeof t.dim);
    ay_val p = ay_param(o->r->g, v->name, t);
    if (p != AY_NO_VALUE) *ay_node_of(o->r->g, p)->weight = *w;
    return p;
}

ay_val ay_mvalue_node(ay_mop *o, ay_mvalue *v) {
    if (!v || ay_mbad(o)) return AY_NO_VALUE;
    if (v->node != AY_NO_VALUE) return v->node;
    switch (v->kind) {
    case AY_M_RAW: return v->node = raw_node(o, v);
    case AY_M_WEIGHT: return v->node = weight_node(o, v);
    case AY_M_STRING: return ay_mfail(o, ALLOY_E_FORMAT, "%s is a string where numbers are needed", v->name);
    default: return ay_mfail(o, ALLOY_E_FORMAT, "%s has no numbers", v->name);
    }
}

const ay_raw *ay_mvalue_raw(ay_mop *o, ay_mvalue *v) {
    if (!v || ay_mbad(o)) return NULL;
    if (v->kind == AY_M_RAW) return &v->raw;
    if (v->kind != AY_M_WEIGHT) return ay_mnull(o, ALLOY_E_UNSUPPORTED, "%s must be a constant", v->name);
    const ay_weight *w = v->weight;
    ay_raw *raw = ay_alloc(o->r->g->arena, sizeof *raw);
    if (!raw) return ay_mnull(o, ALLOY_E_NOMEM, "out of memory");
    *raw = (ay_raw){.dtype = w->value_dtype, .rank = w->rank, .count = 1};
    for (int i = 0; i < w->rank; i++) raw->count *= raw->dim[i] = w->dim[i];
    uint8_t *mem = ay_mmake(o, raw->count, raw->dtype);
    size_t size = (size_t)ay_dtype_bits(raw->dtype) / 8;
    float part[256];
    for (int64_t i = 0; mem && i < raw->count; i += 256) {
        int64_t n = ay_min_i64(256, raw->count - i);
        ay_weight_read(w, i, n, part);
        ay_convert_from_f32(raw->dtype, part, n, mem + (size_t)i * size);
    }
    raw->data = mem;
    return mem ? raw : NULL;
}

/* ---- builders ---------------------------------------------------------------------------------------------------- */

ay_val ay_mconst(ay_mop *o, ay_dtype t, int rank, const int64_t *dim, const float *numbers) {
    ay_type type = {.dtype = t, .rank = rank};
    if (rank) memcpy(type.dim, dim, (size_t)rank * sizeof *dim);
    int64_t count = ay_type_count(&type);
    void *mem = ay_mmake(o, count, t);
    if (!mem || ay_mbad(o)) return AY_NO_VALUE;
    ay_convert_from_f32(t, numbers, count, mem);
    return ay_const_data(o->r->g, type, mem);
}

ay_val ay_mscalar(ay_mop *o, ay_dtype t, double value) {
    float f = (float)value;
    return ay_mconst(o, t, 0, NULL, &f);
}

ay_val ay_malong(ay_mop *o, ay_val x, int axis, int rank) {
    if (x == AY_NO_VALUE || ay_mbad(o)) return AY_NO_VALUE;
    int64_t dim[AY_MAX_RANK], n = ay_type_count(ay_mtype(o, x));
    for (int i = 0; i < rank; i++) dim[i] = i == axis ? n : 1;
    return ay_reshape_to(o->r->g, x, rank, dim);
}

ay_val ay_mslice(ay_mop *o, ay_val x, const int64_t *begin, const int64_t *stride, const int64_t *count) {
    if (x == AY_NO_VALUE || ay_mbad(o)) return AY_NO_VALUE;
    ay_type want = *ay_mtype(o, x);
    ay_attr at = {0};
    bool whole = true;
    for (int i = 0; i < want.rank; i++) {
        at.slice.begin[i] = begin[i];
        at.slice.stride[i] = stride ? stride[i] : 1;
        whole = whole && begin[i] == 0 && at.slice.stride[i] == 1 && count[i] == want.dim[i];
        want.dim[i] = count[i];
    }
    return whole ? x : ay_node_add(o->r->g, AY_OP_SLICE, &x, 1, &at, &want);
}

ay_val ay_marange(ay_mop *o, int32_t start, int64_t count) {
    int32_t *v = ay_mmake(o, count, AY_I32);
    if (!v) return AY_NO_VALUE;
    for (int64_t i = 0; i < count; i++) v[i] = (int32_t)(start + i);
    return ay_const_data(o->r->g, (ay_type){.dtype = AY_I32, .rank = 1, .dim = {count}}, v);
}

ay_val ay_mcast(ay_mop *o, ay_val x, ay_dtype t) {
    if (x == AY_NO_VALUE || ay_mbad(o)) return AY_NO_VALUE;
    ay_dtype from = ay_mtype(o, x)->dtype;
    if (t == AY_BOOL && from != AY_BOOL) return ay_binary(o->r->g, AY_OP_NE, x, ay_mscalar(o, from, 0));
    return ay_cast(o->r->g, x, t);
}
