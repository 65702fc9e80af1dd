/* SPDX-License-Identifier: MIT
 *
 * The graph as text, one node a line, for logs, tests and `alloy info -v`:
 *
 *     %7 = linear(%3, %5, %6) : float32[1, 77, 768]  # encoder.layers.0.fc1
 *     %8 = layer_norm(%7) axes=[2] eps=1e-05 : float32[1, 77, 768]  # encoder.layers.0
 *     output last_hidden_state = %8
 */
#include "ir/graph.h"
#include "quant/weight.h"

static void print_const(const ay_node *n, ay_buf *out) {
    int64_t count = ay_type_count(&n->type);
    ay_buf_printf(out, " =");
    for (int64_t i = 0; i < count && i < 4 && n->data; i++) {
        float f;
        ay_convert_to_f32(n->type.dtype, n->data, i, 1, &f);
        ay_buf_printf(out, n->type.dtype == AY_I32 ? " %.0f" : " %.9g", (double)f);
    }
    if (count > 4) ay_buf_printf(out, " ...");
}

static void print_weight(const ay_weight *w, ay_buf *out) {
    static const char *const stores[] = {"", " blocks", " palette"};
    ay_buf_printf(out, " stored=%s%s", ay_dtype_name(w->data_dtype), stores[w->store <= AY_STORE_LUT ? w->store : 0]);
}

static void print_node(const ay_graph *g, ay_val v, ay_buf *out) {
    char text[160];
    const ay_node *n = &g->nodes[v];
    ay_buf_printf(out, "%%%d = %s", v, ay_op_get(n->op)->name);
    if (n->op == AY_OP_INPUT || n->op == AY_OP_PARAM) {
        ay_buf_printf(out, " \"%s\"", n->name ? n->name : "");
    } else if (n->op != AY_OP_CONST) {
        ay_buf_printf(out, "(");
        for (int i = 0; i < n->n_in; i++) ay_buf_printf(out, i ? ", %%%d" : "%%%d", n->in[i]);
        ay_buf_printf(out, ")");
    }
    ay_attr_print(n, out);
    ay_buf_printf(out, " : %s", ay_type_text(&n->type, text));
    if (n->op == AY_OP_CONST) print_const(n, out);
    if (n->op == AY_OP_PARAM && n->weight) print_weight(n->weight, out);
    if (n->scope && *n->scope) ay_buf_printf(out, "  # %s", n->scope);
    ay_buf_printf(out, "\n");
}

void ay_graph_print(const ay_graph *g, ay_buf *out) {
    for (ay_val v = 0; v < g->n_nodes; v++) print_node(g, v, out);
    for (int i = 0; i < g->n_outputs; i++) ay_buf_printf(out, "output %s = %%%d\n", g->outputs[i].name, g->outputs[i].value);
}
