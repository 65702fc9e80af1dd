/* SPDX-License-Identifier: MIT
 *
 * Takes a factor for each output channel out of the weight: product, times factors, plus bias. One palette serves a whole
 * tensor where macOS 14 must read it, and the factors are what makes it fit every channel. They are parameters of their own,
 * named after the weight, so a graph built anew finds them in a package's weight table. They have the weight's type, which
 * may be half where the product is float32.
 */
#include "ir/graph.h"
#include "pass/pass.h"

#include <string.h>

/* [N] for a linear layer, [N, 1, 1] for a convolution over pictures: what broadcasts along the channels of the result. */
static ay_type channel_type(const ay_node *n, ay_dtype dtype) {
    ay_type t = {.dtype = dtype, .rank = n->op == AY_OP_LINEAR ? 1 : n->type.rank - 1};
    for (int i = 0; i < t.rank; i++) t.dim[i] = 1;
    t.dim[0] = n->type.dim[n->op == AY_OP_LINEAR ? n->type.rank - 1 : 1];
    return t;
}

static void rewrite(ay_rewrite *r, ay_val v, const char *factors) {
    ay_graph *g = r->g;
    ay_node whole = r->old[v];
    ay_type channel = channel_type(&whole, r->old[whole.in[1]].type.dtype);
    r->old[v].n_in = 2;
    ay_val y = ay_rewrite_copy(r, v);
    r->old[v].n_in = whole.n_in;
    g->scope = "";
    ay_val f = ay_param(g, factors, channel);
    g->scope = whole.scope;
    y = ay_mul(g, y, ay_cast(g, f, whole.type.dtype));
    if (whole.n_in == 3) {
        ay_val bias = ay_cast(g, r->map[whole.in[2]], whole.type.dtype);
        y = ay_add(g, y, channel.rank > 1 ? ay_reshape_to(g, bias, channel.rank, channel.dim) : bias);
    }
    r->map[v] = y;
}

alloy_status ay_pass_factors(ay_graph *g, void *arg) {
    const ay_factors *how = arg;
    ay_rewrite r;
    AY_TRY(ay_rewrite_begin(&r, g));
    for (ay_val v = 0; !g->status && v < r.n_old; v++) {
        const ay_node *n = &r.old[v];
        const ay_node *w = n->op == AY_OP_LINEAR || n->op == AY_OP_CONV ? &r.old[n->in[1]] : NULL;
        const char *factors = w && w->op == AY_OP_PARAM ? how->name(how->user, g, w->name) : NULL;
        if (factors) rewrite(&r, v, factors);
        else ay_rewrite_copy(&r, v);
    }
    return ay_rewrite_end(&r);
}
