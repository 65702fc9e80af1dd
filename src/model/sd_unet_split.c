/* SPDX-License-Identifier: MIT
 *
 * The UNet's transformers in the layout that Apple's Neural Engine is said to want (machinelearning.apple.com/research/
 * neural-engine-transformers; apple/ml-stable-diffusion, python_coreml_stable_diffusion/unet.py, attention.py SPLIT_EINSUM):
 * channels first, [B, C, 1, S]; linear layers are 1x1 convolutions, whose weights are [out, in, 1, 1]; attention is one head at a
 * time, as two products that never move the channels:
 *
 *   weights [B, k, 1, q] = keys [B, k, 1, c] x queries [B, c, 1, q]     einsum bkhc,bchq->bkhq, softmax over k
 *   result  [B, c, 1, q] = values [B, c, 1, k] x weights                einsum bchk,bkhq->bchq
 *
 * The graph has no einsum: it is a matmul between permutes, which coreml/emit_einsum.c writes as one and coreml/read_matrix.c
 * reads back; raising makes attention of both.
 */
#include "model/sd_unet.h"

#include <math.h>

/* a [n, c, h, w] and b [n, w, h, u] to [n, c, h, u] */
static ay_val einsum(ay_graph *g, ay_val a, ay_val b) {
    a = ay_permute(g, a, 4, 0, 2, 1, 3);
    b = ay_permute(g, b, 4, 0, 2, 1, 3);
    return ay_permute(g, ay_matmul(g, a, b, false, false), 4, 0, 2, 1, 3);
}

static ay_val layer_norm(ay_graph *g, const char *name, ay_val x) {
    int64_t width = ay_dim(g, x, 1);
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, width)), b = ay_param(g, "bias", ay_shape(AY_F32, 1, width));
    x = ay_node_add(g, AY_OP_LAYER_NORM, (ay_val[]){x, w, b}, 3, &(ay_attr){.norm = {.n = 1, .axes = {1}, .eps = 1e-5}}, NULL);
    ay_pop(g);
    return x;
}

/* x [B, C, 1, S] attends to `to` [B, D, 1, T]. */
static ay_val attention(ay_graph *g, const ay_unet_config *c, const char *name, ay_val x, ay_val to, int64_t heads) {
    int64_t width = ay_dim(g, x, 1), d = width / heads;
    ay_val head[AY_UNET_HEADS];
    ay_push(g, "%s", name);
    ay_val q = ay_conv2d_layer(g, "to_q", x, width, 1, 1, 0, false);
    ay_val k = ay_conv2d_layer(g, "to_k", to, width, 1, 1, 0, false);
    ay_val v = ay_conv2d_layer(g, "to_v", to, width, 1, 1, 0, false);
    ay_push(g, c->upcast ? "upcast" : "product");
    q = ay_muls(g, q, 1.0 / sqrt((double)d)); /* here rather than on every head's weights: less to do, and less to round */
    k = ay_permute(g, k, 4, 0, 3, 2, 1);
    for (int64_t i = 0; i < heads; i++) {
        ay_val ki = ay_slice(g, k, 3, i * d, (i + 1) * d), qi = ay_slice(g, q, 1, i * d, (i + 1) * d);
        ay_val w = ay_softmax(g, einsum(g, ki, qi), 1);
        head[i] = einsum(g, ay_slice(g, v, 1, i * d, (i + 1) * d), w);
    }
    ay_val o = heads > 1 ? ay_concat_n(g, 1, (int)heads, head) : head[0];
    ay_pop(g);
    o = ay_conv2d_layer(g, "to_out.0", o, width, 1, 1, 0, true);
    ay_pop(g);
    return o;
}

static ay_val feed_forward(ay_graph *g, ay_val x) {
    int64_t width = ay_dim(g, x, 1);
    ay_push(g, "ff.net");
    ay_val h = ay_conv2d_layer(g, "0.proj", x, 8 * width, 1, 1, 0, true);
    ay_val gate = ay_gelu(g, ay_slice(g, h, 1, 4 * width, INT64_MAX), AY_GELU_EXACT);
    h = ay_conv2d_layer(g, "2", ay_mul(g, ay_slice(g, h, 1, 0, 4 * width), gate), width, 1, 1, 0, true);
    ay_pop(g);
    return h;
}

ay_val ay_unet_split_text(ay_graph *g, ay_val text) {
    return ay_reshape(g, ay_permute(g, text, 3, 0, 2, 1), 4, ay_dim(g, text, 0), ay_dim(g, text, 2), 1, ay_dim(g, text, 1));
}

ay_val ay_unet_split_blocks(ay_graph *g, const ay_unet_config *c, const ay_unet_level *l, int64_t depth, ay_val x, ay_val text) {
    int64_t batch = ay_dim(g, x, 0), channels = ay_dim(g, x, 1), height = ay_dim(g, x, 2), width = ay_dim(g, x, 3);
    ay_val h = ay_conv2d_layer(g, "proj_in", x, channels, 1, 1, 0, true);
    h = ay_reshape(g, h, 4, batch, channels, 1, height * width);
    for (int64_t i = 0; i < depth; i++) {
        ay_push(g, "transformer_blocks.%lld", (long long)i);
        ay_val n = layer_norm(g, "norm1", h);
        h = ay_add(g, h, attention(g, c, "attn1", n, l->only_cross ? text : n, l->heads));
        h = ay_add(g, h, attention(g, c, "attn2", layer_norm(g, "norm2", h), text, l->heads));
        h = ay_add(g, h, feed_forward(g, layer_norm(g, "norm3", h)));
        ay_pop(g);
    }
    return ay_conv2d_layer(g, "proj_out", ay_reshape(g, h, 4, batch, channels, height, width), channels, 1, 1, 0, true);
}
