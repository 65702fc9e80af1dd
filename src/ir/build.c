/* SPDX-License-Identifier: MIT
 *
 * Building: scopes, leaves, outputs, and the general way to append a node. All other builders (build_ops.c) go through
 * ay_node_add. After the first failure every function here does nothing.
 */
#include "ir/graph.h"
#include "quant/weight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ay_val nomem(ay_graph *g) {
    if (!g->status) g->status = ay_nomem(g->cx);
    return AY_NO_VALUE;
}

void ay_push(ay_graph *g, const char *fmt, ...) {
    if (g->status) return;
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    ay_scope *s = ay_alloc(g->arena, sizeof *s);
    char *text = *g->scope ? ay_sprintf(g->arena, "%s.%s", g->scope, name) : ay_strdup(g->arena, name);
    if (!s || !text) {
        nomem(g);
        return;
    }
    *s = (ay_scope){g->scopes, g->scope};
    g->scopes = s;
    g->scope = text;
}

void ay_pop(ay_graph *g) {
    if (g->status) return;
    if (!g->scopes) {
        ay_graph_fail(g, ALLOY_E_INTERNAL, "a scope is left that was never entered");
        return;
    }
    g->scope = g->scopes->text;
    g->scopes = g->scopes->outer;
}

ay_type ay_shape_list(ay_dtype t, int n, const int64_t *rank_then_dims) {
    ay_type type = {.dtype = t, .rank = n};
    if (n > AY_MAX_RANK || rank_then_dims[0] != n) return (ay_type){.dtype = AY_NONE};
    for (int i = 0; i < n; i++) type.dim[i] = rank_then_dims[i + 1];
    return type;
}

/* ---- leaves -------------------------------------------------------------------------------------------------------- */

/* Checks what every leaf needs; false after a failure was recorded. */
static bool leaf_valid(ay_graph *g, const ay_type *type, const char *kind, const char *name) {
    char what[320];
    snprintf(what, sizeof what, "%s%s%s%s", kind, *name ? " \"" : "", name, *name ? "\"" : "");
    if (ay_type_valid(g, type, what)) return true;
    ay_graph_fail(g, g->cx->code, "%s", ay_error_text(g->cx));
    return false;
}

static ay_val leaf_add(ay_graph *g, ay_op op, const ay_type *type, const char *name) {
    ay_node n;
    memset(&n, 0, sizeof n);
    n.op = op;
    n.type.dtype = type->dtype;
    n.type.rank = type->rank;
    for (int i = 0; i < type->rank; i++) n.type.dim[i] = type->dim[i];
    n.scope = g->scope;
    n.name = name;
    if (op == AY_OP_PARAM) {
        n.weight = ay_alloc(g->arena, sizeof *n.weight);
        if (!n.weight) return nomem(g);
        *n.weight = ay_weight_plain(&n.type, NULL);
    }
    return ay_graph_append(g, &n);
}

ay_val ay_input(ay_graph *g, const char *name, ay_type type) {
    if (g->status) return AY_NO_VALUE;
    if (!*name) return ay_graph_fail(g, ALLOY_E_MISMATCH, "an input has no name");
    if (!leaf_valid(g, &type, "input", name)) return AY_NO_VALUE;
    if (ay_graph_find(g, AY_OP_INPUT, name) != AY_NO_VALUE) {
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "input \"%s\" is declared twice", name);
    }
    char *own = ay_strdup(g->arena, name);
    return own ? leaf_add(g, AY_OP_INPUT, &type, own) : nomem(g);
}

ay_val ay_param(ay_graph *g, const char *name, ay_type type) {
    if (g->status) return AY_NO_VALUE;
    if (!*name) return ay_graph_fail(g, ALLOY_E_MISMATCH, "a parameter has no name");
    char *full = *g->scope ? ay_sprintf(g->arena, "%s.%s", g->scope, name) : ay_strdup(g->arena, name);
    if (!full) return nomem(g);
    if (!leaf_valid(g, &type, "parameter", full)) return AY_NO_VALUE;
    ay_val before = ay_graph_find(g, AY_OP_PARAM, full);
    if (before == AY_NO_VALUE) return leaf_add(g, AY_OP_PARAM, &type, full);
    if (ay_type_equal(ay_type_of(g, before), &type)) return before;
    char a[160], b[160];
    return ay_graph_fail(g, ALLOY_E_MISMATCH, "parameter \"%s\" is asked for as %s and earlier as %s", full,
                         ay_type_text(&type, a), ay_type_text(ay_type_of(g, before), b));
}

ay_val ay_const_data(ay_graph *g, ay_type type, const void *data) {
    if (g->status || !leaf_valid(g, &type, "const", "")) return AY_NO_VALUE;
    size_t bytes = ay_dtype_bytes(type.dtype, ay_type_count(&type));
    void *own = ay_alloc(g->arena, bytes);
    if (!own) return nomem(g);
    memcpy(own, data, bytes);
    ay_val v = leaf_add(g, AY_OP_CONST, &type, NULL);
    if (v != AY_NO_VALUE) g->nodes[v].data = own;
    return v;
}

ay_val ay_const_f32(ay_graph *g, double value) {
    float f = (float)value;
    return ay_const_data(g, ay_shape(AY_F32, 0), &f);
}

ay_val ay_const_i32(ay_graph *g, int32_t value) { return ay_const_data(g, ay_shape(AY_I32, 0), &value); }

ay_val ay_const_f32s(ay_graph *g, const float *values, int rank, const int64_t *dim) {
    ay_type type = {.dtype = AY_F32, .rank = rank};
    for (int i = 0; i < rank && i < AY_MAX_RANK; i++) type.dim[i] = dim[i];
    return ay_const_data(g, type, values);
}

void ay_set_output(ay_graph *g, const char *name, ay_val v) {
    if (g->status) return;
    if (v < 0 || v >= g->n_nodes) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "output \"%s\" has no value", name);
        return;
    }
    for (int i = 0; i < g->n_outputs; i++) {
        if (strcmp(g->outputs[i].name, name) != 0) continue;
        ay_graph_fail(g, ALLOY_E_MISMATCH, "output \"%s\" is set twice", name);
        return;
    }
    if (g->n_outputs == g->cap_outputs) {
        int cap = g->cap_outputs ? 2 * g->cap_outputs : 8;
        ay_output *p = realloc(g->outputs, (size_t)cap * sizeof *p);
        if (!p) {
            nomem(g);
            return;
        }
        g->outputs = p;
        g->cap_outputs = cap;
    }
    char *own = ay_strdup(g->arena, name);
    if (own && *own) g->outputs[g->n_outputs++] = (ay_output){own, v};
    else if (own) ay_graph_fail(g, ALLOY_E_MISMATCH, "an output has no name");
    else nomem(g);
}

/* ---- the general way ----------------------------------------------------------------------------------------------- */

ay_val ay_node_add(ay_graph *g, ay_op op, const ay_val *in, int n_in, const ay_attr *attr, const ay_type *want) {
    if (g->status) return AY_NO_VALUE;
    if ((unsigned)op >= AY_OP_COUNT || ay_op_get(op)->cls == AY_CLASS_LEAF) {
        return ay_graph_fail(g, ALLOY_E_INTERNAL, "%s is not added as a node; see ay_input, ay_param, ay_const_data",
                             ay_op_get(op)->name);
    }
    ay_node n;
    memset(&n, 0, sizeof n);
    n.op = op;
    if (attr) n.attr = *attr;
    if (want) n.type = *want;
    n.n_in = n_in;
    n.scope = g->scope;
    n.in = n_in < 0 ? NULL : ay_alloc(g->arena, (size_t)n_in * sizeof *n.in);
    if (!n.in) return nomem(g);
    if (n_in) memcpy(n.in, in, (size_t)n_in * sizeof *n.in);
    alloy_status st = ay_infer(g, &n);
    if (st) return ay_graph_fail(g, st, "%s", ay_error_text(g->cx));
    return ay_graph_append(g, &n);
}
