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

static bool same_values(const json_t *a, const json_t *b, const char *const *keys) {
    for (; keys && *keys; keys++) {
        const json_t *x = json_object_get(a, *keys), *y = json_object_get(b, *keys);
        if (json_is_null(x)) x = NULL;
        if (json_is_null(y)) y = NULL;
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

/* The pipeline whose first component is in the file and has a configuration that it takes. */
static const ay_pipe_row *find_row(ay_source *s, ay_single_part *first) {
    int n;
    const ay_pipe_row *const *rows = ay_pipe_list(&n);
    for (int i = 0; i < n; i++) {
        const ay_file_part *p = rows[i]->file_parts;
        for (const char *folder = p ? p->folder : NULL; folder && p->folder && strcmp(p->folder, folder) == 0; p++) {
            if (!find_part(s, p, NULL, first)) continue;
            ay_source_focus(s, "", false, NULL, NULL);
            ay_names all = ay_source_names(s);
            if (!rows[i]->file_fits || rows[i]->file_fits(first->config, &all)) return rows[i];
            json_decref(first->config);
        }
    }
    return NULL;
}

static alloy_status not_known(ay_ctx *cx, const ay_source *s, const char *path) {
    ay_names names = ay_source_names(s);
    int n;
    const ay_arch *const *rows = ay_arch_list(&n);
    for (int i = 0; i < n; i++) {
        for (const ay_naming *k = rows[i]->namings; k && k->name; k++) {
            if (!ay_naming_fits(k, &names)) continue;
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: holds nothing but the component %s, in the names of %s; a checkpoint to convert has at least the denoiser",
                           path, rows[i]->class_name, k->name);
        }
    }
    ay_buf known = {0};
    const ay_pipe_row *const *pipes = ay_pipe_list(&n);
    for (int i = 0; i < n; i++) {
        if (pipes[i]->file_parts) ay_buf_printf(&known, "%s%s", known.len ? ", " : "", pipes[i]->type);
    }
    alloy_status st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: its %lld tensors are of no model that alloy knows as one file; known are: %s", path,
                              (long long)ay_source_count(s), known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
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

alloy_status ay_single_open(ay_ctx *cx, const char *path, const char *base, ay_single *out) {
    *out = (ay_single){.n = 0};
    AY_TRY(ay_source_open_file(cx, path, &out->source));
    ay_single_part first;
    out->row = find_row(out->source, &first);
    ay_source_focus(out->source, "", false, NULL, NULL);
    if (!out->row) return not_known(cx, out->source, path);
    json_decref(first.config);
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

void ay_single_hints(const ay_single *s, json_t *scheduler) {
    ay_names names = ay_source_names(s->source);
    for (const ay_file_hint *h = s->row->file_hints; h && h->tensor; h++) {
        if (names.find(&names, h->tensor)) json_object_set_new(scheduler, h->key, json_loads(h->value, JSON_DECODE_ANY, NULL));
    }
}

alloy_status ay_single_source(ay_ctx *cx, const ay_single *s, const ay_single_part *part, const char *path, const void *cfg, ay_source **out) {
    AY_TRY(ay_source_open_file(cx, path, out));
    ay_source_focus(*out, part->row->prefix, part->row->flat, part->naming, cfg);
    if (!*part->row->prefix) ay_source_leave(*out, s->prefixes); /* a denoiser without a prefix beside others that have theirs */
    return ALLOY_OK;
}
