/* SPDX-License-Identifier: MIT
 *
 * Writing one component, see convert_part.h.
 */
#include "pipe/convert_part.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Program text of a node and the constants of its parameters, in one function: 300 bytes on average, rarely over 900. */
enum { NODE_BYTES = 1024, PROGRAM_BYTES = 1 << 16 };

uint64_t ay_part_weight_bytes(const ay_weight *w) {
    return ay_weight_data_bytes(w) + ay_weight_scale_bytes(w) + ay_weight_offset_bytes(w) + ay_weight_lut_bytes(w);
}

uint64_t ay_part_source_bytes(const ay_source *from, const ay_model_part *part, const ay_node *param) {
    ay_origin o;
    return ay_source_find(from, part->arch, param->name, &param->type, &o) ? ay_origin_bytes(&o, 0, ay_type_count(&o.type)) : 0;
}

alloy_status ay_part_cut(ay_part_work *w, ay_arena *arena, uint64_t limit, int *links) {
    int n = w->part->n_functions;
    *links = 1;
    if (!limit) return ALLOY_OK;
    if (limit <= PROGRAM_BYTES) return ay_fail(w->cx, ALLOY_E_USAGE, "--max-package-size: %llu bytes hold no package", (unsigned long long)limit);
    for (int f = 0; f < n; f++) {
        AY_TRY(ay_chain_order(w->graphs[f], arena, &w->chains[f]));
        if (f == 0) AY_TRY(ay_chain_at_most(w->graphs[0], arena, &w->chains[0], limit - PROGRAM_BYTES, (uint64_t)(NODE_BYTES * n)));
        else AY_TRY(ay_chain_like(w->graphs[f], arena, &w->chains[f], w->graphs[0], &w->chains[0]));
    }
    *links = w->chains[0].n_links;
    if (*links > AY_MAX_LINKS) {
        return ay_fail(w->cx, ALLOY_E_USAGE, "--max-package-size makes a chain of %d packages of %s, more than %d; raise it", *links,
                       w->part->row->package, AY_MAX_LINKS);
    }
    return ALLOY_OK;
}

/* ---- the bytes of a tensor -------------------------------------------------------------------------------------------- */

/* One package being written. */
typedef struct link {
    ay_part_work *w;
    const char *name;
    ay_sink *sink;
    uint64_t done, told; /* source bytes of the tensor at hand */
} link;

static alloy_status put_piece(void *user, const void *bytes, size_t n) {
    link *l = user;
    AY_TRY(l->sink->put(l->sink->user, bytes, n));
    l->w->passed(l->w->user, l->name, l->done - l->told);
    l->told = l->done;
    return ay_check_stop(l->w->cx);
}

static void count_done(void *user, uint64_t bytes) {
    link *l = user;
    l->w->passed(l->w->user, l->name, bytes);
}

static alloy_status stream_param(void *user, const ay_node *param, ay_part part, ay_sink *out) {
    link *l = user;
    ay_part_work *w = l->w;
    const ay_arch *arch = w->part->arch;
    if (ay_part_quant_has(w->quant, param)) return ay_part_quant_stream(w->quant, w->from, arch, param, part, out, count_done, l);
    l->sink = out;
    l->done = l->told = 0;
    alloy_status st = ay_source_stream(w->cx, w->from, arch, param->name, &param->type, param->weight->data_dtype, put_piece, l, &l->done);
    w->passed(w->user, l->name, l->done - l->told);
    return st;
}

/* One more tensor is whole: noted now, or read from the notes of the run that wrote it. */
static alloy_status tensor_whole(void *user, const ay_node *param, const ay_weight_mark *mark, bool kept) {
    link *l = user;
    ay_part_work *w = l->w;
    double error2, norm2;
    if (!kept) {
        ay_part_quant_errors(w->quant, param->name, false, &error2, &norm2);
        return ay_journal_add(w->journal, l->name, param->name, mark, error2, norm2);
    }
    AY_TRY(ay_journal_next(w->journal, l->name, param->name, &error2, &norm2));
    ay_part_quant_errors(w->quant, param->name, true, &error2, &norm2);
    w->passed(w->user, NULL, ay_part_source_bytes(w->from, w->part, param));
    return ALLOY_OK;
}

/* ---- packages ---------------------------------------------------------------------------------------------------------- */

static alloy_status write_package(ay_part_work *w, const ay_function *fn, int k, ay_arena *arena, ay_weight_entry **entries, int *n, uint8_t digest[32]) {
    const ay_model_part *p = w->part;
    link l = {.w = w, .name = ay_part_package(arena, p, k)};
    char *path = l.name ? ay_sprintf(arena, "%s/%s.mlpackage", w->dir, l.name) : NULL;
    char *about = ay_sprintf(arena, "%s (%s)", p->row->package, p->arch->class_name), *place = ay_sprintf(arena, "%d of %d", k + 1, p->n_links);
    /* nothing about where the weights came from: the same weights give the same package, whatever they were read from */
    const char *metadata[] = {"com.alloy.version", ALLOY_VERSION, "com.alloy.class", p->arch->class_name, p->n_links > 1 ? "com.alloy.link" : NULL,
                              place, NULL};
    if (!path || !about || !place) return ay_nomem(w->cx);
    ay_package_options po = {.target = w->target, .description = about, .author = "alloy", .metadata = metadata,
                             .source = {stream_param, tensor_whole, &l}, .from = ay_journal_mark(w->journal, l.name), .weight_digest = digest};
    return ay_package_write(w->cx, path, fn, p->n_functions, &po, arena, entries, n);
}

/* The part's functions as package k of the chain has them. */
static alloy_status write_link(ay_part_work *w, int k, ay_arena *arena, ay_weight_entry **entries, int *n, uint8_t digest[32]) {
    ay_function fn[AY_MAX_SIZES];
    ay_graph *cut[AY_MAX_SIZES] = {NULL};
    alloy_status st = ALLOY_OK;
    for (int f = 0; f < w->part->n_functions && st == ALLOY_OK; f++) {
        if (w->part->n_links > 1) st = ay_chain_take(w->graphs[f], &w->chains[f], k, &cut[f]);
        fn[f] = (ay_function){w->part->functions[f].name, cut[f] ? cut[f] : w->graphs[f]};
    }
    if (st == ALLOY_OK) st = write_package(w, fn, k, arena, entries, n, digest);
    for (int f = 0; f < w->part->n_functions; f++) ay_graph_free(cut[f]);
    return st;
}

/* ---- alloy.json's entry ------------------------------------------------------------------------------------------------ */

static json_t *sizes_json(const ay_sizes *s) {
    json_t *j = json_pack("{s:I, s:I, s:I, s:I, s:I}", "batch", (json_int_t)s->batch, "latent_height", (json_int_t)s->latent_height, "latent_width",
                     (json_int_t)s->latent_width, "frames", (json_int_t)s->frames, "text_length", (json_int_t)s->text_length);
    if (j && s->control) json_object_set_new(j, "control", json_integer(1));
    if (j && s->numbers) json_object_set_new(j, "numbers", json_integer((json_int_t)s->numbers));
    return j;
}

static json_t *functions_json(const ay_model_part *p) {
    json_t *list = json_array();
    for (int f = 0; f < p->n_functions; f++) {
        json_array_append_new(list, json_pack("{s:s, s:o}", "name", p->functions[f].name, "sizes", sizes_json(&p->functions[f].sizes)));
    }
    return list;
}

typedef struct totals {
    json_int_t parameters, bytes;
    json_t *packages, *digests, *weights;
} totals;

static void add_link(totals *t, const ay_part_work *w, int k, ay_arena *arena, const ay_weight_entry *entries, int n,
                     const uint8_t digest[32]) {
    json_t *rows = ay_weight_table(entries, n), *row;
    size_t i;
    for (int e = 0; e < n; e++) {
        const ay_weight *x = &entries[e].weight;
        ay_type type = {.dtype = x->data_dtype, .rank = x->rank};
        memcpy(type.dim, x->dim, sizeof type.dim);
        t->parameters += ay_type_count(&type);
        t->bytes += (json_int_t)ay_part_weight_bytes(x);
    }
    json_array_foreach(rows, i, row) {
        if (w->part->n_links > 1) json_object_set_new(row, "link", json_integer(k));
    }
    json_array_extend(t->weights, rows);
    json_decref(rows);
    char hex[65];
    for (int b = 0; b < 32; b++) snprintf(hex + 2 * b, 3, "%02x", digest[b]);
    json_array_append_new(t->digests, json_string(hex));
    json_array_append_new(t->packages, json_sprintf("%s.mlpackage", ay_part_package(arena, w->part, k)));
}

static json_t *entry_json(const ay_part_work *w, const totals *t) {
    const ay_model_part *p = w->part;
    char hash[65];
    ay_source_hash(w->from, hash);
    json_t *j = json_object();
    if (p->n_links == 1) json_object_set(j, "package", json_array_get(t->packages, 0));
    else json_object_set(j, "packages", t->packages); /* a chain, in the order in which they run */
    json_object_set_new(j, "class", json_string(p->arch->class_name));
    json_object_set_new(j, "folder", json_string(p->row->folder));
    json_object_set(j, "config", (json_t *)(uintptr_t)p->config);
    json_object_set_new(j, "sizes", sizes_json(&p->sizes));
    if (p->n_functions > 1) json_object_set_new(j, "functions", functions_json(p));
    json_object_set_new(j, "parameters", json_integer(t->parameters));
    json_object_set_new(j, "bytes", json_integer(t->bytes));
    json_object_set_new(j, "source_sha256", json_string(hash));
    json_object_set(j, "weight_digests", t->digests); /* of each package's weight.bin */
    json_object_set(j, "weights", t->weights);
    return j;
}

alloy_status ay_part_write(ay_part_work *w, bool quantized, json_t **entry) {
    totals t = {.packages = json_array(), .digests = json_array(), .weights = json_array()};
    ay_arena *arena = ay_arena_new();
    alloy_status st = arena && t.packages && t.digests && t.weights ? ALLOY_OK : ay_nomem(w->cx);
    *entry = NULL;
    for (int k = 0; k < w->part->n_links && st == ALLOY_OK; k++) {
        ay_weight_entry *entries = NULL;
        uint8_t digest[32] = {0};
        int n = 0;
        st = write_link(w, k, arena, &entries, &n, digest);
        errno = 0; /* jansson leaves out what there is no memory for; malloc leaves its word here */
        if (st == ALLOY_OK) add_link(&t, w, k, arena, entries, n, digest);
        if (st == ALLOY_OK && errno == ENOMEM) st = ay_nomem(w->cx);
    }
    errno = 0;
    if (st == ALLOY_OK) *entry = entry_json(w, &t);
    if (*entry && quantized) json_object_set_new(*entry, "quantization", ay_part_quant_table(w->quant, w->part->row->package));
    if (st == ALLOY_OK && (!*entry || errno == ENOMEM)) st = ay_nomem(w->cx);
    ay_part_quant_close(w->quant);
    json_decref(t.packages);
    json_decref(t.digests);
    json_decref(t.weights);
    ay_arena_free(arena);
    return st;
}
