/* SPDX-License-Identifier: MIT
 *
 * Opening a package: Manifest.json says which file is the model, the model message is unpacked, the weight file is mapped.
 * Nothing here trusts the package: paths may not leave it, not through links either, and every size is the file's own.
 * The manifest's form: coremltools' modelpackage/src/ModelPackage.cpp.
 */
#include "coreml/package.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char weights_file[] = "weight.bin";

/* ---- manifest ---------------------------------------------------------------------------------------------------- */

/** Relative, of plain components, so that it cannot point outside. */
static bool path_stays_inside(const char *p) {
    if (!*p || *p == '/' || strlen(p) > 1000) return false;
    for (const char *c = p; *c;) {
        size_t n = strcspn(c, "/");
        if (n == 0 || (n == 1 && c[0] == '.') || (n == 2 && c[0] == '.' && c[1] == '.')) return false;
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)c[i] < 32 || c[i] == '\\') return false;
        c += n;
        if (*c == '/' && !*++c) return false;
    }
    return true;
}

static alloy_status manifest_items(ay_ctx *cx, const char *path, json_t *root, ay_arena *arena, const char **model,
                                   const char **weights) {
    const char *version = json_string_value(json_object_get(root, "fileFormatVersion"));
    if (!version || strcmp(version, "1.0.0") != 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s/Manifest.json: fileFormatVersion is %.40s, only 1.0.0 is known", path,
                       version ? version : "missing");
    json_t *items = json_object_get(root, "itemInfoEntries");
    const char *root_id = json_string_value(json_object_get(root, "rootModelIdentifier"));
    if (!json_is_object(items) || !root_id)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s/Manifest.json: needs an object itemInfoEntries and a string rootModelIdentifier", path);
    *model = *weights = NULL;
    const char *id;
    json_t *item;
    json_object_foreach(items, id, item) {
        static const char *const keys[] = {"path", "name", "author", "description"};
        for (int i = 0; i < 4; i++)
            if (!json_is_string(json_object_get(item, keys[i])))
                return ay_fail(cx, ALLOY_E_FORMAT, "%s/Manifest.json: item %.60s has no string \"%s\"", path, id, keys[i]);
        const char *where = json_string_value(json_object_get(item, "path"));
        if (!path_stays_inside(where))
            return ay_fail(cx, ALLOY_E_FORMAT,
                           "%s/Manifest.json: item %.60s has the path \"%.200s\", which does not stay inside the package",
                           path, id, where);
        if (strcmp(id, root_id) == 0) *model = ay_strdup(arena, where);
        else if (strcmp(json_string_value(json_object_get(item, "name")), "weights") == 0)
            *weights = ay_strdup(arena, where);
    }
    if (!*model)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s/Manifest.json: rootModelIdentifier %.60s is not among the items", path,
                       root_id);
    return ay_arena_failed(arena) ? ay_nomem(cx) : ALLOY_OK;
}

alloy_status ay_manifest_parse(ay_ctx *cx, const char *path, const char *text, size_t size, ay_arena *arena,
                               const char **model, const char **weights) {
    json_error_t err;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &err);
    if (!root) return ay_fail(cx, ALLOY_E_FORMAT, "%s/Manifest.json, line %d: %s", path, err.line, err.text);
    alloy_status st = json_is_object(root) ? manifest_items(cx, path, root, arena, model, weights)
                                           : ay_fail(cx, ALLOY_E_FORMAT, "%s/Manifest.json is not a JSON object", path);
    json_decref(root);
    return st;
}

/* ---- the model message ------------------------------------------------------------------------------------------- */

static alloy_status check_model(ay_package *p) {
    const AyMil__Model *m = p->model;
    switch (m->type_case) {
    case AY_MIL__MODEL__TYPE_ML_PROGRAM: break;
    case AY_MIL__MODEL__TYPE_PIPELINE:
        return ay_fail(p->cx, ALLOY_E_UNSUPPORTED,
                       "%s is a pipeline of models; alloy opens single ML Programs: take its members one by one",
                       p->path);
    case AY_MIL__MODEL__TYPE_NEURAL_NETWORK:
        return ay_fail(p->cx, ALLOY_E_UNSUPPORTED,
                       "%s holds a neural network of the older kind; alloy opens ML Programs (spec version 6 and newer)",
                       p->path);
    default:
        return ay_fail(p->cx, ALLOY_E_UNSUPPORTED, "%s holds no ML Program, the only kind of model that alloy opens",
                       p->path);
    }
    if (m->specification_version < 6 || m->specification_version > 10)
        return ay_fail(p->cx, ALLOY_E_UNSUPPORTED, "%s: specification version %d, known are 6 to 10", p->path,
                       (int)m->specification_version);
    if (!m->description) return ay_fail(p->cx, ALLOY_E_FORMAT, "%s: the model has no description", p->path);
    if (!m->ml_program || m->ml_program->version != 1)
        return ay_fail(p->cx, ALLOY_E_UNSUPPORTED, "%s: the program's version is %lld, only 1 is known", p->path,
                       m->ml_program ? (long long)m->ml_program->version : 0LL);
    return ALLOY_OK;
}

alloy_status ay_package_from_bytes(ay_ctx *cx, const char *path, const uint8_t *spec, size_t spec_size,
                                   const uint8_t *weights, size_t weights_size, ay_package **out) {
    *out = NULL;
    ay_package *p = calloc(1, sizeof *p);
    if (!p) return ay_nomem(cx);
    p->cx = cx;
    p->arena = ay_arena_new();
    p->spec_size = spec_size;
    p->weights = weights;
    p->weights_size = weights_size;
    alloy_status st = ALLOY_OK;
    if (!p->arena || !(p->path = ay_strdup(p->arena, path))) st = ay_nomem(cx);
    if (!st) {
        errno = 0;
        p->model = ay_mil__model__unpack(NULL, spec_size, spec);
        if (!p->model && errno == ENOMEM) st = ay_nomem(cx);
        else if (!p->model)
            st = ay_fail(cx, ALLOY_E_FORMAT, "%s: the model file of %zu bytes is not a Core ML model, or is cut short",
                         path, spec_size);
    }
    if (!st) st = check_model(p);
    uint32_t count;
    if (!st && weights) st = ay_blob_header(cx, path, weights, weights_size, &count);
    if (!st) st = ay_package_info_fill(p);
    if (st) ay_package_close(&p);
    *out = p;
    return st;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/** The real path of PACKAGE/Data/`inner`, which must lie inside the package's real path; malloc'd. */
static alloy_status resolve(ay_ctx *cx, const char *package, const char *inner, char **out) {
    ay_arena *a = ay_arena_new();
    char *base = a ? realpath(package, NULL) : NULL;
    char *wanted = a ? ay_path_join(a, ay_path_join(a, package, "Data"), inner) : NULL;
    char *real = wanted ? realpath(wanted, NULL) : NULL;
    alloy_status st = ALLOY_OK;
    if (!a || !wanted || ay_arena_failed(a)) st = ay_nomem(cx);
    else if (!base) st = ay_fail(cx, ALLOY_E_IO, "%s: %s", package, strerror(errno));
    else if (!real) st = ay_fail(cx, ALLOY_E_IO, "%s: the manifest names %s: %s", package, inner, strerror(errno));
    else {
        size_t n = strlen(base);
        if (strncmp(real, base, n) != 0 || (n > 1 && real[n] != '/'))
            st = ay_fail(cx, ALLOY_E_FORMAT, "%s: Data/%s leads out of the package, to %s", package, inner, real);
    }
    free(base);
    ay_arena_free(a);
    if (st) free(real);
    *out = st ? NULL : real;
    return st;
}

static alloy_status map_inside(ay_ctx *cx, const char *package, const char *inner, ay_map *map) {
    char *real;
    AY_TRY(resolve(cx, package, inner, &real));
    alloy_status st = ay_map_open(cx, real, map);
    free(real);
    return st;
}

/** weights/weight.bin beside the model file, where "@model_path/weights/weight.bin" points; it may be absent. */
static alloy_status map_weights(ay_ctx *cx, ay_arena *a, const char *package, const char *model, const char *item,
                                ay_map *map) {
    const char *slash = strrchr(model, '/');
    char *beside =
        slash ? ay_path_join(a, ay_strndup(a, model, (size_t)(slash - model)), "weights") : ay_strdup(a, "weights");
    char *inner = ay_path_join(a, beside, weights_file);
    char *full = ay_path_join(a, ay_path_join(a, package, "Data"), inner);
    if (ay_arena_failed(a) || !full) return ay_nomem(cx);
    if (item && strcmp(item, beside) != 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: the manifest puts the weights into %s, expected %s beside the model",
                       package, item, beside);
    if (ay_path_kind_of(full) == AY_PATH_NONE) return ALLOY_OK;
    return map_inside(cx, package, inner, map);
}

alloy_status ay_package_open(ay_ctx *cx, const char *path, ay_package **out) {
    *out = NULL;
    ay_path_kind kind = ay_path_kind_of(path);
    if (kind == AY_PATH_NONE) return ay_fail(cx, ALLOY_E_IO, "%s: no such package", path);
    if (kind != AY_PATH_DIR) return ay_fail(cx, ALLOY_E_FORMAT, "%s is not a folder, as a .mlpackage is", path);
    ay_arena *a = ay_arena_new();
    ay_buf text = {0};
    ay_map spec = {0}, weights = {0};
    const char *model = NULL, *item = NULL;
    char *manifest = a ? ay_path_join(a, path, "Manifest.json") : NULL;
    alloy_status st = manifest ? ay_file_read(cx, manifest, 1 << 20, &text) : ay_nomem(cx);
    if (!st) st = ay_manifest_parse(cx, path, text.data ? text.data : "", text.len, a, &model, &item);
    if (!st) st = map_inside(cx, path, model, &spec);
    if (!st) st = map_weights(cx, a, path, model, item, &weights);
    if (!st) st = ay_package_from_bytes(cx, path, spec.data, spec.size, weights.data, weights.size, out);
    if (st) {
        ay_map_close(&spec);
        ay_map_close(&weights);
    } else {
        (*out)->spec_map = spec;
        (*out)->weight_map = weights;
    }
    ay_buf_free(&text);
    ay_arena_free(a);
    return st;
}

const void *ay_package_map(const ay_package *p, size_t *bytes) {
    *bytes = p->weight_map.size;
    return p->weight_map.data;
}

void ay_package_close(ay_package **pp) {
    ay_package *p = *pp;
    *pp = NULL;
    if (!p) return;
    if (p->model) ay_mil__model__free_unpacked(p->model, NULL);
    ay_map_close(&p->spec_map);
    ay_map_close(&p->weight_map);
    ay_arena_free(p->arena);
    free(p);
}

alloy_status ay_package_blob(ay_package *p, uint64_t offset, ay_dtype *dtype, const void **data, size_t *bytes) {
    if (!p->weights) return ay_fail(p->cx, ALLOY_E_FORMAT, "%s has no weights/weight.bin, which its program needs", p->path);
    ay_blob b;
    AY_TRY(ay_blob_read(p->cx, p->path, p->weights, p->weights_size, offset, &b));
    *dtype = b.dtype;
    *data = p->weights + b.offset;
    *bytes = (size_t)b.bytes;
    return ALLOY_OK;
}

alloy_status ay_package_weight_digest(ay_package *p, uint8_t digest[32]) {
    memset(digest, 0, 32);
    return p->weight_map.data ? ay_weight_file_digest(p->cx, &p->weight_map, digest) : ALLOY_OK;
}
