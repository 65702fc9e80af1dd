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

const ay_arch ay_arch_sd_controlnet = {
    .class_name = "ControlNetModel",
    .graph_kind = "",
    .configure = configure,
    .build = build,
    .keep = ay_sd_unet_keep,
    .f32_inputs = ay_sd_unet_f32_inputs,
};
