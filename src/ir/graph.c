/* SPDX-License-Identifier: MIT
 *
 * The graph itself: its memory, its name table, its sticky error, cloning. Everything that hangs off a graph lives in its
 * arena except the two growing lists (nodes, outputs) and the name table, which are on the heap.
 */
#include "ir/graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ay_op_info ops[AY_OP_COUNT] = {
#define OP(e, name, lo, hi, cls, doc) [AY_OP_##e] = {name, lo, hi, AY_CLASS_##cls, doc},
#include "ir/ops.def"
#undef OP
};

const ay_op_info *ay_op_get(ay_op op) {
    static const ay_op_info none = {"(no such op)", 0, 0, AY_CLASS_LEAF, ""};
    return (unsigned)op < AY_OP_COUNT ? &ops[op] : &none;
}

ay_graph *ay_graph_new(ay_ctx *cx) {
    ay_graph *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->cx = cx;
    g->scope = "";
    g->arena = ay_arena_new();
    if (!g->arena) {
        free(g);
        return NULL;
    }
    return g;
}

void ay_graph_free(ay_graph *g) {
    if (!g) return;
    free(g->nodes);
    free(g->outputs);
    free(g->names);
    ay_arena_free(g->arena);
    free(g);
}

alloy_status ay_graph_status(const ay_graph *g) { return g->status; }

ay_val ay_graph_fail(ay_graph *g, alloy_status code, const char *fmt, ...) {
    if (g->status) return AY_NO_VALUE;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    g->status = ay_fail(g->cx, code, "%s%s%s%s", *g->scope ? "in " : "", g->scope, *g->scope ? ": " : "", text);
    return AY_NO_VALUE;
}

int64_t ay_dim(const ay_graph *g, ay_val v, int axis) {
    if (v < 0 || v >= g->n_nodes) return 0;
    const ay_type *t = &g->nodes[v].type;
    if (axis < 0) axis += t->rank;
    return axis >= 0 && axis < t->rank ? t->dim[axis] : 0;
}

/* ---- the name table: open addressing, never more than half full ---------------------------------------------------- */

static uint32_t name_hash(ay_op op, const char *s) {
    uint32_t h = 2166136261u ^ (uint32_t)op;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
    return h ^ h >> 15;
}

/* The slot that holds (op, name), or the free one where it belongs. */
static ay_val *name_slot(const ay_graph *g, ay_op op, const char *name) {
    uint32_t mask = (uint32_t)g->cap_names - 1;
    for (uint32_t i = name_hash(op, name) & mask;; i = (i + 1) & mask) {
        ay_val v = g->names[i];
        if (v == AY_NO_VALUE || (g->nodes[v].op == op && g->nodes[v].name && strcmp(g->nodes[v].name, name) == 0))
            return &g->names[i];
    }
}

static bool has_unique_name(const ay_node *n) { return (n->op == AY_OP_INPUT || n->op == AY_OP_PARAM) && n->name; }

static alloy_status table_resize(ay_graph *g, int cap) {
    ay_val *slots = malloc((size_t)cap * sizeof *slots);
    if (!slots) return ay_nomem(g->cx);
    for (int i = 0; i < cap; i++) slots[i] = AY_NO_VALUE;
    free(g->names);
    g->names = slots;
    g->cap_names = cap;
    g->n_names = 0;
    for (ay_val v = 0; v < g->n_nodes; v++) {
        if (!has_unique_name(&g->nodes[v])) continue;
        ay_val *slot = name_slot(g, g->nodes[v].op, g->nodes[v].name);
        if (*slot == AY_NO_VALUE) *slot = v, g->n_names++;
    }
    return ALLOY_OK;
}

alloy_status ay_graph_rehash(ay_graph *g) {
    int named = 0, cap = 64;
    for (ay_val v = 0; v < g->n_nodes; v++) named += has_unique_name(&g->nodes[v]);
    while (cap <= 2 * named) cap *= 2;
    return table_resize(g, cap);
}

ay_val ay_graph_find(const ay_graph *g, ay_op leaf, const char *name) {
    return g->cap_names ? *name_slot(g, leaf, name) : AY_NO_VALUE;
}

ay_val ay_graph_append(ay_graph *g, const ay_node *n) {
    if (g->n_nodes == g->cap_nodes) {
        int cap = g->cap_nodes ? g->cap_nodes * 2 : 256;
        ay_node *p = cap > (1 << 26) ? NULL : realloc(g->nodes, (size_t)cap * sizeof *p);
        if (!p) {
            g->status = ay_nomem(g->cx);
            return AY_NO_VALUE;
        }
        g->nodes = p;
        g->cap_nodes = cap;
    }
    ay_val v = g->n_nodes;
    g->nodes[v] = *n;
    g->n_nodes++;
    if (has_unique_name(n)) {
        if (2 * (g->n_names + 1) > g->cap_names) {
            g->status = table_resize(g, g->cap_names ? g->cap_names * 2 : 64);
            if (g->status) return AY_NO_VALUE;
        } else {
            *name_slot(g, n->op, n->name) = v;
            g->n_names++;
        }
    }
    return v;
}

/* ---- cloning ------------------------------------------------------------------------------------------------------- */

static bool clone_node(ay_graph *c, const ay_node *from) {
    ay_node n = *from;
    n.in = ay_alloc(c->arena, (size_t)n.n_in * sizeof *n.in);
    if (!n.in) return false;
    if (n.n_in) memcpy(n.in, from->in, (size_t)n.n_in * sizeof *n.in);
    /* neighbours share their scope string: copy it once per run */
    const ay_node *last = c->n_nodes ? &c->nodes[c->n_nodes - 1] : NULL;
    n.scope = last && strcmp(last->scope, from->scope) == 0 ? last->scope : ay_strdup(c->arena, from->scope);
    n.name = from->name ? ay_strdup(c->arena, from->name) : NULL;
    if (from->weight) {
        n.weight = ay_alloc(c->arena, sizeof *n.weight);
        if (n.weight) *n.weight = *from->weight;
    }
    return !ay_arena_failed(c->arena) && ay_graph_append(c, &n) != AY_NO_VALUE;
}

ay_graph *ay_graph_clone(const ay_graph *g) {
    ay_graph *c = ay_graph_new(g->cx);
    if (!c) return NULL;
    c->status = g->status;
    bool ok = true;
    for (int i = 0; ok && i < g->n_nodes; i++) ok = clone_node(c, &g->nodes[i]);
    if (ok && g->n_outputs) {
        c->outputs = malloc((size_t)g->n_outputs * sizeof *c->outputs);
        ok = c->outputs != NULL;
        for (int i = 0; ok && i < g->n_outputs; i++) {
            c->outputs[i] = (ay_output){ay_strdup(c->arena, g->outputs[i].name), g->outputs[i].value};
        }
        if (ok) c->n_outputs = c->cap_outputs = g->n_outputs;
    }
    if (!ok || ay_arena_failed(c->arena)) {
        ay_graph_free(c);
        return NULL;
    }
    return c;
}
