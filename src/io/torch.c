/* SPDX-License-Identifier: MIT
 *
 * What torch.save writes (pytorch, torch/serialization.py; torch/_utils.py for what its pickles call): a zip archive with
 * NAME/data.pkl and one member NAME/data/KEY for each storage, or, before version 1.6, five pickles and the storages behind
 * them. Storages are used where they lie in the file; a tensor is an offset, sizes and strides over one, and several may
 * share it.
 */
#include "io/io_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PICKLE = 64 << 20 };

enum { STORAGE = 1, TENSOR }; /* tags: i is the storage's number; p the tensor */

/* What may stand behind a name of a pickle. */
enum { CALL_TENSOR, CALL_TENSOR_DTYPE, CALL_PARAMETER, CALL_DICT, CALL_SIZE, IS_STORAGE, IS_DTYPE };

static const struct {
    const char *module, *name;
    int what;
    ay_dtype dtype; /* of a storage or a dtype; AY_NONE: bytes */
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", CALL_TENSOR, AY_NONE},
    {"torch._utils", "_rebuild_tensor", CALL_TENSOR, AY_NONE},
    {"torch._utils", "_rebuild_tensor_v3", CALL_TENSOR_DTYPE, AY_NONE},
    {"torch._utils", "_rebuild_parameter", CALL_PARAMETER, AY_NONE},
    {"collections", "OrderedDict", CALL_DICT, AY_NONE},
    {"torch", "Size", CALL_SIZE, AY_NONE},
    {"torch", "DoubleStorage", IS_STORAGE, AY_F64},
    {"torch", "FloatStorage", IS_STORAGE, AY_F32},
    {"torch", "HalfStorage", IS_STORAGE, AY_F16},
    {"torch", "BFloat16Storage", IS_STORAGE, AY_BF16},
    {"torch", "LongStorage", IS_STORAGE, AY_I64},
    {"torch", "IntStorage", IS_STORAGE, AY_I32},
    {"torch", "ShortStorage", IS_STORAGE, AY_I16},
    {"torch", "CharStorage", IS_STORAGE, AY_I8},
    {"torch", "ByteStorage", IS_STORAGE, AY_U8},
    {"torch", "BoolStorage", IS_STORAGE, AY_BOOL},
    {"torch.storage", "UntypedStorage", IS_STORAGE, AY_NONE},
    {"torch", "float64", IS_DTYPE, AY_F64},
    {"torch", "float32", IS_DTYPE, AY_F32},
    {"torch", "float16", IS_DTYPE, AY_F16},
    {"torch", "bfloat16", IS_DTYPE, AY_BF16},
    {"torch", "float8_e4m3fn", IS_DTYPE, AY_F8E4M3},
    {"torch", "float8_e5m2", IS_DTYPE, AY_F8E5M2},
    {"torch", "int64", IS_DTYPE, AY_I64},
    {"torch", "int32", IS_DTYPE, AY_I32},
    {"torch", "int16", IS_DTYPE, AY_I16},
    {"torch", "int8", IS_DTYPE, AY_I8},
    {"torch", "uint8", IS_DTYPE, AY_U8},
    {"torch", "uint16", IS_DTYPE, AY_U16},
    {"torch", "uint32", IS_DTYPE, AY_U32},
    {"torch", "uint64", IS_DTYPE, AY_U64},
    {"torch", "bool", IS_DTYPE, AY_BOOL},
};

typedef struct storage {
    const char *key;
    ay_dtype dtype; /* AY_NONE: bytes */
    uint64_t bytes; /* as the pickle says */
    bool placed;
    uint64_t offset, there; /* in the file; how many bytes are there */
} storage;

typedef struct tensor {
    int storage;
    ay_type type;
    uint64_t first; /* element of the storage */
    int64_t stride[AY_MAX_RANK];
} tensor;

typedef struct torch_reader {
    ay_ctx *cx;
    ay_safetensors *st;
    storage *storages;
    int n_storages, cap_storages;
} torch_reader;

static alloy_status damaged(torch_reader *r, const char *why) {
    return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: %s; the file is damaged, fetch it again", r->st->path, why);
}

/* ---- what the pickle refers to ----------------------------------------------------------------------------------------- */

static int find_global(void *user, const char *module, const char *name) {
    if (strcmp(module, "torch.cuda") == 0) module = "torch"; /* storages of a device */
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        if (strcmp(globals[i].module, module) == 0 && strcmp(globals[i].name, name) == 0) return (int)i;
    }
    return -1;
}

/* ('storage', torch.FloatStorage, '12', 'cpu', elements[, view]) */
static alloy_status find_storage(void *user, const ay_pickle *id, ay_pickle *out) {
    torch_reader *r = user;
    const ay_pickle *v = id->kind == AY_PICKLE_TUPLE && id->u.list->n >= 5 ? id->u.list->items : NULL;
    if (!v || !ay_pickle_is(&v[0], "storage") || v[1].kind != AY_PICKLE_GLOBAL || globals[v[1].u.i].what != IS_STORAGE ||
        v[2].kind != AY_PICKLE_TEXT || v[4].kind != AY_PICKLE_INT || v[4].u.i < 0) {
        return damaged(r, "its pickle refers to what is no storage");
    }
    if (id->u.list->n > 5 && v[5].kind != AY_PICKLE_NONE) return damaged(r, "a storage that is a view of another, a form of torch 0.1");
    ay_dtype dtype = globals[v[1].u.i].dtype;
    if (r->n_storages == r->cap_storages) {
        int cap = r->cap_storages ? 2 * r->cap_storages : 256;
        storage *more = ay_alloc(r->st->arena, (size_t)cap * sizeof *more);
        if (!more) return ay_nomem(r->cx);
        if (r->n_storages) memcpy(more, r->storages, (size_t)r->n_storages * sizeof *more);
        r->storages = more;
        r->cap_storages = cap;
    }
    char *key = ay_strndup(r->st->arena, v[2].u.s.text, v[2].u.s.n);
    if (!key) return ay_nomem(r->cx);
    uint64_t width = dtype == AY_NONE ? 1 : (uint64_t)ay_dtype_bits(dtype) / 8;
    if ((uint64_t)v[4].u.i > (uint64_t)INT64_MAX / width) return damaged(r, "a storage of more bytes than there can be");
    r->storages[r->n_storages] = (storage){.key = key, .dtype = dtype, .bytes = (uint64_t)v[4].u.i * width};
    *out = (ay_pickle){.kind = AY_PICKLE_OBJECT, .tag = STORAGE, .u.i = r->n_storages++};
    return ALLOY_OK;
}

static alloy_status read_numbers(torch_reader *r, const ay_pickle *v, int64_t *out, int *n) {
    char text[64];
    if (v->kind != AY_PICKLE_TUPLE && v->kind != AY_PICKLE_LIST) return damaged(r, "a tensor's size is no list of numbers");
    if (v->u.list->n > AY_MAX_RANK) {
        snprintf(text, sizeof text, "%lld", (long long)v->u.list->n);
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: a tensor has %s dimensions; at most %d are supported", r->st->path, text, AY_MAX_RANK);
    }
    *n = (int)v->u.list->n;
    for (int i = 0; i < *n; i++) {
        if (v->u.list->items[i].kind != AY_PICKLE_INT || v->u.list->items[i].u.i < 0) return damaged(r, "a tensor's size is no list of numbers");
        out[i] = v->u.list->items[i].u.i;
    }
    return ALLOY_OK;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]); v3 has the dtype behind the hooks */
static alloy_status make_tensor(torch_reader *r, const ay_pickle_list *a, bool typed, ay_pickle *out) {
    int rank = 0, strides = 0;
    if (a->n < (typed ? 7 : 4) || a->items[0].tag != STORAGE || a->items[1].kind != AY_PICKLE_INT || a->items[1].u.i < 0) {
        return damaged(r, "a tensor that is not made of a storage");
    }
    tensor *t = ay_alloc(r->st->arena, sizeof *t);
    if (!t) return ay_nomem(r->cx);
    t->storage = (int)a->items[0].u.i;
    t->first = (uint64_t)a->items[1].u.i;
    t->type.dtype = r->storages[t->storage].dtype;
    if (typed) {
        const ay_pickle *d = &a->items[6];
        if (d->kind != AY_PICKLE_GLOBAL || globals[d->u.i].what != IS_DTYPE) return damaged(r, "a tensor whose dtype is none");
        t->type.dtype = globals[d->u.i].dtype;
    }
    if (t->type.dtype == AY_NONE) return damaged(r, "a tensor of bytes without a dtype");
    AY_TRY(read_numbers(r, &a->items[2], t->type.dim, &rank));
    AY_TRY(read_numbers(r, &a->items[3], t->stride, &strides));
    if (rank != strides) return damaged(r, "a tensor has more sizes than strides, or fewer");
    t->type.rank = rank;
    if (ay_type_count(&t->type) < 0) return damaged(r, "a tensor with more elements than 63 bits can count");
    *out = (ay_pickle){.kind = AY_PICKLE_OBJECT, .tag = TENSOR, .u.p = t};
    return ALLOY_OK;
}

static alloy_status call(void *user, int global, const ay_pickle_list *a, ay_pickle *out) {
    torch_reader *r = user;
    switch (globals[global].what) {
    case CALL_TENSOR: return make_tensor(r, a, false, out);
    case CALL_TENSOR_DTYPE: return make_tensor(r, a, true, out);
    case CALL_PARAMETER:
        if (a->n < 1 || a->items[0].tag != TENSOR) return damaged(r, "a parameter that is no tensor");
        *out = a->items[0];
        return ALLOY_OK;
    case CALL_DICT:
        if (a->n != 0) return damaged(r, "an OrderedDict that is not begun empty");
        *out = (ay_pickle){.kind = AY_PICKLE_DICT, .u.list = NULL}; /* the machine makes a new one */
        return ALLOY_OK;
    case CALL_SIZE:
        if (a->n != 1 || a->items[0].kind != AY_PICKLE_TUPLE) return damaged(r, "a torch.Size of no numbers");
        *out = a->items[0];
        return ALLOY_OK;
    default: return damaged(r, "it calls a type");
    }
}

/* ---- the tensors -------------------------------------------------------------------------------------------------------------- */

/* The dictionary with the tensors: the pickle's own, or the one it has under "state_dict", or its only value. */
static const ay_pickle *state_dict(const ay_pickle *root) {
    for (int depth = 0; root->kind == AY_PICKLE_DICT && depth < 4; depth++) {
        const ay_pickle_list *l = root->u.list;
        const ay_pickle *inner = NULL;
        for (int64_t i = 0; i + 1 < l->n; i += 2) {
            if (ay_pickle_is(&l->items[i], "state_dict") && l->items[i + 1].kind == AY_PICKLE_DICT) inner = &l->items[i + 1];
        }
        if (!inner && l->n == 2 && l->items[1].kind == AY_PICKLE_DICT) inner = &l->items[1];
        if (!inner) return root;
        root = inner;
    }
    return root->kind == AY_PICKLE_DICT ? root : NULL;
}

static alloy_status bad_tensor(torch_reader *r, const char *name, const char *why) {
    char show[160];
    return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: tensor \"%s\": %s; the file is cut short or damaged, fetch it again", r->st->path,
                   ay_show(name, show, sizeof show), why);
}

/* The place of a tensor in the file, checked to its last element. */
static alloy_status place_tensor(torch_reader *r, const tensor *t, ay_st_tensor *out) {
    const storage *s = &r->storages[t->storage];
    uint64_t width = (uint64_t)ay_dtype_bits(t->type.dtype) / 8, last = t->first;
    int64_t count = ay_type_count(&t->type), step = 1;
    bool dense = true;
    for (int i = t->type.rank - 1; i >= 0; i--) {
        uint64_t more;
        dense &= t->type.dim[i] == 1 || t->stride[i] == step;
        step *= t->type.dim[i];
        if (count == 0) continue;
        if (__builtin_mul_overflow((uint64_t)(t->type.dim[i] - 1), (uint64_t)t->stride[i], &more) || __builtin_add_overflow(last, more, &last)) {
            return bad_tensor(r, out->name, "its strides lead out of any file");
        }
    }
    out->type = t->type;
    out->offset = s->offset;
    out->bytes = 0;
    if (count == 0) return ALLOY_OK;
    if (s->there < s->bytes) return bad_tensor(r, out->name, "its storage is not whole");
    if (last >= s->bytes / width) return bad_tensor(r, out->name, "it reaches beyond its storage");
    out->offset = s->offset + t->first * width;
    out->bytes = (size_t)((last - t->first + 1) * width);
    if (dense) return ALLOY_OK;
    int64_t *stride = ay_alloc(r->st->arena, sizeof t->stride);
    if (!stride) return ay_nomem(r->cx);
    memcpy(stride, t->stride, sizeof t->stride);
    out->stride = stride;
    return ALLOY_OK;
}

static alloy_status take_tensors(torch_reader *r, const ay_pickle *root) {
    ay_safetensors *st = r->st;
    const ay_pickle *dict = state_dict(root);
    if (!dict) return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: holds no dictionary of tensors", st->path);
    const ay_pickle_list *l = dict->u.list;
    st->tensors = ay_alloc(st->arena, ((size_t)l->n / 2 + 1) * sizeof *st->tensors);
    st->metadata = ay_alloc(st->arena, sizeof *st->metadata);
    if (!st->tensors || !st->metadata) return ay_nomem(r->cx);
    for (int64_t i = 0; i + 1 < l->n; i += 2) {
        const ay_pickle *key = &l->items[i];
        if (key->kind != AY_PICKLE_TEXT || l->items[i + 1].tag != TENSOR) continue; /* numbers of steps and the like */
        ay_st_tensor *t = &st->tensors[st->n];
        t->name = ay_strndup(st->arena, key->u.s.text, key->u.s.n);
        if (!t->name) return ay_nomem(r->cx);
        AY_TRY(place_tensor(r, l->items[i + 1].u.p, t));
        st->n++;
    }
    if (!st->n) return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: holds no dictionary of tensors", st->path);
    return ay_tensors_sort(r->cx, st);
}

/* ---- the zip form --------------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) { return strcmp(((const ay_zip_member *)a)->name, ((const ay_zip_member *)b)->name); }

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static alloy_status place_storages(torch_reader *r, ay_zip *z, const char *dir) {
    char show[160];
    qsort(z->members, (size_t)z->n, sizeof *z->members, by_name);
    for (int i = 0; i < r->n_storages; i++) {
        storage *s = &r->storages[i];
        ay_zip_member key = {.name = ay_sprintf(r->st->arena, "%sdata/%s", dir, s->key)};
        if (!key.name) return ay_nomem(r->cx);
        const ay_zip_member *m = bsearch(&key, z->members, (size_t)z->n, sizeof key, by_name);
        if (!m) continue; /* there = 0: an error only for who uses it */
        if (m->method != 0) {
            return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: its member \"%s\" is compressed, which torch.save does not do; save it again with torch",
                           r->st->path, ay_show(m->name, show, sizeof show));
        }
        s->offset = m->offset;
        s->there = m->bytes;
    }
    return ALLOY_OK;
}

static alloy_status read_zip(torch_reader *r) {
    ay_safetensors *st = r->st;
    ay_zip z = {NULL, 0, 0};
    AY_TRY(ay_zip_read(r->cx, st->path, st->map.data, st->map.size, st->arena, &z));
    const ay_zip_member *pickle = NULL;
    for (int i = 0; i < z.n && !pickle; i++) {
        if (ends_with(z.members[i].name, "/data.pkl")) pickle = &z.members[i];
    }
    if (!pickle) {
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: is a zip archive, but not one of torch.save's (no data.pkl in it)", st->path);
    }
    char *dir = ay_strndup(st->arena, pickle->name, strlen(pickle->name) - strlen("data.pkl"));
    char *order = dir ? ay_sprintf(st->arena, "%sbyteorder", dir) : NULL, *script = dir ? ay_sprintf(st->arena, "%sconstants.pkl", dir) : NULL;
    if (!order || !script) return ay_nomem(r->cx);
    const ay_zip_member *byteorder = ay_zip_find(&z, order);
    if (ay_zip_find(&z, script)) {
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: is a TorchScript program, which is code; a checkpoint of tensors was expected", st->path);
    }
    if (byteorder && (byteorder->bytes != 6 || memcmp(st->map.data + byteorder->offset, "little", 6) != 0)) {
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: was written by a big-endian machine; save it again on a little-endian one", st->path);
    }
    if (pickle->method != 0) return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: its data.pkl is compressed, which torch.save does not do", st->path);
    if (pickle->bytes > MAX_PICKLE) return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "%s: its data.pkl has more than %d MB", st->path, MAX_PICKLE >> 20);
    ay_pickle_world world = {find_global, call, find_storage, r};
    ay_pickle root;
    size_t at = 0;
    st->header_at = z.list_at; /* with a checksum of every member */
    st->header_bytes = st->map.size - (size_t)z.list_at;
    AY_TRY(ay_pickle_read(r->cx, st->path, st->map.data + pickle->offset, (size_t)pickle->bytes, &at, st->arena, &world, &root));
    AY_TRY(place_storages(r, &z, dir));
    return take_tensors(r, &root);
}

/* ---- the form before it ------------------------------------------------------------------------------------------------------- */

static int by_key(const void *a, const void *b) { return strcmp((*(storage *const *)a)->key, (*(storage *const *)b)->key); }

/* The storages lie in the order of the list of keys, each behind the number of its elements. */
static alloy_status place_legacy(torch_reader *r, const ay_pickle *keys, size_t at) {
    const ay_map *m = &r->st->map;
    storage **sorted = ay_alloc(r->st->arena, (size_t)(r->n_storages + 1) * sizeof *sorted);
    if (!sorted) return ay_nomem(r->cx);
    for (int i = 0; i < r->n_storages; i++) sorted[i] = &r->storages[i];
    qsort(sorted, (size_t)r->n_storages, sizeof *sorted, by_key);
    if (keys->kind != AY_PICKLE_LIST) return damaged(r, "it has no list of its storages");
    for (int64_t i = 0; i < keys->u.list->n; i++) {
        const ay_pickle *k = &keys->u.list->items[i];
        storage wanted, *p = &wanted, **found;
        uint64_t n;
        if (k->kind != AY_PICKLE_TEXT) return damaged(r, "it has no list of its storages");
        wanted.key = ay_strndup(r->st->arena, k->u.s.text, k->u.s.n);
        if (!wanted.key) return ay_nomem(r->cx);
        found = bsearch(&p, sorted, (size_t)r->n_storages, sizeof p, by_key);
        if (!found || (*found)->placed || m->size - at < 8) return damaged(r, "the list of its storages does not fit what is there");
        memcpy(&n, m->data + at, 8);
        uint64_t width = (*found)->dtype == AY_NONE ? 1 : (uint64_t)ay_dtype_bits((*found)->dtype) / 8;
        at += 8;
        if (n > (m->size - at) / width) return damaged(r, "its storages end before their list does");
        while (found > sorted && strcmp(found[-1]->key, wanted.key) == 0) found--;
        for (; found < sorted + r->n_storages && strcmp((*found)->key, wanted.key) == 0; found++) {
            (*found)->placed = true;
            (*found)->offset = at;
            (*found)->there = n * width;
        }
        at += n * width;
    }
    return ALLOY_OK;
}

static alloy_status read_legacy(torch_reader *r) {
    static const uint8_t magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
    const ay_map *m = &r->st->map;
    ay_pickle_world world = {find_global, call, find_storage, r};
    ay_pickle v[4];
    size_t at = sizeof magic;
    if (m->size < at || memcmp(m->data, magic, at) != 0) {
        return ay_fail(r->cx, ALLOY_E_FORMAT, "%s: is no checkpoint that torch.save wrote: neither a zip archive nor what it wrote before version 1.6",
                       r->st->path);
    }
    /* protocol, about the machine, the object, the keys */
    for (int i = 0; i < 4; i++) AY_TRY(ay_pickle_read(r->cx, r->st->path, m->data, m->size, &at, r->st->arena, &world, &v[i]));
    if (v[0].kind != AY_PICKLE_INT || v[0].u.i != 1001) return damaged(r, "its protocol is not 1001");
    const ay_pickle_list *sys = v[1].kind == AY_PICKLE_DICT ? v[1].u.list : NULL;
    for (int64_t i = 0; sys && i + 1 < sys->n; i += 2) {
        if (ay_pickle_is(&sys->items[i], "little_endian") && sys->items[i + 1].u.i == 0) return damaged(r, "it was written by a big-endian machine");
    }
    r->st->header_bytes = at;
    AY_TRY(place_legacy(r, &v[3], at));
    return take_tensors(r, &v[2]);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------- */

static alloy_status parse(ay_ctx *cx, ay_safetensors *st) {
    torch_reader r = {.cx = cx, .st = st};
    if (st->map.size >= 4 && memcmp(st->map.data, "PK\3\4", 4) == 0) return read_zip(&r);
    return read_legacy(&r);
}

alloy_status ay_torch_open(ay_ctx *cx, const char *path, ay_safetensors **out) {
    ay_map map;
    *out = NULL;
    AY_TRY(ay_map_open(cx, path, &map));
    return ay_tensors_over(cx, path, "pytorch", map, false, parse, out);
}

alloy_status ay_torch_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out) {
    return ay_tensors_over(cx, what, "pytorch", (ay_map){bytes, n}, true, parse, out);
}
