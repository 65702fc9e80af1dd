/* SPDX-License-Identifier: MIT
 *
 * The UNet of Stable Diffusion 1, 2 and XL, and of what is cut or distilled from them (diffusers: UNet2DConditionModel, models/unets/unet_2d_condition.py,
 * unet_2d_blocks.py, models/transformers/transformer_2d.py).
 *
 *   sample [B, C, h, w] -> conv_in -> down blocks -> mid block -> up blocks, fed the down blocks' results from the last
 *                          to the first -> conv_norm_out, silu, conv_out -> noise_pred [B, C, h, w]
 *   timestep [B] (and text_embeds [B, P], time_ids [B, 6]) -> temb, added in every resnet
 *   timestep_cond [B, G]: in models distilled from guided ones, what the guidance was
 *   encoder_hidden_states [B, T, D] -> the second attention of every transformer block
 *   built to be controlled: down_block_additional_residuals_0.. and mid_block_additional_residual (diffusers has tuples)
 *
 * The result is called noise_pred, not sample as in other denoisers: Core ML wants distinct names of inputs and outputs.
 * What people get wrong: attention_head_dim is the number of heads; a mirrored level has one resnet more; the norm before
 * a transformer has eps 1e-6 where the resnets' have norm_eps; sizes that do not halve evenly are cut after doubling.
 */
#include "model/sd_unet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    ay_unet_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    *out = c;
    return ay_sd_unet_read(cx, what, j, true, c);
}

/* ---- blocks ------------------------------------------------------------------------------------------------ */

static ay_val group_norm(ay_graph *g, const ay_unet_config *c, const char *name, ay_val x, double eps) {
    int64_t channels = ay_dim(g, x, 1);
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, channels)), b = ay_param(g, "bias", ay_shape(AY_F32, 1, channels));
    x = ay_group_norm(g, x, c->groups, w, b, eps);
    ay_pop(g);
    return x;
}

static ay_val norm_act_conv(ay_graph *g, const ay_unet_config *c, const char *norm, const char *conv, ay_val x, int64_t out,
                             int kernel) {
    x = ay_activation(g, c->act, group_norm(g, c, norm, x, c->eps));
    return ay_conv2d_layer(g, conv, x, out, kernel, 1, kernel / 2, true);
}

/* temb [B, 4 * channels of the first level], behind its activation: added, or scale and shift behind the second norm */
static ay_val resnet(ay_graph *g, const ay_unet_config *c, int64_t index, ay_val x, ay_val temb, int64_t out) {
    ay_push(g, "resnets.%lld", (long long)index);
    ay_val h = norm_act_conv(g, c, "norm1", "conv1", x, out, 3);
    ay_val t = ay_linear_layer(g, "time_emb_proj", temb, c->scale_shift ? 2 * out : out, true);
    t = ay_reshape(g, t, 4, ay_dim(g, x, 0), ay_dim(g, t, 1), (int64_t)1, (int64_t)1);
    if (c->scale_shift) {
        h = ay_mul(g, group_norm(g, c, "norm2", h, c->eps), ay_adds(g, ay_slice(g, t, 1, 0, out), 1));
        h = ay_activation(g, c->act, ay_add(g, h, ay_slice(g, t, 1, out, INT64_MAX)));
        h = ay_conv2d_layer(g, "conv2", h, out, 3, 1, 1, true);
    } else {
        h = norm_act_conv(g, c, "norm2", "conv2", ay_add(g, h, t), out, 3);
    }
    if (ay_dim(g, x, 1) != out) x = ay_conv2d_layer(g, "conv_shortcut", x, out, 1, 1, 0, true);
    ay_pop(g);
    return ay_add(g, x, h);
}

static ay_val layer_norm(ay_graph *g, const char *name, ay_val x) {
    int64_t width = ay_dim(g, x, -1);
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, width)), b = ay_param(g, "bias", ay_shape(AY_F32, 1, width));
    x = ay_layer_norm(g, x, w, b, 1e-5);
    ay_pop(g);
    return x;
}

/* x [B, S, C] attends to `to` [B, T, D] (x itself in the first attention). */
static ay_val attention(ay_graph *g, const ay_unet_config *c, const char *name, ay_val x, ay_val to, int64_t heads) {
    int64_t width = ay_dim(g, x, -1);
    ay_push(g, "%s", name);
    ay_val q = ay_split_heads(g, ay_linear_layer(g, "to_q", x, width, false), heads);
    ay_val k = ay_split_heads(g, ay_linear_layer(g, "to_k", to, width, false), heads);
    ay_val v = ay_split_heads(g, ay_linear_layer(g, "to_v", to, width, false), heads);
    ay_push(g, c->upcast ? "upcast" : "product"); /* a scope for the rules below; no weights inside */
    ay_val o = ay_attend(g, q, k, v, AY_NO_VALUE, 1.0 / sqrt((double)(width / heads)));
    ay_pop(g);
    o = ay_linear_layer(g, "to_out.0", o, width, true);
    ay_pop(g);
    return o;
}

/* GEGLU: half of the projection, times gelu of the other half. */
static ay_val feed_forward(ay_graph *g, ay_val x) {
    int64_t width = ay_dim(g, x, -1);
    ay_push(g, "ff.net");
    ay_val h = ay_linear_layer(g, "0.proj", x, 8 * width, true);
    ay_val gate = ay_gelu(g, ay_slice(g, h, -1, 4 * width, INT64_MAX), AY_GELU_EXACT);
    h = ay_linear_layer(g, "2", ay_mul(g, ay_slice(g, h, -1, 0, 4 * width), gate), width, true);
    ay_pop(g);
    return h;
}

/* Transformer2DModel over the positions of x [B, C, h, w], residual. */
static ay_val transformer(ay_graph *g, const ay_unet_config *c, const ay_unet_level *l, int64_t depth, int64_t index, ay_val x, ay_val text) {
    int64_t batch = ay_dim(g, x, 0), channels = ay_dim(g, x, 1), height = ay_dim(g, x, 2), width = ay_dim(g, x, 3);
    ay_push(g, "attentions.%lld", (long long)index);
    ay_val h = group_norm(g, c, "norm", x, 1e-6);
    if (c->split) {
        h = ay_unet_split_blocks(g, c, l, depth, h, text);
        ay_pop(g);
        return ay_add(g, x, h);
    }
    if (!c->linear) h = ay_conv2d_layer(g, "proj_in", h, channels, 1, 1, 0, true);
    h = ay_permute(g, ay_reshape(g, h, 3, batch, channels, height * width), 3, 0, 2, 1); /* [B, hw, C] */
    if (c->linear) h = ay_linear_layer(g, "proj_in", h, channels, true);
    for (int64_t i = 0; i < depth; i++) {
        ay_push(g, "transformer_blocks.%lld", (long long)i);
        ay_val n = layer_norm(g, "norm1", h);
        h = ay_add(g, h, attention(g, c, "attn1", n, l->only_cross ? text : n, l->heads));
        h = ay_add(g, h, attention(g, c, "attn2", layer_norm(g, "norm2", h), text, l->heads));
        h = ay_add(g, h, feed_forward(g, layer_norm(g, "norm3", h)));
        ay_pop(g);
    }
    if (c->linear) h = ay_linear_layer(g, "proj_out", h, channels, true);
    h = ay_reshape(g, ay_permute(g, h, 3, 0, 2, 1), 4, batch, channels, height, width);
    if (!c->linear) h = ay_conv2d_layer(g, "proj_out", h, channels, 1, 1, 0, true);
    ay_pop(g);
    return ay_add(g, x, h);
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

static void down_block(ay_graph *g, const ay_unet_config *c, int i, ay_unet_state *s) {
    const ay_unet_level *l = &c->level[i];
    ay_push(g, "down_blocks.%d", i);
    for (int64_t k = 0; k < l->layers; k++) {
        s->x = resnet(g, c, k, s->x, s->temb, l->channels);
        if (l->down_attention) s->x = transformer(g, c, l, l->down_depth[k], k, s->x, s->text);
        s->skips[s->n_skips++] = s->x;
    }
    if (i + 1 < c->levels) {
        if (!c->down_pad) s->x = ay_pad2d(g, s->x, 0, 1, 0, 1); /* right and bottom only */
        s->skips[s->n_skips++] = s->x = ay_conv2d_layer(g, "downsamplers.0.conv", s->x, l->channels, 3, 2, (int)c->down_pad, true);
    }
    ay_pop(g);
}

static void mid_block(ay_graph *g, const ay_unet_config *c, ay_unet_state *s) {
    ay_unet_level l = c->level[c->levels - 1];
    l.only_cross = false; /* which is said of the levels alone */
    if (c->middle == AY_UNET_MIDDLE_NONE) return;
    ay_push(g, "mid_block");
    s->x = resnet(g, c, 0, s->x, s->temb, l.channels);
    if (c->middle == AY_UNET_MIDDLE_ATTENTION) {
        s->x = transformer(g, c, &l, c->mid_depth, 0, s->x, s->text);
        s->x = resnet(g, c, 1, s->x, s->temb, l.channels);
    }
    ay_pop(g);
}

static void up_block(ay_graph *g, const ay_unet_config *c, int i, ay_unet_state *s) {
    const ay_unet_level *l = &c->level[c->levels - 1 - i];
    ay_push(g, "up_blocks.%d", i);
    for (int64_t k = 0; k <= l->layers; k++) {
        s->x = resnet(g, c, k, ay_concat(g, 1, 2, s->x, s->skips[--s->n_skips]), s->temb, l->channels);
        if (l->up_attention) s->x = transformer(g, c, l, l->up_depth[k], k, s->x, s->text);
    }
    if (i + 1 < c->levels) {
        ay_val next = s->skips[s->n_skips - 1], up = ay_upsample_nearest(g, s->x, 2, 2);
        for (int axis = 2; axis < 4; axis++) { /* an odd size: nearest neighbours of 2n - 1 are the first of 2n */
            if (ay_dim(g, up, axis) < ay_dim(g, next, axis))
                ay_graph_fail(g, ALLOY_E_UNSUPPORTED, "latents of a size that does not halve evenly do not go with downsample_padding 0");
            if (ay_dim(g, up, axis) != ay_dim(g, next, axis)) up = ay_slice(g, up, axis, 0, ay_dim(g, next, axis));
        }
        s->x = ay_conv2d_layer(g, "upsamplers.0.conv", up, l->channels, 3, 1, 1, true);
    }
    ay_pop(g);
}

/* act(temb) [B, 4 * channels of the first level]. The embedding of sizes has silu in it, whatever the configuration says. */
static ay_val time_embedding(ay_graph *g, const ay_unet_config *c, ay_val timestep, ay_val cond, ay_val text_embeds, ay_val time_ids) {
    int64_t batch = ay_dim(g, timestep, 0), width = 4 * c->level[0].channels;
    ay_push(g, "time_proj");
    ay_val t = ay_timestep_embedding(g, timestep, c->level[0].channels, c->flip, c->freq_shift, 1);
    ay_pop(g);
    ay_push(g, "time_embedding");
    if (c->cond_dim) t = ay_add(g, t, ay_linear_layer(g, "cond_proj", cond, c->level[0].channels, false));
    t = ay_activation(g, c->act, ay_linear_layer(g, "linear_1", t, width, true));
    ay_val temb = ay_linear_layer(g, "linear_2", t, width, true);
    ay_pop(g);
    if (c->text_time) {
        int64_t n = ay_dim(g, time_ids, 1);
        ay_push(g, "add_time_proj");
        ay_val ids =
            ay_timestep_embedding(g, ay_reshape(g, time_ids, 1, batch * n), c->time_dim, c->flip, c->freq_shift, 1);
        ids = ay_reshape(g, ids, 2, batch, n * c->time_dim);
        ay_pop(g);
        temb = ay_add(g, temb, ay_mlp_silu(g, "add_embedding", ay_concat(g, 1, 2, text_embeds, ids), width, width));
    }
    return ay_activation(g, c->act, temb);
}

bool ay_sd_unet_enter(ay_graph *g, const ay_unet_config *c, const ay_sizes *sizes, ay_unet_state *s) {
    int64_t batch = sizes->batch > 0 ? sizes->batch : 1;
    if (sizes->latent_height < 1 || sizes->latent_width < 1 || sizes->text_length < 1) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "latents of %lldx%lld with %lld text tokens: every size must be at least 1",
                      (long long)sizes->latent_width, (long long)sizes->latent_height, (long long)sizes->text_length);
        return false;
    }
    s->x = ay_input(g, "sample", ay_shape(AY_F32, 4, batch, c->in_channels, sizes->latent_height, sizes->latent_width));
    ay_val timestep = ay_input(g, "timestep", ay_shape(AY_F32, 1, batch)), text_embeds = AY_NO_VALUE, time_ids = AY_NO_VALUE, cond = AY_NO_VALUE;
    s->text = ay_input(g, "encoder_hidden_states", ay_shape(AY_F32, 3, batch, sizes->text_length, c->cross_dim));
    if (c->text_time) {
        int64_t numbers = sizes->numbers > 0 ? sizes->numbers : c->ids, left = c->added_dim - numbers * c->time_dim;
        if (left < 1) {
            ay_graph_fail(g, ALLOY_E_MISMATCH, "%lld added numbers do not hold %lld times %lld", (long long)c->added_dim, (long long)numbers,
                          (long long)c->time_dim);
            return false;
        }
        text_embeds = ay_input(g, "text_embeds", ay_shape(AY_F32, 2, batch, left));
        time_ids = ay_input(g, "time_ids", ay_shape(AY_F32, 2, batch, numbers));
    }
    if (c->cond_dim) cond = ay_input(g, "timestep_cond", ay_shape(AY_F32, 2, batch, c->cond_dim));
    if (c->split) s->text = ay_unet_split_text(g, s->text);
    s->temb = time_embedding(g, c, timestep, cond, text_embeds, time_ids);
    s->x = ay_conv2d_layer(g, "conv_in", s->x, c->level[0].channels, (int)c->conv_in, 1, (int)c->conv_in / 2, true);
    return true;
}

void ay_sd_unet_down(ay_graph *g, const ay_unet_config *c, ay_unet_state *s) {
    s->skips[s->n_skips++] = s->x;
    for (int i = 0; i < c->levels; i++) down_block(g, c, i, s);
    mid_block(g, c, s);
}

/* What a control net gives is added to what goes up. */
static void add_residuals(ay_graph *g, ay_unet_state *s) {
    for (int i = 0; i < s->n_skips; i++) {
        char name[64];
        snprintf(name, sizeof name, "down_block_additional_residuals_%d", i);
        s->skips[i] = ay_add(g, s->skips[i], ay_input(g, name, *ay_type_of(g, s->skips[i])));
    }
    s->x = ay_add(g, s->x, ay_input(g, "mid_block_additional_residual", *ay_type_of(g, s->x)));
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *sizes) {
    const ay_unet_config *c = cfg;
    ay_unet_state s = {.n_skips = 0};
    if (!ay_sd_unet_enter(g, c, sizes, &s)) return;
    ay_sd_unet_down(g, c, &s);
    if (ay_graph_status(g) != ALLOY_OK) return;
    if (sizes->control) add_residuals(g, &s);
    for (int i = 0; i < c->levels; i++) up_block(g, c, i, &s);
    ay_set_output(g, "noise_pred",
                  norm_act_conv(g, c, "conv_norm_out", "conv_out", s.x, c->out_channels, (int)c->conv_out));
}

const ay_keep_rule ay_sd_unet_keep[] = {
    {"time_proj", AY_OP_COUNT, AY_F32, "timesteps to 1000 keep two digits after the point only in float32"},
    {"add_time_proj", AY_OP_COUNT, AY_F32, "picture sizes beyond 2048 are not whole numbers in half"},
    {"*.upcast", AY_OP_COUNT, AY_F32,
     "the configuration says upcast_attention: products of queries and keys leave half's range"},
    {NULL, AY_OP_COUNT, AY_NONE, NULL},
};

/* diffusers before PEFT named adapters after attention processors. */
static const ay_alias lora_aliases[] = {
    {"*.to_q.*", "*.processor.to_q.*", AY_TAKE_ALL, 0},
    {"*.to_k.*", "*.processor.to_k.*", AY_TAKE_ALL, 0},
    {"*.to_v.*", "*.processor.to_v.*", AY_TAKE_ALL, 0},
    {"*.to_out.0.*", "*.processor.to_out.*", AY_TAKE_ALL, 0},
    {"*.to_out.0.*", "*.to_out.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};

static const char *const layouts[] = {"split-einsum", NULL};

const char *const ay_sd_unet_f32_inputs[] = {"timestep", "time_ids", NULL};

const ay_arch ay_arch_sd_unet = {
    .class_name = "UNet2DConditionModel",
    .graph_kind = "",
    .configure = configure,
    .build = build,
    .keep = ay_sd_unet_keep,
    .f32_inputs = ay_sd_unet_f32_inputs,
    .namings = ay_sd_unet_namings,
    .first_layer = "conv_in.weight",
    .lora_aliases = lora_aliases,
    .layouts = layouts,
};
