/* SPDX-License-Identifier: MIT
 *
 * The helper that passes share: the old node list is set aside, new nodes are appended to the graph, and a map from old to
 * new values is kept. If a pass fails in the middle, ay_rewrite_end still leaves a graph that can be freed.
 */
#include "ir/graph.h"
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

alloy_status ay_rewrite_begin(ay_rewrite *r, ay_graph *g) {
    *r = (ay_rewrite){.g = g};
    if (g->status) return g->status;
    r->map = malloc(((size_t)g->n_nodes + 1) * sizeof *r->map);
    if (!r->map) return g->status = ay_nomem(g->cx);
    for (int i = 0; i < g->n_nodes; i++) r->map[i] = AY_NO_VALUE;
    r->old = g->nodes;
    r->n_old = g->n_nodes;
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < g->cap_names; i++) g->names[i] = AY_NO_VALUE;
    g->n_names = 0;
    return ALLOY_OK;
}

ay_val ay_rewrite_copy(ay_rewrite *r, ay_val old) {
    ay_graph *g = r->g;
    if (g->status) return AY_NO_VALUE;
    ay_node n = r->old[old];
    ay_val *in = n.n_in ? ay_alloc(g->arena, (size_t)n.n_in * sizeof *in) : NULL;
    if (n.n_in && !in) {
        g->status = ay_nomem(g->cx);
        return AY_NO_VALUE;
    }
    for (int i = 0; i < n.n_in; i++) {
        in[i] = r->map[n.in[i]];
        if (in[i] == AY_NO_VALUE)
            return ay_graph_fail(g, ALLOY_E_INTERNAL, "a pass dropped value %d, which is still used", n.in[i]);
    }
    n.in = in;
    return r->map[old] = ay_graph_append(g, &n);
}

alloy_status ay_rewrite_end(ay_rewrite *r) {
    ay_graph *g = r->g;
    for (int i = 0; !g->status && i < g->n_outputs; i++) {
        ay_val v = r->map[g->outputs[i].value];
        if (v == AY_NO_VALUE) ay_graph_fail(g, ALLOY_E_INTERNAL, "a pass dropped output \"%s\"", g->outputs[i].name);
        g->outputs[i].value = v;
    }
    g->scope = "";
    g->scopes = NULL;
    free(r->old);
    free(r->map);
    *r = (ay_rewrite){.g = g};
    return g->status;
}
