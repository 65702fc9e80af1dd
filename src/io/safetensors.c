/* SPDX-License-Identifier: MIT
 *
 * The safetensors format: 8 bytes of header length, a JSON header, then the data without gaps
 * (https://github.com/huggingface/safetensors, "Format"; the limits and the refusal of holes are its reference reader's).
 * The file is mapped; everything that the header says is checked against the file's real size before anyone follows it.
 */
#include "base/fs_internal.h"
#include "io/io_internal.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and read without swapping");

enum { MAX_HEADER = 100000000 }; /* the reference reader's limit */

static const struct {
    const char *name;
    ay_dtype dtype;
} dtypes[] = {
    {"F64", AY_F64},        {"F32", AY_F32}, {"F16", AY_F16}, {"BF16", AY_BF16}, {"F8_E4M3", AY_F8E4M3},
    {"F8_E5M2", AY_F8E5M2}, {"I64", AY_I64}, {"I32", AY_I32}, {"I16", AY_I16},   {"I8", AY_I8},
    {"U64", AY_U64},        {"U32", AY_U32}, {"U16", AY_U16}, {"U8", AY_U8},     {"BOOL", AY_BOOL},
};

static ay_dtype dtype_of(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, name) == 0) return dtypes[i].dtype;
    }
    return AY_NONE;
}

static const char *dtype_text(ay_dtype t) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (dtypes[i].dtype == t) return dtypes[i].name;
    }
    return NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static alloy_status bad_tensor(ay_ctx *cx, const char *path, const char *name, const char *why) {
    char show[160];
    return ay_fail(cx, ALLOY_E_FORMAT, "%s: tensor \"%s\": %s; the file is damaged or was not written as safetensors", path,
                   ay_show(name, show, sizeof show), why);
}

static alloy_status read_shape(ay_ctx *cx, const char *path, const char *name, const json_t *shape, ay_type *type) {
    char show[160];
    if (!json_is_array(shape)) return bad_tensor(cx, path, name, "it has no \"shape\" list");
    size_t rank = json_array_size(shape);
    if (rank > AY_MAX_RANK)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: tensor \"%s\" has %zu dimensions; at most %d are supported", path,
                       ay_show(name, show, sizeof show), rank, AY_MAX_RANK);
    type->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d)) return bad_tensor(cx, path, name, "its shape holds something that is not an integer");
        type->dim[i] = json_integer_value(d);
        if (type->dim[i] < 0) return bad_tensor(cx, path, name, "its shape holds a negative number");
    }
    if (ay_type_count(type) < 0) return bad_tensor(cx, path, name, "its shape has more elements than 63 bits can count");
    return ALLOY_OK;
}

/* One entry of the header; `data` bytes follow the header, which ends at `base` in the file. */
static alloy_status read_tensor(ay_ctx *cx, const char *path, const char *name, const json_t *v, uint64_t base,
                                uint64_t data, ay_st_tensor *t) {
    char show[160], show2[64], why[256];
    if (!json_is_object(v)) return bad_tensor(cx, path, name, "its header entry is not an object");
    const json_t *dtype = json_object_get(v, "dtype"), *offsets = json_object_get(v, "data_offsets");
    if (!json_is_string(dtype)) return bad_tensor(cx, path, name, "it has no \"dtype\" text");
    t->type.dtype = dtype_of(json_string_value(dtype));
    if (t->type.dtype == AY_NONE)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: tensor \"%s\" has the element type %s, which is not supported", path,
                       ay_show(name, show, sizeof show), ay_show(json_string_value(dtype), show2, sizeof show2));
    AY_TRY(read_shape(cx, path, name, json_object_get(v, "shape"), &t->type));
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return bad_tensor(cx, path, name, "it has no \"data_offsets\" of two integers");
    int64_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin) {
        snprintf(why, sizeof why, "its data_offsets [%lld, %lld] are no range", (long long)begin, (long long)end);
        return bad_tensor(cx, path, name, why);
    }
    if ((uint64_t)end > data) {
        snprintf(why, sizeof why, "its data ends at byte %lld of the data, of which only %llu are there", (long long)end,
                 (unsigned long long)data);
        char text[160];
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: tensor \"%s\" (%s): %s; the file is cut short, fetch it again", path,
                       ay_show(name, show, sizeof show), ay_type_text(&t->type, text), why);
    }
    size_t need = ay_dtype_bytes(t->type.dtype, ay_type_count(&t->type));
    if (need != (uint64_t)(end - begin)) {
        char text[160];
        snprintf(why, sizeof why, "%s needs %llu bytes, its data_offsets give %lld", ay_type_text(&t->type, text),
                 (unsigned long long)need, (long long)(end - begin));
        return bad_tensor(cx, path, name, why);
    }
    t->offset = base + (uint64_t)begin;
    t->bytes = need;
    return ALLOY_OK;
}

static alloy_status read_metadata(ay_ctx *cx, const json_t *v, ay_safetensors *st) {
    if (!json_is_object(v))
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: its \"__metadata__\" is not an object of texts", st->path);
    size_t i = 0;
    const char *key;
    json_t *value;
    st->metadata = ay_alloc(st->arena, (json_object_size(v) * 2 + 1) * sizeof *st->metadata);
    if (!st->metadata) return ay_nomem(cx);
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        char show[160];
        if (!json_is_string(value))
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: \"%s\" in its \"__metadata__\" is not text", st->path,
                           ay_show(key, show, sizeof show));
        st->metadata[i++] = ay_strdup(st->arena, key);
        st->metadata[i++] = ay_strdup(st->arena, json_string_value(value));
    }
    return ALLOY_OK;
}

static int by_offset(const void *pa, const void *pb) {
    const ay_st_tensor *a = pa, *b = pb;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1; /* empty ones first */
    return strcmp(a->name, b->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ay_st_tensor *)a)->name, ((const ay_st_tensor *)b)->name);
}

/* The data is covered exactly: no overlap, no hole, nothing behind. Leaves the tensors sorted by name. */
static alloy_status check_cover(ay_ctx *cx, ay_safetensors *st, uint64_t base) {
    char show[160], show2[160], why[256];
    uint64_t at = base;
    if (st->n) qsort(st->tensors, (size_t)st->n, sizeof *st->tensors, by_offset);
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *t = &st->tensors[i];
        if (t->offset < at)
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: tensors \"%s\" and \"%s\" overlap; the file is damaged", st->path,
                           ay_show(st->tensors[i - 1].name, show, sizeof show), ay_show(t->name, show2, sizeof show2));
        if (t->offset > at) {
            snprintf(why, sizeof why, "before it are %llu bytes that belong to no tensor",
                     (unsigned long long)(t->offset - at));
            return bad_tensor(cx, st->path, t->name, why);
        }
        at += t->bytes;
    }
    if (at != st->map.size)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: behind the last tensor are %llu bytes that belong to no tensor; the file is damaged", st->path,
                       (unsigned long long)(st->map.size - at));
    if (st->n) qsort(st->tensors, (size_t)st->n, sizeof *st->tensors, by_name);
    return ALLOY_OK;
}

static alloy_status read_header(ay_ctx *cx, ay_safetensors *st, const json_t *header, uint64_t base) {
    const char *key;
    json_t *v;
    size_t count = json_object_size(header);
    if (count > INT32_MAX / 2)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: its header names %zu tensors, too many", st->path, count);
    st->tensors = ay_alloc(st->arena, (count + 1) * sizeof *st->tensors);
    if (!st->tensors) return ay_nomem(cx);
    json_object_foreach((json_t *)(uintptr_t)header, key, v) {
        if (strcmp(key, "__metadata__") == 0) {
            AY_TRY(read_metadata(cx, v, st));
            continue;
        }
        ay_st_tensor *t = &st->tensors[st->n++];
        t->name = ay_strdup(st->arena, key);
        if (!t->name) return ay_nomem(cx);
        AY_TRY(read_tensor(cx, st->path, key, v, base, st->map.size - base, t));
    }
    if (!st->metadata) st->metadata = ay_alloc(st->arena, sizeof *st->metadata);
    if (ay_arena_failed(st->arena)) return ay_nomem(cx);
    return check_cover(cx, st, base);
}

static alloy_status parse(ay_ctx *cx, ay_safetensors *st) {
    const char *path = st->path;
    size_t size = st->map.size;
    if (size == 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: is empty; a safetensors file was expected", path);
    if (size < 8)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: has only %zu bytes; a safetensors file begins with 8 bytes of header length",
                       path, size);
    uint64_t n;
    memcpy(&n, st->map.data, 8);
    if (n > size - 8)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: its header should have %llu bytes, but only %zu follow; it is cut short or no safetensors file",
                       path, (unsigned long long)n, size - 8);
    if (n > MAX_HEADER)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: its header has %llu bytes; at most %d are allowed", path,
                       (unsigned long long)n, MAX_HEADER);
    if (n < 2 || st->map.data[8] != '{')
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: its header does not begin with \"{\"; it is no safetensors file", path);
    json_t *header;
    st->header_bytes = (size_t)n + 8;
    AY_TRY(ay_json_parse(cx, path, (const char *)st->map.data + 8, (size_t)n, &header));
    alloy_status s = read_header(cx, st, header, 8 + n);
    json_decref(header);
    return s;
}

alloy_status ay_st_open(ay_ctx *cx, const char *path, ay_safetensors **out) {
    ay_map map;
    *out = NULL;
    AY_TRY(ay_map_open(cx, path, &map));
    return ay_tensors_over(cx, path, "safetensors", map, false, parse, out);
}

alloy_status ay_st_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out) {
    return ay_tensors_over(cx, what, "safetensors", (ay_map){bytes, n}, true, parse, out);
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

/* As the reference writer orders them: larger elements first, then by name. So every tensor is aligned to its element. */
static int by_width(const void *pa, const void *pb) {
    const ay_tensor *a = *(const ay_tensor *const *)pa, *b = *(const ay_tensor *const *)pb;
    int wa = ay_dtype_bits(a->type.dtype), wb = ay_dtype_bits(b->type.dtype);
    return wa != wb ? wb - wa : strcmp(a->name, b->name);
}

static void put_json_text(ay_buf *b, const char *s) {
    ay_buf_add(b, "\"", 1);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') ay_buf_printf(b, "\\%c", *s);
        else if ((unsigned char)*s < 32) ay_buf_printf(b, "\\u%04x", (unsigned char)*s);
        else ay_buf_add(b, s, 1);
    }
    ay_buf_add(b, "\"", 1);
}

/* The header text with the 8 bytes of its length in front, padded with spaces so that the data is 8-aligned. */
static alloy_status make_header(ay_ctx *cx, const char *path, const ay_tensor **t, int n, const char *const *metadata,
                                ay_buf *b) {
    uint64_t at = 0;
    ay_buf_add(b, "\0\0\0\0\0\0\0\0{", 9);
    if (metadata && metadata[0]) {
        ay_buf_printf(b, "\"__metadata__\":{");
        for (int i = 0; metadata[i] && metadata[i + 1]; i += 2) {
            if (i) ay_buf_add(b, ",", 1);
            put_json_text(b, metadata[i]);
            ay_buf_add(b, ":", 1);
            put_json_text(b, metadata[i + 1]);
        }
        ay_buf_printf(b, n ? "}," : "}");
    }
    for (int i = 0; i < n; i++) {
        const char *dtype = dtype_text(t[i]->type.dtype);
        size_t bytes = ay_dtype_bytes(t[i]->type.dtype, ay_type_count(&t[i]->type));
        if (!dtype || bytes == SIZE_MAX || (bytes && !t[i]->data) || (i && strcmp(t[i]->name, t[i - 1]->name) == 0))
            return ay_fail(cx, ALLOY_E_INTERNAL, "%s: tensor \"%s\" of type %s cannot be written as safetensors", path,
                           t[i]->name, ay_dtype_name(t[i]->type.dtype));
        if (i) ay_buf_add(b, ",", 1);
        put_json_text(b, t[i]->name);
        ay_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
        for (int d = 0; d < t[i]->type.rank; d++) ay_buf_printf(b, d ? ",%lld" : "%lld", (long long)t[i]->type.dim[d]);
        ay_buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + bytes));
        at += bytes;
    }
    ay_buf_add(b, "}", 1);
    while (!b->failed && b->len % 8) ay_buf_add(b, " ", 1);
    if (b->failed) return ay_nomem(cx);
    uint64_t len = b->len - 8;
    memcpy(b->data, &len, 8);
    return ALLOY_OK;
}

static alloy_status write_body(ay_ctx *cx, const char *path, const ay_tensor **t, int n, const ay_buf *header) {
    char *tmp;
    ay_writer *w;
    AY_TRY(ay_replace_begin(cx, path, &tmp, &w));
    alloy_status s = ay_writer_put(w, header->data, header->len);
    for (int i = 0; i < n && s == ALLOY_OK; i++)
        s = ay_writer_put(w, t[i]->data, ay_dtype_bytes(t[i]->type.dtype, ay_type_count(&t[i]->type)));
    return ay_replace_end(cx, s, path, &tmp, &w);
}

alloy_status ay_st_write(ay_ctx *cx, const char *path, const ay_tensor *t, int n, const char *const *metadata) {
    const ay_tensor **order = malloc(((size_t)n + 1) * sizeof *order);
    if (!order) return ay_nomem(cx);
    for (int i = 0; i < n; i++) order[i] = &t[i];
    if (n) qsort(order, (size_t)n, sizeof *order, by_width);
    ay_buf header = {0};
    alloy_status s = make_header(cx, path, order, n, metadata, &header);
    if (s == ALLOY_OK) s = write_body(cx, path, order, n, &header);
    ay_buf_free(&header);
    free(order);
    return s;
}
