/* SPDX-License-Identifier: MIT
 *
 * Validation of packages and model folders. In a model folder each package is checked on its own, then against alloy.json:
 * that it is the component it stands for, that the weight table binds, that the sizes belong together, and that the
 * tokenizers can be read.
 */
#include "pipe/pipe.h"

#include <stdio.h>
#include <string.h>

typedef struct finder {
    alloy_finding_fn fn;
    void *user;
    const char *prefix;
} finder;

static void pass_on(void *user, bool warning, const char *text) {
    finder *f = user;
    if (!f->fn) return;
    ay_buf line = {0};
    ay_buf_printf(&line, "%s%s%s", f->prefix, *f->prefix ? ": " : "", text);
    f->fn(f->user, warning, line.data ? line.data : text);
    ay_buf_free(&line);
}

static void find(finder *f, int *findings, const char *text) {
    pass_on(f, false, text);
    ++*findings;
}

/* What is wrong with the folder is a finding; what keeps us from looking is a failure. */
static alloy_status take(ay_ctx *cx, finder *f, alloy_status st, int *findings) {
    if (st != ALLOY_E_MISMATCH && st != ALLOY_E_FORMAT && st != ALLOY_E_IO && st != ALLOY_E_USAGE && st != ALLOY_E_UNSUPPORTED) return st;
    find(f, findings, ay_error_text(cx));
    return ALLOY_OK;
}

static const ay_type *value_of(const ay_graph *g, const char *name, bool input) {
    for (int i = 0; input && i < g->n_nodes; i++) {
        if (g->nodes[i].op == AY_OP_INPUT && strcmp(g->nodes[i].name, name) == 0) return &g->nodes[i].type;
    }
    for (int i = 0; !input && i < g->n_outputs; i++) {
        if (strcmp(g->outputs[i].name, name) == 0) return ay_type_of(g, g->outputs[i].value);
    }
    return NULL;
}

/* Each value of the package is one of the graph's: a package of another component or size has others. The graph may have more
 * outputs than a package that an earlier alloy wrote. */
static alloy_status check_values(ay_ctx *cx, const ay_graph *g, const ay_tensor *t, int n, bool input, finder *f, int *findings) {
    const char *kind = input ? "input" : "output";
    for (int i = 0; i < n; i++) {
        const ay_type *want = value_of(g, t[i].name, input);
        char found[160], wanted[160];
        if (want && ay_type_equal(&t[i].type, want)) continue;
        if (want) {
            ay_fail(cx, ALLOY_E_MISMATCH, "%s \"%s\" is %s, alloy.json's configuration and sizes make it %s", kind, t[i].name,
                    ay_type_text(&t[i].type, found), ay_type_text(want, wanted));
        } else {
            ay_fail(cx, ALLOY_E_MISMATCH, "%s \"%s\" is none that the component described in alloy.json has", kind, t[i].name);
        }
        AY_TRY(take(cx, f, ALLOY_E_MISMATCH, findings));
    }
    return ALLOY_OK;
}

static const ay_package_function *function_named(const ay_package_info *info, const char *name) {
    for (int i = 0; i < info->n_functions; i++) {
        if (strcmp(info->functions[i].name, name) == 0) return &info->functions[i];
    }
    return NULL;
}

/* Inputs and outputs of one function of the package, or of the chain, against those of the graph that alloy.json describes. */
static alloy_status check_function(ay_ctx *cx, const ay_model *m, const ay_model_part *part, ay_package *p, int f, finder *fi, int *findings) {
    const ay_part_function *fn = &part->functions[f];
    const ay_package_function *there = p ? function_named(ay_package_describe(p), fn->name) : NULL;
    ay_component *c = NULL;
    ay_graph *g = NULL;
    const ay_tensor *in = there ? there->inputs : NULL, *out = there ? there->outputs : NULL;
    int n_in = there ? there->n_inputs : 0, n_out = there ? there->n_outputs : 0;
    alloy_status st = take(cx, fi, ay_part_graph(cx, part, &fn->sizes, m->precision, NULL, &g), findings);
    if (p && !there) {
        ay_fail(cx, ALLOY_E_MISMATCH, "there is no function \"%s\", which alloy.json names", fn->name);
        find(fi, findings, ay_error_text(cx));
    } else if (st == ALLOY_OK && g && !p) {
        st = take(cx, fi, ay_component_open(cx, m, part->row->package, &fn->sizes, NULL, &c), findings);
        if (c) in = ay_component_inputs(c, &n_in), out = ay_component_outputs(c, &n_out);
    }
    if (st == ALLOY_OK && g && in) st = check_values(cx, g, in, n_in, true, fi, findings);
    if (st == ALLOY_OK && g && out) st = check_values(cx, g, out, n_out, false, fi, findings);
    ay_component_close(&c);
    ay_graph_free(g);
    return st;
}

static alloy_status check_component(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const char *path, finder *f, int *findings) {
    ay_package *p = NULL;
    alloy_status st = part->n_links == 1 ? take(cx, f, ay_package_open(cx, path, &p), findings) : ALLOY_OK;
    for (int i = 0; i < part->n_functions && st == ALLOY_OK && (p || part->n_links > 1); i++) st = check_function(cx, m, part, p, i, f, findings);
    ay_package_close(&p);
    return st;
}

/* The weight file's bytes are those that were written, as far as alloy.json knows (earlier versions did not note it). */
static alloy_status check_digest(ay_ctx *cx, const ay_model *m, const ay_model_part *part, int k, finder *f, int *findings) {
    const json_t *entry = json_object_get(json_object_get(m->json, "components"), part->row->package);
    const char *want = json_string_value(json_array_get(json_object_get(entry, "weight_digests"), (size_t)k));
    ay_package *p;
    uint8_t digest[32];
    char hex[65];
    if (!want) return ALLOY_OK;
    char *name = ay_part_package(m->arena, part, k), *path = name ? ay_sprintf(m->arena, "%s/%s.mlpackage", m->dir, name) : NULL;
    if (!path) return ay_nomem(cx);
    f->prefix = ay_path_base(path);
    AY_TRY(ay_package_open(cx, path, &p));
    alloy_status st = ay_package_weight_digest(p, digest);
    ay_package_close(&p);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    if (st == ALLOY_OK && strcmp(hex, want) != 0) {
        find(f, findings, "weights/weight.bin: its bytes are not those that were written; the file was changed or damaged, convert the model again");
    }
    return st;
}

static alloy_status check_part(ay_ctx *cx, const ay_model *m, const ay_model_part *part, finder *f, int *findings) {
    int found = 0;
    char *path = NULL;
    alloy_status st = ALLOY_OK;
    for (int k = 0; k < part->n_links && st == ALLOY_OK; k++) {
        int own = 0, warnings = 0;
        char *name = ay_part_package(m->arena, part, k);
        path = name ? ay_sprintf(m->arena, "%s/%s.mlpackage", m->dir, name) : NULL;
        if (!path) return ay_nomem(cx);
        f->prefix = ay_path_base(path);
        st = take(cx, f, ay_package_validate(cx, path, pass_on, f, &own, &warnings), &own);
        found += own;
    }
    if (part->n_links > 1) f->prefix = part->row->package;
    if (st == ALLOY_OK && !found) st = check_component(cx, m, part, path, f, &found);
    for (int k = 0; k < part->n_links && st == ALLOY_OK && !found; k++) st = check_digest(cx, m, part, k, f, &found);
    if (st == ALLOY_OK && !found) { /* the weight table must bind too: build the graph anew, as another size would */
        ay_component *c = NULL;
        ay_sizes other = part->sizes;
        other.batch += 1;
        st = take(cx, f, ay_component_open(cx, m, part->row->package, &other, NULL, &c), &found);
        ay_component_close(&c);
    }
    *findings += found;
    return st;
}

/* What was said once for the whole model against what was said for each component. */
static alloy_status check_sizes(ay_ctx *cx, const ay_model *m, finder *f, int *findings) {
    for (const ay_part_row *row = m->row->parts; row->package; row++) {
        if (!row->optional && !ay_model_find(m, row->package)) return ALLOY_OK; /* converted in part: nothing to compare */
    }
    for (int i = 0; i < m->n_parts; i++) {
        const ay_model_part *part = &m->parts[i];
        ay_sizes s = {0};
        int before = *findings;
        AY_TRY(take(cx, f, m->row->sizes(cx, m, part->row, m->width, m->height, m->text_length, &s), findings));
        if (*findings > before) return ALLOY_OK; /* the same would be said of each */
        s.control = part->sizes.control;
        if (memcmp(&s, &part->sizes, sizeof s) == 0) continue;
        ay_fail(cx, ALLOY_E_MISMATCH, "the sizes of %s are not those of a model for %dx%d pixels and %d text tokens", part->row->package,
                m->width, m->height, m->text_length);
        find(f, findings, ay_error_text(cx));
    }
    return ALLOY_OK;
}

static alloy_status check_tokenizers(ay_ctx *cx, const ay_model *m, finder *f, int *findings) {
    for (const char *const *name = m->row->tokenizers; *name; name++) {
        ay_tokenizer *t = NULL;
        if (!ay_tokenizer_needed(m, *name)) continue;
        char *dir = ay_path_join(m->arena, m->dir, *name);
        if (!dir) return ay_nomem(cx);
        AY_TRY(take(cx, f, ay_tokenizer_open(cx, dir, &t), findings));
        ay_tokenizer_close(&t);
    }
    return ALLOY_OK;
}

static alloy_status validate_model(ay_ctx *cx, const char *path, finder *f, int *findings) {
    ay_model *m = NULL;
    alloy_status st = take(cx, f, ay_model_open(cx, path, &m), findings);
    if (!m) return st;
    f->prefix = "alloy.json";
    st = check_sizes(cx, m, f, findings);
    f->prefix = "";
    if (st == ALLOY_OK) st = check_tokenizers(cx, m, f, findings);
    for (int i = 0; i < m->n_parts && st == ALLOY_OK; i++) st = check_part(cx, m, &m->parts[i], f, findings);
    ay_model_close(&m);
    return st;
}

alloy_status ay_validate_path(ay_ctx *cx, const char *path, alloy_finding_fn fn, void *user, int *findings) {
    finder f = {fn, user, ""};
    int warnings = 0;
    *findings = 0;
    if (ay_path_kind_of(path) == AY_PATH_NONE) return ay_path_fail(cx, path);
    ay_arena *a = ay_arena_new();
    char *manifest = a ? ay_path_join(a, path, "alloy.json") : NULL;
    alloy_status st;
    if (!manifest) st = ay_nomem(cx);
    else if (ay_path_kind_of(manifest) == AY_PATH_FILE) st = validate_model(cx, path, &f, findings);
    else st = ay_package_validate(cx, path, pass_on, &f, findings, &warnings);
    ay_arena_free(a);
    return st;
}
