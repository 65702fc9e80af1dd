/* SPDX-License-Identifier: MIT
 *
 * Puts nodes in the one order that follows from the outputs: inputs first as they were declared, then each output's
 * operands depth first, left to right. A model file may nest calls that append nodes, and C leaves the order in which
 * arguments are evaluated to the compiler; after this pass the same model gives the same package from every compiler.
 * What no output needs is dropped.
 */
#include "pass/pass.h"

#include <stdlib.h>

typedef struct frame {
    ay_val v;
    int next; /* operand to visit */
} frame;

static void visit(ay_rewrite *r, ay_val root, frame *stack) {
    int depth = 0;
    if (r->map[root] != AY_NO_VALUE) return;
    stack[depth++] = (frame){root, 0};
    while (depth > 0 && !r->g->status) {
        frame *f = &stack[depth - 1];
        const ay_node *n = &r->old[f->v];
        if (f->next < n->n_in) {
            ay_val in = n->in[f->next++];
            if (r->map[in] == AY_NO_VALUE) stack[depth++] = (frame){in, 0};
        } else {
            ay_rewrite_copy(r, f->v);
            depth--;
        }
    }
}

alloy_status ay_pass_order(ay_graph *g, void *arg) {
    ay_rewrite r;
    frame *stack = malloc(((size_t)g->n_nodes + 1) * sizeof *stack); /* no path is longer than the graph */
    if (!stack) return ay_nomem(g->cx);
    alloy_status st = ay_rewrite_begin(&r, g);
    if (st == ALLOY_OK) {
        for (ay_val v = 0; v < r.n_old && !g->status; v++) {
            if (r.old[v].op == AY_OP_INPUT) ay_rewrite_copy(&r, v);
        }
        for (int i = 0; i < g->n_outputs && !g->status; i++) visit(&r, g->outputs[i].value, stack);
        st = ay_rewrite_end(&r);
    }
    free(stack);
    return st;
}
