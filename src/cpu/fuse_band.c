/* SPDX-License-Identifier: MIT
 *
 * Fusion of large pictures, after fuse.c: a convolution takes along what makes its input, so that this input never exists as
 * a whole but only in bands of rows.
 *
 *     group_norm [act] conv      statistics first, by a step of their own; then scale, shift and activation band by band
 *     upsample conv              nearest only
 *     conv, conv 1x1             both of one picture, the second unnormalised: one walk over its rows, after which the
 *                                picture is no longer needed, and the results lie where it lay
 *
 * Pictures that lie in a cache anyway are left alone: there bands save nothing.
 */
#include "cpu/plan.h"

static bool large(const ay_plan *pl, ay_val v, size_t from) {
    const ay_type *t = ay_type_of(pl->g, v);
    return t->rank == 4 && ay_kind_of(t->dtype) == AY_KIND_F32 && (size_t)ay_type_count(t) * 4 >= from;
}

/* Two spatial dims, all channels in one group, a stored weight. */
static bool fits(const ay_plan *pl, const ay_node *n) {
    ay_weight w;
    return n->op == AY_OP_CONV && n->type.rank == 4 && n->attr.conv.groups == 1 && ay_plan_weight(pl, n->in[1], &w);
}

static bool only_mine(const ay_plan *pl, ay_val v) { return pl->val[v].uses == 1 && !pl->val[v].is_output; }

/* What makes v: the group norm (and its activation), or a nearest upsampling; false when it is anything else. */
static bool maker(const ay_plan *pl, ay_val v, ay_val *anchor, ay_act *act) {
    const ay_fused *f = pl->val[v].fused;
    if (!f && pl->val[v].absorbed) return false;
    *anchor = f ? f->anchor : v;
    *act = f ? f->act : AY_ACT_NONE;
    const ay_node *n = ay_plan_node(pl, *anchor);
    if (n->op == AY_OP_GROUP_NORM) return n->type.rank == 4;
    return n->op == AY_OP_UPSAMPLE && !f && !n->attr.upsample.bilinear;
}

static ay_fused *fused_of(ay_plan *pl, ay_val v) {
    if (pl->val[v].fused) return pl->val[v].fused;
    ay_fused *f = ay_alloc(pl->arena, sizeof *f);
    if (f) *f = ay_fused_alone(v);
    return pl->val[v].fused = f;
}

/* Value that the fusion of anchor `v` makes: itself, unless later nodes were taken along. */
static ay_val result_of(const ay_plan *pl, ay_val v) {
    if (!pl->val[v].absorbed) return v;
    for (ay_val r = v + 1; r < pl->g->n_nodes; r++)
        if (pl->val[r].fused && pl->val[r].fused->anchor == v) return r;
    return AY_NO_VALUE;
}

static bool is_stored(const ay_plan *pl, ay_val v) {
    ay_op op = ay_plan_node(pl, v)->op;
    return op == AY_OP_PARAM || op == AY_OP_CONST;
}

/* A 1 x 1 convolution of x that stands alone, where x has no other reader than it and the norm before `conv`, and both
 * results fill its place. */
static ay_val find_pair(const ay_plan *pl, const ay_node *conv, const ay_node *norm) {
    ay_val x = norm->in[0], found = AY_NO_VALUE;
    if (pl->val[x].uses != 2 || pl->val[x].is_output || conv->attr.conv.stride[0] != 1 || conv->attr.conv.stride[1] != 1)
        return AY_NO_VALUE;
    for (ay_val v = x + 1; v < pl->g->n_nodes; v++) {
        const ay_node *n = ay_plan_node(pl, v);
        if (n->op == AY_OP_CONV && n->in[0] == x && n != conv) found = v;
    }
    if (found == AY_NO_VALUE || pl->val[found].fused || pl->val[found].absorbed || pl->val[found].is_output) return AY_NO_VALUE;
    const ay_node *n = ay_plan_node(pl, found);
    const ay_type *w = ay_type_of(pl->g, n->in[1]), *t = ay_type_of(pl->g, x);
    bool one = fits(pl, n) && w->dim[2] == 1 && w->dim[3] == 1;
    for (int i = 0; i < 4 && one; i++) one = i == 1 || (n->type.dim[i] == t->dim[i] && conv->type.dim[i] == t->dim[i]);
    for (int i = 0; i < 2 && one; i++) one = n->attr.conv.before[i] == 0;
    bool fills = conv->type.dim[1] + n->type.dim[1] == t->dim[1] && t->dim[0] == 1;
    for (int i = 2; i < n->n_in; i++) one = one && is_stored(pl, n->in[i]);
    return one && fills ? found : AY_NO_VALUE;
}

static alloy_status try_band(ay_plan *pl, ay_val v) {
    const ay_node *n = ay_plan_node(pl, v);
    ay_val anchor, made = n->in[0], result = result_of(pl, v);
    ay_act act;
    if (result == AY_NO_VALUE || !fits(pl, n) || !only_mine(pl, made) || !maker(pl, made, &anchor, &act)) return ALLOY_OK;
    enum { UP_FROM = 256 << 10 }; /* an upsampled picture is worth not writing sooner than a normalised one */
    bool up = ay_plan_node(pl, anchor)->op == AY_OP_UPSAMPLE && pl->band_from != SIZE_MAX;
    ay_weight w;
    ay_plan_weight(pl, n->in[1], &w);
    up = up && !ay_plan_conv_int8(pl, n, &w); /* others may share the eight-bit form of a whole picture */
    if (!large(pl, made, up && pl->band_from > UP_FROM ? UP_FROM : pl->band_from)) return ALLOY_OK;
    ay_fused *f = fused_of(pl, result);
    if (!f) return ay_nomem(pl->cx);
    f->before = anchor;
    f->before_act = act;
    pl->val[made].fused = NULL;
    pl->val[made].absorbed = true;
    const ay_node *norm = ay_plan_node(pl, anchor);
    if (norm->op == AY_OP_GROUP_NORM && result == v) f->pair = find_pair(pl, n, norm);
    if (f->pair != AY_NO_VALUE) pl->val[f->pair].absorbed = true;
    return ALLOY_OK;
}

/* Of two convolutions that are added, the 1 x 1 one may have taken the other as its residual: turned round, the shortcut of
 * a block is free to be a pair. */
static void turn_round(ay_plan *pl, ay_val v) {
    ay_fused *f = pl->val[v].fused;
    if (!f || f->residual == AY_NO_VALUE || f->act != AY_ACT_NONE || f->bias != AY_NO_VALUE) return;
    const ay_node *small = ay_plan_node(pl, f->anchor), *other = ay_plan_node(pl, f->residual);
    if (small->op != AY_OP_CONV || other->op != AY_OP_CONV || pl->val[f->residual].fused || pl->val[f->residual].absorbed ||
        !only_mine(pl, f->residual) || !fits(pl, small) || !fits(pl, other))
        return;
    const ay_type *w = ay_type_of(pl->g, small->in[1]), *u = ay_type_of(pl->g, other->in[1]);
    if (w->dim[2] * w->dim[3] != 1 || u->dim[2] * u->dim[3] == 1 || pl->val[f->anchor].uses != 1) return;
    ay_val anchor = f->residual;
    f->residual = f->anchor;
    f->anchor = anchor;
    pl->val[f->residual].absorbed = false;
    pl->val[anchor].absorbed = true;
}

alloy_status ay_plan_fuse_bands(ay_plan *pl) {
    for (ay_val v = 0; v < pl->g->n_nodes; v++)
        if (large(pl, v, pl->band_from)) turn_round(pl, v);
    for (ay_val v = 0; v < pl->g->n_nodes; v++)
        if (ay_plan_node(pl, v)->op == AY_OP_CONV) AY_TRY(try_band(pl, v));
    return ALLOY_OK;
}
