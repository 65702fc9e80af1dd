/* SPDX-License-Identifier: MIT
 *
 * Writes a package folder: weights streamed into Data/com.apple.CoreML/weights/weight.bin, then model.mlmodel, then
 * Manifest.json. The same input gives the same bytes: maps are sorted and the manifest's identifiers come from the content.
 */
#include "coreml/emit.h"

#include "base/sha256.h"
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

typedef struct writing {
    ay_emitter e;
    const char *path;
    const ay_function *fn;
    int n_fn;
    bool multi; /* several functions, or one that is not called main: described one by one (macOS 15) */
    AyMil__Model model;
    AyMil__Program program;
    AyMil__ModelDescription description;
} writing;

static void *new_message(ay_emitter *e, const ProtobufCMessageDescriptor *d) {
    ProtobufCMessage *m = ay_emit_alloc(e, d->sizeof_message);
    if (m) protobuf_c_message_init(d, m);
    return m;
}
#define NEW(e, name) new_message(e, &ay_mil__##name##__descriptor)

static char *text(ay_emitter *e, const char *s) {
    char *copy = s && ay_emit_ok(e) ? ay_strdup(e->arena, s) : NULL;
    if (s && !copy && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    return copy ? copy : (char *)(uintptr_t)protobuf_c_empty_string;
}

/* ---- description ------------------------------------------------------------------------------------------------- */

static AyMil__Feature *feature(ay_emitter *e, const char *what, const char *name, const ay_type *type) {
    static const struct {
        ay_dtype dtype;
        AyMil__ArrayDataType code;
    } codes[] = {{AY_F32, AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT32},
                 {AY_F16, AY_MIL__ARRAY_DATA_TYPE__ARRAY_FLOAT16},
                 {AY_I32, AY_MIL__ARRAY_DATA_TYPE__ARRAY_INT32}};
    char shown[160];
    AyMil__Feature *f = NEW(e, feature);
    AyMil__FeatureType *t = NEW(e, feature_type);
    AyMil__ArrayFeatureType *a = NEW(e, array_feature_type);
    int64_t *shape = ay_emit_alloc(e, sizeof type->dim);
    if (!f || !t || !a || !shape) return NULL;
    memcpy(shape, type->dim, sizeof type->dim);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].dtype == type->dtype) a->data_type = codes[i].code;
    if (!a->data_type || type->rank == 0)
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "%s %s is %s; a Core ML model takes and gives arrays of float16, float32 or int32 with "
                     "at least one dimension",
                     what, name, ay_type_text(type, shown));
    a->n_shape = (size_t)type->rank;
    a->shape = shape;
    t->type_case = AY_MIL__FEATURE_TYPE__TYPE_MULTI_ARRAY_TYPE;
    t->multi_array_type = a;
    f->name = text(e, name);
    f->type = t;
    return f;
}

static void describe(ay_emitter *e, const ay_graph *g, size_t *n_in, AyMil__Feature ***in, size_t *n_out,
                     AyMil__Feature ***out) {
    AyMil__Feature **list = ay_emit_alloc(e, (size_t)(g->n_nodes + g->n_outputs + 1) * sizeof *list);
    if (!list) return;
    *in = list;
    *n_in = 0;
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == AY_OP_INPUT) list[(*n_in)++] = feature(e, "input", g->nodes[i].name, &g->nodes[i].type);
    *out = list + *n_in;
    *n_out = (size_t)g->n_outputs;
    for (int i = 0; i < g->n_outputs; i++)
        (*out)[i] = feature(e, "output", g->outputs[i].name, ay_type_of(g, g->outputs[i].value));
    if (g->n_outputs == 0) ay_emit_fail(e, ALLOY_E_MISMATCH, "there is no output");
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(AyMil__StringEntry *const *)a)->key, (*(AyMil__StringEntry *const *)b)->key);
}

static AyMil__Metadata *metadata(ay_emitter *e) {
    const ay_package_options *o = e->opts;
    AyMil__Metadata *m = NEW(e, metadata);
    size_t n = 0;
    if (!m) return NULL;
    m->short_description = text(e, o->description);
    m->author = text(e, o->author);
    m->license = text(e, o->license);
    m->version_string = text(e, o->version);
    while (o->metadata && o->metadata[2 * n]) n++;
    m->user_defined = ay_emit_alloc(e, (n + 1) * sizeof *m->user_defined);
    for (size_t i = 0; i < n && ay_emit_ok(e); i++) {
        AyMil__StringEntry *entry = NEW(e, string_entry);
        if (!entry) return NULL;
        entry->key = text(e, o->metadata[2 * i]);
        entry->value = text(e, o->metadata[2 * i + 1]);
        m->user_defined[m->n_user_defined++] = entry;
    }
    if (m->user_defined && m->n_user_defined > 1) qsort(m->user_defined, m->n_user_defined, sizeof *m->user_defined, by_key);
    return m;
}

/* ---- functions --------------------------------------------------------------------------------------------------- */

static bool keeps(const ay_lower_rule *rule, const ay_graph *g, const ay_node *n) {
    return ay_emit_keeps(*(const ay_target *)rule->user, g, n);
}

alloy_status ay_package_lowered(ay_ctx *cx, const ay_graph *g, ay_target target, ay_graph **out) {
    ay_lower_rule rule = {.keeps = keeps, .user = &target};
    const ay_pass passes[] = {{"fold", ay_pass_fold, NULL},
                              {"lower", ay_pass_lower, &rule},
                              {"fold", ay_pass_fold, NULL},
                              {"dce", ay_pass_dce, NULL}};
    AY_TRY(ay_graph_status(g));
    *out = ay_graph_clone(g);
    if (!*out) return ay_nomem(cx);
    return ay_passes_run(*out, passes, sizeof passes / sizeof *passes);
}

static void add_function(writing *w, const char *name, const ay_graph *g) {
    ay_emitter *e = &w->e;
    const char *opset = e->opts->target >= AY_TARGET_MACOS15 ? "CoreML8" : "CoreML7";
    AyMil__FunctionEntry *entry = NEW(e, function_entry);
    AyMil__Function *f = NEW(e, function);
    AyMil__BlockEntry *special = NEW(e, block_entry);
    AyMil__Block *block = NEW(e, block);
    char **outputs = NULL;
    ay_emit_function(e, name, g, &outputs);
    if (!entry || !f || !special || !block || !ay_emit_ok(e)) return;
    block->outputs = outputs;
    block->n_outputs = (size_t)g->n_outputs;
    block->operations = e->ops;
    block->n_operations = e->n_ops;
    special->key = text(e, opset);
    special->value = block;
    f->opset = text(e, opset);
    f->block_specializations = ay_emit_alloc(e, sizeof *f->block_specializations);
    f->inputs = ay_emit_alloc(e, (size_t)(g->n_nodes + 1) * sizeof *f->inputs);
    if (!ay_emit_ok(e)) return;
    f->block_specializations[0] = special;
    f->n_block_specializations = 1;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        AyMil__NamedValueType *in = n->op == AY_OP_INPUT ? NEW(e, named_value_type) : NULL;
        if (!in) continue;
        in->name = text(e, n->name);
        in->type = ay_emit_value_type(e, n->type.dtype, n->type.rank, n->type.dim);
        f->inputs[f->n_inputs++] = in;
    }
    entry->key = text(e, name);
    entry->value = f;
    size_t at = w->program.n_functions++; /* sorted by name */
    for (; at > 0 && strcmp(w->program.functions[at - 1]->key, name) > 0; at--)
        w->program.functions[at] = w->program.functions[at - 1];
    w->program.functions[at] = entry;
    if (!w->multi) {
        describe(e, g, &w->description.n_input, &w->description.input, &w->description.n_output, &w->description.output);
        return;
    }
    AyMil__FunctionDescription *d = NEW(e, function_description);
    if (!d) return;
    d->name = text(e, name);
    describe(e, g, &d->n_input, &d->input, &d->n_output, &d->output);
    w->description.functions[w->description.n_functions++] = d;
}

static void add_functions(writing *w) {
    ay_emitter *e = &w->e;
    w->program.functions = ay_emit_alloc(e, (size_t)w->n_fn * sizeof *w->program.functions);
    w->description.functions = ay_emit_alloc(e, (size_t)w->n_fn * sizeof *w->description.functions);
    for (int i = 0; i < w->n_fn && ay_emit_ok(e); i++) {
        ay_graph *g = NULL;
        e->function = w->fn[i].name;
        for (int k = 0; k < i; k++)
            if (strcmp(w->fn[k].name, w->fn[i].name) == 0) ay_emit_fail(e, ALLOY_E_USAGE, "two functions have this name");
        if (!ay_name_valid(w->fn[i].name))
            ay_emit_fail(e, ALLOY_E_USAGE, "this is not a name that Core ML takes (letters, digits, underscores)");
        if (ay_emit_ok(e)) e->status = ay_package_lowered(e->cx, w->fn[i].graph, e->opts->target, &g);
        if (ay_emit_ok(e)) add_function(w, w->fn[i].name, g);
        e->g = NULL;
        ay_graph_free(g); /* names were copied; constants are written */
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* "XXXXXXXX-XXXX-8XXX-9XXX-XXXXXXXXXXXX" (a version 8 UUID: vendor-defined) from the digest and a tag. */
static void identifier(const uint8_t digest[32], const char *tag, char out[37]) {
    ay_sha256 sha;
    uint8_t d[32];
    size_t at = 0;
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, digest, 32);
    ay_sha256_add(&sha, tag, strlen(tag));
    ay_sha256_end(&sha, d);
    d[6] = (uint8_t)((d[6] & 0x0f) | 0x80);
    d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out[at++] = '-';
        out[at++] = "0123456789ABCDEF"[d[i] >> 4];
        out[at++] = "0123456789ABCDEF"[d[i] & 15];
    }
    out[at] = 0;
}

static alloy_status write_manifest(ay_ctx *cx, const char *path, const uint8_t digest[32]) {
    static const char item[] = "    \"%s\": {\n      \"author\": \"com.apple.CoreML\",\n      \"description\": \"%s\",\n"
                               "      \"name\": \"%s\",\n      \"path\": \"com.apple.CoreML/%s\"\n    }%s\n";
    char model[37], weights[37];
    ay_buf b = {0};
    identifier(digest, "model", model);
    identifier(digest, "weights", weights);
    ay_buf_printf(&b, "{\n  \"fileFormatVersion\": \"1.0.0\",\n  \"itemInfoEntries\": {\n");
    ay_buf_printf(&b, item, model, "CoreML Model Specification", "model.mlmodel", "model.mlmodel", ",");
    ay_buf_printf(&b, item, weights, "CoreML Model Weights", "weights", "weights", "");
    ay_buf_printf(&b, "  },\n  \"rootModelIdentifier\": \"%s\"\n}\n", model);
    alloy_status s = b.failed ? ay_nomem(cx) : ay_file_write(cx, path, b.data, b.len);
    ay_buf_free(&b);
    return s;
}

static alloy_status write_model(writing *w, const uint8_t weights[32]) {
    ay_emitter *e = &w->e;
    ay_sha256 sha;
    uint8_t digest[32];
    size_t size = ay_mil__model__get_packed_size(&w->model);
    if (size >= INT32_MAX)
        return ay_fail(e->cx, ALLOY_E_UNSUPPORTED,
                       "%s: the program itself would be %zu bytes, and Core ML reads at most 2 GiB", w->path, size);
    uint8_t *bytes = malloc(size + 1);
    if (!bytes) return ay_nomem(e->cx);
    ay_mil__model__pack(&w->model, bytes);
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, weights, 32);
    ay_sha256_add(&sha, bytes, size);
    ay_sha256_end(&sha, digest);
    const char *model = ay_path_join(e->arena, w->path, "Data/com.apple.CoreML/model.mlmodel");
    const char *manifest = ay_path_join(e->arena, w->path, "Manifest.json");
    alloy_status s = model && manifest ? ay_file_write(e->cx, model, bytes, size) : ay_nomem(e->cx);
    if (s == ALLOY_OK) s = write_manifest(e->cx, manifest, digest);
    free(bytes);
    return s;
}

static alloy_status write_all(writing *w) {
    ay_emitter *e = &w->e;
    uint8_t digest[32];
    const char *folder = ay_path_join(e->arena, w->path, "Data/com.apple.CoreML/weights");
    const char *weights = folder ? ay_path_join(e->arena, folder, "weight.bin") : NULL;
    if (!weights) return ay_nomem(e->cx);
    AY_TRY(ay_mkdirs(e->cx, folder));
    AY_TRY(ay_weight_writer_open(e->cx, weights, e->opts->from, &e->blobs));
    w->model.description->metadata = metadata(e);
    add_functions(w);
    if (!ay_emit_ok(e)) return e->status;
    AY_TRY(ay_weight_writer_close(&e->blobs, digest));
    if (e->opts->weight_digest) memcpy(e->opts->weight_digest, digest, sizeof digest);
    return write_model(w, digest);
}

static void begin(writing *w) {
    ay_mil__model__init(&w->model);
    ay_mil__program__init(&w->program);
    ay_mil__model_description__init(&w->description);
    w->model.specification_version = w->e.opts->target >= AY_TARGET_MACOS15 ? 9 : 8;
    w->model.description = &w->description;
    w->model.type_case = AY_MIL__MODEL__TYPE_ML_PROGRAM;
    w->model.ml_program = &w->program;
    w->program.version = 1;
    w->multi = w->n_fn > 1 || strcmp(w->fn[0].name, "main") != 0;
    if (w->multi) w->description.default_function_name = (char *)(uintptr_t)w->fn[0].name;
    ay_names_init(&w->e.stored, w->e.arena);
}

alloy_status ay_package_write(ay_ctx *cx, const char *path, const ay_function *fn, int n_fn, const ay_package_options *opts,
                              ay_arena *arena, ay_weight_entry **entries, int *n_entries) {
    if (n_fn < 1) return ay_fail(cx, ALLOY_E_USAGE, "%s: a package needs at least one function", path);
    if (!opts->from && ay_path_kind_of(path) != AY_PATH_NONE)
        return ay_fail(cx, ALLOY_E_USAGE, "%s is there already; remove it or name another folder", path);
    writing w = {.path = path, .fn = fn, .n_fn = n_fn};
    w.e = (ay_emitter){.cx = cx, .opts = opts, .function = fn[0].name, .at = -1};
    w.e.arena = ay_arena_new();
    if (!w.e.arena) return ay_nomem(cx);
    if (entries) w.e.entry_arena = arena;
    begin(&w);
    alloy_status s = ALLOY_OK;
    if (w.multi && opts->target < AY_TARGET_MACOS15)
        s = ay_fail(cx, ALLOY_E_UNSUPPORTED,
                    "several functions, or one that is not called main, need macOS 15; write one package for each");
    if (s == ALLOY_OK) s = write_all(&w);
    ay_weight_writer_abandon(&w.e.blobs);
    if (s == ALLOY_OK && entries) {
        *entries = w.e.entries;
        *n_entries = w.e.n_entries;
    } else if (s != ALLOY_OK) {
        ay_fail_prefix(cx, "%s: ", path);
    }
    ay_arena_free(w.e.arena);
    return s;
}
