/* SPDX-License-Identifier: MIT
 *
 * alloy.json: what a model folder is. Written by convert.c, read back here and checked, since anyone may have edited it.
 */
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

json_t *ay_weight_table(const ay_weight_entry *e, int n) {
    static const char *const stores[] = {"plain", "block", "lut"};
    json_t *table = json_array();
    for (int i = 0; i < n; i++) {
        const ay_weight *w = &e[i].weight;
        json_t *shape = json_array();
        for (int k = 0; k < w->rank; k++) json_array_append_new(shape, json_integer(w->dim[k]));
        json_t *row = json_pack("{s:s, s:s, s:s, s:o, s:I}", "name", e[i].name, "store", stores[w->store], "dtype",
                                ay_dtype_name(w->data_dtype), "shape", shape, "offset", (json_int_t)e[i].offset[0]);
        if (w->store == AY_STORE_BLOCK) {
            json_t *scale = json_array();
            for (int k = 0; k < w->rank; k++) json_array_append_new(scale, json_integer(w->scale_dim[k]));
            json_object_set_new(row, "scale", json_pack("{s:s, s:o, s:I}", "dtype", ay_dtype_name(w->scale_dtype), "shape", scale, "offset",
                                                        (json_int_t)e[i].offset[1]));
            if (w->offset_dtype != AY_NONE) {
                json_object_set_new(row, "zero_point", json_pack("{s:s, s:I}", "dtype", ay_dtype_name(w->offset_dtype), "offset",
                                                                 (json_int_t)e[i].offset[2]));
            }
        } else if (w->store == AY_STORE_LUT) {
            json_t *lut = json_array();
            for (int k = 0; k < w->rank + 2; k++) json_array_append_new(lut, json_integer(w->lut_dim[k]));
            json_object_set_new(row, "lut", json_pack("{s:s, s:o, s:I, s:i}", "dtype", ay_dtype_name(w->lut_dtype), "shape", lut, "offset",
                                                      (json_int_t)e[i].offset[3], "vector_axis", w->vector_axis));
        }
        json_array_append_new(table, row);
    }
    return table;
}

char *ay_part_package(ay_arena *a, const ay_model_part *part, int link) {
    if (part->n_links < 2) return ay_strdup(a, part->row->package);
    return ay_sprintf(a, "%s_%dof%d", part->row->package, link + 1, part->n_links);
}

const ay_model_part *ay_model_find(const ay_model *m, const char *package) {
    for (int i = 0; i < m->n_parts; i++) {
        if (strcmp(m->parts[i].row->package, package) == 0) return &m->parts[i];
    }
    return NULL;
}

bool ay_tokenizer_needed(const ay_model *m, const char *tokenizer) {
    for (const ay_part_row *row = m->row->parts; row->package; row++) {
        if (!row->optional || strncmp(row->folder, "text_encoder", 12) != 0 || strcmp(row->folder + 12, tokenizer + 9) != 0) continue;
        return ay_model_find(m, row->package) != NULL;
    }
    return true;
}

/* A transformers config.json names the model it was saved from, which may be larger than the part that is used of it
 * ("T5ForConditionalGeneration"): there the class that the pipeline loads it with comes first. */
static const char *class_of(const json_t *config, const ay_part_row *row, const char *loaded_as) {
    const char *name = json_string_value(json_object_get(config, "_class_name"));
    if (name) return name;
    if (loaded_as && ay_arch_find(loaded_as, row->graph_kind)) return loaded_as;
    return json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
}

alloy_status ay_model_add_part(ay_ctx *cx, ay_model *m, const ay_part_row *row, const char *what, const json_t *config,
                               const char *loaded_as) {
    const char *name = class_of(config, row, loaded_as);
    if (!name) return ay_fail(cx, ALLOY_E_FORMAT, "%s: says neither _class_name nor architectures, so it cannot be told what it is", what);
    const ay_arch *arch = ay_arch_find(name, row->graph_kind);
    if (!arch) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" is not an architecture that alloy knows as %s", what, name, row->package);
    if (m->n_parts >= AY_MAX_PARTS) return ay_fail(cx, ALLOY_E_INTERNAL, "%s: more than %d components", what, AY_MAX_PARTS);
    ay_model_part *p = &m->parts[m->n_parts];
    *p = (ay_model_part){.row = row, .arch = arch, .config = config, .n_links = 1};
    p->upcast = m->row->upcast && json_is_true(json_object_get(config, m->row->upcast));
    AY_TRY(arch->configure(cx, m->arena, what, config, &p->cfg));
    m->n_parts++;
    return ALLOY_OK;
}

static alloy_status read_sizes(ay_ctx *cx, const char *what, const json_t *j, ay_sizes *s) {
    const int64_t big = 1 << 24;
    if (!json_is_object(j)) return ay_fail(cx, ALLOY_E_FORMAT, "%s: a component has no \"sizes\"; convert the model again", what);
    AY_TRY(ay_json_int(cx, what, j, "batch", 0, 4096, &s->batch));
    AY_TRY(ay_json_int(cx, what, j, "latent_height", 0, big, &s->latent_height));
    AY_TRY(ay_json_int(cx, what, j, "latent_width", 0, big, &s->latent_width));
    AY_TRY(ay_json_int(cx, what, j, "frames", 0, big, &s->frames));
    AY_TRY(ay_json_int_or(cx, what, j, "control", 0, 1, 0, &s->control));
    AY_TRY(ay_json_int_or(cx, what, j, "numbers", 0, 64, 0, &s->numbers));
    return ay_json_int(cx, what, j, "text_length", 0, big, &s->text_length);
}

/* Functions, where there are several, and packages, where it is a chain. */
static alloy_status read_functions(ay_ctx *cx, const char *what, const json_t *j, ay_arena *a, ay_model_part *p) {
    const json_t *list = json_object_get(j, "functions"), *row, *packages = json_object_get(j, "packages");
    size_t i, n = packages ? json_array_size(packages) : 1;
    if (json_array_size(list) > AY_MAX_SIZES || (list && json_array_size(list) < 2)) {
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: \"functions\" of %s must be a list of 2 to %d", what, p->row->package, AY_MAX_SIZES);
    }
    if (packages && (n < 2 || n > AY_MAX_LINKS)) {
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: \"packages\" of %s must be a list of 2 to %d", what, p->row->package, AY_MAX_LINKS);
    }
    p->n_links = (int)n;
    p->n_functions = 1;
    p->functions[0] = (ay_part_function){"main", p->sizes};
    json_array_foreach(list, i, row) {
        const char *name;
        AY_TRY(ay_json_str(cx, what, row, "name", &name));
        p->functions[i].name = ay_strdup(a, name);
        AY_TRY(read_sizes(cx, what, json_object_get(row, "sizes"), &p->functions[i].sizes));
        if (!p->functions[i].name) return ay_nomem(cx);
        p->n_functions = (int)i + 1;
    }
    return ALLOY_OK;
}

static alloy_status read_parts(ay_ctx *cx, const char *what, ay_model *m) {
    const json_t *parts = json_object_get(m->json, "components");
    if (!json_is_object(parts)) return ay_fail(cx, ALLOY_E_FORMAT, "%s: has no \"components\"; convert the model again", what);
    for (const ay_part_row *row = m->row->parts; row->package; row++) {
        const json_t *j = json_object_get(parts, row->package);
        if (!j) continue;
        const char *loaded_as = json_string_value(json_object_get(j, "class"));
        AY_TRY(ay_model_add_part(cx, m, row, what, json_object_get(j, "config"), loaded_as));
        AY_TRY(read_sizes(cx, what, json_object_get(j, "sizes"), &m->parts[m->n_parts - 1].sizes));
        AY_TRY(read_functions(cx, what, j, m->arena, &m->parts[m->n_parts - 1]));
    }
    return ALLOY_OK;
}

static alloy_status read_manifest(ay_ctx *cx, ay_model *m) {
    char *what = ay_path_join(m->arena, m->dir, "alloy.json");
    if (!what) return ay_nomem(cx);
    if (ay_path_kind_of(m->dir) == AY_PATH_FILE) {
        return ay_fail(cx, ALLOY_E_IO, "%s: is a file; a model is a folder, as \"alloy convert\" makes it", m->dir);
    }
    if (ay_path_kind_of(m->dir) != AY_PATH_DIR) {
        return ay_fail(cx, ALLOY_E_IO, "%s: no such folder; \"alloy convert\" makes one, \"alloy list-models\" shows what there is", m->dir);
    }
    if (ay_path_kind_of(what) != AY_PATH_FILE) {
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: not a model folder (no alloy.json); \"alloy convert %s\" makes one from a checkpoint", m->dir, m->dir);
    }
    AY_TRY(ay_json_read(cx, what, &m->json));
    int64_t format, w, h, text;
    const char *pipeline, *quantization;
    AY_TRY(ay_json_int(cx, what, m->json, "format", 1, 1 << 20, &format));
    if (format != 1) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: format %lld is newer than this alloy reads (1)", what, (long long)format);
    AY_TRY(ay_json_str(cx, what, m->json, "pipeline", &pipeline));
    AY_TRY(ay_json_str(cx, what, m->json, "quantization", &quantization));
    AY_TRY(ay_json_int(cx, what, m->json, "width", 1, 1 << 20, &w));
    AY_TRY(ay_json_int(cx, what, m->json, "height", 1, 1 << 20, &h));
    AY_TRY(ay_json_int_or(cx, what, m->json, "text_length", 0, 1 << 20, 0, &text));
    m->row = ay_pipe_find(pipeline);
    if (!m->row) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: pipeline \"%s\" is not known to this alloy", what, pipeline);
    m->width = (int)w;
    m->height = (int)h;
    m->text_length = (int)text;
    m->precision = strcmp(quantization, "float32") == 0 ? AY_F32 : AY_F16;
    m->scheduler = json_object_get(m->json, "scheduler");
    return read_parts(cx, what, m);
}

alloy_status ay_model_open(ay_ctx *cx, const char *dir, ay_model **out) {
    *out = NULL;
    ay_model *m = calloc(1, sizeof *m);
    if (!m) return ay_nomem(cx);
    m->arena = ay_arena_new();
    m->dir = m->arena ? ay_strdup(m->arena, dir) : NULL;
    alloy_status st = m->dir ? read_manifest(cx, m) : ay_nomem(cx);
    if (st != ALLOY_OK) {
        ay_model_close(&m);
        return st;
    }
    *out = m;
    return ALLOY_OK;
}

void ay_model_close(ay_model **m) {
    if (!m || !*m) return;
    json_decref((*m)->json);
    ay_arena_free((*m)->arena);
    free(*m);
    *m = NULL;
}
