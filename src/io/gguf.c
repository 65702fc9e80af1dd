/* SPDX-License-Identifier: MIT
 *
 * GGUF (ggml, docs/gguf.md): a header of settings and of tensors by name, type, dimensions from the innermost out and offset;
 * then the data, aligned. Versions 2 and 3 differ only in the byte order that 3 allows.
 */
#include "io/io_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 1 << 16, MAX_TENSORS = 1 << 20 };

/* ggml's numbers of types (gguf-py, gguf/constants.py, GGMLQuantizationType). */
static const struct {
    uint32_t type;
    ay_dtype dtype;
    ay_block block;
} types[] = {
    {0, AY_F32, AY_BLOCK_NONE},  {1, AY_F16, AY_BLOCK_NONE},  {30, AY_BF16, AY_BLOCK_NONE}, {28, AY_F64, AY_BLOCK_NONE},
    {24, AY_I8, AY_BLOCK_NONE},  {25, AY_I16, AY_BLOCK_NONE}, {26, AY_I32, AY_BLOCK_NONE},  {27, AY_I64, AY_BLOCK_NONE},
    {2, AY_F32, AY_BLOCK_Q4_0},  {3, AY_F32, AY_BLOCK_Q4_1},  {6, AY_F32, AY_BLOCK_Q5_0},   {7, AY_F32, AY_BLOCK_Q5_1},
    {8, AY_F32, AY_BLOCK_Q8_0},  {10, AY_F32, AY_BLOCK_Q2_K}, {11, AY_F32, AY_BLOCK_Q3_K},  {12, AY_F32, AY_BLOCK_Q4_K},
    {13, AY_F32, AY_BLOCK_Q5_K}, {14, AY_F32, AY_BLOCK_Q6_K},
};

/* Bytes of each kind of setting (GGUFValueType); 8 is text, 9 a list. */
static const uint8_t widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
enum { KIND_I32 = 5, KIND_U32 = 4, KIND_TEXT = 8, KIND_LIST = 9, KIND_I64 = 11, KINDS = sizeof widths };

/* "comfy.gguf.orig_shape.NAME", a list of integers: the shape of a tensor that was written as rows of 256 to be packed
 * (city96/ComfyUI-GGUF, tools/convert.py). */
typedef struct true_shape {
    const char *name;
    int rank;
    int64_t dim[AY_MAX_RANK];
} true_shape;

typedef struct gguf_reader {
    ay_ctx *cx;
    ay_safetensors *st;
    size_t at;
    uint64_t alignment;
    true_shape *shapes;
    int n_shapes;
} gguf_reader;

static alloy_status damaged(gguf_reader *r, const char *why) {
    return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: %s; the file is cut short or damaged, fetch it again", r->st->path, why);
}

static alloy_status take(gguf_reader *r, uint64_t n, const uint8_t **p) {
    if (n > r->st->map.size - r->at) return damaged(r, "its header ends in the middle");
    *p = r->st->map.data + r->at;
    r->at += n;
    return ALLOY_OK;
}

static alloy_status number(gguf_reader *r, int bytes, uint64_t *out) {
    const uint8_t *p = NULL;
    AY_TRY(take(r, (uint64_t)bytes, &p));
    *out = 0;
    memcpy(out, p, (size_t)bytes);
    return ALLOY_OK;
}

static alloy_status text(gguf_reader *r, const char **out) {
    uint64_t n = 0;
    const uint8_t *p = NULL;
    AY_TRY(number(r, 8, &n));
    AY_TRY(take(r, n, &p));
    if (n >= MAX_NAME || memchr(p, 0, (size_t)n)) return damaged(r, "a name in its header is none");
    *out = ay_strndup(r->st->arena, (const char *)p, (size_t)n);
    return *out ? ALLOY_OK : ay_nomem(r->cx);
}

/* ---- settings ---------------------------------------------------------------------------------------------------------- */

static alloy_status skip_list(gguf_reader *r, const char *key) {
    static const char shape[] = "comfy.gguf.orig_shape.";
    uint64_t kind = 0, n = 0, v = 0;
    const uint8_t *p = NULL;
    AY_TRY(number(r, 4, &kind));
    AY_TRY(number(r, 8, &n));
    if (kind >= KINDS || kind == KIND_LIST) return damaged(r, "a list in its header is of no known kind");
    if (strncmp(key, shape, sizeof shape - 1) == 0 && (kind == KIND_I32 || kind == KIND_U32 || kind == KIND_I64) && n <= AY_MAX_RANK) {
        true_shape *s = &r->shapes[r->n_shapes++];
        s->name = key + sizeof shape - 1;
        s->rank = (int)n;
        for (uint64_t i = 0; i < n; i++) {
            AY_TRY(number(r, widths[kind], &v));
            s->dim[i] = (int64_t)v;
        }
        return ALLOY_OK;
    }
    if (kind != KIND_TEXT) return n > r->st->map.size ? damaged(r, "a list in its header is longer than the file") : take(r, n * widths[kind], &p);
    for (uint64_t i = 0; i < n; i++) {
        AY_TRY(number(r, 8, &v));
        AY_TRY(take(r, v, &p));
    }
    return ALLOY_OK;
}

/* Keeps short texts as metadata; the alignment counts; the rest is skipped. */
static alloy_status read_setting(gguf_reader *r, size_t *kept) {
    const char *key = NULL;
    uint64_t kind = 0, v = 0;
    const uint8_t *p = NULL;
    AY_TRY(text(r, &key));
    AY_TRY(number(r, 4, &kind));
    if (kind >= KINDS) return damaged(r, "a setting in its header is of no known kind");
    if (kind == KIND_LIST) return skip_list(r, key);
    if (kind == KIND_TEXT) {
        AY_TRY(number(r, 8, &v));
        AY_TRY(take(r, v, &p));
        if (v > 1000 || memchr(p, 0, (size_t)v)) return ALLOY_OK;
        char *value = ay_strndup(r->st->arena, (const char *)p, (size_t)v);
        if (!value) return ay_nomem(r->cx);
        r->st->metadata[(*kept)++] = key;
        r->st->metadata[(*kept)++] = value;
        return ALLOY_OK;
    }
    AY_TRY(number(r, widths[kind], &v));
    if (strcmp(key, "general.alignment") != 0) return ALLOY_OK;
    if (kind != KIND_U32 || v == 0 || v > 1 << 20 || (v & (v - 1))) return damaged(r, "its general.alignment is no power of two");
    r->alignment = v;
    return ALLOY_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static alloy_status bad_tensor(gguf_reader *r, const char *name, const char *why) {
    char show[160];
    return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: tensor \"%s\": %s; the file is cut short or damaged, fetch it again", r->st->path,
                   ay_show(name, show, sizeof show), why);
}

static alloy_status read_tensor(gguf_reader *r, ay_st_tensor *t) {
    char show[160];
    uint64_t rank = 0, type = 0, v = 0;
    AY_TRY(text(r, &t->name));
    if (!*t->name) return damaged(r, "its header counts more tensors than it names");
    AY_TRY(number(r, 4, &rank));
    if (rank > AY_MAX_RANK) return bad_tensor(r, t->name, "it has more dimensions than there can be");
    t->type.rank = (int)rank;
    for (int i = (int)rank - 1; i >= 0; i--) {
        AY_TRY(number(r, 8, &v));
        t->type.dim[i] = (int64_t)v;
    }
    AY_TRY(number(r, 4, &type));
    AY_TRY(number(r, 8, &t->offset));
    size_t i = 0;
    while (i < sizeof types / sizeof types[0] && types[i].type != type) i++;
    if (i == sizeof types / sizeof types[0]) {
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED,
                       "%s: tensor \"%s\" is of ggml's type %llu; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K are read", r->st->path,
                       ay_show(t->name, show, sizeof show), (unsigned long long)type);
    }
    t->type.dtype = types[i].dtype;
    t->block = types[i].block;
    for (int d = 0; d < t->type.rank; d++) {
        if (t->type.dim[d] < 0) return bad_tensor(r, t->name, "it has a dimension that is none");
    }
    if (ay_type_count(&t->type) < 0) return bad_tensor(r, t->name, "it has more elements than 63 bits can count");
    if (t->block && (!t->type.rank || t->type.dim[t->type.rank - 1] % ay_block_elements(t->block))) {
        return bad_tensor(r, t->name, "its rows are not of whole blocks");
    }
    return ALLOY_OK;
}

/* Its place in the file, now that it is known where the data begins. */
static alloy_status place_tensor(gguf_reader *r, ay_st_tensor *t, uint64_t base) {
    int64_t n = ay_type_count(&t->type);
    t->bytes = t->block ? (size_t)(n / ay_block_elements(t->block)) * (size_t)ay_block_bytes(t->block) : ay_dtype_bytes(t->type.dtype, n);
    if (t->offset % r->alignment) return bad_tensor(r, t->name, "its data is not aligned");
    uint64_t room = r->st->map.size - base;
    if (t->offset > room || t->bytes > room - t->offset) return bad_tensor(r, t->name, "its data ends behind the end of the file");
    t->offset += base;
    return ALLOY_OK;
}

static int by_offset(const void *pa, const void *pb) {
    const ay_st_tensor *a = pa, *b = pb;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->bytes != b->bytes ? (a->bytes < b->bytes ? -1 : 1) : strcmp(a->name, b->name);
}

static alloy_status check_overlap(gguf_reader *r) {
    char show[160], show2[160];
    ay_st_tensor *t = r->st->tensors;
    if (r->st->n) qsort(t, (size_t)r->st->n, sizeof *t, by_offset);
    for (int i = 1; i < r->st->n; i++) {
        if (t[i].offset >= t[i - 1].offset + t[i - 1].bytes) continue;
        return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: tensors \"%s\" and \"%s\" overlap; the file is damaged", r->st->path,
                       ay_show(t[i - 1].name, show, sizeof show), ay_show(t[i].name, show2, sizeof show2));
    }
    return ALLOY_OK;
}

static int by_shape_name(const void *a, const void *b) { return strcmp(((const true_shape *)a)->name, ((const true_shape *)b)->name); }

static alloy_status set_true_shape(gguf_reader *r, ay_st_tensor *t) {
    true_shape key = {.name = t->name}, *s = r->n_shapes ? bsearch(&key, r->shapes, (size_t)r->n_shapes, sizeof key, by_shape_name) : NULL;
    ay_type type = {.dtype = t->type.dtype};
    if (!s) return ALLOY_OK;
    type.rank = s->rank;
    memcpy(type.dim, s->dim, sizeof s->dim);
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] < 0) return bad_tensor(r, t->name, "its comfy.gguf.orig_shape has a negative number");
    }
    if (ay_type_count(&type) != ay_type_count(&t->type)) return bad_tensor(r, t->name, "its comfy.gguf.orig_shape has another number of elements");
    t->type = type;
    return ALLOY_OK;
}

static alloy_status read_all(gguf_reader *r, uint64_t tensors, uint64_t settings) {
    ay_safetensors *st = r->st;
    size_t kept = 0;
    st->metadata = ay_alloc(st->arena, ((size_t)settings * 2 + 1) * sizeof *st->metadata);
    st->tensors = ay_alloc(st->arena, ((size_t)tensors + 1) * sizeof *st->tensors);
    r->shapes = ay_alloc(st->arena, ((size_t)settings + 1) * sizeof *r->shapes);
    if (!st->metadata || !st->tensors || !r->shapes) return ay_nomem(r->cx);
    for (uint64_t i = 0; i < settings; i++) AY_TRY(read_setting(r, &kept));
    qsort(r->shapes, (size_t)r->n_shapes, sizeof *r->shapes, by_shape_name);
    for (uint64_t i = 0; i < tensors; i++) {
        AY_TRY(read_tensor(r, &st->tensors[st->n]));
        st->n++;
    }
    uint64_t base = (r->at + r->alignment - 1) / r->alignment * r->alignment;
    if (base > st->map.size) {
        if (tensors) return damaged(r, "its data is missing");
        base = st->map.size;
    }
    st->header_bytes = r->at;
    for (int i = 0; i < st->n; i++) {
        AY_TRY(place_tensor(r, &st->tensors[i], base));
        AY_TRY(set_true_shape(r, &st->tensors[i]));
    }
    AY_TRY(check_overlap(r));
    return ay_tensors_sort(r->cx, st);
}

static alloy_status parse(ay_ctx *cx, ay_safetensors *st) {
    gguf_reader r = {.cx = cx, .st = st, .alignment = 32};
    const uint8_t *magic = NULL;
    uint64_t version = 0, tensors = 0, settings = 0;
    AY_TRY(take(&r, 4, &magic));
    if (memcmp(magic, "GGUF", 4) != 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: does not begin with \"GGUF\"; it is no GGUF file", st->path);
    AY_TRY(number(&r, 4, &version));
    if (version >> 16) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: was written by a big-endian machine, which is not read", st->path);
    if (version != 2 && version != 3) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: is of GGUF version %llu; 2 and 3 are read", st->path, (unsigned long long)version);
    }
    AY_TRY(number(&r, 8, &tensors));
    AY_TRY(number(&r, 8, &settings));
    /* the shortest tensor's entry has 24 bytes, the shortest setting 13 */
    if (tensors > MAX_TENSORS || tensors > st->map.size / 24) return damaged(&r, "its header counts more tensors than fit into the file");
    if (settings > MAX_TENSORS || settings > st->map.size / 13) return damaged(&r, "its header counts more settings than fit into the file");
    return read_all(&r, tensors, settings);
}

alloy_status ay_gguf_open(ay_ctx *cx, const char *path, ay_safetensors **out) {
    ay_map map;
    *out = NULL;
    AY_TRY(ay_map_open(cx, path, &map));
    return ay_tensors_over(cx, path, "gguf", map, false, parse, out);
}

alloy_status ay_gguf_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out) {
    return ay_tensors_over(cx, what, "gguf", (ay_map){bytes, n}, true, parse, out);
}
