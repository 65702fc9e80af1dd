/* SPDX-License-Identifier: MIT
 *
 * Lowering of what images need: upsampling by reshape and expand, or by gathers and a blend; transposed convolution by
 * spreading the input with zeros and convolving with the turned kernel.
 */
#include "pass/lower.h"
#include "quant/weight.h"

#include <stdlib.h>
#include <string.h>

/* One axis of a bilinear upsampling: where each output reads, and how far between. */
typedef struct taps {
    int32_t *lo, *hi;
    float *t;
} taps;

static void fill_taps(const ay_node *n, int64_t in, int64_t factor, taps *s) {
    for (int64_t o = 0; o < in * factor; o++) {
        double at = (double)o / (double)factor;
        if (n->attr.upsample.align_corners)
            at = in * factor > 1 ? (double)o * (double)(in - 1) / (double)(in * factor - 1) : 0;
        else if (n->attr.upsample.half_pixel) at = ((double)o + 0.5) / (double)factor - 0.5;
        at = at < 0 ? 0 : at > (double)(in - 1) ? (double)(in - 1) : at;
        s->lo[o] = (int32_t)at;
        s->hi[o] = (int32_t)ay_min_i64(s->lo[o] + 1, in - 1);
        s->t[o] = (float)(at - s->lo[o]);
    }
}

/* lo + (hi - lo) * t along `axis`, rows read by gather */
static ay_val blend(ay_graph *g, const ay_node *n, ay_val x, int axis, int64_t factor) {
    int64_t in = ay_dim(g, x, axis), out = in * factor;
    ay_dtype t = n->type.dtype;
    taps s = {malloc((size_t)out * 4), malloc((size_t)out * 4), malloc((size_t)out * 4)};
    void *typed = malloc((size_t)out * 4);
    ay_val y = AY_NO_VALUE;
    if (!s.lo || !s.hi || !s.t || !typed) {
        ay_graph_fail(g, ay_nomem(g->cx), "upsample: out of memory");
    } else {
        fill_taps(n, in, factor, &s);
        ay_convert_from_f32(t, s.t, out, typed);
        ay_val lo = ay_gather(g, x, ay_const_data(g, ay_shape(AY_I32, 1, out), s.lo), axis);
        ay_val hi = ay_gather(g, x, ay_const_data(g, ay_shape(AY_I32, 1, out), s.hi), axis);
        ay_val part = ay_const_data(g, axis == -1 ? ay_shape(t, 1, out) : ay_shape(t, 2, out, 1), typed);
        y = ay_add(g, lo, ay_mul(g, ay_sub(g, hi, lo), part));
    }
    free(s.lo);
    free(s.hi);
    free(s.t);
    free(typed);
    return y;
}

/* nearest: [.., H, W] as [P, H, 1, W, 1], expanded to [P, H, fh, W, fw] */
ay_val ay_lower_upsample(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0];
    int64_t fh = n->attr.upsample.fh, fw = n->attr.upsample.fw, h = ay_dim(g, x, -2), w = ay_dim(g, x, -1);
    if (fh == 1 && fw == 1) return x;
    if (n->attr.upsample.bilinear) {
        if (fh > 1) x = blend(g, n, x, -2, fh);
        return fw > 1 ? blend(g, n, x, -1, fw) : x;
    }
    ay_val apart = ay_reshape(g, x, 5, -1, h, 1, w, 1);
    ay_val wide = ay_expand_to(g, apart, 5, (int64_t[]){ay_dim(g, apart, 0), h, fh, w, fw});
    return ay_reshape_to(g, wide, n->type.rank, n->type.dim);
}

/* Puts `step` - 1 zeros after each element of spatial dim `axis`, then cuts or pads to [-low, size + high). */
static ay_val spread(ay_graph *g, ay_val x, int axis, int64_t step, int64_t low, int64_t high) {
    ay_type t = g->status ? (ay_type){0} : *ay_type_of(g, x);
    int64_t before = 1, size = ay_dim(g, x, axis), after = 1;
    for (int i = 0; i < axis; i++) before *= t.dim[i];
    for (int i = axis + 1; i < t.rank; i++) after *= t.dim[i];
    ay_attr pad = {0};
    if (step > 1) {
        pad.pad.after[2] = step - 1;
        x = ay_reshape(g, x, 4, before, size, 1, after);
        x = ay_node_add(g, AY_OP_PAD, &x, 1, &pad, NULL);
        t.dim[axis] = size * step;
        x = ay_reshape_to(g, x, t.rank, t.dim);
        high -= step - 1; /* the zeros after the last element are not part of the spread input */
    }
    memset(&pad, 0, sizeof pad);
    pad.pad.before[axis] = ay_max_i64(low, 0);
    pad.pad.after[axis] = ay_max_i64(high, 0);
    if (low > 0 || high > 0) x = ay_node_add(g, AY_OP_PAD, &x, 1, &pad, NULL);
    if (low >= 0 && high >= 0) return x;
    return ay_slice(g, x, axis, ay_max_i64(-low, 0), ay_dim(g, x, axis) - ay_max_i64(-high, 0));
}

/* w [C, O/g, *K] as [O, C/g, *K], turned about: what a plain convolution over the spread input multiplies with */
static ay_val turned_kernel(ay_graph *g, ay_val w, int64_t groups) {
    ay_type t = *ay_type_of(g, w);
    int spatial = t.rank - 2, rank = t.rank + 1;
    int64_t split[AY_MAX_RANK] = {groups, t.dim[0] / groups, t.dim[1]},
            joined[AY_MAX_RANK] = {groups * t.dim[1], t.dim[0] / groups};
    ay_attr perm = {.permute = {{0, 2, 1, 3, 4, 5}}}, flip = {0};
    for (int i = 0; i < spatial; i++) {
        split[3 + i] = joined[2 + i] = t.dim[2 + i];
        flip.reduce.axes[i] = 2 + i;
    }
    flip.reduce.n = spatial;
    w = ay_reshape_to(g, w, rank, split);
    w = ay_node_add(g, AY_OP_PERMUTE, &w, 1, &perm, NULL);
    w = ay_reshape_to(g, w, t.rank, joined);
    return ay_node_add(g, AY_OP_REVERSE, &w, 1, &flip, NULL);
}

ay_val ay_lower_conv_transpose(const ay_lowering *l, const ay_node *n) {
    ay_graph *g = l->g;
    ay_val x = n->in[0];
    ay_attr conv = {0};
    for (int i = 0; i < n->type.rank - 2; i++) {
        int64_t reach = n->attr.conv.dilation[i] * (ay_dim(g, n->in[1], 2 + i) - 1);
        x = spread(g, x, 2 + i, n->attr.conv.stride[i], reach - n->attr.conv.before[i], reach - n->attr.conv.after[i]);
        conv.conv.stride[i] = 1;
        conv.conv.dilation[i] = n->attr.conv.dilation[i];
    }
    conv.conv.groups = n->attr.conv.groups;
    ay_val in[3] = {x, turned_kernel(g, n->in[1], n->attr.conv.groups), n->n_in > 2 ? n->in[2] : AY_NO_VALUE};
    return ay_node_add(g, AY_OP_CONV, in, n->n_in, &conv, NULL);
}
