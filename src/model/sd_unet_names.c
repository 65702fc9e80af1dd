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
 *
 * And what shapes say in either way of writing, also of the half that a control net copies (sd_controlnet.c).
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

bool ay_unet_rename_ldm(const void *cfg, const char *name, char *text, size_t cap) {
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
    AY_UNET_LDM_ALIASES,
    {"conv_norm_out.*", "out.0.*", AY_TAKE_ALL, 0},
    {"conv_out.*", "out.2.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
/* diffusers' own; a control net has no up blocks. */
static const char *const own_keys[] = {"conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight",
                                       "time_embedding.linear_1.weight", NULL};
static const char *const ldm_keys[] = {"input_blocks.0.0.weight", "input_blocks.1.0.in_layers.0.weight", "output_blocks.0.0.in_layers.0.weight",
                                       "time_embed.0.weight", NULL};

/* ---- configuration from shapes --------------------------------------------------------------------------------------- */

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

/* How many blocks the transformer at `where` has (0: there is none), and what it says of the text and of its level. */
static int64_t read_attention(const ay_names *n, const char *where, ay_unet_shapes *s, int level) {
    char blocks[96];
    const ay_type *in = ay_names_find(n, "%s.proj_in.weight", where), *text = ay_names_find(n, "%s.transformer_blocks.0.attn2.to_k.weight", where);
    const ay_type *q = ay_names_find(n, "%s.transformer_blocks.0.attn1.to_q.weight", where), *k = ay_names_find(n, "%s.transformer_blocks.0.attn1.to_k.weight", where);
    if (!in || !text) return 0;
    s->linear = in->rank == 2;
    s->cross = dim(text, 1);
    s->only_cross[level] |= dim(k, 1) != dim(q, 1);
    snprintf(blocks, sizeof blocks, "%s.transformer_blocks.", where);
    return ay_names_count(n, blocks, ".attn1.to_q.weight");
}

/* The middle: its transformer, or whether it is a resnet alone, or nothing. */
static void read_middle(const ay_names *n, const char *attention, const char *resnet, ay_unet_shapes *s) {
    s->mid = read_attention(n, attention, s, s->levels - 1);
    s->middle = s->mid ? AY_UNET_MIDDLE_ATTENTION : ay_names_find(n, "%s", resnet) ? AY_UNET_MIDDLE_RESNET : AY_UNET_MIDDLE_NONE;
}

bool ay_unet_shapes_ldm(const ay_names *n, ay_unet_shapes *s) {
    char where[64];
    *s = (ay_unet_shapes){.levels = 1};
    for (int64_t i = 1;; i++) {
        int at = s->levels - 1;
        const ay_type *conv = ay_names_find(n, "input_blocks.%lld.0.in_layers.2.weight", (long long)i);
        if (!conv && !ay_names_find(n, "input_blocks.%lld.0.op.weight", (long long)i)) break;
        if (!conv) { /* on to the next level */
            if (s->levels == AY_UNET_LEVELS) return false;
            s->levels++;
            continue;
        }
        if (s->layers[at] == AY_UNET_LAYERS) return false;
        s->channels[at] = dim(conv, 0);
        snprintf(where, sizeof where, "input_blocks.%lld.1", (long long)i);
        s->down[at][s->layers[at]++] = read_attention(n, where, s, at);
    }
    for (int64_t i = 0, at = s->levels - 1; at >= 0; at--) {
        for (int64_t k = 0; k <= s->layers[at]; k++, i++) {
            snprintf(where, sizeof where, "output_blocks.%lld.1", (long long)i);
            s->up[at][k] = read_attention(n, where, s, (int)at);
        }
    }
    read_middle(n, "middle_block.1", "middle_block.0.in_layers.0.weight", s);
    return s->layers[0] > 0;
}

bool ay_unet_shapes_own(const ay_names *n, ay_unet_shapes *s) {
    const ay_type *conv;
    char where[64];
    *s = (ay_unet_shapes){.levels = 0};
    for (; (conv = ay_names_find(n, "down_blocks.%d.resnets.0.conv1.weight", s->levels)); s->levels++) {
        int at = s->levels;
        if (at == AY_UNET_LEVELS) return false;
        snprintf(where, sizeof where, "down_blocks.%d.resnets.", at);
        s->layers[at] = ay_names_count(n, where, ".conv1.weight");
        s->channels[at] = dim(conv, 0);
        if (s->layers[at] > AY_UNET_LAYERS) return false;
        for (int64_t k = 0; k < s->layers[at]; k++) {
            snprintf(where, sizeof where, "down_blocks.%d.attentions.%d", at, (int)k);
            s->down[at][k] = read_attention(n, where, s, at);
        }
    }
    for (int i = 0; i < s->levels; i++) {
        int at = s->levels - 1 - i;
        for (int64_t k = 0; k <= s->layers[at]; k++) {
            snprintf(where, sizeof where, "up_blocks.%d.attentions.%d", i, (int)k);
            s->up[at][k] = read_attention(n, where, s, at);
        }
    }
    if (s->levels) read_middle(n, "mid_block.attentions.0", "mid_block.resnets.0.conv1.weight", s);
    return s->levels > 0;
}

static json_t *numbers(const int64_t *v, int64_t n) {
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(a, json_integer(v[i]));
    return a;
}

static bool uniform(const int64_t *v, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        if (v[i] != v[0]) return false;
    }
    return true;
}

/* One number where all are the same. */
static json_t *shortest(const int64_t *v, int64_t n) { return uniform(v, n) ? json_integer(v[0]) : numbers(v, n); }

/* Block types, in the order of the way down or of the way up, which begins with the last level. */
static json_t *types(const ay_unet_shapes *s, bool down, const char *yes, const char *no) {
    json_t *a = json_array();
    for (int i = 0; i < s->levels; i++) json_array_append_new(a, json_string((down ? s->down[i] : s->up[s->levels - 1 - i])[0] ? yes : no));
    return a;
}

/* Blocks have a transformer in each layer or in none. */
static bool all_or_none(const int64_t *depth, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        if (!depth[i] != !depth[0]) return false;
    }
    return true;
}

/* transformer_layers_per_block, and where the way up has other numbers, or numbers that differ inside a block, reverse_.. beside
 * it. A level without transformers on its way down says what its way up has, the last one what the middle has. */
static bool add_depths(const ay_unet_shapes *s, json_t *j) {
    json_t *down = json_array(), *up = json_array();
    bool good = down && up, other = false;
    for (int i = 0; i < s->levels && good; i++) {
        const int64_t *d = s->down[i], *u = s->up[i], n = s->layers[i];
        int64_t one = d[0] ? d[0] : i == s->levels - 1 && s->mid ? s->mid : u[0] ? u[0] : 1;
        good = all_or_none(d, n) && all_or_none(u, n + 1) && !(i == s->levels - 1 && s->mid && one != s->mid);
        other |= !uniform(d, n) || !uniform(u, n + 1) || (u[0] && u[0] != one);
        json_array_append_new(down, d[0] ? shortest(d, n) : json_integer(one));
        json_array_insert_new(up, 0, u[0] ? shortest(u, n + 1) : json_integer(1));
    }
    if (good) json_object_set(j, "transformer_layers_per_block", down);
    if (good) json_object_set(j, "reverse_transformer_layers_per_block", other ? up : json_null());
    json_decref(down);
    json_decref(up);
    return good;
}

/* How many heads, which attention_head_dim means: 8 at every level in version 1, whose projections are convolutions; one for
 * every 64 channels later (configs/stable-diffusion/v1-inference.yaml: num_heads 8; v2-inference.yaml, sd_xl_base.yaml:
 * num_head_channels 64). */
static json_t *heads_of(const ay_unet_shapes *s) {
    int64_t heads[AY_UNET_LEVELS];
    for (int i = 0; i < s->levels; i++) heads[i] = s->linear ? ay_max_i64(s->channels[i] / 64, 1) : 8;
    return numbers(heads, s->levels);
}

/* Without any transformer the text has the width of the published models'. */
json_t *ay_unet_shapes_json(const ay_unet_shapes *s, const char *class_name, const ay_type *in, const ay_type *added, const json_t *base) {
    json_t *only = json_array();
    bool some = false;
    for (int i = 0; i < s->levels; some |= s->only_cross[i++]) json_array_append_new(only, json_boolean(s->only_cross[i]));
    json_t *j = json_pack("{s:s, s:I, s:o, s:I, s:b, s:o, s:o, s:o, s:o}", "_class_name", class_name, "in_channels", (json_int_t)dim(in, 1),
                          "layers_per_block", shortest(s->layers, s->levels), "cross_attention_dim", (json_int_t)(s->cross ? s->cross : added ? 2048 : 768), "use_linear_projection",
                          s->linear, "block_out_channels", numbers(s->channels, s->levels), "down_block_types",
                          types(s, true, "CrossAttnDownBlock2D", "DownBlock2D"), "only_cross_attention", some ? json_incref(only) : json_false(),
                          "mid_block_type", s->middle == AY_UNET_MIDDLE_NONE ? json_null() : json_string(s->mid ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D"));
    json_decref(only);
    if (j && !add_depths(s, j)) {
        json_decref(j);
        return NULL;
    }
    if (j && !json_object_get(base, "attention_head_dim")) json_object_set_new(j, "attention_head_dim", heads_of(s));
    if (j && !added) json_object_set_new(j, "addition_embed_type", json_null());
    if (j && added) { /* sizes are told by 256 numbers each (sd_xl_base.yaml, sd_xl_refiner.yaml: ConcatTimestepEmbedderND, outdim 256) */
        json_object_set_new(j, "addition_embed_type", json_string("text_time"));
        json_object_set_new(j, "projection_class_embeddings_input_dim", json_integer(dim(added, 1)));
        if (!json_is_integer(json_object_get(base, "addition_time_embed_dim"))) json_object_set_new(j, "addition_time_embed_dim", json_integer(256));
    }
    return j;
}

/* Of a whole UNet, which distilled ones are told the guidance in (time_embedding.cond_proj keeps diffusers' name in the other
 * way of writing too). */
static json_t *whole_json(const ay_names *n, const ay_unet_shapes *s, const ay_type *in, const ay_type *out, const ay_type *added, const json_t *base) {
    const ay_type *cond = ay_names_find(n, "time_embedding.cond_proj.weight");
    json_t *j = out && s->cross ? ay_unet_shapes_json(s, "UNet2DConditionModel", in, added, base) : NULL;
    if (!j) return NULL;
    json_object_set_new(j, "out_channels", json_integer(dim(out, 0)));
    json_object_set_new(j, "up_block_types", types(s, false, "CrossAttnUpBlock2D", "UpBlock2D"));
    json_object_set_new(j, "time_cond_proj_dim", cond ? json_integer(dim(cond, 1)) : json_null());
    return j;
}

static json_t *derive_ldm(const ay_names *n, const json_t *base) {
    ay_unet_shapes s;
    if (!ay_unet_shapes_ldm(n, &s)) return NULL;
    return whole_json(n, &s, ay_names_find(n, "input_blocks.0.0.weight"), ay_names_find(n, "out.2.weight"), ay_names_find(n, "label_emb.0.0.weight"), base);
}

static json_t *derive_own(const ay_names *n, const json_t *base) {
    ay_unet_shapes s;
    if (!ay_unet_shapes_own(n, &s)) return NULL;
    return whole_json(n, &s, ay_names_find(n, "conv_in.weight"), ay_names_find(n, "conv_out.weight"), ay_names_find(n, "add_embedding.linear_1.weight"), base);
}

const char *const ay_unet_same[] = {"block_out_channels", "cross_attention_dim", "layers_per_block", "addition_embed_type", NULL};

const ay_naming ay_sd_unet_namings[] = {
    {.name = "LDM", .keys = ldm_keys, .rename = ay_unet_rename_ldm, .aliases = ldm_aliases, .derive = derive_ldm, .same = ay_unet_same},
    {.name = "diffusers", .keys = own_keys, .derive = derive_own, .same = ay_unet_same},
    {.name = NULL},
};
