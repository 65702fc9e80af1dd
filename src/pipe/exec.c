/* SPDX-License-Identifier: MIT
 *
 * One component, ready to run: a package's own program where the size is one it was converted for, else the model's graph
 * built anew with the package's weights bound by name through alloy.json's table. A chain of packages runs as one: its own
 * programs one after another (chain.c), or one graph over the weights of all.
 */
#include "pipe/component.h"

#include "pass/pass.h"
#include "pipe/convert_quant.h"

#include <stdlib.h>
#include <string.h>

/* Types the graph for half precision by the architecture's rules. */
static alloy_status to_half(ay_ctx *cx, ay_graph *g, const ay_model_part *part) {
    static const ay_precision_rule all[] = {{"*", AY_OP_COUNT, AY_F32, "the configuration says that values leave half's range"}, {NULL, AY_OP_COUNT, AY_NONE, NULL}};
    const ay_arch *arch = part->arch;
    int n = 0;
    if (part->upcast) {
        ay_precision p = {.rules = all, .f32_inputs = arch->f32_inputs};
        return ay_pass_precision(g, &p);
    }
    while (arch->keep && arch->keep[n].scope) n++;
    ay_precision_rule *rules = ay_alloc(g->arena, (size_t)(n + 1) * sizeof *rules);
    if (!rules) return ay_nomem(cx);
    for (int i = 0; i < n; i++) {
        const ay_keep_rule *k = &arch->keep[i];
        rules[i] = (ay_precision_rule){k->scope, k->op, k->dtype, k->reason};
    }
    ay_precision p = {.rules = rules, .f32_inputs = arch->f32_inputs};
    return ay_pass_precision(g, &p);
}

alloy_status ay_part_graph(ay_ctx *cx, const ay_model_part *part, const ay_sizes *sizes, ay_dtype precision, const ay_source *source,
                           ay_graph **out) {
    *out = NULL;
    ay_graph *g = ay_graph_new(cx);
    if (!g) return ay_nomem(cx);
    part->arch->build(g, part->cfg, sizes);
    alloy_status st = ay_graph_status(g);
    /* before what no output needs is dropped: a checkpoint holds weights of dead branches too */
    if (st == ALLOY_OK && source) st = ay_source_check(cx, source, g, part->arch);
    if (st == ALLOY_OK) st = ay_pass_order(g, NULL);
    if (st == ALLOY_OK && precision == AY_F16) st = to_half(cx, g, part);
    if (st != ALLOY_OK) {
        ay_graph_free(g);
        return st;
    }
    *out = g;
    return ALLOY_OK;
}

/* ---- weights by name --------------------------------------------------------------------------------------------------- */

static ay_dtype dtype_by_name(const char *name) {
    for (int t = AY_NONE + 1; name && t < AY_DTYPE_COUNT; t++) {
        if (strcmp(ay_dtype_name((ay_dtype)t), name) == 0) return (ay_dtype)t;
    }
    return AY_NONE;
}

static alloy_status blob(ay_ctx *cx, ay_package *p, const char *what, const json_t *j, const char *name, size_t bytes, ay_dtype dtype,
                         const void **data) {
    int64_t offset;
    ay_dtype found;
    size_t have;
    AY_TRY(ay_json_int(cx, what, j, "offset", 1, INT64_MAX, &offset));
    AY_TRY(ay_package_blob(p, (uint64_t)offset, &found, data, &have));
    bool packed = ay_dtype_bits(dtype) < 8 && found == AY_U8; /* indices for macOS 14 are bytes that happen to hold several */
    if ((found != dtype && !packed) || have != bytes) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" should be %zu bytes of %s at offset %lld, but the weight file has %zu bytes of %s there; "
                       "convert the model again", what, name, bytes, ay_dtype_name(dtype), (long long)offset, have, ay_dtype_name(found));
    }
    return ALLOY_OK;
}

static alloy_status read_scale(ay_ctx *cx, ay_package *p, const char *what, const char *name, const json_t *row, ay_weight *w) {
    const json_t *j = json_object_get(row, "scale"), *zero = json_object_get(row, "zero_point");
    int n;
    w->scale_dtype = dtype_by_name(json_string_value(json_object_get(j, "dtype")));
    AY_TRY(ay_json_ints(cx, what, j, "shape", 1, INT32_MAX, AY_MAX_RANK, w->scale_dim, &n));
    for (int k = 0; k < w->rank; k++) {
        if (n != w->rank || w->dim[k] % w->scale_dim[k]) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: the scales of \"%s\" do not divide its shape", what, name);
        }
    }
    AY_TRY(blob(cx, p, what, j, name, ay_weight_scale_bytes(w), w->scale_dtype, &w->scale));
    if (!zero) return ALLOY_OK;
    w->offset_dtype = dtype_by_name(json_string_value(json_object_get(zero, "dtype")));
    return blob(cx, p, what, zero, name, ay_weight_offset_bytes(w), w->offset_dtype, &w->offset);
}

static alloy_status read_lut(ay_ctx *cx, ay_package *p, const char *what, const char *name, const json_t *row, ay_weight *w) {
    const json_t *j = json_object_get(row, "lut");
    int n;
    int64_t axis;
    w->lut_dtype = dtype_by_name(json_string_value(json_object_get(j, "dtype")));
    AY_TRY(ay_json_ints(cx, what, j, "shape", 1, INT32_MAX, AY_MAX_RANK + 2, w->lut_dim, &n));
    AY_TRY(ay_json_int_or(cx, what, j, "vector_axis", 0, AY_MAX_RANK - 1, 0, &axis));
    if (n != w->rank + 2) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: the palette of \"%s\" has %d dimensions, expected %d", what, name, n, w->rank + 2);
    w->vector_axis = (int)axis;
    return blob(cx, p, what, j, name, ay_weight_lut_bytes(w), w->lut_dtype, &w->lut);
}

/* Which package of the chain a row of the table speaks of. */
static alloy_status package_of(ay_ctx *cx, const ay_component *c, const char *what, const json_t *row, ay_package **p) {
    int64_t link;
    AY_TRY(ay_json_int_or(cx, what, row, "link", 0, c->n_links - 1, 0, &link));
    *p = c->links[link].package;
    return ALLOY_OK;
}

/* One row of the table onto the PARAM that asks for it; shapes must be equal, storage is the file's. */
static alloy_status bind_row(ay_ctx *cx, const ay_component *c, const char *what, const json_t *row, ay_node *n) {
    ay_package *p;
    ay_weight w = {.value_dtype = n->type.dtype};
    const char *store;
    AY_TRY(package_of(cx, c, what, row, &p));
    AY_TRY(ay_json_str(cx, what, row, "store", &store));
    AY_TRY(ay_json_ints(cx, what, row, "shape", 0, INT64_MAX, AY_MAX_RANK, w.dim, &w.rank));
    ay_type found = {.dtype = n->type.dtype, .rank = w.rank};
    memcpy(found.dim, w.dim, sizeof w.dim);
    if (!ay_type_equal(&found, &n->type)) {
        char a[160], b[160];
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s, the model's graph asks for %s", what, n->name, ay_type_text(&found, a),
                       ay_type_text(&n->type, b));
    }
    w.store = strcmp(store, "block") == 0 ? AY_STORE_BLOCK : strcmp(store, "lut") == 0 ? AY_STORE_LUT : AY_STORE_PLAIN;
    w.data_dtype = dtype_by_name(json_string_value(json_object_get(row, "dtype")));
    if (w.data_dtype == AY_NONE) return ay_fail(cx, ALLOY_E_FORMAT, "%s: \"%s\" has an unknown dtype", what, n->name);
    if (w.store == AY_STORE_BLOCK) AY_TRY(read_scale(cx, p, what, n->name, row, &w));
    if (w.store == AY_STORE_LUT) AY_TRY(read_lut(cx, p, what, n->name, row, &w));
    AY_TRY(blob(cx, p, what, row, n->name, ay_weight_data_bytes(&w), w.data_dtype, &w.data));
    *n->weight = w;
    return ALLOY_OK;
}

/* A palette's factors stand in the table under the weight's name with an ending of their own. */
static const char *factors_of(void *user, ay_graph *g, const char *name) {
    json_t *index = user;
    const char *store = json_string_value(json_object_get(json_object_get(index, name), "store"));
    if (!store || strcmp(store, "lut") != 0) return NULL;
    char *factors = ay_factors_name(g->arena, name);
    return factors && json_object_get(index, factors) ? factors : NULL;
}

static alloy_status bind_rows(ay_ctx *cx, const ay_model_part *part, const ay_component *c, ay_graph *g, const char *what, json_t *index) {
    ay_factors f = {factors_of, index};
    AY_TRY(ay_pass_factors(g, &f));
    for (int k = 0; k < g->n_nodes; k++) {
        ay_node *n = &g->nodes[k];
        if (n->op != AY_OP_PARAM) continue;
        const json_t *row = json_object_get(index, n->name);
        if (!row) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: the weight table of %s has no \"%s\"; convert the model again", what, part->row->package, n->name);
        }
        AY_TRY(bind_row(cx, c, what, row, n));
    }
    return ALLOY_OK;
}

static alloy_status bind_weights(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const ay_component *c, ay_graph *g) {
    char *what = ay_path_join(g->arena, m->dir, "alloy.json");
    const json_t *entry = json_object_get(json_object_get(m->json, "components"), part->row->package);
    const json_t *table = json_object_get(entry, "weights"), *row;
    json_t *index = json_object();
    size_t i;
    if (!what || !index) {
        json_decref(index);
        return ay_nomem(cx);
    }
    alloy_status st = ALLOY_OK;
    json_array_foreach(table, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name && json_object_set(index, name, (json_t *)row) != 0) st = ay_nomem(cx);
    }
    if (st == ALLOY_OK) st = bind_rows(cx, part, c, g, what, index);
    json_decref(index);
    return st;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------- */

alloy_status ay_component_new(ay_ctx *cx, int n_links, ay_component **out) {
    ay_component *c = *out = calloc(1, sizeof *c);
    if (!c) return ay_nomem(cx);
    c->arena = ay_arena_new();
    c->links = c->arena ? ay_alloc(c->arena, (size_t)n_links * sizeof *c->links) : NULL;
    c->n_links = n_links;
    return c->links ? ALLOY_OK : ay_nomem(cx);
}

alloy_status ay_component_ports(ay_ctx *cx, ay_arena *a, const ay_graph *g, ay_link *l) {
    l->outputs = ay_alloc(a, (size_t)(g->n_outputs + 1) * sizeof *l->outputs);
    l->inputs = ay_alloc(a, (size_t)(g->n_nodes + 1) * sizeof *l->inputs);
    if (!l->outputs || !l->inputs) return ay_nomem(cx);
    for (int i = 0; i < g->n_outputs; i++) {
        l->outputs[l->n_outputs++] = (ay_tensor){ay_strdup(a, g->outputs[i].name), *ay_type_of(g, g->outputs[i].value), NULL};
    }
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op == AY_OP_INPUT) l->inputs[l->n_inputs++] = (ay_tensor){ay_strdup(a, g->nodes[i].name), g->nodes[i].type, NULL};
    }
    return ay_arena_failed(a) ? ay_nomem(cx) : ALLOY_OK;
}

/* Link k of the component executes `g`. */
static alloy_status compile(ay_ctx *cx, ay_component *c, int k, const ay_graph *g, const ay_exec_options *o) {
    ay_compile_opts opts = {.emulate_f16 = o && o->emulate_f16, .memory_limit = o ? o->memory_limit : 0,
                            .int8_activations = o && o->int8_activations, .least = o ? o->least : NULL};
    opts.map = ay_package_map(c->links[k].package, &opts.map_bytes);
    AY_TRY(ay_component_ports(cx, c->arena, g, &c->links[k]));
    AY_TRY(ay_cpu_compile(cx, g, &opts, &c->links[k].program));
    if (o && o->profile) ay_program_profile(c->links[k].program, true);
    if (o && o->warm_up) ay_program_warm_up(c->links[k].program);
    return ALLOY_OK;
}

static alloy_status open_link(ay_ctx *cx, ay_component *c, int k, const char *path, const char *function, const ay_tensor *known, int n_known,
                              const ay_exec_options *o) {
    ay_link *l = &c->links[k];
    alloy_status st = ay_package_open(cx, path, &l->package);
    if (st == ALLOY_OK) st = ay_package_graph(l->package, function, &l->graph);
    /* a shape that hangs on an input's numbers is static once they are given */
    if (st == ALLOY_E_UNSUPPORTED && l->package && n_known) st = ay_package_graph_known(l->package, function, known, n_known, &l->graph);
    return st == ALLOY_OK ? compile(cx, c, k, l->graph, o) : st;
}

static alloy_status finish(alloy_status st, ay_component *c, ay_component **out) {
    if (st == ALLOY_OK) *out = c;
    else ay_component_close(&c);
    return st;
}

alloy_status ay_component_open_package(ay_ctx *cx, const char *path, const char *function, const ay_tensor *known, int n_known,
                                       const ay_exec_options *o, ay_component **out) {
    ay_component *c;
    *out = NULL;
    alloy_status st = ay_component_new(cx, 1, &c);
    if (st == ALLOY_OK) st = open_link(cx, c, 0, path, function, known, n_known, o);
    if (st == ALLOY_OK) st = ay_component_join(cx, c);
    return finish(st, c, out);
}

static alloy_status find_part(ay_ctx *cx, const ay_model *m, const char *package, const ay_model_part **part) {
    *part = ay_model_find(m, package);
    if (*part) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: has no %s; convert the checkpoint again without leaving it out", m->dir, package);
}

static char *link_path(ay_arena *a, const ay_model *m, const ay_model_part *part, int k) {
    char *name = ay_part_package(a, part, k);
    return name ? ay_sprintf(a, "%s/%s.mlpackage", m->dir, name) : NULL;
}

static alloy_status rebuild(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const ay_sizes *sizes, const ay_exec_options *o,
                            ay_component *c) {
    ay_graph *g = NULL;
    for (int k = 0; k < part->n_links; k++) {
        char *path = link_path(c->arena, m, part, k);
        if (!path) return ay_nomem(cx);
        AY_TRY(ay_package_open(cx, path, &c->links[k].package));
    }
    AY_TRY(ay_part_graph(cx, part, sizes, m->precision, NULL, &g));
    /* the other links only hold their packages */
    alloy_status st = bind_weights(cx, m, part, c, g);
    if (st == ALLOY_OK && o && o->emulate_f16) { /* each operation as the package for this size would have it */
        const char *target = json_string_value(json_object_get(m->json, "target"));
        ay_graph *lowered = NULL;
        st = ay_package_lowered(cx, g, target && strcmp(target, "macos15") == 0 ? AY_TARGET_MACOS15 : AY_TARGET_MACOS14, &lowered);
        if (st == ALLOY_OK) st = compile(cx, c, 0, lowered, o);
        ay_graph_free(lowered);
        c->links[0].graph = g; /* whose constants the lowered one, and so the program, shares */
        return st == ALLOY_OK ? ay_component_join(cx, c) : st;
    } else if (st == ALLOY_OK) {
        st = compile(cx, c, 0, g, o);
    }
    ay_graph_free(g);
    return st == ALLOY_OK ? ay_component_join(cx, c) : st;
}

alloy_status ay_component_rebuild(ay_ctx *cx, const ay_model *m, const char *package, const ay_sizes *sizes, const ay_exec_options *o,
                                  ay_component **out) {
    const ay_model_part *part;
    ay_component *c;
    *out = NULL;
    AY_TRY(find_part(cx, m, package, &part));
    alloy_status st = ay_component_new(cx, part->n_links, &c);
    if (st == ALLOY_OK) st = rebuild(cx, m, part, sizes, o, c);
    return finish(st, c, out);
}

alloy_status ay_component_open(ay_ctx *cx, const ay_model *m, const char *package, const ay_sizes *sizes, const ay_exec_options *o,
                               ay_component **out) {
    const ay_model_part *part;
    ay_component *c;
    int f = 0;
    *out = NULL;
    AY_TRY(find_part(cx, m, package, &part));
    while (f < part->n_functions && memcmp(sizes, &part->functions[f].sizes, sizeof *sizes) != 0) f++;
    if (f == part->n_functions) return ay_component_rebuild(cx, m, package, sizes, o, out);
    const char *function = part->n_functions > 1 ? part->functions[f].name : NULL;
    alloy_status st = ay_component_new(cx, part->n_links, &c);
    for (int k = 0; k < part->n_links && st == ALLOY_OK; k++) {
        char *path = link_path(c->arena, m, part, k);
        st = path ? open_link(cx, c, k, path, function, NULL, 0, o) : ay_nomem(cx);
    }
    if (st == ALLOY_OK) st = ay_component_join(cx, c);
    return finish(st, c, out);
}

void ay_component_close(ay_component **c) {
    if (!c || !*c) return;
    for (int k = 0; (*c)->links && k < (*c)->n_links; k++) ay_program_free(&(*c)->links[k].program);
    for (int k = 0; (*c)->links && k < (*c)->n_links; k++) {
        ay_graph_free((*c)->links[k].graph);
        ay_package_close(&(*c)->links[k].package);
    }
    ay_arena_free((*c)->arena);
    free(*c);
    *c = NULL;
}
