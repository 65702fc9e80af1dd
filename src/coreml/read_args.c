/* SPDX-License-Identifier: MIT
 *
 * An operation's arguments by name: as values of the graph, or as the integers, flags and strings that say how to compute.
 * The latter must be known now; arithmetic over constants, `shape` and given inputs is evaluated for it (ay_mvalue_known).
 */
#include "coreml/read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what depends on nothing unknown ----------------------------------------------------------------------------- */

enum {
    KNOWN_NODES = 4096,
    KNOWN_COUNT = 65536
}; /* more than shape arithmetic ever needs; bounds what a hostile file costs */

static const ay_tensor *known_input(const ay_reader *r, const char *name) {
    for (int i = 0; i < r->n_known; i++)
        if (r->known[i].name && r->known[i].data && strcmp(r->known[i].name, name) == 0) return &r->known[i];
    return NULL;
}

/** Marks what `v` is computed from; false when something in it is unknown or the whole is too large. */
static bool mark_known(const ay_reader *r, ay_val v, bool *needed) {
    int n = 0;
    needed[v] = true;
    for (ay_val i = v; i >= 0; i--) {
        if (!needed[i]) continue;
        const ay_node *node = ay_node_of(r->g, i);
        int64_t count = ay_type_count(&node->type);
        if (++n > KNOWN_NODES || count < 0 || count > KNOWN_COUNT) return false;
        if (node->op == AY_OP_INPUT && !known_input(r, node->name)) return false;
        for (int k = 0; k < node->n_in; k++) needed[node->in[k]] = true;
    }
    return true;
}

/** A known input as a constant of the node's type. */
static ay_val input_const(ay_reader *r, ay_graph *g, const ay_node *node) {
    const ay_tensor *t = known_input(r, node->name);
    int64_t count = ay_type_count(&node->type);
    if (ay_type_count(&t->type) != count)
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "input %s is given with another shape", node->name);
    if (t->type.dtype == node->type.dtype) return ay_const_data(g, node->type, t->data);
    float *f = ay_alloc(g->arena, (size_t)count * sizeof *f + 1);
    void *c = ay_alloc(g->arena, ay_dtype_bytes(node->type.dtype, count) + 1);
    if (!f || !c) return ay_graph_fail(g, ALLOY_E_NOMEM, "out of memory");
    ay_convert_to_f32(t->type.dtype, t->data, 0, count, f);
    ay_convert_from_f32(node->type.dtype, f, count, c);
    return ay_const_data(g, node->type, c);
}

/** Copies the marked nodes into a graph of their own and evaluates it. */
static alloy_status eval_known(ay_reader *r, ay_val v, const bool *needed, ay_val *map, void *out) {
    ay_graph *g = ay_graph_new(r->cx);
    if (!g) return ay_nomem(r->cx);
    for (ay_val i = 0; i <= v; i++) {
        if (!needed[i]) continue;
        const ay_node *node = ay_node_of(r->g, i);
        ay_val *in = ay_alloc(g->arena, ((size_t)node->n_in + 1) * sizeof *in);
        for (int k = 0; in && k < node->n_in; k++) in[k] = map[node->in[k]];
        if (node->op == AY_OP_INPUT) map[i] = input_const(r, g, node);
        else if (node->op == AY_OP_CONST) map[i] = ay_const_data(g, node->type, node->data);
        else if (node->op == AY_OP_PARAM) {
            map[i] = ay_param(g, node->name, node->type);
            if (map[i] != AY_NO_VALUE) *ay_node_of(g, map[i])->weight = *node->weight;
        } else map[i] = in ? ay_node_add(g, node->op, in, node->n_in, &node->attr, &node->type) : AY_NO_VALUE;
    }
    ay_set_output(g, "v", map[v]);
    alloy_status st = ay_graph_status(g);
    ay_tensor t = {.name = "v", .type = *ay_type_of(r->g, v), .data = out};
    if (!st) st = ay_eval(g, NULL, 0, &t, 1, false, NULL);
    ay_graph_free(g);
    return st;
}

static bool node_known(ay_mop *o, ay_val v, const float **numbers, int64_t *count) {
    ay_reader *r = o->r;
    size_t n = (size_t)v + 1;
    bool *needed = calloc(n, sizeof *needed);
    ay_val *map = malloc(n * sizeof *map);
    bool ok = needed && map && mark_known(r, v, needed);
    if (ok) {
        const ay_type *t = ay_type_of(r->g, v);
        *count = ay_type_count(t);
        void *raw = ay_mmake(o, *count, t->dtype);
        float *f = raw ? ay_mmake(o, *count, AY_F32) : NULL;
        if (!f) ok = false;
        else if (eval_known(r, v, needed, map, raw)) ok = ay_mfalse(o, r->cx->code, "%s", ay_error_text(r->cx));
        else ay_convert_to_f32(t->dtype, raw, 0, *count, f);
        *numbers = f;
    }
    free(needed);
    free(map);
    return ok;
}

bool ay_mvalue_known(ay_mop *o, ay_mvalue *v, const float **numbers, int64_t *count) {
    if (!v || ay_mbad(o)) return false;
    if (v->kind == AY_M_NODE) return node_known(o, v->node, numbers, count);
    const ay_raw *raw = ay_mvalue_raw(o, v);
    float *f = raw ? ay_mmake(o, raw->count, AY_F32) : NULL;
    if (!f) return false;
    ay_convert_to_f32(raw->dtype, raw->data, 0, raw->count, f);
    *numbers = f;
    *count = raw->count;
    return true;
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static ay_mvalue *literal(ay_mop *o, const char *key, const AyMil__Value *v) {
    ay_mvalue *m = ay_alloc(o->r->g->arena, sizeof *m);
    if (!m || !(m->name = ay_sprintf(o->r->g->arena, "%s.%s", o->name, key)))
        return ay_mnull(o, ALLOY_E_NOMEM, "out of memory");
    return ay_mdecode(o, key, v, m) ? m : NULL;
}

static ay_mvalue *bound(ay_mop *o, const char *key, const AyMil__Binding *b) {
    if (b->binding_case == AY_MIL__BINDING__BINDING_VALUE) return literal(o, key, b->value);
    if (b->binding_case != AY_MIL__BINDING__BINDING_NAME)
        return ay_mnull(o, ALLOY_E_FORMAT, "parameter %s is bound to nothing", key);
    ay_mvalue *v = ay_mfind(o->r, b->name);
    if (!v) ay_mfail(o, ALLOY_E_FORMAT, "parameter %s is \"%.100s\", which no earlier operation makes", key, b->name);
    return v;
}

bool ay_mhas(const ay_mop *o, const char *key) {
    const AyMil__Argument *a = ay_mil_argument(o->op, key);
    return (a && a->n_arguments) || ay_mil_attribute(o->op, key);
}

ay_mvalue *ay_marg_opt(ay_mop *o, const char *key) {
    if (ay_mbad(o)) return NULL;
    const AyMil__Argument *a = ay_mil_argument(o->op, key);
    if (a && a->n_arguments > 1)
        return ay_mnull(o, ALLOY_E_FORMAT, "parameter %s has %zu bindings, expected one", key, a->n_arguments);
    if (a && a->n_arguments == 1) return bound(o, key, a->arguments[0]);
    const AyMil__Value *v = ay_mil_attribute(o->op, key);
    return v ? literal(o, key, v) : NULL;
}

ay_mvalue *ay_marg(ay_mop *o, const char *key) {
    ay_mvalue *v = ay_marg_opt(o, key);
    if (!v && !ay_mbad(o)) ay_mfail(o, ALLOY_E_FORMAT, "parameter %s is missing", key);
    return v;
}

ay_val ay_mnode(ay_mop *o, const char *key) { return ay_mvalue_node(o, ay_marg(o, key)); }

ay_val ay_mnode_opt(ay_mop *o, const char *key) {
    ay_mvalue *v = ay_marg_opt(o, key);
    return v ? ay_mvalue_node(o, v) : AY_NO_VALUE;
}

int ay_mnodes(ay_mop *o, const char *key, ay_val **out) {
    const AyMil__Argument *a = ay_mil_argument(o->op, key);
    size_t n = a ? a->n_arguments : 0;
    if (n == 0 || n > 1000000) return ay_mfail(o, ALLOY_E_FORMAT, "parameter %s has %zu bindings", key, n), 0;
    ay_val *v = ay_alloc(o->r->g->arena, n * sizeof *v);
    if (!v) return ay_mfail(o, ALLOY_E_NOMEM, "out of memory"), 0;
    for (size_t i = 0; i < n && !ay_mbad(o); i++) v[i] = ay_mvalue_node(o, bound(o, key, a->arguments[i]));
    *out = v;
    return ay_mbad(o) ? 0 : (int)n;
}

/* ---- numbers that say how ---------------------------------------------------------------------------------------- */

static int64_t raw_int(const ay_raw *raw, int64_t i) {
    const uint8_t *p = raw->data;
    int32_t a;
    int64_t b;
    switch (raw->dtype) {
    case AY_I32: return memcpy(&a, p + 4 * i, 4), a;
    case AY_I64: return memcpy(&b, p + 8 * i, 8), b;
    default: break;
    }
    float f;
    ay_convert_to_f32(raw->dtype, raw->data, i, 1, &f);
    return f >= -9.0e15f && f <= 9.0e15f ? (int64_t)llrintf(f) : 0;
}

int ay_mints(ay_mop *o, const char *key, int64_t *out, int max) {
    ay_mvalue *v = ay_marg_opt(o, key);
    if (!v) return -1;
    const float *f = NULL;
    int64_t n = 0;
    const ay_raw *raw = v->kind == AY_M_RAW ? &v->raw : NULL;
    if (raw) n = raw->count;
    else if (!ay_mvalue_known(o, v, &f, &n)) {
        if (!ay_mbad(o))
            ay_mfail(o, ALLOY_E_UNSUPPORTED,
                     "%s depends on numbers that are known only when the model runs; alloy needs static shapes", key);
        return -1;
    }
    if (n > max) return ay_mfail(o, ALLOY_E_FORMAT, "%s has %lld numbers, expected at most %d", key, (long long)n, max), -1;
    for (int64_t i = 0; i < n; i++) {
        if (raw) out[i] = raw_int(raw, i);
        else out[i] = f[i] >= -9.0e15f && f[i] <= 9.0e15f ? (int64_t)llrintf(f[i]) : 0;
    }
    return (int)n;
}

bool ay_mints_need(ay_mop *o, const char *key, int64_t *out, int n, int max) {
    int got = ay_mints(o, key, out, max);
    if (ay_mbad(o)) return false;
    if (got < 0) return ay_mfalse(o, ALLOY_E_FORMAT, "parameter %s is missing", key);
    if (n >= 0 && got != n) return ay_mfalse(o, ALLOY_E_FORMAT, "%s has %d numbers, expected %d", key, got, n);
    return true;
}

int64_t ay_mint_or(ay_mop *o, const char *key, int64_t fallback) {
    int64_t v = fallback;
    int n = ay_mints(o, key, &v, 1);
    if (n == 0) ay_mfail(o, ALLOY_E_FORMAT, "%s is empty", key);
    return n == 1 ? v : fallback;
}

int64_t ay_mint(ay_mop *o, const char *key) {
    int64_t v = 0;
    ay_mints_need(o, key, &v, 1, 1);
    return v;
}

double ay_mfloat_or(ay_mop *o, const char *key, double fallback) {
    ay_mvalue *v = ay_marg_opt(o, key);
    const float *f = NULL;
    int64_t n = 0;
    if (!v) return fallback;
    if (ay_mvalue_known(o, v, &f, &n) && n == 1) return f[0];
    if (!ay_mbad(o)) ay_mfail(o, ALLOY_E_UNSUPPORTED, "%s must be one constant number", key);
    return fallback;
}

bool ay_mbool_or(ay_mop *o, const char *key, bool fallback) { return ay_mint_or(o, key, fallback) != 0; }

const char *ay_mstring_or(ay_mop *o, const char *key, const char *fallback) {
    ay_mvalue *v = ay_marg_opt(o, key);
    if (v && v->kind == AY_M_STRING) return v->string;
    if (!v && fallback) return fallback;
    if (!ay_mbad(o)) ay_mfail(o, ALLOY_E_FORMAT, v ? "%s is not a string" : "parameter %s is missing", key);
    return fallback ? fallback : "";
}

int ay_maxis(ay_mop *o, const char *key, int64_t axis, int rank) {
    if (axis < -rank || axis >= rank) {
        ay_mfail(o, ALLOY_E_FORMAT, "%s is %lld for a value of rank %d", key, (long long)axis, rank);
        return 0;
    }
    return (int)(axis < 0 ? axis + rank : axis);
}

bool ay_maxes(ay_mop *o, const char *key, int64_t *axes, int n, int rank) {
    unsigned seen = 0;
    for (int i = 0; i < n; i++) {
        axes[i] = ay_maxis(o, key, axes[i], rank);
        if (seen & 1u << axes[i]) ay_mfail(o, ALLOY_E_FORMAT, "%s names axis %d twice", key, (int)axes[i]);
        seen |= 1u << axes[i];
    }
    return !ay_mbad(o);
}
