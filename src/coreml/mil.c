/* SPDX-License-Identifier: MIT
 *
 * The element types of MIL in one table, and small look-ups in generated messages. Numbers: Apple's MIL.proto (DataType)
 * and MILBlob's BlobDataType.hpp in coremltools.
 */
#include "coreml/mil.h"

#include <string.h>

static const ay_mil_dtype rows[] = {
    {AY_BOOL, AY_MIL__DATA_TYPE__BOOL, 0, AY_SLOT_BOOLS, "bool"},
    {AY_NONE, AY_MIL__DATA_TYPE__STRING, 0, AY_SLOT_STRINGS, ""},
    {AY_F16, AY_MIL__DATA_TYPE__FLOAT16, 1, AY_SLOT_BYTES, "fp16"},
    {AY_F32, AY_MIL__DATA_TYPE__FLOAT32, 2, AY_SLOT_FLOATS, "fp32"},
    {AY_F64, AY_MIL__DATA_TYPE__FLOAT64, 0, AY_SLOT_DOUBLES, ""},
    {AY_BF16, AY_MIL__DATA_TYPE__BFLOAT16, 5, AY_SLOT_BYTES, ""},
    {AY_I8, AY_MIL__DATA_TYPE__INT8, 4, AY_SLOT_BYTES, "int8"},
    {AY_I16, AY_MIL__DATA_TYPE__INT16, 6, AY_SLOT_INTS, "int16"},
    {AY_I32, AY_MIL__DATA_TYPE__INT32, 14, AY_SLOT_INTS, "int32"},
    {AY_I64, AY_MIL__DATA_TYPE__INT64, 0, AY_SLOT_LONGS, ""},
    {AY_I4, AY_MIL__DATA_TYPE__INT4, 8, AY_SLOT_BYTES, ""},
    {AY_U8, AY_MIL__DATA_TYPE__UINT8, 3, AY_SLOT_BYTES, "uint8"},
    {AY_U16, AY_MIL__DATA_TYPE__UINT16, 7, AY_SLOT_INTS, "uint16"},
    {AY_U32, AY_MIL__DATA_TYPE__UINT32, 15, AY_SLOT_BYTES, ""},
    {AY_U64, AY_MIL__DATA_TYPE__UINT64, 0, AY_SLOT_LONGS, ""},
    {AY_U6, AY_MIL__DATA_TYPE__UINT6, 13, AY_SLOT_BYTES, ""},
    {AY_U4, AY_MIL__DATA_TYPE__UINT4, 11, AY_SLOT_BYTES, ""},
    {AY_U3, AY_MIL__DATA_TYPE__UINT3, 12, AY_SLOT_BYTES, ""},
    {AY_U2, AY_MIL__DATA_TYPE__UINT2, 10, AY_SLOT_BYTES, ""},
    {AY_U1, AY_MIL__DATA_TYPE__UINT1, 9, AY_SLOT_BYTES, ""},
    {AY_F8E4M3, AY_MIL__DATA_TYPE__FLOAT8E4M3FN, 16, AY_SLOT_BYTES, ""},
    {AY_F8E5M2, AY_MIL__DATA_TYPE__FLOAT8E5M2, 17, AY_SLOT_BYTES, ""},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

const ay_mil_dtype *ay_mil_by_number(int mil) {
    for (int i = 0; i < N_ROWS; i++)
        if (rows[i].mil == mil) return &rows[i];
    return NULL;
}

const ay_mil_dtype *ay_mil_by_dtype(ay_dtype t) {
    for (int i = 0; i < N_ROWS; i++)
        if (t != AY_NONE && rows[i].dtype == t) return &rows[i];
    return NULL;
}

const ay_mil_dtype *ay_mil_by_blob(int code) {
    for (int i = 0; i < N_ROWS; i++)
        if (code != 0 && rows[i].blob == code) return &rows[i];
    return NULL;
}

const ay_mil_dtype *ay_mil_by_name(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (rows[i].name[0] && strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

int64_t ay_mil_type_count(const AyMil__TensorType *t) {
    int64_t count = 1;
    if (t->n_dimensions > AY_MAX_RANK + 2 || t->rank != (int64_t)t->n_dimensions) return -1;
    for (size_t i = 0; i < t->n_dimensions; i++) {
        const AyMil__Dimension *d = t->dimensions[i];
        if (d->dimension_case != AY_MIL__DIMENSION__DIMENSION_CONSTANT || d->constant->size > (uint64_t)INT64_MAX) return -1;
        if (__builtin_mul_overflow(count, (int64_t)d->constant->size, &count)) return -1;
    }
    return count;
}

bool ay_mil_type_get(const AyMil__TensorType *t, ay_type *out) {
    const ay_mil_dtype *row = ay_mil_by_number((int)t->data_type);
    *out = (ay_type){0};
    if (!row || row->dtype == AY_NONE || t->n_dimensions > AY_MAX_RANK || ay_mil_type_count(t) < 0) return false;
    out->dtype = row->dtype;
    out->rank = (int)t->n_dimensions;
    for (int i = 0; i < out->rank; i++) out->dim[i] = (int64_t)t->dimensions[i]->constant->size;
    return true;
}

const AyMil__Value *ay_mil_attribute(const AyMil__Operation *op, const char *key) {
    for (size_t i = 0; i < op->n_attributes; i++)
        if (strcmp(op->attributes[i]->key, key) == 0) return op->attributes[i]->value;
    return NULL;
}

const AyMil__Argument *ay_mil_argument(const AyMil__Operation *op, const char *key) {
    for (size_t i = 0; i < op->n_inputs; i++)
        if (strcmp(op->inputs[i]->key, key) == 0) return op->inputs[i]->value;
    return NULL;
}

const char *ay_mil_string(const AyMil__Value *v) {
    if (!v || v->value_case != AY_MIL__VALUE__VALUE_IMMEDIATE_VALUE) return NULL;
    const AyMil__ImmediateValue *im = v->immediate_value;
    if (im->value_case != AY_MIL__IMMEDIATE_VALUE__VALUE_TENSOR) return NULL;
    const AyMil__TensorValue *tv = im->tensor;
    if (tv->value_case != AY_MIL__TENSOR_VALUE__VALUE_STRINGS || tv->strings->n_values != 1) return NULL;
    return tv->strings->values[0];
}
