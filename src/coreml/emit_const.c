/* SPDX-License-Identifier: MIT
 *
 * Constants of a MIL program: small ones stand in the program, the others lie in the weight file, by the rule coremltools
 * follows (backend/mil/helper.py, should_use_weight_file). Tables with the same bytes are stored once.
 */
#include "coreml/emit.h"

#include "base/sha256.h"

#include <string.h>

/* ---- values that stand in the program ---------------------------------------------------------------------------- */

static AyMil__TensorValue *new_tensor_value(ay_emitter *e, AyMil__Value **out) {
    AyMil__Value *v = ay_emit_alloc(e, sizeof *v);
    AyMil__ImmediateValue *im = ay_emit_alloc(e, sizeof *im);
    AyMil__TensorValue *t = ay_emit_alloc(e, sizeof *t);
    *out = NULL;
    if (!v || !im || !t) return NULL;
    ay_mil__value__init(v);
    ay_mil__immediate_value__init(im);
    ay_mil__tensor_value__init(t);
    v->value_case = AY_MIL__VALUE__VALUE_IMMEDIATE_VALUE;
    v->immediate_value = im;
    im->value_case = AY_MIL__IMMEDIATE_VALUE__VALUE_TENSOR;
    im->tensor = t;
    *out = v;
    return t;
}

AyMil__Value *ay_emit_string_value(ay_emitter *e, const char *text) {
    AyMil__Value *v;
    AyMil__TensorValue *t = new_tensor_value(e, &v);
    AyMil__RepeatedStrings *s = ay_emit_alloc(e, sizeof *s);
    char **list = ay_emit_alloc(e, sizeof *list);
    if (!t || !s || !list || !ay_emit_ok(e)) return NULL;
    ay_mil__repeated_strings__init(s);
    t->value_case = AY_MIL__TENSOR_VALUE__VALUE_STRINGS;
    t->strings = s;
    s->n_values = 1;
    s->values = list;
    v->type = ay_emit_value_type(e, AY_NONE, 0, NULL);
    if (!(list[0] = ay_strdup(e->arena, text)) && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    return ay_emit_ok(e) ? v : NULL;
}

static void fill_floats(ay_emitter *e, AyMil__TensorValue *t, const void *data, size_t n) {
    AyMil__RepeatedFloats *r = ay_emit_alloc(e, sizeof *r);
    float *values = ay_emit_alloc(e, n * sizeof *values + 1);
    if (!r || !values) return;
    ay_mil__repeated_floats__init(r);
    if (n) memcpy(values, data, n * sizeof *values);
    r->n_values = n;
    r->values = values;
    t->value_case = AY_MIL__TENSOR_VALUE__VALUE_FLOATS;
    t->floats = r;
}

static void fill_ints(ay_emitter *e, AyMil__TensorValue *t, ay_dtype dtype, const void *data, size_t n) {
    AyMil__RepeatedInts *r = ay_emit_alloc(e, sizeof *r);
    int32_t *values = ay_emit_alloc(e, n * sizeof *values + 1);
    if (!r || !values) return;
    ay_mil__repeated_ints__init(r);
    for (size_t i = 0; i < n; i++) {
        if (dtype == AY_I32)
            memcpy(&values[i], (const uint8_t *)data + i * 4, 4);
        else {
            uint16_t h;
            memcpy(&h, (const uint8_t *)data + i * 2, 2);
            values[i] = dtype == AY_I16 ? (int16_t)h : h;
        }
    }
    r->n_values = n;
    r->values = values;
    t->value_case = AY_MIL__TENSOR_VALUE__VALUE_INTS;
    t->ints = r;
}

static void fill_bools(ay_emitter *e, AyMil__TensorValue *t, const void *data, size_t n) {
    AyMil__RepeatedBools *r = ay_emit_alloc(e, sizeof *r);
    protobuf_c_boolean *values = ay_emit_alloc(e, n * sizeof *values + 1);
    if (!r || !values) return;
    ay_mil__repeated_bools__init(r);
    for (size_t i = 0; i < n; i++) values[i] = ((const uint8_t *)data)[i] != 0;
    r->n_values = n;
    r->values = values;
    t->value_case = AY_MIL__TENSOR_VALUE__VALUE_BOOLS;
    t->bools = r;
}

static void fill_bytes(ay_emitter *e, AyMil__TensorValue *t, const void *data, size_t bytes) {
    AyMil__RepeatedBytes *r = ay_emit_alloc(e, sizeof *r);
    uint8_t *values = ay_emit_alloc(e, bytes + 1);
    if (!r || !values) return;
    ay_mil__repeated_bytes__init(r);
    if (bytes) memcpy(values, data, bytes);
    r->values.data = values;
    r->values.len = bytes;
    t->value_case = AY_MIL__TENSOR_VALUE__VALUE_BYTES;
    t->bytes = r;
}

/* `data` has the type's elements packed, multi-byte ones little-endian. */
AyMil__Value *ay_emit_immediate(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim, const void *data) {
    AyMil__Value *v;
    AyMil__TensorValue *t = new_tensor_value(e, &v);
    const ay_mil_dtype *row = ay_mil_by_dtype(dtype);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= dim[i]; /* at most what is in memory at `data` */
    size_t bytes = ay_dtype_bytes(dtype, count);
    if (!t || bytes == SIZE_MAX || !row) return NULL;
    switch (row->slot) {
    case AY_SLOT_FLOATS:
        fill_floats(e, t, data, (size_t)count);
        break;
    case AY_SLOT_INTS:
        fill_ints(e, t, dtype, data, (size_t)count);
        break;
    case AY_SLOT_BOOLS:
        fill_bools(e, t, data, (size_t)count);
        break;
    case AY_SLOT_BYTES:
        fill_bytes(e, t, data, bytes);
        break;
    default:
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "a constant cannot be of type %s", ay_dtype_name(dtype));
    }
    v->type = ay_emit_value_type(e, dtype, rank, dim);
    return ay_emit_ok(e) ? v : NULL;
}

AyMil__Value *ay_emit_blob(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim, uint64_t offset) {
    AyMil__Value *v = ay_emit_alloc(e, sizeof *v);
    AyMil__BlobFileValue *b = ay_emit_alloc(e, sizeof *b);
    if (!v || !b) return NULL;
    ay_mil__value__init(v);
    ay_mil__blob_file_value__init(b);
    b->file_name = ay_strdup(e->arena, "@model_path/weights/weight.bin");
    b->offset = offset;
    v->value_case = AY_MIL__VALUE__VALUE_BLOB_FILE_VALUE;
    v->blob_file_value = b;
    v->type = ay_emit_value_type(e, dtype, rank, dim);
    if (!b->file_name && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    return ay_emit_ok(e) ? v : NULL;
}

/* coremltools' rule: ten elements or more, and a dtype that the weight file of that generation may hold. */
bool ay_emit_in_file(const ay_emitter *e, ay_dtype t, int64_t count) {
    if (count < 10) return false;
    if (t == AY_F16 || t == AY_F32 || t == AY_I8 || t == AY_U8) return true;
    if (ay_dtype_bits(t) < 8) return true; /* counted as bytes by that rule */
    return ay_emit_macos15(e) && (t == AY_U16 || t == AY_I16 || t == AY_I32 || t == AY_U32);
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* The offset of a blob with these bytes, written now or before. */
static uint64_t table_blob(ay_emitter *e, const ay_type *type, const void *data) {
    struct {
        char tag[8];
        uint8_t digest[32];
    } key = {.tag = "\1table"};
    ay_sha256 sha;
    int64_t count = ay_type_count(type);
    size_t bytes = count < 0 ? SIZE_MAX : ay_dtype_bytes(type->dtype, count);
    bool fresh;
    if (!ay_emit_ok(e) || bytes == SIZE_MAX) return 0;
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, &type->dtype, sizeof type->dtype);
    ay_sha256_add(&sha, data, bytes);
    ay_sha256_end(&sha, key.digest);
    void **at = ay_names_at(&e->stored, &key, sizeof key, &fresh);
    if (!at) {
        e->status = ay_nomem(e->cx);
        return 0;
    }
    if (fresh) {
        uint64_t *offset = ay_emit_alloc(e, sizeof *offset);
        *at = offset;
        if (!offset) return 0;
        e->status = ay_weight_writer_begin(e->blobs, type->dtype, count, offset);
        if (ay_emit_ok(e)) e->status = ay_weight_writer_put(e->blobs, data, bytes);
        if (ay_emit_ok(e)) e->status = ay_weight_writer_end(e->blobs, "table");
    }
    return *at ? *(uint64_t *)*at : 0;
}

const char *ay_emit_const_value(ay_emitter *e, const char *stem, const ay_type *type, AyMil__Value *v) {
    AyMil__Operation *op = v ? ay_emit_begin(e, "const", stem) : NULL;
    ay_emit_attribute(e, op, "val", v);
    return ay_emit_end(e, op, type);
}

const char *ay_emit_const(ay_emitter *e, const char *stem, const ay_type *type, const void *data) {
    if (!ay_emit_ok(e)) return NULL;
    AyMil__Value *v = ay_emit_in_file(e, type->dtype, ay_type_count(type))
                          ? ay_emit_blob(e, type->dtype, type->rank, type->dim, table_blob(e, type, data))
                          : ay_emit_immediate(e, type->dtype, type->rank, type->dim, data);
    return ay_emit_const_value(e, stem, type, v);
}

const char *ay_emit_const_string(ay_emitter *e, const char *stem, const char *text) {
    return ay_emit_const_value(e, stem, &(ay_type){.dtype = AY_NONE}, ay_emit_string_value(e, text));
}

void ay_emit_op_const(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    e->value[e->at] = ay_emit_const(e, NULL, &n->type, n->data);
}
