/* SPDX-License-Identifier: MIT
 *
 * The FLUX.1 transformer (diffusers: FluxTransformer2DModel, models/transformers/transformer_flux.py).
 *
 *   hidden_states [B, S, in] -> x_embedder --.                                  .-> norm_out, proj_out -> sample [B, S, in]
 *   encoder_hidden_states [B, T, J] -> context_embedder -> double blocks -> [text; image] -> single blocks
 *   timestep, guidance, pooled_projections -> time_text_embed -> temb, which modulates every block
 *   txt_ids [T, 3], img_ids [S, 3] -> rotary angles, in float32
 *
 * What people get wrong: text comes before image in every concatenation; modulation chunks are shift, scale, gate in the
 * blocks but scale, shift in norm_out; the timestep arrives divided by 1000 and is multiplied back here, as is guidance.
 */
#include "model/model.h"

#include <math.h>
#include <string.h>

typedef struct flux_config {
    int64_t in_channels, out_channels, patch;
    int64_t layers, single_layers;
    int64_t heads, head_dim, dim;
    int64_t joint_dim, pooled_dim;
    bool guidance;
    int64_t axes[3];
} flux_config;

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    flux_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    const int64_t big = 1 << 20;
    int64_t axes[3] = {16, 56, 56};
    int n = 3;
    AY_TRY(ay_json_int(cx, what, j, "in_channels", 4, 65536, &c->in_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "out_channels", 1, 65536, c->in_channels, &c->out_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "patch_size", 1, 64, 1, &c->patch));
    AY_TRY(ay_json_int(cx, what, j, "num_layers", 0, 1000, &c->layers));
    AY_TRY(ay_json_int(cx, what, j, "num_single_layers", 0, 1000, &c->single_layers));
    AY_TRY(ay_json_int(cx, what, j, "num_attention_heads", 1, 1024, &c->heads));
    AY_TRY(ay_json_int(cx, what, j, "attention_head_dim", 2, 4096, &c->head_dim));
    AY_TRY(ay_json_int(cx, what, j, "joint_attention_dim", 1, big, &c->joint_dim));
    AY_TRY(ay_json_int(cx, what, j, "pooled_projection_dim", 1, big, &c->pooled_dim));
    AY_TRY(ay_json_bool_or(cx, what, j, "guidance_embeds", false, &c->guidance));
    if (json_is_array(json_object_get(j, "axes_dims_rope"))) AY_TRY(ay_json_ints(cx, what, j, "axes_dims_rope", 2, 4096, 3, axes, &n));
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += c->axes[i] = axes[i];
    if (n != 3 || sum != c->head_dim || axes[0] % 2 || axes[1] % 2 || axes[2] % 2) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: axes_dims_rope must be three even numbers that sum to attention_head_dim (%lld)", what,
                       (long long)c->head_dim);
    }
    c->dim = c->heads * c->head_dim;
    *out = c;
    return ALLOY_OK;
}

/* temb [B, dim]: the sum of what the timestep, the guidance and the pooled text say. */
static ay_val time_text_embed(ay_graph *g, const flux_config *c, ay_val timestep, ay_val guidance, ay_val pooled) {
    ay_push(g, "time_text_embed");
    ay_push(g, "time_proj");
    ay_val t = ay_timestep_embedding(g, ay_muls(g, timestep, 1000.0), 256, true, 0, 1);
    ay_val u = guidance == AY_NO_VALUE ? AY_NO_VALUE : ay_timestep_embedding(g, ay_muls(g, guidance, 1000.0), 256, true, 0, 1);
    ay_pop(g);
    ay_val emb = ay_mlp_silu(g, "timestep_embedder", t, c->dim, c->dim);
    if (u != AY_NO_VALUE) emb = ay_add(g, emb, ay_mlp_silu(g, "guidance_embedder", u, c->dim, c->dim));
    emb = ay_add(g, emb, ay_mlp_silu(g, "text_embedder", pooled, c->dim, c->dim));
    ay_pop(g);
    return emb;
}

typedef struct rotary {
    ay_val cos, sin; /* [T + S, 1, head_dim], every frequency twice */
} rotary;

/* FluxPosEmbed: per axis, position times 10000^(-2i/axis_dim). */
static rotary pos_embed(ay_graph *g, const flux_config *c, ay_val txt_ids, ay_val img_ids) {
    ay_push(g, "pos_embed");
    ay_val ids = ay_concat(g, 0, 2, txt_ids, img_ids);
    int64_t length = ay_dim(g, ids, 0);
    ay_val parts[3];
    for (int axis = 0; axis < 3; axis++) {
        float freq[4096];
        for (int64_t i = 0; i < c->axes[axis]; i++) freq[i] = (float)(1.0 / pow(10000.0, (double)(i / 2 * 2) / (double)c->axes[axis]));
        ay_val pos = ay_slice(g, ids, 1, axis, axis + 1);
        parts[axis] = ay_mul(g, pos, ay_const_f32s(g, freq, 2, (int64_t[]){1, c->axes[axis]}));
    }
    ay_val angle = ay_reshape(g, ay_concat_n(g, -1, 3, parts), 3, length, (int64_t)1, c->head_dim);
    rotary r = {ay_unary(g, AY_OP_COS, angle), ay_unary(g, AY_OP_SIN, angle)};
    ay_pop(g);
    return r;
}

/* One projection to normalised heads: [B, S, dim] -> [B, S, heads, head_dim]; norm NULL: values, which are not normalised. */
static ay_val project(ay_graph *g, const flux_config *c, ay_val x, const char *linear, const char *norm) {
    ay_val h = ay_split_heads(g, ay_linear_layer(g, linear, x, c->dim, true), c->heads);
    if (!norm) return h;
    ay_push(g, "%s", norm);
    h = ay_rms_norm(g, h, ay_param(g, "weight", ay_shape(AY_F32, 1, c->head_dim)), 1e-6);
    ay_pop(g);
    return h;
}

/* LayerNorm without parameters, then * (1 + scale) + shift. */
static ay_val modulate(ay_graph *g, ay_val x, ay_val shift, ay_val scale) {
    return ay_modulate(g, ay_layer_norm(g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-6), shift, scale);
}

static ay_val modulation(ay_graph *g, const flux_config *c, const char *name, ay_val silu_temb, int chunks) {
    ay_push(g, "%s", name);
    ay_val m = ay_linear_layer(g, "linear", silu_temb, chunks * c->dim, true);
    ay_pop(g);
    return m;
}

/* Joint attention of both streams; results are the projected [B, S, dim] and [B, T, dim]. */
static void joint_attention(ay_graph *g, const flux_config *c, ay_val img, ay_val txt, rotary r, ay_val *img_out, ay_val *txt_out) {
    int64_t text = ay_dim(g, txt, 1);
    double scale = 1.0 / sqrt((double)c->head_dim);
    ay_push(g, "attn");
    ay_val q = ay_concat(g, 1, 2, project(g, c, txt, "add_q_proj", "norm_added_q"), project(g, c, img, "to_q", "norm_q"));
    ay_val k = ay_concat(g, 1, 2, project(g, c, txt, "add_k_proj", "norm_added_k"), project(g, c, img, "to_k", "norm_k"));
    ay_val v = ay_concat(g, 1, 2, project(g, c, txt, "add_v_proj", NULL), project(g, c, img, "to_v", NULL));
    ay_val o = ay_attend(g, ay_rope(g, q, r.cos, r.sin, true), ay_rope(g, k, r.cos, r.sin, true), v, AY_NO_VALUE, scale);
    *txt_out = ay_linear_layer(g, "to_add_out", ay_slice(g, o, 1, 0, text), c->dim, true);
    *img_out = ay_linear_layer(g, "to_out.0", ay_slice(g, o, 1, text, INT64_MAX), c->dim, true);
    ay_pop(g);
}

static void double_block(ay_graph *g, const flux_config *c, ay_val silu_temb, rotary r, ay_val *img, ay_val *txt) {
    ay_val mi = modulation(g, c, "norm1", silu_temb, 6), mt = modulation(g, c, "norm1_context", silu_temb, 6);
    ay_val ni = modulate(g, *img, ay_chunk(g, mi, c->dim, 0), ay_chunk(g, mi, c->dim, 1));
    ay_val nt = modulate(g, *txt, ay_chunk(g, mt, c->dim, 0), ay_chunk(g, mt, c->dim, 1));
    ay_val oi, ot;
    joint_attention(g, c, ni, nt, r, &oi, &ot);
    *img = ay_gated(g, *img, ay_chunk(g, mi, c->dim, 2), oi);
    *txt = ay_gated(g, *txt, ay_chunk(g, mt, c->dim, 2), ot);
    *img = ay_gated(g, *img, ay_chunk(g, mi, c->dim, 5), ay_feed_forward(g, "ff", modulate(g, *img, ay_chunk(g, mi, c->dim, 3), ay_chunk(g, mi, c->dim, 4))));
    *txt = ay_gated(g, *txt, ay_chunk(g, mt, c->dim, 5), ay_feed_forward(g, "ff_context", modulate(g, *txt, ay_chunk(g, mt, c->dim, 3), ay_chunk(g, mt, c->dim, 4))));
}

static ay_val single_block(ay_graph *g, const flux_config *c, ay_val silu_temb, rotary r, ay_val x) {
    ay_val m = modulation(g, c, "norm", silu_temb, 3);
    ay_val n = modulate(g, x, ay_chunk(g, m, c->dim, 0), ay_chunk(g, m, c->dim, 1));
    ay_val mlp = ay_gelu(g, ay_linear_layer(g, "proj_mlp", n, 4 * c->dim, true), AY_GELU_TANH);
    ay_push(g, "attn");
    ay_val q = ay_rope(g, project(g, c, n, "to_q", "norm_q"), r.cos, r.sin, true);
    ay_val k = ay_rope(g, project(g, c, n, "to_k", "norm_k"), r.cos, r.sin, true);
    ay_val o = ay_attend(g, q, k, project(g, c, n, "to_v", NULL), AY_NO_VALUE, 1.0 / sqrt((double)c->head_dim));
    ay_pop(g);
    return ay_gated(g, x, ay_chunk(g, m, c->dim, 2), ay_linear_layer(g, "proj_out", ay_concat(g, 2, 2, o, mlp), c->dim, true));
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const flux_config *c = cfg;
    int64_t batch = s->batch > 0 ? s->batch : 1, text = s->text_length;
    if (s->latent_height < 2 || s->latent_width < 2 || s->latent_height % 2 || s->latent_width % 2 || text < 1) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "latents of %lldx%lld cannot be packed: both sides must be even", (long long)s->latent_width,
                      (long long)s->latent_height);
        return;
    }
    int64_t tokens = (s->latent_height / 2) * (s->latent_width / 2);
    ay_val hidden = ay_input(g, "hidden_states", ay_shape(AY_F32, 3, batch, tokens, c->in_channels));
    ay_val encoder = ay_input(g, "encoder_hidden_states", ay_shape(AY_F32, 3, batch, text, c->joint_dim));
    ay_val pooled = ay_input(g, "pooled_projections", ay_shape(AY_F32, 2, batch, c->pooled_dim));
    ay_val timestep = ay_input(g, "timestep", ay_shape(AY_F32, 1, batch));
    ay_val img_ids = ay_input(g, "img_ids", ay_shape(AY_F32, 2, tokens, (int64_t)3));
    ay_val txt_ids = ay_input(g, "txt_ids", ay_shape(AY_F32, 2, text, (int64_t)3));
    ay_val guidance = c->guidance ? ay_input(g, "guidance", ay_shape(AY_F32, 1, batch)) : AY_NO_VALUE;

    ay_val silu_temb = ay_unary(g, AY_OP_SILU, time_text_embed(g, c, timestep, guidance, pooled));
    rotary r = pos_embed(g, c, txt_ids, img_ids);
    ay_val img = ay_linear_layer(g, "x_embedder", hidden, c->dim, true);
    ay_val txt = ay_linear_layer(g, "context_embedder", encoder, c->dim, true);
    for (int64_t i = 0; i < c->layers; i++) {
        ay_push(g, "transformer_blocks.%lld", (long long)i);
        double_block(g, c, silu_temb, r, &img, &txt);
        ay_pop(g);
    }
    if (c->single_layers > 0) {
        ay_val x = ay_concat(g, 1, 2, txt, img);
        for (int64_t i = 0; i < c->single_layers; i++) {
            ay_push(g, "single_transformer_blocks.%lld", (long long)i);
            x = single_block(g, c, silu_temb, r, x);
            ay_pop(g);
        }
        img = ay_slice(g, x, 1, text, INT64_MAX);
    }
    ay_push(g, "norm_out");
    ay_val m = ay_linear_layer(g, "linear", silu_temb, 2 * c->dim, true);
    img = modulate(g, img, ay_chunk(g, m, c->dim, 1), ay_chunk(g, m, c->dim, 0));
    ay_pop(g);
    ay_set_output(g, "sample", ay_linear_layer(g, "proj_out", img, c->patch * c->patch * c->out_channels, true));
}

static const ay_keep_rule keep[] = {
    {"time_text_embed.time_proj", AY_OP_COUNT, AY_F32, "timesteps to 1000 keep two digits after the point only in float32"},
    {"pos_embed", AY_OP_COUNT, AY_F32, "rotary angles reach hundreds of radians"},
    {"*", AY_OP_RMS_NORM, AY_F32, "squares of queries and keys leave half's range beyond 256"},
    {"*.attn*", AY_OP_COUNT, AY_F16, NULL},
    {"*.ff*", AY_OP_COUNT, AY_F16, NULL},
    {"*", AY_OP_LINEAR, AY_F16, NULL},
    {"*", AY_OP_GELU, AY_F16, NULL},
    {"*transformer_blocks.*", AY_OP_CONCAT, AY_F16, NULL},
    {"*transformer_blocks.*", AY_OP_COUNT, AY_F32, "the residual stream passes 65504 in the trained models' later blocks"},
    {"", AY_OP_COUNT, AY_F32, "carries the residual stream between the blocks"},
    {"norm_out*", AY_OP_COUNT, AY_F32, "reads the residual stream"},
    {NULL, AY_OP_COUNT, AY_NONE, NULL},
};

static const ay_quant_rule quant_keep[] = {
    {"x_embedder.weight", AY_F16, "input projection: every value of the picture passes it"},
    {"proj_out.weight", AY_F16, "output projection: its error is the picture's"},
    {"context_embedder.weight", AY_F16, "input projection of the text, 0.1 % of the weights"},
    {"time_text_embed.*.linear_1.weight", AY_F16, "input projections of timestep, guidance and pooled text"},
    {"time_text_embed.*", AY_I8, "what it says reaches every block at once"},
    {"norm_out.linear.weight", AY_I8, "scales the last residual stream, nothing after it averages its error"},
    {NULL, AY_NONE, NULL},
};

/* ---- how Black Forest Labs' own code names and fuses the tensors, and what ComfyUI keeps of it ------------------------- */

/* black-forest-labs/flux, src/flux/model.py and modules/layers.py: q, k, v are one product, in the single blocks with the
 * feed-forward's first layer behind them; the last modulation is shift, scale where diffusers has scale, shift. */
static const ay_alias bfl_aliases[] = {
    {"time_text_embed.timestep_embedder.linear_1.*", "time_in.in_layer.*", AY_TAKE_ALL, 0},
    {"time_text_embed.timestep_embedder.linear_2.*", "time_in.out_layer.*", AY_TAKE_ALL, 0},
    {"time_text_embed.text_embedder.linear_1.*", "vector_in.in_layer.*", AY_TAKE_ALL, 0},
    {"time_text_embed.text_embedder.linear_2.*", "vector_in.out_layer.*", AY_TAKE_ALL, 0},
    {"time_text_embed.guidance_embedder.linear_1.*", "guidance_in.in_layer.*", AY_TAKE_ALL, 0},
    {"time_text_embed.guidance_embedder.linear_2.*", "guidance_in.out_layer.*", AY_TAKE_ALL, 0},
    {"context_embedder.*", "txt_in.*", AY_TAKE_ALL, 0},
    {"x_embedder.*", "img_in.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.norm1.linear.*", "double_blocks.*.img_mod.lin.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.norm1_context.linear.*", "double_blocks.*.txt_mod.lin.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_q.*", "double_blocks.*.img_attn.qkv.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.to_k.*", "double_blocks.*.img_attn.qkv.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.to_v.*", "double_blocks.*.img_attn.qkv.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.add_q_proj.*", "double_blocks.*.txt_attn.qkv.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.add_k_proj.*", "double_blocks.*.txt_attn.qkv.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.add_v_proj.*", "double_blocks.*.txt_attn.qkv.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.norm_q.weight", "double_blocks.*.img_attn.norm.query_norm.scale", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_k.weight", "double_blocks.*.img_attn.norm.key_norm.scale", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_added_q.weight", "double_blocks.*.txt_attn.norm.query_norm.scale", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_added_k.weight", "double_blocks.*.txt_attn.norm.key_norm.scale", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_out.0.*", "double_blocks.*.img_attn.proj.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_add_out.*", "double_blocks.*.txt_attn.proj.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff.net.0.proj.*", "double_blocks.*.img_mlp.0.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff.net.2.*", "double_blocks.*.img_mlp.2.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff_context.net.0.proj.*", "double_blocks.*.txt_mlp.0.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff_context.net.2.*", "double_blocks.*.txt_mlp.2.*", AY_TAKE_ALL, 0},
    {"single_transformer_blocks.*.norm.linear.*", "single_blocks.*.modulation.lin.*", AY_TAKE_ALL, 0},
    {"single_transformer_blocks.*.attn.to_q.*", "single_blocks.*.linear1.*", AY_TAKE_PART, 0},
    {"single_transformer_blocks.*.attn.to_k.*", "single_blocks.*.linear1.*", AY_TAKE_PART, 1},
    {"single_transformer_blocks.*.attn.to_v.*", "single_blocks.*.linear1.*", AY_TAKE_PART, 2},
    {"single_transformer_blocks.*.proj_mlp.*", "single_blocks.*.linear1.*", AY_TAKE_LAST, 0},
    {"single_transformer_blocks.*.attn.norm_q.weight", "single_blocks.*.norm.query_norm.scale", AY_TAKE_ALL, 0},
    {"single_transformer_blocks.*.attn.norm_k.weight", "single_blocks.*.norm.key_norm.scale", AY_TAKE_ALL, 0},
    {"single_transformer_blocks.*.proj_out.*", "single_blocks.*.linear2.*", AY_TAKE_ALL, 0},
    {"norm_out.linear.*", "final_layer.adaLN_modulation.1.*", AY_TAKE_SWAPPED, 0},
    {"proj_out.*", "final_layer.linear.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const bfl_keys[] = {"double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.norm.key_norm.scale",
                                       "final_layer.adaLN_modulation.1.weight", "img_in.weight", "txt_in.weight", "vector_in.in_layer.weight", NULL};
static const char *const own_keys[] = {"transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.norm_k.weight", "norm_out.linear.weight",
                                       "x_embedder.weight", "context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight",
                                       "transformer_blocks.0.attn.norm_added_k.weight", NULL};

typedef struct flux_shapes {
    const ay_type *x, *text, *pooled, *head, *out; /* img_in, txt_in, vector_in, a norm of queries, proj_out */
    int64_t layers, single_layers;
    bool guidance;
} flux_shapes;

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

/* config.json of transformer_flux.py. Every published model has patches of 1 and axes of 1/8, 7/16, 7/16 of a head. */
static json_t *config_of(const flux_shapes *s, const json_t *base) {
    int64_t head = dim(s->head, 0), width = dim(s->x, 0), in = dim(s->x, 1), out = dim(s->out, 0), axis = head * 7 / 16 / 2 * 2;
    if (head < 2 || !width || width % head || !in || !out) return NULL;
    json_t *j = json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "_class_name", "FluxTransformer2DModel", "patch_size", 1,
                          "in_channels", (json_int_t)in, "out_channels", (json_int_t)out, "num_layers", (json_int_t)s->layers,
                          "num_single_layers", (json_int_t)s->single_layers, "attention_head_dim", (json_int_t)head, "num_attention_heads",
                          (json_int_t)(width / head), "joint_attention_dim", (json_int_t)dim(s->text, 1), "pooled_projection_dim",
                          (json_int_t)dim(s->pooled, 1), "guidance_embeds", s->guidance);
    if (j && !json_object_get(base, "axes_dims_rope")) {
        json_object_set_new(j, "axes_dims_rope", json_pack("[I, I, I]", (json_int_t)(head - 2 * axis), (json_int_t)axis, (json_int_t)axis));
    }
    return j;
}

static json_t *derive_bfl(const ay_names *n, const json_t *base) {
    flux_shapes s = {ay_names_find(n, "img_in.weight"), ay_names_find(n, "txt_in.weight"), ay_names_find(n, "vector_in.in_layer.weight"),
                     ay_names_find(n, "double_blocks.0.img_attn.norm.key_norm.scale"), ay_names_find(n, "final_layer.linear.weight"),
                     ay_names_count(n, "double_blocks.", ".img_attn.qkv.weight"), ay_names_count(n, "single_blocks.", ".linear1.weight"),
                     ay_names_find(n, "guidance_in.in_layer.weight") != NULL};
    return config_of(&s, base);
}

static json_t *derive_own(const ay_names *n, const json_t *base) {
    flux_shapes s = {ay_names_find(n, "x_embedder.weight"), ay_names_find(n, "context_embedder.weight"),
                     ay_names_find(n, "time_text_embed.text_embedder.linear_1.weight"), ay_names_find(n, "transformer_blocks.0.attn.norm_k.weight"),
                     ay_names_find(n, "proj_out.weight"), ay_names_count(n, "transformer_blocks.", ".attn.to_q.weight"),
                     ay_names_count(n, "single_transformer_blocks.", ".attn.to_q.weight"),
                     ay_names_find(n, "time_text_embed.guidance_embedder.linear_1.weight") != NULL};
    return config_of(&s, base);
}

static const char *const same[] = {"attention_head_dim", NULL};

static const ay_naming namings[] = {
    {.name = "Black Forest Labs", .keys = bfl_keys, .aliases = bfl_aliases, .derive = derive_bfl, .same = same},
    {.name = "diffusers", .keys = own_keys, .derive = derive_own, .same = same},
    {.name = NULL},
};

/* XLabs-AI/x-flux, src/flux/modules/layers.py: adapters are attention processors, 1 of the picture's stream, 2 of the text's. */
static const ay_alias lora_aliases[] = {
    {"transformer_blocks.*.attn.to_q.*", "double_blocks.*.processor.qkv_lora1.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.to_k.*", "double_blocks.*.processor.qkv_lora1.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.to_v.*", "double_blocks.*.processor.qkv_lora1.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.add_q_proj.*", "double_blocks.*.processor.qkv_lora2.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.add_k_proj.*", "double_blocks.*.processor.qkv_lora2.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.add_v_proj.*", "double_blocks.*.processor.qkv_lora2.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.to_out.0.*", "double_blocks.*.processor.proj_lora1.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_add_out.*", "double_blocks.*.processor.proj_lora2.*", AY_TAKE_ALL, 0},
    {"single_transformer_blocks.*.attn.to_q.*", "single_blocks.*.processor.qkv.*", AY_TAKE_PART, 0},
    {"single_transformer_blocks.*.attn.to_k.*", "single_blocks.*.processor.qkv.*", AY_TAKE_PART, 1},
    {"single_transformer_blocks.*.attn.to_v.*", "single_blocks.*.processor.qkv.*", AY_TAKE_PART, 2},
    {"single_transformer_blocks.*.proj_out.*", "single_blocks.*.processor.proj.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};

static const char *const f32_inputs[] = {"timestep", "guidance", "img_ids", "txt_ids", NULL};

const ay_arch ay_arch_flux = {
    .class_name = "FluxTransformer2DModel",
    .graph_kind = "",
    .configure = configure,
    .build = build,
    .keep = keep,
    .f32_inputs = f32_inputs,
    .quant_keep = quant_keep,
    .namings = namings,
    .first_layer = "x_embedder.weight",
    .lora_aliases = lora_aliases,
};
