/* SPDX-License-Identifier: MIT
 *
 * From a checkpoint, a folder or one file, to a model folder: every component's graph is built and checked against its tensors before a
 * byte is written; then the packages are streamed into NAME.partial/, which becomes NAME/ when all of it is whole.
 */
#include "base/sha256.h"
#include "pipe/convert_part.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct conversion {
    ay_ctx *cx;
    const char *source;
    ay_single single;   /* when the source is one file */
    const char *folder; /* where everything else is: the source, or the base */
    const alloy_convert_options *o;
    ay_model *m;
    ay_source *sources[AY_MAX_PARTS];
    ay_loras *loras; /* NULL: none */
    int layouts;     /* components in the layout that --attention names */
    json_t *configs[AY_MAX_PARTS + 2]; /* what the parts borrow; then the scheduler's, and model_index.json */
    ay_graph *graphs[AY_MAX_PARTS];
    char *partial, *final;
    uint64_t total, done; /* bytes of source tensors */
    uint64_t weights;     /* bytes of weights to be written */
    ay_convert_form form; /* how weights are stored, for which target */
    ay_part_quant quant[AY_MAX_PARTS];
    ay_part_work work[AY_MAX_PARTS]; /* graphs[0] is the one of `graphs` */
    alloy_size sizes[AY_MAX_SIZES];  /* pictures, the default first */
    int n_sizes;
    ay_journal *journal;
    int tensors; /* to be written */
    int lock; /* on NAME.partial/; -1 while it is not ours to clear away */
} conversion;

/* ---- reading the checkpoint ------------------------------------------------------------------------------------------- */

/* A folder of one model that is a row by itself, by the class in its config.json. */
static bool single_model(const conversion *v, const ay_pipe_row **row) {
    char *file = ay_path_join(v->m->arena, v->folder, "config.json");
    json_t *j = NULL;
    if (!file || ay_path_kind_of(file) != AY_PATH_FILE || ay_json_read(v->cx, file, &j) != ALLOY_OK) return false;
    const char *name = json_string_value(json_object_get(j, "_class_name"));
    const ay_pipe_row *found = name ? ay_pipe_find(name) : NULL;
    json_decref(j);
    if (found && found->single) *row = found;
    return found && found->single;
}

/* The pipeline that the folder is made for, from its model_index.json. */
static alloy_status read_index(conversion *v, const ay_pipe_row **row) {
    ay_ctx *cx = v->cx;
    char *index = ay_path_join(v->m->arena, v->folder, "model_index.json");
    if (!index) return ay_nomem(cx);
    if (ay_path_kind_of(v->folder) != AY_PATH_DIR) {
        return ay_path_kind_of(v->folder) == AY_PATH_NONE ? ay_path_fail(cx, v->folder)
                                                          : ay_fail(cx, ALLOY_E_USAGE, "%s: is no folder; --base takes a diffusers folder", v->folder);
    }
    if (ay_path_kind_of(index) != AY_PATH_FILE && single_model(v, row)) return ALLOY_OK;
    if (ay_path_kind_of(index) != AY_PATH_FILE) {
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: not a diffusers folder (no model_index.json)%s", v->folder,
                       ay_path_kind_of(ay_path_join(v->m->arena, v->folder, "alloy.json")) == AY_PATH_FILE ? "; it is converted already" : "");
    }
    const char *name;
    AY_TRY(ay_json_read(cx, index, &v->configs[AY_MAX_PARTS + 1]));
    v->m->index = v->configs[AY_MAX_PARTS + 1];
    AY_TRY(ay_json_str(cx, index, v->m->index, "_class_name", &name));
    *row = ay_pipe_find(name);
    if (*row) return ALLOY_OK;
    ay_buf known = {0};
    int n;
    const ay_pipe_row *const *rows = ay_pipe_list(&n);
    for (int i = 0; i < n; i++) ay_buf_printf(&known, "%s%s", i ? ", " : "", rows[i]->class_name);
    alloy_status st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: pipeline \"%s\" is not known; known are: %s", index, name, known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

static alloy_status read_file(conversion *v) {
    ay_ctx *cx = v->cx;
    const ay_pipe_row *of_base;
    AY_TRY(ay_single_open(cx, v->source, v->o->type, v->o->base, &v->single));
    v->m->row = v->single.row;
    if (!v->o->base) AY_TRY(ay_single_enough(cx, &v->single, v->source));
    if (v->o->base) {
        v->folder = v->o->base;
        AY_TRY(read_index(v, &of_base));
        if (strcmp(of_base->type, v->m->row->type) != 0) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: is a %s model, but %s is a %s checkpoint; give a --base of that kind", v->folder, of_base->type,
                           v->source, v->m->row->type);
        }
    }
    ay_single_say(cx, &v->single, v->source, v->folder);
    return ALLOY_OK;
}

static alloy_status read_source(conversion *v) {
    ay_ctx *cx = v->cx;
    ay_path_kind kind = ay_path_kind_of(v->source);
    v->folder = v->source;
    if (kind == AY_PATH_FILE) {
        AY_TRY(read_file(v));
    } else if (kind != AY_PATH_DIR) {
        return ay_path_fail(cx, v->source);
    } else if (v->o->base) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: is a folder, which has all that is needed; --base is for a checkpoint of one file", v->source);
    } else {
        AY_TRY(read_index(v, &v->m->row));
    }
    if (v->o->controlnet && !v->m->row->tasks.controlled && !v->m->row->single) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: no ControlNet is known for a %s model; leave --controlnet out", v->source, v->m->row->type);
    }
    if (v->o->type && strcmp(v->o->type, v->m->row->type) != 0) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: this is a %s checkpoint, not %s; leave --type out", v->source, v->m->row->type, v->o->type);
    }
    return ALLOY_OK;
}

/* The class that model_index.json loads a folder with, ["transformers", "T5EncoderModel"], or NULL. */
static const char *loaded_as(const conversion *v, const char *folder) {
    return json_string_value(json_array_get(json_object_get(v->m->index, folder), 1));
}

/* model_index.json keeps a component that was left out as [null, null], or not at all. */
static bool left_out(const conversion *v, const char *folder) {
    const json_t *entry = json_object_get(v->m->index, folder);
    return json_is_null(entry) || (json_array_size(entry) > 1 && json_is_null(json_array_get(entry, 1)));
}

static bool wanted(const conversion *v, const char *package) {
    const char *list = v->o->components;
    if (!list) return true;
    size_t n = strlen(package);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        if (strncmp(p, package, n) == 0 && (p[n] == ',' || p[n] == 0)) return true;
    }
    return false;
}

static alloy_status check_component_names(conversion *v) {
    if (v->o->components && !*v->o->components) return ay_fail(v->cx, ALLOY_E_USAGE, "no component is named; leave --components out for all");
    for (const char *p = v->o->components; p && *p;) {
        size_t n = strcspn(p, ",");
        bool known = false;
        ay_buf names = {0};
        for (const ay_part_row *row = v->m->row->parts; row->package; row++) {
            known |= strlen(row->package) == n && strncmp(row->package, p, n) == 0;
            ay_buf_printf(&names, "%s%s", names.len ? ", " : "", row->package);
        }
        if (!known) ay_fail(v->cx, ALLOY_E_USAGE, "component \"%.*s\" is not one of %s", (int)n, p, names.data);
        ay_buf_free(&names);
        if (!known) return ALLOY_E_USAGE;
        p += n + (p[n] == ',');
    }
    return ALLOY_OK;
}

static bool other_layout(const conversion *v) { return v->o->attention && strcmp(v->o->attention, "plain") != 0; }

/* The part just read in the layout that --attention names, if its architecture has it. */
static alloy_status choose_layout(conversion *v, const char *what, int i) {
    ay_model_part *p = &v->m->parts[i];
    if (!other_layout(v)) return ALLOY_OK;
    for (const char *const *l = p->arch->layouts; l && *l; l++) {
        if (strcmp(*l, v->o->attention) != 0) continue;
        json_object_set_new(v->configs[i], AY_ATTENTION_KEY, json_string(*l));
        v->layouts++;
        return p->arch->configure(v->cx, v->m->arena, what, v->configs[i], &p->cfg);
    }
    return ALLOY_OK;
}

static alloy_status read_parts(conversion *v) {
    ay_ctx *cx = v->cx;
    ay_arena *a = v->m->arena;
    AY_TRY(check_component_names(v));
    for (const ay_part_row *row = v->m->row->parts; row->package; row++) {
        const ay_single_part *part = ay_single_find(&v->single, row->folder);
        char *dir = ay_path_join(a, v->folder, row->folder), *file = dir ? ay_path_join(a, dir, "config.json") : NULL;
        int i = v->m->n_parts;
        if (!file) return ay_nomem(cx);
        if (part) {
            v->configs[i] = json_incref(part->config);
            AY_TRY(ay_model_add_part(cx, v->m, row, v->source, part->config, NULL));
            AY_TRY(choose_layout(v, v->source, i));
            continue;
        }
        if (row->optional && (left_out(v, row->folder) || ay_path_kind_of(dir) == AY_PATH_NONE)) continue;
        AY_TRY(ay_json_read(cx, file, &v->configs[i]));
        AY_TRY(ay_model_add_part(cx, v->m, row, file, v->configs[i], loaded_as(v, row->folder)));
        AY_TRY(choose_layout(v, file, i));
    }
    if (other_layout(v) && !v->layouts)
        return ay_fail(cx, ALLOY_E_USAGE, "%s: no component of this model is known in the layout \"%s\"; leave --attention out", v->source,
                       v->o->attention);
    char *file = ay_path_join(a, v->folder, "scheduler/scheduler_config.json");
    if (!file) return ay_nomem(cx);
    if (v->m->row->single) v->configs[AY_MAX_PARTS] = json_object();
    else AY_TRY(ay_json_read(cx, file, &v->configs[AY_MAX_PARTS]));
    if (v->single.n) ay_single_hints(&v->single, v->configs[AY_MAX_PARTS]);
    if (v->o->prediction_type) AY_TRY(ay_prediction_type_set(cx, v->m->row, v->o->prediction_type, v->configs[AY_MAX_PARTS]));
    v->m->scheduler = v->configs[AY_MAX_PARTS];
    for (int i = 0; i < AY_MAX_TOKENIZERS && v->m->row->tokenizers[i]; i++) {
        char *dir = ay_path_join(a, v->folder, v->m->row->tokenizers[i]);
        ay_tokenizer *tok = NULL;
        if (!dir) return ay_nomem(cx);
        if (!ay_tokenizer_needed(v->m, v->m->row->tokenizers[i])) continue;
        AY_TRY(ay_tokenizer_open(cx, dir, &tok));
        v->m->token_limits[i] = ay_tokenizer_max_length(tok);
        ay_tokenizer_close(&tok);
    }
    return ALLOY_OK;
}

/* What is copied as it is. */
static alloy_status tokenizer_bytes(conversion *v, uint64_t *sum) {
    for (const char *const *name = v->m->row->tokenizers; *name; name++) {
        char *dir = ay_path_join(v->m->arena, v->folder, *name), **files;
        int n;
        if (!dir) return ay_nomem(v->cx);
        if (ay_path_kind_of(dir) != AY_PATH_DIR) continue;
        AY_TRY(ay_list_dir(v->cx, v->m->arena, dir, &files, &n));
        for (int i = 0; i < n; i++) {
            char *file = ay_path_join(v->m->arena, dir, files[i]);
            if (!file) return ay_nomem(v->cx);
            *sum += (uint64_t)ay_file_size(file);
        }
    }
    return ALLOY_OK;
}

/* The mix of precisions under --size-limit, less what is not weights: programs, a line of alloy.json and the padding of the
 * weight file for each tensor. */
static alloy_status fit(conversion *v) {
    ay_part_quant *q[AY_MAX_PARTS];
    const ay_source *from[AY_MAX_PARTS];
    const ay_arch *arch[AY_MAX_PARTS];
    uint64_t beside = 1 << 19, limit = (uint64_t)v->o->size_limit;
    int n = 0;
    if (v->form.kind == AY_QUANT_NONE) return ay_fail(v->cx, ALLOY_E_USAGE, "--size-limit needs --quantization int8 or int4, or --palette");
    AY_TRY(tokenizer_bytes(v, &beside));
    for (int i = 0; i < v->m->n_parts; i++) {
        if (!v->graphs[i]) continue;
        q[n] = &v->quant[i];
        from[n] = v->sources[i];
        arch[n++] = v->m->parts[i].arch;
        beside += (uint64_t)v->graphs[i]->n_nodes * 1024 * (uint64_t)v->m->parts[i].n_functions;
    }
    return n ? ay_quant_fit(q, from, arch, n, limit > beside ? limit - beside : 0) : ALLOY_OK;
}

static alloy_status open_part(conversion *v, const ay_model_part *p, ay_source **out) {
    const ay_single_part *part = ay_single_find(&v->single, p->row->folder);
    if (part) return ay_single_source(v->cx, &v->single, part, v->source, p->cfg, out);
    char *dir = ay_path_join(v->m->arena, v->folder, p->row->folder);
    if (!dir) return ay_nomem(v->cx);
    AY_TRY(ay_source_open(v->cx, dir, out));
    ay_source_choose(*out, p->arch, p->cfg);
    return ALLOY_OK;
}

/* What --lora names, found among the parts that are converted. */
static alloy_status bake_loras(conversion *v) {
    if (v->o->num_loras < 1) return ALLOY_OK;
    AY_TRY(ay_loras_open(v->cx, v->o->loras, v->o->num_loras, &v->loras));
    for (int i = 0; i < v->m->n_parts; i++) {
        const ay_model_part *p = &v->m->parts[i];
        if (v->graphs[i]) AY_TRY(ay_loras_attach(v->cx, v->loras, v->sources[i], p->arch, p->cfg, p->row->folder, v->graphs[i]));
        else ay_loras_leave_out(v->loras, p->row->folder);
    }
    return ay_loras_report(v->cx, v->loras);
}

/* One function for each distinct size of the part, the default first; where there is one only, it is called main. */
static alloy_status add_functions(conversion *v, ay_model_part *p) {
    p->n_functions = 0;
    for (int i = 0; i < v->n_sizes; i++) {
        ay_sizes s;
        bool known = false;
        AY_TRY(v->m->row->sizes(v->cx, v->m, p->row, v->sizes[i].width, v->sizes[i].height, v->m->text_length, &s));
        if (v->o->controlnet && v->m->row->tasks.controlled && strcmp(p->row->package, v->m->row->tasks.controlled) == 0) s.control = 1;
        for (int f = 0; f < p->n_functions; f++) known |= memcmp(&p->functions[f].sizes, &s, sizeof s) == 0;
        if (known) continue;
        char *name = ay_sprintf(v->m->arena, "size_%dx%d", v->sizes[i].width, v->sizes[i].height);
        if (!name) return ay_nomem(v->cx);
        p->functions[p->n_functions++] = (ay_part_function){name, s};
    }
    p->sizes = p->functions[0].sizes;
    if (p->n_functions == 1) p->functions[0].name = "main";
    return ALLOY_OK;
}

/* The part's graph for its default size, checked against its tensors. */
static alloy_status build_part(conversion *v, int i) {
    ay_ctx *cx = v->cx;
    ay_model_part *p = &v->m->parts[i];
    AY_TRY(add_functions(v, p));
    AY_TRY(open_part(v, p, &v->sources[i]));
    AY_TRY(ay_part_graph(cx, p, &p->sizes, v->m->precision, v->sources[i], &v->graphs[i]));
    if (v->single.n && v->m->row->file_doubts && !v->o->prediction_type) v->m->row->file_doubts(cx, v->m, p, v->sources[i], v->source);
    return ay_part_quant_plan(cx, v->m->arena, v->form.kind, p->arch, v->graphs[i], &v->quant[i]);
}

/* How each weight is stored is decided: the other sizes' graphs follow, and where they are cut. */
static alloy_status finish_part(conversion *v, int i) {
    ay_model_part *p = &v->m->parts[i];
    ay_part_work *w = &v->work[i];
    w->cx = v->cx;
    w->part = p;
    w->from = v->sources[i];
    w->quant = &v->quant[i];
    w->graphs[0] = v->graphs[i];
    for (int f = 0; f < p->n_functions; f++) {
        if (f > 0) AY_TRY(ay_part_graph(v->cx, p, &p->functions[f].sizes, v->m->precision, NULL, &w->graphs[f]));
        AY_TRY(ay_part_quant_apply(&v->quant[i], w->graphs[f]));
    }
    AY_TRY(ay_part_cut(w, v->m->arena, (uint64_t)v->o->max_package_size, &p->n_links));
    for (int k = 0; k < v->graphs[i]->n_nodes; k++) {
        const ay_node *n = &v->graphs[i]->nodes[k];
        if (n->op != AY_OP_PARAM) continue;
        v->weights += ay_part_weight_bytes(n->weight);
        v->total += ay_part_source_bytes(v->sources[i], p, n);
        v->tensors++;
    }
    return ALLOY_OK;
}

static alloy_status build_parts(conversion *v) {
    for (int i = 0; i < v->m->n_parts; i++) {
        if (wanted(v, v->m->parts[i].row->package)) AY_TRY(build_part(v, i));
    }
    AY_TRY(bake_loras(v));
    if (v->o->size_limit) AY_TRY(fit(v));
    for (int i = 0; i < v->m->n_parts; i++) {
        if (v->graphs[i]) AY_TRY(finish_part(v, i));
    }
    return ALLOY_OK;
}

/* ---- writing -------------------------------------------------------------------------------------------------------------- */

static void passed(void *user, const char *stage, uint64_t bytes) {
    conversion *v = user;
    v->done += bytes;
    if (stage) ay_progress(v->cx, stage, (double)v->done, (double)v->total);
}

static alloy_status write_part(conversion *v, int i, json_t *components) {
    ay_part_work *w = &v->work[i];
    json_t *entry;
    w->dir = v->partial;
    w->target = v->form.target;
    w->journal = v->journal;
    w->passed = passed;
    w->user = v;
    AY_TRY(ay_part_write(w, v->form.kind != AY_QUANT_NONE, &entry));
    return json_object_set_new(components, v->m->parts[i].row->package, entry) == 0 ? ALLOY_OK : ay_nomem(v->cx);
}

static alloy_status copy_folder(conversion *v, const char *name) {
    ay_ctx *cx = v->cx;
    ay_arena *a = v->m->arena;
    char *from = ay_path_join(a, v->folder, name), *to = ay_path_join(a, v->partial, name), **files;
    int n;
    if (!from || !to) return ay_nomem(cx);
    AY_TRY(ay_mkdirs(cx, to));
    AY_TRY(ay_list_dir(cx, a, from, &files, &n));
    for (int i = 0; i < n; i++) {
        char *f = ay_path_join(a, from, files[i]), *t = ay_path_join(a, to, files[i]);
        if (!f || !t) return ay_nomem(cx);
        if (ay_path_kind_of(f) == AY_PATH_FILE) AY_TRY(ay_file_copy(cx, f, t));
    }
    return ALLOY_OK;
}

static alloy_status write_manifest(conversion *v, json_t *components, json_t *prediction) {
    ay_model *m = v->m;
    errno = 0;
    json_t *j = json_pack("{s:i, s:s, s:o, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:O, s:O, s:O}", "format", 1, "alloy", ALLOY_VERSION, "name",
                          ay_json_text(ay_path_base(v->final)), "type", m->row->type, "pipeline", m->row->class_name, "quantization",
                          v->form.quantization, "target", v->form.target == AY_TARGET_MACOS15 ? "macos15" : "macos14",
                          "width", m->width, "height", m->height, "text_length", m->text_length, "prediction", prediction, "scheduler",
                          m->scheduler, "components", components);
    char *path = ay_path_join(m->arena, v->partial, "alloy.json");
    alloy_status st = j && path ? ALLOY_OK : ay_nomem(v->cx);
    if (st == ALLOY_OK) {
        json_object_set_new(j, "source", ay_json_text(ay_path_base(v->source)));
        if (v->o->base) json_object_set_new(j, "base", ay_json_text(ay_path_base(v->o->base)));
        if (v->loras) json_object_set_new(j, "loras", ay_loras_json(v->loras));
        st = errno == ENOMEM ? ay_nomem(v->cx) : ay_json_write(v->cx, path, j);
    }
    json_decref(j);
    return st;
}

static void log_finding(void *user, bool warning, const char *text) {
    ay_log(user, warning ? AY_LOG_DEBUG : AY_LOG_ERROR, "%s", text);
}

static alloy_status validate_all(conversion *v) {
    for (int i = 0; i < v->m->n_parts; i++) {
        for (int k = 0; v->graphs[i] && k < v->m->parts[i].n_links; k++) {
            char *name = ay_part_package(v->m->arena, &v->m->parts[i], k);
            char *path = name ? ay_sprintf(v->m->arena, "%s/%s.mlpackage", v->partial, name) : NULL;
            int findings = 0, warnings = 0;
            if (!path) return ay_nomem(v->cx);
            AY_TRY(ay_package_validate(v->cx, path, log_finding, v->cx, &findings, &warnings));
            if (findings) {
                return ay_fail(v->cx, ALLOY_E_INTERNAL, "%s: %d findings in a package just written; this is a bug in alloy, please report it", path,
                               findings);
            }
        }
    }
    return ALLOY_OK;
}

/* What is replaced under the model's name is a model, and never the checkpoint itself. */
static alloy_status check_final(conversion *v) {
    if (ay_path_kind_of(v->final) == AY_PATH_NONE && !ay_path_is_link(v->final)) return ALLOY_OK;
    if (!v->o->force) return ay_fail(v->cx, ALLOY_E_USAGE, "%s: exists already; --force replaces it, --name chooses another", v->final);
    char *manifest = ay_path_join(v->m->arena, v->final, "alloy.json");
    if (!manifest) return ay_nomem(v->cx);
    if (ay_path_kind_of(manifest) == AY_PATH_FILE) return ALLOY_OK;
    return ay_fail(v->cx, ALLOY_E_USAGE, "%s: is no model folder (no alloy.json), so --force does not replace it; --name chooses another", v->final);
}

static alloy_status stamp_path(conversion *v, const char *path, ay_buf *b) {
    char **names;
    int n = 0;
    ay_buf_printf(b, "%s ", path);
    ay_path_stamp(path, b);
    if (ay_path_kind_of(path) == AY_PATH_DIR) AY_TRY(ay_list_dir(v->cx, v->m->arena, path, &names, &n));
    for (int i = 0; i < n; i++) {
        char *file = ay_path_join(v->m->arena, path, names[i]);
        if (!file) return ay_nomem(v->cx);
        ay_buf_printf(b, " %s ", names[i]);
        ay_path_stamp(file, b);
    }
    return ALLOY_OK;
}

static alloy_status stamp_loras(conversion *v, ay_buf *b) {
    for (int i = 0; i < v->o->num_loras; i++) {
        const alloy_lora *l = &v->o->loras[i];
        ay_buf_printf(b, "lora %a %a ", l->strength, l->text_strength);
        AY_TRY(stamp_path(v, l->path, b));
        ay_buf_add(b, "\n", 1);
    }
    return ALLOY_OK;
}

/* A digest of everything that the written bytes depend on: whoever adds a setting or a source adds it here, so that a killed
 * conversion is not gone on with under another. */
static alloy_status work_key(conversion *v, uint8_t key[32]) {
    const alloy_convert_options *o = v->o;
    ay_buf b = {0};
    ay_sha256 sha;
    ay_buf_printf(&b, "%s %s%s %s %s %d %d %lld %d %d %d\n%s %s\n", ALLOY_VERSION, other_layout(v) ? o->attention : "plain", o->controlnet ? " controlled" : "", v->m->row->type, v->form.quantization, (int)v->form.target, (int)v->form.kind,
                  (long long)o->size_limit, v->m->width, v->m->height, v->m->text_length, v->source, v->folder);
    for (int i = 0; i < v->m->n_parts; i++) {
        if (!v->graphs[i]) continue;
        char hash[65];
        ay_source_hash(v->sources[i], hash);
        ay_buf_printf(&b, "%s %s %s\n", v->m->parts[i].row->package, v->m->parts[i].arch->class_name, hash);
        ay_source_stamp(v->sources[i], &b);
        ay_buf_printf(&b, "%d", v->m->parts[i].n_links);
        for (int f = 0; f < v->m->parts[i].n_functions; f++) ay_buf_printf(&b, " %s", v->m->parts[i].functions[f].name);
        for (int k = 0; k < v->m->parts[i].n_links && v->m->parts[i].n_links > 1; k++) ay_buf_printf(&b, " %d", v->work[i].chains[0].begin[k]);
        ay_buf_add(&b, "\n", 1);
        for (int k = 0; k < v->graphs[i]->n_nodes; k++) {
            const ay_node *n = &v->graphs[i]->nodes[k];
            char type[160];
            if (n->op != AY_OP_PARAM) continue;
            ay_buf_printf(&b, "%s %s %d %s %llu\n", n->name, ay_type_text(&n->type, type), (int)n->weight->store,
                          ay_dtype_name(n->weight->data_dtype), (unsigned long long)ay_part_weight_bytes(n->weight));
        }
    }
    alloy_status st = stamp_loras(v, &b);
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, b.data, b.len);
    ay_sha256_end(&sha, key);
    if (st == ALLOY_OK && b.failed) st = ay_nomem(v->cx);
    ay_buf_free(&b);
    return st;
}

/* NAME.partial/, ours alone; empty, or with what a killed conversion like this one left whole. */
static alloy_status begin_partial(conversion *v) {
    uint8_t key[32];
    AY_TRY(work_key(v, key));
    AY_TRY(ay_mkdirs(v->cx, v->o->output_dir));
    AY_TRY(ay_work_begin(v->cx, v->partial, &v->lock));
    AY_TRY(check_final(v)); /* again: who had the lock before may have been making just this */
    return ay_journal_open(v->cx, v->partial, key, v->tensors, &v->journal);
}

static alloy_status write_all(conversion *v, json_t *components, json_t *prediction) {
    ay_ctx *cx = v->cx;
    AY_TRY(begin_partial(v));
    int64_t available = ay_disk_free(v->o->output_dir);
    uint64_t there = ay_journal_bytes(v->journal), needed = v->weights > there ? v->weights - there : 0;
    if (available >= 0 && (uint64_t)available < needed) {
        return ay_fail(cx, ALLOY_E_IO, "%s: %.1f MB free, about %.1f MB needed; make room or choose another --output-dir", v->o->output_dir,
                       (double)available / 1e6, (double)needed / 1e6);
    }
    for (int i = 0; i < v->m->n_parts; i++) {
        if (v->graphs[i]) AY_TRY(write_part(v, i, components));
    }
    for (const char *const *t = v->m->row->tokenizers; *t; t++) {
        if (ay_tokenizer_needed(v->m, *t)) AY_TRY(copy_folder(v, *t));
    }
    AY_TRY(write_manifest(v, components, prediction));
    if (!v->o->skip_validation) AY_TRY(validate_all(v));
    AY_TRY(check_final(v));
    AY_TRY(ay_check_stop(cx));
    ay_journal_close(&v->journal, true);
    AY_TRY(ay_remove_tree(cx, v->final));
    return ay_rename(cx, v->partial, v->final);
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------- */

/* The last part of the path; of a file, without the ending that says its format. */
static const char *folder_name(ay_arena *a, const char *source) {
    static const char *const endings[] = {".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin"};
    const char *name = ay_path_base(source), *dot = strrchr(name, '.');
    if (!dot || dot == name || ay_path_kind_of(source) != AY_PATH_FILE) return name;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (strcmp(dot, endings[i]) == 0) return ay_strndup(a, name, (size_t)(dot - name));
    }
    return name;
}

static alloy_status choose_names(conversion *v) {
    ay_arena *a = v->m->arena;
    char *source = ay_strdup(a, v->source);
    if (!source) return ay_nomem(v->cx);
    for (size_t n = strlen(source); n > 1 && source[n - 1] == '/'; n--) source[n - 1] = 0;
    v->source = source;
    const char *name = v->o->name ? v->o->name : folder_name(a, source);
    if (!name) return ay_nomem(v->cx);
    size_t n = strlen(name);
    if (!*v->o->output_dir) return ay_fail(v->cx, ALLOY_E_USAGE, "the output folder has no name; \".\" is the one you are in");
    if (!*name || strchr(name, '/') || name[0] == '.') return ay_fail(v->cx, ALLOY_E_USAGE, "name \"%s\": give --name a plain folder name", name);
    if (n > 240) return ay_fail(v->cx, ALLOY_E_USAGE, "the name has %zu bytes; give --name a shorter one, 240 at most", n);
    if (n > 8 && strcmp(name + n - 8, ".partial") == 0) {
        return ay_fail(v->cx, ALLOY_E_USAGE, "name \"%s\": folders that end in .partial are work in progress; give --name another", name);
    }
    v->final = ay_path_join(a, v->o->output_dir, name);
    v->partial = v->final ? ay_sprintf(a, "%s.partial", v->final) : NULL;
    return v->partial ? check_final(v) : ay_nomem(v->cx);
}

static alloy_status convert(conversion *v, json_t *components, json_t *prediction) {
    ay_model *m = v->m;
    AY_TRY(ay_convert_check(v->cx, v->o, &v->form));
    m->precision = v->form.precision;
    AY_TRY(choose_names(v));
    AY_TRY(read_source(v));
    AY_TRY(read_parts(v));
    m->width = v->o->num_sizes ? v->o->sizes[0].width : v->o->image_size.width;
    m->height = v->o->num_sizes ? v->o->sizes[0].height : v->o->image_size.height;
    m->text_length = v->o->text_length;
    AY_TRY(m->row->defaults(v->cx, m, &m->width, &m->height, &m->text_length, prediction));
    v->n_sizes = v->o->num_sizes > 1 ? v->o->num_sizes : 1;
    for (int i = 1; i < v->n_sizes; i++) v->sizes[i] = v->o->sizes[i];
    v->sizes[0] = (alloy_size){m->width, m->height};
    AY_TRY(build_parts(v));
    ay_log(v->cx, AY_LOG_INFO, "%s: %s, %s for %s, %dx%d pixels, %d text tokens", v->source, m->row->class_name,
           v->form.quantization, v->form.target == AY_TARGET_MACOS15 ? "macOS 15" : "macOS 14", m->width, m->height,
           m->text_length);
    return write_all(v, components, prediction);
}

/* After a stop, what is whole is kept for the next time; after a failure nothing is. */
static void end_partial(conversion *v, alloy_status st) {
    ay_ctx *cx = v->cx;
    if (v->lock < 0) return;
    if (st == ALLOY_E_CANCELLED && v->journal && ay_journal_count(v->journal) > 0) {
        ay_log(cx, AY_LOG_INFO, "%s: %d of %d tensors are whole; the same command goes on from there, or remove the folder", v->partial,
               ay_journal_count(v->journal), v->tensors);
        return;
    }
    char *said = ay_strdup(v->m->arena, ay_error_text(cx)); /* the sentence that matters is the first one */
    ay_remove_tree(cx, v->partial);
    if (said) ay_fail(cx, st, "%s", said);
}

alloy_status ay_convert(ay_ctx *cx, const char *source, const alloy_convert_options *given) {
    alloy_convert_options o = *given;
    if (!o.output_dir) o.output_dir = "converted";
    conversion v = {.cx = cx, .source = source, .o = &o, .lock = -1};
    v.m = calloc(1, sizeof *v.m);
    json_t *components = json_object(), *prediction = json_object();
    alloy_status st = v.m && components && prediction ? ALLOY_OK : ay_nomem(cx);
    if (v.m) v.m->arena = ay_arena_new();
    if (st == ALLOY_OK && !v.m->arena) st = ay_nomem(cx);
    if (st == ALLOY_OK) st = convert(&v, components, prediction);
    if (st != ALLOY_OK) end_partial(&v, st);
    ay_journal_close(&v.journal, false);
    ay_work_end(&v.lock);
    ay_single_close(&v.single);
    for (int i = 0; i < AY_MAX_PARTS; i++) {
        for (int f = 1; f < AY_MAX_SIZES; f++) ay_graph_free(v.work[i].graphs[f]);
        ay_graph_free(v.graphs[i]);
        ay_source_close(&v.sources[i]);
        ay_part_quant_close(&v.quant[i]);
        json_decref(v.configs[i]);
    }
    json_decref(v.configs[AY_MAX_PARTS]);
    json_decref(v.configs[AY_MAX_PARTS + 1]);
    json_decref(components);
    json_decref(prediction);
    if (st == ALLOY_OK) ay_log(cx, AY_LOG_INFO, "wrote %s", v.final);
    if (st == ALLOY_OK && o.report) {
        json_t *j = json_pack("{s:o, s:s, s:s, s:i, s:i, s:i}", "path", ay_json_text(v.final), "type", v.m->row->type, "quantization",
                              v.form.quantization, "width", v.m->width, "height", v.m->height, "text_length",
                              v.m->text_length);
        if (v.loras) json_object_set_new(j, "loras", ay_loras_json(v.loras));
        *o.report = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
        json_decref(j);
        if (!*o.report) st = ay_nomem(cx);
    }
    ay_loras_close(&v.loras);
    ay_model_close(&v.m);
    return st;
}
