/* SPDX-License-Identifier: MIT
 *
 * Which files a source is, which of their tensors it looks at, and whether they are what the graph asks for.
 */
#include "source/lora.h"
#include "source/source_internal.h"

#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static alloy_status add_path(ay_ctx *cx, ay_source *s, const char *path) {
    ay_safetensors **more = realloc(s->files, (size_t)(s->n_files + 1) * sizeof *more);
    if (!more) return ay_nomem(cx);
    s->files = more;
    AY_TRY(ay_tensors_open(cx, path, &s->files[s->n_files]));
    s->n_files++;
    return ay_source_check_scaled(cx, s, s->files[s->n_files - 1]);
}

static alloy_status add_file(ay_ctx *cx, ay_source *s, const char *name) {
    char *path = ay_path_join(s->arena, s->dir, name);
    return path ? add_path(cx, s, path) : ay_nomem(cx);
}

static bool already_open(const ay_source *s, const char *name) {
    for (int i = 0; i < s->n_files; i++) {
        if (strcmp(ay_path_base(s->files[i]->path), name) == 0) return true;
    }
    return false;
}

static alloy_status open_shards(ay_ctx *cx, ay_source *s, const char *path, const json_t *index) {
    json_t *map = json_object_get(index, "weight_map");
    const char *ending = ends_with(path, ".bin.index.json") ? ".bin" : ".safetensors";
    if (!json_is_object(map) || json_object_size(map) == 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: has no \"weight_map\" object", path);
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        const char *shard = json_string_value(value);
        if (!shard) return ay_fail(cx, ALLOY_E_FORMAT, "%s: weight_map of \"%s\" is not a file name", path, tensor);
        if (strchr(shard, '/') || strchr(shard, '\\') || shard[0] == '.' || !ends_with(shard, ending)) {
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: weight_map of \"%s\" names \"%s\"; a shard must be a %s file in the same folder", path, tensor, shard,
                           ending);
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

static alloy_status open_index(ay_ctx *cx, ay_source *s, const char *name) {
    char *path = ay_path_join(s->arena, s->dir, name);
    json_t *j = NULL;
    if (!path) return ay_nomem(cx);
    AY_TRY(ay_json_read(cx, path, &j));
    alloy_status st = open_shards(cx, s, path, j);
    json_decref(j);
    return st;
}

/* Where there are no safetensors: what PyTorch wrote under its names, or one GGUF file of any name. */
static alloy_status open_other(ay_ctx *cx, ay_source *s, char *const *names, int n) {
    static const char *const pickles[] = {"pytorch_model.bin.index.json", "diffusion_pytorch_model.bin.index.json", "pytorch_model.bin",
                                          "diffusion_pytorch_model.bin"};
    const char *gguf = NULL;
    for (size_t k = 0; k < sizeof pickles / sizeof pickles[0]; k++) {
        for (int i = 0; i < n; i++) {
            if (strcmp(names[i], pickles[k]) == 0) return ends_with(names[i], ".json") ? open_index(cx, s, names[i]) : add_file(cx, s, names[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        if (!ends_with(names[i], ".gguf")) continue;
        if (gguf) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: both %s and %s could be the weights; leave one", s->dir, gguf, names[i]);
        gguf = names[i];
    }
    if (!gguf) return ay_fail(cx, ALLOY_E_IO, "%s: no .safetensors file is in this folder", s->dir);
    return add_file(cx, s, gguf);
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
    if (index) return open_index(cx, s, index);
    if (second) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: both %s and %s could be the weights; leave one", s->dir, single, second);
    return single ? add_file(cx, s, single) : open_other(cx, s, names, n);
}

static alloy_status open_file(ay_ctx *cx, ay_source *s) { return add_path(cx, s, s->dir); }

static alloy_status open_with(ay_ctx *cx, const char *path, alloy_status (*files)(ay_ctx *cx, ay_source *s), ay_source **out) {
    *out = NULL;
    ay_source *s = calloc(1, sizeof *s);
    if (!s) return ay_nomem(cx);
    s->arena = ay_arena_new();
    s->dir = s->arena ? ay_strdup(s->arena, path) : NULL;
    s->prefix = "";
    alloy_status st = s->dir ? files(cx, s) : ay_nomem(cx);
    if (st != ALLOY_OK) {
        ay_source_close(&s);
        return st;
    }
    *out = s;
    return ALLOY_OK;
}

alloy_status ay_source_open(ay_ctx *cx, const char *dir, ay_source **out) { return open_with(cx, dir, open_files, out); }
alloy_status ay_source_open_file(ay_ctx *cx, const char *path, ay_source **out) { return open_with(cx, path, open_file, out); }

void ay_source_close(ay_source **s) {
    if (!s || !*s) return;
    for (int i = 0; i < (*s)->n_files; i++) ay_st_close(&(*s)->files[i]);
    free((*s)->files);
    ay_arena_free((*s)->arena);
    free(*s);
    *s = NULL;
}

void ay_source_adapt(ay_source *s, const ay_lora_part *p) { s->lora = p; }

typedef struct sums {
    int64_t count, params;
    uint64_t bytes;
} sums;

static sums sum_tensors(const ay_source *s) {
    sums all = {0, 0, 0};
    size_t n = strlen(s->prefix);
    for (int i = 0; i < s->n_files; i++) {
        for (int k = 0; k < s->files[i]->n; k++) {
            const ay_st_tensor *t = &s->files[i]->tensors[k];
            if (strncmp(t->name, s->prefix, n) != 0) continue;
            all.count++;
            all.params += ay_type_count(&t->type);
            all.bytes += t->bytes;
        }
    }
    return all;
}

int64_t ay_source_count(const ay_source *s) { return sum_tensors(s).count; }
uint64_t ay_source_bytes(const ay_source *s) { return sum_tensors(s).bytes; }
int64_t ay_source_params(const ay_source *s) { return sum_tensors(s).params; }

void ay_source_hash(const ay_source *s, char hex[65]) {
    ay_sha256 h;
    ay_sha256_init(&h);
    for (int i = 0; i < s->n_files; i++) {
        const ay_safetensors *f = s->files[i];
        uint64_t size = f->map.size;
        const char *name = ay_path_base(f->path);
        ay_sha256_add(&h, name, strlen(name) + 1);
        ay_sha256_add(&h, &size, sizeof size);
        ay_sha256_add(&h, f->map.data + f->header_at, f->header_bytes);
    }
    if (s->lora) ay_sha256_add(&h, ay_lora_stamp(s->lora), 64);
    uint8_t digest[32];
    ay_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void ay_source_stamp(const ay_source *s, ay_buf *out) {
    for (int i = 0; i < s->n_files; i++) {
        ay_buf_printf(out, "%s ", s->files[i]->path);
        ay_path_stamp(s->files[i]->path, out);
        ay_buf_add(out, "\n", 1);
    }
}

/* ---- names --------------------------------------------------------------------------------------------------------- */

void ay_source_focus(ay_source *s, const char *prefix, bool flat, const ay_naming *naming, const void *cfg) {
    s->prefix = prefix;
    s->flat = flat;
    s->naming = naming;
    s->cfg = cfg;
}

void ay_source_choose(ay_source *s, const ay_arch *arch, const void *cfg) {
    ay_source_focus(s, "", false, NULL, NULL);
    ay_names names = ay_source_names(s);
    for (const ay_naming *n = arch->namings; n && n->name; n++) {
        if (!ay_naming_fits(n, &names)) continue;
        ay_source_focus(s, "", false, n, cfg);
        return;
    }
}

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

const ay_st_tensor *ay_source_tensor(const ay_source *s, const char *name, const ay_safetensors **file) {
    char text[512];
    if (!*s->prefix) return find_exact(s, name, file);
    size_t at = strlen(s->prefix), n = strlen(name);
    if (at + n >= sizeof text) return NULL;
    memcpy(text, s->prefix, at);
    for (size_t i = 0; i < n; i++) {
        if (!s->flat || name[i] != '.') text[at++] = name[i];
    }
    text[at] = 0;
    return find_exact(s, text, file);
}

static const ay_type *find_type(const ay_names *n, const char *name) {
    const ay_st_tensor *t = ay_source_tensor(n->user, name, NULL);
    return t ? &t->type : NULL;
}

ay_names ay_source_names(const ay_source *s) { return (ay_names){find_type, s}; }

void ay_source_leave(ay_source *s, const char *const *prefixes) { s->others = prefixes; }

/* Whether it is no business of the part that is looked at, or rightly unused there. */
static bool ignored(const ay_source *s, const ay_arch *arch, const char *name) {
    size_t n = strlen(s->prefix);
    if (strncmp(name, s->prefix, n) != 0 || ay_source_beside(name)) return true;
    for (const char *const *o = s->others; o && *o; o++) {
        if (strncmp(name, *o, strlen(*o)) == 0) return true;
    }
    const char *const *p = s->naming && s->naming->ignore ? s->naming->ignore : arch->ignore;
    for (; p && *p; p++) {
        if (ay_glob(*p, name + n)) return true;
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

typedef struct use {
    const ay_st_tensor *tensor;
    int64_t elements;
} use;

static int compare_uses(const void *a, const void *b) {
    const use *x = a, *y = b;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

/* One row for each tensor: the parameters made of it together. */
static size_t sum_uses(use *u, size_t n) {
    size_t at = 0;
    if (n) qsort(u, n, sizeof *u, compare_uses);
    for (size_t i = 0; i < n; i++) {
        if (at && u[at - 1].tensor == u[i].tensor) u[at - 1].elements += u[i].elements;
        else u[at++] = u[i];
    }
    return at;
}

static void check_param(const ay_node *n, const ay_origin *o, findings *f) {
    char found[160], wanted[160], both[400];
    ay_type_text(&o->found, found);
    ay_type_text(&n->type, wanted);
    snprintf(both, sizeof both, "found %s, expected %s", found, strchr(wanted, '['));
    if (o->scales && !o->fits) {
        snprintf(both, sizeof both, "found %s with %lld factors beside it, expected %s and one factor or one for each row", found,
                 (long long)o->n_scales, strchr(wanted, '['));
    }
    if (!o->fits) note(f, &f->misshapen, "wrong shape", n->name, both);
    else if (!ay_dtype_is_float(o->found.dtype)) note(f, &f->dtype, "wrong dtype", n->name, both);
}

static void find_unused(const ay_source *s, const ay_arch *arch, const use *uses, size_t n_uses, findings *f) {
    for (int i = 0; i < s->n_files; i++) {
        for (int k = 0; k < s->files[i]->n; k++) {
            const ay_st_tensor *t = &s->files[i]->tensors[k];
            use key = {t, 0};
            if (ignored(s, arch, t->name)) continue;
            const use *u = bsearch(&key, uses, n_uses, sizeof key, compare_uses);
            int64_t all = ay_type_count(&t->type);
            char found[160], text[256];
            if (u && u->elements >= all) continue;
            ay_type_text(&t->type, found);
            if (u) snprintf(text, sizeof text, "only %lld of the elements of %s", (long long)u->elements, found);
            note(f, &f->unused, u ? "used in part" : "unused", t->name, u ? text : found);
        }
    }
}

static alloy_status collect(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch, findings *f) {
    use *uses = calloc((size_t)g->n_nodes + 1, sizeof *uses);
    if (!uses) return ay_nomem(cx);
    size_t n_uses = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        ay_origin o;
        if (n->op != AY_OP_PARAM) continue;
        if (!ay_source_find(s, arch, n->name, &n->type, &o)) {
            note(f, &f->missing, "missing", n->name, "");
            continue;
        }
        check_param(n, &o, f);
        uses[n_uses++] = (use){o.tensor, o.fits ? ay_type_count(&n->type) : ay_type_count(&o.found)};
    }
    n_uses = sum_uses(uses, n_uses);
    find_unused(s, arch, uses, n_uses, f);
    free(uses);
    return ALLOY_OK;
}

alloy_status ay_source_check(ay_ctx *cx, const ay_source *s, const ay_graph *g, const ay_arch *arch) {
    findings f = {0};
    alloy_status st = collect(cx, s, g, arch, &f);
    if (st == ALLOY_OK && f.missing + f.misshapen + f.dtype + f.unused > 0) {
        st = ay_fail(cx, ALLOY_E_MISMATCH,
                     "%s: the tensors do not fit %s as its configuration describes it (%d missing, %d of another shape, %d of a dtype that "
                     "holds no weights, %d unused); check that config.json belongs to this checkpoint:%s",
                     s->dir, arch->class_name, f.missing, f.misshapen, f.dtype, f.unused, f.text.data ? f.text.data : "");
    }
    ay_buf_free(&f.text);
    return st;
}
