/* SPDX-License-Identifier: MIT
 *
 * How the UNet's checkpoints are written by the code it was published with (CompVis/stable-diffusion,
 * ldm/modules/diffusionmodules/openaimodel.py; Stability-AI/generative-models keeps it): blocks in one row, numbered through
 * all levels, where diffusers counts levels and layers.
 *
 *   input_blocks.0.0                     conv_in
 *   input_blocks.{1 + i(n + 1) + k}      down_blocks.i: resnets.k (.0), attentions.k (.1); downsampler (.0.op) where k = n layers
 *   middle_block.0, .1, .2               mid_block: resnets.0, attentions.0, resnets.1
 *   output_blocks.{i(n + 1) + k}         up_blocks.i: resnets.k (.0), attentions.k (.1); the last one's upsampler after them
 */
#include "model/sd_unet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ----------------------------------------------------------------------------------------------------------- */

/* Text after `head` in `name`, or NULL. */
static const char *after(const char *name, const char *head) {
    size_t n = strlen(head);
    return strncmp(name, head, n) == 0 ? name + n : NULL;
}

/* "12.rest": the number, and the text behind its dot. */
static const char *take_number(const char *s, int64_t *n) {
    char *end;
    if (!s || *s < '0' || *s > '9') return NULL;
    *n = strtol(s, &end, 10);
    return *end == '.' ? end + 1 : NULL;
}

/* What a resnet's layers are called inside their block; other text stays. */
static const char *resnet_layer(const char *rest, char *text, size_t cap) {
    static const char *const rows[][2] = {
        {"norm1.", "in_layers.0."},  {"conv1.", "in_layers.2."},  {"time_emb_proj.", "emb_layers.1."},
        {"norm2.", "out_layers.0."}, {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *tail = after(rest, rows[i][0]);
        if (tail && snprintf(text, cap, "%s%s", rows[i][1], tail) < (int)cap) return text;
    }
    return rest;
}

/* `rest` is what follows "down_blocks.i." and the like; `block` what the row of blocks is called, `at` the number of the
 * block's first layer in it; the sampler comes after its layers. */
static bool rename_block(const ay_unet_config *c, const char *rest, const char *row, int64_t at, bool up, int level, char *text, size_t cap) {
    int64_t k;
    char layer[128];
    const char *tail = take_number(after(rest, "resnets."), &k);
    if (tail) return snprintf(text, cap, "%s.%lld.0.%s", row, (long long)(at + k), resnet_layer(tail, layer, sizeof layer)) < (int)cap;
    tail = take_number(after(rest, "attentions."), &k);
    if (tail) return snprintf(text, cap, "%s.%lld.1.%s", row, (long long)(at + k), tail) < (int)cap;
    tail = after(rest, up ? "upsamplers.0.conv." : "downsamplers.0.conv.");
    if (!tail) return false;
    if (!up) return snprintf(text, cap, "%s.%lld.0.op.%s", row, (long long)(at + c->level[level].layers), tail) < (int)cap;
    return snprintf(text, cap, "%s.%lld.%d.conv.%s", row, (long long)(at + c->level[level].layers), c->level[level].up_attention ? 2 : 1, tail) < (int)cap;
}

static bool rename_mid(const char *rest, char *text, size_t cap) {
    int64_t k;
    char layer[128];
    const char *tail = take_number(after(rest, "resnets."), &k);
    if (tail) return snprintf(text, cap, "middle_block.%lld.%s", (long long)(2 * k), resnet_layer(tail, layer, sizeof layer)) < (int)cap;
    tail = take_number(after(rest, "attentions."), &k);
    return tail && snprintf(text, cap, "middle_block.%lld.%s", (long long)(2 * k + 1), tail) < (int)cap;
}

/* How many layers and samplers there are in the levels from `from` to before `to`. */
static int64_t before(const ay_unet_config *c, int64_t from, int64_t to) {
    int64_t n = 0;
    for (int64_t i = from; i < to; i++) n += c->level[i].layers + 1;
    return n;
}

static bool rename_ldm(const void *cfg, const char *name, char *text, size_t cap) {
    const ay_unet_config *c = cfg;
    int64_t i;
    const char *rest = after(name, "mid_block.");
    if (rest) return rename_mid(rest, text, cap);
    rest = take_number(after(name, "down_blocks."), &i);
    if (rest && i < c->levels) return rename_block(c, rest, "input_blocks", 1 + before(c, 0, i), false, (int)i, text, cap);
    rest = take_number(after(name, "up_blocks."), &i);
    if (rest && i < c->levels) return rename_block(c, rest, "output_blocks", before(c, c->levels - i, c->levels), true, c->levels - 1 - (int)i, text, cap);
    return false;
}

static const ay_alias ldm_aliases[] = {
    {"conv_in.*", "input_blocks.0.0.*", AY_TAKE_ALL, 0},
    {"conv_norm_out.*", "out.0.*", AY_TAKE_ALL, 0},
    {"conv_out.*", "out.2.*", AY_TAKE_ALL, 0},
    {"time_embedding.linear_1.*", "time_embed.0.*", AY_TAKE_ALL, 0},
    {"time_embedding.linear_2.*", "time_embed.2.*", AY_TAKE_ALL, 0},
    {"add_embedding.linear_1.*", "label_emb.0.0.*", AY_TAKE_ALL, 0},
    {"add_embedding.linear_2.*", "label_emb.0.2.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const ldm_keys[] = {"input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "output_blocks.0.0.in_layers.0.weight",
                                       "time_embed.0.weight", NULL};

/* ---- configuration from shapes --------------------------------------------------------------------------------------- */

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

typedef struct ldm_shapes {
    int64_t layers, cross, depth[AY_UNET_LEVELS], channels[AY_UNET_LEVELS];
    bool down[AY_UNET_LEVELS], up[AY_UNET_LEVELS], linear;
    int levels;
} ldm_shapes;

/* The transformer at `where`: its depth (0: there is none), and what it says of the text. */
static int64_t read_attention(const ay_names *n, const char *where, ldm_shapes *s) {
    char blocks[96];
    const ay_type *in = ay_names_find(n, "%s.proj_in.weight", where), *text = ay_names_find(n, "%s.transformer_blocks.0.attn2.to_k.weight", where);
    if (!in || !text) return 0;
    s->linear = in->rank == 2;
    s->cross = dim(text, 1);
    snprintf(blocks, sizeof blocks, "%s.transformer_blocks.", where);
    return ay_names_count(n, blocks, ".attn1.to_q.weight");
}

static bool read_ldm(const ay_names *n, ldm_shapes *s) {
    int64_t in_level = 0;
    char where[64];
    *s = (ldm_shapes){.levels = 1};
    for (int64_t i = 1;; i++) {
        int at = s->levels - 1;
        const ay_type *conv = ay_names_find(n, "input_blocks.%lld.0.in_layers.2.weight", (long long)i);
        if (!conv && !ay_names_find(n, "input_blocks.%lld.0.op.weight", (long long)i)) break;
        if (!conv) { /* on to the next level */
            if (s->levels == AY_UNET_LEVELS || (s->layers && in_level != s->layers)) return false;
            s->layers = in_level;
            in_level = 0;
            s->levels++;
            continue;
        }
        in_level++;
        s->channels[at] = dim(conv, 0);
        snprintf(where, sizeof where, "input_blocks.%lld.1", (long long)i);
        s->depth[at] = read_attention(n, where, s);
        s->down[at] = s->depth[at] > 0;
    }
    if (!in_level || (s->layers && in_level != s->layers)) return false;
    s->layers = in_level;
    int64_t mid = read_attention(n, "middle_block.1", s);
    for (int i = 0; i < s->levels; i++) {
        snprintf(where, sizeof where, "output_blocks.%lld.1", (long long)(i * (s->layers + 1)));
        int64_t depth = read_attention(n, where, s);
        s->up[i] = depth > 0;
        if (!s->depth[s->levels - 1 - i]) s->depth[s->levels - 1 - i] = depth ? depth : 1;
    }
    if (!s->down[s->levels - 1] && mid) s->depth[s->levels - 1] = mid;
    return mid > 0;
}

static json_t *numbers(const int64_t *v, int n) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_integer(v[i]));
    return a;
}

static json_t *types(const bool *with, int n, const char *yes, const char *no) {
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_string(with[i] ? yes : no));
    return a;
}

/* How many heads, which attention_head_dim means: 8 at every level in version 1, whose projections are convolutions; one for
 * every 64 channels later (configs/stable-diffusion/v1-inference.yaml: num_heads 8; v2-inference.yaml, sd_xl_base.yaml:
 * num_head_channels 64). */
static json_t *heads_of(const ldm_shapes *s) {
    int64_t heads[AY_UNET_LEVELS];
    for (int i = 0; i < s->levels; i++) heads[i] = s->linear ? ay_max_i64(s->channels[i] / 64, 1) : 8;
    return numbers(heads, s->levels);
}

static json_t *derive_ldm(const ay_names *n, const json_t *base) {
    ldm_shapes s;
    const ay_type *in = ay_names_find(n, "input_blocks.0.0.weight"), *out = ay_names_find(n, "out.2.weight"), *added = ay_names_find(n, "label_emb.0.0.weight");
    if (!read_ldm(n, &s) || !out) return NULL;
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:o, s:o, s:o, s:o}", "_class_name", "UNet2DConditionModel", "in_channels",
                          (json_int_t)dim(in, 1), "out_channels", (json_int_t)dim(out, 0), "layers_per_block", (json_int_t)s.layers,
                          "cross_attention_dim", (json_int_t)s.cross, "use_linear_projection", s.linear, "block_out_channels",
                          numbers(s.channels, s.levels), "transformer_layers_per_block", numbers(s.depth, s.levels), "down_block_types",
                          types(s.down, s.levels, "CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types",
                          types(s.up, s.levels, "CrossAttnUpBlock2D", "UpBlock2D"));
    if (j && !json_object_get(base, "attention_head_dim")) json_object_set_new(j, "attention_head_dim", heads_of(&s));
    if (j && !added) json_object_set_new(j, "addition_embed_type", json_null());
    if (j && added) { /* sizes are told by 256 numbers each (sd_xl_base.yaml: ConcatTimestepEmbedderND, outdim 256) */
        json_object_set_new(j, "addition_embed_type", json_string("text_time"));
        json_object_set_new(j, "projection_class_embeddings_input_dim", json_integer(dim(added, 1)));
        if (!json_is_integer(json_object_get(base, "addition_time_embed_dim"))) json_object_set_new(j, "addition_time_embed_dim", json_integer(256));
    }
    return j;
}

static const char *const same[] = {"block_out_channels", "cross_attention_dim", "layers_per_block", "addition_embed_type", NULL};

const ay_naming ay_sd_unet_namings[] = {
    {.name = "LDM", .keys = ldm_keys, .rename = rename_ldm, .aliases = ldm_aliases, .derive = derive_ldm, .same = same},
    {.name = NULL},
};
