/* SPDX-License-Identifier: MIT
 *
 * Validation of packages and model folders. In a model folder each package is checked on its own, then against alloy.json:
 * that it is the component it stands for, that the weight table binds, that the sizes belong together, and that the
 * tokenizers can be read.
 */
#include "pipe/pipe.h"

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

static const ay_package_function *default_function(const ay_package_info *info) {
    for (int i = 0; i < info->n_functions; i++) {
        if (info->default_function && strcmp(info->functions[i].name, info->default_function) == 0) return &info->functions[i];
    }
    return info->n_functions ? &info->functions[0] : NULL;
}

/* The package's inputs and outputs against those of the component that alloy.json describes. */
static alloy_status check_component(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const char *path, finder *f, int *findings) {
    ay_package *p = NULL;
    ay_graph *g = NULL;
    alloy_status st = take(cx, f, ay_package_open(cx, path, &p), findings);
    if (st == ALLOY_OK && p) st = take(cx, f, ay_part_graph(cx, part, &part->sizes, m->precision, NULL, &g), findings);
    const ay_package_function *fn = st == ALLOY_OK && g ? default_function(ay_package_describe(p)) : NULL;
    if (fn) st = check_values(cx, g, fn->inputs, fn->n_inputs, true, f, findings);
    if (fn && st == ALLOY_OK) st = check_values(cx, g, fn->outputs, fn->n_outputs, false, f, findings);
    ay_graph_free(g);
    ay_package_close(&p);
    return st;
}

static alloy_status check_part(ay_ctx *cx, const ay_model *m, const ay_model_part *part, finder *f, int *findings) {
    int found = 0, warnings = 0;
    char *path = ay_sprintf(m->arena, "%s/%s.mlpackage", m->dir, part->row->package);
    if (!path) return ay_nomem(cx);
    f->prefix = ay_path_base(path);
    alloy_status st = take(cx, f, ay_package_validate(cx, path, pass_on, f, &found, &warnings), &found);
    if (st == ALLOY_OK && !found) st = check_component(cx, m, part, path, f, &found);
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
