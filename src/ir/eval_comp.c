/* SPDX-License-Identifier: MIT
 *
 * Reference evaluation of composites, each straight from its formula and independent of how pass/lower.c takes it apart,
 * so that the two can be held against each other.
 */
#include "ir/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Softmax of n numbers `step` apart; NaN in gives NaN out. */
static void softmax(double *v, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = v[i] > most || isnan(v[i]) ? v[i] : most;
    for (int64_t i = 0; i < n; i++) sum += v[i] = exp(v[i] - most);
    for (int64_t i = 0; i < n; i++) v[i] /= sum;
}

alloy_status ay_eval_softmax(const ay_call *c) {
    ay_split s = ay_split_at(&c->out->type, c->n->attr.axis);
    double *row = malloc((size_t)s.size * sizeof *row);
    if (!row) return ay_nomem(c->cx);
    for (int64_t r = 0; r < s.outer * s.inner; r++) {
        int64_t base = r / s.inner * s.size * s.inner + r % s.inner;
        for (int64_t j = 0; j < s.size; j++) row[j] = ay_f(c->in[0])[base + j * s.inner];
        softmax(row, s.size);
        for (int64_t j = 0; j < s.size; j++) ay_f(c->out)[base + j * s.inner] = (float)row[j];
    }
    free(row);
    return ALLOY_OK;
}

/* ---- norms: elements that share a mean share a `group`; weight and bias are read at `slot` ------------------------- */

typedef struct norm_map {
    ay_type groups, slots; /* shapes that broadcast over the input */
    int64_t n_groups, per_group;
    ay_type view; /* the input as walked over: group norm splits its channels */
} norm_map;

static norm_map map_of(const ay_node *n, const ay_type *x) {
    norm_map m = {.view = *x};
    if (n->op == AY_OP_GROUP_NORM) { /* [N, groups, C / groups, rest] */
        int64_t rest = 1;
        for (int i = 2; i < x->rank; i++) rest *= x->dim[i];
        int64_t groups = n->attr.norm.groups, per = x->dim[1] / groups;
        m.view = ay_shape(x->dtype, 4, x->dim[0], groups, per, rest);
        m.groups = ay_shape(x->dtype, 4, x->dim[0], groups, 1, 1);
        m.slots = ay_shape(x->dtype, 4, 1, groups, per, 1);
    } else {
        m.groups = *x;
        m.slots = *x;
        unsigned over = 0;
        if (n->op == AY_OP_RMS_NORM) over = 1u << (x->rank - 1);
        for (int i = 0; n->op == AY_OP_LAYER_NORM && i < n->attr.norm.n; i++) over |= 1u << n->attr.norm.axes[i];
        for (int i = 0; i < x->rank; i++) *(over & 1u << i ? &m.groups.dim[i] : &m.slots.dim[i]) = 1;
    }
    m.n_groups = ay_type_count(&m.groups);
    m.per_group = ay_type_count(&m.view) / m.n_groups;
    return m;
}

alloy_status ay_eval_norm(const ay_call *c) {
    const ay_array *x = c->in[0];
    norm_map m = map_of(c->n, &x->type);
    bool centred = c->n->op != AY_OP_RMS_NORM;
    double *mean = calloc((size_t)m.n_groups * 2, sizeof *mean), *square = mean + m.n_groups;
    if (!mean) return ay_nomem(c->cx);
    for (int pass = centred ? 0 : 1; pass < 3; pass++) { /* means; squares about them; results */
        ay_walk w;
        ay_walk_start(&w, &m.view);
        ay_walk_operand(&w, &m.groups);
        ay_walk_operand(&w, &m.slots);
        for (int64_t i = 0; i < x->count; i++, ay_walk_next(&w)) {
            int64_t o = w.offset[0];
            double d = ay_f(x)[i] - mean[o];
            if (pass == 0) square[o] += ay_f(x)[i]; /* collected here, moved below */
            if (pass == 1) square[o] += d * d;
            if (pass < 2) continue;
            double y = d / sqrt(square[o] / (double)m.per_group + c->n->attr.norm.eps);
            if (c->n->n_in > 1) y *= ay_f(c->in[1])[w.offset[1]];
            if (c->n->n_in > 2) y += ay_f(c->in[2])[w.offset[1]];
            ay_f(c->out)[i] = (float)y;
        }
        for (int64_t o = 0; pass == 0 && o < m.n_groups; o++) {
            mean[o] = square[o] / (double)m.per_group;
            square[o] = 0;
        }
    }
    free(mean);
    return ALLOY_OK;
}

/* ---- attention ----------------------------------------------------------------------------------------------------- */

alloy_status ay_eval_rope(const ay_call *c) {
    const float *x = ay_f(c->in[0]);
    int64_t d = c->out->type.dim[c->out->type.rank - 1];
    ay_walk w;
    ay_walk_start(&w, &c->out->type);
    ay_walk_operand(&w, &c->in[1]->type);
    ay_walk_operand(&w, &c->in[2]->type);
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) {
        int64_t at = i % d;
        double other;
        if (c->n->attr.rope.interleaved) other = at % 2 ? x[i - 1] : -x[i + 1];
        else other = at < d / 2 ? -x[i + d / 2] : x[i - d / 2];
        ay_f(c->out)[i] = (float)((double)x[i] * ay_f(c->in[1])[w.offset[0]] + other * ay_f(c->in[2])[w.offset[1]]);
    }
    return ALLOY_OK;
}

/* One row: logits [S] of q against every k, softmax, weighted sum of v [S, E]. */
static void attend(const ay_call *c, const float *q, const float *k, const float *v, int64_t mask_at, int64_t mask_step,
                   double *logits, float *out) {
    int64_t D = c->in[0]->type.dim[c->in[0]->type.rank - 1], E = c->out->type.dim[c->out->type.rank - 1];
    int64_t S = c->in[1]->type.dim[c->in[1]->type.rank - 2];
    for (int64_t s = 0; s < S; s++) {
        double dot = 0;
        for (int64_t i = 0; i < D; i++) dot += (double)q[i] * k[s * D + i];
        logits[s] = dot * c->n->attr.sdpa.scale;
        if (c->n->n_in < 4) continue;
        int64_t m = mask_at + s * mask_step;
        if (c->in[3]->type.dtype != AY_BOOL) logits[s] += ay_f(c->in[3])[m];
        else if (!ay_b(c->in[3])[m]) logits[s] = -INFINITY;
    }
    softmax(logits, S);
    for (int64_t e = 0; e < E; e++) {
        double sum = 0;
        for (int64_t s = 0; s < S; s++) sum += logits[s] * v[s * E + e];
        out[e] = (float)sum;
    }
}

/* Strides of an operand's dims as seen from the walk over [.., L], whose last dim is the operand's dim `rows` (or none). */
static void sdpa_operand(ay_walk *w, const ay_type *t, bool has_rows) {
    int64_t stride[AY_MAX_RANK];
    int slot = w->operands++, lead = t->rank - 2, shift = w->rank - 1 - lead;
    ay_row_strides(t, stride);
    for (int i = 0; i < lead; i++) w->stride[slot][i + shift] = t->dim[i] == 1 ? 0 : stride[i];
    if (has_rows) w->stride[slot][w->rank - 1] = t->dim[lead] == 1 ? 0 : stride[lead];
}

alloy_status ay_eval_sdpa(const ay_call *c) {
    const ay_type *q = &c->in[0]->type, *k = &c->in[1]->type, *v = &c->in[2]->type;
    int64_t S = k->dim[k->rank - 2], E = v->dim[v->rank - 1], rows = c->out->count / E, mask_step = 0;
    ay_type over = c->out->type, mask = {.rank = 2, .dim = {1, 1}};
    over.rank--;
    if (c->n->n_in > 3) {
        const ay_type *m = &c->in[3]->type; /* at least [1, 1] in front */
        mask.rank = m->rank < 2 ? 2 : m->rank;
        for (int i = 0; i < mask.rank; i++) mask.dim[i] = i < mask.rank - m->rank ? 1 : m->dim[i - (mask.rank - m->rank)];
        mask_step = mask.dim[mask.rank - 1] == 1 ? 0 : 1;
    }
    double *logits = malloc((size_t)S * sizeof *logits);
    if (!logits) return ay_nomem(c->cx);
    ay_walk w;
    ay_walk_start(&w, &over);
    sdpa_operand(&w, q, true);
    sdpa_operand(&w, k, false);
    sdpa_operand(&w, v, false);
    sdpa_operand(&w, &mask, true);
    for (int64_t r = 0; r < rows && !ay_stopped(c->cx); r++, ay_walk_next(&w)) {
        attend(c, ay_f(c->in[0]) + w.offset[0], ay_f(c->in[1]) + w.offset[1], ay_f(c->in[2]) + w.offset[2], w.offset[3],
               mask_step, logits, ay_f(c->out) + r * E);
    }
    free(logits);
    return ay_check_stop(c->cx);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------ */

/* Where output position `o` of a dim of `in` elements, `factor` times as long, reads: between lo and hi, `t` of the way. */
static void bilinear_at(const ay_node *n, int64_t o, int64_t in, int64_t factor, int64_t *lo, int64_t *hi, double *t) {
    double at = (double)o / (double)factor;
    if (n->attr.upsample.align_corners) at = in * factor > 1 ? (double)o * (double)(in - 1) / (double)(in * factor - 1) : 0;
    else if (n->attr.upsample.half_pixel) at = ((double)o + 0.5) / (double)factor - 0.5;
    at = at < 0 ? 0 : at > (double)(in - 1) ? (double)(in - 1) : at;
    *lo = (int64_t)at;
    *hi = ay_min_i64(*lo + 1, in - 1);
    *t = at - (double)*lo;
}

/* Exactly `a` at t = 0, also where b is infinite. */
static double between(double a, double b, double t) { return t == 0 ? a : a * (1 - t) + b * t; }

alloy_status ay_eval_upsample(const ay_call *c) {
    const ay_node *n = c->n;
    const ay_type *x = &c->in[0]->type;
    int64_t H = x->dim[x->rank - 2], W = x->dim[x->rank - 1], fh = n->attr.upsample.fh, fw = n->attr.upsample.fw;
    for (int64_t i = 0; i < c->out->count; i++) {
        int64_t plane = i / (H * fh * W * fw), oh = i / (W * fw) % (H * fh), ow = i % (W * fw), h0, h1, w0, w1;
        const float *from = ay_f(c->in[0]) + plane * H * W;
        if (!n->attr.upsample.bilinear) {
            ay_f(c->out)[i] = from[oh / fh * W + ow / fw];
            continue;
        }
        double th, tw;
        bilinear_at(n, oh, H, fh, &h0, &h1, &th);
        bilinear_at(n, ow, W, fw, &w0, &w1, &tw);
        double top = between(from[h0 * W + w0], from[h0 * W + w1], tw);
        ay_f(c->out)[i] = (float)between(top, between(from[h1 * W + w0], from[h1 * W + w1], tw), th);
    }
    return ALLOY_OK;
}

alloy_status ay_eval_dequant(const ay_call *c) {
    const ay_array *scale = c->in[1], *zero = c->n->n_in > 2 ? c->in[2] : NULL;
    ay_split s = {1, 1, c->out->count};
    if (scale->type.rank) s = ay_split_at(&c->out->type, c->n->attr.axis);
    for (int64_t i = 0; i < c->out->count; i++) {
        int64_t at = i / s.inner % s.size;
        double z = !zero ? 0 : ay_dtype_is_float(zero->type.dtype) ? ay_f(zero)[at] : ay_i(zero)[at];
        ay_f(c->out)[i] = (float)((ay_i(c->in[0])[i] - z) * ay_f(scale)[at]);
    }
    return ALLOY_OK;
}
