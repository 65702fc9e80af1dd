/* SPDX-License-Identifier: MIT
 *
 * Products of channels-first tensors. A matmul whose operands and result are permuted by (0, 2, 1, 3) is
 *   out [n, c, h, u] = sum over w of a [n, c, h, w] b [n, w, h, u],
 * which MIL has as one `einsum`. It is one of the two forms that the MIL documentation names as fast, and what coremltools makes
 * of the attention in apple/ml-stable-diffusion (attention.py, split_einsum); the letters are those that it has there.
 */
#include "coreml/emit.h"

#include <string.h>

static bool swaps_middle(const ay_graph *g, ay_val v) {
    static const int perm[] = {0, 2, 1, 3};
    const ay_node *n = &g->nodes[v];
    return n->op == AY_OP_PERMUTE && n->type.rank == 4 && memcmp(n->attr.permute.perm, perm, sizeof perm) == 0;
}

void ay_emit_find_einsums(ay_emitter *e, const int *uses) {
    const ay_graph *g = e->g;
    for (ay_val v = 0; v < g->n_nodes; v++) {
        ay_val m = g->nodes[v].op == AY_OP_PERMUTE ? g->nodes[v].in[0] : AY_NO_VALUE;
        if (m < 0 || !swaps_middle(g, v) || g->nodes[m].op != AY_OP_MATMUL || uses[m] != 1) continue;
        ay_val a = g->nodes[m].in[0], b = g->nodes[m].in[1];
        bool half_or_float = g->nodes[m].type.dtype == AY_F16 || g->nodes[m].type.dtype == AY_F32;
        if (!swaps_middle(g, a) || !swaps_middle(g, b) || a == b || uses[a] != 1 || uses[b] != 1 || !half_or_float) continue;
        if (g->nodes[m].attr.matmul.ta || g->nodes[m].attr.matmul.tb) continue;
        const ay_type *s = &g->nodes[a].type, *t = &g->nodes[b].type; /* MIL's einsum does not broadcast */
        if (s->dim[0] != t->dim[0] || s->dim[1] != t->dim[1]) continue;
        e->joint[a] = e->joint[b] = e->joint[m] = AY_JOINT_ABSORBED;
        e->joint[v] = AY_JOINT_EINSUM;
    }
}

void ay_emit_op_einsum(ay_emitter *e) {
    const ay_graph *g = e->g;
    const ay_node *m = &g->nodes[ay_emit_node(e)->in[0]];
    ay_val a = g->nodes[m->in[0]].in[0], b = g->nodes[m->in[1]].in[0];
    const char *const values[] = {e->value[a], e->value[b]};
    bool weights = g->nodes[b].op == AY_OP_SOFTMAX; /* values times weights; else keys times queries */
    AyMil__Operation *op = ay_emit_begin(e, "einsum", NULL);
    ay_emit_args(e, op, "values", 2, values);
    ay_emit_str(e, op, "equation", weights ? "bchk,bkhq->bchq" : "bkhc,bchq->bkhq");
    ay_emit_result(e, op, NULL, false);
}
