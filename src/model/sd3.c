/* SPDX-License-Identifier: MIT
 *
 * The transformer of Stable Diffusion 3 and 3.5 (diffusers: SD3Transformer2DModel, models/transformers/transformer_sd3.py;
 * JointTransformerBlock in models/attention.py, PatchEmbed in models/embeddings.py).
 *
 *   hidden_states [B, C, h, w] -> pos_embed: patches of p x p, plus a crop of the table of positions -> [B, S, dim] --.
 *   encoder_hidden_states [B, T, J] -> context_embedder -> joint blocks --> norm_out, proj_out, patches back --> sample [B, C, h, w]
 *   timestep [B], pooled_projections [B, P] -> time_text_embed -> temb, which modulates every block
 *
 * What people get wrong: the picture comes before the text in every concatenation; the timestep is not divided by 1000;
 * the table of positions is cropped around its middle; the last block reads the text but does not change it, and its
 * norm1_context, like norm_out, has scale before shift; blocks in dual_attention_layers have a second attention, of the
 * picture alone, that reads the same norm with a modulation of its own.
 */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LAYERS = 1000 };

typedef struct sd3_config {
    int64_t sample, patch, in_channels, out_channels, layers, heads, head_dim, dim;
    int64_t joint_dim, pooled_dim, max_size; /* max_size: side of the stored table; 0: positions are computed */
    bool qk_norm;
    bool dual[MAX_LAYERS];
} sd3_config;

/* ---- configuration -------------------------------------------------------------------------------------------------- */

static alloy_status read_dual(ay_ctx *cx, const char *what, const json_t *j, sd3_config *c) {
    const json_t *list = json_object_get(j, "dual_attention_layers"), *item;
    size_t i;
    if (!list || json_is_null(list)) return ALLOY_OK;
    if (!json_is_array(list)) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: dual_attention_layers must be a list of layers", what);
    json_array_foreach(list, i, item) { /* one beyond the last layer names none, as in the reference */
        if (!json_is_integer(item)) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: dual_attention_layers must be a list of whole numbers", what);
        json_int_t at = json_integer_value(item);
        if (at >= 0 && at < MAX_LAYERS) c->dual[at] = true;
    }
    return ALLOY_OK;
}

static alloy_status read_norm(ay_ctx *cx, const char *what, const json_t *j, sd3_config *c) {
    const json_t *v = json_object_get(j, "qk_norm");
    const char *name = json_string_value(v);
    if (!v || json_is_null(v)) return ALLOY_OK;
    if (!name || strcmp(name, "rms_norm") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: qk_norm \"%s\" is not known here; rms_norm and null are", what, name ? name : "?");
    }
    c->qk_norm = true;
    return ALLOY_OK;
}

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    sd3_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    const int64_t big = 1 << 20;
    int64_t caption;
    bool computed = json_object_get(j, "pos_embed_max_size") && json_is_null(json_object_get(j, "pos_embed_max_size"));
    AY_TRY(ay_json_int_or(cx, what, j, "sample_size", 1, 16384, 128, &c->sample));
    AY_TRY(ay_json_int_or(cx, what, j, "patch_size", 1, 64, 2, &c->patch));
    AY_TRY(ay_json_int_or(cx, what, j, "in_channels", 1, 65536, 16, &c->in_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "out_channels", 1, 65536,
                          json_object_get(j, "out_channels") ? c->in_channels : 16, &c->out_channels)); /* null: as many as come in */
    AY_TRY(ay_json_int_or(cx, what, j, "num_layers", 1, MAX_LAYERS, 18, &c->layers));
    AY_TRY(ay_json_int_or(cx, what, j, "num_attention_heads", 1, 1024, 18, &c->heads));
    AY_TRY(ay_json_int_or(cx, what, j, "attention_head_dim", 1, 4096, 64, &c->head_dim));
    AY_TRY(ay_json_int_or(cx, what, j, "joint_attention_dim", 1, big, 4096, &c->joint_dim));
    AY_TRY(ay_json_int_or(cx, what, j, "caption_projection_dim", 1, big, 1152, &caption));
    AY_TRY(ay_json_int_or(cx, what, j, "pooled_projection_dim", 1, big, 2048, &c->pooled_dim));
    AY_TRY(ay_json_int_or(cx, what, j, "pos_embed_max_size", 0, 16384, computed ? 0 : 96, &c->max_size));
    AY_TRY(read_dual(cx, what, j, c));
    AY_TRY(read_norm(cx, what, j, c));
    c->dim = c->heads * c->head_dim;
    if (caption != c->dim) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: caption_projection_dim %lld must be num_attention_heads times attention_head_dim, %lld",
                       what, (long long)caption, (long long)c->dim);
    }
    if (c->dim % 4) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: a width of %lld cannot hold sines and cosines of two positions; it must be a multiple of 4", what, (long long)c->dim);
    if (c->sample < c->patch) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: sample_size is smaller than patch_size", what);
    *out = c;
    return ALLOY_OK;
}

/* ---- in and out of patches -------------------------------------------------------------------------------------------- */

/* get_2d_sincos_pos_embed for rows x columns patches: [1, S, dim], sines then cosines of the column, then of the row. */
static ay_val computed_positions(ay_graph *g, const sd3_config *c, int64_t rows, int64_t columns) {
    int64_t quarter = c->dim / 4, size[2] = {columns, rows}, shape[3] = {1, rows * columns, c->dim};
    float *table = ay_alloc(g->arena, (size_t)(rows * columns * c->dim) * sizeof *table);
    if (!table) return ay_graph_fail(g, ALLOY_E_NOMEM, "positions of %lldx%lld patches", (long long)columns, (long long)rows);
    for (int64_t k = 0; k < rows * columns; k++) {
        for (int axis = 0; axis < 2; axis++) {
            float spread = (float)((double)size[axis] / (double)(c->sample / c->patch)), at = (float)(axis ? k / columns : k % columns) / spread;
            float *to = table + k * c->dim + axis * 2 * quarter;
            for (int64_t i = 0; i < quarter; i++) {
                double angle = (double)at / pow(10000.0, (double)i / (double)quarter);
                to[i] = (float)sin(angle);
                to[quarter + i] = (float)cos(angle);
            }
        }
    }
    return ay_const_f32s(g, table, 3, shape);
}

/* The middle of the stored table, [1, S, dim]. */
static ay_val cropped_positions(ay_graph *g, const sd3_config *c, int64_t rows, int64_t columns) {
    int64_t m = c->max_size, top = (m - rows) / 2, left = (m - columns) / 2;
    ay_val table = ay_param(g, "pos_embed", ay_shape(AY_F32, 3, (int64_t)1, m * m, c->dim));
    table = ay_slice(g, ay_reshape(g, table, 3, m, m, c->dim), 0, top, top + rows);
    return ay_reshape(g, ay_slice(g, table, 1, left, left + columns), 3, (int64_t)1, rows * columns, c->dim);
}

static ay_val embed_patches(ay_graph *g, const sd3_config *c, ay_val x) {
    int64_t batch = ay_dim(g, x, 0), rows = ay_dim(g, x, 2) / c->patch, columns = ay_dim(g, x, 3) / c->patch;
    ay_push(g, "pos_embed");
    x = ay_conv2d_layer(g, "proj", x, c->dim, (int)c->patch, (int)c->patch, 0, true);
    x = ay_permute(g, ay_reshape(g, x, 3, batch, c->dim, rows * columns), 3, 0, 2, 1);
    x = ay_add(g, x, c->max_size ? cropped_positions(g, c, rows, columns) : computed_positions(g, c, rows, columns));
    ay_pop(g);
    return x;
}

/* [B, S, p * p * C] to [B, C, h, w]. Rows of patches are taken as the batch, so that no rank is above 4. */
static ay_val unpatch(ay_graph *g, const sd3_config *c, ay_val x, int64_t h, int64_t w) {
    int64_t batch = ay_dim(g, x, 0), p = c->patch, rows = h / p, columns = w / p;
    x = ay_reshape(g, x, 4, batch * rows, columns, p, p * c->out_channels);
    x = ay_permute(g, x, 4, 0, 2, 1, 3);
    x = ay_reshape(g, x, 4, batch, rows * p, columns * p, c->out_channels);
    return ay_permute(g, x, 4, 0, 3, 1, 2);
}

/* ---- blocks --------------------------------------------------------------------------------------------------------------- */

/* temb [B, dim]: what the timestep and the pooled text say together. */
static ay_val time_text_embed(ay_graph *g, const sd3_config *c, ay_val timestep, ay_val pooled) {
    ay_push(g, "time_text_embed");
    ay_push(g, "time_proj");
    ay_val t = ay_timestep_embedding(g, timestep, 256, true, 0, 1);
    ay_pop(g);
    ay_val emb = ay_add(g, ay_mlp_silu(g, "timestep_embedder", t, c->dim, c->dim), ay_mlp_silu(g, "text_embedder", pooled, c->dim, c->dim));
    ay_pop(g);
    return emb;
}

static ay_val modulation(ay_graph *g, const sd3_config *c, const char *name, ay_val silu_temb, int chunks) {
    ay_push(g, "%s", name);
    ay_val m = ay_linear_layer(g, "linear", silu_temb, chunks * c->dim, true);
    ay_pop(g);
    return m;
}

static ay_val norm(ay_graph *g, ay_val x) { return ay_layer_norm(g, x, AY_NO_VALUE, AY_NO_VALUE, 1e-6); }

/* [B, S, dim] to heads [B, S, heads, head_dim], normalised where the model does; values are not: name NULL. */
static ay_val project(ay_graph *g, const sd3_config *c, ay_val x, const char *linear, const char *name) {
    ay_val h = ay_split_heads(g, ay_linear_layer(g, linear, x, c->dim, true), c->heads);
    if (!name || !c->qk_norm) return h;
    ay_push(g, "%s", name);
    h = ay_rms_norm(g, h, ay_param(g, "weight", ay_shape(AY_F32, 1, c->head_dim)), 1e-6);
    ay_pop(g);
    return h;
}

static ay_val attend(ay_graph *g, const sd3_config *c, ay_val q, ay_val k, ay_val v) {
    ay_push(g, c->qk_norm ? "normed" : "unnormed"); /* for the rules below; no weights inside */
    ay_val o = ay_attend(g, q, k, v, AY_NO_VALUE, 1.0 / sqrt((double)c->head_dim));
    ay_pop(g);
    return o;
}

/* Both streams at once; results are the projected [B, S, dim] and, unless txt_out is NULL, [B, T, dim]. */
static ay_val joint_attention(ay_graph *g, const sd3_config *c, ay_val img, ay_val txt, ay_val *txt_out) {
    int64_t length = ay_dim(g, img, 1);
    ay_push(g, "attn");
    ay_val q = ay_concat(g, 1, 2, project(g, c, img, "to_q", "norm_q"), project(g, c, txt, "add_q_proj", "norm_added_q"));
    ay_val k = ay_concat(g, 1, 2, project(g, c, img, "to_k", "norm_k"), project(g, c, txt, "add_k_proj", "norm_added_k"));
    ay_val v = ay_concat(g, 1, 2, project(g, c, img, "to_v", NULL), project(g, c, txt, "add_v_proj", NULL));
    ay_val o = attend(g, c, q, k, v);
    if (txt_out) *txt_out = ay_linear_layer(g, "to_add_out", ay_slice(g, o, 1, length, INT64_MAX), c->dim, true);
    ay_val img_out = ay_linear_layer(g, "to_out.0", ay_slice(g, o, 1, 0, length), c->dim, true);
    ay_pop(g);
    return img_out;
}

static ay_val picture_attention(ay_graph *g, const sd3_config *c, ay_val x) {
    ay_push(g, "attn2");
    ay_val o = attend(g, c, project(g, c, x, "to_q", "norm_q"), project(g, c, x, "to_k", "norm_k"), project(g, c, x, "to_v", NULL));
    o = ay_linear_layer(g, "to_out.0", o, c->dim, true);
    ay_pop(g);
    return o;
}

static ay_val mlp(ay_graph *g, const sd3_config *c, const char *name, ay_val x, ay_val mod) {
    ay_val n = ay_modulate(g, norm(g, x), ay_chunk(g, mod, c->dim, 3), ay_chunk(g, mod, c->dim, 4));
    return ay_gated(g, x, ay_chunk(g, mod, c->dim, 5), ay_feed_forward(g, name, n));
}

static void block(ay_graph *g, const sd3_config *c, int64_t index, ay_val silu_temb, ay_val *img, ay_val *txt) {
    bool last = index == c->layers - 1, dual = c->dual[index];
    ay_val mi = modulation(g, c, "norm1", silu_temb, dual ? 9 : 6), mt = modulation(g, c, "norm1_context", silu_temb, last ? 2 : 6);
    ay_val n = norm(g, *img), ni = ay_modulate(g, n, ay_chunk(g, mi, c->dim, 0), ay_chunk(g, mi, c->dim, 1));
    ay_val nt = ay_modulate(g, norm(g, *txt), ay_chunk(g, mt, c->dim, last ? 1 : 0), ay_chunk(g, mt, c->dim, last ? 0 : 1)), ot;
    ay_val x = ay_gated(g, *img, ay_chunk(g, mi, c->dim, 2), joint_attention(g, c, ni, nt, last ? NULL : &ot));
    if (dual) {
        ay_val n2 = ay_modulate(g, n, ay_chunk(g, mi, c->dim, 6), ay_chunk(g, mi, c->dim, 7));
        x = ay_gated(g, x, ay_chunk(g, mi, c->dim, 8), picture_attention(g, c, n2));
    }
    *img = mlp(g, c, "ff", x, mi);
    if (!last) *txt = mlp(g, c, "ff_context", ay_gated(g, *txt, ay_chunk(g, mt, c->dim, 2), ot), mt);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static bool check_sizes(ay_graph *g, const sd3_config *c, const ay_sizes *s) {
    int64_t p = c->patch, h = s->latent_height, w = s->latent_width;
    if (h < p || w < p || h % p || w % p || s->text_length < 1) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "latents of %lldx%lld with %lld text tokens: both sides must be multiples of %lld", (long long)w,
                      (long long)h, (long long)s->text_length, (long long)p);
        return false;
    }
    if (c->max_size && (h / p > c->max_size || w / p > c->max_size)) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "latents of %lldx%lld: the table of positions (pos_embed_max_size) ends at %lld a side",
                      (long long)w, (long long)h, (long long)(c->max_size * p));
        return false;
    }
    return true;
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const sd3_config *c = cfg;
    int64_t batch = s->batch > 0 ? s->batch : 1;
    if (!check_sizes(g, c, s)) return;
    ay_val hidden = ay_input(g, "hidden_states", ay_shape(AY_F32, 4, batch, c->in_channels, s->latent_height, s->latent_width));
    ay_val encoder = ay_input(g, "encoder_hidden_states", ay_shape(AY_F32, 3, batch, s->text_length, c->joint_dim));
    ay_val pooled = ay_input(g, "pooled_projections", ay_shape(AY_F32, 2, batch, c->pooled_dim));
    ay_val timestep = ay_input(g, "timestep", ay_shape(AY_F32, 1, batch));

    ay_val img = embed_patches(g, c, hidden);
    ay_val silu_temb = ay_unary(g, AY_OP_SILU, time_text_embed(g, c, timestep, pooled));
    ay_val txt = ay_linear_layer(g, "context_embedder", encoder, c->dim, true);
    for (int64_t i = 0; i < c->layers; i++) {
        ay_push(g, "transformer_blocks.%lld", (long long)i);
        block(g, c, i, silu_temb, &img, &txt);
        ay_pop(g);
    }
    ay_push(g, "norm_out");
    ay_val m = ay_linear_layer(g, "linear", silu_temb, 2 * c->dim, true);
    img = ay_modulate(g, norm(g, img), ay_chunk(g, m, c->dim, 1), ay_chunk(g, m, c->dim, 0));
    ay_pop(g);
    img = ay_linear_layer(g, "proj_out", img, c->patch * c->patch * c->out_channels, true);
    ay_set_output(g, "sample", unpatch(g, c, img, s->latent_height, s->latent_width));
}

static const ay_keep_rule keep[] = {
    {"time_text_embed.time_proj", AY_OP_COUNT, AY_F32, "timesteps to 1000 keep two digits after the point only in float32"},
    {"*", AY_OP_RMS_NORM, AY_F32, "squares of queries and keys leave half's range beyond 256"},
    {"*.unnormed", AY_OP_COUNT, AY_F32, "queries and keys are not normalised (qk_norm): their products leave half's range"},
    {"*.attn*", AY_OP_COUNT, AY_F16, NULL},
    {"*.ff*", AY_OP_COUNT, AY_F16, NULL},
    {"*", AY_OP_LINEAR, AY_F16, NULL},
    {"*", AY_OP_CONV, AY_F16, NULL},
    {"*", AY_OP_GELU, AY_F16, NULL},
    {"*transformer_blocks.*", AY_OP_COUNT, AY_F32, "the residual stream: sums of many layers, whose largest values leave half's range"},
    {"pos_embed", AY_OP_ADD, AY_F32, "begins the residual stream"},
    {"norm_out*", AY_OP_COUNT, AY_F32, "reads the residual stream"},
    {NULL, AY_OP_COUNT, AY_NONE, NULL},
};

static const ay_quant_rule quant_keep[] = {
    {"pos_embed.pos_embed", AY_F16, "the table of positions, added to every patch"},
    {"pos_embed.proj.weight", AY_F16, "input projection: every value of the picture passes it"},
    {"proj_out.weight", AY_F16, "output projection: its error is the picture's"},
    {"context_embedder.weight", AY_F16, "input projection of the text, 0.3 % of the weights"},
    {"time_text_embed.*.linear_1.weight", AY_F16, "input projections of timestep and pooled text"},
    {"time_text_embed.*", AY_I8, "what it says reaches every block at once"},
    {"norm_out.linear.weight", AY_I8, "scales the last residual stream, nothing after it averages its error"},
    {NULL, AY_NONE, NULL},
};

/* ---- Stability's own names (Stability-AI/sd3.5, mmditx.py), which single files keep ---------------------------------------- */

/* Where the last block reads scale before shift, the original has shift before scale, as in every block. */
static bool rename_mmdit(const void *cfg, const char *name, char *text, size_t cap) {
    const sd3_config *c = cfg;
    char last[64];
    int n = snprintf(last, sizeof last, "transformer_blocks.%lld.norm1_context.linear.", (long long)(c->layers - 1));
    return strncmp(name, last, (size_t)n) == 0 && snprintf(text, cap, "last.%lld.norm1_context.linear.%s", (long long)(c->layers - 1), name + n) < (int)cap;
}

static const ay_alias mmdit_aliases[] = {
    {"pos_embed.pos_embed", "pos_embed", AY_TAKE_ALL, 0},
    {"pos_embed.proj.*", "x_embedder.proj.*", AY_TAKE_ALL, 0},
    {"time_text_embed.timestep_embedder.linear_1.*", "t_embedder.mlp.0.*", AY_TAKE_ALL, 0},
    {"time_text_embed.timestep_embedder.linear_2.*", "t_embedder.mlp.2.*", AY_TAKE_ALL, 0},
    {"time_text_embed.text_embedder.linear_1.*", "y_embedder.mlp.0.*", AY_TAKE_ALL, 0},
    {"time_text_embed.text_embedder.linear_2.*", "y_embedder.mlp.2.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_q.*", "joint_blocks.*.x_block.attn.qkv.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.to_k.*", "joint_blocks.*.x_block.attn.qkv.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.to_v.*", "joint_blocks.*.x_block.attn.qkv.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.add_q_proj.*", "joint_blocks.*.context_block.attn.qkv.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn.add_k_proj.*", "joint_blocks.*.context_block.attn.qkv.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn.add_v_proj.*", "joint_blocks.*.context_block.attn.qkv.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn.norm_q.*", "joint_blocks.*.x_block.attn.ln_q.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_k.*", "joint_blocks.*.x_block.attn.ln_k.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_added_q.*", "joint_blocks.*.context_block.attn.ln_q.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.norm_added_k.*", "joint_blocks.*.context_block.attn.ln_k.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_out.0.*", "joint_blocks.*.x_block.attn.proj.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn.to_add_out.*", "joint_blocks.*.context_block.attn.proj.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn2.to_q.*", "joint_blocks.*.x_block.attn2.qkv.*", AY_TAKE_PART, 0},
    {"transformer_blocks.*.attn2.to_k.*", "joint_blocks.*.x_block.attn2.qkv.*", AY_TAKE_PART, 1},
    {"transformer_blocks.*.attn2.to_v.*", "joint_blocks.*.x_block.attn2.qkv.*", AY_TAKE_PART, 2},
    {"transformer_blocks.*.attn2.norm_q.*", "joint_blocks.*.x_block.attn2.ln_q.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn2.norm_k.*", "joint_blocks.*.x_block.attn2.ln_k.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.attn2.to_out.0.*", "joint_blocks.*.x_block.attn2.proj.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.norm1.linear.*", "joint_blocks.*.x_block.adaLN_modulation.1.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.norm1_context.linear.*", "joint_blocks.*.context_block.adaLN_modulation.1.*", AY_TAKE_ALL, 0},
    {"last.*.norm1_context.linear.*", "joint_blocks.*.context_block.adaLN_modulation.1.*", AY_TAKE_SWAPPED, 0},
    {"transformer_blocks.*.ff.net.0.proj.*", "joint_blocks.*.x_block.mlp.fc1.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff.net.2.*", "joint_blocks.*.x_block.mlp.fc2.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff_context.net.0.proj.*", "joint_blocks.*.context_block.mlp.fc1.*", AY_TAKE_ALL, 0},
    {"transformer_blocks.*.ff_context.net.2.*", "joint_blocks.*.context_block.mlp.fc2.*", AY_TAKE_ALL, 0},
    {"proj_out.*", "final_layer.linear.*", AY_TAKE_ALL, 0},
    {"norm_out.linear.*", "final_layer.adaLN_modulation.1.*", AY_TAKE_SWAPPED, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const mmdit_keys[] = {"joint_blocks.0.x_block.attn.qkv.weight", "joint_blocks.0.context_block.attn.qkv.weight", "x_embedder.proj.weight",
                                         "final_layer.linear.weight", "context_embedder.weight", "y_embedder.mlp.0.weight", NULL};

static const char *const own_keys[] = {"pos_embed.proj.weight", "transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.add_q_proj.weight",
                                       "context_embedder.weight", "norm_out.linear.weight", NULL};

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

typedef struct sd3_shapes {
    const ay_type *x, *text, *pooled, *out, *table, *normed; /* patches, text, pooled text, result, positions, a norm of queries */
    const char *blocks, *first, *second; /* what a block's name begins with, and its attentions' queries */
} sd3_shapes;

/* config.json of transformer_sd3.py. Heads of 64 numbers in every published model (3 medium: 24, 3.5 large: 38), where no norm
 * of queries tells. */
static json_t *config_of(const ay_names *n, const sd3_shapes *s, const json_t *base) {
    int64_t width = dim(s->text, 0), patch = dim(s->x, 2), layers = ay_names_count(n, s->blocks, s->first), side = 0;
    int64_t head = s->normed ? dim(s->normed, 0) : json_integer_value(json_object_get(base, "attention_head_dim"));
    if (head < 1) head = ay_min_i64(64, width);
    while ((side + 1) * (side + 1) <= dim(s->table, 1)) side++;
    if (!width || !patch || width % head || dim(s->x, 0) != width || dim(s->out, 0) % (patch * patch)) return NULL;
    json_t *dual = json_array();
    for (int64_t i = 0; i < layers; i++) {
        if (ay_names_find(n, "%s%lld%s", s->blocks, (long long)i, s->second)) json_array_append_new(dual, json_integer(i));
    }
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "_class_name", "SD3Transformer2DModel", "patch_size",
                     (json_int_t)patch, "in_channels", (json_int_t)dim(s->x, 1), "out_channels", (json_int_t)(dim(s->out, 0) / (patch * patch)),
                     "num_layers", (json_int_t)layers, "attention_head_dim", (json_int_t)head, "num_attention_heads", (json_int_t)(width / head),
                     "joint_attention_dim", (json_int_t)dim(s->text, 1), "caption_projection_dim", (json_int_t)width, "pooled_projection_dim",
                     (json_int_t)dim(s->pooled, 1), "pos_embed_max_size", s->table ? json_integer(side) : json_null(), "dual_attention_layers", dual,
                     "qk_norm", s->normed ? json_string("rms_norm") : json_null());
}

static json_t *derive_mmdit(const ay_names *n, const json_t *base) {
    sd3_shapes s = {ay_names_find(n, "x_embedder.proj.weight"), ay_names_find(n, "context_embedder.weight"), ay_names_find(n, "y_embedder.mlp.0.weight"),
                    ay_names_find(n, "final_layer.linear.weight"), ay_names_find(n, "pos_embed"),
                    ay_names_find(n, "joint_blocks.0.x_block.attn.ln_q.weight"), "joint_blocks.", ".x_block.attn.qkv.weight", ".x_block.attn2.qkv.weight"};
    return config_of(n, &s, base);
}

static json_t *derive_own(const ay_names *n, const json_t *base) {
    sd3_shapes s = {ay_names_find(n, "pos_embed.proj.weight"), ay_names_find(n, "context_embedder.weight"),
                    ay_names_find(n, "time_text_embed.text_embedder.linear_1.weight"), ay_names_find(n, "proj_out.weight"),
                    ay_names_find(n, "pos_embed.pos_embed"), ay_names_find(n, "transformer_blocks.0.attn.norm_q.weight"), "transformer_blocks.",
                    ".attn.to_q.weight", ".attn2.to_q.weight"};
    return config_of(n, &s, base);
}

static const char *const same[] = {"caption_projection_dim", NULL};

static const ay_naming namings[] = {
    {.name = "Stability", .keys = mmdit_keys, .rename = rename_mmdit, .aliases = mmdit_aliases, .derive = derive_mmdit, .same = same},
    {.name = "diffusers", .keys = own_keys, .derive = derive_own, .same = same},
    {.name = NULL},
};

static const char *const f32_inputs[] = {"timestep", NULL};

const ay_arch ay_arch_sd3 = {
    .class_name = "SD3Transformer2DModel",
    .graph_kind = "",
    .configure = configure,
    .build = build,
    .keep = keep,
    .f32_inputs = f32_inputs,
    .quant_keep = quant_keep,
    .namings = namings,
};
