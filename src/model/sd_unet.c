/* SPDX-License-Identifier: MIT
 *
 * The UNet of Stable Diffusion 1, 2 and XL (diffusers: UNet2DConditionModel, models/unets/unet_2d_condition.py,
 * unet_2d_blocks.py, models/transformers/transformer_2d.py).
 *
 *   sample [B, C, h, w] -> conv_in -> down blocks -> mid block -> up blocks, fed the down blocks' results from the last
 *                          to the first -> conv_norm_out, silu, conv_out -> noise_pred [B, C, h, w]
 *   timestep [B] (and text_embeds [B, P], time_ids [B, 6]) -> temb, added in every resnet
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

/* ---- configuration -------------------------------------------------------------------------------------- */

/* Keys of the class that no checkpoint of these models sets to anything else. `value` NULL: null or false. */
static alloy_status check_unused(ay_ctx *cx, const char *what, const json_t *j) {
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"time_cond_proj_dim", NULL},
        {"class_embed_type", NULL},
        {"num_class_embeds", NULL},
        {"encoder_hid_dim", NULL},
        {"encoder_hid_dim_type", NULL},
        {"num_attention_heads", NULL},
        {"dual_cross_attention", NULL},
        {"center_input_sample", NULL},
        {"timestep_post_act", NULL},
        {"time_embedding_dim", NULL},
        {"time_embedding_act_fn", NULL},
        {"reverse_transformer_layers_per_block", NULL},
        {"cross_attention_norm", NULL},
        {"resnet_skip_time_act", NULL},
        {"class_embeddings_concat", NULL},
        {"mid_block_only_cross_attention", NULL},
        {"resnet_time_scale_shift", "default"},
        {"time_embedding_type", "positional"},
        {"attention_type", "default"},
        {"mid_block_type", "UNetMidBlock2DCrossAttn"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const json_t *v = json_object_get(j, rows[i].key);
        const char *s = json_string_value(v);
        if (!v || (!rows[i].value && (json_is_null(v) || json_is_false(v))) ||
            (rows[i].value && s && strcmp(s, rows[i].value) == 0))
            continue;
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known here with this value; only %s is", what, rows[i].key,
                       rows[i].value ? rows[i].value : "null");
    }
    static const char *const ones[] = {"mid_block_scale_factor", "resnet_out_scale_factor"};
    for (int i = 0; i < 2; i++) {
        double v;
        AY_TRY(ay_json_num_or(cx, what, j, ones[i], -1e9, 1e9, 1, &v));
        if (v != 1) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s %g is not known here, only 1", what, ones[i], v);
    }
    const json_t *only = json_object_get(j, "only_cross_attention"), *item;
    bool some = json_is_true(only);
    size_t i;
    json_array_foreach(only, i, item) some |= json_is_true(item);
    return some ? ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: only_cross_attention is not known here; only false is", what)
                : ALLOY_OK;
}

/* One number for all levels, or a list with one for each. */
static alloy_status per_level(ay_ctx *cx, const char *what, const json_t *j, const char *key, int64_t dflt, int levels,
                              int64_t *out) {
    int n = levels;
    if (json_is_array(json_object_get(j, key))) {
        AY_TRY(ay_json_ints(cx, what, j, key, 1, 1 << 16, AY_UNET_LEVELS, out, &n));
    } else {
        AY_TRY(ay_json_int_or(cx, what, j, key, 1, 1 << 16, dflt, &out[0]));
        for (int i = 1; i < levels; i++) out[i] = out[0];
    }
    if (n != levels)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s lists %d numbers, expected %d, one for each block", what, key, n,
                       levels);
    return ALLOY_OK;
}

static alloy_status block_types(ay_ctx *cx, const char *what, const json_t *j, const char *key, const char *with,
                                const char *without, int levels, bool *attention) {
    const json_t *a = json_object_get(j, key);
    if (!json_is_array(a) || (int)json_array_size(a) != levels) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s must list %d block types, as many as block_out_channels", what, key,
                       levels);
    }
    for (int i = 0; i < levels; i++) {
        const char *s = json_string_value(json_array_get(a, (size_t)i));
        attention[i] = s && strcmp(s, with) == 0;
        if (!attention[i] && (!s || strcmp(s, without) != 0)) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s has \"%s\"; %s and %s are known", what, key, s ? s : "?", with,
                           without);
        }
    }
    return ALLOY_OK;
}

static alloy_status read_levels(ay_ctx *cx, const char *what, const json_t *j, bool ups, ay_unet_config *c) {
    int64_t channels[AY_UNET_LEVELS], heads[AY_UNET_LEVELS], depth[AY_UNET_LEVELS];
    bool down[AY_UNET_LEVELS], up[AY_UNET_LEVELS] = {false};
    AY_TRY(ay_json_ints(cx, what, j, "block_out_channels", 1, 65536, AY_UNET_LEVELS, channels, &c->levels));
    int n = c->levels;
    if (n < 1) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: block_out_channels is empty", what);
    AY_TRY(per_level(cx, what, j, "attention_head_dim", 8, n, heads));
    AY_TRY(per_level(cx, what, j, "transformer_layers_per_block", 1, n, depth));
    AY_TRY(block_types(cx, what, j, "down_block_types", "CrossAttnDownBlock2D", "DownBlock2D", n, down));
    if (ups) AY_TRY(block_types(cx, what, j, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D", n, up));
    for (int i = 0; i < n; i++) {
        c->level[i] = (ay_unet_level){channels[i], heads[i], depth[i], down[i], up[n - 1 - i]};
        if (channels[i] % c->groups) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %lld channels cannot be split into norm_num_groups %lld", what,
                           (long long)channels[i], (long long)c->groups);
        }
        if ((down[i] || c->level[i].up_attention || i == n - 1) && channels[i] % heads[i]) {
            return ay_fail(cx, ALLOY_E_MISMATCH,
                           "%s: %lld channels are not a multiple of attention_head_dim %lld, which counts heads", what,
                           (long long)channels[i], (long long)heads[i]);
        }
        if (depth[i] > 100) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: transformer_layers_per_block above 100", what);
    }
    return channels[0] % 2 || channels[0] > 4096
               ? ay_fail(cx, ALLOY_E_MISMATCH, "%s: block_out_channels begins with %lld, expected an even number to 4096",
                         what, (long long)channels[0])
               : ALLOY_OK;
}

/* AY_ATTENTION_KEY is alloy's own: no checkpoint has it, a converted model's configuration may. */
static alloy_status read_layout(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    const char *layout;
    AY_TRY(ay_json_str_or(cx, what, j, AY_ATTENTION_KEY, "plain", &layout));
    c->split = strcmp(layout, "split-einsum") == 0;
    if (!c->split && strcmp(layout, "plain") != 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: " AY_ATTENTION_KEY " \"%s\" is not known; plain and split-einsum are", what, layout);
    for (int i = 0; c->split && i < c->levels; i++) {
        if (c->level[i].heads > AY_UNET_HEADS)
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %lld heads, at most %d can be split", what, (long long)c->level[i].heads, AY_UNET_HEADS);
    }
    return ALLOY_OK;
}

static alloy_status read_conditions(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    const char *type = json_string_value(json_object_get(j, "addition_embed_type"));
    int64_t width;
    if (!type && (!json_object_get(j, "addition_embed_type") || json_is_null(json_object_get(j, "addition_embed_type"))))
        return ALLOY_OK;
    if (!type || strcmp(type, "text_time") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: addition_embed_type \"%s\" is not known here, only text_time", what,
                       type ? type : "?");
    }
    c->text_time = true;
    AY_TRY(ay_json_int(cx, what, j, "addition_time_embed_dim", 2, 4096, &c->time_dim));
    AY_TRY(ay_json_int(cx, what, j, "projection_class_embeddings_input_dim", 1, 1 << 20, &width));
    /* Six numbers about sizes; a refiner's five come with one text encoder, whose width is then text_embeds' too. */
    c->ids = c->cross_dim + 5 * c->time_dim == width ? 5 : 6;
    c->text_dim = width - c->ids * c->time_dim;
    if (c->time_dim % 2 || c->text_dim < 1) {
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "%s: projection_class_embeddings_input_dim %lld does not hold six times addition_time_embed_dim %lld",
                       what, (long long)width, (long long)c->time_dim);
    }
    return ALLOY_OK;
}

alloy_status ay_sd_unet_read(ay_ctx *cx, const char *what, const json_t *j, bool up, ay_unet_config *c) {
    const char *act;
    AY_TRY(check_unused(cx, what, j));
    AY_TRY(ay_json_int_or(cx, what, j, "in_channels", 1, 1024, 4, &c->in_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "out_channels", 1, 1024, 4, &c->out_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "layers_per_block", 1, AY_UNET_LAYERS, 2, &c->layers));
    AY_TRY(ay_json_int_or(cx, what, j, "norm_num_groups", 1, 65536, 32, &c->groups));
    AY_TRY(ay_json_int_or(cx, what, j, "cross_attention_dim", 1, 1 << 16, 1280, &c->cross_dim));
    AY_TRY(ay_json_int_or(cx, what, j, "conv_in_kernel", 1, 15, 3, &c->conv_in));
    AY_TRY(ay_json_int_or(cx, what, j, "conv_out_kernel", 1, 15, 3, &c->conv_out));
    AY_TRY(ay_json_int_or(cx, what, j, "downsample_padding", 0, 1, 1, &c->down_pad));
    AY_TRY(ay_json_num_or(cx, what, j, "norm_eps", 0, 1, 1e-5, &c->eps));
    AY_TRY(ay_json_num_or(cx, what, j, "freq_shift", -1, 1, 0, &c->freq_shift));
    AY_TRY(ay_json_bool_or(cx, what, j, "flip_sin_to_cos", true, &c->flip));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_linear_projection", false, &c->linear));
    AY_TRY(ay_json_bool_or(cx, what, j, "upcast_attention", false, &c->upcast));
    AY_TRY(ay_json_str_or(cx, what, j, "act_fn", "silu", &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: act_fn \"%s\" is not known here, only silu", what, act);
    }
    if (c->conv_in % 2 == 0 || c->conv_out % 2 == 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: conv_in_kernel and conv_out_kernel must be odd", what);
    if (c->down_pad != 1)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: downsample_padding 0 is not known here, only 1", what);
    AY_TRY(read_levels(cx, what, j, up, c));
    AY_TRY(read_layout(cx, what, j, c));
    return read_conditions(cx, what, j, c);
}

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

static ay_val norm_silu_conv(ay_graph *g, const ay_unet_config *c, const char *norm, const char *conv, ay_val x, int64_t out,
                             int kernel) {
    x = ay_unary(g, AY_OP_SILU, group_norm(g, c, norm, x, c->eps));
    return ay_conv2d_layer(g, conv, x, out, kernel, 1, kernel / 2, true);
}

/* silu_temb [B, 4 * channels of the first level] */
static ay_val resnet(ay_graph *g, const ay_unet_config *c, int64_t index, ay_val x, ay_val silu_temb, int64_t out) {
    ay_push(g, "resnets.%lld", (long long)index);
    ay_val h = norm_silu_conv(g, c, "norm1", "conv1", x, out, 3);
    ay_val t = ay_linear_layer(g, "time_emb_proj", silu_temb, out, true);
    h = ay_add(g, h, ay_reshape(g, t, 4, ay_dim(g, x, 0), out, (int64_t)1, (int64_t)1));
    h = norm_silu_conv(g, c, "norm2", "conv2", h, out, 3);
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
static ay_val transformer(ay_graph *g, const ay_unet_config *c, const ay_unet_level *l, int64_t index, ay_val x, ay_val text) {
    int64_t batch = ay_dim(g, x, 0), channels = ay_dim(g, x, 1), height = ay_dim(g, x, 2), width = ay_dim(g, x, 3);
    ay_push(g, "attentions.%lld", (long long)index);
    ay_val h = group_norm(g, c, "norm", x, 1e-6);
    if (c->split) {
        h = ay_unet_split_blocks(g, c, l, h, text);
        ay_pop(g);
        return ay_add(g, x, h);
    }
    if (!c->linear) h = ay_conv2d_layer(g, "proj_in", h, channels, 1, 1, 0, true);
    h = ay_permute(g, ay_reshape(g, h, 3, batch, channels, height * width), 3, 0, 2, 1); /* [B, hw, C] */
    if (c->linear) h = ay_linear_layer(g, "proj_in", h, channels, true);
    for (int64_t i = 0; i < l->depth; i++) {
        ay_push(g, "transformer_blocks.%lld", (long long)i);
        ay_val n = layer_norm(g, "norm1", h);
        h = ay_add(g, h, attention(g, c, "attn1", n, n, l->heads));
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
    for (int64_t k = 0; k < c->layers; k++) {
        s->x = resnet(g, c, k, s->x, s->temb, l->channels);
        if (l->down_attention) s->x = transformer(g, c, l, k, s->x, s->text);
        s->skips[s->n_skips++] = s->x;
    }
    if (i + 1 < c->levels)
        s->skips[s->n_skips++] = s->x = ay_conv2d_layer(g, "downsamplers.0.conv", s->x, l->channels, 3, 2, 1, true);
    ay_pop(g);
}

static void mid_block(ay_graph *g, const ay_unet_config *c, ay_unet_state *s) {
    const ay_unet_level *l = &c->level[c->levels - 1];
    ay_push(g, "mid_block");
    s->x = resnet(g, c, 0, s->x, s->temb, l->channels);
    s->x = transformer(g, c, l, 0, s->x, s->text);
    s->x = resnet(g, c, 1, s->x, s->temb, l->channels);
    ay_pop(g);
}

static void up_block(ay_graph *g, const ay_unet_config *c, int i, ay_unet_state *s) {
    const ay_unet_level *l = &c->level[c->levels - 1 - i];
    ay_push(g, "up_blocks.%d", i);
    for (int64_t k = 0; k <= c->layers; k++) {
        s->x = resnet(g, c, k, ay_concat(g, 1, 2, s->x, s->skips[--s->n_skips]), s->temb, l->channels);
        if (l->up_attention) s->x = transformer(g, c, l, k, s->x, s->text);
    }
    if (i + 1 < c->levels) {
        ay_val next = s->skips[s->n_skips - 1], up = ay_upsample_nearest(g, s->x, 2, 2);
        for (int axis = 2; axis < 4; axis++) { /* an odd size: nearest neighbours of 2n - 1 are the first of 2n */
            if (ay_dim(g, up, axis) != ay_dim(g, next, axis)) up = ay_slice(g, up, axis, 0, ay_dim(g, next, axis));
        }
        s->x = ay_conv2d_layer(g, "upsamplers.0.conv", up, l->channels, 3, 1, 1, true);
    }
    ay_pop(g);
}

/* silu(temb) [B, 4 * channels of the first level] */
static ay_val time_embedding(ay_graph *g, const ay_unet_config *c, ay_val timestep, ay_val text_embeds, ay_val time_ids) {
    int64_t batch = ay_dim(g, timestep, 0), width = 4 * c->level[0].channels;
    ay_push(g, "time_proj");
    ay_val t = ay_timestep_embedding(g, timestep, c->level[0].channels, c->flip, c->freq_shift, 1);
    ay_pop(g);
    ay_val temb = ay_mlp_silu(g, "time_embedding", t, width, width);
    if (c->text_time) {
        ay_push(g, "add_time_proj");
        ay_val ids =
            ay_timestep_embedding(g, ay_reshape(g, time_ids, 1, batch * c->ids), c->time_dim, c->flip, c->freq_shift, 1);
        ids = ay_reshape(g, ids, 2, batch, c->ids * c->time_dim);
        ay_pop(g);
        temb = ay_add(g, temb, ay_mlp_silu(g, "add_embedding", ay_concat(g, 1, 2, text_embeds, ids), width, width));
    }
    return ay_unary(g, AY_OP_SILU, temb);
}

bool ay_sd_unet_enter(ay_graph *g, const ay_unet_config *c, const ay_sizes *sizes, ay_unet_state *s) {
    int64_t batch = sizes->batch > 0 ? sizes->batch : 1;
    if (sizes->latent_height < 1 || sizes->latent_width < 1 || sizes->text_length < 1) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "latents of %lldx%lld with %lld text tokens: every size must be at least 1",
                      (long long)sizes->latent_width, (long long)sizes->latent_height, (long long)sizes->text_length);
        return false;
    }
    s->x = ay_input(g, "sample", ay_shape(AY_F32, 4, batch, c->in_channels, sizes->latent_height, sizes->latent_width));
    ay_val timestep = ay_input(g, "timestep", ay_shape(AY_F32, 1, batch)), text_embeds = AY_NO_VALUE, time_ids = AY_NO_VALUE;
    s->text = ay_input(g, "encoder_hidden_states", ay_shape(AY_F32, 3, batch, sizes->text_length, c->cross_dim));
    if (c->text_time) {
        text_embeds = ay_input(g, "text_embeds", ay_shape(AY_F32, 2, batch, c->text_dim));
        time_ids = ay_input(g, "time_ids", ay_shape(AY_F32, 2, batch, c->ids));
    }
    if (c->split) s->text = ay_unet_split_text(g, s->text);
    s->temb = time_embedding(g, c, timestep, text_embeds, time_ids);
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
                  norm_silu_conv(g, c, "conv_norm_out", "conv_out", s.x, c->out_channels, (int)c->conv_out));
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
    .lora_aliases = lora_aliases,
    .layouts = layouts,
};
