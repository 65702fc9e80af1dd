/* SPDX-License-Identifier: MIT
 *
 * Dead code: drops every node that no output depends on. Inputs stay, since they are the graph's signature.
 */
#include "pass/pass.h"

#include <stdlib.h>

alloy_status ay_pass_dce(ay_graph *g, void *arg) {
    if (g->status) return g->status;
    char *live = calloc((size_t)g->n_nodes + 1, 1);
    if (!live) return ay_nomem(g->cx);
    int kept = 0;
    for (int i = 0; i < g->n_outputs; i++) live[g->outputs[i].value] = 1;
    for (ay_val v = g->n_nodes - 1; v >= 0; v--) {
        live[v] |= g->nodes[v].op == AY_OP_INPUT;
        kept += live[v];
        for (int i = 0; live[v] && i < g->nodes[v].n_in; i++) live[g->nodes[v].in[i]] = 1;
    }
    alloy_status st = ALLOY_OK;
    if (kept < g->n_nodes) {
        ay_rewrite r;
        st = ay_rewrite_begin(&r, g);
        for (ay_val v = 0; !st && v < r.n_old; v++) {
            if (live[v]) ay_rewrite_copy(&r, v);
        }
        if (!st) st = ay_rewrite_end(&r);
    }
    free(live);
    return st;
}
