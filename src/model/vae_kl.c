/* SPDX-License-Identifier: MIT
 *
 * AutoencoderKL, decoder and encoder (diffusers: models/autoencoders/autoencoder_kl.py and vae.py).
 *
 *   decoder: z [B, C, h, w] -> (post_quant_conv) conv_in, mid, up blocks, norm, conv_out -> sample [B, 3, H, W], -1 to 1
 *   encoder: x [B, 3, H, W], -1 to 1 -> conv_in, down blocks, mid, norm, conv_out (quant_conv) -> mean, logvar [B, C, h, w]
 *
 * Latents come and go unscaled: scaling_factor and shift_factor are the pipeline's. What people get wrong: a downsampling
 * convolution pads right and bottom only; checkpoints before diffusers 0.18 call the attention query/key/value/proj_attn.
 */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEVELS = 8 };

typedef struct vae_config {
    int64_t in_channels, out_channels, latent_channels, layers, groups;
    int64_t channels[MAX_LEVELS];
    int levels;
    bool quant_conv, post_quant_conv, mid_attention;
} vae_config;

static alloy_status check_blocks(ay_ctx *cx, const char *what, const json_t *j, const char *key, const char *type, int levels) {
    const json_t *a = json_object_get(j, key);
    if (!a) return ALLOY_OK;
    if (!json_is_array(a) || (int)json_array_size(a) != levels) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s must list %d block types, as many as block_out_channels", what, key, levels);
    }
    for (int i = 0; i < levels; i++) {
        const char *s = json_string_value(json_array_get(a, (size_t)i));
        if (!s || strcmp(s, type) != 0) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s has \"%s\"; only %s is known", what, key, s ? s : "?", type);
        }
    }
    return ALLOY_OK;
}

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    vae_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    const char *act;
    AY_TRY(ay_json_int_or(cx, what, j, "in_channels", 1, 1024, 3, &c->in_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "out_channels", 1, 1024, 3, &c->out_channels));
    AY_TRY(ay_json_int(cx, what, j, "latent_channels", 1, 4096, &c->latent_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "layers_per_block", 1, 100, 1, &c->layers));
    AY_TRY(ay_json_int_or(cx, what, j, "norm_num_groups", 1, 65536, 32, &c->groups));
    AY_TRY(ay_json_ints(cx, what, j, "block_out_channels", 1, 65536, MAX_LEVELS, c->channels, &c->levels));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_quant_conv", true, &c->quant_conv));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_post_quant_conv", true, &c->post_quant_conv));
    AY_TRY(ay_json_bool_or(cx, what, j, "mid_block_add_attention", true, &c->mid_attention));
    AY_TRY(ay_json_str_or(cx, what, j, "act_fn", "silu", &act));
    if (strcmp(act, "silu") != 0) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: act_fn \"%s\" is not known here, only silu", what, act);
    AY_TRY(check_blocks(cx, what, j, "down_block_types", "DownEncoderBlock2D", c->levels));
    AY_TRY(check_blocks(cx, what, j, "up_block_types", "UpDecoderBlock2D", c->levels));
    if (c->levels < 1) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: block_out_channels is empty", what);
    for (int i = 0; i < c->levels; i++) {
        if (c->channels[i] % c->groups) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %lld channels cannot be split into norm_num_groups %lld", what, (long long)c->channels[i],
                           (long long)c->groups);
        }
    }
    *out = c;
    return ALLOY_OK;
}

static ay_val group_norm(ay_graph *g, const vae_config *c, const char *name, ay_val x) {
    int64_t channels = ay_dim(g, x, 1);
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, channels)), b = ay_param(g, "bias", ay_shape(AY_F32, 1, channels));
    x = ay_group_norm(g, x, c->groups, w, b, 1e-6);
    ay_pop(g);
    return x;
}

static ay_val norm_silu_conv(ay_graph *g, const vae_config *c, const char *norm, const char *conv, ay_val x, int64_t out) {
    return ay_conv2d_layer(g, conv, ay_unary(g, AY_OP_SILU, group_norm(g, c, norm, x)), out, 3, 1, 1, true);
}

static ay_val resnet(ay_graph *g, const vae_config *c, int64_t index, ay_val x, int64_t out) {
    ay_push(g, "resnets.%lld", (long long)index);
    ay_val h = norm_silu_conv(g, c, "norm1", "conv1", x, out);
    h = norm_silu_conv(g, c, "norm2", "conv2", h, out);
    if (ay_dim(g, x, 1) != out) x = ay_conv2d_layer(g, "conv_shortcut", x, out, 1, 1, 0, true);
    ay_pop(g);
    return ay_add(g, x, h);
}

/* One head over all positions, residual. */
static ay_val attention(ay_graph *g, const vae_config *c, ay_val x) {
    int64_t batch = ay_dim(g, x, 0), channels = ay_dim(g, x, 1), height = ay_dim(g, x, 2), width = ay_dim(g, x, 3);
    ay_push(g, "attentions.0");
    ay_val h = group_norm(g, c, "group_norm", x);
    h = ay_permute(g, ay_reshape(g, h, 3, batch, channels, height * width), 3, 0, 2, 1); /* [B, hw, C] */
    ay_val q = ay_split_heads(g, ay_linear_layer(g, "to_q", h, channels, true), 1);
    ay_val k = ay_split_heads(g, ay_linear_layer(g, "to_k", h, channels, true), 1);
    ay_val v = ay_split_heads(g, ay_linear_layer(g, "to_v", h, channels, true), 1);
    h = ay_attend(g, q, k, v, AY_NO_VALUE, 1.0 / sqrt((double)channels));
    h = ay_linear_layer(g, "to_out.0", h, channels, true);
    h = ay_reshape(g, ay_permute(g, h, 3, 0, 2, 1), 4, batch, channels, height, width);
    ay_pop(g);
    return ay_add(g, x, h);
}

static ay_val mid_block(ay_graph *g, const vae_config *c, ay_val x) {
    int64_t channels = c->channels[c->levels - 1];
    ay_push(g, "mid_block");
    x = resnet(g, c, 0, x, channels);
    if (c->mid_attention) x = attention(g, c, x);
    x = resnet(g, c, 1, x, channels);
    ay_pop(g);
    return x;
}

static void build_decoder(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const vae_config *c = cfg;
    ay_val x = ay_input(g, "z", ay_shape(AY_F32, 4, s->batch > 0 ? s->batch : (int64_t)1, c->latent_channels, s->latent_height, s->latent_width));
    if (c->post_quant_conv) x = ay_conv2d_layer(g, "post_quant_conv", x, c->latent_channels, 1, 1, 0, true);
    ay_push(g, "decoder");
    x = ay_conv2d_layer(g, "conv_in", x, c->channels[c->levels - 1], 3, 1, 1, true);
    x = mid_block(g, c, x);
    for (int i = 0; i < c->levels; i++) {
        ay_push(g, "up_blocks.%d", i);
        for (int64_t k = 0; k <= c->layers; k++) x = resnet(g, c, k, x, c->channels[c->levels - 1 - i]);
        if (i + 1 < c->levels) {
            x = ay_conv2d_layer(g, "upsamplers.0.conv", ay_upsample_nearest(g, x, 2, 2), ay_dim(g, x, 1), 3, 1, 1, true);
        }
        ay_pop(g);
    }
    x = norm_silu_conv(g, c, "conv_norm_out", "conv_out", x, c->out_channels);
    ay_pop(g);
    ay_set_output(g, "sample", x);
}

static void build_encoder(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const vae_config *c = cfg;
    int64_t factor = (int64_t)1 << (c->levels - 1);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 4, s->batch > 0 ? s->batch : (int64_t)1, c->in_channels, s->latent_height * factor,
                                         s->latent_width * factor));
    ay_push(g, "encoder");
    x = ay_conv2d_layer(g, "conv_in", x, c->channels[0], 3, 1, 1, true);
    for (int i = 0; i < c->levels; i++) {
        ay_push(g, "down_blocks.%d", i);
        for (int64_t k = 0; k < c->layers; k++) x = resnet(g, c, k, x, c->channels[i]);
        if (i + 1 < c->levels) x = ay_conv2d_layer(g, "downsamplers.0.conv", ay_pad2d(g, x, 0, 1, 0, 1), c->channels[i], 3, 2, 0, true);
        ay_pop(g);
    }
    x = mid_block(g, c, x);
    x = norm_silu_conv(g, c, "conv_norm_out", "conv_out", x, 2 * c->latent_channels);
    ay_pop(g);
    if (c->quant_conv) x = ay_conv2d_layer(g, "quant_conv", x, 2 * c->latent_channels, 1, 1, 0, true);
    ay_set_output(g, "mean", ay_slice(g, x, 1, 0, c->latent_channels));
    ay_set_output(g, "logvar", ay_slice(g, x, 1, c->latent_channels, INT64_MAX));
}

/* diffusers/models/attention_processor.py and modeling_utils.py, _convert_deprecated_attention_blocks */
static const ay_alias aliases[] = {
    {"*.attentions.0.to_q.*", "*.attentions.0.query.*", AY_TAKE_ALL, 0},
    {"*.attentions.0.to_k.*", "*.attentions.0.key.*", AY_TAKE_ALL, 0},
    {"*.attentions.0.to_v.*", "*.attentions.0.value.*", AY_TAKE_ALL, 0},
    {"*.attentions.0.to_out.0.*", "*.attentions.0.proj_attn.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
/* ---- how the code it was published with writes it (CompVis/stable-diffusion, ldm/modules/diffusionmodules/model.py): levels of
 * the decoder are counted from the finest, attention is of 1x1 convolutions ------------------------------------------------ */

static bool rename_ldm(const void *cfg, const char *name, char *text, size_t cap) {
    const vae_config *c = cfg;
    static const char head[] = "decoder.up_blocks.";
    char *end;
    if (strncmp(name, head, sizeof head - 1) != 0) return false;
    long i = strtol(name + sizeof head - 1, &end, 10);
    if (*end != '.' || i < 0 || i >= c->levels) return false;
    return snprintf(text, cap, "%s%ld%s", head, c->levels - 1 - i, end) < (int)cap;
}

static const ay_alias ldm_aliases[] = {
    {"*.down_blocks.*.resnets.*.conv_shortcut.*", "*.down.*.block.*.nin_shortcut.*", AY_TAKE_ALL, 0},
    {"*.down_blocks.*.resnets.*", "*.down.*.block.*", AY_TAKE_ALL, 0},
    {"*.down_blocks.*.downsamplers.0.conv.*", "*.down.*.downsample.conv.*", AY_TAKE_ALL, 0},
    {"*.up_blocks.*.resnets.*.conv_shortcut.*", "*.up.*.block.*.nin_shortcut.*", AY_TAKE_ALL, 0},
    {"*.up_blocks.*.resnets.*", "*.up.*.block.*", AY_TAKE_ALL, 0},
    {"*.up_blocks.*.upsamplers.0.conv.*", "*.up.*.upsample.conv.*", AY_TAKE_ALL, 0},
    {"*.mid_block.resnets.0.*", "*.mid.block_1.*", AY_TAKE_ALL, 0},
    {"*.mid_block.resnets.1.*", "*.mid.block_2.*", AY_TAKE_ALL, 0},
    {"*.mid_block.attentions.0.group_norm.*", "*.mid.attn_1.norm.*", AY_TAKE_ALL, 0},
    {"*.mid_block.attentions.0.to_q.*", "*.mid.attn_1.q.*", AY_TAKE_ALL, 0},
    {"*.mid_block.attentions.0.to_k.*", "*.mid.attn_1.k.*", AY_TAKE_ALL, 0},
    {"*.mid_block.attentions.0.to_v.*", "*.mid.attn_1.v.*", AY_TAKE_ALL, 0},
    {"*.mid_block.attentions.0.to_out.0.*", "*.mid.attn_1.proj_out.*", AY_TAKE_ALL, 0},
    {"*.conv_norm_out.*", "*.norm_out.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const ldm_keys[] = {"decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight", "encoder.down.0.block.0.conv1.weight",
                                       "decoder.mid.block_1.conv1.weight", NULL};

static const char *const own_keys[] = {"decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight",
                                       "encoder.down_blocks.0.resnets.0.conv1.weight", NULL};

static json_t *repeated(const char *text, int n) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_string(text));
    return a;
}

/* What of a VAE its shapes say: `down` and `layers` are how the encoder's levels are called, and what follows in each. */
static json_t *config_of(const ay_names *n, const char *down, const char *layers, bool attention) {
    const ay_type *in = ay_names_find(n, "encoder.conv_in.weight"), *out = ay_names_find(n, "decoder.conv_out.weight"),
                  *z = ay_names_find(n, "decoder.conv_in.weight"), *level;
    json_t *channels = json_array();
    char first[64];
    int levels = 0;
    for (; levels < MAX_LEVELS && (level = ay_names_find(n, "%s%d%s0.conv1.weight", down, levels, layers)); levels++) {
        json_array_append_new(channels, json_integer(level->rank ? level->dim[0] : 0));
    }
    if (!in || !out || !z || in->rank != 4 || out->rank != 4 || z->rank != 4) {
        json_decref(channels);
        return NULL;
    }
    snprintf(first, sizeof first, "%s0%s", down, layers);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:b, s:b, s:b}", "_class_name", "AutoencoderKL", "in_channels",
                     (json_int_t)in->dim[1], "out_channels", (json_int_t)out->dim[0], "latent_channels", (json_int_t)z->dim[1], "layers_per_block",
                     (json_int_t)ay_names_count(n, first, ".conv1.weight"), "block_out_channels", channels, "down_block_types",
                     repeated("DownEncoderBlock2D", levels), "up_block_types", repeated("UpDecoderBlock2D", levels), "use_quant_conv",
                     ay_names_find(n, "quant_conv.weight") != NULL, "use_post_quant_conv", ay_names_find(n, "post_quant_conv.weight") != NULL,
                     "mid_block_add_attention", attention);
}

static json_t *derive_ldm(const ay_names *n, const json_t *base) {
    return config_of(n, "encoder.down.", ".block.", ay_names_find(n, "decoder.mid.attn_1.q.weight") != NULL);
}
static json_t *derive_own(const ay_names *n, const json_t *base) {
    return config_of(n, "encoder.down_blocks.", ".resnets.",
                     ay_names_find(n, "decoder.mid_block.attentions.0.to_q.weight") || ay_names_find(n, "decoder.mid_block.attentions.0.query.weight"));
}

static const char *const same[] = {"block_out_channels", "latent_channels", NULL};

static const ay_naming namings[] = {
    {.name = "LDM", .keys = ldm_keys, .rename = rename_ldm, .aliases = ldm_aliases, .derive = derive_ldm, .same = same},
    {.name = "diffusers", .keys = own_keys, .derive = derive_own, .same = same},
    {.name = NULL},
};

static const ay_keep_rule keep[] = {{NULL, AY_OP_COUNT, AY_NONE, NULL}};
static const char *const decoder_ignore[] = {"encoder.*", "quant_conv.*", NULL};
static const char *const encoder_ignore[] = {"decoder.*", "post_quant_conv.*", NULL};

static const ay_quant_rule quant_keep[] = {
    {"*conv_in.weight", AY_F16, "input projection: every value passes it"},
    {"*conv_out.weight", AY_F16, "output projection: its error is the picture's"},
    {"*", AY_I8, "4 bits would show in every pixel, and these are 1 % of a model's weights"},
    {NULL, AY_NONE, NULL},
};

const ay_arch ay_arch_vae_kl_decoder = {.class_name = "AutoencoderKL",
                                        .graph_kind = "decoder",
                                        .configure = configure,
                                        .build = build_decoder,
                                        .keep = keep,
                                        .aliases = aliases,
                                        .ignore = decoder_ignore,
                                        .quant_keep = quant_keep,
                                        .namings = namings};
const ay_arch ay_arch_vae_kl_encoder = {.class_name = "AutoencoderKL",
                                        .graph_kind = "encoder",
                                        .configure = configure,
                                        .build = build_encoder,
                                        .keep = keep,
                                        .aliases = aliases,
                                        .ignore = encoder_ignore,
                                        .quant_keep = quant_keep,
                                        .namings = namings};
