/* SPDX-License-Identifier: MIT
 *
 * Folding: nodes that depend on CONST only are evaluated once, by the reference evaluator, when the result is small; nodes
 * that change nothing are dropped; a reshape of a reshape reads the first one's input.
 */
#include "ir/eval.h"
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 16 };

/* ---- evaluating ---------------------------------------------------------------------------------------------------- */

static bool all_const(const ay_rewrite *r, const ay_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        if (r->g->nodes[r->map[n->in[i]]].op != AY_OP_CONST) return false;
    }
    return n->n_in > 0;
}

static bool array_alloc(ay_array *a, const ay_type *t) {
    *a = (ay_array){.type = *t, .count = ay_type_count(t)};
    a->data = calloc((size_t)a->count, ay_held_size(t->dtype));
    return a->data != NULL;
}

/* The node's value as a new CONST, or AY_NO_VALUE when it could not be had (an index out of range is left to run time). */
static ay_val evaluate(ay_rewrite *r, const ay_node *n, size_t bytes) {
    ay_array *held = calloc((size_t)n->n_in + 1, sizeof *held);
    const ay_array **in = calloc((size_t)n->n_in, sizeof *in);
    void *data = ay_alloc(r->g->arena, bytes);
    bool ok = held && in && data && array_alloc(&held[n->n_in], &n->type);
    for (int i = 0; ok && i < n->n_in; i++) {
        const ay_node *c = &r->g->nodes[r->map[n->in[i]]];
        ok = array_alloc(&held[i], &c->type);
        if (ok) ay_hold(&held[i], c->type.dtype, c->data);
        in[i] = &held[i];
    }
    ok = ok && ay_eval_node(&(ay_call){r->g->cx, n, in, &held[n->n_in]}) == ALLOY_OK;
    if (ok) ay_unhold(&held[n->n_in], n->type.dtype, data);
    for (int i = 0; held && i <= n->n_in; i++) free(held[i].data);
    free(held);
    free(in);
    if (!ok) return AY_NO_VALUE;
    ay_node c;
    memset(&c, 0, sizeof c);
    c.op = AY_OP_CONST;
    c.type = n->type;
    c.data = data;
    c.scope = n->scope;
    return ay_graph_append(r->g, &c);
}

/* ---- what changes nothing ------------------------------------------------------------------------------------------ */

/* Whether new value v is a const whose elements all equal `want`. */
static bool is_all(const ay_graph *g, ay_val v, float want) {
    const ay_node *n = &g->nodes[v];
    int64_t count = ay_type_count(&n->type);
    if (n->op != AY_OP_CONST || count > 64) return false;
    float f[64];
    ay_convert_to_f32(n->type.dtype, n->data, 0, count, f);
    for (int64_t i = 0; i < count; i++) {
        if (f[i] != want) return false;
    }
    return true;
}

static bool all_zero(const int64_t *v, int n) {
    for (int i = 0; i < n; i++) {
        if (v[i] != 0) return false;
    }
    return true;
}

static bool in_order(const ay_node *n) {
    for (int i = 0; i < n->type.rank; i++) {
        if (n->attr.permute.perm[i] != i) return false;
    }
    return true;
}

/* The index of the input that the node merely repeats, or -1. Only asked when that input has the node's own type. */
static int repeats(const ay_rewrite *r, const ay_node *n, int i) {
    ay_val other = n->n_in == 2 ? r->map[n->in[1 - i]] : AY_NO_VALUE;
    switch (n->op) {
    case AY_OP_CAST:
    case AY_OP_RESHAPE:
    case AY_OP_EXPAND: return 0;
    case AY_OP_CONCAT: return n->n_in == 1 ? 0 : -1;
    case AY_OP_SLICE: {
        bool forward = all_zero(n->attr.slice.begin, n->type.rank); /* nothing cut, and not a dim walked backwards */
        return forward ? 0 : -1;
    }
    case AY_OP_PERMUTE: return in_order(n) ? 0 : -1;
    case AY_OP_PAD: return 0; /* the same type: no padding */
    case AY_OP_UPSAMPLE: return n->attr.upsample.fh == 1 && n->attr.upsample.fw == 1 ? 0 : -1;
    case AY_OP_ADD: return is_all(r->g, other, 0) ? i : -1;
    case AY_OP_MUL: return is_all(r->g, other, 1) ? i : -1;
    case AY_OP_SUB: return i == 0 && is_all(r->g, other, 0) ? 0 : -1;
    case AY_OP_DIV: return i == 0 && is_all(r->g, other, 1) ? 0 : -1;
    default: return -1;
    }
}

static bool drop(ay_rewrite *r, ay_val v) {
    const ay_node *n = &r->old[v];
    for (int i = 0; i < n->n_in && i < 2; i++) {
        if (!ay_type_equal(&r->old[n->in[i]].type, &n->type) || repeats(r, n, i) != i) continue;
        r->map[v] = r->map[n->in[i]];
        return true;
    }
    return false;
}

static void fold_node(ay_rewrite *r, ay_val v) {
    const ay_node *n = &r->old[v];
    if (ay_op_get(n->op)->cls != AY_CLASS_LEAF) {
        size_t bytes = ay_dtype_bytes(n->type.dtype, ay_type_count(&n->type));
        if (drop(r, v)) return;
        if (bytes <= MOST_BYTES && all_const(r, n)) {
            r->map[v] = evaluate(r, n, bytes);
            if (r->map[v] != AY_NO_VALUE || r->g->status) return;
        }
    }
    ay_val to = ay_rewrite_copy(r, v);
    if (to == AY_NO_VALUE || n->op != AY_OP_RESHAPE) return;
    const ay_node *from = &r->g->nodes[r->g->nodes[to].in[0]];
    if (from->op != AY_OP_RESHAPE) return;
    if (ay_type_equal(ay_type_of(r->g, from->in[0]), &n->type)) r->map[v] = from->in[0]; /* there and back */
    else r->g->nodes[to].in[0] = from->in[0];
}

alloy_status ay_pass_fold(ay_graph *g, void *arg) {
    ay_rewrite r;
    AY_TRY(ay_rewrite_begin(&r, g));
    for (ay_val v = 0; !g->status && v < r.n_old; v++) fold_node(&r, v);
    AY_TRY(ay_rewrite_end(&r));
    return ay_pass_dce(g, NULL);
}
