/* SPDX-License-Identifier: MIT
 *
 * Checking values: declared types, numbers that stand in the program, blobs in the weight file.
 */
#include "coreml/validate.h"

#include <stdlib.h>
#include <string.h>

/* ---- types ------------------------------------------------------------------------------------------------------- */

const char *ay_check_type_text(ay_check *c, const AyMil__ValueType *t) {
    ay_buf b = {0};
    if (!t || t->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !t->tensor_type) return "no tensor";
    const ay_mil_dtype *row = ay_mil_by_number((int)t->tensor_type->data_type);
    ay_buf_printf(&b, "%s[", !row ? "unknown" : row->dtype == AY_NONE ? "string" : ay_dtype_name(row->dtype));
    for (size_t i = 0; i < t->tensor_type->n_dimensions && i < 8; i++) {
        const AyMil__Dimension *d = t->tensor_type->dimensions[i];
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION_CONSTANT)
            ay_buf_printf(&b, "%s%llu", i ? ", " : "", (unsigned long long)d->constant->size);
        else
            ay_buf_printf(&b, "%s?", i ? ", " : "");
    }
    ay_buf_add(&b, "]", 1);
    const char *text = b.failed ? NULL : ay_strndup(c->arena, b.data, b.len);
    ay_buf_free(&b);
    return text ? text : "?";
}

bool ay_check_type(ay_check *c, const char *what, const AyMil__ValueType *v, int most) {
    if (!v || v->type_case == AY_MIL__VALUE_TYPE__TYPE__NOT_SET) {
        ay_check_error(c, "%.100s has no type", what);
        return false;
    }
    if (v->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !v->tensor_type)
        return true; /* lists, states: seen elsewhere */
    const AyMil__TensorType *t = v->tensor_type;
    int before = c->errors;
    if (!ay_mil_by_number((int)t->data_type))
        ay_check_error(c, "%.100s has the unknown element type %d", what, (int)t->data_type);
    if (t->rank < 0 || (uint64_t)t->rank != t->n_dimensions)
        ay_check_error(c, "%.100s has rank %lld and %zu dimensions; they must agree", what, (long long)t->rank,
                       t->n_dimensions);
    if (t->n_dimensions > (size_t)most)
        ay_check_error(c, "%.100s has rank %zu; Core ML takes at most rank %d", what, t->n_dimensions, most);
    if (t->n_attributes) ay_check_error(c, "%.100s has type attributes, which loaders refuse", what);
    for (size_t i = 0; i < t->n_dimensions && i < 16; i++) {
        const AyMil__Dimension *d = t->dimensions[i];
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION__NOT_SET)
            ay_check_error(c, "dimension %zu of %.100s is empty", i, what);
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION_UNKNOWN && d->unknown->variadic)
            ay_check_error(c, "dimension %zu of %.100s is variadic, which loaders refuse", i, what);
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION_CONSTANT &&
            (d->constant->size == 0 || d->constant->size > INT32_MAX))
            ay_check_error(c, "dimension %zu of %.100s is %llu; it must be 1 to 2147483647", i, what,
                           (unsigned long long)d->constant->size);
    }
    return c->errors == before;
}

bool ay_check_same_type(const AyMil__ValueType *a, const AyMil__ValueType *b) {
    if (!a || !b || a->type_case != b->type_case) return false;
    if (a->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE) return true;
    const AyMil__TensorType *x = a->tensor_type, *y = b->tensor_type;
    if (!x || !y || x->data_type != y->data_type || x->n_dimensions != y->n_dimensions) return false;
    for (size_t i = 0; i < x->n_dimensions; i++) {
        const AyMil__Dimension *d = x->dimensions[i], *e = y->dimensions[i];
        if (d->dimension_case != e->dimension_case) return false;
        if (d->dimension_case == AY_MIL__DIMENSION__DIMENSION_CONSTANT && d->constant->size != e->constant->size)
            return false;
    }
    return true;
}

/* ---- numbers in the program -------------------------------------------------------------------------------------- */

static ay_mil_slot slot_of(const AyMil__TensorValue *t, size_t *n) {
    *n = 0;
    switch (t->value_case) {
    case AY_MIL__TENSOR_VALUE__VALUE_FLOATS:
        *n = t->floats->n_values;
        return AY_SLOT_FLOATS;
    case AY_MIL__TENSOR_VALUE__VALUE_INTS:
        *n = t->ints->n_values;
        return AY_SLOT_INTS;
    case AY_MIL__TENSOR_VALUE__VALUE_BOOLS:
        *n = t->bools->n_values;
        return AY_SLOT_BOOLS;
    case AY_MIL__TENSOR_VALUE__VALUE_STRINGS:
        *n = t->strings->n_values;
        return AY_SLOT_STRINGS;
    case AY_MIL__TENSOR_VALUE__VALUE_LONG_INTS:
        *n = t->long_ints->n_values;
        return AY_SLOT_LONGS;
    case AY_MIL__TENSOR_VALUE__VALUE_DOUBLES:
        *n = t->doubles->n_values;
        return AY_SLOT_DOUBLES;
    case AY_MIL__TENSOR_VALUE__VALUE_BYTES:
        *n = t->bytes->values.len;
        return AY_SLOT_BYTES;
    default:
        return AY_SLOT_NONE;
    }
}

static void check_immediate(ay_check *c, const char *what, const AyMil__Value *v, const ay_mil_dtype *row, int64_t count) {
    const AyMil__ImmediateValue *im = v->immediate_value;
    if (im->value_case != AY_MIL__IMMEDIATE_VALUE__VALUE_TENSOR || !im->tensor) {
        ay_check_error(c, "%.100s is declared a tensor and its value is none", what);
        return;
    }
    size_t n;
    ay_mil_slot slot = slot_of(im->tensor, &n);
    if (slot != row->slot) {
        ay_check_error(c, "%.100s is %s and its numbers stand in the wrong member of its value", what,
                       row->dtype == AY_NONE ? "string" : ay_dtype_name(row->dtype));
        return;
    }
    size_t want = slot == AY_SLOT_BYTES ? ay_dtype_bytes(row->dtype, count) : (size_t)count;
    if (n != want)
        ay_check_error(c, "%.100s has %zu %s, its type needs %zu", what, n, slot == AY_SLOT_BYTES ? "bytes" : "elements",
                       want);
    if (count >= 10 && (row->dtype == AY_F16 || row->dtype == AY_F32))
        ay_check_warn(c, "%.100s has %lld numbers in the program itself; converters put ten and more into the weight file",
                      what, (long long)count);
}

/* ---- blobs ------------------------------------------------------------------------------------------------------- */

static void remember_blob(ay_check *c, uint64_t at) {
    bool fresh;
    if (!ay_names_at(&c->blobs, &at, sizeof at, &fresh) || !fresh) return;
    if (c->n_blobs == c->cap_blobs) {
        size_t cap = c->cap_blobs ? c->cap_blobs * 2 : 256;
        uint64_t *list = ay_alloc(c->arena, cap * sizeof *list);
        if (!list) return;
        if (c->n_blobs) memcpy(list, c->blob_at, c->n_blobs * sizeof *list);
        c->blob_at = list;
        c->cap_blobs = cap;
    }
    c->blob_at[c->n_blobs++] = at;
}

static void check_blob(ay_check *c, const char *what, const AyMil__BlobFileValue *f, const ay_mil_dtype *row,
                       int64_t count) {
    ay_blob b;
    if (strcmp(f->file_name, "@model_path/weights/weight.bin") != 0) {
        ay_check_error(c, "%.100s lies in %.200s, expected @model_path/weights/weight.bin", what, f->file_name);
        return;
    }
    if (!c->p->weights) {
        ay_check_error(c, "%.100s lies in weights/weight.bin, which is not there", what);
        return;
    }
    if (ay_blob_read(c->cx, "weight.bin", c->p->weights, c->p->weights_size, f->offset, &b) != ALLOY_OK) {
        ay_check_error(c, "%.100s: %s", what, ay_error_text(c->cx));
        return;
    }
    remember_blob(c, f->offset);
    if (b.dtype != row->dtype)
        ay_check_error(c, "%.100s is %s, its blob at %llu is %s", what,
                       row->dtype == AY_NONE ? "string" : ay_dtype_name(row->dtype), (unsigned long long)f->offset,
                       ay_dtype_name(b.dtype));
    else if (ay_blob_count(&b) != count)
        ay_check_error(c, "%.100s has %lld elements, its blob at %llu has %lld", what, (long long)count,
                       (unsigned long long)f->offset, (long long)ay_blob_count(&b));
}

void ay_check_value(ay_check *c, const char *what, const AyMil__Value *v) {
    if (!v || v->value_case == AY_MIL__VALUE__VALUE__NOT_SET) {
        ay_check_error(c, "%.100s has no value", what);
        return;
    }
    if (v->doc_string[0]) ay_check_error(c, "%.100s has a docString, which loaders refuse", what);
    if (!ay_check_type(c, what, v->type, AY_MAX_RANK + 2) || v->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE)
        return;
    const ay_mil_dtype *row = ay_mil_by_number((int)v->type->tensor_type->data_type);
    int64_t count = ay_mil_type_count(v->type->tensor_type);
    if (count < 0)
        ay_check_error(c, "%.100s is a constant whose shape is not fixed", what);
    else if (v->value_case == AY_MIL__VALUE__VALUE_BLOB_FILE_VALUE)
        check_blob(c, what, v->blob_file_value, row, count);
    else
        check_immediate(c, what, v, row, count);
}

static int by_offset(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* Referenced blobs must not overlap, and the chain that the header counts must be whole. */
void ay_check_blobs(ay_check *c) {
    ay_blob b, last = {0};
    uint32_t count;
    if (!c->p->weights) return;
    if (c->n_blobs > 1) qsort(c->blob_at, c->n_blobs, sizeof *c->blob_at, by_offset);
    for (size_t i = 0; i < c->n_blobs; i++) {
        if (ay_blob_read(c->cx, "weight.bin", c->p->weights, c->p->weights_size, c->blob_at[i], &b) != ALLOY_OK) continue;
        if (b.offset != b.meta + AY_BLOB_META)
            ay_check_error(c, "weight.bin: the data of the blob at %llu is at %llu, expected right behind its record",
                           (unsigned long long)b.meta, (unsigned long long)b.offset);
        if (i && b.meta < last.offset + last.bytes)
            ay_check_error(c, "weight.bin: the blobs at %llu and %llu overlap", (unsigned long long)last.meta,
                           (unsigned long long)b.meta);
        last = b;
    }
    if (ay_blob_header(c->cx, "weight.bin", c->p->weights, c->p->weights_size, &count) != ALLOY_OK) return;
    uint64_t at = AY_BLOB_HEADER;
    for (uint32_t i = 0; i < count; i++, at = ay_blob_next(&b))
        if (ay_blob_read(c->cx, "weight.bin", c->p->weights, c->p->weights_size, at, &b) != ALLOY_OK) {
            ay_check_error(c, "weight.bin: the header counts %u blobs, the chain breaks after %u: %s", count, i,
                           ay_error_text(c->cx));
            return;
        }
    if (c->n_blobs && c->blob_at[c->n_blobs - 1] >= at)
        ay_check_error(c, "weight.bin: the header counts %u blobs, which end before the one at %llu", count,
                       (unsigned long long)c->blob_at[c->n_blobs - 1]);
}
