/* SPDX-License-Identifier: MIT
 *
 * A checkpoint of one file: which pipeline it is, which of its components are in it, and what their configurations are, told
 * from the names and shapes of its tensors. The rows that say where components lie are the pipelines' (ay_file_part), the
 * names inside a component the architectures' (ay_naming).
 */
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

/* ---- one component ----------------------------------------------------------------------------------------------------- */

/* Any architecture of the class: decoder and encoder of one class share their names. */
static const ay_arch *arch_of(const char *class_name) {
    int n;
    const ay_arch *const *rows = ay_arch_list(&n);
    for (int i = 0; i < n; i++) {
        if (strcmp(rows[i]->class_name, class_name) == 0) return rows[i];
    }
    return NULL;
}

/* A list of equal values is often written as one of them. */
static const json_t *collapsed(const json_t *v) {
    size_t n = json_array_size(v);
    for (size_t i = 1; i < n; i++) {
        if (!json_equal(json_array_get(v, i), json_array_get(v, 0))) return v;
    }
    return n ? json_array_get(v, 0) : json_is_null(v) ? NULL : v;
}

static bool same_values(const json_t *a, const json_t *b, const char *const *keys) {
    for (; keys && *keys; keys++) {
        const json_t *x = collapsed(json_object_get(a, *keys)), *y = collapsed(json_object_get(b, *keys));
        if ((x || y) && !json_equal(x, y)) return false;
    }
    return true;
}

/* config.json: the shapes' word first, then that of a base of the same widths, then the published models'. */
static json_t *configure(const ay_naming *naming, const ay_names *names, const json_t *base, const char *facts) {
    json_t *told = naming->derive(names, NULL);
    bool fits = base && told && same_values(told, base, naming->same);
    if (!told || !fits) {
        json_t *known = facts && told ? json_loads(facts, 0, NULL) : NULL;
        if (known) json_object_update_missing(told, known);
        json_decref(known);
        return told;
    }
    json_decref(told);
    told = naming->derive(names, base);
    json_t *all = told ? json_deep_copy(base) : NULL;
    if (all && json_object_update(all, told) != 0) {
        json_decref(all);
        all = NULL;
    }
    json_decref(told);
    return all;
}

/* Whether the row's component is in the file; then *part says how. `base`: its config.json elsewhere, or NULL. */
static bool find_part(ay_source *s, const ay_file_part *row, const json_t *base, ay_single_part *part) {
    const ay_arch *arch = arch_of(row->class_name);
    for (const ay_naming *n = arch ? arch->namings : NULL; n && n->name; n++) {
        ay_source_focus(s, row->prefix, row->flat, n, NULL);
        ay_names names = ay_source_names(s);
        if (!n->derive || !ay_naming_fits(n, &names)) continue;
        json_t *config = configure(n, &names, base, row->facts);
        if (!config) continue;
        *part = (ay_single_part){.row = row, .naming = n, .config = config};
        return true;
    }
    return false;
}

/* ---- the whole file ------------------------------------------------------------------------------------------------------ */

/* Whether the pipeline's first component is in the file, with a configuration that it takes. */
static bool row_fits(ay_source *s, const ay_pipe_row *row) {
    const ay_file_part *p = row->file_parts;
    for (const char *folder = p ? p->folder : NULL; folder && p->folder && strcmp(p->folder, folder) == 0; p++) {
        ay_single_part first;
        if (!find_part(s, p, NULL, &first)) continue;
        bool fits = !row->file_fits || row->file_fits(first.config);
        json_decref(first.config);
        if (fits) return true;
    }
    return false;
}

/* Of several, the one asked for; then one that is whole by itself, a ControlNet, since the model that it was trained on is beside
 * it for its sake; then the first. */
static void find_row(ay_single *s, const char *type) {
    int n, best = -1;
    const ay_pipe_row *const *rows = ay_pipe_list(&n);
    for (int i = 0; i < n; i++) {
        if (!row_fits(s->source, rows[i])) continue;
        int rank = type && strcmp(type, rows[i]->type) == 0 ? 2 : rows[i]->single;
        if (rank > best) {
            s->also = s->row;
            s->row = rows[i];
            best = rank;
        } else if (!s->also) {
            s->also = rows[i];
        }
    }
    ay_source_focus(s->source, "", false, NULL, NULL);
}

/* A component that a file which is no checkpoint may be, and how many of the names by which it is known are there. */
typedef struct likeness {
    const ay_arch *arch;
    const ay_naming *naming;
    const char *prefix, *missing; /* the first name that is not there, or NULL */
    int there, all;
} likeness;

/* The likest: by its share of the names. */
static void compare(ay_source *s, const ay_arch *arch, const char *prefix, likeness *best) {
    for (const ay_naming *k = arch ? arch->namings : NULL; k && k->name; k++) {
        likeness l = {.arch = arch, .naming = k, .prefix = prefix};
        ay_source_focus(s, prefix, false, k, NULL);
        ay_names names = ay_source_names(s);
        for (const char *const *key = k->keys; *key; key++, l.all++) {
            if (names.find(&names, *key)) l.there++;
            else if (!l.missing) l.missing = *key;
        }
        if (l.there * best->all > best->there * l.all || !best->arch) *best = l;
    }
}

static likeness find_likeness(ay_source *s) {
    int n;
    likeness best = {.arch = NULL};
    const ay_pipe_row *const *pipes = ay_pipe_list(&n);
    for (int i = 0; i < n; i++) {
        for (const ay_file_part *p = pipes[i]->file_parts; p && p->folder; p++) {
            if (!p->flat) compare(s, arch_of(p->class_name), p->prefix, &best);
        }
    }
    const ay_arch *const *rows = ay_arch_list(&n);
    for (int i = 0; i < n; i++) compare(s, rows[i], "", &best);
    return best;
}

/* Of a file that is a component and no more, or a part of one. ALLOY_OK: it is neither. */
static alloy_status fail_if_alike(ay_ctx *cx, ay_source *s, const char *path) {
    likeness l = find_likeness(s);
    if (l.there < 2 || 2 * l.there < l.all) return ALLOY_OK;
    const char *class_name = l.arch->class_name, *who = l.naming->name;
    if (l.missing) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: has tensors of %s in the names of %s, but no \"%s%s\"; is the file complete?", path, class_name, who, l.prefix, l.missing);
    ay_source_focus(s, l.prefix, false, l.naming, NULL);
    ay_names names = ay_source_names(s);
    json_t *config = l.naming->derive ? l.naming->derive(&names, NULL) : NULL;
    bool whole = config != NULL;
    json_decref(config);
    if (!whole) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: begins like %s in the names of %s, but its %lld tensors are no whole one that is known here; is the file complete?",
                       path, class_name, who, (long long)ay_source_count(s));
    }
    return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: holds nothing but the component %s, in the names of %s; a checkpoint to convert has at least the denoiser", path,
                   class_name, who);
}

static alloy_status not_known(ay_ctx *cx, ay_source *s, const char *path) {
    int n;
    const ay_pipe_row *const *pipes = ay_pipe_list(&n);
    ay_buf known = {0};
    AY_TRY(fail_if_alike(cx, s, path));
    ay_source_focus(s, "", false, NULL, NULL);
    for (int i = 0; i < n; i++) {
        if (pipes[i]->file_parts) ay_buf_printf(&known, "%s%s", known.len ? ", " : "", pipes[i]->type);
    }
    alloy_status st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: its %lld tensors are of no model that alloy knows as one file; known are: %s", path,
                              (long long)ay_source_count(s), known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

static alloy_status check_refusals(ay_ctx *cx, const ay_single *s, const char *path) {
    ay_names names = ay_source_names(s->source);
    for (const ay_file_refusal *r = s->row->file_refusals; r && r->tensor; r++) {
        if (names.find(&names, r->tensor)) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: has a tensor \"%s\": %s", path, r->tensor, r->reason);
    }
    return ALLOY_OK;
}

/* base/FOLDER/config.json, or NULL where there is none. */
static alloy_status base_config(ay_ctx *cx, const char *base, const char *folder, json_t **out) {
    *out = NULL;
    char *path = base ? malloc(strlen(base) + strlen(folder) + 16) : NULL;
    if (!path) return base ? ay_nomem(cx) : ALLOY_OK;
    strcat(strcat(strcat(strcpy(path, base), "/"), folder), "/config.json");
    alloy_status st = ay_path_kind_of(path) == AY_PATH_FILE ? ay_json_read(cx, path, out) : ALLOY_OK;
    free(path);
    return st;
}

static alloy_status find_parts(ay_ctx *cx, ay_single *s, const char *base) {
    for (const ay_file_part *p = s->row->file_parts; p->folder; p++) {
        json_t *config = NULL;
        if (ay_single_find(s, p->folder)) continue;
        AY_TRY(base_config(cx, base, p->folder, &config));
        if (s->n < AY_MAX_PARTS && find_part(s->source, p, config, &s->parts[s->n])) s->n++;
        json_decref(config);
    }
    for (int i = 0, n = 0; i < s->n; i++) {
        if (*s->parts[i].row->prefix) s->prefixes[n++] = s->parts[i].row->prefix;
    }
    ay_source_focus(s->source, "", false, NULL, NULL);
    return ALLOY_OK;
}

alloy_status ay_single_open(ay_ctx *cx, const char *path, const char *type, const char *base, ay_single *out) {
    *out = (ay_single){.n = 0};
    AY_TRY(ay_source_open_file(cx, path, &out->source));
    find_row(out, type);
    if (!out->row) return not_known(cx, out->source, path);
    AY_TRY(check_refusals(cx, out, path));
    return find_parts(cx, out, base);
}

void ay_single_close(ay_single *s) {
    for (int i = 0; i < s->n; i++) json_decref(s->parts[i].config);
    ay_source_close(&s->source);
    *s = (ay_single){.n = 0};
}

const ay_single_part *ay_single_find(const ay_single *s, const char *folder) {
    for (int i = 0; i < s->n; i++) {
        if (strcmp(s->parts[i].row->folder, folder) == 0) return &s->parts[i];
    }
    return NULL;
}

/* Which components are in the file, as "unet (LDM), vae (LDM)", and which are not, as "text_encoder, "; a model that is a row by
 * itself has no folders, and is called as its package is. */
static void list_parts(const ay_single *s, ay_buf *in, ay_buf *out) {
    const char *last = NULL;
    for (const ay_part_row *p = s->row->parts; p->package; p++) {
        const ay_single_part *part = ay_single_find(s, p->folder);
        if (last && strcmp(p->folder, last) == 0) continue;
        last = p->folder;
        if (part) ay_buf_printf(in, "%s%s (%s)", in->len ? ", " : "", *p->folder ? p->folder : p->package, part->naming->name);
        else ay_buf_printf(out, "%s%s, ", p->folder, p->optional ? " (where the model has one)" : "");
    }
}

void ay_single_say(ay_ctx *cx, const ay_single *s, const char *path, const char *base) {
    ay_buf in = {0}, out = {0};
    list_parts(s, &in, &out);
    if (s->row->single) ay_log(cx, AY_LOG_INFO, "%s: %s from this file", path, in.data);
    else ay_log(cx, AY_LOG_INFO, "%s: %s from this file; %stokenizer and scheduler from %s", path, in.data, out.data ? out.data : "", base);
    if (s->also) ay_log(cx, AY_LOG_INFO, "%s: holds a %s model too; --type %s converts that", path, s->also->type, s->also->type);
    ay_buf_free(&in);
    ay_buf_free(&out);
}

alloy_status ay_single_enough(ay_ctx *cx, const ay_single *s, const char *path) {
    ay_buf in = {0}, out = {0};
    if (s->row->single) return ALLOY_OK;
    list_parts(s, &in, &out);
    alloy_status st = ay_fail(cx, ALLOY_E_USAGE,
                              "%s: is a %s checkpoint of one file, which has no %stokenizer and no scheduler settings; give --base FOLDER, a diffusers folder "
                              "of the same kind of model, to take them from",
                              path, s->row->type, out.data ? out.data : "");
    ay_buf_free(&in);
    ay_buf_free(&out);
    return st;
}

void ay_single_hints(const ay_single *s, json_t *scheduler) {
    ay_names names = ay_source_names(s->source);
    for (const ay_file_hint *h = s->row->file_hints; h && h->tensor; h++) {
        if (names.find(&names, h->tensor)) json_object_set_new(scheduler, h->key, json_loads(h->value, JSON_DECODE_ANY, NULL));
    }
}

alloy_status ay_prediction_type_set(ay_ctx *cx, const ay_pipe_row *row, const char *type, json_t *scheduler) {
    static const char *const known[] = {"epsilon", "v_prediction", "sample"};
    size_t i = 0;
    const ay_file_hint *h = row->file_hints;
    while (i < 3 && strcmp(type, known[i]) != 0) i++;
    if (i == 3) return ay_fail(cx, ALLOY_E_USAGE, "prediction type \"%s\" is not known; epsilon, v_prediction and sample are", type);
    while (h && h->tensor && strcmp(h->key, "prediction_type") != 0) h++;
    if (!h || !h->tensor) return ay_fail(cx, ALLOY_E_USAGE, "all %s models predict the same; leave --prediction-type out", row->type);
    return json_object_set_new(scheduler, "prediction_type", json_string(type)) == 0 ? ALLOY_OK : ay_nomem(cx);
}

alloy_status ay_single_source(ay_ctx *cx, const ay_single *s, const ay_single_part *part, const char *path, const void *cfg, ay_source **out) {
    AY_TRY(ay_source_open_file(cx, path, out));
    ay_source_focus(*out, part->row->prefix, part->row->flat, part->naming, cfg);
    if (!*part->row->prefix) ay_source_leave(*out, s->prefixes); /* a denoiser without a prefix beside others that have theirs */
    return ALLOY_OK;
}
