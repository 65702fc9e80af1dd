/* SPDX-License-Identifier: MIT
 *
 * Component folders: which files, which tensors, and whether they are what the graph asks for.
 */
#include "source/source.h"

#include "base/half.h"
#include "base/pool.h"
#include "base/sha256.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ay_source {
    ay_arena *arena;
    char *dir;
    ay_safetensors **files;
    int n_files;
};

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* "model.fp16.safetensors", "model.fp16.safetensors.index.json", "model.safetensors.index.fp16.json": something between the
 * name and its ending. */
static bool is_variant(const char *name) {
    const char *dot = strchr(name, '.');
    if (!dot) return false;
    if (strncmp(dot, ".safetensors", 12) != 0) return true;
    return dot[12] != 0 && strcmp(dot + 12, ".index.json") != 0;
}

static alloy_status add_file(ay_ctx *cx, ay_source *s, const char *name) {
    char *path = ay_path_join(s->arena, s->dir, name);
    if (!path) return ay_nomem(cx);
    ay_safetensors **more = realloc(s->files, (size_t)(s->n_files + 1) * sizeof *more);
    if (!more) return ay_nomem(cx);
    s->files = more;
    AY_TRY(ay_st_open(cx, path, &s->files[s->n_files]));
    s->n_files++;
    return ALLOY_OK;
}

static bool already_open(const ay_source *s, const char *name) {
    for (int i = 0; i < s->n_files; i++) {
        if (strcmp(ay_path_base(s->files[i]->path), name) == 0) return true;
    }
    return false;
}

static alloy_status open_shards(ay_ctx *cx, ay_source *s, const char *path, const json_t *index) {
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: has no \"weight_map\" object", path);
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *shard = json_string_value(value);
        if (!shard) return ay_fail(cx, ALLOY_E_FORMAT, "%s: weight_map of \"%s\" is not a file name", path, tensor);
        if (strchr(shard, '/') || strchr(shard, '\\') || shard[0] == '.' || !ends_with(shard, ".safetensors")) {
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: weight_map of \"%s\" names \"%s\"; a shard must be a .safetensors file in the same folder",
                           path, tensor, shard);
        }
        if (already_open(s, shard)) continue;
        char *file = ay_path_join(s->arena, s->dir, shard);
        if (!file) return ay_nomem(cx);
        if (ay_path_kind_of(file) == AY_PATH_NONE) {
            return ay_fail(cx, ALLOY_E_IO, "%s: missing, but %s says that \"%s\" is in it; download the checkpoint again", file,
                           ay_path_base(path), tensor);
        }
        AY_TRY(add_file(cx, s, shard));
    }
    json_object_foreach(map, tensor, value) {
        bool found = false;
        for (int i = 0; i < s->n_files && !found; i++) {
            found = strcmp(ay_path_base(s->files[i]->path), json_string_value(value)) == 0 && ay_st_find(s->files[i], tensor);
        }
        if (!found) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: says that \"%s\" is in %s, which does not have it", path, tensor, json_string_value(value));
    }
    return ALLOY_OK;
}

/* The names that save_pretrained writes; they win over a copy of the weights under another name in the same folder. */
static bool is_standard(const char *name) {
    return strcmp(name, "model.safetensors") == 0 || strcmp(name, "diffusion_pytorch_model.safetensors") == 0;
}

static alloy_status open_files(ay_ctx *cx, ay_source *s) {
    char **names;
    int n;
    AY_TRY(ay_list_dir(cx, s->arena, s->dir, &names, &n));
    const char *index = NULL, *single = NULL, *second = NULL;
    for (int pass = 0; pass < 2 && !index && !single; pass++) { /* plain names first, variants only where there are none */
        for (int i = 0; i < n; i++) {
            if (is_variant(names[i]) != (pass == 1)) continue;
            if (strstr(names[i], ".safetensors.index") && ends_with(names[i], ".json")) index = names[i];
            if (!ends_with(names[i], ".safetensors") || strstr(names[i], "-of-")) continue;
            if (single && is_standard(single)) continue;
            if (single && !is_standard(names[i])) second = names[i];
            else single = names[i];
        }
    }
    if (single && is_standard(single)) second = NULL;
    if (index) {
        char *path = ay_path_join(s->arena, s->dir, index);
        if (!path) return ay_nomem(cx);
        json_t *j = NULL;
        AY_TRY(ay_json_read(cx, path, &j));
        alloy_status st = open_shards(cx, s, path, j);
        json_decref(j);
        return st;
    }
    if (second) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: both %s and %s could be the weights; leave one", s->dir, single, second);
    if (!single) return ay_fail(cx, ALLOY_E_IO, "%s: no .safetensors file is in this folder", s->dir);
    return add_file(cx, s, single);
}

alloy_status ay_source_open(ay_ctx *cx, const char *dir, ay_source **out) {
    *out = NULL;
    ay_source *s = calloc(1, sizeof *s);
    if (!s) return ay_nomem(cx);
    s->arena = ay_arena_new();
    s->dir = s->arena ? ay_strdup(s->arena, dir) : NULL;
    alloy_status st = s->dir ? open_files(cx, s) : ay_nomem(cx);
    if (st != ALLOY_OK) {
        ay_source_close(&s);
        return st;
    }
    *out = s;
    return ALLOY_OK;
}

void ay_source_close(ay_source **s) {
    if (!s || !*s) return;
    for (int i = 0; i < (*s)->n_files; i++) ay_st_close(&(*s)->files[i]);
    free((*s)->files);
    ay_arena_free((*s)->arena);
    free(*s);
    *s = NULL;
}

uint64_t ay_source_bytes(const ay_source *s) {
    uint64_t sum = 0;
    for (int i = 0; i < s->n_files; i++) {
        for (int k = 0; k < s->files[i]->n; k++) sum += s->files[i]->tensors[k].bytes;
    }
    return sum;
}

int64_t ay_source_params(const ay_source *s) {
    int64_t sum = 0;
    for (int i = 0; i < s->n_files; i++) {
        for (int k = 0; k < s->files[i]->n; k++) sum += ay_type_count(&s->files[i]->tensors[k].type);
    }
    return sum;
}

void ay_source_hash(const ay_source *s, char hex[65]) {
    ay_sha256 h;
    ay_sha256_init(&h);
    for (int i = 0; i < s->n_files; i++) {
        const ay_safetensors *f = s->files[i];
        uint64_t size = f->map.size, header = 8;
        if (size >= 8) memcpy(&header, f->map.data, 8);
        const char *name = ay_path_base(f->path);
        ay_sha256_add(&h, name, strlen(name) + 1);
        ay_sha256_add(&h, &size, sizeof size);
        ay_sha256_add(&h, f->map.data, (size_t)(header <= size - 8 ? header + 8 : size));
    }
    uint8_t digest[32];
    ay_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

static const ay_st_tensor *find_exact(const ay_source *s, const char *name, const ay_safetensors **file) {
    for (int i = 0; i < s->n_files; i++) {
        const ay_st_tensor *t = ay_st_find(s->files[i], name);
        if (t) {
            if (file) *file = s->files[i];
            return t;
        }
    }
    return NULL;
}

/* `name` rewritten by one alias row into `text`; false if the row does not apply. */
static bool apply_alias(const ay_alias *a, const char *name, char *text, size_t cap) {
    size_t n = strlen(a->name), m = strlen(a->found);
    if (a->name[n - 1] != '*') {
        if (strcmp(a->name, name) != 0 || m >= cap) return false;
        memcpy(text, a->found, m + 1);
        return true;
    }
    if (strncmp(a->name, name, n - 1) != 0) return false;
    const char *rest = name + n - 1;
    if (m - 1 + strlen(rest) >= cap) return false;
    memcpy(text, a->found, m - 1);
    strcpy(text + m - 1, rest);
    return true;
}

const ay_st_tensor *ay_source_find(const ay_source *s, const ay_arch *arch, const char *name, const ay_safetensors **file) {
    const ay_st_tensor *t = find_exact(s, name, file);
    for (const ay_alias *a = arch->aliases; !t && a && a->name; a++) {
        char text[512];
        if (apply_alias(a, name, text, sizeof text)) t = find_exact(s, text, file);
    }
    return t;
}

/* Equal, but for trailing dimensions of one: a 1x1 convolution may stand where a linear layer is asked for. */
static bool same_shape(const ay_type *a, const ay_type *b) {
    int n = a->rank < b->rank ? a->rank : b->rank;
    for (int i = 0; i < n; i++) {
        if (a->dim[i] != b->dim[i]) return false;
    }
    for (int i = n; i < a->rank; i++) {
        if (a->dim[i] != 1) return false;
    }
    for (int i = n; i < b->rank; i++) {
        if (b->dim[i] != 1) return false;
    }
    return true;
}

static bool ignored(const ay_arch *arch, const char *name) {
    for (const char *const *p = arch->ignore; p && *p; p++) {
        if (ay_glob(*p, name)) return true;
    }
    return false;
}

typedef struct findings {
    ay_buf text;
    int missing, misshapen, dtype, unused;
} findings;

static void note(findings *f, int *count, const char *kind, const char *name, const char *more) {
    if (++*count <= 2000) ay_buf_printf(&f->text, "\n  %s: %s%s%s", kind, name, *more ? ": " : "", more);
}

static int compare_tensors(const void *a, const void *b) {
    const ay_st_tensor *const *x = a, *const *y = b;
    return *x < *y ? -1 : *x > *y;
}

static alloy_status collect(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch, findings *f) {
    const ay_st_tensor **used = calloc((size_t)g->n_nodes + 1, sizeof *used);
    if (!used) return ay_nomem(cx);
    size_t n_used = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        const ay_st_tensor *t = ay_source_find(s, arch, n->name, NULL);
        if (!t) {
            note(f, &f->missing, "missing", n->name, "");
            continue;
        }
        used[n_used++] = t;
        char found[160], wanted[160], both[400];
        ay_type_text(&t->type, found);
        ay_type_text(&n->type, wanted);
        snprintf(both, sizeof both, "found %s, expected %s", found, strchr(wanted, '['));
        if (!same_shape(&t->type, &n->type)) note(f, &f->misshapen, "wrong shape", n->name, both);
        else if (!ay_dtype_is_float(t->type.dtype)) note(f, &f->dtype, "wrong dtype", n->name, both);
    }
    qsort(used, n_used, sizeof *used, compare_tensors);
    for (int i = 0; i < s->n_files; i++) {
        for (int k = 0; k < s->files[i]->n; k++) {
            const ay_st_tensor *t = &s->files[i]->tensors[k];
            if (ignored(arch, t->name) || bsearch(&t, used, n_used, sizeof *used, compare_tensors)) continue;
            char found[160];
            note(f, &f->unused, "unused", t->name, ay_type_text(&t->type, found));
        }
    }
    free(used);
    return ALLOY_OK;
}

alloy_status ay_source_check(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch) {
    findings f = {0};
    alloy_status st = collect(cx, s, g, arch, &f);
    if (st == ALLOY_OK && f.missing + f.misshapen + f.dtype + f.unused > 0) {
        st = ay_fail(cx, ALLOY_E_MISMATCH,
                     "%s: the tensors do not fit %s as its config.json describes it (%d missing, %d of another shape, %d of a dtype that "
                     "holds no weights, %d unused); check that config.json belongs to this checkpoint:%s",
                     s->dir, arch->class_name, f.missing, f.misshapen, f.dtype, f.unused, f.text.data ? f.text.data : "");
    }
    ay_buf_free(&f.text);
    return st;
}

/* ---- numbers --------------------------------------------------------------------------------------------------------- */

enum { PIECE = 1 << 18 }; /* elements converted by one tile */

typedef struct convert_job {
    ay_dtype from, to;
    const uint8_t *in;
    uint8_t *out;
    int64_t begin, count; /* elements */
    float *scratch;       /* PIECE floats a thread */
    atomic_llong beyond;  /* index of a finite value that left half's range, or -1 */
} convert_job;

static void convert_tile(void *arg, int64_t tile, int thread) {
    convert_job *j = arg;
    int64_t at = tile * PIECE, n = ay_min_i64(PIECE, j->count - at);
    float *f = j->scratch + (size_t)thread * PIECE;
    ay_convert_to_f32(j->from, j->in, j->begin + at, n, f);
    ay_convert_from_f32(j->to, f, n, j->out + ay_dtype_bytes(j->to, at));
    if (j->to != AY_F16) return;
    float peak = 0;
    for (int64_t i = 0; i < n; i++) peak = fabsf(f[i]) > peak && isfinite(f[i]) ? fabsf(f[i]) : peak;
    if (peak < 65520.0f) return;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(f[i]) && fabsf(f[i]) >= 65520.0f) atomic_store(&j->beyond, j->begin + at + i);
    }
}

static alloy_status stream_converted(ay_ctx *cx, const ay_safetensors *file, const ay_st_tensor *t, ay_dtype dtype, ay_put_fn put, void *user,
                                     uint64_t *done) {
    int threads = ay_pool_threads(cx->pool);
    int64_t total = ay_type_count(&t->type), batch = (int64_t)PIECE * ay_min_i64(4 * threads, 32);
    convert_job j = {.from = t->type.dtype, .to = dtype, .in = ay_st_data(file, t), .beyond = -1};
    j.scratch = malloc((size_t)threads * PIECE * sizeof(float));
    j.out = malloc(ay_dtype_bytes(dtype, ay_min_i64(batch, total)) + 1);
    alloy_status st = j.scratch && j.out ? ALLOY_OK : ay_nomem(cx);
    for (int64_t at = 0; at < total && st == ALLOY_OK; at += batch) {
        j.begin = at;
        j.count = ay_min_i64(batch, total - at);
        ay_parallel(cx->pool, ay_div_up(j.count, PIECE), convert_tile, &j, &cx->stop);
        st = ay_check_stop(cx);
        long long beyond = atomic_load(&j.beyond);
        if (st == ALLOY_OK && beyond >= 0) {
            float v;
            ay_convert_to_f32(t->type.dtype, j.in, beyond, 1, &v);
            st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" has %g at element %lld, beyond float16's 65504; convert with --quantization float32",
                         file->path, t->name, (double)v, beyond);
        }
        if (st == ALLOY_OK) st = put(user, j.out, ay_dtype_bytes(dtype, j.count));
        size_t from = ay_dtype_bytes(t->type.dtype, at), bytes = ay_dtype_bytes(t->type.dtype, j.count);
        ay_map_drop(&file->map, t->offset + from, bytes);
        if (done) *done += bytes;
    }
    free(j.scratch);
    free(j.out);
    return st;
}

alloy_status ay_source_stream(ay_ctx *cx, const ay_source *s, const ay_arch *arch, const char *name, ay_dtype dtype, ay_put_fn put, void *user,
                              uint64_t *done) {
    const ay_safetensors *file = NULL;
    const ay_st_tensor *t = ay_source_find(s, arch, name, &file);
    if (!t) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: no tensor \"%s\"", s->dir, name);
    if (t->type.dtype != dtype) return stream_converted(cx, file, t, dtype, put, user, done);
    const size_t step = (size_t)16 << 20;
    for (size_t at = 0; at < t->bytes; at += step) {
        size_t n = t->bytes - at < step ? t->bytes - at : step;
        AY_TRY(put(user, (const uint8_t *)ay_st_data(file, t) + at, n));
        ay_map_drop(&file->map, t->offset + at, n);
        if (done) *done += n;
        AY_TRY(ay_check_stop(cx));
    }
    return ALLOY_OK;
}
