/* SPDX-License-Identifier: MIT
 *
 * ControlNet for Stable Diffusion (diffusers: models/controlnets/controlnet.py, ControlNetModel): the half of the UNet that
 * goes down, which sees a picture beside the latents, and a 1x1 convolution on each of its results.
 *
 *   the UNet's inputs and controlnet_cond [B, 3, H, W], 0 to 1 -> down_block_res_samples_0.., mid_block_res_sample, which
 *   the UNet adds to its own (times a strength that is the pipeline's)
 *
 * diffusers returns the first ones as a tuple; here each is an output of its own.
 */
#include "model/sd_unet.h"

#include <stdio.h>
#include <string.h>

enum { MOST_STEPS = 16 };

typedef struct controlnet_config {
    ay_unet_config unet;
    int64_t channels; /* of the picture */
    int64_t steps[MOST_STEPS];
    int n_steps; /* each but the first halves the picture */
    bool bgr;
} controlnet_config;

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    static const int64_t published[] = {16, 32, 96, 256};
    controlnet_config *c = ay_alloc(arena, sizeof *c);
    const json_t *steps = json_object_get(j, "conditioning_embedding_out_channels");
    const char *order;
    bool pools;
    if (!c) return ay_nomem(cx);
    AY_TRY(ay_sd_unet_read(cx, what, j, false, &c->unet));
    AY_TRY(ay_json_int_or(cx, what, j, "conditioning_channels", 1, 16, 3, &c->channels));
    AY_TRY(ay_json_str_or(cx, what, j, "controlnet_conditioning_channel_order", "rgb", &order));
    AY_TRY(ay_json_bool_or(cx, what, j, "global_pool_conditions", false, &pools));
    if (pools) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: global_pool_conditions is not known here; only false is", what);
    if (strcmp(order, "rgb") != 0 && strcmp(order, "bgr") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: controlnet_conditioning_channel_order \"%s\" is not known here; rgb and bgr are", what, order);
    }
    c->bgr = strcmp(order, "bgr") == 0;
    c->n_steps = 4;
    memcpy(c->steps, published, sizeof published);
    if (steps && !json_is_null(steps)) {
        AY_TRY(ay_json_ints(cx, what, j, "conditioning_embedding_out_channels", 1, 65536, MOST_STEPS, c->steps, &c->n_steps));
    }
    if (c->n_steps < 1 || c->channels != 3) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: pictures of %lld channels in %d steps are not known here", what, (long long)c->channels, c->n_steps);
    }
    *out = c;
    return ALLOY_OK;
}

/* controlnet_cond [B, 3, H, W] to [B, C, h, w] */
static ay_val embed(ay_graph *g, const controlnet_config *c, int64_t batch, const ay_sizes *s) {
    int64_t factor = (int64_t)1 << (c->n_steps - 1);
    ay_val x = ay_input(g, "controlnet_cond", ay_shape(AY_F32, 4, batch, c->channels, s->latent_height * factor, s->latent_width * factor));
    if (c->bgr) x = ay_concat(g, 1, 3, ay_slice(g, x, 1, 2, 3), ay_slice(g, x, 1, 1, 2), ay_slice(g, x, 1, 0, 1));
    ay_push(g, "controlnet_cond_embedding");
    x = ay_unary(g, AY_OP_SILU, ay_conv2d_layer(g, "conv_in", x, c->steps[0], 3, 1, 1, true));
    ay_push(g, "blocks");
    for (int i = 0; i + 1 < c->n_steps; i++) {
        char name[16];
        for (int half = 0; half < 2; half++) {
            snprintf(name, sizeof name, "%d", 2 * i + half);
            x = ay_unary(g, AY_OP_SILU, ay_conv2d_layer(g, name, x, c->steps[i + half], 3, 1 + half, 1, true));
        }
    }
    ay_pop(g);
    x = ay_conv2d_layer(g, "conv_out", x, c->unet.level[0].channels, 3, 1, 1, true);
    ay_pop(g);
    return x;
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *sizes) {
    const controlnet_config *c = cfg;
    ay_unet_state s = {.n_skips = 0};
    if (!ay_sd_unet_enter(g, &c->unet, sizes, &s)) return;
    s.x = ay_add(g, s.x, embed(g, c, ay_dim(g, s.x, 0), sizes));
    ay_sd_unet_down(g, &c->unet, &s);
    for (int i = 0; i < s.n_skips && ay_graph_status(g) == ALLOY_OK; i++) {
        char name[64];
        snprintf(name, sizeof name, "controlnet_down_blocks.%d", i);
        ay_val x = ay_conv2d_layer(g, name, s.skips[i], ay_dim(g, s.skips[i], 1), 1, 1, 0, true);
        snprintf(name, sizeof name, "down_block_res_samples_%d", i);
        ay_set_output(g, name, x);
    }
    ay_set_output(g, "mid_block_res_sample", ay_conv2d_layer(g, "controlnet_mid_block", s.x, ay_dim(g, s.x, 1), 1, 1, 0, true));
}

/* ---- names: the original code's (lllyasviel/ControlNet, cldm/cldm.py: ControlNet), which keeps the UNet's and counts every layer
 * of the sequence that reads the picture, activations too; and diffusers' own --------------------------------------------- */

static bool rename_cldm(const void *cfg, const char *name, char *text, size_t cap) {
    static const char embedding[] = "controlnet_cond_embedding.";
    const controlnet_config *c = cfg;
    if (strncmp(name, embedding, sizeof embedding - 1) != 0) return ay_unet_rename_ldm(&c->unet, name, text, cap);
    const char *rest = name + sizeof embedding - 1, *end = strrchr(rest, '.');
    int n;
    if (sscanf(rest, "blocks.%d", &n) == 1 && n >= 0 && n < 2 * MOST_STEPS) n++;
    else n = strncmp(rest, "conv_out.", 9) == 0 ? 2 * c->n_steps - 1 : 0;
    return end && snprintf(text, cap, "input_hint_block.%d%s", 2 * n, end) < (int)cap;
}

static const ay_alias cldm_aliases[] = {
    AY_UNET_LDM_ALIASES,
    {"controlnet_down_blocks.*.*", "zero_convs.*.0.*", AY_TAKE_ALL, 0},
    {"controlnet_mid_block.*", "middle_block_out.0.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const cldm_keys[] = {"input_blocks.0.0.weight", "time_embed.0.weight", "input_hint_block.0.weight", "zero_convs.0.0.weight",
                                        "middle_block_out.0.weight", NULL};
static const char *const own_keys[] = {"conv_in.weight", "controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight",
                                       "controlnet_mid_block.weight", NULL};

/* The common part and how wide the picture is on its way down: `first` and each second one of what follows at `format`, which
 * counts by `by`. */
static json_t *with_picture(json_t *j, const ay_names *n, const ay_type *first, const char *format, int from, int by) {
    json_t *steps = json_array();
    const ay_type *w = first;
    for (int i = from; w && w->rank == 4 && json_array_size(steps) < MOST_STEPS; i += by) {
        char name[96];
        json_array_append_new(steps, json_integer(w->dim[0]));
        snprintf(name, sizeof name, "%s.%d.weight", format, i);
        w = ay_names_find(n, "%s", name);
    }
    bool good = j && first && first->rank == 4 && json_array_size(steps) > 0;
    if (good) json_object_set_new(j, "conditioning_channels", json_integer(first->dim[1]));
    if (good) json_object_set(j, "conditioning_embedding_out_channels", steps);
    json_decref(steps);
    if (good) return j;
    json_decref(j);
    return NULL;
}

static json_t *derive_cldm(const ay_names *n, const json_t *base) {
    ay_unet_shapes s;
    if (!ay_unet_shapes_ldm(n, &s) || s.middle == AY_UNET_MIDDLE_NONE) return NULL;
    json_t *j = ay_unet_shapes_json(&s, "ControlNetModel", ay_names_find(n, "input_blocks.0.0.weight"), ay_names_find(n, "label_emb.0.0.weight"), base);
    return with_picture(j, n, ay_names_find(n, "input_hint_block.0.weight"), "input_hint_block", 4, 4);
}

static json_t *derive_own(const ay_names *n, const json_t *base) {
    ay_unet_shapes s;
    if (!ay_unet_shapes_own(n, &s) || s.middle == AY_UNET_MIDDLE_NONE) return NULL;
    json_t *j = ay_unet_shapes_json(&s, "ControlNetModel", ay_names_find(n, "conv_in.weight"), ay_names_find(n, "add_embedding.linear_1.weight"), base);
    return with_picture(j, n, ay_names_find(n, "controlnet_cond_embedding.conv_in.weight"), "controlnet_cond_embedding.blocks", 1, 2);
}

static const ay_naming namings[] = {
    {.name = "cldm", .keys = cldm_keys, .rename = rename_cldm, .aliases = cldm_aliases, .derive = derive_cldm, .same = ay_unet_same},
    {.name = "diffusers", .keys = own_keys, .derive = derive_own, .same = ay_unet_same},
    {.name = NULL},
};

const ay_arch ay_arch_sd_controlnet = {
    .class_name = "ControlNetModel",
    .graph_kind = "",
    .configure = configure,
    .build = build,
    .keep = ay_sd_unet_keep,
    .f32_inputs = ay_sd_unet_f32_inputs,
    .namings = namings,
};
