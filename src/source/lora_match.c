/* SPDX-License-Identifier: MIT
 *
 * Which parameters an adapter's layers are for: every name that a parameter has in any naming of its architecture, behind
 * every beginning that trainers give a component, is looked up among the file's layers with dots and underscores alike.
 */
#include "source/lora_internal.h"

#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what stands before a layer's name -------------------------------------------------------------------------------- */

/* Folders are a diffusers pipeline's; "" is the denoiser's. kohya's third text encoder may be the second of the pipeline. */
static const struct {
    const char *beginning, *folder;
    bool any; /* of several components: one of another shape is not meant */
} beginnings[] = {
    {"unet_", "", false},
    {"transformer_", "", false},
    {"lora_unet_", "", false},
    {"lora_transformer_", "", false},
    {"lycoris_", "", false},
    {"diffusion_model_", "", false},
    {"model_diffusion_model_", "", false},
    {"", "", false},
    {"text_encoder_", "text_encoder", false},
    {"lora_te_", "text_encoder", false},
    {"lora_te1_", "text_encoder", false},
    {"text_encoder_2_", "text_encoder_2", false},
    {"lora_te2_", "text_encoder_2", false},
    {"lora_te3_", "text_encoder_2", false},
    {"text_encoder_3_", "text_encoder_3", false},
    {"lora_te3_", "text_encoder_3", false},
    {"text_encoders_", "text_encoder", true},
    {"text_encoders_", "text_encoder_2", true},
    {"text_encoders_", "text_encoder_3", true},
};
enum { BEGINNINGS = sizeof beginnings / sizeof beginnings[0] };

static bool is_text(const char *folder) { return strncmp(folder, "text_encoder", 12) == 0; }

static bool for_folder(int i, const char *folder) {
    const char *f = beginnings[i].folder;
    return *f ? strcmp(f, folder) == 0 : strcmp(folder, "unet") == 0 || strcmp(folder, "transformer") == 0;
}

/* ---- names of one parameter ---------------------------------------------------------------------------------------------- */

static lora_module *find_key(const lora_file *f, const char *key) {
    int lo = 0, hi = f->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (strcmp(f->modules[mid].key, key) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo < f->n && strcmp(f->modules[lo].key, key) == 0 ? &f->modules[lo] : NULL;
}

/* "a.b.weight" to "a_b"; whether it is a bias. False: neither. */
static bool layer_of(const char *param, char *text, size_t cap, bool *bias) {
    static const char *const endings[] = {".weight", ".bias", ".scale"};
    size_t n = strlen(param);
    for (int i = 0; i < 3; i++) {
        size_t m = strlen(endings[i]);
        if (n <= m || strcmp(param + n - m, endings[i]) != 0 || n - m >= cap) continue;
        for (size_t k = 0; k < n - m; k++) text[k] = param[k] == '.' ? '_' : param[k];
        text[n - m] = 0;
        *bias = i == 1;
        return true;
    }
    return false;
}

static bool has_part(const lora_module *m, bool bias) { return bias ? m->bias > 0 : m->form != FORM_NONE; }

typedef struct match {
    const ay_arch *arch;
    const void *cfg;
    const char *folder;
    ay_lora_param *param; /* being matched */
} match;

/* The offset of the parameter's rows among the module's; false: these shapes are not of one layer. */
static bool fit(const lora_module *m, bool bias, const ay_recipe *r, const ay_type *t, int64_t *offset, bool *swapped) {
    int64_t n = ay_lora_rows(t), count = ay_type_count(t), cols = n ? count / n : 0;
    int64_t rows = bias ? m->bias : m->rows, have = bias ? 1 : m->cols;
    *offset = 0;
    *swapped = r->take == AY_TAKE_SWAPPED;
    if (have != cols || n < 1) return false;
    if (r->take == AY_TAKE_PART) *offset = r->part * n;
    if (r->take == AY_TAKE_LAST) *offset = rows - n;
    bool fused = r->take == AY_TAKE_PART || r->take == AY_TAKE_LAST;
    return fused ? *offset >= 0 && *offset + n <= rows : rows == n && r->take != AY_TAKE_TRANSPOSED && (!*swapped || n % 2 == 0);
}

static alloy_status another_model(ay_ctx *cx, const lora_file *f, const lora_module *m, bool bias, const ay_recipe *r, const match *x) {
    char want[160], found[64];
    if (bias) snprintf(found, sizeof found, "%lld numbers", (long long)m->bias);
    else snprintf(found, sizeof found, "%lld x %lld", (long long)m->rows, (long long)m->cols);
    return ay_fail(cx, ALLOY_E_MISMATCH,
                   "%s: \"%s\" makes a difference of %s, but %s\"%s\" of this model's %s is %s: the LoRA was made for another model",
                   f->path, m->name, found, r->take == AY_TAKE_PART || r->take == AY_TAKE_LAST ? "its part " : "", x->param->name, x->folder,
                   strchr(ay_type_text(&x->param->type, want), '['));
}

/* An adapter of the plain model on its variant for inpainting, or the other way: all of it fits but the layer that reads the
 * sample, which ComfyUI leaves out with a word (comfy/weight_adapter/lora.py: calculate_weight). */
static bool reads_sample(const match *x) { return x->arch->first_layer && strcmp(x->param->name, x->arch->first_layer) == 0; }

static alloy_status add_patch(ay_ctx *cx, const lora_file *f, lora_module *m, bool bias, const ay_recipe *r, const match *x) {
    lora_patch p = {.module = m, .bias = bias, .strength = is_text(x->folder) ? f->text_strength : f->strength};
    if (!fit(m, bias, r, &x->param->type, &p.offset, &p.swapped)) {
        m->other_input = !bias && reads_sample(x) && r->take == AY_TAKE_ALL && m->rows == ay_lora_rows(&x->param->type);
        return m->other_input ? ALLOY_OK : another_model(cx, f, m, bias, r, x);
    }
    if (p.strength != 0) x->param->patches[x->param->n++] = p;
    if (bias) m->bias_uses++;
    else m->weight_uses++;
    return ALLOY_OK;
}

/* One parameter and one file: the first name that the file has. */
static alloy_status match_file(ay_ctx *cx, const lora_file *f, const match *x) {
    const ay_naming also = {.name = "adapters", .aliases = x->arch->lora_aliases}, own = {.name = "own"};
    const lora_module *taken = NULL;
    char layer[256], key[320];
    for (int pass = 0;; pass++) {
        const ay_naming *naming = pass == 0 ? &own : pass == 1 ? &also : x->arch->namings ? &x->arch->namings[pass - 2] : NULL;
        if (!naming || !naming->name) return ALLOY_OK;
        ay_recipe r;
        for (int k = 0; ay_recipe_of(x->arch, naming, x->cfg, x->param->name, k, &r); k++) {
            bool bias;
            if (!layer_of(r.name, layer, sizeof layer, &bias)) continue;
            for (int i = 0; i < BEGINNINGS; i++) {
                if (!for_folder(i, x->folder)) continue;
                snprintf(key, sizeof key, "%s%s", beginnings[i].beginning, layer);
                lora_module *m = find_key(f, key);
                if (!m || m == taken || !has_part(m, bias)) continue;
                if (beginnings[i].any && !fit(m, bias, &r, &x->param->type, &(int64_t){0}, &(bool){false})) continue;
                if (taken) m->twin = true;
                else AY_TRY(add_patch(cx, f, m, bias, &r, x));
                taken = taken ? taken : m;
            }
        }
    }
}

/* ---- one component --------------------------------------------------------------------------------------------------------- */

static int by_name(const void *x, const void *y) {
    const ay_lora_param *a = x, *b = y;
    return strcmp(a->name, b->name);
}

/* For fused layers: where else a module's rows go. */
static alloy_status link_back(ay_ctx *cx, ay_arena *a, ay_lora_part *p) {
    for (int i = 0; i < p->n; i++) {
        for (int k = 0; k < p->params[i].n; k++) {
            lora_module *m = p->params[i].patches[k].module;
            if (p->params[i].patches[k].bias || m->norm != NORM_COLUMNS) continue;
            if (!m->params) m->params = ay_alloc(a, (size_t)(m->weight_uses + 1) * sizeof *m->params);
            if (!m->params) return ay_nomem(cx);
            int at = 0;
            while (m->params[at]) at++;
            m->params[at] = &p->params[i];
        }
    }
    return ALLOY_OK;
}

static void stamp(const ay_loras *l, ay_lora_part *p) {
    ay_sha256 h;
    uint8_t digest[32];
    ay_sha256_init(&h);
    for (int i = 0; i < l->n; i++) {
        ay_sha256_add(&h, l->files[i].hash, 64);
        ay_sha256_add(&h, &l->files[i].strength, sizeof(double));
        ay_sha256_add(&h, &l->files[i].text_strength, sizeof(double));
    }
    ay_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(p->stamp + 2 * i, 3, "%02x", digest[i]);
}

static alloy_status match_params(ay_ctx *cx, ay_loras *l, const ay_graph *g, match *x, ay_lora_part *p) {
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        x->param = &p->params[p->n];
        *x->param = (ay_lora_param){.name = ay_strdup(l->arena, n->name), .type = n->type, .part = p};
        x->param->patches = ay_alloc(l->arena, (size_t)l->n * sizeof *x->param->patches);
        if (!x->param->name || !x->param->patches) return ay_nomem(cx);
        for (int k = 0; k < l->n; k++) AY_TRY(match_file(cx, &l->files[k], x));
        if (x->param->n) p->n++;
    }
    qsort(p->params, (size_t)p->n, sizeof *p->params, by_name);
    return link_back(cx, l->arena, p);
}

alloy_status ay_loras_attach(ay_ctx *cx, ay_loras *l, ay_source *s, const ay_arch *arch, const void *cfg, const char *folder,
                             const ay_graph *g) {
    match x = {arch, cfg, folder, NULL};
    ay_lora_part *p = ay_alloc(l->arena, sizeof *p), **more = realloc(l->parts, (size_t)(l->n_parts + 1) * sizeof *more);
    if (more) l->parts = more;
    if (!p || !more) return ay_nomem(cx);
    p->source = s;
    p->arch = arch;
    p->params = ay_alloc(l->arena, (size_t)(g->n_nodes + 1) * sizeof *p->params);
    if (!p->params) return ay_nomem(cx);
    l->parts[l->n_parts++] = p;
    AY_TRY(match_params(cx, l, g, &x, p));
    stamp(l, p);
    if (p->n) ay_source_adapt(s, p);
    return ALLOY_OK;
}

ay_lora_param *ay_lora_find(const ay_lora_part *p, const char *name) {
    const ay_lora_param key = {.name = name};
    return p ? bsearch(&key, p->params, (size_t)p->n, sizeof *p->params, by_name) : NULL;
}

const char *ay_lora_stamp(const ay_lora_part *p) { return p->stamp; }

/* ---- what became of it -------------------------------------------------------------------------------------------------------- */

void ay_loras_leave_out(ay_loras *l, const char *folder) {
    for (int f = 0; f < l->n; f++) {
        for (int i = 0; i < l->files[f].n; i++) {
            lora_module *m = &l->files[f].modules[i];
            int best = -1;
            for (int k = 0; k < BEGINNINGS; k++) { /* the longest that fits says what it is for */
                size_t n = strlen(beginnings[k].beginning), most = best < 0 ? 0 : strlen(beginnings[best].beginning);
                if (strncmp(m->key, beginnings[k].beginning, n) == 0 && (best < 0 || n > most || (n == most && for_folder(k, folder)))) best = k;
            }
            if (for_folder(best, folder)) m->left_out = true;
        }
    }
}

static void count(const lora_module *m, int *tensors, int *applied) {
    for (int r = 0; r < ROLES; r++) {
        if (!m->role[r]) continue;
        bool bias = r == ROLE_DIFF_B || r == ROLE_UP_BIAS, used = bias ? m->bias_uses > 0 : r == ROLE_ALPHA ? m->weight_uses + m->bias_uses > 0 : m->weight_uses > 0;
        (*tensors)++;
        *applied += used;
    }
}

static void count_file(const lora_file *f, int *tensors, int *applied, int *left_out) {
    *tensors = f->n_strange;
    *applied = *left_out = 0;
    for (int i = 0; i < f->n; i++) {
        int n = 0, used = 0;
        count(&f->modules[i], &n, &used);
        *tensors += n;
        *applied += used;
        if (f->modules[i].left_out) *left_out += n - used;
    }
}

enum { NAMED = 5 };

static void name_one(ay_buf *b, int *n, const char *name, const char *why) {
    if ((*n)++ < NAMED) ay_buf_printf(b, "%s\"%s\"%s", *n > 1 ? ", " : "", name, why);
}

/* Layers of which something was not applied, the first few by name. */
static int name_rest(const lora_file *f, ay_buf *b) {
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        const lora_module *m = &f->modules[i];
        int all = 0, used = 0;
        count(m, &all, &used);
        if (all == used || m->left_out) continue;
        name_one(b, &n, m->name, m->twin && !used ? " (the file has it twice)" : m->other_input ? " (made for another number of input channels)" : used ? " (in part)" : "");
    }
    for (int i = 0; i < f->n_strange; i++) name_one(b, &n, f->strange[i], "");
    if (n > NAMED) ay_buf_printf(b, " and %d more", n - NAMED);
    return n;
}

static alloy_status report_file(ay_ctx *cx, const lora_file *f) {
    int tensors, applied, left_out;
    count_file(f, &tensors, &applied, &left_out);
    ay_buf rest = {0};
    int n = name_rest(f, &rest);
    alloy_status st = ALLOY_OK;
    if (applied == 0 && left_out == tensors)
        st = ay_fail(cx, ALLOY_E_MISMATCH, "%s: all of it is for components that --components leaves out; name them too, or leave the LoRA out",
                     f->path);
    else if (applied == 0)
        st = ay_fail(cx, ALLOY_E_MISMATCH, "%s: none of its %d keys belongs to a layer of this model (%s); the LoRA was made for another model", f->path,
                     tensors, rest.data ? rest.data : "");
    else
        ay_log(cx, n ? AY_LOG_WARN : AY_LOG_INFO, "%s: %d of %d keys applied, strength %g, text %g%s%s", f->path, applied, tensors, f->strength,
               f->text_strength, n ? "; not applied, as this model has no such layer: " : left_out ? "; the others are for components left out" : "",
               n && rest.data ? rest.data : "");
    ay_buf_free(&rest);
    return st;
}

alloy_status ay_loras_report(ay_ctx *cx, const ay_loras *l) {
    for (int i = 0; l && i < l->n; i++) AY_TRY(report_file(cx, &l->files[i]));
    return ALLOY_OK;
}

json_t *ay_loras_json(const ay_loras *l) {
    json_t *list = json_array();
    for (int i = 0; l && i < l->n; i++) {
        const lora_file *f = &l->files[i];
        int tensors, applied, left_out;
        count_file(f, &tensors, &applied, &left_out);
        json_array_append_new(list, json_pack("{s:o, s:s, s:f, s:f, s:i, s:i}", "file", ay_json_text(ay_path_base(f->path)), "sha256", f->hash,
                                              "strength", f->strength, "text_strength", f->text_strength, "keys", tensors, "applied", applied));
    }
    return list;
}
