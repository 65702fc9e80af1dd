/* SPDX-License-Identifier: MIT
 *
 * Fusion: from each product, convolution, norm or activation, follow the chain of values that nobody else reads and take
 * along what the kernel does on its way out:
 *
 *     linear, matmul   [+ bias] [act] [* gate] [+ residual]
 *     conv             [act] or [+ residual]
 *     group_norm       [act]
 *     layer/rms norm   [* (1 + scale)] [+ shift]
 *     act              [* y]
 *
 * The fused step stands where its last node stood: by then every other operand has been made.
 */
#include "cpu/plan.h"

typedef struct chain {
    ay_plan *pl;
    ay_fused f;
    ay_val end;       /* last value taken along */
    unsigned allowed; /* AY_FUSE_ bits still to be had */
} chain;

static const ay_node *node(const chain *c, ay_val v) { return ay_plan_node(c->pl, v); }

static bool taken(const ay_plan *pl, ay_val v) { return pl->val[v].absorbed || pl->val[v].fused; }

/* The only reader of `v`, if it is free to be taken along. */
static ay_val only_reader(const ay_plan *pl, ay_val v) {
    const ay_value_plan *vp = &pl->val[v];
    if (vp->uses != 1 || vp->is_output || vp->user == AY_NO_VALUE || taken(pl, vp->user)) return AY_NO_VALUE;
    return vp->user;
}

static ay_val other_input(const ay_node *n, ay_val v) { return n->in[0] == v ? n->in[1] : n->in[0]; }

static ay_act act_of(const ay_plan *pl, const ay_node *n) {
    static const ay_act act[AY_OP_COUNT] = {
        [AY_OP_SILU] = AY_ACT_SILU, [AY_OP_SIGMOID] = AY_ACT_SIGMOID, [AY_OP_TANH] = AY_ACT_TANH};
    static const ay_act gelu[] = {
        [AY_GELU_EXACT] = AY_ACT_GELU_ERF, [AY_GELU_TANH] = AY_ACT_GELU_TANH, [AY_GELU_SIGMOID] = AY_ACT_GELU_SIGMOID};
    return n->op == AY_OP_GELU ? gelu[n->attr.gelu.mode] : act[n->op];
}

static bool is_scalar_const(const ay_plan *pl, ay_val v, double *out) {
    const ay_node *n = ay_plan_node(pl, v);
    if (n->op != AY_OP_CONST || ay_type_count(&n->type) != 1 || !ay_dtype_is_float(n->type.dtype)) return false;
    float x;
    ay_convert_to_f32(n->type.dtype, n->data, 0, 1, &x);
    *out = (double)x;
    return true;
}

/* max(x, 0) */
static bool is_relu(const ay_plan *pl, const ay_node *n, ay_val x) {
    double c;
    return n->op == AY_OP_MAX && is_scalar_const(pl, other_input(n, x), &c) && c == 0;
}

static bool same_dims(const ay_type *a, const ay_type *b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

/* Dim `i` of x's shape as `v` has it: broadcast from the right. */
static int64_t dim_seen(const ay_type *v, const ay_type *x, int i) {
    int k = i - (x->rank - v->rank);
    return k < 0 ? 1 : v->dim[k];
}

/* v varies over the first `lead` dims of x and its last, and over none between: [B, 1, D], [1, D], [D]; -1 when not. */
static int rows_lead(const ay_type *v, const ay_type *x) {
    int last = x->rank - 1, lead = 0;
    if (v->rank < 1 || v->rank > x->rank || x->rank < 1 || v->dim[v->rank - 1] != x->dim[last]) return -1;
    for (int i = 0; i < last; i++) {
        int64_t d = dim_seen(v, x, i);
        if (d == 1) continue;
        for (; lead < i; lead++)
            if (x->dim[lead] != 1 && dim_seen(v, x, lead) == 1) return -1;
        lead = i + 1;
    }
    return lead;
}

static bool is_vector(const ay_type *v, const ay_type *x) {
    return x->rank > 0 && ay_type_count(v) == x->dim[x->rank - 1] && rows_lead(v, x) == 0;
}

/* ---- what a chain may take --------------------------------------------------------------------------------------- */

static bool take_act(chain *c, const ay_node *n) {
    ay_act act = is_relu(c->pl, n, c->end) ? AY_ACT_RELU : act_of(c->pl, n);
    if (!(c->allowed & AY_FUSE_ACT) || act == AY_ACT_NONE) return false;
    c->f.act = act;
    c->allowed &= ~(unsigned)(AY_FUSE_ACT | AY_FUSE_BIAS);
    if (node(c, c->f.anchor)->op == AY_OP_CONV) c->allowed = 0;
    return true;
}

static bool take_bias(chain *c, const ay_node *n, ay_val other) {
    if (!(c->allowed & AY_FUSE_BIAS) || n->op != AY_OP_ADD || !is_vector(ay_type_of(c->pl->g, other), &n->type))
        return false;
    c->f.bias = other;
    c->allowed &= ~(unsigned)AY_FUSE_BIAS;
    return true;
}

static bool take_gate(chain *c, const ay_node *n, ay_val other) {
    enum { MOST_SAMPLES = 16 }; /* each sample's rows are a product of their own then, and read the weight again */
    const ay_type *t = ay_type_of(c->pl->g, other);
    if (!(c->allowed & AY_FUSE_GATE) || n->op != AY_OP_MUL) return false;
    int lead = rows_lead(t, &n->type);
    if (lead < 0 || lead >= n->type.rank - 1) lead = is_vector(t, &n->type) ? 0 : -1;
    if (lead < 0 || ay_type_count(t) / n->type.dim[n->type.rank - 1] > MOST_SAMPLES) return false;
    c->f.gate = other;
    c->allowed &= AY_FUSE_RESIDUAL;
    return true;
}

static bool take_residual(chain *c, const ay_node *n, ay_val other) {
    if (!(c->allowed & AY_FUSE_RESIDUAL) || n->op != AY_OP_ADD || !same_dims(ay_type_of(c->pl->g, other), &n->type))
        return false;
    c->f.residual = other;
    c->allowed = 0;
    return true;
}

/* scale or 1 + scale; then shift. Both vary over the same rows. */
static bool take_modulation(chain *c, const ay_node *n, ay_val other) {
    if (!(c->allowed & AY_FUSE_MOD)) return false;
    const ay_node *anchor = node(c, c->f.anchor);
    bool last_only =
        anchor->op == AY_OP_RMS_NORM || (anchor->attr.norm.n == 1 && anchor->attr.norm.axes[0] == anchor->type.rank - 1);
    int lead = rows_lead(ay_type_of(c->pl->g, other), &n->type);
    if (!last_only || lead < 0) return false;
    if (n->op == AY_OP_MUL && c->f.scale == AY_NO_VALUE && c->f.shift == AY_NO_VALUE) {
        c->f.scale = other;
        c->f.mod_lead = lead;
        const ay_node *sum = node(c, other);
        double one;
        if (sum->op != AY_OP_ADD || c->pl->val[other].uses != 1 || taken(c->pl, other)) return true;
        int k = is_scalar_const(c->pl, sum->in[0], &one) ? 1 : 0;
        if (!is_scalar_const(c->pl, sum->in[1 - k], &one) || one != 1 ||
            !same_dims(ay_type_of(c->pl->g, sum->in[k]), &sum->type))
            return true;
        c->f.scale = sum->in[k];
        c->f.scale_plus_one = true;
        c->pl->val[other].absorbed = true;
        return true;
    }
    if (n->op != AY_OP_ADD || c->f.shift != AY_NO_VALUE || (c->f.scale != AY_NO_VALUE && lead != c->f.mod_lead))
        return false;
    c->f.shift = other;
    c->f.mod_lead = lead;
    return true;
}

static bool take_gated(chain *c, const ay_node *n, ay_val other) {
    if (!(c->allowed & AY_FUSE_GATED) || n->op != AY_OP_MUL || !same_dims(ay_type_of(c->pl->g, other), &n->type))
        return false;
    c->f.gate = other;
    c->f.act = act_of(c->pl, node(c, c->f.anchor));
    c->allowed = 0;
    return true;
}

static bool take(chain *c, ay_val v) {
    const ay_node *n = node(c, v);
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32 || !same_dims(&n->type, ay_type_of(c->pl->g, c->end))) return false;
    if (n->op == AY_OP_CAST) return true; /* float to float: nothing to do; a trailing one is given back */
    if (take_act(c, n)) return true;
    if (n->n_in != 2 || n->in[0] == n->in[1]) return false;
    ay_val other = other_input(n, c->end);
    return take_bias(c, n, other) || take_gate(c, n, other) || take_residual(c, n, other) || take_modulation(c, n, other) ||
           take_gated(c, n, other);
}

static alloy_status follow(ay_plan *pl, ay_val v, unsigned allowed) {
    chain c = {.pl = pl, .f = ay_fused_alone(v), .end = v, .allowed = allowed};
    ay_val inner[16], last = v;
    int n = 0, kept = 0;
    for (ay_val next; c.allowed && n < 16 && (next = only_reader(pl, c.end)) != AY_NO_VALUE && take(&c, next);) {
        inner[n++] = c.end;
        c.end = next;
        if (node(&c, next)->op != AY_OP_CAST) {
            last = next;
            kept = n;
        }
    }
    if (kept == 0) return ALLOY_OK;
    for (int i = 0; i < kept; i++) pl->val[inner[i]].absorbed = true;
    c.f.result = last;
    ay_fused *f = ay_alloc(pl->arena, sizeof *f);
    if (!f) return ay_nomem(pl->cx);
    *f = c.f;
    pl->val[last].fused = f;
    return ALLOY_OK;
}

alloy_status ay_plan_fuse(ay_plan *pl) {
    for (ay_val v = 0; v < pl->g->n_nodes; v++) {
        const ay_node *n = ay_plan_node(pl, v);
        unsigned allowed = ay_row_get(n->op)->fuses;
        if (!allowed || taken(pl, v) || ay_kind_of(n->type.dtype) != AY_KIND_F32) continue;
        if (n->op == AY_OP_LINEAR && n->n_in > 2) allowed &= ~(unsigned)AY_FUSE_BIAS;
        AY_TRY(follow(pl, v, allowed));
    }
    return ALLOY_OK;
}
