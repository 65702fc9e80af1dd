/* SPDX-License-Identifier: MIT
 *
 * The verifier: everything a pass or a reader could break, each with its sentence. Linear in the graph.
 */
#include "ir/graph.h"

#include <stdlib.h>
#include <string.h>

static alloy_status bad(const ay_graph *g, ay_val v, const char *what) {
    const ay_node *n = &g->nodes[v];
    return ay_fail(g->cx, ALLOY_E_INTERNAL, "graph, value %d (%s%s%s): %s", v, ay_op_get(n->op)->name,
                   n->scope && *n->scope ? " in " : "", n->scope ? n->scope : "", what);
}

/* A parameter's storage must produce the node's type. */
static alloy_status check_weight(const ay_graph *g, ay_val v) {
    const ay_node *n = &g->nodes[v];
    const ay_weight *w = n->weight;
    if (!w) return bad(g, v, "the parameter has no weight");
    bool same = w->rank == n->type.rank && w->value_dtype == n->type.dtype;
    for (int i = 0; same && i < w->rank; i++) same = w->dim[i] == n->type.dim[i];
    if (!same) return bad(g, v, "the weight's shape or value type is not the node's");
    if ((unsigned)w->store > AY_STORE_LUT) return bad(g, v, "the weight's storage is unknown");
    if (w->store == AY_STORE_PLAIN && ay_dtype_is_float(w->data_dtype) != ay_dtype_is_float(n->type.dtype)) {
        return bad(g, v, "the weight is stored as integers and used as floats, or the other way round");
    }
    return ALLOY_OK;
}

static alloy_status check_leaf(const ay_graph *g, ay_val v) {
    const ay_node *n = &g->nodes[v];
    if (n->n_in) return bad(g, v, "a leaf has inputs");
    if (!ay_type_valid(g, &n->type, ay_op_get(n->op)->name)) return bad(g, v, "its type is not one a graph may hold");
    if (n->op == AY_OP_CONST) return n->data ? ALLOY_OK : bad(g, v, "the const has no data");
    if (!n->name || !*n->name)
        return bad(g, v, n->op == AY_OP_INPUT ? "the input has no name" : "the parameter has no name");
    if (ay_graph_find(g, n->op, n->name) != v) {
        return bad(g, v, n->op == AY_OP_INPUT ? "the input's name is taken" : "the parameter's name is taken");
    }
    return n->op == AY_OP_PARAM ? check_weight(g, v) : ALLOY_OK;
}

static alloy_status check_node(const ay_graph *g, ay_val v) {
    const ay_node *n = &g->nodes[v];
    if ((unsigned)n->op >= AY_OP_COUNT) return bad(g, v, "its op is unknown");
    if (!n->scope) return bad(g, v, "its scope is missing");
    if (ay_op_get(n->op)->cls == AY_CLASS_LEAF) return check_leaf(g, v);
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0 || n->in[i] >= g->n_nodes) return bad(g, v, "an input is no value of the graph");
        if (n->in[i] >= v) return bad(g, v, "it is used before it is made: nodes are out of order");
    }
    ay_node again = *n;
    alloy_status st = ay_infer(g, &again);
    if (st) {
        ay_fail_prefix(g->cx, "graph, value %d%s%s: ", v, *n->scope ? " in " : "", n->scope);
        return st;
    }
    if (!ay_type_equal(&again.type, &n->type)) {
        char found[160], expected[160];
        return ay_fail(g->cx, ALLOY_E_INTERNAL, "graph, value %d (%s%s%s): its type is %s, its inputs give %s", v,
                       ay_op_get(n->op)->name, *n->scope ? " in " : "", n->scope, ay_type_text(&n->type, found),
                       ay_type_text(&again.type, expected));
    }
    if (memcmp(&again.attr, &n->attr, sizeof n->attr) != 0) return bad(g, v, "its attributes are not in canonical form");
    return ALLOY_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ay_output *)a)->name, ((const ay_output *)b)->name);
}

static alloy_status check_outputs(const ay_graph *g) {
    if (!g->n_outputs) return ay_fail(g->cx, ALLOY_E_INTERNAL, "graph: it has no output");
    for (int i = 0; i < g->n_outputs; i++) {
        if (!g->outputs[i].name || !*g->outputs[i].name)
            return ay_fail(g->cx, ALLOY_E_INTERNAL, "graph: output %d has no name", i);
        if (g->outputs[i].value < 0 || g->outputs[i].value >= g->n_nodes) {
            return ay_fail(g->cx, ALLOY_E_INTERNAL, "graph: output \"%s\" is no value of the graph", g->outputs[i].name);
        }
    }
    ay_output *sorted = malloc((size_t)g->n_outputs * sizeof *sorted);
    if (!sorted) return ay_nomem(g->cx);
    memcpy(sorted, g->outputs, (size_t)g->n_outputs * sizeof *sorted);
    qsort(sorted, (size_t)g->n_outputs, sizeof *sorted, by_name);
    alloy_status st = ALLOY_OK;
    for (int i = 1; !st && i < g->n_outputs; i++) {
        if (by_name(&sorted[i - 1], &sorted[i]) == 0)
            st = ay_fail(g->cx, ALLOY_E_INTERNAL, "graph: output name \"%s\" is taken", sorted[i].name);
    }
    free(sorted);
    return st;
}

alloy_status ay_graph_verify(const ay_graph *g) {
    if (g->status) return g->status; /* the sentence is already on the context */
    for (ay_val v = 0; v < g->n_nodes; v++) AY_TRY(check_node(g, v));
    return check_outputs(g);
}
