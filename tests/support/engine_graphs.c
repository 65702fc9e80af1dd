/* SPDX-License-Identifier: MIT
 *
 * See engine_graphs.h.
 */
#include "engine_graphs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static ay_val vec(ay_graph *g, const char *name, int64_t n, ay_dtype t) { return ay_param(g, name, ay_shape(t, 1, n)); }

static ay_val linear(ay_graph *g, const char *name, ay_val x, int64_t n, bool bias, ay_dtype t) {
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(t, 2, n, ay_dim(g, x, -1)));
    ay_val b = bias ? vec(g, "bias", n, t) : AY_NO_VALUE;
    ay_pop(g);
    return ay_linear(g, x, w, b);
}

static ay_val conv(ay_graph *g, const char *name, ay_val x, int64_t o, int k, int stride, ay_dtype t) {
    ay_push(g, "%s", name);
    ay_attr a = {
        .conv = {
            .stride = {stride, stride}, .dilation = {1, 1}, .before = {k / 2, k / 2}, .after = {k / 2, k / 2}, .groups = 1}};
    ay_val in[3] = {x, ay_param(g, "weight", ay_shape(t, 4, o, ay_dim(g, x, 1), k, k)), vec(g, "bias", o, t)};
    ay_pop(g);
    return ay_node_add(g, AY_OP_CONV, in, 3, &a, NULL);
}

/* n slices of the last dim, each [.., d]; as [B, 1, d] when `row`. */
static void chunks(ay_graph *g, ay_val x, int n, ay_val *out, bool row) {
    int64_t d = ay_dim(g, x, -1) / n;
    for (int i = 0; i < n; i++) {
        out[i] = ay_slice(g, x, -1, i * d, (i + 1) * d);
        if (row) out[i] = ay_reshape(g, out[i], 3, ay_dim(g, x, 0), 1, d);
    }
}

static ay_val modulated(ay_graph *g, ay_val x, ay_val shift, ay_val scale) {
    ay_val h = ay_layer_norm(g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-6);
    return ay_add(g, ay_mul(g, h, ay_adds(g, scale, 1)), shift);
}

/* [B, L, H * d] to [B, L, H, d], normalised; to [B, H, L, d] before or after, as models differ. */
static ay_val heads_of(ay_graph *g, const char *name, ay_val x, int64_t heads, bool norm, bool permute_first, ay_dtype t) {
    int64_t d = ay_dim(g, x, -1) / heads;
    x = ay_reshape(g, x, 4, ay_dim(g, x, 0), ay_dim(g, x, 1), heads, d);
    if (permute_first) x = ay_permute(g, x, 4, 0, 2, 1, 3);
    if (norm) x = ay_rms_norm(g, x, vec(g, name, d, t), 1e-6);
    return permute_first ? x : ay_permute(g, x, 4, 0, 2, 1, 3);
}

static ay_val merged(ay_graph *g, ay_val o) { /* [B, H, L, d] to [B, L, H * d] */
    o = ay_permute(g, o, 4, 0, 2, 1, 3);
    return ay_reshape(g, o, 3, ay_dim(g, o, 0), ay_dim(g, o, 1), -1);
}

/* ---- two streams, then one --------------------------------------------------------------------------------------- */

typedef struct shape { int64_t B, L1, L2, H, d, D; ay_dtype t; bool interleaved, permute_first; } shape;

static void qkv(ay_graph *g, const shape *s, const char *stream, ay_val x, ay_val out[3]) {
    static const char *const names[] = {"q", "k", "v"};
    ay_push(g, "%s", stream);
    for (int i = 0; i < 3; i++)
        out[i] = heads_of(g, i ? "norm_k" : "norm_q", linear(g, names[i], x, s->D, true, s->t), s->H, i < 2,
                          s->permute_first, s->t);
    ay_pop(g);
}

static ay_val feed_forward(ay_graph *g, const shape *s, const char *name, ay_val x) {
    ay_push(g, "%s", name);
    x = linear(g, "out", ay_gelu(g, linear(g, "in", x, 4 * s->D, true, s->t), AY_GELU_TANH), s->D, true, s->t);
    ay_pop(g);
    return x;
}

static void double_block(ay_graph *g, const shape *s, ay_val *img, ay_val *txt, ay_val temb, ay_val cos, ay_val sin) {
    ay_val mi[6], mt[6], qi[3], qt[3], q[3];
    chunks(g, linear(g, "img_mod", temb, 6 * s->D, true, s->t), 6, mi, true);
    chunks(g, linear(g, "txt_mod", temb, 6 * s->D, true, s->t), 6, mt, true);
    qkv(g, s, "img", modulated(g, *img, mi[0], mi[1]), qi);
    qkv(g, s, "txt", modulated(g, *txt, mt[0], mt[1]), qt);
    for (int i = 0; i < 3; i++) q[i] = ay_concat(g, 2, 2, qt[i], qi[i]);
    for (int i = 0; i < 2; i++) q[i] = ay_rope(g, q[i], cos, sin, s->interleaved);
    ay_val o = merged(g, ay_sdpa(g, q[0], q[1], q[2], AY_NO_VALUE, 1 / sqrt((double)s->d)));
    ay_val ot = ay_slice(g, o, 1, 0, s->L2), oi = ay_slice(g, o, 1, s->L2, INT64_MAX);
    *img = ay_add(g, *img, ay_mul(g, mi[2], linear(g, "img_proj", oi, s->D, true, s->t)));
    *txt = ay_add(g, *txt, ay_mul(g, linear(g, "txt_proj", ot, s->D, true, s->t), mt[2]));
    *img = ay_add(g, *img, ay_mul(g, mi[5], feed_forward(g, s, "img_ff", modulated(g, *img, mi[3], mi[4]))));
    *txt = ay_add(g, ay_mul(g, mt[5], feed_forward(g, s, "txt_ff", modulated(g, *txt, mt[3], mt[4]))), *txt);
}

static ay_val single_block(ay_graph *g, const shape *s, ay_val x, ay_val temb, ay_val cos, ay_val sin) {
    ay_val m[3], q[3];
    chunks(g, linear(g, "mod", temb, 3 * s->D, true, s->t), 3, m, true);
    ay_val h = modulated(g, x, m[0], m[1]);
    qkv(g, s, "attn", h, q);
    for (int i = 0; i < 2; i++) q[i] = ay_rope(g, q[i], cos, sin, s->interleaved);
    ay_val o = merged(g, ay_sdpa(g, q[0], q[1], q[2], AY_NO_VALUE, 1 / sqrt((double)s->d)));
    ay_val mlp = ay_gelu(g, linear(g, "mlp", h, 3 * s->D, true, s->t), AY_GELU_TANH);
    return ay_add(g, x, ay_mul(g, m[2], linear(g, "proj", ay_concat(g, 2, 2, o, mlp), s->D, true, s->t)));
}

ay_graph *graph_joint_blocks(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    shape s = {1 + pick(seed, 2), 1 + pick(seed, 23), 1 + pick(seed, 7), 1 + pick(seed, 3), 2 * (1 + pick(seed, 9)), 0, t,
               pick(seed, 2),     pick(seed, 2)};
    s.D = s.H * s.d;
    int64_t L = s.L1 + s.L2;
    ay_val img = linear(g, "img_in", ay_input(g, "img", ay_shape(t, 3, s.B, s.L1, 5)), s.D, true, t);
    ay_val txt = linear(g, "txt_in", ay_input(g, "txt", ay_shape(t, 3, s.B, s.L2, 7)), s.D, true, t);
    ay_val angles = ay_input(g, "angles", ay_shape(AY_F32, 2, L, s.d));
    ay_val cos = ay_cast(g, ay_unary(g, AY_OP_COS, angles), t), sin = ay_cast(g, ay_unary(g, AY_OP_SIN, angles), t);
    ay_val temb = ay_unary(g, AY_OP_SILU, linear(g, "time", ay_input(g, "time", ay_shape(t, 2, s.B, 6)), s.D, true, t));
    for (int i = 0; i < 2; i++) {
        ay_push(g, "double.%d", i);
        double_block(g, &s, &img, &txt, temb, cos, sin);
        ay_pop(g);
    }
    ay_val x = ay_concat(g, 1, 2, txt, img);
    for (int i = 0; i < 2; i++) {
        ay_push(g, "single.%d", i);
        x = single_block(g, &s, x, temb, cos, sin);
        ay_pop(g);
    }
    ay_val m[2];
    chunks(g, linear(g, "last_mod", temb, 2 * s.D, true, t), 2, m, true);
    x = modulated(g, ay_slice(g, x, 1, s.L2, INT64_MAX), m[1], m[0]);
    ay_set_output(g, "y", linear(g, "last", x, 5, true, t));
    return g;
}

/* ---- text encoders ----------------------------------------------------------------------------------------------- */

ay_graph *graph_encoder(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    int64_t B = 1 + pick(seed, 2), L = 2 + pick(seed, 40), H = 1 + pick(seed, 4), D = H * (1 + pick(seed, 9));
    bool rms = pick(seed, 2), gated = pick(seed, 2), plain_matmul = pick(seed, 2);
    ay_val ids = ay_input(g, "ids", ay_shape(AY_I32, 2, B, L));
    ay_val x = ay_gather(g, ay_param(g, "table", ay_shape(t, 2, 11, D)), ids, 0);
    ay_val keep = ay_input(g, "keep", ay_shape(AY_BOOL, 4, B, 1, 1, L)),
           bias = ay_input(g, "bias", pick(seed, 2) ? ay_shape(t, 4, 1, H, L, L) : ay_shape(t, 4, L, L, 1, H));
    if (ay_dim(g, bias, 2) == 1) bias = ay_permute(g, bias, 4, 2, 3, 0, 1); /* as a table by distance gives it */
    ay_val hidden = ay_cast(g, ay_const_f32(g, -1e4), t), masks[] = {keep, bias, ay_where(g, keep, bias, hidden)};
    ay_val mask = masks[pick(seed, 3)];
    if (pick(seed, 2)) mask = ay_expand_to(g, mask, 4, (int64_t[]){B, H, ay_dim(g, mask, 2), L});
    for (int i = 0; i < 2; i++) {
        ay_push(g, "layers.%d", i);
        ay_val h = rms ? ay_rms_norm(g, x, vec(g, "n1", D, t), 1e-6)
                       : ay_layer_norm(g, x, vec(g, "n1", D, t), vec(g, "n1b", D, t), 1e-5);
        ay_val q = heads_of(g, "", linear(g, "q", h, D, !rms, t), H, false, false, t);
        ay_val k = heads_of(g, "", linear(g, "k", h, D, !rms, t), H, false, false, t);
        ay_val v = heads_of(g, "", linear(g, "v", h, D, !rms, t), H, false, false, t), o;
        if (plain_matmul) {
            ay_val s = ay_add(g, ay_matmul(g, ay_muls(g, q, 0.25), k, false, true), bias);
            o = ay_matmul(g, ay_softmax(g, s, -1), v, false, false);
        } else {
            o = ay_sdpa(g, q, k, v, mask, 0.25);
        }
        x = ay_add(g, x, linear(g, "o", merged(g, o), D, !rms, t));
        h = rms ? ay_rms_norm(g, x, vec(g, "n2", D, t), 1e-6)
                : ay_layer_norm(g, x, vec(g, "n2", D, t), vec(g, "n2b", D, t), 1e-5);
        ay_val f = ay_gelu(g, linear(g, "wi", h, 3 * D, !rms, t), gated ? AY_GELU_TANH : AY_GELU_SIGMOID);
        if (gated) f = ay_mul(g, f, linear(g, "wg", h, 3 * D, false, t));
        x = ay_add(g, x, linear(g, "wo", f, D, false, t));
        ay_pop(g);
    }
    ay_set_output(g, "y", ay_rms_norm(g, x, AY_NO_VALUE, 1e-6));
    ay_set_output(g, "last", ay_slice(g, x, 1, L - 1, L));
    return g;
}

/* ---- decoders of pictures ---------------------------------------------------------------------------------------- */

static ay_val norm_act(ay_graph *g, const char *name, ay_val x, ay_dtype t) {
    int64_t C = ay_dim(g, x, 1);
    ay_push(g, "%s", name);
    x = ay_group_norm(g, x, 2, vec(g, "weight", C, t), vec(g, "bias", C, t), 1e-6);
    ay_pop(g);
    return ay_unary(g, AY_OP_SILU, x);
}

static ay_val resnet(ay_graph *g, const char *name, ay_val x, int64_t C, ay_dtype t) {
    ay_push(g, "%s", name);
    ay_val h = conv(g, "conv1", norm_act(g, "norm1", x, t), C, 3, 1, t);
    h = conv(g, "conv2", norm_act(g, "norm2", h, t), C, 3, 1, t);
    if (ay_dim(g, x, 1) != C) x = conv(g, "shortcut", x, C, 1, 1, t);
    h = ay_add(g, x, h);
    ay_pop(g);
    return h;
}

ay_graph *graph_decoder(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    int64_t B = 1 + pick(seed, 2), h = 1 + pick(seed, 6), w = 1 + pick(seed, 6), C = 4 * (1 + pick(seed, 2));
    ay_val x = conv(g, "in", ay_input(g, "z", ay_shape(t, 4, B, 3, h, w)), C, 3, 1, t);
    x = resnet(g, "mid1", x, C, t);
    ay_val s = ay_group_norm(g, x, 2, AY_NO_VALUE, AY_NO_VALUE, 1e-6);
    s = ay_permute(g, ay_reshape(g, s, 3, B, C, h * w), 3, 0, 2, 1);
    ay_val q = linear(g, "q", s, C, true, t), k = linear(g, "k", s, C, true, t), v = linear(g, "v", s, C, true, t);
    s = linear(g, "o", ay_sdpa(g, q, k, v, AY_NO_VALUE, 0.3), C, true, t);
    x = ay_add(g, ay_reshape(g, ay_permute(g, s, 3, 0, 2, 1), 4, B, C, h, w), x);
    x = resnet(g, "mid2", x, C + 2 * pick(seed, 2), t);
    x = conv(g, "up", ay_upsample_nearest(g, x, 2, 2), C, 3, 1, t);
    ay_val down = conv(g, "down", ay_pad2d(g, x, 0, 1, 0, 1), C, 3, 2, t);
    x = conv(g, "out", norm_act(g, "norm", x, t), 3, 3, 1, t);
    ay_set_output(g, "picture", x);
    ay_set_output(g, "down", ay_binary(g, AY_OP_MAX, down, ay_cast(g, ay_const_f32(g, 0), t)));
    return g;
}

/* ---- tangles ----------------------------------------------------------------------------------------------------- */

static ay_val any_of(uint64_t *seed, const ay_val *v, int n) { return v[n - 1 - pick(seed, n < 6 ? n : 6)]; }

static ay_val random_reshape(ay_graph *g, uint64_t *seed, ay_val x) {
    const ay_type *t = ay_type_of(g, x);
    int64_t n = ay_type_count(t), dim[AY_MAX_RANK];
    int rank = 0;
    while (rank < 4 && n > 1) {
        int64_t f = 1;
        for (int64_t k = 2; k <= n; k++)
            if (n % k == 0 && (f = k, pick(seed, 2))) break;
        dim[rank++] = f;
        n /= f;
    }
    if (n > 1 || rank == 0) dim[rank++] = n;
    return ay_reshape_to(g, x, rank, dim);
}

static ay_val random_permute(ay_graph *g, uint64_t *seed, ay_val x) {
    ay_attr a = {0};
    int rank = ay_type_of(g, x)->rank;
    for (int i = 0; i < rank; i++) a.permute.perm[i] = i;
    for (int i = rank - 1; i > 0; i--) {
        int j = pick(seed, i + 1), k = a.permute.perm[i];
        a.permute.perm[i] = a.permute.perm[j];
        a.permute.perm[j] = k;
    }
    return ay_node_add(g, AY_OP_PERMUTE, &x, 1, &a, NULL);
}

static ay_val random_slice(ay_graph *g, uint64_t *seed, ay_val x) {
    ay_attr a = {0};
    ay_type want = *ay_type_of(g, x);
    for (int i = 0; i < want.rank; i++) {
        int64_t d = want.dim[i], lo = pick(seed, (int)d), step = 1 + pick(seed, 2);
        a.slice.begin[i] = lo;
        a.slice.stride[i] = step;
        want.dim[i] = (d - lo + step - 1) / step;
        if (pick(seed, 3)) a.slice.begin[i] = 0, a.slice.stride[i] = 1, want.dim[i] = d;
        else if (pick(seed, 4) == 0) a.slice.stride[i] = -1, want.dim[i] = lo + 1;
    }
    return ay_node_add(g, AY_OP_SLICE, &x, 1, &a, &want);
}

static ay_val random_reverse(ay_graph *g, uint64_t *seed, ay_val x) {
    ay_attr a = {.reduce = {.n = 1, .axes = {pick(seed, ay_type_of(g, x)->rank)}}};
    return ay_node_add(g, AY_OP_REVERSE, &x, 1, &a, NULL);
}

static ay_val random_concat(ay_graph *g, uint64_t *seed, ay_val x, const ay_val *v, int n) {
    int axis = pick(seed, ay_type_of(g, x)->rank);
    ay_val part[3] = {x, x, x};
    part[0] = ay_unary(g, AY_OP_SIN, x); /* something that can be made in place */
    for (int i = 0; i < n; i++) {
        const ay_type *a = ay_type_of(g, x), *b = ay_type_of(g, v[i]);
        bool fits = a->rank == b->rank;
        for (int d = 0; fits && d < a->rank; d++) fits = d == axis || a->dim[d] == b->dim[d];
        if (fits) part[1] = v[i];
    }
    return ay_concat_n(g, axis, 2 + pick(seed, 2), part);
}

static ay_val random_row(ay_graph *g, uint64_t *seed, ay_val x) { /* something that broadcasts to x */
    ay_attr a = {.reduce = {.keep = true}};
    for (int i = 0; i < ay_type_of(g, x)->rank; i++)
        if (pick(seed, 2)) a.reduce.axes[a.reduce.n++] = i;
    return a.reduce.n ? ay_node_add(g, pick(seed, 2) ? AY_OP_RMAX : AY_OP_SUM, &x, 1, &a, NULL) : x;
}

static ay_val random_op(ay_graph *g, uint64_t *seed, const ay_val *v, int n, ay_dtype t, int number) {
    static const ay_op unary[] = {AY_OP_SIN, AY_OP_TANH, AY_OP_SILU, AY_OP_SIGMOID, AY_OP_COS};
    ay_val x = any_of(seed, v, n);
    int64_t last = ay_dim(g, x, -1);
    char name[32];
    snprintf(name, sizeof name, "p%d", number);
    switch (pick(seed, 18)) {
    case 0: return random_reshape(g, seed, x);
    case 1: case 2: return random_permute(g, seed, x);
    case 3: return random_slice(g, seed, x);
    case 4: return random_reverse(g, seed, x);
    case 5: case 6: return random_concat(g, seed, x, v, n);
    case 7: return ay_add(g, x, random_row(g, seed, x));
    case 8: return ay_mul(g, random_row(g, seed, x), x);
    case 9: return ay_sub(g, ay_unary(g, AY_OP_TANH, x), x);
    case 10: return ay_softmax(g, x, pick(seed, ay_type_of(g, x)->rank));
    case 11: return ay_rms_norm(g, x, AY_NO_VALUE, 1e-1);
    case 12: return ay_unary(g, AY_OP_TANH, linear(g, name, x, 1 + pick(seed, 9), pick(seed, 2), t));
    case 13: return ay_add(g, x, linear(g, name, ay_unary(g, AY_OP_SILU, x), last, true, t));
    case 14: {
        ay_val y = ay_type_of(g, x)->rank < 2 ? ay_reshape(g, x, 2, 1, -1) : x;
        bool ta = pick(seed, 2), tb = !ta;
        return ay_unary(g, AY_OP_TANH, ay_matmul(g, y, pick(seed, 2) ? y : ay_muls(g, y, 0.5), ta, tb));
    }
    case 15: return ay_where(g, ay_binary(g, AY_OP_LT, x, random_row(g, seed, x)), x, ay_cast(g, ay_const_f32(g, 0.5), t));
    case 16: return ay_mul(g, ay_gelu(g, x, AY_GELU_EXACT), x);
    default: return ay_unary(g, unary[pick(seed, 5)], x);
    }
}

ay_graph *graph_tangle(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val v[40];
    int n = 0;
    v[n++] = ay_input(g, "x", ay_shape(t, 3, 1 + pick(seed, 3), 1 + pick(seed, 5), 1 + pick(seed, 8)));
    while (n < 25) {
        ay_val y = random_op(g, seed, v, n, t, n);
        if (ay_type_count(ay_type_of(g, y)) > 5000) continue;
        v[n++] = y;
    }
    ay_set_output(g, "y", v[n - 1]);
    ay_set_output(g, "z", v[n - 1 - pick(seed, 6)]);
    ay_set_output(g, "w", v[pick(seed, n)]);
    return g;
}

/* ---- epilogues ----------------------------------------------------------------------------------------------------- */

/* Something of a random shape that broadcasts to [B, L, D]; whole: of that very shape. */
static ay_val operand(ay_graph *g, uint64_t *seed, ay_val x, const char *name, bool whole, ay_dtype t) {
    int64_t B = ay_dim(g, x, 0), L = ay_dim(g, x, 1), D = ay_dim(g, x, 2);
    ay_val y = ay_param(g, name, ay_shape(t, 3, B, L, D));
    ay_val row = ay_slice(g, y, 1, L - 1, L); /* [B, 1, D], strided over B */
    switch (whole ? 5 : pick(seed, 6)) {
    case 0: return row;
    case 1: return ay_slice(g, row, 0, 0, 1);
    case 2: return ay_reshape(g, ay_slice(g, row, 0, 0, 1), 1, D);
    case 3: return ay_slice(g, y, 0, 0, 1);                    /* [1, L, D] */
    case 4: return ay_slice(g, y, 2, 0, 1);                    /* [B, L, 1] */
    default: return y;
    }
}

static ay_val maybe_cast(ay_graph *g, uint64_t *seed, ay_val x, ay_dtype t) {
    ay_dtype other = t == AY_F32 ? AY_F16 : AY_F32; /* held alike: a chain goes through it */
    return pick(seed, 4) ? x : ay_cast(g, ay_cast(g, x, other), t);
}

static ay_val start_of_chain(ay_graph *g, uint64_t *seed, ay_val x, ay_dtype t) {
    int64_t D = ay_dim(g, x, 2);
    switch (pick(seed, 6)) {
    case 0: return ay_layer_norm(g, x, vec(g, "n", D, t), vec(g, "nb", D, t), 1e-5);
    case 1: return ay_layer_norm(g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-5);
    case 2: return ay_rms_norm(g, x, vec(g, "n", D, t), 1e-5);
    case 3: return ay_matmul(g, x, ay_param(g, "m", ay_shape(t, 2, D, D)), false, pick(seed, 2));
    case 4: return ay_matmul(g, x, ay_param(g, "m", ay_shape(t, 3, ay_dim(g, x, 0), D, D)), false, pick(seed, 2));
    default: return linear(g, "l", x, D, pick(seed, 2), t);
    }
}

static ay_val link_of_chain(ay_graph *g, uint64_t *seed, ay_val x, ay_val before, ay_dtype t, const char *name) {
    static const ay_op act[] = {AY_OP_SILU, AY_OP_TANH, AY_OP_SIGMOID};
    ay_val y;
    switch (pick(seed, 8)) {
    case 0: return ay_unary(g, act[pick(seed, 3)], x);
    case 1: return ay_gelu(g, x, (ay_gelu_mode)pick(seed, 3));
    case 2: return ay_binary(g, AY_OP_MAX, x, ay_cast(g, ay_const_f32(g, 0), t));
    case 3: y = operand(g, seed, x, name, false, t);
        if (pick(seed, 2)) y = ay_adds(g, y, 1);
        return pick(seed, 2) ? ay_mul(g, x, y) : ay_mul(g, y, x);
    case 4: return ay_add(g, x, before);
    case 5: return ay_mul(g, before, x);
    case 6: return ay_add(g, operand(g, seed, x, name, true, t), x);
    default: return ay_add(g, x, operand(g, seed, x, name, false, t));
    }
}

ay_graph *graph_epilogues(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(t, 3, 1 + pick(seed, 3), 1 + pick(seed, 20), 1 + pick(seed, 20))), seen = x;
    for (int i = 0; i < 3; i++) {
        char name[16];
        ay_push(g, "chain.%d", i);
        ay_val before = x;
        x = start_of_chain(g, seed, x, t);
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "p%d", k);
            x = maybe_cast(g, seed, link_of_chain(g, seed, x, before, t, name), t);
            if (pick(seed, 8) == 0) seen = x; /* read by someone else: the chain has to end here */
        }
        ay_pop(g);
    }
    ay_set_output(g, "y", ay_unary(g, AY_OP_TANH, x));
    ay_set_output(g, "seen", ay_unary(g, AY_OP_TANH, seen));
    return g;
}

/* ---- integers and truth values --------------------------------------------------------------------------------------- */

static ay_val as(ay_graph *g, ay_val x, ay_dtype t) { return ay_cast(g, x, t); }

static ay_val int_sum(ay_graph *g, uint64_t *seed, ay_val x) {
    static const ay_op op[] = {AY_OP_SUM, AY_OP_RMAX, AY_OP_RMIN, AY_OP_PROD};
    return ay_reduce(g, op[pick(seed, 4)], x, pick(seed, 3), true);
}

static ay_val int_lane(ay_graph *g, uint64_t *seed, ay_val x) {
    int axis = pick(seed, 3);
    ay_attr scan = {.scan = {.axis = axis, .exclusive = pick(seed, 2), .reverse = pick(seed, 2)}};
    ay_attr arg = {.reduce = {.n = 1, .axes = {axis}, .keep = true, .largest = pick(seed, 2)}};
    ay_attr top = {.topk = {.axis = axis, .k = ay_dim(g, x, axis), .largest = pick(seed, 2), .indices = pick(seed, 2)}};
    ay_attr pad = {.pad = {.before = {1, 0, 2}, .mode = pick(seed, 2) ? AY_PAD_REPLICATE : AY_PAD_CONSTANT, .value = 3}};
    ay_attr along = {.gather = {.axis = axis}};
    ay_type dims = *ay_type_of(g, x), back = {.dtype = dims.dtype, .rank = 3, .dim = {dims.dim[0], dims.dim[1], dims.dim[2]}};
    ay_attr cut = {.slice = {.begin = {pick(seed, 2), 0, pick(seed, 3)}, .stride = {1, 1, 1}}};
    ay_val order = ay_node_add(g, AY_OP_TOPK, &x, 1, &(ay_attr){.topk = {axis, dims.dim[axis], true, true}}, NULL);
    switch (pick(seed, 5)) {
    case 0: return ay_node_add(g, AY_OP_CUMSUM, &x, 1, &scan, NULL);
    case 1: return ay_add(g, x, ay_node_add(g, AY_OP_ARGMAX, &x, 1, &arg, NULL));
    case 2: return ay_node_add(g, AY_OP_TOPK, &x, 1, &top, NULL);
    case 3: x = ay_node_add(g, AY_OP_PAD, &x, 1, &pad, NULL);
        return ay_node_add(g, AY_OP_SLICE, &x, 1, &cut, &back);
    default: return ay_node_add(g, AY_OP_GATHER_ALONG, (ay_val[]){x, order}, 2, &along, NULL);
    }
}

static ay_val int_op(ay_graph *g, uint64_t *seed, ay_val x, ay_val y) {
    static const ay_op two[] = {AY_OP_ADD, AY_OP_SUB, AY_OP_MUL, AY_OP_DIV, AY_OP_MOD, AY_OP_MAX, AY_OP_MIN, AY_OP_POW};
    static const ay_op compare[] = {AY_OP_EQ, AY_OP_NE, AY_OP_LT, AY_OP_LE, AY_OP_GT, AY_OP_GE};
    static const ay_op logic[] = {AY_OP_AND, AY_OP_OR, AY_OP_XOR};
    if (pick(seed, 3) == 0) y = int_sum(g, seed, y);
    ay_val lt = ay_binary(g, compare[pick(seed, 6)], x, y), b = ay_unary(g, AY_OP_NOT, as(g, x, AY_BOOL));
    switch (pick(seed, 9)) {
    case 0: return ay_where(g, lt, x, y);
    case 1: return as(g, ay_binary(g, logic[pick(seed, 3)], lt, b), AY_I32);
    case 2: return as(g, ay_muls(g, as(g, x, AY_F32), 0.37), AY_I32);
    case 3: return as(g, as(g, x, pick(seed, 2) ? AY_I8 : AY_U8), AY_I32);
    case 4: return ay_unary(g, pick(seed, 2) ? AY_OP_ABS : AY_OP_SIGN, x);
    case 5: return ay_matmul(g, x, x, false, true);
    case 6: return int_lane(g, seed, x);
    default: return ay_binary(g, two[pick(seed, 8)], x, y);
    }
}

/* All values are int32[2, 3, 3]. */
ay_graph *graph_integers(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    ay_val v[24];
    int n = 0;
    v[n++] = ay_input(g, "x", ay_shape(AY_I32, 3, 2, 3, 3));
    v[n++] = ay_sub(g, ay_input(g, "y", ay_shape(AY_I32, 3, 2, 3, 3)), ay_const_i32(g, 5));
    for (; n < 24; n++) {
        v[n] = int_op(g, seed, any_of(seed, v, n), any_of(seed, v, n));
        if (pick(seed, 4) == 0) v[n] = ay_permute(g, v[n], 3, 0, 2, 1);
    }
    for (int i = 0; i < 4; i++) ay_set_output(g, (const char *const[]){"a", "b", "c", "d"}[i], v[n - 1 - i]);
    return g;
}

/* Parts of tables too large to be kept as floats: of which no more is read than the span that is used. */
ay_graph *graph_tables(ay_ctx *cx, uint64_t *seed, ay_dtype t) {
    ay_graph *g = ay_graph_new(cx);
    int64_t m = 40 + pick(seed, 9), d = 4 * (10 + pick(seed, 8));
    ay_val table = ay_cast(g, ay_param(g, "table", ay_shape(AY_F16, 3, (int64_t)1, m * m, d)), t);
    for (int i = 0; i < 3; i++) {
        int64_t rows = 1 + pick(seed, 20), columns = 1 + pick(seed, 20), top = pick(seed, (int)(m - rows)), left = pick(seed, (int)(m - columns));
        ay_val v = ay_slice(g, ay_reshape(g, table, 3, m, m, d), 0, top, top + rows);
        if (pick(seed, 2)) v = random_permute(g, seed, v);
        else v = ay_slice(g, v, 1, left, left + columns);
        for (int k = pick(seed, 3); k > 0; k--) v = random_slice(g, seed, v);
        if (pick(seed, 2)) v = random_reshape(g, seed, v);
        ay_set_output(g, (const char *const[]){"a", "b", "c"}[i], ay_mul(g, v, ay_input(g, (const char *const[]){"x", "y", "z"}[i], ay_shape(t, 1, (int64_t)1))));
    }
    return g;
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static void bind(graph_case *c, uint64_t *seed) {
    for (int i = 0; i < c->g->n_nodes; i++) {
        ay_node *n = &c->g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        int64_t count = ay_type_count(&n->type);
        float *f = ay_alloc(c->arena, (size_t)count * 4),
              gain = n->type.rank > 1 ? 1.5f / sqrtf((float)(count / n->type.dim[0])) : 0.5f;
        void *data = ay_alloc(c->arena, ay_dtype_bytes(n->type.dtype, count));
        for (int64_t k = 0; k < count; k++) f[k] = ay_test_uniform(seed) * gain;
        ay_convert_from_f32(n->type.dtype, f, count, data);
        *n->weight = ay_weight_plain(&n->type, data);
    }
}

static void make_input(graph_case *c, const ay_node *n, uint64_t *seed) {
    int64_t count = ay_type_count(&n->type);
    ay_tensor *t = &c->in[c->n_in++];
    *t = (ay_tensor){n->name, n->type, ay_alloc(c->arena, (size_t)count * 8)};
    if (ay_dtype_is_float(n->type.dtype) && pick(seed, 2)) t->type.dtype = AY_F32; /* as is, or to be converted */
    for (int64_t k = 0; k < count; k++) {
        if (n->type.dtype == AY_I32) {
            ((int32_t *)t->data)[k] = pick(seed, 11);
        } else if (n->type.dtype == AY_BOOL) {
            ((uint8_t *)t->data)[k] =
                k % n->type.dim[n->type.rank - 1] == 0 || pick(seed, 3) > 0; /* every row keeps something */
        } else {
            float f = 2 * ay_test_uniform(seed);
            ay_convert_from_f32(t->type.dtype, &f, 1,
                                (char *)t->data + (size_t)k * (size_t)ay_dtype_bits(t->type.dtype) / 8);
        }
    }
}

void graph_case_make(graph_case *c, ay_ctx *cx, graph_fn make, uint64_t seed, ay_dtype t, bool half, int64_t *overflows) {
    seed = seed * 0x9E3779B97F4A7C15u + 1;
    for (int i = 0; i < 8; i++) ay_test_random(&seed);
    *c = (graph_case){.arena = ay_arena_new()};
    c->g = make(cx, &seed, t);
    if (ay_graph_status(c->g)) fail_msg("%s", ay_error_text(cx));
    bind(c, &seed);
    for (int i = 0; i < c->g->n_nodes; i++)
        if (c->g->nodes[i].op == AY_OP_INPUT) make_input(c, &c->g->nodes[i], &seed);
    for (int i = 0; i < c->g->n_outputs; i++) {
        ay_type type = *ay_type_of(c->g, c->g->outputs[i].value);
        type.dtype = AY_F32;
        size_t bytes = (size_t)ay_type_count(&type) * 4;
        c->want[i] = (ay_tensor){c->g->outputs[i].name, type, ay_alloc(c->arena, bytes)};
        c->out[i] = (ay_tensor){c->g->outputs[i].name, type, ay_alloc(c->arena, bytes)};
        c->n_out++;
    }
    assert_ok(cx, ay_eval(c->g, c->in, c->n_in, c->want, c->n_out, half, overflows));
}

void graph_case_free(graph_case *c) {
    ay_graph_free(c->g);
    ay_arena_free(c->arena);
}

double graph_case_error(const graph_case *c) {
    double worst = 0;
    for (int i = 0; i < c->n_out; i++) {
        double diff = 0, norm = 1e-12;
        const float *a = c->out[i].data, *b = c->want[i].data;
        for (int64_t k = 0; k < ay_type_count(&c->out[i].type); k++) {
            diff += ((double)a[k] - b[k]) * ((double)a[k] - b[k]);
            norm += (double)b[k] * b[k];
        }
        double e = sqrt(diff / norm);
        if (!(e <= worst)) worst = e;
    }
    return worst;
}
