/* SPDX-License-Identifier: MIT
 *
 * Scaled dot product attention, however its two products were written: keys transposed by a flag, by a permute of their own or
 * one merged with another; scores with queries as rows or as columns (ml-stable-diffusion's einsums, attention.py: softmax
 * over the keys wherever they are); the scale on the scores, on q or on k, before or after a permute; masks added or chosen.
 *
 * Permutes of scores are first moved behind the scaling and the softmax, so that they meet and cancel.
 */
#include "pass/raise.h"

#include "ir/infer.h"

#include <string.h>

/* ---- permutes -------------------------------------------------------------------------------------------------------- */

/* x permuted; of a permute, its source permuted at once, and nothing where both cancel. */
static ay_val permuted(ay_graph *g, ay_val x, const int *perm) {
    int rank = ay_type_of(g, x)->rank, list[AY_MAX_RANK + 1] = {rank};
    bool same = true;
    bool chain = ay_is(g, x, AY_OP_PERMUTE);
    for (int i = 0; i < rank; i++) {
        list[i + 1] = chain ? g->nodes[x].attr.permute.perm[perm[i]] : perm[i];
        same = same && list[i + 1] == i;
    }
    if (chain) x = ay_arg(g, x, 0);
    return same ? x : ay_permute_list(g, x, rank, list);
}

/* The last two dims change places. */
static ay_val swapped(ay_graph *g, ay_val x) {
    int rank = ay_type_of(g, x)->rank, perm[AY_MAX_RANK];
    if (rank < 2) return AY_NO_VALUE;
    for (int i = 0; i < rank; i++) perm[i] = i;
    perm[rank - 1] = rank - 2;
    perm[rank - 2] = rank - 1;
    return permuted(g, x, perm);
}

/* permute(permute(x)) */
ay_val ay_raise_permute(ay_graph *g, ay_val v) {
    ay_val inner = ay_arg(g, v, 0);
    if (!ay_is(g, inner, AY_OP_PERMUTE)) return AY_NO_VALUE;
    g->scope = g->nodes[v].scope;
    return permuted(g, inner, g->nodes[v].attr.permute.perm);
}

/* The node if inference takes it; else AY_NO_VALUE and no error. */
static ay_val try_node(ay_graph *g, ay_op op, const ay_val *in, int n_in, const ay_attr *attr) {
    ay_val own[4];
    ay_node n;
    memset(&n, 0, sizeof n);
    memcpy(own, in, (size_t)n_in * sizeof *in);
    n.op = op;
    n.n_in = n_in;
    n.in = own;
    if (attr) n.attr = *attr;
    if (g->status || ay_infer(g, &n)) return AY_NO_VALUE;
    return ay_node_add(g, op, own, n_in, &n.attr, NULL);
}

/* Scores of a product: itself, or scaled. */
static bool is_scores(const ay_graph *g, ay_val v) {
    double c;
    ay_val x;
    return ay_is(g, v, AY_OP_MATMUL) || (ay_raise_by_const(g, v, AY_OP_MUL, &x, &c) && ay_is(g, x, AY_OP_MATMUL));
}

/* scale * permute(scores) and softmax(permute(scores)): the permute comes last. */
ay_val ay_raise_sink_permute(ay_graph *g, ay_val v) {
    bool soft = ay_is(g, v, AY_OP_SOFTMAX);
    for (int i = 0; i < (soft ? 1 : 2); i++) {
        ay_val turned = ay_arg(g, v, i), to;
        if (!ay_is(g, turned, AY_OP_PERMUTE) || !is_scores(g, ay_arg(g, turned, 0))) continue;
        const ay_attr perm = g->nodes[turned].attr;
        ay_val in[2] = {ay_arg(g, turned, 0), soft ? AY_NO_VALUE : ay_arg(g, v, 1 - i)};
        double c;
        if (!soft && (!ay_raise_scalar(g, in[1], &c) || ay_type_count(ay_type_of(g, in[1])) != 1)) continue;
        g->scope = g->nodes[v].scope;
        if (soft) to = try_node(g, AY_OP_SOFTMAX, in, 1, &(ay_attr){.axis = perm.permute.perm[g->nodes[v].attr.axis]});
        else to = try_node(g, AY_OP_MUL, in, 2, NULL);
        return to == AY_NO_VALUE ? AY_NO_VALUE : permuted(g, to, perm.permute.perm);
    }
    return AY_NO_VALUE;
}

/* ---- scores ---------------------------------------------------------------------------------------------------------- */

typedef struct scores {
    ay_val q, k, mask; /* [.., L, d]; mask AY_NO_VALUE: none */
    double scale;
} scores;

/* x without factors, also without one under a permute. */
static ay_val unscaled(ay_graph *g, ay_val v, double *scale) {
    double c;
    ay_val x;
    for (;;) {
        if (ay_raise_by_const(g, v, AY_OP_MUL, &x, &c)) v = x;
        else if (ay_is(g, v, AY_OP_PERMUTE) && ay_raise_by_const(g, ay_arg(g, v, 0), AY_OP_MUL, &x, &c))
            v = permuted(g, x, g->nodes[v].attr.permute.perm);
        else return v;
        *scale *= c;
    }
}

/* A factor of the product itself, which must not make new nodes: nothing is decided yet. */
static ay_val unscaled_product(const ay_graph *g, ay_val v, double *scale) {
    double c;
    ay_val x;
    while (ay_raise_by_const(g, v, AY_OP_MUL, &x, &c)) {
        *scale *= c;
        v = x;
    }
    return v;
}

/* logits = where(mask, [scale *] product, very little), or the other way round: then the mask says what is left out */
static bool chosen(ay_graph *g, ay_val v, ay_val *product, ay_val *mask, double *scale) {
    for (int less = 1; less <= 2; less++) {
        double c;
        if (!ay_raise_scalar(g, ay_arg(g, v, less), &c) || c > -1e4) continue;
        *scale = 1;
        *product = unscaled_product(g, ay_arg(g, v, 3 - less), scale);
        *mask = ay_arg(g, v, 0);
        if (!ay_is(g, *product, AY_OP_MATMUL)) continue;
        if (less == 1) *mask = try_node(g, AY_OP_NOT, mask, 1, NULL);
        return *mask != AY_NO_VALUE;
    }
    return false;
}

/* logits = [mask over] [scale *] product */
static bool split_logits(ay_graph *g, ay_val v, ay_val *product, ay_val *mask, double *scale) {
    *mask = AY_NO_VALUE;
    *scale = 1;
    *product = unscaled_product(g, v, scale);
    if (ay_is(g, *product, AY_OP_MATMUL)) return true;
    if (ay_is(g, v, AY_OP_WHERE)) return chosen(g, v, product, mask, scale);
    for (int i = 0; ay_is(g, v, AY_OP_ADD) && i < 2; i++) {
        *scale = 1;
        *mask = ay_arg(g, v, 1 - i);
        *product = unscaled_product(g, ay_arg(g, v, i), scale);
        if (ay_is(g, *product, AY_OP_MATMUL)) return true;
    }
    return false;
}

/* `keys_last`: keys along the columns of the product, else along its rows. */
static bool read_scores(ay_graph *g, ay_val logits, bool keys_last, scores *s) {
    ay_val product;
    if (!split_logits(g, logits, &product, &s->mask, &s->scale) || (s->mask != AY_NO_VALUE && !keys_last)) return false;
    bool ta = g->nodes[product].attr.matmul.ta, tb = g->nodes[product].attr.matmul.tb;
    ay_val rows = ay_arg(g, product, 0), cols = ay_arg(g, product, 1);
    if (ay_type_of(g, rows)->rank < 2 || ay_type_of(g, cols)->rank < 2) return false;
    if (ta) rows = swapped(g, rows);
    if (!tb) cols = swapped(g, cols);
    if (rows == AY_NO_VALUE || cols == AY_NO_VALUE) return false;
    s->q = unscaled(g, keys_last ? rows : cols, &s->scale);
    s->k = unscaled(g, keys_last ? cols : rows, &s->scale);
    return true;
}

/* ---- attention ------------------------------------------------------------------------------------------------------- */

/* x with the leading dims of `like` instead of its own. */
static ay_val with_lead(ay_graph *g, ay_val x, const ay_type *like) {
    const ay_type t = *ay_type_of(g, x);
    int64_t dim[AY_MAX_RANK], count = 1;
    for (int i = 0; i < like->rank; i++) {
        dim[i] = i < like->rank - 2 ? like->dim[i] : t.dim[t.rank - (like->rank - i)];
        count *= dim[i];
    }
    return count == ay_type_count(&t) ? ay_reshape_to(g, x, like->rank, dim) : AY_NO_VALUE;
}

/* The softmax that operand `p` is, be it under a reshape that leaves the last two dims alone. */
static bool softmax_of(const ay_graph *g, ay_val p, ay_val *soft) {
    *soft = ay_raise_unshape(g, p);
    if (!ay_is(g, *soft, AY_OP_SOFTMAX)) return false;
    const ay_type *a = ay_type_of(g, p), *b = ay_type_of(g, *soft);
    return a->rank >= 2 && b->rank >= 2 && a->dim[a->rank - 1] == b->dim[b->rank - 1] && a->dim[a->rank - 2] == b->dim[b->rank - 2];
}

static ay_val attention(ay_graph *g, ay_val v, int side) {
    ay_val p = ay_arg(g, v, side), values = ay_arg(g, v, 1 - side), soft;
    bool ta = g->nodes[v].attr.matmul.ta, tb = g->nodes[v].attr.matmul.tb;
    if (!softmax_of(g, p, &soft) || ay_type_of(g, values)->rank < 2) return AY_NO_VALUE;
    int rank = ay_type_of(g, soft)->rank, axis = g->nodes[soft].attr.axis;
    bool keys_last = axis == rank - 1;
    if (!keys_last && axis != rank - 2) return AY_NO_VALUE;
    if (keys_last != (side == 0 ? !ta : tb)) return AY_NO_VALUE; /* the second product runs over the keys */
    scores s;
    g->scope = g->nodes[v].scope;
    if (!read_scores(g, ay_arg(g, soft, 0), keys_last, &s)) return AY_NO_VALUE;
    if (side == 0 ? tb : !ta) values = swapped(g, values);
    if (p != soft) {
        const ay_type like = *ay_type_of(g, p);
        if (s.mask != AY_NO_VALUE) return AY_NO_VALUE;
        s.q = with_lead(g, s.q, &like);
        s.k = with_lead(g, s.k, &like);
    }
    if (s.q == AY_NO_VALUE || s.k == AY_NO_VALUE || values == AY_NO_VALUE) return AY_NO_VALUE;
    ay_val in[4] = {s.q, s.k, values, s.mask};
    int n_in = s.mask == AY_NO_VALUE ? 3 : 4;
    ay_attr attr = {.sdpa = {s.scale}};
    if (side == 0) return ay_raise_emit(g, v, AY_OP_SDPA, in, n_in, &attr);
    ay_val o = try_node(g, AY_OP_SDPA, in, n_in, &attr); /* values times scores: the result lies the other way */
    if (o == AY_NO_VALUE) return AY_NO_VALUE;
    o = swapped(g, o);
    return o != AY_NO_VALUE && ay_type_equal(ay_type_of(g, o), ay_type_of(g, v)) ? o : AY_NO_VALUE;
}

ay_val ay_raise_sdpa(ay_graph *g, ay_val v) {
    ay_val to = attention(g, v, 0);
    return to != AY_NO_VALUE ? to : attention(g, v, 1);
}

/* sdpa of a q or k that was scaled before */
ay_val ay_raise_sdpa_scale(ay_graph *g, ay_val v) {
    ay_val in[4];
    double scale = g->nodes[v].attr.sdpa.scale;
    int n_in = g->nodes[v].n_in;
    for (int i = 0; i < n_in; i++) in[i] = ay_arg(g, v, i);
    g->scope = g->nodes[v].scope;
    in[0] = unscaled(g, in[0], &scale);
    in[1] = unscaled(g, in[1], &scale);
    if (in[0] == ay_arg(g, v, 0) && in[1] == ay_arg(g, v, 1)) return AY_NO_VALUE;
    return ay_raise_emit(g, v, AY_OP_SDPA, in, n_in, &(ay_attr){.sdpa = {scale}});
}
