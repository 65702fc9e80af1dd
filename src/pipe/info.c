/* SPDX-License-Identifier: MIT
 *
 * What a path is: a picture, a safetensors file, a checkpoint folder, a package or a model folder, told as JSON.
 */
#include "pipe/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *shape_json(const ay_type *t) {
    json_t *a = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(a, json_integer(t->dim[i]));
    return a;
}

static json_t *tensors_json(const ay_tensor *t, int n) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(a, json_pack("{s:o, s:s, s:o}", "name", ay_json_text(t[i].name), "dtype", ay_dtype_name(t[i].type.dtype), "shape",
                                           shape_json(&t[i].type)));
    }
    return a;
}

/* Adds to the number under `key`. */
static void count(json_t *obj, const char *key, int64_t more) {
    json_object_set_new(obj, key, json_integer(json_integer_value(json_object_get(obj, key)) + more));
}

/* ---- packages: parameters and bytes from the graph's PARAM and CONST leaves ---------------------------------------------- */

static void count_weight(json_t *bytes, json_t *kinds, int64_t *params, const ay_weight *w) {
    static const char *const stores[] = {"plain", "linear", "palette"};
    ay_type t = {.dtype = w->data_dtype, .rank = w->rank};
    memcpy(t.dim, w->dim, sizeof t.dim);
    *params += ay_type_count(&t);
    count(bytes, ay_dtype_name(w->data_dtype), (int64_t)ay_weight_data_bytes(w));
    if (w->store == AY_STORE_BLOCK) count(bytes, ay_dtype_name(w->scale_dtype), (int64_t)(ay_weight_scale_bytes(w) + ay_weight_offset_bytes(w)));
    if (w->store == AY_STORE_LUT) count(bytes, ay_dtype_name(w->lut_dtype), (int64_t)ay_weight_lut_bytes(w));
    char kind[64];
    snprintf(kind, sizeof kind, "%s %s", stores[w->store], ay_dtype_name(w->data_dtype));
    count(kinds, kind, 1);
}

static alloy_status package_json(ay_ctx *cx, const char *path, json_t **out) {
    ay_package *p = NULL;
    ay_graph *g = NULL;
    AY_TRY(ay_package_open(cx, path, &p));
    const ay_package_info *info = ay_package_describe(p);
    json_t *functions = json_array(), *bytes = json_object(), *kinds = json_object(), *metadata = json_object();
    for (int i = 0; i < info->n_functions; i++) {
        const ay_package_function *f = &info->functions[i];
        json_array_append_new(functions, json_pack("{s:o, s:o, s:o}", "name", ay_json_text(f->name), "inputs", tensors_json(f->inputs, f->n_inputs), "outputs",
                                                   tensors_json(f->outputs, f->n_outputs)));
    }
    for (const char *const *k = info->metadata; k && *k; k += 2) json_object_set_new(metadata, k[0], ay_json_text(k[1]));
    int64_t params = 0, ops = 0;
    alloy_status st = ay_package_graph(p, NULL, &g);
    for (int i = 0; st == ALLOY_OK && i < g->n_nodes; i++) {
        if (g->nodes[i].op == AY_OP_PARAM) count_weight(bytes, kinds, &params, g->nodes[i].weight);
        else if (g->nodes[i].op != AY_OP_INPUT && g->nodes[i].op != AY_OP_CONST) ops++;
    }
    *out = json_pack("{s:s, s:o, s:i, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "kind", "package", "path", ay_json_text(path),
                     "specification_version",
                     info->spec_version, "opset", info->opset ? info->opset : "", "description",
                     ay_json_text(info->description ? info->description : ""), "author", ay_json_text(info->author ? info->author : ""),
                     "functions", functions, "default_function", ay_json_text(info->default_function ? info->default_function : "main"), "parameters", (json_int_t)params, "ops", (json_int_t)ops,
                     "weight_bytes", (json_int_t)info->weight_bytes, "bytes_by_dtype", bytes, "weights", kinds, "metadata", metadata);
    ay_graph_free(g);
    ay_package_close(&p);
    if (st == ALLOY_OK && !*out) st = ay_nomem(cx);
    if (st != ALLOY_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return st;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------ */

static const char *stored_as(const ay_st_tensor *t) { return t->block ? ay_block_name(t->block) : ay_dtype_name(t->type.dtype); }

static void count_tensors(json_t *bytes, int64_t *params, const ay_safetensors *s) {
    for (int i = 0; i < s->n; i++) {
        *params += ay_type_count(&s->tensors[i].type);
        count(bytes, stored_as(&s->tensors[i]), (int64_t)s->tensors[i].bytes);
    }
}

/* What the file is as a checkpoint, where it is one: pipeline, type, components. */
static alloy_status add_single(ay_ctx *cx, const char *path, json_t *out) {
    ay_single s;
    alloy_status st = ay_single_open(cx, path, NULL, NULL, &s);
    if (st == ALLOY_OK) {
        json_t *parts = json_array();
        for (int i = 0; i < s.n; i++) {
            const ay_single_part *p = &s.parts[i];
            ay_source_focus(s.source, p->row->prefix, p->row->flat, NULL, NULL);
            json_array_append_new(parts, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:O}", "folder", p->row->folder, "class", p->row->class_name,
                                                   "naming", p->naming->name, "prefix", p->row->prefix, "parameters",
                                                   (json_int_t)ay_source_params(s.source), "bytes", (json_int_t)ay_source_bytes(s.source), "config",
                                                   p->config));
        }
        json_object_set_new(out, "pipeline", json_string(s.row->class_name));
        json_object_set_new(out, "type", json_string(s.row->type));
        json_object_set_new(out, "components", parts);
    } else if (st == ALLOY_E_UNSUPPORTED) { /* some other file of tensors: the sentence says what is known of it */
        json_object_set_new(out, "note", ay_json_text(ay_error_text(cx)));
        st = ALLOY_OK;
    }
    ay_single_close(&s);
    return st;
}

static alloy_status file_json(ay_ctx *cx, const char *path, json_t **out) {
    ay_safetensors *s = NULL;
    AY_TRY(ay_tensors_open(cx, path, &s));
    json_t *tensors = json_array(), *bytes = json_object(), *metadata = json_object();
    int64_t params = 0;
    count_tensors(bytes, &params, s);
    for (int i = 0; i < s->n; i++) {
        json_array_append_new(tensors, json_pack("{s:o, s:s, s:o}", "name", ay_json_text(s->tensors[i].name), "dtype",
                                                 stored_as(&s->tensors[i]), "shape", shape_json(&s->tensors[i].type)));
    }
    for (const char **k = s->metadata; k && *k; k += 2) json_object_set_new(metadata, k[0], ay_json_text(k[1]));
    *out = json_pack("{s:s, s:o, s:I, s:o, s:o, s:o}", "kind", s->format, "path", ay_json_text(path), "parameters", (json_int_t)params, "bytes_by_dtype", bytes,
                     "metadata", metadata, "tensors", tensors);
    ay_st_close(&s);
    return *out ? add_single(cx, path, *out) : ay_nomem(cx);
}

static alloy_status checkpoint_part(ay_ctx *cx, ay_arena *a, const char *dir, json_t *parts, const char *folder) {
    char *path = ay_path_join(a, dir, folder), *config = path ? ay_path_join(a, path, "config.json") : NULL;
    if (!config) return ay_nomem(cx);
    if (ay_path_kind_of(config) != AY_PATH_FILE) return ALLOY_OK;
    json_t *j = NULL;
    ay_source *s = NULL;
    AY_TRY(ay_json_read(cx, config, &j));
    const char *name = json_string_value(json_object_get(j, "_class_name"));
    if (!name) name = json_string_value(json_array_get(json_object_get(j, "architectures"), 0));
    json_t *row = json_pack("{s:o, s:s}", "folder", ay_json_text(folder), "class", name ? name : "unknown");
    alloy_status st = ay_source_open(cx, path, &s);
    if (st == ALLOY_OK) {
        json_object_set_new(row, "parameters", json_integer(ay_source_params(s)));
        json_object_set_new(row, "bytes", json_integer((json_int_t)ay_source_bytes(s)));
        json_array_append(parts, row);
    }
    json_decref(row);
    json_decref(j);
    ay_source_close(&s);
    return st;
}

static alloy_status checkpoint_json(ay_ctx *cx, ay_arena *a, const char *path, const char *index, json_t **out) {
    json_t *j = NULL;
    const char *name;
    int n;
    char **names;
    AY_TRY(ay_json_read(cx, index, &j));
    json_t *parts = json_array();
    alloy_status st = ay_json_str(cx, index, j, "_class_name", &name);
    if (st == ALLOY_OK) st = ay_list_dir(cx, a, path, &names, &n);
    for (int i = 0; st == ALLOY_OK && i < n; i++) st = checkpoint_part(cx, a, path, parts, names[i]);
    if (st == ALLOY_OK) {
        const ay_pipe_row *row = ay_pipe_find(name);
        *out = json_pack("{s:s, s:o, s:s, s:s, s:O}", "kind", "checkpoint", "path", ay_json_text(path), "pipeline", name, "type", row ? row->type : "unknown",
                         "components", parts);
    }
    json_decref(parts);
    json_decref(j);
    return st;
}

/* ---- model folders -------------------------------------------------------------------------------------------------------------- */

static json_t *model_summary(const ay_model *m, const char *path) {
    json_t *o = json_pack("{s:s, s:o, s:i, s:i, s:i}", "kind", "model", "path", ay_json_text(path), "width", m->width, "height", m->height, "text_length",
                          m->text_length);
    static const char *const copied[] = {"name", "type", "pipeline", "quantization", "target", "source", "alloy", "prediction"};
    for (size_t i = 0; o && i < sizeof copied / sizeof copied[0]; i++) {
        json_t *v = json_object_get(m->json, copied[i]);
        if (v) json_object_set(o, copied[i], v);
    }
    int64_t params = 0, bytes = 0;
    for (int i = 0; i < m->n_parts; i++) {
        const json_t *c = json_object_get(json_object_get(m->json, "components"), m->parts[i].row->package);
        params += json_integer_value(json_object_get(c, "parameters"));
        bytes += json_integer_value(json_object_get(c, "bytes"));
    }
    json_object_set_new(o, "parameters", json_integer(params));
    json_object_set_new(o, "bytes", json_integer(bytes));
    return o;
}

/* Parameters of the checkpoint in one package of a component, by the weight table: the package's own constants hold masks
 * and tables that were computed, and lack small weights that stand in its program. */
static int64_t table_parameters(const json_t *entry, int64_t link) {
    const json_t *row, *dim;
    int64_t sum = 0;
    size_t i, k;
    json_array_foreach(json_object_get(entry, "weights"), i, row) {
        int64_t n = 1;
        if (json_integer_value(json_object_get(row, "link")) != link) continue;
        json_array_foreach(json_object_get(row, "shape"), k, dim) n *= json_integer_value(dim);
        sum += n;
    }
    return sum;
}

/* Each package of the part: one, or the chain's. */
static alloy_status part_json(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const char *path, json_t *parts) {
    for (int k = 0; k < part->n_links; k++) {
        json_t *j = NULL;
        char *name = ay_part_package(m->arena, part, k), *package = name ? ay_sprintf(m->arena, "%s/%s.mlpackage", path, name) : NULL;
        if (!package) return ay_nomem(cx);
        AY_TRY(package_json(cx, package, &j));
        const json_t *entry = json_object_get(json_object_get(m->json, "components"), part->row->package);
        json_object_set_new(j, "parameters", json_integer(table_parameters(entry, k)));
        json_object_set_new(j, "name", json_string(name));
        json_object_set_new(j, "class", json_string(part->arch->class_name));
        if (part->n_links > 1) json_object_set_new(j, "part", json_string(part->row->package));
        json_array_append_new(parts, j);
    }
    return ALLOY_OK;
}

static alloy_status model_json(ay_ctx *cx, const char *path, json_t **out) {
    ay_model *m = NULL;
    AY_TRY(ay_model_open(cx, path, &m));
    *out = model_summary(m, path);
    json_t *parts = json_array();
    alloy_status st = *out && parts ? ALLOY_OK : ay_nomem(cx);
    for (int i = 0; i < m->n_parts && st == ALLOY_OK; i++) st = part_json(cx, m, &m->parts[i], path, parts);
    if (st == ALLOY_OK) json_object_set(*out, "components", parts);
    json_decref(parts);
    ay_model_close(&m);
    return st;
}

static alloy_status picture_json(ay_ctx *cx, ay_arena *a, const char *path, json_t **out) {
    char **text;
    AY_TRY(ay_png_text(cx, path, a, &text));
    ay_image im = {0};
    AY_TRY(ay_image_read(cx, path, (int64_t)1 << 30, &im));
    *out = json_pack("{s:s, s:o, s:i, s:i}", "kind", "picture", "path", ay_json_text(path), "width", im.width, "height", im.height);
    ay_image_free(&im);
    json_t *all = json_object();
    for (char **k = text; k && *k; k += 2) json_object_set_new(all, k[0], ay_json_text(k[1]));
    json_object_set_new(*out, "text", all);
    return ALLOY_OK;
}

static bool is_tensors(const char *ending) {
    static const char *const endings[] = {".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin"};
    for (size_t i = 0; ending && i < sizeof endings / sizeof endings[0]; i++) {
        if (strcmp(ending, endings[i]) == 0) return true;
    }
    return false;
}

/* What convert works in, until it is whole. */
static bool is_unfinished(const char *path) {
    size_t n = strlen(path), m = strlen(".partial");
    while (n > 1 && path[n - 1] == '/') n--;
    return n > m && strncmp(path + n - m, ".partial", m) == 0;
}

static alloy_status any_json(ay_ctx *cx, ay_arena *a, const char *path, json_t **out) {
    char *manifest = ay_path_join(a, path, "alloy.json"), *index = ay_path_join(a, path, "model_index.json");
    char *package = ay_path_join(a, path, "Manifest.json");
    const char *dot = strrchr(ay_path_base(path), '.');
    if (!manifest || !index || !package) return ay_nomem(cx);
    switch (ay_path_kind_of(path)) {
    case AY_PATH_DIR:
        if (is_unfinished(path)) {
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: an unfinished conversion; the same \"alloy convert\" goes on with it, and gives it its name when it is whole", path);
        }
        if (ay_path_kind_of(manifest) == AY_PATH_FILE) return model_json(cx, path, out);
        if (ay_path_kind_of(package) == AY_PATH_FILE) return package_json(cx, path, out);
        if (ay_path_kind_of(index) == AY_PATH_FILE) return checkpoint_json(cx, a, path, index, out);
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: neither a model folder (alloy.json), a package (Manifest.json) nor a checkpoint (model_index.json)", path);
    case AY_PATH_FILE:
        if (is_tensors(dot)) return file_json(cx, path, out);
        if (dot && (strcmp(dot, ".png") == 0 || strcmp(dot, ".PNG") == 0)) return picture_json(cx, a, path, out);
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: not a kind of file that alloy reads (.safetensors, .gguf, .ckpt, .pt, .pth, .bin, .png, or a folder)", path);
    default: return ay_path_fail(cx, path);
    }
}

static alloy_status dump(ay_ctx *cx, json_t *j, char **text) {
    *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(j);
    return *text ? ALLOY_OK : ay_nomem(cx);
}

alloy_status ay_info(ay_ctx *cx, const char *path, char **json) {
    *json = NULL;
    ay_arena *a = ay_arena_new();
    json_t *j = NULL;
    alloy_status st = a ? any_json(cx, a, path, &j) : ay_nomem(cx);
    ay_arena_free(a);
    if (st == ALLOY_OK) return dump(cx, j, json);
    json_decref(j);
    return st;
}

/* ---- list ------------------------------------------------------------------------------------------------------------------------ */

static alloy_status list_below(ay_ctx *cx, ay_arena *a, const char *dir, int depth, json_t *list) {
    char **names;
    int n;
    alloy_status st = ay_list_dir(cx, a, dir, &names, &n);
    if (st == ALLOY_E_IO) ay_log(cx, AY_LOG_WARN, "%s", ay_error_text(cx)); /* the others can still be listed */
    if (st != ALLOY_OK) return st == ALLOY_E_IO ? ALLOY_OK : st;
    for (int i = 0; i < n; i++) {
        AY_TRY(ay_check_stop(cx));
        size_t len = strlen(names[i]);
        char *path = ay_path_join(a, dir, names[i]), *manifest = path ? ay_path_join(a, path, "alloy.json") : NULL;
        if (!manifest) return ay_nomem(cx);
        if (names[i][0] == '.' || ay_path_kind_of(path) != AY_PATH_DIR) continue;
        if (len > 8 && strcmp(names[i] + len - 8, ".partial") == 0) continue;
        if (ay_path_kind_of(manifest) == AY_PATH_FILE) {
            ay_model *m = NULL;
            st = ay_model_open(cx, path, &m);
            if (st == ALLOY_OK) json_array_append_new(list, model_summary(m, path));
            else if (st != ALLOY_E_NOMEM) ay_log(cx, AY_LOG_WARN, "%s", ay_error_text(cx));
            ay_model_close(&m);
            if (st == ALLOY_E_NOMEM) return st;
        } else if (depth > 0 && !ay_path_is_link(path)) { /* links may lead in circles */
            AY_TRY(list_below(cx, a, path, depth - 1, list));
        }
    }
    return ALLOY_OK;
}

alloy_status ay_list_models(ay_ctx *cx, const char *dir, char **json) {
    *json = NULL;
    if (ay_path_kind_of(dir) == AY_PATH_FILE) return ay_fail(cx, ALLOY_E_IO, "%s: is a file, not a folder", dir);
    if (ay_path_kind_of(dir) != AY_PATH_DIR) return ay_path_fail(cx, dir);
    ay_arena *a = ay_arena_new();
    json_t *list = json_array();
    alloy_status st = a && list ? list_below(cx, a, dir, 3, list) : ay_nomem(cx);
    ay_arena_free(a);
    if (st == ALLOY_OK) return dump(cx, list, json);
    json_decref(list);
    return st;
}
